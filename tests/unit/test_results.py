"""A results file is untrusted: what is usable becomes metrics, all else says why not; nothing raises."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.results import BrokenResults, NoResults, Results, parse_results


def test_numbers_texts_and_one_level_of_nesting() -> None:
    outcome = parse_results(b'{"loss": 1.873, "steps": 200, "device": "cpu", "val": {"loss": 2}}')
    assert outcome == Results({"loss": 1.873, "steps": 200, "device": "cpu", "val.loss": 2})


def test_a_diverged_run_says_so() -> None:
    outcome = parse_results(b'{"loss": NaN, "norm": Infinity}')
    assert isinstance(outcome, Results)
    assert math.isnan(float(str(outcome.metrics["loss"])))
    assert outcome.metrics["norm"] == math.inf


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "one JSON object"),
        (b'{"a": [1]}', "neither a number"),
        (b'{"a": true}', "neither a number"),
        (b'{"a`b": 1}', "not allowed"),
        (b'{"<img>": 1}', "not allowed"),
        (b"[" * 100_000, "not JSON"),
        (json.dumps({str(i): i for i in range(201)}).encode(), "more than 200"),
    ],
)
def test_what_cannot_be_used_says_why(content: bytes, why: str) -> None:
    outcome = parse_results(content)
    assert isinstance(outcome, BrokenResults)
    assert why in outcome.why


def test_absent_and_too_big() -> None:
    assert parse_results(None) == NoResults()
    assert isinstance(parse_results(b"{}", too_big=True), BrokenResults)


@given(st.binary(max_size=200))
def test_nothing_raises(content: bytes) -> None:
    parse_results(content)
