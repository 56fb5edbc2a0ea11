"""Objects of Kubernetes as their API has them (TrainJob, RayJob, Pod) → one word about a job, and what its pods say about its end.

| source | |
|---|---|
| TrainJob | https://www.kubeflow.org/docs/components/trainer/reference/ (`status.conditions`) |
| RayJob | https://ray-project.github.io/kuberay/reference/api/ (`jobStatus`, `jobDeploymentStatus`) |
| Pod | https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ and …/pods/disruptions/ |

The objects are untrusted: whatever has another shape than expected is not there. `cloudstates.WORDS` says what a word means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]

# What a pod says when it was not its own program that ended it.
_EVICTED = frozenset({"Evicted", "Preempting", "PreemptionByScheduler", "EvictionByEvictionAPI", "DeletionByTaintManager"})
_EVICTED |= frozenset({"TerminationByKubelet", "Shutdown", "NodeShutdown", "NodeLost"})


@dataclass(frozen=True)
class Seen:
    """One job. Times are seconds since the epoch, UTC."""

    word: str
    exit_code: int | None = None
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    nodes: str = ""


def train_job(job: Object, pods: Sequence[Object]) -> Seen:
    """A TrainJob and the pods of its nodes.

    NeMo-Run counts child jobs (`jobsStatus`), where one that failed and is being started again looks like an end, and one whose pods
    wait for a machine looks like running. Here only the conditions end a job, and it runs when one of its pods does.
    """
    conditions = {condition.get("type"): condition for condition in _tables(_table(job, "status"), "conditions") if _is_true(condition)}
    for kind in ("Complete", "Failed"):
        if kind in conditions:
            said = "" if kind == "Complete" else _words(conditions[kind])
            return _ended(kind, said, pods, _moment(conditions[kind].get("lastTransitionTime")))
    return _going_on("Suspended" if "Suspended" in conditions else "Created", job, pods)


def ray_job(job: Object, pods: Sequence[Object]) -> Seen:
    """A RayJob and the pods of its cluster. Ray's own word about the program counts before what KubeRay says about the deployment."""
    status = _table(job, "status")
    program, deployment = str(status.get("jobStatus") or ""), str(status.get("jobDeploymentStatus") or "")
    started, ended = _moment(status.get("startTime")), _moment(status.get("endTime"))
    said = " ".join(str(status.get(name) or "") for name in ("reason", "message")).strip()
    if program in ("SUCCEEDED", "FAILED", "STOPPED") or deployment in ("Failed", "ValidationFailed"):
        word = program if program in ("SUCCEEDED", "FAILED", "STOPPED") else deployment
        if status.get("reason") == "DeadlineExceeded":
            word = "DeadlineExceeded"
        end = _ended(word, said if word != "SUCCEEDED" else "", pods, ended)
        rays_word = _exit_code(said)
        return Seen(end.word, rays_word if end.exit_code is None else end.exit_code, end.reason, started or end.started, ended, end.nodes)
    if program == "RUNNING":
        return Seen("RUNNING", started=started, nodes=_nodes(pods))
    waits = _going_on(deployment or "Created", job, ())
    return Seen(waits.word, reason=waiting(pods), started=None)


def deleted(job: Object) -> bool:
    """Whether somebody has asked for its deletion, and its pods are not all gone."""
    return bool(_table(job, "metadata").get("deletionTimestamp"))


def name_in(item: Object) -> str:
    """Its name."""
    return str(_table(item, "metadata").get("name") or "")


def label_in(item: Object, label: str) -> str:
    """The value of one of its labels, empty where it has none."""
    return str(_table(_table(item, "metadata"), "labels").get(label) or "")


def rank_of(pod: Object) -> int:
    """Which node of the job the pod is: the index that Kubernetes' Job gives it; 0 where it has none."""
    index = label_in(pod, "batch.kubernetes.io/job-completion-index")
    return int(index) if index.isdigit() and len(index) < 7 else 0


