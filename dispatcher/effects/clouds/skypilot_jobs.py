"""SkyPilot's managed jobs: as `skypilot.py`, but that SkyPilot's own controller has the machines.

https://docs.skypilot.co/en/latest/examples/managed-jobs.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dispatcher.effects.clouds.skypilot import SkypilotApi
from dispatcher.effects.clouds.skypilot_server import ASK_SECONDS, LOG_CHARACTERS, Tail, calls, within
from dispatcher.ports import JobView

_FIELDS = ("job_id", "job_name", "task_id", "status", "start_at", "end_at", "failure_reason", "cluster_resources")


class SkypilotJobsApi(SkypilotApi):
    """Managed jobs: SkyPilot has a controller that finds machines, starts again what lost its own, and takes them down."""

    launches = ("sky.jobs.launch",)

    def look(self, job_ids: Sequence[str]) -> list[JobView]:
        """One request for all of them."""
        with calls():
            jobs = self._jobs()
            found = []
            for job_id in job_ids:
                job = jobs.get(job_id)
                if job is None:
                    found += self._without_job(job_id, "")
                    continue
                reason, where = str(job["failure_reason"] or ""), str(job["cluster_resources"] or "")
                found.append(self._state(job_id, job["status"].value, job["start_at"], job["end_at"], " ".join(reason.split()), where))
            return found

    def cancel(self, job_id: str) -> str:
        """Ends the job, or the request that would make it."""
        from sky import jobs

        with calls():
            self._cancel_requests(job_id)
            number = self._number(job_id)
            if number is not None:
                self._get(lambda: jobs.cancel(job_ids=[number]))
        return ""

    def forget(self, job_id: str) -> None:
        """Nothing: SkyPilot has taken the machines down, and its list of jobs is its own."""

    def _begin(self, sky: Any, task: Any, name: str) -> Any:
        from sky import jobs

        return jobs.launch(task, name=name)

    def _exists(self, name: str) -> bool:
        return name in self._jobs()

    def _number(self, name: str) -> int | None:
        job = self._jobs().get(name)
        return None if job is None else int(job["job_id"])

    def _tail(self, name: str, lines: int) -> str:
        from sky import jobs

        stream, number = Tail(), self._number(name)
        if number is not None:
            within(ASK_SECONDS, lambda: jobs.tail_logs(job_id=number, follow=False, tail=lines, output_stream=stream))
        return stream.getvalue()[-LOG_CHARACTERS:]

    def _left_behind(self, name: str) -> None:
        """Nothing: a managed job that is not there has no machines."""

    def _jobs(self) -> dict[str, Any]:
        """Managed jobs by name, of several the first; none while there is no controller."""
        from sky.jobs.client import sdk

        try:
            answer = self._get(lambda: sdk.queue_v2(refresh=False, all_users=True, fields=_FIELDS, name_match="dispatch-"))
        except Exception as error:
            if type(error).__name__ == "ClusterNotUpError":
                return {}
            raise
        jobs = answer[0] if isinstance(answer, tuple) else answer
        return {job["job_name"]: job for job in sorted(jobs, key=lambda job: -job["job_id"])}
