"""A Kubernetes API over real HTTP, with what the executors on it use: Secrets, Pods, TrainJobs and RayJobs, in memory.

It refuses what the real one refuses (a name that is taken, a field that a kind does not have, a Secret of more than 1 MiB, credentials
that may not), pages its lists, and deletes in the foreground. Operators and kubelets are played by `play`, `finish` and `schedule`: `play`
runs the job's own script with bash, with the Secret's files and the claim's folder where the job would have them mounted.

What it is not: an oracle for Kubernetes. Shapes are held against the client's own models in `tests/contract/test_kubernetes.py`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TRAIN_JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/{}/trainjobs"
RAY_JOBS = "/apis/ray.io/v1/namespaces/{}/rayjobs"
CORE = ("secrets", "pods")

# https://www.kubeflow.org/docs/components/trainer/reference/: what structural schemas let through.
_TRAIN_JOB = {"runtimeRef", "initializer", "trainer", "labels", "annotations", "podTemplateOverrides", "suspend", "managedBy"}
_TRAINER = {"image", "command", "args", "env", "numNodes", "resourcesPerNode", "numProcPerNode"}
_OVERRIDE = {"targetJobs", "metadata", "spec"}
# https://ray-project.github.io/kuberay/reference/api/#rayjobspec
_RAY_JOB = {
    "entrypoint",
    "shutdownAfterJobFinishes",
    "backoffLimit",
    "rayClusterSpec",
    "suspend",
    "runtimeEnvYAML",
    "ttlSecondsAfterFinished",
}
_RAY_CLUSTER = {"rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling"}
_HEAD = {"serviceType", "rayStartParams", "template"}
_WORKERS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


@dataclass
class Fault:
    """What goes wrong with the next requests that match."""

    status: int = 0
    message: str = "etcdserver: request timed out"
    method: str = ""
    path: str = ""
    times: int = 1
    reset: bool = False
    after: bool = False
    """Only once the request has taken effect."""


@dataclass
class KubernetesServer:
    """One cluster with the namespaces that are named, and one token that is let in."""

    folder: Path
    namespaces: tuple[str, ...] = ("ml",)
    token: str = "kube-token"
    page: int = 500
    objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """(verb, resource) that the token may not."""
    without: set[str] = field(default_factory=set)
    """Kinds that the cluster does not have."""
    _played: int = 0
    lock: Any = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        handler = type("Handler", (_Handler,), {"cluster": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.claim = self.folder / "claim"
        self.claim.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> KubernetesServer:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def kubeconfig(self, token: str = "", server: str = "") -> str:
        """The path of one with two contexts, of which the current one leads nowhere."""
        clusters = [
            {"name": "here", "cluster": {"server": server or self.url}},
            {"name": "nowhere", "cluster": {"server": "http://127.0.0.1:1"}},
        ]
        contexts = [{"name": name, "context": {"cluster": name, "user": "ci"}} for name in ("here", "nowhere")]
        users = [{"name": "ci", "user": {"token": token or self.token}}]
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": clusters,
            "contexts": contexts,
            "users": users,
            "current-context": "nowhere",
        }
        path = self.folder / f"kubeconfig-{len(list(self.folder.glob('kubeconfig-*')))}"
        path.write_text(json.dumps(config))
        return str(path)

    def kubectl(self) -> Path:
        """A folder with a `kubectl` that does `exec` in this cluster's pods: what they have mounted as /claim is `claim`."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "kubectl"
        pods = f"{self.url}/api/v1/namespaces"
        program.write_text(_KUBECTL.format(pods=pods, token=self.token, claim=self.claim, calls=self.folder / "kubectl-calls"))
        program.chmod(0o755)
        return folder

    # ------------------------------------------------------------------ what a test looks at

    def of_kind(self, path: str, namespace: str = "ml") -> dict[str, dict[str, Any]]:
        """All objects of a kind."""
        return self.objects.setdefault(path.format(namespace) if "{}" in path else f"/api/v1/namespaces/{namespace}/{path}", {})

    def asked(self, method: str, part: str) -> int:
        """How often something was asked."""
        return sum(1 for done, path in self.requests if done == method and part in path)

    # ------------------------------------------------------------------ operators and kubelets

    def schedule(self, name: str, phase: str = "Running", **status: Any) -> list[dict[str, Any]]:
        """The pods of a job, in one phase."""
        with self.lock:
            train = self.of_kind(TRAIN_JOBS).get(name)
            labels = [{"job-name": name}]
            if train is not None:
                count = int(train["spec"]["trainer"]["numNodes"])
                key = "batch.kubernetes.io/job-completion-index"
                labels = [{"jobset.sigs.k8s.io/jobset-name": name, key: str(index)} for index in range(count)]
            made = []
            for index, its in enumerate(labels):
                pod = f"{name}-node-0-{index}-x{len(self.of_kind('pods'))}"
                container = {"name": "node" if train is not None else "ray-job-submitter"}
                if phase == "Running":
                    container["state"] = {"running": {"startedAt": _now()}}  # type: ignore[assignment]
                body = {
                    "metadata": {"name": pod, "labels": its, "creationTimestamp": _now()},
                    "spec": {"nodeName": f"gpu-{index}"},
                    "status": {"phase": phase, "containerStatuses": [container], **status},
                }
                self.of_kind("pods")[pod] = body
                self.logs[pod] = []
                made.append(body)
            if train is None:
                job = self.of_kind(RAY_JOBS)[name]
                job["status"] = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "startTime": _now()}
            return made

    def play(self, name: str, changes: Mapping[str, str] | None = None) -> int:
        """Runs the job's script on each of its nodes, as its containers would, and ends it as it ended → the greatest exit status."""
        train = self.of_kind(TRAIN_JOBS).get(name)
        job = train or self.of_kind(RAY_JOBS)[name]
        pods, codes = self.schedule(name), []
        for index, pod in enumerate(pods):
            done = self._run(name, job, index, dict(changes or {}))
            self.logs[pod["metadata"]["name"]] += [
                f"{_now()[:-1]}.{number:09d}Z {line}" for number, line in enumerate(done.stdout.splitlines())
            ]
            codes.append(done.returncode)
        self.finish(name, max(codes))
        return max(codes)

    def finish(self, name: str, code: int, reason: str = "") -> None:
        """The job's end, in its pods and in its object."""
        with self.lock:
            train = self.of_kind(TRAIN_JOBS).get(name)
            job = train or self.of_kind(RAY_JOBS)[name]
            for pod in self.of_kind("pods").values():
                if name in pod["metadata"]["labels"].values():
                    ended = {
                        "exitCode": code,
                        "reason": reason or ("Error" if code else "Completed"),
                        "startedAt": _now(),
                        "finishedAt": _now(),
                    }
                    pod["status"]["phase"] = "Failed" if code else "Succeeded"
                    pod["status"]["containerStatuses"][0]["state"] = {"terminated": ended}
            if train is not None:
                kind = {"type": "Failed" if code else "Complete", "status": "True", "reason": "JobsFailed" if code else "JobsCompleted"}
                job["status"] = {"conditions": [{**kind, "message": "jobset has ended", "lastTransitionTime": _now()}]}
            else:
                said = f"Job entrypoint command failed with exit code {code}, last available logs" if code else "Job finished successfully."
                ended = {"jobStatus": "FAILED" if code else "SUCCEEDED", "jobDeploymentStatus": "Failed" if code else "Complete"}
                job["status"] = {**job.get("status", {}), **ended, "message": said, "endTime": _now()}

    def collect(self) -> None:
        """What is being deleted in the foreground goes when its pods have gone."""
        with self.lock:
            for path in (TRAIN_JOBS, RAY_JOBS):
                for name, job in list(self.of_kind(path).items()):
                    if "deletionTimestamp" in job["metadata"]:
                        del self.of_kind(path)[name]
                        self.drop_pods(name)

    def drop_pods(self, name: str) -> None:
        """The pods of a job are gone, and their logs with them."""
        for pod, body in list(self.of_kind("pods").items()):
            if name in body["metadata"]["labels"].values():
                del self.of_kind("pods")[pod]
                self.logs.pop(pod, None)

    def _run(self, name: str, job: Mapping[str, Any], index: int, changes: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        self._played += 1
        root = self.folder / f"node-{name}-{index}-{self._played}"
        files, run = root / "files", root / "run"
        files.mkdir(parents=True)
        places = {"/etc/nemotron-dispatch": str(files), "/nemo_run": str(run)}
        pod = _pod_spec(job)
        claim = next((volume for volume in pod["volumes"] if volume["name"] == "dispatch-run"), {}).get("persistentVolumeClaim")
        mount = next(mount for mount in pod["mounts"] if mount["mountPath"] == "/nemo_run")
        if claim:
            (self.claim / mount["subPath"]).mkdir(parents=True, exist_ok=True)
            run.symlink_to(self.claim / mount["subPath"])
        else:
            run.mkdir()
        secret = self.of_kind("secrets")[name]["data"]
        for key, value in secret.items():
            content = base64.b64decode(value)
            if not key.endswith(".gz"):
                text = content.decode()
                for old, new in places.items():
                    text = text.replace(old, new)
                content = text.encode()
            (files / key).write_bytes(content)
        environment = {"PATH": os.environ["PATH"], "HOME": str(root), "PET_NODE_RANK": str(index), **changes}
        for more in pod["env_secrets"]:
            environment |= {key: base64.b64decode(value).decode() for key, value in self.of_kind("secrets")[more]["data"].items()}
        for old, new in places.items():
            environment = {key: value.replace(old, new) for key, value in environment.items()}
        for command in pod["before"]:
            subprocess.run([_placed(word, places) for word in command], check=True, timeout=30)
        command = [_placed(word, places) for word in pod["command"]]
        return subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)


