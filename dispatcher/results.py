"""What a job left behind (bytes of its results file) → numbers for the comment and the record.

The file is untrusted: size-capped where it is read, parsed strictly here. A flat JSON object of names to numbers, or of names to
short texts; one level of nesting is joined with dots. NaN and infinities are results too: training that diverged says so. Half a
surrogate pair (`"\\ud800"`), which no UTF-8 can carry on, is replaced; a name that stands there twice says two things, and so nothing.
Names are those of lm-evaluation-harness (`acc,none`) and torchtitan (`mfu(%)`), too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_BYTES = 64 * 1024
MAX_METRICS = 200
METRIC_NAME = r"[A-Za-z0-9_][A-Za-z0-9_./:@,()%+ -]{0,99}"
"""What a metric's name may be: nothing in it can end a word of Markdown's tables or of a chart's."""
_NAME = re.compile(METRIC_NAME)
NO_RESULTS = "it left no results file"
"""Stands in the results' problem of a run whose recipe promises one."""

Value = float | int | str | None


@dataclass(frozen=True)
class Results:
    """Metrics by name."""

    metrics: Mapping[str, Value]


@dataclass(frozen=True)
class NoResults:
    """The job left no file; that is a problem only where the recipe promises one."""


@dataclass(frozen=True)
class BrokenResults:
    """There is a file, but it cannot be used; `why` is for people."""

    why: str


Outcome = Results | NoResults | BrokenResults


def parse_results(content: bytes | None, too_big: bool = False) -> Outcome:
    """Bytes of a results file → `Results`, `NoResults` or `BrokenResults`; never raises."""
    if too_big:
        return BrokenResults(f"the results file is larger than {MAX_BYTES // 1024} KiB")
    if content is None:
        return NoResults()
    try:
        document = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_once)
    except _TwiceError as twice:
        return BrokenResults(f"a name stands in the results file twice{twice}")
    except (ValueError, RecursionError) as error:
        return BrokenResults(f"the results file is {not_json(content, error)}")
    if not isinstance(document, dict):
        return BrokenResults("the results file must hold one JSON object of names to numbers")
    metrics: dict[str, Value] = {}
    for name, value in _flat(document):
        if not is_metric(name):
            return BrokenResults(f"a name in the results file {_refused(name)}")
        if isinstance(value, bool) or not isinstance(value, (int, float, str, type(None))):
            return BrokenResults(f"`{name}` in the results file is neither a number nor a short text")
        if isinstance(value, int) and abs(value) > 2**63:
            value = float("inf") if value > 0 else float("-inf")
        if name in metrics:
            return BrokenResults(f"a name stands in the results file twice{_named(name)}")
        metrics[name] = value[:200].encode("utf-8", "replace").decode() if isinstance(value, str) else value
        if len(metrics) > MAX_METRICS:
            return BrokenResults(f"the results file has more than {MAX_METRICS} metrics")
    return Results(metrics)


def is_metric(name: str) -> bool:
    """Whether it may be a metric's name."""
    return _NAME.fullmatch(name) is not None


def not_json(content: bytes, error: Exception) -> str:
    """Why nothing was read, where one can look: `empty`, or `not JSON (Expecting value, line 3, column 9)`."""
    if not content.strip():
        return "empty"
    match error:
        case json.JSONDecodeError():
            return f"not JSON ({error.msg}, line {error.lineno}, column {error.colno})"
        case UnicodeDecodeError():
            return f"not JSON (no UTF-8 from byte {error.start} on)"
        case _:
            return f"not JSON ({type(error).__name__})"


def _refused(name: str) -> str:
    """What is wrong with a name. Of the name itself nothing is shown but the one character: it may be anything, a secret too."""
    if not name or len(name) > 100:
        return "is longer than 100 characters" if name else "is empty"
    place = next(place for place in range(len(name)) if not is_metric(name[: place + 1]))
    shown = f"`{name[place]}`" if " " <= name[place] <= "~" and name[place] != "`" else f"U+{ord(name[place]):04X}"
    if place == 0:
        return f"begins with {shown}, and not with a letter, a digit or `_`"
    return f"has {shown} in it: only letters, digits, spaces and `_./:@,()%+-` may stand there"


class _TwiceError(Exception):
    """A JSON object has a name twice; the words are the name, where it may be shown."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object's pairs → a table. JSON's own parser would let the last one win, whatever the job meant."""
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(_named(next(name for name in names if names.count(name) > 1)))
    return table


def _named(name: str) -> str:
    return f": `{name}`" if is_metric(name) else ""


def _flat(document: Mapping[str, object]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in document.items():
        if isinstance(value, dict):
            pairs.extend((f"{name}.{inner}", item) for inner, item in value.items())
        else:
            pairs.append((name, value))
    return pairs
