"""A script's own `[tool.runspec]` block (PEP 723), as text → what of it a recipe lets the script say for itself.

The script is the pull request's: its block is read, never run, and fills in only what the recipe on the default branch leaves open and
allows by `runspec:`. Everything else in it is checked for its shape and then left alone.

Blocks: https://packaging.python.org/en/latest/specifications/inline-script-metadata/#reference-implementation.
Keys: https://github.com/NVIDIA-NeMo/Nemotron/tree/main/docs/runspec.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from dispatcher.document import Document, Loc, check, explain, refuse
from dispatcher.errors import ConfigError
from dispatcher.executor import OWN_ENV_NAMES
from dispatcher.policy import RESERVED_NAMES, names_a_secret
from dispatcher.recipe import Recipe, command_words
from dispatcher.tomltext import toml_document
from dispatcher.trainconfig import RecipeConfig
from dispatcher.untrusted import code
from dispatcher.values import Between, EnvName, Image, Line, Model, Text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

# The whole block, other tools' tables included; and how many may begin in one file. Both bound the work that a hostile script can cause.
BLOCK_LIMIT, LINES_LIMIT, BLOCKS_LIMIT = 16 * 1024, 400, 20

_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_OPENING = re.compile(r"(?m)^# /// [a-zA-Z0-9-]+$")
STEP = "Correct the block in the script; `docs/profiles.md` lists its keys."

# What changes other programs than the script (the container's tools, the shell's lines, where credentials are sent), whatever is allowed.
_NOT_THE_SCRIPTS = re.compile(
    r"ENROOT_.*|PYXIS_.*|SRUN_.*|LD_.*|PYTHON.*|GIT_.*|PIP_.*|UV_.*|CONDA_.*|LMOD_.*|MODULE.*|HOME|SHELL|USER|LOGNAME|TMPDIR|.*_PROXY|.*_ENDPOINT"
    r"|WANDB_BASE_URL|(SSL|CURL|REQUESTS)_.*",
    re.IGNORECASE,
)
_LAUNCHERS: Mapping[str, str] = {"torchrun": "torchrun", "ray": "slurm_ray", "direct": "none", "python": "none"}


class RunspecRun(Model):
    """How the script is started."""

    launch: Literal["torchrun", "direct", "python", "ray"] | None = Field(
        default=None, description="What starts the processes. `direct` and `python` are the launcher `none`, `ray` is `slurm_ray`."
    )
    cmd: Line | None = Field(default=None, description="The command line, with `{script}` and `{config}`.")
    workdir: Line | None = Field(default=None, description="Not used: the program runs in the commit's folder.")


class RunspecConfig(Model):
    """Where the script's configurations lie."""

    dir: Line | None = Field(default=None, description="Their folder, seen from the script's.")
    default: Line | None = Field(default=None, description="The one that is taken when none is named.")
    format: Literal["omegaconf", "yaml", "json"] | None = Field(default=None, description="How the script reads it.")


class RunspecResources(Model):
    """What the script needs."""

    nodes: Annotated[int, Between(1, 10_000)] | None = Field(default=None, description="Nodes of the job.")
    gpus_per_node: Annotated[int, Between(0, 64)] | None = Field(default=None, description="GPUs on each node.")


class Runspec(Model):
    """The block `[tool.runspec]`. An unknown key is an error: what it asks for would silently not happen."""

    schema_version: Literal["1"] = Field(default="1", alias="schema", description="Of the block's format.")
    docs: Line = Field(default="", description="For people.")
    name: Line = Field(default="", description="For people: a recipe is called what the policy calls it.")
    setup: Text = Field(default="", description="For people: words, never run.")
    image: Image | None = Field(default=None, description="The container image.")
    run: RunspecRun = Field(default=RunspecRun(), description="How the script is started.")
    config: RunspecConfig = Field(default=RunspecConfig(), description="Where its configurations lie.")
    resources: RunspecResources = Field(default=RunspecResources(), description="What it needs.")
    env: dict[EnvName, Line] = Field(default_factory=dict, description="Environment of the job, under the recipe's and the profile's.")


