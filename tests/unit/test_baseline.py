"""What the ledger remembers of the default branch, and what becomes the baseline."""

from __future__ import annotations

import json
import math
from datetime import timedelta

import pytest

from dispatcher.baseline import LINE_LIMIT, acceptance_of, history_name, line_of, parse_history
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


def test_texts_and_what_is_no_number_are_not_remembered() -> None:
    record = run_record(results={"a": 1, "b": "x", "c": None, "d": math.nan, "e": 2.5}, state=State.SUCCEEDED)
    assert parse_history(line_of(record, NOON)).entries[0].metrics == {"a": 1.0, "e": 2.5}


def test_what_may_be_compared_has_one_name() -> None:
    assert history_name("Org/Repo", "a", "b") == history_name("org/repo", "a", "b")
    assert len({history_name("org/repo", *pair) for pair in (("a", "b"), ("a", "c"), ("b", "a"), ("ab", ""))}) == 4
