"""What the ledger remembers of the default branch, for one profile and recipe → a table, a line of blocks for each metric, one object."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.baseline import WINDOW, History, Remembered, history_name, parse_history
from dispatcher.curvereport import sparkline
from dispatcher.errors import Exit, InputError
from dispatcher.phrases import clock, number, plural
from dispatcher.policy import Policy, UnknownRecipe
from dispatcher.recipe import Recipe
from dispatcher.series import chosen
from dispatcher.terminal import profile_or_refusal
from dispatcher.thresholds import Compared
from dispatcher.untrusted import code, neutralise
from dispatcher.world import Outcome, World, outcome

# A terminal's width has no more columns of numbers.
MOST_METRICS = 4


@dataclass(frozen=True)
class Trail:
    """The remembered runs that are shown, oldest first, and of which metrics; `baselines` has what a rule compares the next run with."""

    profile: str
    recipe: str
    entries: tuple[Remembered, ...]
    metrics: tuple[str, ...]
    baselines: dict[str, Compared]
    unreadable: int = 0
    """How many of the ledger's lines cannot be read."""

    def values(self, metric: str) -> list[float]:
        """A metric's values, of the runs that have it."""
        return [entry.metrics[metric] for entry in self.entries if metric in entry.metrics]


def recall(world: World, policy: Policy, profile: str | None, recipe: str | None, metric: str | None, lines: int) -> Trail | Outcome:
    """Asks the profile's ledger; at most `lines` runs, the newest. `recipe` may be a stage of a pipeline, `full:sft`.

    Raises:
        InputError: `input.not-remembered` for a recipe or a metric that is not there.
        DispatchError: the ledger cannot be asked.
    """
    found = profile_or_refusal(world, policy, profile)
    if isinstance(found, Outcome):
        return found
    name, resolved = found
    wanted = recipe or policy.default_recipe or ""
    known = policy.recipe(wanted.partition(":")[0])
    if isinstance(known, UnknownRecipe):
        raise _unknown("recipe", wanted, known.known)
    cluster = world.connect(resolved)
    try:
        history = parse_history(cluster.history(history_name(world.settings.repository, name, wanted)))
    finally:
        cluster.close()
    rules = known.metrics if isinstance(known, Recipe) else {}
    names = list(dict.fromkeys(key for entry in reversed(history.entries) for key in entry.metrics))
    if metric is not None and history.entries and metric not in names:
        raise _unknown("metric", metric, names)
    metrics = (metric,) if metric is not None else tuple(chosen(names, tuple(rules))[:MOST_METRICS])
    windows = {key: rules[key].window if key in rules else WINDOW for key in metrics}
    baselines = {key: compared for key in metrics if (compared := history.rolling(key, windows[key])) is not None}
    shown = _having(history, metrics)[-lines:]
    return Trail(name, wanted, shown, metrics, baselines, history.unreadable)


def _having(history: History, metrics: Sequence[str]) -> tuple[Remembered, ...]:
    return tuple(entry for entry in history.entries if entry.kind == "accepted" or any(name in entry.metrics for name in metrics))


def _unknown(what: str, name: str, known: Sequence[str]) -> InputError:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    step = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(known[:20]) or 'none'}."
    return InputError("input.not-remembered", f"There is no {what} {name!r}.", step)


def told(trail: Trail, world: World) -> Outcome:
    """The whole answer: Markdown, and as `result` one object."""
    return outcome("answered", "history", Exit.OK, "\n".join(_lines(trail, world)), result=json.dumps(_as_json(trail)))


def _lines(trail: Trail, world: World) -> list[str]:
    title = f"### {neutralise(trail.recipe)} on {neutralise(trail.profile)}: "
    if not trail.entries:
        step = "Scheduled, merged and manual runs of the default branch are remembered when they have ended well (`docs/gates.md`)."
        nothing = "nothing that can be read" if trail.unreadable else "nothing remembered yet"
        return [f"{title}{nothing}", "", *_unreadable(trail), step]
    accepted = sum(entry.kind == "accepted" for entry in trail.entries)
    others = f", {plural(accepted, 'accepted run')}" if accepted else ""
    lines = [f"{title}{plural(len(trail.entries) - accepted, 'run')} of the default branch{others}", "", *_unreadable(trail)]
    for name in trail.metrics:
        values = trail.values(name)
        if values:
            compared = trail.baselines.get(name)
            now = f", baseline {number(compared.value)}" if compared else ""
            lines.append(f"- {neutralise(name)} {sparkline(values)} {number(min(values))} to {number(max(values))}{now}")
    head = ["when", "commit", "run", *(neutralise(name) for name in trail.metrics), ""]
    lines += ["", f"| {' | '.join(head)} |", f"|---|---|---|{'---:|' * len(trail.metrics)}---|"]
    return lines + [_row(entry, trail, world) for entry in reversed(trail.entries)]


def _unreadable(trail: Trail) -> list[str]:
    """What could not be read is said: else a ledger that was damaged looks like one that never remembered anything."""
    lines = plural(trail.unreadable, "line")
    return [f"⚠️ {lines} in the ledger's `history/` cannot be read, and count for nothing.", ""] if trail.unreadable else []


def _row(entry: Remembered, trail: Trail, world: World) -> str:
    values = [number(entry.metrics[name]) if name in entry.metrics else "–" for name in trail.metrics]
    why = f": {neutralise(entry.why, 200)}" if entry.why else ""
    mark = f"accepted by {code(entry.by)}{why}" if entry.kind == "accepted" else ""
    when = clock(entry.at, world.clock.now())
    return f"| {when} | `{entry.sha[:7]}` | `{entry.run_key[:8]}` | {' | '.join(values)} | {mark} |"


def _baseline(found: Compared) -> dict[str, object]:
    """`drawn` is the run whose curve stands beside the next one's; its values are among `runs`, where these go so far back."""
    return {"value": found.value, "spread": found.spread, "drawn": found.curve.run_key if found.curve else None}


def _as_json(trail: Trail) -> dict[str, object]:
    return {
        "profile": trail.profile,
        "recipe": trail.recipe,
        "metrics": list(trail.metrics),
        "baselines": {name: _baseline(found) for name, found in trail.baselines.items()},
        "runs": [entry.model_dump(mode="json") for entry in trail.entries],
    }
