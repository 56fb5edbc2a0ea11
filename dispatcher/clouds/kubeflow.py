"""A TrainJob of Kubeflow Trainer, as NeMo-Run's KubeflowExecutor takes it.

https://github.com/NVIDIA-NeMo/Run/blob/v0.11.1/nemo_run/core/execution/kubeflow.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from dispatcher.clouds.kubernetes import (
    Annotations,
    FreeTable,
    FreeTables,
    KubernetesProfile,
    Labels,
    ObjectName,
    Quantity,
    Resources,
)
from dispatcher.document import ProblemsError
from dispatcher.values import Image

_BY_NAME = "the job is found again by its name, which is made of the run key"


class KubeflowProfile(KubernetesProfile):
    """Kubeflow Trainer: one TrainJob, whose nodes are pods."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "train_job_basename": _BY_NAME,
        "workdir_local_path": "what travels is the commit, and `packager` says which part of it",
        "restart_policy": "NeMo-Run has the field and does not use it; how pods restart is said by the training runtime",
    }
    OWN_SPEC: ClassVar[Mapping[str, str]] = {
        "runtimeRef": "it is `runtime_ref`",
        "trainer": "the fields of the profile make it",
        "podTemplateOverrides": "`pod_spec_overrides`, `pod_labels` and `pod_annotations` make it",
    }
    OWN_CONTAINER: ClassVar[Mapping[str, str]] = {
        "command": "what runs is the recipe's",
        "args": "what runs is the recipe's",
        "image": "it is `container_image`",
        "env": "it is `env_vars`, or `env_list` for references",
        "numNodes": "it is `nodes`",
        "numProcPerNode": "it is `nproc_per_node`",
        "resourcesPerNode": "the fields about GPUs, CPUs and memory make it",
    }
    FIXED: ClassVar[frozenset[str]] = KubernetesProfile.FIXED | {
        *("runtime_ref", "annotations", "pod_labels", "pod_annotations", "env_list", "pod_spec_overrides"),
        *("extra_resource_requests", "extra_resource_limits"),
    }

    executor: Literal["kubeflow"] = Field(default="kubeflow", description="What runs the job.")
    container_image: Image = Field(description="The image. Also: `image`, `container`.")
    runtime_ref: ObjectName = Field(default="torch-distributed", description="The ClusterTrainingRuntime.")
    cpu_requests: Quantity | None = Field(default=None, description="CPUs that each pod asks for.")
    memory_requests: Quantity | None = Field(default=None, description="Memory that each pod asks for.")
    cpu_limits: Quantity | None = Field(default=None, description="CPUs that each pod may use.")
    memory_limits: Quantity | None = Field(default=None, description="Memory that each pod may use.")
    extra_resource_requests: Resources = Field(default_factory=dict, description="Other resources that each pod asks for.")
    extra_resource_limits: Resources = Field(default_factory=dict, description="Other resources that each pod may use.")
    annotations: Annotations = Field(default_factory=dict, description="Annotations of the TrainJob.")
    pod_labels: Labels = Field(default_factory=dict, description="Labels of the pods.")
    pod_annotations: Annotations = Field(default_factory=dict, description="Annotations of the pods.")
    env_list: FreeTables = Field(
        default=(), description="Variables as Kubernetes writes them, such as references to its Secrets (`valueFrom`)."
    )
    pod_spec_overrides: FreeTable = Field(default_factory=dict, description="More fields of the pods' specification.")

    @model_validator(mode="after")
    def _merges(self) -> Self:
        """NeMo-Run lays `pod_spec_overrides` over everything else, so that what has a field of its own would get lost."""
        fields: Mapping[str, Any] = {
            **{name: name for name in ("volumes", "tolerations", "affinity")},
            "imagePullSecrets": "image_pull_secrets",
            "containers": "volume_mounts` or `container_kwargs",
            "initContainers": "setup_lines",
        }
        problems = [
            (("pod_spec_overrides", key), f"`{key}` is not read here: it is `{name}`")
            for key, name in fields.items()
            if key in self.pod_spec_overrides
        ]
        if problems:
            raise ProblemsError(problems)
        return self
