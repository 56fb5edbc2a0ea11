"""The lines of a log → the one of them that says why it ended: an exception, or what Slurm, CUDA, NCCL or a shell has written.

Logs are full of what was survived: a tracker that could not be reached, a command that the profile's shell lacks, noise while the
interpreter goes down. And a failure of the machine's is run again, which costs GPU-hours: it is believed only where nothing speaks
against it.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from dispatcher.causes import CAUSES, Kind, blames_machine
from dispatcher.exceptionsigns import WRAPPERS, Rank, Sign, is_mistake, of_exception
from dispatcher.logsigns import of_line, of_shell
from dispatcher.traceback_lines import tracebacks
from dispatcher.traceback_parts import Line, Traceback

# Tracebacks with fewer ordinary lines between them belong to one end; what lies farther back was survived.
_BURST = 25
# Without a traceback so many lines of the log's end may say why.
_WINDOW = 400
# A script that a shell's complaint ends says no more than so many lines.
_LAST_WORDS = 0
# Without any exception, what has stood farther from the log's end than so many lines did not end the program.
_NEAR_END = 40
# Before the first traceback of the end, so many lines may say what led to it.
_LEAD = 80

# Who can end processes, or knows that the hardware did, whatever those have written before.
_BY_OTHERS = re.compile(
    r"(?:slurmstepd(?:-\S{1,80})?|srun): |pyxis: |enroot-|\[ERROR\] |nvidia-container-cli: |dispatch: |NVRM: |\[ *\d+\.\d+\] |"
    r"(?:\S{1,60} \S{1,60} kernel: )?(?:Memory cgroup o|O)ut of memory: Killed process"
)


# How PyTorch's data loader tells of what a worker of its has raised; the worker's own traceback follows.
_TOLD_OF = re.compile(r"Caught \w{1,80} in ")
# tqdm draws its bar once more when the interpreter goes down: with the same count as before, nothing went on.
_BAR = re.compile(r".{0,80}\d%\|.{0,200}\| ?(?P<count>\d{1,12}/\d{1,12}) \[")


@dataclass(frozen=True)
class Found:
    """Something in the log that may be why."""

    sign: Sign
    line: Line
    traceback: Traceback | None = None


def in_log(lines: Sequence[Line], scheduler_is_silent: bool, exit_code: int | None) -> Found | None:
    """What goes before all others, and of equals what came first; None where nothing says why."""
    printed = tracebacks(lines)
    inside = _inside(lines, printed)
    course = _Course(lines, inside)
    everything = [one for one in printed if not _went_on(one, course)]
    burst = _burst(everything, lines)
    begin = max(0, burst[0].first - _LEAD) if burst else max(0, len(lines) - _WINDOW)
    signs = [_sign_of(one, lines) for one in burst]
    raised = list(_raised(burst, signs, lines, course))
    program = any(item.sign.rank <= Rank.PROGRAM for item in raised)
    found, ended = list(raised), list[Sign]()
    for line in lines[begin:]:
        sign = of_line(line.text, scheduler_is_silent) if line.number not in inside else None
        if sign is None or not (burst or _counts_alone(line, lines, exit_code)):
            continue
        # What a shell or a library said before the program stopped of itself did not stop it; who can end processes did, perhaps.
        early = bool(raised) and line.number < burst[0].first and _BY_OTHERS.match(line.text) is None
        if not (early and of_shell(line.text)):
            ended.append(sign)
            found.append(Found(Sign(sign.cause, max(sign.rank, Rank.CONSEQUENCE)) if early and program else sign, line))
    if mistake := next((item for item in raised if item.traceback and is_mistake(item.traceback.name)), None):
        # The interpreter says whose it is: nothing that was written before it made the program's mistake.
        found = [item for item in found if item.traceback is not None or item.line.number > mistake.line.number]
    best = min(found, key=lambda item: (item.sign.rank, item.line.number), default=None)
    if best is None or not blames_machine(best.sign.cause):
        return best
    if any(_is_programs(sign, best.sign) for sign in ended) or _is_disputed(best, burst, signs):
        return Found(Sign("disputed", Rank.WEAK), best.line, best.traceback)
    return best


def last_words(lines: Sequence[Line]) -> Found | None:
    """What the program said at last where that does not say why: that a command of its own failed, that it was asked to end."""
    told = [one for one in tracebacks(lines) if one.name.rpartition(".")[2] in _LAST and not one.ignored]
    if not told:
        return None
    asked = told[-1].name.endswith("SignalException") and told[-1].message.endswith("got signal: 15")
    return Found(Sign("terminated" if asked else "exit-status", Rank.WEAK), lines[told[-1].last], told[-1])


_LAST = WRAPPERS - {"ChildFailedError", "SystemExit"}


def _raised(burst: Sequence[Traceback], signs: Sequence[Sign | None], lines: Sequence[Line], course: _Course) -> Iterator[Found]:
    """What each traceback of the end says, but for what was survived: the process went on, and stopped by something else."""
    for position, (one, sign) in enumerate(zip(burst, signs, strict=True)):
        follower = burst[position + 1] if position + 1 < len(burst) else None
        led_on = follower is not None and follower.stream == one.stream and _is_led_on(one, follower)
        if sign is None or (sign.cause == "exception" and led_on and signs[position + 1] is not None):
            continue
        later = range(position + 1, len(burst))
        again = next((at for at in later if burst[at].stream == one.stream and not burst[at].after), None)
        went_on = course.went_on(one, None if again is None else burst[again].first)
        its = signs[again] if again is not None else None
        if went_on and its is not None and its.rank <= Rank.PROGRAM and not one.of_test:
            continue
        # The machine is blamed for an end, and never for what the program may have got over: that is shown where nothing else is.
        doubtful = blames_machine(sign.cause) and went_on
        yield Found(Sign("disputed", Rank.WEAK) if doubtful else sign, lines[one.last], one)


def _is_disputed(best: Found, burst: Sequence[Traceback], signs: Sequence[Sign | None]) -> bool:
    """Whether the program has failed by itself as well, be it that it seems to have survived that."""
    for one, sign, follower in zip(burst, signs, (*burst[1:], None), strict=False):
        if sign is None or one is best.traceback or not _is_programs(sign, best.sign):
            continue
        if follower is not None and follower.stream == one.stream and _TOLD_OF.match(one.message):
            continue
        # `raise CheckpointError(...) from error` only tells of the machine's in the program's words.
        wraps = best.traceback is not None and one.after and one.stream == best.traceback.stream and one.first > best.traceback.last
        if not (wraps and not is_mistake(one.name)):
            return True
    return False


def _is_programs(sign: Sign, best: Sign) -> bool:
    """Whether it is the program's; an error of a GPU program is what a faulty GPU makes, too."""
    cause = CAUSES[sign.cause]
    kinds = (Kind.IMPORT,) if best.cause == "gpu-fault" else (Kind.IMPORT, Kind.CODE)
    return sign.rank <= Rank.PROGRAM and (cause.blames == "change" or cause.kind in kinds)


