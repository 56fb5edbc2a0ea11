"""A run that goes on in further jobs on a real cluster is one run: one comment, one check, one curve, one verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.github_server import GitHubServer
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Stage

# Ten steps, of which each job manages four; 85 says that it has saved its state and wants to go on. None ends before it may.
TRAIN = """\
import json, os, pathlib, sys, time
may = pathlib.Path(os.environ["DISPATCH_RUN_DIR"]).parents[2] / ("may-" + os.environ["DISPATCH_JOB_NUMBER"])
while not may.exists():
    time.sleep(0.05)
saved = pathlib.Path(os.environ["DISPATCH_CHECKPOINTS"]) / "last"
step = int(saved.read_text()) if saved.exists() else 0
print("job", os.environ["DISPATCH_JOB_NUMBER"], "begins at", step, flush=True)
for step in range(step + 1, step + 5):
    with open(os.environ["DISPATCH_SERIES"], "a") as series:
        print(json.dumps({"step": step, "name": "loss", "value": 4 - step / 4, "total": 10}), file=series)
    if step == 10:
        json.dump({"loss": 1.5}, open(os.environ["DISPATCH_RESULTS"], "w"))
        sys.exit(0)
if len(sys.argv) < 2:
    saved.parent.mkdir(exist_ok=True)
    saved.write_text(str(step))
sys.exit(85)
"""
POLICY = """\
default_profile: cluster
recipes:
  default:
    script: train.py
    entrypoint: python3
    results: results.json
    series: series.jsonl
    chain: { jobs: 4, checkpoints: ckpt, exit_code: 85 }
gate:
  required: [{ profile: cluster, recipe: default }]
watch: { profiles: [cluster] }
"""


@pytest.fixture
def stage(github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path) -> Stage:
    made = Stage(github, cluster_sshd, tmp_path, policy=POLICY, extra={"train.py": TRAIN, "ckpt/readme": "not a checkpoint\n"})
    made.repo.commit("feature", {"train.py": f"{TRAIN}# changed\n"})
    return made


def record(stage: Stage, run_key: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((stage.job_dir / "runs" / run_key / "record.json").read_text())
    return found


def test_one_run_of_several_jobs(stage: Stage, slurm: SlurmRig) -> None:
    begun = stage.comment("/train").outputs
    stays = stage.comment("/train forgets=1").outputs
    key = begun["run-key"]
    jobs = [begun["job-id"]]
    (stage.folder / "may-1").touch()
    slurm.wait_for_state(stays["job-id"], "FAILED")
    for number in (2, 3):
        slurm.wait_for_state(jobs[-1], "FAILED")
        # Two look at the same end at the same moment.
        sweeps = [stage.start("watch") for _ in range(2)]
        ended = [stage.ended(process, *process.communicate(timeout=120)) for process in sweeps]
        assert [one.code for one in ended] == [0, 0], ended
        now = record(stage, key)
        assert now["state"] in ("pending", "running"), now
        assert [job["job_id"] for job in now["earlier_jobs"]] == jobs
        jobs.append(now["job_id"])
        body = next(body for body in stage.answers if f"run `{key}`" in body)
        assert f"job {jobs[-1]}, {number} of at most 4, is " in body
        [check] = [found for found in stage.repo.checks_on(stage.pull.head_sha) if found.external_id == key]
        assert check.status != "completed"
        [gate] = stage.repo.checks_on(stage.pull.head_sha, "dispatch/gate")[-1:]
        assert gate.conclusion != "success"
        (stage.folder / f"may-{number}").touch()
    slurm.wait_for_state(jobs[-1], "COMPLETED")
    swept = stage.run("watch")
    assert swept.code == 0, swept

    known = slurm.run("squeue", "--states=all", "--noheader", f"--name=dispatch-{key}", "-o", "%i")
    assert sorted(known.split()) == sorted(jobs)
    now = record(stage, key)
    assert (now["state"], now["results"]["loss"], now["results_problem"]) == ("succeeded", 1.5, "")
    assert (now["curves"][0]["first"], now["curves"][0]["last"]) == (1, 10), "the jobs have written one series"
    body = next(body for body in stage.answers if f"run `{key}`" in body)
    assert "passed in" in body
    assert f"goes on after jobs `{jobs[0]}` " in body
    assert len(stage.answers) == 2
    [check] = [found for found in stage.repo.checks_on(stage.pull.head_sha) if found.external_id == key]
    assert check.conclusion == "success"
    [gate] = stage.repo.checks_on(stage.pull.head_sha, "dispatch/gate")[-1:]
    assert gate.conclusion == "success"

    other = record(stage, stays["run-key"])
    assert (other["state"], other["earlier_jobs"], other["not_continued"]) == ("failed", [], "nothing-saved")
    told = next(body for body in stage.answers if f"run `{stays['run-key']}`" in body)
    assert "No further job continues it (`nothing-saved`)." in told
