"""The words after the command word → one command, every word checked against a strict grammar.

What the verbs are for, in words for people, stands in `verb_help.py`. Imports nothing heavy.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dispatcher.grammar import LINE_LIMIT, Malformed, Run, Sweep, Word, hidden_in, misshapen, unknown_word
from dispatcher.pairs import as_preview, in_our_words, run_of
from dispatcher.untrusted import code
from dispatcher.verb_help import LOG_LINES, LOG_LINES_LIMIT, REASON_LENGTH, TOPICS, VERBS, VerbHelp
from dispatcher.words import shell_word, split_words

__all__ = [
    "GATE",
    "RUN_KEY",
    "VERBS",
    "AcceptBaseline",
    "Approve",
    "Cancel",
    "Help",
    "Logs",
    "Retry",
    "Status",
    "Verb",
    "VerbHelp",
    "Waive",
    "parse_line",
    "parse_words",
]

RUN_KEY = re.compile(r"[0-9a-f]{4,16}")
TASK = re.compile(r"0|[1-9][0-9]{0,9}")
GATE = re.compile(r"[a-z0-9/_.-]{1,64}")


@dataclass(frozen=True)
class Status:
    """Say how the pull request's runs stand."""


@dataclass(frozen=True)
class Help:
    """Explain: `topic` is empty, a verb, `profiles` or `recipes`."""

    topic: str = ""


@dataclass(frozen=True)
class Logs:
    """Show the end of a run's log: `run` is the beginning of its run key (4 to 16 hex digits), None for the newest run.

    `task` is a task of an array or a component of a heterogeneous job; None for the log that says most.
    """

    run: str | None = None
    lines: int = LOG_LINES
    task: int | None = None


@dataclass(frozen=True)
class Cancel:
    """End runs: one by the beginning of its run key, those of a profile, all; with none of the three the only active one."""

    run: str | None = None
    profile: str | None = None
    all: bool = False


@dataclass(frozen=True)
class Retry:
    """Run again what failed (one by its key, or every failed one); `all` also what did not fail. What runs is the head as it is now."""

    run: str | None = None
    all: bool = False


@dataclass(frozen=True)
class Approve:
    """Somebody with the right vouches for exactly this commit (40 hex digits): what was asked for it and waits then runs."""

    sha: str


@dataclass(frozen=True)
class Waive:
    """`override <gate> reason="…"`: a recorded, visible, expiring exception from a gate for the head as it is now."""

    gate: str
    reason: str


@dataclass(frozen=True)
class AcceptBaseline:
    """`baseline accept [run] [reason="…"]`: this run's results become what later ones are compared with."""

    run: str | None = None
    reason: str = ""


Verb = Run | Sweep | Status | Help | Logs | Cancel | Retry | Approve | Waive | AcceptBaseline


def parse_line(line: str, manual: bool = False) -> Verb | Malformed:
    """What follows the command word → the command. `manual` also takes `ref=` and `pr=` (workflow inputs, a terminal)."""
    if len(line) > LINE_LIMIT:
        return Malformed("too-long", f"The line has {len(line):,} characters; {LINE_LIMIT:,} are the limit.", "Use fewer words.")
    hidden = hidden_in(line.replace("\t", " "))
    if hidden:
        return hidden
    words = split_words(line)
    return words if isinstance(words, Malformed) else _verb_of(words, manual)


def parse_words(words: Sequence[str], manual: bool = False) -> Verb | Malformed:
    """Words that a shell has split and unquoted already → the command. A comma that is meant stands in quotes inside: `note="a,b"`."""
    found: list[Word] = []
    for text in words:
        word = hidden_in(text) or shell_word(text)
        if isinstance(word, Malformed):
            return word
        found.append(word)
    return _verb_of(found, manual)


def _verb_of(given: Sequence[Word], manual: bool) -> Verb | Malformed:
    words = in_our_words(given)
    if not words or words[0].is_pair:
        late = next((word.text for word in words if word.text in VERBS), None)
        if late:
            return Malformed("unknown-word", f"{code(late)} stands behind other words.", f"A verb comes first: **`{late} …`**.")
        return run_of(words, manual)
    verb, rest = words[0].text, words[1:]
    if verb in ("run", "plan"):
        asked = run_of(rest, manual)
        return asked if isinstance(asked, Malformed) or verb == "run" else as_preview(asked)
    if verb not in _READERS:
        return unknown_word(verb, tuple(VERBS))
    bare, keys, build = _READERS[verb]
    taken = _taken(verb, rest, bare, keys)
    return taken if isinstance(taken, Malformed) else build(taken)


# --------------------------------------------------------------------------- verbs other than run and plan


@dataclass(frozen=True)
class _Taken:
    """A verb's words in their two kinds: those without `=` in order, and values by key."""

    bare: tuple[str, ...]
    given: Mapping[str, str]


def _taken(verb: str, words: Sequence[Word], bare: int, keys: Sequence[str]) -> _Taken | Malformed:
    """The words in their kinds: at most so many without `=`, and no other keys than these."""
    names = [word.text for word in words if not word.is_pair]
    given: dict[str, str] = {}
    for word in (word for word in words if word.is_pair):
        if word.key in given:
            return Malformed("duplicate-key", f"{code(word.key)} is given twice.", "Give it once.")
        if word.key not in keys:
            near = difflib.get_close_matches(word.key.lower(), keys, 1, 0.6)
            hint = f"Did you mean **`{near[0]}=`**?" if near else _usage(verb)
            return Malformed("bad-key", f"{code(verb)} has no {code(word.key)}.", hint)
        given[word.key] = word.value
    if len(names) > bare:
        split = f" A {keys[0]} of several words stands in quotes." if given and verb == "override" else ""
        return Malformed("unknown-word", f"{code(verb)} cannot be followed by {code(' '.join(names))}.", _usage(verb) + split)
    return _Taken(tuple(names), given)


