"""A profile's name and the texts of the files that define it → a `ResolvedProfile`: inherited, interpolated, checked, with its places.

`needed` says which files to read next, so that the shell reads no more than the name takes; `resolve_profile` then puts them together
(`extends.py`). What a recipe and a command change of it for one run is `runprofile.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.clouds import CloudProfile
from dispatcher.counterparts import ALIASES
from dispatcher.document import Document, check, refuse
from dispatcher.executor import LocalProfile
from dispatcher.extends import chain_of, merged_table, names_in, section_notes
from dispatcher.grammar import NAME
from dispatcher.interpolate import interpolate
from dispatcher.registry import EXECUTORS, Profile
from dispatcher.slurmprofile import SlurmProfile
from dispatcher.spelling import (
    Note,
    refuse_what_is_elsewhere,
    with_packager_table,
    without_blanks,
    without_secrets,
)
from dispatcher.untrusted import code

__all__ = ["CloudProfile", "LocalProfile", "Profile", "ResolvedProfile", "SlurmProfile", "UnknownProfile"]
__all__ += ["ENV_TOML", "needed", "profile_paths", "resolve_profile", "uninterpolated"]

ENV_TOML = "env.toml"


@dataclass(frozen=True)
class ResolvedProfile:
    """A profile that can be used. `document` holds the merged table and, for messages, where each value stands.

    `lineage` are the names of the profile and of what it extends, in this order. `written` is `document` before variables were put in;
    `notes` say what in its files has no effect.
    """

    name: str
    profile: Profile
    document: Document
    sources: tuple[str, ...]
    lineage: tuple[str, ...]
    written: Document
    notes: tuple[Note, ...]

    def where(self, key: str) -> str:
        """`file:line` of a field, or of the profile when the field was left out."""
        return str(self.document.place(tuple(ALIASES.get(part, part) for part in key.split("."))))


@dataclass(frozen=True)
class UnknownProfile:
    """There is no such profile; `nearest` is the name that was probably meant."""

    name: str
    nearest: str | None
    known: tuple[str, ...]

    def among(self, names: Collection[str]) -> UnknownProfile:
        """The same, knowing of more profiles."""
        known = tuple(sorted({*self.known, *names}))
        near = difflib.get_close_matches(self.name, known, 1, 0.5)
        return UnknownProfile(self.name, near[0] if near else None, known)


def profile_paths(name: str, env_file: str = ENV_TOML) -> tuple[str, ...]:
    """The files that may define a profile, the first that does wins; none for what cannot be a name."""
    return (f"profiles/{name}.yaml", env_file) if NAME.fullmatch(name) else ()


def needed(name: str, sources: Mapping[str, str], env_file: str = ENV_TOML) -> tuple[str, ...]:
    """Which files to look for next, most likely first; empty when the profile and everything it extends is among `sources`.

    The same paths come again while none of them is found: the caller stops when it has asked for all of them.
    Raises `ConfigError` for files that cannot be parsed and for circles.
    """
    _, missing = chain_of(name, sources)
    return tuple(path for path in profile_paths(missing, env_file) if path not in sources) if missing else ()


def resolve_profile(
    name: str, sources: Mapping[str, str], env_names: Collection[str], env: Mapping[str, str], secrets: Collection[str] = ()
) -> ResolvedProfile | UnknownProfile:
    """The files' texts by path → the profile. The only path that ends in `.toml` is Nemotron's file, whatever its name.

    `env` is looked into only for names in `env_names`; `secrets` are names that the job gets without a profile's doing.

    Raises `ConfigError`: `config.syntax`, `config.invalid`, `config.extends-cycle`, `config.env-not-listed`, `config.env-unset`.
    """
    chain, missing = chain_of(name, sources)
    if missing == name:
        return UnknownProfile(name, None, ()).among(names_in(sources))
    if missing:
        child = chain[-1].document
        near = UnknownProfile(missing, None, ()).among(names_in(sources)).nearest
        meant = f"; did you mean `{near}`?" if near else ""
        raise refuse(child, [(("extends",), f"there is no profile {code(missing)}{meant}")])
    merged, known = without_secrets(merged_table(chain, sources), secrets)
    document = with_packager_table(without_blanks(interpolate(merged, env_names, env), merged))
    paths = tuple(dict.fromkeys(member.document.path for member in chain))
    lineage = tuple(member.name for member in chain)
    notes = (*(note for member in chain for note in member.notes), *known, *section_notes(chain, sources))
    return ResolvedProfile(name, _checked(document), document, paths, lineage, merged, notes)


def uninterpolated(name: str, sources: Mapping[str, str]) -> Document | None:
    """A profile with what it extends, variables still being questions; None when one of them is not among `sources`.

    Raises `ConfigError` as `resolve_profile` does for files that cannot be read.
    """
    chain, missing = chain_of(name, sources)
    if missing:
        return None
    merged = merged_table(chain, sources)
    return without_blanks(merged, merged)


def _checked(document: Document) -> Profile:
    """The merged table → the model that its `executor` names."""
    refuse_what_is_elsewhere(document)
    executor = document.value.get("executor")
    if not isinstance(executor, str) or executor not in EXECUTORS:
        raise refuse(document, [(("executor",), _no_executor(executor))])
    return check(EXECUTORS[executor], document)


def _no_executor(written: Any) -> str:
    """Why a table's `executor` is none, and what it could be."""
    known = ", ".join(code(name) for name in EXECUTORS)
    if written is None:
        return f"`executor` is missing (Nemotron would take `local`, which runs the commit on this very machine): known are {known}"
    near = difflib.get_close_matches(str(written), EXECUTORS, 1, 0.6)
    meant = f"; did you mean {code(near[0])}?" if near else f": known are {known}"
    return f"`executor` {code(str(written))} is not known here{meant}"
