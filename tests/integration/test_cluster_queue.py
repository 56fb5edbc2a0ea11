"""The queue of a ledger on this machine: held, released, dropped, admitted one at a time, and what it cost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dispatcher.effects.answers import JOURNAL_CAP
from dispatcher.effects.channel import Channel, LocalShell
from dispatcher.effects.conversation import command, program
from dispatcher.effects.ledger import LedgerCluster
from dispatcher.errors import ClusterError, DispatchError
from dispatcher.ports import AlreadySubmitted, Claimed, Held, InProgress, Refused, Submitted
from tests.integration.clusters import KEY, TREE, Tree, claim_request, local, submission
from tests.integration.test_cluster_local import job_dir, shell, slurm_like, wait_until, with_path
from tests.rig.pretend_slurm import PretendSlurm

__all__ = ["job_dir", "shell", "slurm_like"]

RECORD = f'{{"key": "{KEY}"}}'
LINE = "2026-11 {key} org/repo alice 7 cluster default 16.0000"


@pytest.fixture
def opened(job_dir: Path, slurm_like: PretendSlurm) -> Iterator[Callable[..., LedgerCluster]]:
    """Clusters over the same ledger, closed at the end."""
    made: list[LedgerCluster] = []

    def open_one(scheduler: str = "slurm", **more: object) -> LedgerCluster:
        made.append(local(job_dir, scheduler, with_path(slurm_like), **more))  # type: ignore[arg-type]
        return made[-1]

    yield open_one
    for cluster in made:
        cluster.close()


def hold(cluster: LedgerCluster, key: str = KEY, usage: str = "", body: str = "cat code/train.py") -> object:
    """Claims, which must succeed, and lays the run into the queue."""
    answer = cluster.claim(claim_request(key))
    assert isinstance(answer, Claimed), answer
    return cluster.submit(replace(submission(answer, key, body=body), hold=True, usage=usage))


def keys(*digits: str) -> list[str]:
    return [digit * 16 for digit in digits]


def entries(job_dir: Path) -> list[str]:
    """The queue's keys, in order."""
    return [name.split(".")[1] for name in sorted(os.listdir(job_dir / "queue"))]


def holders(job_dir: Path, key: str = KEY) -> set[str]:
    """The names that say who has a run."""
    names = {name.split(".")[0] for name in os.listdir(job_dir / "runs" / key) if name != "job.sbatch"}
    return names & {"claim", "turn", "commit", "held", "dropped", "job"}


# --------------------------------------------------------------------------- the whole way


def test_held_then_released_under_every_shell(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "slurm", with_path(slurm_like, shell))
    usage = LINE.format(key=KEY)
    assert hold(cluster, usage=usage) == Held()
    run = job_dir / "runs" / KEY
    assert TREE.unpacked(run / "code")
    assert (run / "env").stat().st_mode & 0o777 == 0o600
    assert (run / "record.json").read_text() == RECORD
    assert holders(job_dir) == {"held"}
    (entry,) = os.listdir(job_dir / "queue")
    assert re.fullmatch(rf"\d{{12}}\.{KEY}", entry)
    assert abs(int(entry[:12]) - time.time()) < 60
    assert slurm_like.jobs == []
    assert slurm_like.calls == []
    sweep = cluster.sweep()
    assert (sweep.runs, sweep.queued) == ((), (KEY,))
    assert cluster.find("pr-7") == (RECORD,), "its tags find it"
    assert cluster.usage("2026-11") == "", "nothing is spent yet"
    assert cluster.claim(claim_request()) == AlreadySubmitted("", RECORD)
    cluster.save(KEY, '{"new": "é"}\n', "queued")
    assert cluster.standing().queued == ('{"new": "é"}\n',)
    with pytest.raises(ClusterError) as caught:
        cluster.cancel(KEY)
    assert caught.value.code == "cluster.run-unknown"
    assert cluster.lock()
    assert cluster.release(KEY) == Submitted("1000")
    cluster.unlock()
    assert (slurm_like.folder / "jobs" / "1000").read_text() == f"dispatch-{KEY}|{run}\n"
    assert cluster.usage("2026-11") == f"{usage}\n"
    sweep = cluster.sweep()
    assert ([item.job_id for item in sweep.runs], sweep.queued) == (["1000"], ())
    standing = cluster.standing()
    assert (standing.active, standing.queued) == (('{"new": "é"}\n',), ())
    assert cluster.release(KEY) is None
    assert not cluster.drop(KEY)
    assert cluster.claim(claim_request()) == AlreadySubmitted("1000", '{"new": "é"}\n')
    assert cluster.usage("2026-11") == f"{usage}\n", "once"
    cluster.close()
    wait_until(lambda: not list((job_dir / "tmp").iterdir()))
    assert os.listdir(job_dir / "lock") == ["free"]
    assert entries(job_dir) == []
    assert not list(job_dir.parent.rglob("hacked"))


