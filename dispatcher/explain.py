"""A command, facts and the policy → every step of the decision, with the rule that made it and where it stands.

Each step is asked of the very function that decides when the command comes on GitHub; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import chain

from dispatcher.answer import Voice
from dispatcher.authorise import Denial, Facts, admitted, also_admitted, authorise, may_waive, overridable, pinned
from dispatcher.command import Command, Several
from dispatcher.document import Document
from dispatcher.errors import ConfigError, Exit
from dispatcher.event import CommentEvent
from dispatcher.facts import Asked, profile_name, recipe_name
from dispatcher.grammar import Malformed, Run, Sweep
from dispatcher.limits import Wanted, approval_needed, asked_for, image_refused, images_of, limit_exceeded, too_many
from dispatcher.phrases import duration, number, plural
from dispatcher.pipeline import Pipeline
from dispatcher.policy import Policy
from dispatcher.printing import render
from dispatcher.profile import Profile, ResolvedProfile, UnknownProfile
from dispatcher.recipe import Recipe
from dispatcher.record import Resources, RunRecord, Target
from dispatcher.refusals import unknown_profile
from dispatcher.rights import may_accept, may_command
from dispatcher.runprofile import apply_overrides, with_recipe
from dispatcher.staging import expanded
from dispatcher.steps import Explained, Step, place_of
from dispatcher.turns import Over, bounds, take_turns
from dispatcher.untrusted import code
from dispatcher.usage import Spent
from dispatcher.verbs import AcceptBaseline, Approve, Cancel, Retry, Verb, Waive

UNKNOWN_SHA = "0" * 40
"""Stands for a head that nobody has named."""

Found = ResolvedProfile | UnknownProfile | ConfigError
"""What became of a profile's name."""


@dataclass(frozen=True)
class Basis:
    """What is decided on: the event and facts, the policy with its lines, the profiles by name."""

    event: CommentEvent
    facts: Facts
    policy: Policy
    document: Document
    profiles: Mapping[str, Found]
    voice: Voice


def explain(command: Command, basis: Basis) -> tuple[Explained, ...]:
    """What becomes of a comment: one explanation for each of its commands, and for each run of a sweep."""
    match command:
        case Several():
            many = too_many(1, len(command.commands), basis.policy)
            if many is not None:
                return (_placed(f"{len(command.commands)} commands", (_no("commands", many),), basis),)
            return tuple(chain.from_iterable(explain(verb, basis) for verb in command.commands))
        case Sweep():
            many = too_many(len(command.runs), 1, basis.policy)
            if many is not None:
                return (_placed(render(command, basis.voice.word), (_no("runs", many),), basis),)
            return tuple(chain.from_iterable(explain(run, basis) for run in command.runs))
        case Malformed():
            words = f"{command.message} {command.hint}"
            return (_placed("", (Step("understood", False, words, "", command.reason_code, Exit.MALFORMED),), basis),)
        case Run():
            # Of a pipeline every stage is decided as if it were asked for alone.
            runs = expanded((command,), basis.policy)
            return tuple(_placed(render(run, basis.voice.word), _run_steps(run, basis), basis) for run in runs)
        case _:
            if not isinstance(command, Verb):
                words = f"It asks for nothing: a command begins with {code(basis.voice.word)}, at the start of the comment."
                reason = getattr(command, "reason", "other-event")
                return (_placed("", (Step("understood", False, words, "", reason, Exit.MALFORMED),), basis),)
            return (_placed(render(command, basis.voice.word), _other_steps(command, basis), basis),)


def asked_profiles(command: Command, policy: Policy) -> tuple[str, ...]:
    """The profiles that a comment's commands name, or mean by default."""
    commands = command.commands if isinstance(command, Several) else (command,)
    runs = [run for item in commands for run in (item.runs if isinstance(item, Sweep) else (item,)) if isinstance(run, Run)]
    return tuple(dict.fromkeys(name for run in expanded(runs, policy) if (name := profile_name(run, policy))))


def verbs_in(command: Command) -> tuple[Asked, ...]:
    """Everything in a comment that has to be allowed, sweeps as their runs."""
    commands = command.commands if isinstance(command, Several) else (command,)
    runs = chain.from_iterable(item.runs if isinstance(item, Sweep) else (item,) for item in commands)
    return tuple(item for item in runs if isinstance(item, Asked))


