"""What an executor's API says about a job, in its own words → what is known about it. An unknown word is `UNKNOWN`, silence is nothing.

Words as NeMo-Run 0.11.1 and the APIs have them:

docker: https://docs.docker.com/reference/api/engine/ (`State.Status`).
kubeflow, kuberay: the words that `kubestates.py` makes of the objects of Kubernetes.
skypilot: https://docs.skypilot.co/en/latest/reference/cli.html#sky-queue (`JobStatus` in `sky/skylet/job_lib.py`); what became of the
request to launch has words of ours, with a `-` or in one word that SkyPilot does not have. A cluster in `INIT` of which nobody knows what
it does (`cluster-init`) is not known, and no end.
skypilot-jobs: https://docs.skypilot.co/en/latest/examples/managed-jobs.html (`ManagedJobStatus` in `sky/jobs/state.py`).
dgxcloud: https://docs.nvidia.com/run-ai/self-hosted/reference/rest-api/endpoints/workloads/workloads (`Phase`).
lepton: `leptonai.api.v1.types.job.LeptonJobState` of leptonai 0.27.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone

from dispatcher.ports import JobView, Views
from dispatcher.slurm import Absent, Observation, Sight, Silent, State

_DOCKER: Mapping[str, State] = {
    "created": State.PENDING,
    "restarting": State.PENDING,
    "running": State.RUNNING,
    "paused": State.RUNNING,
    "removing": State.RUNNING,
    "exited": State.FAILED,
    "dead": State.FAILED,
    "cancelled": State.CANCELLED,
}

_KUBERNETES: Mapping[str, State] = {
    "terminating": State.RUNNING,
    "running": State.RUNNING,
    "failed": State.FAILED,
    "evicted": State.PREEMPTED,
    # Its object was deleted by us, and our mark is there.
    "cancelled": State.CANCELLED,
}

# Suspended is what a queue (Kueue) leaves a job that waits for its turn.
_KUBEFLOW = {**_KUBERNETES, "created": State.PENDING, "suspended": State.PENDING, "complete": State.SUCCEEDED}

_KUBERAY = {
    **_KUBERNETES,
    **dict.fromkeys(("created", "new", "initializing", "waiting", "retrying", "suspending", "suspended"), State.PENDING),
    "complete": State.RUNNING,  # KubeRay has seen an end whose kind Ray has not said yet
    "succeeded": State.SUCCEEDED,
    "stopped": State.CANCELLED,
    "validationfailed": State.FAILED,
    "deadlineexceeded": State.TIMEOUT,
}

_SKYPILOT: Mapping[str, State] = {
    # of a job on a cluster
    "init": State.PENDING,
    "pending": State.PENDING,
    "setting_up": State.RUNNING,
    "running": State.RUNNING,
    "failed_driver": State.NODE_FAIL,
    "succeeded": State.SUCCEEDED,
    "failed": State.FAILED,
    "failed_setup": State.FAILED,
    "cancelled": State.CANCELLED,
    # of the request that launches it, where no cluster has it (yet)
    "launching": State.PENDING,
    "launch-failed": State.FAILED,
}
_SKYPILOT_JOBS: Mapping[str, State] = {
    "launching": State.PENDING,
    "launch-failed": State.FAILED,
    "pending": State.PENDING,
    "submitted": State.PENDING,
    "starting": State.PENDING,
    "running": State.RUNNING,
    "winding_down": State.RUNNING,
    "recovering": State.PENDING,
    "cancelling": State.RUNNING,
    "succeeded": State.SUCCEEDED,
    "cancelled": State.CANCELLED,
    "failed": State.FAILED,
    "failed_setup": State.FAILED,
    "failed_prechecks": State.FAILED,
    "failed_no_resource": State.FAILED,
    "failed_controller": State.NODE_FAIL,
}

# Stopping and Degraded are no ends yet, though NeMo-Run takes them for some: a pod may still run. A workload that is Stopped was suspended.
_DGXCLOUD: Mapping[str, State] = {
    "creating": State.PENDING,
    "initializing": State.PENDING,
    "resuming": State.PENDING,
    "pending": State.PENDING,
    "running": State.RUNNING,
    "updating": State.RUNNING,
    "degraded": State.RUNNING,
    "stopping": State.RUNNING,
    "terminating": State.RUNNING,
    "deleting": State.RUNNING,
    "stopped": State.CANCELLED,
    "failed": State.FAILED,
    "completed": State.SUCCEEDED,
}

# NeMo-Run takes Archived for a success and an unknown word for a failure; here neither says how it ended.
_LEPTON: Mapping[str, State] = {
    "starting": State.PENDING,
    "queueing": State.PENDING,
    "awaiting": State.PENDING,
    "pendingretry": State.PENDING,
    "restarting": State.PENDING,
    "running": State.RUNNING,
    "stopping": State.RUNNING,
    "deleting": State.RUNNING,
    "completed": State.SUCCEEDED,
    "failed": State.FAILED,
    "stopped": State.CANCELLED,
}

WORDS: Mapping[str, Mapping[str, State]] = {
    "docker": _DOCKER,
    "kubeflow": _KUBEFLOW,
    "kuberay": _KUBERAY,
    "skypilot": _SKYPILOT,
    "skypilot-jobs": _SKYPILOT_JOBS,
    "dgxcloud": _DGXCLOUD,
    "lepton": _LEPTON,
}
"""For each executor: its API's word → ours. A word of failure with the exit code 0 is a success only where the word is `exited`."""


TIMED_OUT = 124
"""What `timeout` leaves, under which the job's script runs."""


class CloudSightings:
    """One look through an API, asked per job: the same as `slurm.Sightings`, for what has no scheduler of its own here."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._jobs = {view.job_id: view for view in views.jobs}

    def of(self, job_id: str, exit_file: str = "") -> Sight:
        """What is known of one job; `exit_file` is for those that leave one."""
        if job_id in self._jobs:
            return observed(self._views.executor, self._jobs[job_id])
        return Silent(self._views.silent) if self._views.silent else Absent()


def state_of(executor: str, word: str) -> State:
    """What an API's word means."""
    return WORDS.get(executor, {}).get(word.strip().lower(), State.UNKNOWN)


def observed(executor: str, view: JobView) -> Observation:
    """One job as the API describes it."""
    state = state_of(executor, view.word)
    if view.word.strip().lower() == "exited" and view.exit_code == 0:
        state = State.SUCCEEDED
    if state is State.SUCCEEDED and view.exit_code:
        state = State.FAILED  # an exit code is the program's own word
    if state is State.FAILED:
        state = {"OOMKilled": State.OUT_OF_MEMORY}.get(view.reason, State.TIMEOUT if view.exit_code == TIMED_OUT else state)
    if state is State.UNKNOWN:
        return Observation(state, executor, reason=view.word[:100], parts=None)
    return Observation(
        state,
        executor,
        exit_code=view.exit_code if state.ended else None,
        reason=view.reason,
        nodes=view.nodes,
        start=_moment(view.started),
        end=_moment(view.ended) if state.ended else None,
        elapsed_seconds=_elapsed(view),
        parts=None,
    )


def _elapsed(view: JobView) -> int | None:
    return None if view.started is None or view.ended is None else max(0, round(view.ended - view.started))


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, tz=timezone.utc)
