"""A run's record (or a decision not to run) → what people read: the comment, the check, the summary, the outputs, the reaction.

Whoever reads wants, in this order: did it pass, why not, what can I do, where is the log. Everything that came from a job, a
scheduler or a person is neutralised here. Nothing is sent from here: `flow.py` does that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dispatcher.answer import DOCS, RUN_MARK, Voice, marker
from dispatcher.curvereport import curve_lines, progress_line
from dispatcher.failurereport import excerpt, excerpt_title, failure_lines, line_annotations
from dispatcher.headline import headline, next_step
from dispatcher.phrases import clock, number
from dispatcher.ports import Button, Check, Conclusion, Reaction
from dispatcher.record import RunRecord
from dispatcher.results import Value
from dispatcher.runtable import run_table
from dispatcher.slurm import State
from dispatcher.untrusted import cap, code, fence, neutralise
from dispatcher.verdictreport import verdict_lines

TAIL_LINES = 40
TAIL_BYTES = 12_000
TAIL_WIDTH = 1_000
"""Characters of a line: one that is longer must not push out all others."""


@dataclass(frozen=True)
class Report:
    """Everything that one moment of a run has to say, for every place where it is said."""

    comment: str
    check: Check
    summary: str
    outputs: Mapping[str, str]
    reaction: Reaction | None


_ICONS: Mapping[State, str] = {
    State.SUBMITTING: "⏳",
    State.QUEUED: "⏳",
    State.PENDING: "⏳",
    State.RUNNING: "🏃",
    State.SUCCEEDED: "✅",
    State.CANCELLED: "🛑",
    State.SKIPPED: "⏭️",
    State.TIMEOUT: "⌛",
    State.LOST: "❓",
    State.UNKNOWN: "❓",
}

_CONCLUSIONS: Mapping[State, Conclusion] = {
    State.SUCCEEDED: "success",
    State.CANCELLED: "cancelled",
    State.SKIPPED: "skipped",
    State.TIMEOUT: "timed_out",
}


def run_report(record: RunRecord, tail: str, now: datetime, voice: Voice) -> Report:
    """The whole report on a run. `tail` is the end of its log, already redacted; the job's summary stands in for a missing log link."""
    log_url = record.log_url or voice.summary_url
    failed = bool(record.results_problem) or (record.state.ended and not record.ended_well and not record.verdict_owed)
    lines = [f"### {icon(record)} {voice.name} · {record.profile} · {neutralise(headline(record, now), 300)}", ""]
    if record.reason and (failed or record.state in (State.PENDING, State.QUEUED, State.SKIPPED)):
        lines += [f"{_why(record, failed)}{neutralise(record.reason, 300)}", ""]
    lines += failure_lines(record, voice)
    if record.results and not record.verdicts:
        lines += [_metrics_line(record), ""]
    if record.verdicts:
        lines += [*verdict_lines(record), ""]
    if progress := progress_line(record, now):
        lines += [progress, ""]
    if failed and (step := next_step(record, voice)):
        lines += [f"**Next:** {step}", ""]
    lines += run_table(record, now, log_url, voice)
    if record.lfs_pointers:
        some = ", ".join(code(path) for path in record.lfs_pointers[:3])
        lines += ["", f"⚠️ Git LFS pointers travelled instead of the files that they stand for: {some}"]
    if failed and (around := excerpt(record, tail, TAIL_LINES)):
        lines += ["", f"<details open><summary>{excerpt_title(record)}</summary>", "", _log(around), "", "</details>"]
    if failed and tail.strip():
        lines += ["", "<details open><summary>The end of the log</summary>", "", _log(tail), "", "</details>"]
    if len(record.results) > 4 or (record.verdicts and record.results.keys() - {verdict.name for verdict in record.verdicts}):
        lines += ["", "<details><summary>All metrics</summary>", "", *_metrics_table(record), "", "</details>"]
    lines += curve_lines(record, voice.at_terminal)
    cancel = "" if record.state.ended else f" · cancel with `{voice.cancel(record.run_key)}`"
    lines += ["", f"<sub>Updated {clock(now, now)}{cancel} · run `{record.run_key}` · [how this works]({DOCS}/commands.md)</sub>"]
    ended = [] if failed or not tail.strip() else ["", "<details><summary>The end of the log</summary>", "", _log(tail), "", "</details>"]
    body = "\n".join([*lines, "", marker(record.trigger), f"{RUN_MARK}{record.run_key} -->"])
    return Report(body, _check(record, now, lines, log_url), "\n".join([*lines, *ended]), outputs(record, log_url), _reaction(record))


