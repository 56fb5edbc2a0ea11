"""`profile show`: a profile's name, a recipe and overrides → every field that would count, and on request where it came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dispatcher.answer import Answer
from dispatcher.configuration import guarded, read_policy, read_profile
from dispatcher.errors import Exit
from dispatcher.grammar import Malformed, Run
from dispatcher.pipeline import Pipeline
from dispatcher.policy import POLICY_PATH, Policy, names_a_secret
from dispatcher.profile import Profile, ResolvedProfile, UnknownProfile
from dispatcher.provenance import Asked, Origin, Row, rows
from dispatcher.reading import load_document
from dispatcher.recipe import Recipe
from dispatcher.refusals import malformed, unknown_profile
from dispatcher.runprofile import apply_overrides, with_recipe
from dispatcher.spelling import Note
from dispatcher.untrusted import MASK, fence, redact
from dispatcher.verbs import parse_words
from dispatcher.world import Outcome, World, outcome


def show(world: World, name: str, words: Sequence[str], origin: bool) -> Outcome:
    """The profile with `recipe=…` and `run.…=…` of `words` laid over it. Nothing is asked of a cluster.

    Raises:
        ConfigError: the policy or the profile cannot be used.
    """
    policy = read_policy(world)
    world = guarded(world, policy)
    resolved = read_profile(world, policy, name)
    if isinstance(resolved, UnknownProfile):
        return _said(unknown_profile(resolved, "terminal", world.settings.voice))
    asked = _asked(words, policy, world)
    profile = asked if isinstance(asked, Malformed) else _laid_over(resolved.profile, asked)
    if isinstance(profile, Malformed) or isinstance(asked, Malformed):
        assert isinstance(profile, Malformed)
        return _said(malformed(profile, "terminal", world.settings.voice))
    found = [_hidden(row, world.settings.to_hide) for row in rows(resolved, profile, asked)]
    result = json.dumps(_as_json(resolved, found), ensure_ascii=False)
    return outcome("checked", "healthy", Exit.OK, fence("\n".join(_lines(resolved, found, origin))), result=result)


# --------------------------------------------------------------------------- what is laid over it


def _asked(words: Sequence[str], policy: Policy, world: World) -> Asked | Malformed:
    """`recipe=…` and overrides, understood as on the other commands."""
    document = load_document(world.read_config(POLICY_PATH) or "", POLICY_PATH)
    if not words:
        return Asked(document)
    command = parse_words(list(words), manual=True)
    if isinstance(command, Malformed):
        return command
    if not isinstance(command, Run) or command.profile or command.sha or command.ref or command.pull or command.dry_run:
        return Malformed("unknown-word", "this takes `recipe=…` and `run.…=…` words.", "For example `recipe=default run.nodes=4`.")
    found = policy.recipe(command.recipe) if command.recipe else None
    if isinstance(found, Pipeline):
        stages = ", ".join(f"`{found.recipe_of(stage)}`" for stage in found.order)
        return Malformed("bad-value", f"`{command.recipe}` has stages, each with its own profile.", f"Name the recipe of one: {stages}.")
    if command.recipe and not isinstance(found, Recipe):
        known = ", ".join(f"`{name}`" for name in policy.recipes) or "none"
        return Malformed("bad-value", f"there is no recipe `{command.recipe}`.", f"There are: {known}.")
    return Asked(document, found if isinstance(found, Recipe) else None, command.recipe or "", command.overrides)


def _laid_over(profile: Profile, asked: Asked) -> Profile | Malformed:
    return apply_overrides(with_recipe(profile, asked.recipe) if asked.recipe else profile, asked.overrides)


# --------------------------------------------------------------------------- how it is shown


def _hidden(row: Row, to_hide: Sequence[str]) -> Row:
    """The row without what must not be seen: tokens wherever they stand, and the whole value under a name that sounds like a secret."""
    table, _, name = row.key.partition(".")
    if table == "env_vars" and names_a_secret(name) and row.value != "":
        return replace(row, value=MASK, written="", origin=replace(row.origin, by="" if row.origin.kind == "override" else row.origin.by))
    return replace(
        row,
        value=_redacted(row.value, to_hide),
        written=redact(row.written, to_hide),
        origin=replace(row.origin, by=redact(row.origin.by, to_hide)),
    )


def _redacted(value: Any, to_hide: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(item, to_hide) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item, to_hide) for item in value]
    return redact(value, to_hide) if isinstance(value, str) else value


def _lines(resolved: ResolvedProfile, found: Sequence[Row], origin: bool) -> list[str]:
    set_rows = [row for row in found if row.origin.kind != "default" or row.value not in (None, "", [], {})]
    width = max(len(row.key) for row in set_rows)
    based = "".join(f", based on {parent}" for parent in resolved.lineage[1:])
    lines = [f"{resolved.name}: {resolved.profile.executor}{based} ({', '.join(resolved.sources)})", ""]
    for row in set_rows:
        lines.append(f"  {row.key:<{width}}  {_text(row.value)}")
        told = [_from(row.origin)] if origin else []
        told += [f"written {row.written}"] if row.written else []
        if told:
            lines.append(f"  {'':<{width}}    → {' · '.join(told)}")
    left_out = [row.key for row in found if row not in set_rows]
    lines += ["", f"Left out: {', '.join(left_out)}"] if left_out else []
    if resolved.notes:
        lines += ["", *(f"{note.place}: {note.key} {note.words}" for note in resolved.notes)]
    return lines


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value and "\n" not in value else json.dumps(value, ensure_ascii=False)


def _from(origin: Origin) -> str:
    match origin.kind:
        case "default":
            return "the default"
        case "override":
            return f"the override {origin.by}".rstrip()
        case "recipe":
            return f"{origin.place} (recipe {origin.by})"
        case "profile":
            return f"{origin.place} ({origin.by})"


def _as_json(resolved: ResolvedProfile, found: Sequence[Row]) -> dict[str, object]:
    return {
        "profile": resolved.name,
        "executor": resolved.profile.executor,
        "lineage": resolved.lineage,
        "sources": resolved.sources,
        "fields": [
            {
                "key": row.key,
                "value": row.value,
                "from": row.origin.kind,
                "place": row.origin.place,
                "by": row.origin.by,
                "written": row.written,
                "variables": row.variables,
            }
            for row in found
        ],
        "notes": [_note(note) for note in resolved.notes],
    }


def _note(note: Note) -> dict[str, str]:
    return {"key": note.key, "words": note.words, "place": str(note.place)}


def _said(answer: Answer) -> Outcome:
    return Outcome(answer.exit, {**answer.outputs, "comment-url": ""}, answer.summary)
