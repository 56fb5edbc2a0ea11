"""A profile's name and the texts of the files that define it → a `ResolvedProfile`: inherited, interpolated, checked, with its places.

`needed` says which files to read next, so that the shell reads no more than the name takes; `resolve_profile` then puts them together.
A profile is `profiles/NAME.yaml`, or a section of `env.toml` in Nemotron's format. `extends` names one other: tables merge, lists replace.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from dispatcher.clouds import CloudProfile
from dispatcher.counterparts import ALIASES, REFUSED
from dispatcher.document import Document, Loc, Place, check, explain, known_keys, refuse
from dispatcher.errors import ConfigError
from dispatcher.executor import LocalProfile
from dispatcher.grammar import NAME, Malformed, Override
from dispatcher.interpolate import interpolate
from dispatcher.reading import load_document
from dispatcher.recipe import Recipe
from dispatcher.registry import EXECUTORS, Profile
from dispatcher.slurmprofile import SlurmProfile
from dispatcher.spelling import (
    IGNORED_SECTIONS,
    RESERVED_SECTIONS,
    Note,
    normalised,
    refuse_what_is_elsewhere,
    with_packager_table,
    without_blanks,
    without_secrets,
)
from dispatcher.trainconfig import names_artifact
from dispatcher.untrusted import code

__all__ = [
    "ALIASES",
    "RESERVED_SECTIONS",
    "CloudProfile",
    "LocalProfile",
    "Note",
    "Profile",
    "ResolvedProfile",
    "SlurmProfile",
    "UnknownProfile",
]
__all__ += ["apply_overrides", "names_in", "needed", "profile_paths", "resolve_profile", "uninterpolated", "with_recipe"]

ENV_TOML = "env.toml"
CHAIN_LIMIT = 10

# What a recipe may set instead of the profile.
RECIPE_FIELDS = ("packager", "container_image", "nodes", "gpus_per_node", "ntasks_per_node", "nproc_per_node")
TABLES = frozenset({"env_vars", "wandb", "additional_parameters"})

# Where a job goes, who it is and what the login shell runs is never a commenter's choice, whatever the policy's patterns say. Nor are
# srun's arguments: `--output` writes any file, `--task-prolog` runs any program, `--container-image` is an image that no rule has seen.
FIXED_FIELDS = frozenset(
    {"executor", "extends", "packager", "squash", "setup_lines", "startup_commands", "srun_args", "log_url", "job_dir"}
    | {"tunnel", "host", "port", "user", "known_hosts", "jump", "identity"}
)


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
    _, missing = _chain(name, sources)
    return tuple(path for path in profile_paths(missing, env_file) if path not in sources) if missing else ()


def resolve_profile(
    name: str, sources: Mapping[str, str], env_names: Collection[str], env: Mapping[str, str], secrets: Collection[str] = ()
) -> ResolvedProfile | UnknownProfile:
    """The files' texts by path → the profile. The only path that ends in `.toml` is Nemotron's file, whatever its name.

    `env` is looked into only for names in `env_names`; `secrets` are names that the job gets without a profile's doing.

    Raises `ConfigError`: `config.syntax`, `config.invalid`, `config.extends-cycle`, `config.env-not-listed`, `config.env-unset`.
    """
    chain, missing = _chain(name, sources)
    if missing == name:
        return UnknownProfile(name, None, ()).among(names_in(sources))
    if missing:
        child = chain[-1].document
        near = UnknownProfile(missing, None, ()).among(names_in(sources)).nearest
        meant = f"; did you mean `{near}`?" if near else ""
        raise refuse(child, [(("extends",), f"there is no profile {code(missing)}{meant}")])
    merged, known = without_secrets(_merged(chain, sources), secrets)
    document = with_packager_table(without_blanks(interpolate(merged, env_names, env), merged))
    paths = tuple(dict.fromkeys(member.document.path for member in chain))
    lineage = tuple(member.name for member in chain)
    notes = (*(note for member in chain for note in member.notes), *known, *_section_notes(chain, sources))
    return ResolvedProfile(name, _checked(document), document, paths, lineage, merged, notes)


def uninterpolated(name: str, sources: Mapping[str, str]) -> Document | None:
    """A profile with what it extends, variables still being questions; None when one of them is not among `sources`.

    Raises `ConfigError` as `resolve_profile` does for files that cannot be read.
    """
    chain, missing = _chain(name, sources)
    if missing:
        return None
    merged = _merged(chain, sources)
    return without_blanks(merged, merged)


def _merged(chain: Sequence[Member], sources: Mapping[str, str]) -> Document:
    """A profile laid over what it extends, and all that over env.toml's `[wandb]`; variables are still questions."""
    merged = _wandb_defaults(sources) if any(_is_toml(member.document.path) for member in chain) else Document("", {}, {})
    for member in reversed(chain):
        merged = _merge(merged, member.document)
    table = {key: value for key, value in merged.value.items() if key != "extends" and value is not None}
    return Document(chain[0].document.path, table, merged.places)


