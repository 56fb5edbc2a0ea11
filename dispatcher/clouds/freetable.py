"""A table of a profile that goes to an API as it is: any JSON, within bounds, without what the dispatcher itself says there."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

LARGEST = 16 * 1024
DEEPEST = 8


def _plain(value: Any, depth: int = 0) -> Any:
    """Copies JSON; a number with a point, which the loader keeps as it was written, becomes a number."""
    if depth > DEEPEST:
        raise ValueError(f"is deeper than {DEEPEST} tables")
    if isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("contains a NUL character")
        return float(value) if re.fullmatch(r"-?[0-9]{1,9}\.[0-9]{1,9}", value, re.ASCII) else value
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise ValueError("has a value that is not JSON")


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = _plain(value)
    if len(json.dumps(plain)) > LARGEST:
        raise ValueError(f"is longer than {LARGEST:,} characters")
    return plain


FreeTable = Annotated[
    dict[str, Any],
    AfterValidator(_bounded),
    WithJsonSchema({"type": "object", "description": "A table that goes to the API as it is."}),
]


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` in `below`: tables merge, lists follow one another, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        there = merged.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            merged[key] = laid_over(there, value)
        elif isinstance(there, list) and isinstance(value, list):
            merged[key] = [*there, *value]
        else:
            merged[key] = value
    return merged
