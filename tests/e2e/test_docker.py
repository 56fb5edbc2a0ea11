"""A comment becomes a container: records on a login node without Slurm, the job on a real engine, the same comment, check and gate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.github_server import GitHubServer
from tests.rig.docker import IMAGE, DockerRig
from tests.rig.sshd import Sshd
from tests.stage import Ended, Stage

SECRET = "wandb-5f0b7c1e9a-canary"
POLICY = """\
default_profile: docker
ledger: cluster
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
  configured: { script: configured.py, entrypoint: python3, results: results.json, config: conf/a.json }
gate:
  required: [{ profile: docker, recipe: default }]
watch: { profiles: [docker] }
"""
PROFILES = {
    "profiles/docker.yaml": f"executor: docker\ncontainer_image: {IMAGE}\nnetwork: host\ntime: '00:05:00'\n",
    "profiles/nowhere.yaml": "executor: docker\ncontainer_image: no.registry.invalid/x:1\nnetwork: host\n",
    "conf/a.json": '{"steps": 1, "note": "none", "run": {"env": {"nodes": 9}}}',
    "configured.py": "import json, os, sys\nconfig = json.load(open(sys.argv[2]))\nassert sys.argv[2] == os.environ['DISPATCH_CONFIG']\n"
    "json.dump(config, open('results.json', 'w'))\n",
    "profiles/second.yaml": f"extends: docker\ncontainer_image: {IMAGE}\nenv_vars: {{ WHO: second }}\n",
}


@pytest.fixture(scope="module")
def stage(docker: DockerRig, sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with GitHubServer() as server:
        yield Stage(server, sshd, tmp_path_factory.mktemp("docker"), policy=POLICY, extra=PROFILES)
        assert server.violations == []


@pytest.fixture(autouse=True)
def tidy(docker: DockerRig) -> Iterator[None]:
    yield
    docker.remove_all()


def watch(stage: Stage, docker: DockerRig) -> Ended:
    swept = stage.run("watch", **docker.env, WANDB_API_KEY=SECRET)
    assert swept.code == 0, swept
    return swept


def until_ended(stage: Stage, docker: DockerRig, key: str) -> str:
    """The comment's last body, after sweeps."""
    for _ in range(20):
        [container] = docker.containers(key)
        if docker.state(container)["Status"] == "exited":
            break
        time.sleep(0.2)
    watch(stage, docker)
    [body] = [body for body in stage.answers if f"nemotron-dispatch run {key}" in body]
    return body


def check(stage: Stage, key: str) -> tuple[str, str | None]:
    [one] = [one for one in stage.repo.checks_on(stage.pull.head_sha) if one.external_id == key]
    return one.status, one.conclusion


def test_from_the_comment_to_the_gate(stage: Stage, docker: DockerRig) -> None:
    event = stage.server.comment_event(stage.pull, stage.pull.comment("/train"))
    begun = stage.handle("issue_comment", event, **docker.env, WANDB_API_KEY=SECRET)
    assert (begun.code, begun.outputs["decision"]) == (0, "run"), begun
    key = begun.outputs["run-key"]
    assert docker.containers(key) == [begun.outputs["job-id"]]
    assert check(stage, key)[0] in ("queued", "in_progress")
    again = stage.handle("issue_comment", event, **docker.env, WANDB_API_KEY=SECRET)
    assert (again.code, again.outputs["job-id"]) == (0, begun.outputs["job-id"])
    assert len(docker.containers(key)) == 1
    body = until_ended(stage, docker, key)
    assert "✅" in body
    assert "**loss 1.875**" in body
    assert f"on `docker · {docker.host}`" not in body, "where the engine is, is the runner's business"
    assert check(stage, key) == ("completed", "success")
    assert docker.containers(key) == [], "what has been reported is removed"
    told = stage.comment("/train logs", **docker.env)
    assert told.code == 0
    assert "step 1 loss 1.9" in stage.answers[-1]
    assert "dispatch-results" not in stage.answers[-1]
    [gate] = [one for one in stage.repo.checks_on(stage.pull.head_sha) if one.name == "dispatch/gate"]
    assert (gate.status, gate.conclusion) == ("completed", "success")
    everything = [*stage.answers, begun.stdout, begun.stderr, again.stderr, told.stdout, *map(str, begun.outputs.values())]
    assert SECRET not in "".join(everything)
    kept = [file for file in Path(stage.job_dir).rglob("*") if file.is_file() and SECRET in file.read_text(errors="replace")]
    assert [file.name for file in kept] == ["env"]
    assert kept[0].stat().st_mode & 0o777 == 0o600


