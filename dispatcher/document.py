"""YAML or TOML text from a repository → plain values that remember their lines → validated models, or an error with file and line.

Numbers other than plain whole numbers stay as they were written (`1e-4`, `04:00:00`, `12.10`): what they mean is for their key to say.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dispatcher.errors import ConfigError
from dispatcher.untrusted import code

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

SIZE_LIMIT = 256 * 1024
DEPTH_LIMIT = 20
PROBLEMS_SHOWN = 5

Loc = tuple[str | int, ...]
Value = Any
"""str, int, bool, None, or a list or dict (with str keys) of them."""


@dataclass(frozen=True)
class Place:
    """A line of a file; `holder` is whose it is, where a file holds several things (a profile of env.toml)."""

    path: str
    line: int
    holder: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Document:
    """Plain values and where each of them stands; `places` has an entry for every key and list item, by its path."""

    path: str
    value: dict[str, Value]
    places: Mapping[Loc, Place]

    def place(self, loc: Sequence[str | int]) -> Place:
        """The line of a value, or of the nearest thing around it that has one."""
        for end in range(len(loc), -1, -1):
            if tuple(loc[:end]) in self.places:
                return self.places[tuple(loc[:end])]
        return Place(self.path, 1)


class ProblemsError(ValueError):
    """Several findings of one validator, each with the path of the value it is about (relative to the validated model)."""

    def __init__(self, found: Sequence[tuple[Loc, str]]) -> None:
        super().__init__("; ".join(words for _, words in found))
        self.found = tuple(found)


# One delivery comes to its policy and its profiles several times, and reading YAML is the slowest thing that it does by itself.
@lru_cache(maxsize=32)
def load_document(text: str, path: str) -> Document:
    """The text of `….toml` (TOML 1.0) or anything else (YAML) → the document. An empty text is an empty table.

    Raises `ConfigError` `config.syntax` for what cannot be parsed, and for what is refused: duplicate keys, tags, anchors, several
    documents, keys that are no text, more than 256 KiB. The same text is read once: nobody changes a document.
    """
    if len(text) > SIZE_LIMIT:
        raise ConfigError("config.syntax", f"`{path}` has {len(text):,} characters; {SIZE_LIMIT:,} are the limit.")
    return _load_toml(text, path) if path.endswith(".toml") else _load_yaml(text, path)


# --------------------------------------------------------------------------- YAML


class _Loader(yaml.SafeLoader):
    """Scanner and parser only; values are built by `_plain`."""


# The core of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), so that `on`, `yes`, `4:00:00` and `0010` stay text.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE, _FALSE = frozenset({"true", "True", "TRUE"}), frozenset({"false", "False", "FALSE"})
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")


def _load_yaml(text: str, path: str) -> Document:
    places: dict[Loc, Place] = {}
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            _refuse_exotic(event, depth, path)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        # What is never closed is found out at the end of the file; where it begins is the line to look at.
        unclosed = "<stream end>" in (error.problem or "") or "end of stream" in (error.problem or "")
        mark = (error.context_mark if unclosed else None) or error.problem_mark or error.context_mark
        words = " ".join(part for part in (error.context, error.problem) if part)
        raise _syntax(path, mark.line + 1 if mark else 1, words) from error
    except yaml.YAMLError as error:
        raise _syntax(path, 1, "contains a character that YAML does not allow") from error
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        return Document(path, {}, {(): Place(path, 1)})
    value = _plain(node, (), path, places)
    if not isinstance(value, dict):
        if value is not None:
            raise _syntax(path, node.start_mark.line + 1, "the file must be a table of `key: value`")
        value = {}
    places[()] = Place(path, 1)
    return Document(path, value, places)


def _refuse_exotic(event: yaml.Event, depth: int, path: str) -> None:
    """Anchors can grow a small file without bounds, depth can exhaust the stack, tags name types; none is needed here."""
    line = event.start_mark.line + 1 if event.start_mark else 1
    if getattr(event, "anchor", None):
        raise _syntax(path, line, "anchors (`&…`, `*…`) are not used here")
    if getattr(event, "tag", None):
        raise _syntax(path, line, "tags (`!…`) are not used here")
    if depth > DEPTH_LIMIT:
        raise _syntax(path, line, f"nested more than {DEPTH_LIMIT} deep")


def _plain(node: yaml.Node, loc: Loc, path: str, places: dict[Loc, Place]) -> Value:
    """A node → its plain value; notes the line of every key and item."""
    line = node.start_mark.line + 1
    places.setdefault(loc, Place(path, line))
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*loc, index), path, places) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        table: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise _syntax(path, key_line, "a key must be text")
            key = str(key_node.value)
            here = (*loc, key)
            if key in table:
                raise _syntax(path, key_line, f"the key {code(key)} stands there twice (first in line {places[here].line})")
            places[here] = Place(path, key_line)
            table[key] = _plain(value_node, here, path, places)
        return table
    written = str(node.value)
    if getattr(node, "style", None) is not None:  # quoted, or a block of text
        return written
    if written in _NULL:
        return None
    if written in _TRUE or written in _FALSE:
        return written in _TRUE
    return int(written) if _WHOLE.fullmatch(written) else written


# --------------------------------------------------------------------------- TOML


def toml_document(text: str, path: str) -> Document:
    """TOML out of a file of another kind → the document; `path` is that file. Raises as `load_document` does."""
    return _load_toml(text, path)


def _load_toml(text: str, path: str) -> Document:
    try:
        value = tomllib.loads(text, parse_float=str)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.search(r"\(at line (\d+)", str(error))
        words = re.sub(r" \(at .*\)$", "", str(error)) if isinstance(error, tomllib.TOMLDecodeError) else "nested too deep"
        raise _syntax(path, int(found[1]) if found else text.count("\n") + 1, words) from error
    places = {(): Place(path, 1), **_toml_places(text, path)}
    document = Document(path, value, places)
    return Document(path, _toml_plain(value, (), document), places)


def _toml_plain(value: object, loc: Loc, document: Document) -> Value:
    """Dates and times become their text, so that `time = 04:00:00` means in TOML what it means in YAML."""
    if len(loc) > DEPTH_LIMIT:
        raise _syntax(document.path, document.place(loc).line, f"nested more than {DEPTH_LIMIT} deep")
    if isinstance(value, dict):
        return {key: _toml_plain(item, (*loc, key), document) for key, item in value.items()}
    if isinstance(value, list):
        return [_toml_plain(item, (*loc, index), document) for index, item in enumerate(value)]
    return value if isinstance(value, str | int | bool) else str(value)


_TOML_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*')"
_TOML_HEADER = re.compile(rf"\s*\[\[?\s*({_TOML_KEY}(?:\s*\.\s*{_TOML_KEY})*)\s*\]\]?")
_TOML_PAIR = re.compile(rf"\s*({_TOML_KEY}(?:\s*\.\s*{_TOML_KEY})*)\s*=")


def _toml_places(text: str, path: str) -> dict[Loc, Place]:
    """The lines of sections and of keys at the beginning of a line (the parser does not tell); what is inside a value has its key's."""
    return {loc: Place(path, first) for loc, (first, _) in toml_value_lines(text).items()}


