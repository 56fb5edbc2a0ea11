"""SkyPilot for tests, in an environment of its own: its real API server without any cloud's credentials, and a double that runs jobs.

The real server takes part in a dry run: it checks, optimises and plans, with a Kubernetes context whose API is a few fixed answers here.
Catalogues of clouds are fetched from the network where they are not in its folder, so the few lines that are needed lie there.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.rig.parts import PartMissing

ROOT = Path(__file__).parents[2]
DOUBLE = Path(__file__).parent / "skypilot_double.py"
CATALOGUES = {
    "common/accelerators.csv": "AcceleratorName,Clouds,MaximumAcceleratorQuantity\n"
    'H100,"[AWS, Kubernetes]",8\nA100,"[AWS]",8\nL4,"[GCP]",4\n',
    "kubernetes/images.csv": "Tag,Region,OS,OSVersion,ImageId,CreationDate\n"
    + "".join(f"skypilot:custom-{kind}-ubuntu-2004,,ubuntu,20.04,registry.example/skypilot:{kind},20240101\n" for kind in ("cpu", "gpu")),
    "aws/vms.csv": "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone,Arch\n"
    "p5.48xlarge,H100,8.0,192.0,2048.0,,98.32,30.0,us-east-1,us-east-1a,x86_64\n",
}
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: ctx
contexts: [{{name: ctx, context: {{cluster: c, user: u, namespace: default}}}}]
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: u, user: {{token: none}}}}]
"""
NODE = {
    "metadata": {"name": "n1", "labels": {"skypilot.co/accelerator": "h100"}},
    "spec": {},
    "status": {
        "capacity": {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8", "ephemeral-storage": "500Gi"},
        "allocatable": {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8", "ephemeral-storage": "500Gi"},
        "conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
    },
}


def find_python() -> Path:
    """A Python that has SkyPilot: `DISPATCH_SKYPILOT_PYTHON`, or what `.ci/skypilot` made. Raises PartMissing."""
    python = Path(os.environ.get("DISPATCH_SKYPILOT_PYTHON") or ROOT / ".cache" / "skypilot" / "bin" / "python")
    if not python.exists():
        raise PartMissing("SkyPilot is not installed; `.ci/skypilot` makes an environment that has it")
    return python


def home_in(folder: Path) -> Path:
    """A home folder with the catalogues."""
    for name, text in CATALOGUES.items():
        path = folder / ".sky" / "catalogs" / "v8" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def asked(address: str, path: str, body: object = None) -> Any:
    """One request and its JSON."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, data), timeout=20) as answer:
        return json.load(answer)


def until(what: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits for it."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError("it took too long")
        time.sleep(0.1)


class SkyDouble:
    """A double of the API server; a context manager."""

    def __init__(self, python: Path) -> None:
        self.python = python
        self._folder = tempfile.TemporaryDirectory(prefix="dispatch-sky-")
        self.home = home_in(Path(self._folder.name) / "home")
        (Path(self._folder.name) / "state").mkdir()
        self._process = subprocess.Popen(
            [str(python), str(DOUBLE), f"{self._folder.name}/state"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
        )
        assert self._process.stdout is not None
        self.address = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    @property
    def env(self) -> dict[str, str]:
        """What a client needs."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "SKYPILOT_API_SERVER_ENDPOINT": self.address}

    def tell(self, **faults: object) -> dict[str, Any]:
        """How it shall misbehave from now on → what it knows: `clusters`, `launches`, `seen`."""
        answer: dict[str, Any] = asked(self.address, "/_double", {name.replace("_", "-"): value for name, value in faults.items()})
        return answer

    def stop(self) -> None:
        """Ends it and its jobs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._folder.cleanup()


class KubernetesAnswers(BaseHTTPRequestHandler):
    """As much of the Kubernetes API as SkyPilot looks at before it would start something."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        body: Mapping[str, Any] = {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}
        if path == "/version":
            body = {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}
        elif path == "/api/v1/nodes":
            body = {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": [NODE]}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class SkyServer:
    """SkyPilot's own API server on a loopback port, with one Kubernetes context and nothing else; ended with its whole session."""

    def __init__(self, python: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dispatch-sky-")
        home = home_in(Path(self._folder.name))
        self._kubernetes = ThreadingHTTPServer(("127.0.0.1", 0), KubernetesAnswers)
        threading.Thread(target=self._kubernetes.serve_forever, daemon=True).start()
        (home / ".kube").mkdir()
        (home / ".kube" / "config").write_text(KUBECONFIG.format(port=self._kubernetes.server_address[1]))
        # SkyPilot wants these programs to be there, and asks kubectl for nothing but its configuration.
        (home / "bin").mkdir()
        for name, line in (("nc", "exit 0"), ("socat", "exit 0"), ("kubectl", f'[ "$1" != config ] || cat {home}/.kube/config')):
            (home / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
            (home / "bin" / name).chmod(0o755)
        self.port = _free_port()
        self.env = {
            "PATH": f"{home}/bin:{os.environ['PATH']}",
            "HOME": str(home),
            "SKYPILOT_API_SERVER_LOCAL_PORT": str(self.port),
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
        }
        self._log = (home / "server.log").open("wb")
        self._process = subprocess.Popen(
            [str(python), "-m", "sky.server.server", "--host=127.0.0.1", f"--port={self.port}"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**self.env, "IS_SKYPILOT_SERVER": "true"},
            start_new_session=True,
        )
        try:
            until(self._answers, 90)
        except AssertionError:
            self.stop()
            raise

    def _answers(self) -> bool:
        try:
            return str(asked(f"http://127.0.0.1:{self.port}", "/api/health")["status"]) == "healthy"
        except OSError:
            assert self._process.poll() is None, (Path(self._folder.name) / "server.log").read_text()[-2000:]
            return False

    def stop(self) -> None:
        """Ends the server and everything that it started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        self._kubernetes.shutdown()
        self._kubernetes.server_close()
        self._folder.cleanup()


def _free_port() -> int:
    """A port whose second one, which SkyPilot derives from it for its workers' queue, is free, too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", 50000 + (11 + port - 46580) % 10000))
            except OSError:
                continue
            return port
