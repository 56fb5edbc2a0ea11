"""Facts about a person × the policy's rules → whether they may use, approve or override: the rule that admits them, or a `Denial`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from dispatcher.applies import At, allows, approvals, named, override_refusal
from dispatcher.denial import Denial, by
from dispatcher.facts import Asked, Facts, profile_name, recipe_name
from dispatcher.grammar import Override, Run
from dispatcher.policy import Policy
from dispatcher.rules import Allow
from dispatcher.untrusted import code
from dispatcher.verbs import AcceptBaseline, Waive

GATES = ("dispatch/gate",)


def admitted(profile: str, recipe: str, facts: Facts, policy: Policy) -> str | Denial:
    """The rule that lets the actor use profile and recipe (or, for empty names, the dispatcher at all), else the no.

    Where both have a rule of their own both are named, with ` and ` between them.
    """
    return _met(allows(policy, (profile,), recipe), facts, f"use {_of(profile, recipe)}")


def may_command(facts: Facts, policy: Policy) -> str | Denial:
    """The rule that lets the actor give commands that run nothing: the general one, or that of any profile or recipe."""
    general = admitted("", "", facts, policy)
    if not isinstance(general, Denial) or general.reason == "denied-user":
        return general
    own = [admitted(name, "", facts, policy) for name, rule in policy.profiles.items() if rule.allow is not None]
    own += [admitted("", name, facts, policy) for name, rule in policy.recipe_rules.items() if rule.allow is not None]
    return next((rule for rule in own if not isinstance(rule, Denial)), general)


def named_teams(policy: Policy) -> tuple[str, ...]:
    """Every team that the policy admits somewhere: what somebody may do here depends on all of them."""
    rules = [rule.allow for rule in (*policy.profiles.values(), *policy.recipe_rules.values())]
    rules += [policy.allow, policy.gate.baseline, policy.gate.override.allow if policy.gate.override else None]
    return tuple(dict.fromkeys(team for allow in rules if allow is not None for team in allow.teams))


def also_admitted(names: Sequence[str], facts: Facts, policy: Policy, overrides: Sequence[Override] = ()) -> Denial | None:
    """What the profiles say that a profile extends: whoever may not use one of them, or not with these overrides, may not use it.

    `names` is `ResolvedProfile.lineage`; a name that has no rule refuses nobody.
    """
    for name in names:
        own = [at for at in allows(policy, (name,), "") if at.where.startswith("profiles.")]
        answer = _met(
            own, facts, f"use {_of(names[0], '')}, which is based on {_of(name, '')}" if name != names[0] else f"use {_of(name, '')}"
        )
        if isinstance(answer, Denial):
            return answer
        if any(at.rule.overrides is not None for at in named(policy, (name,), "")):
            refused = overridable(overrides, (name,), "", policy)
            if refused is not None:
                return refused
    return None


def overridable(overrides: Iterable[Override], profiles: Sequence[str], recipe: str, policy: Policy) -> Denial | None:
    """The first override that profile and recipe do not take."""
    for override in overrides:
        refusal = override_refusal(override, policy, profiles, recipe)
        if refusal:
            rule, _, pattern = refusal.partition(": ")
            why = f"Its value has to match {code(pattern)}" if pattern else f"It is not among the overrides of {_of(profiles[0], recipe)}"
            step = "Leave it out, or have the policy changed on the default branch."
            return Denial("override-not-allowed", f"**{code(override.word)} may not be set.** {why} {by(rule)}.", step, rule)
    return None


def may_approve(
    facts: Facts, policy: Policy, profile: str, recipe: str, requester: str, second: bool = True, extends: Sequence[str] = ()
) -> str | Denial:
    """The rule that lets the actor approve what `requester` asked for, else the no.

    `second`: it is the word of a second person above a threshold; then `approval.allow` decides where a rule has it, and nobody approves
    their own request. Else a fork's commit is vouched for, which whoever may use profile and recipe can. `extends` are further profiles
    whose rules count (`ResolvedProfile.lineage`).
    """
    if second and facts.actor.lower() == requester.lower():
        words = f"**{code(facts.actor)} may not approve this.** It takes somebody else's word: {code(requester)} asked for it."
        return Denial("own-request", words, "Ask somebody who may to approve it.", "approval")
    profiles = (profile, *extends)
    rules = approvals(policy, profiles, recipe) if second else ()
    return _met(rules or allows(policy, profiles, recipe), facts, f"approve a run with {_of(profile, recipe)}")


def may_waive(facts: Facts, policy: Policy, gate: str) -> str | Denial:
    """The rule that lets the actor make an exception from a gate, else the no."""
    if gate not in GATES:
        near = difflib.get_close_matches(gate.lower(), GATES, 1, 0.4)
        hint = f"Did you mean **{code(near[0])}**? " if near else ""
        known = ", ".join(code(name) for name in GATES)
        return Denial("unknown-gate", f"**There is no gate {code(gate)}.** {hint}There is: {known}.", f"Name it: {known}.")
    if policy.gate.override is None:
        words = "**There are no exceptions from the gate.** The policy has no `gate.override` in `.github/dispatch.yml`."
        return Denial("override-off", words, "Let the required runs pass, or add `gate.override` on the default branch.", "gate.override")
    return _met((_waiver(policy),), facts, f"override {code(gate)}")


def may_accept(facts: Facts, policy: Policy) -> str | Denial:
    """The rule that lets the actor move a baseline, else the no."""
    return _met((_acceptance(policy),), facts, "accept a run as the baseline")


def needed_teams(command: Asked, facts: Facts, policy: Policy, extends: Sequence[str] = ()) -> tuple[str, ...]:
    """The teams whose membership still decides, once the role is known: none when the role or the name has decided already.

    `extends` are further profiles whose rules count, where they are known already.
    """
    profile, recipe = profile_name(command, policy), recipe_name(command, policy)
    rules = allows(policy, (profile, *extends), recipe)
    if not isinstance(command, Run) and isinstance(admitted("", "", facts, policy), Denial):
        return () if policy.allow.denies(facts.actor) else named_teams(policy)
    if isinstance(command, Waive) and policy.gate.override is not None:
        rules = (*rules, _waiver(policy))
    if isinstance(command, AcceptBaseline):
        rules = (*rules, _acceptance(policy))
    return _undecided(rules, facts)


def approver_teams(
    facts: Facts, policy: Policy, profile: str, recipe: str, second: bool = True, extends: Sequence[str] = ()
) -> tuple[str, ...]:
    """The teams whose membership `may_approve` still has to know."""
    profiles = (profile, *extends)
    return _undecided((approvals(policy, profiles, recipe) if second else ()) or allows(policy, profiles, recipe), facts)


def lineage_teams(names: Sequence[str], facts: Facts, policy: Policy) -> tuple[str, ...]:
    """The teams whose membership `also_admitted` still has to know, beyond those that the facts have."""
    found = _undecided([at for name in names for at in allows(policy, (name,), "") if at.where.startswith("profiles.")], facts)
    return tuple(team for team in found if team.lower() not in {mine.lower() for mine in facts.teams})


# --------------------------------------------------------------------------- one rule after the other


def _met(rules: Iterable[At[Allow]], facts: Facts, what: str) -> str | Denial:
    """All of the rules: what admits, or the first no."""
    admits = []
    for at in rules:
        answer = _answer(at, facts, what)
        if isinstance(answer, Denial):
            return answer
        admits.append(answer)
    return " and ".join(admits)


def _answer(at: At[Allow], facts: Facts, what: str) -> str | Denial:
    allow, rule = at.rule, at.where
    if allow.denies(facts.actor):
        words = f"**{code(facts.actor)} may not {what}.** The account stands under `deny` {by(rule)}."
        return Denial("denied-user", words, "Ask somebody with write access to run it.", rule)
    if facts.holds_key:
        return "the cluster's key"
    if allow.admits_user(facts.actor):
        return f"{rule}.users"
    if allow.admits_role(facts.role):
        return f"{rule}.roles"
    if any(team.lower() in {mine.lower() for mine in facts.teams} for team in allow.teams):
        return f"{rule}.teams"
    words = f"**{code(facts.actor)} may not {what}.** It takes {_takes(allow)} {by(rule)}."
    if facts.role is None:
        words += " GitHub does not list the account as a collaborator of this repository."
        return Denial("not-a-collaborator", words, "Somebody who may can give the same command.", rule)
    step = "Somebody who may can give the same command."
    return Denial("role-too-low", f"{words} Its role here is {code(facts.role)}.", step, rule)


def _takes(allow: Allow) -> str:
    """A rule in words. People are not listed by name: the answer would mention them all."""
    roles = [f"{code(role)} access" for role in allow.roles if role not in ("maintain", "admin") or "write" not in allow.roles]
    parts = [*roles, *(f"membership of {code(team)}" for team in allow.teams), *(["being listed by name"] if allow.users else [])]
    return " or ".join(parts) or "being admitted by the policy, which admits nobody"


def _of(profile: str, recipe: str) -> str:
    """What is used, in words; the recipe is named only where it has no profile beside it."""
    if profile:
        return f"profile {code(profile)}"
    return f"recipe {code(recipe)}" if recipe else "this command"


def _undecided(rules: Iterable[At[Allow]], facts: Facts) -> tuple[str, ...]:
    """The teams of the rules that neither the name nor the role has decided; none where one rule has refused already."""
    teams: dict[str, None] = {}
    for at in rules:
        if at.rule.denies(facts.actor):
            return ()
        if not (at.rule.admits_user(facts.actor) or at.rule.admits_role(facts.role)):
            teams.update(dict.fromkeys(at.rule.teams))
    return tuple(teams)


def _waiver(policy: Policy) -> At[Allow]:
    assert policy.gate.override is not None
    allow = policy.gate.override.allow
    return At("gate.override.allow", allow.model_copy(update={"deny": (*policy.allow.deny, *allow.deny)}))


def _acceptance(policy: Policy) -> At[Allow]:
    allow = policy.gate.baseline
    return At("gate.baseline", allow.model_copy(update={"deny": (*policy.allow.deny, *allow.deny)}))
