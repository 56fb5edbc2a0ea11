"""Plain values that remember their lines → validated models, or an error with file and line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dispatcher.errors import ConfigError
from dispatcher.untrusted import code

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


def unreadable(path: str, line: int, words: str) -> ConfigError:
    """A text that cannot be parsed, or is refused."""
    return ConfigError("config.syntax", f"`{path}:{line}`: {words}.")


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
