"""A profile's table as people write it (ours, NeMo-Run's guides, Nemotron's env.toml) → one name for each field, and what is ignored.

Nemotron's side is what its loader and its guide name:
https://github.com/NVIDIA-NeMo/Nemotron/blob/main/docs/nemo_runspec/nemo-run.md#envtoml-reference
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dispatcher.counterparts import ALIASES, REFUSED
from dispatcher.document import Document, Loc, Place, refuse
from dispatcher.packager import Packager
from dispatcher.registry import EXECUTORS
from dispatcher.untrusted import code

# Sections of env.toml that are no profiles, and have no use here.
IGNORED_SECTIONS: Mapping[str, str] = {
    "artifacts": "has no effect: artifacts are between the program and their store",
    "cache": "has no effect: nothing is cloned on the cluster",
    "cli": "has no effect: how Nemotron's own command line looks",
}
RESERVED_SECTIONS = frozenset({"wandb", *IGNORED_SECTIONS})

_BUILDS = "has no effect: no image is built here"

# Fields of a section of env.toml that take nothing away from a run when they are left out.
IGNORED_FIELDS: Mapping[str, str] = {
    "identity": f"is not read: {REFUSED['identity']}",
    "build_partition": _BUILDS,
    "build_time": _BUILDS,
    "build_image": _BUILDS,
    "build_cache_dir": _BUILDS,
    "build_include_gpus": _BUILDS,
    "build_gpus_per_node": _BUILDS,
    "pip_extras": "has no effect: Nemotron reads it for cloud executors only",
}

# Without these something else would run than was meant.
ELSEWHERE: Mapping[str, str] = {
    "run_command": "what runs is the recipe's: `recipes` in `.github/dispatch.yml` has `script` or `module`, `entrypoint` and `args`",
}

# Options of the packager as fields of their own, as Nemotron's guide writes them: `packager_include_pattern`.
PACKAGER_OPTIONS: Mapping[str, str] = {f"packager_{name}": name for name in Packager.model_fields if name not in ("type", "sub_packagers")}

_KNOWN = frozenset(name for model in EXECUTORS.values() for name in model.model_fields)


@dataclass(frozen=True)
class Note:
    """Something that is understood and has no effect: a field, or a section in brackets; the words go on after its name."""

    key: str
    words: str
    place: Place


def normalised(document: Document) -> tuple[Document, tuple[Note, ...]]:
    """One name for every field, and `env_vars` as a table, so that what is merged is alike. Raises `ConfigError` `config.invalid`."""
    value, places = dict(document.value), dict(document.places)
    notes = _without_ignored(document, value) if document.path.endswith(".toml") else ()
    refused = [((key,), f"`{key}` is not read: {words}") for key, words in REFUSED.items() if key in value]
    if refused:
        raise refuse(document, refused)
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
    return Document(document.path, value, places), notes


def refuse_what_is_elsewhere(document: Document) -> None:
    """Raises `ConfigError` `config.invalid` for fields that Nemotron has in a profile and that are set elsewhere here."""
    problems: list[tuple[Loc, str]] = [
        ((key,), f"`{key}` is no field of a profile: {words}")
        for key, words in ELSEWHERE.items()
        if key in document.value and key not in _KNOWN
    ]
    if problems:
        raise refuse(document, problems)


def with_packager_table(document: Document) -> Document:
    """`packager = "pattern"` with `packager_include_pattern = …` beside it → one table. Raises `ConfigError` `config.invalid`."""
    given = {key: name for key, name in PACKAGER_OPTIONS.items() if key in document.value}
    odd = [key for key in document.value if key.startswith("packager_") and key not in given]
    if odd:
        raise refuse(document, [((key,), _no_option(key)) for key in odd])
    if not given:
        return document
    packager = document.value.get("packager", "git")
    if isinstance(packager, dict):
        raise refuse(
            document, [((key,), f"`{key}` and a table `packager` exclude each other: write `{name}` there") for key, name in given.items()]
        )
    value = {key: item for key, item in document.value.items() if key not in given}
    value["packager"] = {"type": packager, **{name: document.value[key] for key, name in given.items()}}
    places = dict(document.places)
    for key, name in given.items():
        places.update({("packager", name, *loc[1:]): place for loc, place in document.places.items() if loc[:1] == (key,)})
        places.setdefault(("packager",), document.place((key,)))
    return Document(document.path, value, places)


def _no_option(key: str) -> str:
    near = difflib.get_close_matches(key, PACKAGER_OPTIONS, 1, 0.75)
    meant = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(f'`{name}`' for name in PACKAGER_OPTIONS)}"
    return f"{code(key)} is no option of the packager; {meant}"


def without_secrets(document: Document, secrets: Collection[str]) -> tuple[Document, tuple[Note, ...]]:
    """`env_vars` without entries such as `HF_TOKEN = "${oc.env:HF_TOKEN,''}"` for the policy's secrets: those reach the job in any case."""
    table = document.value.get("env_vars")
    if not isinstance(table, dict):
        return document, ()
    gone = [name for name, written in table.items() if name in secrets and _asks_for(written) == name]
    if not gone:
        return document, ()
    left = {name: written for name, written in table.items() if name not in gone}
    words = "is a secret of the policy: the job gets it from the runner, beside the profile"
    notes = tuple(Note(f"env_vars.{name}", words, document.place(("env_vars", name))) for name in gone)
    return Document(document.path, {**document.value, "env_vars": left}, document.places), notes


def without_blanks(document: Document, written: Document) -> Document:
    """Without texts that a variable left empty, and in env.toml without any empty text (`lustre_mount = ""`): nothing was given there."""

    def blank(value: Any, asked: Any, loc: Loc) -> bool:
        return value == "" and (document.place(loc).path.endswith(".toml") or (isinstance(asked, str) and "${" in asked))

    table = {key: value for key, value in document.value.items() if not blank(value, written.value[key], (key,))}
    if isinstance(table.get("wandb"), dict):
        asked = written.value["wandb"]
        table["wandb"] = {key: value for key, value in table["wandb"].items() if not blank(value, asked[key], ("wandb", key))}
    return Document(document.path, table, document.places)


def _asks_for(written: Any) -> str | None:
    """The variable, where a text is nothing but the question for it."""
    found = re.fullmatch(r"\$\{\s*oc\.env\s*:\s*([A-Za-z_]\w*)\s*(?:,[^{}]*)?\}", written) if isinstance(written, str) else None
    return found[1] if found else None


def ignored(section: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a section of env.toml that have no effect, with the words that say so."""
    return {key: words for key, words in IGNORED_FIELDS.items() if key in section and key not in _KNOWN}


def _without_ignored(document: Document, value: dict[str, Any]) -> tuple[Note, ...]:
    gone = ignored(value)
    for key in gone:
        del value[key]
    return tuple(Note(key, words, document.place((key,))) for key, words in gone.items())


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