@dataclass(frozen=True)
class Script:
    """A block that was read, and where its values stand."""

    runspec: Runspec
    document: Document


@dataclass(frozen=True)
class Filled:
    """A recipe with what the script says for itself: `taken` are keys and values that count, `left` keys that do not."""

    recipe: Recipe
    taken: tuple[tuple[str, str], ...] = ()
    left: tuple[str, ...] = ()

    @property
    def image(self) -> str | None:
        """The image, when it is the script's word."""
        return dict(self.taken).get("image")

    def same_as(self, other: Filled) -> bool:
        """Whether both scripts say the same, as far as it counts."""
        return sorted(self.taken) == sorted(other.taken)


def read_runspec(text: str, path: str) -> Script | None:
    """A script's text → its block; None when it has none.

    Raises `ConfigError`: `config.syntax` for two blocks, too much text or what is not TOML, `config.invalid` for keys and values.
    """
    block = _script_block(text.replace("\r\n", "\n").replace("\r", "\n"), path)
    if block is None:
        return None
    content, line = block
    try:
        document = _parsed(content, line, path)
        loc: Loc = ("tool", "runspec")
        tool = document.value.get("tool")
        if not isinstance(tool, dict) or "runspec" not in tool:
            return None
        if not isinstance(tool["runspec"], dict):
            raise refuse(document, [(loc, "`tool.runspec` is not a table")])
        return Script(check(Runspec, document, loc), document)
    except ConfigError as error:
        raise ConfigError(error.code, error.cause, STEP) from error


def fill(recipe: Recipe, script: Script | None, secrets: Collection[str] = ()) -> Filled:
    """The recipe with what the script says, as far as the recipe leaves it open and its `runspec` allows it.

    `secrets` are names that the job gets from the runner. Raises `ConfigError` `config.invalid` for what is allowed and cannot be had.
    """
    if script is None:
        return Filled(recipe)
    given = dict(_given(script.runspec))
    open_to = dict(_open(recipe, given))
    problems = [problem for key in open_to if (problem := impossible(key, given[key], secrets))]
    config = _config(recipe, script.runspec.config) if "config" in open_to.values() else None
    if isinstance(config, str):
        problems.append(("config", config))
    if problems:
        words = refuse(script.document, [(("tool", "runspec", *key.split(".")), said) for key, said in problems])
        raise ConfigError(words.code, words.cause, STEP)
    changes: dict[str, Any] = {}
    for key, field in open_to.items():
        if field == "env_vars":
            changes.setdefault("env_vars", {})[key.removeprefix("env.")] = given[key]
        elif field == "config":
            changes["config"] = config
        else:
            changes[field] = _LAUNCHERS[str(given[key])] if field == "launcher" else given[key]
    if "env_vars" in changes:
        changes["env_vars"] |= recipe.env_vars
    taken = tuple((key, str(given[key])) for key in open_to)
    return Filled(recipe.model_copy(update=changes), taken, tuple(key for key in given if key not in open_to))


# --------------------------------------------------------------------------- the block


def _script_block(text: str, path: str) -> tuple[str, int] | None:
    """The TOML of the block `script` and the line before its first; None where there is none."""
    if len(_OPENING.findall(text)) > BLOCKS_LIMIT:
        raise ConfigError("config.syntax", f"`{path}` has more than {BLOCKS_LIMIT} lines that begin a block of metadata.", STEP)
    found = [match for match in _BLOCK.finditer(text) if match["type"] == "script"]
    if not found:
        return None
    line = text.count("\n", 0, found[-1].start()) + 1
    if len(found) > 1:
        raise ConfigError("config.syntax", f"`{path}:{line}`: there is a second block `# /// script`.", STEP)
    content = found[0]["content"]
    if len(content) > BLOCK_LIMIT or content.count("\n") > LINES_LIMIT:
        words = f"the block has more than {BLOCK_LIMIT:,} characters or {LINES_LIMIT} lines"
        raise ConfigError("config.syntax", f"`{path}:{line}`: {words}.", STEP)
    return "\n".join(part[2:] if part.startswith("# ") else part[1:] for part in content.split("\n")), line


