"""How a job ended, and the end of its log → why it failed.

The scheduler goes first: what it says of time, nodes, preemption, memory and cancelling is believed whatever the log says, and nothing
else is believed about those. Then the log (`logending.py`): what makes exceptions (a GPU's fault, memory, a disk) before the exceptions
themselves, and those before what follows from them on other ranks (NCCL, lost connections). Where the log says no more than that, what
Slurm has said in the batch script's log. Then the exit status. A log can say what it likes: it is the job's own word, and no gate passes
for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.batchlog import BatchLog, read_batch_log
from dispatcher.causes import CAUSES
from dispatcher.exceptionsigns import Rank, Sign
from dispatcher.failure import MAX_EVIDENCE, MAX_PLACES, Failure
from dispatcher.logending import Found, in_log, last_words
from dispatcher.slurm import CANCELLED_BY, State
from dispatcher.traceback_lines import MAX_LINE, lines_of
from dispatcher.traceback_parts import Frame, Line

# Where the exception's own line is very long, so many lines before it, and so much of each, are kept for a comment.
_BEFORE, _WIDTH = 9, 200

_NEVER_BEGAN = re.compile(r"DependencyNeverSatisfied|stage \S{1,100} ")
_REASONS = (
    (re.compile(r"JobLaunchFailure|RaisedSignal:53|launch failed|Prolog", re.IGNORECASE), "not-started"),
    (re.compile(r"SystemFailure|NodeDown|BootFail", re.IGNORECASE), "scheduler-failure"),
)
_STATES = {
    State.TIMEOUT: "time-limit",
    State.PREEMPTED: "preempted",
    State.NODE_FAIL: "node-failed",
    State.OUT_OF_MEMORY: "host-memory-limit",
    State.LOST: "lost",
}
# 128 + the signal's number is what a shell makes of a signal; https://tldp.org/LDP/abs/html/exitcodes.html.
_STATUS = {126: "not-executable", 127: "command-missing", 143: "terminated"}
_SIGNALS = {4: "crash", 6: "crash", 7: "shared-memory", 8: "crash", 9: "killed", 11: "crash", 15: "terminated", 53: "not-started"}
_SLURMSTEPD = re.compile(
    r"slurmstepd(?:-\S+)?: error: \*\*\* |slurmstepd(?:-\S+)?: error: Detected \d+ oom|srun: error: \S+: tasks? \S+: Out Of"
)


@dataclass(frozen=True)
class End:
    """What is known of a job's end without its log. `by_scheduler`: somebody else than the job itself has said it."""

    state: State
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    by_scheduler: bool = True
    who: str = "scheduler"
    given_up: str = ""
    """Why somebody had the dispatcher end it."""


@dataclass(frozen=True)
class Diagnosis:
    """The failure, and the frames of its traceback, which are no lines of the repository yet; the raising one is last."""

    failure: Failure
    frames: tuple[Frame, ...] = ()
    settled: bool = False
    """The batch script's log cannot say more."""


def diagnose(end: End, log: str, batch_log: str = "") -> Diagnosis | None:
    """Why a job failed. None for one that has not ended, has ended with exit code 0, or was not needed. Both logs are redacted already.

    `batch_log` is the end of the batch script's log; what is in it changes nothing about what is `settled` without it.
    """
    if not end.state.ended or end.state in (State.SUCCEEDED, State.SKIPPED):
        return None
    lines = lines_of(log)
    batch = read_batch_log(batch_log, scheduler_is_silent=not end.by_scheduler)
    told = _by_scheduler(end, lines, batch)
    if told is not None:
        return told
    found = in_log(lines, not end.by_scheduler, end.exit_code)
    if batch.sign is not None and (found is None or (not _settles(found.sign) and batch.sign.rank < found.sign.rank)):
        return Diagnosis(_failure(batch.sign.cause, batch.evidence, "batch log", batch=batch))
    # Even a weak sign, such as that of a signal, names the process: it says more than the exit status that came of it.
    if found is not None:
        return _of_log(found, lines)
    by_status = _by_status(end, batch)
    last = last_words(lines) if by_status.failure.cause == "exit-status" else None
    return _of_log(last, lines) if last is not None else by_status