def _placed(word: str, places: Mapping[str, str]) -> str:
    for old, new in places.items():
        word = word.replace(old, new)
    return word


def _pod_spec(job: Mapping[str, Any]) -> dict[str, Any]:
    """What of a job's pods the kubelet looks at: for a RayJob, its head's."""
    spec = job["spec"]
    if "trainer" in spec:
        [override] = spec["podTemplateOverrides"]
        mounts = override["spec"]["containers"][0]["volumeMounts"]
        return {
            "volumes": override["spec"]["volumes"],
            "mounts": mounts,
            "command": spec["trainer"]["command"],
            "env_secrets": [],
            "before": [],
        }
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    container = head["containers"][0]
    return {
        "volumes": head["volumes"],
        "mounts": container["volumeMounts"],
        "command": spec["entrypoint"].split(),
        "env_secrets": [source["secretRef"]["name"] for source in container["envFrom"]],
        "before": [first["command"] for first in head.get("initContainers", [])],
    }


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    cluster: KubernetesServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _serve(self) -> None:
        cluster, split = self.cluster, urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        query = {key: values[-1] for key, values in parse_qs(split.query).items()}
        with cluster.lock:
            cluster.requests.append((self.command, self.path))
            fault = self._fault(split.path)
            if fault and not fault.after:
                return self._break(fault)
            if self.headers.get("Authorization") != f"Bearer {cluster.token}":
                return self._status(401, "Unauthorized", "Unauthorized")
            try:
                status, answer = self._answer(split.path, query, body)
            except _Refusal as refusal:
                return self._status(refusal.status, refusal.reason, str(refusal))
        if fault:
            return self._break(fault)
        return self._send(status, answer)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve

    def _fault(self, path: str) -> Fault | None:
        for fault in self.cluster.faults:
            if (fault.method in ("", self.command)) and fault.path in path and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _break(self, fault: Fault) -> None:
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self._status(fault.status, "InternalError", fault.message)

    def _answer(self, path: str, query: Mapping[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        cluster = self.cluster
        if path == "/version":
            return 200, {"gitVersion": "v1.33.1"}
        if path.endswith("/selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            resource = f"{asked['resource']}/{asked['subresource']}" if asked.get("subresource") else asked["resource"]
            return 201, {"status": {"allowed": (asked["verb"], resource) not in cluster.forbidden}}
        found = re.fullmatch(r"(/api/v1|/apis/[a-z0-9.]+/v[a-z0-9]+)/namespaces/([a-z0-9-]+)/([a-z]+)(?:/([a-z0-9.-]+))?(/log)?", path)
        if not found:
            raise _Refusal(404, "NotFound", "the server could not find the requested resource")
        prefix, namespace, kind, name, log = found.groups()
        known = {TRAIN_JOBS.format(namespace), RAY_JOBS.format(namespace), *(f"/api/v1/namespaces/{namespace}/{core}" for core in CORE)}
        if f"{prefix}/namespaces/{namespace}/{kind}" not in known or kind in cluster.without:
            raise _Refusal(404, "NotFound", "the server could not find the requested resource")
        verb = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "GET": "get" if name else "list"}[self.command]
        if (verb, kind) in cluster.forbidden:
            words = f'{kind} is forbidden: User "ci" cannot {verb} resource "{kind}" in API group "{prefix}" in the namespace "{namespace}"'
            raise _Refusal(403, "Forbidden", words)
        objects = cluster.objects.setdefault(f"{prefix}/namespaces/{namespace}/{kind}", {})
        if self.command == "POST":
            return 201, self._create(objects, namespace, kind, body)
        if name is None:
            return 200, self._page(list(objects.values()), query)
        if name not in objects:
            raise _Refusal(404, "NotFound", f'{kind} "{name}" not found')
        if log:
            return 200, self._log(objects[name], query)
        if self.command == "PATCH":
            assert self.headers["Content-Type"] == "application/merge-patch+json"
            objects[name] = _checked(kind, _merged(objects[name], body))
        if self.command == "DELETE":
            if body.get("propagationPolicy") == "Foreground":
                objects[name]["metadata"].setdefault("deletionTimestamp", _now())
            else:
                gone = objects.pop(name)
                if kind in ("trainjobs", "rayjobs"):
                    cluster.drop_pods(name)
                return 200, gone
        return 200, objects[name]

    def _create(self, objects: dict[str, Any], namespace: str, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if namespace not in self.cluster.namespaces:
            raise _Refusal(404, "NotFound", f'namespaces "{namespace}" not found')
        if name in objects:
            raise _Refusal(409, "AlreadyExists", f'{kind} "{name}" already exists')
        objects[name] = _checked(kind, {**body, "metadata": {**body["metadata"], "creationTimestamp": _now(), "uid": f"uid-{name}"}})
        if kind == "pods":
            objects[name]["status"] = {"phase": "Running"}
        return objects[name]

    def _page(self, found: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
        chosen = [item for item in found if _selected(item["metadata"].get("labels") or {}, query.get("labelSelector", ""))]
        first, size = int(query.get("continue") or 0), min(self.cluster.page, int(query.get("limit") or 500))
        rest = str(first + size) if first + size < len(chosen) else ""
        return {"kind": "List", "metadata": {"continue": rest}, "items": chosen[first : first + size]}

    def _log(self, pod: dict[str, Any], query: Mapping[str, str]) -> bytes:
        statuses = pod["status"]["containerStatuses"]
        if query.get("container", statuses[0]["name"]) != statuses[0]["name"]:
            raise _Refusal(400, "BadRequest", f"container {query['container']} is not valid for pod {pod['metadata']['name']}")
        if pod["status"]["phase"] == "Pending":
            raise _Refusal(400, "BadRequest", "container is waiting to start: ContainerCreating")
        lines = self.cluster.logs[pod["metadata"]["name"]][-int(query.get("tailLines", "1000000")) :]
        if query.get("timestamps") != "true":
            lines = [line.partition(" ")[2] for line in lines]
        return "".join(f"{line}\n" for line in lines).encode()

    def _status(self, code: int, reason: str, message: str) -> None:
        self._send(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code})

    def _send(self, code: int, answer: Any) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Refusal(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


def _checked(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """Raises what validation would."""
    spec = body.get("spec", {})
    unknown: list[str] = []
    if kind == "secrets":
        size = sum(len(base64.b64decode(value)) for value in body["data"].values())
        if size > 1 << 20:
            raise _Refusal(422, "Invalid", f"Secret is invalid: data: Too long: may not be more than 1048576 bytes, {size} are")
    elif kind == "trainjobs":
        unknown = [*(set(spec) - _TRAIN_JOB), *(set(spec["trainer"]) - _TRAINER)]
        unknown += [key for override in spec.get("podTemplateOverrides", []) for key in set(override) - _OVERRIDE]
        if spec["runtimeRef"]["name"] not in ("torch-distributed",):
            name = spec["runtimeRef"]["name"]
            words = (
                f'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: ClusterTrainingRuntime "{name}" not found'
            )
            raise _Refusal(403, "Forbidden", words)
    elif kind == "rayjobs":
        cluster = spec["rayClusterSpec"]
        unknown = [*(set(spec) - _RAY_JOB), *(set(cluster) - _RAY_CLUSTER), *(set(cluster["headGroupSpec"]) - _HEAD)]
        unknown += [key for group in cluster["workerGroupSpecs"] for key in set(group) - _WORKERS]
    if unknown:
        raise _Refusal(400, "BadRequest", f"strict decoding error: unknown field {unknown[0]!r}")
    return body


def _merged(target: Any, patch: Any) -> Any:
    """https://www.rfc-editor.org/rfc/rfc7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _selected(labels: Mapping[str, str], selector: str) -> bool:
    """`key`, `key=value`, `key in (a,b)`, several with commas."""
    for part in re.findall(r"[^,()]+(?:\([^)]*\))?", selector):
        among = re.fullmatch(r"(\S+) in \(([^)]*)\)", part)
        key, _, value = part.partition("=")
        if among and labels.get(among[1]) not in among[2].split(","):
            return False
        if not among and (labels.get(key) != value if value else key not in labels):
            return False
    return True


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


_KUBECTL = """\
#!/usr/bin/env python3
import json, os, subprocess, sys, urllib.request
words = sys.argv[1:]
open("{calls}", "a").write(json.dumps([words, os.environ.get("KUBECONFIG")]) + "\\n")
namespace, pod = words[words.index("-n") + 1], words[words.index("-i") + 1]
request = urllib.request.Request("{pods}/" + namespace + "/pods/" + pod, headers={{"Authorization": "Bearer {token}"}})
assert json.load(urllib.request.urlopen(request))["status"]["phase"] == "Running"
inside = [word.replace("/claim/", "{claim}/") for word in words[words.index("--") + 1 :]]
sys.exit(subprocess.run(inside).returncode)
"""


@contextmanager
def kubernetes(folder: Path) -> Iterator[KubernetesServer]:
    """A cluster, and nothing left of it afterwards."""
    with KubernetesServer(folder) as server:
        yield server
    shutil.rmtree(folder / "claim", ignore_errors=True)
