"""A job that the machine ends is run again by itself, once, as a new job, or by Slurm as the same one; one whose code fails is not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.github_server import GitHubServer
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Stage

TRAIN = """\
import os, pathlib, sys
if len(sys.argv) > 1:
    raise ValueError("the change is wrong")
been = pathlib.Path(os.environ["DISPATCH_RUN_DIR"]).parent.parent / f"been-{os.environ['DISPATCH_SHA']}"
if not been.exists():
    been.touch()
    print("RuntimeError: CUDA error: uncorrectable ECC error encountered", file=sys.stderr, flush=True)
    sys.exit(1)
print("step 1 loss 2.0", flush=True)
"""
POLICY = """\
default_profile: cluster
recipes:
  default: { script: train.py, entrypoint: python3 }
gate:
  required: [{ profile: cluster, recipe: default }]
retries: { infrastructure: 2, wait: 2s }
watch: { profiles: [cluster] }
"""


@pytest.fixture
def stage(github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path) -> Stage:
    made = Stage(github, cluster_sshd, tmp_path, policy=POLICY, extra={"train.py": TRAIN})
    made.repo.commit("feature", {"train.py": f"{TRAIN}# changed\n"})
    return made


def records(stage: Stage) -> dict[str, Any]:
    return {folder.name: json.loads((folder / "record.json").read_text()) for folder in (stage.job_dir / "runs").iterdir()}


def retry_of(stage: Stage, run_key: str) -> dict[str, Any]:
    [found] = [record for record in records(stage).values() if record["retry_of"] == run_key]
    return found


def test_the_story_of_the_attempts(stage: Stage, slurm: SlurmRig) -> None:
    machine = stage.comment("/train").outputs
    code = stage.comment("/train wrong=1").outputs
    group = stage.repo.queue(stage.pull)
    stage.handle("merge_group", stage.server.merge_group_event(stage.pull, group), GITHUB_SHA=group)
    [in_queue] = [record for record in records(stage).values() if record["sha"] == group]
    for job in (machine["job-id"], code["job-id"], in_queue["job_id"]):
        slurm.wait_for_state(job, "FAILED")
    # Two settle the same ends at the same moment.
    sweeps = [stage.start("watch") for _ in range(2)]
    ended = [stage.ended(process, *process.communicate(timeout=120)) for process in sweeps]
    assert [one.code for one in ended] == [0, 0], ended
    stage.run("watch")
    assert len(records(stage)) == 5
    again, queued_again = (retry_of(stage, run_key) for run_key in (machine["run-key"], in_queue["run_key"]))
    assert [again["attempt"], queued_again["attempt"]] == [2, 2]
    assert records(stage)[code["run-key"]]["failure"]["kind"] == "code error"
    assert records(stage)[code["run-key"]]["followed_by"] == ""
    assert "--begin=now+2" in (Path(again["run_dir"]) / "job.sbatch").read_text()

    for record in (again, queued_again):
        slurm.wait_for_state(record["job_id"], "COMPLETED")
    swept = stage.run("watch")
    assert swept.code == 0, swept
    first, wrong, second = (
        next(body for body in stage.answers if f"run `{key}`" in body) for key in (machine["run-key"], code["run-key"], again["run_key"])
    )
    assert f"It is run again by itself: attempt 2 is run `{again['run_key'][:8]}`." in first
    assert f"attempt 2 of 3, after run `{machine['run-key'][:8]}` failed: node failure on `" in second
    assert "passed in" in second
    assert "run again by itself" not in wrong
    assert len(stage.answers) == 3
    assert len({check.external_id for check in stage.repo.checks_on(stage.pull.head_sha, "dispatch / cluster / default")}) == 3
    [gate] = stage.repo.checks_on(stage.pull.head_sha, "dispatch/gate")[-1:]
    assert gate.conclusion == "success", "the last attempt counts"
    [gate] = stage.repo.checks_on(group, "dispatch/gate")
    assert gate.conclusion == "success"
    assert "failure" not in [conclusion for _, conclusion in gate.history], "or the pull request would be out of the queue"


# --------------------------------------------------------------------------- another job, and a node, for real

# The first time it waits to be ended; `where` is the partition, or the profile's own word.
HELD = """\
import os, pathlib, time
been = pathlib.Path(os.environ["DISPATCH_RUN_DIR"]).parent.parent / f"been-{os.environ['WHERE']}"
if not been.exists():
    been.touch()
    time.sleep(600)
open("results.json", "w").write('{"loss": 2.0}')
"""
FOUR = """\
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
schedules:
  - { name: every-night, cron: "17 3 * * *", profile: nightly }
gate:
  required: [{ profile: low }, { profile: again }, { profile: node }]
