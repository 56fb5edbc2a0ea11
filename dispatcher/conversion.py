"""Profiles in one form → the same profiles in the other: Nemotron's env.toml, or files in `profiles/`; and whether they are the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.comments import Comments, comments_of
from dispatcher.document import Document, Loc, refuse
from dispatcher.grammar import NAME
from dispatcher.profile import uninterpolated
from dispatcher.reading import load_document
from dispatcher.sheet import Entry, Sheet, entries_of, toml_text, yaml_text
from dispatcher.spelling import IGNORED_SECTIONS, RESERVED_SECTIONS, Note, ignored
from dispatcher.untrusted import code


@dataclass(frozen=True)
class Converted:
    """Texts by path in the other form; `names` are the profiles in them, `left_out` what has no effect here and no place there."""

    texts: Mapping[str, str]
    names: tuple[str, ...]
    left_out: tuple[Note, ...]


def to_yaml(text: str, path: str) -> Converted:
    """The text of env.toml → `profiles/NAME.yaml` for each section. `[wandb]` goes into every profile that extends none.

    Raises:
        ConfigError: `config.syntax`, `config.invalid` for what cannot be said in the other form.
    """
    whole = load_document(text, path)
    comments = comments_of(text, whole)
    names = [name for name, table in whole.value.items() if isinstance(table, dict) and name not in RESERVED_SECTIONS]
    _refuse_odd_names(whole, names)
    texts: dict[str, str] = {}
    notes = [Note(f"[{name}]", words, whole.place((name,))) for name, words in IGNORED_SECTIONS.items() if name in whole.value]
    for place, name in enumerate(names):
        left_out = ignored(whole.value[name])
        notes += [Note(f"{name}.{key}", words, whole.place((name, key))) for key, words in left_out.items()]
        entries = tuple(_yaml_entry(entry) for entry in entries_of(whole, comments, (name,)) if entry.key not in left_out)
        if "extends" not in whole.value[name] and isinstance(whole.value.get("wandb"), dict):
            entries = _with_wandb(entries, entries_of(whole, comments, ("wandb",)))
        head = (*(_preamble(whole, comments) if place == 0 else ()), *comments.before.get((name,), ()))
        behind = comments.behind.get((name,))
        end = tuple(comments.end) if place == len(names) - 1 else ()
        texts[f"profiles/{name}.yaml"] = yaml_text(Sheet(name, (*head, *([behind] if behind else [])), entries, end))
    return Converted(texts, tuple(names), tuple(notes))


def to_toml(sources: Mapping[str, str], path: str) -> Converted:
    """The texts of `profiles/*.yaml` by path → env.toml, a section for each. Raises `ConfigError` as `to_yaml` does."""
    sheets: list[Sheet] = []
    for source, text in sorted(sources.items(), key=lambda item: item[0].removesuffix(".yaml")):
        document = load_document(text, source)
        comments = comments_of(text, document)
        found = re.fullmatch(r"profiles/(.+)\.yaml", source)
        assert found is not None
        name = found[1]
        if name in RESERVED_SECTIONS or not NAME.fullmatch(name):
            raise refuse(document, [((), f"{code(name)} cannot be a profile's name in env.toml, where it means something else")])
        entries = entries_of(document, comments)
        head = entries[0].before if entries else ()
        if entries:
            first = entries[0]
            entries = (Entry(first.key, first.value, (), first.behind), *entries[1:])
        sheets.append(Sheet(name, head, entries, tuple(comments.end)))
    return Converted({path: toml_text((), sheets)}, tuple(sheet.name for sheet in sheets), ())


def unlike(names: tuple[str, ...], before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """The profiles that would not resolve as they did, whatever the variables are; empty when the conversion lost nothing."""
    return tuple(name for name in names if _settled(name, before) != _settled(name, after))


def _settled(name: str, sources: Mapping[str, str]) -> dict[str, Any] | None:
    merged = uninterpolated(name, sources)
    if merged is None:
        return None
    table = dict(merged.value)
    if isinstance(table.get("wandb"), dict):
        table["wandb"] = {key: value for key, value in table["wandb"].items() if value is not None}
    return {key: value for key, value in table.items() if value != {}}


# --------------------------------------------------------------------------- into YAML


def _yaml_entry(entry: Entry, loc: Loc = ()) -> Entry:
    """In env.toml an empty text takes a value away; in YAML that is `null`."""
    if isinstance(entry.value, tuple) and (entry.key == "wandb" or not loc):
        inner = tuple(_yaml_entry(item, (entry.key,)) for item in entry.value) if entry.key == "wandb" else entry.value
        return Entry(entry.key, inner, entry.before, entry.behind)
    return Entry(entry.key, None if entry.value == "" else entry.value, entry.before, entry.behind)


def _with_wandb(entries: tuple[Entry, ...], given: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """A profile's entries over env.toml's `[wandb]`."""
    own = next((entry for entry in entries if entry.key == "wandb"), None)
    if own is not None and not isinstance(own.value, tuple) and own.value != {}:
        return entries  # `wandb = ""` takes it all away
    mine = own.value if own is not None and isinstance(own.value, tuple) else ()
    names = {entry.key for entry in mine}
    under = tuple(_yaml_entry(entry, ("wandb",)) for entry in given if entry.key not in names)
    if not (*under, *mine):
        return entries
    merged = Entry("wandb", (*under, *mine), own.before if own else (), own.behind if own else "")
    return (*(entry for entry in entries if entry.key != "wandb"), merged)


def _preamble(whole: Document, comments: Comments) -> tuple[str, ...]:
    """Comments at the top of the file, where its first section is one that goes away."""
    first = next(iter(whole.value), "")
    return tuple(comments.before.get((first,), ())) if first in RESERVED_SECTIONS else ()


def _refuse_odd_names(whole: Document, names: list[str]) -> None:
    problems: list[tuple[Loc, str]] = [((name,), f"{code(name)} cannot be a profile's name") for name in names if not NAME.fullmatch(name)]
    shared = isinstance(whole.value.get("wandb"), dict)
    for name in names:
        parent = whole.value[name].get("extends")
        if shared and parent is not None and parent not in names:
            words = f"`[wandb]` lies under everything that {code(str(parent))} has, which is not in this file: give it a `wandb` of its own"
            problems.append(((name, "extends"), words))
    if problems:
        raise refuse(whole, problems)
