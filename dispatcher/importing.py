"""The executors of a NeMo-Run program → profiles: `profiles/NAME.yaml` with a comment for each thing that could not be taken over.

Fields and defaults are NeMo-Run 0.11.1's (https://github.com/NVIDIA-NeMo/Run/tree/v0.11.1/nemo_run/core/execution).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dispatcher.errors import ConfigError
from dispatcher.grammar import NAME
from dispatcher.pyexecutors import Found, UnreadableError, executors_in, uniquely
from dispatcher.pyfields import Left, Writing, cleaned, one_line, write_field
from dispatcher.pyvalues import CLASSES, Made, Open
from dispatcher.registry import EXECUTORS
from dispatcher.sheet import Sheet, yaml_text
from dispatcher.slurmprofile import HetGroup
from dispatcher.untrusted import code

_ASKED = re.compile(r"(?<!\\)\$\{oc\.env:([A-Za-z_][A-Za-z0-9_]*)")
# NeMo-Run's own, where ours is another.
_DEFAULT_TIME = "00:10:00"
_COMPONENT = tuple(name for name in HetGroup.model_fields if name != "args")


@dataclass(frozen=True)
class Imported:
    """One profile: its name, its text, what is not in it, and the variables that it asks the runner for."""

    name: str
    text: str
    line: int
    left: tuple[Left, ...]
    asks_for: tuple[str, ...]

    @property
    def path(self) -> str:
        """Where it belongs in a repository."""
        return f"profiles/{self.name}.yaml"


def imported(text: str, path: str, only: str | None = None, called: str | None = None) -> tuple[Imported, ...]:
    """A Python file's text → a profile for each executor in it, or for the variable or function `only`, which may be `called` otherwise.

    Raises:
        ConfigError: `config.syntax` for a text that is no Python, `config.invalid` when there is no such executor.
    """
    if called is not None and not NAME.fullmatch(called):
        raise ConfigError("config.invalid", f"{code(called)} cannot be a profile's name.", "Use letters, digits, `-`, `_` and `.`.")
    try:
        found = executors_in(text)
    except UnreadableError as error:
        raise ConfigError("config.syntax", f"`{path}:{error.line}`: it is no Python: {error.words}.") from None
    named = [one for one in found if only is None or one.name == only]
    if not named:
        raise ConfigError("config.invalid", *_none_found(path, only, [one.name for one in found]))
    if called is not None and len(named) > 1:
        words = f"`{path}` makes {len(named)} executors: {', '.join(f'`{one.name}`' for one in named)}."
        raise ConfigError("config.invalid", words, f"Say which is to be `{called}`: `{path}:{named[0].name}`.")
    names = uniquely([called or _as_name(one.name) for one in named])
    return tuple(_profile(one, path, name) for one, name in zip(named, names, strict=True))


def _none_found(path: str, only: str | None, names: Sequence[str]) -> tuple[str, str]:
    if only is None or not names:
        known = ", ".join(f"`{name}`" for name, executor in CLASSES.items() if executor is not None)
        return f"`{path}` makes no executor of NeMo-Run's.", f"Looked for are calls of {known}."
    near = difflib.get_close_matches(only, names, 1, 0.6)
    meant = f" Did you mean `{near[0]}`?" if near else ""
    return f"`{path}` makes no executor `{only}`.{meant}", f"There are: {', '.join(f'`{name}`' for name in names)}."


def _as_name(name: str) -> str:
    """A variable's name as a profile's."""
    name = name.strip("_").replace("_", "-").lower()
    return name if NAME.fullmatch(name) else "imported"


# --------------------------------------------------------------------------- one profile


def _profile(found: Found, path: str, name: str) -> Imported:
    first = found.parts[0]
    executor = CLASSES[first.kind] or ""
    writing = Writing()
    writing.add("executor", executor)
    if executor not in EXECUTORS:
        writing.leave(first.line, "", f"`{first.kind}` is not among the executors here")
    fields = dict(first.fields)
    if len(found.parts) > 1:
        fields = {
            key: value for key, value in fields.items() if key not in _COMPONENT and key not in ("heterogeneous", "het_group_indices")
        }
    for key, value in fields.items():
        write_field(writing, first, executor, key, value)
    if executor == "slurm":
        _defaults_of_slurm(writing, first)
    if len(found.parts) > 1:
        writing.add("het_groups", [_component(writing, part) for part in found.parts])
    for part in found.parts:
        for rest in part.rest:
            writing.leave(rest.line, "", rest.words)
    head = (one_line(f"From {path}, line {first.line}: {first.kind}"),)
    text = yaml_text(Sheet(name, head, tuple(writing.entries), tuple(writing.waiting)))
    asks_for = tuple(dict.fromkeys(_ASKED.findall(text)))
    return Imported(name, text, first.line, tuple(writing.left), asks_for)


def _defaults_of_slurm(writing: Writing, made: Made) -> None:
    """What the executor has when nothing is said."""
    if "tunnel" not in made.fields:
        writing.add("tunnel", "local", (), "NeMo-Run's own default: the machine itself has sbatch")
    if "time" not in made.fields:
        writing.add("time", _DEFAULT_TIME, (), "NeMo-Run's own default")


def _component(writing: Writing, part: Made) -> dict[str, Any]:
    """What a component of a heterogeneous job has of its own."""
    component: dict[str, Any] = {}
    for name in _COMPONENT:
        value = part.fields.get(name)
        if isinstance(value, Open):
            writing.leave(part.lines[name], f"het_groups.{name}", value.words)
        elif value is not None:
            component[name] = cleaned(writing, name, value, part.line)
    return component
