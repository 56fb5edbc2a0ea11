"""Jobs that fail on a real cluster, each in its own way: the comment says why, the check names the line, the gate stays shut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.github_server import GitHubServer
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Stage

MODEL = """\
def forward(kind):
    raise ValueError(f"@org/everyone {kind} is <b>no</b> shape")
"""
TRAIN = """\
import os, signal, sys, time
kind = sys.argv[1].partition("=")[2]
print("step 1 loss 2.0", flush=True)
if kind == "raise":
    import model
    model.forward(kind)
if kind == "pretend":
    print("slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-11-30T18:02:11 DUE TO TIME LIMIT ***", flush=True)
    sys.exit(7)
if kind == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""
POLICY = """\
default_profile: cluster
recipes:
  default: { script: train.py, entrypoint: python3, subpath: models }
gate:
  required: [{ profile: cluster, recipe: default }]
watch: { profiles: [cluster] }
"""


@pytest.fixture
def stage(github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path) -> Stage:
    files = {"models/train.py": TRAIN, "models/model.py": MODEL}
    return Stage(github, cluster_sshd, tmp_path, policy=POLICY, extra=files)


def test_every_end_says_why(stage: Stage, slurm: SlurmRig) -> None:
    begun = {kind: stage.comment(f"/train kind={kind}").outputs for kind in ("raise", "pretend", "kill", "cancel")}
    jobs = {kind: outputs["job-id"] for kind, outputs in begun.items()}
    slurm.wait_for_state(jobs["cancel"], "RUNNING")
    slurm.run("scancel", jobs["cancel"])
    ends = {"raise": "FAILED", "pretend": "FAILED", "kill": "FAILED", "cancel": "CANCELLED"}
    for kind, state in ends.items():
        slurm.wait_for_state(jobs[kind], state)
    swept = stage.run("watch")
    assert swept.code == 0, swept
    bodies = {kind: next(body for body in stage.answers if outputs["run-key"] in body) for kind, outputs in begun.items()}
    checks = {check.external_id: check for check in stage.repo.checks_on(stage.pull.head_sha)}
    sha = stage.pull.head_sha

    raised = bodies["raise"]
    assert "### ❌ train · cluster · failed with ValueError after " in raised
    assert "`ValueError: @org/everyone raise is <b>no</b> shape` in [`models/model.py:2`]" in raised
    assert f"/org/repo/blob/{sha}/models/model.py#L2)" in raised
    assert "This looks like the change, not the machine." in raised
    check = checks[begun["raise"]["run-key"]]
    notes = [(note["path"], note["start_line"], note["annotation_level"]) for note in check.annotations]
    assert notes == [("models/model.py", 2, "failure"), ("models/train.py", 6, "notice")]
    assert "@\u200borg/everyone" in check.annotations[0]["message"]

    assert "failed with exit code 7 after" in bodies["pretend"], "a log tells nobody that Slurm ended the job"
    assert "time limit" not in bodies["pretend"].splitlines()[0]
    assert "was killed, perhaps for lack of memory after " in bodies["kill"]
    assert "`exit code 137`" in bodies["kill"], "of which Slurm keeps seven bits"
    assert "was cancelled by the cluster's administrators after" in bodies["cancel"], "the rig's scancel is root's"
    assert "cancelled by user id 0" in bodies["cancel"]
    kinds = {}
    for kind, outputs in begun.items():
        record = json.loads((stage.job_dir / "runs" / outputs["run-key"] / "record.json").read_text())
        kinds[kind] = record["failure"]["kind"]
    assert kinds == {
        "raise": "code error",
        "pretend": "unexplained",
        "kill": "out of host memory",
        "cancel": "cancelled",
    }
    assert {checks[outputs["run-key"]].conclusion for outputs in begun.values()} == {"failure", "cancelled"}
    [gate] = stage.repo.checks_on(sha, "dispatch/gate")[-1:]
    assert gate.conclusion != "success"
