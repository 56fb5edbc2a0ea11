"""An event → what is asked for: one of a few commands, with every word checked against a strict grammar.

Decides without the policy and imports nothing heavy, so that a comment that is no command costs next to nothing.

    /train [run] [profile=NAME] [recipe=NAME] [sha=<40 hex>] [dry-run=true] [key=value …]
    /train plan …          the same, as a preview that submits nothing
    /train cancel [RUN]    /train status    /train help [TOPIC]

Only the first line of a new comment counts, and only at its very start. A value may stand in "…" (`\\"` and `\\\\` are escapes) or '…'.
A leading dash in a value is allowed: values travel as `key=value` in one argument, so none can become an option.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from dispatcher.event import (
    ClosedEvent,
    CommentEvent,
    Event,
    LabelEvent,
    ManualEvent,
    MergeGroupEvent,
    OtherEvent,
    PushEvent,
    ScheduleEvent,
)
from dispatcher.untrusted import code

LINE_LIMIT = 2000
VALUE_LIMIT = 512
KEY_LIMIT = 256
OVERRIDES_LIMIT = 64

VERBS = ("cancel", "help", "plan", "run", "status")
# What a word can set besides overrides; `ref` and `pr` would let a comment run something else than its own pull request.
SETTINGS = ("profile", "recipe", "sha", "dry-run")
MANUAL_SETTINGS = (*SETTINGS, "ref", "pr")

NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.)){0,63}")
RECIPE_NAME = re.compile(rf"{NAME.pattern}(?:/{NAME.pattern}){{0,3}}")
KEY = re.compile(r"[A-Za-z_]\w*(?:\.[\w-]+|\[\d{1,6}\])*", re.ASCII)
FULL_SHA = re.compile(r"[0-9a-f]{40}")
RUN_KEY = re.compile(r"[0-9a-f]{4,16}")
TOPIC = re.compile(r"[a-z][a-z0-9-]{0,31}")
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
class Cancel:
    """End a run: `run` is the beginning of its run key (4 to 16 hex digits), None for the pull request's only active one."""

    run: str | None = None


@dataclass(frozen=True)
class Help:
    """Explain: `topic` is empty or one word."""

    topic: str = ""


@dataclass(frozen=True)
class Status:
    """Say how the pull request's runs stand."""


@dataclass(frozen=True)
class Scheduled:
    """A cron expression fired: what to run stands in the policy (`Policy.scheduled`)."""

    cron: str


@dataclass(frozen=True)
class EvaluateGate:
    """Look at the gate again: for a pull request's new head, or (without number) for a merge group's commit."""

    number: int | None
    head_sha: str | None


@dataclass(frozen=True)
class Ignored:
    """Nothing is asked for. `reason` is one of IGNORED's keys."""

    reason: str


@dataclass(frozen=True)
class Malformed:
    """Something is asked for that cannot be understood. `message` and `hint` are Markdown; what the user wrote is in code spans."""

    reason_code: str
    message: str
    hint: str


Command = Run | Cancel | Help | Status | Scheduled | EvaluateGate | Ignored | Malformed

IGNORED: Mapping[str, str] = {
    "not-a-command": "The comment does not begin with the command word.",
    "not-created": "Only new comments count: one that was edited or deleted asks for nothing.",
    "bot": "Comments by bots ask for nothing.",
    "plain-issue": "The comment is on an issue, not on a pull request.",
    "other-label": "The label does not begin with the prefix.",
    "pull-closed": "The pull request was closed.",
    "other-event": "The event asks for nothing here.",
}

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
            return EvaluateGate(event.number, event.head_sha)
        case MergeGroupEvent():
            return EvaluateGate(None, event.head_sha)
        case ClosedEvent():
            return Ignored("pull-closed")
        case OtherEvent():
            return Ignored("other-event")
        case _:
            _assert_never(event)


def render(command: Run, word: str = "/train") -> str:
    """A run → the line that asks for it, canonically: `parse_line` (manual where `ref` or `pull` is set) gives the same run back."""
    settings = {"profile": command.profile, "recipe": command.recipe, "sha": command.sha, "ref": command.ref, "pr": command.pull}
    words = [f"{key}={_quoted(str(value))}" for key, value in settings.items() if value is not None]
    words += [f"{override.key}={_quoted(override.value)}" for override in command.overrides]
    return " ".join([word, *(["plan"] if command.dry_run else []), *words])


