"""Verdicts on metrics → a table for the comment and the check: value, what it was compared with, change, limit, verdict."""

from __future__ import annotations

import math

from dispatcher.phrases import number, percent
from dispatcher.record import RunRecord
from dispatcher.thresholds import Level, MetricVerdict
from dispatcher.untrusted import neutralise

_ICONS: dict[Level, str] = {"pass": "✅", "warn": "⚠️", "fail": "❌"}


def verdict_lines(record: RunRecord) -> list[str]:
    """The table, worst first, then in one sentence each why something is not as it should be; the headline has one of these already."""
    order = {"fail": 0, "warn": 1, "pass": 2}
    rows = sorted(record.verdicts, key=lambda verdict: order[verdict.outcome])
    lines = ["| | metric | value | baseline | change | limit |", "|---|---|---:|---:|---:|---|", *map(_row, rows)]
    words = dict.fromkeys(verdict.baseline_words for verdict in rows if verdict.baseline_words)
    if words:
        lines += ["", f"<sub>Baseline: {neutralise('; '.join(words), 500)}</sub>"]
    told = [verdict for verdict in rows if verdict.outcome != "pass" and verdict.why != record.results_problem]
    return lines + (["", *(f"- {_ICONS[verdict.outcome]} {neutralise(verdict.why, 400)}" for verdict in told)] if told else [])


def _row(verdict: MetricVerdict) -> str:
    value = _apart(verdict) if verdict.value is not None else "–"
    baseline = number(verdict.baseline) if verdict.baseline is not None else "–"
    return (
        f"| {_ICONS[verdict.outcome]} | {neutralise(verdict.name)} | {value} | {baseline} | {_change(verdict)} | {verdict.limit or '–'} |"
    )


def _apart(verdict: MetricVerdict) -> str:
    """The value; where it is beyond a bound that would read the same, with more digits."""
    assert verdict.value is not None
    words = number(verdict.value)
    same = verdict.outcome != "pass" and words in verdict.limit.split()
    return f"{verdict.value:.12g}" if same else words


def _change(verdict: MetricVerdict) -> str:
    if verdict.value is None or verdict.baseline is None:
        return "–"
    difference = verdict.value - verdict.baseline
    share = difference / abs(verdict.baseline) if verdict.baseline else math.inf
    if not math.isfinite(share):
        return f"{difference:+.4g}".replace("-", "−")
    words = percent(share, sign=True)
    same = verdict.outcome != "pass" and words in verdict.limit.split(" · ")
    return percent(share, sign=True, digits=8) if same else words
