"""The default branch's runs, as the ledger remembers them (one JSON line each) ↔ what later runs are compared with.

The median, so that one bad run does not move the baseline; how far a run may be from it says `noise.py`. An acceptance (`baseline
accept`) is a line too: what came before it no longer counts, and who made it, when and why is said where it is compared with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dispatcher.noise import Noise, noise_of
from dispatcher.overlay import RunCurve
from dispatcher.phrases import plural
from dispatcher.record import RunRecord
from dispatcher.series import MOST_CURVES, Curve
from dispatcher.thresholds import Compared
from dispatcher.untrusted import printable

LINE_LIMIT = 32_000
"""Characters of a line; of a run with more than fits first its curves are forgotten, then metrics."""
# Characters that are read of a history at least, where it is longer (`history` in effects/cluster.sh; the bytes may be more).
_READ = 1_048_576 // 4
# What trains computes with no more digits (float32 has seven), and every comparison reads all lines.
_DIGITS = 8
SETTLED = 3
"""So many runs of the default branch after an acceptance are the baseline again; until then it is the accepted run alone."""
WINDOW = 10
_WHY_SHOWN = 80


def _readable_curves(value: Any) -> Any:
    """A curve that cannot be read costs the run no metric: these are what judges."""
    found: list[Curve] = []
    for item in value if isinstance(value, (list, tuple)) else ():
        try:
            found.append(Curve.model_validate(item))
        except ValidationError:
            continue
    return tuple(found[:MOST_CURVES])


class Remembered(BaseModel):
    """One line: a run of the default branch, or a run that somebody accepted as the new baseline."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    kind: Literal["run", "accepted"] = "run"
    run_key: str = Field(pattern=r"^[0-9a-f]{16}$")
    sha: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    at: datetime
    metrics: dict[str, float]
    curves: Annotated[tuple[Curve, ...], BeforeValidator(_readable_curves)] = ()
    by: str = Field(default="", max_length=200)
    why: str = Field(default="", max_length=1000)
    same_as: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    """The run that measured it, where this one took over another's end: one measurement, however many commits it stands for."""

    @property
    def measured_by(self) -> str:
        """The run whose measurement it is."""
        return self.same_as or self.run_key

    def curve(self, metric: str) -> RunCurve | None:
        """The metric's curve, and that it is this run's; None when it has none."""
        found = next((curve for curve in self.curves if curve.name == metric), None)
        return RunCurve(run_key=self.run_key, sha=self.sha, value=self.metrics[metric], curve=found) if found else None


@dataclass(frozen=True)
class History:
    """All lines that can be read, oldest first, each run once; and how many cannot be."""

    entries: tuple[Remembered, ...] = ()
    unreadable: int = 0

    @property
    def accepted(self) -> Remembered | None:
        """The newest acceptance."""
        return next((entry for entry in reversed(self.entries) if entry.kind == "accepted"), None)

    def rolling(self, metric: str, window: int) -> Compared | None:
        """What the next run is compared with, from the metric's last `window` values; None when there is none.

        An acceptance is what the team has said is right: it is never mixed with other values. It counts alone until `SETTLED` runs of the
        default branch have come after it, then these count, without it. How much such runs scatter by themselves, runs of one kind say:
        those before the acceptance, by their relative deviation, for as long as it counts alone.
        """
        kinds = self._kinds(metric)
        newest = kinds[-1]
        if newest.begins is not None and len(newest.runs) < SETTLED:
            accepted = newest.begins
            value = accepted.metrics[metric]
            return _compared(value, _noise(kinds[:-1], metric, window), 1, _accepted_words(accepted), accepted.curve(metric))
        entries = newest.runs[-window:]
        if not entries:
            return None
        middle = median(entry.metrics[metric] for entry in entries)
        only = len(entries) == 1
        words = "the default branch's only run" if only else f"the median of {plural(len(entries), 'run')} of the default branch"
        # A window of one is a wish for the last run's value, not for knowing nothing of the noise.
        noise = _noise((newest,), metric, max(window, SETTLED))
        return _compared(middle, noise, len(entries), words, _nearest(metric, middle, entries))

    def of_commit(self, sha: str, metric: str, window: int = WINDOW) -> Compared | None:
        """The newest run of one commit; its noise is that of the default branch's runs around it."""
        found = next((entry for entry in reversed(self.entries) if entry.sha == sha and metric in entry.metrics), None)
        if found is None:
            return None
        kinds = self._kinds(metric)
        measured = found.measured_by
        place = next((at for at, kind in enumerate(kinds) if any(run.measured_by == measured for run in kind.runs)), len(kinds) - 1)
        words = f"the merge base's run ({sha[:7]})"
        return _compared(found.metrics[metric], _noise(kinds[: place + 1], metric, window), 1, words, found.curve(metric))

    def _kinds(self, metric: str) -> tuple[_Kind, ...]:
        """The runs that have the metric, parted by the acceptances that have it; of one measurement, only the first line."""
        kinds = [_Kind(None, ())]
        measured: set[str] = set()
        for entry in self.entries:
            if metric not in entry.metrics:
                continue
            if entry.kind == "accepted":
                kinds.append(_Kind(entry, ()))
            elif entry.measured_by not in measured:
                measured.add(entry.measured_by)
                kinds[-1] = _Kind(kinds[-1].begins, (*kinds[-1].runs, entry))
        return tuple(kinds)


