"""`baseline accept` → a run's results become what later ones are compared with; the run itself is judged again, and so is the gate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dispatcher.answer import Answer
from dispatcher.authorise import Denial, Facts, Grant
from dispatcher.baseline import SETTLED, acceptance_of, history_name
from dispatcher.gatekeeper import evaluate_gate
from dispatcher.judging import rules_for
from dispatcher.observe import Seen, tail_of
from dispatcher.policy import Policy
from dispatcher.record import RunRecord
from dispatcher.refusals import answered, denied, nothing_to_compare
from dispatcher.rights import may_accept
from dispatcher.running import Found, which
from dispatcher.slurm import State
from dispatcher.telling import say
from dispatcher.thresholds import MetricRule, judge, worst
from dispatcher.untrusted import code, neutralise
from dispatcher.verbs import AcceptBaseline
from dispatcher.world import World


def accept(command: AcceptBaseline, grant: Grant, facts: Facts, runs: Sequence[Found], policy: Policy, world: World) -> Answer:
    """Moves the baseline of the run's profile and recipe, for every pull request."""
    rule = may_accept(facts, policy)
    if isinstance(rule, Denial):
        return denied(rule, grant.trigger, lead="Not done")
    named = [item for item in runs if item.record.run_key.startswith(command.run or "")]
    if command.run and len(named) != 1:
        return which([item.record for item in named], command.run, grant.trigger, world, "baseline accept")
    # The newest that is compared at all, and no older one in its place, nor one of two recipes: what holds for everybody is not guessed.
    meant = [item for item in named if item.record.state is State.SUCCEEDED and _compared(item.record, policy)]
    newest = {(item.record.profile, item.record.name): item.record for item in sorted(meant, key=lambda found: found.record.asked_at)}
    if len(newest) > 1 and not command.run:
        return which(list(newest.values()), None, grant.trigger, world, "baseline accept")
    item = max(meant or named, key=lambda found: found.record.asked_at, default=None)
    unusable = _unusable(item.record, policy) if item is not None else ""
    if item is None or unusable:
        why = f"Run `{item.record.run_key[:8]}` {unusable}." if item is not None else ""
        return nothing_to_compare(why, grant.trigger, world.settings.voice)
    record = item.record
    name = history_name(record.target.repository, record.profile, record.name)
    cluster = world.connect(item.profile)
    try:
        cluster.remember(name, acceptance_of(record, grant.actor, command.reason, world.clock.now()))
        again = record.model_copy(update={"verdicts": (), "results_problem": ""})
        seen = say(world, cluster, policy, Seen(again, tail_of(world, cluster, record)))
    finally:
        cluster.close()
    if grant.number is not None and world.forge is not None:
        evaluate_gate(world, policy, grant.number, (seen.record,))
    return answered("accepted", _words(seen.record, grant, command), grant.trigger)


def _compared(record: RunRecord, policy: Policy) -> Mapping[str, MetricRule]:
    """The rules by which runs of its recipe are compared with the baseline."""
    return {name: rule for name, rule in rules_for(record, policy).items() if "baseline" in rule.references}


def _unusable(record: RunRecord, policy: Policy) -> str:
    """Why nothing may be compared with the run, as words after its name; empty when it can be a baseline for each rule that wants one."""
    compared = _compared(record, policy)
    if record.state is not State.SUCCEEDED:
        return "has not ended well"
    if record.results_broken:
        return f"left results that cannot be used: {neutralise(record.results_problem, 200)}"
    if not compared:
        return f"is of recipe {code(record.recipe)}, whose `metrics` compare nothing with the baseline"
    if record.overrides:
        return "has overrides: it did not run what later runs do"
    for name, rule in compared.items():
        value = record.results.get(name)
        if value is None and worst(judge({name: rule}, {}, {})) != "fail":
            continue  # it may be missing; the baseline that it has stays
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return f"has no number for {code(name)}, which its rules compare with the baseline"
    return "" if any(record.results.get(name) is not None for name in compared) else "reports none of the metrics that are compared"


def _words(record: RunRecord, grant: Grant, command: AcceptBaseline) -> list[str]:
    lines = [
        f"### 📏 Run `{record.run_key[:8]}` is the new baseline of {record.profile} / {record.recipe}",
        "",
        f"By {code(grant.actor)}. Every later run is compared with it, until the default branch has {SETTLED} later runs of its own.",
    ]
    if command.reason:
        lines += ["", f"> {neutralise(command.reason, 300)}"]
    if record.results_problem:
        lines += ["", f"It still does not pass: {neutralise(record.results_problem, 400)}. A fixed bound is changed in the policy."]
    return lines
