"""A Run:ai of one's own, for a test: the endpoints that a training takes, over real HTTP, and beside them the logs of its Kubernetes.

    with DgxServer(tmp_path) as server:
        server.trouble("GET", "/workloads", 500, times=2)

Workloads really run, as processes here. Requests and answers are held against the models of Run:ai's own client (`tests/data/README.md`),
unknown fields included; what does not fit stands in `violations`.
"""

from __future__ import annotations

import json
import re
import shlex
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.container_standin import ContainerStandIn
from tests.http_standin import HttpStandIn

MODELS = json.loads((Path(__file__).parent / "data" / "runai-models.json").read_text())
CLIENT = ("ci-app", "s3cret-of-the-app")
KINDS = {"trainings": "Training", "distributed": "Distributed", "workspaces": "Workspace"}
_CREATION = {"trainings": "TrainingCreationRequest", "distributed": "DistributedCreationRequest", "workspaces": "WorkspaceCreationRequest"}
_ANSWER = {"trainings": "Training1", "distributed": "DistributedWorkload", "workspaces": "Workspace1"}


def against(model: str, value: Any) -> list[str]:
    """What of a value does not fit a model."""
    validator = Draft202012Validator({"$ref": f"#/$defs/{model}", **MODELS})
    return [f"{model}{error.json_path[1:]}: {error.message[:200]}" for error in validator.iter_errors(value)]


@dataclass
class Workload:
    """One workload; its pods are processes here."""

    id: str
    kind: str
    body: dict[str, Any]
    created: str
    phase: str = "Creating"
    pods: dict[str, ContainerStandIn] = field(default_factory=dict)

    def settle(self) -> None:
        """Looks after the pods."""
        codes = [pod.exit_code for pod in self.pods.values()]
        if self.phase == "Running" and all(code is not None for code in codes):
            self.phase = "Failed" if any(codes) else "Completed"


