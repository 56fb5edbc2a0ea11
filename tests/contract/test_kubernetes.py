"""What is sent to Kubernetes, against the client's own models, NeMo-Run's executors, and what a preview may show."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dispatcher.clouds import CLOUDS
from dispatcher.clouds.kuberay import RayWorkerGroup
from dispatcher.counterparts import ALIASES, REFUSED
from dispatcher.effects.clouds.kube_files import JobFiles
from dispatcher.effects.clouds.kubeflow import KubeflowApi
from dispatcher.effects.clouds.kuberay import KubeRayApi
from dispatcher.effects.clouds.kubernetes_job import KubernetesJob
from dispatcher.effects.clouds.serve import APIS
from dispatcher.effects.nemorun import import_nemo_run
from dispatcher.jobplan import NOT_FOR_AN_API, JobPlan
from dispatcher.recipe import Recipe
from tests.fakes import cloud_plan

pytest.importorskip("kubernetes")
import_nemo_run()

KINDS = {"kubeflow": KubeflowApi, "kuberay": KubeRayApi}
# Every field of Kubernetes' own is there, in the form that its page has it in.
PODS: dict[str, Any] = {
    "context": "here",
    "namespace": "ml",
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    "volume_mounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}},
    "image_pull_secrets": ["registry"],
    "labels": {"team": "ml"},
}
FIELDS: dict[str, dict[str, Any]] = {
    "kubeflow": {
        **PODS,
        "nodes": 2,
        "gpus_per_node": 8,
        "cpu_requests": "4",
        "memory_requests": "64Gi",
        "cpu_limits": "8",
        "memory_limits": "128Gi",
        "extra_resource_requests": {"rdma/ib": "1"},
        "extra_resource_limits": {"rdma/ib": "1"},
        "annotations": {"note": "x"},
        "pod_labels": {"app": "x"},
        "pod_annotations": {"networking.gke.io/interfaces": "[]"},
        "env_list": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "pod_spec_overrides": {"serviceAccountName": "train"},
        "spec_kwargs": {"managedBy": "trainer.kubeflow.org/trainjob-controller"},
    },
    "kuberay": {
        **PODS,
        "ray_head_start_params": {"num-cpus": "0"},
        "head_ports": [{"containerPort": 8265, "name": "dashboard"}],
        "spec_kwargs": {"serviceAccountName": "train"},
        "container_kwargs": {"securityContext": {"runAsUser": 1000}, "envFrom": [{"configMapRef": {"name": "site"}}]},
        "lifecycle_kwargs": {"postStart": {"exec": {"command": ["true"]}}},
        "worker_groups": [
            {
                "group_name": "aa",
                "replicas": 2,
                "gpus_per_worker": 8,
                "cpu_requests": "4",
                "labels": {"app": "a"},
                "annotations": {"n": "1"},
            },
            {"group_name": "bb", "min_replicas": 1, "max_replicas": 3},
        ],
    },
}


def api(job: JobPlan) -> KubernetesJob:
    given = job.profile.model_dump(mode="json", exclude=NOT_FOR_AN_API)
    return KINDS[job.profile.executor](given)


def plan(executor: str, **more: Any) -> JobPlan:
    return cloud_plan(Recipe(script="train.py", args=("a=b c", "$HOME")), executor, **{**FIELDS[executor], **more})


def manifest(executor: str, folder: Path, **more: Any) -> dict[str, Any]:
    job = plan(executor, **more)
    [text] = api(job).render(job.for_compiler(), folder).files.values()
    assert "&id" not in text, "an anchor says less than what it stands for"
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def understood(kind: str, value: Any) -> Any:
    """A value as the client understands it: what its model does not have is gone."""
    from kubernetes.client import ApiClient

    client = ApiClient()
    return client.sanitize_for_serialization(client.deserialize(SimpleNamespace(data=json.dumps(value)), kind))


@pytest.mark.parametrize("executor", sorted(KINDS))
def test_every_field_of_nemo_run_is_reachable_or_refused(executor: str) -> None:
    from nemo_run.core.execution import kubeflow, kuberay

    theirs = {"kubeflow": kubeflow.KubeflowExecutor, "kuberay": kuberay.KubeRayExecutor}[executor]
    model = CLOUDS[executor]
    fields = {field.name for field in dataclasses.fields(theirs) if not field.name.startswith("_")}
    ours = set(model.model_fields) | {alias for alias, name in ALIASES.items() if name in model.model_fields}
    assert fields - ours - set(model.REFUSED) - set(REFUSED) - {"retries"} == set()
    assert set(model.REFUSED) <= fields - set(model.model_fields)
    if executor == "kuberay":
        group = {field.name for field in dataclasses.fields(kuberay.KubeRayWorkerGroup)}
        assert group == set(RayWorkerGroup.model_fields)


def test_a_train_jobs_parts_are_kubernetes_own(tmp_path: Path) -> None:
    spec = manifest("kubeflow", tmp_path)["spec"]
    [override] = spec["podTemplateOverrides"]
    assert understood("V1PodSpec", override["spec"]) == override["spec"]
    assert understood("V1ObjectMeta", override["metadata"]) == override["metadata"]
    assert understood("list[V1EnvVar]", spec["trainer"]["env"]) == spec["trainer"]["env"]
    resources = spec["trainer"]["resourcesPerNode"]
    assert understood("V1ResourceRequirements", resources) == resources
    assert resources["limits"] == {"cpu": "8", "memory": "128Gi", "nvidia.com/gpu": "8", "rdma/ib": "1"}
    assert (spec["trainer"]["numNodes"], spec["trainer"]["numProcPerNode"]) == (2, 8)
    assert spec["managedBy"] == "trainer.kubeflow.org/trainjob-controller"
    assert override["spec"]["serviceAccountName"] == "train"


def test_a_ray_jobs_pods_are_kubernetes_own(tmp_path: Path) -> None:
    spec = manifest("kuberay", tmp_path)["spec"]
    cluster = spec["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    for template in templates:
        # A quantity may be a number, and the client makes it the text that it stands for.
        for part in template["spec"]["containers"][0]["resources"].values():
            part.update({name: str(amount) for name, amount in part.items()})
        assert understood("V1PodTemplateSpec", template) == template
        [container] = template["spec"]["containers"]
        assert container["envFrom"][0] == {"configMapRef": {"name": "site"}}
        assert container["securityContext"] == {"runAsUser": 1000}
        assert {"name": "data", "mountPath": "/data", "readOnly": True} in container["volumeMounts"]
        assert template["spec"]["initContainers"][0]["name"] == "dispatch-code"
    first, second = cluster["workerGroupSpecs"]
    assert (first["replicas"], first["minReplicas"], second["maxReplicas"]) == (2, 2, 3)
    assert first["template"]["metadata"] == {"labels": {"app": "a"}, "annotations": {"n": "1"}}
    assert "metadata" not in first, "NeMo-Run has it there, and KubeRay would drop it"


@pytest.mark.parametrize("reuse", [True, False])
def test_workers_have_the_code_whose_volumes_they_have(tmp_path: Path, reuse: bool) -> None:
    group = {"group_name": "aa", **({} if reuse else {"volumes": [{"name": "own", "emptyDir": {}}]})}
    spec = manifest("kuberay", tmp_path, worker_groups=[group], reuse_volumes_in_worker_groups=reuse)["spec"]
    pods = spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert [volume["name"] for volume in pods["volumes"]] == ["data" if reuse else "own", "dispatch-files", "dispatch-run"]
    assert "/nemo_run" in [mount["mountPath"] for mount in pods["containers"][0]["volumeMounts"]]


def test_the_pod_that_copies_is_kubernetes_own() -> None:
    given = plan("kubeflow", workdir_pvc="work").profile.model_dump(mode="json")
    body = JobFiles(SimpleNamespace(name="ml", context=None), given)._mover("x-mover", "work")  # type: ignore[arg-type]
    assert understood("V1Pod", body) == body
    assert body["spec"]["tolerations"] == PODS["tolerations"]


@pytest.mark.parametrize("executor", sorted(KINDS))
@pytest.mark.parametrize("path", ["/nemo_run", "/work"])
def test_a_claim_is_mounted_for_the_run_alone_and_whole_where_asked_for(tmp_path: Path, executor: str, path: str) -> None:
    job = plan(executor, workdir_pvc="work", workdir_pvc_path=path)
    text = json.dumps(api(job).body(job.for_compiler()))
    own = json.dumps({"name": "dispatch-run", "mountPath": "/nemo_run", "subPath": f"dispatch/{job.run_key}"})
    assert own in text
    assert (json.dumps({"name": "dispatch-run", "mountPath": "/work"}) in text) == (path == "/work")
    assert "code.tar.gz" not in text + api(job).script(job.for_compiler(), tmp_path)


@pytest.mark.parametrize("executor", sorted(KINDS))
def test_the_preview_is_what_is_sent_and_has_no_variable_in_it(executor: str, tmp_path: Path) -> None:
    job = plan(executor, env_vars={"CANARY": "canary-value"})
    made = api(job)
    first, second = (made.render(job.for_compiler(), tmp_path) for _ in range(2))
    assert first == second
    assert yaml.safe_load(next(iter(first.files.values()))) == made.body(job.for_compiler())
    assert "canary" not in first.script.lower() + "".join(first.files.values()).lower()
    assert "python train.py 'a=b c' '$HOME'" in first.script


def test_torchrun_meets_at_the_trainers_own_variables(tmp_path: Path) -> None:
    job = cloud_plan(Recipe(script="train.py", launcher="torchrun"), "kubeflow", nodes=2, gpus_per_node=8)
    script = api(job).script(job.for_compiler(), tmp_path)
    [line] = [line for line in script.splitlines() if line.startswith("torchrun ")]
    assert "--rdzv-endpoint $PET_MASTER_ADDR:29500" in line
    assert "--nnodes 2 --nproc-per-node 8 --node-rank $PET_NODE_RANK" in line


def test_each_executor_is_served() -> None:
    assert set(APIS) == set(CLOUDS)
