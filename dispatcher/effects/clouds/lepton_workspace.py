"""A workspace of DGX Cloud Lepton: what is asked of its API, again where the trouble may pass, and what its errors mean here.

leptonai's own client asks: https://github.com/leptonai/leptonai. What of it cannot be used is said at each place.
"""

from __future__ import annotations

import base64
import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from dispatcher.effects.clouds.api import ApiError, RefusedError
from dispatcher.effects.nemorun import import_nemo_run
from dispatcher.ports import JobView

MOST_LOG = 8 << 20
_PASSING = (429, 500, 502, 503, 504)
T = TypeVar("T")


class LeptonWorkspace:
    """One workspace. Raises `ApiError` where something broke, `RefusedError` where the API said no."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self._profile = profile
        self._made: Any = None

    @contextmanager
    def calls(self) -> Iterator[Any]:
        """The client; its errors become ours."""
        import requests

        import_nemo_run(frozenset())
        from leptonai.api.v1.api_resource import ClientError, ServerError
        from leptonai.api.v2.client import APIClient
        from leptonai.api.v2.utils import WorkspaceConfigurationError, WorkspaceError

        try:
            if self._made is None:
                self._made = self._client(APIClient)
            yield self._made
        except (WorkspaceConfigurationError, WorkspaceError) as error:
            raise ApiError("cloud.credentials", f"there are no credentials for a workspace: {error.args[0]}") from None
        except (ClientError, ServerError) as error:
            raise _said(error.response.status_code, error.response.text) from None
        except requests.exceptions.JSONDecodeError:
            raise ApiError("cloud.failed", "Lepton answered with something that is not JSON") from None
        except requests.exceptions.RequestException as error:
            raise ApiError("cloud.unreachable", f"Lepton does not answer: {type(error).__name__}") from None

    def _client(self, make: Callable[[], Any]) -> Any:
        """leptonai's client, for whatever workspace the environment or `lep login` names."""
        try:
            client = make()
        except TypeError:  # it cannot do without a token, and does not say so
            raise ApiError("cloud.credentials", "LEPTON_WORKSPACE_TOKEN is not set") from None
        client._timeout = 60
        wanted = self._profile["workspace"]
        if wanted and client.workspace_id != wanted:
            raise ApiError("cloud.credentials", f"the credentials are for workspace {client.workspace_id}, the profile is for {wanted}")
        return client

    def read(self, ask: Callable[[Any], T], none_for_404: bool = False) -> T | None:
        """A request that may be made again, a few times while the trouble may pass."""
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

        def once() -> T | None:
            with self.calls() as client:
                return ask(client)

        waiting = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, ApiError) and error.code in ("cloud.failed", "cloud.unreachable")),
            stop=stop_after_attempt(4),
            wait=wait_exponential(0.3, max=4),
            reraise=True,
        )
        try:
            return waiting(once)
        except _NotThereError as error:
            if none_for_404:
                return None
            raise ApiError("cloud.failed", f"there is nothing at this address: {error}") from None

    def listed(self, part: str) -> list[Any]:
        """Jobs whose name has this in it, archived ones too."""
        try:
            return self.read(lambda client: client.job.list_all(job_query_mode="alive_and_archive", q=part)) or []
        except RefusedError as refused:
            raise ApiError("cloud.failed", str(refused)) from None

    def named(self, name: str) -> str | None:
        """The job of this name. The API may add something to a job's id, never to its name."""
        found = [job for job in self.listed(name) if name in (job.metadata.name, job.metadata.id_) and word(job) != "Deleted"]
        return str(found[0].metadata.id_) if found else None

    def by_id(self, job_id: str) -> Any:
        """leptonai's job, or None where there is none."""
        try:
            return self.read(lambda client: client.job.get(job_id), none_for_404=True)
        except RefusedError as refused:
            raise ApiError("cloud.failed", str(refused)) from None

    def created(self, job: Any) -> str:
        """The id of the job of this name: a request whose answer was lost is not repeated before a look."""
        name = str(job.metadata.name)
        for attempt in (1, 2):
            try:
                with self.calls() as client:
                    made = client.job.create(job)
            except _TakenError as taken:
                existing = self.named(name)
                if existing is None:
                    raise RefusedError(str(taken)) from None
                return existing
            except _NotThereError as error:
                raise RefusedError(str(error)) from None
            except ApiError as error:
                if error.code == "cloud.credentials":
                    raise
                existing = self.named(name)
                if existing is not None:
                    return existing
                if attempt == 2:
                    raise
            else:
                return str(made.metadata.id_ or name)
        raise AssertionError("unreachable")

    def node_group(self) -> str:
        """The id of the node group of exactly this name."""
        groups = self.read(lambda client: client.nodegroup.list_all()) or []
        found = [str(group.metadata.id_) for group in groups if group.metadata.name == self._profile["node_group"]]
        if not found:
            names = ", ".join(sorted(str(group.metadata.name) for group in groups)[:10])
            raise RefusedError(f"the workspace has no node group {self._profile['node_group']}; it has {names or 'none'}")
        return found[0]

    def keep_variables(self, name: str, environment: Mapping[str, str]) -> None:
        """The job's variables as one secret of the workspace: they are not seen in the job's description."""
        import_nemo_run(frozenset())
        from leptonai.api.v1.types.common import LeptonVisibility
        from leptonai.api.v1.types.secret import SecretItem

        exports = "".join(f"export {variable}={shlex.quote(value)}\n" for variable, value in environment.items())
        item = SecretItem(name=secret_name(name), value=base64.b64encode(exports.encode()).decode(), visibility=LeptonVisibility.PRIVATE)
        try:
            self.read(lambda client: client.secret.create([item]))
        except (_TakenError, RefusedError):  # of a launch that was cut
            self.drop_variables(name)
            self.read(lambda client: client.secret.create([item]))

    def drop_variables(self, name: str) -> None:
        """Deletes that secret; one that is not there is fine."""
        with suppress(RefusedError):
            self.read(lambda client: client.secret.delete(secret_name(name)), none_for_404=True)

    def live(self, job_id: str, replica: str) -> str | None:
        """What a replica printed, while it is there. A running one's log has no end: what has come after a moment's silence is all of it.

        leptonai's own `get_log` decodes each chunk by itself, and fails where one ends within a character.
        """
        import requests

        kept, until = b"", time.monotonic() + 30
        with self.calls() as client:
            response = client._get(f"/jobs/{job_id}/replicas/{replica}/log", stream=True, timeout=(10, 3))
            if response.status_code in (400, 404, 410):
                return None
            if not response.ok:
                raise _said(response.status_code, response.text)
            with response, suppress(requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError):
                for chunk in response.iter_content(None):
                    kept = (kept + chunk)[-MOST_LOG:]
                    if time.monotonic() > until:
                        break
        return kept.decode("utf-8", "replace")

    def stored(self, job_id: str, job: Any) -> str:
        """The newest lines from the workspace's log store, page by page as leptonai's command line asks for them."""
        start = int(job.metadata.created_at or 0) * 1_000_000 or 1
        end, lines = time.time_ns(), dict[tuple[int, str], None]()
        for _ in range(10):
            given = self._page(job_id, start, end)
            fresh = [line for line in given if line not in lines]
            if not fresh:
                break
            lines |= dict.fromkeys(fresh)
            end = min(moment for moment, _ in fresh)
        return "".join(f"{text.rstrip()}\n" for _, text in sorted(lines, key=lambda line: line[0]))[-MOST_LOG:]

    def _page(self, job_id: str, start: int, end: int) -> list[tuple[int, str]]:
        def ask(client: Any) -> list[tuple[int, str]]:
            query = {"job": job_id, "start": start, "end": end, "limit": 10_000, "direction": "backward", "timestamps": True}
            response = client._get("/logs", params={**query, "q": "", "job_query_mode": "alive_and_archive"})
            if not response.ok:
                raise _said(response.status_code, response.text)
            return _lines(response.json())

        try:
            return self.read(ask, none_for_404=True) or []
        except RefusedError as refused:
            raise ApiError("cloud.failed", str(refused)) from None