class DgxServer(HttpStandIn):
    """One control plane with one project. `runs=False` leaves workloads pending until `begin`."""

    def __init__(self, folder: Path, project: str = "team-a", runs: bool = True) -> None:
        self.folder, self.project, self.runs = folder, project, runs
        self.tokens: set[str] = set()
        self.workloads: dict[str, Workload] = {}
        self.projects = [(project, "11111111-1111-1111-1111-111111111111"), (f"{project}-other", "11111111-1111-1111-1111-111111111111")]
        self.logs_allowed = True
        self.phase_message = ""
        super().__init__()
        self.api_url, self.kube_url = f"{self.url}/api/v1", f"{self.url}/k8s"

    # ------------------------------------------------------------------ for the test

    def reset(self) -> None:
        """As it was at first, but for the tokens."""
        for workload in self.workloads.values():
            for pod in workload.pods.values():
                pod.kill()
        for kept in (self.workloads, self.requests, self.violations, self.troubles):
            kept.clear()
        self.projects[2:] = []
        self.logs_allowed = True

    def expire(self) -> None:
        """Every token is too old now."""
        self.tokens.clear()

    def named(self, name: str) -> list[Workload]:
        """The workloads of a name."""
        return [workload for workload in self.workloads.values() if workload.body["name"] == name]

    def begin(self, workload: Workload) -> None:
        """Starts its pods."""
        spec = workload.body["spec"]
        words = [*shlex.split(spec["command"]), *shlex.split(spec["args"])]
        given = {item["name"]: item["value"] for item in spec.get("environmentVariables", [])}
        names = [f"{workload.body['name']}-0-0"]
        if workload.kind == "distributed":
            names = [f"{workload.body['name']}-worker-{number}" for number in range(spec["numWorkers"])]
        for number, name in enumerate(names):
            ranks = {"RANK": str(number), "WORLD_SIZE": str(len(names)), "MASTER_ADDR": names[0], "MASTER_PORT": "23456"}
            storage = {pvc["path"]: self.folder / "pvc" / pvc["path"].strip("/") for pvc in spec["storage"]["pvc"]}
            folders = {"/nemo_run": self.folder / "pods" / f"{workload.id}-{number}", **storage}
            own = ranks if workload.kind == "distributed" else {}
            workload.pods[name] = ContainerStandIn(words, {**own, **given}, folders, name)
        workload.phase = "Running"

    # ------------------------------------------------------------------ the API

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any, token: str) -> tuple[int, Any]:
        with self.lock:
            if path == "/api/v1/token" and method == "POST":
                return self._log_in(body)
            if token not in self.tokens:
                return 401, {"code": 401, "message": "Unauthorized"}
            for workload in self.workloads.values():
                workload.settle()
            if path.startswith("/k8s/"):
                return self._kubernetes(method, path.removeprefix("/k8s"), query, body)
            return self._runai(method, path.removeprefix("/api/v1"), query, body)

    def _log_in(self, body: Any) -> tuple[int, Any]:
        self.violations += against("TokenRequest", body)
        if (body.get("clientId"), body.get("clientSecret")) != CLIENT:
            return 401, {"code": 401, "message": "invalid client credentials"}
        token = uuid.uuid4().hex
        self.tokens.add(token)
        return 200, {"accessToken": token}

    def _runai(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        if (method, path) == ("GET", "/org-unit/projects"):
            projects = [{"id": str(number), "name": name, "clusterId": cluster} for number, (name, cluster) in enumerate(self.projects, 1)]
            return self._listed("GetProjects200Response", "projects", projects, query)
        if (method, path) == ("GET", "/workloads"):
            return self._listed("GetWorkloads200Response", "workloads", [self._summary(w) for w in self.workloads.values()], query)
        if found := re.fullmatch(r"/workloads/([^/]+)/pods", path):
            return self._listed("ListPods200Response", "pods", self._pods(self.workloads[found[1]]), query)
        found = re.fullmatch(r"/workloads/(trainings|distributed|workspaces)(?:/([^/]+)(/suspend)?)?", path)
        if found is None:
            self.violations.append(f"{method} {path} is not in the API")
            return 404, {"code": 404, "message": "no such endpoint"}
        kind, workload_id, suspend = found.groups()
        if workload_id is None:
            return self._create(kind, body) if method == "POST" else (405, None)
        workload = self.workloads.get(workload_id)
        if workload is None or workload.kind != kind:
            return 404, {"code": 404, "message": "workload not found"}
        if suspend and method == "POST":
            for pod in workload.pods.values():
                pod.kill()
            workload.phase, workload.pods = "Stopped", {}
            return 202, {"code": 202, "message": "Accepted"}
        if method == "DELETE" and not suspend:
            for pod in workload.pods.values():
                pod.kill()
            del self.workloads[workload_id]
            return 202, {"code": 202, "message": "Accepted"}
        if method == "GET" and not suspend:
            return 200, self._details(workload)
        self.violations.append(f"{method} {path} is not in the API")
        return 405, {"code": 405, "message": "method not allowed"}

    def _create(self, kind: str, body: Any) -> tuple[int, Any]:
        self.violations += against(_CREATION[kind], body)
        if len(body["spec"]["args"]) > 10_000:
            return 400, {"code": 400, "message": "spec.args: must be at most 10000 characters"}
        if self.named(body["name"]):
            return 409, {"code": 409, "message": f"workload {body['name']} already exists"}
        workload = Workload(str(uuid.uuid4()), kind, body, _now())
        self.workloads[workload.id] = workload
        if self.runs or kind == "workspaces":
            self.begin(workload)
        return 202, self._details(workload)

    def _listed(self, model: str, key: str, items: list[dict[str, Any]], query: dict[str, list[str]]) -> tuple[int, Any]:
        for condition in query.get("filterBy", []):
            name, operator, value = re.fullmatch(r"(\w+)(==|=\^)(.*)", condition).groups()  # type: ignore[union-attr]
            items = [item for item in items if (item[name] == value if operator == "==" else str(item[name]).startswith(value))]
        offset, limit = int(query.get("offset", ["0"])[0]), int(query.get("limit", ["50"])[0])
        page = items[offset : offset + limit]
        given = {key: page, **({"next": offset + limit} if offset + limit < len(items) else {})}
        self.violations += against(model, given)
        return 200, given

    def _details(self, workload: Workload) -> dict[str, Any]:
        name, body = workload.body["name"], workload.body
        shown = {
            "name": name,
            "requestedName": name,
            "workloadId": workload.id,
            "projectId": body["projectId"],
            "clusterId": body["clusterId"],
            "createdBy": CLIENT[0],
            "createdAt": workload.created,
            "desiredPhase": "Running",
            "actualPhase": workload.phase,
            "spec": body["spec"],
        }
        self.violations += against(_ANSWER[workload.kind], shown)
        return shown

    def _summary(self, workload: Workload) -> dict[str, Any]:
        over = workload.phase in ("Completed", "Failed")
        now = workload.created
        return {
            "tenantId": 1,
            "runningPods": len(workload.pods),
            "phaseUpdatedAt": now,
            "k8sPhaseUpdatedAt": now,
            "updatedAt": now,
            "source": "Other",
            "deletedAt": None,
            "type": KINDS[workload.kind],
            "name": workload.body["name"],
            "id": workload.id,
            "priority": None,
            "priorityClassName": "train",
            "clusterId": workload.body["clusterId"],
            "projectName": self.project,
            "projectId": workload.body["projectId"],
            "departmentName": "default",
            "departmentId": "1",
            "createdAt": workload.created,
            "namespace": f"runai-{self.project}",
            "phase": workload.phase,
            "phaseMessage": self.phase_message,
            "conditions": [],
            "k8sPhase": workload.phase,
            "category": "Train",
            "completedAt": _now() if over else None,
            "totalRunningTimeSeconds": 1,
        }

    def _pods(self, workload: Workload) -> list[dict[str, Any]]:
        now = workload.created
        shared = {"priorityClassName": "train", "workloadId": workload.id, "clusterId": workload.body["clusterId"], "tenantId": 1}
        times = {"createdAt": now, "k8sPhaseUpdatedAt": now, "updatedAt": now, "k8sPhase": "Running", "containers": []}
        return [{"name": name, "id": str(uuid.uuid4()), **shared, **times} for name in workload.pods]

    def _kubernetes(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        if (method, path) == ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"):
            return 201, {**body, "status": {"allowed": self.logs_allowed}}
        found = re.fullmatch(rf"/api/v1/namespaces/runai-{self.project}/pods/([^/]+)/log", path)
        if method != "GET" or found is None:
            self.violations.append(f"{method} {path} of Kubernetes")
            return 404, {"kind": "Status", "message": "not found", "code": 404}
        if not self.logs_allowed:
            return 403, {"kind": "Status", "message": "pods is forbidden", "code": 403}
        for workload in self.workloads.values():
            if found[1] in workload.pods:
                return 200, workload.pods[found[1]].log
        return 404, {"kind": "Status", "message": "pod not found", "code": 404}


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
