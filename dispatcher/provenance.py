"""A resolved profile, a recipe and overrides → every field's value and where it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dispatcher.counterparts import ALIASES
from dispatcher.document import Document, Loc
from dispatcher.grammar import Override
from dispatcher.profile import Profile, ResolvedProfile
from dispatcher.recipe import Recipe
from dispatcher.runprofile import RECIPE_FIELDS, TABLES
from dispatcher.steps import place_of


@dataclass(frozen=True)
class Origin:
    """What a value came from.

    `place` is `file:line`, empty for overrides and defaults; `by` the profile's or recipe's name, `[wandb]`, or the override's word.
    """

    kind: Literal["profile", "recipe", "override", "default"]
    place: str = ""
    by: str = ""


@dataclass(frozen=True)
class Row:
    """One field (`nodes`), or one key of a table (`env_vars.NCCL_DEBUG`).

    `written` is the text in the file where variables were put in, else empty; `variables` are their names.
    """

    key: str
    value: Any
    origin: Origin
    written: str = ""
    variables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What is laid over a profile: a recipe by its name in the policy, and overrides."""

    policy: Document
    recipe: Recipe | None = None
    recipe_name: str = ""
    overrides: tuple[Override, ...] = ()


def rows(resolved: ResolvedProfile, profile: Profile, asked: Asked) -> tuple[Row, ...]:
    """Every field of `profile`, which is `resolved.profile` with `asked` laid over it; tables as a row for each key that is set."""
    return tuple(_rows(resolved, profile, asked))


def _rows(resolved: ResolvedProfile, profile: Profile, asked: Asked) -> Iterator[Row]:
    for name, value in profile.model_dump(mode="json").items():
        if name not in TABLES:
            yield _row((name,), value, resolved, asked)
            continue
        set_here = {key: item for key, item in value.items() if item not in (None, [])}
        for key, item in set_here.items():
            yield _row((name, key), item, resolved, asked)
        if not set_here:
            yield Row(name, {}, Origin("default"))


def _row(loc: tuple[str, ...], value: Any, resolved: ResolvedProfile, asked: Asked) -> Row:
    key = ".".join(loc)
    override = next((item for item in reversed(asked.overrides) if item.target == "profile" and _path(item) == loc), None)
    if override is not None:
        return Row(key, value, Origin("override", by=override.word))
    stands = _at(resolved.document.value, loc)
    if asked.recipe is not None and _is_the_recipes(loc, asked.recipe, stands is not None):
        return Row(key, value, Origin("recipe", place_of(asked.policy, f"recipes.{asked.recipe_name}.{key}"), asked.recipe_name))
    if stands is None:
        return Row(key, value, Origin("default"))
    place = resolved.document.place(loc)
    written = _written(_at(resolved.written.value, loc))
    variables = tuple(dict.fromkeys(re.findall(r"oc\.env\s*:\s*([A-Za-z_]\w*)", written)))
    return Row(key, value, Origin("profile", str(place), place.holder), written if variables else "", variables)


def _is_the_recipes(loc: Loc, recipe: Recipe, in_profile: bool) -> bool:
    """A recipe's shape and image win over the profile; its environment lies under the profile's."""
    if loc[0] in RECIPE_FIELDS:
        return getattr(recipe, str(loc[0])) is not None
    return loc[0] == "env_vars" and not in_profile and loc[1] in recipe.env_vars


def _path(override: Override) -> tuple[str, ...]:
    first, *rest = override.field.split(".")
    return (ALIASES.get(first, first), *rest)


def _at(value: Any, loc: Sequence[str]) -> Any:
    """What stands at a path of a document; None where nothing does."""
    for part in loc:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_written(item) for item in value)
    return value if isinstance(value, str) else ""
