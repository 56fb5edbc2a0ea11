"""Invocations of the command line, each in a process of its own, forked from one that has imported everything already.

Starting Python and importing everything takes a second of computing time, and tests do it hundreds of times. What is started cold, as
users start it, are the processes that tests signal or let run side by side (`Stage.start`), the terminal's and those of act.
"""

from __future__ import annotations

import gc
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
MODULES = (
    *("dispatcher.cli", "dispatcher.effects.assembly", "dispatcher.flow", "dispatcher.watching", "dispatcher.effects.compiler"),
    *("github", "github.CheckRun", "github.IssueComment", "github.Organization", "github.Repository", "dispatcher.effects.github_http"),
    *("paramiko", "dispatcher.effects.ssh", "dispatcher.effects.archive"),
)


class WarmStart:
    """The process that forks; it ends with the one that made it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._busy = threading.Lock()

    def run(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float) -> tuple[int, str, str] | None:
        """`nemotron-dispatch ARGUMENTS` with exactly this environment → status, output, errors; None while it has another one to run."""
        if not self._busy.acquire(blocking=False):
            return None
        try:
            with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
                places = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (stdout, stderr)]
                code = self._ask(json.dumps([list(arguments), dict(environment), str(folder), places]), timeout)
                return code, _text(stdout), _text(stderr)
        finally:
            self._busy.release()

    def _ask(self, request: str, timeout: float) -> int:
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-c", "from tests.rig.warm import serve; serve()"]
            environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(command, env=environment, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(request.encode() + b"\n")
        pid = self._line(self._process.stdout, timeout, 0)
        return self._line(self._process.stdout, timeout, pid)

    def _line(self, answers: IO[bytes], timeout: float, pid: int) -> int:
        assert self._process is not None
        if select.select([answers], [], [], timeout)[0]:
            return int(answers.readline())
        if pid:
            os.kill(pid, 9)
        self._process.kill()
        self._process.wait()
        raise subprocess.TimeoutExpired("nemotron-dispatch", timeout)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def serve() -> None:
    """Forks a process for each request, waits for it, and says its id and then its status."""
    for name in MODULES:
        import_module(name)
    gc.freeze()
    while line := sys.stdin.buffer.readline():
        pid = os.fork()
        if pid == 0:
            _become(*json.loads(line))
        os.write(1, b"%d\n" % pid)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _become(arguments: list[str], environment: dict[str, str], folder: str, places: list[str]) -> None:
    """What a process that was started with these would be; ends as it ends."""
    for target, place, mode in ((0, os.devnull, os.O_RDONLY), (1, places[0], os.O_WRONLY), (2, places[1], os.O_WRONLY)):
        opened = os.open(place, mode)
        os.dup2(opened, target)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    sys.argv = ["nemotron-dispatch", *arguments]
    sys.exit(import_module("dispatcher.cli").main(arguments))
