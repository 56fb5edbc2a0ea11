"""A run's end → its next job, where its recipe's chain goes on, or its retry, where the policy wants one; and then the report of the end.

By whose permission a retry is one: `renewing.py`.

In this order, and the run leaves `active/` last: whoever dies in between leaves an end that the next sweep settles once more. The retry's
run key follows from that of the run before, so the ledger's lock makes one job of it, however many settle the same end at once.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from typing_extensions import assert_never

from dispatcher.answer import Answer
from dispatcher.attempts import PATIENCE, Exhausted, Repeats, next_attempt
from dispatcher.chaining import NotYet, go_on
from dispatcher.errors import DispatchError, ForgeError
from dispatcher.observe import UNREPORTED, Seen
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.preparing import prepare
from dispatcher.record import RunRecord, not_repeated, parse_record
from dispatcher.renewing import renewed
from dispatcher.repeatingstages import FOR_GOOD, pipeline_of, repeated_with_what_follows
from dispatcher.submitting import Begun, Busy, NotBegun, begin, submitted
from dispatcher.telling import report, say
from dispatcher.world import World


def settle(world: World, cluster: Cluster, policy: Policy, seen: Seen) -> Seen:
    """Reports how a run stands. One that has ended and is owed another job, or a retry, gets it first; until then it stays active."""
    if seen.record.state.ended:
        went = go_on(world, cluster, policy, seen)
        if isinstance(went, NotYet):
            return went.seen
        seen = went
    record = seen.record.model_copy(update={"retry_owed": False})
    seen = replace(seen, record=record)
    repeats = next_attempt(record, policy.retries) if record.state.ended else None
    if repeats is None or world.forge is None or record.followed_by or record.not_repeated:
        return report(world, cluster, policy, seen)
    if isinstance(repeats, Exhausted):
        return report(world, cluster, policy, replace(seen, record=not_repeated(record, "attempts-used")))
    # It goes on without anybody who waits, whoever waited for the first.
    alone = replace(world, settings=replace(world.settings, wait=False))
    stages = pipeline_of(record, cluster, policy, world) if record.stage else None
    try:
        decided = (
            repeated_with_what_follows(record, stages, cluster, policy, alone) if stages else _repeated(record, repeats, policy, alone)
        )
    except DispatchError as error:
        if error.exit in FOR_GOOD or (_long_ago(stages.ended_at if stages else record.ended_at, world) and not error.job_may_exist):
            return report(world, cluster, policy, replace(seen, record=not_repeated(record, error.code)))
        world.say(f"Run {record.run_key} could not be run again yet: {error.cause} The next sweep tries it.")
        decided = None
    if decided is None:
        if (settled := _settled_meanwhile(record, cluster)) is not None:
            return replace(seen, record=settled)
        return say(world, cluster, policy, replace(seen, record=record.model_copy(update={"retry_owed": True})))
    return report(world, cluster, policy, replace(seen, record=decided))


def _settled_meanwhile(record: RunRecord, cluster: Cluster) -> RunRecord | None:
    """The record as somebody else, who was at it, has settled it since we looked; then everything has been said."""
    (text,) = cluster.records([record.run_key])
    known = parse_record(text) if text is not None else record
    return known if known.followed_by else None


def _repeated(record: RunRecord, repeats: Repeats, policy: Policy, world: World) -> RunRecord | None:
    """The ended run's record, with the retry that follows or why none does; None while somebody else is submitting that."""
    again = renewed(record, repeats, policy, world)
    if isinstance(again, str):
        return not_repeated(record, again)
    prepared = prepare(again.grant, again.facts, policy, world)
    if isinstance(prepared, Answer):
        return not_repeated(record, prepared.reason)
    if prepared.approval is not None or prepared.plan.profile.dry_run:
        return not_repeated(record, "approval-needed" if prepared.approval is not None else "dry-run")
    beginning = begin(prepared, (), again.event, policy, world)
    match beginning:
        case NotBegun():
            return not_repeated(record, beginning.answer.reason)
        case Busy():
            return None
        case Begun():
            _first_report(beginning, policy, world)
            return record.model_copy(update={"followed_by": beginning.record.run_key})
        case _:
            assert_never(beginning)


def _first_report(begun: Begun, policy: Policy, world: World) -> None:
    """Tells of the new run, unless whoever submitted it has; that GitHub does not hear it is no reason to submit it twice."""
    if begun.record.target.comment is not None or begun.record.state.ended:
        return
    record = submitted(begun.record, world)
    world.say(f"Run {record.retry_of} is run again as {record.run_key}, {record.repeats.words if record.repeats else ''}.")
    try:
        report(world, begun.cluster, policy, Seen(record, ""))
    except ForgeError as error:
        world.say(f"The job runs, but could not be reported: {error.cause} The next `watch` reports it.")
        with suppress(DispatchError):
            begun.cluster.save(record.run_key, record.to_json(), UNREPORTED)


def _long_ago(ended_at: datetime | None, world: World) -> bool:
    return ended_at is not None and world.clock.now() - ended_at >= PATIENCE
