"""A results file is untrusted: what is usable becomes metrics, all else says why not; nothing raises."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.answer import Voice
from dispatcher.record import parse_record
from dispatcher.report import run_report
from dispatcher.results import BrokenResults, NoResults, Results, parse_results
from dispatcher.slurm import State
from dispatcher.thresholds import Compared, MetricRule, judge
from tests.fakes import NOON, run_record


def test_numbers_texts_and_one_level_of_nesting() -> None:
    outcome = parse_results(b'{"loss": 1.873, "steps": 200, "device": "cpu", "val": {"loss": 2}}')
    assert outcome == Results({"loss": 1.873, "steps": 200, "device": "cpu", "val.loss": 2})


def test_names_of_other_programs_and_a_byte_order_mark() -> None:
    """As lm-evaluation-harness and torchtitan call them."""
    names = {"acc,none": 0.5, "mfu(%)": 41.5, "time_metrics/end_to_end(s)": 1.5, "recall@5+": 1}
    assert parse_results(b"\xef\xbb\xbf" + json.dumps(names).encode()) == Results(names)


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert parse_results(b'{"loss": 1, "note": "a\\ud800b"}') == Results({"loss": 1, "note": "a?b"})


def test_a_diverged_run_says_so() -> None:
    outcome = parse_results(b'{"loss": NaN, "norm": Infinity}')
    assert isinstance(outcome, Results)
    assert math.isnan(float(str(outcome.metrics["loss"])))
    assert outcome.metrics["norm"] == math.inf


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the results file is empty"),
        (b"\xff\xfe", "not JSON (no UTF-8 from byte 0 on)"),
        (b'{"loss": 1,\n "acc" 2}', "not JSON (Expecting ':' delimiter, line 2, column 8)"),
        (b"[1]", "one JSON object"),
        (b'{"a": [1]}', "neither a number"),
        (b'{"a": true}', "neither a number"),
        (b'{"a`b": 1}', "a name in the results file has U+0060 in it"),
        (b'{"a=b": 1}', "has `=` in it"),
        (b'{"<img>": 1}', "begins with `<`"),
        (b'{"": 1}', "a name in the results file is empty"),
        (b'{"' + b"n" * 101 + b'": 1}', "longer than 100"),
        (b"[" * 100_000, "not JSON"),
        (b'{"loss": 9, "loss": 1}', "twice: `loss`"),
        (b'{"val": {"loss": 9, "loss": 1}}', "twice: `loss`"),
        (b'{"val": {"loss": 9}, "val.loss": 1}', "twice: `val.loss`"),
        (b'{"<img>": 9, "<img>": 1}', "a name stands in the results file twice"),
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


# Every text that JSON can write, half surrogate pairs too, and every number.
_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
_LEAF = st.none() | st.booleans() | st.integers() | st.floats() | _TEXT
_NAMES = st.sampled_from(["loss", "val/loss", "a b"]) | _TEXT
_OBJECTS = st.dictionaries(_NAMES, _LEAF | st.dictionaries(_NAMES, _LEAF, max_size=3) | st.lists(_LEAF, max_size=2), max_size=5)


@given(_OBJECTS)
def test_whatever_json_a_job_writes_its_run_can_be_kept_judged_and_told(document: dict[str, object]) -> None:
    outcome = parse_results(json.dumps(document).encode())
    if not isinstance(outcome, Results):
        return
    rules = {"loss": MetricRule(max=3.0), "val/loss": MetricRule.model_validate({"no_worse_than": "baseline"})}
    verdicts = judge(rules, outcome.metrics, {"baseline": {"val/loss": Compared(2.0, 0.1, "the median")}})
    record = run_record(state=State.SUCCEEDED, results=dict(outcome.metrics), verdicts=verdicts, started_at=NOON, ended_at=NOON)
    again = parse_record(record.to_json().encode().decode())
    assert again.to_json() == record.to_json()
    told = run_report(again, "", NOON, Voice())
    assert told.comment.encode()
