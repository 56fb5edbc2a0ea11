"""The `Cloud` port: requests to an executor's API → JSON lines to a process that has NeMo-Run and the API's client in it.

A process of its own, because importing both takes seconds, because they print and call `sys.exit`, and because of the runner's
environment it sees nothing but what the executor's client needs (`CloudProfile.CREDENTIALS`).
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dispatcher.clouds import CloudProfile
from dispatcher.effects.answers import JOB
from dispatcher.effects.conversation import words_of
from dispatcher.errors import CATALOGUE, CloudError
from dispatcher.jobplan import NOT_FOR_AN_API
from dispatcher.ports import Compiled, CompiledFile, JobView, Launched, NotLaunched, Views

_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
LAUNCH_SECONDS = 1800.0
"""A launch may have to wait for a machine, or for a pod that copies the code."""
ASK_SECONDS = 120.0


class CloudProcess:
    """One place behind an API. `environment` is the runner's; the process is begun by `start` or by the first request."""

    def __init__(self, profile: CloudProfile, environment: Mapping[str, str], python: str = sys.executable) -> None:
        self._profile, self._python = profile, python
        self._environment = {name: environment[name] for name in (*_PASSED, *profile.CREDENTIALS) if name in environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._home: tempfile.TemporaryDirectory[str] | None = None
        self._buffer = b""

    def start(self) -> None:
        """Begins the process and returns at once."""
        if self._process is not None:
            return
        self._home = tempfile.TemporaryDirectory(prefix="dispatch-cloud-")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        environment = {**self._environment, "NEMORUN_HOME": self._home.name, "TMPDIR": self._home.name}
        program = Path(__file__).parent / "clouds" / "serve.py"
        self._buffer = b""
        self._process = subprocess.Popen(
            [self._python, "-I", str(program), self._profile.executor, self._profile.EXTRA],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            cwd=self._home.name,
        )
        self._send({"profile": self._profile.model_dump(mode="json", exclude=NOT_FOR_AN_API)})

    # ------------------------------------------------------------------ the port

    def render(self, job: Mapping[str, object]) -> Compiled:
        """As in `ports.Cloud`."""
        given = self._ask("render", job=job)
        files = tuple(CompiledFile(str(name), str(text).encode()) for name, text in dict(given["files"]).items())
        return Compiled(str(given["script"]), files)

    def launch(self, job: Mapping[str, object], code: Path | None, environment: Mapping[str, str]) -> Launched | NotLaunched:
        """As in `ports.Cloud`."""
        given = self._ask("launch", LAUNCH_SECONDS, job=job, code=str(code) if code else None, environment=dict(environment))
        if "refused" in given:
            return NotLaunched(words_of(str(given["refused"]), 2000))
        return Launched(self._job_id(given["job_id"]))

    def find(self, run_key: str) -> str | None:
        """As in `ports.Cloud`."""
        given = self._ask("find", run_key=run_key)
        return None if given["job_id"] is None else self._job_id(given["job_id"])

    def look(self, job_ids: Sequence[str]) -> Views:
        """As in `ports.Cloud`. That the API's client is missing or not let in is an error all the same: it would never end."""
        try:
            given = self._ask("look", job_ids=list(job_ids))
        except CloudError as error:
            if error.code in ("cloud.extra", "cloud.credentials"):
                raise
            return Views(self._profile.executor, silent=error.cause)
        return Views(self._profile.executor, tuple(_view(item) for item in given["jobs"]))

    def log(self, job_id: str) -> bytes:
        """As in `ports.Cloud`."""
        return str(self._ask("log", job_id=job_id)["log"]).encode("utf-8", "surrogateescape")

    def cancel(self, job_id: str) -> str:
        """As in `ports.Cloud`."""
        return words_of(str(self._ask("cancel", job_id=job_id)["words"]), 500)

    def forget(self, job_id: str) -> None:
        """As in `ports.Cloud`."""
        self._ask("forget", job_id=job_id)

    def probe(self) -> tuple[tuple[str, int, str], ...]:
        """As in `ports.Cloud`."""
        return tuple((str(name)[:20], int(status), words_of(str(words), 300)) for name, status, words in self._ask("probe")["found"])

    def close(self) -> None:
        """Ends the process and removes its folders."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._log is not None:
            self._log.close()
        if self._home is not None:
            self._home.cleanup()

    # ------------------------------------------------------------------ lines

    def _ask(self, verb: str, seconds: float = ASK_SECONDS, **words: object) -> dict[str, Any]:
        """One request, one answer.

        Raises:
            CloudError: what the process reports, or `cloud.no-answer`.
        """
        self.start()
        try:
            self._send({"verb": verb, **words})
            answer = self._answer(time.monotonic() + seconds)
        except (OSError, ValueError) as error:
            raise self._broken(str(error)) from None
        if "error" in answer:
            code = str(answer.get("code"))
            if code not in CATALOGUE or not code.startswith("cloud."):
                code = "cloud.failed"
            raise CloudError(code, f"{self._profile.address}: {words_of(str(answer['error']), 600)}")
        return answer

    def _send(self, message: Mapping[str, object]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self, deadline: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise OSError("it took too long")
            data = os.read(self._process.stdout.fileno(), 1 << 20)
            if not data:
                raise OSError("it has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("its answer is no object")
        return answer

    def _broken(self, why: str) -> CloudError:
        """The conversation is over; the next request begins another."""
        said = ""
        if self._log is not None:
            self._log.seek(0)
            lines = [line for line in self._log.read()[-4000:].decode("utf-8", "replace").splitlines() if line.strip()]
            said = f" It said last: “{words_of(lines[-1], 300)}”" if lines else ""
        self.close()
        return CloudError("cloud.no-answer", f"{self._profile.address}: the process that speaks to the API did not answer: {why}.{said}")

    def _job_id(self, text: object) -> str:
        if not isinstance(text, str) or not re.fullmatch(JOB, text):
            raise CloudError("cloud.failed", f"{self._profile.address}: the API's job id is not one: {words_of(str(text), 60)!r}.")
        return text


def _view(item: Mapping[str, Any]) -> JobView:
    """One job of an answer. Everything in it is untrusted text."""
    code = item.get("exit_code")
    return JobView(
        job_id=str(item["job_id"]),
        word=words_of(str(item["word"]), 60),
        exit_code=code if isinstance(code, int) else None,
        reason=words_of(str(item.get("reason") or ""), 300),
        started=_seconds(item.get("started")),
        ended=_seconds(item.get("ended")),
        nodes=words_of(str(item.get("nodes") or ""), 200),
    )


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e11 else None