def parse_line(line: str, manual: bool = False) -> Command:
    """What follows the command word → the command. `manual` also takes `ref=` and `pr=` (workflow inputs, a terminal)."""
    if len(line) > LINE_LIMIT:
        return Malformed("too-long", f"The line has {len(line):,} characters; {LINE_LIMIT:,} are the limit.", "Use fewer words.")
    hidden = _hidden(line.replace("\t", " "))
    if hidden:
        return hidden
    words = _split(line)
    return words if isinstance(words, Malformed) else parse_words(words, manual)


def parse_words(words: Sequence[str], manual: bool = False) -> Command:
    """Words that are split already, each `verb` or `key=value` without quotes → the command."""
    if not words or "=" in words[0]:
        return _run(words, manual)
    verb, rest = words[0], words[1:]
    if verb in ("run", "plan"):
        run = _run(rest, manual)
        return _dry(run) if verb == "plan" and isinstance(run, Run) else run
    if verb not in VERBS:
        return _unknown_word(verb, VERBS)
    if verb == "cancel" and len(rest) == 1:
        if RUN_KEY.fullmatch(rest[0]):
            return Cancel(rest[0])
        return Malformed("bad-value", f"{code(rest[0])} is not a run key.", "It takes the run key's first 4 to 16 hex digits.")
    if verb == "help" and len(rest) == 1 and TOPIC.fullmatch(rest[0]):
        return Help(rest[0])
    if rest:
        return Malformed("unknown-word", f"{code(verb)} cannot be followed by {code(' '.join(rest))}.", f"Write {code(verb)} alone.")
    return Cancel() if verb == "cancel" else Help() if verb == "help" else Status()


def parse_override(word: str) -> Override | Malformed:
    """One `key=value` (not quoted) → the override. Used for comments, manual inputs and the policy's schedules alike."""
    hidden = _hidden(word)
    if hidden:
        return hidden
    key, equals, value = word.partition("=")
    if not equals:
        return _unknown_word(word, ())
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
    hidden = _hidden(label)
    if hidden:
        return hidden
    profile, slash, recipe = label[len(prefix) :].partition("/")
    words = ([f"profile={profile}"] if profile or slash else []) + ([f"recipe={recipe}"] if slash else [])
    return _run(words, manual=False)


def _manual(inputs: Mapping[str, str]) -> Command:
    """Workflow inputs; unknown ones are the workflow's own business. `dry_run` is taken for `dry-run`: typing it wrong must not submit."""
    given = {name.replace("_", "-"): value.strip() for name, value in inputs.items()}
    overrides = given.get("overrides", "")
    if len(overrides) > LINE_LIMIT:
        return Malformed("too-long", f"`overrides` has {len(overrides):,} characters.", f"{LINE_LIMIT:,} are the limit.")
    # A multi-line text box is welcome in a workflow's form: its lines are words like any others.
    flat = re.sub(r"\r\n|\r|\n", " ", overrides)
    words = _hidden(flat.replace("\t", " ")) or _split(flat)
    if isinstance(words, Malformed):
        return words
    for word in words:
        if word.partition("=")[0] in MANUAL_SETTINGS:
            return Malformed("conflict", f"{code(word)} stands among the overrides.", "It has an input of its own.")
    for name in MANUAL_SETTINGS:
        hidden = _hidden(given.get(name, ""))
        if hidden:
            return hidden
    return _run([f"{name}={given[name]}" for name in MANUAL_SETTINGS if given.get(name)] + words, manual=True)


# --------------------------------------------------------------------------- words


def _run(words: Sequence[str], manual: bool) -> Run | Malformed:
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


def _split(line: str) -> list[str] | Malformed:
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


def _hidden(text: str) -> Malformed | None:
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


def _unknown_word(word: str, known: Sequence[str]) -> Malformed:
    near = difflib.get_close_matches(word.lower(), known, 1, 0.6)
    if near:
        hint = f"Did you mean **`{near[0]}`**?"
    elif NAME.fullmatch(word):
        hint = f"Everything but a verb is `key=value`. For a profile: {code('profile=' + word)}."
    else:
        hint = "Everything but a verb is `key=value`, for example `profile=cluster train.iters=200`."
    return Malformed("unknown-word", f"{code(word)} is not understood.", hint)


def _dry(run: Run) -> Run:
    return Run(run.profile, run.recipe, run.sha, run.ref, run.pull, run.overrides, True, run.attempt)
