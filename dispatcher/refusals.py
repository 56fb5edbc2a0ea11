"""Decisions not to run (denied, malformed, broken) and explanations → the words of the one answer, all Markdown and safe."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from dispatcher.answer import BROKEN, DENIED, DOCS, MALFORMED, NOTHING, UNUSABLE, Answer, Voice, marker, refusal
from dispatcher.authorise import Denial
from dispatcher.errors import ConfigError, DispatchError, Exit
from dispatcher.grammar import Malformed
from dispatcher.policy import Policy
from dispatcher.profile import UnknownProfile
from dispatcher.untrusted import code, neutralise


def denied(denial: Denial, trigger: str) -> Answer:
    """A no, with the rule and the next step."""
    title, rest = headed(denial.words)
    return refusal(title, denial.reason, rest, denial.next_step, trigger, DENIED, Exit.DENIED)


def malformed(command: Malformed, trigger: str, voice: Voice) -> Answer:
    """A command that cannot be understood, with the nearest thing that could be."""
    title = command.message.rstrip(".")
    return refusal(title, command.reason_code, "", f"{command.hint} `{voice.help}`", trigger, MALFORMED, Exit.MALFORMED)


def unknown_profile(found: UnknownProfile, trigger: str, voice: Voice) -> Answer:
    """There is no such profile; the nearest one is named."""
    hint = f"Did you mean **{code(found.nearest)}**? " if found.nearest else ""
    known = ", ".join(code(name) for name in found.known) or "none yet: add `profiles/NAME.yaml` on the default branch"
    words = f"{hint}Here you can use: {known}."
    return refusal(f"there is no profile {code(found.name)}", "unknown-profile", words, f"`{voice.help}`", trigger, UNUSABLE, Exit.CONFIG)


def what_became(error: BaseException) -> str:
    """What can be said about the job of a command that broke. Interrupted means: the far side may have had everything already."""
    unclear = error.job_may_exist if isinstance(error, DispatchError) else True
    return "it is not known whether a job was submitted" if unclear else NOTHING


def broken(error: DispatchError, trigger: str) -> Answer:
    """Something broke before anything was submitted, or before anybody could say so."""
    titles = {
        Exit.CONFIG: "the configuration cannot be used",
        Exit.SSH: "the cluster cannot be reached",
        Exit.GIT: "the commit cannot be packed",
    }
    # What is wrong with a file is said in Markdown of our own, a line for each problem; everything else may quote strangers.
    words = error.cause if isinstance(error, ConfigError) else neutralise(error.cause, 1500)
    title, became = titles.get(error.exit, "something broke"), what_became(error)
    return refusal(title, error.code, words, error.next_step, trigger, BROKEN, error.exit, became)


def rejected(words: str, trigger: str) -> Answer:
    """sbatch said no, in its own words."""
    step = "Correct what it names in the profile; `nemotron-dispatch doctor --profile NAME` checks account and partition."
    return refusal("the scheduler refused the job", "sbatch-refused", neutralise(words, 1500), step, trigger, BROKEN, Exit.CLUSTER)


def explained(policy: Policy, profiles: Sequence[str], trigger: str, word: str) -> Answer:
    """What can be asked for here, from the policy."""
    lines = [
        f"### What `{word}` can do here",
        "",
        f"- `{word} profile=NAME recipe=NAME key=value …` starts a run of this pull request's head; `sha=` names the commit for a fork.",
        f"- `{word} cancel [RUN]` ends a run, `{word} status` lists this pull request's runs, `{word} help` says this.",
        "",
        f"Profiles: {_names(profiles, policy.default_profile)}",
        "",
        f"Recipes: {_names(sorted(policy.recipes), policy.default_recipe)}",
        "",
        f"<sub>[every command]({DOCS}/commands.md)</sub>",
    ]
    return answered("help", lines, trigger)


def answered(reason: str, lines: Sequence[str], trigger: str) -> Answer:
    """An answer that is no refusal."""
    told_outputs = {"decision": "answered", "reason-code": reason, "run-key": "", "job-id": "", "state": "", "log-url": "", "result": "{}"}
    return Answer(reason, "\n".join([*lines, "", marker(trigger)]), "\n".join(lines), told_outputs, "+1", Exit.OK)


def headed(words: str) -> tuple[str, str]:
    """`**Title.** More words.` → (`Title`, `More words.`)."""
    if words.startswith("**") and "**" in words[2:]:
        title, _, rest = words[2:].partition("**")
        return title.rstrip("."), rest.strip()
    return words.rstrip("."), ""


def told(created_at: str) -> datetime | None:
    """When GitHub says that something happened; None when it does not say."""
    try:
        return datetime.fromisoformat(created_at.replace("Z", "+00:00"))
    except ValueError:
        return None


def _names(names: Sequence[str], default: str | None) -> str:
    return ", ".join(f"{code(name)} (default)" if name == default else code(name) for name in names) or "none"
