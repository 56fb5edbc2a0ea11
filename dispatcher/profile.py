"""A profile's name and the texts of the files that define it → a `ResolvedProfile`: inherited, interpolated, checked, with its places.

`needed` says which files to read next, so that the shell reads no more than the name takes; `resolve_profile` then puts them together.
A profile is `profiles/NAME.yaml`, or a section of `env.toml` in Nemotron's format. `extends` names one other: tables merge, lists replace.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dispatcher.document import Document, Loc, Place, check, explain, known_keys, load_document, refuse
from dispatcher.errors import ConfigError
from dispatcher.executor import EXECUTORS, LocalProfile, Profile, SlurmProfile
from dispatcher.grammar import NAME, Malformed, Override
from dispatcher.interpolate import interpolate
from dispatcher.recipe import Recipe
from dispatcher.untrusted import code

__all__ = ["LocalProfile", "Profile", "ResolvedProfile", "SlurmProfile", "UnknownProfile", "apply_overrides", "needed", "profile_paths"]
__all__ += ["names_in", "resolve_profile", "with_recipe"]

ENV_TOML = "env.toml"
RESERVED_SECTIONS = frozenset({"wandb", "cli", "cache", "artifacts"})
CHAIN_LIMIT = 10

ALIASES = {"container": "container_image", "container_mounts": "mounts", "remote_job_dir": "job_dir"}

TABLES = frozenset({"env_vars", "wandb", "additional_parameters"})

# Where a job goes, who it is and what the login shell runs is never a commenter's choice, whatever the policy's patterns say. Nor are
# srun's arguments: `--output` writes any file, `--task-prolog` runs any program, `--container-image` is an image that no rule has seen.
FIXED_FIELDS = frozenset(
    {"executor", "extends", "packager", "setup_lines", "startup_commands", "srun_args", "log_url", "job_dir"}
    | {"tunnel", "host", "port", "user", "known_hosts", "jump", "identity"}
)


@dataclass(frozen=True)
class ResolvedProfile:
    """A profile that can be used. `document` holds the merged table and, for messages, where each value stands.

    `lineage` are the names of the profile and of what it extends, in this order.
    """

    name: str
    profile: Profile
    document: Document
    sources: tuple[str, ...]
    lineage: tuple[str, ...]

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


def profile_paths(name: str) -> tuple[str, ...]:
    """The files that may define a profile, the first that does wins; none for what cannot be a name."""
    return (f"profiles/{name}.yaml", ENV_TOML) if NAME.fullmatch(name) else ()


def needed(name: str, sources: Mapping[str, str]) -> tuple[str, ...]:
    """Which files to look for next, most likely first; empty when the profile and everything it extends is among `sources`.

    The same paths come again while none of them is found: the caller stops when it has asked for all of them.
    Raises `ConfigError` for files that cannot be parsed and for circles.
    """
    _, missing = _chain(name, sources)
    return tuple(path for path in profile_paths(missing) if path not in sources) if missing else ()


def resolve_profile(
    name: str, sources: Mapping[str, str], env_names: Collection[str], env: Mapping[str, str]
) -> ResolvedProfile | UnknownProfile:
    """The files' texts by path → the profile. `env` is looked into only for names in `env_names`.

    Raises `ConfigError`: `config.syntax`, `config.invalid`, `config.extends-cycle`, `config.env-not-listed`, `config.env-unset`.
    """
    chain, missing = _chain(name, sources)
    if missing == name:
        return UnknownProfile(name, None, ()).among(names_in(sources))
    if missing:
        child = chain[-1]
        near = UnknownProfile(missing, None, ()).among(names_in(sources)).nearest
        meant = f"; did you mean `{near}`?" if near else ""
        raise refuse(child, [(("extends",), f"there is no profile {code(missing)}{meant}")])
    merged = _wandb_defaults(chain[-1], sources) if chain[0].path == ENV_TOML else Document(chain[0].path, {}, {})
    for document in reversed(chain):
        merged = _merge(merged, document)
    merged = interpolate(merged, env_names, env)
    table = {key: value for key, value in merged.value.items() if key != "extends" and value is not None}
    merged = Document(chain[0].path, table, merged.places)
    paths = tuple(dict.fromkeys(document.path for document in chain))
    return ResolvedProfile(name, _checked(merged), merged, paths, (name, *(str(document.value["extends"]) for document in chain[:-1])))


def with_recipe(profile: Profile, recipe: Recipe) -> Profile:
    """The profile as a recipe wants it: its shape and image win, its environment lies under the profile's. Overrides come after this."""
    table = profile.model_dump(exclude_unset=True)
    for name in ("container_image", "nodes", "gpus_per_node", "ntasks_per_node", "nproc_per_node"):
        value = getattr(recipe, name)
        if value is not None and name in type(profile).model_fields:
            table[name] = value
    table["env_vars"] = {**recipe.env_vars, **profile.env_vars}
    return type(profile).model_validate(table)


