"""A scripted history of 200 runs → how often each kind of rule is wrong: `python -m tests.bench.thresholds` writes it into the page."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from pathlib import Path

from dispatcher.baseline import History, Remembered
from dispatcher.thresholds import MetricRule, judge
from tests.bench.results import table
from tests.fakes import HEAD, NOON

PAGE = Path(__file__).parents[2] / "docs" / "gates.md"
BEGIN, END = "<!-- measured: written by tests/bench/thresholds.py -->", "<!-- /measured -->"
RUNS, SEEDS, TRUE = 200, 5, 2.0
RULES: Mapping[str, MetricRule] = {
    "`no_worse_than: baseline`": MetricRule.model_validate({"no_worse_than": "baseline"}),
    "`max_increase: 2%`": MetricRule.model_validate({"max_increase": "2%"}),
    "`max: 2.04` (2 % above the truth)": MetricRule.model_validate({"max": 2.04}),
}
NOISE = (0.005, 0.05, 0.15)
CHANGES = (0, 3, 5)
"""How much worse a change makes it, in multiples of the noise; 0: nothing has changed."""


def rate(rule: MetricRule, noise: float, change: int) -> float:
    """The share of the runs that fail. Each is compared with those of the default branch before it, from the tenth on."""
    failed = counted = 0
    for seed in range(SEEDS):
        chance = random.Random(seed)
        before: list[Remembered] = []
        for number in range(RUNS):
            if number >= 10:
                value = TRUE * (1 + change * noise) * (1 + chance.gauss(0, noise))
                found = History(tuple(before[-10:])).rolling("loss", 10)
                sources = {"baseline": {"loss": found}} if found else {}
                failed += judge({"loss": rule}, {"loss": value}, sources)[0].outcome == "fail"
                counted += 1
            metrics = {"loss": TRUE * (1 + chance.gauss(0, noise))}
            before.append(Remembered(run_key=f"{number:016x}", sha=HEAD, at=NOON, metrics=metrics))
    return failed / counted


def rows() -> list[tuple[str, ...]]:
    """A row for each rule and noise: false alarms, then what is missed."""
    found = []
    for noise in NOISE:
        for name, rule in RULES.items():
            alarms, *caught = (rate(rule, noise, change) for change in CHANGES)
            found.append((f"{noise * 100:g} %", name, f"{alarms * 100:.1f} %", *(f"{(1 - share) * 100:.1f} %" for share in caught)))
    return found


def rendered() -> str:
    """The table."""
    worse = [f"missed, {change} × noise worse" for change in CHANGES[1:]]
    return table(("noise", "rule", "false alarms", *worse), rows())


def main() -> int:
    """Writes it into the page."""
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{rendered()}\n{END}{rest.split(END)[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
