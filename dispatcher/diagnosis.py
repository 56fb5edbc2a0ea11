"""How a job ended, and the end of its log → why it failed.

The scheduler goes first: what it says of time, nodes, preemption, memory and cancelling is believed whatever the log says, and nothing
else is believed about those. Then the log: what makes exceptions (a GPU's fault, memory, a disk) before the exceptions themselves, and
those before what follows from them on other ranks (NCCL, lost connections). Where the log says no more than that, what Slurm has said in
the batch script's log. Then the exit status. A log can say what it likes: it is the job's own word, and no gate passes for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dispatcher.batchlog import BatchLog, read_batch_log
from dispatcher.failure import CAUSES, MAX_EVIDENCE, MAX_PLACES, Failure, blames_machine
from dispatcher.logsigns import WRAPPERS, Rank, Sign, is_mistake, of_exception, of_line, of_shell
from dispatcher.slurm import CANCELLED_BY, State
from dispatcher.traceback_lines import Frame, Line, Traceback, lines_of, tracebacks

# Tracebacks with fewer ordinary lines between them belong to one end; what lies farther back was survived.
_BURST = 25
# Without a traceback so many lines of the log's end may say why.
_WINDOW = 400
# A script that a shell's complaint ends says no more than so many lines.
_LAST_WORDS = 2
# Without any exception, what has stood farther from the log's end than so many lines did not end the program.
_NEAR_END = 40
# Before the first traceback of the end, so many lines may say what led to it.
_LEAD = 80

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
# Who can end processes, or knows that the hardware did, whatever those have written before.
_BY_OTHERS = re.compile(
    r"(?:slurmstepd(?:-\S{1,80})?|srun): |pyxis: |enroot-|\[ERROR\] |nvidia-container-cli: |dispatch: |NVRM: |\[ *\d+\.\d+\] |"
    r"(?:\S{1,60} \S{1,60} kernel: )?(?:Memory cgroup o|O)ut of memory: Killed process"
)
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


@dataclass(frozen=True)
class _Found:
    """Something in the log that may be why."""

    sign: Sign
    line: Line
    traceback: Traceback | None = None


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
    found = _in_log(lines, not end.by_scheduler, end.exit_code)
    if batch.sign is not None and (found is None or (not _settles(found.sign) and batch.sign.rank < found.sign.rank)):
        return Diagnosis(_failure(batch.sign.cause, batch.evidence, "batch log", batch=batch))
    # Even a weak sign, such as that of a signal, names the process: it says more than the exit status that came of it.
    return _of_log(found) if found is not None else _by_status(end, batch)


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


def _in_log(lines: Sequence[Line], scheduler_is_silent: bool, exit_code: int | None) -> _Found | None:
    """What goes before all others, and of equals what came first."""
    everything = [one for one in tracebacks(lines) if not _went_on(one, lines)]
    burst = _burst(everything, lines)
    inside = {number for one in everything for number in range(one.first, one.last + 1) if lines[number].stream == one.stream}
    begin = max(0, burst[0].first - _LEAD) if burst else max(0, len(lines) - _WINDOW)
    raised = list(_raised(burst, lines))
    program = any(item.sign.rank is Rank.PROGRAM for item in raised)
    found = list(raised)
    for line in lines[begin:]:
        sign = of_line(line.text, scheduler_is_silent) if line.number not in inside else None
        if sign is None or not (burst or _counts_alone(line, lines, exit_code)):
            continue
        # What a shell or a library said before the program stopped of itself did not stop it; who can end processes did, perhaps.
        early = program and line.number < burst[0].first and _BY_OTHERS.match(line.text) is None
        found.append(_Found(Sign(sign.cause, max(sign.rank, Rank.CONSEQUENCE)) if early else sign, line))
    if mistake := next((item for item in raised if item.traceback and is_mistake(item.traceback.name)), None):
        # The interpreter says whose it is: nothing that was written before it made the program's mistake.
        found = [item for item in found if item.traceback is not None or item.line.number > mistake.line.number]
    return min(found, key=lambda item: (item.sign.rank, item.line.number), default=None)


def _raised(burst: Sequence[Traceback], lines: Sequence[Line]) -> Iterator[_Found]:
    """What each traceback of the end says, but for what was survived: the process went on, and stopped by something else."""
    signs = [_sign_of(one, lines) for one in burst]
    for position, (one, sign) in enumerate(zip(burst, signs, strict=True)):
        later = list(zip(burst[position + 1 :], signs[position + 1 :], strict=True))
        follower = later[0][0] if later else None
        led_on = follower is not None and follower.stream == one.stream and _is_led_on(one, follower)
        if sign is None or (sign.cause == "exception" and led_on):
            continue
        again = next(((other, its) for other, its in later if other.stream == one.stream and not other.after), None)
        words = sum(_is_ordinary(line) for line in _later(one, lines) if again is None or line.number < again[0].first)
        survived = words > 0 and again is not None and again[1] is not None and again[1].rank <= Rank.PROGRAM
        # The machine is blamed for an end, and never for what the program may have got over.
        if survived or (blames_machine(sign.cause) and words):
            continue
        yield _Found(sign, lines[one.last], one)


def _sign_of(one: Traceback, lines: Sequence[Line]) -> Sign | None:
    """What one traceback says; None for a launcher's, which says that another process failed."""
    sign = of_exception(one.name, one.message + _more(one, lines))
    if sign is None and one.name.rpartition(".")[2] not in WRAPPERS:
        return Sign("exception", Rank.PROGRAM)
    return sign


