"""Bytes of a series file (JSON lines of `{step, name, value}`) → numbers over steps by name, and what of them a report needs.

The file is written by the job: capped where it is read, parsed strictly here. NaN and infinities are values; a line that is none of ours is
skipped and counted. What is kept of a series is a `Curve`: at most `CURVE_POINTS` values at even distances, whose spikes are still there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from dispatcher.results import METRIC_NAME, is_metric

READ_BYTES = 1024 * 1024
"""So much of a file's end is read."""
MAX_NAMES = 2_000
MAX_LINE = 2_000
CURVE_POINTS = 60
MOST_CURVES = 4
MOST_STEPS = 2**53
_PROGRESS_VALUES = 3


@dataclass(frozen=True)
class Point:
    """One value at one step."""

    step: int
    value: float


@dataclass(frozen=True)
class Measured:
    """Points by name, each in the order of steps, one a step; `total` is how many steps there are to be, when the job says so."""

    series: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    total: int | None = None
    skipped: int = 0
    """Lines that could not be read, or were one name too many."""

    @property
    def last(self) -> dict[str, float]:
        """The value of each name's greatest step."""
        return {name: points[-1].value for name, points in self.series.items()}


class _Kept(BaseModel):
    # A report is made from the ledger's copy too, and there NaN must survive the round trip.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


Name = Annotated[str, Field(pattern=f"^{METRIC_NAME}$")]


class Curve(_Kept):
    """What is drawn of a series: `values` lie at even distances between the steps `first` and `last`, and are finite."""

    name: Name
    first: Annotated[int, Field(ge=0, le=MOST_STEPS)]
    last: Annotated[int, Field(ge=0, le=MOST_STEPS)]
    values: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = Field(min_length=2, max_length=CURVE_POINTS)
    points: int = 0
    """How many there were."""
    gaps: int = 0
    """How many of them are NaN or infinite: no chart can show these."""
    first_gap: int | None = None
    """The step of the first one of these."""


class Progress(_Kept):
    """How far a run is: its greatest step, how many there are to be, and some last values."""

    step: int
    total: int | None = None
    values: dict[Name, float] = Field(default_factory=dict)

    def same_as(self, other: Progress | None) -> bool:
        """Whether both say the same; a value that is NaN in both is the same."""
        return other is not None and self.model_dump_json() == other.model_dump_json()


def parse_series(content: bytes, cut: bool = False) -> Measured:
    """Bytes of a file → what was measured; never raises. `cut`: the beginning is missing, so the first line may be half a line.

    A last line without its end is still being written: it counts when it can be read, and is not counted as skipped when it cannot.
    """
    lines = content.decode("utf-8-sig", "replace").split("\n")
    unfinished = lines.pop()
    if cut:
        lines = lines[1:]
    collector = Collector()
    for line in lines:
        if line.strip():
            _take(collector, line)
    if unfinished.strip() and (point := _point_of(unfinished)) is not None:
        collector.add(*point)
    return collector.measured()


class Collector:
    """Points in the order in which they were written → `Measured`. A step that comes again (a job that went on) counts as it was last."""

    def __init__(self) -> None:
        self._found: dict[str, dict[int, float]] = {}
        self._total: int | None = None
        self.skipped = 0

    def add(self, name: str, step: int, value: float, total: int | None = None) -> None:
        """One value."""
        if name not in self._found and len(self._found) >= MAX_NAMES:
            self.skipped += 1
            return
        self._found.setdefault(name, {})[step] = value
        self._total = total if total is not None else self._total

    def measured(self) -> Measured:
        """Everything so far."""
        series = {name: tuple(Point(step, points[step]) for step in sorted(points)) for name, points in self._found.items()}
        return Measured(series, self._total, self.skipped)


def _take(collector: Collector, line: str) -> None:
    point = _point_of(line)
    if point is None:
        collector.skipped += 1
    else:
        collector.add(*point)


def _point_of(line: str) -> tuple[str, int, float, int | None] | None:
    """One line → name, step, value, total; None when it is not one of ours. Other keys (a time, a rank) may stand beside these."""
    if len(line) > MAX_LINE:
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    name, step, total = found.get("name"), _step(found.get("step")), _step(found.get("total"))
    value = _value(found["value"]) if "value" in found else None
    if not isinstance(name, str) or not is_metric(name) or step is None or value is None:
        return None
    return name, step, value, total or None


