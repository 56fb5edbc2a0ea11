"""What a traceback is made of, however it is printed: the lines of a log, frames, the exception and what its line looks like."""

from __future__ import annotations

import re
from dataclasses import dataclass

RAISED = re.compile(r"(?P<name>(?:(?:[A-Za-z_]\w{0,79}|<locals>)\.){0,8}[A-Za-z_]\w{0,79})(?::\s?(?P<message>.*))?$", re.ASCII)


@dataclass(frozen=True)
class Line:
    """One line of a log without colours and its rank's label; `stream` tells the ranks apart, `rank` is None where it is not said."""

    number: int
    text: str
    stream: str = ""
    rank: int | None = None


@dataclass(frozen=True)
class Frame:
    """One call: the file as the interpreter wrote it, its line, the function."""

    path: str
    line: int
    name: str


@dataclass(frozen=True)
class Traceback:
    """One exception that was printed: `name` is the exception's with its modules; `after` says that it came of the one before it."""

    first: int
    last: int
    stream: str
    rank: int | None
    frames: tuple[Frame, ...]
    name: str
    message: str
    after: bool
    ignored: bool = False
    """It was raised where nobody is told of it (in `__del__`, in a thread that was let go): the program went on."""
    in_thread: bool = False
    """It ended one thread."""
    of_test: bool = False
    """A test runner tells of it afterwards: what stands behind it is its report, and no sign that the program went on."""

    @property
    def text(self) -> str:
        """The line in which the exception stands."""
        return f"{self.name}: {self.message}" if self.message else self.name
