"""`launcher:` and its options → what starts a recipe's processes: on which profiles, with what of each node, and how its jobs begin.

Names and options are those of NeMo-Run's launchers
(https://github.com/NVIDIA-NeMo/Run/blob/v0.11.1/nemo_run/core/execution/launcher.py), which renders them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from dispatcher.clouds import CloudProfile
from dispatcher.executor import LocalProfile
from dispatcher.registry import Profile
from dispatcher.slurmprofile import SlurmProfile
from dispatcher.values import Between, Model, Shape

LauncherName = Literal["none", "torchrun", "ft", "slurm_ray"]

LAUNCHERS: Mapping[LauncherName, tuple[str, str]] = {
    "none": ("the program by itself; on Slurm by `srun`", "`ntasks_per_node`, each the program itself"),
    "torchrun": ("one `torchrun` on each node, which starts the program", "`nproc_per_node`; see below"),
    "ft": (
        "one `ft_launcher` on each node, which watches what it starts ([below](#faulttolerance)); on Slurm the job starts again too",
        "`nproc_per_node`; see below",
    ),
    "slurm_ray": (
        "Ray on all nodes, and the program once, on the first ([below](#slurmray))",
        "Ray's own workers, with the node's CPUs and GPUs",
    ),
}
"""Of each: what starts, and which processes a node has. The documentation's table."""

WITH_PROCESSES = frozenset({"torchrun", "ft"})
"""Those that start `nproc_per_node` processes themselves."""


def _number(value: Any) -> Any:
    """The loaders keep fractions as they were written; pydantic alone would also take `true` and `nan`."""
    if isinstance(value, bool) or (isinstance(value, str) and not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,3})?", value, re.ASCII)):
        raise ValueError("is not a number of seconds such as `5` or `0.5`")
    return value


Seconds = Annotated[
    float,
    BeforeValidator(_number),
    Field(gt=0, lt=10_000_000, allow_inf_nan=False),
    WithJsonSchema({"type": ["number", "string"], "exclusiveMinimum": 0, "pattern": r"^[0-9]{1,7}(\.[0-9]{1,3})?$"}),
]
SignalName = Annotated[str, Shape(r"SIG[A-Z][A-Z0-9]{1,9}", "a signal's name such as `SIGKILL`", 16)]


