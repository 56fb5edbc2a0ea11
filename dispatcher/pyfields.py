"""A field of an executor in NeMo-Run's words, from `pyexecutors.py` → the entries of a profile, and comments for what is not taken over.

Fields and their meaning are NeMo-Run 0.11.1's (https://github.com/NVIDIA-NeMo/Run/tree/v0.11.1/nemo_run/core/execution).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatcher.counterparts import ALIASES, REFUSED
from dispatcher.launcher import FaultTolerance, SlurmRay
from dispatcher.packager import Packager, SubPackager
from dispatcher.policy import names_a_secret
from dispatcher.pyvalues import Caveat, Made, Open, WorkingFolder
from dispatcher.registry import EXECUTORS
from dispatcher.sheet import Entry

# Numbers in Python, texts in a profile.
_TEXTS = frozenset({"mem", "mem_per_cpu", "mem_per_gpu", "gres", "constraint", "array", "time", "signal", "network", "qos"})
# Fields that have another name here; only where the executor has that one, and not the other.
_RENAMED: Mapping[str, str] = {
    **ALIASES,
    "num_nodes": "nodes",
    "num_gpus": "gpus_per_node",
    "nprocs_per_node": "nproc_per_node",
    "image": "container_image",
    "volumes": "mounts",
}
_IN_THE_POLICY = "it sounds like a secret: list its name under `secrets:` in `.github/dispatch.yml`"
_NO_COUNTERPART = "it has no counterpart here"


def one_line(words: str) -> str:
    """Text that ends no comment."""
    return "".join(character if character.isprintable() else " " for character in words)


@dataclass(frozen=True)
class Left:
    """Something that is not in the profile: where it stood, what it was, why."""

    line: int
    field: str
    words: str

    @property
    def told(self) -> str:
        """On one line, as a comment can hold it: names and words may quote whatever stands in the program."""
        return one_line(f"line {self.line}: {self.field}: {self.words}" if self.field else f"line {self.line}: {self.words}")


@dataclass
class Writing:
    """The entries so far, what was left, and the comments that go before the next entry."""

    entries: list[Entry] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    def add(self, key: str, value: Any, caveats: Sequence[Caveat] = (), words: str = "") -> None:
        """One key; comments go behind it."""
        told = [one_line(f"line {caveat.line}: {caveat.words}") for caveat in caveats]
        self.left += [Left(caveat.line, key, caveat.words) for caveat in caveats if "default of the parameter" not in caveat.words]
        self.entries.append(Entry(key, value, tuple(self.waiting), "; ".join(dict.fromkeys([*told, *([words] if words else [])]))))
        self.waiting = []

    def leave(self, line: int, name: str, words: str) -> None:
        """Something that is not taken over."""
        secret = names_a_secret(name.rpartition(".")[2])
        left = Left(line, name, _IN_THE_POLICY if secret else words)  # the words may quote what stands there
        if left not in self.left:
            self.left.append(left)
            self.waiting.append(left.told)


def write_field(writing: Writing, made: Made, executor: str, key: str, value: Any) -> None:
    """One field of the constructor, in NeMo-Run's words."""
    line, caveats = made.lines.get(key, made.line), made.caveats.get(key, ())
    if isinstance(value, Open):
        writing.leave(line, key, value.words)
    elif value is None:
        return
    elif key in _SPECIAL:
        _SPECIAL[key](writing, key, value, line, caveats)
    elif executor == "local" and key == "ntasks_per_node":
        writing.add("nproc_per_node", value, caveats)
    elif executor == "slurm" and key in REFUSED:
        writing.leave(line, key, REFUSED[key])
    elif key == "num_gpus" and value == -1:
        writing.leave(line, key, "write how many there are, as `gpus_per_node`")
    elif not _is_known(executor, key):
        writing.leave(line, key, _unknown(executor, made.kind, key))
    elif isinstance(value, Made | WorkingFolder):
        writing.leave(line, key, _NO_COUNTERPART)
    else:
        name = _own_name(executor, key)
        writing.add(name, str(value) if name in _TEXTS and not isinstance(value, str) else cleaned(writing, key, value, line), caveats)


def _own_name(executor: str, key: str) -> str:
    """The field's name here; it stays as it is where the executor has a field of that name."""
    model = EXECUTORS.get(executor)
    return key if model is not None and key in model.model_fields else _RENAMED.get(key, key)


