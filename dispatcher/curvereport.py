"""A run's progress and curves → lines of its comment and check: steps, last values, GPU-hours; a Mermaid chart for each series.

GitHub draws `xychart-beta` (https://mermaid.js.org/syntax/xyChart.html): it has no numbers with exponents, no gaps and no legend. So values
are scaled where they are tiny or huge, and what cannot be drawn is said in words, whose curve is whose among it. At a terminal a curve is
one line of blocks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.measuring import series_words
from dispatcher.overlay import Overlay, RunCurve, overlaid
from dispatcher.phrases import number, plural
from dispatcher.record import RunRecord
from dispatcher.series import Curve, Progress
from dispatcher.slurm import State
from dispatcher.thresholds import MetricVerdict
from dispatcher.untrusted import neutralise

# Mermaid's own first colour can hardly be seen on white. These two can, on white and on black.
_COLOURS = '%%{init: {"themeVariables": {"xyChart": {"plotColorPalette": "#1f6feb, #8b949e"}}}}%%'
_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN = re.compile(r"[^A-Za-z0-9_./:@,()%+ -]|%(?=%)")  # two `%` begin a comment
_TITLE = 48


def progress_line(record: RunRecord, now: datetime) -> str:
    """`step 120 of 500 · loss 1.93 · 3.0 GPU-hours so far`; empty where nothing is known, or where the end says more."""
    found = record.progress
    if found is None or (record.state is not State.RUNNING and (not record.state.ended or record.ended_well)):
        return ""
    words = [steps_words(found), *(f"{neutralise(name)} {number(value)}" for name, value in found.values.items())]
    if record.state is State.SUCCEEDED and record.verdicts:
        return ""  # it got to its end, and what it measured there stands in a table
    if record.state is not State.RUNNING:
        return f"It got to {' · '.join(words)}"
    hours = _gpu_hours(record, now)
    return " · ".join([f"**{words[0]}**", *words[1:], *([f"{hours:.1f} GPU-hours so far"] if hours is not None else [])])


def steps_words(progress: Progress) -> str:
    """`step 120 of 500`, or `step 120` where nobody says how many there are to be."""
    return f"step {progress.step:,}" + (f" of {progress.total:,}" if progress.total else "")


def _gpu_hours(record: RunRecord, now: datetime) -> float | None:
    """What it has used; None where it has no GPUs, or where nobody knows how many of its tasks run."""
    asked = record.resources
    if record.started_at is None or not asked.gpus_per_node or asked.tasks > 1:
        return None
    seconds = record.earlier_seconds + max((now - record.started_at).total_seconds(), 0)
    return seconds * asked.nodes * asked.gpus_per_node / 3600


def curve_lines(record: RunRecord, at_terminal: bool) -> list[str]:
    """The curves, folded, and what is to be said of the series; nothing where there is neither."""
    notes = [f"<sub>{neutralise('; '.join(words), 600)}</sub>", ""] if (words := series_words(record)) else []
    if not record.curves:
        return ["", *notes[:1]] if notes and record.state.ended else []
    verdicts = {verdict.name: verdict for verdict in record.verdicts}
    lines = ["", f"<details><summary>{'Curve' if len(record.curves) == 1 else 'Curves'}</summary>", ""]
    for curve in record.curves:
        verdict = verdicts.get(curve.name)
        lines += [*(_in_blocks(curve, verdict) if at_terminal else chart(curve, verdict)), ""]
    return [*lines, *notes, "</details>"]


@dataclass(frozen=True)
class _Against:
    """What stands beside a curve: the baseline's value, and a run's curve for it where one is remembered and crosses the same steps."""

    value: float
    run: RunCurve | None = None
    drawn: Overlay | None = None

    def line(self, count: int) -> tuple[float, ...]:
        """What is drawn: that run's curve, else a flat line of `count` places."""
        return self.drawn.values if self.drawn is not None else (self.value,) * count


def _against(curve: Curve, verdict: MetricVerdict | None) -> _Against | None:
    if verdict is None or verdict.baseline is None or not math.isfinite(verdict.baseline):
        return None
    drawn = overlaid(verdict.beside, *_axis(curve)) if verdict.beside is not None else None
    return _Against(verdict.baseline, verdict.beside if drawn is not None else None, drawn)


def _axis(curve: Curve) -> tuple[int, int]:
    return curve.first, max(curve.last, curve.first + 1)


def chart(curve: Curve, verdict: MetricVerdict | None = None) -> list[str]:
    """One chart as a Mermaid block, with what the verdict compares with, and under it in words what the chart cannot say."""
    against = _against(curve, verdict)
    other = against.line(len(curve.values)) if against is not None else ()
    shown = [*curve.values, *other]
    power = _power(shown)
    scaled = [value / 10.0**power for value in shown]
    low, high = _bounds(scaled)
    values = [_plain(value, _decimals(low, high)) for value in scaled]
    unit = f" in 10^{power}" if power else ""
    lines = [
        "```mermaid",
        _COLOURS,
        "xychart-beta",
        # The axis of values has a name that is not seen: a real one is drawn over long numbers, and without one these are cut off.
        f'    title "{_title(curve.name)}{unit}"',
        f"    x-axis {_steps(*_axis(curve))}",
        f'    y-axis "\u200b" {_plain(low, _decimals(low, high))} --> {_plain(high, _decimals(low, high))}',
        f"    line [{', '.join(values[: len(curve.values)])}]",
    ]
    if other:
        lines.append(f"    line [{', '.join(values[len(curve.values) :])}]")
    return [*lines, "```", f"<sub>{' · '.join(_legend(curve, against))}</sub>"]


