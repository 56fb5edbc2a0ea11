"""One kind of job on Kubernetes → the `Api`: what a TrainJob and a RayJob have in common, which is everything but the object itself.

At most one job: its name is the run key's, and a name that is taken is our own job, found again (NeMo-Run deletes it and begins anew).
A job is cancelled by deleting it, because whoever suspends one may see a queue start it again; its Secret remembers that, and the log.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dispatcher.cloudstates import state_of
from dispatcher.effects.clouds.api import ApiError, RefusedError, Rendered, name_of
from dispatcher.effects.clouds.kube import Namespace
from dispatcher.effects.clouds.kube_files import RUN_KEY, JobFiles, code_in_secret
from dispatcher.kubestates import Object, Seen, deleted, label_in, name_in
from dispatcher.ports import JobView

AT_ONCE = 100
"""Jobs whose pods are asked for in one request: their names stand in the address."""


class KubernetesJob(ABC):
    """A kind of job in a namespace. Raises `ApiError` and, from `launch`, `RefusedError`."""

    PATH = ""
    """`GROUP/VERSION/PLURAL`."""
    POD_LABEL = ""
    """The label of a job's pods that has the job's name."""
    CONTAINER = ""
    """The container whose output is the job's log; empty where a pod has one."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self.profile = profile
        self.namespace = Namespace(profile)
        self.files = JobFiles(self.namespace, profile)

    @abstractmethod
    def script(self, job: Mapping[str, Any], work: Path) -> str:
        """What the job starts."""

    @abstractmethod
    def body(self, job: Mapping[str, Any]) -> Object:
        """The job's object. The same in the preview and for the API: variables and secrets are not in it."""

    @abstractmethod
    def secrets(self, script: str, code: Mapping[str, bytes], environment: Mapping[str, str]) -> Mapping[str, Mapping[str, bytes]]:
        """The Secrets' files, by what comes after the job's name in theirs."""

    @abstractmethod
    def seen(self, job: Object, pods: Sequence[Object]) -> Seen:
        """What is known of it."""

    def log_pods(self, pods: Sequence[Object]) -> Sequence[Object]:
        """Those of a job's pods that print its log."""
        return pods

    def render(self, job: Mapping[str, Any], work: Path) -> Rendered:
        """The script, and the object as YAML."""
        import yaml

        # Structures of Kubernetes may stand there twice; an anchor would say less.
        dumper = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})
        shown = yaml.dump(self.body(job), Dumper=dumper, sort_keys=False, width=160)
        return Rendered(self.script(job, work), {f"configs/{self.PATH.rpartition('/')[2].rstrip('s')}.yaml": shown})

    def launch(self, job: Mapping[str, Any], code: Path | None, environment: Mapping[str, str], work: Path) -> str:
        """Lays down the Secret and the code, then makes the job: what is there before it was begun does nothing."""
        run_key = str(job["run_key"])
        name, body = name_of(run_key), self.body(job)
        if self.namespace.get(f"{self.PATH}/{name}") is not None:
            return name
        secrets = self.secrets(self.script(job, work), code_in_secret(code, self.profile), environment)
        try:
            for suffix, files in secrets.items():
                self.files.keep(name + suffix, run_key, files)
            if code is not None and self.profile["workdir_pvc"]:
                self.files.move(code, name, run_key)
            self.namespace.create(self.PATH, body)
        except RefusedError:
            with suppress(ApiError):
                self._remove_secrets(name)
            raise
        return name

    def find(self, run_key: str) -> str | None:
        """A job that was cancelled was one, too."""
        name = name_of(run_key)
        there = self.namespace.get(f"{self.PATH}/{name}") is not None or self.files.cancelled([name])
        return name if there else None

    def look(self, job_ids: Sequence[str]) -> list[JobView]:
        """All jobs in one request, their pods in another."""
        jobs = {name_in(job): job for job in self.namespace.find_all(self.PATH, RUN_KEY) if name_in(job) in set(job_ids)}
        pods = self._pods(list(jobs))
        found = []
        for name, job in jobs.items():
            seen = self.seen(job, pods.get(name, []))
            found.append(JobView(name, seen.word, seen.exit_code, seen.reason, seen.started, seen.ended, seen.nodes))
        gone = [job_id for job_id in job_ids if job_id not in jobs]
        return [*found, *(JobView(name, "Cancelled") for name in sorted(self.files.cancelled(gone)))]

    def log(self, job_id: str) -> str:
        """From the pods as long as there are any, then what was kept when it was cancelled."""
        pods = self.log_pods(self._pods([job_id]).get(job_id, []))
        return (self.namespace.log(pods, self.CONTAINER) if pods else "") or self.files.kept_log(job_id)

    def cancel(self, job_id: str) -> str:
        """Deletes it, unless it has ended. It is there until its pods are gone: until then it has not ended."""
        job = self.namespace.get(f"{self.PATH}/{job_id}")
        if job is None or deleted(job) or state_of(self.profile["executor"], self.seen(job, ()).word).ended:
            return ""
        self.files.mark_cancelled(job_id, self.log(job_id))
        self.namespace.delete(f"{self.PATH}/{job_id}", "Foreground")
        return ""

    def forget(self, job_id: str) -> None:
        """Deletes the job, its pods with it, and its Secrets. What lies in a claim stays."""
        self.namespace.delete(f"{self.PATH}/{job_id}")
        self._remove_secrets(job_id)

    def probe(self) -> list[tuple[str, int, str]]:
        """The server, and what these credentials may do."""
        found = [("kubernetes", 0, f"{self.namespace.version()} answers")]
        group, _, plural = self.PATH.split("/")
        needed = [(verb, group, plural) for verb in ("create", "get", "list", "delete")]
        needed += [(verb, "", "secrets") for verb in ("create", "get", "patch", "delete")]
        needed += [("list", "", "pods"), ("get", "", "pods/log")]
        needed += [("create", "", "pods"), ("create", "", "pods/exec")] if self.profile["workdir_pvc"] else []
        missing = [f"{verb} {resource}" for verb, group, resource in needed if not self.namespace.allowed(verb, group, resource)]
        where = f"namespace {self.namespace.name}"
        found.append(("rights", 1, f"not allowed in {where}: {', '.join(missing)}") if missing else ("rights", 0, f"enough in {where}"))
        try:
            self.namespace.find_all(self.PATH, RUN_KEY)
            found.append((plural, 0, f"the cluster has {plural}"))
        except ApiError as error:
            found.append((plural, 1, f"{plural} cannot be listed: {error}"))
        return found

    def _pods(self, names: Sequence[str]) -> dict[str, list[Object]]:
        """The pods of these jobs."""
        found: dict[str, list[Object]] = {}
        for first in range(0, len(names), AT_ONCE):
            for pod in self.namespace.find_all("pods", f"{self.POD_LABEL} in ({','.join(names[first : first + AT_ONCE])})"):
                found.setdefault(label_in(pod, self.POD_LABEL), []).append(pod)
        return found

    def _remove_secrets(self, name: str) -> None:
        for suffix in self.secrets("", {}, {}):
            self.namespace.delete(f"secrets/{name}{suffix}")
