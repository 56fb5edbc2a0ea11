"""A Slurm cluster as a profile's table describes it → `SlurmProfile`, every value checked for where it ends up.

Names are NeMo-Run's SlurmExecutor's and Nemotron's (`env.toml`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from dispatcher.document import Loc, ProblemsError
from dispatcher.executor import Reached, SettableName
from dispatcher.squash import SquashField
from dispatcher.values import (
    Account,
    ArrayTasks,
    Between,
    Constraint,
    EnvName,
    Gres,
    Image,
    JobId,
    Line,
    Memory,
    Model,
    Mount,
    Network,
    NodeList,
    OneOrMore,
    Partitions,
    SbatchName,
    SbatchValue,
    Signal,
    SrunArgument,
)

# What the dispatcher finds a job again by, or where it puts things: an option here would break one of its promises.
OWN_SBATCH_OPTIONS = frozenset(
    {
        "array",
        "batch",
        "chdir",
        "comment",
        "container",
        "container-id",
        "container-image",
        "container-mounts",
        "dependency",
        "error",
        "export",
        "export-file",
        "get-user-env",
        "gid",
        "hold",
        "input",
        "job-name",
        "kill-on-invalid-dep",
        "no-requeue",
        "open-mode",
        "output",
        "parsable",
        "requeue",
        "test-only",
        "time",
        "uid",
        "wait",
        "wrap",
    }
)


def _is_own(name: str) -> bool:
    """Whether sbatch would take the option for one of ours: it understands abbreviations (`outpu`), as getopt_long does."""
    written = name.replace("_", "-")
    return any(option.startswith(written) for option in OWN_SBATCH_OPTIONS)


def _upper(value: str) -> str:
    if value != value.upper():
        raise ValueError(f"`{value}` has small letters, which NeMo-Run would make big ones")
    return value


class HetGroup(Model):
    """One component of a heterogeneous job. What it leaves open is the profile's."""

    nodes: Annotated[int, Between(1, 10_000)] | None = Field(default=None, description="Nodes of this component.")
    ntasks_per_node: Annotated[int, Between(1, 1024)] | None = Field(default=None, description="Tasks on each of its nodes.")
    gpus_per_node: Annotated[int, Between(0, 64)] | None = Field(default=None, description="GPUs on each of its nodes.")
    container_image: Image | None = Field(default=None, description="Its image, where that is not the profile's.")
    args: OneOrMore[Line] = Field(default=(), description="Arguments of the program in this component, after all others.")
    env_vars: dict[Annotated[SettableName, AfterValidator(_upper)], Line] = Field(
        default_factory=dict, description="Variables of this component, and of those after it that do not set them. No secrets here."
    )
    srun_args: OneOrMore[SrunArgument] = Field(default=(), description="More arguments of its `srun`, after the profile's.")