def _by_scheduler(end: End, lines: Sequence[Line], batch: BatchLog) -> Diagnosis | None:
    """What only the scheduler knows."""
    cause = next((cause for pattern, cause in _REASONS if end.by_scheduler and pattern.search(end.reason)), None)
    if end.state is State.CANCELLED and end.given_up:
        return Diagnosis(_failure("cancelled-here", end.given_up, "scheduler"))
    if end.state is State.CANCELLED and _NEVER_BEGAN.match(end.reason):
        cause = "dependency"
    elif end.state is State.CANCELLED and cause is None:
        user = re.search(rf"{CANCELLED_BY} (\d{{1,10}})\b", end.reason)
        cause = "cancelled" if user is None else "cancelled-by-root" if user[1] == "0" else "cancelled-by-user"
    if end.state in _STATES:
        cause = "evicted" if end.reason.lower() == "evicted" else _STATES[end.state]
    if cause is None:
        return None
    said_so = end.state in _STATES
    own = next((line.text for line in reversed(lines) if said_so and _SLURMSTEPD.match(line.text)), "")
    if not own and (line := next((line for line in reversed(batch.lines) if said_so and _SLURMSTEPD.match(line)), "")):
        return Diagnosis(_failure(cause, line, "scheduler", batch=batch))
    said = f"{end.who}: {end.state.value.replace('_', ' ')}{f' ({end.reason})' if end.reason else ''}"
    return Diagnosis(_failure(cause, own or said, "scheduler"), settled=bool(own) or not said_so)


def _settles(sign: Sign) -> bool:
    """What only followed, or names no more than a signal, may have its reason elsewhere."""
    return sign.rank < Rank.CONSEQUENCE


def _by_status(end: End, batch: BatchLog) -> Diagnosis:
    """What exit code and signal say by themselves; where Slurm has said it of a task, that names the task and its node."""
    signal = end.signal or (end.exit_code - 128 if end.exit_code is not None and 128 < end.exit_code < 192 else None)
    cause = _SIGNALS.get(signal or 0) or _STATUS.get(end.exit_code or 0) or "exit-status"
    said = f"signal {end.signal}" if end.signal else f"exit code {end.exit_code}" if end.exit_code is not None else ""
    if batch.task_ended:
        return Diagnosis(_failure(cause, batch.task_ended, "exit status", batch=batch))
    return Diagnosis(_failure(cause, said if cause != "exit-status" else "", "exit status"))


def _of_log(found: Found, lines: Sequence[Line]) -> Diagnosis:
    one, settled = found.traceback, _settles(found.sign)
    if one is None:
        failure = _failure(found.sign.cause, found.line.text, "log", rank=found.line.rank)
    else:
        failure = _failure(found.sign.cause, one.text, "log", one.name.rpartition(".")[2], one.rank)
    if len(found.line.text) >= MAX_LINE:
        # The log's end that is shown may have nothing but this line.
        around = "\n".join(line.text[:_WIDTH] for line in lines[max(0, found.line.number - _BEFORE) : found.line.number + 1])
        failure = failure.model_copy(update={"around": around})
    return Diagnosis(failure, one.frames[-MAX_PLACES:] if one is not None else (), settled)


def _failure(cause: str, evidence: str, said_by: str, error: str = "", rank: int | None = None, batch: BatchLog | None = None) -> Failure:
    line = " ".join(evidence.split())
    short = line if len(line) <= MAX_EVIDENCE else line[: MAX_EVIDENCE - 1] + "…"
    around = batch.around(evidence) if batch is not None else ""
    kind = CAUSES[cause].kind
    return Failure(kind=kind, cause=cause, evidence=short, said_by=said_by, around=around, error=error, rank=rank)  # type: ignore[arg-type]
