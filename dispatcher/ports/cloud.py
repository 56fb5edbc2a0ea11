"""A place where jobs are started through an API, and the port `Cloud`. The run's records lie elsewhere: see `ports.Cluster`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dispatcher.ports.code import Compiled


@dataclass(frozen=True)
class JobView:
    """What an API says about one job, in its own words (`cloudstates.py` reads them). Times are seconds since the epoch, UTC."""

    job_id: str
    word: str
    exit_code: int | None = None
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    nodes: str = ""


@dataclass(frozen=True)
class Views:
    """One look at some jobs. A job that is not among them is one that the API answered about and does not know.

    `silent` says why the API did not answer; nothing follows from it then that a job is not among them.
    """

    executor: str
    jobs: tuple[JobView, ...] = ()
    silent: str = ""


@dataclass(frozen=True)
class Launched:
    """The job that a run has now; its id is one of `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`."""

    job_id: str


@dataclass(frozen=True)
class NotLaunched:
    """The API refused the job: there is none. `words` are its own."""

    words: str


class Cloud(Protocol):
    """One executor's API, through NeMo-Run. Raises `CloudError` (`cloud.*`).

    Jobs are named by their run key, so that one that exists is found again and never started twice.
    """

    def start(self) -> None:
        """Begins whatever takes long before the first request; returns at once."""

    def render(self, job: Mapping[str, object]) -> Compiled:
        """What would be sent, from `JobPlan.for_compiler()`: `script` is what the job starts, `files` hold the request. Asks no API."""

    def launch(self, job: Mapping[str, object], code: Path | None, environment: Mapping[str, str]) -> Launched | NotLaunched:
        """Starts the job, once: where there is one of this run key already, that one is meant.

        `code` is a gzip-compressed tar of what travels, None when nothing does; `environment` has the job's variables and its secrets.
        """

    def find(self, run_key: str) -> str | None:
        """The id of the run's job; None when the API answers that there is none."""

    def look(self, job_ids: Sequence[str]) -> Views:
        """How these jobs stand. An API that does not answer is `Views.silent`, not an error."""

    def log(self, job_id: str) -> bytes:
        """What the job has printed so far, the newest 16 MB of it; empty when the API has nothing (any more)."""

    def cancel(self, job_id: str) -> str:
        """Ends the job → what the API said, empty when it did as asked. A job that has ended or is gone is no error."""

    def forget(self, job_id: str) -> None:
        """Takes away what an ended job left with the API (a container, an object). Its log is kept elsewhere by then."""

    def probe(self) -> tuple[tuple[str, int, str], ...]:
        """What `doctor` wants to know: name, status (0 is good), words."""

    def close(self) -> None:
        """Ends what `start` began; the next request begins it again."""
