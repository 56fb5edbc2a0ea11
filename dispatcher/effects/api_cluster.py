"""The `Cluster` port where jobs are started through an API: records in a ledger, jobs with a `Cloud`, and the two kept in step.

Order is everything: the run is laid down, then the job is started under the run key's own name, then its id is entered. Whoever finds a
run without an id asks the API for that name before anything is started again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from typing_extensions import assert_never

from dispatcher.effects.api_ledger import ApiLedger, Orphan, Ours
from dispatcher.effects.ledger import BEYOND_ANY_LOG
from dispatcher.errors import JOB_MAY_EXIST, CloudError, ClusterError
from dispatcher.launch import LAUNCH_FILE, Launch, parse, parse_environment, results_in, without_marks
from dispatcher.ports import (
    AlreadySubmitted,
    Archive,
    ClaimAnswer,
    ClaimRequest,
    Cloud,
    CommandOutput,
    GivenUp,
    Held,
    Launched,
    NotLaunched,
    Part,
    Probe,
    Refused,
    RunFiles,
    Standing,
    Submission,
    Submitted,
    Sweep,
    Upload,
    Views,
)

KEPT_LOG = 1 << 20
"""Bytes of an ended job's log that the ledger keeps."""


class ApiCluster:
    """One place behind an API, and the ledger of its runs. `archive` is where the code of a run that waited in the queue comes from.

    Raises what the ledger raises (`ssh.*`, `cluster.*`) and what the API's port raises (`cloud.*`).
    """

    def __init__(self, ledger: ApiLedger, cloud: Cloud, archive: Callable[[], Archive]) -> None:
        self._ledger, self._cloud, self._archive = ledger, cloud, archive

    def start(self) -> None:
        """Begins to connect to both."""
        self._ledger.start()
        self._cloud.start()

    # ------------------------------------------------------------------ submitting

    def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """As in `ports.Cluster`; an orphan's job is looked for first."""
        answer = self._ledger.claim_or_orphan(request)
        if not isinstance(answer, Orphan):
            return answer
        found = self._cloud.find(request.run_key)
        if found is not None:
            self._ledger.enter(request.run_key, found)
            return AlreadySubmitted(found, answer.record)
        again = self._ledger.unlaunched(request.run_key, begin_again=True)
        return again if again is not None and not isinstance(again, Held) else AlreadySubmitted("", answer.record)

    def submit(self, submission: Submission) -> Submitted | Held | Refused:
        """As in `ports.Cluster`: the code goes to the API and not into the ledger, so it is made before anything is laid down."""
        with tempfile.TemporaryDirectory(prefix="dispatch-code-") as folder:
            launch = parse(next((file.content.decode() for file in submission.files if file.path == LAUNCH_FILE), ""))
            code = _written(submission.upload, Path(folder)) if launch.packs and not submission.hold else None
            laid = self._ledger.lay(replace(submission, upload=None, manifest=""))
            return self._launched(submission.run_key, launch, submission.env_file, code) if isinstance(laid, Ours) else laid

    def release(self, run_key: str) -> Submitted | Refused | None:
        """As in `ports.Cluster`. Whoever took its turn before may have died after it had started the job."""
        taken = self._ledger.take(run_key)
        if not isinstance(taken, Ours):
            return taken
        found = self._cloud.find(run_key)
        if found is not None:
            return self._ledger.enter(run_key, found)
        try:
            text, environment = self._ledger.bring(run_key)
            launch = parse(text)
            archive = self._archive()
            package = archive.describe(launch.sha, launch.spec)
            with tempfile.TemporaryDirectory(prefix="dispatch-code-") as folder:
                upload = Upload(lambda: archive.stream(package)) if launch.packs else None
                return self._launched(run_key, launch, environment, _written(upload, Path(folder)))
        except Exception:
            self._back(run_key)
            raise

    def go_on(self, run_key: str, ended: str, saved: str) -> None:
        """As in `ports.Cluster`: no API says that it was a time limit that ended a job, so none is continued."""

    def _launched(self, run_key: str, launch: Launch, environment: str, code: Path | None) -> Submitted | Refused:
        """Starts the job of a run that is ours, and enters it. An unclear error leaves an orphan: the API may have taken the job in."""
        try:
            answer = self._cloud.launch(launch.job, code, parse_environment(environment))
        except CloudError as error:
            if error.code not in JOB_MAY_EXIST:
                self._ledger.unlaunched(run_key, begin_again=True)
            raise
        match answer:
            case Launched():
                return self._ledger.enter(run_key, answer.job_id)
            case NotLaunched():
                self._ledger.unlaunched(run_key, begin_again=False)
                return Refused(answer.words)
            case _:
                assert_never(answer)

    def _back(self, run_key: str) -> None:
        """A run whose turn had come waits on, when it is known that it has no job."""
        with suppress(ClusterError, CloudError):
            if self._cloud.find(run_key) is None:
                self._ledger.unlaunched(run_key, begin_again=False)

    def abandon(self, run_key: str) -> None:
        """As in `ports.Cluster`."""
        self._ledger.abandon(run_key)

    # ------------------------------------------------------------------ looking

    def sweep(self) -> Sweep:
        """As in `ports.Cluster`: one look at the ledger, and one at the jobs that it names."""
        sweep = self._ledger.sweep()
        ids = [run.job_id for run in sweep.runs if run.job_id]
        return replace(sweep, views=self._cloud.look(ids) if ids else Views(""))

    def fetch(
        self, run_key: str, log_offset: int, log_cap: int, results_cap: int, results_path: str = "", part: Part | None = None
    ) -> RunFiles | None:
        """As in `ports.Cluster`; the log is the API's, until the ledger has kept it. Results are what the log says that they are.

        No job here has parts of its own: `part` names none.
        """
        files = self._ledger.fetch(run_key, log_offset, log_cap, results_cap, results_path)
        if files is None or not files.job_id or not (log_cap or results_cap):
            return files
        log = self._log_of(run_key, files) if part is None else b""
        shown = without_marks(log)
        offset = max(0, len(shown) + log_offset) if log_offset < 0 else min(log_offset, len(shown))
        found = results_in(log) if results_cap else None
        return replace(
            files,
            log=shown[offset:][:log_cap],
            log_offset=offset,
            log_size=len(shown),
            results=found if found is not None and len(found) <= results_cap else None,
            results_too_big=found is not None and len(found) > results_cap,
        )

    def _log_of(self, run_key: str, files: RunFiles) -> bytes:
        if files.log_size:
            kept = self._ledger.fetch(run_key, 0, KEPT_LOG, 0)
            return kept.log if kept else b""
        return self._cloud.log(files.job_id)

    def records(self, run_keys: Sequence[str]) -> tuple[str | None, ...]:
        """As in `ports.Cluster`."""
        return self._ledger.records(run_keys)

    def find(self, tag: str) -> tuple[str, ...]:
        """As in `ports.Cluster`."""
        return self._ledger.find(tag)

    # ------------------------------------------------------------------ changing

    def save(self, run_key: str, record: str, reported: str) -> None:
        """As in `ports.Cluster`."""
        self._ledger.save(run_key, record, reported)

    def retire(self, run_key: str) -> None:
        """As in `ports.Cluster`. The log is kept first; only then the API is told that what the job left may go."""
        files = self._ledger.fetch(run_key, BEYOND_ANY_LOG, 0, 0)
        if files is not None and files.job_id and not files.log_size:
            with suppress(CloudError):  # a log that is not to be had any more must not keep the run active for ever
                self._ledger.keep_log(run_key, self._cloud.log(files.job_id)[-KEPT_LOG:])
        self._ledger.retire(run_key)
        if files is not None and files.job_id:
            with suppress(CloudError):
                self._cloud.forget(files.job_id)

    def cancel(self, run_key: str, why: str = "") -> GivenUp:
        """As in `ports.Cluster`, for a job of the API.

        Raises:
            ClusterError: `cluster.run-unknown` when the run has no job.
        """
        files = self._ledger.fetch(run_key, BEYOND_ANY_LOG, 0, 0)
        if files is None or not files.job_id:
            raise ClusterError("cluster.run-unknown", f"Run {run_key} has no job.")
        self._ledger.cancel(run_key, why)
        said = self._cloud.cancel(files.job_id)
        return GivenUp(1 if said else 0, "", said)

    def probe(self, account: str, partition: str) -> tuple[Probe, ...]:
        """As in `ports.Cluster`: what the ledger's machine says, then what the API says."""
        found = list(self._ledger.probe("", ""))
        try:
            found += [Probe(f"api.{name}", CommandOutput(status, words)) for name, status, words in self._cloud.probe()]
        except CloudError as error:
            found.append(Probe("api.reachable", CommandOutput(1, "", f"{error.cause} {error.next_step}")))
        return tuple(found)

    def estimate(self, script: str) -> CommandOutput:
        """No API estimates a start."""
        return CommandOutput(0, "")

    # ------------------------------------------------------------------ the ledger's own

    def drop(self, run_key: str) -> bool:
        """As in `ports.Cluster`."""
        return self._ledger.drop(run_key)

    def lock(self) -> bool:
        """As in `ports.Cluster`."""
        return self._ledger.lock()

    def unlock(self) -> None:
        """As in `ports.Cluster`."""
        self._ledger.unlock()

    def standing(self) -> Standing:
        """As in `ports.Cluster`."""
        return self._ledger.standing()

    def usage(self, month: str) -> str:
        """As in `ports.Cluster`."""
        return self._ledger.usage(month)

    def account(self, line: str) -> None:
        """As in `ports.Cluster`."""
        self._ledger.account(line)

    def adopt(self, run_key: str, other: str, record: str) -> str | None:
        """As in `ports.Cluster`."""
        return self._ledger.adopt(run_key, other, record)

    def history(self, name: str) -> str:
        """As in `ports.Cluster`."""
        return self._ledger.history(name)

    def remember(self, name: str, line: str) -> None:
        """As in `ports.Cluster`."""
        self._ledger.remember(name, line)

    def close(self) -> None:
        """Ends both connections."""
        self._cloud.close()
        self._ledger.close()


def _written(upload: Upload | None, folder: Path) -> Path | None:
    """The archive as a file on the runner; None when nothing travels."""
    if upload is None:
        return None
    path = folder / "code.tar.gz"
    with path.open("wb") as file:
        file.writelines(upload.chunks())
    return path