def test_dropped_under_every_shell(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "slurm", with_path(slurm_like, shell))
    hold(cluster)
    assert cluster.drop(KEY) is True
    assert cluster.drop(KEY) is False
    assert cluster.release(KEY) is None
    assert holders(job_dir) == {"dropped"}
    cluster.save(KEY, '{"state": "cancelled"}', "cancelled")
    cluster.retire(KEY)
    assert cluster.claim(claim_request()) == AlreadySubmitted("", '{"state": "cancelled"}')
    assert cluster.find("pr-7") == ('{"state": "cancelled"}',)
    files = cluster.fetch(KEY, 0, 0, 0)
    assert files is not None
    sweep, standing = cluster.sweep(), cluster.standing()
    assert (sweep.runs, sweep.queued, standing.active, standing.queued) == ((), (), (), ())
    assert entries(job_dir) == []
    cluster.close()
    assert slurm_like.jobs == []


def test_a_local_run_waits_too(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "local", with_path(slurm_like, shell))
    assert hold(cluster, usage=LINE.format(key=KEY), body="echo ran; cat code/train.py; exit 3") == Held()
    assert cluster.sweep().queued == (KEY,)
    time.sleep(0.2)
    assert not (job_dir / "runs" / KEY / "logs" / "local.log").exists()
    released = cluster.release(KEY)
    assert isinstance(released, Submitted)
    wait_until(lambda: (job_dir / "runs" / KEY / "exit").exists())
    (run,) = cluster.sweep().runs
    assert (run.job_id, run.exit_file) == (released.job_id, "3")
    assert (job_dir / "runs" / KEY / "logs" / "local.log").read_text() == "ran\nprint('hi')\n"
    assert cluster.usage("2026-11") == LINE.format(key=KEY) + "\n"
    cluster.close()


