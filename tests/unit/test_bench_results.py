"""What the benchmark says of its numbers: kept or missed, and tables that survive the way through JSON into the page."""

from __future__ import annotations

import json

import pytest

from tests.bench.page import render
from tests.bench.results import Section, Target, markdown, table


@pytest.mark.parametrize(
    ("measured", "bound", "passed", "ratio"),
    [(1.0, 2.0, True, 0.5), (2.0, 2.0, True, 1.0), (2.1, 2.0, False, 1.05), (0, 0, True, 0.0), (1, 0, False, float("inf"))],
)
def test_a_promise_is_kept_up_to_its_bound(measured: float, bound: float, passed: bool, ratio: float) -> None:
    target = Target("a", measured, bound, "s")
    assert (target.passed, target.ratio) == (passed, pytest.approx(ratio))


def test_a_section_reads_the_same_in_the_terminal_and_on_the_page() -> None:
    targets = (Target("quick", 1.0, 2.0, "s", "half of NeMo-Run"), Target("none", 3, 0, ""))
    section = Section("Times", ("what", "ours", ""), (("git | ssh", "1.00 s", "x"), ("again", "0.50 s", "")), targets, {"runs": [1.0]})
    shown = markdown(section)
    assert "| quick   |   1.00 s | 2.00 s = half of NeMo-Run | kept (0.50) |" in shown
    assert r"| git \| ssh |" in shown
    assert "| none    |        3 |                         0 |      MISSED |" in shown
    document = json.loads(json.dumps({section.title: section.document()}))
    assert render({"cpu": "2"}, document) == table(("measured on", ""), [("cpu", "2")]) + "\n\n" + shown
