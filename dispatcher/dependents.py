"""Runs that are to be ended → those besides that must not begin after them, and the order in which none of them begins meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.record import RunRecord


def dependents(ended: Sequence[RunRecord], active: Sequence[RunRecord]) -> list[RunRecord]:
    """The active stages that come after these runs, directly or not, whatever they wait for: who ends a stage ends what follows."""
    keys = {record.run_key for record in ended}
    found: list[RunRecord] = []
    while more := [record for record in active if record.run_key not in keys and any(member.run_key in keys for member in record.before)]:
        found += more
        keys |= {record.run_key for record in more}
    return found


def last_first(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The same, every stage before those that it waits for: one that waits for a failure must not take the end of those for one."""
    return sorted(records, key=_place, reverse=True)


def _place(record: RunRecord) -> int:
    keys = [member.run_key for member in record.group]
    return keys.index(record.run_key) if record.stage and record.run_key in keys else 0
