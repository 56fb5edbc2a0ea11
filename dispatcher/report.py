"""A run's record (or a decision not to run) → what people read: the comment, the check, the summary, the outputs, the reaction.

Whoever reads wants, in this order: did it pass, why not, what can I do, where is the log. Everything that came from a job, a
scheduler or a person is neutralised here. Nothing is sent from here: `flow.py` does that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from dispatcher.answer import DOCS, RUN_MARK, Voice, marker
from dispatcher.chain import GIVEN_UP, JOBS_USED, NOTHING_SAVED
from dispatcher.curvereport import curve_lines, progress_line
from dispatcher.failure import CAUSES
from dispatcher.failurereport import excerpt, excerpt_title, failure_lines, line_annotations, title_of
from dispatcher.phrases import WITH_CHANGES, clock, duration, number, plural
from dispatcher.pipeline import When
from dispatcher.ports import Button, Check, Conclusion, Reaction
from dispatcher.record import Resources, RunRecord
from dispatcher.results import NO_RESULTS, Value
from dispatcher.slurm import State
from dispatcher.untrusted import cap, code, fence, neutralise
from dispatcher.verdictreport import verdict_lines
from dispatcher.wandbsummary import OF_SUMMARY

SET_ASIDE = "cluster.set-aside"
"""Stands in the results' problem of a run that could not be looked at: its end is told without what it left behind."""
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


def headline(record: RunRecord, now: datetime) -> str:
    """How it stands, in one line without markup: `passed in 12m 04s`."""
    job = f"job {record.job_id}{_number_of_job(record)} " if record.job_id else ""
    ran = record.elapsed_seconds
    after = f" after {duration(ran)}" if ran is not None else ""
    if record.failure is not None and (title := title_of(record.failure)):
        return f"{title}{after}"
    match record.state:
        case State.SUBMITTING:
            return "is being submitted"
        case State.QUEUED:
            return "is queued here"
        case State.PENDING:
            return f"{job}is waiting for {plural(record.resources.nodes, 'node')}"
        case State.RUNNING:
            since = f" for {duration((now - record.started_at).total_seconds())}" if record.started_at else ""
            return f"{job}is running{since}"
        case State.SUCCEEDED if record.results_problem:
            return f"ended well, but {record.results_problem}"
        case State.SUCCEEDED if record.verdict_owed:
            return "ended well; what it measured has not been judged yet"
        case State.SUCCEEDED:
            return f"passed in {duration(ran)}" if ran is not None else "passed"
        case State.FAILED:
            how = f"was ended by signal {record.signal}" if record.signal else f"failed with exit code {record.exit_code}"
            return f"{how}{after}" if record.signal or record.exit_code is not None else f"failed{after}"
        case State.TIMEOUT:
            return f"was ended at its time limit{after}"
        case State.OUT_OF_MEMORY:
            return f"ran out of memory{after}"
        case State.CANCELLED:
            return f"was {record.given_up}{after}" if record.given_up.startswith("cancelled") else _cancelled(record, after)
        case State.SKIPPED:
            return "was not needed"
        case State.PREEMPTED:
            return f"was preempted by another job{after}"
        case State.NODE_FAIL:
            return f"was ended by the failure of a node{after}"
        case State.LOST:
            return f"{job}is lost: the scheduler no longer knows it"
        case State.UNKNOWN:
            return f"{job}is in a state that is not known here: {record.reason or 'no reason given'}"
    raise AssertionError(record.state)


def _cancelled(record: RunRecord, after: str) -> str:
    return f"was cancelled{after}{f', because {record.given_up}' if record.given_up else ''}"


def _number_of_job(record: RunRecord) -> str:
    return f", {len(record.earlier_jobs) + 1} of at most {record.resources.jobs}," if record.earlier_jobs else ""


