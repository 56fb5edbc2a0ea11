"""What the ledger remembers of the default branch, and what becomes the baseline."""

from __future__ import annotations

import json
import math
from datetime import timedelta

import pytest

from dispatcher.baseline import LINE_LIMIT, acceptance_of, history_name, line_of, parse_history
from dispatcher.series import CURVE_POINTS, MOST_CURVES, Curve, Point, curve_of
from dispatcher.slurm import State
from tests.fakes import NOON, OTHER, run_record


def line(number: int, loss: float, **fields: object) -> str:
    record = run_record(run_key=f"{number:016x}", results={"loss": loss}, state=State.SUCCEEDED, **fields)
    return line_of(record, NOON + timedelta(hours=number))


def history(*losses: float) -> str:
    return "\n".join(line(number, loss) for number, loss in enumerate(losses, 1))


@pytest.mark.parametrize(
    ("losses", "window", "value", "spread"),
    [
        ((2.0,), 10, 2.0, 0.0),
        ((2.0, 4.0), 10, 3.0, 1.4826 * 1.196),
        ((1.0, 2.0, 9.0), 10, 2.0, 1.4826 * 1.495),
        ((9.0, 1.0, 2.0, 3.0), 3, 2.0, 1.4826 * 1.495),
        ((2.0,) * 9 + (50.0,), 10, 2.0, 0.0),
        ((2.0, 2.1, 1.9, math.nan, math.inf), 3, 2.0, 0.1 * 1.4826 * 1.495),
    ],
)
def test_the_median_and_how_much_it_scatters(losses: tuple[float, ...], window: int, value: float, spread: float) -> None:
    found = parse_history(history(*losses)).rolling("loss", window)
    assert found is not None
    assert found.value == pytest.approx(value)
    assert found.spread == pytest.approx(spread)


def test_there_may_be_nothing() -> None:
    assert parse_history("").rolling("loss", 10) is None
    assert parse_history(history(1.0)).rolling("accuracy", 10) is None
    assert parse_history(history(1.0)).of_commit(OTHER, "loss") is None


def test_an_acceptance_begins_anew() -> None:
    accepted = run_record(run_key="f" * 16, results={"loss": 3.0}, state=State.SUCCEEDED)
    text = history(1.0, 1.1) + "\n" + acceptance_of(accepted, "alice", "a longer warm-up", NOON) + "\n"
    found = parse_history(text).rolling("loss", 10)
    assert found is not None
    assert (found.value, found.words) == (3.0, "the accepted run ffffffff (by alice)")
    assert parse_history(text).accepted.why == "a longer warm-up"  # type: ignore[union-attr]
    later = parse_history(text + line(7, 3.2)).rolling("loss", 10)
    assert later is not None
    assert (later.value, later.words) == (pytest.approx(3.1), "the median of 2 runs of the default branch")


def test_the_same_run_counts_once_and_a_commit_is_found() -> None:
    text = "\n".join([line(1, 2.0), line(2, 3.0), line(1, 2.0), line(3, 2.5, sha=OTHER), line(3, 2.6, sha=OTHER)])
    assert len(parse_history(text).entries) == 3
    found = parse_history(text).of_commit(OTHER, "loss")
    assert found is not None
    assert (found.value, found.words) == (2.6, f"the merge base's run ({OTHER[:7]})")


def test_what_others_wrote_there_is_left_out() -> None:
    good = json.loads(line(1, 2.0))
    bad = [
        "",
        "not json",
        "[]",
        "{}",
        json.dumps({**good, "run_key": "../../x"}),
        json.dumps({**good, "metrics": {"loss": "x"}}),
        json.dumps({**good, "kind": "root"}),
        json.dumps({**good, "sha": "main"}),
        "\x00" * 10,
        line(9, 5.0)[:-5],
    ]
    assert len(parse_history("\n".join([*bad, line(1, 2.0), *bad])).entries) == 1


def test_a_line_is_short_whatever_was_measured() -> None:
    many = {f"{'m' * 90}{number}": float(number) for number in range(2000)}
    text = line_of(run_record(results=many, state=State.SUCCEEDED), NOON)
    assert len(text) <= LINE_LIMIT
    assert "\n" not in text
    assert len(parse_history(text).entries[0].metrics) > 100


def curve(name: str = "loss", *values: float) -> Curve:
    return Curve(name=name, first=1, last=100, values=values or (2.0, 1.0))


def with_curve(number: int, loss: float) -> str:
    return line(number, loss, curves=(curve("loss", 9.0, loss),))