def test_a_sweep_of_two_profiles_of_one_engine(stage: Stage, docker: DockerRig) -> None:
    begun = stage.comment("/train profile=docker,second steps=1", **docker.env)
    assert begun.code == 0, begun
    containers = docker.docker("ps", "-aq").split()
    assert len(containers) == 2
    for _ in range(30):
        if all(docker.state(one)["Status"] == "exited" for one in containers):
            break
        time.sleep(0.2)
    watch(stage, docker)
    assert "second" in stage.answers[-1]
    assert docker.docker("ps", "-aq") == ""


def test_a_configuration_travels_inside_of_the_script(stage: Stage, docker: DockerRig) -> None:
    begun = stage.comment('/train recipe=configured steps=7 note="it\'s $(touch pwned)"', **docker.env)
    assert begun.code == 0, begun
    body = until_ended(stage, docker, begun.outputs["run-key"])
    assert "✅" in body
    assert "**steps 7**" in body
    assert "$(touch pwned)" in body.replace("\\", "")
    assert "run.env.nodes" in begun.stderr


def test_failed_and_cancelled(stage: Stage, docker: DockerRig) -> None:
    begun = stage.comment("/train steps=1 fail=nan", **docker.env)
    body = until_ended(stage, docker, begun.outputs["run-key"])
    assert "failed with exit code 3" in body
    assert "ValueError: nan" in body
    begun = stage.comment("/train steps=100 pause=1", **docker.env)
    key = begun.outputs["run-key"]
    assert stage.comment(f"/train cancel {key[:6]}", **docker.env).code == 0
    body = until_ended(stage, docker, key)
    assert "was cancelled" in body
    assert check(stage, key) == ("completed", "cancelled")


def test_refused_and_out_of_reach(stage: Stage, docker: DockerRig, tmp_path: Path) -> None:
    refused = stage.comment("/train profile=nowhere", **docker.env)
    assert (refused.code, refused.outputs["decision"]) == (8, "refused"), refused
    assert "no.registry.invalid/x:1" in stage.answers[-1]
    away = stage.comment("/train steps=3", DOCKER_HOST=f"unix://{tmp_path}/away.sock")
    assert (away.code, away.outputs["reason-code"]) == (8, "cloud.unreachable"), away
    assert "does not answer" in stage.answers[-1]
    assert docker.docker("ps", "-aq") == ""
    # Nothing that is known of a run changes because its engine does not answer.
    begun = stage.comment("/train steps=1 pause=1", **docker.env)
    key = begun.outputs["run-key"]
    swept = stage.run("watch", DOCKER_HOST=f"unix://{tmp_path}/away.sock")
    assert swept.code == 0, swept
    assert check(stage, key)[1] is None
    assert "✅" in until_ended(stage, docker, key)


def test_without_a_ledger_nothing_is_started(stage: Stage, docker: DockerRig) -> None:
    stage.repo.commit("main", {".github/dispatch.yml": POLICY.replace("ledger: cluster\n", "")})
    refused = stage.comment("/train", **docker.env)
    assert (refused.code, refused.outputs["reason-code"]) == (3, "config.invalid"), refused
    assert "nothing says where its runs are recorded" in stage.answers[-1]
    stage.repo.commit("main", {".github/dispatch.yml": POLICY})
