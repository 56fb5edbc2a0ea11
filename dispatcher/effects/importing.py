"""`profile import`: a NeMo-Run program on this machine → files in `profiles/`. It is read, and neither executed nor imported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dispatcher.effects.converting import states_of
from dispatcher.effects.writing import write_all
from dispatcher.errors import ConfigError, Exit, InputError
from dispatcher.importing import Imported, imported
from dispatcher.profile import resolve_profile
from dispatcher.untrusted import code, fence
from dispatcher.world import Outcome, outcome

_LARGEST = 1_000_000


@dataclass(frozen=True)
class Job:
    """What is asked for: `FILE.py` or `FILE.py:NAME`, what the profile is to be called, and where it is written."""

    folder: Path
    source: str
    called: str | None = None
    out: Path | None = None
    check: bool = False


def import_profiles(job: Job, environment: Mapping[str, str]) -> Outcome:
    """Writes all profiles or none; with `check` none, and shows them.

    Raises:
        ConfigError: the file is no Python, or makes no executor.
        InputError: `input.missing`, `input.file-exists`, `input.not-written`.
    """
    file, _, only = job.source.partition(".py:")
    path = Path(f"{file}.py" if only or job.source.endswith(".py:") else file)
    profiles = imported(_read(path), path.name, only or None, job.called)
    root = job.out or job.folder
    texts = {one.path: one.text for one in profiles}
    states = states_of(root, texts, job.check)
    if not job.check:
        write_all(root, {name: text for name, text in texts.items() if states[name] == "new"})
    problems = {one.name: _problem(one, environment) for one in profiles}
    return _told(profiles, states, problems, job.check)


def _read(path: Path) -> str:
    if path.suffix != ".py":
        raise InputError("input.missing", f"{path} is no Python file.", "Name one, as `FILE.py` or `FILE.py:NAME`.")
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError("input.missing", f"{path} has more than {_LARGEST:,} bytes.", "Name the file that makes the executor.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError("input.missing", f"{path} cannot be read ({words}).", "Name another file.") from None


def _problem(one: Imported, environment: Mapping[str, str]) -> str:
    """Why the profile cannot be used as it is; empty when it can."""
    given = {**dict.fromkeys(one.asks_for, "unset"), **environment}
    try:
        resolve_profile(one.name, {one.path: one.text}, one.asks_for, given)
    except ConfigError as error:
        return error.cause
    return ""


def _told(profiles: Sequence[Imported], states: Mapping[str, str], problems: Mapping[str, str], check: bool) -> Outcome:
    done = {"new": "would be written" if check else "written", "same": "is so already", "different": "is there already, and different"}
    lines: list[str] = []
    for one in profiles:
        lines.append(f"  {'✗' if states[one.path] == 'different' else '✓'} {one.path}: {done[states[one.path]]}")
        lines += [f"  – {left.told}" for left in one.left]
        lines += [f"  – it asks the runner for {code(name)}: list it under `env:` in `.github/dispatch.yml`" for name in one.asks_for]
        lines += [f"  ✗ it cannot be used yet: {problems[one.name]}"] if problems[one.name] else []
        lines += ["", *(f"    {line}" for line in one.text.splitlines())] if check else []
        lines.append("")
    bad = any(problems.values()) or "different" in states.values()
    lines.append("Look at each with `nemotron-dispatch profile show NAME`. What runs is the recipe's, in `.github/dispatch.yml`.")
    told = {
        "files": dict(states),
        "left_out": [
            {"profile": one.name, "line": left.line, "field": left.field, "words": left.words} for one in profiles for left in one.left
        ],
        "problems": {name: words for name, words in problems.items() if words},
        "asks_for": {one.name: one.asks_for for one in profiles if one.asks_for},
    }
    result = json.dumps(told, ensure_ascii=False)
    exit = Exit.CONFIG if bad and check else Exit.OK
    return outcome("checked", "problems" if bad else "healthy", exit, fence("\n".join(lines)), result=result)
