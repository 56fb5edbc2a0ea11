"""KubeRay: a run → a RayJob with the cluster of NeMo-Run's KubeRayExecutor. https://docs.ray.io/en/latest/cluster/kubernetes/.

NeMo-Run names the job after the user and looks for its pods with a login that stays; a RayJob is what a CI can leave alone. Its program
runs on the head. All pods have the code in `/nemo_run/code` and the variables in their environment, because actors run on workers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dispatcher.clouds.kubernetes import FILES_DIR, RUN_DIR
from dispatcher.effects.clouds.api import name_of
from dispatcher.effects.clouds.kube_files import RUN_KEY, named, volumes_of
from dispatcher.effects.clouds.kubernetes_job import KubernetesJob
from dispatcher.effects.clouds.program import command_of, launch_script
from dispatcher.effects.nemorun import import_nemo_run
from dispatcher.kubestates import Object, Seen, ray_job

ENV = "-env"
_AS_THEY_ARE = ("namespace", "ray_version", "head_cpu", "head_memory", "service_type")
_GROUP: tuple[str, ...] = ("group_name", "replicas", "min_replicas", "max_replicas", "gpus_per_worker")
_GROUP += ("cpu_requests", "memory_requests", "cpu_limits", "memory_limits")


class KubeRayApi(KubernetesJob):
    """RayJobs of one namespace."""

    PATH = "ray.io/v1/rayjobs"
    # KubeRay's submitter is a Job of the RayJob's name; it prints what the program on the head prints.
    POD_LABEL = "job-name"

    def script(self, job: Mapping[str, Any], work: Path) -> str:
        """The entry point, on the head."""
        return launch_script(job, command_of(self._executor(str(job["run_key"]), True), job, work))

    def body(self, job: Mapping[str, Any]) -> Object:
        """NeMo-Run's cluster in a RayJob of our name."""
        run_key = str(job["run_key"])
        cluster = self._executor(run_key, bool(job["cloud"]["packs"])).get_cluster_body(name_of(run_key))["spec"]
        for group in cluster.get("workerGroupSpecs", []):
            # NeMo-Run puts labels and annotations beside the pods' template, where KubeRay does not know them.
            metadata = group.pop("metadata", None)
            if metadata:
                group["template"]["metadata"] = metadata
        for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]:
            for container in group["template"]["spec"]["containers"]:
                container["workingDir"] = f"{RUN_DIR}/code"
        return {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {
                "name": name_of(run_key),
                "namespace": self.namespace.name,
                "labels": {**self.profile["labels"], RUN_KEY: run_key},
            },
            "spec": {
                "entrypoint": f"bash {FILES_DIR}/launch.sh",
                "shutdownAfterJobFinishes": True,
                # Its script is not made to be run twice, and a second try is a command of its own (`retry`).
                "backoffLimit": 0,
                "rayClusterSpec": cluster,
            },
        }

    def secrets(self, script: str, code: Mapping[str, bytes], environment: Mapping[str, str]) -> Mapping[str, Mapping[str, bytes]]:
        """Two: the second one is the containers' environment as a whole."""
        return {"": {"launch.sh": script.encode(), **code}, ENV: {name: value.encode() for name, value in environment.items()}}

    def seen(self, job: Object, pods: Sequence[Object]) -> Seen:
        """As its status says. The submitter's pods say nothing about the program's own end."""
        return ray_job(job, ())

    def log_pods(self, pods: Sequence[Object]) -> Sequence[Object]:
        """The newest: a submitter that is started again prints everything again."""
        return sorted(pods, key=lambda pod: str((pod.get("metadata") or {}).get("creationTimestamp") or ""))[-1:]

    def _executor(self, run_key: str, packs: bool) -> Any:
        """NeMo-Run's executor with the profile's fields."""
        run, given = import_nemo_run(), self.profile
        from nemo_run.core.execution.kuberay import KubeRayExecutor, KubeRayWorkerGroup

        class OnTheHead(KubeRayExecutor):  # type: ignore[misc]
            """NeMo-Run's has none of what makes a command of a recipe: it is one program on the head."""

            def assign(self, exp_id: str, exp_dir: str, task_id: str, task_dir: str) -> None:
                self.experiment_id, self.experiment_dir, self.job_dir = exp_id, exp_dir, str(Path(exp_dir, task_dir))

            def nnodes(self) -> int:
                return 1

            def nproc_per_node(self) -> int:
                return 1

        volumes, mounts = volumes_of(name_of(run_key), run_key, given)
        container = copy.deepcopy(dict(given["container_kwargs"]))
        container["envFrom"] = [*container.get("envFrom", []), {"secretRef": {"name": name_of(run_key) + ENV}}]
        return OnTheHead(
            image=given["container_image"] or "",
            worker_groups=[
                KubeRayWorkerGroup(
                    volumes=copy.deepcopy(more),
                    volume_mounts=copy.deepcopy(there),
                    labels=dict(group.get("labels") or {}),
                    annotations=dict(group.get("annotations") or {}),
                    **{name: group[name] for name in _GROUP if group.get(name) is not None},
                )
                for group, more, there in self._worker_groups(run_key, volumes, mounts)
            ],
            labels=dict(given["labels"]),
            ray_head_start_params=dict(given["ray_head_start_params"]),
            ray_worker_start_params=dict(given["ray_worker_start_params"]),
            head_ports=list(given["head_ports"]),
            volumes=volumes,
            volume_mounts=mounts,
            reuse_volumes_in_worker_groups=given["reuse_volumes_in_worker_groups"],
            spec_kwargs=self._pod(packs),
            container_kwargs=container,
            lifecycle_kwargs=dict(given["lifecycle_kwargs"]),
            packager=run.Packager(),
            **{name: given[name] for name in _AS_THEY_ARE},
        )

    def _worker_groups(
        self, run_key: str, volumes: list[Object], mounts: list[Object]
    ) -> list[tuple[Mapping[str, Any], list[Object], list[Object]]]:
        """Each group of workers with its volumes and where they are mounted; `volumes` and `mounts` are the head's."""
        given = self.profile
        if not given["worker_groups"]:
            return [({"group_name": "workers", "replicas": given["nodes"], "gpus_per_worker": given["gpus_per_node"]}, volumes, mounts)]
        if given["reuse_volumes_in_worker_groups"]:
            return [(group, [], []) for group in given["worker_groups"]]
        ours, where = volumes_of(name_of(run_key), run_key, {**given, "volumes": (), "volume_mounts": ()})
        return [(group, [*group["volumes"], *ours], [*group["volume_mounts"], *where]) for group in given["worker_groups"]]

    def _pod(self, packs: bool) -> dict[str, Any]:
        """More of every pod: what the profile says, and where the code lies in the Secret, a container that unpacks it first."""
        given = self.profile
        more = {"tolerations": list(given["tolerations"]), "affinity": given["affinity"], "imagePullSecrets": named(given)}
        spec = {**given["spec_kwargs"], **{name: value for name, value in more.items() if value}}
        if packs and not given["workdir_pvc"]:
            unpack = f"mkdir -p {RUN_DIR}/code && tar -xzf {FILES_DIR}/code.tar.gz -C {RUN_DIR}/code"
            mounts = volumes_of("", "", {**given, "volumes": (), "volume_mounts": ()})[1]
            image = given["container_image"] or f"rayproject/ray:{given['ray_version']}"
            spec["initContainers"] = [{"name": "dispatch-code", "image": image, "command": ["sh", "-c", unpack], "volumeMounts": mounts}]
        return spec
