"""Texts of a ledger, of which some may not be records that can be read → what can be known of each.

A newer version may have written them, or a job.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from pydantic import ValidationError

from dispatcher.errors import ClusterError
from dispatcher.record import RunRecord, parse_record
from dispatcher.slurm import State


def readable(texts: Iterable[str]) -> tuple[list[RunRecord], str]:
    """Those records that can be read, and in words what is wrong with one of the others; empty when all could."""
    found, problem = [], ""
    for text in texts:
        try:
            found.append(parse_record(text))
        except ClusterError as error:
            problem = error.cause
    return found, problem


def salvaged(text: str) -> RunRecord | None:
    """What is left of a record that cannot be read: its fields that can be; None where one is missing that it cannot do without."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    while isinstance(fields, dict):
        try:
            return RunRecord.model_validate(fields)
        except ValidationError as error:
            wrong = fields.keys() & {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
            if not wrong:
                return None
            fields = {name: value for name, value in fields.items() if name not in wrong}
    return None


def unclear(texts: Iterable[str]) -> list[RunRecord]:
    """Of those that cannot be read, those that still say which run they are (a newer version may have written them): of unknown state."""
    found = []
    for text in texts:
        try:
            parse_record(text)
        except ClusterError:
            record = salvaged(text)
            found += [record.model_copy(update={"state": State.UNKNOWN, "reason": "its record cannot be read"})] if record else []
    return found


def repository_named(text: str) -> str | None:
    """The repository that a record names which cannot be read (a newer version may have written it); None where it names none."""
    try:
        named = json.loads(text)["target"]["repository"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return named if isinstance(named, str) else None