def _parsed(content: str, line: int, path: str) -> Document:
    """The block's TOML, with lines of the script."""
    try:
        tomllib.loads(content)
        document = toml_document(content, path)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # The parser repeats what it has read, which is the pull request's text.
        at = re.search(r"\(at line (\d+)", str(error))
        words = code(str(error)) if isinstance(error, tomllib.TOMLDecodeError) else "nested too deep"
        raise ConfigError("config.syntax", f"`{path}:{line + int(at[1]) if at else line}`: not TOML: {words}.") from error
    places = {loc: replace(place, line=place.line + line) for loc, place in document.places.items()}
    return Document(path, document.value, places)


# --------------------------------------------------------------------------- what of it counts


def _given(spec: Runspec) -> Iterator[tuple[str, str | int]]:
    """Everything in the block that asks for something, by its key."""
    tables: Sequence[tuple[str, Mapping[str, Any]]] = (
        ("", {"image": spec.image}),
        ("run.", spec.run.model_dump()),
        ("config.", spec.config.model_dump()),
        ("resources.", spec.resources.model_dump()),
        ("env.", spec.env),
    )
    for prefix, table in tables:
        yield from ((prefix + name, value) for name, value in table.items() if value is not None)


def _open(recipe: Recipe, given: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Keys of the block that count, each with the recipe's field that it fills in."""
    whole = {"run.launch": ("launch", "launcher"), "image": ("image", "container_image"), "run.cmd": ("cmd", "cmd")}
    whole |= {f"config.{name}": ("config", "config") for name in RunspecConfig.model_fields}
    whole |= {f"resources.{name}": ("resources", name) for name in RunspecResources.model_fields}
    for key in given:
        part, field = whole.get(key, ("", ""))
        if field == "cmd" and "entrypoint" in recipe.model_fields_set:
            continue  # the recipe has said what runs the script
        if part in recipe.runspec and (field not in recipe.model_fields_set or getattr(recipe, field) is None):
            yield key, field
        elif key.startswith("env.") and recipe.lets_set(key) and key.removeprefix("env.") not in recipe.env_vars:
            yield key, "env_vars"


def _config(recipe: Recipe, said: RunspecConfig) -> RecipeConfig | str:
    """Where the script says that its configurations lie, or what is wrong with that. Nemotron looks from the script's own folder."""
    folder = posixpath.normpath(posixpath.join(posixpath.dirname(recipe.script or ""), said.dir or "."))
    if folder.startswith(("../", "/")) or folder == "..":
        return f"`config.dir` {code(said.dir or '')} leads out of what is packed"
    given = {"dir": "" if folder == "." else folder, "default": said.default, "format": said.format}
    try:
        return RecipeConfig.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        return "; ".join(words for _, words in explain(RecipeConfig, given, error))


def impossible(key: str, value: object, secrets: Collection[str]) -> tuple[str, str] | None:
    """What may be asked for by its kind, and still cannot be had: the key, and why not."""
    name = key.removeprefix("env.")
    if key == "run.cmd":
        try:
            command_words(str(value))
        except ValueError as error:
            return key, f"`run.cmd` {error}"
    if key == "image" and ".." in str(value).split("/"):
        return key, "`image` climbs (`..`)"
    if name == key:
        return None
    reserved = any(pattern.fullmatch(name) for pattern in (OWN_ENV_NAMES, RESERVED_NAMES, _NOT_THE_SCRIPTS))
    if reserved or name in secrets or names_a_secret(name):
        return key, f"{code(key)} is not for a script to set"
    return None
