"""An event → what is asked for: one of a few commands, with every word checked against a strict grammar.

Decides without the policy and imports nothing heavy, so that a comment that is no command costs next to nothing.

    /train [run] [profile=NAME] [recipe=NAME] [sha=<40 hex>] [dry-run=true] [key=value …]
    /train plan …          the same, as a preview that submits nothing
    /train cancel [RUN]    /train status    /train help [TOPIC]

Only the first line of a new comment counts, and only at its very start. A value may stand in "…" (`\\"` and `\\\\` are escapes) or '…'.
A leading dash in a value is allowed: values travel as `key=value` in one argument, so none can become an option.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from dispatcher.grammar import LINE_LIMIT, MANUAL_SETTINGS, Malformed, Run, as_preview, hidden_in, run_of, split_words, unknown_word
from dispatcher.untrusted import code
from dispatcher.verbs import Cancel, Help, Status, Verb

VERBS = ("cancel", "help", "plan", "run", "status")
RUN_KEY = re.compile(r"[0-9a-f]{4,16}")
TOPIC = re.compile(r"[a-z][a-z0-9-]{0,31}")


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
    "bot": "Comments by bots ask for nothing.",
    "plain-issue": "The comment is on an issue, not on a pull request.",
    "other-label": "The label does not begin with the prefix.",
    "pull-closed": "The pull request was closed.",
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
            return Ignored("other-event")
        case OtherEvent():
            return Ignored("other-event")
        case _:
            _assert_never(event)


def parse_line(line: str, manual: bool = False) -> Command:
    """What follows the command word → the command. `manual` also takes `ref=` and `pr=` (workflow inputs, a terminal)."""
    if len(line) > LINE_LIMIT:
        return Malformed("too-long", f"The line has {len(line):,} characters; {LINE_LIMIT:,} are the limit.", "Use fewer words.")
    hidden = hidden_in(line.replace("\t", " "))
    if hidden:
        return hidden
    words = split_words(line)
    return words if isinstance(words, Malformed) else parse_words(words, manual)


def parse_words(words: Sequence[str], manual: bool = False) -> Command:
    """Words that are split already, each `verb` or `key=value` without quotes → the command."""
    if not words or "=" in words[0]:
        return run_of(words, manual)
    verb, rest = words[0], words[1:]
    if verb in ("run", "plan"):
        run = run_of(rest, manual)
        return as_preview(run) if verb == "plan" and isinstance(run, Run) else run
    if verb not in VERBS:
        return unknown_word(verb, VERBS)
    if verb == "cancel" and len(rest) == 1:
        if RUN_KEY.fullmatch(rest[0]):
            return Cancel(rest[0])
        return Malformed("bad-value", f"{code(rest[0])} is not a run key.", "It takes the run key's first 4 to 16 hex digits.")
    if verb == "help" and len(rest) == 1 and TOPIC.fullmatch(rest[0]):
        return Help(rest[0])
    if rest:
        return Malformed("unknown-word", f"{code(verb)} cannot be followed by {code(' '.join(rest))}.", f"Write {code(verb)} alone.")
    return Cancel() if verb == "cancel" else Help() if verb == "help" else Status()


# --------------------------------------------------------------------------- each way in


def _comment(event: CommentEvent, word: str) -> Command:
    """A comment; what decides most cheaply and most often comes first."""
    line = re.split(r"\r\n|\r|\n", event.body, maxsplit=1)[0]
    # Four spaces of indentation make a code block in Markdown, fewer do not.
    start = line.removeprefix("   ") if line.startswith("   ") else line.lstrip(" ")
    if not start.startswith(word) or start.startswith(" "):
        return Ignored("not-a-command")
    rest = start[len(word) :]
    if rest and rest[0] not in " \t" and (rest[0].isprintable() or not word):
        return Ignored("not-a-command")
    if event.action != "created":
        return Ignored("not-created")
    if event.author_is_bot or not event.author:
        return Ignored("bot")
    if not event.is_pull:
        return Ignored("plain-issue")
    return parse_line(rest)


def _label(label: str, prefix: str) -> Command:
    """`train:<profile>[/<recipe>]`; the prefix alone asks for the defaults."""
    if not prefix or not label.startswith(prefix):
        return Ignored("other-label")
    hidden = hidden_in(label)
    if hidden:
        return hidden
    profile, slash, recipe = label[len(prefix) :].partition("/")
    words = ([f"profile={profile}"] if profile or slash else []) + ([f"recipe={recipe}"] if slash else [])
    return run_of(words, manual=False)


def _manual(inputs: Mapping[str, str]) -> Command:
    """Workflow inputs; unknown ones are the workflow's own business. `dry_run` is taken for `dry-run`: typing it wrong must not submit."""
    given = {name.replace("_", "-"): value.strip() for name, value in inputs.items()}
    overrides = given.get("overrides", "")
    if len(overrides) > LINE_LIMIT:
        return Malformed("too-long", f"`overrides` has {len(overrides):,} characters.", f"{LINE_LIMIT:,} are the limit.")
    # A multi-line text box is welcome in a workflow's form: its lines are words like any others.
    flat = re.sub(r"\r\n|\r|\n", " ", overrides)
    words = hidden_in(flat.replace("\t", " ")) or split_words(flat)
    if isinstance(words, Malformed):
        return words
    for word in words:
        if word.partition("=")[0] in MANUAL_SETTINGS:
            return Malformed("conflict", f"{code(word)} stands among the overrides.", "It has an input of its own.")
    for name in MANUAL_SETTINGS:
        hidden = hidden_in(given.get(name, ""))
        if hidden:
            return hidden
    return run_of([f"{name}={given[name]}" for name in MANUAL_SETTINGS if given.get(name)] + words, manual=True)
