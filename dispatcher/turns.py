"""Runs at it × runs queued × the policy's `active` and `budget` → whose turn it is, who waits in which place, and who is over a budget.

The queue is in the order in which the runs were asked for. A run waits while one of its own limits is full; who does not share that limit
may pass. So one person's hundred runs hold up nobody else, and nobody is overtaken by somebody who waits for the same thing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dispatcher.attempts import origin_of
from dispatcher.denial import Denial, by
from dispatcher.phrases import number
from dispatcher.policy import Policy
from dispatcher.record import RunRecord
from dispatcher.rules import Active, Budget, Rule
from dispatcher.untrusted import code
from dispatcher.usage import Spent

Scope = tuple[str, str]
"""What a limit is about: (`user`, `alice`), (`pull`, `12`), (`profile`, `cluster`), (`recipe`, `default`), (`month`, ``)."""

_OF_NOBODY = {"schedule": "schedule:", "merge queue": "merge_group:"}
# Sums of fractions: a budget that is used up exactly is not exceeded.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Go:
    """It may be handed to the scheduler now."""

    run_key: str


@dataclass(frozen=True)
class Wait:
    """It stays in the queue: `place` counts from 1 among those that wait for the same, `because` says what is full."""

    run_key: str
    place: int
    because: str

    @property
    def words(self) -> str:
        """For people."""
        return f"place {self.place} in the queue: {self.because}"


@dataclass(frozen=True)
class Over:
    """It must not run: a budget has not enough left."""

    run_key: str
    denial: Denial


Turn = Go | Wait | Over


@dataclass(frozen=True)
class _Cap:
    """A number of the policy that a run comes under."""

    scope: Scope
    most: float
    where: str


def takes_turns(policy: Policy) -> bool:
    """Whether the policy bounds how many runs are at it, or what they use together."""
    rules = (*policy.profiles.values(), *policy.recipe_rules.values())
    general = policy.active != Active() or policy.budget != Budget()
    return general or any(rule.active is not None or rule.budget is not None for rule in rules)


def bounds(record: RunRecord, policy: Policy) -> tuple[tuple[str, float], ...]:
    """The numbers of `active` and `budget` that a run comes under, each with its path."""
    return tuple((cap.where, cap.most) for cap in (*_active_caps(record, policy), *_budget_caps(record, policy)))


def take_turns(active: Sequence[RunRecord], queued: Sequence[RunRecord], spent: Spent, policy: Policy, repository: str) -> tuple[Turn, ...]:
    """One turn for each queued run of this repository, in the queue's order.

    `active` may hold ended runs and those of other repositories: they do not count. `spent` has what the journal says about this month,
    with what active runs asked for; what those who go now ask for is added.
    """
    ours = [record for record in queued if _is_ours(record, repository)]
    mine = {record.run_key for record in ours}
    at_it = [record for record in active if _is_ours(record, repository) and not record.state.ended and record.run_key not in mine]
    counts = Counter(cap.scope for record in at_it for cap in _active_caps(record, policy))
    taken: dict[Scope, float] = defaultdict(float)
    waiting: list[set[Scope]] = []
    turns: list[Turn] = []
    for record in ours:
        over = _over(record, spent, taken, policy)
        full = [cap for cap in _active_caps(record, policy) if counts[cap.scope] >= cap.most]
        if over is not None:
            turns.append(Over(record.run_key, over))
        elif full:
            scopes = {cap.scope for cap in full}
            because = " and ".join(_full(cap, counts[cap.scope]) for cap in full)
            turns.append(Wait(record.run_key, 1 + sum(bool(scopes & others) for others in waiting), because))
            waiting.append(scopes)
        else:
            turns.append(Go(record.run_key))
            counts.update(cap.scope for cap in _active_caps(record, policy))
            for cap in _budget_caps(record, policy):
                taken[cap.scope] += record.resources.gpu_hours
    return tuple(turns)


def _is_ours(record: RunRecord, repository: str) -> bool:
    return record.target.repository.lower() == repository.lower()


def _active_caps(record: RunRecord, policy: Policy) -> list[_Cap]:
    return _caps(record, policy.active, "active", policy.profiles.get(record.profile), policy.recipe_rules.get(record.recipe))


def _budget_caps(record: RunRecord, policy: Policy) -> list[_Cap]:
    found = _caps(record, policy.budget, "budget", policy.profiles.get(record.profile), policy.recipe_rules.get(record.recipe))
    return found + ([_Cap(("month", ""), policy.budget.month, "budget.month")] if policy.budget.month is not None else [])


def _caps(record: RunRecord, general: Active | Budget, kind: str, profile: Rule | None, recipe: Rule | None) -> list[_Cap]:
    """The numbers under which a run comes: its user's, its pull request's, its profile's (its own before the general), its recipe's."""
    own_profile: float | None = getattr(profile, kind) if profile else None
    own_recipe: float | None = getattr(recipe, kind) if recipe else None
    at_profile = f"profiles.{record.profile}.{kind}" if own_profile is not None else f"{kind}.profile"
    found = [
        (("user", record.actor.lower()), None if _of_nobody(record) else general.user, f"{kind}.user"),
        (("pull", str(record.target.pull)), general.pull if record.target.pull is not None else None, f"{kind}.pull"),
        (("profile", record.profile.lower()), general.profile if own_profile is None else own_profile, at_profile),
        (("recipe", record.recipe.lower()), own_recipe, f"recipe_rules.{record.recipe}.{kind}"),
    ]
    return [_Cap(scope, most, where) for scope, most, where in found if most is not None]


def _of_nobody(record: RunRecord) -> bool:
    """Whether no person has asked for it. An account may be called `schedule`: what it asked for has another trigger."""
    beginning = _OF_NOBODY.get(record.actor)
    first = origin_of(record.trigger) or record.trigger
    return beginning is not None and not first.startswith(("comment:", "label:", "manual:", "check:", "push:", "retry:"))


def _full(cap: _Cap, count: int) -> str:
    """`alice has 2 of 2 active runs`."""
    return f"{_who(cap.scope)} has {count} of {cap.most:g} active runs"


def _who(scope: Scope) -> str:
    kind, name = scope
    return {"user": name, "pull": f"pull request #{name}", "profile": f"profile {name}", "recipe": f"recipe {name}"}.get(kind, "everybody")


def _over(record: RunRecord, spent: Spent, taken: Mapping[Scope, float], policy: Policy) -> Denial | None:
    """The first budget that the run would exceed; one that asks for no GPU exceeds none."""
    asked = record.resources
    if asked.nodes * asked.gpus_per_node <= 0:
        return None
    for cap in _budget_caps(record, policy):
        if asked.seconds <= 0:
            words = f"**A run without time limit may not be started.** There is a budget {by(cap.where)}."
            return Denial("no-time-limit", words, "Give the profile a `time`.", cap.where)
        before = _spent_in(cap.scope, spent) + taken.get(cap.scope, 0.0)
        if before + asked.gpu_hours > cap.most + _ROUNDING:
            return _exceeded(record, cap, before)
    return None


def _exceeded(record: RunRecord, cap: _Cap, before: float) -> Denial:
    whose = {"user": f"of {code(record.actor)}", "pull": f"of pull request {record.target.pull}", "month": "of this repository"}
    of = whose.get(cap.scope[0], f"of {cap.scope[0]} {code(record.profile if cap.scope[0] == 'profile' else record.recipe)}")
    words = (
        f"**Not enough GPU-hours are left this month.** The budget {of} is {number(cap.most)} GPU-hours; {number(before)} are used or "
        f"reserved, and this run asks for {number(record.resources.gpu_hours)} {by(cap.where)}."
    )
    step = "Ask for less time or fewer GPUs, wait for runs that end early or for the next month (UTC), or have the budget changed."
    return Denial("budget-exceeded", words, step, cap.where)


def _spent_in(scope: Scope, spent: Spent) -> float:
    kind, name = scope
    match kind:
        case "user":
            return spent.user(name)
        case "pull":
            return spent.pull(int(name))
        case "profile":
            return spent.profile(name)
        case "recipe":
            return spent.recipe(name)
        case _:
            return spent.month