# --------------------------------------------------------------------------- steps


def _run_steps(command: Run, basis: Basis) -> Iterator[Step]:
    """A run's steps, in the order in which they are taken; what a later one needs of an earlier one that failed is left out."""
    policy, facts = basis.policy, basis.facts
    profile, recipe = profile_name(command, policy), recipe_name(command, policy)
    yield Step("understood", True, "a preview, which submits nothing" if command.dry_run else "a run")
    yield _who(profile, recipe, basis)
    yield _commit(command, basis)
    decided = authorise(command, basis.event, facts, policy, word=basis.voice.word)
    if isinstance(decided, Denial) and decided.reason in ("no-profile", "no-recipe", "unknown-recipe"):
        yield _no("recipe" if "recipe" in decided.reason else "profile", decided)
    found = policy.recipe(recipe)
    if isinstance(found, Recipe):
        yield Step("recipe", True, f"{code(recipe)} runs {code(found.program)}", f"recipes.{recipe}")
        if found.runspec:
            said = ", ".join(code(part) for part in found.runspec)
            words = f"the script of the commit may say more for itself ({said}), which is decided when it is read"
            yield Step("script", None, words, f"recipes.{recipe}.runspec")
    if isinstance(found, Pipeline):
        yield Step("recipe", True, f"{code(recipe)} has the stages {found.program}; each is decided as follows", f"recipes.{recipe}.stages")
    if command.overrides:
        refused = overridable(command.overrides, (profile,), recipe, policy)
        yield _no("overrides", refused) if refused else Step("overrides", True, ", ".join(code(item.word) for item in command.overrides))
    resolved = basis.profiles.get(profile)
    if resolved is not None:
        yield _profile(resolved, command, basis)
    if isinstance(resolved, ResolvedProfile) and isinstance(found, Recipe):
        changed = apply_overrides(with_recipe(resolved.profile, found), command.overrides, found.takes_config)
        if isinstance(changed, Malformed):
            yield Step("fields", False, f"{changed.message} {changed.hint}", "", changed.reason_code, Exit.MALFORMED)
        else:
            yield from _amounts(changed, resolved, profile, recipe, basis)


def _other_steps(command: Verb, basis: Basis) -> Iterator[Step]:
    """The steps of a command that runs nothing itself."""
    assert not isinstance(command, Run | Sweep)
    yield Step("understood", True, "it runs nothing by itself: whoever may use something here may give it")
    rule = may_command(basis.facts, basis.policy)
    yield _no("who", rule) if isinstance(rule, Denial) else Step("who", True, f"{code(basis.facts.actor)} may", rule)
    yield _commit(command, basis)
    match command:
        case Waive():
            waived = may_waive(basis.facts, basis.policy, command.gate)
            if isinstance(waived, Denial):
                yield _no("gate", waived)
            else:
                expires = basis.policy.gate.override.expires if basis.policy.gate.override else 0
                yield Step("gate", True, f"{code(command.gate)} may be overridden, for {duration(expires)}", waived)
        case Approve():
            words = "what waits for this commit is known when it runs; each run needs who may use its profile, or `approval.allow`"
            yield Step("approval", None, words)
        case Cancel():
            yield Step("runs", None, "one's own runs may be ended; another's by whoever may use its profile")
        case Retry():
            yield Step("runs", None, "every run is decided again, as if it were asked for now")
        case AcceptBaseline():
            accepted = may_accept(basis.facts, basis.policy)
            if isinstance(accepted, Denial):
                yield _no("baseline", accepted)
            else:
                yield Step("baseline", True, "a run may be accepted as the baseline", accepted)
        case _:
            pass


def _who(profile: str, recipe: str, basis: Basis) -> Step:
    rule = admitted(profile, recipe, basis.facts, basis.policy)
    if isinstance(rule, Denial):
        return _no("who", rule)
    return Step("who", True, f"{code(basis.facts.actor)} may", rule)


def _commit(command: Asked, basis: Basis) -> Step:
    sha = pinned(command, basis.event, basis.facts, basis.policy, basis.voice.word)
    if isinstance(sha, Denial):
        return _no("commit", sha)
    fork = ", vouched for by naming it" if basis.facts.pull and basis.facts.pull.from_fork and isinstance(command, Run) else ""
    known = "" if sha == UNKNOWN_SHA else f", {code(sha[:12])}"
    return Step("commit", True, f"the head{known}{fork}")