class _NotThereError(Exception):
    """404."""


class _TakenError(Exception):
    """409."""


def _said(status: int, text: str) -> Exception:
    """An answer that is an error → ours."""
    try:
        given = json.loads(text)
        words = str(given.get("message") or given.get("error") or text) if isinstance(given, dict) else text
    except ValueError:
        words = text
    words = f"{words.strip()[:400]} ({status})"
    if status in (401, 403):
        return ApiError("cloud.credentials", f"Lepton does not allow it: {words}")
    if status == 404:
        return _NotThereError(words)
    if status == 409:
        return _TakenError(words)
    return ApiError("cloud.failed", words) if status in _PASSING or status >= 500 else RefusedError(words)


def word(job: Any) -> str:
    """A job's state in Lepton's words, and more exactly: archived says nothing about how it ended, running may mean one of several."""
    status = job.status
    if status is None or status.state is None:
        return "Unknown"
    word = str(status.state.value)
    if word == "Running" and (status.ready or 0) < (status.active or 0):
        return "Starting"
    if word == "Archived":
        if job.spec.stopped:
            return "Stopped"
        if status.failed:
            return "Failed"
        return "Completed" if (status.succeeded or 0) >= (job.spec.completions or 1) else "Archived"
    return word


def state(job_id: str, job: Any) -> JobView:
    """What the job's answer says of it; Lepton tells no exit code."""
    started, ended = _seconds(job.status and job.status.creation_time), _seconds(job.status and job.status.completion_time)
    return JobView(job_id, word(job), None, "", started, ended)


def _seconds(value: int | None) -> float | None:
    """The API has both seconds and milliseconds."""
    return None if not value else value / 1000 if value > 1e11 else float(value)


def secret_name(name: str) -> str:
    """A job's name → that of the secret with its variables."""
    return name.upper().replace("-", "_")


def _lines(given: Any) -> list[tuple[int, str]]:
    """Lines of the log store, each with its moment in nanoseconds."""
    return [(int(value[0]), str(value[1])) for stream in given["data"]["result"] for value in stream["values"]]
