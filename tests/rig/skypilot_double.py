"""A double of SkyPilot's API server that really runs what it is sent, on this machine: a program for a Python that has SkyPilot.

    skypilot_double.py FOLDER     prints its port, and ends with its standard input

Requests are read by SkyPilot's own payload models and answered by its own encoders, tasks by its own parser; so a request that the real
server would not read fails here, too. A "cluster" is a folder, in which /nemo_run is a folder. `POST /_double` tells it to misbehave.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import sky
from sky import exceptions
from sky.jobs import state as managed
from sky.schemas.api import responses
from sky.server import constants
from sky.server.requests import payloads
from sky.server.requests.requests import Request, RequestStatus
from sky.skylet import job_lib
from sky.utils import dag_utils, status_lib

LOCK = threading.RLock()


class Job:
    """One job: a process of its own."""

    def __init__(self, number: int, name: str, task: sky.Task, folder: Path, files: Path) -> None:
        self.number, self.name, self.submitted = number, name, time.time()
        self.ended: float | None = None
        self.cancelled, self.log, self.nodes = False, folder / f"{name}.log", task.num_nodes
        run = folder / f"run-{uuid.uuid4().hex}"
        subprocess.run(["cp", "-r", str(files), str(run)], check=True)
        for script in run.glob("*.sh"):
            script.write_text(script.read_text().replace("/nemo_run", str(run)))
        environment = {**task.envs, **{key: value.get_secret_value() for key, value in task.secrets.items()}}
        environment = {key: value.replace("/nemo_run", str(run)) for key, value in environment.items()}
        environment |= {"PATH": os.environ["PATH"], "SKYPILOT_NODE_IPS": "127.0.0.1", "SKYPILOT_NUM_GPUS_PER_NODE": "0"}
        environment |= {"SKYPILOT_NODE_RANK": "0", "HOME": str(folder)}
        lines = task.run.replace("/nemo_run", str(run)).replace("conda deactivate", "true")
        self.process = subprocess.Popen(
            ["bash", "-c", lines], cwd=run, env=environment, stdout=self.log.open("wb"), stderr=subprocess.STDOUT, start_new_session=True
        )

    @property
    def status(self) -> str:
        code = self.process.poll()
        if code is None:
            return "RUNNING"
        self.ended = self.ended or time.time()
        return "CANCELLED" if self.cancelled else "SUCCEEDED" if code == 0 else "FAILED"

    def cancel(self) -> None:
        if self.process.poll() is None:
            self.cancelled = True
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def shown(self) -> str:
        mark = f"\x1b[36m({self.name}, pid=77)\x1b[0m" if self.nodes == 1 else "\x1b[36m(head, rank=0, pid=77)\x1b[0m"
        lines = self.log.read_text(errors="replace").splitlines()
        text = "".join(f"{mark} {line}\n" for line in lines)
        if self.nodes > 1:
            text += "(worker1, rank=1, pid=78, ip=10.0.0.2) on it\n(worker1, rank=1, pid=78, ip=10.0.0.2) dispatch-results: e30=\n"
        if self.status == "FAILED":
            text += f"ERROR: \x1b[31mJob {self.number} failed with return code list:\x1b[0m [{self.process.returncode}] \n"
        return text


class State:
    """All that the server knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clusters: dict[str, dict[str, Any]] = {}
        self.managed: list[Job] = []
        self.requests: dict[str, tuple[Request, threading.Event]] = {}
        self.blobs: dict[str, Path] = {}
        self.faults: dict[str, object] = {}
        self.seen: list[str] = []
        self.launches = 0

    def files(self, task: sky.Task, blob: str | None) -> Path:
        source = str(task.file_mounts["/nemo_run"]).lstrip("/")
        found = self.blobs[str(blob)] / source
        assert (found / "launch.sh").exists(), source
        return found

    def launch(self, body: payloads.LaunchBody) -> tuple[int | None, None]:
        [task] = dag_utils.load_dag_from_yaml_str(body.task).tasks
        self.waits("launch")
        with LOCK:
            cluster = self.clusters.setdefault(body.cluster_name, {"status": "UP", "jobs": [], "down": None})
            [resources] = list(task.resources)[:1]
            cluster["down"] = resources.autostop_config and (resources.autostop_config.down, resources.autostop_config.idle_minutes)
            if self.faults.get("no-resources"):
                cluster["status"] = "INIT"
                raise exceptions.ResourcesUnavailableError("no H100 anywhere")
            self.launches += 1
            job = Job(len(cluster["jobs"]) + 1, task.name, task, self.folder, self.files(task, body.file_mounts_blob_id))
            cluster["jobs"].append(job)
            return job.number, None

    def jobs_launch(self, body: payloads.JobsLaunchBody) -> tuple[list[int], None]:
        [task] = dag_utils.load_dag_from_yaml_str(body.task).tasks
        self.waits("launch")
        with LOCK:
            self.launches += 1
            job = Job(len(self.managed) + 1, body.name, task, self.folder, self.files(task, body.file_mounts_blob_id))
            self.managed.append(job)
            return [job.number], None

    def waits(self, what: str) -> None:
        """Until nobody holds it."""
        while self.faults.get(f"hold-{what}"):
            time.sleep(0.05)

    def cluster(self, name: str) -> dict[str, Any]:
        if name not in self.clusters:
            raise exceptions.ClusterDoesNotExist(f"Cluster {name!r} does not exist.")
        if self.clusters[name]["status"] != "UP":
            raise exceptions.ClusterNotUpError(f"Cluster {name!r} is not up.", cluster_status=None)
        return self.clusters[name]

    def status(self, body: payloads.StatusBody) -> list[responses.StatusResponse]:
        assert body.all_users, "a runner is another user each time"
        return [
            responses.StatusResponse(
                name=name, launched_at=int(time.time()), status=status_lib.ClusterStatus(cluster["status"]), autostop=-1, to_down=False,
                cluster_hash="x", cluster_ever_up=True, user_hash="u", user_name="u", workspace="default", is_managed=False, nodes=1,
            )
            for name, cluster in self.clusters.items()
            if body.cluster_names is None or name in body.cluster_names
        ]  # fmt: skip

    def queue(self, body: payloads.QueueBody) -> list[responses.ClusterJobRecord]:
        return [
            responses.ClusterJobRecord(
                job_id=job.number, job_name=job.name, username="u", user_hash="u", submitted_at=job.submitted, start_at=job.submitted,
                status=job_lib.JobStatus(job.status), end_at=job.ended, resources="1x[CPU:1]", log_path="~/x",
            )
            for job in self.cluster(body.cluster_name)["jobs"]
        ]  # fmt: skip

    def cancel(self, body: payloads.CancelBody) -> None:
        for job in self.cluster(body.cluster_name)["jobs"]:
            if job.number in (body.job_ids or ()):
                job.cancel()

    def down(self, body: payloads.StopOrDownBody) -> None:
        if body.cluster_name not in self.clusters:
            raise exceptions.ClusterDoesNotExist(f"Cluster {body.cluster_name!r} does not exist.")
        for job in self.clusters.pop(body.cluster_name)["jobs"]:
            job.cancel()

    def jobs_queue(self, body: payloads.JobsQueueV2Body) -> tuple[list[responses.ManagedJobRecord], int]:
        assert body.all_users
        if not self.managed:
            raise exceptions.ClusterNotUpError("No in-progress managed jobs.", cluster_status=None)
        records = [
            responses.ManagedJobRecord(
                job_id=job.number, job_name=job.name, status=managed.ManagedJobStatus(job.status), start_at=job.submitted,
                end_at=job.ended, cluster_resources="1x(CPU:1)", task_id=0,
                failure_reason="its own words" if job.status == "FAILED" else None,
            )
            for job in self.managed
        ]  # fmt: skip
        return records, len(records)

    def jobs_cancel(self, body: payloads.JobsCancelBody) -> None:
        for job in self.managed:
            if job.number in (body.job_ids or ()):
                job.cancel()

    def api_cancel(self, body: payloads.RequestCancelBody) -> list[str]:
        for request_id in body.request_ids or ():
            request, event = self.requests[request_id]
            request.status = RequestStatus.CANCELLED
            event.set()
        return list(body.request_ids or ())


