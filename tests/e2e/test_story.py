"""From a comment to a real Slurm job and back: GitHub's events over real HTTP, one SSH connection, a job, a comment, a check, a gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.github_server import GitHubServer
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Stage


@pytest.fixture
def stage(github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path) -> Stage:
    return Stage(github, cluster_sshd, tmp_path)


def test_a_comment_becomes_a_job_a_check_and_a_gate(stage: Stage, slurm: SlurmRig) -> None:
    mark = stage.sshd.mark()
    ended = stage.comment("/train steps=2")
    assert ended.code == 0, ended
    assert ended.outputs["decision"] == "run"
    job = ended.outputs["job-id"]
    assert (stage.sshd.connections(mark), stage.sshd.sessions(mark)) == (1, 1)
    assert len(stage.server.requests) <= 10

    [comment] = stage.answers
    assert f"`{job}`" in comment
    assert "https://ondemand.example.com/files" in comment
    [check] = stage.repo.checks_on(stage.pull.head_sha)
    assert (check.status, check.conclusion, check.external_id) == ("queued", None, ended.outputs["run-key"])

    slurm.wait_for_state(job, "COMPLETED")
    swept = stage.run("watch")
    assert swept.code == 0, swept.stderr
    [comment] = stage.answers
    assert "✅ train · cluster · passed" in comment
    assert "**loss 1.875**" in comment
    checks = {check.name: check for check in stage.repo.checks_on(stage.pull.head_sha)}
    assert checks["dispatch / cluster / default"].conclusion == "success"
