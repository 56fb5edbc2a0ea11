"""A configuration file of a commit and the files that stand under its `defaults` → tables, the lowest first, as in Hydra.

Each is measured before it is built, all of them together count as one does, and no `${…}` in them is evaluated.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from dispatcher.bounded import CHARACTERS_LIMIT, NODES_LIMIT, measured, read_json
from dispatcher.configmerge import STEP
from dispatcher.errors import ConfigError
from dispatcher.untrusted import code

FILES_LIMIT = 20
# Of one text that has an interpolation in it: their grammar is parsed in time that grows faster than the text.
INTERPOLATED_LIMIT = 2000
ENDINGS: Mapping[str, tuple[str, ...]] = {"omegaconf": (".yaml", ".yml"), "yaml": (".yaml", ".yml"), "json": (".json",)}
Read = Callable[[str], "str | None"]
"""A file of the commit by its path in the repository; None where there is none."""


def spelt(path: str, endings: Sequence[str]) -> tuple[str, ...]:
    """A path with its ending, or with each that it may have."""
    return (path,) if path.endswith(tuple(endings)) else tuple(path + ending for ending in endings)


class Layers:
    """Reads files with what stands under their `defaults`, each text once; together they are bounded as one is.

    The files become layers, the lowest first, as in Hydra: what a file names comes as if the file that names it had listed it all.
    """

    def __init__(self, written: str, read: Read) -> None:
        self.texts: dict[str, str] = {}
        self._format, self._read, self._count, self._nodes = written, read, 0, 0

    def under(self, path: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[Any, Any]]]:
        """One file and the files that it names, each with its path. `above` are those that led here."""
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
        own, nodes = read_json(text, path) if self._format == "json" else (None, measured(text, path))
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
        found = next((item for item in spelt(wanted, ENDINGS[self._format]) if self._read(item) is not None), None)
        if found is None:
            raise ConfigError("config.no-config", f"`{path}` names {code(wanted)} under `defaults`, which is not in the commit.")
        for file, tree in self.under(found, (*above, path)):
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
