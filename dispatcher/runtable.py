"""A run's record → the table in its comment: what runs, where, when, as which job, with which log."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from dispatcher.answer import Voice
from dispatcher.causes import CAUSES
from dispatcher.phrases import WITH_CHANGES, clock, duration, number, plural
from dispatcher.pipeline import When
from dispatcher.record import Resources, RunRecord
from dispatcher.slurm import State
from dispatcher.untrusted import code, neutralise


def run_table(record: RunRecord, now: datetime, log_url: str | None, voice: Voice) -> list[str]:
    """The table's lines, in Markdown. `log_url` is where the log can be opened, where that is known."""
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


def links(record: RunRecord) -> str:
    """Where more can be read, for a table's cell."""
    found = (("log", record.log_url), ("W&B", record.wandb_url))
    return " · ".join(f"[{name}]({url})" for name, url in found if url)


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
