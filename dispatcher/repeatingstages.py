"""A stage that the machine has ended → it and what comes after it run again as new jobs, as one command that nobody has to give.

It is `/train retry` of the stage, by the trigger of a retry: the run keys follow from it, so whoever does it again, or at the same time,
finds what is there and goes on from it. `repeating.py` says when, and reports the end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.answer import Answer
from dispatcher.errors import Exit
from dispatcher.firstreport import first_reports
from dispatcher.grouping import read_members
from dispatcher.keys import commit_tag
from dispatcher.limits import too_many
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.preparing import Prepared, prepare
from dispatcher.record import RunRecord, not_repeated
from dispatcher.renewing import renewed_stages
from dispatcher.resuming import related
from dispatcher.salvage import readable
from dispatcher.sequence import begin_all
from dispatcher.staging import members
from dispatcher.submitting import Beginning, Begun, Busy, NotBegun, submitted
from dispatcher.tails import GoesOn, tail_of
from dispatcher.world import World

# What trying again does not change.
FOR_GOOD = (Exit.CONFIG, Exit.COMPILE)


@dataclass(frozen=True)
class PipelineRuns:
    """The runs of a stage's pipeline by run key, as their ledgers have them, and the keys of those whose ledger did not answer."""

    records: Mapping[str, RunRecord]
    unheard: tuple[str, ...]

    @property
    def ended_at(self) -> datetime | None:
        """When the last of those that have ended did."""
        return max((record.ended_at for record in self.records.values() if record.ended_at is not None), default=None)


def pipeline_of(record: RunRecord, cluster: Cluster, policy: Policy, world: World) -> PipelineRuns:
    """What can be read of the other stages. `cluster` is the record's own."""
    others = [member for member in related(record.group, record.run_key) if member.run_key != record.run_key]
    group = read_members(others, record, cluster, policy, world)
    return PipelineRuns({**group.records, record.run_key: record}, group.unheard)


def repeated_with_what_follows(record: RunRecord, runs: PipelineRuns, cluster: Cluster, policy: Policy, world: World) -> RunRecord | None:
    """The ended stage's record, with the run that repeats it or why none does; None while that cannot be decided, or somebody is at it.

    Raises:
        DispatchError: something broke; what has begun has been told.
    """
    if runs.unheard:
        return None
    tail = tail_of(record, runs.records, policy.retries, world.clock.now())
    if isinstance(tail, GoesOn):
        return None
    if isinstance(tail, str):
        return not_repeated(record, tail)
    before = {run.stage: run for run in runs.records.values()}
    if len(before) < len(runs.records):
        return not_repeated(record, "record-changed")
    if _asked_again({before[stage].run_key for stage in tail.failed}, record.sha, cluster):
        return not_repeated(record, "asked-again")
    again = renewed_stages(tail, before, policy, world)
    if isinstance(again, str):
        return not_repeated(record, again)
    many = too_many(len(again.grants), 1, policy)
    if many is not None:
        return not_repeated(record, many.reason)
    prepared: list[Prepared] = []
    for grant in again.grants:
        ready = prepare(grant, again.facts, policy, world)
        if isinstance(ready, Answer):
            return not_repeated(record, ready.reason)
        if ready.approval is not None or ready.plan.profile.dry_run:
            return not_repeated(record, "approval-needed" if ready.approval is not None else "dry-run")
        prepared.append(ready)
    beginnings = begin_all(prepared, members([item.plan for item in prepared]), again.event, policy, world)
    _told(beginnings, policy, world)
    return _came_to(record, beginnings)


def _asked_again(failed: Collection[str], sha: str, cluster: Cluster) -> bool:
    """Whether somebody who did not want to wait until the whole pipeline had ended has given the command, as far as this ledger knows."""
    known, _ = readable(cluster.find(commit_tag(sha)))
    return any(run.retry_of in failed and run.repeats is None for run in known)


def _told(beginnings: Sequence[Beginning], policy: Policy, world: World) -> None:
    """Tells of the new runs, unless whoever submitted them has."""
    begun = [item for item in beginnings if isinstance(item, Begun)]
    untold = [item for item in begun if item.record.target.comment is None and not item.record.state.ended]
    if not untold:
        return
    missing = {item.job.run_key: item.answer.title for item in beginnings if isinstance(item, NotBegun)}
    for item in untold:
        world.say(f"Stage {item.record.name} is run again as {item.record.run_key}.")
    first_reports([Begun(item.job, submitted(item.record, world), item.cluster, item.fresh) for item in untold], missing, policy, world)


def _came_to(record: RunRecord, beginnings: Sequence[Beginning]) -> RunRecord | None:
    own = next(item for item in beginnings if item.job.grant.retry_of == record.run_key)
    for item in beginnings:
        if isinstance(item, NotBegun) and item.error is not None and item.error.exit not in FOR_GOOD:
            raise item.error
    if any(isinstance(item, Busy) for item in beginnings):
        return None
    if isinstance(own, NotBegun):
        return not_repeated(record, own.answer.reason)
    return record.model_copy(update={"followed_by": own.job.run_key})
