"""Objects of Kubernetes → what is known of a job: conditions, pods, exit codes, and everything that must not look like an end."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from dispatcher.cloudstates import WORDS, observed
from dispatcher.kubestates import ray_job, train_job
from dispatcher.ports import JobView
from dispatcher.slurm import Observation, State

THEN, LATER = "2026-11-30T14:02:00Z", "2026-11-30T15:02:00Z"
SECONDS = datetime(2026, 11, 30, 14, 2, tzinfo=timezone.utc).timestamp()


def condition(kind: str, status: str = "True", **more: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "lastTransitionTime": LATER, **more}


def train(*conditions: dict[str, Any], deleted: bool = False, **status: Any) -> dict[str, Any]:
    metadata = {"name": "dispatch-1", **({"deletionTimestamp": LATER} if deleted else {})}
    return {"metadata": metadata, "status": {"conditions": list(conditions), **status}}


def ray(program: str = "", deployment: str = "", deleted: bool = False, **status: Any) -> dict[str, Any]:
    metadata = {"name": "dispatch-1", **({"deletionTimestamp": LATER} if deleted else {})}
    return {"metadata": metadata, "status": {"jobStatus": program, "jobDeploymentStatus": deployment, **status}}


def pod(phase: str = "Running", code: int | None = None, reason: str = "Error", at: str = LATER, **status: Any) -> dict[str, Any]:
    state: dict[str, Any] = {"running": {"startedAt": THEN}} if phase == "Running" else {}
    if code is not None:
        state = {"terminated": {"exitCode": code, "reason": reason, "startedAt": THEN, "finishedAt": at}}
    return {"spec": {"nodeName": "gpu-1"}, "status": {"phase": phase, "containerStatuses": [{"name": "node", "state": state}], **status}}


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return pod("Pending", containerStatuses=[{"name": "node", "state": {"waiting": {"reason": reason, "message": message}}}])


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/4 nodes are available"}
PREEMPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempting"}


def known(executor: str, seen: Any) -> Observation:
    return observed(executor, JobView("dispatch-1", seen.word, seen.exit_code, seen.reason, seen.started, seen.ended, seen.nodes))


@pytest.mark.parametrize(
    ("job", "pods", "state", "code", "reason"),
    [
        (train(), [], State.PENDING, None, ""),
        ({}, [], State.PENDING, None, ""),
        (train(condition("Suspended", "False")), [pod("Pending")], State.PENDING, None, ""),
        (train(condition("Suspended")), [], State.PENDING, None, ""),
        (train(), [pod("Pending", conditions=[UNSCHEDULABLE])], State.PENDING, None, "Unschedulable: 0/4 nodes are available"),
        (train(), [waits("ImagePullBackOff", "no such image")], State.PENDING, None, "ImagePullBackOff: no such image"),
        (train(), [waits("ContainerCreating")], State.PENDING, None, ""),
        (train(), [pod("Pending"), pod()], State.RUNNING, None, ""),
        # One pod has failed and is started again: the job has not ended, whatever is counted there.
        (train(jobsStatus=[{"name": "node", "failed": 1}]), [pod("Failed", 1)], State.RUNNING, None, ""),
        (train(jobsStatus=[{"name": "node", "succeeded": 1}]), [pod("Succeeded", 0)], State.RUNNING, None, ""),
        (train(deleted=True), [pod()], State.RUNNING, None, ""),
        (train(condition("Complete")), [pod("Succeeded", 0)], State.SUCCEEDED, None, ""),
        (train(condition("Complete")), [], State.SUCCEEDED, None, ""),
        (train(condition("Complete"), condition("Suspended", "False")), [pod("Failed", 1), pod("Succeeded", 0)], State.SUCCEEDED, None, ""),
        (train(condition("Failed", reason="JobsFailed", message="x")), [], State.FAILED, None, "JobsFailed: x"),
        (train(condition("Failed")), [pod("Failed", 3)], State.FAILED, 3, ""),
        (train(condition("Failed")), [pod("Failed", 143, at=LATER), pod("Failed", 7, at=THEN)], State.FAILED, 7, ""),
        (train(condition("Failed")), [pod("Failed", 124)], State.TIMEOUT, 124, ""),
        (train(condition("Failed")), [pod("Failed", 137, "OOMKilled")], State.OUT_OF_MEMORY, 137, "OOMKilled"),
        (
            train(condition("Failed")),
            [pod("Failed", 137, conditions=[PREEMPTED])],
            State.PREEMPTED,
            None,
            "PreemptionByScheduler: preempting",
        ),
        (train(condition("Failed")), [{"status": {"reason": "Evicted", "message": "disk"}}], State.PREEMPTED, None, "Evicted: disk"),
        (train(condition("Complete", "False"), condition("Failed", "Unknown")), [], State.PENDING, None, ""),
    ],
)
def test_a_train_job(job: dict[str, Any], pods: list[dict[str, Any]], state: State, code: int | None, reason: str) -> None:
    seen = known("kubeflow", train_job(job, pods))
    assert (seen.state, seen.exit_code, seen.reason) == (state, code, reason)


def test_when_and_where() -> None:
    seen = known("kubeflow", train_job(train(condition("Complete")), [pod("Succeeded", 0), pod("Succeeded", 0)]))
    assert (seen.start, seen.end) == (datetime.fromtimestamp(SECONDS, timezone.utc), datetime.fromtimestamp(SECONDS + 3600, timezone.utc))
    assert (seen.elapsed_seconds, seen.nodes) == (3600, "gpu-1")


@pytest.mark.parametrize(
    ("job", "state", "code", "reason"),
    [
        (ray(), State.PENDING, None, ""),
        ({}, State.PENDING, None, ""),
        (ray("", "Initializing"), State.PENDING, None, ""),
        (ray("", "Waiting"), State.PENDING, None, ""),
        (ray("PENDING", "Running"), State.RUNNING, None, ""),
        (ray("RUNNING", "Running"), State.RUNNING, None, ""),
        (ray("", "Suspended"), State.PENDING, None, ""),
        (ray("", "Suspending"), State.PENDING, None, ""),
        (ray("", "Retrying"), State.PENDING, None, ""),
        (ray("SUCCEEDED", "Running"), State.SUCCEEDED, None, ""),
        (ray("SUCCEEDED", "Complete", message="Job finished successfully."), State.SUCCEEDED, None, ""),
        (ray("FAILED", "Failed", message="Job entrypoint command failed with exit code 3, last"), State.FAILED, 3, "Job entrypoint"),
        (ray("FAILED", "Failed", message="failed with exit code 124."), State.TIMEOUT, 124, "failed"),
        (ray("FAILED", "Failed", reason="AppFailed", message="exit code twelve"), State.FAILED, None, "AppFailed exit"),
        (ray("", "Failed", reason="SubmissionFailed"), State.FAILED, None, "SubmissionFailed"),
        (ray("RUNNING", "Failed", reason="DeadlineExceeded"), State.TIMEOUT, None, "DeadlineExceeded"),
        (ray("", "ValidationFailed", reason="ValidationFailed"), State.FAILED, None, "ValidationFailed"),
        (ray("STOPPED", "Complete"), State.CANCELLED, None, ""),
        (ray("", "Complete"), State.RUNNING, None, ""),
        (ray("RUNNING", "Running", deleted=True), State.RUNNING, None, ""),
        (ray("", "Initializing", deleted=True), State.RUNNING, None, ""),
        (ray("PAUSED", "Running"), State.RUNNING, None, ""),
        (ray("", "Teleported"), State.UNKNOWN, None, "Teleported"),
    ],
)
def test_a_ray_job(job: dict[str, Any], state: State, code: int | None, reason: str) -> None:
    seen = known("kuberay", ray_job(job, []))
    assert (seen.state, seen.exit_code) == (state, code)
    assert seen.reason.startswith(reason)
    assert bool(seen.reason) == bool(reason)


def test_a_ray_job_that_waits_says_for_what() -> None:
    assert ray_job(ray("", "Initializing"), [pod("Pending", conditions=[UNSCHEDULABLE])]).reason == "Unschedulable: 0/4 nodes are available"
    seen = known("kuberay", ray_job(ray("SUCCEEDED", "Complete", startTime=THEN, endTime=LATER), []))
    assert seen.elapsed_seconds == 3600


@pytest.mark.parametrize("junk", [None, 7, "x", [], [1], {"a": 1}, [None, {}]])
@pytest.mark.parametrize("place", ["metadata", "status", "conditions", "containerStatuses", "state"])
def test_what_has_another_shape_is_not_there(place: str, junk: object) -> None:
    """Whatever an API sends, nothing of it becomes a success, and nothing breaks."""
    job: dict[str, Any] = {"metadata": {"name": "x"}, "status": {"conditions": [condition("Running")]}}
    its = pod("Failed", 1)
    for holder in (job, its, job["status"], its["status"], its["status"]["containerStatuses"][0]):
        if place in holder:
            holder[place] = junk
    for read in (train_job, ray_job):
        assert read(job, [its]).word.lower() not in ("complete", "succeeded")


def test_every_word_that_is_made_is_known() -> None:
    for word in ("Created", "Suspended", "Running", "Terminating", "Complete", "Failed", "Evicted", "Cancelled"):
        assert word.lower() in WORDS["kubeflow"]
    for word in ("Created", "RUNNING", "Terminating", "SUCCEEDED", "FAILED", "STOPPED", "Evicted", "Cancelled", "DeadlineExceeded"):
        assert word.lower() in WORDS["kuberay"]
