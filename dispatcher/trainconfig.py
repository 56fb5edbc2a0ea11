"""Texts of a commit's configuration files × a choice × overrides → one merged table, as Nemotron's recipes and Hydra's `defaults` mean it.

The files are the pull request's. OmegaConf reads and merges them, and writes the result; but no interpolation is evaluated: to OmegaConf
every `${…}` is an opaque word here, because a table that is merged over one would have it evaluated, and `oc.env` reads the runner's
variables (https://github.com/omry/omegaconf/blob/v2.3.0/omegaconf/basecontainer.py, `_map_merge`).
"""

from __future__ import annotations

import difflib
import io
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dispatcher.bounded import CHARACTERS_LIMIT, NODES_LIMIT, measured, read_json
from dispatcher.errors import ConfigError
from dispatcher.grammar import Override
from dispatcher.registry import is_field
from dispatcher.untrusted import code
from dispatcher.values import Model, RelativePath, Shape

FILES_LIMIT = 20
# Of one text that has an interpolation in it: their grammar is parsed in time that grows faster than the text.
INTERPOLATED_LIMIT = 2000
STEP = "Correct the configuration in the commit, or the override; `docs/profiles.md` says what is read."
CHOICE = "config"
"""The override that names a configuration."""

_ENDINGS: Mapping[str, tuple[str, ...]] = {"omegaconf": (".yaml", ".yml"), "yaml": (".yaml", ".yml"), "json": (".json",)}

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

Read = Callable[[str], "str | None"]
"""A file of the commit by its path in the repository; None where there is none."""


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
    loader = _Loader(spec, read)
    name = chosen(overrides)
    path = _found(spec, root, name or spec.default, read)
    if path is None:
        raise _unknown(spec, root, name, known)
    tree, added = _overridden(_merged(list(loader.layers(path, ()))), into_config(overrides))
    if not isinstance(tree.get("run") or {}, dict):
        raise ConfigError("config.invalid", f"`{path}`: `run` is about the job, and has to be a table.", STEP)
    unknown = next((key for key in added if key.startswith("run.")), None)
    if unknown:
        words = f"{code(unknown)} is neither a field of the profile nor in the configuration"
        near = difflib.get_close_matches(unknown.removeprefix("run."), [str(key) for key in tree.get("run") or {}], 2, 0.6)
        meant = next((f"; did you mean {code(f'run.{name}')}?" for name in near if f"run.{name}" != unknown), "")
        raise ConfigError("config.invalid", f"{words}{meant}.", STEP)
    return Composed(spec, tree, tuple(loader.texts), added)


# --------------------------------------------------------------------------- files


def _found(spec: RecipeConfig, root: str, name: str, read: Read) -> str | None:
    """The path of a configuration by its name in the folder; a name with a folder or an ending may also be a path from the packed root."""
    try:
        RecipeConfig(default=name)
    except ValueError as error:
        raise ConfigError("config.invalid", f"{code(name)} is not a configuration's name or path.", STEP) from error
    endings = _ENDINGS[spec.format]
    folders = [posixpath.join(root, spec.dir)]
    if "/" in name or name.endswith(endings):
        folders.append(root)
    paths = [path for folder in folders for path in _spelt(posixpath.join(folder, name), endings)]
    return next((path for path in paths if read(path) is not None), None)


def _spelt(path: str, endings: Sequence[str]) -> tuple[str, ...]:
    return (path,) if path.endswith(tuple(endings)) else tuple(path + ending for ending in endings)


def _unknown(spec: RecipeConfig, root: str, name: str | None, known: Sequence[str]) -> ConfigError:
    """There is no such configuration; what there is instead is named."""
    folder = posixpath.join(root, spec.dir)
    prefix = f"{spec.dir}/" if spec.dir else ""
    there = [path[len(prefix) :] for path in known if path.startswith(prefix) and path.endswith(_ENDINGS[spec.format])]
    names = sorted(posixpath.splitext(path)[0] for path in there if "/" not in path)
    wanted = name or spec.default
    near = difflib.get_close_matches(wanted, names, 1, 0.5)
    meant = f" Did you mean **{code(f'{CHOICE}={near[0]}')}**?" if near else ""
    listed = f" There are: {', '.join(code(item) for item in names[:20])}." if names else ""
    words = f"There is no configuration {code(wanted)} in {code(folder or '.')} of the commit.{meant}{listed}"
    return ConfigError("config.no-config", words)


