"""A run's end → its next job, where its recipe's chain goes on, or its retry, where the policy wants one; and then the report of the end.

By whose permission a retry is one: `renewing.py`.

In this order, and the run leaves `active/` last: whoever dies in between leaves an end that the next sweep settles once more. The retry's
run key follows from that of the run before, so the ledger's lock makes one job of it, however many settle the same end at once.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from typing_extensions import assert_never

from dispatcher.answer import Answer
from dispatcher.attempts import PATIENCE, Exhausted, Repeats, next_attempt
from dispatcher.chaining import NotYet, go_on
from dispatcher.errors import DispatchError, Exit, ForgeError
from dispatcher.observe import UNREPORTED, Seen, report, say
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.preparing import prepare
from dispatcher.record import RunRecord
from dispatcher.renewing import renewed
from dispatcher.submitting import Begun, Busy, NotBegun, begin, submitted
from dispatcher.world import World

# What trying again does not change.
_FOR_GOOD = (Exit.CONFIG, Exit.COMPILE)


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
        return report(world, cluster, policy, replace(seen, record=_not(record, "attempts-used")))
    try:
        decided = _repeated(record, repeats, policy, world)
    except DispatchError as error:
        if error.exit in _FOR_GOOD or (_long_ago(record, world) and not error.job_may_exist):
            return report(world, cluster, policy, replace(seen, record=_not(record, error.code)))
        world.say(f"Run {record.run_key} could not be run again yet: {error.cause} The next sweep tries it.")
        decided = None
    if decided is None:
        return say(world, cluster, policy, replace(seen, record=record.model_copy(update={"retry_owed": True})))
    return report(world, cluster, policy, replace(seen, record=decided))


def _not(record: RunRecord, reason: str) -> RunRecord:
    return record.model_copy(update={"not_repeated": reason})


def _repeated(record: RunRecord, repeats: Repeats, policy: Policy, world: World) -> RunRecord | None:
    """The ended run's record, with the retry that follows or why none does; None while somebody else is submitting that."""
    # It goes on without anybody who waits, whoever waited for the first.
    world = replace(world, settings=replace(world.settings, wait=False))
    again = renewed(record, repeats, policy, world)
    if isinstance(again, str):
        return _not(record, again)
    prepared = prepare(again.grant, again.facts, policy, world)
    if isinstance(prepared, Answer):
        return _not(record, prepared.reason)
    if prepared.approval is not None or prepared.plan.profile.dry_run:
        return _not(record, "approval-needed" if prepared.approval is not None else "dry-run")
    beginning = begin(prepared, (), again.event, policy, world)
    match beginning:
        case NotBegun():
            return _not(record, beginning.answer.reason)
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


def _long_ago(record: RunRecord, world: World) -> bool:
    return record.ended_at is not None and world.clock.now() - record.ended_at >= PATIENCE
