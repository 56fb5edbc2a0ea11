"""An event → what is asked for: one of a few commands, with every word checked against a strict grammar.

Decides without the policy and imports nothing heavy, so that a comment that is no command costs next to nothing.

    /train [run] [profile=NAME] [recipe=NAME] [sha=<40 hex>] [dry-run=true] [key=value …]
    /train plan …, /train status, /train cancel …     the other verbs: `verb_help.py`

Of a new comment only the block of commands at its very start counts, one a line; if one of them cannot be understood, none is taken.
A value may stand in "…" (`\\"` and `\\\\` are escapes) or '…'; what is not quoted may be a list: `profile=a,b lr=1e-3,3e-4`.
A leading dash in a value is allowed: values travel as `key=value` in one argument, so none can become an option.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from dispatcher.event import (
    CheckEvent,
    ClosedEvent,
    CommentEvent,
    DraftEvent,
    Event,
    LabelEvent,
    ManualEvent,
    MergeGroupEvent,
    OtherEvent,
    PushEvent,
    ScheduleEvent,
)
from dispatcher.grammar import COMMANDS_LIMIT, LINE_LIMIT, MANUAL_SETTINGS, Malformed, Word, hidden_in
from dispatcher.pairs import run_of
from dispatcher.untrusted import code
from dispatcher.verbs import Approve, Cancel, Retry, Verb, parse_line
from dispatcher.words import split_words

_LINE_END = re.compile(r"\r\n|\r|\n")
# What we put on a pull request ourselves asks for nothing, whatever the command word is.
GATE_OVERRIDDEN = "dispatch: gate overridden"
_RUN = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Scheduled:
    """A cron expression fired: what to run stands in the policy (`Policy.scheduled`)."""

    cron: str


@dataclass(frozen=True)
class EvaluateGate:
    """Look at the gate of the event's pull request again."""


@dataclass(frozen=True)
class HeadMoved:
    """A pull request is new, or has a new head or base, or is no draft any more."""


@dataclass(frozen=True)
class PullClosed:
    """A pull request was closed, merged or not."""


@dataclass(frozen=True)
class Drafted:
    """A pull request was converted to a draft."""


@dataclass(frozen=True)
class MergeQueued:
    """The merge queue made a commit and waits for the gate on it."""


@dataclass(frozen=True)
class Several:
    """The commands of one comment, in order, at least two; none of them is malformed, or the whole comment is."""

    commands: tuple[Verb, ...]


@dataclass(frozen=True)
class Ignored:
    """Nothing is asked for. `reason` is one of IGNORED's keys."""

    reason: str


Command = Verb | Several | Scheduled | EvaluateGate | HeadMoved | PullClosed | Drafted | MergeQueued | Ignored | Malformed

IGNORED: Mapping[str, str] = {
    "not-a-command": "The comment does not begin with the command word.",
    "not-created": "Only new comments count: one that was edited or deleted asks for nothing.",
    "bot": "What bots write or press asks for nothing.",
    "plain-issue": "The comment is on an issue, not on a pull request.",
    "other-label": "The label does not begin with the prefix, and no required run asks for labels.",
    "other-check": "The check is none of ours, or has no such button.",
    "pull-closed": "The pull request was closed, and its runs go on, as the policy says.",
    "draft": "The pull request became a draft, and its runs go on, as the policy says.",
    "other-event": "The event asks for nothing here.",
}


def _assert_never(value: NoReturn) -> NoReturn:
    """The standard library has one from 3.11 on; this module must import where nothing is installed, on 3.10 too."""
    raise AssertionError(value)


def parse_command(event: Event, word: str = "/train") -> Command:
    """An event → the command it carries. Never raises: what cannot be understood is a value too.

    Labels that ask for runs begin with the word too: `/train` in a comment, `train:` in a label.
    """
    match event:
        case CommentEvent():
            return _comment(event, word)
        case LabelEvent():
            return _label(event.label, f"{word.lstrip('/')}:" if word.lstrip("/") else "")
        case ManualEvent():
            return _manual(event.inputs)
        case ScheduleEvent():
            return Scheduled(event.cron)
        case PushEvent():
            return HeadMoved()
        case MergeGroupEvent():
            return MergeQueued()
        case ClosedEvent():
            return PullClosed()
        case DraftEvent():
            return Drafted()
        case CheckEvent():
            return _pressed(event)
        case OtherEvent():
            return Ignored("other-event")
        case _:
            _assert_never(event)


# --------------------------------------------------------------------------- each way in


