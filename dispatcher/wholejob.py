"""What is known of each part of an array or heterogeneous job → what that comes to: the job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dispatcher.jobparts import part_order
from dispatcher.slurm import Observation, State


def together(parts: Mapping[str, Observation], exit_file: str = "") -> Observation:
    """The parts of one job, by name (`_4`, `+1`) in their order → the job: it has ended when all of them have, and passes when all do.

    What failed first is named, by its end and then by its number; what was cancelled counts as a failure's consequence.
    """
    seen = list(parts.values())
    moving = [one for one in seen if not one.state.ended]
    starts = [one.start for one in seen if one.start and one.state is not State.PENDING and one.elapsed_seconds != 0]
    whole = Observation(
        _state_of_all(seen),
        seen[0].source,
        nodes=",".join(dict.fromkeys(one.nodes for one in seen if one.nodes))[:200],
        start=min(starts, default=None),
        parts=len(parts),
        task_seconds=None if any(part.startswith("+") for part in parts) else _seconds_of_all(seen),
    )
    if whole.state is State.PENDING:
        return replace(whole, reason=seen[0].reason, start=min((one.start for one in seen if one.start), default=None))
    if moving:
        return replace(whole, reason=_counts(seen))
    whole = replace(whole, end=max((one.end for one in seen if one.end), default=None), exit_code=0)
    if whole.state is State.SUCCEEDED:
        return whole
    first, failed = min(
        ((part, one) for part, one in parts.items() if one.state is whole.state),
        key=lambda item: (item[1].end is None, item[1].end.timestamp() if item[1].end else 0.0, part_order(item[0])),
    )
    if sum(one.state is not State.SUCCEEDED for one in seen) == 1:
        failed = filled(failed, exit_file)  # which has the greatest status of all parts
    kind = "component" if first.startswith("+") else "task"
    how = f" by signal {failed.signal}" if failed.signal else f" with exit code {failed.exit_code}" if failed.exit_code else ""
    # Of other ends the scheduler still says what the part once waited for.
    why = f" ({failed.reason})" if failed.reason and failed.state is State.CANCELLED else ""
    reason = f"{kind} {first[1:]} ended as {failed.state.value.replace('_', ' ')}{how}{why}; {_counts(seen)}"
    return replace(whole, exit_code=failed.exit_code, signal=failed.signal, reason=reason)


def _state_of_all(seen: Sequence[Observation]) -> State:
    """Waiting while all wait, running until all have ended; then the state of what failed first."""
    states = {one.state for one in seen}
    if states == {State.PENDING}:
        return State.PENDING
    if not all(state.ended for state in states):
        # A task that waits for the others' end, or for its next start, keeps the job going.
        return State.UNKNOWN if {state for state in states if not state.ended} == {State.UNKNOWN} else State.RUNNING
    failed = [one for one in seen if one.state is not State.SUCCEEDED]
    if not failed:
        return State.SUCCEEDED
    causes = [one for one in failed if one.state is not State.CANCELLED] or failed
    return min(causes, key=lambda one: (one.end is None, one.end.timestamp() if one.end else 0.0)).state


def _seconds_of_all(seen: Sequence[Observation]) -> int | None:
    """How long all of them ran together; None while that is not known of each, as before accounting has heard of an end."""
    total = 0
    for one in seen:
        if one.elapsed_seconds is not None:
            total += one.elapsed_seconds
        elif one.start and one.end and one.state.ended:
            total += max(0, round((one.end - one.start).total_seconds()))
        else:
            return None
    return total


def _counts(seen: Sequence[Observation]) -> str:
    """`of 4: 3 succeeded, 1 failed`."""
    counts = Counter(one.state for one in seen)
    words = [
        f"{count} {state.value.replace('_', ' ')}" for state, count in sorted(counts.items(), key=lambda item: list(State).index(item[0]))
    ]
    return f"of {len(seen)}: {', '.join(words)}"


def filled(seen: Observation, exit_file: str) -> Observation:
    """An end whose exit code nobody told, with the one that the batch script itself left behind."""
    told_by_script = seen.exit_code is None and seen.state in (State.SUCCEEDED, State.FAILED) and exit_file.strip().isdigit()
    return replace(seen, exit_code=int(exit_file)) if told_by_script else seen
