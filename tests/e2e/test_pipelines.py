"""A recipe with stages, from a comment to real Slurm jobs that wait for each other: passed, failed, retried, cut in the middle."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.github_server import GitHubServer
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Stage

# What it learned from the stage before it stands in its results; the file `fails` names a stage that goes wrong.
STAGE = """\
import json, os, sys, time
stage, before = os.environ["DISPATCH_STAGE"], os.environ.get("DISPATCH_STAGE_DIR_PRETRAIN")
fails = os.path.join(os.environ["DISPATCH_RUN_DIR"], "..", "..", "..", "fails")
if os.path.exists(fails) and open(fails).read() == stage:
    sys.exit(3)
learned = json.load(open(before + "/code/results.json"))["steps"] if before else 0
json.dump({"steps": learned + 1}, open("results.json", "w"))
time.sleep(0.5)
"""

POLICY = """\
default_profile: cluster
recipes:
  default: { script: stage.py, entrypoint: python3, results: results.json }
  branching:
    stages:
      pretrain: { recipe: default }
      sft: { recipe: default, profile: cluster-large }
      rescue: { recipe: default, after: pretrain, when: afternotok }
      report: { recipe: default, after: [sft, rescue], when: afterany }
  chain:
    stages:
      pretrain: { recipe: default }
      sft: { recipe: default }
      rl: { recipe: default }
gate:
  required: [{ recipe: chain }]
watch: { profiles: [cluster, cluster-large] }
"""


@pytest.fixture
def stage(github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path) -> Stage:
    large = f"extends: cluster\nnodes: 2\nremote_job_dir: {tmp_path}/large\n"
    return Stage(github, cluster_sshd, tmp_path, policy=POLICY, extra={"stage.py": STAGE, "profiles/cluster-large.yaml": large})


def rows(comment: str) -> dict[str, str]:
    """The table's rows by the stage's name."""
    found = [line for line in comment.splitlines() if line.startswith("| ") and "`" in line]
    return {line.split("`")[1]: line for line in found}


def jobs(comment: str) -> dict[str, str]:
    """The jobs' ids by stage."""
    return {
        name: next((cell.strip("` ") for cell in row.split("|") if cell.strip("` ").isdigit()), "") for name, row in rows(comment).items()
    }


def gate(stage: Stage) -> str | None:
    """The newest verdict on the head."""
    found = {check.name: check for check in stage.repo.checks_on(stage.pull.head_sha)}
    return found["dispatch/gate"].conclusion


def test_stages_run_one_after_the_other_in_different_profiles(stage: Stage, slurm: SlurmRig) -> None:
    ended = stage.comment("/train recipe=branching")
    assert ended.code == 0, ended
    [comment] = stage.answers
    assert "### ⏳ train · branching · 4 stages" in comment or "### 🏃" in comment
    assert list(rows(comment)) == ["pretrain", "sft", "rescue", "report"]
    ids = jobs(comment)
    slurm.wait_for_state(ids["report"], "COMPLETED")
    assert stage.run("watch").code == 0
    [comment] = stage.answers
    assert "### ✅ train · branching · 4 stages · 3 passed, 1 not needed" in comment
    assert "steps 1" in rows(comment)["pretrain"]
    assert "`cluster-large` | `pretrain` | passed" in rows(comment)["sft"]
    assert "steps 2" in rows(comment)["sft"], "it found what pretrain had left"
    assert "⏭️" in rows(comment)["rescue"]
    assert "`sft` and `rescue` end |" in rows(comment)["report"]
    began = slurm.run("sacct", "-n", "-P", "-X", "-j", f"{ids['pretrain']},{ids['sft']},{ids['report']}", "--format=Start,End,NNodes")
    (first, second, third) = [line.split("|") for line in began.splitlines()]
    assert first[1] <= second[0] <= second[1] <= third[0]
    assert (first[2], second[2]) == ("1", "2")