class _Loader:
    """Reads files with what stands under their `defaults`, each text once; together they are bounded as one is.

    The files become layers, the lowest first, as in Hydra: what a file names comes as if the file that names it had listed it all.
    """

    def __init__(self, spec: RecipeConfig, read: Read) -> None:
        self.texts: dict[str, str] = {}
        self._spec, self._read, self._count, self._nodes = spec, read, 0, 0

    def layers(self, path: str, above: tuple[str, ...]) -> Iterator[tuple[str, dict[Any, Any]]]:
        """One file and the files that it names. `above` are those that led here."""
        if path in above:
            circle = " → ".join(f"`{step}`" for step in (*above[above.index(path) :], path))
            raise ConfigError("config.invalid", f"`defaults` lead in a circle: {circle}.", STEP)
        own = self._own(path)
        names = own.pop("defaults", None)
        for name, group in _listed(names, path):
            if name is None:
                yield path, own
            else:
                yield from self._below(path, name, group, above)

    def _own(self, path: str) -> dict[Any, Any]:
        if path not in self.texts:
            self.texts[path] = self._read(path) or ""
        # Counted each time that it is merged: a few files that name each other many times are many.
        self._count += 1
        if self._count > FILES_LIMIT:
            raise ConfigError("config.invalid", f"`{path}`: more than {FILES_LIMIT} files are merged by `defaults`.", STEP)
        text = self.texts[path]
        own, nodes = read_json(text, path) if self._spec.format == "json" else (None, measured(text, path))
        self._nodes += nodes + 1
        if self._nodes > NODES_LIMIT or sum(map(len, self.texts.values())) > CHARACTERS_LIMIT:
            words = f"with its `defaults` it has more than {NODES_LIMIT:,} values, or {CHARACTERS_LIMIT:,} characters"
            raise ConfigError("config.syntax", f"`{path}`: {words}.", STEP)
        return _parsed(text, path) if own is None else own

    def _below(self, path: str, name: str, group: str, above: tuple[str, ...]) -> Iterator[tuple[str, dict[Any, Any]]]:
        """A file that is named under `defaults`, seen from the folder of the file that names it."""
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(path), group, name))
        if wanted.startswith(("../", "/")) or wanted in ("..", "."):
            raise ConfigError("config.invalid", f"`{path}`: {code(name)} under `defaults` leads out of the repository.", STEP)
        found = next((item for item in _spelt(wanted, _ENDINGS[self._spec.format]) if self._read(item) is not None), None)
        if found is None:
            raise ConfigError("config.no-config", f"`{path}` names {code(wanted)} under `defaults`, which is not in the commit.")
        for file, tree in self.layers(found, (*above, path)):
            yield file, _under(tree, group.split("/") if group else [])


def _under(tree: dict[Any, Any], group: Sequence[str]) -> dict[Any, Any]:
    """A file of the group `model/part` as a table of `model`'s."""
    for part in reversed(group):
        tree = {part: tree}
    return tree


def _listed(names: object, path: str) -> Iterator[tuple[str | None, str]]:
    """`defaults` → (name, group) in their order; the file itself (None) stands at `_self_`, else last, as in Hydra 1.1 and later."""
    entries = names if isinstance(names, list) else [] if names is None else [names]
    seen_itself = False
    for entry in entries:
        if entry == "_self_":
            seen_itself = True
            yield None, ""
        elif isinstance(entry, str) and entry and "${" not in entry:
            yield entry, ""
        elif isinstance(entry, dict) and len(entry) == 1 and all(_plain_name(part) for part in (*entry, *entry.values())):
            group, name = next(iter(entry.items()))
            yield str(name), str(group)
        else:
            words = "an entry of `defaults` is the name of a file, `_self_`, or one `group: name`"
            raise ConfigError("config.invalid", f"`{path}`: {words}; {code(str(entry), 60)} is none of these.", STEP)
    if not seen_itself:
        yield None, ""


def _plain_name(part: object) -> bool:
    """Whether it is a name, without Hydra's words in front (`override`, `optional`) and its packages (`@`)."""
    return isinstance(part, str) and bool(part) and not any(ch in part for ch in " @${}")


# --------------------------------------------------------------------------- values


