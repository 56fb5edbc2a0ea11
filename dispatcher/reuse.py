"""A plan × earlier runs with the same content → one whose end, or whose job, is this run's too: what has run is not run twice.

The same content is the same packaged files, profile, recipe, configuration and overrides (`plan.content_key`), whatever the commit. A
wrong reuse is worse than none: a run that failed, was lost, was asked for at a terminal, whose program lies on the cluster, or that had
something before it that the commit does not say, is never one. Nor is a good end that a newer run of the same content has called in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.causes import blames_machine
from dispatcher.jobplan import JobPlan
from dispatcher.policy import Policy
from dispatcher.record import RunRecord, Target
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
    """Whether an earlier run will do. Whoever asks for `fresh=true`, or to try again, wants a run of their own.

    What is tried again by itself may join: of several runs that had one job, each is owed a retry, and one job is enough for all of them.
    """
    rule = policy.reuse
    tried_again = job.grant.attempt > 1 and job.grant.repeats is None
    if not rule.runs or job.grant.fresh or tried_again or job.grant.stage is not None or job.package.uncommitted:
        return False
    if job.recipe.script is not None and job.recipe.script.startswith("/"):
        return False  # what lies there today is not what lay there then, and no commit says so
    if job.grant.via == "merge_group" and rule.merge_queue == "run":
        return False
    # What the default branch measures is what others are compared with: the same numbers twice would be no second measurement.
    scheduled = job.grant.via == "schedule"
    return not scheduled and job.profile.executor != "local"


def earlier(job: JobPlan, records: Sequence[RunRecord], policy: Policy, now: datetime) -> Earlier | None:
    """The newest end, where it is a good one within `reuse.max_age`, else the newest job that goes on."""
    same = [record for record in records if _same(job, record)]
    newest = sorted(same, key=lambda record: (record.asked_at, record.submitted_at or record.asked_at), reverse=True)
    end = _end_that_stands(job, newest)
    if end is not None and end.ended_at is not None and end.ended_at >= now - timedelta(seconds=policy.reuse.max_age):
        return Reused(end)
    if job.profile.executor != "slurm":
        return None  # an API's job is forgotten at its run's end, and cannot be looked at by two
    # Whoever has had the job that is tried again may not know yet that it has ended.
    over = {record.job_id for record in records if record.run_key == job.grant.retry_of}
    return next((Attached(record) for record in newest if record.state in _GOING_ON and record.job_id and record.job_id not in over), None)


def _end_that_stands(job: JobPlan, newest: Sequence[RunRecord]) -> RunRecord | None:
    """The newest end that says something, if it is a good one.

    Of one commit the newest request counts for its gate: while this very commit is being run once more, no older end stands for it.
    """
    last = next((record for record in newest if record.state.ended and not _says_nothing(record)), None)
    if last is None or last.state is not State.SUCCEEDED or last.results_broken or job.grant.repeats is not None:
        return None
    since = newest[: newest.index(last)]
    return None if any(not record.state.ended and record.sha == job.grant.sha for record in since) else last


def _says_nothing(record: RunRecord) -> bool:
    """Whether how it ended says nothing of its content: somebody gave it up, or it was the machine."""
    if record.state in (State.CANCELLED, State.PREEMPTED, State.NODE_FAIL):
        return True
    return record.failure is not None and blames_machine(record.failure.cause)


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


_TAKEN: tuple[str, ...] = (
    "job_id",
    "state",
    "exit_code",
    "signal",
    "reason",
    "nodes",
    "evidence",
    "started_at",
    "ended_at",
    "earlier_jobs",
)
_TAKEN += ("results", "progress", "curves", "series_skipped", "series_notes", "task_seconds", "log_template", "wandb_url", "wandb_site")


def taken_over(record: RunRecord, found: Earlier, now: datetime) -> RunRecord:
    """The new run's record, as the earlier one stands: what it measured is judged anew."""
    other = found.record
    taken = {name: getattr(other, name) for name in _TAKEN}
    taken |= {
        "same_as": other.run_key,
        "same_sha": other.sha,
        "same_report": _report_of(other.target),
        "joined": isinstance(found, Attached),
    }
    return record.model_copy(
        update={**taken, "verdict_owed": other.state is State.SUCCEEDED, "submitted_at": other.submitted_at or now},
    )


def _report_of(target: Target) -> str:
    """Where a run is told about, below its repository's address; empty where nobody has told of it yet."""
    if target.pull is not None and target.comment:
        return f"pull/{target.pull}#issuecomment-{target.comment}"
    return f"runs/{target.check}" if target.check else ""
