"""Runs that have just begun → their first report: a comment, which several of one command share, and a check each.

There are jobs: whatever GitHub says now, that is not undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType

from dispatcher.errors import DispatchError, Exit, ForgeError
from dispatcher.firstrecord import log_path
from dispatcher.gatekeeper import judge_ended
from dispatcher.observe import UNREPORTED, Seen, tail_of
from dispatcher.policy import Policy
from dispatcher.submitting import Begun
from dispatcher.telling import report
from dispatcher.world import World

_NOTHING: Mapping[str, str] = MappingProxyType({})


def first_reports(begun: Sequence[Begun], missing: Mapping[str, str], policy: Policy, world: World) -> list[tuple[Seen, Exit]]:
    """Several runs: one comment with a table, in which also those that were not begun are told about (`missing`: why)."""
    for item in begun:
        with suppress(DispatchError):
            item.cluster.save(item.record.run_key, item.record.to_json(), "")
    # While the others were submitted a sweep may have told of the first: its comment is looked for.
    reported = [first_report(replace(begun[0], fresh=False), policy, world, True, missing)]
    comment = reported[0][0].record.target.comment
    for item in begun[1:]:
        target = item.record.target.model_copy(update={"comment": item.record.target.comment or comment})
        told = replace(item, record=item.record.model_copy(update={"target": target}))
        reported.append(first_report(told, policy, world, not comment, missing))
    return reported


def first_report(
    begun: Begun, policy: Policy, world: World, with_comment: bool = True, missing: Mapping[str, str] = _NOTHING
) -> tuple[Seen, Exit]:
    """The first report of a run, and what it came to."""
    cluster, record = begun.cluster, begun.record
    if record.job_id:
        one = log_path(record.run_dir, record.run_key, record.job_id, record.executor)
        path = one if record.parts == 1 else f"{record.run_dir}/logs"
        world.say(f"Run {record.run_key} is job {record.job_id}; its log is {path}.")
    elif record.state.ended:
        world.say(f"Run {record.run_key} does not run: {record.reason}.")
    else:
        world.say(f"Run {record.run_key} is queued here: {record.reason}.")
    seen = Seen(record, tail_of(world, cluster, record) if record.state.ended else "")
    try:
        told = report(world, cluster, policy, seen, not begun.fresh, with_comment, missing)
        if told.record.state.ended:
            judge_ended(world, policy, (told.record,))  # it was not run again: nobody else will see its end
        return told, Exit.OK
    except ForgeError as error:
        # There is a job: whatever GitHub says now, that is not undone. The ledger knows that nothing was reported yet.
        what = "The earlier run's end is taken over" if record.state.ended and record.same_as else "The job runs"
        world.say(f"{what}, but could not be reported: {error.cause} The next `watch` reports it.")
        with suppress(DispatchError):
            cluster.save(record.run_key, record.to_json(), UNREPORTED)
        return seen, error.exit
