"""One profile as it is written, with its comments → YAML or TOML text. What reads the text back gets the same values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomlkit
import yaml
from tomlkit.items import Item, Table

from dispatcher.comments import Comments
from dispatcher.document import Document, Loc

WIDTH = 120


@dataclass(frozen=True)
class Entry:
    """A key with its value (a tuple of entries for a table), the comment lines before it, and the one on its line."""

    key: str
    value: Any
    before: tuple[str, ...] = ()
    behind: str = ""


@dataclass(frozen=True)
class Sheet:
    """A profile: comments about all of it, and its entries."""

    name: str
    head: tuple[str, ...]
    entries: tuple[Entry, ...]
    end: tuple[str, ...] = ()


def entries_of(document: Document, comments: Comments, loc: Loc = ()) -> tuple[Entry, ...]:
    """The table at `loc` of a document."""
    table: Any = document.value
    for part in loc:
        table = table[part]
    return tuple(
        Entry(
            key,
            entries_of(document, comments, (*loc, key)) if isinstance(value, dict) and value else value,
            tuple(comments.before.get((*loc, key), ())),
            comments.behind.get((*loc, key), ""),
        )
        for key, value in table.items()
    )


# --------------------------------------------------------------------------- YAML


class _Dumper(yaml.SafeDumper):
    """Plain values only, without anchors; texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        """The loader refuses anchors."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """A block where it can be read back without doubt; everything else stands on one line."""
    tidy = not text[:1].isspace() and not text.endswith("\n\n") and text.replace("\n", "").isprintable()
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if "\n" not in text else "|" if tidy else '"')


_Dumper.add_representer(str, _text)


def yaml_text(sheet: Sheet) -> str:
    """The text of `profiles/NAME.yaml`."""
    lines = [*_comments(sheet.head), *([""] if sheet.head and sheet.entries else []), *_yaml_lines(sheet.entries, "")]
    return "\n".join([*lines, *_comments(sheet.end)]) + "\n"


def _yaml_lines(entries: Sequence[Entry], indent: str) -> list[str]:
    lines: list[str] = []
    for entry in entries:
        behind = f"  # {entry.behind}" if entry.behind else ""
        if isinstance(entry.value, tuple):
            key = _dump({entry.key: 0}, False)[0].removesuffix(": 0")
            written = [f"{key}:{behind}", *_yaml_lines(entry.value, "  ")]
        else:
            written = _dumped({entry.key: entry.value})
            if len(written) == 1:
                written[0] += behind
            elif behind:
                written.insert(0, behind.strip())
        lines += [indent + line if line else line for line in [*_comments(entry.before), *written]]
    return lines


def _dumped(table: Mapping[str, Any]) -> list[str]:
    """One pair; a list that fits stands on the key's line."""
    block = _dump(table, False)
    if len(block) == 1 or not isinstance(next(iter(table.values())), list):
        return block
    flow = _dump(table, None)
    return flow if max(map(len, flow)) <= WIDTH else block


def _dump(table: Mapping[str, Any], flow: bool | None) -> list[str]:
    text: str = yaml.dump(dict(table), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10**6, default_flow_style=flow)
    return text.removesuffix("\n").split("\n")


def _comments(lines: Sequence[str]) -> list[str]:
    return [f"# {line}".rstrip() for line in lines]


# --------------------------------------------------------------------------- TOML


def toml_text(head: Sequence[str], sheets: Sequence[Sheet]) -> str:
    """The text of env.toml: comments about all of it, a section for each profile."""
    document = tomlkit.document()
    for line in head:
        document.add(tomlkit.comment(line))
    for sheet in sheets:
        if document.body:
            document.add(tomlkit.nl())
        for line in sheet.head:
            document.add(tomlkit.comment(line))
        table = _toml_table(sheet.entries, sheet.end)
        document.add(tomlkit.key(sheet.name), table)
        table.trivia.indent = ""  # else a blank line parts it from its comment
    return tomlkit.dumps(document)


def _toml_table(entries: Sequence[Entry], end: Sequence[str] = ()) -> Table:
    """A table; what has tables of its own comes after what has none, as TOML wants it."""
    table = tomlkit.table()
    plain = [entry for entry in entries if not isinstance(entry.value, tuple)]
    for entry in plain:
        for line in entry.before:
            table.add(tomlkit.comment(line))
        item = _toml_value(entry.value)
        if entry.behind:
            item.comment(entry.behind)
        table.add(tomlkit.key(entry.key), item)
    for line in end:
        table.add(tomlkit.comment(line))
    for entry in entries:
        if isinstance(entry.value, tuple):
            inner = _toml_table([Entry(item.key, item.value, item.before, item.behind) for item in entry.value])
            for line in entry.before:
                table.add(tomlkit.comment(line))
            if entry.behind:
                inner.comment(entry.behind)
            table.add(tomlkit.key(entry.key), inner)
    return table


def _toml_value(value: Any) -> Item:
    """A plain value; nothing (`null`) is an empty text there, which takes an inherited value away."""
    if value is None:
        return tomlkit.string("")
    if isinstance(value, str):
        return tomlkit.string(value, multiline="\n" in value and not value.startswith("\n"))
    if isinstance(value, list):
        array = tomlkit.array()
        for item in value:
            array.append(_toml_value(item))
        array.multiline(sum(len(str(item)) + 4 for item in value) > WIDTH)
        return array
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        for key, item in value.items():
            table.append(tomlkit.key(key), _toml_value(item))
        return table
    return tomlkit.item(bool(value)) if isinstance(value, bool) else tomlkit.integer(str(value))
