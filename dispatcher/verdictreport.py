"""Verdicts on metrics → a table for the comment and the check: value, what it was compared with, change, limit, verdict."""

from __future__ import annotations

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
    value = number(verdict.value) if verdict.value is not None else "–"
    baseline = number(verdict.baseline) if verdict.baseline is not None else "–"
    return (
        f"| {_ICONS[verdict.outcome]} | {neutralise(verdict.name)} | {value} | {baseline} | {_change(verdict)} | {verdict.limit or '–'} |"
    )


def _change(verdict: MetricVerdict) -> str:
    if verdict.value is None or verdict.baseline is None:
        return "–"
    difference = verdict.value - verdict.baseline
    if verdict.baseline:
        return percent(difference / abs(verdict.baseline), sign=True)
    return f"{difference:+.4g}".replace("-", "−")
