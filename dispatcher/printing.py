"""Commands → the text that asks for them, canonically: reading it gives the same command back. The reverse of `verbs.py`."""

from __future__ import annotations

import shlex

from dispatcher.command import Several
from dispatcher.grammar import Run, Sweep
from dispatcher.verb_help import LOG_LINES
from dispatcher.verbs import AcceptBaseline, Approve, Cancel, Help, Logs, Retry, Status, Verb, Waive
from dispatcher.words import written


def render(command: Verb | Several, word: str = "/train") -> str:
    """A command → its line, several → a line for each. `parse_line` reads it back (`manual` where `ref` or `pull` is set)."""
    if isinstance(command, Several):
        return "\n".join(render(verb, word) for verb in command.commands)
    return " ".join([word, *words_of(command)])


def render_for_shell(verb: Verb, program: str) -> str:
    """A command → what is typed at a terminal, quoted for the shell: `parse_words` reads back what the shell then hands over."""
    return " ".join([program, *(shlex.quote(word) for word in words_of(verb))])


def words_of(verb: Verb) -> list[str]:
    """A command → its words as they are written in a comment, without the command word."""
    match verb:
        case Run():
            return [*_plan(verb), *_settings(verb), *(_pair(item.key, item.value) for item in verb.overrides)]
        case Sweep():
            return _sweep(verb)
        case Status():
            return ["status"]
        case Help():
            return ["help", *_known(verb.topic)]
        case Logs():
            lines = [f"lines={verb.lines}"] if verb.lines != LOG_LINES else []
            return ["logs", *_known(verb.run), *lines, *([f"task={verb.task}"] if verb.task is not None else [])]
        case Cancel():
            profile = [_pair("profile", verb.profile)] if verb.profile is not None else []
            return ["cancel", *_known("all" if verb.all else verb.run), *profile]
        case Retry():
            return ["retry", *_known("all" if verb.all else verb.run)]
        case Approve():
            return ["approve", f"sha={verb.sha}"]
        case Waive():
            return ["override", verb.gate, _pair("reason", verb.reason, in_lists=False)]
        case AcceptBaseline():
            return ["baseline", "accept", *_known(verb.run), *([_pair("reason", verb.reason)] if verb.reason else [])]


def _known(word: str | None) -> list[str]:
    return [word] if word else []


def _pair(key: str, value: str, in_lists: bool = True) -> str:
    return f"{key}={written(value, in_lists)}"


def _plan(run: Run) -> list[str]:
    return ["plan"] if run.dry_run else []


def _settings(run: Run, varied: tuple[str, ...] = ()) -> list[str]:
    settings = {"profile": run.profile, "recipe": run.recipe, "sha": run.sha, "ref": run.ref, "pr": run.pull}
    words = [_pair(key, str(value)) for key, value in settings.items() if value is not None and key not in varied]
    return [*words, *(["fresh=true"] if run.fresh else [])]


def _sweep(sweep: Sweep) -> list[str]:
    """The order of the axes is the order of the runs, so it is kept: a varied profile may have to stand behind an override."""
    lists = {axis.key: f"{axis.key}={','.join(axis.values)}" for axis in sweep.axes}
    overrides = {item.key: item for item in sweep.run.overrides}
    first = next((place for place, key in enumerate(lists) if key in overrides), len(lists))
    order = list(lists)
    words = [lists.pop(key) for key in order[:first]]
    words += _settings(sweep.run, tuple(order))
    for key, item in overrides.items():
        if key in lists:
            # The varied settings that were written before this override.
            while (earlier := next(iter(lists))) != key:
                words.append(lists.pop(earlier))
        words.append(lists.pop(key, "") or _pair(key, item.value))
    return [*_plan(sweep.run), *words, *lists.values()]