def apply_overrides(profile: Profile, overrides: Sequence[Override]) -> Profile | Malformed:
    """`run.…` overrides → the profile with those fields changed and everything checked again; others are left to the script."""
    table = profile.model_dump(exclude_unset=True)
    for override in overrides:
        if override.target == "profile":
            problem = _set(table, override)
            if problem:
                return problem
    try:
        return type(profile).model_validate(table)
    except ValidationError as error:
        return _blame(type(profile), table, error, overrides)


# --------------------------------------------------------------------------- files


def _chain(name: str, sources: Mapping[str, str]) -> tuple[list[Document], str | None]:
    """The profile and what it extends, child first, as far as `sources` go; and the name that was not found, if any."""
    chain: list[Document] = []
    seen: list[str] = []
    wanted: str | None = name
    while wanted is not None:
        if wanted in seen or len(seen) > CHAIN_LIMIT:
            circle = " → ".join(f"`{step}`" for step in [*seen[seen.index(wanted) if wanted in seen else 0 :], wanted])
            raise ConfigError("config.extends-cycle", f"`{chain[-1].place(('extends',))}`: {circle}.")
        document = _find(wanted, sources, toml_first=any(found.path == ENV_TOML for found in chain))
        if document is None:
            return chain, wanted
        seen.append(wanted)
        chain.append(document)
        wanted = document.value.get("extends")
        if wanted is not None and not (isinstance(wanted, str) and NAME.fullmatch(wanted)):
            raise refuse(document, [(("extends",), "`extends` is not the name of one profile")])
    return chain, None


def _find(name: str, sources: Mapping[str, str], toml_first: bool) -> Document | None:
    """The table that defines a profile. What extends a section of env.toml is looked for there first."""
    paths = profile_paths(name)
    for path in sorted(paths, key=lambda path: path != ENV_TOML) if toml_first else paths:
        if path not in sources:
            continue
        document = load_document(sources[path], path)
        if path != ENV_TOML:
            return _normalised(document)
        if name not in RESERVED_SECTIONS and isinstance(document.value.get(name), dict):
            return _normalised(_section(document, name))
    return None


def names_in(sources: Mapping[str, str]) -> tuple[str, ...]:
    """The profiles that the texts define."""
    names = [match[1] for path in sources if (match := re.fullmatch(r"profiles/(.+)\.yaml", path))]
    if ENV_TOML in sources:
        sections = load_document(sources[ENV_TOML], ENV_TOML).value
        names += [name for name, table in sections.items() if isinstance(table, dict) and name not in RESERVED_SECTIONS]
    return tuple(names)


def _section(document: Document, name: str) -> Document:
    """One section of a file as a document of its own."""
    places = {loc[1:]: place for loc, place in document.places.items() if loc[:1] == (name,)}
    return Document(document.path, document.value[name], places)


def _wandb_defaults(document: Document, sources: Mapping[str, str]) -> Document:
    """env.toml's `[wandb]`, which holds for every profile there."""
    whole = load_document(sources[ENV_TOML], ENV_TOML)
    if not isinstance(whole.value.get("wandb"), dict):
        return Document(document.path, {}, {})
    places = {loc: place for loc, place in whole.places.items() if loc[:1] == ("wandb",)}
    return Document(ENV_TOML, {"wandb": whole.value["wandb"]}, places)