retries: { infrastructure: 1, wait: 0s, exclude_node: true }
watch: { profiles: [low, again, node, nightly] }
"""
THEIR_PROFILES = {
    "low": "partition: low\nmem: 1200M\nenv_vars: { WHERE: low }\n",
    "again": "partition: low-requeue\nmem: 1200M\nenv_vars: { WHERE: again }\n",
    "nightly": "partition: low\nmem: 1200M\nenv_vars: { WHERE: nightly }\n",
    "node": "mem: 1000M\nenv_vars: { WHERE: node }\n",  # for which the others' node has no room
}


def test_what_gives_way_to_another_job_or_fails_with_its_node_is_run_again(
    github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path
) -> None:
    extra = {"train.py": HELD, **{f"profiles/{name}.yaml": f"extends: cluster\n{text}" for name, text in THEIR_PROFILES.items()}}
    stage = Stage(github, cluster_sshd, tmp_path, policy=FOUR, extra=extra)
    stage.repo.commit("feature", {"train.py": f"{HELD}# changed\n"})
    tested = stage.repo.sha("main")
    assert stage.handle("schedule", stage.server.schedule_event(stage.repo, "17 3 * * *")).code == 0
    assert stage.comment("\n".join(f"/train profile={name}" for name in ("low", "again", "node"))).code == 0
    stage.repo.commit("main", {"README.md": "The branch goes on.\n"})
    first = {record["profile"]: record for record in records(stage).values()}
    jobs = {name: record["job_id"] for name, record in first.items()}
    for name, job in jobs.items():
        slurm.wait_for_state(job, "RUNNING")
        wait_for(stage.job_dir / f"been-{name}")
    urgent = slurm.preempt(memory=3500)
    slurm.run("scontrol", "update", f"JobId={jobs['node']}", "Requeue=0")
    [failing] = slurm.run("squeue", "-h", "-j", jobs["node"], "-o", "%N").split()
    slurm.set_node(failing, "DOWN")
    for name in ("low", "nightly"):
        slurm.wait_for_state(jobs[name], "PREEMPTED")
    slurm.wait_for_state(jobs["node"], "NODE_FAIL")
    slurm.resume(failing)
    slurm.wait_for_state(jobs["again"], "PENDING")
    assert stage.run("watch").code == 0
    second = {record["profile"]: record for key, record in records(stage).items() if record["retry_of"]}
    assert {name: record["retry_of"] for name, record in second.items()} == {
        name: first[name]["run_key"] for name in ("low", "node", "nightly")
    }
    assert conclusions(stage, "again") == [None], "put back into the queue, it has not ended"
    [gate] = stage.repo.checks_on(stage.pull.head_sha, "dispatch/gate")[-1:]
    assert gate.conclusion is None, "red is for what nobody tries again"
    slurm.run("scancel", urgent)
    time.sleep(5)  # or the first start's last message would end the second one: that is what Slurm's two minutes are for
    slurm.run("scontrol", "update", f"JobId={jobs['again']}", "StartTime=now")
    for job in (*(record["job_id"] for record in second.values()), jobs["again"]):
        slurm.wait_for_state(job, "COMPLETED")
    assert stage.run("watch").code == 0

    assert len(records(stage)) == 7
    assert len(stage.answers) == 5, "the schedule has no pull request"
    low, node = (said_of(stage, first[name]["run_key"]) for name in ("low", "node"))
    assert low.splitlines()[0].startswith("### ❌ train · low · was preempted by another job after ")
    assert "This looks like the machine, not the change." in low
    assert f"It is run again by itself: attempt 2 is run `{second['low']['run_key'][:8]}`." in low
    assert "was ended by the failure of a node" in node
    after = f"attempt 2 of 2, after run `{first['low']['run_key'][:8]}` failed: preempted on `n4` ·"
    assert after in said_of(stage, second["low"]["run_key"]), "the node is not to blame"
    after = f"after run `{first['node']['run_key'][:8]}` failed: node failure on `{failing}`, without `{failing}`"
    assert after in said_of(stage, second["node"]["run_key"])
    assert records(stage)[second["node"]["run_key"]]["nodes"] not in ("", failing)
    again = said_of(stage, first["again"]["run_key"])
    assert again.splitlines()[0].startswith("### ✅ train · again · passed in ")
    assert "attempt" not in again, "for us it is one run"
    assert [conclusions(stage, name) for name in ("low", "again", "node")] == [["failure", "success"], ["success"], ["failure", "success"]]
    nightly = stage.repo.checks_on(tested, "dispatch / nightly / default")
    assert [check.conclusion for check in nightly] == ["failure", "success"]
    assert f"attempt 2 of 2, after run `{first['nightly']['run_key'][:8]}` failed: preempted" in str(nightly[1].summary)
    [history] = (stage.job_dir / "history").iterdir()
    assert [json.loads(line)["run_key"] for line in history.read_text().splitlines()] == [second["nightly"]["run_key"]]
    [gate] = stage.repo.checks_on(stage.pull.head_sha, "dispatch/gate")[-1:]
    assert gate.conclusion == "success"


def said_of(stage: Stage, run_key: str) -> str:
    [body] = [body for body in stage.answers if f"run `{run_key}`" in body]
    return body


def conclusions(stage: Stage, profile: str) -> list[str | None]:
    """Of the checks of its runs, in their order."""
    return [check.conclusion for check in stage.repo.checks_on(stage.pull.head_sha, f"dispatch / {profile} / default")]


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, file
        time.sleep(0.1)


# --------------------------------------------------------------------------- a stage of a pipeline

STAGE = """\
import json, os, pathlib, time
stage, folder = os.environ["DISPATCH_STAGE"], pathlib.Path(os.environ["DISPATCH_RUN_DIR"]).parent.parent
been = folder / f"been-{stage}"
if stage == "sft" and not been.exists():
    been.touch()
    time.sleep(600)
