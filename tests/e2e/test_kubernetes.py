"""A comment becomes a TrainJob: records on a login node without Slurm, the job on a Kubernetes API, the same comment, check and gate."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.github_server import GitHubServer
from tests.kubernetes_server import RAY_JOBS, TRAIN_JOBS, Fault, KubernetesServer
from tests.rig.sshd import Sshd
from tests.stage import Stage

SECRET = "wandb-5f0b7c1e9a-canary"
POLICY = """\
default_profile: kubeflow
ledger: cluster
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
gate:
  required: [{ profile: kubeflow, recipe: default }]
watch: { profiles: [kubeflow, ray] }
"""
PLACE = "context: here\nnamespace: ml\ntime: '00:05:00'\n"
PROFILES = {
    "profiles/kubeflow.yaml": f"executor: kubeflow\nimage: org/train:1\nnodes: 2\ngpus_per_node: 8\n{PLACE}",
    "profiles/ray.yaml": f"executor: kuberay\nimage: org/ray:1\nnodes: 2\n{PLACE}",
    "profiles/jax.yaml": "extends: kubeflow\nruntime_ref: jax\n",
}


class Story:
    """A repository, its login node and its cluster."""

    def __init__(self, stage: Stage, cluster: KubernetesServer) -> None:
        self.stage, self.cluster = stage, cluster
        self.env = {"KUBECONFIG": cluster.kubeconfig(), "WANDB_API_KEY": SECRET}

    def watch(self) -> None:
        swept = self.stage.run("watch", **self.env)
        assert swept.code == 0, swept

    def body(self, key: str) -> str:
        [body] = [body for body in self.stage.answers if f"nemotron-dispatch run {key}" in body]
        return body

    def check(self, key: str) -> tuple[str, str | None]:
        [one] = [one for one in self.stage.repo.checks_on(self.stage.pull.head_sha) if one.external_id == key]
        return one.status, one.conclusion


@pytest.fixture(scope="module")
def story(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with GitHubServer() as server, KubernetesServer(tmp_path_factory.mktemp("kubernetes")) as cluster:
        yield Story(Stage(server, sshd, tmp_path_factory.mktemp("stage"), policy=POLICY, extra=PROFILES), cluster)
        assert server.violations == []


def test_from_the_comment_to_the_gate(story: Story) -> None:
    stage, cluster = story.stage, story.cluster
    event = stage.server.comment_event(stage.pull, stage.pull.comment("/train"))
    begun = stage.handle("issue_comment", event, **story.env)
    assert (begun.code, begun.outputs["decision"]) == (0, "run"), begun
    key, name = begun.outputs["run-key"], begun.outputs["job-id"]
    assert name == f"dispatch-{key}"
    again = stage.handle("issue_comment", event, **story.env)
    assert (again.code, again.outputs["job-id"]) == (0, name)
    assert list(cluster.of_kind(TRAIN_JOBS)) == [name]
    assert "waiting" in story.body(key)
    assert story.check(key)[1] is None
    assert cluster.play(name) == 0
    story.watch()
    body = story.body(key)
    assert "✅" in body
    assert "**loss 1.875**" in body
    assert "kubeflow · here · ml" in body
    assert story.check(key) == ("completed", "success")
    assert [objects for objects in cluster.objects.values() if objects] == [], "what has been reported is removed"
    told = stage.comment("/train logs", **story.env)
    assert told.code == 0
    assert "[1] step 1 loss 1.9" in stage.answers[-1]
    assert "dispatch-results" not in stage.answers[-1]
    [gate] = [one for one in stage.repo.checks_on(stage.pull.head_sha) if one.name == "dispatch/gate"]
    assert (gate.status, gate.conclusion) == ("completed", "success")
    assert SECRET not in "".join([*stage.answers, begun.stdout, begun.stderr, again.stderr, told.stdout])
    kept = [file for file in Path(stage.job_dir).rglob("*") if file.is_file() and SECRET in file.read_text(errors="replace")]
    assert [file.name for file in kept] == ["env"]


def test_a_ray_job_that_is_cancelled_and_one_that_fails(story: Story) -> None:
    stage, cluster = story.stage, story.cluster
    begun = stage.comment("/train profile=ray steps=100", **story.env)
    key, name = begun.outputs["run-key"], begun.outputs["job-id"]
    [pod] = cluster.schedule(name)
    cluster.logs[pod["metadata"]["name"]] = ["2026-11-30T14:02:00.000000000Z step 0 loss 2.0"]
    assert stage.comment(f"/train cancel {key[:6]}", **story.env).code == 0
    cluster.collect()
    story.watch()
    assert "was cancelled" in story.body(key)
    assert story.check(key) == ("completed", "cancelled")
    told = stage.comment(f"/train logs {key[:6]}", **story.env)
    assert told.code == 0
    assert "step 0 loss 2.0" in stage.answers[-1], "its log outlived its pods"
    failed = stage.comment("/train profile=ray steps=1 fail=nan", **story.env)
    assert cluster.play(failed.outputs["job-id"]) == 3
    story.watch()
    body = story.body(failed.outputs["run-key"])
    assert "failed with exit code 3" in body
    assert "ValueError: nan" in body
    assert cluster.of_kind(RAY_JOBS) == {}


def test_refused_unclear_and_without_credentials(story: Story) -> None:
    stage, cluster = story.stage, story.cluster
    refused = stage.comment("/train profile=jax", **story.env)
    assert (refused.code, refused.outputs["decision"]) == (8, "refused"), refused
    assert "ClusterTrainingRuntime" in stage.answers[-1]
    closed = stage.comment("/train steps=4", KUBECONFIG="/nowhere")
    assert (closed.code, closed.outputs["reason-code"]) == (8, "cloud.credentials"), closed
    assert cluster.of_kind(TRAIN_JOBS) == {}
    # The API has taken the job in and its answer was lost: delivered again, the same job is found by its name.
    event = stage.server.comment_event(stage.pull, stage.pull.comment("/train steps=5"))
    cluster.faults = [Fault(reset=True, after=True, method="POST", path="/trainjobs")]
    lost = stage.handle("issue_comment", event, **story.env)
    assert (lost.code, lost.outputs["reason-code"]) == (8, "cloud.unreachable"), lost
    [name] = cluster.of_kind(TRAIN_JOBS)
    found = stage.handle("issue_comment", event, **story.env)
    assert (found.code, found.outputs["job-id"]) == (0, name), found
    assert list(cluster.of_kind(TRAIN_JOBS)) == [name]
    cluster.schedule(name)
    cluster.finish(name, 137, "OOMKilled")
    story.watch()
    assert "out of host memory" in story.body(found.outputs["run-key"])


def test_at_a_terminal(story: Story, tmp_path: Path) -> None:
    """A preview without any cluster, and what `doctor` says about one."""
    stage, folder = story.stage, tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", str(stage.repo.git_dir), str(folder)], check=True)
    person = {"GITHUB_ACTIONS": "", "GITHUB_TOKEN": "", "GITHUB_REPOSITORY": ""}
    shown = stage.run("plan", "profile=ray", "--repo", str(folder), **person)
    assert shown.code == 0, shown
    assert "kind: RayJob" in shown.stdout, "what would be sent is in the preview"
    assert story.cluster.asked("GET", "/version") == 0
    seen = stage.run("doctor", "--profile", "kubeflow", "--repo", str(folder), **person, **story.env)
    assert "v1.33.1 answers" in seen.stdout, seen
    assert "the cluster has trainjobs" in seen.stdout
