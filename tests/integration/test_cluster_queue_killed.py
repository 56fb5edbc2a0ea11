"""Killing the far side at every step of hold, release, drop and lock: a run is never lost, and never has two jobs."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dispatcher.effects.channel import Channel, LocalShell
from dispatcher.effects.ledger import LedgerCluster
from dispatcher.errors import ClusterError, DispatchError
from dispatcher.ports import AlreadySubmitted, Claimed, Held, InProgress, Submitted
from tests.integration.clusters import KEY, TREE, claim_request, environment, local, submission
from tests.rig.pretend_slurm import PretendSlurm
from tests.rig.sabotage import Sabotage, at_every_step

STEPS = 90
"""More than any of these has."""
RECORD = f'{{"key": "{KEY}"}}'
USAGE = f"2026-11 {KEY} org/repo alice 7 cluster default 16.0000"

pytestmark = pytest.mark.timeout(900)
kills = pytest.mark.parametrize(("when", "target"), [("before", "shell"), ("after", "group")])
all_kills = pytest.mark.parametrize(
    ("scheduler", "when", "target"), [("slurm", "before", "shell"), ("slurm", "after", "group"), ("local", "before", "group")]
)


@dataclass
class Scene:
    """One ledger, and how it came to be in disorder."""

    folder: Path
    scheduler: str
    where: str = "nobody was killed"

    def __post_init__(self) -> None:
        self.job_dir = self.folder / "job"
        self.slurm_like = PretendSlurm(self.folder / "slurm")
        self.env = environment(self.slurm_like.bin)
        self.channels: list[LocalShell] = []

    @contextlib.contextmanager
    def talk(self) -> Iterator[LedgerCluster]:
        cluster = local(self.job_dir, self.scheduler, self.env)
        yield cluster
        cluster.close()

    def killed(self, step: int, when: str, target: str, act: Callable[[LedgerCluster], object]) -> bool:
        """Does something with a program that is killed at its n-th step; False when it had ended before that."""
        sabotage = Sabotage(self.folder / "sabotage", self.env["PATH"])

        def arm(channel: Channel) -> None:
            assert isinstance(channel, LocalShell)
            if (sabotage.folder / "pid").exists():
                channel.close()
                raise ClusterError("cluster.cut", "the client is gone too: it does not come back by itself")
            self.channels.append(channel)
            sabotage.arm(step, when, channel.pid if target == "shell" else -channel.pid)

        cluster = local(self.job_dir, self.scheduler, {**self.env, "PATH": f"{sabotage.bin}:{self.env['PATH']}"}, arm)
        with contextlib.suppress(DispatchError):
            act(cluster)
        with contextlib.suppress(DispatchError):
            cluster.close()
        self.where = f"step {step}, {when} `{sabotage.killed.strip()}`"
        return sabotage.killed != ""

    def hold(self, cluster: LedgerCluster) -> object:
        answer = cluster.claim(claim_request())
        if not isinstance(answer, Claimed):
            return answer
        made = submission(answer, body=f"echo ran >>'{self.folder}/ran'")
        return cluster.submit(replace(made, hold=True, usage=USAGE))

    def take_turns(self, cluster: LedgerCluster) -> None:
        """What sweeps do until nothing waits any more."""
        for _ in range(8):
            assert cluster.lock(), self.where
            try:
                standing = cluster.standing()
                assert len(standing.active) + len(standing.queued) == 1, (self.where, standing)
                for _ in standing.queued:
                    cluster.release(KEY)
            finally:
                cluster.unlock()
            if not cluster.sweep().queued:
                return
            time.sleep(1)
        raise AssertionError(f"{self.where}: it waits for ever")

    def check_one_job(self, cluster: LedgerCluster) -> None:
        (run,) = cluster.sweep().runs
        folder = self.job_dir / "runs" / KEY
        assert cluster.claim(claim_request()) == AlreadySubmitted(run.job_id, RECORD), self.where
        assert run.job_id == (folder / "job").read_text().strip(), self.where
        if self.scheduler == "slurm":
            assert self.slurm_like.jobs == [run.job_id], self.where
        else:
            deadline = time.monotonic() + 5
            while not (folder / "exit").exists():
                assert time.monotonic() < deadline, self.where
                time.sleep(0.02)
            assert (self.folder / "ran").read_text() == "ran\n", self.where
        assert TREE.unpacked(folder / "code"), self.where
        assert os.listdir(self.job_dir / "runs") == [KEY], self.where
        assert os.listdir(self.job_dir / "queue") == [], self.where
        assert (self.job_dir / "active" / KEY).exists(), self.where
        assert cluster.find("pr-7") == (RECORD,), self.where
        assert set(cluster.usage("2026-11").splitlines()) == {USAGE}, self.where


def killed_at_every_step(
    tmp_path: Path,
    how: tuple[str, str, str],
    act: Callable[[Scene, LedgerCluster], object],
    check: Callable[[Scene], None],
    held: bool = True,
) -> list[str]:
    """Checks a scene for each step at which `act` can be killed; where those were. `how` is the scheduler, when, and whom."""
    scheduler, when, target = how
    scenes: list[Scene] = []

    def killed(step: int) -> bool:
        scene = Scene(tmp_path / str(step), scheduler)
        if held:
            with scene.talk() as cluster:
                assert scene.hold(cluster) == Held()
        if not scene.killed(step, when, target, lambda cluster: act(scene, cluster)):
            return False
        scenes.append(scene)
        try:
            check(scene)
        except DispatchError as error:
            raise AssertionError(f"{scene.where}: {error.code} {error}") from error
        return True

    at_every_step(killed, STEPS)
    count = sum(scene.channels[-1]._process.returncode == -signal.SIGKILL for scene in scenes)
    assert count >= 4, "hardly anything was killed"
    return [scene.where for scene in scenes]


def held_or_nothing(scene: Scene) -> None:
    """The next delivery lays it ready, or finds that it is; it has one place and then one job."""
    with scene.talk() as cluster:
        sweep = cluster.sweep()
        folder = scene.job_dir / "runs" / KEY
        if (folder / "held").exists():
            assert (sweep.runs, sweep.queued) == ((), (KEY,)), f"{scene.where}: a sweep knows it without another delivery"
        elif list((scene.job_dir / "queue").iterdir()):
            assert ([run.run_key for run in sweep.runs], sweep.queued) == ([KEY], ()), f"{scene.where}: a sweep can call it off"
        answer = InProgress(0)
        while isinstance(answer, InProgress):
            answer = scene.hold(cluster)  # type: ignore[assignment]
        assert answer in (Held(), AlreadySubmitted("", RECORD)), (scene.where, answer)
        sweep = cluster.sweep()
        assert (sweep.runs, sweep.queued) == ((), (KEY,)), scene.where
        assert len(os.listdir(scene.job_dir / "queue")) == 1, scene.where
        assert scene.slurm_like.jobs == [], scene.where
        assert not (scene.folder / "ran").exists(), scene.where
        assert isinstance(cluster.release(KEY), Submitted), scene.where
        scene.check_one_job(cluster)


@all_kills
def test_while_it_is_held(scheduler: str, when: str, target: str, tmp_path: Path) -> None:
    killed_at_every_step(tmp_path, (scheduler, when, target), Scene.hold, held_or_nothing, held=False)


def admit(scene: Scene, cluster: LedgerCluster) -> object:
    """A turn as the dispatcher takes it."""
    assert cluster.lock()
    cluster.standing()
    outcome = cluster.release(KEY)
    cluster.unlock()
    return outcome


def swept_to_its_job(scene: Scene) -> None:
    """Sweeps alone, without another delivery, bring it to its one job."""
    with scene.talk() as cluster:
        sweep = cluster.sweep()
        known = [run.run_key for run in sweep.runs] + list(sweep.queued)
        assert known == [KEY], f"{scene.where}: {known}"
        scene.take_turns(cluster)
        scene.check_one_job(cluster)


@all_kills
def test_while_its_turn_is_taken(scheduler: str, when: str, target: str, tmp_path: Path) -> None:
    lines = killed_at_every_step(tmp_path, (scheduler, when, target), admit, swept_to_its_job)
    if scheduler == "slurm":
        assert any("sbatch --parsable" in line for line in lines), lines


def delivered_again(scene: Scene) -> None:
    """A delivery of the same command that comes right after finds its place or its job, and wipes nothing away."""
    with scene.talk() as cluster:
        answer = InProgress(0)
        while isinstance(answer, InProgress):
            answer = cluster.claim(claim_request())  # type: ignore[assignment]
        assert isinstance(answer, AlreadySubmitted), (scene.where, answer)
        assert answer.record == RECORD, scene.where
        if not answer.job_id:
            assert cluster.sweep().queued == (KEY,), scene.where
            scene.take_turns(cluster)
        scene.check_one_job(cluster)


def test_redelivered_while_its_turn_is_taken(tmp_path: Path) -> None:
    killed_at_every_step(tmp_path, ("slurm", "before", "group"), admit, delivered_again)


def waits_or_dropped(scene: Scene) -> None:
    """It waits as before, or is dropped; both are whole."""
    with scene.talk() as cluster:
        waits = (scene.job_dir / "runs" / KEY / "held").exists()
        assert waits is not (scene.job_dir / "runs" / KEY / "dropped").exists(), scene.where
        assert cluster.sweep().queued == ((KEY,) if waits else ()), scene.where
        assert cluster.drop(KEY) is waits, scene.where
        assert cluster.claim(claim_request()) == AlreadySubmitted("", RECORD), scene.where
        standing, sweep = cluster.standing(), cluster.sweep()
        # It is active, without a job, until somebody has said its end.
        assert (standing.active, standing.queued, sweep.queued) == ((RECORD,), (), ()), scene.where
        assert [(run.run_key, run.job_id) for run in sweep.runs] == [(KEY, "")], scene.where
        assert os.listdir(scene.job_dir / "queue") == [], scene.where
        assert cluster.release(KEY) is None, scene.where
        cluster.retire(KEY)
        assert cluster.sweep().runs == (), scene.where
        assert scene.slurm_like.jobs == [], scene.where


@kills
def test_while_it_is_dropped(when: str, target: str, tmp_path: Path) -> None:
    killed_at_every_step(tmp_path, ("slurm", when, target), lambda _, cluster: cluster.drop(KEY), waits_or_dropped)


def lock_twice(scene: Scene, cluster: LedgerCluster) -> None:
    for _ in range(2):
        assert cluster.lock()
        cluster.unlock()


def locked_at_once(scene: Scene) -> None:
    """Whoever comes next has the lock at once, and alone."""
    with scene.talk() as cluster, scene.talk() as other:
        begun = time.monotonic()
        assert cluster.lock(), scene.where
        assert time.monotonic() - begun < 3, scene.where
        (name,) = os.listdir(scene.job_dir / "lock")
        assert name.startswith("held."), scene.where
        other.sweep()
        other.unlock()
        assert os.listdir(scene.job_dir / "lock") == [name], scene.where
        cluster.unlock()
        assert other.lock(), scene.where


@kills
def test_while_it_is_locked(when: str, target: str, tmp_path: Path) -> None:
    killed_at_every_step(tmp_path, ("slurm", when, target), lock_twice, locked_at_once, held=False)
