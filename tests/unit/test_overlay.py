"""Another run's curve on the steps of a chart: what is left out, what is filled in, and that no number is made up in between."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dispatcher.overlay import Overlay, RunCurve, overlaid
from dispatcher.series import CURVE_POINTS, MOST_STEPS, Curve, Point, curve_of

RAMP = (0.0, 1.0, 2.0, 3.0, 4.0)


def run(first: int, last: int, values: tuple[float, ...] = RAMP, value: float = 9.0) -> RunCurve:
    return RunCurve(run_key="a" * 16, sha="b" * 40, value=value, curve=Curve(name="loss", first=first, last=last, values=values))


def at(drawn: Overlay, share: float) -> float:
    return drawn.values[round(share * (len(drawn.values) - 1))]


def test_the_same_steps_are_drawn_as_they_are() -> None:
    assert overlaid(run(1, 5), 1, 5) == Overlay(RAMP)


def test_what_ended_earlier_goes_on_as_what_it_came_to() -> None:
    drawn = overlaid(run(0, 50), 0, 100)
    assert drawn is not None
    assert (drawn.flat_from, drawn.flat_until, drawn.goes_on_to) == (50, None, None)
    assert at(drawn, 0.25) == pytest.approx(2.0, abs=0.2)
    half = len(drawn.values) // 2
    assert set(drawn.values[half:]) == {9.0}
    assert 9.0 not in drawn.values[:half]


def test_what_goes_on_is_cut() -> None:
    drawn = overlaid(run(0, 200), 0, 100)
    assert drawn is not None
    assert (drawn.values[0], drawn.values[-1], drawn.goes_on_to, drawn.flat_from) == (0.0, 2.0, 200, None)
    assert 9.0 not in drawn.values


def test_what_begins_later_is_flat_before() -> None:
    drawn = overlaid(run(50, 100, (3.0, 2.0, 1.0)), 0, 100)
    assert drawn is not None
    assert (drawn.flat_until, drawn.values[-1]) == (50, 1.0)
    assert drawn.values[: len(drawn.values) // 2] == pytest.approx([3.0] * (len(drawn.values) // 2))


@pytest.mark.parametrize(("first", "last"), [(200, 300), (100, 300), (0, 0), (9, 3), (0, MOST_STEPS)])
def test_no_steps_in_common_are_no_curve(first: int, last: int) -> None:
    found = overlaid(run(first, last), 50, 100)
    assert (found is None) == (last != MOST_STEPS)


def test_a_spike_of_one_step_is_still_there() -> None:
    noisy = curve_of("loss", [Point(step, 50.0 if step == 700 else 1.0 + step % 2) for step in range(1000)])
    assert noisy is not None
    for first, last in ((0, 999), (0, 5000), (-200 + 300, 900)):
        drawn = overlaid(RunCurve(run_key="a" * 16, sha="b" * 40, value=1.0, curve=noisy), first, last)
        assert drawn is not None
        assert max(drawn.values) == 50.0


steps = st.integers(0, 2000) | st.integers(0, MOST_STEPS)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(steps, steps, st.lists(numbers, min_size=2, max_size=CURVE_POINTS), numbers, steps, steps)
def test_whatever_the_ledger_says(first: int, last: int, values: list[float], value: float, begin: int, end: int) -> None:
    drawn = overlaid(run(first, last, tuple(values), value), begin, max(end, begin + 1))
    if drawn is not None:
        assert 2 <= len(drawn.values) <= CURVE_POINTS
        least, most = min(*values, value), max(*values, value)
        room = 1e-9 * max(abs(least), abs(most))
        assert all(math.isfinite(one) and least - room <= one <= most + room for one in drawn.values)


@pytest.mark.parametrize("fields", [{"value": math.nan}, {"run_key": "../x"}, {"sha": "main"}, {"more": 1}])
def test_what_is_no_run_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RunCurve.model_validate({**run(1, 5).model_dump(), **fields})
