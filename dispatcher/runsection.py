"""The section `run.env` of a pull request's configuration × a recipe → the recipe with what it lets the configuration say about the job.

The configuration is in the commit that runs, like the script's own block: nothing of it counts that the recipe's `runspec` does not open,
and then under the same limits. What is opened has the names of a profile's fields, as in Nemotron.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from dispatcher.automount import GitMount, parse_mount
from dispatcher.configmerge import STEP
from dispatcher.counterparts import ALIASES
from dispatcher.document import explain
from dispatcher.errors import ConfigError
from dispatcher.recipe import Recipe
from dispatcher.runspec import impossible
from dispatcher.trainconfig import Composed
from dispatcher.untrusted import code
from dispatcher.values import Between, EnvName, Image, Line, Model, OneOrMore

RESOURCES = ("nodes", "gpus_per_node", "ntasks_per_node", "nproc_per_node")


def _pairs(value: Any) -> Any:
    """`[NAME=value]` → a table, as in env.toml."""
    if isinstance(value, list) and all(isinstance(item, str) and "=" in item for item in value):
        return dict(item.split("=", 1) for item in value)
    return value


class RunEnv(Model):
    """What of `run.env` a recipe can open."""

    container_image: Image | None = Field(default=None, description="The container image.")
    nodes: Annotated[int, Between(1, 10_000)] | None = Field(default=None, description="Nodes of the job.")
    gpus_per_node: Annotated[int, Between(0, 64)] | None = Field(default=None, description="GPUs on each node.")
    ntasks_per_node: Annotated[int, Between(1, 1024)] | None = Field(default=None, description="Tasks on each node.")
    nproc_per_node: Annotated[int, Between(1, 1024)] | None = Field(
        default=None, description="Processes that torchrun starts on each node."
    )
    env_vars: Annotated[dict[EnvName, Line], BeforeValidator(_pairs)] = Field(default_factory=dict, description="Environment of the job.")
    mounts: OneOrMore[Line] = Field(default=(), description="Repositories that are cloned and mounted: `${auto_mount:…}`.")


@dataclass(frozen=True)
class Section:
    """The recipe with it; `taken` are keys and values that count, `left` keys that do not."""

    recipe: Recipe
    taken: tuple[tuple[str, str], ...] = ()
    left: tuple[str, ...] = ()
    mounts: tuple[GitMount, ...] = ()


def fill_from_config(recipe: Recipe, composed: Composed, secrets: Collection[str] = ()) -> Section:
    """The recipe with `run.env` of its configuration, as far as it leaves it open and allows it.

    `secrets` are names that the job gets from the runner. Raises `ConfigError` `config.invalid` for what is allowed and cannot be had.
    """
    given = composed.job_part.get("env")
    if given is None:
        return Section(recipe)
    if not isinstance(given, dict):
        raise _refused(composed, "`run.env` is not a table")
    given = {ALIASES.get(str(key), str(key)): value for key, value in given.items()}
    wanted = {key: given[key] for key in _open(recipe, given)}
    # Of variables and mounts single ones count.
    wanted = {key: _some(recipe, value) if key == "env_vars" else value for key, value in wanted.items()}
    try:
        parsed = RunEnv.model_validate(wanted)
    except ValidationError as error:
        raise _refused(composed, *(f"`run.env`: {words}" for _, words in explain(RunEnv, wanted, error))) from error
    mounts, other = _mounts(parsed, composed)
    taken = dict(_taken(parsed, mounts))
    problems = [words for key in taken if (words := _impossible(key, taken[key], secrets))]
    if problems:
        raise _refused(composed, *problems)
    changes = {key: value for key, value in parsed.model_dump(exclude_unset=True).items() if key != "mounts"}
    if "env_vars" in changes:
        changes["env_vars"] |= recipe.env_vars
    left = tuple(key for key in _keys(given) if f"run.env.{key}" not in taken and not (key == "mounts" and mounts and not other))
    return Section(recipe.model_copy(update=changes), tuple(taken.items()), tuple(f"run.env.{key}" for key in left), mounts)


def _open(recipe: Recipe, given: Mapping[str, Any]) -> Iterator[str]:
    """The keys that count, wholly or in part."""
    for key in given:
        part = {"container_image": "image", "env_vars": "env", "mounts": "mounts"}.get(key, "resources" if key in RESOURCES else "")
        if part == "env":
            if any(item.startswith("env.") for item in recipe.runspec):
                yield key
        elif part in recipe.runspec and (part == "mounts" or getattr(recipe, key) is None) and given[key] is not None:
            yield key


def _some(recipe: Recipe, variables: Any) -> Any:
    """The variables that the recipe opens by name and does not set itself."""
    table = _pairs(variables)
    if not isinstance(table, dict):
        return table
    return {key: value for key, value in table.items() if recipe.lets_set(f"env.{key}") and key not in recipe.env_vars}


def _keys(given: Mapping[str, Any]) -> Iterator[str]:
    """Every key that asks for something; each variable is one."""
    for key, value in given.items():
        table = _pairs(value) if key == "env_vars" else None
        if isinstance(table, dict):
            yield from (f"env_vars.{name}" for name in table)
        else:
            yield key


def _mounts(parsed: RunEnv, composed: Composed) -> tuple[tuple[GitMount, ...], bool]:
    """The repositories to mount; and whether there are mounts of other kinds, which are the profile's to say."""
    found = [parse_mount(item) for item in parsed.mounts]
    problems = [item for item in found if isinstance(item, str)]
    mounts = [item for item in found if isinstance(item, GitMount)]
    targets = [item.target for item in mounts]
    problems += [f"two repositories would lie in {code(target)}" for target in dict.fromkeys(targets) if targets.count(target) > 1]
    if problems:
        raise _refused(composed, *(f"`run.env.mounts`: {words}" for words in problems))
    return tuple(mounts), len(mounts) < len(found)


def _taken(parsed: RunEnv, mounts: tuple[GitMount, ...]) -> Iterator[tuple[str, str]]:
    for key in sorted(parsed.model_fields_set - {"env_vars", "mounts"}):
        yield f"run.env.{key}", str(getattr(parsed, key))
    for name, value in parsed.env_vars.items():
        yield f"run.env.env_vars.{name}", value
    for number, mount in enumerate(mounts):
        yield f"run.env.mounts[{number}]", mount.words


def _impossible(key: str, value: str, secrets: Collection[str]) -> str | None:
    """What may be asked for by its kind, and still cannot be had."""
    if key.startswith("run.env.env_vars."):
        name = key.removeprefix("run.env.env_vars.")
        return f"{code(key)} is not for a configuration to set" if impossible(f"env.{name}", value, secrets) else None
    found = impossible("image", value, secrets) if key == "run.env.container_image" else None
    return f"{code(key)}: {found[1]}" if found else None


def _refused(composed: Composed, *problems: str) -> ConfigError:
    files = ", ".join(f"`{path}`" for path in composed.files[:3])
    return ConfigError("config.invalid", "\n".join(f"{files}: {words}." for words in problems[:5]), STEP)
