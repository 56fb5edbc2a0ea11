"""Words → a run, an override, or what is wrong with them: the grammar that comments, labels, workflow inputs and schedules share.

Nothing here knows where the words came from. Imports nothing heavy.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dispatcher.untrusted import code

LINE_LIMIT = 2000
VALUE_LIMIT = 512
KEY_LIMIT = 256
OVERRIDES_LIMIT = 64

# What a word can set besides overrides; `ref` and `pr` would let a comment run something else than its own pull request.
SETTINGS = ("profile", "recipe", "sha", "dry-run")
MANUAL_SETTINGS = (*SETTINGS, "ref", "pr")

NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.)){0,63}")
RECIPE_NAME = re.compile(rf"{NAME.pattern}(?:/{NAME.pattern}){{0,3}}")
KEY = re.compile(r"[A-Za-z_]\w*(?:\.[\w-]+|\[\d{1,6}\])*", re.ASCII)
FULL_SHA = re.compile(r"[0-9a-f]{40}")
# https://git-scm.com/docs/git-check-ref-format; what looks like a SHA or a pull request's ref could name a fork's commit.
REF = re.compile(r"(?!refs/pull/|pull/|[0-9a-f]{7,64}$|[-/.])(?!.*(?:\.\.|//|@\{|\.lock(?:/|$)|/\.|[/.]$))[^\x00-\x20\x7f~^:?*\[\\]{1,255}")


@dataclass(frozen=True)
class Override:
    """One `key=value` beside the settings."""

    key: str
    value: str

    @property
    def target(self) -> Literal["profile", "script"]:
        """`run.nodes=4` changes a field of the profile; every other key is handed to the script as an argument."""
        return "profile" if self.key.startswith("run.") else "script"

    @property
    def field(self) -> str:
        """The profile's field that a `run.` override changes: the key without `run.`."""
        return self.key.removeprefix("run.")

    @property
    def word(self) -> str:
        """What the script gets: one argument."""
        return f"{self.key}={self.value}"


@dataclass(frozen=True)
class Run:
    """A job is asked for. What is None is the policy's default; `ref` and `pull` come from manual inputs only.

    `attempt` is no part of the grammar: it counts resubmissions of the same request.
    """

    profile: str | None = None
    recipe: str | None = None
    sha: str | None = None
    ref: str | None = None
    pull: int | None = None
    overrides: tuple[Override, ...] = ()
    dry_run: bool = False
    attempt: int = 1


@dataclass(frozen=True)
class Axis:
    """One thing that is varied: `profile`, or an override's key, and its values in the order in which they were written."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """Several runs in one command: every combination of the axes' values, the last axis varying fastest.

    `run` is the first of them; at least one axis has more than one value.
    """

    run: Run
    axes: tuple[Axis, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs, in order."""
        found = [self.run]
        for axis in self.axes:
            found = [_with(run, axis.key, value) for run in found for value in axis.values]
        return tuple(found)


def _with(run: Run, key: str, value: str) -> Run:
    """The run with another profile, or another value of an override that it has."""
    if key == "profile":
        return replace(run, profile=value)
    return replace(run, overrides=tuple(Override(key, value) if item.key == key else item for item in run.overrides))


@dataclass(frozen=True)
class Malformed:
    """Something is asked for that cannot be understood. `message` and `hint` are Markdown; what the user wrote is in code spans."""

    reason_code: str
    message: str
    hint: str


MALFORMED: Mapping[str, str] = {
    "too-long": f"The line has more than {LINE_LIMIT:,} characters, or one value more than {VALUE_LIMIT}.",
    "too-many-overrides": f"There are more than {OVERRIDES_LIMIT} overrides.",
    "hidden-character": "The line contains a character that cannot be seen (control, zero-width, bidirectional, unusual space).",
    "unbalanced-quote": "A quote is not closed, or something follows it without a space.",
    "unknown-word": "A word is neither a known verb nor `key=value`.",
    "bad-key": "A key is not a dotted name.",
    "bad-value": "A value does not have the shape that its key asks for.",
    "duplicate-key": "A key is given twice.",
    "interpolation": "A value contains `${`, which OmegaConf would resolve.",
    "not-here": "The setting is not available in comments.",
    "conflict": "Two settings exclude each other.",
}


