"""What the ledger remembers of the default branch, and what becomes the baseline."""

from __future__ import annotations

import json
import math
from datetime import timedelta

import pytest

from dispatcher.baseline import LINE_LIMIT, acceptance_of, history_name, line_of, parse_history
from dispatcher.series import CURVE_POINTS, MOST_CURVES, Curve, Point, curve_of
from dispatcher.slurm import State
from dispatcher.thresholds import Compared
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
        ((2.0, 4.0), 10, 3.0, math.sqrt(2)),
        ((1.0, 2.0, 9.0), 10, 2.0, math.sqrt(19)),
        ((9.0, 1.0, 2.0, 3.0), 3, 2.0, 1.0),
        ((1.0, 1.9, 2.0, 2.1, 2.2, 9.0), 10, 2.05, 0.15 * 1.4826 * 1.2),
        ((2.0,) * 9 + (50.0,), 10, 2.0, 0.0),
        ((2.0, 2.1, 1.9, math.nan, math.inf), 3, 2.0, 0.1),
        ((2.0, 1.7e308, -1.7e308), 3, 2.0, None),
    ],
)
def test_the_median_and_how_much_it_scatters(losses: tuple[float, ...], window: int, value: float, spread: float | None) -> None:
    found = parse_history(history(*losses)).rolling("loss", window)
    assert found is not None
    assert found.value == pytest.approx(value)
    assert spread is None or found.spread == pytest.approx(spread)
    assert math.isfinite(found.spread)


def test_there_may_be_nothing() -> None:
    assert parse_history("").rolling("loss", 10) is None
    assert parse_history(history(1.0)).rolling("accuracy", 10) is None
    assert parse_history(history(1.0)).of_commit(OTHER, "loss") is None


def acceptance(loss: float | None, by: str = "alice", why: str = "", key: str = "f" * 16) -> str:
    results = {"other": 1.0} if loss is None else {"loss": loss, "other": 1.0}
    return acceptance_of(run_record(run_key=key, results=results, state=State.SUCCEEDED), by, why, NOON)


def against(*lines: str, window: int = 10) -> Compared:
    found = parse_history("\n".join(lines)).rolling("loss", window)
    assert found is not None
    return found


def test_an_acceptance_counts_alone_and_then_not_at_all() -> None:
    """It is never mixed with what it was meant to replace, nor with what comes after it; the noise is that of runs of one kind."""
    before = [line(number, loss) for number, loss in enumerate((1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0), 1)]
    accepted = acceptance(2.0, why="a longer\nwarm-up")
    found = against(*before, accepted)
    assert (found.value, found.words) == (2.0, "the accepted run ffffffff (by alice on 2024-05-06: a longer warm-up)")
    noise = against(*before)
    assert found.spread == pytest.approx(2 * noise.spread), "as a share it is that of the runs before"
    assert found.deviations is not None
    assert noise.deviations is not None
    assert found.deviations > noise.deviations, "one run is less sure than the median of several"
    old = [line(20, 1.0), line(21, 1.0)]
    for count in (1, 2):
        assert against(*before, accepted, *old[:count]) == found, "a nightly of the old code moves nothing"
    later = against(*before, accepted, line(20, 2.02), line(21, 1.98), line(22, 2.0))
    assert (later.value, later.words) == (2.0, "the median of 3 runs of the default branch")
    assert later.spread == pytest.approx(0.02)


def test_an_acceptance_without_the_metric_takes_nothing_away() -> None:
    before = history(1.0, 1.1, 0.9)
    assert against(before, acceptance(None)) == against(before)
    found = against(before, acceptance(2.0), acceptance(None, key="e" * 16))
    assert found.value == 2.0
    twice = against(before, acceptance(2.0), acceptance(3.0, key="e" * 16))
    assert (twice.value, twice.spread) == (3.0, pytest.approx(0.3)), "the noise is that of the last runs that can tell"
    assert parse_history(acceptance(None)).rolling("loss", 10) is None


def test_of_nothing_but_one_run_no_noise_is_known() -> None:
    assert against(line(1, 1.0)).deviations is None
    assert against(acceptance(1.0)).deviations is None
    assert against(line(1, 1.0), acceptance(2.0), line(2, 1.0)).deviations is None
    assert against(line(1, 1.0), line(2, 1.1), line(3, 1.2), window=1).deviations is not None


def test_why_is_short() -> None:
    words = against(acceptance(1.0, why="x" * 500)).words
    assert words.endswith("x…)")
    assert len(words) < 140


def test_one_measurement_counts_once_whatever_takes_it_over() -> None:
    reused = [line(number, 1.9, same_as=f"{1:016x}", same_sha=OTHER, sha=f"{number:040x}") for number in range(5, 10)]
    text = [line(1, 1.9), line(2, 2.0), *reused]
    assert against(*text).words == "the median of 2 runs of the default branch"
    assert against(*text) == against(*text[:2])
    found = parse_history("\n".join(text)).of_commit(f"{7:040x}", "loss")
    assert found is not None
    assert found.value == 1.9, "each of the commits has its run"
    assert against(*reused).words == "the default branch's only run", "as the queue takes over what ran on the pull request"


def test_the_merge_bases_noise_is_that_of_its_own_kind() -> None:
    text = [line(1, 1.0), line(2, 1.1), line(3, 1.2, sha=OTHER), acceptance(2.0), line(4, 2.0), line(5, 2.5), line(6, 1.5)]
    found = parse_history("\n".join(text)).of_commit(OTHER, "loss")
    assert found is not None
    assert found.spread == pytest.approx(0.1 / 1.1 * 1.2)
    alone = parse_history(line(1, 1.0, sha=OTHER)).of_commit(OTHER, "loss")
    assert alone is not None
    assert alone.deviations is None


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


def test_a_name_with_what_unicode_takes_for_the_end_of_a_line_breaks_no_line() -> None:
    record = run_record(state=State.SUCCEEDED, results={"loss\u2028": 1.0, "loss": 2.0})
    accepted = acceptance_of(record, "alice", "because\x85of\u2029it", NOON)
    found = parse_history(f"{line_of(record, NOON)}\n{accepted}\n")
    assert (len(found.entries), found.unreadable) == (2, 0)


def test_of_a_long_history_the_first_line_may_be_cut() -> None:
    text = f'x"}}\n{line(1, 2.0)}\n'
    assert parse_history(text).unreadable == 1
    assert parse_history(text + "\n" * (1 << 20)).unreadable == 0


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
