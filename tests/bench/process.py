"""A command line → how long the whole process took, what it printed, and (when asked) what it and its children held of memory."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.rig.reaper import with_descendants

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Ran:
    """One process from its start to its end. Memory is in MB: of its largest process, and of the whole tree at its worst moment."""

    seconds: float
    stdout: str
    stderr: str
    largest_mb: float = 0.0
    tree_mb: float = 0.0


class Failed(Exception):
    """A process that was to be measured ended badly; the text has what it said."""


def run(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path, *, memory: bool = False, okay: Sequence[int] = (0,), timeout: float = 600
) -> Ran:
    """Runs a command to its end.

    `memory` looks at the process tree fifty times a second, which costs time: those runs are not for the clock.

    Raises:
        Failed: its status is not in `okay`.
    """
    # Files, not pipes: nobody has to read while the clock runs.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begun = time.perf_counter()
        process = subprocess.Popen(argv, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        watcher = _MemoryWatcher(process.pid) if memory else None
        # wait(timeout=…) would look only twenty times a second.
        watchdog = threading.Timer(timeout, process.kill)
        watchdog.start()
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            watchdog.cancel()
        seconds = time.perf_counter() - begun
        largest, tree = watcher.stop() if watcher else (0.0, 0.0)
        stdout, stderr = _text(out), _text(err)
        if code not in okay:
            raise Failed(f"{' '.join(argv)[:200]} ended with {code}:\n{stdout[-2000:]}\n{stderr[-4000:]}")
        return Ran(seconds, stdout, stderr, largest, tree)


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def settle(folder: Path, timeout: float = 60.0) -> None:
    """Waits until nobody works below the folder any more and the disk has everything: what one leaves behind must not slow the next.

    The dispatcher's remote program, for example, unpacks a tree for the next submission when it has answered.
    """
    deadline = time.monotonic() + timeout
    while any(_works_in(process, folder) for process in Path("/proc").glob("[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.sync()


def _works_in(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").readlink().is_relative_to(folder)
    except OSError:
        return False


class _MemoryWatcher:
    """Samples a process and its descendants until `stop()`.

    A process counts with what is its own (proportional set size: what it shares with its parent is divided between them), and the
    largest one with everything that it maps (its peak resident set, which no sampling can miss).
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._over = pid, threading.Event()
        self._largest = self._tree = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            pids = with_descendants([self._pid])
            self._largest = max(self._largest, *(_field(pid, "status", "VmHWM:") for pid in pids))
            self._tree = max(self._tree, sum(_field(pid, "smaps_rollup", "Pss:") for pid in pids))

    def stop(self) -> tuple[float, float]:
        """(MB of the largest process, MB of all at the worst moment)."""
        self._over.set()
        self._thread.join()
        return self._largest, self._tree


def _field(pid: int, file: str, name: str) -> float:
    """A line of /proc/PID/FILE in MB; 0 when the process has just ended."""
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024 / 1e6
    except (OSError, ValueError):
        pass
    return 0.0
