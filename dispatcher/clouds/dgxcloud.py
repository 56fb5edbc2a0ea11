"""DGX Cloud, and every other Run:ai: a training workload of one project, as NeMo-Run's DGXCloudExecutor describes it.

https://github.com/NVIDIA-NeMo/Run/blob/v0.11.1/nemo_run/core/execution/dgxcloud.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from dispatcher.clouds.base import CloudProfile
from dispatcher.clouds.freetable import FreeTable
from dispatcher.document import ProblemsError
from dispatcher.values import AbsolutePath, Image, Model, Shape

# The application's secret goes there: never in the clear, except to this machine itself.
Endpoint = Annotated[
    str,
    Shape(
        r"(?:https://[A-Za-z0-9.-]+(?::[0-9]{1,5})?|http://(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?)(?:/[A-Za-z0-9._~-]+)*/?",
        "an address such as `https://example.run.ai/api/v1` (https only)",
        512,
    ),
]
Project = Annotated[str, Shape(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", "a project's name", 128)]
ObjectName = Annotated[str, Shape(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", "a name (letters, digits, `_`, `-`, `.`)", 253)]

RESERVED: Mapping[str, str] = {
    "command": "the recipe says what runs",
    "args": "the recipe says what runs",
    "image": "`container_image` says it",
    **dict.fromkeys(("numWorkers", "minReplicas", "maxReplicas"), "`nodes` says it"),
    "distributedFramework": "the field of that name says it",
}
"""Keys of a workload's `spec` that `custom_spec` may not have, and why."""


def _custom(value: dict[str, object]) -> dict[str, object]:
    found = [((key,), f"`{key}` cannot stand here: {RESERVED[key]}") for key in value if key in RESERVED]
    if found:
        raise ProblemsError(found)
    return value


class Pvc(Model):
    """A persistent volume claim, as Run:ai's API takes it in `storage.pvc`."""

    path: AbsolutePath = Field(description="Where it is in the job.")
    name: ObjectName | None = Field(default=None, description="A name for policies.")
    claimName: ObjectName | None = Field(default=None, description="The claim's name.")  # noqa: N815 - the API's own spelling
    existingPvc: bool | None = Field(default=None, description="Whether the claim is there already.")  # noqa: N815
    readOnly: bool | None = Field(default=None, description="Only for reading.")  # noqa: N815
    ephemeral: bool | None = Field(default=None, description="Deleted together with the workload.")
    dataSharing: bool | None = Field(default=None, description="Shared with all projects of its scope.")  # noqa: N815
    claimInfo: FreeTable | None = Field(default=None, description="What a new claim is like: `size`, `storageClass`, …")  # noqa: N815


class DgxCloudProfile(CloudProfile):
    """DGX Cloud: a training workload of a Run:ai project."""

    CREDENTIALS: ClassVar[tuple[str, ...]] = ("DGXCLOUD_CLIENT_ID", "DGXCLOUD_CLIENT_SECRET")
    # Where the credentials go, whose quota it is, which storage the job sees, and what of the API no rule knows.
    FIXED: ClassVar[frozenset[str]] = frozenset(
        {"base_url", "kube_apiserver_url", "project_name", "cluster_id", "pvc_nemo_run_dir", "pvcs"}
        | {"launched_from_cluster", "custom_spec", "busybox_image"}
    )
    REFUSED: ClassVar[Mapping[str, str]] = {
        "client_id": "the application's id comes from the environment, `DGXCLOUD_CLIENT_ID`",
        "client_secret": "the application's secret comes from the environment, `DGXCLOUD_CLIENT_SECRET`",
        "pvc_job_dir": "it is made from `pvc_nemo_run_dir` and the run's key",
        "MAX_ARGS_CHARS": "the API's own limit holds",
    }

    executor: Literal["dgxcloud"] = Field(default="dgxcloud", description="What runs the job.")
    base_url: Endpoint = Field(description="Run:ai's API: `https://HOST/api/v1`.")
    kube_apiserver_url: Endpoint | None = Field(
        default=None, description="The cluster's Kubernetes API, for logs and results. Without it nothing comes back but the state."
    )
    project_name: Project = Field(description="The Run:ai project.")
    cluster_id: Annotated[str, Shape(r"[0-9a-f-]{36}", "a cluster's UUID", 36)] | None = Field(
        default=None, description="The cluster, where projects on several have the same name."
    )
    container_image: Image = Field(description="The image; it needs `bash`, `tar`, `gzip`, `base64`, `timeout`. Also: `container`.")
    pvc_nemo_run_dir: AbsolutePath = Field(description="A folder on one of `pvcs`, for code that does not fit into a request.")
    pvcs: Annotated[tuple[Pvc, ...], Field(max_length=32)] = Field(description="Storage that the job mounts.")
    distributed_framework: Literal["PyTorch", "MPI", "TF", "XGBoost", "JAX"] = Field(
        default="PyTorch", description="How the pods of several `nodes` find each other."
    )
    launched_from_cluster: bool = Field(
        default=False, description="The runner mounts `pvc_nemo_run_dir` too: code is written there, logs are read there."
    )
    custom_spec: Annotated[FreeTable, AfterValidator(_custom)] = Field(
        default_factory=dict,
        description="More of the workload's `spec`, as the API has it: tables merge, lists are appended. No secrets.",
    )
    busybox_image: Image = Field(default="busybox:1.37.0", description="What lays the code on the storage.")

    @model_validator(mode="after")
    def _storage_is_mounted(self) -> Self:
        folder = f"{self.pvc_nemo_run_dir.rstrip('/')}/"
        if not any(folder.startswith(f"{pvc.path.rstrip('/')}/") for pvc in self.pvcs if not pvc.readOnly):
            words = "`pvc_nemo_run_dir` is on none of `pvcs` that can be written to"
            raise ProblemsError([(("pvc_nemo_run_dir",), words)])
        return self

    @property
    def place(self) -> tuple[str, ...]:
        """The control plane and the project."""
        return (self.base_url, self.project_name, *([self.cluster_id] if self.cluster_id else []))

    @property
    def returns_log(self) -> bool:
        """Run:ai's own API has no logs."""
        return self.launched_from_cluster or self.kube_apiserver_url is not None
