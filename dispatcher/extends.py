"""A profile's name × the texts of the files → the profile and what it extends, and one table of all that, each value with its place.

A profile is `profiles/NAME.yaml`, or a section of `env.toml` in Nemotron's format. `extends` names one other: tables merge, lists replace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dispatcher.document import Document, Loc, Place, refuse
from dispatcher.errors import ConfigError
from dispatcher.grammar import NAME
from dispatcher.reading import load_document
from dispatcher.spelling import IGNORED_SECTIONS, RESERVED_SECTIONS, Note, normalised

CHAIN_LIMIT = 10


@dataclass(frozen=True)
class Member:
    """One profile of a chain of `extends`: its own table, and what of it has no effect."""

    name: str
    document: Document
    notes: tuple[Note, ...]


def chain_of(name: str, sources: Mapping[str, str]) -> tuple[list[Member], str | None]:
    """The profile and what it extends, child first, as far as `sources` go; and the name that was not found, if any."""
    chain: list[Member] = []
    seen: list[str] = []
    wanted: str | None = name
    while wanted is not None:
        if wanted in seen or len(seen) > CHAIN_LIMIT:
            circle = " → ".join(f"`{step}`" for step in [*seen[seen.index(wanted) if wanted in seen else 0 :], wanted])
            raise ConfigError("config.extends-cycle", f"`{chain[-1].document.place(('extends',))}`: {circle}.")
        found = _find(wanted, sources, toml_first=any(_is_toml(member.document.path) for member in chain))
        if found is None:
            return chain, wanted
        seen.append(wanted)
        document, notes = normalised(_held(found, wanted))
        chain.append(Member(wanted, document, notes))
        wanted = document.value.get("extends")
        if wanted is not None and not (isinstance(wanted, str) and NAME.fullmatch(wanted)):
            raise refuse(document, [(("extends",), "`extends` is not the name of one profile")])
    return chain, None


def _is_toml(path: str) -> bool:
    return path.endswith(".toml")


def _toml(sources: Mapping[str, str]) -> Document | None:
    """Nemotron's file, if there is one."""
    path = next((path for path in sources if _is_toml(path)), None)
    return load_document(sources[path], path) if path is not None else None


def _find(name: str, sources: Mapping[str, str], toml_first: bool) -> Document | None:
    """The table that defines a profile. What extends a section of env.toml is looked for there first."""
    if not NAME.fullmatch(name):
        return None
    path = f"profiles/{name}.yaml"
    if path in sources and not toml_first:
        return load_document(sources[path], path)
    whole = _toml(sources)
    if whole is not None and name not in RESERVED_SECTIONS and isinstance(whole.value.get(name), dict):
        return _section(whole, name)
    return load_document(sources[path], path) if path in sources else None


def names_in(sources: Mapping[str, str]) -> tuple[str, ...]:
    """The profiles that the texts define."""
    names = [match[1] for path in sources if (match := re.fullmatch(r"profiles/(.+)\.yaml", path))]
    whole = _toml(sources)
    if whole is not None:
        names += [name for name, table in whole.value.items() if isinstance(table, dict) and name not in RESERVED_SECTIONS]
    return tuple(names)


def _section(document: Document, name: str) -> Document:
    """One section of a file as a document of its own."""
    places = {loc[1:]: place for loc, place in document.places.items() if loc[:1] == (name,)}
    return Document(document.path, document.value[name], places)


def _held(document: Document, holder: str) -> Document:
    """The same with a place for everything in it, saying whose it is: what is merged with others must not look like theirs."""
    places: dict[Loc, Place] = {}

    def walk(value: Any, loc: Loc) -> None:
        places[loc] = replace(document.place(loc), holder=holder)
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in inner:
            walk(item, (*loc, key))

    walk(document.value, ())
    return Document(document.path, document.value, places)


def merged_table(chain: Sequence[Member], sources: Mapping[str, str]) -> Document:
    """A profile laid over what it extends, and all that over env.toml's `[wandb]`; variables are still questions."""
    whole = _wandb_defaults(sources) if any(_is_toml(member.document.path) for member in chain) else Document("", {}, {})
    for member in reversed(chain):
        whole = _merge(whole, member.document)
    table = {key: value for key, value in whole.value.items() if key != "extends" and value is not None}
    return Document(chain[0].document.path, table, whole.places)


def _merge(under: Document, over: Document, loc: Loc = ()) -> Document:
    """Tables merge, everything else replaces; each value keeps the place that it came from."""
    value = dict(under.value)
    places = {**under.places, (): over.place(())}
    for key, item in over.value.items():
        here = (*loc, key)
        beneath = value.get(key)
        if isinstance(item, dict) and isinstance(beneath, dict) and here != ("packager",):  # one is chosen, with its options
            inner = _merge(Document(under.path, beneath, places), Document(over.path, item, over.places), here)
            value[key], places = inner.value, {**inner.places, here: over.place(here)}
            continue
        value[key] = item
        places = {old: place for old, place in places.items() if old[: len(here)] != here}
        places.update({new: place for new, place in over.places.items() if new[: len(here)] == here})
    return Document(over.path, value, places)


def _wandb_defaults(sources: Mapping[str, str]) -> Document:
    """env.toml's `[wandb]`, which holds for every profile there."""
    whole = _toml(sources)
    if whole is None or not isinstance(whole.value.get("wandb"), dict):
        return Document("", {}, {})
    places = {loc: place for loc, place in whole.places.items() if loc[:1] == ("wandb",)}
    return _held(Document(whole.path, {"wandb": whole.value["wandb"]}, places), "[wandb]")


def section_notes(chain: Sequence[Member], sources: Mapping[str, str]) -> tuple[Note, ...]:
    """Sections of env.toml without an effect, where a profile comes from there."""
    whole = _toml(sources) if any(_is_toml(member.document.path) for member in chain) else None
    if whole is None:
        return ()
    return tuple(Note(f"[{name}]", words, whole.place((name,))) for name, words in IGNORED_SECTIONS.items() if name in whole.value)
