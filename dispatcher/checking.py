"""`policy check`: reads the policy and the profiles, says what is wrong with them, and explains what would become of a comment.

Nothing is submitted, and no cluster is asked.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dispatcher.authorise import Facts, lineage_teams
from dispatcher.command import Command, parse_command
from dispatcher.configuration import profile_names, read_policy, read_profile
from dispatcher.document import Document
from dispatcher.errors import ConfigError, Exit, InputError
from dispatcher.event import CommentEvent
from dispatcher.explain import UNKNOWN_SHA, Basis, Found, asked_profiles, explain, verbs_in
from dispatcher.lookups import gather_facts, with_teams
from dispatcher.policy import POLICY_PATH, Policy
from dispatcher.ports import PullRequest
from dispatcher.profile import ResolvedProfile
from dispatcher.reading import load_document
from dispatcher.recipe import Recipe
from dispatcher.steps import Explained, Step, one_line, place_of, rendered, verdict
from dispatcher.trainconfig import compose
from dispatcher.untrusted import code, fence
from dispatcher.world import Outcome, World, outcome

_WORKFLOWS = ".github/workflows"


@dataclass(frozen=True)
class Supposed:
    """What the flags suppose about a person and a pull request. `role` None: it was not given, and GitHub is asked where it can be."""

    actor: str
    role: str | None = None
    teams: tuple[str, ...] = ()
    number: int | None = None
    head: str = ""
    fork: bool = False
    draft: bool = False
    closed: bool = False


def check_command(world: World, supposed: Supposed, body: str) -> Outcome:
    """What would become of a comment: each step with its rule. Raises `ConfigError`, `ForgeError`, `InputError`."""
    policy, document = _read(world)
    event = _comment(world, supposed, body)
    command = parse_command(event, world.settings.voice.word)
    asks_github = world.forge is not None and supposed.number is not None and supposed.role is None
    commands = verbs_in(command)
    if asks_github and commands:
        facts = gather_facts(commands, event, policy, world)
        if facts.pull is None:
            raise InputError("input.missing", f"GitHub has no pull request {supposed.number} here.", "Give another number with `--pr`.")
    else:
        facts = _supposed_facts(supposed, world, command)
    profiles = {name: _profile(world, policy, name) for name in asked_profiles(command, policy)}
    if asks_github and commands:
        extended = [found.lineage for found in profiles.values() if isinstance(found, ResolvedProfile)]
        facts = with_teams(facts, [team for lineage in extended for team in lineage_teams(lineage, facts, policy)], world)
    explained = explain(command, Basis(event, facts, policy, document, profiles, world.settings.voice))
    lines = [_known(facts, asks_github)]
    if not asks_github and supposed.role is None:
        lines.append("`--role write` supposes a role; with GITHUB_TOKEN and `--pr`, GitHub is asked.")
    lines += [line for item in explained for line in ("", *rendered(item))]
    worst = max(explained, key=lambda item: item.refusal.exit if item.refusal else Exit.OK)
    refusal = worst.refusal
    result = json.dumps({"commands": [_as_json(item) for item in explained]}, ensure_ascii=False)
    if refusal is None:
        return outcome("allowed", "allowed", Exit.OK, fence("\n".join(lines)), result=result)
    decision = {Exit.DENIED: "denied", Exit.MALFORMED: "malformed"}.get(refusal.exit, "refused")
    return outcome(decision, refusal.reason, refusal.exit, fence("\n".join(lines)), result=result)


def check_files(world: World) -> Outcome:
    """The policy, every profile and every recipe's configuration: what cannot be used, and names that no profile has.

    Raises `ConfigError` for the policy itself.
    """
    policy, document = _read(world)
    steps = [Step("policy", True, f"{POLICY_PATH} can be used")]
    names = profile_names(world)
    for name in names:
        found = _profile(world, policy, name)
        if isinstance(found, ConfigError):
            # Whether the runner has a variable cannot be seen from here.
            unset = found.code == "config.env-unset"
            steps.append(Step("profile", None if unset else False, f"{code(name)}: {found.cause}", reason=found.code, exit=found.exit))
        elif isinstance(found, ResolvedProfile):
            based = "".join(f", based on {code(parent)}" for parent in found.lineage[1:])
            steps.append(Step("profile", True, f"{code(name)}: {found.profile.executor}{based}"))
    steps += _configurations(policy, document, world)
    steps += _unknown_names(policy, document, names)
    steps += _unheard_labels(policy, document, world)
    problems = sum(step.passed is False for step in steps)
    warnings = sum(step.passed is None for step in steps)
    marks = {True: "✓", False: "✗", None: "!"}
    lines = [f"  {marks[step.passed]} {step.what:<11} {one_line(step.words)}{f'  → {step.place}' if step.place else ''}" for step in steps]
    lines.append(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}.")
    told = {"problems": problems, "warnings": warnings, "steps": [_step_as_json(step) for step in steps]}
    exit = Exit.CONFIG if problems else Exit.OK
    return outcome(
        "checked", "problems" if problems else "healthy", exit, fence("\n".join(lines)), result=json.dumps(told, ensure_ascii=False)
    )


def _configurations(policy: Policy, document: Document, world: World) -> Iterable[Step]:
    """The default configuration of each recipe that names one itself, as it is on this branch. A pull request may bring it along."""
    for name, recipe in policy.recipes.items():
        if not isinstance(recipe, Recipe) or recipe.config is None:
            continue
        place = place_of(document, f"recipes.{name}.config")
        try:
            found = compose(recipe.config, recipe.packed_folder, (), world.read_config)
        except ConfigError as error:
            absent = error.code == "config.no-config"
            words = f"{code(name)}: {error.cause}"
            yield Step("config", None if absent else False, words, f"recipes.{name}.config", error.code, error.exit, place)
        else:
            over = "".join(f", over {code(path)}" for path in found.files[1:])
            yield Step("config", True, f"{code(name)}: {code(found.files[0])}{over}")


# --------------------------------------------------------------------------- reading


def _read(world: World) -> tuple[Policy, Document]:
    policy = read_policy(world)
    return policy, load_document(world.read_config(POLICY_PATH) or "", POLICY_PATH)


def _profile(world: World, policy: Policy, name: str) -> Found:
    try:
        return read_profile(world, policy, name)
    except ConfigError as error:
        return error


def _unknown_names(policy: Policy, document: Document, names: Sequence[str]) -> Iterable[Step]:
    """Names in the policy that no profile has: a rule that protects nothing, a run that can never start."""
    rules = [(f"profiles.{name}", name, "protects nothing") for name in policy.profiles]
    used = [("default_profile", policy.default_profile, "cannot be used")]
    used += [(f"watch.profiles.{place}", name, "is not looked after") for place, name in enumerate(policy.watch.profiles)]
    used += [(f"schedules.{place}.profile", item.profile, "never runs") for place, item in enumerate(policy.schedules)]
    used += [
        (f"recipes.{recipe}.stages.{stage}.profile", item.profile, "can never run")
        for recipe, pipeline in policy.pipelines.items()
        for stage, item in pipeline.stages.items()
    ]
    used += [(f"gate.required.{place}.profile", item.profile, "can never pass") for place, item in enumerate(policy.gate.required)]
    for where, name, what in [*rules, *used]:
        if name is None or name in names:
            continue
        near = difflib.get_close_matches(name, names, 1, 0.5)
        meant = f" Did you mean {code(near[0])}?" if near else ""
        words = f"{code(where)} {what}: there is no profile {code(name)}.{meant}"
        place = place_of(document, where)
        if (where, name, what) in rules:
            yield Step("rule", None, words, where, "unknown-profile", place=place)
        else:
            yield Step("name", False, words, where, "unknown-profile", Exit.CONFIG, place)


def _unheard_labels(policy: Policy, document: Document, world: World) -> Iterable[Step]:
    """A rule with labels, and no workflow that hears of labels: one that is put on after the gate is green would change nothing."""
    places = [place for place, rule in enumerate(policy.gate.required) if rule.labels]
    if not places:
        return
    names = [name for name in world.list_config(_WORKFLOWS) if name.endswith((".yml", ".yaml"))]
    texts = [world.read_config(f"{_WORKFLOWS}/{name}") or "" for name in names]
    if any(all(re.search(rf"\b{word}\b", text) for word in ("labeled", "unlabeled")) for text in texts):
        return
    where = f"gate.required.{places[0]}.labels"
    words = f"{code(where)}: no workflow in {code(_WORKFLOWS)} names `labeled` and `unlabeled`, so a new label leaves the gate as it was"
    yield Step("labels", None, words, where, "labels-unheard", place=place_of(document, where))


# --------------------------------------------------------------------------- facts


def _comment(world: World, supposed: Supposed, body: str) -> CommentEvent:
    """The comment as GitHub would deliver it."""
    return CommentEvent(
        repository=world.settings.repository,
        number=supposed.number or 1,
        is_pull=True,
        pull_state="closed" if supposed.closed else "open",
        comment_id=1,
        body=body,
        author=supposed.actor,
        author_is_bot=False,
        action="created",
        created_at="",
        comment_url="",
        default_branch="",
    )


def _supposed_facts(supposed: Supposed, world: World, command: Command) -> Facts:
    """What the flags say. Where no head is given it is the commit that the command names: whoever vouches has looked at the head."""
    named = next((sha for item in verbs_in(command) if (sha := getattr(item, "sha", None))), "")
    repository = world.settings.repository
    pull = PullRequest(
        number=supposed.number or 1,
        state="closed" if supposed.closed else "open",
        draft=supposed.draft,
        head_sha=supposed.head or named or UNKNOWN_SHA,
        head_ref="head",
        head_repository=f"fork-of/{repository}" if supposed.fork else repository,
        base_ref="base",
        base_sha=UNKNOWN_SHA,
        base_repository=repository,
        author=supposed.actor,
    )
    return Facts(supposed.actor, supposed.role, frozenset(supposed.teams), pull)


def _known(facts: Facts, asked_github: bool) -> str:
    """What the decision rests on, in one line."""
    role = f"role {facts.role}" if facts.role else "no collaborator"
    teams = f", in {', '.join(sorted(facts.teams))}" if facts.teams else ""
    pull = facts.pull
    about = ""
    if pull is not None:
        kind = f"{pull.state}{', a draft' if pull.draft else ''}{', from a fork' if pull.from_fork else ''}"
        about = f"; pull request {pull.number}, {kind}"
    return f"{facts.actor}: {role}{teams}{about} ({'as GitHub says' if asked_github else 'supposed'})"


# --------------------------------------------------------------------------- for machines


def _as_json(explained: Explained) -> dict[str, object]:
    refusal = explained.refusal
    return {
        "command": explained.command,
        "verdict": verdict(explained),
        "reason": refusal.reason if refusal else "",
        "rule": refusal.rule if refusal else "",
        "steps": [_step_as_json(step) for step in explained.steps],
    }


def _step_as_json(step: Step) -> dict[str, object]:
    return {
        "step": step.what,
        "passed": step.passed,
        "words": step.words.strip(),
        "rule": step.rule,
        "reason": step.reason,
        "place": step.place,
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