def test_a_stage_that_fails_ends_what_waits_for_it_and_is_retried_with_that_alone(stage: Stage, slurm: SlurmRig) -> None:
    fails = stage.folder / "fails"
    fails.write_text("pretrain")
    assert stage.comment("/train recipe=chain").code == 0
    first = jobs(stage.answers[0])
    slurm.wait_for_state(first["pretrain"], "FAILED")
    slurm.wait_for_state(first["rl"], "CANCELLED")
    stage.run("watch")
    [comment] = stage.answers
    assert "chain · 3 stages · 1 failed, 2 cancelled" in comment
    assert "was cancelled (stage pretrain failed with exit code 3" in rows(comment)["sft"]
    assert "was cancelled (stage sft was cancelled)" in rows(comment)["rl"]
    found = [json.loads(file.read_text()) for file in stage.job_dir.glob("runs/*/record.json")]
    assert {record["stage"]: record["failure"]["kind"] for record in found if record["stage"] != "pretrain"} == {
        "sft": "dependency",
        "rl": "dependency",
    }
    assert gate(stage) == "failure"

    fails.write_text("sft")
    assert stage.comment("/train retry").code == 0
    second = jobs(stage.answers[1])
    slurm.wait_for_state(second["rl"], "CANCELLED")
    stage.run("watch")
    assert "1 passed, 1 failed, 1 cancelled" in stage.answers[1]
    assert gate(stage) == "failure"

    fails.unlink()
    failed = rows(stage.answers[1])["sft"].split("`")[-2]
    assert stage.comment(f"/train retry {failed}").code == 0
    third = jobs(stage.answers[2])
    assert third["pretrain"] == second["pretrain"], "what has passed is not run again"
    assert len({second["sft"], third["sft"], second["rl"], third["rl"]}) == 4
    slurm.wait_for_state(third["rl"], "COMPLETED")
    stage.run("watch")
    assert "### ✅ train · chain · 3 stages · 3 passed" in stage.answers[2]
    assert "an earlier run, reused" in rows(stage.answers[2])["pretrain"]
    assert gate(stage) == "success"


def test_where_turns_are_taken_the_sweep_starts_each_stage(stage: Stage) -> None:
    """What waits in the ledger is not Slurm's to start."""
    stage.repo.commit("main", {".github/dispatch.yml": POLICY + "active: { user: 1 }\n"})
    assert stage.comment("/train recipe=chain told=turns").code == 0
    assert "3 stages · 1 waiting, 2 queued here" in stage.answers[0]
    assert len(list(stage.job_dir.glob("runs/*/job"))) == 1
    followed = stage.run("watch", "--follow", "--interval", "1")
    assert followed.code == 0, followed.stderr
    [comment] = stage.answers
    assert "### ✅ train · chain · 3 stages · 3 passed" in comment
    assert len(list(stage.job_dir.glob("runs/*/job"))) == 3


def test_cut_between_two_stages_the_next_delivery_goes_on(stage: Stage, slurm: SlurmRig) -> None:
    # The same words in another test are the same run key, and Slurm still knows those jobs by their name.
    event = stage.server.comment_event(stage.pull, stage.pull.comment("/train recipe=chain told=cut", "alice"))
    process = stage.start_event("issue_comment", event)
    deadline = time.monotonic() + 60
    while not list(stage.job_dir.glob("runs/*/job")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    again = stage.handle("issue_comment", event)
    assert again.code == 0, again
    [comment] = stage.answers
    ids = jobs(comment)
    assert list(ids) == ["pretrain", "sft", "rl"]
    assert len(list(stage.job_dir.glob("runs/*/job"))) == 3
    slurm.wait_for_state(ids["rl"], "COMPLETED")
    stage.run("watch")
    assert "3 stages · 3 passed" in stage.answers[0]
    known = slurm.run("squeue", "--states=all", "-h", "-o", "%Z").count(str(stage.job_dir))
    assert known == 3, "one job a stage"
