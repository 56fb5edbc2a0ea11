"""Programs of a rig → started apart from the terminal, watched while they come up, and ended with the test run however it ends.

Each program runs in the foreground as a child of ours, so its early death is seen at once and no process is ever looked up by
name. `reaper.py` holds the other end of a pipe: when this process is killed, the pipe closes and the reaper ends what is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

REAPER = Path(__file__).with_name("reaper.py")


class StartFailed(Exception):
    """A program of the rig ended early or did not answer in time; the text has the end of its log."""


class Processes:
    """The programs of one rig, by name. A context manager: leaving it ends them, last started first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._reaper: subprocess.Popen[bytes] | None = None

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Starts a program with its output in `<name>.out`; `env` is added to the environment."""
        self._tell_reaper(f"folder {self.folder}")
        with self.log(name).open("ab") as log:
            # In its own folder: a daemon that crashes leaves its core file where it stands.
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                cwd=self.folder,
                start_new_session=True,
            )
        self.running[name] = process
        self._tell_reaper(f"pid {process.pid}")

    def log(self, name: str) -> Path:
        """Where the program's output goes."""
        return self.folder / f"{name}.out"

    def wait_until(self, name: str, ready: Callable[[], bool], timeout: float = 30.0) -> None:
        """Polls until `ready()`; raises `StartFailed` when the program ends first or time is up."""
        deadline = time.monotonic() + timeout
        while not ready():
            process = self.running[name]
            if process.poll() is not None:
                raise StartFailed(f"{name} ended with status {process.returncode}:\n{self._tail(name)}")
            if time.monotonic() > deadline:
                raise StartFailed(f"{name} was not ready after {timeout:g} s:\n{self._tail(name)}")
            time.sleep(0.02)

    def stop(self, name: str, timeout: float = 10.0, hard: bool = False) -> None:
        """Ends a program with SIGTERM (SIGKILL when `hard`, or when it does not go); no error when it is not running."""
        process = self.running.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._tell_reaper(f"gone {process.pid}")

    def stop_all(self) -> None:
        """Ends everything, last started first, and tells the reaper that it is not needed."""
        for name in reversed(list(self.running)):
            self.stop(name)
        if self._reaper is not None:
            self._tell_reaper("done")
            assert self._reaper.stdin is not None
            self._reaper.stdin.close()
            self._reaper.wait()
            self._reaper = None

    def _tell_reaper(self, line: str) -> None:
        if self._reaper is None:
            self._reaper = subprocess.Popen([sys.executable, "-I", "-S", str(REAPER)], stdin=subprocess.PIPE, start_new_session=True)
        assert self._reaper.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._reaper.stdin.write(line.encode() + b"\n")
            self._reaper.stdin.flush()

    def _tail(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")[-3000:]

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop_all()
