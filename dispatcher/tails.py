"""The stages of a pipeline, as they have ended × the policy's `retries` → which of them are run again by themselves, and with what.

What the machine has ended is run again together with all that comes after it, in one go, once nothing of the pipeline goes on any more: so
each attempt is a whole one, and nothing of it runs beside its own repetition. A stage that went wrong by itself ends all attempts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.attempts import Exhausted, Repeats, next_attempt
from dispatcher.awaiting import Never, awaited, satisfied
from dispatcher.record import Member, RunRecord
from dispatcher.resuming import related
from dispatcher.sections import Retries
from dispatcher.slurm import CANCELLED_BY, State


@dataclass(frozen=True)
class Tail:
    """The stages to run again, by name in their order, each with what it repeats. `first` has failed, and all have it for their trigger."""

    first: RunRecord
    failed: frozenset[str]
    repeats: Mapping[str, Repeats]


@dataclass(frozen=True)
class GoesOn:
    """Some stages have not ended yet: whether any are run again is decided when they have."""


@dataclass(frozen=True)
class _Failed:
    """One that the machine has ended, and what its next attempt would be, were it alone."""

    record: RunRecord
    repeats: Repeats


def tail_of(record: RunRecord, known: Mapping[str, RunRecord], retries: Retries, now: datetime) -> Tail | GoesOn | str:
    """What follows the end of a stage that the machine has ended; where nothing does, the reason (a key of `denial.REASONS`).

    `known` are the runs of its pipeline by run key. Stages that had been run before the command and were not run again stay as they are.
    """
    family = related(record.group, record.run_key)
    if not any(member.run_key == record.run_key and not member.reused for member in family):
        return "record-changed"
    if any(run.executor == "local" for run in known.values()):
        return "local-stage"
    ends = {member.run_key: known[member.run_key] for member in family if member.reused and member.run_key in known}
    failed: dict[str, _Failed] = {}
    wanted: dict[str, Member] = {}
    goes_on = False
    for member in (member for member in family if not member.reused):
        run = known.get(member.run_key)
        if run is None:
            return "stage-failed"
        run = ends[member.run_key] = _as_it_will_end(run, member, family, ends, now)
        behind = any(key in wanted for key in member.after)
        goes_on = goes_on or not run.state.ended
        again = next_attempt(run, retries) if run.state.ended else None
        if _given_up(run):
            return "stage-failed"
        if isinstance(again, Repeats):
            failed[member.run_key] = _Failed(run, again)
        elif run.state.ended and not run.ended_well and not behind:
            return "attempts-used" if isinstance(again, Exhausted) else "stage-failed"
        if behind or member.run_key in failed:
            wanted[member.run_key] = member
    if _in_vain(tuple(wanted.values()), family, ends):
        return "stage-failed"
    return GoesOn() if goes_on or not failed else _tail(failed, wanted, ends, retries)


def _as_it_will_end(run: RunRecord, member: Member, family: Sequence[Member], ends: Mapping[str, RunRecord], now: datetime) -> RunRecord:
    """One that has not begun and never will, by how those before it ended, has ended, though nobody may have seen that yet.

    Of an array that goes task by task, some may run all the same.
    """
    if run.state.ended or run.started_at is not None or run.state is State.RUNNING or member.when == "aftercorr":
        return run
    stage = awaited(member.when, [before for before in family if before.run_key in member.after], ends, now)
    return stage.told(run, now) if isinstance(stage, Never) else run


def _given_up(run: RunRecord) -> bool:
    """Whether somebody has ended it, so that nothing of it is wanted any more."""
    by_somebody = run.reason.startswith((CANCELLED_BY, "cancelled by ")) and run.state is State.CANCELLED
    return bool(run.given_up) or by_somebody


def _in_vain(wanted: Collection[Member], family: Sequence[Member], ends: Mapping[str, RunRecord]) -> bool:
    """Whether one of them waits for a stage that stays as it is, and has ended in another way than it would have to."""
    kept = {member.run_key for member in family if member.reused}
    return any(
        key not in ends or (ends[key].state.ended and not satisfied(member.when, ends[key].state))
        for member in wanted
        for key in member.after
        if key in kept
    )


def _tail(failed: Mapping[str, _Failed], wanted: Mapping[str, Member], ends: Mapping[str, RunRecord], retries: Retries) -> Tail:
    """All have the number of the first, which is part of their trigger; one that has not failed need neither wait nor stay off a node."""
    first = next(iter(failed.values()))
    repeats: dict[str, Repeats] = {}
    for key, member in wanted.items():
        own, before = failed.get(key), ends[key].repeats
        update = {
            "of": "" if key == first.record.run_key else first.record.run_key,
            "wait": first.repeats.wait if own else 0,
            "without": own.repeats.without if own else before.without if before and retries.exclude_node else (),
        }
        repeats[member.stage] = first.repeats.model_copy(update=update)
    return Tail(first.record, frozenset(item.record.stage for item in failed.values()), repeats)
