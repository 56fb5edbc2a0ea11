"""A YAML or TOML text and its document → the comments in it, each with the key that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from dispatcher.document import Document, Loc
from dispatcher.tomltext import toml_value_lines

# Strings first: what is inside them is no comment. https://toml.io/en/v1.0.0#string
_TOML = re.compile(r"\"\"\"(?:\\.|[^\\])*?\"{3,5}|'''.*?'{3,5}|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'|#[^\n]*", re.DOTALL)
_YAML = re.compile(r"(?:(?<=\s)|\A)#[^\n]*")


@dataclass
class Comments:
    """`before` a key on lines of their own, `behind` it on its line, and at the `end` of the file; without the `#`."""

    before: dict[Loc, list[str]] = field(default_factory=dict)
    behind: dict[Loc, str] = field(default_factory=dict)
    end: list[str] = field(default_factory=list)


def comments_of(text: str, document: Document) -> Comments:
    """Every comment. One inside a list belongs to the list's key, one inside nothing to the next key below it."""
    found = Comments()
    lines = text.split("\n")
    inside = toml_value_lines(text) if document.path.endswith(".toml") else {}
    places = sorted((place.line, len(loc), loc) for loc, place in document.places.items() if loc)
    for start, written in _toml(text) if document.path.endswith(".toml") else _yaml(text):
        number = text.count("\n", 0, start) + 1
        words = written.removeprefix("#").strip()
        alone = not lines[number - 1].split("#")[0].strip()
        around = next((loc for loc, (first, last) in inside.items() if first < number <= last), None)
        near = [key for line, _, key in places if line > number] if alone else [key for line, _, key in places if line == number]
        if around is not None:
            found.before.setdefault(around, []).append(words)
        elif not near:
            found.end.append(words)
        elif alone or (key := _outside_lists(near[0])) != near[0] or key in found.behind:
            found.before.setdefault(_outside_lists(near[0]), []).append(words)
        else:
            found.behind[key] = words
    return found


def _outside_lists(loc: Loc) -> Loc:
    """The key of the outermost list on the way, or the path itself."""
    return next((loc[:at] for at, part in enumerate(loc) if isinstance(part, int)), loc)


def _toml(text: str) -> Iterator[tuple[int, str]]:
    return ((found.start(), found[0]) for found in _TOML.finditer(text) if found[0].startswith("#"))


def _yaml(text: str) -> Iterator[tuple[int, str]]:
    """PyYAML drops comments, but tells where every scalar begins and ends; a block begins behind the line of its `|`."""
    spans = []
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.ScalarToken):
            begin, end = token.start_mark.index, token.end_mark.index
            spans.append((text.find("\n", begin, end) if token.style in ("|", ">") else begin, end))
    at = 0
    while found := _YAML.search(text, at):
        span = next((span for span in spans if span[0] <= found.start() < span[1]), None)
        at = span[1] if span else found.end()
        if span is None:
            yield found.start(), found[0]
