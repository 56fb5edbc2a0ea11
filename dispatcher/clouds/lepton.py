"""DGX Cloud Lepton: a batch job of one workspace, as NeMo-Run's LeptonExecutor describes it.

https://github.com/NVIDIA-NeMo/Run/blob/v0.11.1/nemo_run/core/execution/lepton.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from typing_extensions import Self

from dispatcher.clouds.base import CloudProfile
from dispatcher.clouds.dgxcloud import ObjectName
from dispatcher.clouds.freetable import FreeTable
from dispatcher.document import ProblemsError
from dispatcher.values import AbsolutePath, Between, EnvName, Image, Line, Model, OneOrMore, Shape

ResourceShape = Annotated[str, Shape(r"[A-Za-z0-9][A-Za-z0-9._-]*", "a resource shape such as `gpu.8xh100-80gb`", 128)]
Source = Annotated[str, Shape(r"[A-Za-z0-9][A-Za-z0-9._:/-]*", "a storage such as `node-nfs:shared`", 256)]

RESERVED: Mapping[str, str] = {
    "container": "the recipe says what runs, `container_image` in which image",
    "envs": "variables come from `env_vars`, `secret_vars` and the policy's `secrets`",
    "stopped": "the job is stopped by `cancel`",
    **dict.fromkeys(("completions", "parallelism"), "`nodes` says it"),
    **dict.fromkeys(("mounts", "resource_shape", "shared_memory_size", "image_pull_secrets"), "the field of that name says it"),
}
"""Keys of a job's `spec` that `custom_spec` may not have, and why."""


def _custom(value: dict[str, object]) -> dict[str, object]:
    found = [((key,), f"`{key}` cannot stand here: {RESERVED[key]}") for key in value if key in RESERVED]
    if found:
        raise ProblemsError(found)
    return value


class LeptonMount(Model):
    """Storage of the node group that the job sees."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    path: AbsolutePath | Literal["/"] = Field(description="The folder on the storage.")
    mount_path: AbsolutePath = Field(description="Where it is in the job.")
    from_: Source = Field(alias="from", description="The storage: `node-nfs:NAME`, `node-local`, …")
    mount_options: FreeTable | None = Field(default=None, description="`read_only`, `local_cache_size_mib`.")


class LeptonProfile(CloudProfile):
    """DGX Cloud Lepton: a batch job of a workspace."""

    CREDENTIALS: ClassVar[tuple[str, ...]] = (
        "LEPTON_WORKSPACE_ID",
        "LEPTON_WORKSPACE_TOKEN",
        "LEPTON_WORKSPACE_URL",
        "LEPTON_WORKSPACE_ORIGIN_URL",
        "LEPTON_CLASSIC",
        "LEPTON_CACHE_DIR",
    )
    # NeMo-Run knows Lepton's variables for torchrun, and not for ft_launcher: its first node would have no address.
    LAUNCHERS: ClassVar[tuple[str, ...]] = ("none", "torchrun")
    # Which of the workspace's storage and secrets the job sees, and what of the API no rule knows.
    FIXED: ClassVar[frozenset[str]] = frozenset(
        {"workspace", "node_group", "node_reservation", "nemo_run_dir", "mounts", "secret_vars", "image_pull_secrets"}
        | {"pre_launch_commands", "custom_spec", "busybox_image"}
    )
    REFUSED: ClassVar[Mapping[str, str]] = {
        "lepton_job_dir": "it is made from `nemo_run_dir` and the code's digest",
        "launched_from_cluster": "NeMo-Run has no use for it here either",
        "head_resource_shape": "there are no Ray clusters here",
        "ray_version": "there are no Ray clusters here",
    }

    executor: Literal["lepton"] = Field(default="lepton", description="What runs the job.")
    container_image: Image = Field(description="The image; it needs `bash`, `tar`, `gzip`, `base64`, `timeout`. Also: `container`.")
    resource_shape: ResourceShape = Field(description="What one node of the job is, such as `gpu.8xh100-80gb`.")
    node_group: ObjectName = Field(description="The node group, by its name.")
    node_reservation: ObjectName | None = Field(default=None, description="A reservation in it.")
    nemo_run_dir: AbsolutePath | None = Field(
        default=None, description="On one of `mounts`: a folder for code that does not fit into a request."
    )
    mounts: tuple[LeptonMount, ...] = Field(default=(), description="Storage that the job mounts.")
    shared_memory_size: Annotated[int, Between(0, 4_194_304)] = Field(default=65_536, description="Size of /dev/shm in MiB.")
    secret_vars: dict[EnvName, ObjectName] = Field(default_factory=dict, description="Variables → names of the workspace's secrets.")
    image_pull_secrets: OneOrMore[ObjectName] = Field(default=(), description="Names of the workspace's registry credentials.")
    pre_launch_commands: tuple[Line, ...] = Field(default=(), description="Shell lines before everything else.")
    can_be_preempted: bool = Field(default=False, description="Gives way to jobs of higher priority.")
    can_preempt: bool = Field(default=False, description="Takes the place of jobs of lower priority.")
    queue_priority: Annotated[str, Shape(r"[a-z]+-[0-9]{1,6}", "a priority such as `mid-4000`", 32)] | None = Field(
        default=None, description="Priority in the queue, such as `mid-4000`."
    )
    custom_spec: Annotated[FreeTable, AfterValidator(_custom)] = Field(
        default_factory=dict, description="More of the job's `spec`, as the API has it: tables merge, lists are appended. No secrets."
    )
    busybox_image: Image = Field(default="busybox:1.37.0", description="What lays the code on the storage.")
    workspace: ObjectName | None = Field(default=None, description="The workspace's id; it has to be that of the credentials.")

    @model_validator(mode="after")
    def _storage_is_mounted(self) -> Self:
        folder = f"{(self.nemo_run_dir or '').rstrip('/')}/"
        if self.nemo_run_dir and not any(folder.startswith(f"{mount.mount_path.rstrip('/')}/") for mount in self.mounts):
            raise ProblemsError([(("nemo_run_dir",), "`nemo_run_dir` is on none of `mounts`")])
        return self

    @property
    def place(self) -> tuple[str, ...]:
        """The workspace, where the profile names it."""
        return (self.workspace or "",)
