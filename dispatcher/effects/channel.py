"""A way to the remote program's standard input and output: here a `sh` on this machine; over SSH in `ssh.py`."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
from collections.abc import Mapping
from typing import Protocol

from dispatcher.errors import ClusterError, DispatchError

INHERITED = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TMPDIR",
        "TZ",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
        "CUDA_VISIBLE_DEVICES",
        "SLURM_CONF",
    ]
)
"""What a local job may know of our environment: where things are. Keys and tokens stay with us; code from a pull request runs there."""


class Channel(Protocol):
    """Bytes there and back. What comes back is untrusted."""

    where: str
    """`user@host`, for messages."""

    def write(self, data: bytes) -> None:
        """Sends everything; `OSError` when the far side is gone."""

    def read(self, timeout: float) -> bytes:
        """What has arrived, at least a byte; empty at the end. `TimeoutError` after so many seconds of silence."""

    def cut(self, words: str) -> DispatchError:
        """The error for a far side that is gone before it has answered; `words` say what that means."""

    def close(self) -> None:
        """Ends it; may be called twice."""


class LocalShell:
    """The program as a child of this process: for `tunnel: local` and `executor: local`.

    A session of its own, so that Ctrl-C at the terminal reaches only us; when we die, its standard input ends, and it tidies up.
    """

    where = "this machine"

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            env={name: value for name, value in environment.items() if name in INHERITED},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        self._adopt()

    def _adopt(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """The shell's process id."""
        return self._process.pid

    def write(self, data: bytes) -> None:
        """As in `Channel`."""
        view = memoryview(data)
        while view:
            view = view[self._stdin.write(view) or 0 :]

    def read(self, timeout: float) -> bytes:
        """As in `Channel`."""
        if not self._selector.select(timeout):
            raise TimeoutError
        return os.read(self._stdout.fileno(), 1 << 16)

    def cut(self, words: str) -> DispatchError:
        """As in `Channel`."""
        return ClusterError("cluster.cut", f"The shell on this machine ended before it had answered. {words}")

    def close(self) -> None:
        """As in `Channel`; waits a little for the shell, which has nothing left to read, and never kills it."""
        for stream in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                stream.close()
        self._selector.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.returncode = 0  # it finishes what it began, without us