def _why(record: RunRecord, failed: bool) -> str:
    """How the reason is introduced: the queue's says itself what it is."""
    if record.state is State.QUEUED:
        return "It has " if record.reason.startswith("place ") else ""
    return "Reason: " if failed or record.state is State.SKIPPED else "Waiting for: "


def last_lines(tail: str) -> str:
    """The part of a log's end that a comment shows. Of a bar that was drawn again and again on one line the last one, as on a terminal."""
    shown = (_last_drawn(line) for line in tail.rstrip().replace("\r\n", "\n").split("\n")[-TAIL_LINES:])
    lines = (line if len(line) <= TAIL_WIDTH else f"{line[: TAIL_WIDTH - 1]}…" for line in shown)
    return cap("\n".join(lines), TAIL_BYTES, keep="tail")


def _last_drawn(line: str) -> str:
    return next((part for part in reversed(line.split("\r")) if part.strip()), "")


def _log(tail: str) -> str:
    """The end of a log as a block."""
    return fence(last_lines(tail))


def check_name(profile: str, recipe: str) -> str:
    """One check for each kind of run on a commit."""
    return f"dispatch / {profile} / {recipe}"


def outputs(record: RunRecord, log_url: str | None) -> dict[str, str]:
    """The action's outputs for a run that exists; `docs/install.md` lists them."""
    return {
        "decision": "run",
        "reason-code": "submitted" if not record.state.ended else record.state.value,
        "run-key": record.run_key,
        "job-id": record.job_id,
        "state": record.state.value,
        "log-url": log_url or "",
        "wandb-url": record.wandb_url,
        "result": json.dumps({name: _as_json(value) for name, value in record.results.items()}, sort_keys=True),
    }


def _as_json(value: Value) -> Value:
    """JSON has no NaN and no infinity, and GitHub's `fromJSON` takes none: they become texts that JavaScript and Python read as numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def icon(record: RunRecord) -> str:
    """The state in one sign."""
    if record.results_problem:
        return "❌"
    return "⏳" if record.verdict_owed else _ICONS.get(record.state, "❌")


def _metrics_line(record: RunRecord) -> str:
    shown = list(record.results.items())[:4]
    return " · ".join(f"**{neutralise(name)} {_shown(value)}**" for name, value in shown)


def _shown(value: Value) -> str:
    """A metric's value: a number is its own words, a text is somebody else's."""
    return neutralise(value) if isinstance(value, str) else number(value)


def _metrics_table(record: RunRecord) -> list[str]:
    rows = [f"| {neutralise(name)} | {_shown(value)} |" for name, value in record.results.items()]
    return ["| metric | value |", "|---|---:|", *rows]


def _check(record: RunRecord, now: datetime, lines: list[str], log_url: str | None) -> Check:
    ended = record.state.ended
    conclusion: Conclusion | None = None
    if ended:
        conclusion = "failure" if record.results_problem else _CONCLUSIONS.get(record.state, "failure")
    status = "completed" if ended else "in_progress" if record.state is State.RUNNING else "queued"
    return Check(
        name=check_name(record.profile, record.name),
        sha=record.sha,
        external_id=record.run_key,
        status=status,  # type: ignore[arg-type]  # the three words above are the three that Check has
        conclusion=conclusion,
        title=headline(record, now)[:200],
        summary="\n".join(lines),
        details_url=log_url,
        annotations=line_annotations(record) if ended else (),
        buttons=_buttons(record),
    )


def _buttons(record: RunRecord) -> tuple[Button, ...]:
    """What can be done with a run of a pull request; GitHub shows buttons only where an App speaks."""
    if record.target.pull is None:
        return ()
    if not record.state.ended:
        return (Button("Cancel", "End this run", "cancel"),)
    return () if record.ended_well else (Button("Retry", "Run it again", "retry"),)


def _reaction(record: RunRecord) -> Reaction | None:
    if not record.state.ended:
        return None
    return "rocket" if record.ended_well else "confused"