before = [json.load(open(value + "/code/results.json"))["steps"] for name, value in os.environ.items() if "_STAGE_DIR_" in name]
json.dump({"steps": sum(before) + 1}, open("results.json", "w"))
"""
PIPELINE = """\
default_profile: cluster
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
  chain:
    stages:
      pretrain: { recipe: default }
      sft: { recipe: default }
      rl: { recipe: default }
gate:
  required: [{ recipe: chain }]
retries: { infrastructure: 1, wait: 2s, exclude_node: true }
watch: { profiles: [cluster] }
"""


def test_a_stage_that_fails_with_its_node_is_run_again_with_what_comes_after_it(
    github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path
) -> None:
    stage = Stage(github, cluster_sshd, tmp_path, policy=PIPELINE, extra={"train.py": STAGE})
    stage.repo.commit("feature", {"train.py": f"{STAGE}# changed\n"})
    assert stage.comment("/train recipe=chain").code == 0
    first = {record["stage"]: record for record in records(stage).values()}
    wait_for(stage.job_dir / "been-sft")
    slurm.run("scontrol", "update", f"JobId={first['sft']['job_id']}", "Requeue=0")
    [failing] = slurm.run("squeue", "-h", "-j", first["sft"]["job_id"], "-o", "%N").split()
    slurm.set_node(failing, "DOWN")
    slurm.wait_for_state(first["sft"]["job_id"], "NODE_FAIL")
    slurm.resume(failing)
    slurm.wait_for_state(first["rl"]["job_id"], "CANCELLED")
    # Two settle the same ends at the same moment; a third finds nothing left to do.
    sweeps = [stage.start("watch") for _ in range(2)]
    ended = [stage.ended(process, *process.communicate(timeout=120)) for process in sweeps]
    assert [one.code for one in ended] == [0, 0], ended
    assert stage.run("watch").code == 0
    second = {record["stage"]: record for record in records(stage).values() if record["retry_of"]}
    assert {name: record["retry_of"] for name, record in second.items()} == {name: first[name]["run_key"] for name in ("sft", "rl")}
    asked = (Path(second["sft"]["run_dir"]) / "job.sbatch").read_text()
    assert "--begin=now+2" in asked
    assert f"--exclude={failing}" in asked
    assert f"--dependency=afterok:{second['sft']['job_id']}" in (Path(second["rl"]["run_dir"]) / "job.sbatch").read_text()
    slurm.wait_for_state(second["rl"]["job_id"], "COMPLETED")
    assert stage.run("watch").code == 0

    assert len(records(stage)) == 5
    assert len({record["job_id"] for record in records(stage).values()}) == 5
    assert records(stage)[second["sft"]["run_key"]]["nodes"] not in ("", failing)
    old, new = stage.answers
    assert "chain · 3 stages · 1 passed, 1 failed, 1 cancelled" in old
    assert f"It is run again by itself: attempt 2 is run `{second['sft']['run_key'][:8]}`, and with it the stages that come" in old
    assert "### ✅ train · chain · 3 stages · 3 passed" in new
    story = f"attempt 2 of 2, after run `{first['sft']['run_key'][:8]}` failed: node failure on `{failing}`, without `{failing}`"
    assert story in new.splitlines()[2]
    assert "an earlier run, reused" in new
    assert "steps 3" in new, "each stage found what the one before it had left"
    [gate] = stage.repo.checks_on(stage.pull.head_sha, "dispatch/gate")[-1:]
    assert gate.conclusion == "success"
    assert "failure" not in [conclusion for _, conclusion in gate.history]