def toml_value_lines(text: str) -> dict[Loc, tuple[int, int]]:
    """The first and the last line of every pair that begins a line, and of every section's header; of what is there twice, the first."""
    found: dict[Loc, tuple[int, int]] = {}
    section: Loc = ()
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        header, pair = _TOML_HEADER.match(line), _TOML_PAIR.match(line)
        if header:
            section = _toml_key(header[1])
            found.setdefault(section, (number + 1, number + 1))
        elif pair:
            end = _toml_value_end(lines, number, line[pair.end() :])
            found.setdefault((*section, *_toml_key(pair[1])), (number + 1, end + 1))
            number = end
        number += 1
    return found


def _toml_key(written: str) -> Loc:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in re.findall(_TOML_KEY, written))


def _toml_value_end(lines: Sequence[str], start: int, rest: str) -> int:
    """The index of the last line of a value: the first at which the pair, parsed alone, is whole."""
    written = rest
    for end in range(start, len(lines)):
        if end > start:
            written += "\n" + lines[end]
        if end > start or written.strip()[:1] in ("[", "{", '"', "'"):
            try:
                tomllib.loads("value =" + written)
            except tomllib.TOMLDecodeError:
                continue
        return end
    return start


def _syntax(path: str, line: int, words: str) -> ConfigError:
    return ConfigError("config.syntax", f"`{path}:{line}`: {words}.")


