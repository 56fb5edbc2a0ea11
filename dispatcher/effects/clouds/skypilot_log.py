"""A job's log as SkyPilot shows it → the log as the program wrote it, and the exit code that stands at its end.

https://github.com/skypilot-org/skypilot/blob/master/sky/skylet/log_lib.py: a line begins with `(name, pid=12)`, of a job with several
nodes with `(head, rank=0, pid=12)` and `(worker1, rank=1, pid=12, ip=10.0.0.3)`.
"""

from __future__ import annotations

import re

from dispatcher.launch import RESULTS_MARK
from dispatcher.untrusted import strip_ansi

_HEAD = re.compile(r"(?m)^\((?:head, rank=0|dispatch-[0-9a-f]{16}), pid=[0-9]+(?:, ip=[0-9a-f.:]+)?\) ?")
_WORKERS_RESULTS = re.compile(rf"(?m)^\(worker[0-9]+, rank=[0-9]+, [^)\n]*\) {RESULTS_MARK}[^\n]*\n?")
_CODES = re.compile(r"failed with return code list: *\[([-0-9, ]+)\]")


def readable(log: str) -> str:
    """The head node's lines without SkyPilot's mark, so that its results are found; the others' results are not the run's."""
    return _WORKERS_RESULTS.sub("", _HEAD.sub("", strip_ansi(log)))


def exit_code(log: str) -> int | None:
    """The exit code of the node that failed, None where the log does not say. What SkyPilot ended because of it has 137."""
    found = _CODES.findall(strip_ansi(log))
    codes = [int(code) for code in found[-1].split(",") if code.strip().lstrip("-").isdigit()] if found else []
    return next((code for code in codes if code not in (0, 137)), next((code for code in codes if code), None))
