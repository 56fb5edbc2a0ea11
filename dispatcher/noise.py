"""A metric's values of like runs → how much such runs scatter by themselves, and how far another one may be off before it is news.

From six values on by the median absolute deviation, which one bad run does not move. Of fewer that says next to nothing (of three values
it is the smaller of two gaps, often near zero), so there it is the standard deviation with Student's factor for so few: one bad run then
widens what is let pass, and fails nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, stdev

# A normal distribution's standard deviation is so many median absolute deviations: https://en.wikipedia.org/wiki/Median_absolute_deviation
TO_DEVIATION = 1.4826
# The MAD of few values is too small on average. Croux & Rousseeuw, "Time-efficient algorithms for two highly robust estimators of
# scale", 1992; beyond nine values n / (n - 0.8).
_SMALL = {6: 1.200, 7: 1.140, 8: 1.129, 9: 1.107}
# Student's t, one-sided 97.5 %, for one to four degrees of freedom: https://www.itl.nist.gov/div898/handbook/eda/section3/eda3672.htm
_STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
# The same share, 97.5 % of unchanged runs, for the median and MAD of so many values (60,000 normal samples each); from ten on it would be
# less than `DEVIATIONS`. `tests/bench/thresholds.py` measures what comes of it.
_FEW = {6: 3.54, 7: 3.60, 8: 3.03, 9: 3.02}
DEVIATIONS = 3.0
"""From ten runs on, so many standard deviations are more than noise."""


@dataclass(frozen=True)
class Noise:
    """The noise of `count` like values: one standard deviation, and that as a share of their median (None around zero)."""

    count: int
    deviation: float
    share: float | None

    def at(self, value: float) -> float:
        """One standard deviation of runs that come to `value`: noise usually grows with what is measured."""
        return self.deviation if self.share is None else self.share * abs(value)

    def deviations(self, centre: int) -> float:
        """How many of them may pass, where a run is compared with the median of `centre` values; one value is less sure than ten."""
        if self.count in _STUDENT:
            many = _STUDENT[self.count] * math.sqrt(1 + _variance(centre))
        else:
            many = _FEW.get(self.count, DEVIATIONS) * math.sqrt((1 + _variance(centre)) / (1 + _variance(self.count)))
        # What passes is a share of that one value, so where it came out low, so did the limit.
        return many * math.sqrt((1 + (1 + many * (self.share or 0.0)) ** 2) / 2) if centre == 1 else many


def noise_of(values: Sequence[float]) -> Noise | None:
    """None for fewer than two values: nobody knows yet."""
    count = len(values)
    if count < 2:
        return None
    middle = median(values)
    if count in _STUDENT:
        largest = max(map(abs, values)) or 1.0  # whose square may be more than a float can be
        deviation = stdev(value / largest for value in values) * largest
    else:
        deviation = TO_DEVIATION * _SMALL.get(count, count / (count - 0.8)) * median(abs(value - middle) for value in values)
    share = deviation / abs(middle) if middle else None
    finite = math.isfinite(deviation) and (share is None or math.isfinite(share))
    return Noise(count, deviation, share) if finite else None


def _variance(count: int) -> float:
    """A normal sample's median varies by so much, in variances of one value; asymptotically, which for few is a little too much."""
    return 1.0 if count == 1 else math.pi / (2 * count)