def _went_on(one: Traceback, lines: Sequence[Line]) -> bool:
    """Whether it is certain that the program was not ended by it: nobody heard of the exception, or it was one thread's."""
    return one.ignored or (one.in_thread and any(_is_ordinary(line) for line in _later(one, lines)))


def _later(one: Traceback, lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines[one.last + 1 :] if line.stream == one.stream]


def _counts_alone(line: Line, lines: Sequence[Line], exit_code: int | None) -> bool:
    """Whether a line may say why where no exception does: near the end of the log, and of a shell's only with a shell's exit status."""
    if _BY_OTHERS.match(line.text):
        return True
    after = sum(_is_ordinary(other) for other in lines[line.number + 1 :])
    if of_shell(line.text):
        return after <= _LAST_WORDS or exit_code in (126, 127)
    return after <= _NEAR_END


def _is_led_on(one: Traceback, follower: Traceback) -> bool:
    """Whether the next one says more: the program went on to it from this one, or this one tells of it (as PyTorch's workers do)."""
    return follower.after or re.match(r"Caught \w{1,80} in ", one.message) is not None


def _burst(all_of_them: Sequence[Traceback], lines: Sequence[Line]) -> list[Traceback]:
    """The tracebacks of the log's end, in their order: between them are few lines in which anything else went on."""
    burst: list[Traceback] = []
    for one in reversed(all_of_them):
        between = lines[one.last + 1 : burst[-1].first] if burst else lines[one.last + 1 :]
        if sum(_is_ordinary(line) for line in between) > _BURST:
            # With nothing after it but ordinary lines, the last one was survived, too.
            break
        burst.append(one)
    return burst[::-1]


# C++ frames, torchrun's and Slurm's own words, tables of a failure: they belong to the end of a program.
_AFTERMATH = re.compile(
    r"\s|frame #\d+:|[WEI]\d{3,4} |\[[WEI]\d{3,4} |\[[WE] |(?:WARNING|ERROR|INFO):torch|slurmstepd|srun:|[=-]{5,}|.{0,200} FAILED$|"
    r"wandb: |Exception ignored in|Exception in thread|Set the environment variable HYDRA_FULL_ERROR|"
    r"Failures:|Root Cause|\[\d+\]:|terminate called|Exception raised from|For debugging consider|CUDA kernel errors|Compile with|"
    r"\S+:\d+:\d+ \[\d+\] NCCL"
)


def _is_ordinary(line: Line) -> bool:
    return bool(line.text) and _AFTERMATH.match(line.text) is None


def _more(one: Traceback, lines: Sequence[Line]) -> str:
    """What an exception's message says in its second and third line: NCCL's kind of error stands there."""
    after = [line.text for line in lines[one.last + 1 : one.last + 6] if line.stream == one.stream][:3]
    return "".join(f" {text[:300]}" for text in after if text and _FOLLOWS.match(text))


_FOLLOWS = re.compile(r"(?:nccl\w+Error|Last error|\S+: call to \S+ returned)")


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


def _of_log(found: _Found) -> Diagnosis:
    one, settled = found.traceback, _settles(found.sign)
    if one is None:
        return Diagnosis(_failure(found.sign.cause, found.line.text, "log", rank=found.line.rank), settled=settled)
    failure = _failure(found.sign.cause, one.text, "log", one.name.rpartition(".")[2], one.rank)
    return Diagnosis(failure, one.frames[-MAX_PLACES:], settled)


def _failure(cause: str, evidence: str, said_by: str, error: str = "", rank: int | None = None, batch: BatchLog | None = None) -> Failure:
    line = " ".join(evidence.split())
    short = line if len(line) <= MAX_EVIDENCE else line[: MAX_EVIDENCE - 1] + "…"
    around = batch.around(evidence) if batch is not None else ""
    kind = CAUSES[cause].kind
    return Failure(kind=kind, cause=cause, evidence=short, said_by=said_by, around=around, error=error, rank=rank)  # type: ignore[arg-type]
