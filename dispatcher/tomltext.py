"""TOML text → a `Document`, and the lines of its pairs, which the standard library's parser does not tell."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from dispatcher.document import DEPTH_LIMIT, Document, Loc, Place, Value, unreadable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]


def toml_document(text: str, path: str) -> Document:
    """TOML 1.0 → the document; `path` is the file that it stands in. Raises `ConfigError` `config.syntax`."""
    try:
        value = tomllib.loads(text, parse_float=str)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.search(r"\(at line (\d+)", str(error))
        words = re.sub(r" \(at .*\)$", "", str(error)) if isinstance(error, tomllib.TOMLDecodeError) else "nested too deep"
        raise unreadable(path, int(found[1]) if found else text.count("\n") + 1, words) from error
    places = {(): Place(path, 1), **_places(text, path)}
    document = Document(path, value, places)
    return Document(path, _plain(value, (), document), places)


def _plain(value: object, loc: Loc, document: Document) -> Value:
    """Dates and times become their text, so that `time = 04:00:00` means in TOML what it means in YAML."""
    if len(loc) > DEPTH_LIMIT:
        raise unreadable(document.path, document.place(loc).line, f"nested more than {DEPTH_LIMIT} deep")
    if isinstance(value, dict):
        return {key: _plain(item, (*loc, key), document) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, (*loc, index), document) for index, item in enumerate(value)]
    return value if isinstance(value, str | int | bool) else str(value)


_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*')"
_HEADER = re.compile(rf"\s*\[\[?\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*\]\]?")
_PAIR = re.compile(rf"\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=")


def _places(text: str, path: str) -> dict[Loc, Place]:
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
        header, pair = _HEADER.match(line), _PAIR.match(line)
        if header:
            section = _key(header[1])
            found.setdefault(section, (number + 1, number + 1))
        elif pair:
            end = _value_end(lines, number, line[pair.end() :])
            found.setdefault((*section, *_key(pair[1])), (number + 1, end + 1))
            number = end
        number += 1
    return found


def _key(written: str) -> Loc:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in re.findall(_KEY, written))


def _value_end(lines: Sequence[str], start: int, rest: str) -> int:
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
