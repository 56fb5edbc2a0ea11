"""A run that ended well × its recipe's rules × what the ledger remembers → the same run with a verdict for each metric.

The rules are the default branch's, as everything that decides is. What is compared with is read where the run's own ledger is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dispatcher.attempts import PATIENCE
from dispatcher.baseline import History, history_name, line_of, parse_history
from dispatcher.errors import ForgeError
from dispatcher.facts import short_ref
from dispatcher.phrases import plural
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.recipe import Recipe
from dispatcher.record import RunRecord
from dispatcher.slurm import State
from dispatcher.thresholds import NAMED, Compared, MetricRule, NotFound, Sources, judge, worst
from dispatcher.world import World


def judged(record: RunRecord, world: World, cluster: Cluster, policy: Policy) -> RunRecord:
    """The record with its verdicts; one that fails becomes the results' problem, by which the check, the gate and the exit status go.

    A run that did not end well, or has been judged, or whose recipe has no rules, stays as it is.

    Raises:
        ForgeError: GitHub does not say now what the run is to be compared with. Nothing has been decided, so nothing may be reported: the
            run stays active, and the next look asks again. After `PATIENCE` it counts as not found out, which is a verdict.
    """
    rules = rules_for(record, policy)
    if not unjudged(record, policy):
        return record.model_copy(update={"verdict_owed": False}) if record.verdict_owed else record
    history = parse_history(cluster.history(_name(record))) if _compares(rules) else History()
    verdicts = judge(rules, record.results, _sources(record, rules, history, world))
    problem = next((verdict.why for verdict in verdicts if verdict.outcome == "fail"), "") if worst(verdicts) == "fail" else ""
    return record.model_copy(update={"verdicts": verdicts, "results_problem": problem, "verdict_owed": False})


def unjudged(record: RunRecord, policy: Policy) -> bool:
    """Whether it ended well, and its recipe's rules have not been asked yet."""
    return bool(rules_for(record, policy)) and record.state is State.SUCCEEDED and not (record.results_problem or record.verdicts)


def remember(record: RunRecord, world: World, cluster: Cluster) -> None:
    """What a run of the default branch measured, for those that come after it; what the queue would not merge is none of it.

    Said more than once, it counts once (`parse_history`).
    """
    if not record.on_default or record.state is not State.SUCCEEDED or not record.results or record.own_runspec:
        return
    if record.target.merge_queue is not None and record.results_problem:
        return
    cluster.remember(_name(record), line_of(record, world.clock.now()))


def rules_for(record: RunRecord, policy: Policy) -> Mapping[str, MetricRule]:
    """The rules of the run's recipe; none when the recipe is gone."""
    recipe = policy.recipe(record.recipe)
    return recipe.metrics if isinstance(recipe, Recipe) else {}


def _name(record: RunRecord) -> str:
    return history_name(record.target.repository, record.profile, record.name)


def _compares(rules: Mapping[str, MetricRule]) -> bool:
    return any(isinstance(reference, str) for rule in rules.values() for reference in rule.references)


def _sources(record: RunRecord, rules: Mapping[str, MetricRule], history: History, world: World) -> Sources:
    """What each metric is compared with, as far as it is known."""
    rolling = {name: found for name, rule in rules.items() if (found := history.rolling(name, rule.window)) is not None}
    named = {reference for rule in rules.values() for reference in rule.references}
    base = _merge_base(record, world) if "merge-base" in named else None
    if history.unreadable and not history.entries:
        # That nobody can read it is not that there is none.
        lost = NotFound(f"none of the {plural(history.unreadable, 'line')} that the ledger remembers can be read")
        return dict.fromkeys(NAMED, dict.fromkeys(rules, lost))
    if isinstance(base, NotFound):
        return {"baseline": _drawn_with(record, rolling), "merge-base": dict.fromkeys(rules, base)}
    windows = {name: rule.window for name, rule in rules.items()}
    of_base = {name: found for name in rules if base and (found := history.of_commit(base, name, windows[name])) is not None}
    return {"baseline": _drawn_with(record, rolling), "merge-base": _drawn_with(record, of_base)}


def _drawn_with(record: RunRecord, found: Mapping[str, Compared]) -> Mapping[str, Compared]:
    """Without the curves that stand beside none of the run's, or are its own (it may be the one that was accepted): records stay small."""
    names = {curve.name for curve in record.curves}
    own = {record.run_key, record.same_as}
    return {
        name: item if item.curve is not None and name in names and item.curve.run_key not in own else replace(item, curve=None)
        for name, item in found.items()
    }


def _merge_base(record: RunRecord, world: World) -> str | NotFound | None:
    """Where the pull request left its branch, or what the merge queue builds on; None where a run has neither.

    Raises:
        ForgeError: GitHub does not say, and may say later.
    """
    entry, number = record.target.merge_queue, record.target.pull
    if entry is not None and entry.base_sha:
        return entry.base_sha
    if world.forge is None or (entry is None and number is None):
        return None
    try:
        if entry is not None:
            return world.forge.merge_base(short_ref(entry.base_ref), record.sha)
        pull = world.forge.pull(number) if number is not None else None
        return world.forge.merge_base(pull.base_ref, record.sha) if pull is not None else None
    except ForgeError as error:
        # What took over another run's end was asked for later than that.
        since = max(record.ended_at or record.asked_at, record.asked_at)
        if world.clock.now() - since < PATIENCE:
            world.say(f"Run {record.run_key} is not judged yet: where it left its branch is not known. {error.cause}")
            raise
        return NotFound(f"GitHub did not say where `{record.sha[:7]}` left its branch ({error.code})")
