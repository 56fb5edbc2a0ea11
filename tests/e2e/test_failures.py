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


# --------------------------------------------------------------------------- what a cluster does to jobs

ENDS = """\
import os, sys, time
kind = sys.argv[1].partition("=")[2]
print("step 1 loss 2.0", flush=True)
if kind == "memory":
    hold = bytearray(b"x") * (600 << 20)
if kind == "junk":
    os.write(1, bytes(range(256)) * 400 + b"\\x1b]0;title\\x07\\x1b[2J\\nValueError: <img src=x> @org/everyone ::error::no\\n")
    sys.exit(3)
if kind == "much":
    for _ in range(1024):
        os.write(1, (b"all work and no play" * 52 + b"\\n") * 1007)
    raise ValueError("after a gigabyte")
if kind == "broken":
    open("results.json", "w").write('{"loss": 1.8')
if kind not in ("missing", "broken"):
    time.sleep(600)
"""
MORE = """\
default_profile: cluster
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
gate:
  required: [{ profile: cluster, recipe: default }]
watch: { profiles: [cluster, small, short, first] }
"""
# The node that fails has to be another one than that of the job which is ended by its time limit.
PROFILES = {
    "small": "mem: 200M\nadditional_parameters: { nodelist: n2 }\n",
    "short": "time: '00:01:00'\nadditional_parameters: { nodelist: n2 }\n",
    "first": "additional_parameters: { nodelist: n1 }\n",
}
STARTED = {"memory": "small", "time": "short", "node": "first", **dict.fromkeys(("junk", "much", "missing", "broken"), "cluster")}


def test_what_a_cluster_ends_and_what_jobs_leave_behind(github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path) -> None:
    extra = {"train.py": ENDS, **{f"profiles/{name}.yaml": f"extends: cluster\n{text}" for name, text in PROFILES.items()}}
    stage = Stage(github, cluster_sshd, tmp_path, policy=MORE, extra=extra)
    stage.repo.commit("feature", {"train.py": ENDS})
    begun = {kind: stage.comment(f"/train profile={profile} kind={kind}").outputs for kind, profile in STARTED.items()}
    jobs = {kind: outputs["job-id"] for kind, outputs in begun.items()}
    slurm.wait_for_state(jobs["node"], "RUNNING")
    slurm.run("scontrol", "update", f"JobId={jobs['node']}", "Requeue=0")
    for kind in ("memory", "junk", "much"):
        slurm.wait_for_state(jobs[kind], "FAILED")
    for kind in ("missing", "broken"):
        slurm.wait_for_state(jobs[kind], "COMPLETED")
    slurm.set_node("n1", "DOWN")  # until its slurmd reports again, as it does by itself (ReturnToService=2)
    slurm.wait_for_state(jobs["node"], "NODE_FAIL")
    slurm.wait_for_state(jobs["time"], "TIMEOUT", timeout=150)
    swept = stage.run("watch")
    assert swept.code == 0, swept

    bodies = {kind: next(body for body in stage.answers if outputs["run-key"] in body) for kind, outputs in begun.items()}
    heads = {kind: body.splitlines()[0].split(" · ", 2)[2] for kind, body in bodies.items()}
    for kind, words in {
        "memory": "out of host memory after ",
        "time": "was ended at its time limit after 1m",
        "node": "was ended by the failure of a node after ",
        "junk": "failed with exit code 3 after ",
        "much": "failed with ValueError after ",
        "missing": "ended well, but it left no results file",
        "broken": "ended well, but the results file is not JSON",
    }.items():
        assert heads[kind].startswith(words), (kind, heads[kind])
    assert "exceeded memory limit (" in bodies["memory"]
    assert "This looks like the machine, not the change." in bodies["node"]
    assert "[`train.py:12`]" in bodies["much"], "a gigabyte before it"
    assert not set("\x1b\x07\x00") & set(bodies["junk"])
    assert bodies["junk"].index("```text\n") < bodies["junk"].index("@org/everyone"), "nobody is called from within code"
    assert max(len(body) for body in bodies.values()) < 20_000

    checks = {check.external_id: check.conclusion for check in stage.repo.checks_on(stage.pull.head_sha)}
    ended = {kind: checks[outputs["run-key"]] for kind, outputs in begun.items()}
    assert ended == {kind: "timed_out" if kind == "time" else "failure" for kind in STARTED}
    [gate] = stage.repo.checks_on(stage.pull.head_sha, "dispatch/gate")[-1:]
    assert gate.conclusion != "success"
