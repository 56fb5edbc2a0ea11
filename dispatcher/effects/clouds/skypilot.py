"""SkyPilot: a run is a cluster of its own, a job on a cluster that is shared, or a managed job; in each case under the run key's name.

NeMo-Run asks `sky.core`, which knows only what was started from the same machine, draws names, and leaves clusters standing. Here all
questions go to the API server, which remembers. A job's id is its name: SkyPilot takes requests in long before it has a number for the
job, and a request that is under way counts as the job already. https://docs.skypilot.co/en/latest/reference/api.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dispatcher.effects.clouds.api import RefusedError, Rendered, name_of
from dispatcher.effects.clouds.skypilot_log import exit_code, readable
from dispatcher.effects.clouds.skypilot_server import (
    ASK_SECONDS,
    LOG_CHARACTERS,
    NotInTimeError,
    Tail,
    calls,
    certain,
    client,
    is_a,
    on_this_machine,
    within,
    words_of,
)
from dispatcher.effects.clouds.skypilot_task import IDLE_MINUTES, as_yaml, task_of
from dispatcher.ports import JobView

PROVISION_SECONDS = 1500.0
"""How long `launch` waits for machines. A server elsewhere goes on by itself after that."""
LOG_LINES = 100_000
REQUESTS = 500
_ACTIVE = ("PENDING", "WAITING", "RUNNING")


class SkypilotApi:
    """Jobs on clusters: one cluster for each run, or the profile's `cluster_name`. Raises `ApiError` and, from `launch`, `RefusedError`."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self._profile = profile
        self._shared: str | None = profile.get("cluster_name")

    def render(self, job: Mapping[str, Any], work: Path) -> Rendered:
        """The script, and the task that SkyPilot gets, without secrets."""
        self._client()
        with calls():
            task, script = task_of(self._profile, job, work)
            return Rendered(script, {"configs/task.yaml": as_yaml(task, work, str(job["run_key"]))})

    def launch(self, job: Mapping[str, Any], code: Path | None, environment: Mapping[str, str], work: Path) -> str:
        """Sends task and code, and waits for the machines; who finds the name taken has found the job."""
        sky, run_key = self._client(), str(job["run_key"])
        found = self.find(run_key)
        if found is not None:
            return found
        with calls():
            try:
                task, _ = task_of(self._profile, job, work, code)
                task.update_secrets(dict(environment))
                request = within(PROVISION_SECONDS, lambda: self._begin(sky, task, name_of(run_key)))
            except Exception as error:
                if certain(error):
                    raise RefusedError(words_of(error)) from None
                raise
        return self._provisioned(sky, request, name_of(run_key))

    def find(self, run_key: str) -> str | None:
        """The name, when there is a job of it, or a request that makes one or has made one."""
        name = name_of(run_key)
        with calls():
            began = any(status in (*_ACTIVE, "SUCCEEDED") for _, status in self._requests(name))
            return name if began or self._exists(name) else None

    def look(self, job_ids: Sequence[str]) -> list[JobView]:
        """One request for the clusters, one for the queue of each that is up, and for jobs not in one what became of their requests."""
        with calls():
            clusters = self._clusters([self._shared] if self._shared else job_ids)
            queues = {
                name: self._queue(name) for name, cluster in clusters.items() if cluster["status"].value in ("UP", "AUTOSTOPPING", "INIT")
            }
            found = []
            for job_id in job_ids:
                cluster = clusters.get(self._shared or job_id)
                job = queues.get(self._shared or job_id, {}).get(job_id)
                if job is not None:
                    found.append(
                        self._state(job_id, job["status"].value, job["start_at"], job["end_at"], words=str(job["resources"] or ""))
                    )
                else:
                    found += self._without_job(job_id, cluster["status"].value if cluster else "")
            return found

    def log(self, job_id: str) -> str:
        """What the job printed, the head node's lines as they were, those of others with SkyPilot's mark in front."""
        with calls():
            return readable(self._tail(job_id, LOG_LINES))

    def cancel(self, job_id: str) -> str:
        """Ends the job, or the request that would make it; a run's own cluster goes when the end has been reported."""
        sky = self._client()
        with calls():
            self._cancel_requests(job_id)
            number = self._number(job_id)
            if number is not None:
                self._get(lambda: sky.cancel(self._shared or job_id, job_ids=[number]))
            elif not self._shared:
                self._down(job_id)
        return ""

    def forget(self, job_id: str) -> None:
        """Takes the run's own cluster down. One that is shared stays."""
        if not self._shared:
            with calls():
                self._down(job_id)

    def probe(self) -> list[tuple[str, int, str]]:
        """The API server, who we are to it, and what it can reach."""
        sky = self._client()
        with calls():
            server = within(ASK_SECONDS, sky.api_info)
            found = [("server", 0, f"SkyPilot {server['version']} answers")]
            who = server["user"]
            if who is not None:
                found.append(("user", 0, str(who.name)))
            from sky.client import sdk

            reached = [str(cloud) for cloud in self._get(sdk.enabled_clouds)]
            found.append(("clouds", 0 if reached else 1, ", ".join(reached) or "the server can reach none: `sky check` there says why"))
        return found

    # ------------------------------------------------------------------ what managed jobs do in their own way

    launches = ("sky.launch",)

    def _begin(self, sky: Any, task: Any, name: str) -> Any:
        """Sends it → the request's id. NeMo-Run's words for a cluster, but for what costs money when it is left standing."""
        given = self._profile
        down = given["autodown"] if given["autodown"] is not None else not self._shared
        idle = given["idle_minutes_to_autostop"]
        if idle is None and down:
            idle = IDLE_MINUTES
        return sky.launch(
            task,
            cluster_name=self._shared or name,
            idle_minutes_to_autostop=idle,
            down=down,
            fast=True,
            retry_until_up=given["retry_until_up"],
        )

    def _exists(self, name: str) -> bool:
        if not self._shared:
            return name in self._clusters([name])
        return self._number(name) is not None

    def _number(self, name: str) -> int | None:
        """The job's number on its cluster."""
        job = self._queue(self._shared or name).get(name)
        return None if job is None else int(job["job_id"])

    def _tail(self, name: str, lines: int) -> str:
        sky, number = self._client(), self._number(name)
        stream = Tail()
        if number is not None:
            within(ASK_SECONDS, lambda: sky.tail_logs(self._shared or name, number, follow=False, tail=lines, output_stream=stream))
        return stream.getvalue()[-LOG_CHARACTERS:]

    def _left_behind(self, name: str) -> None:
        """A launch has failed: what it left costs money."""
        if not self._shared and self._exists(name):
            self._down(name)

    # ------------------------------------------------------------------ parts

    def _client(self) -> Any:
        return client(self._profile)

    def _get(self, ask: Any, seconds: float = ASK_SECONDS) -> Any:
        """A request's answer."""
        sky = self._client()
        return within(seconds, lambda: sky.get(ask()))

    def _requests(self, name: str) -> list[tuple[str, str]]:
        """Requests that launch the job, as the server remembers them (a day, by default), newest first: id and status."""
        from sky.client import sdk

        of_cluster = self.launches == ("sky.launch",)
        wanted = {"cluster_name": self._shared or name} if of_cluster else {}
        given = within(ASK_SECONDS, lambda: sdk.api_status(all_status=True, limit=REQUESTS, **wanted))
        own = of_cluster and not self._shared
        ours = [item for item in given if item.name in self.launches and ((own and item.cluster_name == name) or _task_name(item) == name)]
        return [(item.request_id, item.status) for item in sorted(ours, key=lambda item: -item.created_at)]

    def _provisioned(self, sky: Any, request: Any, name: str) -> str:
        """Waits for the request's end → the job's name."""
        with calls():
            try:
                within(PROVISION_SECONDS, lambda: sky.get(request))
            except NotInTimeError:
                if not on_this_machine():
                    return name  # `look` tells how it goes on
                self._cancel_requests(name)
                self._left_behind(name)
                words = (
                    f"no machine was found within {PROVISION_SECONDS / 60:.0f} minutes; a SkyPilot API server elsewhere could wait longer"
                )
                raise RefusedError(words) from None  # a server on this machine reads the commit from a folder that goes away now
            except Exception as error:
                if self._number(name) is not None or is_a(error, ("RequestCancelled",)):
                    return name
                if not certain(error):
                    raise
                self._left_behind(name)
                raise RefusedError(words_of(error)) from None
        return name

    def _clusters(self, names: Sequence[str]) -> dict[str, Any]:
        sky = self._client()
        return {each["name"]: each for each in self._get(lambda: sky.status(list(names), all_users=True))}

    def _queue(self, cluster: str) -> dict[str, Any]:
        """The cluster's jobs by name, of several the first; none while it is not up."""
        sky = self._client()
        try:
            jobs = self._get(lambda: sky.queue(cluster, all_users=True))
        except Exception as error:
            if type(error).__name__ in ("ClusterNotUpError", "ClusterDoesNotExist"):
                return {}
            raise
        return {job["job_name"]: job for job in sorted(jobs, key=lambda job: -job["job_id"])}

    def _without_job(self, job_id: str, cluster: str) -> list[JobView]:
        """A job that is in no queue: what became of the request to launch it. Nothing where that tells nothing: then it is not known."""
        requests = self._requests(job_id)
        if any(status in _ACTIVE for _, status in requests):
            return [JobView(job_id, "launching")]
        if requests and requests[0][1] == "CANCELLED":
            return [JobView(job_id, "CANCELLED")]
        if requests and requests[0][1] == "FAILED":
            return [JobView(job_id, "launch-failed", reason=self._why(requests[0][0]))]
        return [JobView(job_id, "cluster-init")] if cluster == "INIT" else []

    def _why(self, request: str) -> str:
        """What a request failed with."""
        try:
            self._get(lambda: request)
        except Exception as error:
            return words_of(error)
        return ""

    def _state(self, job_id: str, word: str, start: float | None, end: float | None, reason: str = "", words: str = "") -> JobView:
        code = self._exit_code(job_id) if word == "FAILED" else None
        return JobView(job_id, word, code, reason, start, end, words)

    def _exit_code(self, job_id: str) -> int | None:
        """SkyPilot keeps it nowhere but in its last line."""
        with suppress(Exception):
            return exit_code(self._tail(job_id, 50))
        return None

    def _cancel_requests(self, job_id: str) -> None:
        from sky.client import sdk

        active = [request for request, status in self._requests(job_id) if status in _ACTIVE]
        if active:
            self._get(lambda: sdk.api_cancel(active, silent=True))

    def _down(self, cluster: str) -> None:
        """Asks for its end, and waits as long as a question may take: the server goes on by itself."""
        sky = self._client()
        try:
            request = within(ASK_SECONDS, lambda: sky.down(cluster))
            with suppress(NotInTimeError):
                within(ASK_SECONDS, lambda: sky.get(request))
        except Exception as error:
            if type(error).__name__ != "ClusterDoesNotExist":
                raise


def _task_name(request: Any) -> str | None:
    """Which task a request launches; None where the server shows the request's body to its owner only, and we are somebody else."""
    try:
        body = json.loads(request.request_body)
        return str(body.get("name") or re.match(r"name: *(\S+)", body["task"])[1])  # type: ignore[index]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
