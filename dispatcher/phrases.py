"""Numbers → the words that people read: durations, sizes, times, counts. Nothing here decides anything."""

from __future__ import annotations

import math
from datetime import datetime

WITH_CHANGES = "with changes that are not committed"


def duration(seconds: float) -> str:
    """724 → `12m 04s`, 8 → `8s`, 14400 → `4h`, 93784 → `26h 03m`."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours}h {minutes:02d}m" if minutes else f"{hours}h"
    if minutes:
        return f"{minutes}m {rest:02d}s" if rest else f"{minutes}m"
    return f"{rest}s"


def size(count: int) -> str:
    """54_800_000 → `54.8 MB`; decimal units, as disks and networks have them."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def plural(count: int, noun: str) -> str:
    """1, `node` → `1 node`; 3412, `file` → `3,412 files`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def clock(moment: datetime, now: datetime) -> str:
    """`14:02 UTC` today, `2026-11-19 14:02 UTC` otherwise."""
    same_day = moment.date() == now.date()
    return moment.strftime("%H:%M UTC" if same_day else "%Y-%m-%d %H:%M UTC")


def number(value: float | int | str | None) -> str:
    """A metric as people compare it: four significant digits for fractions, thousands separated; from a billion on `1.234e+09`."""
    if value is None:
        return "no value"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value) and abs(value) >= 1e9:
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.1f}".removesuffix(".0") if abs(value) < 10_000 else f"{value:,.0f}"


def percent(share: float, sign: bool = False, digits: int = 3) -> str:
    """0.2014 → `20.1 %`, 61.1 → `6,110 %`; with `sign`, a plus or a minus sign before it."""
    value = share * 100
    plus = "+" if sign and value >= 0 else ""
    shown = f"{float(f'{value:.{digits}g}'):,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.{digits}g}"
    return f"{plus}{shown} %".replace("-", "−") if sign else f"{shown} %"


def numbers_apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers of which the words say that they differ: 2.00001, 2 → `2.00001` and `2`, with so many digits as that takes."""
    if one == other or number(one) != number(other):
        return number(one), number(other)
    digits = next((digits for digits in range(5, 17) if f"{one:.{digits}g}" != f"{other:.{digits}g}"), 17)
    return f"{one:.{digits}g}", f"{other:.{digits}g}"


def change_words(value: float, reference: float, limit: float = math.inf, worse: bool = False) -> str:
    """`12 % above`, `0.4 % below`, `the same as`; where there is no share of it, the amount.

    With so many digits that the words, too, are beyond the `limit` (as it is shown, in per cent) where the value is, and only there.
    """
    difference = value - reference
    if difference == 0:
        return "the same as"
    way = "above" if difference > 0 else "below"
    share = abs(difference / reference) if reference else math.inf
    if not math.isfinite(share):
        return f"{number(abs(difference)) if math.isfinite(difference) else 'far'} {way}"
    shown = (percent(share, digits=digits) for digits in range(3, 17))
    fitting = (words for words in shown if (float(words.removesuffix(" %").replace(",", "")) > limit) == worse)
    return f"{next(fitting, percent(share))} {way}"
