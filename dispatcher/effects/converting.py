"""`profile convert`: a checkout's profiles in one form → files in the other. What stands there already and is different stays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dispatcher.conversion import Converted, to_toml, to_yaml, unlike
from dispatcher.effects.writing import write_all
from dispatcher.errors import ConfigError, Exit, InputError
from dispatcher.profile import ENV_TOML
from dispatcher.untrusted import code, fence
from dispatcher.world import Outcome, outcome


@dataclass(frozen=True)
class Job:
    """What is asked for. `file` is env.toml (else the checkout's), `to` the other form (else whichever is not there)."""

    folder: Path
    env_file: str
    file: Path | None = None
    to: str | None = None
    out: Path | None = None
    check: bool = False


def convert(job: Job) -> Outcome:
    """Writes all files or none; with `check` none, and says what would become of it.

    Raises:
        ConfigError: a profile cannot be said in the other form.
        InputError: `input.missing`, `input.file-exists`, `input.not-written`.
    """
    to = job.to or ("yaml" if job.file is not None or (job.folder / job.env_file).exists() else "toml")
    converted, before, beside = _from_toml(job) if to == "yaml" else _from_yaml(job)
    lost = unlike(converted.names, before, {**converted.texts, **beside})
    if lost:
        names = ", ".join(code(name) for name in lost)
        step = "Look at what they extend: everything that belongs together has to be in the same form."
        raise ConfigError("config.invalid", f"In the other form these would not be the same: {names}. Nothing was written.", step)
    root = job.out or job.folder
    states = states_of(root, converted.texts, job.check)
    if not job.check:
        write_all(root, {path: text for path, text in converted.texts.items() if states[path] == "new"})
    return _told(converted, states, to, job.check)


def _from_toml(job: Job) -> tuple[Converted, Mapping[str, str], Mapping[str, str]]:
    """The conversion, what is resolved from before, and what stays beside it: files that sections extend."""
    file = job.file or job.folder / job.env_file
    if file.suffix != ".toml":
        raise InputError("input.missing", f"{file} is no .toml file.", "Name the file of profiles in Nemotron's format.")
    text = _read(file)
    shown = file.resolve().relative_to(job.folder).as_posix() if file.resolve().is_relative_to(job.folder) else file.name
    converted = to_yaml(text, shown)
    beside = {path: text for path, text in _profiles(job.folder).items() if path not in converted.texts}
    return converted, {shown: text, **beside}, beside


def _from_yaml(job: Job) -> tuple[Converted, Mapping[str, str], Mapping[str, str]]:
    if job.file is not None:
        raise InputError("input.missing", f"{job.file} was named with `--to toml`.", "Leave it out: all files in `profiles/` are taken.")
    sources = _profiles(job.folder)
    if not sources:
        raise InputError("input.missing", "There is no file `profiles/*.yaml`.", "Add one, or name env.toml with `--to yaml`.")
    there = job.folder / job.env_file
    beside = {job.env_file: _read(there)} if there.exists() else {}
    # What lies outside of the checkout is read, and not written.
    into = ENV_TOML if Path(job.env_file).is_absolute() else job.env_file
    return to_toml(sources, into), {**sources, **beside}, {}


def _profiles(folder: Path) -> dict[str, str]:
    return {f"profiles/{file.name}": _read(file) for file in sorted((folder / "profiles").glob("*.yaml"))}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError("input.missing", f"{file} cannot be read ({words}).", "Name another file.") from None


def states_of(root: Path, texts: Mapping[str, str], check: bool) -> dict[str, str]:
    """Each path: `new`, `same` or `different`. Raises `InputError` `input.file-exists` for a different one, unless that is only asked."""
    states = {path: _state(root / path, text) for path, text in texts.items()}
    different = [path for path, state in states.items() if state == "different"]
    if different and not check:
        words = f"There already, and different: {', '.join(code(path) for path in different)}. Nothing was written."
        raise InputError("input.file-exists", words, "Move them away, or name another folder with `--out`.")
    return states


def _state(file: Path, text: str) -> str:
    if not file.exists() and not file.is_symlink():
        return "new"
    return "same" if file.is_file() and file.read_bytes() == text.encode() else "different"


def _told(converted: Converted, states: Mapping[str, str], to: str, check: bool) -> Outcome:
    done = {"new": "would be written" if check else "written", "same": "is so already", "different": "is there already, and different"}
    lines = [f"  {'✗' if state == 'different' else '✓'} {path}: {done[state]}" for path, state in states.items()]
    lines += [f"  – {note.place}: {note.key} is left out: it {note.words}" for note in converted.left_out]
    lines += ["", *_next(to, len(converted.names))]
    bad = "different" in states.values()
    told = {
        "to": to,
        "profiles": converted.names,
        "files": states,
        "left_out": [{"key": note.key, "words": note.words, "place": str(note.place)} for note in converted.left_out],
    }
    result = json.dumps(told, ensure_ascii=False)
    return outcome("checked", "problems" if bad else "healthy", Exit.CONFIG if bad else Exit.OK, fence("\n".join(lines)), result=result)


def _next(to: str, count: int) -> Sequence[str]:
    same = f"{count} profile{'s' if count != 1 else ''}; each resolves as it did."
    win = "Files in profiles/ win over sections of the same name: "
    return [same, win + ("env.toml is no longer needed." if to == "yaml" else "they count until they are removed.")]
