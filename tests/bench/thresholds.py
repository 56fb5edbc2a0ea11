"""A scripted history of 200 runs, and many short ones → how often rules are wrong: `python -m tests.bench.thresholds` writes the page."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from dispatcher.baseline import History, Remembered
from dispatcher.thresholds import MetricRule, judge
from tests.bench.results import table
from tests.fakes import HEAD, NOON

PAGE = Path(__file__).parents[2] / "docs" / "gates.md"
BEGIN, END = "<!-- measured: written by tests/bench/thresholds.py -->", "<!-- /measured -->"
BEGIN_FEW, END_FEW = "<!-- measured: the first runs, written by tests/bench/thresholds.py -->", "<!-- /measured: the first runs -->"
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


@cache
def rows() -> list[tuple[str, ...]]:
    """A row for each rule and noise: false alarms, then what is missed."""
    found = []
    for noise in NOISE:
        for name, rule in RULES.items():
            alarms, *caught = (rate(rule, noise, change) for change in CHANGES)
            found.append((f"{noise * 100:g} %", name, f"{alarms * 100:.1f} %", *(f"{(1 - share) * 100:.1f} %" for share in caught)))
    return found


FIRST = (1, 2, 3, 5, 7, 10, 20)
FEW_CHANGES = (0, 5, 10)
BASELINES = 1000


def rate_of_few(noise: float, change: int, count: int, accepted: bool) -> float:
    """The share of the runs that fail, each compared with `count` runs of its own; or, with `accepted`, with one accepted after these."""
    rule = RULES["`no_worse_than: baseline`"]
    chance = random.Random(count)
    failed = 0
    for _ in range(BASELINES):
        entries = [_remembered(number, TRUE * (1 + chance.gauss(0, noise))) for number in range(count)]
        truth = TRUE
        if accepted:
            truth = 2 * TRUE
            entries.append(_remembered(count, truth * (1 + chance.gauss(0, noise)), "accepted"))
        found = History(tuple(entries)).rolling("loss", 20)
        value = truth * (1 + change * noise) * (1 + chance.gauss(0, noise))
        failed += judge({"loss": rule}, {"loss": value}, {"baseline": {"loss": found}} if found else {})[0].outcome == "fail"
    return failed / BASELINES


def _remembered(number: int, loss: float, kind: Literal["run", "accepted"] = "run") -> Remembered:
    return Remembered(kind=kind, run_key=f"{number:016x}", sha=HEAD, at=NOON, metrics={"loss": loss})


@cache
def rows_of_few() -> list[tuple[str, ...]]:
    """A row for each number of runs: false alarms at each noise, then what is missed at the middle one."""
    found = []
    for accepted in (False, True):
        for count in FIRST:
            alarms = (rate_of_few(noise, 0, count, accepted) for noise in NOISE)
            missed = (1 - rate_of_few(NOISE[1], change, count, accepted) for change in FEW_CHANGES[1:])
            words = f"one accepted after {count}" if accepted else f"{count}"
            found.append((words, *(f"{share * 100:.1f} %" for share in (*alarms, *missed))))
    return found


def rendered() -> str:
    """The table."""
    worse = [f"missed, {change} × noise worse" for change in CHANGES[1:]]
    return table(("noise", "rule", "false alarms", *worse), rows())


def rendered_few() -> str:
    """The table of the first runs."""
    alarms = [f"false alarms at {noise * 100:g} %" for noise in NOISE]
    missed = [f"missed, {change} × noise worse" for change in FEW_CHANGES[1:]]
    return table(("runs in the baseline", *alarms, *missed), rows_of_few())


def main() -> int:
    """Writes them into the page."""
    for begin, text, end in ((BEGIN, rendered(), END), (BEGIN_FEW, rendered_few(), END_FEW)):
        before, rest = PAGE.read_text().split(begin)
        PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
