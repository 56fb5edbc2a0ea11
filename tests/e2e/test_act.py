"""The real action.yml in the workflow that users write, run by act from real payloads: to a Slurm job, a comment, a check, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dispatcher.action import LOG_OUTPUTS, OUTPUTS
from tests.github_server import GitHubServer
from tests.rig.act import ActRunner, Ran
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Stage

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "docs" / "examples" / "train.yml"
WATCH = ROOT / "docs" / "examples" / "watch.yml"
GATE = ROOT / "docs" / "examples" / "gate.yml"
# Prepared environments outlive a test run, as they outlive a job on a runner that stays.
TOOLS = ROOT / ".cache" / "act-tools"


@pytest.fixture(scope="module")
def runner(act: Path, tmp_path_factory: pytest.TempPathFactory) -> ActRunner:
    return ActRunner(act, tmp_path_factory.mktemp("act"), TOOLS)


@pytest.fixture
def stage(github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path) -> Stage:
    return Stage(github, cluster_sshd, tmp_path)


def deliver(runner: ActRunner, stage: Stage, workflow: Path, event: str, payload: dict[str, Any], **more: Any) -> Ran:
    """A delivery to the stage's repository."""
    names = ("GITHUB_API_URL", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_SHA", "GITHUB_RUN_ID")
    given = stage.environment()
    secrets = {"GITHUB_TOKEN": stage.server.token, "CLUSTER_SSH_KEY": given["DISPATCH_SSH_KEY"]}
    variables = {"CLUSTER_KNOWN_HOSTS": given["DISPATCH_SSH_KNOWN_HOSTS"]}
    return runner.run(workflow, event, payload, env={name: given[name] for name in names}, secrets=secrets, variables=variables, **more)


def test_a_comment_becomes_a_job_and_the_watch_tells_its_end(runner: ActRunner, stage: Stage, slurm: SlurmRig) -> None:
    comment = stage.pull.comment("/train", "alice")
    payload = stage.server.comment_event(stage.pull, comment)
    ran = deliver(runner, stage, TRAIN, "issue_comment", payload)
    assert ran.code == 0, ran.log
    assert set(ran.outputs) == {*OUTPUTS, *LOG_OUTPUTS}
    assert (ran.outputs["decision"], ran.outputs["reason-code"]) == ("run", "submitted")
    job, key = ran.outputs["job-id"], ran.outputs["run-key"]
    assert key in slurm.run("scontrol", "show", "job", job)
    [answer] = stage.answers
    assert f"`{job}`" in answer
    [written] = [one for one in stage.pull.comments if one.body == answer]
    assert ran.outputs["comment-url"].endswith(f"#issuecomment-{written.id}")
    assert ran.outputs["log-url"].startswith("https://ondemand.example.com/files")
    checks = stage.repo.checks_on(stage.pull.head_sha)
    assert [(check.external_id, check.conclusion) for check in checks] == [(key, None), (f"gate-{stage.pull.head_sha}", None)]

    again = deliver(runner, stage, TRAIN, "issue_comment", payload)
    assert again.code == 0, again.log
    assert (again.outputs["job-id"], again.outputs["run-key"]) == (job, key)
    assert len(stage.answers) == 1
    assert len(stage.repo.checks_on(stage.pull.head_sha)) == 2
    # Comments are numbered alike on every stage, so other tests' runs may have this key in a folder of their own.
    jobs = [line.split("|") for line in slurm.run("squeue", "-h", "--states=all", "-o", "%k|%Z").splitlines()]
    assert [folder for comment, folder in jobs if comment == key and folder.startswith(str(stage.job_dir))] == [
        f"{stage.job_dir}/runs/{key}"
    ]

    slurm.wait_for_state(job, "COMPLETED")
    kept = {"log-artifact": "true", "log-retention-days": "14"}
    watched = deliver(runner, stage, WATCH, "schedule", stage.server.schedule_event(stage.repo, "*/10 * * * *"), inputs=kept)
    assert watched.code == 0, watched.log
    assert watched.outputs["decision"] == "watched"
    assert json.loads(watched.outputs["result"])["ended"] == 1
    [answer] = stage.answers
    assert "**loss 1.875**" in answer
    ended = {check.name: check.conclusion for check in stage.repo.checks_on(stage.pull.head_sha)}
    assert ended == {"dispatch / cluster / default": "success", "dispatch/gate": "success"}

    # The sweep that saw its end has kept its complete log, and uploaded it.
    [artifact] = [item for item in watched.artifacts.iterdir() if item.is_dir()]
    assert artifact.name.startswith("dispatch-logs-watch-1-")
    assert [item.name for item in artifact.iterdir()] == [f"cluster-default-{key}.log"]
    assert "step 0 loss 2.0\nstep 1 loss 1.9\nstep 2 loss 1.8\n" in (artifact / f"cluster-default-{key}.log").read_text()
    given = json.loads((watched.artifacts / f"{artifact.name}.json").read_text())
    assert (given["retention-days"], given["if-no-files-found"]) == ("14", "ignore")
    assert watched.outputs["log-artifact-url"].endswith("/artifacts/1")
    assert watched.outputs["log-files"] == f"{watched.outputs['log-folder']}/cluster-default-{key}.log"

    nothing = deliver(runner, stage, WATCH, "schedule", stage.server.schedule_event(stage.repo, "*/10 * * * *"), inputs=kept)
    assert (nothing.code, nothing.outputs["log-files"], nothing.artifacts.exists()) == (0, "", False), nothing.log


def test_a_comment_that_is_no_command_installs_nothing_and_asks_nobody(act: Path, github: GitHubServer, sshd: Sshd, tmp_path: Path) -> None:
    """Even where the workflow's `if:` lets it through: here it only begins like a command."""
    stage = Stage(github, sshd, tmp_path / "stage")
    runner = ActRunner(act, tmp_path, tmp_path / "tools")
    comment = stage.pull.comment("/trainer, have a look", "alice")
    mark = sshd.mark()
    ran = deliver(runner, stage, TRAIN, "issue_comment", stage.server.comment_event(stage.pull, comment))
    assert ran.code == 0, ran.log
    assert (ran.outputs["decision"], ran.outputs["reason-code"], ran.outputs["result"]) == ("ignored", "not-a-command", "{}")
    assert not runner.tools.exists()
    assert github.requests == []
    assert sshd.connections(mark) == 0

    other = stage.pull.comment("looks good", "alice")
    skipped = deliver(runner, stage, TRAIN, "issue_comment", stage.server.comment_event(stage.pull, other))
    assert (skipped.code, skipped.outputs) == (0, {})


def test_a_label_starts_a_run_and_nothing_of_the_workspace_is_run(runner: ActRunner, stage: Stage, slurm: SlurmRig) -> None:
    """A step before may have checked the pull request out: its files must not stand in for ours, or for anybody's."""
    trap = "raise SystemExit('code of the workspace was run')\n"
    names = ("dispatcher/__init__.py", "json.py", "nemo_run.py", "sitecustomize.py", "paramiko/__init__.py")
    traps = dict.fromkeys(names, trap) | {"uv.toml": "nonsense = true\n", "pip.conf": "[global]\nindex-url = http://127.0.0.1:1\n"}
    payload = stage.server.labeled_event(stage.pull, "train:cluster", sender="alice")
    ran = deliver(runner, stage, TRAIN, "pull_request_target", payload, workspace=traps)
    assert ran.code == 0, ran.log
    assert "code of the workspace" not in ran.log
    assert ran.outputs["decision"] == "run"
    slurm.wait_for_state(ran.outputs["job-id"], "COMPLETED")


def test_a_manual_dry_run_submits_nothing(runner: ActRunner, stage: Stage) -> None:
    inputs = {"profile": "cluster", "pr": str(stage.pull.number), "dry-run": "true"}
    ran = deliver(runner, stage, TRAIN, "workflow_dispatch", stage.server.workflow_dispatch_event(stage.repo, inputs))
    assert ran.code == 0, ran.log
    assert (ran.outputs["decision"], ran.outputs["job-id"]) == ("plan", "")
    assert len(ran.outputs["run-key"]) == 16
    # The cluster was asked what would have to be sent and when it would start; nothing is left of that.
    assert [path for folder in ("runs", "active", "queue", "tags") for path in (stage.job_dir / folder).glob("*")] == []
    assert stage.repo.checks == {}


def test_a_new_pull_request_has_a_pending_gate_and_no_failed_job(runner: ActRunner, stage: Stage) -> None:
    payload = stage.server.pull_request_event(stage.pull, "opened")
    ran = deliver(runner, stage, TRAIN, "pull_request_target", payload)
    assert ran.code == 0, ran.log
    assert (ran.outputs["decision"], ran.outputs["state"]) == ("gate", "pending")
    [check] = stage.repo.checks_on(stage.pull.head_sha, "dispatch/gate")
    assert check.status != "completed"

    # A job that is itself the required check ends as the gate does.
    gate = deliver(runner, stage, GATE, "pull_request_target", payload)
    assert gate.code == 1, gate.log
    assert (gate.outputs["decision"], gate.outputs["state"]) == ("gate", "pending")
    assert len(stage.repo.checks_on(stage.pull.head_sha)) == 1
