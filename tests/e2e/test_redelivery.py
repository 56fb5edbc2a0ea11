"""The process is killed at any step and the event is delivered again: there is exactly one Slurm job, one comment and one check."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.github_server import GitHubServer
from tests.rig.latency import LatencyProxy
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Ended, Stage


@pytest.fixture(scope="module")
def stage(slurm: SlurmRig, cluster_sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with GitHubServer() as server:
        yield Stage(server, cluster_sshd, tmp_path_factory.mktemp("redelivery"))
        assert server.violations == []


@pytest.fixture(autouse=True)
def tidy(stage: Stage, slurm: SlurmRig) -> Iterator[None]:
    yield
    stage.server.faults.clear()
    for file in stage.sshd.bin.glob("*"):
        file.unlink()
    slurm.cancel_all()


def jobs_named(slurm: SlurmRig, key: str) -> list[str]:
    """Every Slurm job that was ever submitted for a run key, as the controller and accounting know them."""
    rows = slurm.run("squeue", "--states=all", "--noheader", "-o", "%i %j") + slurm.run(
        "sacct", "-n", "-X", "-P", "--format=JobID,JobName%60"
    ).replace("|", " ")
    return sorted({line.split()[0] for line in rows.splitlines() if line.split()[1:] == [f"dispatch-{key}"]})


def one_of_each(stage: Stage, slurm: SlurmRig, event: dict[str, Any], ended: Ended) -> None:
    """The promise: one job, one comment, one check, and the ledger knows how to go on."""
    assert ended.code == 0, ended
    key = ended.outputs["run-key"]
    assert jobs_named(slurm, key) == [ended.outputs["job-id"]]
    mine = [body for body in stage.answers if f"nemotron-dispatch run {key}" in body]
    assert len(mine) == 1
    assert f"`{ended.outputs['job-id']}`" in mine[0]
    assert len([check for check in stage.repo.checks_on(stage.pull.head_sha) if check.external_id == key]) == 1
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED")
    swept = stage.run("watch")
    assert swept.code == 0, swept
    [check] = [check for check in stage.repo.checks_on(stage.pull.head_sha) if check.external_id == key]
    assert (check.status, check.conclusion) == ("completed", "success")
    assert not (stage.job_dir / "active" / key).exists()


# The requests of a good run, in order: each is stopped before and after it took effect.
STEPS = [
    ("POST", r"/reactions$", 1),
    ("GET", r"/contents/", 1),
    ("GET", r"/permission$", 1),
    ("GET", r"/pulls/1$", 1),
    ("GET", r"/contents/profiles", 1),
    ("POST", r"/check-runs$", 1),
    ("GET", r"/pulls/1$", 2),
    ("PATCH", r"/check-runs/", 1),
    ("POST", r"/issues/1/comments$", 1),
]


@pytest.mark.parametrize(("method", "path", "nth"), STEPS)
def test_killed_while_github_is_asked(stage: Stage, slurm: SlurmRig, method: str, path: str, nth: int) -> None:
    event = stage.server.comment_event(stage.pull, stage.pull.comment("/train steps=1"))
    # The effect happens, the answer never comes: the worst moment to die.
    fault = stage.server.slow(method, path, 30, nth=nth, after_effect=True)
    killed = stage.start_event("issue_comment", event)
    wait_until(lambda: fault.done, killed)
    killed.kill()
    killed.communicate()
    stage.server.faults.clear()
    one_of_each(stage, slurm, event, stage.handle("issue_comment", event))


SBATCHES = {
    "before sbatch": "kill -9 $PPID; exit 1",
    "while sbatch runs": '"$REAL" "$@" >/dev/null; kill -9 $PPID; exit 1',
    "after sbatch has answered": '"$REAL" "$@"; kill -9 $PPID; exit 0',
}


@pytest.mark.parametrize("when", SBATCHES)
def test_the_remote_program_is_killed(stage: Stage, slurm: SlurmRig, when: str) -> None:
    event = stage.server.comment_event(stage.pull, stage.pull.comment("/train steps=1"))
    real = next(Path(folder) / "sbatch" for folder in ("/usr/bin", "/usr/local/bin") if (Path(folder) / "sbatch").exists())
    wrapper = stage.sshd.bin / "sbatch"
    wrapper.write_text(f"#!/bin/sh\nREAL={real}\n{SBATCHES[when]}\n")
    wrapper.chmod(0o755)
    first = stage.handle("issue_comment", event)
    # Whoever is left finds the job by its name, if there is one; nobody is left only when it died before sbatch did.
    assert (first.code == 0) == (when != "before sbatch" and bool(first.outputs.get("job-id"))), first
    wrapper.unlink()
    one_of_each(stage, slurm, event, stage.handle("issue_comment", event))


@pytest.mark.parametrize("count", [200, 2_000, 4_000, 6_000, 12_000])
def test_the_wire_is_cut(stage: Stage, slurm: SlurmRig, latency: Callable[..., LatencyProxy], count: int) -> None:
    event = stage.server.comment_event(stage.pull, stage.pull.comment("/train steps=1"))
    proxy = latency(stage.sshd.port)
    proxy.cut_after(count)
    stage.point_to(proxy.port)
    try:
        first = stage.handle("issue_comment", event)
        assert first.code in (0, 7, 8), first
    finally:
        stage.point_to(stage.sshd.port)
    one_of_each(stage, slurm, event, stage.handle("issue_comment", event))


def test_delivered_four_times_at_once(stage: Stage, slurm: SlurmRig) -> None:
    event = stage.server.comment_event(stage.pull, stage.pull.comment("/train steps=1"))
    together = [stage.start_event("issue_comment", event) for _ in range(4)]
    for process in together:
        _, words = process.communicate(timeout=120)
        assert process.returncode == 0, words
    one_of_each(stage, slurm, event, stage.handle("issue_comment", event))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_workflow_gives_the_lock_back(stage: Stage, slurm: SlurmRig, number: signal.Signals) -> None:
    event = stage.server.comment_event(stage.pull, stage.pull.comment("/train steps=1"))
    fault = stage.server.slow("GET", r"/pulls/1$", 30, nth=2)
    process = stage.start_event("issue_comment", event)
    wait_until(lambda: fault.done, process)
    process.send_signal(number)
    _, words = process.communicate(timeout=30)
    assert process.returncode == 130, words
    stage.server.faults.clear()
    assert not list((stage.job_dir / "runs").glob("*/claim.*"))
    one_of_each(stage, slurm, event, stage.handle("issue_comment", event))


def test_a_push_in_between_submits_nothing(stage: Stage, slurm: SlurmRig) -> None:
    event = stage.server.comment_event(stage.pull, stage.pull.comment("/train steps=1"))
    fault = stage.server.slow("POST", r"/check-runs$", 3, after_effect=True)
    before = stage.pull.head_sha
    process = stage.start_event("issue_comment", event)
    wait_until(lambda: fault.done, process)
    stage.pull.push({"other.py": f"# {time.time()}\n"})
    process.communicate(timeout=60)
    ended = stage.ended(process)
    assert (ended.code, ended.outputs["reason-code"]) == (5, "head-moved"), ended
    checks = [check.name for check in stage.repo.checks_on(before) if check.status != "completed" and check.name != "dispatch/gate"]
    assert checks == []
    assert re.search(r"Not started: the head has moved", stage.answers[-1])
    assert not list((stage.job_dir / "runs").glob("*/claim.*"))


def wait_until(happened: Callable[[], object], process: Any, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        if process.poll() is not None:
            raise AssertionError(f"it ended first: {process.communicate()}")
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError("it never happened")
        time.sleep(0.02)