def render(command: Run, word: str = "/train") -> str:
    """A run → the line that asks for it, canonically: `parse_line` (manual where `ref` or `pull` is set) gives the same run back."""
    settings = {"profile": command.profile, "recipe": command.recipe, "sha": command.sha, "ref": command.ref, "pr": command.pull}
    words = [f"{key}={_quoted(str(value))}" for key, value in settings.items() if value is not None]
    words += [f"{override.key}={_quoted(override.value)}" for override in command.overrides]
    return " ".join([word, *(["plan"] if command.dry_run else []), *words])


def parse_override(word: str) -> Override | Malformed:
    """One `key=value` (not quoted) → the override. Used for comments, manual inputs and the policy's schedules alike."""
    hidden = hidden_in(word)
    if hidden:
        return hidden
    key, equals, value = word.partition("=")
    if not equals:
        return unknown_word(word, ())
    if len(key) > KEY_LIMIT or len(value) > VALUE_LIMIT:
        return Malformed("too-long", f"{code(key, 60)} is too long.", f"A key has at most {KEY_LIMIT}, a value {VALUE_LIMIT} characters.")
    if not KEY.fullmatch(key):
        return Malformed(
            "bad-key", f"{code(key)} is not a key.", "A key is a dotted name such as `train.iters`; only `key=value` is known."
        )
    if key == "run" or key.startswith("run["):
        return Malformed("bad-key", f"{code(key)} is not a field of the profile.", "Name the field: `run.nodes=4`.")
    if "${" in value:
        return Malformed("interpolation", f"The value of {code(key)} contains `${{`.", "Write the value itself; nothing is resolved here.")
    return Override(key, value)


def run_of(words: Sequence[str], manual: bool) -> Run | Malformed:
    """`key=value` words → the run."""
    settings: dict[str, str] = {}
    overrides: dict[str, Override] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key in settings or key in overrides:
            return Malformed("duplicate-key", f"{code(key)} is given twice.", "Give it once.")
        if equals and key in MANUAL_SETTINGS:
            if key not in SETTINGS and not manual:
                hint = "A comment runs its own pull request; use the workflow's inputs for anything else."
                return Malformed("not-here", f"{code(key)} cannot be set in a comment.", hint)
            settings[key] = value
            continue
        misspelt = _misspelt(key) if equals else None
        if misspelt:
            return Malformed("bad-key", f"{code(key)} is not a setting.", f"Did you mean **`{misspelt}=`**?")
        override = parse_override(word)
        if isinstance(override, Malformed):
            return override
        overrides[key] = override
    if len(overrides) > OVERRIDES_LIMIT:
        return Malformed("too-many-overrides", f"There are {len(overrides)} overrides.", f"{OVERRIDES_LIMIT} are the limit.")
    return _settled(settings, tuple(overrides.values()))


def _settled(settings: Mapping[str, str], overrides: tuple[Override, ...]) -> Run | Malformed:
    """Settings by name → the run, each value in the shape that its name asks for."""
    sha = settings["sha"].lower() if "sha" in settings else None
    checks = {
        "profile": (NAME, "a profile's name: letters, digits, `_`, `-` and `.`"),
        "recipe": (RECIPE_NAME, "a recipe's name: letters, digits, `_`, `-`, `.` and `/`"),
        "ref": (REF, "the name of a branch or a tag of this repository"),
        "pr": (re.compile(r"[1-9][0-9]{0,8}"), "a pull request's number"),
        "dry-run": (re.compile(r"true|false"), "`true` or `false`"),
    }
    for name, (shape, words) in checks.items():
        if name in settings and not (shape.fullmatch(settings[name]) and settings[name].isprintable()):
            return Malformed("bad-value", f"{code(settings[name])} is not {words}.", f"Correct `{name}=`.")
    if sha is not None and not FULL_SHA.fullmatch(sha):
        hint = "Give all 40 hex digits: a shorter one could be made to name another commit."
        return Malformed("bad-value", f"{code(settings['sha'])} is not a full commit SHA.", hint)
    if "ref" in settings and "pr" in settings:
        return Malformed("conflict", "`ref` and `pr` are both given.", "Give the one that should run.")
    pull = int(settings["pr"]) if "pr" in settings else None
    dry_run = settings.get("dry-run") == "true"
    return Run(settings.get("profile"), settings.get("recipe"), sha, settings.get("ref"), pull, overrides, dry_run)