@pytest.mark.parametrize(
    ("lines", "window", "expected"),
    [
        ([with_curve(1, 1.0), with_curve(2, 2.0), with_curve(3, 9.0)], 10, 2),
        ([with_curve(1, 1.0), with_curve(2, 2.1), with_curve(3, 1.9), with_curve(4, 9.0)], 10, 3),
        ([with_curve(1, 2.0), with_curve(2, 2.0), with_curve(3, 2.0)], 10, 3),
        ([with_curve(1, 1.0), line(2, 2.0), with_curve(3, 9.0)], 10, 1),
        ([with_curve(1, 1.0), line(2, 2.0), line(3, 9.0)], 2, None),
        ([line(1, 1.0, curves=(curve("accuracy"),))], 10, None),
    ],
)
def test_the_curve_is_that_of_the_run_nearest_to_the_median(lines: list[str], window: int, expected: int | None) -> None:
    found = parse_history("\n".join(lines)).rolling("loss", window)
    assert found is not None
    assert (found.curve.run_key if found.curve else None) == (f"{expected:016x}" if expected else None)
    if found.curve:
        assert found.curve.curve.values[-1] == found.curve.value


def test_an_accepted_run_and_a_merge_base_have_their_own_curves() -> None:
    accepted = run_record(run_key="f" * 16, results={"loss": 3.0}, state=State.SUCCEEDED, curves=(curve("loss", 4.0, 3.0),))
    history = parse_history("\n".join([with_curve(1, 1.0), acceptance_of(accepted, "alice", "", NOON)]))
    found = history.rolling("loss", 10)
    assert found is not None
    assert found.curve is not None
    assert (found.curve.run_key, found.curve.curve.values) == ("f" * 16, (4.0, 3.0))
    of_base = parse_history("\n".join([line(1, 2.0, sha=OTHER, curves=(curve(),)), with_curve(2, 5.0)])).of_commit(OTHER, "loss")
    assert of_base is not None
    assert of_base.curve is not None
    assert (of_base.curve.run_key, of_base.curve.sha) == (f"{1:016x}", OTHER)


def test_a_curve_that_cannot_be_read_costs_no_metric() -> None:
    good = json.loads(with_curve(1, 2.0))
    whole = good["curves"][0]
    for bad in (
        None,
        "x",
        {"a": 1},
        [1],
        [{**whole, "values": [1]}],
        [{**whole, "values": [1, "x"]}],
        [{**whole, "first": 10**400}],
        [{**whole, "values": [1.0, math.nan]}],
        [{**whole, "later": True}],
        [{**whole, "name": "|x"}],
    ):
        [entry] = parse_history(json.dumps({**good, "curves": bad})).entries
        assert (entry.metrics, entry.curves) == ({"loss": 2.0}, ())
    [many] = parse_history(json.dumps({**good, "curves": [whole] * 1000})).entries
    assert len(many.curves) == MOST_CURVES
    del good["curves"]
    assert parse_history(json.dumps(good)).entries[0].curves == (), "as lines were before there were curves"


def test_curves_are_forgotten_before_metrics() -> None:
    points = [Point(step, 1 / 3 + step / 7) for step in range(10_000)]
    curves = tuple(found for name in "abcd" if (found := curve_of(name, points)) is not None)
    usual = line_of(run_record(results=dict.fromkeys("abcd", 1 / 3), state=State.SUCCEEDED, curves=curves), NOON)
    assert len(usual) < 4_000, "every comparison reads all lines"
    [entry] = parse_history(usual).entries
    assert [len(found.values) for found in entry.curves] == [CURVE_POINTS] * 4
    assert entry.curves[0].values[-1] == pytest.approx(points[-1].value, rel=1e-7)
    for count, kept in ((295, 2), (310, 0), (600, 0)):
        results = {f"{'m' * 90}{number:03}": float(number) for number in range(count)}
        text = line_of(run_record(results=results, state=State.SUCCEEDED, curves=curves), NOON)
        assert len(text) <= LINE_LIMIT
        [entry] = parse_history(text).entries
        assert len(entry.curves) == kept
        assert (len(entry.metrics) == count) == (count < 600)


def test_texts_and_what_is_no_number_are_not_remembered() -> None:
    record = run_record(results={"a": 1, "b": "x", "c": None, "d": math.nan, "e": 2.5}, state=State.SUCCEEDED)
    assert parse_history(line_of(record, NOON)).entries[0].metrics == {"a": 1.0, "e": 2.5}


def test_what_may_be_compared_has_one_name() -> None:
    assert history_name("Org/Repo", "a", "b") == history_name("org/repo", "a", "b")
    assert len({history_name("org/repo", *pair) for pair in (("a", "b"), ("a", "c"), ("b", "a"), ("ab", ""))}) == 4
