"""A RayJob of KubeRay, with the cluster that NeMo-Run's KubeRayExecutor describes.

https://github.com/NVIDIA-NeMo/Run/blob/v0.11.1/nemo_run/core/execution/kuberay.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from dispatcher.clouds.kubernetes import Annotations, FreeTable, FreeTables, KubernetesProfile, Labels, Quantity
from dispatcher.document import Loc, ProblemsError
from dispatcher.values import Between, Line, Model, Shape

RayVersion = Annotated[str, Shape(r"[0-9]+(?:\.[0-9]+){1,3}(?:[a-z0-9.+-]*)", "a version of Ray such as `2.43.0`", 32)]
GroupName = Annotated[str, Shape(r"[a-z0-9][a-z0-9-]{0,61}[a-z0-9]", "a group's name (two or more small letters, digits, `-`)", 63)]
RayParameter = Annotated[str, Shape(r"[a-z][a-z0-9-]*", "an option of `ray start` without dashes in front, such as `num-gpus`", 64)]


class RayWorkerGroup(Model):
    """Workers that are alike."""

    group_name: GroupName = Field(description="The group's name.")
    replicas: Annotated[int, Between(1, 10_000)] = Field(default=1, description="Workers.")
    min_replicas: Annotated[int, Between(1, 10_000)] | None = Field(default=None, description="At least; without it `replicas`.")
    max_replicas: Annotated[int, Between(1, 10_000)] | None = Field(default=None, description="At most; without it `replicas`.")
    gpus_per_worker: Annotated[int, Between(0, 64)] | None = Field(default=None, description="GPUs of each.")
    cpu_requests: Quantity | None = Field(default=None, description="CPUs that each asks for.")
    memory_requests: Quantity | None = Field(default=None, description="Memory that each asks for.")
    cpu_limits: Quantity | None = Field(default=None, description="CPUs that each may use.")
    memory_limits: Quantity | None = Field(default=None, description="Memory that each may use.")
    volumes: FreeTables = Field(default=(), description="Volumes of this group, with `reuse_volumes_in_worker_groups: false`.")
    volume_mounts: FreeTables = Field(default=(), description="The same for mounts.")
    labels: Labels = Field(default_factory=dict, description="Labels of its pods.")
    annotations: Annotations = Field(default_factory=dict, description="Annotations of its pods.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not (self.min_replicas or self.replicas) <= self.replicas <= (self.max_replicas or self.replicas):
            raise ProblemsError([(("replicas",), "`replicas` is not between `min_replicas` and `max_replicas`")])
        return self

    @property
    def most(self) -> int:
        """How many there may be at the same time."""
        return self.max_replicas or self.replicas


class KubeRayProfile(KubernetesProfile):
    """KubeRay: a RayJob with a Ray cluster of its own, which goes when the job has ended."""

    LAUNCHERS: ClassVar[tuple[str, ...]] = ("none",)
    OWN_SPEC: ClassVar[Mapping[str, str]] = {
        "containers": "`container_kwargs` are fields of the container",
        "volumes": "they are `volumes`",
        "initContainers": "it is `setup_lines`",
        "imagePullSecrets": "they are `image_pull_secrets`",
        "tolerations": "they are `tolerations`",
        "affinity": "it is `affinity`",
    }
    OWN_CONTAINER: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("name", "lifecycle", "resources", "ports", "workingDir"), "other fields of the profile make it"),
        **dict.fromkeys(("command", "args"), "KubeRay starts Ray there"),
        "image": "it is `container_image`",
        "env": "it is `env_vars`",
        "volumeMounts": "it is `volume_mounts`",
    }
    FIXED: ClassVar[frozenset[str]] = KubernetesProfile.FIXED | {
        *("ray_version", "ray_head_start_params", "ray_worker_start_params", "worker_groups", "service_type", "head_ports"),
        *("reuse_volumes_in_worker_groups", "lifecycle_kwargs"),
    }

    executor: Literal["kuberay"] = Field(default="kuberay", description="What runs the job.")
    nodes: Annotated[int, Between(1, 10_000)] = Field(
        default=1, description="Workers, where there are no `worker_groups`. The head comes beside them."
    )
    gpus_per_node: Annotated[int, Between(0, 64)] | None = Field(
        default=None, description="GPUs of each of these workers. The head has none."
    )
    ray_version: RayVersion = Field(default="2.43.0", description="The version of Ray that is in the image.")
    head_cpu: Quantity = Field(default="1", description="CPUs of the head.")
    head_memory: Quantity = Field(default="2Gi", description="Memory of the head.")
    ray_head_start_params: dict[RayParameter, Line] = Field(default_factory=dict, description="Options of `ray start` on the head.")
    ray_worker_start_params: dict[RayParameter, Line] = Field(default_factory=dict, description="Options of `ray start` on workers.")
    worker_groups: tuple[RayWorkerGroup, ...] = Field(default=(), description="Groups of workers ([below](#groups-of-workers)).")
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(default="ClusterIP", description="The head's service.")
    head_ports: FreeTables = Field(default=(), description="Ports of the head, as Kubernetes writes them.")
    reuse_volumes_in_worker_groups: bool = Field(default=True, description="Workers have the profile's volumes.")
    lifecycle_kwargs: FreeTable = Field(default_factory=dict, description="More of the containers' `lifecycle`.")

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        problems: list[tuple[Loc, str]] = []
        if self.worker_groups:
            given = [name for name in ("nodes", "gpus_per_node") if name in self.model_fields_set]
            problems += [((name,), f"`{name}` and `worker_groups` exclude each other") for name in given]
        names = [group.group_name for group in self.worker_groups]
        twice = [index for index, name in enumerate(names) if name in names[:index]]
        problems += [(("worker_groups", index, "group_name"), f"`{names[index]}` is there twice") for index in twice]
        problems += [
            (("worker_groups", index, name), f"`{name}` is not read: workers have the profile's (`reuse_volumes_in_worker_groups`)")
            for index, group in enumerate(self.worker_groups)
            for name in ("volumes", "volume_mounts")
            if self.reuse_volumes_in_worker_groups and getattr(group, name)
        ]
        if problems:
            raise ProblemsError(problems)
        return self

    @property
    def image(self) -> str:
        """The image; Ray's own where none is named."""
        return self.container_image or f"rayproject/ray:{self.ray_version}"

    @property
    def groups(self) -> tuple[RayWorkerGroup, ...]:
        """The groups of workers."""
        return self.worker_groups or (RayWorkerGroup(group_name="workers", replicas=self.nodes, gpus_per_worker=self.gpus_per_node),)

    @property
    def machines(self) -> int:
        """Workers of all groups."""
        return sum(group.most for group in self.groups)

    @property
    def gpu_count(self) -> int:
        """GPUs of all workers."""
        return sum(group.most * (group.gpus_per_worker or 0) for group in self.groups)
