"""A workspace of DGX Cloud Lepton of one's own, for a test: the endpoints that leptonai's client calls for jobs, over real HTTP.

    with LeptonServer(tmp_path) as server:
        environment |= server.environment

Jobs really run, as processes here. Requests and answers are held against leptonai's own models, unknown fields included; what does not fit
stands in `violations`.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leptonai.api.v1.types.dedicated_node_group import DedicatedNodeGroup
from leptonai.api.v1.types.job import LeptonJob
from leptonai.api.v1.types.replica import Replica
from leptonai.api.v1.types.secret import SecretItem
from pydantic import BaseModel, ValidationError

from tests.container_standin import ContainerStandIn
from tests.http_standin import HttpStandIn

WORKSPACE, TOKEN = "team-ws", "lepton-token-5f0b7c1e9a"


def against(model: type[BaseModel], value: Any) -> list[str]:
    """What of a value does not fit a model, or is not in it at all."""
    try:
        made = model(**value)
    except (ValidationError, TypeError) as error:
        return [f"{model.__name__}: {error}"]
    return [f"{model.__name__}: {path} is not in it" for path in _lost(value, made.model_dump(mode="json", by_alias=True))]


def _lost(given: Any, kept: Any, path: str = "") -> list[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        missing = [f"{path}/{name}" for name in given if name not in kept]
        return missing + [words for name in given if name in kept for words in _lost(given[name], kept[name], f"{path}/{name}")]
    if isinstance(given, list) and isinstance(kept, list):
        return [words for number, item in enumerate(given) for words in _lost(item, kept[number], f"{path}/{number}")]
    return []


@dataclass
class Job:
    """One job; its replicas are processes here."""

    id: str
    body: dict[str, Any]
    created: int
    state: str = "Starting"
    replicas: dict[str, ContainerStandIn] = field(default_factory=dict)
    ended: int | None = None
    stored: str = ""

    @property
    def codes(self) -> list[int | None]:
        return [replica.exit_code for replica in self.replicas.values()]

    def settle(self) -> None:
        """Looks after the replicas."""
        if self.state == "Running" and all(code is not None for code in self.codes):
            self.state, self.ended = ("Failed" if any(self.codes) else "Completed"), int(time.time() * 1000)

    def stop(self, state: str) -> None:
        """Ends them."""
        for replica in self.replicas.values():
            replica.kill()
        if self.ended is None:
            self.state, self.ended = state, int(time.time() * 1000)


class LeptonServer(HttpStandIn):
    """One workspace with one node group. With `gone` the replicas of ended jobs cannot be read any more, only the log store."""

    def __init__(self, folder: Path, suffix: str = "") -> None:
        self.folder, self.suffix = folder, suffix
        self.jobs: dict[str, Job] = {}
        self.secrets: dict[str, str] = {"hf": "hf-secret-value"}
        self.gone, self.group_name = False, "h100"
        super().__init__()
        self.environment = {"LEPTON_WORKSPACE_ID": WORKSPACE, "LEPTON_WORKSPACE_TOKEN": TOKEN, "LEPTON_WORKSPACE_URL": self.url}

    def reset(self) -> None:
        """As it was at first."""
        for job in self.jobs.values():
            job.stop("Stopped")
        for kept in (self.jobs, self.requests, self.violations, self.troubles):
            kept.clear()
        self.secrets, self.gone, self.suffix = {"hf": "hf-secret-value"}, False, ""

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any, token: str) -> tuple[int, Any]:
        with self.lock:
            if token != TOKEN:
                return 401, {"code": "Unauthorized", "message": "invalid token"}
            for job in self.jobs.values():
                job.settle()
            if (method, path) == ("GET", "/dedicated-node-groups"):
                group = {"metadata": {"id": "group-1", "name": self.group_name}, "spec": {"desired_nodes": 2}, "status": {"ready_nodes": 2}}
                self.violations += against(DedicatedNodeGroup, group)
                return 200, [group]
            if path.startswith("/usersecrets"):
                return self._secret(method, path, body)
            if (method, path) == ("GET", "/logs"):
                return self._stored(query)
            found = re.fullmatch(r"/jobs(?:/([^/]+)(/replicas(?:/([^/]+)/log)?)?)?", path)
            if found is None:
                self.violations.append(f"{method} {path} is not in the API")
                return 404, {"message": "no such endpoint"}
            if found[1] is None:
                return self._create(body) if method == "POST" else self._listed(query)
            job = self.jobs.get(found[1])
            if job is None:
                return 404, {"message": f"job {found[1]} not found"}
            if found[2]:
                return self._replica(job, found[3])
            return self._one(method, job, body)

    def _one(self, method: str, job: Job, body: Any) -> tuple[int, Any]:
        if method == "PATCH":
            if body != {"spec": {"stopped": True}}:
                self.violations.append(f"PATCH {body}")
            job.body["spec"]["stopped"] = True
            job.stop("Stopped")
        elif method == "DELETE":
            job.stop("Deleted")
            del self.jobs[job.id]
            return 200, {}
        return 200, self._shown(job)

    def _create(self, body: Any) -> tuple[int, Any]:
        self.violations += against(LeptonJob, body)
        longest = max(len(word.encode()) for word in body["spec"]["container"]["command"])
        if longest > 128 * 1024:
            self.violations.append(f"an argument of {longest} bytes: no Linux takes it")
        job_id = body["metadata"]["id"] + self.suffix
        if job_id in self.jobs:
            return 409, {"message": f"job {job_id} already exists"}
        job = self.jobs[job_id] = Job(job_id, body, int(time.time() * 1000))
        self._begin(job)
        return 201, self._shown(job)

    def _begin(self, job: Job) -> None:
        spec = job.body["spec"]
        given = {
            item["name"]: self.secrets[item["value_from"]["secret_name_ref"]] if item.get("value_from") else item["value"]
            for item in spec.get("envs", [])
        }
        storage = {mount["mount_path"]: self.folder / "storage" / mount["mount_path"].strip("/") for mount in spec.get("mounts", [])}
        for number in range(spec["completions"]):
            own = {
                "LEPTON_JOB_NAME": job.id,
                "LEPTON_JOB_WORKER_INDEX": str(number),
                "LEPTON_JOB_TOTAL_WORKERS": str(spec["completions"]),
                "LEPTON_JOB_WORKER_PREFIX": "worker",
                "LEPTON_SUBDOMAIN": f"{job.id}-job-svc",
            }
            name = f"{job.id}-{number}-a1b2c"
            folders = {"/nemo_run": self.folder / "pods" / name, **storage}
            job.replicas[name] = ContainerStandIn(spec["container"]["command"], {**own, **given}, folders, name)
        job.state = "Running"

    def _shown(self, job: Job) -> dict[str, Any]:
        running = [code for code in job.codes if code is None]
        status = {
            "job_name": job.id,
            "state": job.state,
            "ready": len(running),
            "active": len(running),
            "creation_time": job.created,
            "failed": len([code for code in job.codes if code]),
            "succeeded": job.codes.count(0),
            "job_history": [],
            **({"completion_time": job.ended} if job.ended else {}),
        }
        metadata = {**job.body["metadata"], "id": job.id, "created_at": job.created}
        shown = {"metadata": metadata, "spec": job.body["spec"], "status": status}
        self.violations += against(LeptonJob, shown)
        return shown

    def _listed(self, query: dict[str, list[str]]) -> tuple[int, Any]:
        part, page, size = query.get("q", [""])[0], int(query["page"][0]), int(query["page_size"][0])
        jobs = [self._shown(job) for job in self.jobs.values() if part in job.body["metadata"]["name"]]
        return 200, {"jobs": jobs[(page - 1) * size : page * size]}

    def _replica(self, job: Job, name: str | None) -> tuple[int, Any]:
        if name is None:
            replicas = [{"metadata": {"id": replica, "name": replica}, "id": replica} for replica in job.replicas]
            for replica in replicas:
                self.violations += against(Replica, replica)
            return 200, replicas
        if name not in job.replicas or (self.gone and job.ended):
            return 404, {"message": f"replica {name} not found"}
        return 200, job.replicas[name].log

    def _secret(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "POST":
            for item in body:
                self.violations += against(SecretItem, item)
                if item["name"] in self.secrets:
                    return 409, {"message": f"secret {item['name']} already exists"}
                self.secrets[item["name"]] = item["value"]
            return 200, {}
        if method == "DELETE":
            return (200, {}) if self.secrets.pop(path.rpartition("/")[2], None) is not None else (404, {"message": "no such secret"})
        return 200, [{"name": name} for name in self.secrets]

    def _stored(self, query: dict[str, list[str]]) -> tuple[int, Any]:
        job = self.jobs[query["job"][0]]
        start, end, limit = (int(query[name][0]) for name in ("start", "end", "limit"))
        lines = [line for replica in job.replicas.values() for line in replica.log.splitlines()]
        values = [[str(job.created * 1_000_000 + number), line] for number, line in enumerate(lines)]
        values = [value for value in values if start <= int(value[0]) <= end]
        return 200, {"data": {"result": [{"stream": {}, "values": values[-limit:]}]}}
