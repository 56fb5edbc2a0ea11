"""An attached run: every byte of its log once and in order, each change reported, and an end like the job's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dispatcher.configuration import read_policy
from dispatcher.errors import Exit
from dispatcher.following import exit_of, follow
from dispatcher.loglines import CHUNK
from dispatcher.observe import Seen
from dispatcher.record import RunRecord, parse_record
from dispatcher.slurm import State
from dispatcher.telling import report
from dispatcher.world import Outcome
from tests.fakes import FakeRun, Fakes, run_record

KEY = run_record().run_key
CHECK = "dispatch / cluster / default"


def attached(
    fakes: Fakes, *looks: Callable[[FakeRun], object], executor: str = "slurm", results_required: bool = False
) -> tuple[Outcome, FakeRun]:
    """Follows a run that waits; what happens to it before each look is told by `looks`, and then it ends well."""
    record = run_record(executor=executor, results_required=results_required)
    run = fakes.cluster.add(record, "pending", "PENDING")

    def step(change: Callable[[FakeRun], object]) -> Callable[[], object]:
        return lambda: change(run)

    end: Callable[[FakeRun], object] = lambda run: word(fakes, "COMPLETED")  # noqa: E731
    fakes.cluster.before_sweep = [step(change) for change in (*looks, end)]
    return follow(fakes.world, fakes.cluster, read_policy(fakes.world), Seen(record, "")), run


def word(fakes: Fakes, said: str) -> None:
    fakes.cluster.scheduler["100"] = said


def writes(text: bytes) -> Callable[[FakeRun], object]:
    def write(run: FakeRun) -> None:
        run.log += text

    return write


def test_every_byte_once_and_in_order() -> None:
    fakes = Fakes()
    attached(fakes, writes(b"one\n"), writes(b""), writes(b"two\nthree\n"), writes(b"last"))
    assert fakes.shown.rstrip() == b"one\ntwo\nthree\nlast"


def test_a_log_larger_than_a_chunk() -> None:
    text = b"".join(b"%07d\n" % number for number in range(CHUNK // 4))
    fakes = Fakes()
    attached(fakes, writes(text))
    assert fakes.shown == text


def test_one_line_that_never_ends() -> None:
    fakes = Fakes()
    attached(fakes, writes(b"x" * (CHUNK * 2 + 5)))
    assert fakes.shown.replace(b"\n", b"") == b"x" * (CHUNK * 2 + 5)


def test_a_truncated_log_goes_on_from_its_beginning() -> None:
    fakes = Fakes()

    def truncate(run: FakeRun) -> None:
        run.log = b"new\n"

    attached(fakes, writes(b"a long first part\n"), truncate)
    assert fakes.shown == b"a long first part\nnew\n"
    assert any("truncated" in line for line in fakes.said)


@pytest.mark.parametrize(
    "parts",
    [
        [b"\n:", b":set-output name=decision::run\n"],
        [b"##", b"[command]x\n"],
        [b"pass hunter", b"22 word\n"],
        [b"gr\xc3", b"\xbcn\n"],
    ],
)
def test_lines_are_shown_whole_however_they_were_written(parts: list[bytes]) -> None:
    # What makes a log harmless, and what masks it, looks at lines: half of one could be completed to a command or a secret.
    fakes = Fakes(to_hide=("hunter22",))
    shown: list[bytes] = []
    fakes.world = replace(fakes.world, show_log=shown.append)
    attached(fakes, *[writes(part) for part in parts])
    assert b"".join(shown) == b"".join(parts).replace(b"hunter22", b"***")
    assert all(part.endswith(b"\n") for part in shown)


def test_a_private_key_is_masked_however_it_was_written() -> None:
    fakes = Fakes()
    begin, end = b"-----BEGIN RSA PRIVATE KEY-----\n", b"-----END RSA PRIVATE KEY-----\n"
    attached(fakes, writes(b"one\n" + begin), writes(b"MIIEvQ\n"), writes(b"IBADAN\n" + end), writes(b"two\n"))
    assert fakes.shown == b"one\n***\ntwo\n"


def test_a_private_key_is_masked_where_two_pieces_of_the_log_meet() -> None:
    key = b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + b"b3BlbnNzaC1r\n" * 200 + b"-----END OPENSSH PRIVATE KEY-----\n"
    before = b"x" * (CHUNK - 1000) + b"\n"
    fakes = Fakes()
    attached(fakes, lambda run: writes(before + key + b"two\n")(run))
    assert fakes.shown == before + b"***\ntwo\n"


def test_what_only_begins_like_a_key_is_not_held_back_for_ever() -> None:
    fakes = Fakes()
    seen: list[bytes] = []
    line = b"more and more of something else\n"
    attached(
        fakes, writes(b"one\n-----BEGIN PRIVATE KEY-----\n"), writes(line * 1000), lambda run: seen.append(fakes.shown), writes(b"last\n")
    )
    assert seen == [b"one\n***"], "masked to the end of the piece, as an unfinished key is"
    assert fakes.shown == b"one\n***last\n"


def test_a_progress_bar_is_not_held_back() -> None:
    fakes = Fakes()
    seen: list[bytes] = []
    attached(fakes, writes(b"10%\r20%\r"), lambda run: seen.append(fakes.shown))
    assert seen == [b"10%\r20%\r"]


@pytest.mark.parametrize(
    ("end", "exit_code", "conclusion"),
    [
        ("COMPLETED", Exit.OK, "success"),
        ("FAILED", Exit.RUN_FAILED, "failure"),
        ("TIMEOUT", Exit.RUN_FAILED, "timed_out"),
        ("CANCELLED by 0", Exit.RUN_FAILED, "cancelled"),
        ("OUT_OF_MEMORY", Exit.RUN_FAILED, "failure"),
    ],
)
def test_it_ends_as_the_job_ends(end: str, exit_code: Exit, conclusion: str) -> None:
    fakes = Fakes()
    ended, _ = attached(fakes, lambda run: word(fakes, "RUNNING"), lambda run: word(fakes, end))
    assert ended.exit is exit_code
    assert fakes.forge.check(CHECK).conclusion == conclusion
    assert fakes.forge.check("dispatch/gate").conclusion == ("success" if exit_code is Exit.OK else "failure")
    assert fakes.trace.of("forge.create_check dispatch / ", "forge.update_check dispatch / ") == [
        f"forge.create_check {CHECK} in_progress",
        f"forge.update_check {CHECK} {conclusion}",
    ]
    assert not fakes.cluster.active


def test_a_run_without_its_results_has_not_passed() -> None:
    fakes = Fakes()
    ended, _ = attached(fakes, results_required=True)
    assert ended.exit is Exit.RUN_FAILED
    assert fakes.forge.check(CHECK).conclusion == "failure"


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (run_record(state=State.SUCCEEDED), Exit.OK),
        (run_record(state=State.SUCCEEDED, results_problem="none"), Exit.RUN_FAILED),
        (run_record(state=State.LOST), Exit.RUN_FAILED),
        (run_record(state=State.UNKNOWN), Exit.RUN_FAILED),
        (run_record(state=State.RUNNING), Exit.RUN_FAILED),
    ],
)
def test_exit_statuses(record: RunRecord, code: Exit) -> None:
    assert exit_of(record) is code


def test_nothing_is_said_to_github_while_nothing_changes() -> None:
    fakes = Fakes()
    attached(fakes, *[writes(b"step\n")] * 5)
    assert len(fakes.trace.of("forge.create_check dispatch / ", "forge.update_check dispatch / ")) == 1


def test_a_quiet_run_is_asked_about_less_often() -> None:
    fakes = Fakes()
    attached(fakes, *[lambda run: None] * 45)
    assert (fakes.clock.slept[0], max(fakes.clock.slept), fakes.clock.slept[-1]) == (10.0, 30.0, 30.0)


def test_a_scheduler_that_is_silent_for_a_while_ends_nothing() -> None:
    fakes = Fakes()

    def answers(on: bool) -> Callable[[FakeRun], object]:
        return lambda run: setattr(fakes.cluster, "answers", on)

    ended, _ = attached(fakes, answers(False), *[lambda run: None] * 5, answers(True))
    assert ended.exit is Exit.OK


def test_a_job_that_vanishes_is_lost_after_the_grace() -> None:
    fakes = Fakes()
    ended, run = attached(fakes, *[lambda run: fakes.cluster.scheduler.clear()] * 200)
    assert ended.exit is Exit.RUN_FAILED
    assert parse_record(run.record).state is State.LOST
    assert 600 <= sum(fakes.clock.slept) < 700


def test_a_job_that_vanishes_for_a_moment_is_not_lost() -> None:
    fakes = Fakes()
    ended, _ = attached(fakes, lambda run: fakes.cluster.scheduler.clear(), lambda run: word(fakes, "RUNNING"))
    assert ended.exit is Exit.OK


def test_when_another_watch_has_reported_the_end_it_is_believed() -> None:
    fakes = Fakes()

    def other_watch(run: FakeRun) -> None:
        done = parse_record(run.record).model_copy(update={"state": State.SUCCEEDED})
        run.log += b"all is well\n"
        report(fakes.world, fakes.cluster, read_policy(fakes.world), Seen(done, ""))

    ended, _ = attached(fakes, lambda run: word(fakes, "RUNNING"), other_watch)
    assert ended.exit is Exit.OK
    assert ended.outputs["state"] == "succeeded"
    assert fakes.shown == b"all is well\n"


def test_interrupted_it_leaves_the_job_and_the_ledger_alone() -> None:
    fakes = Fakes()
    with pytest.raises(KeyboardInterrupt):
        attached(fakes, lambda run: word(fakes, "RUNNING"), lambda run: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert fakes.cluster.active == {KEY: "running"}
    assert not fakes.trace.of("cluster.cancel", "cluster.retire", "cluster.abandon")


def test_the_run_at_weights_and_biases_is_said_while_the_job_runs() -> None:
    url = "https://wandb.ai/nvidia/nano3/runs/ab12cd34"
    fakes = Fakes()
    said: list[str] = []

    def look(run: FakeRun) -> None:
        said.append(fakes.forge.bodies[-1] if fakes.forge.bodies else "")

    ended, _ = attached(fakes, lambda run: word(fakes, "RUNNING"), look, writes(f"wandb: 🚀 View run at {url}\n".encode()), look, look)
    assert [url in body for body in said] == [False, True, True]
    assert ended.outputs["wandb-url"] == url
