"""Kubeflow Trainer: a run → a TrainJob, made by NeMo-Run's KubeflowExecutor. https://www.kubeflow.org/docs/components/trainer/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dispatcher.clouds.kubernetes import FILES_DIR
from dispatcher.effects.clouds.api import name_of
from dispatcher.effects.clouds.kube_files import RUN_KEY, environment_file, script_before, volumes_of
from dispatcher.effects.clouds.kubernetes_job import KubernetesJob
from dispatcher.effects.clouds.program import command_of, launch_script
from dispatcher.effects.nemorun import import_nemo_run
from dispatcher.kubestates import Object, Seen, train_job

_AS_THEY_ARE = ("runtime_ref", "namespace", "cpu_requests", "memory_requests", "cpu_limits", "memory_limits", "data_mover_image")
_TABLES: tuple[str, ...] = ("extra_resource_requests", "extra_resource_limits", "annotations", "pod_labels", "pod_annotations", "affinity")
_TABLES += ("pod_spec_overrides", "spec_kwargs", "container_kwargs")


class KubeflowApi(KubernetesJob):
    """TrainJobs of one namespace."""

    PATH = "trainer.kubeflow.org/v1alpha1/trainjobs"
    POD_LABEL = "jobset.sigs.k8s.io/jobset-name"
    CONTAINER = "node"

    def script(self, job: Mapping[str, Any], work: Path) -> str:
        """Every node starts it; each unpacks what lies in the Secret for itself."""
        before = script_before(bool(job["cloud"]["packs"]), bool(self.profile["workdir_pvc"]))
        return launch_script(job, command_of(self._executor(str(job["run_key"])), job, work), before=before)

    def body(self, job: Mapping[str, Any]) -> Object:
        """NeMo-Run's manifest, under our name."""
        run_key = str(job["run_key"])
        body: Object = self._executor(run_key).get_job_body(name_of(run_key), ["bash", f"{FILES_DIR}/launch.sh"])
        return body

    def secrets(self, script: str, code: Mapping[str, bytes], environment: Mapping[str, str]) -> Mapping[str, Mapping[str, bytes]]:
        """One: a TrainJob cannot name a whole Secret as environment, so the script reads it."""
        return {"": {"launch.sh": script.encode(), "env": environment_file(environment), **code}}

    def seen(self, job: Object, pods: Sequence[Object]) -> Seen:
        """As its conditions and pods say."""
        return train_job(job, pods)

    def _executor(self, run_key: str) -> Any:
        """NeMo-Run's executor with the profile's fields. NeMo-Run's own connects when it is made; nothing is asked here."""
        run, given = import_nemo_run(), self.profile
        import kubernetes  # noqa: F401 - NeMo-Run would only say that its own extra is missing
        from nemo_run.core.execution.kubeflow import KubeflowExecutor

        class Unconnected(KubeflowExecutor):  # type: ignore[misc]
            def _load_kube_clients(self) -> None:
                return None

        volumes, mounts = volumes_of(name_of(run_key), run_key, given)
        return Unconnected(
            image=given["container_image"],
            num_nodes=given["nodes"],
            nprocs_per_node=given["nproc_per_node"],
            gpus_per_node=given["gpus_per_node"],
            volumes=volumes,
            volume_mounts=mounts,
            labels={**given["labels"], RUN_KEY: run_key},
            tolerations=list(given["tolerations"]),
            env_list=list(given["env_list"]),
            image_pull_secrets=list(given["image_pull_secrets"]),
            packager=run.Packager(),
            **{name: given[name] for name in _AS_THEY_ARE},
            **{name: dict(given[name]) for name in _TABLES},
        )
