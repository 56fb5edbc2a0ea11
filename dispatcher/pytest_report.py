"""The lines of one rank → the tracebacks in pytest's reports, of tests that failed and of modules that could not be collected.

pytest writes `E   ValueError: …` and then, at the left edge, `tests/test_x.py:5: ValueError`; with `--tb=short` the frames first.
https://docs.pytest.org/en/stable/how-to/output.html#modifying-python-traceback-printing
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dispatcher.traceback_parts import RAISED, Frame, Line, Traceback

_TEST_FRAME = re.compile(
    r"(?P<path>[^\s:<>][^:<>]{0,998}\.py):(?P<line>\d{1,9}):(?: in (?P<name>\S{1,200})| (?P<raised>[A-Za-z_][\w.]{0,200}))?$"
)
_TEST_SAYS = re.compile(r"E {2,}(?P<text>\S.*)$")
_TEST_RULE = re.compile(r"(?:=|_){3,}")


def failed_tests(lines: Sequence[Line]) -> Iterator[Traceback]:
    """pytest's, of tests and of modules that could not be collected."""
    frames: list[Frame] = []
    told: Line | None = None
    for line in lines:
        says, frame = _TEST_SAYS.match(line.text), _TEST_FRAME.match(line.text)
        if says is not None:
            told = told or line
            continue
        if frame is not None:
            frames.append(Frame(frame["path"], int(frame["line"]), frame["name"] or ""))
        ended = frame is not None and frame["raised"] is not None and told is not None
        if told is not None and frames and (ended or _TEST_RULE.match(line.text)):
            yield _of_test(told, line if ended else told, frames, frame["raised"] if ended and frame is not None else "")
        if ended or _TEST_RULE.match(line.text):
            frames, told = [], None


def _of_test(told: Line, last: Line, frames: Sequence[Frame], raised: str) -> Traceback:
    says = _TEST_SAYS.match(told.text)
    text = says["text"] if says is not None else ""
    line = RAISED.match(text)
    named = line is not None and (line["name"].rpartition(".")[2] == raised.rpartition(".")[2] or not raised)
    name, message = (line["name"], (line["message"] or "").strip()) if line is not None and named else (raised or "AssertionError", text)
    return Traceback(told.number, last.number, told.stream, told.rank, tuple(frames), name, message, after=False, of_test=True)