def next_step(record: RunRecord, voice: Voice) -> str:
    """What the reader can do now; empty when there is nothing to do."""
    if record.followed_by:
        return ""
    again = f"{code(voice.again(record), 2000)} runs it once more."
    if record.failure is not None and record.state not in (State.TIMEOUT, State.LOST):
        return f"{record.failure.words.step} {again}"
    match record.state:
        case State.FAILED | State.OUT_OF_MEMORY:
            return f"The end of the log below usually names the reason. {again}"
        case State.SUCCEEDED if any(verdict.outcome == "fail" for verdict in record.verdicts):
            # A baseline moves only what is compared with it; and only a run as the default branch describes it can be one.
            failed = [verdict for verdict in record.verdicts if verdict.outcome == "fail"]
            moves = all(verdict.movable for verdict in failed) and not record.overrides and not voice.at_terminal
            accept = f" Where it is meant, `{voice.word} baseline accept {record.run_key[:8]}` moves the baseline." if moves else ""
            return f"The program ended well: what it measured is worse than the policy lets pass.{accept} {again}"
        case State.SUCCEEDED if SET_ASIDE in record.results_problem:
            return f"Look at `{record.run_dir}`: one of its files is not what this version can deal with. {again}"
        case State.SUCCEEDED if record.results_problem:
            return f"{_results_step(record)} {again}"
        case State.TIMEOUT:
            limit = duration(record.resources.seconds)
            if record.not_continued == NOTHING_SAVED:
                return f"Let the script save its state more often than every {limit}, there where its recipe's `chain` says. {again}"
            if record.not_continued == GIVEN_UP:
                return again
            if record.not_continued == JOBS_USED:
                most = f"{record.resources.jobs} × {limit}"
                return f"It needs more than {most}: ask for less work, or raise `jobs` in the chain of recipe `{record.recipe}`."
            return f"It needs more than its {limit}: ask for less work, or raise `time` in profile `{record.profile}`."
        case State.NODE_FAIL | State.PREEMPTED:
            return f"This is the machine, not the change. {again}"
        case State.CANCELLED:
            return again
        case State.LOST:
            return f"Its end is unknown, so it does not count as passed. Look at the log on the cluster (`{record.run_dir}/logs`). {again}"
        case _:
            return ""


def _results_step(record: RunRecord) -> str:
    """What to do about results that are not there, or cannot be used."""
    if record.results_problem == NO_RESULTS:
        return f"Write {code(record.results_path.removeprefix('code/'))}, the results file that the recipe `{record.recipe}` promises."
    path = record.wandb_summary_path if record.results_problem.startswith(OF_SUMMARY) else record.results_path
    return f"Mend what the job writes into {code(path.removeprefix('code/'))}: [what it may hold]({DOCS}/profiles.md#results)."


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
    lines += _table(record, now, log_url, voice)
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


def _not_run_again(record: RunRecord, voice: Voice) -> tuple[str, str]:
    """Whose end, or job, it has, with links to that run's report and its commit: a row of the table."""
    home = f"{voice.server_url}/{record.target.repository}"
    key, sha = f"`{record.same_as[:8]}`", f"`{record.same_sha[:7]}`"
    if not voice.at_terminal:
        key = f"[{key}]({home}/{record.same_report})" if record.same_report else key
        sha = f"[{sha}]({home}/commit/{record.same_sha})"
    same = "the same files, profile, recipe and overrides"
    title, words = (
        ("Shared job", f"that of run {key} of {sha}: {same}") if record.joined else ("Not run again", f"{same} as run {key} of {sha}")
    )
    # For the queue's commit nobody can give a command.
    again = "" if record.target.merge_queue else f"; `fresh=true` {'gives it one of its own' if record.joined else 'runs them once more'}"
    return title, f"♻️ {words}{again}"


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


def links(record: RunRecord) -> str:
    """Where more can be read, for a table's cell."""
    found = (("log", record.log_url), ("W&B", record.wandb_url))
    return " · ".join(f"[{name}]({url})" for name, url in found if url)


