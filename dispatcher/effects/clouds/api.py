"""What each executor's API has to do for us (`Api`), what it raises, and the values that go in and out: plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dispatcher.ports import JobView


class ApiError(Exception):
    """The API was not reached or did not do it. `code` is one of `cloud.*` in the catalogue; the words are public."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class RefusedError(Exception):
    """The API will not have this job: there is none. The words are its own."""


@dataclass(frozen=True)
class Rendered:
    """`script` is what the job starts; `files` are what the API is sent, by name, for the preview and for provenance."""

    script: str
    files: Mapping[str, str]


class Api(Protocol):
    """One place. Made from the profile's fields (`CloudProfile.model_dump`); raises `ApiError`, and `RefusedError` from `launch`.

    A job's name comes from its run key alone (`name_of`), so that what exists already is found and never started twice.
    """

    def render(self, job: Mapping[str, Any], work: Path) -> Rendered:
        """What would be sent. Asks nobody; `work` is an empty folder."""

    def launch(self, job: Mapping[str, Any], code: Path | None, environment: Mapping[str, str], work: Path) -> str:
        """Starts it → the job's id. `code` is a gzip-compressed tar; `environment` holds secrets."""

    def find(self, run_key: str) -> str | None:
        """The id of the job of that name, whatever became of it; None when there is none."""

    def look(self, job_ids: Sequence[str]) -> list[JobView]:
        """How they stand; without those that the API does not know."""

    def log(self, job_id: str) -> str:
        """What it printed so far, its newest part."""

    def cancel(self, job_id: str) -> str:
        """Ends it → what there is to say about that, empty when nothing."""

    def forget(self, job_id: str) -> None:
        """Takes an ended job's remains away."""

    def probe(self) -> list[tuple[str, int, str]]:
        """What `doctor` shows: name, 0 for good, words."""


def name_of(run_key: str) -> str:
    """The job's name with the API: 25 characters of `[a-z0-9-]`, as Kubernetes and the others take them."""
    return f"dispatch-{run_key}"
