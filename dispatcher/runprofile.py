"""A profile × a recipe × `run.…` overrides → the profile as one run gets it, checked again; or the override that cannot be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from dispatcher.clouds import CloudProfile
from dispatcher.counterparts import ALIASES, REFUSED
from dispatcher.document import explain, known_keys
from dispatcher.grammar import Malformed, Override
from dispatcher.recipe import Recipe
from dispatcher.registry import Profile
from dispatcher.trainconfig import names_artifact
from dispatcher.untrusted import code

# What a recipe may set instead of the profile.
RECIPE_FIELDS = ("packager", "container_image", "nodes", "gpus_per_node", "ntasks_per_node", "nproc_per_node")
TABLES = frozenset({"env_vars", "wandb", "additional_parameters"})

# Where a job goes, who it is and what the login shell runs is never a commenter's choice, whatever the policy's patterns say. Nor are
# srun's arguments: `--output` writes any file, `--task-prolog` runs any program, `--container-image` is an image that no rule has seen.
FIXED_FIELDS = frozenset(
    {"executor", "extends", "packager", "squash", "setup_lines", "startup_commands", "srun_args", "log_url", "job_dir"}
    | {"tunnel", "host", "port", "user", "known_hosts", "jump", "identity"}
)


def with_recipe(profile: Profile, recipe: Recipe) -> Profile:
    """The profile as a recipe wants it: its shape and image win, its environment lies under the profile's. Overrides come after this."""
    table = profile.model_dump(exclude_unset=True)
    for name in RECIPE_FIELDS:
        value = getattr(recipe, name)
        if value is not None and name in type(profile).model_fields:
            table[name] = value
    table["env_vars"] = {**recipe.env_vars, **profile.env_vars}
    return type(profile).model_validate(table)


def apply_overrides(profile: Profile, overrides: Sequence[Override], with_config: bool = False) -> Profile | Malformed:
    """`run.…` overrides → the profile with those fields changed and everything checked again; others are left to the script.

    `with_config`: the script gets a configuration, which `run.data=…` and other names of artifacts are left to.
    """
    table = profile.model_dump(exclude_unset=True)
    for override in overrides:
        if override.target == "profile" and not (with_config and names_artifact(override)):
            problem = _set(type(profile), table, override)
            if problem:
                return problem
    try:
        return type(profile).model_validate(table)
    except ValidationError as error:
        return _blame(type(profile), table, error, overrides)


def _set(model: type[Profile], table: dict[str, Any], override: Override) -> Malformed | None:
    """Writes one override into a table of the profile (copied on the way down)."""
    first, *rest = override.field.split(".")
    first = ALIASES.get(first, first)
    if first in FIXED_FIELDS or (issubclass(model, CloudProfile) and first in model.FIXED):
        hint = "It is set in the profile, on the default branch."
        return Malformed("not-here", f"{code(override.key)} cannot be set by an override.", hint)
    if first in REFUSED:
        return Malformed("not-here", f"{code(override.key)} cannot be set: {REFUSED[first]}.", "Leave it out.")
    if "[" in override.field or len(rest) > 1:
        return Malformed("bad-key", f"{code(override.key)} is not a field of the profile.", "Give the whole field a value.")
    if not rest:
        in_list = re.fullmatch(r"\[(.*)\]", override.value)
        table[first] = [part.strip() for part in in_list[1].split(",") if part.strip()] if in_list else override.value
        return None
    inner = table.get(first, {})
    if not isinstance(inner, dict) or first not in TABLES:
        return Malformed("bad-key", f"{code(override.key)}: {code(first)} has no fields.", f"Write {code('run.' + first + '=…')}.")
    table[first] = {**inner, rest[0]: override.value}
    return None


def _blame(model: type[Profile], table: Mapping[str, Any], error: ValidationError, overrides: Sequence[Override]) -> Malformed:
    """What is wrong, said about the override that brought it."""
    for where, words in explain(model, table, error):
        for override in overrides:
            parts = tuple(override.field.split("."))
            if override.target != "profile" or where[:1] != (ALIASES.get(parts[0], parts[0]),):
                continue
            if " is not a key here" in words:
                near = difflib.get_close_matches(parts[-1], known_keys(model, where[:-1]), 1, 0.6)
                hint = f"Did you mean **{code('run.' + '.'.join((*parts[:-1], near[0])))}**?" if near else "See `docs/profiles.md`."
                return Malformed("bad-key", f"{code(override.key)} is not a field of the profile.", hint)
            return Malformed("bad-value", f"{code(override.word)}: {words}.", "Correct the value.")
    return Malformed(
        "bad-value", f"With these overrides the profile cannot be used: {explain(model, table, error)[0][1]}.", "Leave them out."
    )
