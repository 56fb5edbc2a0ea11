"""A plan → the ledger's first entry for its run: what everybody who looks at the run later knows of it."""

from __future__ import annotations

from datetime import datetime

from dispatcher.coderoots import code_roots
from dispatcher.jobparts import array_tasks
from dispatcher.jobplan import JobPlan
from dispatcher.packing import package_spec
from dispatcher.printing import render
from dispatcher.profile import SlurmProfile
from dispatcher.record import JOB_ID, RunRecord, Target
from dispatcher.slurm import State
from dispatcher.wandb import site_of


def first_record(job: JobPlan, now: datetime, cluster: str, command_comment: int | None, pull: int | None, at_terminal: bool) -> RunRecord:
    """The ledger's first entry for this run."""
    return RunRecord(
        run_key=job.run_key,
        content_key=job.content_key,
        digest=job.package.digest,
        target=Target(repository=job.grant.repository, pull=pull, command_comment=command_comment),
        origin="terminal" if at_terminal else "github",
        trigger=job.grant.trigger,
        actor=job.grant.actor,
        sha=job.grant.sha,
        profile=job.profile_name,
        recipe=job.recipe_name,
        program=job.recipe.program,
        pipeline=job.grant.stage.pipeline if job.grant.stage else "",
        stage=job.grant.stage.stage if job.grant.stage else "",
        asked=render(job.grant.stage.asked, "").strip() if job.grant.stage else "",
        overrides=tuple(override.word for override in job.overrides),
        executor=job.profile.executor,
        cluster=cluster,
        run_dir=job.run_dir,
        log_template=job.profile.log_link(JOB_ID, job.run_key, _first_log(job)) or "",
        wandb_site=site_of(job.profile.environment),
        results_path=f"code/{job.recipe.results}",
        results_required="results" in job.recipe.model_fields_set,
        series_path=f"code/{job.recipe.series}" if job.recipe.series is not None else "",
        tensorboard_path=f"code/{job.recipe.tensorboard}" if job.recipe.tensorboard is not None else "",
        wandb_summary_path=f"code/{job.recipe.wandb_summary}" if job.recipe.wandb_summary is not None else "",
        steps=job.recipe.steps,
        resources=job.resources,
        parts=max(job.resources.tasks, len(job.profile.het_groups) if isinstance(job.profile, SlurmProfile) else 1),
        array=(job.profile.array or "") if isinstance(job.profile, SlurmProfile) else "",
        lfs_pointers=job.package.lfs_pointers[:20],
        code_roots=code_roots(package_spec(job.recipe, job.profile)),
        attempt=job.grant.attempt,
        retry_of=job.grant.retry_of,
        repeats=job.grant.repeats,
        approved_by=job.grant.approved_by or job.grant.vouched_by,
        own_runspec=job.own_runspec,
        on_default=job.grant.on_default and not job.overrides,
        uncommitted=job.package.uncommitted,
        asked_at=now,
        state=State.SUBMITTING,
    )


def _first_log(job: JobPlan) -> str:
    """The log of the job's first start, of a job with parts that of its first one; `JOB_ID` stands for the id."""
    profile = job.profile if isinstance(job.profile, SlurmProfile) else None
    number = f"{JOB_ID}_{array_tasks(profile.array)[0]}" if profile and profile.array else JOB_ID
    name = f"{job.run_key}-0" if profile and profile.het_groups else job.run_key
    return log_path(job.run_dir, name, number, job.profile.executor)


def log_path(run_dir: str, key: str, job_id: str, executor: str) -> str:
    """Where the job's own output goes: NeMo-Run's name for the first start of a job. An API's log comes there when the job has ended."""
    if executor not in ("local", "slurm"):
        return f"{run_dir}/logs/job.log"
    return f"{run_dir}/logs/local.log" if executor == "local" else f"{run_dir}/logs/log-dispatch-{key}_{job_id}_0.out"
