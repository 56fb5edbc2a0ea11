"""A plan × earlier runs with the same content → one whose end, or whose job, is this run's too: what has run is not run twice.

The same content is the same packaged files, profile, recipe, configuration and overrides (`plan.content_key`), whatever the commit. A
wrong reuse is worse than none: a run that failed, was lost, was asked for at a terminal, or had something before it that the commit does
not say, is never one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.jobplan import JobPlan
from dispatcher.policy import Policy
from dispatcher.record import RunRecord
from dispatcher.slurm import State

_GOING_ON = frozenset({State.PENDING, State.RUNNING})


@dataclass(frozen=True)
class Reused:
    """It ran, and ended well."""

    record: RunRecord


@dataclass(frozen=True)
class Attached:
    """Its job waits or runs right now."""

    record: RunRecord


Earlier = Reused | Attached


def wanted(job: JobPlan, policy: Policy) -> bool:
    """Whether an earlier run will do. Whoever asks for `fresh=true`, or to try again, wants a run of their own."""
    rule = policy.reuse
    if not rule.runs or job.grant.fresh or job.grant.attempt > 1 or job.grant.stage is not None or job.package.uncommitted:
        return False
    if job.grant.via == "merge_group" and rule.merge_queue == "run":
        return False
    # What the default branch measures is what others are compared with: the same numbers twice would be no second measurement.
    scheduled = job.grant.via == "schedule"
    return not scheduled and job.profile.executor != "local"


def earlier(job: JobPlan, records: Iterable[RunRecord], policy: Policy, now: datetime) -> Earlier | None:
    """The newest that ended well within `reuse.max_age`, else the newest whose job goes on."""
    same = [record for record in records if _same(job, record)]
    newest = sorted(same, key=lambda record: record.asked_at, reverse=True)
    since = now - timedelta(seconds=policy.reuse.max_age)
    for record in newest:
        if record.state is State.SUCCEEDED and not record.results_broken and record.ended_at is not None and record.ended_at >= since:
            return Reused(record)
    if job.profile.executor != "slurm":
        return None  # an API's job is forgotten at its run's end, and cannot be looked at by two
    return next((Attached(record) for record in newest if record.state in _GOING_ON and record.job_id), None)


def _same(job: JobPlan, record: RunRecord) -> bool:
    """Whether it is a run of its own of exactly this."""
    return (
        record.content_key == job.content_key
        and record.run_key != job.run_key
        and record.target.repository.lower() == job.grant.repository.lower()
        and (record.profile, record.recipe) == (job.profile_name, job.recipe_name)
        and record.origin == "github"
        and not (record.same_as or record.stage or record.uncommitted)
        and record.own_runspec == job.own_runspec
    )


def taken_over(record: RunRecord, found: Earlier, now: datetime) -> RunRecord:
    """The new run's record, as the earlier one stands: what it measured is judged anew."""
    other = found.record
    names = ("job_id", "state", "exit_code", "signal", "reason", "nodes", "evidence", "started_at", "ended_at", "submitted_at")
    left = ("results", "progress", "curves", "series_skipped", "series_notes", "task_seconds", "log_template", "wandb_url", "wandb_site")
    taken = {name: getattr(other, name) for name in (*names, *left)}
    if isinstance(found, Reused) and not any(verdict.outcome == "fail" for verdict in other.verdicts):
        taken["results_problem"] = other.results_problem
    taken |= {"same_as": other.run_key, "same_sha": other.sha, "verdict_owed": other.state is State.SUCCEEDED}
    return record.model_copy(update={**taken, "submitted_at": other.submitted_at or now})
