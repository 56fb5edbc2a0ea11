"""Jobs that fail on a real cluster, each in its own way: the comment says why, the check names the line, the gate stays shut."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dispatcher.causes import BLAME_WORDS
from tests.github_server import GitHubServer
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Stage

pytestmark = pytest.mark.timeout(600)  # Slurm ends a job at its time limit after a minute or two

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
    assert re.search(r"`srun: error: n\d: task 0: Killed`", bodies["kill"]), "said in the batch script's log alone"
    assert "<summary>What Slurm said, in the batch script's log</summary>" in bodies["kill"]
    assert re.search(r"`srun: error: n\d: task 0: Exited with exit code 7`", bodies["pretend"])
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
import os, signal, socket, subprocess, sys, time
kind = sys.argv[1].partition("=")[2]
print("step 1 loss 2.0", flush=True)
if kind in ("memory", "quiet"):
    hold = bytearray(b"x") * (600 << 20)
if kind == "junk":
    os.write(1, bytes(range(256)) * 400 + b"\\x1b]0;title\\x07\\x1b[2J\\nValueError: <img src=x> @org/everyone ::error::no\\n")
    sys.exit(3)
if kind == "much":
    for _ in range(1024):
        os.write(1, (b"all work and no play" * 52 + b"\\n") * 1007)
    time.sleep(3)  # standard error overtakes what is still on its way
    raise ValueError("after a gigabyte")
if kind == "broken":
    open("results.json", "w").write('{"loss": 1.8')
if kind == "disk":
    disk = os.path.join(os.environ["DISPATCH_RUN_DIR"], "..", "..", "..", "disk")
    open(os.path.join(disk, "checkpoint"), "wb").write(bytes(1 << 20))
if kind == "import":
    import megatron_of_another_version
if kind == "port":
    first = socket.create_server(("127.0.0.1", 0))
    socket.create_server(first.getsockname())
if kind == "offline":
    socket.create_connection(("127.0.0.1", 9))
if kind == "command":
    sys.exit(subprocess.run(["sh", "-c", "no-such-launcher --nnodes 2"]).returncode)
if kind == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if kind == "goes-on":
    if os.path.exists("ckpt/last"):
        sys.exit(0)
    os.mkdir("ckpt")
    open("ckpt/last", "w").write("1")
if kind not in ("missing", "broken"):
    time.sleep(600)
"""
MORE = """\
default_profile: cluster
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
  long: { script: train.py, entrypoint: python3, chain: { jobs: 2, checkpoints: ckpt } }
gate:
  required: [{ profile: cluster, recipe: default }]
watch: { profiles: [cluster, small, quiet, short, first, boxed, late, low] }
"""
# The node that fails has to be another one than that of the job which is ended by its time limit.
PROFILES = {
    "small": "mem: 200M\nadditional_parameters: { nodelist: n2 }\n",
    "quiet": "mem: 200M\nadditional_parameters: { nodelist: n2 }\nsrun_args: [--error=/dev/null]\n",
    "short": "time: '00:01:00'\nadditional_parameters: { nodelist: n2 }\n",
    "first": "additional_parameters: { nodelist: n1 }\n",
    "boxed": "container_image: registry.example.com/missing:1\n",
    "late": "additional_parameters: { begin: now+600 }\n",
    "low": "partition: low\nmem: 3000M\n",
}
# Kinds of ends, in the order in which they are asked for: their profile, what the comment begins with, and their class.
STARTED = {
    "time": ("short", "was ended at its time limit after 1m", "timeout"),
    "node": ("first", "was ended by the failure of a node after ", "node failure"),
    "low": ("low", "was preempted by another job after ", "preempted"),
    "unstartable": ("late", "could not be started by the scheduler", "launcher"),
    "memory": ("small", "out of host memory after ", "out of host memory"),
    "quiet": ("quiet", "out of host memory after ", "out of host memory"),
    "much": ("cluster", "failed with ValueError after ", "code error"),
    "junk": ("cluster", "failed with exit code 3 after ", "unexplained"),
    "missing": ("cluster", "ended well, but it left no results file", None),
    "broken": ("cluster", "ended well, but the results file is not JSON", None),
    "disk": ("cluster", "stopped: no space left on a disk after ", "disk or quota"),
    "import": ("cluster", "stopped: a module could not be imported after ", "import error"),
    "port": ("cluster", "stopped: the port of the rendezvous is in use after ", "launcher"),
    "offline": ("cluster", "stopped: a server could not be reached after ", "NCCL or network"),
    "command": ("cluster", "could not start: a command was not found after ", "launcher"),
    "crash": ("cluster", "crashed in native code after ", "code error"),
    "image": ("boxed", "could not start: its container image could not be brought after ", "launcher"),
}
BLAMED = {
    "change": ("much", "command"),
    "machine": ("node", "low", "unstartable"),
    "unclear": ("port", "offline", "time", "memory", "quiet", "disk", "import", "crash", "image"),
}


