"""The default branch makes a baseline on a real cluster; a change that measures worse is red, with its reason, until it is accepted."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from dispatcher.errors import Exit
from tests.github_server import GitHubServer
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import TRAIN, Stage

POLICY = """\
default_profile: cluster
recipes:
  default:
    script: train.py
    entrypoint: python3
    results: results.json
    metrics:
      loss: { no_worse_than: baseline }
      samples_per_s: { min: 100, missing: warn }
schedules:
  - { name: nightly, cron: "17 3 * * *" }
gate:
  required: [{ profile: cluster, recipe: default }]
watch: { profiles: [cluster] }
"""
WORSE = TRAIN.replace('"loss": 1.875', '"loss": 2.5')


@pytest.fixture(scope="module")
def stage(slurm: SlurmRig, cluster_sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with GitHubServer() as server:
        stage = Stage(server, cluster_sshd, tmp_path_factory.mktemp("results"), policy=POLICY)
        stage.repo.add_collaborator("dana", "maintain")
        yield stage
        assert server.violations == []


def finished(stage: Stage, slurm: SlurmRig, job_id: str) -> None:
    slurm.wait_for_state(job_id, "COMPLETED")
    swept = stage.run("watch")
    assert swept.code == Exit.OK, swept


def test_worse_than_the_default_branch_until_it_is_accepted(stage: Stage, slurm: SlurmRig) -> None:
    checkout = stage.folder / "checkout"
    subprocess.run(["git", "clone", "-q", str(stage.repo.git_dir), str(checkout)], check=True, timeout=60)
    nothing = stage.run("history", "--repo", str(checkout), "--plot", str(stage.folder / "loss.svg"))
    assert nothing.code == Exit.OK, nothing
    assert "loss.svg is not written: no run is remembered" in nothing.stderr
    assert not (stage.folder / "loss.svg").exists()
    for number in range(3):
        event = stage.server.schedule_event(stage.repo, "17 3 * * *")
        nightly = stage.handle("schedule", event, GITHUB_RUN_ID=str(7000 + number))
        assert nightly.outputs["decision"] == "run", nightly
        finished(stage, slurm, nightly.outputs["job-id"])
    [history] = (stage.job_dir / "history").iterdir()
    assert len(history.read_text().splitlines()) == 3
    shown = stage.run("history", "--repo", str(checkout), "--plot", str(stage.folder / "loss.svg"), "--json")
    assert shown.code == Exit.OK, shown
    document = json.loads(shown.stdout)
    assert "3 runs of the default branch" in document["summary"]
    assert [run["metrics"]["loss"] for run in document["result"]["runs"]] == [1.875] * 3
    assert "<polyline" in (stage.folder / "loss.svg").read_text()

    stage.repo.commit("feature", {"train.py": WORSE})
    begun = stage.comment("/train")
    key = begun.outputs["run-key"]
    finished(stage, slurm, begun.outputs["job-id"])
    [body] = [body for body in stage.answers if f"run {key}" in body]
    assert "### ❌ train · cluster · ended well, but loss 2.5 is 33.3 % above the median of 3 runs of the default branch, 1.875" in body
    assert "| ❌ | loss | 2.5 | 1.875 | +33.3 % |" in body
    assert "| ⚠️ | samples\\_per\\_s | – | – | – | – |" in body
    checks = {one.name: one.conclusion for one in stage.repo.checks_on(stage.pull.head_sha)}
    assert (checks["dispatch / cluster / default"], checks["dispatch/gate"]) == ("failure", "failure")

    refused = stage.comment("/train baseline accept", author="alice")
    assert (refused.code, refused.outputs["reason-code"]) == (Exit.DENIED, "role-too-low")
    accepted = stage.comment('/train baseline accept reason="the data is harder now"', author="dana")
    assert (accepted.code, accepted.outputs["reason-code"]) == (Exit.OK, "accepted"), accepted
    checks = {one.name: one.conclusion for one in stage.repo.checks_on(stage.pull.head_sha)}
    assert (checks["dispatch / cluster / default"], checks["dispatch/gate"]) == ("success", "success")
    assert "> the data is harder now" in stage.answers[-1]
    assert len(history.read_text().splitlines()) == 4
    shown = stage.run("history", "--repo", str(checkout))
    assert "3 runs of the default branch, 1 accepted run" in shown.summary


SERIES = """\
import json, os, time
from pathlib import Path
assert not list(Path(os.environ["DISPATCH_TENSORBOARD"]).iterdir()), "event files that the commit brought along are still there"
series = open(os.environ["DISPATCH_SERIES"], "a", buffering=1)
def write(steps):
    for step in steps:
        for name, value in (("loss", 40.0 if step == 3210 else 2.0 + 3.0 / step), ("samples_per_s", 120.0)):
            series.write(json.dumps({"step": step, "name": name, "value": value}) + "\\n")
write(range(1, 121))
while not Path(os.environ["DISPATCH_RUN_DIR"], "go").exists():
    time.sleep(0.1)