def _parsed(text: str, path: str) -> dict[Any, Any]:
    """One measured text → plain values, as OmegaConf reads them (`1e-4` is a number, a date is text)."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found: Any = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = code(error.problem or error.context or "it is no YAML")
        raise ConfigError("config.syntax", f"`{path}:{mark.line + 1 if mark else 1}`: {words}.", STEP) from error
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
        # Its words repeat what it has read.
        words = code(str(error).splitlines()[0]) if str(error) and not isinstance(error, RecursionError) else "it is nested too deep"
        raise ConfigError("config.syntax", f"`{path}`: OmegaConf cannot read it: {words}.", STEP) from error
    long = next((value for value in _texts(found) if "${" in value and len(value) > INTERPOLATED_LIMIT), None)
    if long is not None:
        words = f"a text with `${{…}}` in it has more than {INTERPOLATED_LIMIT:,} characters"
        raise ConfigError("config.syntax", f"`{path}`: {words}: {code(long, 40)}.", STEP)
    return found if isinstance(found, dict) else {}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(item)


class _Opaque:
    """Interpolations ↔ words that OmegaConf does not understand."""

    def __init__(self) -> None:
        self._written: dict[str, str] = {}

    def hide(self, value: Any) -> Any:
        """The same value with a word for every text that has an interpolation in it."""
        if isinstance(value, dict):
            return {key: self.hide(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.hide(item) for item in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        word = f"\ue000{len(self._written)}\ue000"
        self._written[word] = value
        return word

    def show(self, value: Any) -> Any:
        """The reverse."""
        if isinstance(value, dict):
            return {key: self.show(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.show(item) for item in value]
        return self._written.get(value, value) if isinstance(value, str) else value


def _merged(layers: Sequence[tuple[str, dict[Any, Any]]]) -> dict[Any, Any]:
    """OmegaConf's merge: tables merge, everything else replaces."""
    if len(layers) == 1:
        return layers[0][1]
    from omegaconf import OmegaConf

    for number, (path, over) in enumerate(layers):
        for _, under in layers[:number]:
            _no_table_over_a_reference(under, over, path, ())
    opaque = _Opaque()
    merged = OmegaConf.merge(*(OmegaConf.create(opaque.hide(tree)) for _, tree in layers))
    return dict(opaque.show(OmegaConf.to_container(merged, resolve=False)))


def _no_table_over_a_reference(under: Any, over: Any, path: str, at: tuple[str, ...]) -> None:
    """OmegaConf would have to look up what the reference names before it can merge."""
    if not isinstance(over, dict):
        return
    if isinstance(under, str) and "${" in under:
        words = f"{code('.'.join(at))} is {code(under, 60)}, and a table cannot be merged with that: write the table out"
        raise ConfigError("config.invalid", f"`{path}`: {words}.", STEP)
    for key, value in over.items():
        if isinstance(under, dict) and key in under:
            _no_table_over_a_reference(under[key], value, path, (*at, str(key)))


# --------------------------------------------------------------------------- overrides


def _overridden(tree: dict[Any, Any], overrides: Sequence[Override]) -> tuple[dict[Any, Any], tuple[str, ...]]:
    """The tree with `a.b=c` set in it, and the keys that were not there before. A value is YAML, as in OmegaConf's dot lists."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not overrides:
        return tree, ()
    added = []
    opaque = _Opaque()
    conf = OmegaConf.create(opaque.hide(tree))
    for item in overrides:
        measured(item.value, item.key, table=False)
        parts = item.key.replace("[", ".").replace("]", "").split(".")
        for end in range(1, len(parts)):
            _no_table_over_a_reference(_at(tree, parts[:end]), {}, "overrides", tuple(parts[:end]))
        if _at(tree, parts) is _ABSENT:
            added.append(item.key)
        try:
            value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={item.value}"]), resolve=False)
            assert isinstance(value, dict)
            OmegaConf.update(conf, item.key, opaque.hide(value["value"]), merge=True, force_add=True)
        except (OmegaConfBaseException, yaml.YAMLError, ValueError, IndexError, TypeError, RecursionError) as error:
            words = code(str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise ConfigError("config.invalid", f"{code(item.word)} cannot be set in the configuration: {words}.", STEP) from error
    return dict(opaque.show(OmegaConf.to_container(conf, resolve=False))), tuple(added)


_ABSENT = object()


def _at(tree: Any, parts: Sequence[str]) -> Any:
    """The value at a dotted key, or `_ABSENT`."""
    for part in parts:
        if isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        elif isinstance(tree, dict) and (part in tree or (part.isdigit() and int(part) in tree)):
            tree = tree[part] if part in tree else tree[int(part)]
        else:
            return _ABSENT
    return tree
