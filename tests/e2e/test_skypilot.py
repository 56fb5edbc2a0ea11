"""A comment becomes a cluster of SkyPilot's: records on a login node, the job behind an API server, the same comment, check and gate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.github_server import GitHubServer
from tests.rig.skypilot import SkyDouble
from tests.rig.sshd import Sshd
from tests.stage import Ended, Stage

SECRET = "wandb-5f0b7c1e9a-canary"
POLICY = """\
default_profile: sky
ledger: cluster
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
gate:
  required: [{ profile: sky, recipe: default }]
watch: { profiles: [sky] }
"""
PROFILES = {"profiles/sky.yaml": "executor: skypilot\ncpus: 1+\ntime: '00:05:00'\n"}


@pytest.fixture(scope="module")
def stage(sky_double: SkyDouble, sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("sky")
    with GitHubServer() as server:
        yield Stage(server, sshd, folder, policy=POLICY, extra=PROFILES, python=str(sky_double.python))
        assert server.violations == []


def environment(double: SkyDouble) -> dict[str, str]:
    return {"SKYPILOT_API_SERVER_ENDPOINT": double.address, "WANDB_API_KEY": SECRET}


def until_ended(stage: Stage, double: SkyDouble, key: str) -> str:
    """The comment's last body, after a sweep that found the end."""
    for _ in range(5):
        time.sleep(0.5)
        swept = stage.run("watch", **environment(double))
        assert swept.code == 0, swept
        [one] = [one for one in stage.repo.checks_on(stage.pull.head_sha) if one.external_id == key]
        if one.status == "completed":
            break
    [body] = [body for body in stage.answers if f"nemotron-dispatch run {key}" in body]
    return body


def test_from_the_comment_to_the_gate_and_no_cluster_left(stage: Stage, sky_double: SkyDouble) -> None:
    event = stage.server.comment_event(stage.pull, stage.pull.comment("/train"))
    begun: Ended = stage.handle("issue_comment", event, **environment(sky_double))
    assert (begun.code, begun.outputs["decision"]) == (0, "run"), begun
    key = begun.outputs["run-key"]
    assert begun.outputs["job-id"] == f"dispatch-{key}"
    again = stage.handle("issue_comment", event, **environment(sky_double))
    assert (again.code, again.outputs["job-id"]) == (0, f"dispatch-{key}")
    known = sky_double.tell()
    assert (known["launches"], list(known["clusters"])) == (1, [f"dispatch-{key}"])
    body = until_ended(stage, sky_double, key)
    assert "✅" in body
    assert "**loss 1.875**" in body
    assert sky_double.tell()["clusters"] == {}, "what has been reported costs nothing any more"
    told = stage.comment("/train logs", **environment(sky_double))
    assert told.code == 0
    assert "step 1 loss 1.9" in stage.answers[-1]
    [gate] = [one for one in stage.repo.checks_on(stage.pull.head_sha) if one.name == "dispatch/gate"]
    assert (gate.status, gate.conclusion) == ("completed", "success")
    everything = [*stage.answers, begun.stdout, begun.stderr, again.stderr, told.stdout, *map(str, begun.outputs.values())]
    assert SECRET not in "".join(everything)
    kept = [file for file in Path(stage.job_dir).rglob("*") if file.is_file() and SECRET in file.read_text(errors="replace")]
    assert {file.name for file in kept} <= {"env"}
