"""The `Compiler` port: a job description → what NeMo-Run renders, in a process that imports NeMo-Run while others wait for networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from dispatcher.errors import CompileError
from dispatcher.ports import Compiled, CompiledFile

# What the child may see of the environment: nothing in it is needed to render, and a token that is not there cannot leak into a config.
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE")


class CompilerProcess:
    """Starts `nemorun.py` on `start()` and asks it one JSON line at a time."""

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python
        self._process: subprocess.Popen[str] | None = None
        self._ready = False
        self._asked: list[str] = []
        self._log: IO[str] | None = None
        self._home: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Begins importing NeMo-Run and returns at once."""
        if self._process is not None:
            return
        self._home = tempfile.TemporaryDirectory(prefix="dispatch-nemorun-")
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by close()
        environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
        # All that it writes goes with this folder, also when it is ended in the middle of a rendering.
        environment["NEMORUN_HOME"] = environment["TMPDIR"] = self._home.name
        self._process = subprocess.Popen(
            [self._python, "-I", str(Path(__file__).with_name("nemorun.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            cwd=self._home.name,  # it asks git about the folder that it is in; a pull request's checkout is none of its business
        )

    def begin(self, job: Mapping[str, object]) -> None:
        """Sends the job ahead; it waits in the pipe until NeMo-Run is there."""
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._asked.append(json.dumps(job))
        with suppress(BrokenPipeError):  # it has ended: reading its answer will say so
            print(self._asked[-1], file=self._process.stdin, flush=True)

    def compile(self, job: Mapping[str, object]) -> Compiled:
        """Renders one job.

        Raises:
            CompileError: `compile.failed` when NeMo-Run refuses the job, `compile.no-nemo-run` when it cannot even be imported.
        """
        wanted = json.dumps(job)
        if wanted not in self._asked:
            self.begin(job)
        # Jobs that were begun and are not wanted any more, as those of runs that turned out to have one, are answered before it.
        while self._asked.pop(0) != wanted:
            self._answer()
        answer = self._answer()
        if "ok" not in answer:
            raise CompileError("compile.failed", f"NeMo-Run refused the job: {answer.get('error') or self._last_words()}")
        return _compiled(answer["ok"])

    def _answer(self) -> dict[str, object]:
        """The next answer, which is empty when the process has ended."""
        self._ready = self._ready or bool(self._read().get("ready"))
        if not self._ready:
            raise CompileError("compile.no-nemo-run", f"NeMo-Run could not be imported: {self._last_words()}")
        return self._read()

    def close(self) -> None:
        """Ends the process and removes its folders."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process, self._ready, self._asked = None, False, []
        if self._log is not None:
            self._log.close()
        if self._home is not None:
            self._home.cleanup()

    def _read(self) -> dict[str, object]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            answer = json.loads(line)
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}

    def _last_words(self) -> str:
        assert self._log is not None
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"


def _compiled(answer: object) -> Compiled:
    assert isinstance(answer, dict)
    files = tuple(CompiledFile(name, text.encode()) for name, text in sorted(answer["files"].items()))
    return Compiled(answer["script"], files)
