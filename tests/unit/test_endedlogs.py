"""Complete logs of runs that have ended: whole, masked, under names that collide with nobody's, and never in a report's way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dispatcher.configuration import read_policy
from dispatcher.effects.logfile import MOST_LISTED, LogFolder
from dispatcher.endedlogs import file_name, keep_ended, kept_words
from dispatcher.errors import ClusterError, Exit, InputError
from dispatcher.following import follow
from dispatcher.loglines import CHUNK
from dispatcher.observe import Seen
from dispatcher.record import Resources, RunRecord
from dispatcher.slurm import State
from dispatcher.watching import watch
from dispatcher.world import Outcome
from tests.fakes import POLICY, PROFILE, FakeCluster, Fakes, run_record

KEY = run_record().run_key
NAME = f"cluster-default-{KEY}.log"
LINES = b"".join(b"step %d loss 2.0\n" % step for step in range(60_000))
OTHER = "fedcba9876543210"


def keeping(fakes: Fakes, folder: Path, told: list[str] | None = None, spare: int = 0) -> Fakes:
    """Fakes whose world keeps complete logs in a folder."""
    kept = LogFolder(folder, (told if told is not None else []).append, spare)
    fakes.world = replace(fakes.world, keep=kept.open)
    return fakes


def ended(log: bytes, **fields: object) -> tuple[Fakes, RunRecord]:
    fakes = Fakes()
    record = run_record(state=State.SUCCEEDED, **fields)
    fakes.cluster.add(record, "running", "COMPLETED", log=log)
    return fakes, record


def sweep(fakes: Fakes) -> Outcome:
    return watch(fakes.world, read_policy(fakes.world))


def test_a_sweep_keeps_what_it_sees_end_and_only_that(tmp_path: Path) -> None:
    fakes, told = Fakes(to_hide=("hunter22",)), []
    keeping(fakes, tmp_path / "logs", told)
    fakes.cluster.add(run_record(), "running", "COMPLETED", log=LINES + b"the word is hunter22\nlast")
    fakes.cluster.add(run_record(run_key=OTHER, job_id="101"), "pending", "RUNNING", log=b"goes on\n")
    went = sweep(fakes)
    assert [item.name for item in (tmp_path / "logs").iterdir()] == [NAME], "and nothing beside it that says how far it is"
    assert (tmp_path / "logs" / NAME).read_bytes() == LINES + b"the word is ***\nlast\n"
    assert told == [str(tmp_path / "logs" / NAME)]
    assert f"Complete logs kept: `{NAME}`." in went.summary
    assert f"The complete log of run {KEY}, {len(LINES) + 25:,} bytes, is kept as {NAME}." in fakes.said
    assert not fakes.shown


def test_github_hears_of_every_end_before_any_log_is_kept(tmp_path: Path) -> None:
    fakes = keeping(Fakes(), tmp_path)
    for number in range(3):
        fakes.cluster.add(run_record(run_key=f"{number:016x}", job_id=str(number)), "running", "COMPLETED", log=LINES)
    sweep(fakes)
    said = max(number for number, step in enumerate(fakes.steps) if step.startswith("forge"))
    assert len([step for step in fakes.steps[said:] if step == "cluster.fetch"]) >= 3 * (len(LINES) // CHUNK)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_log_that_cannot_be_fetched_is_said_marked_and_in_nobodys_way(tmp_path: Path) -> None:
    fakes = keeping(Fakes(profiles={"cluster": PROFILE, "other": PROFILE.replace("login.", "other.")}), tmp_path)
    fakes.files[".github/dispatch.yml"] = POLICY.replace("profiles: [cluster]", "profiles: [cluster, other]")
    other = fakes.clusters["other.example.com"] = FakeCluster(fakes.trace)
    fakes.cluster.add(run_record(), "running", "FAILED", log=LINES)
    other.add(run_record(run_key=OTHER, profile="other", job_id="7"), "running", "COMPLETED", log=b"fine\n")
    fakes.cluster.cut = (CHUNK, ClusterError("cluster.cut", "The connection was cut."))
    went = sweep(fakes)
    assert (went.exit, went.outputs["reason-code"]) == (Exit.OK, "swept")
    assert fakes.forge.check("dispatch / cluster / default").conclusion == "failure"
    assert KEY not in fakes.cluster.active
    [told] = [line for line in fakes.said if "could not be kept" in line]
    assert "The connection was cut." in told
    assert f"`nemotron-dispatch logs {KEY} --output FILE`" in told
    text = (tmp_path / NAME).read_bytes()
    begins, _, mark = text.partition(b"\n\n[nemotron-dispatch: ")
    assert LINES.startswith(begins)
    assert len(begins) > CHUNK
    assert mark.startswith(b"the log goes on, and could not be fetched any further.")
    assert (tmp_path / f"other-default-{OTHER}.log").read_bytes() == b"fine\n"
    assert f"Complete logs kept: `other-default-{OTHER}.log`." in went.summary


def test_of_a_very_long_log_both_ends_are_kept_in_whole_lines(tmp_path: Path) -> None:
    fakes, record = ended(LINES + b"the end")
    keeping(fakes, tmp_path)
    assert keep_ended(fakes.world, fakes.cluster, record, most=600_000) == (NAME,)
    begins, mark, ends = (tmp_path / NAME).read_bytes().partition(b"\n[nemotron-dispatch: ")
    words, _, ends = ends.partition(b"]\n")
    assert mark
    assert LINES.startswith(begins)
    assert 300_000 <= len(begins) <= 300_000 + CHUNK
    left_out = len(LINES) + 7 - len(begins) - len(ends) + 1  # the last line gets its end
    assert words.startswith(f"{left_out:,} of {len(LINES) + 7:,} bytes are left out here.".encode())
    assert (LINES + b"the end\n").endswith(b"\n" + ends)
    assert ends.startswith(b"step ")
    assert abs(len(ends) - 300_000) < 100


def test_what_is_written_while_it_is_fetched_does_not_make_it_endless(tmp_path: Path) -> None:
    fakes, record = ended(LINES)
    keeping(fakes, tmp_path)

    def grow() -> None:
        fakes.cluster.runs[KEY].log += LINES
        fakes.trace.at["cluster.fetch"] = grow

    grow()
    keep_ended(fakes.world, fakes.cluster, record)
    [told] = fakes.said
    seen = int(told.partition(f"{KEY}, ")[2].partition(" bytes")[0].replace(",", ""))
    assert seen <= len((tmp_path / NAME).read_bytes()) <= seen + CHUNK


@pytest.mark.parametrize(
    ("fields", "logs", "names"),
    [
        ({"array": "1,3", "parts": 2, "resources": Resources(tasks=2)}, {1: b"a\n", 3: b"b\n"}, ["task-1", "task-3"]),
        ({"array": "0-3%2", "parts": 4, "resources": Resources(tasks=4)}, {0: b"a\n", 2: b"b\n"}, ["task-0", "task-2"]),
        ({"parts": 2}, {0: b"a\n", 1: b"b\n"}, ["task-0", "task-1"]),
        ({"array": "5-1", "parts": 2}, {0: b"a\n"}, ["task-0"]),
    ],
)
def test_every_task_has_a_file(fields: dict[str, object], logs: dict[int, bytes], names: Sequence[str], tmp_path: Path) -> None:
    fakes, record = ended(b"not this one\n", **fields)
    keeping(fakes, tmp_path)
    fakes.cluster.runs[KEY].part_logs.update(logs)
    keep_ended(fakes.world, fakes.cluster, record)
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {
        f"cluster-default-{KEY}-{name}.log": log for name, log in zip(names, logs.values(), strict=True)
    }


def test_of_very_many_the_paths_are_one_pattern(tmp_path: Path) -> None:
    told: list[str] = []
    folder = LogFolder(tmp_path, told.append)
    for number in range(MOST_LISTED + 20):
        folder.open(f"{number}.log", str(number)).write(b"x\n")
    assert len(told[MOST_LISTED - 1].splitlines()) == MOST_LISTED
    assert told[MOST_LISTED:] == [f"{tmp_path}/*.log"]


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": "terminal"},
        {"same_as": OTHER},
        {"job_id": ""},
        {"state": State.RUNNING},
    ],
)
def test_what_has_no_log_of_its_own_or_is_nobodys_business_is_not_kept(fields: dict[str, object], tmp_path: Path) -> None:
    fakes = keeping(Fakes(), tmp_path)
    record = run_record(**{"state": State.FAILED, **fields})
    fakes.cluster.add(record, "running", "FAILED", log=b"one\n")
    assert keep_ended(fakes.world, fakes.cluster, record) == ()
    assert list(tmp_path.iterdir()) == []


def test_at_a_terminal_what_was_asked_for_there_is_kept(tmp_path: Path) -> None:
    fakes = keeping(Fakes(forge=False), tmp_path)
    fakes.cluster.add(run_record(origin="terminal"), "running", "COMPLETED", log=b"one\n")
    sweep(fakes)
    assert (tmp_path / NAME).read_bytes() == b"one\n"


def test_a_run_that_wrote_nothing_leaves_no_file(tmp_path: Path) -> None:
    fakes, record = ended(b"")
    keeping(fakes, tmp_path)
    assert keep_ended(fakes.world, fakes.cluster, record) == ()
    assert list(tmp_path.iterdir()) == []


def test_another_repositorys_run_is_not_kept(tmp_path: Path) -> None:
    fakes = keeping(Fakes(), tmp_path)
    target = run_record().target.model_copy(update={"repository": "other/project"})
    fakes.cluster.add(run_record(target=target), "running", "COMPLETED", log=b"secret plans\n")
    sweep(fakes)
    assert list(tmp_path.iterdir()) == []


def test_the_run_that_is_waited_for_is_kept(tmp_path: Path) -> None:
    fakes = keeping(Fakes(), tmp_path)
    run = fakes.cluster.add(run_record(), "pending", "PENDING")

    def ends() -> None:
        run.log += b"one\ntwo"
        fakes.cluster.scheduler["100"] = "COMPLETED"

    fakes.cluster.before_sweep = [lambda: None, ends]
    went = follow(fakes.world, fakes.cluster, read_policy(fakes.world), Seen(run_record(), ""))
    assert (tmp_path / NAME).read_bytes() == b"one\ntwo\n"
    assert f"Complete logs kept: `{NAME}`." in went.summary
    assert fakes.shown == b"one\ntwo\n", "it was shown as it came, too"


def test_a_cancelled_job_leaves_a_file_that_says_that_it_is_not_whole(tmp_path: Path) -> None:
    fakes, record = ended(LINES)
    keeping(fakes, tmp_path)

    fakes.cluster.cut = (0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        keep_ended(fakes.world, fakes.cluster, record)
    assert b"[nemotron-dispatch: the log goes on" in (tmp_path / NAME).read_bytes()


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path: Path) -> None:
    fakes, record = ended(LINES)
    keeping(fakes, tmp_path, spare=1 << 60)
    assert keep_ended(fakes.world, fakes.cluster, record) == ()
    [told] = fakes.said
    assert "the disk is nearly full" in told
    assert (tmp_path / NAME).stat().st_size == 0


def test_a_link_that_lies_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("as it was")
    (tmp_path / NAME).symlink_to(tmp_path / "precious")
    with pytest.raises(InputError) as caught:
        LogFolder(tmp_path, [].append).open(NAME, KEY)
    assert caught.value.code == "input.not-written"
    fakes, record = ended(b"one\n")
    assert keep_ended(keeping(fakes, tmp_path).world, fakes.cluster, record) == ()
    assert (tmp_path / "precious").read_text() == "as it was"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, NAME),
        ({"recipe": "nano3/pre.train_v-2"}, f"cluster-nano3-pre.train_v-2-{KEY}.log"),
        ({"pipeline": "full", "stage": "sft"}, f"cluster-full-sft-{KEY}.log"),
        ({"recipe": "r" * 256}, f"cluster-{'r' * 112}-{KEY}.log"),
    ],
)
def test_names_are_safe_everywhere(fields: dict[str, object], name: str) -> None:
    assert file_name(run_record(**fields), None) == name


def test_a_summary_names_them_but_not_a_thousand() -> None:
    assert kept_words(()) == ""
    assert kept_words(("a.log", "b.log")) == "Complete logs kept: `a.log`, `b.log`."
    assert kept_words([f"{number}.log" for number in range(1000)]).endswith("`19.log` and 980 more.")