def _table(record: RunRecord, now: datetime, log_url: str | None, voice: Voice) -> list[str]:
    repository, sha = record.target.repository, record.sha
    commit = f"`{sha[:7]}`" if voice.at_terminal else f"[`{sha[:7]}`]({voice.server_url}/{repository}/commit/{sha})"
    what = f"`{record.name}` ({code(record.program)}) at {commit}"
    if record.uncommitted:
        what += f" {WITH_CHANGES}"
    if record.overrides:
        what += " · " + " ".join(code(override) for override in record.overrides)
    asked = record.resources
    where = [f"`{record.profile}`"]
    if asked.partition:
        where.append(f"partition {neutralise(asked.partition)}")
    where.append(f"{asked.nodes} × {plural(asked.gpus_per_node, 'GPU')}" if asked.gpus_per_node else plural(asked.nodes, "node"))
    if asked.seconds:
        where.append(longest_words(asked))
    if record.nodes:
        where.append(f"on {code(record.nodes)}")
    when = [f"asked by {code(record.actor)} {clock(record.asked_at, now)}"]
    if record.approved_by:
        when.append(f"approved by {code(record.approved_by)}")
    if record.retry_of:
        when.append(attempt_words(record))
    when += _earlier_jobs(record)
    if record.state is State.PENDING and record.queue_place and record.queue_length:
        when.append(f"place {record.queue_place:,} of {record.queue_length:,} in the partition's queue")
    if record.state is State.PENDING and record.estimated_start and record.estimated_start > now:
        when.append(f"the scheduler estimates a start at {clock(record.estimated_start, now)}")
    if record.started_at and record.state is not State.PENDING:
        when.append(f"started {clock(record.started_at, now)}")
    if record.ended_at:
        when.append(f"ended {clock(record.ended_at, now)}")
    rows = [("What", what), ("Where", " · ".join(where)), ("When", " · ".join(when))]
    if record.place and (after := after_words((member.stage for member in record.before), record.place.when)):
        rows.insert(1, ("After", after))
    if record.same_as:
        rows.append(_not_run_again(record, voice))
    if record.job_id:
        rows.append(("Job", f"`{record.job_id}` on {code(record.cluster)}"))
    if record.state is not State.QUEUED and (record.job_id or record.state not in (State.CANCELLED, State.SKIPPED)):
        rows.append(("Log", f"[open the log]({log_url})" if log_url else code(f"{record.run_dir}/logs")))
    if record.wandb_url:
        rows.append(("W&B", f"[open the run]({record.wandb_url})"))
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def attempt_words(record: RunRecord) -> str:
    """Which attempt it is, in Markdown, and what became of the one before where that is why."""
    if record.repeats is None:
        return f"attempt {record.attempt}, after run {code(record.retry_of[:8])}"
    after = f"after run {code((record.repeats.of or record.retry_of)[:8])}"
    node = f" on {code(record.repeats.node)}" if record.repeats.node else ""
    kept_off = f", without {', '.join(code(name) for name in record.repeats.without)}" if record.repeats.without else ""
    return f"{record.repeats.words}, {after} failed: {record.repeats.why}{node}{kept_off}"


def _earlier_jobs(record: RunRecord) -> list[str]:
    """The jobs that the newest one continues, in Markdown: the first and the last of many."""
    told = [
        f"`{job.job_id}` ({f'{duration(job.seconds)}, ' if job.seconds is not None else ''}{CAUSES[job.cause].kind.value})"
        if job.cause in CAUSES
        else f"`{job.job_id}`" + (f" ({duration(job.seconds)})" if job.seconds is not None else "")
        for job in record.earlier_jobs
    ]
    if not told:
        return []
    return [f"goes on after job{'s' if len(told) > 1 else ''} {', '.join(told if len(told) < 5 else [*told[:2], '…', *told[-2:]])}"]


def longest_words(asked: Resources) -> str:
    """How long a run may take, and what that costs: `at most 4h = 64 GPU-hours`."""
    hours = f" = {number(asked.gpu_hours)} GPU-hours" if asked.gpu_hours else ""
    jobs = f"{asked.jobs} jobs of {duration(asked.seconds)}, one after the other" if asked.jobs > 1 else duration(asked.seconds)
    return f"at most {jobs}{hours}"


def after_words(stages: Iterable[str], when: When) -> str:
    """What a stage waits for, in Markdown: `pretrain`, or that `pretrain` fails; empty for what waits for none."""
    names = [f"`{stage}`" for stage in stages]
    one = len(names) == 1
    ends = {"afterok": "", "afterany": " ends" if one else " end", "afternotok": " fails" if one else " fail"}
    return " and ".join(names) + ends.get(when, ", task by task") if names else ""


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
