"""A run's curve × the steps of another one's chart → the values that are drawn over it, and what the chart would hide of that.

A Mermaid chart has one axis of steps and no gaps, and spreads each line over all of it: https://mermaid.js.org/syntax/xyChart.html. So
what lies outside of the axis is left out. Behind the other run's end goes on what it came to, which is what is compared with, and before
its beginning its first value. All that is said in words.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from dispatcher.series import CURVE_POINTS, Curve, Point, curve_of

# Places on the axis are whole numbers, as steps are: a curve's values may lie between two steps.
_FINE = 1_000_000


class RunCurve(BaseModel):
    """A remembered run's curve of one metric, and whose it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    run_key: str = Field(pattern=r"^[0-9a-f]{16}$")
    sha: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    value: float = Field(allow_inf_nan=False)
    """What the run measured in the end."""
    curve: Curve


@dataclass(frozen=True)
class Overlay:
    """Values at even distances over the whole axis; at most `CURVE_POINTS`, at least two."""

    values: tuple[float, ...]
    flat_until: int | None = None
    """The other run has no values before this step: its first one is drawn from the axis' beginning."""
    flat_from: int | None = None
    """Nor after this one: what it came to is drawn to the axis' end."""
    goes_on_to: int | None = None
    """It went on to this step, beyond the axis."""


def overlaid(run: RunCurve, first: int, last: int) -> Overlay | None:
    """The other run's curve on an axis from step `first` to step `last`; None where they have no stretch of steps in common."""
    other = run.curve
    if min(other.last, last) <= max(other.first, first):
        return None
    return Overlay(
        _on_axis(run, first, last),
        flat_until=other.first if other.first > first else None,
        flat_from=other.last if other.last < last else None,
        goes_on_to=other.last if other.last > last else None,
    )


def _on_axis(run: RunCurve, first: int, last: int) -> tuple[float, ...]:
    other = run.curve
    if (other.first, other.last) == (first, last):
        return other.values
    distance = (other.last - other.first) / (len(other.values) - 1)
    steps = [other.first + place * distance for place in range(len(other.values))]
    inside = [(step, value) for step, value in zip(steps, other.values, strict=True) if first < step < last]
    known = [(first, _at(first, steps, other.values)), *inside, *([] if other.last < last else [(last, _at(last, steps, other.values))])]
    points = [Point(round((step - first) / (last - first) * _FINE), value) for step, value in known]
    if other.last < last:
        points += [Point(min(points[-1].step + 1, _FINE), run.value), Point(_FINE, run.value)]
    # Where its values lie closer than what is drawn, each part keeps its least and its greatest, as every curve does.
    reduced = curve_of(other.name, points, CURVE_POINTS)
    values = reduced.values if reduced is not None else ()
    ended = [first + place * (last - first) / max(len(values) - 1, 1) > other.last for place in range(len(values))]
    return tuple(run.value if over else value for value, over in zip(values, ended, strict=True))


def _at(step: float, steps: list[float], values: tuple[float, ...]) -> float:
    """The value on the line between the two nearest; before its beginning the first one, behind its end the last one."""
    for number in range(1, len(steps)):
        if step < steps[number]:
            share = max((step - steps[number - 1]) / (steps[number] - steps[number - 1]), 0.0)
            return values[number - 1] * (1 - share) + values[number] * share
    return values[-1]