def with_recipe(profile: Profile, recipe: Recipe) -> Profile:
    """The profile as a recipe wants it: its shape and image win, its environment lies under the profile's. Overrides come after this."""
    table = profile.model_dump(exclude_unset=True)
    for name in RECIPE_FIELDS:
        value = getattr(recipe, name)
        if value is not None and name in type(profile).model_fields:
            table[name] = value
    table["env_vars"] = {**recipe.env_vars, **profile.env_vars}
    return type(profile).model_validate(table)


def apply_overrides(profile: Profile, overrides: Sequence[Override], with_config: bool = False) -> Profile | Malformed:
    """`run.…` overrides → the profile with those fields changed and everything checked again; others are left to the script.

    `with_config`: the script gets a configuration, which `run.data=…` and other names of artifacts are left to.
    """
    table = profile.model_dump(exclude_unset=True)
    for override in overrides:
        if override.target == "profile" and not (with_config and names_artifact(override)):
            problem = _set(type(profile), table, override)
            if problem:
                return problem
    try:
        return type(profile).model_validate(table)
    except ValidationError as error:
        return _blame(type(profile), table, error, overrides)


# --------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Member:
    """One profile of a chain of `extends`: its own table, and what of it has no effect."""

    name: str
    document: Document
    notes: tuple[Note, ...]


def _chain(name: str, sources: Mapping[str, str]) -> tuple[list[Member], str | None]:
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


def _wandb_defaults(sources: Mapping[str, str]) -> Document:
    """env.toml's `[wandb]`, which holds for every profile there."""
    whole = _toml(sources)
    if whole is None or not isinstance(whole.value.get("wandb"), dict):
        return Document("", {}, {})
    places = {loc: place for loc, place in whole.places.items() if loc[:1] == ("wandb",)}
    return _held(Document(whole.path, {"wandb": whole.value["wandb"]}, places), "[wandb]")


def _section_notes(chain: Sequence[Member], sources: Mapping[str, str]) -> tuple[Note, ...]:
    """Sections of env.toml without an effect, where a profile comes from there."""
    whole = _toml(sources) if any(_is_toml(member.document.path) for member in chain) else None
    if whole is None:
        return ()
    return tuple(Note(f"[{name}]", words, whole.place((name,))) for name, words in IGNORED_SECTIONS.items() if name in whole.value)


# --------------------------------------------------------------------------- tables


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


# --------------------------------------------------------------------------- overrides


def _set(model: type[Profile], table: dict[str, Any], override: Override) -> Malformed | None:
    """Writes one override into a table of the profile (copied on the way down)."""
    first, *rest = override.field.split(".")
    first = ALIASES.get(first, first)
    if first in FIXED_FIELDS or (issubclass(model, CloudProfile) and first in model.FIXED):
        hint = "It is set in the profile, on the default branch."
        return Malformed("not-here", f"{code(override.key)} cannot be set by an override.", hint)
    if first in REFUSED:
        return Malformed("not-here", f"{code(override.key)} cannot be set: {REFUSED[first]}.", "Leave it out.")
    if "[" in override.field or len(rest) > 1:
        return Malformed("bad-key", f"{code(override.key)} is not a field of the profile.", "Give the whole field a value.")
    if not rest:
        in_list = re.fullmatch(r"\[(.*)\]", override.value)
        table[first] = [part.strip() for part in in_list[1].split(",") if part.strip()] if in_list else override.value
        return None
    inner = table.get(first, {})
    if not isinstance(inner, dict) or first not in TABLES:
        return Malformed("bad-key", f"{code(override.key)}: {code(first)} has no fields.", f"Write {code('run.' + first + '=…')}.")
    table[first] = {**inner, rest[0]: override.value}
    return None


def _blame(model: type[Profile], table: Mapping[str, Any], error: ValidationError, overrides: Sequence[Override]) -> Malformed:
    """What is wrong, said about the override that brought it."""
    for where, words in explain(model, table, error):
        for override in overrides:
            parts = tuple(override.field.split("."))
            if override.target != "profile" or where[:1] != (ALIASES.get(parts[0], parts[0]),):
                continue
            if " is not a key here" in words:
                near = difflib.get_close_matches(parts[-1], known_keys(model, where[:-1]), 1, 0.6)
                hint = f"Did you mean **{code('run.' + '.'.join((*parts[:-1], near[0])))}**?" if near else "See `docs/profiles.md`."
                return Malformed("bad-key", f"{code(override.key)} is not a field of the profile.", hint)
            return Malformed("bad-value", f"{code(override.word)}: {words}.", "Correct the value.")
    return Malformed(
        "bad-value", f"With these overrides the profile cannot be used: {explain(model, table, error)[0][1]}.", "Leave them out."
    )
