"""A plan → what NeMo-Run and Slurm get of it: the fields of NeMo-Run's SlurmExecutor, and the lines that the batch script begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.automount import mount_lines
from dispatcher.errors import ConfigError
from dispatcher.launcher import begin_fault_tolerant, failures_allowed, for_each_node, ray_lines
from dispatcher.slurmprofile import SlurmProfile
from dispatcher.squash import import_lines, started_from

if TYPE_CHECKING:
    from dispatcher.jobplan import JobPlan

# Fields that SlurmExecutor takes as the profile has them.
_AS_THEY_ARE: tuple[str, ...] = (
    "cpus_per_gpu",
    "mem",
    "mem_per_cpu",
    "mem_per_gpu",
    "qos",
    "gres",
    "constraint",
)
_AS_THEY_ARE += ("segment", "network", "signal", "open_mode", "array")


def executor_fields(job: JobPlan, profile: SlurmProfile) -> dict[str, object]:
    """Fields of NeMo-Run's SlurmExecutor; what is None is left to its defaults."""
    fields: dict[str, object] = {
        "account": profile.account,
        "partition": job.partition,
        "nodes": profile.nodes,
        "gpus_per_node": profile.gpus_per_node or None,
        "time": profile.time,
        "comment": job.run_key,
        "exclusive": profile.exclusive or None,
        "exclude": ",".join((*((profile.exclude,) if profile.exclude else ()), *_left_out(job))) or None,
        "container_image": started_from(profile.container_image, profile.squash) if profile.container_image else None,
        "container_mounts": _container_mounts(job, profile),
        "container_env": list(profile.container_env) or None if profile.container_image else None,
        "wait_time_for_group_job": profile.wait_time_for_group_job,
        "monitor_group_job": profile.monitor_group_job,
        "monitor_group_job_wait_time": profile.monitor_group_job_wait_time,
        "heterogeneous": bool(profile.het_groups) or None,
        "memory_measure": profile.memory_measure or None,
        # NeMo-Run takes the handles of its own runs, and cuts the id out.
        "dependencies": [f"slurm://dispatch/{other}" for other in profile.dependencies] or None,
        "dependency_type": profile.dependency_type if profile.dependencies else None,
        "retries": failures_allowed(job.recipe.launcher, profile.retries),
    }
    fields.update({name: getattr(profile, name) for name in _AS_THEY_ARE})
    fields.update(for_each_node(job.recipe.launcher, profile))
    # As NeMo-Run submits: what a failing node ends, Slurm starts again.
    fields.update(_dependency(job, profile))
    reserved = {"reservation": profile.reservation} if profile.reservation else {}
    more = {"requeue": True, **_begins_later(job), **reserved, **profile.additional_parameters}
    fields["additional_parameters"] = {**more, **_never_waits_for_ever(job)}
    fields["srun_args"] = list(profile.srun_args) or None
    return {name: value for name, value in fields.items() if value is not None}


def _left_out(job: JobPlan) -> tuple[str, ...]:
    """Nodes on which earlier attempts failed."""
    return job.grant.repeats.without if job.grant.repeats else ()


def _begins_later(job: JobPlan) -> dict[str, str]:
    """A retry waits in Slurm's own queue; https://slurm.schedmd.com/sbatch.html#OPT_begin. What the profile says itself goes before."""
    wait = job.grant.repeats.wait if job.grant.repeats else 0
    return {"begin": f"now+{wait}"} if wait else {}


def _container_mounts(job: JobPlan, profile: SlurmProfile) -> list[str] | None:
    """The profile's, then the repositories."""
    if profile.container_image is None:
        return None
    return [*profile.container_mounts, *(mount.container_mount(job.run_dir) for mount in job.mounts)]


def _dependency(job: JobPlan, profile: SlurmProfile) -> dict[str, object]:
    """What Slurm waits for: the jobs that the profile names, and those of earlier stages. NeMo-Run knows one kind for all of them."""
    place = job.grant.stage
    jobs = [earlier.job for earlier in job.earlier if earlier.job]
    if place is None or not jobs:
        return {}
    if profile.dependencies and profile.dependency_type != place.when:
        words = (
            f"Profile `{job.profile_name}` waits for jobs of its own by `{profile.dependency_type}`, "
            f"the stage `{place.name}` for others by `{place.when}`."
        )
        raise ConfigError("config.invalid", words, "Let both wait in the same way, or give the stage another profile.")
    all_jobs = (*profile.dependencies, *jobs)
    return {"dependencies": [f"slurm://dispatch/{other}" for other in all_jobs], "dependency_type": place.when}


def _never_waits_for_ever(job: JobPlan) -> dict[str, str]:
    """Without this a job whose dependency cannot be met any more stays in Slurm's queue until somebody ends it."""
    return {"kill-on-invalid-dep": "yes"} if any(earlier.job for earlier in job.earlier) else {}


