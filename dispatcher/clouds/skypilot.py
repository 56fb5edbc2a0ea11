"""Clouds and clusters behind SkyPilot, as NeMo-Run's SkypilotExecutor and SkypilotJobsExecutor take them.

https://github.com/NVIDIA-NeMo/Run/blob/v0.11.1/nemo_run/core/execution/skypilot.py and `skypilot_jobs.py`; what the values mean to
SkyPilot is in https://docs.skypilot.co/en/latest/reference/yaml-spec.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from dispatcher.clouds.base import CloudProfile
from dispatcher.document import Loc, ProblemsError
from dispatcher.values import AbsolutePath, Between, Image, Model, OneOrMore, Shape, Text

Infra = Annotated[str, Shape(r"[A-Za-z0-9*][A-Za-z0-9*_.:@-]*(?:/[A-Za-z0-9*_.:@-]+)*", "an infrastructure such as `k8s/my-context`", 256)]
CloudName = Annotated[str, Shape(r"[A-Za-z][A-Za-z0-9_-]*", "a cloud's name such as `aws`", 64)]
Area = Annotated[str, Shape(r"[A-Za-z0-9][A-Za-z0-9_.:@/-]*", "a region's or zone's name such as `us-east-1`", 256)]
Gpu = Annotated[str, Shape(r"[A-Za-z][A-Za-z0-9_.-]*", "a GPU's name such as `H100` (how many is `gpus_per_node`)", 64)]
Amount = Annotated[str, Shape(r"[0-9]{1,6}(?:\.[0-9]{1,3})?\+?", "a number such as `8`, or `8+` for at least so many", 12)]
InstanceType = Annotated[str, Shape(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "an instance type such as `p5.48xlarge`", 128)]
DiskTier = Annotated[str, Shape(r"low|medium|high|ultra|best", "`low`, `medium`, `high`, `ultra` or `best`", 8)]
NetworkTier = Annotated[str, Shape(r"standard|best", "`standard` or `best`", 8)]
Ports = Annotated[str, Shape(r"[0-9]{1,5}(?:-[0-9]{1,5})?", "a port such as `8080`, or a range such as `10000-10010`", 11)]
Bucket = Annotated[
    str,
    Shape(
        r"(?:s3|gs|r2|cos|oci|nebius|https)://[A-Za-z0-9][A-Za-z0-9_./@:+=,-]*",
        "a bucket's address such as `s3://bucket/path`; no folder of the runner is sent, and the commit travels by itself",
    ),
]
BucketName = Annotated[str, Shape(r"[a-z0-9][a-z0-9._-]*", "a bucket's name", 222)]
ClusterName = Annotated[
    str,
    Shape(
        r"(?!dispatch-[0-9a-f]{16}$)[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?",
        "a SkyPilot cluster's name, not one of the dispatcher's own",
        64,
    ),
]
Address = Annotated[str, Shape(r"https?://[A-Za-z0-9.\[\]:-]+(?:/[A-Za-z0-9_./-]*)?", "an http(s) address without user and password", 256)]

_OWN_CLUSTER = "SkyPilot makes the clusters of managed jobs, and takes them down"


class StorageMount(Model):
    """A bucket that the job sees as a folder: https://docs.skypilot.co/en/latest/reference/storage.html."""

    name: BucketName | None = Field(default=None, description="The bucket; SkyPilot makes one that is not there.")
    source: Bucket | None = Field(default=None, description="An existing bucket, instead of `name`.")
    store: Annotated[str, Shape(r"[a-z0-9]+", "a kind of store such as `s3`", 16)] | None = Field(
        default=None, description="Where: `s3`, `gcs`, `azure`, `r2`, …"
    )
    mode: Literal["MOUNT", "COPY", "MOUNT_CACHED"] = Field(default="MOUNT", description="How the job sees it.")
    persistent: bool = Field(default=True, description="Keep the bucket when SkyPilot removes the cluster.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.name is None) == (self.source is None):
            raise ProblemsError([((), "a mount has `name` or `source`, one of them")])
        return self


class _SkypilotProfile(CloudProfile):
    """What both have: what SkyPilot is asked for, and which API server is asked."""

    EXTRA: ClassVar[str] = "skypilot"
    CREDENTIALS: ClassVar[tuple[str, ...]] = (
        "SKYPILOT_API_SERVER_ENDPOINT",
        "SKYPILOT_SERVICE_ACCOUNT_TOKEN",
        "SKYPILOT_API_SERVER_LOCAL_PORT",
        "SKYPILOT_API_COOKIE_FILE",
        "SKYPILOT_GLOBAL_CONFIG",
    )
    FIXED: ClassVar[frozenset[str]] = frozenset(
        {"api_server", "infra", "cloud", "region", "zone", "instance_type", "cluster_name", "autodown", "idle_minutes_to_autostop"}
        | {"file_mounts", "storage_mounts", "setup", "cluster_config_overrides", "ports"}
    )
    REFUSED: ClassVar[Mapping[str, str]] = {
        "retries": "NeMo-Run starts no SkyPilot job again; managed jobs (`skypilot-jobs`) recover by themselves",
    }
    """NeMo-Run's fields that are not here, and why; a test compares them with the package."""

    api_server: Address | None = Field(
        default=None,
        description="SkyPilot's API server; without it `SKYPILOT_API_SERVER_ENDPOINT`, else the one that runs on this machine.",
    )
    container_image: Image | None = Field(
        default=None, description="The image, as SkyPilot's `image_id` has it (`docker:…` on clouds). Also: `container`."
    )
    infra: Infra | None = Field(default=None, description="Where: a cloud, a region, a Kubernetes context. Excludes the next three.")
    cloud: OneOrMore[CloudName] = Field(
        default=(), description="The cloud; of a list of values, here as below, SkyPilot takes what it gets."
    )
    region: OneOrMore[Area] = Field(default=(), description="Its region.")
    zone: OneOrMore[Area] = Field(default=(), description="Its zone.")
    gpus: OneOrMore[Gpu] = Field(
        default=(), description="Which GPU; of several, SkyPilot takes what it gets. How many is `gpus_per_node`, else 1."
    )
    cpus: OneOrMore[Amount] = Field(default=(), description="CPUs of each node.")
    memory: OneOrMore[Amount] = Field(default=(), description="Memory of each node in GB.")
    instance_type: OneOrMore[InstanceType] = Field(
        default=(), description="The machine; needs `gpus_per_node`, so that its GPUs are counted."
    )
    use_spot: OneOrMore[bool] = Field(default=(), description="Machines that may be taken away.")
    disk_size: OneOrMore[Annotated[int, Between(1, 1_000_000)]] = Field(default=(), description="GB of disk.")
    disk_tier: OneOrMore[DiskTier] = Field(default=(), description="How fast it is.")
    network_tier: NetworkTier | None = Field(default=None, description="How fast the network is.")
    ports: OneOrMore[Ports] = Field(default=(), description="Ports that are open to the outside.")
    file_mounts: dict[AbsolutePath, Bucket] = Field(
        default_factory=dict, description="Paths in the job and the buckets that are copied there."
    )
    storage_mounts: dict[AbsolutePath, StorageMount] = Field(
        default_factory=dict, description="Paths in the job and the buckets behind them."
    )
    setup: Text | None = Field(default=None, description="Shell lines that SkyPilot runs once on each node, before the job.")
    cluster_config_overrides: dict[str, Any] = Field(
        default_factory=dict, description="Parts of SkyPilot's configuration that differ for this job, such as `kubernetes.pod_config`."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems: list[tuple[Loc, str]] = [
            ((name,), f"`infra` says where: leave out `{name}`")
            for name in ("cloud", "region", "zone")
            if self.infra and getattr(self, name)
        ]
        if self.instance_type and self.gpus_per_node is None:
            problems.append(
                (("instance_type",), "`gpus_per_node` is missing: how many GPUs the machine has (0 for none), so that they count")
            )
        if self.gpus and self.gpus_per_node == 0:
            problems.append((("gpus",), "`gpus` names a GPU, and `gpus_per_node` says that there is none"))
        if self.gpus_per_node and not self.gpus and not self.instance_type:
            problems.append((("gpus_per_node",), "`gpus` is missing: which GPU"))
        mounts = [("file_mounts", path) for path in self.file_mounts] + [("storage_mounts", path) for path in self.storage_mounts]
        for name, path in mounts:
            if f"{path}/".startswith("/nemo_run/"):
                problems.append(((name, path), "`/nemo_run` is where the commit lies"))
        if problems:
            raise ProblemsError(problems)
        return self

    @property
    def gpu_count(self) -> int:
        """GPUs of the whole job; NeMo-Run asks for one on each node where only `gpus` is given."""
        return self.nodes * (self.gpus_per_node if self.gpus_per_node is not None else 1 if self.gpus else 0)

    @property
    def image(self) -> str | None:
        """The image without SkyPilot's prefix, as the policy's `images` name it."""
        return self.container_image and self.container_image.removeprefix("docker:")

    @property
    def place(self) -> tuple[str, ...]:
        """The API server."""
        return (self.api_server or "",)


class SkypilotProfile(_SkypilotProfile):
    """SkyPilot: a cluster for the run, or one that stands already (`cluster_name`)."""

    executor: Literal["skypilot"] = Field(default="skypilot", description="What runs the job.")
    cluster_name: ClusterName | None = Field(
        default=None, description="A cluster to share, which the dispatcher never takes down. Without it each run has its own."
    )
    autodown: bool | None = Field(
        default=None,
        description="SkyPilot takes the cluster down when it was idle. Without it: the run's own cluster, yes; a shared one, as it is.",
    )
    idle_minutes_to_autostop: Annotated[int, Between(5, 10_000)] | None = Field(
        default=None,
        description="How long it is idle before. For a run's own cluster 60 unless it says so: until then its result can be read.",
    )
    retry_until_up: bool = Field(default=False, description="Go on asking when there is no machine.")

    @property
    def place(self) -> tuple[str, ...]:
        """The API server, and the cluster when it is shared."""
        return (self.api_server or "", self.cluster_name or "")


class SkypilotJobsProfile(_SkypilotProfile):
    """SkyPilot's managed jobs: SkyPilot finds the machines, starts again what lost its machine, and takes them down."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        **_SkypilotProfile.REFUSED,
        "cluster_name": _OWN_CLUSTER,
        "autodown": _OWN_CLUSTER,
        "idle_minutes_to_autostop": _OWN_CLUSTER,
        "retry_until_up": "SkyPilot always tries again for a managed job",
    }

    executor: Literal["skypilot-jobs"] = Field(default="skypilot-jobs", description="What runs the job.")