def _title(name: str) -> str:
    """A name as far as there is room for it: its beginning and its end."""
    plain = _PLAIN.sub(" ", name)
    return plain if len(plain) <= _TITLE else f"{plain[:15]} ... {plain[20 - _TITLE :]}"


def _steps(first: int, last: int) -> str:
    """The axis of steps. Numbers of more than six digits would be drawn over one another."""
    digits = max(len(str(last)) - 3, 0) // 3 * 3 if last >= 1_000_000 else 0
    low, high = (
        f"{step // 10**digits}.{step % 10**digits:0{digits}d}".rstrip("0").rstrip(".") if digits else step for step in (first, last)
    )
    return f'"step{f" in 10^{digits}" if digits else ""}" {low} --> {high}'


def _legend(curve: Curve, against: _Against | None) -> list[str]:
    words = [f"{neutralise(curve.name)}, steps {curve.first:,} to {curve.last:,}"]
    if curve.points > len(curve.values):
        words.append(f"{curve.points:,} points, of which each part shows its least and its greatest")
    if against is not None:
        words += _baseline_words(against)
    if curve.gaps and curve.first_gap is not None:
        words.append(f"⚠️ NaN or infinite, and so left out: {plural(curve.gaps, 'value')}, the first at step {curve.first_gap:,}")
    return words


def _baseline_words(against: _Against) -> list[str]:
    """Whose the second line is, and where it is not what that run measured."""
    run, drawn = against.run, against.drawn
    if run is None or drawn is None:
        return [f"the flat line is the baseline, {number(against.value)}"]
    which = "the baseline" if run.value == against.value else f"the nearest to the baseline, {number(against.value)}"
    words = [f"the grey line is run `{run.run_key[:8]}` at `{run.sha[:7]}`, which came to {number(run.value)}, {which}"]
    if drawn.flat_until is not None:
        words.append(f"it is known from step {drawn.flat_until:,}, and its first value is drawn before")
    if drawn.flat_from is not None:
        words.append(f"it ended at step {drawn.flat_from:,}, and what it came to is drawn from there")
    if drawn.goes_on_to is not None:
        words.append(f"it went on to step {drawn.goes_on_to:,}")
    return words


def _power(values: Sequence[float]) -> int:
    """By which power of ten values are scaled; 0 for those that people write as they are."""
    greatest = max(abs(value) for value in values)
    if greatest == 0 or 1e-2 <= greatest < 1e6:
        return 0
    # The least of all floats are scaled by no more than a float can be.
    return max(math.floor(math.log10(greatest)), -300)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """The chart's lower and upper end: a little more than the values take, and never nothing."""
    low, high = min(values), max(values)
    room = (high - low) * 0.05 if high - low > 1e-9 else abs(high) * 0.05 if abs(high) > 1e-9 else 1.0
    return low - room, high + room


def _decimals(low: float, high: float) -> int:
    """How many digits after the point tell a chart's values apart."""
    return min(max(4 - math.floor(math.log10(high - low)), 0), 14)


def _plain(value: float, decimals: int) -> str:
    """A number as Mermaid's grammar has it: digits and one point."""
    words = f"{value:.{decimals}f}"
    words = words.rstrip("0").rstrip(".") if "." in words else words
    return "0" if words == "-0" else words


def _in_blocks(curve: Curve, verdict: MetricVerdict | None) -> list[str]:
    against = _against(curve, verdict)
    gaps = f", NaN or infinite: {plural(curve.gaps, 'value')}" if curve.gaps else ""
    ends = f"{number(min(curve.values))} to {number(max(curve.values))}, steps {curve.first:,} to {curve.last:,}{gaps}"
    if against is None or against.drawn is None:
        return [f"{neutralise(curve.name)} {sparkline(curve.values)} {ends}"]
    # Both by one scale.
    blocks, count = sparkline([*curve.values, *against.drawn.values]), len(curve.values)
    own = f"{neutralise(curve.name)} {blocks[:count]} {ends}"
    return [own, f"{' ' * len(neutralise(curve.name))} {blocks[count:]} {' · '.join(_baseline_words(against))}"]


def sparkline(values: Sequence[float]) -> str:
    """Values → one block each, the least of them lowest; what is no number is a gap."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * len(values)
    low, high = min(finite), max(finite)
    if low == high:
        return "".join(_BLOCKS[3] if math.isfinite(value) else " " for value in values)
    # Halves first: the distance of two floats may be more than a float can be.
    span = high / 2 - low / 2
    return "".join(_BLOCKS[min(int((value / 2 - low / 2) / span * 8), 7)] if math.isfinite(value) else " " for value in values)
