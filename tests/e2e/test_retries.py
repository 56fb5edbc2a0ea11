"""A job that the machine ends is run again by itself, once, as a new job; one that its own code ends is not."""

from __future__ import annotations

import json
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
been = pathlib.Path(os.environ["DISPATCH_RUN_DIR"]).parent.parent / "been-here"
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


def test_the_story_of_the_attempts(stage: Stage, slurm: SlurmRig) -> None:
    machine = stage.comment("/train").outputs
    code = stage.comment("/train wrong=1").outputs
    for outputs in (machine, code):
        slurm.wait_for_state(outputs["job-id"], "FAILED")
    # Two settle the same ends at the same moment.
    sweeps = [stage.start("watch") for _ in range(2)]
    ended = [stage.ended(process, *process.communicate(timeout=120)) for process in sweeps]
    assert [one.code for one in ended] == [0, 0], ended
    stage.run("watch")
    [again] = [record for key, record in records(stage).items() if key not in (machine["run-key"], code["run-key"])]
    assert (again["retry_of"], again["attempt"]) == (machine["run-key"], 2)
    assert records(stage)[code["run-key"]]["failure"]["kind"] == "code error"
    assert records(stage)[code["run-key"]]["followed_by"] == ""
    assert "--begin=now+2" in (Path(again["run_dir"]) / "job.sbatch").read_text()

    slurm.wait_for_state(again["job_id"], "COMPLETED")
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