# --------------------------------------------------------------------------- tables


def _normalised(document: Document) -> Document:
    """One name for every field, and `env_vars` as a table, so that what is merged is alike."""
    value, places = dict(document.value), dict(document.places)
    if "identity" in value:
        hint = "`identity` is not read: the key comes from the environment, `DISPATCH_SSH_KEY` (or an SSH agent)"
        raise refuse(document, [(("identity",), hint)])
    for alias, name in ALIASES.items():
        if alias not in value:
            continue
        if name in value:
            raise refuse(document, [((alias,), f"`{alias}` and `{name}` mean the same: keep one")])
        value[name] = value.pop(alias)
        places.update({(name, *loc[1:]): place for loc, place in document.places.items() if loc[:1] == (alias,)})
    if "detach" in value:  # Nemotron's guide has it the other way round
        if not isinstance(value["detach"], bool) or "attach" in value:
            raise refuse(document, [(("detach",), "`detach` is `true` or `false`, and excludes `attach`")])
        value["attach"] = not value.pop("detach")
        places[("attach",)] = document.place(("detach",))
    if isinstance(value.get("env_vars"), list):
        value["env_vars"] = _env_table(Document(document.path, value, places), value["env_vars"], places)
    return Document(document.path, value, places)


def _env_table(document: Document, items: Sequence[Any], places: dict[Loc, Place]) -> dict[str, Any]:
    """`[NAME=value, …]` or `[{name: …, value: …}, …]` → a table."""
    table: dict[str, Any] = {}
    for index, item in enumerate(items):
        place = document.place(("env_vars", index))
        if isinstance(item, str) and "=" in item:
            name, _, value = item.partition("=")
        elif isinstance(item, dict) and set(item) == {"name", "value"} and isinstance(item["name"], str):
            name, value = item["name"], item["value"]
        else:
            raise refuse(document, [(("env_vars", index), "an entry of `env_vars` is `NAME=value` or `{name: …, value: …}`")])
        if name in table:
            raise refuse(document, [(("env_vars", index), f"{code(name)} stands there twice")])
        table[name] = value
        places[("env_vars", name)] = place
    return table


def _merge(under: Document, over: Document, loc: Loc = ()) -> Document:
    """Tables merge, everything else replaces; each value keeps the place that it came from."""
    value = dict(under.value)
    places = {**under.places, (): over.place(())}
    for key, item in over.value.items():
        here = (*loc, key)
        beneath = value.get(key)
        if isinstance(item, dict) and isinstance(beneath, dict):
            inner = _merge(Document(under.path, beneath, places), Document(over.path, item, over.places), here)
            value[key], places = inner.value, {**inner.places, here: over.place(here)}
            continue
        value[key] = item
        places = {old: place for old, place in places.items() if old[: len(here)] != here}
        places.update({new: place for new, place in over.places.items() if new[: len(here)] == here})
    return Document(over.path, value, places)


def _checked(document: Document) -> Profile:
    """The merged table → the model that its `executor` names."""
    executor = document.value.get("executor")
    if not isinstance(executor, str) or executor not in EXECUTORS:
        words = "`executor` is missing" if executor is None else f"`executor` {code(str(executor))} is not known here"
        raise refuse(document, [(("executor",), f"{words}: it is `slurm` or `local`")])
    return check(EXECUTORS[executor], document)


# --------------------------------------------------------------------------- overrides


def _set(table: dict[str, Any], override: Override) -> Malformed | None:
    """Writes one override into a table of the profile (copied on the way down)."""
    first, *rest = override.field.split(".")
    first = ALIASES.get(first, first)
    if first in FIXED_FIELDS:
        hint = "It is set in the profile, on the default branch."
        return Malformed("not-here", f"{code(override.key)} cannot be set by an override.", hint)
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