def _going_on(word: str, job: Object, pods: Sequence[Object]) -> Seen:
    if deleted(job):
        return Seen("Terminating", nodes=_nodes(pods))
    if any(_table(pod, "status").get("phase") in ("Running", "Succeeded", "Failed") for pod in pods):
        return Seen("Running", started=_first_start(pods), nodes=_nodes(pods))
    return Seen(word, reason=waiting(pods))


def _ended(word: str, said: str, pods: Sequence[Object], ended: float | None) -> Seen:
    """The end, with the exit code of the first container that failed."""
    evicted = next((why for pod in pods if (why := _evicted(pod))), "")
    if word in ("Failed", "FAILED") and evicted:
        return Seen("Evicted", reason=evicted, started=_first_start(pods), ended=ended, nodes=_nodes(pods))
    ends = sorted(
        (end for pod in pods for end in _terminations(pod)), key=lambda end: _moment(end.get("finishedAt")) or 0.0
    )  # several fail one after another, when one of them has
    bad = next((end for end in ends if end.get("exitCode")), None)
    if word not in ("Complete", "SUCCEEDED") and bad is not None:
        reason = "OOMKilled" if bad.get("reason") == "OOMKilled" else said
        return Seen(word, int(bad["exitCode"]), reason, _first_start(pods), ended, _nodes(pods))
    return Seen(word, None, said, _first_start(pods), ended, _nodes(pods))


def _terminations(pod: Object) -> Iterable[Object]:
    for container in _tables(_table(pod, "status"), "containerStatuses"):
        for state in ("state", "lastState"):
            terminated = _table(_table(container, state), "terminated")
            if isinstance(terminated.get("exitCode"), int):
                yield terminated


def _evicted(pod: Object) -> str:
    """Why the pod was taken away; empty when it was not."""
    status = _table(pod, "status")
    for condition in _tables(status, "conditions"):
        if condition.get("type") == "DisruptionTarget" and _is_true(condition):
            return _words(condition)
    return _words(status) if status.get("reason") in _EVICTED else ""


def waiting(pods: Sequence[Object]) -> str:
    """Why pods do not start: no machine, no image, a Secret that is not there."""
    for pod in pods:
        status = _table(pod, "status")
        for condition in _tables(status, "conditions"):
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return _words(condition)
        for container in [*_tables(status, "initContainerStatuses"), *_tables(status, "containerStatuses")]:
            why = _table(_table(container, "state"), "waiting")
            if why.get("reason") not in (None, "", "ContainerCreating", "PodInitializing"):
                return _words(why)
    return ""


def _first_start(pods: Sequence[Object]) -> float | None:
    """When the first container of the job began."""
    moments = [
        _moment(_table(_table(container, state), kind).get("startedAt"))
        for pod in pods
        for container in _tables(_table(pod, "status"), "containerStatuses")
        for state, kind in (("state", "running"), ("state", "terminated"), ("lastState", "terminated"))
    ]
    known = [moment for moment in moments if moment is not None]
    return min(known) if known else None


def _nodes(pods: Sequence[Object]) -> str:
    """The machines, each once."""
    return ",".join(dict.fromkeys(str(_table(pod, "spec").get("nodeName")) for pod in pods if _table(pod, "spec").get("nodeName")))


def _exit_code(words: str) -> int | None:
    """Ray says it in its message: `… failed with exit code 3, …`."""
    _, found, rest = words.partition("exit code ")
    digits = rest[:3].split(",")[0].split(" ")[0].rstrip(".")
    return int(digits) if found and digits.isdigit() else None


def _words(said: Object) -> str:
    return ": ".join(str(said[name])[:300] for name in ("reason", "message") if said.get(name))


def _is_true(condition: Object) -> bool:
    return condition.get("status") == "True"


def _table(holder: Object, name: str) -> Object:
    value = holder.get(name)
    return value if isinstance(value, Mapping) else {}


def _tables(holder: Object, name: str) -> list[Object]:
    value = holder.get(name)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _moment(text: object) -> float | None:
    """`2026-11-30T14:02:00Z` → seconds."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
