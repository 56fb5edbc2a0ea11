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
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dispatcher.overlay import RunCurve
from dispatcher.phrases import plural
from dispatcher.record import RunRecord
from dispatcher.series import MOST_CURVES, Curve
from dispatcher.thresholds import Compared

LINE_LIMIT = 32_000
"""Characters of a line; of a run with more than fits first its curves are forgotten, then metrics."""
# What trains computes with no more digits (float32 has seven), and every comparison reads all lines.
_DIGITS = 8
# A normal distribution's standard deviation is so many median absolute deviations: https://en.wikipedia.org/wiki/Median_absolute_deviation
TO_DEVIATION = 1.4826
# The MAD of few values is too small on average. Factors for 2 to 9 values: Croux & Rousseeuw, "Time-efficient algorithms for two
# highly robust estimators of scale", 1992; beyond them n / (n - 0.8).
_SMALL = {2: 1.196, 3: 1.495, 4: 1.363, 5: 1.206, 6: 1.200, 7: 1.140, 8: 1.129, 9: 1.107}


def _readable_curves(value: Any) -> Any:
    """A curve that cannot be read costs the run no metric: these are what judges."""
    found: list[Curve] = []
    for item in value if isinstance(value, (list, tuple)) else ():
        try:
            found.append(Curve.model_validate(item))
        except ValidationError:
            continue
    return tuple(found[:MOST_CURVES])


class Remembered(BaseModel):
    """One line: a run of the default branch, or a run that somebody accepted as the new baseline."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    kind: Literal["run", "accepted"] = "run"
    run_key: str = Field(pattern=r"^[0-9a-f]{16}$")
    sha: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    at: datetime
    metrics: dict[str, float]
    curves: Annotated[tuple[Curve, ...], BeforeValidator(_readable_curves)] = ()
    by: str = Field(default="", max_length=200)
    why: str = Field(default="", max_length=1000)

    def curve(self, metric: str) -> RunCurve | None:
        """The metric's curve, and that it is this run's; None when it has none."""
        found = next((curve for curve in self.curves if curve.name == metric), None)
        return RunCurve(run_key=self.run_key, sha=self.sha, value=self.metrics[metric], curve=found) if found else None


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
        return Compared(middle, _deviation(values, middle), words, _nearest(metric, middle, entries))

    def of_commit(self, sha: str, metric: str) -> Compared | None:
        """The newest run of one commit."""
        found = next((entry for entry in reversed(self.entries) if entry.sha == sha and metric in entry.metrics), None)
        if found is None:
            return None
        return Compared(found.metrics[metric], 0.0, f"the merge base's run ({sha[:7]})", found.curve(metric))


def _nearest(metric: str, middle: float, entries: Sequence[Remembered]) -> RunCurve | None:
    """The curve of the run that is nearest to the median, of equals the newest; None when none of the runs has one."""
    curves = [curve for entry in reversed(entries) if (curve := entry.curve(metric)) is not None]
    return min(curves, key=lambda curve: abs(curve.value - middle), default=None)


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
    return _line(Remembered(run_key=record.run_key, sha=record.sha, at=at, metrics=_numbers(record), curves=_curves(record)))


def acceptance_of(record: RunRecord, by: str, why: str, at: datetime) -> str:
    """A run that somebody has accepted, for the ledger."""
    numbers, curves = _numbers(record), _curves(record)
    accepted = Remembered(kind="accepted", run_key=record.run_key, sha=record.sha, at=at, metrics=numbers, curves=curves, by=by, why=why)
    return _line(accepted)


def _numbers(record: RunRecord) -> dict[str, float]:
    given = record.results.items()
    return {name: float(value) for name, value in given if isinstance(value, (int, float)) and math.isfinite(value)}


def _curves(record: RunRecord) -> tuple[Curve, ...]:
    return tuple(curve.model_copy(update={"values": tuple(map(_short, curve.values))}) for curve in record.curves)


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _line(entry: Remembered) -> str:
    """One line, short enough to be appended in one piece."""
    names = list(entry.metrics)
    while len(line := entry.model_dump_json()) > LINE_LIMIT and (entry.curves or names):
        if entry.curves:
            entry = entry.model_copy(update={"curves": entry.curves[:-1]})
            continue
        names = names[: len(names) * 3 // 4]
        entry = entry.model_copy(update={"metrics": {name: entry.metrics[name] for name in names}})
    return line
