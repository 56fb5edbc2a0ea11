"""The default branch's runs, as the ledger remembers them (one JSON line each) ↔ what later runs are compared with.

Median and median absolute deviation, so that one bad run neither moves the baseline nor hides a change. An acceptance
(`baseline accept`) is a line too: what came before it no longer counts, and who made it, when and why stays readable.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dispatcher.phrases import plural
from dispatcher.record import RunRecord
from dispatcher.thresholds import Compared

LINE_LIMIT = 32_000
"""Characters of a line; a run with more metrics than fit is remembered with as many as do."""
# A normal distribution's standard deviation is so many median absolute deviations: https://en.wikipedia.org/wiki/Median_absolute_deviation
TO_DEVIATION = 1.4826
# The MAD of few values is too small on average. Factors for 2 to 9 values: Croux & Rousseeuw, "Time-efficient algorithms for two
# highly robust estimators of scale", 1992; beyond them n / (n - 0.8).
_SMALL = {2: 1.196, 3: 1.495, 4: 1.363, 5: 1.206, 6: 1.200, 7: 1.140, 8: 1.129, 9: 1.107}


class Remembered(BaseModel):
    """One line: a run of the default branch, or a run that somebody accepted as the new baseline."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    kind: Literal["run", "accepted"] = "run"
    run_key: str = Field(pattern=r"^[0-9a-f]{16}$")
    sha: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    at: datetime
    metrics: dict[str, float]
    by: str = Field(default="", max_length=200)
    why: str = Field(default="", max_length=1000)


@dataclass(frozen=True)
class History:
    """All lines that can be read, oldest first, each run once."""

    entries: tuple[Remembered, ...] = ()

    @property
    def accepted(self) -> Remembered | None:
        """The newest acceptance."""
        return next((entry for entry in reversed(self.entries) if entry.kind == "accepted"), None)

    @property
    def counting(self) -> tuple[Remembered, ...]:
        """What makes the baseline: the newest acceptance, and every run of the default branch after it."""
        found: list[Remembered] = []
        for entry in reversed(self.entries):
            found.append(entry)
            if entry.kind == "accepted":
                break
        return tuple(reversed(found))

    def rolling(self, metric: str, window: int) -> Compared | None:
        """The median of the metric's last values and how they scatter; None when there is none."""
        entries = [entry for entry in self.counting if metric in entry.metrics][-window:]
        values = [entry.metrics[metric] for entry in entries]
        if not values:
            return None
        middle = median(values)
        words = f"the median of {plural(len(values), 'run')} of the default branch"
        if len(values) == 1:
            [only] = entries
            words = f"the accepted run {only.run_key[:8]} (by {only.by})" if only.kind == "accepted" else "the default branch's only run"
        return Compared(middle, _deviation(values, middle), words)

    def of_commit(self, sha: str, metric: str) -> Compared | None:
        """The newest run of one commit."""
        found = next((entry for entry in reversed(self.entries) if entry.sha == sha and metric in entry.metrics), None)
        return Compared(found.metrics[metric], 0.0, f"the merge base's run ({sha[:7]})") if found else None


def _deviation(values: Sequence[float], middle: float) -> float:
    """A robust estimate of the standard deviation."""
    count = len(values)
    if count < 2:
        return 0.0
    return TO_DEVIATION * _SMALL.get(count, count / (count - 0.8)) * median(abs(value - middle) for value in values)


def history_name(repository: str, profile: str, recipe: str) -> str:
    """The ledger's name for the runs that may be compared: of one repository, profile and recipe."""
    return hashlib.sha256("\0".join(["history", repository.lower(), profile, recipe]).encode()).hexdigest()[:32]


def parse_history(text: str) -> History:
    """The ledger's lines; others can write there, so what cannot be read is left out, and of one run the last line counts."""
    found: dict[tuple[str, str], Remembered] = {}
    for entry in _readable(text):
        found.pop((entry.kind, entry.run_key), None)
        found[entry.kind, entry.run_key] = entry
    return History(tuple(found.values()))


def _readable(text: str) -> Iterator[Remembered]:
    for line in text.splitlines():
        if line.strip():
            try:
                entry = Remembered.model_validate_json(line)
            except ValidationError:
                continue
            yield entry.model_copy(update={"metrics": {name: value for name, value in entry.metrics.items() if math.isfinite(value)}})


def line_of(record: RunRecord, at: datetime) -> str:
    """A run of the default branch, for the ledger."""
    return _line(Remembered(run_key=record.run_key, sha=record.sha, at=at, metrics=_numbers(record)))


def acceptance_of(record: RunRecord, by: str, why: str, at: datetime) -> str:
    """A run that somebody has accepted, for the ledger."""
    return _line(Remembered(kind="accepted", run_key=record.run_key, sha=record.sha, at=at, metrics=_numbers(record), by=by, why=why))


def _numbers(record: RunRecord) -> dict[str, float]:
    given = record.results.items()
    return {name: float(value) for name, value in given if isinstance(value, (int, float)) and math.isfinite(value)}


def _line(entry: Remembered) -> str:
    """One line, short enough to be appended in one piece."""
    names = list(entry.metrics)
    while len(line := entry.model_dump_json()) > LINE_LIMIT and names:
        names = names[: len(names) * 3 // 4]
        entry = entry.model_copy(update={"metrics": {name: entry.metrics[name] for name in names}})
    return line