def split_words(line: str) -> list[str] | Malformed:
    """A line of printing characters → words. A quote counts only where a word's value begins; elsewhere it is a character."""
    words = []
    rest = line.strip(" \t")
    while rest:
        found = re.match(r"([^\s=]*=)?([\"'])", rest)
        if not found:
            word, _, rest = rest.replace("\t", " ").partition(" ")
            if word.partition("=")[2][:1] in ("“", "”", "„", "‘", "’", "«"):
                return Malformed("unbalanced-quote", f"{code(word)} begins with a typographic quote.", "Use straight quotes, `\"` or `'`.")
        else:
            quote = found[2]
            body = re.match(r"((?:[^\"\\]|\\[\"\\]|\\(?![\"\\]))*)\"" if quote == '"' else r"([^']*)'", rest[found.end() :])
            after = rest[found.end() + body.end() :] if body else ""
            if not body or after[:1] not in ("", " ", "\t"):
                hint = "Close it with the same quote, and put a space behind."
                return Malformed("unbalanced-quote", f"The quote that begins at {code(rest[found.start(2) :], 40)} does not end.", hint)
            inside = re.sub(r"\\([\"\\])", r"\1", body[1]) if quote == '"' else body[1]
            word, rest = (found[1] or "") + inside, after
        words.append(word)
        rest = rest.lstrip(" \t")
    return words


def _quoted(value: str) -> str:
    """A value → how it is written: as it is when that reads back the same, else in double quotes."""
    if value and not re.search(r"\s", value) and value[0] not in "\"'“”„‘’«":
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def hidden_in(text: str) -> Malformed | None:
    """Refuses what cannot be seen: it would make the line mean something else than what its reader approved."""
    for position, ch in enumerate(text, 1):
        if not ch.isprintable():
            name = unicodedata.name(ch, "a control character" if unicodedata.category(ch) == "Cc" else "no name")
            where = f"Character {position} is U+{ord(ch):04X} ({name}), which cannot be seen."
            return Malformed("hidden-character", where, "Type the line again instead of pasting it.")
    return None


def _misspelt(key: str) -> str | None:
    """A setting that `key` seems to mean; longer words such as `profiler` or `recipes` are left to the script."""
    flat = key.lower().replace("_", "-")
    if flat in SETTINGS:
        return flat
    near = difflib.get_close_matches(flat, [name for name in SETTINGS if len(name) >= max(len(flat), 5)], 1, 0.8)
    return near[0] if near else None


def unknown_word(word: str, known: Sequence[str]) -> Malformed:
    """A word that is neither a verb nor `key=value`, with what was probably meant."""
    near = difflib.get_close_matches(word.lower(), known, 1, 0.6)
    if near:
        hint = f"Did you mean **`{near[0]}`**?"
    elif NAME.fullmatch(word):
        hint = f"Everything but a verb is `key=value`. For a profile: {code('profile=' + word)}."
    else:
        hint = "Everything but a verb is `key=value`, for example `profile=cluster train.iters=200`."
    return Malformed("unknown-word", f"{code(word)} is not understood.", hint)


def as_preview(run: Run) -> Run:
    """The same, to be shown and not submitted."""
    return Run(run.profile, run.recipe, run.sha, run.ref, run.pull, run.overrides, True, run.attempt)