def _comment(event: CommentEvent, word: str) -> Command:
    """A comment; what decides most cheaply and most often comes first."""
    if _after_word(_LINE_END.split(event.body, maxsplit=1)[0], word) is None:
        return Ignored("not-a-command")
    if event.action != "created":
        return Ignored("not-created")
    if event.author_is_bot or not event.author:
        return Ignored("bot")
    if not event.is_pull:
        return Ignored("plain-issue")
    lines = _leading(event.body, word)
    if len(lines) > COMMANDS_LIMIT:
        hint = f"{COMMANDS_LIMIT} are the most that any policy can allow. Several runs fit into one command: `profile=a,b`."
        return Malformed("too-many-commands", f"The comment has more than {COMMANDS_LIMIT} commands.", hint)
    commands: list[Verb] = []
    for number, rest in lines:
        verb = parse_line(rest)
        if isinstance(verb, Malformed):
            if len(lines) == 1:
                return verb
            hint = f"{verb.hint} None of the comment's {len(lines)} commands was carried out."
            return Malformed(verb.reason_code, f"Line {number}: {verb.message}", hint)
        commands.append(verb)
    return commands[0] if len(commands) == 1 else Several(tuple(commands))


def _after_word(line: str, word: str) -> str | None:
    """What follows the command word where a line begins with it; None where it does not."""
    # Four spaces of indentation make a code block in Markdown, fewer do not.
    start = line.removeprefix("   ") if line.startswith("   ") else line.lstrip(" ")
    if not word or not start.startswith(word):
        return None
    rest = start[len(word) :]
    return None if rest and rest[0] not in " \t" and rest[0].isprintable() else rest


def _leading(body: str, word: str) -> list[tuple[int, str]]:
    """The block of commands at a comment's start: each line's number and what follows the word. No more than needed to see too many."""
    found: list[tuple[int, str]] = []
    for number, line in enumerate(_LINE_END.split(body), 1):
        rest = _after_word(line, word)
        if rest is not None:
            found.append((number, rest))
        if len(found) > COMMANDS_LIMIT or (rest is None and line.strip(" \t")):
            break
    return found


def _pressed(event: CheckEvent) -> Command:
    """A button beside a check. What a check is, its `external_id` says: a run key, or `gate-…`, or `approval-…`."""
    if not event.sender or event.sender.endswith("[bot]"):
        return Ignored("bot")
    ours = event.external_id
    if _RUN.fullmatch(ours) and event.button == "cancel":
        return Cancel(ours)
    if _RUN.fullmatch(ours) and event.button in ("", "retry"):
        return Retry(ours)
    if ours.startswith("gate-"):
        return EvaluateGate()
    if ours.startswith("approval-") and event.button == "approve":
        return Approve(event.head_sha)
    return Ignored("other-check")


def _label(label: str, prefix: str) -> Command:
    """`train:<profile>[/<recipe>]`; the prefix alone asks for the defaults. A label asks for one run."""
    if not prefix or not label.startswith(prefix) or label == GATE_OVERRIDDEN:
        # It may be one that a required run asks for, which stands in the policy.
        return Ignored("other-label") if label == GATE_OVERRIDDEN else EvaluateGate()
    hidden = hidden_in(label)
    if hidden:
        return hidden
    profile, slash, recipe = label[len(prefix) :].partition("/")
    words = ([f"profile={profile}"] if profile or slash else []) + ([f"recipe={recipe}"] if slash else [])
    return run_of([Word(word, quoted=True) for word in words], manual=False)


def _manual(inputs: Mapping[str, str]) -> Command:
    """Workflow inputs; unknown ones are the workflow's own business. `dry_run` is taken for `dry-run`: typing it wrong must not submit."""
    given = {name.replace("_", "-"): value.strip() for name, value in inputs.items()}
    for name in (*MANUAL_SETTINGS, "overrides"):
        if len(given.get(name, "")) > LINE_LIMIT:
            return Malformed("too-long", f"`{name}` has {len(given[name]):,} characters.", f"{LINE_LIMIT:,} are the limit.")
    # A multi-line text box is welcome in a workflow's form: its lines are words like any others.
    flat = _LINE_END.sub(" ", given.get("overrides", ""))
    words = hidden_in(flat.replace("\t", " ")) or split_words(flat)
    if isinstance(words, Malformed):
        return words
    for word in words:
        if word.key in MANUAL_SETTINGS:
            return Malformed("conflict", f"{code(word.text)} stands among the overrides.", "It has an input of its own.")
    for name in MANUAL_SETTINGS:
        hidden = hidden_in(given.get(name, ""))
        if hidden:
            return hidden
    settings = [Word(f"{name}={given[name]}") for name in MANUAL_SETTINGS if given.get(name)]
    return run_of([*settings, *words], manual=True)