# --------------------------------------------------------------------------- models

M = TypeVar("M", bound=BaseModel)


def check(model: type[M], document: Document, loc: Loc = ()) -> M:
    """The table at `loc` → the model. Raises `ConfigError` `config.invalid` with one line for each problem: place, key, what is wrong."""
    value: Value = document.value
    for part in loc:
        value = value[part]
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refuse(document, [(loc + where, words) for where, words in explain(model, value, error)]) from error


def refuse(document: Document, problems: Iterable[tuple[Loc, str]]) -> ConfigError:
    """Problems by path → the error that shows the first few, each with its place."""
    found = sorted({(document.place(where).path, document.place(where).line, words) for where, words in problems})
    lines = [f"`{path}:{line}`: {words}" for path, line, words in found[:PROBLEMS_SHOWN]]
    if len(found) > PROBLEMS_SHOWN:
        lines.append(f"… and {len(found) - PROBLEMS_SHOWN} more")
    return ConfigError("config.invalid", "\n".join(lines))


def explain(model: type[BaseModel], value: Value, error: ValidationError) -> list[tuple[Loc, str]]:
    """pydantic's findings → paths and sentences. The values themselves are not repeated: they may come from the environment."""
    found: list[tuple[Loc, str]] = []
    for details in error.errors(include_url=False):
        cause = details.get("ctx", {}).get("error")
        where = _within(value, details["loc"])
        if isinstance(cause, ProblemsError):
            found += [(where + inner, words) for inner, words in cause.found]
        else:
            found.append((where, _sentence(model, where, details)))
    return found


def _within(value: Value, loc: Sequence[str | int]) -> Loc:
    """The part of pydantic's path that is there in the document (pydantic adds names of union branches, and `[key]` for keys)."""
    where: list[str | int] = []
    for part in loc:
        in_list = isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        if not in_list and not (isinstance(value, dict) and part in value):
            continue
        value = value[part]
        where.append(part)
    return tuple(where)


def _sentence(model: type[BaseModel], where: Loc, details: ErrorDetails) -> str:
    """One finding in words."""
    key = ".".join(str(part) for part in where)
    if details["type"] == "extra_forbidden":
        name = str(where[-1])
        return f"{code(key)} is not a key here{_meant(name, known_keys(model, where[:-1]))}"
    if details["type"] == "missing":
        missing = str(details["loc"][-1])
        return f"{code(f'{key}.{missing}' if key else missing)} is missing"
    if details["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{code(key)} should be a table of `key: value`" if key else "should be a table of `key: value`"
    if details["type"] == "tuple_type":
        return f"{code(key)} should be a list"
    words = re.sub(r"^(?:Value error, )?(?:Input should be|Value should)", "should be", details["msg"]).removeprefix("Value error, ")
    return f"{code(key)} {words}" if key else words


def _meant(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.6)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; known are {', '.join(f'`{key}`' for key in known)}" if known else ""


def known_keys(model: type[BaseModel], where: Loc) -> tuple[str, ...]:
    """The keys that a table takes, by its path in the model; empty where any name is allowed."""
    here: object = model
    for part in where:
        here = _step(here, part)
    return tuple(sorted({field.alias or name for found in _models(here) for name, field in found.model_fields.items()}))


def _step(annotation: object, part: str | int) -> object:
    """The annotation of what stands under a key or an index."""
    fields = [field for found in _models(annotation) if (field := found.model_fields.get(str(part)))]
    if fields and get_origin(annotation) not in (tuple, list, dict):
        return fields[0].annotation
    inner = [arg for arg in get_args(annotation) if arg is not Ellipsis]
    if get_origin(annotation) in (tuple, list, dict):
        return inner[-1] if inner else None
    return next((step for arg in inner if (step := _step(arg, part)) is not None), None)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """Every model class that an annotation mentions outside of a container."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) not in (tuple, list, dict):
        for arg in get_args(annotation):
            yield from _models(arg)