class FaultTolerance(Model):
    """Options of NVIDIA's `ft_launcher` (https://nvidia.github.io/nvidia-resiliency-ext/fault_tolerance/); seconds may be fractions.

    What is left out is its own default. NeMo-Run sets the files (`cfg_path`, `finished_flag_file`, `job_results_file`) itself.
    """

    # Without any option NeMo-Run passes `--ignore-missing-fault-tol-cfg`, which does nothing since release 0.4 of ft_launcher; with
    # `max_restarts` alone it passes nothing. Both are refused by ft_launcher, so one option is always there, with its own default.
    workload_check_interval: Seconds = Field(default=5.0, description="Seconds between two looks at the processes of a node.")
    initial_rank_heartbeat_timeout: Seconds | None = Field(
        default=None, description="Seconds in which a process has to send its first heartbeat."
    )
    rank_heartbeat_timeout: Seconds | None = Field(default=None, description="Seconds between two heartbeats, at most.")
    rank_termination_signal: SignalName | None = Field(default=None, description="The signal that ends a process which has failed.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None = Field(default=None, description="What ft_launcher logs.")
    max_restarts: Annotated[int, Between(0, 1000)] | None = Field(
        default=None, description="How often it starts the processes again within one start of the job."
    )
    rdzv_port: Annotated[int, Between(1024, 65_535)] = Field(
        default=29500, description="The port of the rendezvous on the first node, for more than one node."
    )

    def options(self) -> dict[str, object]:
        """What is given, by its names in NeMo-Run; whole seconds are whole numbers."""
        given = self.model_dump(exclude_none=True)
        return {name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in given.items()}


class SlurmRay(Model):
    """Ray's cluster in a Slurm job. All other ports are those that the system has free, so jobs can share a node."""

    gcs_server_port: Annotated[int, Between(0, 65_535)] = Field(
        default=0, description="The port at which the other nodes reach Ray on the first one; `0` is any that is free."
    )
    dashboard_port: Annotated[int, Between(0, 65_535)] = Field(
        default=0, description="Ray's dashboard, on the first node's own 127.0.0.1; `0` is none. It needs `ray[default]`."
    )
    start_timeout: Annotated[int, Between(10, 86_400)] = Field(
        default=600, description="Seconds in which all nodes have to have joined; else the job fails."
    )


def can_start(launcher: LauncherName, profile: type[SlurmProfile] | type[LocalProfile] | type[CloudProfile]) -> bool:
    """Whether such profiles have the launcher at all."""
    if launcher == "slurm_ray":
        return issubclass(profile, SlurmProfile)
    only = profile.LAUNCHERS if issubclass(profile, CloudProfile) else ()
    return not only or launcher in only


def unsuitable(launcher: LauncherName, profile: Profile) -> str | None:
    """Why the launcher cannot start what such a profile runs; None when it can. The words follow “launcher `…`”."""
    if launcher == "slurm_ray" and not isinstance(profile, SlurmProfile):
        return f"needs the nodes of a Slurm job, and this is `executor: {profile.executor}`"
    if not can_start(launcher, type(profile)):
        return f"cannot start anything on `executor: {profile.executor}`"
    if isinstance(profile, SlurmProfile) and profile.het_groups and launcher != "none":
        return "cannot start what the components of `het_groups` run"
    if isinstance(profile, SlurmProfile) and profile.array and launcher == "ft":
        return "keeps one account of a job's restarts, so it cannot start the tasks of an `array`"
    return None


def for_each_node(launcher: LauncherName, profile: SlurmProfile) -> dict[str, int]:
    """Fields of SlurmExecutor: where one launcher stands for all tasks of a node, it has what all of them were to have."""
    each: dict[str, int] = {"ntasks_per_node": profile.ntasks_per_node}
    tasks = 1
    if launcher != "none":
        # NeMo-Run would take the number of tasks for its processes, and leave one task's share of CPUs and GPUs to all of them.
        tasks, each["ntasks_per_node"] = profile.ntasks_per_node, 1
    if profile.gpus_per_task:
        each["gpus_per_task"] = profile.gpus_per_task * tasks
    if profile.cpus_per_task:
        each["cpus_per_task"] = profile.cpus_per_task * tasks
    return each


def failures_allowed(launcher: LauncherName, retries: int) -> int:
    """NeMo-Run's number of retries: with `ft` it counts failures, where a profile counts what comes after the first start."""
    return retries + 1 if launcher == "ft" else retries


def begin_fault_tolerant(run_dir: str, run_key: str, results: str, other: str) -> list[str]:
    """The first lines of a job that `ft` may start again: it goes on where it was, so its results stay.

    A start that ends with 0 is no success while another one follows (`requeued`); one that finds the training finished is
    (NeMo-Run ends it before the program). `other` is what a second job of the run does.
    """
    started, flag = f"{run_dir}/started", f"{run_dir}/{run_key}_finished_flag"
    ended = f'ended=$?; [ $ended != 0 ] || ended=${{exitcode:-$([ -e {flag} ] && echo 0 || echo 143)}}; [ -z "$requeued" ] || ended=143'
    return [
        f'ln -s "$SLURM_JOB_ID" {started} 2>/dev/null && rm -f {results} || [ "$(readlink {started})" = "$SLURM_JOB_ID" ] || {other}',
        "unset exitcode requeued",
        f"trap '{ended}; echo $ended > {run_dir}/exit' EXIT",
        f"rm -f {run_dir}/exit",
    ]


def ray_lines(run_dir: str) -> list[str]:
    """What a job with Ray needs before its first step: the file in which its nodes meet, and a token without which nobody may use it."""
    protected = "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \\n')}"
    # Without one, Ray lets everybody who reaches its ports run code as this user: https://docs.ray.io/en/latest/ray-security/
    return [
        f": > {run_dir}/scripts/ray-$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}",
        f"export {protected}",
    ]
