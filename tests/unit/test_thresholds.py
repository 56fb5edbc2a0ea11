"""Rules for metrics: what passes, what warns, what fails, and the one sentence that says why."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import ConfigError
from dispatcher.policy import load_policy
from dispatcher.reading import load_document
from dispatcher.results import Value
from dispatcher.slurm import State
from dispatcher.thresholds import Compared, MetricRule, MetricVerdict, NotFound, judge, worst
from dispatcher.verdictreport import verdict_lines
from tests.bench import thresholds
from tests.fakes import run_record

BASE = Compared(2.0, 0.01, "the median of 10 runs")
SOURCES = {"baseline": {"loss": BASE}, "merge-base": {"loss": Compared(1.9, 0.0, "the merge base's run")}}


def verdict(value: Value, sources: Any = SOURCES, /, **rule: Any) -> MetricVerdict:
    metrics = {} if value == "absent" else {"loss": value}
    [found] = judge({"loss": MetricRule.model_validate(rule)}, metrics, sources)
    return found


@pytest.mark.parametrize(
    ("value", "rule", "outcome", "why"),
    [
        (1.0, {"max": 2}, "pass", "loss 1 is within ≤ 2"),
        (2.0, {"max": "2.0"}, "pass", "loss 2 is within ≤ 2"),
        (2.5, {"max": 2}, "fail", "loss 2.5 is above 2"),
        (2.5, {"max": 2, "level": "warn"}, "warn", "loss 2.5 is above 2"),
        (3e-5, {"min": "1e-4"}, "fail", "loss 3e-05 is below 0.0001"),
        (400, {"min": 400}, "pass", "loss 400 is within ≥ 400"),
        (0.5, {"range": [0.7, "1.0"]}, "fail", "loss 0.5 is below 0.7"),
        (0.8, {"range": [0.7, 1], "min": 0.9}, "fail", "loss 0.8 is below 0.9"),
        (0.95, {"range": [0.7, 1], "min": 0.9}, "pass", "loss 0.95 is within 0.9 – 1"),
        (2.04, {"max_increase": "2%"}, "pass", "loss 2.04 is 2 % above the median of 10 runs, 2 (limit +2 %)"),
        (2.05, {"max_increase": "2%"}, "fail", "loss 2.05 is 2.5 % above the median of 10 runs, 2 (limit +2 %)"),
        (2.05, {"max_increase": 0.1}, "pass", "loss 2.05 is 2.5 % above the median of 10 runs, 2 (limit +5 %)"),
        (1.0, {"max_increase": "2%"}, "pass", "loss 1 is 50 % below the median of 10 runs, 2 (limit +2 %)"),
        (1.9, {"max_decrease": "2 %"}, "fail", "loss 1.9 is 5 % below the median of 10 runs, 2 (limit −2 %)"),
        (1.95, {"max_increase": "2%", "against": "merge-base"}, "fail", "loss 1.95 is 2.63 % above the merge base's run, 1.9 (limit +2 %)"),
        (1.95, {"max_increase": "3%", "against": 1.9}, "pass", "loss 1.95 is 2.63 % above the policy's number, 1.9 (limit +3 %)"),
        # The noise of the baseline's own runs: three deviations of 0.01.
        (2.03, {"no_worse_than": "baseline"}, "pass", "loss 2.03 is 1.5 % above the median of 10 runs, 2 (limit +1.5 %)"),
        (2.031, {"no_worse_than": "baseline"}, "fail", None),
        (1.0, {"no_worse_than": "baseline"}, "pass", None),
        (1.969, {"no_worse_than": "baseline", "better": "higher"}, "fail", None),
        (9.0, {"no_worse_than": "baseline", "better": "higher"}, "pass", None),
        (2.0, {"no_worse_than": 1.9}, "fail", "loss 2 is 5.26 % above the policy's number, 1.9 (limit +0 %)"),
        (2.0, {"no_worse_than": "merge-base", "tolerance": "10%"}, "pass", None),
        (2.2, {"max": 3, "max_increase": "2%"}, "fail", None),
        (3.5, {"max": 3, "max_increase": "200%"}, "fail", "loss 3.5 is above 3"),
        # The words are beyond the limit where the value is, and only there.
        (2.0401, {"max_increase": "2%"}, "fail", "loss 2.04 is 2.005 % above the median of 10 runs, 2 (limit +2 %)"),
        (2.03991, {"max_increase": "1.996%"}, "pass", "loss 2.04 is 1.995 % above the median of 10 runs, 2 (limit +1.996 %)"),
        # Training that diverged.
        (300_000.0, {"max_increase": "2%"}, "fail", "loss 300,000 is 15,000,000 % above the median of 10 runs, 2 (limit +2 %)"),
        (-300.0, {"max_decrease": "2%"}, "fail", "loss -300 is 15,100 % below the median of 10 runs, 2 (limit −2 %)"),
        (1e308, {"max_increase": "2%", "against": "-1e308"}, "fail", "loss 1e+308 is far above the policy's number, -1e+308 (limit +2 %)"),
        # What is no number is never good.
        ("absent", {"max": 2}, "fail", "loss was not reported"),
        ("absent", {"max": 2, "missing": "warn"}, "warn", "loss was not reported"),
        ("absent", {"max": 2, "missing": "pass"}, "pass", "loss was not reported"),
        (None, {"max": 2}, "fail", "loss was not reported"),
        ("1.0", {"max": 2}, "fail", "loss is a text, not a number"),
        (math.nan, {"max": 2, "level": "warn"}, "fail", "loss is not a number (NaN)"),
        (-math.inf, {"max": 2}, "fail", "loss is infinite"),
    ],
)  # fmt: skip
def test_one_metric(value: Value, rule: dict[str, Any], outcome: str, why: str | None) -> None:
    found = verdict(value, **rule)
    assert found.outcome == outcome, found
    assert why is None or found.why == why


@pytest.mark.parametrize("reference", ["baseline", "merge-base"])
def test_of_one_run_nobody_knows_the_noise(reference: str) -> None:
    """So a difference fails nobody, unless the rule says itself how much may pass."""
    one = {reference: {"loss": Compared(2.0, 0.0, "the default branch's only run", deviations=None)}}
    found = verdict(2.9, one, no_worse_than=reference)
    why = "only a warning: too few runs to know how much is noise, and the rule has no `tolerance`"
    assert (found.outcome, found.limit) == ("warn", "")
    assert found.why == f"loss 2.9 is 45 % above the default branch's only run, 2 ({why})"
    assert verdict(1.9, one, no_worse_than=reference).outcome == "pass"
    assert verdict(2.9, one, no_worse_than=reference, tolerance="2%").outcome == "fail"
    assert verdict(2.9, one, max_increase="2%", against=reference).outcome == "fail"


def test_the_merge_bases_noise_is_let_pass_too() -> None:
    base = {"merge-base": {"loss": Compared(2.0, 0.01, "the merge base's run", deviations=4.0)}}
    assert verdict(2.039, base, no_worse_than="merge-base").outcome == "pass"
    assert verdict(2.041, base, no_worse_than="merge-base").outcome == "fail"


@pytest.mark.parametrize(("level", "outcome"), [("block", "fail"), ("warn", "warn")])
def test_what_could_not_be_found_out_is_not_good(level: str, outcome: str) -> None:
    sources = {"merge-base": {"loss": NotFound("GitHub did not say")}}
    found = verdict(1.0, sources, no_worse_than="merge-base", no_baseline="pass", level=level)
    assert (found.outcome, found.why) == (outcome, "loss could not be compared with the merge-base: GitHub did not say")


@pytest.mark.parametrize(
    ("rule", "movable"),
    [
        ({"max_increase": "2%"}, True),
        ({"no_worse_than": "baseline"}, True),
        ({"no_worse_than": "merge-base"}, False),
        ({"no_worse_than": 1.0}, False),
        ({"max": 2}, False),
        ({"max": 2, "max_increase": "2%"}, False),
        ({"max_increase": "99%"}, False),
    ],
)
def test_which_verdicts_another_baseline_would_change(rule: dict[str, Any], movable: bool) -> None:
    assert verdict(2.5, **rule).movable is movable


@pytest.mark.parametrize(("given", "outcome"), [({}, "warn"), ({"no_baseline": "fail"}, "fail"), ({"no_baseline": "pass"}, "pass")])
@pytest.mark.parametrize("reference", ["baseline", "merge-base"])
def test_nothing_to_compare_with(given: dict[str, Any], outcome: str, reference: str) -> None:
    found = verdict(2.0, {}, no_worse_than=reference, **given)
    assert (found.outcome, found.why) == (outcome, f"there is no {reference} to compare loss with")
    assert verdict(9.0, {}, no_worse_than=reference, max=3, **given).outcome == "fail", "fixed bounds hold all the same"


def test_the_table_has_what_it_was_compared_with() -> None:
    found = verdict(2.5, max=2.2, max_increase="50%")
    assert (found.outcome, found.baseline, found.baseline_words) == ("fail", 2.0, BASE.words)
    assert found.limit == "≤ 2.2 · +50 %"


def test_a_reference_of_zero_has_no_share() -> None:
    zero = {"baseline": {"loss": Compared(0.0, 0.0, "nothing")}}
    assert verdict(0.1, zero, max_increase="2%").why == "loss 0.1 is 0.1 above nothing, 0 (limit +2 %)"
    assert verdict(0.1, zero, max_increase=0.2).outcome == "pass"


def test_the_run_is_as_good_as_its_worst_metric() -> None:
    made = {outcome: MetricVerdict(name="x", outcome=outcome, why="") for outcome in ("pass", "warn", "fail")}  # type: ignore[arg-type]
    assert worst(()) == "pass"
    assert worst((made["pass"], made["warn"])) == "warn"
    assert worst((made["fail"], made["warn"])) == "fail"


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.none() | st.text(max_size=3) | st.just("absent")


@given(NUMBERS, st.sampled_from([{"max": 2}, {"range": [1, 2]}, {"no_worse_than": "baseline"}, {"max_increase": "2%"}]), st.booleans())
def test_only_a_finite_number_within_the_rule_passes(value: Value, rule: dict[str, Any], known: bool) -> None:
    found = verdict(value, SOURCES if known else {}, **rule)
    if found.outcome == "pass":
        assert isinstance(value, (int, float))
        assert math.isfinite(value)
        assert value <= 2.04


POLICY = "recipes:\n  default:\n    script: a.py\n    metrics:\n      {}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loss: {}", "needs one of `max`"),
        ("loss: { maxx: 2 }", "did you mean `max`"),
        ("loss: { max: two }", "is not a number such as"),
        ("loss: { max: .inf }", "is not a number"),
        ("loss: { max: true }", "is not a number such as"),
        ("loss: { range: [2, 1] }", "`range` is written `[least, most]`"),
        ("loss: { range: [1] }", "`recipes.default.metrics.loss.range` is not two numbers, `[least, most]`"),
        ("loss: { range: 1-3 }", "`recipes.default.metrics.loss.range` is not two numbers, `[least, most]`"),
        ("loss: { max: }", "needs one of `max`"),
        ("loss: { max: null, no_worse_than: ~ }", "needs one of `max`"),
        ("loss: { max: 1, min: 2 }", "let nothing pass: at least 2, and at most 1"),
        ("loss: { max: 3, range: [5, 6] }", "let nothing pass: at least 5, and at most 3"),
        ("loss: { no_worse_than: baselin }", "did you mean `baseline`?"),
        ("loss: { no_worse_than: [1] }", "is not `baseline`, `merge-base` or a number"),
        ("loss: 3", "`recipes.default.metrics.loss` should be a table of `key: value`"),
        ("loss: { max_increase: -2% }", "is not a margin such as"),
        ("loss: { max_increase: 2 percent }", "is not a margin such as"),
        ("loss: { no_worse_than: main }", "is not `baseline`, `merge-base` or a number"),
        ("loss: { max: 1, tolerance: 2% }", "`tolerance` belongs to `no_worse_than`"),
        ("loss: { max: 1, window: 0 }", "window"),
        ("loss: { max: 1, level: error }", "level"),
        ('"a|b": { max: 1 }', "a metric's name"),
    ],
)
def test_a_rule_that_cannot_be_meant(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy(POLICY.format(text))
    assert words in caught.value.cause.replace("Did", "did"), caught.value.cause
    assert "`.github/dispatch.yml:" in caught.value.cause


def test_a_rule_as_people_write_it() -> None:
    policy = load_policy(POLICY.format("{ val/loss: { max_increase: 2% }, tokens per second: { min: 1e3, better: higher } }"))
    rules = policy.recipes["default"].metrics
    assert set(rules) == {"val/loss", "tokens per second"}
    assert str(rules["val/loss"].max_increase) == "2 %"
    assert rules["tokens per second"].min == 1000
    assert load_document("a: 1", "x").value == {"a": 1}


def test_the_page_says_how_often_rules_are_wrong() -> None:
    assert f"{thresholds.BEGIN}\n{thresholds.rendered()}\n{thresholds.END}" in thresholds.PAGE.read_text()
    alarms = {(row[0], row[1]): float(row[2].removesuffix(" %")) for row in thresholds.rows()}
    for noise in ("5 %", "15 %"):
        assert alarms[noise, "`no_worse_than: baseline`"] < 5
        assert alarms[noise, "`max_increase: 2%`"] > 25
    assert f"{thresholds.BEGIN_FEW}\n{thresholds.rendered_few()}\n{thresholds.END_FEW}" in thresholds.PAGE.read_text()
    for row in thresholds.rows_of_few():  # 2.5 % are meant; of a thousand baselines the rate is known to half a percent
        assert all(float(share.removesuffix(" %")) < 4 for share in row[1:4]), row


def test_each_metric_that_fails_says_why_and_none_twice() -> None:
    rules = {"loss": MetricRule(max=1.0), "acc": MetricRule(min=0.9), "lr": MetricRule(max=0.0, level="warn"), "ok": MetricRule(max=5.0)}
    verdicts = judge(rules, {"loss": 1.00001, "acc": 0.5, "lr": 0.1, "ok": 1}, {})
    record = run_record(state=State.SUCCEEDED, verdicts=verdicts, results_problem=verdicts[0].why)
    assert verdicts[0].why == "loss 1.00001 is above 1"
    assert verdict_lines(record)[-3:] == ["", "- ❌ acc 0.5 is below 0.9", "- ⚠️ lr 0.1 is above 0"]


@pytest.mark.parametrize(
    ("value", "rule", "row"),
    [
        (2.00001, {"max": 2}, "| ❌ | loss | 2.00001 | – | – | ≤ 2 |"),
        (1.99999, {"max": 2}, "| ✅ | loss | 2 | – | – | ≤ 2 |"),
        (2.0401, {"max_increase": "2%"}, "| ❌ | loss | 2.04 | 2 | +2.005 % | +2 % |"),
        (2.04, {"max_increase": "2%"}, "| ✅ | loss | 2.04 | 2 | +2 % | +2 % |"),
        (300_000.0, {"max_increase": "2%"}, "| ❌ | loss | 300,000 | 2 | +15,000,000 % | +2 % |"),
        (1.5, {"max_decrease": "2%"}, "| ❌ | loss | 1.5 | 2 | −25 % | −2 % |"),
    ],
)
def test_a_row_of_the_table_says_itself_that_it_is_beyond_its_limit(value: float, rule: dict[str, Any], row: str) -> None:
    assert verdict_lines(run_record(verdicts=(verdict(value, **rule),)))[2] == row
