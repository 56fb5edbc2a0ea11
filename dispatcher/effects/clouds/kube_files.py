"""What a job has on Kubernetes besides its object: a Secret with its script, its environment and small code, or a folder of a claim.

Larger code goes into a claim through a pod that unpacks it, as NeMo-Run does with `kubectl cp`; here it stays an archive on the way, so
that nothing of the commit is unpacked on the runner. A Secret holds 1 MiB: https://kubernetes.io/docs/concepts/configuration/secret/.
"""

from __future__ import annotations

import base64
import gzip
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dispatcher.clouds.kubernetes import FILES_DIR, OWN_LABELS, OWN_VOLUMES, RUN_DIR
from dispatcher.effects.clouds.api import ApiError, RefusedError
from dispatcher.effects.clouds.kube import Namespace
from dispatcher.kubestates import Object, waiting

RUN_KEY = f"{OWN_LABELS}run-key"
CANCELLED = f"{OWN_LABELS}cancelled"
CODE_LIMIT = 900_000
"""Bytes of an archive that fit into a Secret with everything else."""
KEPT_LOG = 512 << 10
MOVER_SECONDS = 600

_UNPACK = 'set -e; rm -rf "$1.new"; mkdir -p "$1.new"; tar -xzf - -C "$1.new"; rm -rf "$1"; mv "$1.new" "$1"'