def _is_known(executor: str, key: str) -> bool:
    model = EXECUTORS.get(executor)
    return model is None or _own_name(executor, key) in model.model_fields


def _unknown(executor: str, kind: str, key: str) -> str:
    known = [*EXECUTORS[executor].model_fields, *_RENAMED, *_SPECIAL]
    near = difflib.get_close_matches(key, known, 1, 0.75)
    return f"a profile has no such field{f'; did you mean `{near[0]}`?' if near else ''}"


def cleaned(writing: Writing, key: str, value: Any, line: int) -> Any:
    """A list or a table without what is open in it."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, Open):
                writing.leave(item.line, key, item.words)
        return [cleaned(writing, key, item, line) for item in value if not isinstance(item, Open | Made | WorkingFolder)]
    if isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, Open):
                writing.leave(item.line, f"{key}.{name}", item.words)
        kept = {name: item for name, item in value.items() if not isinstance(item, Open | Made | WorkingFolder)}
        return {name: cleaned(writing, key, item, line) for name, item in kept.items()}
    return value


# --------------------------------------------------------------------------- fields that are written otherwise


def _tunnel(writing: Writing, key: str, value: Any, line: int, caveats: Sequence[Caveat]) -> None:
    names = {"host": "host", "user": "user", "port": "port", "job_dir": "remote_job_dir"}
    if not isinstance(value, Made) or value.kind not in ("SSHTunnel", "LocalTunnel"):
        writing.leave(line, key, _NO_COUNTERPART)
        return
    writing.add("tunnel", "ssh" if value.kind == "SSHTunnel" else "local", caveats)
    for name, item in value.fields.items():
        at = value.lines.get(name, line)
        if isinstance(item, Open):
            writing.leave(at, names.get(name, name), item.words)
        elif name in names and item not in (None, ""):
            writing.add(names[name], item, value.caveats.get(name, ()))
        elif name not in names and item is not None:
            near = difflib.get_close_matches(name, names, 1, 0.75)
            words = REFUSED.get(name, f"{_NO_COUNTERPART}{f'; did you mean `{near[0]}`?' if near else ''}")
            writing.leave(at, f"tunnel.{name}", words)


_PACKAGERS = {"GitArchivePackager": "git", "PatternPackager": "pattern", "HybridPackager": "hybrid", "Packager": "none"}


def _packager(writing: Writing, key: str, value: Any, line: int, caveats: Sequence[Caveat]) -> None:
    if not isinstance(value, Made) or value.kind not in _PACKAGERS:
        writing.leave(line, key, _NO_COUNTERPART)
        return
    table = _packager_table(writing, value, key)
    writing.add("packager", table["type"] if len(table) == 1 else table, caveats)


def _packager_table(writing: Writing, made: Made, key: str) -> dict[str, Any]:
    """A packager with its options; paths that lead to the folder where the program starts are the repository's root."""
    table: dict[str, Any] = {"type": _PACKAGERS[made.kind]}
    known = Packager.model_fields if made.kind == "HybridPackager" else SubPackager.model_fields
    for name, value in made.fields.items():
        line, where = made.lines.get(name, made.line), f"{key}.{name}"
        if name == "sub_packagers" and isinstance(value, dict):
            parts = {
                part: one for part, one in value.items() if isinstance(one, Made) and one.kind in ("GitArchivePackager", "PatternPackager")
            }
            table[name] = {part: _packager_table(writing, one, f"{where}.{part}") for part, one in parts.items()}
            for part in value.keys() - parts.keys():
                writing.leave(line, f"{where}.{part}", _NO_COUNTERPART)
        elif isinstance(value, Open):
            writing.leave(line, where, value.words)
        elif isinstance(value, WorkingFolder) or value in (None, ""):
            continue
        elif name == "ref":
            if value != "HEAD":
                writing.leave(line, where, "what runs is the commit that was asked for")
        elif name not in known:
            writing.leave(line, where, _NO_COUNTERPART)
        else:
            table[name] = cleaned(writing, where, value, line)
    return table


def _launcher(writing: Writing, key: str, value: Any, line: int, caveats: Sequence[Caveat]) -> None:
    kinds = {"Torchrun": "torchrun", "FaultTolerance": "ft", "SlurmRay": "slurm_ray"}
    name = kinds.get(value.kind) if isinstance(value, Made) else value if isinstance(value, str) else None
    if name is None:
        writing.leave(line, key, _NO_COUNTERPART)
    elif name != "default":
        options = _options(writing, name, value) if isinstance(value, Made) else ""
        writing.leave(line, key, f"it is the recipe's: write `launcher: {name}`{options} in `.github/dispatch.yml`")


