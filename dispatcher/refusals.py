"""Decisions not to run (denied, malformed, broken) and explanations → the words of the one answer, all Markdown and safe."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from dispatcher.action import blank_outputs
from dispatcher.answer import BROKEN, DENIED, MALFORMED, NOTHING, UNUSABLE, WAITING, Answer, Voice, marker, refusal
from dispatcher.approval import Request
from dispatcher.authorise import Denial
from dispatcher.errors import ConfigError, DispatchError, Exit
from dispatcher.grammar import Malformed
from dispatcher.profile import UnknownProfile
from dispatcher.untrusted import code, neutralise


def denied(denial: Denial, trigger: str, lead: str = "Not started") -> Answer:
    """A no, with the rule and the next step."""
    title, rest = headed(denial.words)
    return refusal(title, denial.reason, rest, denial.next_step, trigger, DENIED, Exit.DENIED, lead=lead)


def malformed(command: Malformed, trigger: str, voice: Voice) -> Answer:
    """A command that cannot be understood, with the nearest thing that could be."""
    title = command.message.rstrip(".")
    return refusal(
        title, command.reason_code, "", f"{command.hint} `{voice.help}`", trigger, MALFORMED, Exit.MALFORMED, lead="Not understood"
    )


def unknown_profile(found: UnknownProfile, trigger: str, voice: Voice) -> Answer:
    """There is no such profile; the nearest one is named."""
    hint = f"Did you mean **{code(found.nearest)}**? " if found.nearest else ""
    known = ", ".join(code(name) for name in found.known)
    none = "There is none yet: add `profiles/NAME.yaml` on the default branch, or let `nemotron-dispatch init` write one."
    words = f"{hint}There are: {known}." if known else none
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


def not_reached(stage: str, why: Answer, trigger: str) -> Answer:
    """A stage that waits for one that has not begun."""
    words = f"It waits for stage {code(stage)}, which has no job: {why.title}."
    step = "Mend what that stage says; the same event delivered again (re-run its workflow) goes on from there."
    return refusal(f"stage {code(stage)} did not start", "stage-not-started", words, step, trigger, BROKEN, why.exit)


def parked(request: Request, voice: Voice) -> Answer:
    """It waits until somebody approves it."""
    approve = code(f"{voice.word} approve sha={request.sha}", 200)
    if request.why == "fork":
        title = "a fork's commit must be vouched for"
        step = f"Somebody who may use the profile reads the change, then comments {approve}: it runs then."
        words = f"{code(request.actor)} asked for it."
    else:
        title = "a second person has to agree"
        step = f"Somebody else comments {approve}: it runs then."
        words = f"{code(request.actor)} asked for more than one person may start alone (rule {code(request.rule, 500)})."
    words += " A newer commit has to be asked for, and approved, again."
    return refusal(title, f"waits-{request.why}", words, step, request.trigger, WAITING, Exit.OK)


def too_many_waiting(count: int, trigger: str) -> Answer:
    """Nobody can pile up requests on a commit."""
    words = f"{count} requests wait for this commit already."
    return refusal(
        "too many requests wait", "too-many-waiting", words, "Somebody has to approve those first.", trigger, DENIED, Exit.DENIED
    )


def too_big_to_wait(runs: int, trigger: str) -> Answer:
    """What waits has to be remembered somewhere, and there is not that much room."""
    words = f"The command becomes {runs} runs, and what it asks for is too long to be kept until somebody approves it."
    step = "Ask for fewer runs in one command."
    return refusal("it is too long to wait", "too-big-to-wait", words, step, trigger, DENIED, Exit.DENIED)


def nothing_waits(sha: str, trigger: str, voice: Voice) -> Answer:
    """There is nothing to approve on this commit."""
    words = f"Nobody has asked for anything on `{sha[:12]}` that waits for approval."
    step = f"Ask for it yourself: {code(f'{voice.word} profile=… sha={sha}', 200)}."
    return refusal("nothing waits here", "nothing-waits", words, step, trigger, UNUSABLE, Exit.MALFORMED, lead="Not done")


def nothing_failed(trigger: str, voice: Voice, any_runs: bool) -> Answer:
    """There is nothing to run again."""
    title = "none of this pull request's runs failed" if any_runs else "this pull request has no runs yet"
    step = f"`{voice.word} retry all` runs the newest of each kind again." if any_runs else f"`{voice.help}` says how to start one."
    return refusal(title, "nothing-failed", "", step, trigger, UNUSABLE, Exit.MALFORMED)


def nothing_to_compare(why: str, trigger: str, voice: Voice) -> Answer:
    """No run of the pull request is one that a baseline could be made of; `why` says it of the newest, in a sentence of Markdown."""
    rule = "A baseline is made of a run of this pull request that ended well, without overrides, and has numbers for what is compared."
    words = f"{why} {rule}".strip()
    step = f"`{voice.word} status` lists the runs; `docs/gates.md` says how results are compared."
    return refusal("there is nothing to accept", "no-baselines", words, step, trigger, UNUSABLE, Exit.MALFORMED, lead="Not done")


def answered(reason: str, lines: Sequence[str], trigger: str) -> Answer:
    """An answer that is no refusal."""
    body = "\n".join([*lines, "", marker(trigger)])
    return Answer(reason, body, "\n".join(lines), blank_outputs("answered", reason), "+1", Exit.OK)


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
