"""A comment becomes a workload of Run:ai, or a job of Lepton: records on a login node, the same comment, check and gate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dgx_server import CLIENT, DgxServer
from tests.github_server import GitHubServer
from tests.lepton_server import TOKEN, LeptonServer
from tests.rig.sshd import Sshd
from tests.stage import Stage

SECRET = "wandb-5f0b7c1e9a-canary"
POLICY = """\
default_profile: dgx
ledger: cluster
secrets: [WANDB_API_KEY]
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
  quiet: { script: train.py, entrypoint: python3 }
watch: { profiles: [dgx, lepton] }
"""


class Clouds:
    """Both stand-ins, and a stage whose profiles name them."""

    def __init__(self, server: GitHubServer, sshd: Sshd, dgx: DgxServer, lepton: LeptonServer, folder: Path) -> None:
        self.dgx, self.lepton = dgx, lepton
        profile = (
            f"executor: dgxcloud\nbase_url: {dgx.api_url}\nproject_name: {dgx.project}\ncontainer_image: nemo:1\ntime: '00:02:00'\n"
            "pvc_nemo_run_dir: /workspace/nemo\npvcs: [{path: /workspace, claimName: w, existingPvc: true}]\n"
        )
        profiles = {
            "profiles/dgx.yaml": f"{profile}kube_apiserver_url: {dgx.kube_url}\n",
            "profiles/blind.yaml": profile,
            "profiles/lepton.yaml": "executor: lepton\ncontainer_image: nemo:1\nresource_shape: cpu.large\nnode_group: h100\n",
        }
        self.stage = Stage(server, sshd, folder, policy=POLICY, extra=profiles)
        own = {"DGXCLOUD_CLIENT_ID": CLIENT[0], "DGXCLOUD_CLIENT_SECRET": CLIENT[1], "WANDB_API_KEY": SECRET}
        self.environment = {**own, **lepton.environment}

    def jobs(self, profile: str) -> list[str]:
        """What there is of it now."""
        return list(self.lepton.jobs if profile == "lepton" else self.dgx.workloads)

    def ended(self, profile: str) -> bool:
        """Whether all of it has ended."""
        with self.dgx.lock, self.lepton.lock:
            pods = [pod for workload in self.dgx.workloads.values() for pod in workload.pods.values()]
            replicas = [replica for job in self.lepton.jobs.values() for replica in job.replicas.values()]
        return all(one.exit_code is not None for one in (replicas if profile == "lepton" else pods))


@pytest.fixture(scope="module")
def clouds(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    folder = tmp_path_factory.mktemp("clouds")
    with GitHubServer() as server, DgxServer(folder / "runai") as dgx, LeptonServer(folder / "lepton") as lepton:
        yield Clouds(server, sshd, dgx, lepton, folder)
        assert [*server.violations, *dgx.violations, *lepton.violations] == []


def until(true: Callable[[], bool]) -> None:
    for _ in range(100):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it takes too long")


def check(stage: Stage, key: str) -> tuple[str, str | None]:
    [one] = [one for one in stage.repo.checks_on(stage.pull.head_sha) if one.external_id == key]
    return one.status, one.conclusion


@pytest.mark.parametrize("profile", ["dgx", "lepton"])
def test_from_the_comment_to_the_results(clouds: Clouds, profile: str) -> None:
    stage = clouds.stage
    event = stage.server.comment_event(stage.pull, stage.pull.comment(f"/train profile={profile}"))
    begun = stage.handle("issue_comment", event, **clouds.environment)
    assert (begun.code, begun.outputs["decision"]) == (0, "run"), begun
    key = begun.outputs["run-key"]
    assert clouds.jobs(profile) == [begun.outputs["job-id"]]
    again = stage.handle("issue_comment", event, **clouds.environment)
    assert (again.code, again.outputs["job-id"]) == (0, begun.outputs["job-id"])
    assert len(clouds.jobs(profile)) == 1
    until(lambda: clouds.ended(profile))
    swept = stage.run("watch", **clouds.environment)
    assert swept.code == 0, swept
    [body] = [body for body in stage.answers if f"nemotron-dispatch run {key}" in body]
    assert "✅" in body
    assert "**loss 1.875**" in body
    assert check(stage, key) == ("completed", "success")
    assert clouds.jobs(profile) == [], "what has been reported is removed"
    told = stage.comment(f"/train logs {key[:6]}", **clouds.environment)
    assert told.code == 0
    assert "step 1 loss 1.9" in stage.answers[-1]
    everything = [*stage.answers, begun.stdout, begun.stderr, again.stderr, swept.stderr, told.stdout, *map(str, begun.outputs.values())]
    assert [secret for secret in (SECRET, CLIENT[1], TOKEN) if secret in "".join(everything)] == []
    kept = [file for file in Path(stage.job_dir).rglob("*") if file.is_file() and SECRET in file.read_text(errors="replace")]
    assert {file.name for file in kept} == {"env"}


def test_cancelled_after_the_api_was_away(clouds: Clouds) -> None:
    stage = clouds.stage
    begun = stage.comment("/train profile=dgx steps=100 pause=1", **clouds.environment)
    assert begun.code == 0, begun
    key = begun.outputs["run-key"]
    clouds.dgx.trouble("GET", "/workloads", 503, times=99)
    assert stage.run("watch", **clouds.environment).code == 0
    assert check(stage, key)[1] is None, "silence changes nothing"
    clouds.dgx.troubles.clear()
    cancelled = stage.comment(f"/train cancel {key[:6]}", **clouds.environment)
    assert cancelled.code == 0, cancelled
    assert stage.run("watch", **clouds.environment).code == 0
    assert check(stage, key) == ("completed", "cancelled")
    assert clouds.jobs("dgx") == []


def test_results_that_would_not_come_back(clouds: Clouds) -> None:
    stage = clouds.stage
    refused = stage.comment("/train profile=blind", **clouds.environment)
    assert (refused.code, refused.outputs["reason-code"]) == (3, "results-out-of-reach"), refused
    assert "`results.json`, and with profile `blind` the job's log" in stage.answers[-1]
    planned = stage.comment("/train plan profile=blind recipe=quiet", **clouds.environment)
    assert planned.code == 0, planned
    assert clouds.jobs("dgx") == []


def test_not_let_in(clouds: Clouds) -> None:
    stage = clouds.stage
    without = {name: value for name, value in clouds.environment.items() if not name.startswith("DGXCLOUD")}
    refused = stage.comment("/train profile=dgx steps=2", **without)
    assert (refused.code, refused.outputs["reason-code"]) == (8, "cloud.credentials"), refused
    assert "are not both set" in stage.answers[-1]
    assert clouds.jobs("dgx") == []
