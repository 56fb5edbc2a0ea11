"""Texts of a commit's configuration files × a choice × overrides → one merged table, as Nemotron's recipes and Hydra's `defaults` mean it.

The files are the pull request's. `configlayers.py` reads them, `configmerge.py` merges them; no interpolation is evaluated.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dispatcher.configlayers import ENDINGS, Layers, Read, spelt
from dispatcher.configmerge import STEP, merged, overridden
from dispatcher.errors import ConfigError
from dispatcher.grammar import Override
from dispatcher.registry import is_field
from dispatcher.untrusted import code
from dispatcher.values import Model, RelativePath, Shape

CHOICE = "config"
"""The override that names a configuration."""

ConfigName = Annotated[
    str,
    Shape(
        r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9_.][A-Za-z0-9_.@+=-]*(?:/[A-Za-z0-9_.@+=-]+)*",
        "a configuration's name or path (no `.` or `..` parts, no spaces)",
        256,
    ),
]


class RecipeConfig(Model):
    """Where a recipe's configurations lie, and how the script takes one."""

    dir: RelativePath | Literal[""] = Field(default="", description="The folder that they are in, seen from the packed root.")
    default: ConfigName = Field(default="default", description="The one that is taken when none is named; with or without its ending.")
    format: Literal["omegaconf", "yaml", "json"] = Field(
        default="omegaconf",
        description="How the script reads it. `omegaconf` is YAML with `${…}` in it; to the others that is a text like any other.",
    )
    option: Annotated[str, Shape(r"--?[A-Za-z][A-Za-z0-9_-]*", "an option such as `--config`", 64)] = Field(
        default="--config", description="The script's option that takes the file's path."
    )


def _from_path(value: Any) -> Any:
    """`configs/train.yaml` is that file, with the others in its folder to choose from."""
    if not isinstance(value, str):
        return value
    folder, _, name = value.rpartition("/")
    return {"dir": folder, "default": name, "format": "json" if name.endswith(".json") else "omegaconf"}


class _OrPath:
    """Says in the JSON Schema what `_from_path` does."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        given = handler(schema)
        return {"anyOf": [{"type": "string"}, *given.get("anyOf", [given])]}


ConfigField = Annotated[RecipeConfig, BeforeValidator(_from_path), _OrPath()]


@dataclass(frozen=True)
class Composed:
    """A merged configuration: plain values, every `${…}` as it was written. `files` were read for it, the chosen one first.

    `added` are overrides whose key no file has: often they are misspelt.
    """

    spec: RecipeConfig
    tree: Mapping[Any, Any]
    files: tuple[str, ...]
    added: tuple[str, ...] = ()

    @property
    def job_part(self) -> Mapping[Any, Any]:
        """The section `run`: about the job, not for the script."""
        found = self.tree.get("run")
        return found if isinstance(found, dict) else {}


def chosen(overrides: Sequence[Override]) -> str | None:
    """The configuration that is named; None for the recipe's default."""
    return next((item.value for item in overrides if item.key == CHOICE), None)


def names_artifact(override: Override) -> bool:
    """Whether it is `run.data=…`: no field of a profile, but one of the names that `${art:…}` looks up."""
    return (
        override.target == "profile"
        and re.fullmatch(r"[A-Za-z_]\w*", override.field, re.ASCII) is not None
        and not is_field(override.field)
    )


def into_config(overrides: Sequence[Override]) -> tuple[Override, ...]:
    """The overrides that go into the configuration: what the script would get as arguments where there is none, and artifacts."""
    return tuple(item for item in overrides if (item.target == "script" and item.key != CHOICE) or names_artifact(item))


def compose(spec: RecipeConfig, root: str, overrides: Sequence[Override], read: Read, known: Sequence[str] = ()) -> Composed:
    """The chosen configuration with its `defaults` below it and the overrides over it. `root` is the folder that is packed.

    Only files that are named are read; `known` are the package's paths, for what was probably meant. Raises `ConfigError`:
    `config.no-config` for a file that is not there, `config.syntax`, `config.invalid`.
    """
    layers = Layers(spec.format, read)
    name = chosen(overrides)
    path = _found(spec, root, name or spec.default, read)
    if path is None:
        raise _unknown(spec, root, name, known)
    tree, added = overridden(merged(list(layers.under(path))), into_config(overrides))
    if not isinstance(tree.get("run") or {}, dict):
        raise ConfigError("config.invalid", f"`{path}`: `run` is about the job, and has to be a table.", STEP)
    unknown = next((key for key in added if key.startswith("run.")), None)
    if unknown:
        words = f"{code(unknown)} is neither a field of the profile nor in the configuration"
        near = difflib.get_close_matches(unknown.removeprefix("run."), [str(key) for key in tree.get("run") or {}], 2, 0.6)
        meant = next((f"; did you mean {code(f'run.{name}')}?" for name in near if f"run.{name}" != unknown), "")
        raise ConfigError("config.invalid", f"{words}{meant}.", STEP)
    return Composed(spec, tree, tuple(layers.texts), added)


def _found(spec: RecipeConfig, root: str, name: str, read: Read) -> str | None:
    """The path of a configuration by its name in the folder; a name with a folder or an ending may also be a path from the packed root."""
    try:
        RecipeConfig(default=name)
    except ValueError as error:
        raise ConfigError("config.invalid", f"{code(name)} is not a configuration's name or path.", STEP) from error
    endings = ENDINGS[spec.format]
    folders = [posixpath.join(root, spec.dir)]
    if "/" in name or name.endswith(endings):
        folders.append(root)
    paths = [path for folder in folders for path in spelt(posixpath.join(folder, name), endings)]
    return next((path for path in paths if read(path) is not None), None)


def _unknown(spec: RecipeConfig, root: str, name: str | None, known: Sequence[str]) -> ConfigError:
    """There is no such configuration; what there is instead is named."""
    folder = posixpath.join(root, spec.dir)
    prefix = f"{spec.dir}/" if spec.dir else ""
    there = [path[len(prefix) :] for path in known if path.startswith(prefix) and path.endswith(ENDINGS[spec.format])]
    names = sorted(posixpath.splitext(path)[0] for path in there if "/" not in path)
    wanted = name or spec.default
    near = difflib.get_close_matches(wanted, names, 1, 0.5)
    meant = f" Did you mean **{code(f'{CHOICE}={near[0]}')}**?" if near else ""
    listed = f" There are: {', '.join(code(item) for item in names[:20])}." if names else ""
    words = f"There is no configuration {code(wanted)} in {code(folder or '.')} of the commit.{meant}{listed}"
    return ConfigError("config.no-config", words)
