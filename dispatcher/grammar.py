"""What a run can be asked for with: words, settings, overrides, sweeps, their shapes and limits, and what can be wrong with them.

Comments, labels, workflow inputs, schedules and terminals share it. A line becomes words in `words.py`, words become a run in `pairs.py`,
or another verb in `verbs.py`; `printing.py` writes them back. Imports nothing heavy.
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
# More runs than this no policy can allow (`most.runs`); it also bounds the work that one line can cause.
RUNS_LIMIT = 256
# The same for the commands of one comment (`most.commands`).
COMMANDS_LIMIT = 50

# What a word can set besides overrides; `ref` and `pr` would let a comment run something else than its own pull request.
SETTINGS = ("profile", "recipe", "sha", "dry-run", "fresh")
MANUAL_SETTINGS = (*SETTINGS, "ref", "pr")

NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.)){0,63}")
RECIPE_NAME = re.compile(rf"{NAME.pattern}(?:/{NAME.pattern}){{0,3}}")
KEY = re.compile(r"[A-Za-z_]\w*(?:\.[\w-]+|\[\d{1,6}\])*", re.ASCII)
# Printable for Python, and yet nothing is to be seen: fillers, joiners, blank Braille, variation selectors.
# https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
FULL_SHA = re.compile(r"[0-9a-f]{40}")
# https://git-scm.com/docs/git-check-ref-format; what looks like a SHA or a pull request's ref could name a fork's commit.
REF = re.compile(r"(?!refs/pull/|pull/|[0-9a-f]{7,64}$|[-/.])(?!.*(?:\.\.|//|@\{|\.lock(?:/|$)|/\.|[/.]$))[^\x00-\x20\x7f~^:?*\[\\]{1,255}")


@dataclass(frozen=True)
class Word:
    """One word of a command, its quotes taken off. `quoted`: its value (or all of it) stood in quotes, so a comma in it is a comma."""

    text: str
    quoted: bool = False

    @property
    def is_pair(self) -> bool:
        """Whether it is `key=value`."""
        return "=" in self.text

    @property
    def key(self) -> str:
        """What stands before the first `=`; the whole word when there is none."""
        return self.text.partition("=")[0]

    @property
    def value(self) -> str:
        """What stands behind the first `=`; empty when there is none."""
        return self.text.partition("=")[2]


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
    fresh: bool = False


@dataclass(frozen=True)
class Axis:
    """One thing that is varied: `profile`, `recipe` or an override's key, and its values (two or more, all different) as written."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """Several runs in one command: every combination of the axes' values, the last axis varying fastest.

    `run` is the first of them. The axes (one or more) stand in the order in which they were written, as `run.overrides` do.
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
    """The run with another profile or recipe, or another value of an override that it has."""
    if key == "profile":
        return replace(run, profile=value)
    if key == "recipe":
        return replace(run, recipe=value)
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
    "unknown-word": "A word is neither a known verb nor `key=value`, or the verb takes no such word.",
    "missing-word": "The verb needs something that is not given.",
    "bad-key": "A key is not a dotted name, or the verb has no such key.",
    "bad-value": "A value does not have the shape that is asked for here.",
    "bad-list": "A list of values (`key=a,b`) has an empty or repeated value, a quote or a space, or brackets that do not match.",
    "too-many-runs": f"The lists of values multiply to more than {RUNS_LIMIT} runs.",
    "too-many-commands": f"The comment has more than {COMMANDS_LIMIT} commands.",
    "duplicate-key": "A key is given twice.",
    "interpolation": "A value contains `${`, which OmegaConf would resolve.",
    "not-here": "The setting is not available in comments.",
    "conflict": "Two settings exclude each other.",
}


def canonical(key: str) -> str:
    """`run.env.nodes` is Nemotron's name for `run.nodes`: the profile is `run.env` there."""
    return re.sub(r"^run\.env\.", "run.", key)


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
    key = canonical(key)
    if key == "run" or key.startswith("run["):
        return Malformed("bad-key", f"{code(key)} is not a field of the profile.", "Name the field: `run.nodes=4`.")
    if "${" in value:
        return Malformed("interpolation", f"The value of {code(key)} contains `${{`.", "Write the value itself; nothing is resolved here.")
    return Override(key, value)


_SHAPES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "profile": (NAME, "a profile's name: letters, digits, `_`, `-` and `.`"),
    "recipe": (RECIPE_NAME, "a recipe's name: letters, digits, `_`, `-`, `.` and `/`"),
    "ref": (REF, "the name of a branch or a tag of this repository"),
    "pr": (re.compile(r"[1-9][0-9]{0,8}"), "a pull request's number"),
    "dry-run": (re.compile(r"true|false"), "`true` or `false`"),
    "fresh": (re.compile(r"true|false"), "`true` or `false`"),
}


def misshapen(setting: str, value: str) -> Malformed | None:
    """What is wrong with a setting's value; None when it has the shape that the setting asks for. A SHA may be in capitals."""
    if setting == "sha":
        if FULL_SHA.fullmatch(value.lower()):
            return None
        hint = "Give all 40 hex digits: a shorter one could be made to name another commit."
        return Malformed("bad-value", f"{code(value)} is not a full commit SHA.", hint)
    shape, words = _SHAPES[setting]
    if shape.fullmatch(value) and value.isprintable():
        return None
    return Malformed("bad-value", f"{code(value)} is not {words}.", f"Correct `{setting}=`.")


def hidden_in(text: str) -> Malformed | None:
    """Refuses what cannot be seen: it would make the line mean something else than what its reader approved."""
    if text.isascii() and text.isprintable():
        return None
    for position, ch in enumerate(text, 1):
        # An emoji may be followed by the selector of its coloured form.
        emoji = ch == "\ufe0f" and position > 1 and unicodedata.category(text[position - 2]) == "So"
        if not ch.isprintable() or (_BLANK.match(ch) and not emoji):
            name = unicodedata.name(ch, "a control character" if unicodedata.category(ch) == "Cc" else "no name")
            where = f"Character {position} is U+{ord(ch):04X} ({name}), which cannot be seen."
            return Malformed("hidden-character", where, "Type the line again instead of pasting it.")
    return None


def unknown_word(word: str, known: Sequence[str]) -> Malformed:
    """A word that is neither a verb nor `key=value`, with what was probably meant."""
    near = difflib.get_close_matches(word.lower(), known, 1, 0.6)
    if near:
        hint = f"Did you mean **`{near[0]}`**?"
    elif NAME.fullmatch(word):
        hint = f"For a profile: {code('profile=' + word)}."
    else:
        hint = "For example `profile=cluster train.iters=200`."
    return Malformed("unknown-word", f"{code(word)} is neither a verb nor `key=value`.", hint)
