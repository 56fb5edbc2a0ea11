"""A run's record × one look at its job → the next record."""

from __future__ import annotations

from datetime import datetime, timedelta

from typing_extensions import assert_never

from dispatcher.record import RunRecord
from dispatcher.slurm import Absent, Observation, Sight, Silent, State


def advance(record: RunRecord, sight: Sight, now: datetime, lost_after: timedelta) -> RunRecord:
    """The record after one look at its job. An end is final; absence becomes `LOST` only after a grace period, silence changes nothing."""
    if record.state.ended:
        return record
    match sight:
        case Silent():
            return record
        case Absent():
            return _absent(record, now, lost_after, "the scheduler no longer knows the job")
        case Observation() if sight.state is State.SUCCEEDED and sight.parts is not None and sight.parts < record.parts:
            # What nobody knows of has not ended well.
            return _absent(record, now, lost_after, f"the scheduler knows the end of {sight.parts} of {record.parts} parts of the job")
        case Observation():
            return _observed(record, sight, now)
        case _:
            assert_never(sight)


def _absent(record: RunRecord, now: datetime, lost_after: timedelta, reason: str) -> RunRecord:
    since = record.absent_since or now
    if now - since < lost_after:
        return record.model_copy(update={"absent_since": since})
    return record.model_copy(
        update={"state": State.LOST, "absent_since": since, "ended_at": now, "evidence": "scheduler", "reason": reason}
    )


def _observed(record: RunRecord, seen: Observation, now: datetime) -> RunRecord:
    started = seen.start if seen.state is not State.PENDING else None
    if seen.state is State.RUNNING and started is None:
        started = record.started_at or now
    ended = (seen.end or now) if seen.state.ended else None
    if ended and started is None and seen.elapsed_seconds is not None:
        started = ended - timedelta(seconds=seen.elapsed_seconds)
    return record.model_copy(
        update={
            "state": seen.state,
            "absent_since": None,
            "exit_code": seen.exit_code,
            "signal": seen.signal,
            "reason": seen.reason,
            "nodes": seen.nodes or record.nodes,
            "task_seconds": seen.task_seconds,
            "evidence": seen.source,
            "started_at": started or (record.started_at if seen.state is not State.PENDING else None),
            "ended_at": ended,
            "estimated_start": seen.start if seen.state is State.PENDING else None,
            "queue_place": seen.place.number if seen.place else None,
            "queue_length": seen.place.of if seen.place else None,
        }
    )