def _step(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_STEPS else None


def _value(value: object) -> float | None:
    """JSON has no NaN; who writes strict JSON writes null for it."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


# --------------------------------------------------------------------------- what is kept


def progress_of(measured: Measured, total: int | None, preferred: Collection[str] = ()) -> Progress | None:
    """How far it is; None where nothing was measured. `total` is the recipe's word, used where the job says nothing itself."""
    if not measured.series:
        return None
    step = max(points[-1].step for points in measured.series.values())
    last = measured.last
    values = {name: last[name] for name in chosen(measured.series, preferred)[:_PROGRESS_VALUES]}
    return Progress(step=step, total=measured.total or total, values=values)


def curves_of(measured: Measured, preferred: Collection[str] = ()) -> tuple[Curve, ...]:
    """The curves to keep: of what has a rule first, then of losses, then of what was named first."""
    curves = (curve_of(name, measured.series[name]) for name in chosen(measured.series, preferred))
    return tuple(curve for curve in curves if curve is not None)[:MOST_CURVES]


def chosen(names: Iterable[str], preferred: Collection[str]) -> list[str]:
    """The names in the order of what people want to see."""
    return sorted(names, key=lambda name: (name not in preferred, not _is_loss(name.lower())))


def _is_loss(name: str) -> bool:
    return "loss" in name and "scale" not in name


def curve_of(name: str, points: Sequence[Point], limit: int = CURVE_POINTS) -> Curve | None:
    """A series → its curve; None where fewer than two finite values make none.

    Where there are too many, or they are not evenly apart, the steps are cut into `limit / 2` equal parts, and each part keeps its least
    and its greatest value in the order in which they came: a spike of a single step stays. A part without a value lies on the line between
    its neighbours, as a line chart would draw it.
    """
    finite = [point for point in points if math.isfinite(point.value)]
    if len(finite) < 2:
        return None
    gaps = [point.step for point in points if not math.isfinite(point.value)]
    values = [point.value for point in finite] if len(finite) <= limit and _even(finite) else _reduced(finite, limit // 2)
    return Curve(
        name=name,
        first=finite[0].step,
        last=finite[-1].step,
        values=tuple(values),
        points=len(points),
        gaps=len(gaps),
        first_gap=gaps[0] if gaps else None,
    )


def points_of(curve: Curve) -> tuple[Point, ...]:
    """What a curve still knows of the series that it was made of."""
    distance = (curve.last - curve.first) / (len(curve.values) - 1)
    return tuple(Point(round(curve.first + place * distance), value) for place, value in enumerate(curve.values))


def _even(points: Sequence[Point]) -> bool:
    distance = points[1].step - points[0].step
    return all(after.step - before.step == distance for before, after in pairwise(points))


def _reduced(points: Sequence[Point], parts: int) -> list[float]:
    first, last = points[0].step, points[-1].step
    buckets: list[list[Point]] = [[] for _ in range(parts)]
    for point in points:
        buckets[min((point.step - first) * parts // (last - first), parts - 1)].append(point)
    known: dict[int, float] = {}
    for number, bucket in enumerate(buckets):
        if bucket:
            pair = sorted((min(bucket, key=_by_value), max(bucket, key=_by_value)), key=lambda point: point.step)
            known[2 * number], known[2 * number + 1] = pair[0].value, pair[1].value
        if len(bucket) == 1:
            # One point has one place, the nearer one; the other lies on the way to it.
            nearer = round((bucket[0].step - first) * (2 * parts - 1) / (last - first))
            known.pop(2 * number + 1 if nearer <= 2 * number else 2 * number)
    return _filled(known, 2 * parts)


def _by_value(point: Point) -> float:
    return point.value


def _filled(known: Mapping[int, float], count: int) -> list[float]:
    """Values at some of `count` places, the first and the last among them → values at all of them."""
    places = sorted(known)
    values: list[float] = []
    for before, after in pairwise(places):
        for place in range(before, after):
            share = (place - before) / (after - before)
            values.append(known[before] * (1 - share) + known[after] * share)
    return [*values, known[places[-1]]][:count]