class JobFiles:
    """The Secrets and the claim of a namespace's jobs. Raises `ApiError`; `RefusedError` where the API will not have something."""

    def __init__(self, namespace: Namespace, profile: Mapping[str, Any]) -> None:
        self._namespace, self._profile = namespace, profile

    def keep(self, name: str, run_key: str, files: Mapping[str, bytes]) -> None:
        """The Secret of a job, made or made anew. Raises `RefusedError` when the API will not have it."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": self._namespace.name, "labels": {RUN_KEY: run_key}},
            "type": "Opaque",
            "data": {key: base64.b64encode(content).decode() for key, content in files.items()},
        }
        if not self._namespace.create("secrets", body):
            self._namespace.patch(f"secrets/{name}", {"data": body["data"]})

    def mark_cancelled(self, name: str, log: str) -> None:
        """Says in the job's Secret that it was cancelled, and keeps the end of its log: with the job both are gone."""
        kept = gzip.compress(log.encode("utf-8", "surrogateescape")[-KEPT_LOG:])
        data = {"log.gz": base64.b64encode(kept).decode(), "code.tar.gz": None, "env": None}
        self._namespace.patch(f"secrets/{name}", {"metadata": {"annotations": {CANCELLED: "true"}}, "data": data})

    def cancelled(self, names: Sequence[str]) -> set[str]:
        """Those of these jobs that were cancelled and are gone."""
        secrets = [self._namespace.get(f"secrets/{name}") for name in names]
        return {name for name, secret in zip(names, secrets, strict=True) if secret is not None and _is_cancelled(secret)}

    def kept_log(self, name: str) -> str:
        """The end of a cancelled job's log."""
        secret = self._namespace.get(f"secrets/{name}")
        text = str(((secret or {}).get("data") or {}).get("log.gz") or "")
        try:
            return gzip.decompress(base64.b64decode(text)).decode("utf-8", "replace") if text else ""
        except (ValueError, OSError, EOFError):
            return ""

    def move(self, code: Path, name: str, run_key: str) -> None:
        """Unpacks an archive in the run's folder of the claim, by a pod that has it mounted and goes afterwards."""
        claim = str(self._profile["workdir_pvc"])
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            raise ApiError("cloud.kubectl", "there is no `kubectl` on the runner")
        pod = f"{name}-mover"
        self._namespace.create("pods", self._mover(pod, claim))
        try:
            self._await_running(pod)
            context = ["--context", self._namespace.context] if self._namespace.context else []
            command = [kubectl, *context, "-n", self._namespace.name, "exec", "-i", pod, "-c", "mover", "--"]
            unpack = ["sh", "-c", _UNPACK, "sh", f"/claim/{claim_folder(run_key)}/code"]
            with code.open("rb") as archive:
                done = subprocess.run([*command, *unpack], stdin=archive, capture_output=True, timeout=1500, check=False)
            if done.returncode != 0:
                said = done.stderr.decode("utf-8", "replace")[-500:]
                raise ApiError("cloud.failed", f"the code could not be copied into {claim}: {said}")
        except subprocess.TimeoutExpired:
            raise ApiError("cloud.failed", f"the code could not be copied into {claim}: it took too long") from None
        finally:
            with suppress(ApiError):  # it ends by itself
                self._namespace.delete(f"pods/{pod}")

    def _mover(self, pod: str, claim: str) -> Object:
        """As NeMo-Run's: it must be able to run where the job's pods do, because a claim may be a zone's or a node's."""
        spec: dict[str, Any] = {
            "restartPolicy": "Never",
            # Should the runner die, the pod ends by itself.
            "activeDeadlineSeconds": 3600,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "mover",
                    "image": self._profile["data_mover_image"],
                    "command": ["sleep", "3600"],
                    "volumeMounts": [{"name": "claim", "mountPath": "/claim"}],
                }
            ],
            "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}],
        }
        more = {
            "tolerations": list(self._profile["tolerations"]),
            "affinity": self._profile["affinity"],
            "imagePullSecrets": named(self._profile),
        }
        spec.update({key: value for key, value in more.items() if value})
        metadata = {"name": pod, "namespace": self._namespace.name, "labels": {f"{OWN_LABELS}mover": "true"}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def _await_running(self, pod: str) -> None:
        until = time.monotonic() + MOVER_SECONDS
        while True:
            found = self._namespace.get(f"pods/{pod}")
            phase = str(((found or {}).get("status") or {}).get("phase") or "")
            if phase == "Running":
                return
            if found is None or phase in ("Failed", "Succeeded") or time.monotonic() > until:
                why = waiting([found]) if found else "it is gone"
                raise ApiError("cloud.failed", f"the pod {pod}, which copies the code, does not run: {why or phase or 'no word'}")
            time.sleep(1)


def script_before(code: bool, claim: bool) -> str:
    """Lines of the job's script that come first: its environment, and its code where that lies in the Secret."""
    lines = [f"set -a; . {FILES_DIR}/env; set +a"]
    if code and not claim:
        lines.append(f"mkdir -p {RUN_DIR}/code && tar -xzf {FILES_DIR}/code.tar.gz -C {RUN_DIR}/code || exit 1")
    return "\n".join(lines)


def environment_file(environment: Mapping[str, str]) -> bytes:
    """What the script reads its variables from."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items()).encode()


def volumes_of(name: str, run_key: str, profile: Mapping[str, Any]) -> tuple[list[Object], list[Object]]:
    """The job's volumes and where a container has them: the profile's, the Secret, the run's folder (of the claim, else an empty one)."""
    files, run = OWN_VOLUMES
    claim, whole = profile["workdir_pvc"], str(profile["workdir_pvc_path"]).rstrip("/")
    source = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}
    mount = {"name": run, "mountPath": RUN_DIR, **({"subPath": claim_folder(run_key)} if claim else {})}
    volumes = [*profile["volumes"], {"name": files, "secret": {"secretName": name}}, {"name": run, **source}]
    mounts = [*profile["volume_mounts"], {"name": files, "mountPath": FILES_DIR, "readOnly": True}, mount]
    if claim and whole != RUN_DIR:
        mounts.append({"name": run, "mountPath": whole})
    return volumes, mounts


def claim_folder(run_key: str) -> str:
    """The run's folder in the claim."""
    return f"dispatch/{run_key}"


def code_in_secret(code: Path | None, profile: Mapping[str, Any]) -> Mapping[str, bytes]:
    """The archive as a file of the Secret; empty when it goes into a claim or nothing travels.

    Raises:
        RefusedError: when it is too large for a Secret.
    """
    if code is None or profile["workdir_pvc"]:
        return {}
    size = code.stat().st_size
    if size > CODE_LIMIT:
        words = f"the code is {size:,} bytes packed, and a Secret takes {CODE_LIMIT:,}: name a claim as `workdir_pvc`, or pack less"
        raise RefusedError(words)
    return {"code.tar.gz": code.read_bytes()}


def named(profile: Mapping[str, Any]) -> list[Object]:
    """The secrets for images, as a pod names them."""
    return [{"name": name} for name in profile["image_pull_secrets"]]


def _is_cancelled(secret: Object) -> bool:
    return bool(((secret.get("metadata") or {}).get("annotations") or {}).get(CANCELLED))