def _options(writing: Writing, name: str, launcher: Made) -> str:
    """A launcher's options as the recipe has them, in a table of the launcher's name."""
    known = {"ft": set(FaultTolerance.model_fields), "slurm_ray": set(SlurmRay.model_fields)}.get(name, set())
    kept: list[str] = []
    for option, value in launcher.fields.items():
        if isinstance(value, Open):
            writing.leave(value.line, f"launcher.{option}", value.words)
        elif option in known and isinstance(value, int | float | str):
            kept.append(f"{option}: {value}")
        else:
            writing.leave(launcher.lines[option], f"launcher.{option}", _NO_COUNTERPART)
    return f" and `{name}: {{{', '.join(kept)}}}`" if kept else ""


def _env_vars(writing: Writing, key: str, value: Any, line: int, caveats: Sequence[Caveat]) -> None:
    """Names in capitals, as NeMo-Run exports them; what sounds like a secret stays out of the file."""
    if not isinstance(value, dict):
        writing.leave(line, key, _NO_COUNTERPART)
        return
    table: dict[str, str] = {}
    for name, item in value.items():
        if isinstance(item, Open):
            writing.leave(item.line, f"{key}.{name}", item.words)
        elif names_a_secret(name):
            writing.leave(line, f"{key}.{name}", _IN_THE_POLICY)
        elif isinstance(item, str | int | float):
            table[name.upper()] = str(item)
        else:
            writing.leave(line, f"{key}.{name}", "it is no text")
    if table:
        writing.add("env_vars", tuple(Entry(name, item) for name, item in table.items()), caveats)


def _setup_lines(writing: Writing, key: str, value: Any, line: int, caveats: Sequence[Caveat]) -> None:
    lines = [part for part in value.splitlines() if part.strip()] if isinstance(value, str) else None
    if lines is None:
        writing.leave(line, key, _NO_COUNTERPART)
    elif lines:
        writing.add("setup_lines", lines, caveats)


def _dependencies(writing: Writing, key: str, value: Any, line: int, caveats: Sequence[Caveat]) -> None:
    """Handles of jobs, whose last part is Slurm's id."""
    ids = [str(item).rpartition("/")[2] for item in cleaned(writing, key, value, line)] if isinstance(value, list) else []
    numbers = [one for one in ids if re.fullmatch(r"[0-9]+(?:[_+][0-9]+)?", one)]
    if len(numbers) < len(ids):
        writing.leave(line, key, "only ids of Slurm jobs can stand in a profile; runs wait for each other as the recipe says")
    if numbers:
        writing.add("dependencies", numbers, caveats)


def _mounts(writing: Writing, key: str, value: Any, line: int, caveats: Sequence[Caveat]) -> None:
    mounts = cleaned(writing, key, value, line) if isinstance(value, list) else []
    if not isinstance(value, list):
        writing.leave(line, key, _NO_COUNTERPART)
    for mount in mounts:
        if str(mount).startswith("/$nemo_run"):
            writing.leave(line, key, f"`{mount}`: the run's folder is mounted at `/nemo_run` in any case")
    mounts = [mount for mount in mounts if not str(mount).startswith("/$nemo_run")]
    if mounts:
        writing.add("mounts", mounts, caveats)
    elif caveats:
        for caveat in caveats:
            writing.leave(caveat.line, "mounts", caveat.words)


def _parameters(writing: Writing, key: str, value: Any, line: int, caveats: Sequence[Caveat]) -> None:
    """More options of sbatch, as texts; an option without a value is `true`."""
    given = cleaned(writing, key, value, line) if isinstance(value, dict) else {}
    if given:
        writing.add(key, {name: True if item is True else str(item) for name, item in given.items()}, caveats)


_SPECIAL: Mapping[str, Callable[[Writing, str, Any, int, Sequence[Caveat]], None]] = {
    "tunnel": _tunnel,
    "packager": _packager,
    "launcher": _launcher,
    "env_vars": _env_vars,
    "setup_lines": _setup_lines,
    "dependencies": _dependencies,
    "container_mounts": _mounts,
    "additional_parameters": _parameters,
}