def _inside(lines: Sequence[Line], printed: Sequence[Traceback]) -> set[int]:
    """The numbers of the lines that belong to a traceback; others of another rank may stand between them."""
    streams: dict[str, list[int]] = {}
    for line in lines:
        streams.setdefault(line.stream, []).append(line.number)
    numbers = ((streams.get(one.stream, []), one) for one in printed)
    return {number for of, one in numbers for number in of[bisect_left(of, one.first) : bisect_right(of, one.last)]}


class _Course:
    """Where each process went on: the numbers of its ordinary lines, by its stream. What is in a traceback is none."""

    def __init__(self, lines: Sequence[Line], inside: Set[int]) -> None:
        self._ordinary: dict[str, list[int]] = {}
        bars: dict[str, str] = {}
        for line in lines:
            bar = _BAR.match(line.text)
            before = bars.get(line.stream)
            if bar is not None:
                bars[line.stream] = bar["count"]
            moved = _is_ordinary(line) if bar is None else before is not None and bar["count"] != before
            if moved and line.number not in inside:
                self._ordinary.setdefault(line.stream, []).append(line.number)

    def went_on(self, one: Traceback, until: int | None = None) -> bool:
        """Whether anything ordinary follows the traceback, before the line `until`."""
        numbers = self._ordinary.get(one.stream, [])
        at = bisect_right(numbers, one.last)
        return at < len(numbers) and (until is None or numbers[at] < until)


def _sign_of(one: Traceback, lines: Sequence[Line]) -> Sign | None:
    """What one traceback says; None for a launcher's, which says that another process failed."""
    sign = of_exception(one.name, one.message + _more(one, lines))
    if sign is None and one.name.rpartition(".")[2] not in WRAPPERS:
        return Sign("exception", Rank.PROGRAM)
    return sign


def _went_on(one: Traceback, course: _Course) -> bool:
    """Whether it is certain that the program was not ended by it: nobody heard of the exception, or it was one thread's."""
    return one.ignored or (one.in_thread and (course.went_on(one) or _AT_EXIT.match(one.message) is not None))


# What a thread says that outlives the interpreter.
_AT_EXIT = re.compile(r"cannot schedule new futures after (?:interpreter )?shutdown|can't create new thread at interpreter shutdown")


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
    return follower.after or _TOLD_OF.match(one.message) is not None


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
    r"wandb:|\++ |During handling of the above|"
    r"The above exception was the|\S+:\d+: \w{0,40}Warning: |Exception ignored in|Exception in thread|"
    r"Set the environment variable HYDRA_FULL_ERROR|Search for `cuda|nccl\w+: |Last error:|Cuda failure |"
    r"We had to rate limit your IP|For more information check: |"
    r"You have exceeded |Internal Error - We're working|The request is taking longer|"
    r"Failures:|Root Cause|\[\d+\]:|terminate called|Exception raised from|For debugging consider|CUDA kernel errors|Compile with|"
    r"\S+:\d+:\d+ \[\d+\] NCCL"
)


def _is_ordinary(line: Line) -> bool:
    return bool(line.text) and _AFTERMATH.match(line.text) is None


def _more(one: Traceback, lines: Sequence[Line]) -> str:
    """What an exception's message says in its second and third line: NCCL's kind of error stands there."""
    after = [line.text for line in lines[one.last + 1 : one.last + 6] if line.stream == one.stream][:3]
    told = [text for text, before in zip(after, ["", *after], strict=False) if _FOLLOWS.match(text) or before == "Last error:"]
    return "".join(f" {text[:300]}" for text in told)


_FOLLOWS = re.compile(r"(?:nccl\w+Error|ncclInvalidUsage|Last error|\S+: call to \S+ returned)")
