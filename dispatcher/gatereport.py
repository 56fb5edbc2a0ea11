"""A verdict → the check `dispatch/gate` and the table that says what it waits for and why."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import assert_never

from dispatcher.answer import DOCS
from dispatcher.gate import Fail, Line, Pass, Pending, Verdict, Waived
from dispatcher.phrases import plural
from dispatcher.ports import Check
from dispatcher.slurm import State
from dispatcher.untrusted import code, neutralise

GATE_NAME = "dispatch/gate"


def gate_check(verdict: Verdict, sha: str, lines: Sequence[str]) -> Check:
    """The check to require in branch protection. A requirement that nobody has met keeps it pending, never green."""
    status: str
    conclusion: str | None
    match verdict:
        case Pass():
            status, conclusion = "completed", "success"
        case Pending():
            status, conclusion = "in_progress", None
        case Fail():
            status, conclusion = "completed", "failure"
        case Waived():
            status, conclusion = "completed", "success"
        case _:
            assert_never(verdict)
    return Check(
        name=GATE_NAME,
        sha=sha,
        external_id=f"gate-{sha}",
        status=status,  # type: ignore[arg-type]  # literals of the three cases above
        conclusion=conclusion,  # type: ignore[arg-type]
        title=title(verdict),
        summary="\n".join(lines),
    )


def title(verdict: Verdict) -> str:
    """The verdict in one line."""
    match verdict:
        case Pass(()):
            return "no run is required for this change"
        case Pass(lines):
            return f"{plural(len(lines), 'required run')} passed"
        case Pending(lines, missing):
            waiting = len([line for line in lines if line.state is not State.SUCCEEDED])
            if missing == waiting:
                return f"{plural(missing, 'required run')} {'has' if missing == 1 else 'have'} not been started"
            return f"waits for {plural(waiting, 'run')}" + (f", {missing} of them not started" if missing else "")
        case Waived(_, waiver):
            return f"overridden by {waiver.actor}: {waiver.reason}"[:120]
        case Fail(lines):
            open_ = [line for line in lines if line.state is not State.SUCCEEDED]
            bad = [line for line in open_ if line.state is not None and line.state.ended]
            refused = [line for line in open_ if line.refused]
            if refused and not bad:
                return f"{plural(len(refused), 'required run')} could not be started"
            # Where nothing is waited for any more, what has not ended has not passed.
            return f"{plural(len(bad or open_), 'required run')} did not pass"
        case _:
            assert_never(verdict)


def gate_lines(verdict: Verdict, silent: Sequence[str], word: str, head: str = "") -> list[str]:
    """The summary: one row for each required run, then what could not be asked. `head` is the commit that is judged for the queue's.

    `word` begins the command that starts what is missing; empty where nobody can give one, as on the queue's own commit.
    """
    icon = {"Pass": "✅", "Pending": "⏳", "Fail": "❌", "Waived": "⚠️"}[type(verdict).__name__]
    lines = [f"### {icon} dispatch/gate · {neutralise(title(verdict))}", ""]
    if isinstance(verdict, Waived):
        waiver = verdict.waiver
        until = waiver.expires_at.strftime("%Y-%m-%d %H:%M UTC")
        lines += [f"{code(waiver.actor)} made an exception for this commit, until {until}. What the runs say:", ""]
    if verdict.lines:
        lines += ["| required run | because of | state | |", "|---|---|---|---|", *(_row(line, word) for line in verdict.lines)]
    lines += [part for line in verdict.lines if line.refused and line.refused.words for part in ("", line.refused.words)]
    for problem in silent:
        lines += ["", f"⚠️ What a ledger does not tell does not count: {neutralise(problem, 500)}"]
    on = f"on the pull request's head {code(head[:12])}: the policy runs nothing in the merge queue" if head else "on exactly this commit"
    lines += ["", f"<sub>Judged from the ledger on the cluster, {on} · [how the gate works]({DOCS}/gates.md)</sub>"]
    return lines


def _row(line: Line, word: str) -> str:
    state = line.state.value.replace("_", " ") if line.state else "could not be started" if line.refused else "not started"
    link = f"[log]({line.log_url})" if line.log_url else f"run `{line.run_key}`" if line.run_key else ""
    because = line.requirement.because
    start = f"`{word} profile={line.requirement.profile} recipe={line.requirement.recipe}`" if word and not line.state else ""
    why = f"reason {code(line.refused.reason)}" if line.refused else ""
    last = " · ".join(part for part in (link, start, why, neutralise(line.note, 200)) if part)
    return f"| {code(line.requirement.name)} | {code(because)} | {state} | {last} |"
