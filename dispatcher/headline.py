"""A run's record → how it stands in one line, and what its reader can do now."""

from __future__ import annotations

from datetime import datetime

from dispatcher.answer import DOCS, Voice
from dispatcher.chain import GIVEN_UP, JOBS_USED, NOTHING_SAVED
from dispatcher.failurereport import title_of
from dispatcher.phrases import duration, plural
from dispatcher.record import RunRecord
from dispatcher.results import NO_RESULTS
from dispatcher.slurm import State
from dispatcher.untrusted import code
from dispatcher.wandbsummary import OF_SUMMARY

SET_ASIDE = "cluster.set-aside"
"""Stands in the results' problem of a run that could not be looked at: its end is told without what it left behind."""


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