VERBS = {
    "/launch": ("sky.launch", payloads.LaunchBody, State.launch),
    "/status": ("sky.status", payloads.StatusBody, State.status),
    "/queue": ("sky.queue", payloads.QueueBody, State.queue),
    "/cancel": ("sky.cancel", payloads.CancelBody, State.cancel),
    "/down": ("sky.down", payloads.StopOrDownBody, State.down),
    "/jobs/launch": ("sky.jobs.launch", payloads.JobsLaunchBody, State.jobs_launch),
    "/jobs/queue/v2": ("sky.jobs.queue_v2", payloads.JobsQueueV2Body, State.jobs_queue),
    "/jobs/cancel": ("sky.jobs.cancel", payloads.JobsCancelBody, State.jobs_cancel),
    "/api/cancel": ("sky.api_cancel", payloads.RequestCancelBody, State.api_cancel),
    "/enabled_clouds": ("sky.enabled_clouds", payloads.EnabledCloudsBody, lambda state, body: ["kubernetes"]),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            self.answer(b"".join(parts))
        else:
            self.answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def answer(self, body: bytes) -> None:
        url, state = urlparse(self.path), self.state
        query = parse_qs(url.query)
        if url.path == "/_double":
            state.faults.update(json.loads(body or b"{}"))
            clusters = {name: {"status": c["status"], "down": c["down"], "jobs": len(c["jobs"])} for name, c in state.clusters.items()}
            known = {"clusters": clusters, "launches": state.launches, "seen": state.seen}
            return self.send(known)
        state.seen.append(url.path)
        state.waits("answers")
        token = state.faults.get("token")
        if token and self.headers.get("Authorization") != f"Bearer {token}":
            return self.send({"detail": "who are you"}, 401)
        if state.faults.get("status") and url.path != "/api/health":
            return self.send({"detail": "the double is out of order"}, int(str(state.faults["status"])))
        if url.path == "/api/health":
            return self.send({"status": "healthy", "api_version": str(constants.API_VERSION), "version": sky.__version__, "commit": "x"})
        if url.path == "/validate":
            dag_utils.load_dag_from_yaml_str(payloads.ValidateBody(**json.loads(body)).dag)
            return self.send(None)
        if url.path == "/upload_v2/blob":
            return self.send({"exists": query["blob_id"][0] in state.blobs})
        if url.path == "/upload_v2":
            assert query["total_chunks"] == ["1"]
            blob = state.folder / query["upload_id"][0]
            zipfile.ZipFile(io.BytesIO(body)).extractall(blob)
            state.blobs[query["upload_id"][0]] = blob
            return self.send({"status": "completed"})
        if url.path == "/api/get":
            request, event = state.requests[query["request_id"][0]]
            event.wait()
            encoded = request.encode().model_dump()
            return self.send({"detail": encoded}, 500) if request.status is RequestStatus.FAILED else self.send(encoded)
        if url.path == "/api/status":
            wanted = query.get("cluster_name")
            listed = [request for request, _ in state.requests.values() if not wanted or request.cluster_name == wanted[0]]
            return self.send([request.readable_encode().model_dump() for request in reversed(listed)])
        if url.path in ("/logs", "/jobs/logs"):
            return self.log(json.loads(body), url.path)
        name, model, verb = VERBS[url.path]
        given = model(**(json.loads(body) if body else {}))
        request_id = self.begin(name, given, verb)
        return self.send(None, 200, request_id)

    def begin(self, name: str, body: payloads.RequestBody, verb: object) -> str:
        request = Request(
            request_id=str(uuid.uuid4()), name=name, entrypoint=len, request_body=body, status=RequestStatus.RUNNING,
            created_at=time.time(), user_id="u", cluster_name=getattr(body, "cluster_name", None),
        )  # fmt: skip
        event = threading.Event()
        self.state.requests[request.request_id] = request, event

        def run() -> None:
            try:
                value = verb(self.state, body)  # type: ignore[operator]
                if request.status is not RequestStatus.CANCELLED:
                    request.set_return_value(value)
                    request.status = RequestStatus.SUCCEEDED
            except BaseException as error:
                request.set_error(error)
                request.status = RequestStatus.FAILED
            event.set()

        threading.Thread(target=run, daemon=True).start()
        return str(request.request_id)

    def log(self, body: dict[str, object], path: str) -> None:
        assert body["follow"] is False
        jobs = self.state.managed if path == "/jobs/logs" else self.state.clusters[str(body["cluster_name"])]["jobs"]
        [job] = [job for job in jobs if job.number == body["job_id"]]
        text = "".join(job.shown().splitlines(keepends=True)[-int(str(body["tail"])) :]).encode()
        request_id = self.begin("sky.logs", payloads.RequestBody(), lambda state, given: 0)
        self.send_raw(text, "text/plain", 200, request_id)

    def send(self, value: object, code: int = 200, request_id: str = "") -> None:
        self.send_raw(json.dumps(value).encode(), "application/json", code, request_id)

    def send_raw(self, data: bytes, kind: str, code: int, request_id: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header(constants.API_VERSION_HEADER, str(constants.API_VERSION))
        self.send_header(constants.VERSION_HEADER, sky.__version__)
        if request_id:
            self.send_header("X-Skypilot-Request-ID", request_id)
            self.send_header(constants.STREAM_REQUEST_HEADER, request_id)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def main() -> None:
    Handler.state = State(Path(sys.argv[1]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    for cluster in Handler.state.clusters.values():
        for job in cluster["jobs"]:
            job.cancel()
    for job in Handler.state.managed:
        job.cancel()


if __name__ == "__main__":
    main()
