"""The end of a batch script's log → what Slurm says there of the job's end, without what else the script printed.

A program's output, and what slurmstepd says of its step, is in the log that `srun --output` names (`log-*.out`). What srun itself says
(which task ended how, on which node), and slurmstepd of the whole job, is only in the script's own (`sbatch_*.out`), among the lines of
its setup: https://slurm.schedmd.com/srun.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dispatcher.exceptionsigns import Rank, Sign
from dispatcher.logsigns import of_line
from dispatcher.traceback_lines import lines_of

# So many lines of Slurm's, and so much of each, are kept for a comment.
_SHOWN, _WIDTH = 10, 200
_SLURMS = re.compile(r"(?:srun|slurmstepd(?:-\S{1,80})?): ")
_TASK_ENDED = re.compile(r"srun: error: \S{1,100}: tasks? [\d,\[\]-]{1,80}: (?P<how>.+)")
# From here on srun ends what still runs: how those tasks end says nothing.
_ENDING = re.compile(
    r"srun: (?:launch/slurm: _step_signal: Terminating|Terminating |Force Terminated|Job step aborted|forcing job termination|got SIG)"
)


@dataclass(frozen=True)
class BatchLog:
    """Slurm's lines of it, in their order; the first sign in them that goes before all others, and the line that has it."""

    lines: tuple[str, ...] = ()
    sign: Sign | None = None
    evidence: str = ""
    task_ended: str = ""
    """How the first task ended, where one ended by itself: `srun: error: n2: task 1: Exited with exit code 9`."""

    def around(self, line: str) -> str:
        """Some of the lines, that one among them."""
        at = self.lines.index(line) if line in self.lines else len(self.lines)
        first = max(0, min(at - _SHOWN // 2, len(self.lines) - _SHOWN))
        return "\n".join(one[:_WIDTH] for one in self.lines[first : first + _SHOWN])


def read_batch_log(log: str, scheduler_is_silent: bool) -> BatchLog:
    """The end of the log, redacted already → what Slurm says in it; never raises."""
    lines = tuple(line.text for line in lines_of(log) if _SLURMS.match(line.text))
    ending = next((number for number, line in enumerate(lines) if _ENDING.match(line)), len(lines))
    first = next((number for number, line in enumerate(lines[:ending]) if _TASK_ENDED.match(line)), None)
    found = min(_signs(lines, first, scheduler_is_silent), key=lambda item: (item[0].rank, item[1]), default=None)
    ended = lines[first] if first is not None else ""
    return BatchLog(lines, found[0] if found else None, lines[found[1]] if found else "", ended)


def _signs(lines: tuple[str, ...], first: int | None, scheduler_is_silent: bool) -> Iterator[tuple[Sign, int]]:
    ended = _TASK_ENDED.match(lines[first]) if first is not None else None
    by_itself = ended is not None and ended["how"].startswith("Exited with exit code")
    for number, line in enumerate(lines):
        sign = of_line(line, scheduler_is_silent)
        if sign is None or (sign.rank is Rank.WEAK and number != first):
            continue
        if sign.cause == "step" and by_itself:
            continue  # it has begun all the same
        yield sign, number