class SlurmProfile(Reached):
    """A Slurm cluster, reached over SSH or from a runner that is one of its own nodes (`tunnel: local`)."""

    executor: Literal["slurm"] = Field(default="slurm", description="What runs the job.")
    account: Account = Field(description="The account that the job is charged to.")
    partition: Partitions | None = Field(default=None, description="The partition; without it the cluster's default.")
    run_partition: Partitions | None = Field(default=None, description="The partition when somebody waits for the job (attached).")
    batch_partition: Partitions | None = Field(default=None, description="The partition when nobody waits (detached).")
    nodes: Annotated[int, Between(1, 10_000)] = Field(default=1, description="Nodes of the job.")
    ntasks_per_node: Annotated[int, Between(1, 1024)] = Field(
        default=1, description="Tasks on each node; with `torchrun` see `nproc_per_node`."
    )
    gpus_per_node: Annotated[int, Between(0, 64)] | None = Field(default=None, description="GPUs on each node.")
    gpus_per_task: Annotated[int, Between(0, 64)] | None = Field(default=None, description="GPUs for each task.")
    cpus_per_task: Annotated[int, Between(1, 4096)] | None = Field(default=None, description="CPUs for each task.")
    cpus_per_gpu: Annotated[int, Between(1, 4096)] | None = Field(
        default=None, description="CPUs for each GPU; Slurm wants `gpus_per_task` with it."
    )
    mem: Memory | None = Field(default=None, description="Memory of each node. At most one of the three `mem` fields.")
    mem_per_cpu: Memory | None = Field(default=None, description="Memory for each CPU.")
    mem_per_gpu: Memory | None = Field(default=None, description="Memory for each GPU.")
    exclusive: bool | Literal["user", "mcs"] = Field(default=False, description="Whole nodes.")
    qos: Account | None = Field(default=None, description="Quality of service.")
    gres: Gres | None = Field(default=None, description="Generic resources.")
    constraint: Constraint | None = Field(default=None, description="Features that the nodes must have.")
    exclude: NodeList | None = Field(default=None, description="Nodes that must not be used.")
    reservation: Account | None = Field(default=None, description="A reservation to run in.")
    segment: Annotated[int, Between(1, 10_000)] | None = Field(
        default=None, description="Nodes that must stand close together, as a block."
    )
    network: Network | None = Field(default=None, description="What the switch or the interconnect shall do for the job.")
    signal: Signal | None = Field(
        default=None, description="A signal that Slurm sends before the time limit; with `B:` to the batch script only."
    )
    open_mode: Literal["append", "truncate"] = Field(
        default="append", description="What becomes of the batch script's own log when Slurm starts the job again."
    )
    dependencies: OneOrMore[JobId] = Field(default=(), description="Jobs, not of the dispatcher, that this one waits for.")
    dependency_type: Literal["after", "afterany", "aftercorr", "afternotok", "afterok"] = Field(
        default="afterok", description="What it waits for: that they start, end, end well, fail."
    )
    array: ArrayTasks | None = Field(
        default=None,
        description="An array job: so many tasks, each with all that the profile asks for. All have to pass.",
    )
    het_groups: tuple[HetGroup, ...] = Field(
        default=(), max_length=16, description="A heterogeneous job: its components, each of which runs the program."
    )
    wait_time_for_group_job: Annotated[int, Between(0, 3600)] = Field(
        default=30, description="Seconds between the starts of two components."
    )
    monitor_group_job: bool = Field(default=True, description="End the other components when one has failed.")
    monitor_group_job_wait_time: Annotated[int, Between(0, 3600)] = Field(
        default=60, description="Seconds that they still have then, so that they can say what went wrong."
    )
    container_image: Image | None = Field(
        default=None, description="Image for Pyxis; without it the program runs straight on the nodes. Also: `container`."
    )
    squash: SquashField | None = Field(
        default=None, description="Import an image that is named by a reference once, as a squash file, and start from that."
    )
    mounts: OneOrMore[Mount] = Field(default=(), description="What the container sees of the cluster. Also: `container_mounts`.")
    container_env: OneOrMore[EnvName] = Field(
        default=(), description="Variables of the job that win over those of the image with the same name."
    )
    lustre_mount: Mount | None = Field(default=None, description="One more mount, as Nemotron calls it.")
    additional_parameters: dict[SbatchName, Literal[True] | SbatchValue] = Field(
        default_factory=dict, description="More sbatch options, without dashes; `true` for one that takes no value."
    )
    srun_args: OneOrMore[SrunArgument] = Field(default=(), description="More arguments of `srun`.")
    memory_measure: bool = Field(default=False, description="Run `nvidia-smi` once, before the program.")
    retries: Annotated[int, Between(0, 10)] = Field(default=0, description="How often Slurm starts the job again when it fails.")
    attach: bool = Field(default=False, description="Wait for the job and show its log.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        problems: list[tuple[Loc, str]] = []
        if self.job_dir is None:
            problems.append(((), "`remote_job_dir` is missing: the folder on the cluster in which runs are kept"))
        problems += self.unreachable
        if len([name for name in ("mem", "mem_per_cpu", "mem_per_gpu") if getattr(self, name) is not None]) > 1:
            problems.append((("mem",), "`mem`, `mem_per_cpu` and `mem_per_gpu` exclude each other"))
        if self.het_groups and self.array:
            problems.append((("array",), "`array` and `het_groups` exclude each other"))
        if self.container_image is None:
            own = [number for number, group in enumerate(self.het_groups) if group.container_image]
            words = "needs a `container_image` of the profile: all components of a job run in containers, or none"
            problems += [(("het_groups", number, "container_image"), words) for number in own]
        if len(self.het_groups) == 1:
            problems.append((("het_groups",), "`het_groups` has one component: write it as the profile itself"))
        ours = sorted(name for name in self.additional_parameters if _is_own(name))
        problems += [(("additional_parameters", name), f"`{name}` is set by the dispatcher itself") for name in ours]
        if problems:
            raise ProblemsError(problems)
        return self

    @property
    def remote_job_dir(self) -> str:
        """The folder on the cluster, without a slash at the end."""
        return (self.job_dir or "").rstrip("/")

    @property
    def container_mounts(self) -> tuple[str, ...]:
        """All mounts."""
        return (*self.mounts, *([self.lustre_mount] if self.lustre_mount else []))

    @property
    def images(self) -> tuple[str, ...]:
        """Every image that something of the job runs in, the profile's first."""
        named = (self.container_image, *(group.container_image for group in self.het_groups))
        return tuple(dict.fromkeys(image for image in named if image))

    @property
    def components(self) -> tuple[Self, ...]:
        """Each component of a heterogeneous job as a profile of its own; none where the job is not one."""
        return tuple(self.model_copy(update=self._shape_of(group)) for group in self.het_groups)

    def _shape_of(self, group: HetGroup) -> dict[str, object]:
        names = ("nodes", "ntasks_per_node", "gpus_per_node", "container_image")
        own = {name: getattr(group, name) for name in names if getattr(group, name) is not None}
        return {**own, "srun_args": (*self.srun_args, *group.srun_args), "het_groups": ()}

    @property
    def gpu_count(self) -> int:
        """GPUs of the whole job."""
        return self.nodes * (self.gpus_per_node or 0)

    def partition_for(self, attached: bool) -> str | None:
        """The partition; None leaves it to the cluster."""
        return (self.run_partition if attached else self.batch_partition) or self.partition

    @property
    def address(self) -> str:
        """The cluster, for people."""
        return f"{self.user}@{self.host}" if self.tunnel == "ssh" else "this machine's Slurm"

    def log_link(self, job_id: str, run_key: str, path: str) -> str | None:
        """The log's address; None when the profile has no template."""
        return self._link(job_id=job_id, run_key=run_key, path=path, user=self.user or "", host=self.host or "")