def _profile(resolved: Found, command: Run, basis: Basis) -> Step:
    match resolved:
        case ConfigError():
            return Step("profile", False, f"{resolved.cause} {resolved.next_step}", "", resolved.code, resolved.exit)
        case UnknownProfile():
            answer = unknown_profile(resolved, "", basis.voice)
            hint = f" Did you mean {code(resolved.nearest)}?" if resolved.nearest else ""
            return Step("profile", False, f"There is no profile {code(resolved.name)}.{hint}", "", answer.reason, answer.exit)
        case ResolvedProfile():
            refused = also_admitted(resolved.lineage, basis.facts, basis.policy, command.overrides)
            if refused:
                return _no("profile", refused)
            based = "".join(f", based on {code(name)}" for name in resolved.lineage[1:])
            place = str(resolved.document.place(()))
            return Step("profile", True, f"{code(resolved.name)}: {resolved.profile.executor}{based}", place=place)


def _amounts(profile: Profile, resolved: ResolvedProfile, name: str, recipe: str, basis: Basis) -> Iterator[Step]:
    """How much it asks for, and what has to be kept to."""
    policy, asked = basis.policy, asked_for(profile)
    wanted = Wanted(resolved.lineage, recipe, asked, images_of(profile))
    exceeded, image = limit_exceeded(wanted, policy), image_refused(wanted, policy)
    yield _no("limits", exceeded) if exceeded else Step("limits", True, _shape(asked))
    if image:
        yield _no("image", image)
    elif wanted.images:
        yield Step("image", True, ", ".join(code(name) for name in wanted.images))
    yield _turn(_as_record(basis, name, recipe, wanted), basis)
    rule = approval_needed(wanted, policy)
    if rule:
        words = f"it waits until somebody else agrees: {code(f'{basis.voice.word} approve sha=…')}"
        yield Step("approval", None, words, rule)
    else:
        yield Step("approval", True, "nobody else has to agree")


def _shape(asked: Resources) -> str:
    """How much it asks for, in words."""
    time = duration(asked.seconds) if asked.seconds else "no time limit"
    if not asked.gpus_per_node:
        return f"{plural(asked.nodes, 'node')}, {time}"
    hours = f" = {number(asked.gpu_hours)} GPU-hours" if asked.seconds else ""
    return f"{plural(asked.nodes, 'node')} × {plural(asked.gpus_per_node, 'GPU')} × {time}{hours}"


def _turn(record: RunRecord, basis: Basis) -> Step:
    """Against an empty ledger: what does not fit then never does."""
    [turn] = take_turns((), (record,), Spent(), basis.policy, record.target.repository)
    if isinstance(turn, Over):
        return _no("turn", turn.denial)
    numbers = bounds(record, basis.policy)
    if not numbers:
        return Step("turn", True, "it starts at once: the policy has no `active` and no `budget` for it")
    known = ", ".join(f"{code(where)} {most:g}" for where, most in numbers)
    return Step("turn", None, f"the ledger says when it runs whether it starts, waits or is over a budget: {known}", numbers[0][0])


def _as_record(basis: Basis, profile: str, recipe: str, wanted: Wanted) -> RunRecord:
    """The run as the queue would have it."""
    pull = basis.facts.pull
    return RunRecord(
        run_key="0" * 16,
        content_key="",
        digest="",
        target=Target(repository=basis.event.repository, pull=pull.number if pull else None),
        trigger=basis.event.trigger,
        actor=basis.facts.actor,
        sha=pull.head_sha if pull else "0" * 40,
        profile=profile,
        recipe=recipe,
        program="",
        executor="",
        cluster="",
        run_dir="/",
        resources=wanted.resources,
        asked_at=datetime.fromtimestamp(0, timezone.utc),
    )


def _no(what: str, denial: Denial) -> Step:
    return Step(what, False, f"{denial.words} {denial.next_step}", denial.rule, denial.reason, Exit.DENIED)


def _placed(command: str, steps: Iterator[Step] | Sequence[Step], basis: Basis) -> Explained:
    found = []
    for step in steps:
        places = dict.fromkeys(place_of(basis.document, rule) for rule in step.rule.split(" and ") if rule)
        found.append(step if step.place else replace(step, place=", ".join(place for place in places if place)))
    return Explained(command, tuple(found))