def test_the_queue_keeps_its_order(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    """Also of what comes within one second, whatever the keys are."""
    cluster = opened()
    wanted = keys("9", "1", "f", "5", "0")
    for key in wanted:
        hold(cluster, key)
    assert cluster.sweep().queued == tuple(wanted)
    assert cluster.standing().queued == tuple(f'{{"key": "{key}"}}' for key in wanted)
    cluster.drop(wanted[0])
    cluster.retire(wanted[0])
    cluster.release(wanted[2])
    assert cluster.sweep().queued == tuple(wanted[i] for i in (1, 3, 4))
    standing = cluster.standing()
    assert standing.active == (f'{{"key": "{wanted[2]}"}}',)
    assert standing.queued == tuple(f'{{"key": "{wanted[i]}"}}' for i in (1, 3, 4))


def test_what_lies_in_the_queue_by_accident_does_no_harm(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened()
    hold(cluster)
    for name in ("000000000001.no key", "notes.txt", f"000000000001.{'e' * 16}", "x.0xyz", f"99999999999999.{'d' * 16}"):
        (job_dir / "queue" / name).write_text("")
    assert cluster.sweep().queued == (KEY,)
    assert cluster.standing().queued == (RECORD,)
    hold(cluster, "1" * 16)
    assert cluster.sweep().queued == (KEY, "1" * 16)
    left = [name for name in os.listdir(job_dir / "queue") if not name.endswith((KEY, "1" * 16))]
    assert sorted(left) == ["000000000001.no key", "notes.txt", "x.0xyz"], "keys without a run go; what is not ours stays"


def test_a_place_that_was_deleted_from_outside_is_given_again(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened()
    hold(cluster)
    (job_dir / "queue" / os.listdir(job_dir / "queue")[0]).unlink()
    assert cluster.sweep().queued == ()
    assert cluster.claim(claim_request()) == AlreadySubmitted("", RECORD)
    assert cluster.sweep().queued == (KEY,)
    assert cluster.release(KEY) == Submitted("1000")


# --------------------------------------------------------------------------- one job, whatever happens


@pytest.mark.parametrize("scheduler", ["slurm", "local"])
def test_many_releasers_and_droppers_at_once(
    scheduler: str, job_dir: Path, slurm_like: PretendSlurm, tmp_path: Path, opened: Callable[..., LedgerCluster]
) -> None:
    for round_number in range(4):
        key = f"{round_number}" * 16
        hold(opened(scheduler), key, body=f"echo ran >>'{tmp_path}/ran.{key}'")
        outcomes: list[object] = []
        clusters = [opened(scheduler) for _ in range(6)]
        for cluster in clusters:
            cluster.sweep()

        def act(number: int, cluster: LedgerCluster, key: str = key, outcomes: list[object] = outcomes) -> None:
            outcomes.append(cluster.drop(key) if number == 5 else cluster.release(key))

        threads = [threading.Thread(target=act, args=[number, cluster]) for number, cluster in enumerate(clusters)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        submitted = [outcome for outcome in outcomes if isinstance(outcome, Submitted)]
        assert len(submitted) + outcomes.count(True) == 1, outcomes
        assert len(outcomes) == 6
        time.sleep(0.1)
        assert holders(job_dir, key) == ({"commit", "job"} if submitted else {"dropped"})
        if scheduler == "local":
            assert (tmp_path / f"ran.{key}").exists() == bool(submitted)
            assert not submitted or (tmp_path / f"ran.{key}").read_text() == "ran\n"
    names = [file.read_text().split("|")[0] for file in (slurm_like.folder / "jobs").iterdir()]
    assert len(names) == len(set(names))


def test_what_was_refused_waits_until_it_is_dropped(job_dir: Path, slurm_like: PretendSlurm, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened()
    hold(cluster, usage=LINE.format(key=KEY))
    slurm_like.mode("sbatch", "refuse")
    refused = cluster.release(KEY)
    assert isinstance(refused, Refused)
    assert "Invalid account" in refused.words
    for folder in ("active", "usage"):
        assert not list((job_dir / folder).iterdir()), folder
    assert cluster.sweep().queued == (KEY,)
    assert isinstance(cluster.release(KEY), Refused), "who died before it was said tries again"
    slurm_like.mode("sbatch", "")
    assert cluster.release(KEY) == Submitted("1000")
    assert slurm_like.jobs == ["1000"]


def test_what_was_dropped_is_active_until_its_end_has_been_said(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened()
    hold(cluster)
    entry = job_dir / "queue" / os.listdir(job_dir / "queue")[0]
    assert cluster.drop(KEY)
    assert [(run.run_key, run.job_id) for run in cluster.sweep().runs] == [(KEY, "")]
    # Killed right after the rename: the entry of the queue is still there.
    (job_dir / "active" / KEY).unlink()
    entry.write_text("")
    assert cluster.sweep().queued == ()
    assert [run.run_key for run in cluster.sweep().runs] == [KEY]
    cluster.save(KEY, "{}", "cancelled")
    cluster.retire(KEY)
    assert cluster.sweep().runs == ()


@pytest.mark.parametrize("mode", ["lost-answer", "kill-after", "chatty"])
def test_a_job_whose_answer_got_lost_is_found(mode: str, slurm_like: PretendSlurm, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened()
    hold(cluster)
    slurm_like.mode("sbatch", mode)
    assert cluster.release(KEY) == Submitted("1000")
    assert cluster.sweep().queued == ()


def test_while_the_scheduler_is_silent_nothing_is_submitted_twice(
    job_dir: Path, slurm_like: PretendSlurm, opened: Callable[..., LedgerCluster]
) -> None:
    cluster = opened()
    hold(cluster)
    slurm_like.mode("sbatch", "lost-answer")
    slurm_like.mode("squeue", "down")
    with pytest.raises(ClusterError) as caught:
        cluster.release(KEY)
    assert caught.value.code == "cluster.scheduler-silent"
    for attempt in (cluster.release, cluster.drop):
        (commit,) = (job_dir / "runs" / KEY).glob("commit.*")
        os.utime(commit, (0, time.time() - 10))
        with pytest.raises(ClusterError) as caught:
            attempt(KEY)
        assert caught.value.code == "cluster.scheduler-silent"
    sweep, standing = cluster.sweep(), cluster.standing()
    assert (sweep.runs, sweep.queued) == ((), (KEY,)), "somebody has to look after it"
    assert (standing.active, standing.queued) == ((RECORD,), ()), "while nobody can tell, it counts as active"
    cluster.close()
    slurm_like.mode("squeue", "")
    assert opened().standing().active == (RECORD,)
    assert opened().claim(claim_request()) == AlreadySubmitted("1000", RECORD)
    assert slurm_like.jobs == ["1000"]
    assert entries(job_dir) == []


@pytest.mark.parametrize("who", ["release", "drop", "standing", "claim"])
@pytest.mark.parametrize("had", ["turn", "commit", "commit-with-job"])
def test_what_a_dead_releaser_left(
    had: str, who: str, job_dir: Path, slurm_like: PretendSlurm, opened: Callable[..., LedgerCluster]
) -> None:
    """Without a job it waits again, with everything in its folder and at its old place; with one it has that job."""
    cluster = opened()
    hold(cluster, "9" * 16)
    hold(cluster)
    run = job_dir / "runs" / KEY
    if had == "commit-with-job":
        slurm_like.mode("sbatch", "kill-after")
        slurm_like.mode("squeue", "down")
        with pytest.raises(ClusterError):
            cluster.release(KEY)
        slurm_like.mode("sbatch", "")
        slurm_like.mode("squeue", "")
        (left,) = run.glob("commit.*")
    else:
        left = (run / "held").rename(run / f"{had}.{(left := dead())}")
        (job_dir / "active" / KEY).write_text("1700000000\n\n")
    os.utime(left, (0, time.time() - 10))
    cluster.close()
    before = sorted(os.listdir(job_dir / "queue"))
    other = opened()
    assert other.sweep().queued == ("9" * 16, KEY)
    found = had == "commit-with-job"
    match who:
        case "release":
            assert other.release(KEY) == Submitted("1000")
        case "drop":
            assert other.drop(KEY) is not found
        case "standing":
            standing = other.standing()
            assert (RECORD in standing.active, RECORD in standing.queued) == (found, not found)
        case "claim":
            assert other.claim(claim_request()) == AlreadySubmitted("1000" if found else "", RECORD)
    assert slurm_like.jobs == (["1000"] if found or who == "release" else [])
    assert TREE.unpacked(run / "code"), "what lies ready is not wiped away"
    if not found and who in ("standing", "claim"):
        assert sorted(os.listdir(job_dir / "queue")) == before
        assert not (job_dir / "active" / KEY).exists()
        assert other.release(KEY) == Submitted("1000")
    assert slurm_like.jobs == (["1000"] if found or who != "drop" else [])
    assert [run.run_key for run in other.sweep().runs] == [KEY], "also what was dropped, until its end has been said"


def dead() -> str:
    """The identity of a process on this machine that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}.{process.pid}.1"


def test_a_turn_on_another_machine_is_waited_for(job_dir: Path, slurm_like: PretendSlurm, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened(patience=1)
    hold(cluster)
    run = job_dir / "runs" / KEY
    turn = (run / "held").rename(run / "turn.other-machine.7.1")
    os.utime(turn)
    assert cluster.release(KEY) is None
    assert cluster.drop(KEY) is False
    assert isinstance(cluster.claim(claim_request()), InProgress)
    assert cluster.standing().active == (RECORD,), "it may get its job any moment"
    assert cluster.sweep().queued == (KEY,)
    os.utime(turn, (0, time.time() - 121))
    assert cluster.release(KEY) == Submitted("1000")


@pytest.mark.parametrize("scheduler", ["slurm", "local"])
def test_the_rename_before_sbatch_decides(scheduler: str, job_dir: Path, tmp_path: Path, slurm_like: PretendSlurm) -> None:
    """A turn is taken from its holder between the last look at it and the rename: it waits again, and has no job."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mv").write_text('#!/bin/sh\ncase "$1$2" in turn.*commit.*) /bin/mv "$1" held; esac\nexec /bin/mv "$@"\n')
    (tmp_path / "bin" / "mv").chmod(0o755)
    env = with_path(slurm_like)
    cluster = local(job_dir, scheduler, {**env, "PATH": f"{tmp_path}/bin:{env['PATH']}"})
    hold(cluster, body=f"touch '{tmp_path}/ran'")
    assert cluster.release(KEY) is None
    assert holders(job_dir) == {"held"}
    assert cluster.sweep().queued == (KEY,)
    assert slurm_like.jobs == []
    assert not (tmp_path / "ran").exists()
    cluster.close()


def test_a_command_that_was_interrupted_before_it_was_held(
    job_dir: Path, slurm_like: PretendSlurm, opened: Callable[..., LedgerCluster]
) -> None:
    """An entry of the queue may be there before the run is: then it is not in the queue, and its next delivery keeps the place."""
    cluster = opened()
    hold(cluster)
    hold(cluster, "9" * 16)
    run = job_dir / "runs" / KEY
    (run / "held").rename(run / f"claim.{dead()}")
    (job_dir / "active" / KEY).write_text("1700000000\n\n")
    sweep, standing = cluster.sweep(), cluster.standing()
    assert ([item.run_key for item in sweep.runs], sweep.queued) == ([KEY], ("9" * 16,)), "a sweep can call it off"
    assert len(standing.active) == len(standing.queued) == 1
    assert cluster.claim(claim_request()) == Claimed(True, True, None)
    assert cluster.submit(replace(submission(Claimed(True, True, None)), hold=True)) == Held()
    assert cluster.sweep().queued == (KEY, "9" * 16)
    (run / "held").rename(run / f"claim.{dead()}")
    assert isinstance(cluster.claim(claim_request()), Claimed)
    assert cluster.submit(submission(Claimed(True, True, None))) == Submitted("1000"), "the policy has no limits any more"
    assert entries(job_dir) == ["9" * 16]


def test_a_cut_while_it_is_held(job_dir: Path, slurm_like: PretendSlurm) -> None:
    """The connection breaks after everything was sent: asked again, the ledger says that the run is held."""
    env = with_path(slurm_like)

    class Breaks(LocalShell):
        broken = False

        def read(self, timeout: float) -> bytes:
            data = super().read(timeout)
            if b" done held" in data and not Breaks.broken:
                Breaks.broken = True
                return b""
            return data

    cluster = LedgerCluster(lambda: Breaks(command(), env), str(job_dir), "slurm")
    cluster.sweep()
    assert hold(cluster) == Held()
    assert Breaks.broken
    assert cluster.sweep().queued == (KEY,)
    cluster.close()


# --------------------------------------------------------------------------- the admission lock


def test_the_lock_under_every_shell(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    first, second = (local(job_dir, "slurm", with_path(slurm_like, shell), patience=1) for _ in range(2))
    assert first.lock()
    assert first.lock(), "ours already"
    begun = time.monotonic()
    assert not second.lock()
    assert time.monotonic() - begun > 0.8
    second.unlock()
    assert not second.lock(), "nobody gives back what another has"
    first.unlock()
    first.unlock()
    assert second.lock()
    assert not first.lock()
    second.close()
    wait_until(first.lock)
    first.close()
    wait_until(lambda: os.listdir(job_dir / "lock") == ["free"])


def test_only_one_has_the_lock_at_a_time(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    inside, most, had = 0, 0, 0
    guard = threading.Lock()

    def visit(cluster: LedgerCluster) -> None:
        nonlocal inside, most, had
        for _ in range(3):
            assert cluster.lock()
            with guard:
                inside, had = inside + 1, had + 1
                most = max(most, inside)
            time.sleep(0.03)
            with guard:
                inside -= 1
            cluster.unlock()

    threads = [threading.Thread(target=visit, args=[opened(patience=60)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, had) == (1, 18)
    assert os.listdir(job_dir / "lock") == ["free"]


def test_a_killed_holder_loses_the_lock_at_once(job_dir: Path, slurm_like: PretendSlurm) -> None:
    shown: list[Channel] = []
    first = local(job_dir, "slurm", with_path(slurm_like), shown.append)
    assert first.lock()
    channel = shown[0]
    assert isinstance(channel, LocalShell)
    second = local(job_dir, "slurm", with_path(slurm_like))
    waiting: list[bool] = []
    thread = threading.Thread(target=lambda: waiting.append(second.lock()))
    thread.start()
    time.sleep(0.5)
    assert waiting == []
    os.kill(channel.pid, signal.SIGKILL)
    channel._process.wait()
    thread.join(timeout=3)
    assert waiting == [True]
    second.close()
    first.close()


def test_a_holder_on_another_machine_has_two_minutes(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened(patience=1)
    cluster.sweep()
    (job_dir / "lock").mkdir()
    held = job_dir / "lock" / "held.other-machine.7.1"
    held.write_text("")
    assert not cluster.lock()
    os.utime(held, (0, time.time() - 121))
    assert cluster.lock()
    (held,) = (job_dir / "lock").iterdir()
    assert time.time() - held.stat().st_mtime < 60, "it must not look abandoned from the first moment"
    os.utime(held, (0, time.time() - 100))
    cluster.sweep()
    assert time.time() - held.stat().st_mtime < 60, "who works is not silent"


def test_who_has_lost_the_lock_releases_nothing(job_dir: Path, slurm_like: PretendSlurm, opened: Callable[..., LedgerCluster]) -> None:
    first, second = opened(), opened()
    hold(first)
    assert first.lock()
    (held,) = (job_dir / "lock").iterdir()
    os.utime(held, (0, time.time() - 121))
    assert second.lock()
    assert first.release(KEY) is None
    assert slurm_like.jobs == []
    assert second.release(KEY) == Submitted("1000")


def test_a_lock_that_was_emptied_from_outside(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened(patience=2)
    cluster.sweep()
    (job_dir / "lock").mkdir()
    assert cluster.lock()
    assert not opened(patience=1).lock()


# --------------------------------------------------------------------------- the journal


def test_the_journal_under_every_shell(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "slurm", with_path(slurm_like, shell))
    assert cluster.usage("2026-11") == ""
    lines = [LINE.format(key=KEY), "2026-12 x", "2026-11 " + "~!#$%&()*+,-./:;<=>?@[\\]^_{|}" * 40]
    for line in lines:
        cluster.account(line)
    assert cluster.usage("2026-11").splitlines() == [lines[0], lines[2]]
    assert cluster.usage("2026-12") == "2026-12 x\n"
    for bad in ("", "x", "2026-13 x", "2026-1 x", "../x y", "2026-11 \t", "2026-11 é", '2026-11 "', "2026-11 '", "2026-11 `", "2026-11 \n"):
        with pytest.raises(ValueError):
            cluster.account(bad)
    with pytest.raises(ValueError):
        cluster.account("2026-11 " + "x" * 2000)
    with pytest.raises(ValueError):
        cluster.usage("../runs")
    cluster.close()
    assert sorted(os.listdir(job_dir / "usage")) == ["2026-11", "2026-12"]


def test_the_far_side_checks_lines_itself(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    bad = [
        "",
        "x",
        "2026-13 x",
        "2026-1x y",
        "../x y",
        "2026-11 \t",
        "2026-11 é",
        '2026-11 "',
        "2026-11 '",
        "2026-11 `",
        "2026-11 " + "x" * 2000,
    ]
    lines = ["@m", "1", "slurm", str(job_dir), *(f"account\n{line}" for line in bad), "usage", "../runs", "release", "../x", "drop", "a b"]
    done = subprocess.run(
        ["sh", "-c", command()],
        input=program() + "".join(f"{line}\n" for line in lines).encode(),
        capture_output=True,
        env=with_path(slurm_like, shell),
    )
    assert done.stdout.decode().split("\n").count("@m fail cluster.bad-request") == len(bad) + 3
    assert list((job_dir / "usage").iterdir()) == []


def test_a_job_cannot_forge_a_line_with_its_folder(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    """What a run's folder says is checked again when it is entered."""
    cluster = opened()
    hold(cluster, usage=LINE.format(key=KEY))
    (job_dir / "runs" / KEY / "usage").write_text("../../runs/x y\n")
    assert cluster.release(KEY) == Submitted("1000")
    assert list((job_dir / "usage").iterdir()) == []


def test_many_write_the_journal_at_once(opened: Callable[..., LedgerCluster]) -> None:
    def write(number: int) -> None:
        cluster = opened()
        for line in range(50):
            cluster.account(f"2026-11 {number} {line} {'x' * 400}")

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = opened().usage("2026-11").splitlines()
    assert sorted(lines) == sorted(f"2026-11 {number} {line} {'x' * 400}" for number in range(4) for line in range(50))


def test_of_a_long_journal_the_newest_whole_lines_are_read(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened()
    cluster.sweep()
    every = [f"2026-11 {number:06d} {'x' * 400}" for number in range(12000)]
    (job_dir / "usage" / "2026-11").write_text("".join(f"{line}\n" for line in every))
    read = cluster.usage("2026-11")
    assert JOURNAL_CAP - 1000 < len(read) <= JOURNAL_CAP
    assert read.splitlines() == every[-len(read.splitlines()) :]


def test_a_submission_without_queue_is_noted_too(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened()
    answer = cluster.claim(claim_request())
    assert isinstance(answer, Claimed)
    assert cluster.submit(replace(submission(answer), usage=LINE.format(key=KEY))) == Submitted("1000")
    for again in (cluster.sweep, lambda: cluster.claim(claim_request()), cluster.standing):
        again()
    assert cluster.usage("2026-11") == LINE.format(key=KEY) + "\n"


# --------------------------------------------------------------------------- much of it


def test_a_long_queue_is_looked_at_quickly(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened()
    cluster.sweep()
    for number in range(1000):
        key = f"{number:016x}"
        (job_dir / "runs" / key).mkdir(parents=True)
        (job_dir / "runs" / key / "record.json").write_text(key)
        if number % 2:
            (job_dir / "runs" / key / "held").write_text("")
            (job_dir / "queue" / f"{2000 - number:012d}.{key}").write_text("")
        else:
            (job_dir / "active" / key).write_text("1700000000\n\n")
            for name in ("job", "listed"):
                (job_dir / "runs" / key / name).write_text(f"{number + 5000}\n")
    begun = time.monotonic()
    sweep = cluster.sweep()
    assert time.monotonic() - begun < 2
    assert sweep.queued == tuple(f"{number:016x}" for number in range(999, 0, -2))
    begun = time.monotonic()
    standing = cluster.standing()
    assert time.monotonic() - begun < 5
    assert standing.queued == sweep.queued
    assert sorted(standing.active) == [f"{number:016x}" for number in range(0, 1000, 2)]


def test_the_archive_of_the_next_hold_is_a_difference(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    """What the queue's runs were made of is kept like any other package."""
    cluster = opened()
    hold(cluster)
    changed = Tree({**TREE.contents, "train.py": b"print('ho')\n"})
    answer = cluster.claim(claim_request("2" * 16, changed))
    assert isinstance(answer, Claimed)
    assert answer.base_digest == TREE.digest
    assert cluster.submit(replace(submission(answer, "2" * 16, changed), hold=True)) == Held()
    assert cluster.release("2" * 16) == Submitted("1000")
    assert changed.unpacked(job_dir / "runs" / ("2" * 16) / "code")


def test_a_broken_archive_is_not_held(job_dir: Path, opened: Callable[..., LedgerCluster]) -> None:
    cluster = opened()
    answer = cluster.claim(claim_request())
    assert isinstance(answer, Claimed)
    with pytest.raises(DispatchError) as caught:
        cluster.submit(replace(submission(answer, chunks=lambda: [b"\x1f\x8b"]), hold=True))
    assert caught.value.code == "cluster.failed"
    for folder in ("runs", "active", "queue"):
        assert not list((job_dir / folder).iterdir()), folder
