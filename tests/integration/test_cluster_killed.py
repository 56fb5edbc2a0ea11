"""Killing either side at every step, and cutting the conversation at every place: the next delivery ends with exactly one job."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dispatcher.effects.channel import Channel, LocalShell
from dispatcher.effects.conversation import command
from dispatcher.effects.ledger import LedgerCluster
from dispatcher.errors import ClusterError, DispatchError
from dispatcher.ports import AlreadySubmitted, Claimed, InProgress, Submitted
from tests.integration.clusters import KEY, TREE, claim_request, environment, local, submission, submit
from tests.rig.pretend_slurm import PretendSlurm
from tests.rig.sabotage import Sabotage, at_every_step

STEPS = 90
"""More than a submission has."""


def deliver_again(job_dir: Path, scheduler: str, env: dict[str, str]) -> str:
    """Another delivery, as often as it takes; returns the job's id."""
    for _ in range(3):
        cluster = local(job_dir, scheduler, env)
        answer = cluster.claim(claim_request())
        if isinstance(answer, Claimed):
            answer = cluster.submit(submission(answer))
        cluster.close()
        if not isinstance(answer, InProgress):
            assert isinstance(answer, (Submitted, AlreadySubmitted)), answer
            return answer.job_id
    raise AssertionError("still in progress")


def check_ledger(job_dir: Path, job_id: str, where: str) -> None:
    run = job_dir / "runs" / KEY
    assert (run / "job").read_text() == f"{job_id}\n", where
    assert (job_dir / "active" / KEY).exists(), where
    assert (job_dir / "tags" / "pr-7" / KEY).exists(), where
    assert (run / "record.json").read_text() == f'{{"key": "{KEY}"}}', where
    assert TREE.unpacked(run / "code"), where
    assert os.listdir(job_dir / "runs") == [KEY], where


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("scheduler", "when", "target"),
    [("slurm", "before", "shell"), ("slurm", "after", "group"), ("local", "before", "group"), ("local", "after", "shell")],
)
def test_the_far_side_is_killed_at_every_step(scheduler: str, when: str, target: str, tmp_path: Path) -> None:
    """`shell`: only the program dies, its children finish what they do. `group`: all of them die, as when the node does."""
    killed: list[str] = []
    channels: list[LocalShell] = []

    def killed_at(step: int) -> bool:
        folder = tmp_path / str(step)
        job_dir, slurm_like = folder / "job", PretendSlurm(folder / "slurm")
        env = environment(slurm_like.bin)
        sabotage = Sabotage(folder / "sabotage", env["PATH"])
        ours: list[LocalShell] = []

        def arm(channel: Channel) -> None:
            assert isinstance(channel, LocalShell)
            if (sabotage.folder / "pid").exists():
                channel.close()
                raise ClusterError("cluster.cut", "the client is gone too: it does not come back by itself")
            ours.append(channel)
            sabotage.arm(step, when, channel.pid if target == "shell" else -channel.pid)

        first = local(job_dir, scheduler, {**env, "PATH": f"{sabotage.bin}:{env['PATH']}"}, arm)
        with contextlib.suppress(DispatchError):
            submit(first, body=f"echo ran >>'{folder}/ran'")
        with contextlib.suppress(DispatchError):
            first.close()
        if not sabotage.killed:
            return False
        killed.append(sabotage.killed)
        channels.extend(ours)
        assert ours[-1]._process.returncode in (-signal.SIGKILL, 0), sabotage.killed
        where = f"step {step}, {when} `{sabotage.killed.strip()}`"
        if "/sbatch --parsable" in sabotage.killed:
            assert (job_dir / "active" / KEY).exists(), "the next sweep sees it, even if the command never comes again"
        try:
            job_id = deliver_again(job_dir, scheduler, env)
        except DispatchError as error:
            raise AssertionError(f"{where}: {error.code} {error}") from error
        if scheduler == "slurm":
            assert slurm_like.jobs == [job_id], where
        else:
            time.sleep(0.05)
            assert not (folder / "ran").exists() or (folder / "ran").read_text() == "ran\n", where
        check_ledger(job_dir, job_id, where)
        return True

    at_every_step(killed_at, STEPS)
    assert sum(channel._process.returncode == -signal.SIGKILL for channel in channels) > 15, killed
    if scheduler == "slurm":
        assert any("/sbatch --parsable" in line for line in killed), killed


class Recording(LocalShell):
    """A channel that remembers what was sent."""

    def __init__(self, env: dict[str, str]) -> None:
        super().__init__(command(), env)
        self.sent = bytearray()

    def write(self, data: bytes) -> None:
        self.sent += data
        super().write(data)


def test_the_conversation_is_cut_everywhere(tmp_path: Path) -> None:
    """A killed client is a standard input that ends: before the last byte nothing may be submitted, after it everything."""
    slurm_like = PretendSlurm(tmp_path / "first")
    recording = Recording(environment(slurm_like.bin))
    cluster = LedgerCluster(lambda: recording, str(tmp_path / "first-job"), "slurm")
    submit(cluster)
    cluster.close()
    sent = bytes(recording.sent)
    lines = [place for place, byte in enumerate(sent) if byte == 10]
    places = {1, 100, *lines[-30:], *range(0, len(sent), len(sent) // 20), *range(len(sent) - 12, len(sent) + 1)}
    for place in sorted(places):
        folder = tmp_path / str(place)
        slurm_like = PretendSlurm(folder / "slurm")
        job_dir = folder / "job"
        data = sent[:place].replace(str(tmp_path / "first-job").encode(), str(job_dir).encode())
        subprocess.run(["/bin/sh", "-c", command()], input=data, env=environment(slurm_like.bin), capture_output=True, timeout=60)
        complete = place == len(sent)
        assert len(slurm_like.jobs) == int(complete), place
        if job_dir.exists() and not complete:
            assert not list((job_dir / "runs").iterdir()), place
            assert not list((job_dir / "tmp").iterdir()), place
            assert not list((job_dir / "active").iterdir()), place
        job_id = deliver_again(job_dir, "slurm", environment(slurm_like.bin))
        assert slurm_like.jobs == [job_id], place
        check_ledger(job_dir, job_id, str(place))