def groups(job: JobPlan, profile: SlurmProfile) -> list[dict[str, object]]:
    """What differs between the components of a heterogeneous job; empty where the job is not one."""
    counted = any(component.gpus_per_node for component in profile.components)
    return [
        {
            "executor": {
                "nodes": component.nodes,
                "ntasks_per_node": component.ntasks_per_node,
                # NeMo-Run writes `None` for a component without, where the first one has GPUs, and nothing where it has none.
                "gpus_per_node": (component.gpus_per_node or 0) if counted else None,
                "srun_args": list(component.srun_args) or None,
                **({"container_image": started_from(component.container_image, profile.squash)} if component.container_image else {}),
            },
            "args": [*job.command[2], *group.args],
            "env_vars": {**group.env_vars, "DISPATCH_GROUP": str(number)},
        }
        for number, (component, group) in enumerate(zip(profile.components, profile.het_groups, strict=True))
    ]


def setup_lines(job: JobPlan, profile: SlurmProfile) -> list[str]:
    """What runs before the job's first step, in the batch script, with tracing off: NeMo-Run's template turns it on."""
    return [
        "{ set +vx; } 2>/dev/null",
        *_first_lines(job, profile, job.written if job.chain is None else job.left_at_end),
        *job.folder_lines,
        f". {job.run_dir}/env",
        *_chain_lines(job),
        *(line for mount in job.mounts for line in mount_lines(mount, job.job_dir, job.run_dir)),
        *(ray_lines(job.run_dir) if job.recipe.launcher == "slurm_ray" else ()),
        *profile.shell_lines,
        *import_lines(job.run_dir, profile.images, profile.squash),
    ]


def _chain_lines(job: JobPlan) -> list[str]:
    """Of a run that may go on in further jobs: the first one alone takes away what lay there, and each knows which one it is."""
    if job.chain is None:
        return []
    begun = f"{job.run_dir}/begun"
    return [
        f"[ -e {begun} ] || {{ {f'rm -f {job.grown}; ' if job.grown else ''}: > {begun}; }}",
        f"export DISPATCH_JOB_NUMBER=$(($(cat {job.run_dir}/jobs 2>/dev/null | grep -c .) + 1))",
    ]


def _first_lines(job: JobPlan, profile: SlurmProfile, results: str) -> list[str]:
    if job.recipe.launcher == "ft":
        return begin_fault_tolerant(job.run_dir, job.run_key, results, _OTHER)
    return _begin_task(job.run_dir, results) if profile.array else _begin(job.run_dir, results)


# Where there is no accounting, this is all that says how a job ended. bash leaves 0 in `$?` when a signal ends it, so without the
# program's own status (NeMo-Run's `exitcode`) a 0 is none.
_ENDED = "ended=$?; [ $ended != 0 ] || ended=${exitcode:-143}"
_OTHER = "{ echo 'Another job of this run has started.'; exit 1; }"


def _begin(run_dir: str, results: str) -> list[str]:
    """The first lines of a job: its place among others of the same run, its exit status, its results."""
    started = f"{run_dir}/started"
    return [
        # The ledger's lock keeps a second job from being submitted; should one be all the same (an sbatch that hung for minutes on
        # another login node), it ends here. The same job, started again by Slurm, goes on.
        f'ln -s "$SLURM_JOB_ID" {started} 2>/dev/null || [ "$(readlink {started})" = "$SLURM_JOB_ID" ] || {_OTHER}',
        "unset exitcode",
        f"trap '{_ENDED}; echo $ended > {run_dir}/exit' EXIT",
        # A results file that the commit brought along is no result.
        f"rm -f {run_dir}/exit {results}",
    ]


def _begin_task(run_dir: str, results: str) -> list[str]:
    """The same for a task of an array: all of them share the folder, so only the first one may take results away.

    Each leaves a status of its own, whole or not at all; whoever ends last finds all of them, and leaves the greatest: 0 if all are.
    """
    started, task = f"{run_dir}/started", "$SLURM_ARRAY_TASK_ID"
    own = f'"{run_dir}/exit.{task}"'
    last = f"set -- {run_dir}/exit.*; [ $# -lt $SLURM_ARRAY_TASK_COUNT ] || cat {run_dir}/exit.* | sort -rn | head -n 1 > {run_dir}/exit"
    return [
        f'ln -s "$SLURM_ARRAY_JOB_ID" {started} 2>/dev/null && rm -f {results} || '
        f'[ "$(readlink {started})" = "$SLURM_ARRAY_JOB_ID" ] || {_OTHER}',
        "unset exitcode",
        f'trap \'{_ENDED}; echo $ended > "{run_dir}/.exit.{task}" && mv "{run_dir}/.exit.{task}" {own}; {last}\' EXIT',
        f"rm -f {run_dir}/exit {own}",
    ]
