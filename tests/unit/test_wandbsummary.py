"""W&B's summary file: which of it are numbers."""

from __future__ import annotations

import json
import math

import pytest

from dispatcher.results import MAX_METRICS
from dispatcher.wandbsummary import parse_summary


def test_numbers_by_name_and_the_step() -> None:
    summary = parse_summary(
        b'{"loss": 1.5, "train/acc": 1, "eval": {"f1": {"max": 0.5}, "_secret": 1}, "_step": 41, "_runtime": 3.5, "_timestamp": 1.7e9,'
        b' "_wandb": {"runtime": 3}, "flag": true, "note": "hi", "list": [1, 2], "none": null, "bad]name(": 1,'
        b' "image": {"_type": "image-file", "width": 64}, "h": {"_type": "histogram", "values": [1]}}'
    )
    assert summary.metrics == {"loss": 1.5, "train/acc": 1, "eval.f1.max": 0.5}
    assert (summary.step, summary.problem) == (41, "")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('"Infinity"', math.inf),
        ('"-Infinity"', -math.inf),
        ("-Infinity", -math.inf),
        ("1e999", math.inf),
        ("1" + "0" * 40, math.inf),
        ("-1" + "0" * 40, -math.inf),
    ],
)
def test_infinities(written: str, expected: float) -> None:
    assert parse_summary(f'{{"loss": {written}}}'.encode()).metrics == {"loss": expected}


@pytest.mark.parametrize("written", ["NaN", '"NaN"'])
def test_nan(written: str) -> None:
    assert math.isnan(parse_summary(f'{{"loss": {written}}}'.encode()).metrics["loss"])


@pytest.mark.parametrize("step", ["true", "-1", "1e3", '"5"', "null", "1" + "0" * 40])
def test_a_step_that_is_none(step: str) -> None:
    assert parse_summary(f'{{"_step": {step}}}'.encode()).step is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),  # more digits than Python reads
        (b"[1]", "not one JSON object"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(content: bytes, problem: str) -> None:
    summary = parse_summary(content)
    assert problem in summary.problem
    assert summary.metrics == {}


def test_too_big_and_not_there() -> None:
    assert "larger than 256 KiB" in parse_summary(None, too_big=True).problem
    assert parse_summary(None).problem == ""


def test_so_many_and_no_deeper() -> None:
    many = {f"m{number}": number for number in range(MAX_METRICS + 50)}
    assert len(parse_summary(json.dumps(many).encode()).metrics) == MAX_METRICS
    assert parse_summary(b'{"a":' * 50 + b'{"x": 1}' + b"}" * 50).metrics == {}
