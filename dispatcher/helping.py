"""The policy, the table of verbs and who asks → what this person may do here."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.answer import DOCS, Answer
from dispatcher.authorise import Denial, Facts, admitted, may_waive
from dispatcher.gatereport import GATE_NAME
from dispatcher.phrases import duration, number
from dispatcher.policy import Policy
from dispatcher.refusals import answered
from dispatcher.rules import Limits
from dispatcher.untrusted import code
from dispatcher.verbs import VERBS


def help_words(topic: str, policy: Policy, facts: Facts, profiles: Sequence[str], word: str, trigger: str) -> Answer:
    """The answer to `help`, `help <verb>`, `help profiles` or `help recipes`."""
    if topic == "profiles":
        lines = ["### Profiles", "", *_profiles(policy, facts, profiles)]
    elif topic == "recipes":
        lines = ["### Recipes", "", *_recipes(policy, facts)]
    elif topic in VERBS:
        verb = VERBS[topic]
        lines = [f"### `{word} {verb.usage}`", "", f"It {verb.does}.", ""]
        lines += [f"- {code(f'{word} {example}')}" for example in verb.examples]
        lines += ["", verb.notes] if verb.notes else []
        lines += ["", *note] if (note := _note(topic, policy, facts)) else []
    else:
        lines = [f"### What you can do here with `{word}`", "", "| command | what it does |", "|---|---|"]
        lines += [f"| {code(f'{word} {verb.usage}')} | {verb.does}{_mark(name, policy, facts)} |" for name, verb in VERBS.items()]
        lines += ["", f"**Profiles** {_line(_usable(policy, facts, profiles), policy.default_profile)}"]
        lines += ["", f"**Recipes** {_line(_usable_recipes(policy, facts), policy.default_recipe)}"]
        lines += ["", f"`{word} help VERB`, `{word} help profiles` and `{word} help recipes` say more."]
    return answered(
        "help",
        [*lines, "", f"<sub>For {code(facts.actor)}, by the policy as it is now · [every command]({DOCS}/commands.md)</sub>"],
        trigger,
    )


def _mark(verb: str, policy: Policy, facts: Facts) -> str:
    """What stands in the way of a verb for this person; empty when nothing does."""
    refused = may_waive(facts, policy, GATE_NAME) if verb == "override" else ""
    if isinstance(refused, Denial):
        return " – *not here*" if refused.reason == "override-off" else " – *not you*"
    return ""


def _note(verb: str, policy: Policy, facts: Facts) -> list[str]:
    if verb != "override":
        return []
    refused = may_waive(facts, policy, GATE_NAME)
    return [refused.words] if isinstance(refused, Denial) else ["You may."]


def _usable(policy: Policy, facts: Facts, profiles: Sequence[str]) -> list[str]:
    return [name for name in profiles if not isinstance(admitted(name, "", facts, policy), Denial)]


def _usable_recipes(policy: Policy, facts: Facts) -> list[str]:
    return [name for name in sorted(policy.recipes) if not isinstance(admitted("", name, facts, policy), Denial)]


def _profiles(policy: Policy, facts: Facts, profiles: Sequence[str]) -> list[str]:
    rows = ["| profile | you | limits |", "|---|---|---|"]
    for name in profiles:
        decided = admitted(name, "", facts, policy)
        may = f"no: {_why(decided)}" if isinstance(decided, Denial) else f"yes (`{decided}`)"
        rule = policy.profiles.get(name)
        default = " (default)" if name == policy.default_profile else ""
        rows.append(f"| {code(name)}{default} | {may} | {_limits(rule.limits if rule else Limits(), policy.limits)} |")
    return rows if profiles else ["There is none yet: add `profiles/NAME.yaml` on the default branch."]


def _recipes(policy: Policy, facts: Facts) -> list[str]:
    rows = ["| recipe | runs | you |", "|---|---|---|"]
    for name, recipe in sorted(policy.recipes.items()):
        decided = admitted("", name, facts, policy)
        may = f"no: {_why(decided)}" if isinstance(decided, Denial) else "yes"
        default = " (default)" if name == policy.default_recipe else ""
        rows.append(f"| {code(name)}{default} | {code(recipe.program)} | {may} |")
    return rows if policy.recipes else ["There is none yet: add `recipes:` to `.github/dispatch.yml`."]


def _why(denial: Denial) -> str:
    words = denial.words.partition("** ")[2]
    return words[:1].lower() + words[1:]


def _limits(own: Limits, general: Limits) -> str:
    nodes = own.nodes if own.nodes is not None else general.nodes
    seconds = own.time if own.time is not None else general.time
    hours = own.gpu_hours if own.gpu_hours is not None else general.gpu_hours
    parts = [f"{nodes} nodes"] if nodes is not None else []
    parts += [duration(seconds)] if seconds is not None else []
    parts += [f"{number(hours)} GPU-hours"] if hours is not None else []
    return ", ".join(parts) or "–"


def _line(names: Sequence[str], default: str | None) -> str:
    return ", ".join(f"{code(name)} (default)" if name == default else code(name) for name in names) or "none"
