"""A profile with what it extends, and a recipe → the rules of the policy that apply, each with the path at which it stands.

What a profile or a recipe has of its own replaces the general rule. Where several of them have it (the profile, a profile that it
extends, the recipe), all must be met: so extending a restricted profile never leads around its rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dispatcher.grammar import Override
from dispatcher.policy import Policy
from dispatcher.rules import Allow, Approval, Overrides, Rule

T = TypeVar("T")


@dataclass(frozen=True)
class At(Generic[T]):
    """A rule, and where it stands in the policy: `profiles.large.limits.nodes`."""

    where: str
    rule: T


def named(policy: Policy, profiles: Sequence[str], recipe: str) -> tuple[At[Rule], ...]:
    """The rules that profiles and recipe have of their own, in that order."""
    found = [At(f"profiles.{name}", policy.profiles[name]) for name in dict.fromkeys(profiles) if name in policy.profiles]
    return (*found, *([At(f"recipe_rules.{recipe}", policy.recipe_rules[recipe])] if recipe in policy.recipe_rules else []))


def applying(
    policy: Policy, profiles: Sequence[str], recipe: str, what: str, general: T | None, own: Callable[[Rule], T | None]
) -> tuple[At[T], ...]:
    """Every rule of one kind that must be met: those of their own, else the general one; none where nothing is given."""
    found = [(at.where, own(at.rule)) for at in named(policy, profiles, recipe)]
    given = tuple(At(f"{where}.{what}", rule) for where, rule in found if rule is not None)
    return given or (() if general is None else (At(what, general),))


def allows(policy: Policy, profiles: Sequence[str], recipe: str) -> tuple[At[Allow], ...]:
    """Who may: every one of these must admit. Each refuses whom the general rule refuses too."""
    found = applying(policy, profiles, recipe, "allow", policy.allow, lambda rule: rule.allow)
    return tuple(_also_denied(at, policy) for at in found)


def approvals(policy: Policy, profiles: Sequence[str], recipe: str) -> tuple[At[Allow], ...]:
    """Who may agree as second person: every one of these must admit; none where no rule says so."""
    found = applying(policy, profiles, recipe, "approval.allow", policy.approval.allow, lambda rule: _approval(rule).allow)
    return tuple(_also_denied(at, policy) for at in found)


def _also_denied(at: At[Allow], policy: Policy) -> At[Allow]:
    if at.rule is policy.allow:
        return at
    return At(at.where, at.rule.model_copy(update={"deny": (*policy.allow.deny, *at.rule.deny)}))


def _approval(rule: Rule) -> Approval:
    return rule.approval or Approval()


def nodes_limits(policy: Policy, profiles: Sequence[str], recipe: str) -> tuple[At[int], ...]:
    """Most nodes."""
    return applying(policy, profiles, recipe, "limits.nodes", policy.limits.nodes, lambda rule: rule.limits.nodes)


def time_limits(policy: Policy, profiles: Sequence[str], recipe: str) -> tuple[At[int], ...]:
    """Longest time limits, in seconds."""
    return applying(policy, profiles, recipe, "limits.time", policy.limits.time, lambda rule: rule.limits.time)


def hours_limits(policy: Policy, profiles: Sequence[str], recipe: str) -> tuple[At[float], ...]:
    """Most GPU-hours."""
    return applying(policy, profiles, recipe, "limits.gpu_hours", policy.limits.gpu_hours, lambda rule: rule.limits.gpu_hours)


def image_rules(policy: Policy, profiles: Sequence[str], recipe: str) -> tuple[At[tuple[str, ...]], ...]:
    """Lists of patterns, in each of which the image must be."""
    return applying(policy, profiles, recipe, "images", policy.images, lambda rule: rule.images)


def nodes_approvals(policy: Policy, profiles: Sequence[str], recipe: str) -> tuple[At[int], ...]:
    """More nodes than these need a second person."""
    return applying(policy, profiles, recipe, "approval.nodes", policy.approval.nodes, lambda rule: _approval(rule).nodes)


def hours_approvals(policy: Policy, profiles: Sequence[str], recipe: str) -> tuple[At[float], ...]:
    """More GPU-hours than these need a second person."""
    return applying(policy, profiles, recipe, "approval.gpu_hours", policy.approval.gpu_hours, lambda rule: _approval(rule).gpu_hours)


def asks_for_approval(policy: Policy) -> bool:
    """Whether anything waits for a second person at all."""
    rules = (policy.approval, *(_approval(rule) for rule in (*policy.profiles.values(), *policy.recipe_rules.values())))
    return any(rule.nodes is not None or rule.gpu_hours is not None for rule in rules)


# --------------------------------------------------------------------------- overrides


def override_refusal(override: Override, policy: Policy, profiles: Sequence[str], recipe: str) -> str | None:
    """The rule by which an override may not be given, with its path; None when every rule lets it pass."""
    own = [at for at in named(policy, profiles, recipe) if at.rule.overrides is not None]
    if not own:
        return policy.overrides.refusal(override)
    for at in own:
        assert at.rule.overrides is not None
        refusal = _combined(policy.overrides, at.rule.overrides).refusal(override)
        if refusal:
            return refusal if _from_general(refusal, policy.overrides, at.rule.overrides, override) else f"{at.where}.{refusal}"
    return None


def _combined(general: Overrides, own: Overrides) -> Overrides:
    """An `allow` of its own replaces the general one; `deny` and `values` add up."""
    allow = own.allow if "allow" in own.model_fields_set else general.allow
    return Overrides(allow=allow, deny=(*general.deny, *own.deny), values={**general.values, **own.values})


def _from_general(refusal: str, general: Overrides, own: Overrides, override: Override) -> bool:
    """Whether it is the general rule that says no."""
    if refusal == "overrides.allow":
        return "allow" not in own.model_fields_set
    return Overrides(allow=("*", "run.*"), deny=general.deny, values=general.values).refusal(override) == refusal