def _usage(verb: str) -> str:
    return f"Write `{VERBS[verb].usage}`."


def _run_key(verb: str, text: str, others: Sequence[str] = ()) -> str | Malformed:
    """A run key's beginning, or one of the other words that may stand in its place."""
    if text in others or RUN_KEY.fullmatch(text.lower()):
        return text.lower()
    near = difflib.get_close_matches(text.lower(), others, 1, 0.6)
    hint = f"Did you mean **`{near[0]}`**?" if near else f"It takes the run key's first 4 to 16 hex digits. {_usage(verb)}"
    return Malformed("bad-value", f"{code(text)} is not a run key.", hint)


def _status(taken: _Taken) -> Verb | Malformed:
    return Status()


def _help(taken: _Taken) -> Verb | Malformed:
    topic = taken.bare[0] if taken.bare else ""
    if not topic or topic in TOPICS:
        return Help(topic)
    near = difflib.get_close_matches(topic.lower(), TOPICS, 1, 0.6)
    hint = f"Did you mean **`help {near[0]}`**?" if near else f"There is help about {', '.join(f'`{name}`' for name in TOPICS)}."
    return Malformed("unknown-word", f"{code(topic)} is not something to be explained.", hint)


def _logs(taken: _Taken) -> Verb | Malformed:
    run = _run_key("logs", taken.bare[0]) if taken.bare else None
    if isinstance(run, Malformed):
        return run
    lines = taken.given.get("lines", str(LOG_LINES))
    if not re.fullmatch(r"[1-9][0-9]{0,3}", lines) or int(lines) > LOG_LINES_LIMIT:
        return Malformed("bad-value", f"{code(lines)} is not a number of lines.", f"`lines=` takes 1 to {LOG_LINES_LIMIT}.")
    task = taken.given.get("task")
    if task is not None and not TASK.fullmatch(task):
        return Malformed("bad-value", f"{code(task)} is not a task's number.", "`task=` takes a whole number of at most 10 digits.")
    return Logs(run, int(lines), None if task is None else int(task))


def _cancel(taken: _Taken) -> Verb | Malformed:
    profile = taken.given.get("profile")
    if profile is not None and taken.bare:
        return Malformed("conflict", f"`profile=` and {code(taken.bare[0])} are both given.", _usage("cancel"))
    if profile is not None:
        return misshapen("profile", profile) or Cancel(profile=profile)
    run = _run_key("cancel", taken.bare[0], ("all",)) if taken.bare else None
    if isinstance(run, Malformed):
        return run
    return Cancel(all=True) if run == "all" else Cancel(run)


def _retry(taken: _Taken) -> Verb | Malformed:
    run = _run_key("retry", taken.bare[0], ("all",)) if taken.bare else None
    if isinstance(run, Malformed):
        return run
    return Retry(all=True) if run == "all" else Retry(run)


def _approve(taken: _Taken) -> Verb | Malformed:
    if "sha" not in taken.given:
        return Malformed("missing-word", "`approve` needs the commit.", _usage("approve"))
    sha = taken.given["sha"]
    return misshapen("sha", sha) or Approve(sha.lower())


def _override(taken: _Taken) -> Verb | Malformed:
    if not taken.bare or "reason" not in taken.given:
        lacking = "a reason" if taken.bare else "the gate's name"
        return Malformed("missing-word", f"`override` needs {lacking}.", _usage("override"))
    gate, reason = taken.bare[0], taken.given["reason"].strip()
    if not GATE.fullmatch(gate):
        shape = "It has at most 64 small letters, digits, `/`, `_`, `.` and `-`, for example `dispatch/gate`."
        return Malformed("bad-value", f"{code(gate)} is not a gate's name.", shape)
    least, most = REASON_LENGTH
    if not (least <= len(reason) <= most and reason.isprintable()):
        return Malformed("bad-value", f"The reason does not have {least} to {most} characters that can be seen.", _usage("override"))
    return Waive(gate, reason)


def _baseline(taken: _Taken) -> Verb | Malformed:
    if not taken.bare:
        return Malformed("missing-word", "`baseline` needs to be told what to do.", _usage("baseline"))
    what, run = taken.bare[0], taken.bare[1] if len(taken.bare) > 1 else None
    if what != "accept":
        near = difflib.get_close_matches(what.lower(), ("accept",), 1, 0.6)
        return Malformed("unknown-word", f"{code(what)} is not understood.", "Did you mean **`accept`**?" if near else _usage("baseline"))
    found = _run_key("baseline", run) if run is not None else None
    if isinstance(found, Malformed):
        return found
    reason = taken.given.get("reason", "").strip()
    most = REASON_LENGTH[1]
    if len(reason) > most or not reason.isprintable():
        return Malformed("bad-value", f"The reason does not have at most {most} characters that can be seen.", _usage("baseline"))
    return AcceptBaseline(found, reason)


# How many words without `=` a verb takes, which keys, and what becomes of them.
_READERS: Mapping[str, tuple[int, tuple[str, ...], Callable[[_Taken], Verb | Malformed]]] = {
    "status": (0, (), _status),
    "logs": (1, ("lines", "task"), _logs),
    "cancel": (1, ("profile",), _cancel),
    "retry": (1, (), _retry),
    "approve": (0, ("sha",), _approve),
    "override": (1, ("reason",), _override),
    "baseline": (2, ("reason",), _baseline),
    "help": (1, (), _help),
}
