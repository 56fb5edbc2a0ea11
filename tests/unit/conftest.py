"""Unit tests stay inside: while one runs, opening a process or a socket is an error, whichever library tries it.

Python's audit events (https://docs.python.org/3/library/audit_events.html) are raised below every library, and a hook cannot be
taken out again, so no import order and no clever call gets around it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

OUTSIDE = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "socket.__new__",
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "subprocess.Popen",
}


class LeftTheRoom(BaseException):
    """A unit test tried to reach a process or the network. Not an `Exception`, so that no handler in the product swallows it."""


class _Guard:
    """Whether a unit test is running, and what it tried."""

    active = False
    tried: list[str]

    def __init__(self) -> None:
        self.tried = []

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.active and event in OUTSIDE:
            self.tried.append(f"{event} {arguments!r}")
            raise LeftTheRoom(self.tried[-1])


_guard = _Guard()
sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def _stay_inside() -> Iterator[None]:
    _guard.tried.clear()
    _guard.active = True
    try:
        yield
    finally:
        _guard.active = False
    assert not _guard.tried, f"a unit test left the room: {_guard.tried}"