@dataclass(frozen=True)
class _Kind:
    """Runs of the default branch that may be compared with one another, and the acceptance that they come after."""

    begins: Remembered | None
    runs: tuple[Remembered, ...]


def _noise(kinds: Sequence[_Kind], metric: str, window: int) -> Noise | None:
    """That of the newest kind which has enough runs to tell."""
    found = (noise_of([run.metrics[metric] for run in kind.runs[-window:]]) for kind in reversed(kinds))
    return next((noise for noise in found if noise is not None), None)


def _compared(value: float, noise: Noise | None, centre: int, words: str, curve: RunCurve | None) -> Compared:
    if noise is None:
        return Compared(value, 0.0, words, curve, None)
    return Compared(value, noise.at(value), words, curve, noise.deviations(centre))


def _accepted_words(entry: Remembered) -> str:
    """Who, when and why, short; what is shown of it is neutralised there."""
    why = " ".join(printable(entry.why).split())
    why = f": {why[: _WHY_SHOWN - 1]}…" if len(why) > _WHY_SHOWN else f": {why}" if why else ""
    return f"the accepted run {entry.run_key[:8]} (by {entry.by} on {entry.at:%Y-%m-%d}{why})"


def _nearest(metric: str, middle: float, entries: Sequence[Remembered]) -> RunCurve | None:
    """The curve of the run that is nearest to the median, of equals the newest; None when none of the runs has one."""
    curves = [curve for entry in reversed(entries) if (curve := entry.curve(metric)) is not None]
    return min(curves, key=lambda curve: abs(curve.value - middle), default=None)


def history_name(repository: str, profile: str, recipe: str) -> str:
    """The ledger's name for the runs that may be compared: of one repository, profile and recipe."""
    return hashlib.sha256("\0".join(["history", repository.lower(), profile, recipe]).encode()).hexdigest()[:32]


def parse_history(text: str) -> History:
    """The ledger's lines; others can write there, so what cannot be read is left out, and of one run the last line counts."""
    lines = text.split("\n")  # and at nothing else that Unicode takes for the end of a line: a name may have that in it
    found: dict[tuple[str, str], Remembered] = {}
    unreadable = 0
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            entry = Remembered.model_validate_json(line)
        except ValidationError:
            # Of a long history the end is read, which may begin within a line.
            unreadable += number > 0 or len(text) < _READ
            continue
        finite = {name: value for name, value in entry.metrics.items() if math.isfinite(value)}
        found.pop((entry.kind, entry.run_key), None)
        found[entry.kind, entry.run_key] = entry.model_copy(update={"metrics": finite})
    return History(tuple(found.values()), unreadable)


def line_of(record: RunRecord, at: datetime) -> str:
    """A run of the default branch, for the ledger."""
    numbers, curves = _numbers(record), _curves(record)
    return _line(Remembered(run_key=record.run_key, sha=record.sha, at=at, metrics=numbers, curves=curves, same_as=record.same_as))


def acceptance_of(record: RunRecord, by: str, why: str, at: datetime) -> str:
    """A run that somebody has accepted, for the ledger."""
    numbers, curves = _numbers(record), _curves(record)
    accepted = Remembered(kind="accepted", run_key=record.run_key, sha=record.sha, at=at, metrics=numbers, curves=curves, by=by, why=why)
    return _line(accepted)


def _numbers(record: RunRecord) -> dict[str, float]:
    given = record.results.items()
    return {name: float(value) for name, value in given if isinstance(value, (int, float)) and math.isfinite(value)}


def _curves(record: RunRecord) -> tuple[Curve, ...]:
    return tuple(curve.model_copy(update={"values": tuple(map(_short, curve.values))}) for curve in record.curves)


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _line(entry: Remembered) -> str:
    """One line, short enough to be appended in one piece."""
    names = list(entry.metrics)
    while len(line := entry.model_dump_json()) > LINE_LIMIT and (entry.curves or names):
        if entry.curves:
            entry = entry.model_copy(update={"curves": entry.curves[:-1]})
            continue
        names = names[: len(names) * 3 // 4]
        entry = entry.model_copy(update={"metrics": {name: entry.metrics[name] for name in names}})
    return line