write(range(121, 5001))
series.write("half a li")
"""


def test_how_far_it_is_and_how_it_went(stage: Stage, slurm: SlurmRig) -> None:
    """The first look at a running job says its step; its end has a curve beside the baseline, and values that only the series has."""
    policy = POLICY.replace("    results: results.json\n", "    series: series.jsonl\n    tensorboard: out/tb\n    steps: 5000\n")
    stage.repo.commit("main", {".github/dispatch.yml": policy})
    brought = {"series.jsonl": '{"step": 9000, "name": "loss", "value": 0}\n', "out/tb/events.out.tfevents.9": "old"}
    stage.repo.commit("feature", {"train.py": SERIES, **brought})
    begun = stage.comment("/train")
    key = begun.outputs["run-key"]
    slurm.wait_for_state(begun.outputs["job-id"], "RUNNING")
    written = stage.job_dir / "runs" / key / "code" / "series.jsonl"
    for _ in range(300):
        if written.exists() and written.read_text().count("\n") == 240:
            break
        time.sleep(0.1)
    assert stage.run("watch").code == Exit.OK
    [body] = [body for body in stage.answers if f"run {key}" in body]
    assert "**step 120 of 5,000** · loss 2.025 · samples\\_per\\_s 120" in body

    (stage.job_dir / "runs" / key / "go").touch()
    finished(stage, slurm, begun.outputs["job-id"])
    [body] = [body for body in stage.answers if f"run {key}" in body]
    assert "| ✅ | loss | 2.001 | 2.5 | −20 % |" in body  # what was accepted just now
    chart = body.partition('title "loss"')[2].partition("```")[0]
    assert 'x-axis "step" 1 --> 5000' in chart
    assert "40," in chart
    assert "[2.5, 2.5, " in chart
    assert "could not be read" not in body

    assert stage.comment(f"/train baseline accept {key[:8]}", author="dana").code == Exit.OK
    stage.repo.commit("feature", {"train.py": SERIES.replace("3.0 / step", "2.9 / step").replace("while not", "while False and not")})
    again = stage.comment("/train")
    finished(stage, slurm, again.outputs["job-id"])
    [body] = [body for body in stage.answers if f"run {again.outputs['run-key']}" in body]
    chart, _, under = body.partition('title "loss"')[2].partition("```")
    [own, beside] = [line.split("[")[1].split(",") for line in chart.splitlines() if line.startswith("    line ")]
    assert (own[0], beside[0], len(own), len(beside)) == ("4.9", "5", 60, 60)
    assert f"the grey line is run `{key[:8]}`" in under


def test_what_has_run_is_not_run_again(stage: Stage, slurm: SlurmRig) -> None:
    """A commit that changes nothing packaged, and the queue's own commit, take over an end; a second request joins a job that goes on."""
    policy = POLICY.replace("script: train.py", "script: train.py\n    include_pattern: ['*.py']") + "reuse: { max_age: 1d }\n"
    stage.repo.commit("main", {".github/dispatch.yml": policy.replace("no_worse_than: baseline", "max: 3")})
    stage.repo.commit("feature", {"train.py": TRAIN + "# another\n"})
    begun = stage.comment("/train steps=20 pause=0.3")
    joined = stage.comment("/train steps=20 pause=0.3")
    assert joined.outputs["job-id"] == begun.outputs["job-id"]
    assert joined.outputs["run-key"] != begun.outputs["run-key"]
    first = stage.comment("/train")
    finished(stage, slurm, first.outputs["job-id"])
    finished(stage, slurm, begun.outputs["job-id"])
    bodies = {
        run.outputs["run-key"]: next(body for body in stage.answers if f"run {run.outputs['run-key']}" in body) for run in (begun, joined)
    }
    assert all("### ✅" in body for body in bodies.values())
    assert "♻️" in bodies[joined.outputs["run-key"]]

    _given_up_one_after_the_other(stage, slurm)

    stage.repo.commit("feature", {"README.md": "words\n"})
    again = stage.comment("/train")
    assert (again.outputs["job-id"], again.outputs["state"]) == (first.outputs["job-id"], "succeeded"), again
    assert {one.name: one.conclusion for one in stage.repo.checks_on(stage.pull.head_sha)}["dispatch / cluster / default"] == "success"
    insisted = stage.comment("/train fresh=true")
    assert insisted.outputs["job-id"] not in (first.outputs["job-id"], "")
    finished(stage, slurm, insisted.outputs["job-id"])

    sha = stage.repo.queue(stage.pull)
    queued = stage.handle("merge_group", stage.server.merge_group_event(stage.pull, sha))
    assert queued.code == Exit.OK, queued
    checks = {one.name: one.conclusion for one in stage.repo.checks_on(sha)}
    assert checks == {"dispatch / cluster / default": "success", "dispatch/gate": "success"}, queued


def _given_up_one_after_the_other(stage: Stage, slurm: SlurmRig) -> None:
    """Whose job others have joined only leaves it; with the last one it ends, and that is nobody's but who asked for it (not root's)."""
    begun, joined = (stage.comment("/train steps=400 pause=0.5") for _ in range(2))
    job = begun.outputs["job-id"]
    assert joined.outputs["job-id"] == job
    slurm.wait_for_state(job, "RUNNING")
    left = stage.comment(f"/train cancel {begun.outputs['run-key'][:8]}")
    assert f"its job goes on, for run `{joined.outputs['run-key'][:8]}`" in stage.answers[-1], left
    slurm.wait_for_state(job, "RUNNING")
    ended = stage.comment(f"/train cancel {joined.outputs['run-key'][:8]}")
    assert ended.outputs["reason-code"] == "cancelled", ended
    slurm.wait_for_state(job, "CANCELLED")
    swept = stage.run("watch")
    assert swept.code == Exit.OK, swept
    for run in (begun, joined):
        body = next(body for body in stage.answers if f"run {run.outputs['run-key']}" in body)
        assert "### 🛑 train · cluster · was cancelled by alice" in body
        assert "administrators" not in body
        assert "looks like the machine" not in body
