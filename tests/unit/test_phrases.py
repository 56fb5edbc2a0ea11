"""Words for people."""

from datetime import datetime, timezone

import pytest

from dispatcher.phrases import clock, duration, number, numbers_apart, percent, plural, size


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (8, "8s"), (60, "1m"), (724, "12m 04s"), (14400, "4h"), (93784, "26h 03m"), (-5, "0s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 B"), (999, "999 B"), (54_800_000, "54.8 MB"), (1_200_000_000_000, "1.2 TB")])
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words


def test_counts_and_times() -> None:
    noon = datetime(2026, 11, 20, 12, 5, tzinfo=timezone.utc)
    assert (plural(1, "node"), plural(3412, "file")) == ("1 node", "3,412 files")
    assert (clock(noon, noon), clock(noon, noon.replace(day=21))) == ("12:05 UTC", "2026-11-20 12:05 UTC")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.87312, "1.873"),
        (412, "412"),
        (1234.567, "1,234.6"),
        (41870.0, "41,870"),
        (float("nan"), "nan"),
        ("cpu", "cpu"),
        (None, "no value"),
        (1e308, "1e+308"),
        (-2.5e9, "-2.5e+09"),
        (2**40, "1,099,511,627,776"),
    ],
)
def test_numbers(value: float | int | str | None, words: str) -> None:
    assert number(value) == words


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (2.1, 2.0, ("2.1", "2")),
        (2.00001, 2.0, ("2.00001", "2")),
        (2.0, 2.0, ("2", "2")),
        (123456.01, 123456.02, ("123456.01", "123456.02")),
        (0.1 + 0.2, 0.3, ("0.30000000000000004", "0.29999999999999999")),
    ],
)
def test_two_numbers_that_differ_are_not_written_alike(one: float, other: float, words: tuple[str, str]) -> None:
    assert numbers_apart(one, other) == words


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.2014, "20.1 %"),
        (0.00961, "0.961 %"),
        (9.994, "999 %"),
        (61.1, "6,110 %"),
        (1e12, "1e+14 %"),
        (float("inf"), "inf %"),
    ],
)
def test_shares(share: float, words: str) -> None:
    assert percent(share) == words
    assert (percent(share, sign=True), percent(-share, sign=True)) == (f"+{words}", f"−{words}")
