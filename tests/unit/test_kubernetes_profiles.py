"""Profiles for Kubernetes: what is taken, what is refused and with which words, what no override may set, what a run asks for."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.clouds import CLOUDS
from dispatcher.clouds.kubernetes import DEEPEST, LARGEST
from dispatcher.errors import ConfigError
from dispatcher.grammar import Malformed, Override
from dispatcher.limits import asked_for
from dispatcher.profile import resolve_profile
from dispatcher.recipe import Recipe
from dispatcher.runprofile import apply_overrides
from tests.fakes import cloud_plan

KUBEFLOW = "executor: kubeflow\nimage: org/train:1\ntunnel: local\njob_dir: /jobs\n"
KUBERAY = "executor: kuberay\ntunnel: local\njob_dir: /jobs\n"


def profile(text: str) -> Any:
    return resolve_profile("k", {"profiles/k.yaml": text}, (), {}).profile


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        profile(text)
    assert raised.value.code == "config.invalid"
    return raised.value.cause


def nested(depth: int) -> str:
    return "{a: " * depth + "1" + "}" * depth


def test_the_names_of_nemo_run_are_understood() -> None:
    read = profile(KUBEFLOW + "num_nodes: 4\nnprocs_per_node: 6\ngpus_per_node: 8\n")
    assert (read.container_image, read.nodes, read.nproc_per_node, read.gpu_count) == ("org/train:1", 4, 6, 32)
    assert profile(KUBERAY + "ray_version: 2.9.3\n").image == "rayproject/ray:2.9.3"
    assert profile(KUBERAY + "image: org/ray:1\n").image == "org/ray:1"


def test_what_kubernetes_writes_itself_passes_as_it_is() -> None:
    text = (
        "volumes: [{name: data, persistentVolumeClaim: {claimName: data, readOnly: true}}]\n"
        "volume_mounts: [{name: data, mountPath: /data}]\n"
        "tolerations: [{key: nvidia.com/gpu, operator: Exists, tolerationSeconds: 30}]\n"
        "affinity: {nodeAffinity: {weight: 1.5}}\n"
        "env_list: [{name: KEY, valueFrom: {secretKeyRef: {name: s, key: k}}}]\n"
        "pod_labels: {version: '1.10', example.com/team: ml}\nannotations: {note: 'a: b'}\nextra_resource_limits: {rdma/ib: 8}\n"
    )
    read = profile(KUBEFLOW + text)
    assert read.volumes == ({"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},)
    assert read.tolerations[0]["tolerationSeconds"] == 30
    assert read.affinity["nodeAffinity"]["weight"] == "1.5", "Kubernetes' own numbers with a point are quantities, which are text"
    assert read.pod_labels == {"version": "1.10", "example.com/team": "ml"}
    assert read.extra_resource_limits == {"rdma/ib": "8"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("namespace: Ml", "is not a name of Kubernetes"),
        ("namespace: a/../b", "is not a name of Kubernetes"),
        ("context: --kubeconfig=x", "is not a context of the kubeconfig"),
        ("workdir_pvc: a_b", "is not a name of Kubernetes"),
        ("workdir_pvc_path: ../x", "is not an absolute path"),
        ("cpu_requests: lots", "is not an amount as Kubernetes writes it"),
        ("memory_limits: 64GiB", "is not an amount as Kubernetes writes it"),
        ("labels: {team: 'a b'}", "is not the value of a label"),
        ("labels: {nemotron-dispatch/run-key: x}", "`nemotron-dispatch/run-key` is the dispatcher's own"),
        ("volumes: [{name: dispatch-files}]", "`dispatch-files` is the dispatcher's own: take another `name`"),
        ("volume_mounts: [{name: x, mountPath: /nemo_run/}]", "`/nemo_run` is the dispatcher's own: take another `mountPath`"),
        ("volume_mounts: {name: x}", "`volume_mounts` should be"),
        ("spec_kwargs: {trainer: {}}", "`trainer` is not read here: the fields of the profile make it"),
        ("container_kwargs: {command: [sh]}", "`command` is not read here: what runs is the recipe's"),
        ("container_kwargs: {env: []}", "`env` is not read here: it is `env_vars`, or `env_list` for references"),
        ("pod_spec_overrides: {volumes: []}", "`volumes` is not read here: it is `volumes`"),
        ("restart_policy: Never", "`restart_policy` is not read: NeMo-Run has the field and does not use it"),
        ("train_job_basename: x", "`train_job_basename` is not read: the job is found again by its name"),
        ("workdir_local_path: x", "`workdir_local_path` is not read: what travels is the commit"),
        (f"affinity: {nested(DEEPEST + 1)}", "nested more than"),
        (f"affinity: {{a: '{'x' * LARGEST}'}}", "is longer than 64 KB"),
        ('affinity: {a: "\\0"}', "contains a character that no text has"),
        ("runtime_rf: x", "runtime_ref"),
    ],
)
def test_what_is_refused(line: str, words: str) -> None:
    assert words in refusal(KUBEFLOW + line + "\n")


def test_no_image() -> None:
    assert "container_image" in refusal("executor: kubeflow\ntunnel: local\njob_dir: /jobs\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes: 2\nworker_groups: [{group_name: aa}]", "`nodes` and `worker_groups` exclude each other"),
        ("worker_groups: [{group_name: aa}, {group_name: aa}]", "`aa` is there twice"),
        ("worker_groups: [{group_name: aa, volumes: [{name: x}]}]", "`volumes` is not read: workers have the profile's"),
        ("worker_groups: [{group_name: A}]", "is not a group's name"),
        ("worker_groups: [{group_name: aa, replicas: 3, max_replicas: 2}]", "is not between `min_replicas` and `max_replicas`"),
        ("worker_groups: [{name: a}]", "group_name"),
        ("ray_version: latest", "is not a version of Ray"),
        ("ray_head_start_params: {--num-gpus: 1}", "is not an option of `ray start`"),
        ("spec_kwargs: {containers: []}", "`container_kwargs` are fields of the container"),
        ("container_kwargs: {command: [x]}", "KubeRay starts Ray there"),
        ("service_type: Elsewhere", "ClusterIP"),
    ],
)
def test_what_a_ray_job_does_not_take(text: str, words: str) -> None:
    assert words in refusal(KUBERAY + text + "\n")


@pytest.mark.parametrize(
    ("text", "nodes", "gpus"),
    [
        ("nodes: 3\ngpus_per_node: 4", 3, 4),
        ("nodes: 3", 3, 0),
        ("worker_groups: [{group_name: aa, replicas: 2, gpus_per_worker: 8}, {group_name: bb, gpus_per_worker: 1}]", 3, 6),
        ("worker_groups: [{group_name: aa, replicas: 1, max_replicas: 5, gpus_per_worker: 2}]", 5, 2),
    ],
)
def test_what_a_ray_job_asks_for(text: str, nodes: int, gpus: int) -> None:
    """The most that there may be: limits and GPU-hours are about that."""
    asked = asked_for(profile(KUBERAY + text))
    assert (asked.nodes, asked.gpus_per_node) == (nodes, gpus)


@pytest.mark.parametrize("executor", ["kubeflow", "kuberay"])
def test_where_a_job_goes_is_no_commenters_choice(executor: str) -> None:
    read = profile(KUBEFLOW if executor == "kubeflow" else KUBERAY)
    for name in type(read).FIXED:
        answer = apply_overrides(read, [Override(f"run.{name}", "x")])
        assert isinstance(answer, Malformed)
        assert answer.reason_code == "not-here", name
    assert set(type(read).model_fields) >= type(read).FIXED
    assert apply_overrides(read, [Override("run.nodes", "2")]).nodes == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("executor", ["kubeflow", "kuberay"])
def test_each_context_and_namespace_has_a_ledger_folder_of_its_own(executor: str) -> None:
    base = {"container_image": "x", "tunnel": "local", "job_dir": "/jobs"}
    names = {CLOUDS[executor].model_validate({**base, **more}).ledger_name for more in ({}, {"context": "a"}, {"namespace": "b"})}
    assert len(names) == 3


def test_ray_has_no_other_launcher() -> None:
    with pytest.raises(ConfigError, match="`executor: kuberay`"):
        cloud_plan(Recipe(script="train.py", launcher="torchrun"), "kuberay").for_compiler()
    assert cloud_plan(Recipe(script="train.py", launcher="torchrun"), "kubeflow").for_compiler()["launcher"] == "torchrun"