@pytest.mark.usefixtures("small_disk")
def test_what_a_cluster_ends_and_what_jobs_leave_behind(github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path) -> None:
    extra = {"train.py": ENDS, **{f"profiles/{name}.yaml": f"extends: cluster\n{text}" for name, text in PROFILES.items()}}
    stage = Stage(github, cluster_sshd, tmp_path, policy=MORE, extra=extra)
    stage.repo.commit("feature", {"train.py": ENDS})
    commands = [f"/train profile={profile} kind={kind}" for kind, (profile, _, _) in STARTED.items()]
    for first in range(0, len(commands), 4):  # one comment may have five
        begun = stage.comment("\n".join(commands[first : first + 4]))
        assert begun.code == 0, begun
    runs = {record["overrides"][0].partition("=")[2]: record["run_key"] for record in records(stage)}
    goes_on = stage.comment("/train profile=short recipe=long kind=goes-on").outputs
    jobs = {kind: (stage.job_dir / "runs" / key / "job").read_text().strip() for kind, key in runs.items()}
    end_them(slurm, jobs, stage.job_dir / "runs" / runs["unstartable"])
    slurm.wait_for_state(goes_on["job-id"], "TIMEOUT", timeout=150)
    swept = stage.run("watch")
    assert swept.code == 0, swept

    bodies = {kind: next(body for body in stage.answers if key in body) for kind, key in runs.items()}
    heads = {kind: body.splitlines()[0].split(" · ", 2)[2] for kind, body in bodies.items()}
    assert {kind: head for kind, head in heads.items() if not head.startswith(STARTED[kind][1])} == {}
    failures = {record["run_key"]: record["failure"] for record in records(stage)}
    classes = {kind: failures[key] and failures[key]["kind"] for kind, key in runs.items()}
    assert classes == {kind: words[2] for kind, words in STARTED.items()}
    blamed = {kind: next((name for name, words in BLAME_WORDS.items() if words in body), None) for kind, body in bodies.items()}
    assert blamed == {**dict.fromkeys(STARTED), **{kind: blame for blame, kinds in BLAMED.items() for kind in kinds}}
    assert "exceeded memory limit (" in bodies["memory"]
    assert "`slurmstepd-n2: error: Exceeded job memory limit`" in bodies["quiet"], "said in the batch script's log alone"
    assert "[`train.py:13`]" in bodies["much"], "a gigabyte before it"
    assert "[Errno 28] No space left on device" in bodies["disk"]
    assert "DUE TO PREEMPTION" in bodies["low"]
    assert not set("\x1b\x07\x00") & set(bodies["junk"])
    assert bodies["junk"].index("```text\n") < bodies["junk"].index("@org/everyone"), "nobody is called from within code"
    assert max(len(body) for body in bodies.values()) < 20_000

    checks = {check.external_id: check.conclusion for check in stage.repo.checks_on(stage.pull.head_sha)}
    ended = {kind: checks[key] for kind, key in runs.items()}
    assert ended == {kind: "timed_out" if kind == "time" else "failure" for kind in STARTED}
    [gate] = stage.repo.checks_on(stage.pull.head_sha, "dispatch/gate")[-1:]
    assert gate.conclusion != "success"

    [chained] = [record for record in records(stage) if record["run_key"] == goes_on["run-key"]]
    assert [(job["job_id"], job["cause"]) for job in chained["earlier_jobs"]] == [(goes_on["job-id"], "time-limit")]
    slurm.wait_for_state(chained["job_id"], "COMPLETED")
    assert stage.run("watch").code == 0
    told = next(body for body in stage.answers if chained["run_key"] in body)
    assert "passed in 1m" in told.splitlines()[0], "a checkpoint, and the next job went on from it"
    assert f"goes on after job `{goes_on['job-id']}` (1m" in told


def records(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads((folder / "record.json").read_text()) for folder in (stage.job_dir / "runs").iterdir()]


def end_them(slurm: SlurmRig, jobs: Mapping[str, str], unstartable: Path) -> None:
    """What the jobs do not do by themselves is done to them; until all have ended."""
    (unstartable / "logs").rename(unstartable / "elsewhere")
    slurm.run("scontrol", "update", f"JobId={jobs['unstartable']}", "StartTime=now")
    slurm.run("scontrol", "update", f"JobId={jobs['node']}", "Requeue=0")
    slurm.wait_for_state(jobs["low"], "RUNNING")
    urgent = slurm.preempt(memory=3500)
    slurm.wait_for_state(jobs["low"], "PREEMPTED")
    slurm.run("scancel", urgent)
    for kind in ("missing", "broken"):
        slurm.wait_for_state(jobs[kind], "COMPLETED")
    for kind in sorted(set(STARTED) - {"time", "node", "low", "missing", "broken"}):
        slurm.wait_for_state(jobs[kind], "FAILED")
    slurm.set_node("n1", "DOWN")
    slurm.wait_for_state(jobs["node"], "NODE_FAIL")
    slurm.resume("n1")
    slurm.wait_for_state(jobs["time"], "TIMEOUT", timeout=150)
