"""DGX Cloud: a training (one node) or distributed (several) workload of Run:ai, named after the run, over its REST API.

NeMo-Run lets the API add random characters to the name, takes the first project when none is named, asks for a new token before each
request, suspends with a GET on the distributed endpoint whatever the workload is, and takes every error of a look for silence. Its request
is right and is kept: https://github.com/NVIDIA-NeMo/Run/blob/v0.11.1/nemo_run/core/execution/dgxcloud.py. The API:
https://docs.nvidia.com/run-ai/self-hosted/reference/rest-api/endpoints/workloads/trainings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from dispatcher.clouds.freetable import laid_over
from dispatcher.effects.clouds.api import ApiError, RefusedError, Rendered, name_of
from dispatcher.effects.clouds.dgx_project import DgxProject
from dispatcher.effects.clouds.movers import Mover, move
from dispatcher.effects.clouds.parcel import Parcel, laying, packed, unpacking
from dispatcher.effects.clouds.program import command_of, launch_script
from dispatcher.effects.clouds.runai import NotThereError, SaysNoError, TakenError
from dispatcher.effects.nemorun import import_nemo_run
from dispatcher.ports import JobView

MOST_ARGS = 9_500
"""Characters of `args`: the API takes 10,000, says NeMo-Run."""
MOST_CODE = 1 << 20
"""Bytes of packed code that are moved through the API: some 150 workspaces, eight at a time."""
MOST_LOG = 8 << 20
PODS = 8
"""Pods whose log is read; the last that is read is the one with rank 0."""
_OVER = {"Completed": True, "Failed": False, "Stopped": False}


class DgxCloudApi:
    """One project of one control plane. Raises `ApiError` and, from `launch`, `RefusedError`."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self._profile = profile
        self._project = DgxProject(profile)

    def render(self, job: Mapping[str, Any], work: Path) -> Rendered:
        """The script, and the workload as YAML without its variables, ids and packed files."""
        import yaml

        script = self._script(job, work)
        project = {"id": "(the project's)", "clusterId": "(the project's)"}
        body = self._workload(job, "'(the script and the code, packed)'", {}, project)
        return Rendered(script, {f"configs/{self._project.kind}.yaml": yaml.safe_dump(body, sort_keys=False)})

    def launch(self, job: Mapping[str, Any], code: Path | None, environment: Mapping[str, str], work: Path) -> str:
        """Moves the code where it is needed, then creates the workload, unless there is one of this name."""
        name = name_of(str(job["run_key"]))
        try:
            existing = self._project.named(name)
            if existing is not None:
                return existing
            self._project.may_read_logs()
            parcel = packed(self._script(job, work), code)
            args = f"'{self._opening(parcel, str(job['run_key']))}'"
            body = self._workload(job, args, environment, self._project.described())
            return str(self._project.created(self._project.kind, body))
        except (SaysNoError, TakenError, NotThereError) as refused:
            raise RefusedError(str(refused)) from None

    def find(self, run_key: str) -> str | None:
        """By its name in the project."""
        return self._project.named(name_of(run_key))

    def look(self, job_ids: Sequence[str]) -> list[JobView]:
        """One list of all our workloads; who is not in it is asked for by id, because absence has to be certain."""
        listed = {str(item.get("id")): item for item in self._project.listed("name=^dispatch-")}
        found: list[JobView] = []
        for job_id in job_ids:
            item = listed.get(job_id)
            if item is None:
                item = self._project.by_id(job_id)
            if item is not None and not item.get("deletedAt"):
                found.append(_state(job_id, item))
        return found

    def log(self, job_id: str) -> str:
        """What the pods printed, rank 0 last: from the storage when the runner mounts it, else from the cluster's Kubernetes API."""
        item = self._project.by_id(job_id)
        if item is None:
            return ""
        if self._profile["launched_from_cluster"]:
            return _joined(self._log_files(str(item.get("name") or "").removeprefix("dispatch-")))
        if self._profile["kube_apiserver_url"] is None:
            return ""
        pods = self._project.api.pages(f"workloads/{job_id}/pods", "pods", {})
        try:
            namespace = self._project.namespace()
        except RefusedError as error:
            raise ApiError("cloud.failed", str(error)) from None
        parts: list[tuple[str, str]] = []
        for pod in sorted(pods, key=lambda pod: _rank(str(pod.get("name"))))[:PODS]:
            url = f"{self._project.kubernetes}/api/v1/namespaces/{namespace}/pods/{pod.get('name')}/log"
            containers = [c.get("name") for c in pod.get("containers") or [] if isinstance(c, dict)]
            which = {"container": containers[0]} if len(containers) > 1 else {}
            try:
                text = self._project.api.text(url, {"tailLines": 100_000, **which}, MOST_LOG // min(PODS, len(pods)))
                parts.append((str(pod.get("name")), text))
            except (NotThereError, SaysNoError, TakenError):  # its container has not started, or the pod is gone
                continue
        return _joined(parts)

    def cancel(self, job_id: str) -> str:
        """Suspends it: its pods end and its state can still be seen; `forget` deletes it."""
        item = self._project.by_id(job_id)
        if item is None or item.get("phase") in _OVER:
            return ""
        try:
            self._project.write("POST", f"workloads/{item['kind']}/{job_id}/suspend")
        except NotThereError:
            return ""
        except (SaysNoError, TakenError) as refused:
            return str(refused)
        return ""

    def forget(self, job_id: str) -> None:
        """Deletes the workload, so that nobody resumes it. One whose log only Run:ai's own page shows stays, unless it was cancelled."""
        item = self._project.by_id(job_id)
        returns_log = self._profile["launched_from_cluster"] or self._profile["kube_apiserver_url"] is not None
        if item is None or not (returns_log or item.get("phase") == "Stopped"):
            return
        try:
            self._project.write("DELETE", f"workloads/{item['kind']}/{job_id}")
        except NotThereError:
            return
        except (SaysNoError, TakenError) as refused:
            raise ApiError("cloud.failed", str(refused)) from None

    def probe(self) -> list[tuple[str, int, str]]:
        """The application's token, the project, and whether logs can be read."""
        found = [("login", 0, f"application {os.environ.get('DGXCLOUD_CLIENT_ID')}")]
        try:
            project = self._project.described()
        except RefusedError as error:
            return [*found, ("project", 1, str(error))]
        found.append(("project", 0, f"{project['name']} on cluster {project['clusterId']}"))
        if self._profile["launched_from_cluster"]:
            folder = Path(str(self._profile["pvc_nemo_run_dir"]))
            there = os.access(folder if folder.exists() else folder.parent, os.W_OK)
            return [*found, ("storage", 0 if there else 1, f"{folder} {'can' if there else 'cannot'} be written to from here")]
        if self._profile["kube_apiserver_url"] is None:
            return [*found, ("logs", 0, "none: the profile has no kube_apiserver_url, so no log and no results come back")]
        try:
            self._project.may_read_logs()
        except (RefusedError, ApiError) as error:
            return [*found, ("logs", 1, str(error))]
        return [*found, ("logs", 0, "can be read")]

    # ------------------------------------------------------------------ what is sent

    def _script(self, job: Mapping[str, Any], work: Path) -> str:
        return launch_script(job, command_of(self._executor(job), job, work), before=_RENDEZVOUS if self._profile["nodes"] > 1 else "")

    def _executor(self, job: Mapping[str, Any]) -> Any:
        """NeMo-Run's executor, as far as its words for the recipe depend on it."""
        run, given = import_nemo_run(), self._profile
        return run.DGXCloudExecutor(
            base_url=given["base_url"],
            kube_apiserver_url=given["kube_apiserver_url"] or "",
            client_id="",
            client_secret="",
            project_name=given["project_name"],
            container_image=given["container_image"],
            pvc_nemo_run_dir=given["pvc_nemo_run_dir"],
            pvcs=[_without_none(pvc) for pvc in given["pvcs"]],
            nodes=given["nodes"],
            # NeMo-Run takes the GPUs for torchrun's processes whenever there are some.
            gpus_per_node=0,
            nprocs_per_node=job["torchrun_nproc_per_node"] or 1,
            packager=run.Packager(),
        )

    def _workload(self, job: Mapping[str, Any], args: str, environment: Mapping[str, str], project: Mapping[str, Any]) -> dict[str, Any]:
        """The request's body, as NeMo-Run's `create_training_job` makes it, under our name and without retries of the API's own."""
        given = self._profile
        spec: dict[str, Any] = {
            "command": "bash -c",
            "args": args,
            "image": given["container_image"],
            "compute": {"gpuDevicesRequest": given["gpus_per_node"] or 0, "largeShmRequest": True},
            "storage": {"pvc": [_without_none(pvc) for pvc in given["pvcs"]]},
            "environmentVariables": [{"name": name, "value": _literal(value)} for name, value in environment.items()],
            "backoffLimit": 0,
        }
        if given["nodes"] > 1:
            spec |= {"distributedFramework": given["distributed_framework"], "numWorkers": given["nodes"]}
            if given["distributed_framework"] == "PyTorch":
                spec |= {"minReplicas": given["nodes"], "maxReplicas": given["nodes"]}
        return self._body(name_of(str(job["run_key"])), project, laid_over(spec, given["custom_spec"]))

    def _body(self, name: str, project: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "name": name,
            "useGivenNameAsPrefix": False,
            "projectId": str(project["id"]),
            "clusterId": str(project["clusterId"]),
            "spec": dict(spec),
        }

    def _opening(self, parcel: Parcel, run_key: str) -> str:
        """The line that the job starts with; what does not fit into it has been moved to the storage when this returns."""
        storage, log = str(self._profile["pvc_nemo_run_dir"]).rstrip("/"), ""
        if self._profile["launched_from_cluster"]:
            log = f"{storage}/dispatch/runs/{run_key}/logs"
        line = unpacking(parcel, log=log)
        if len(line) <= MOST_ARGS:
            return line
        line = unpacking(parcel, storage, log)
        if len(line) > MOST_ARGS:
            raise RefusedError("the job's script does not fit into a request: make `setup_lines` or the recipe's arguments shorter")
        if self._profile["launched_from_cluster"]:
            _write_pieces(parcel, storage)
        elif parcel.size > MOST_CODE:
            raise RefusedError(
                f"{parcel.size / (1 << 20):.1f} MB of packed code are too much for this API, which takes {MOST_CODE >> 20} MB: pack less"
                " (`packager`), have the code in the image (`packager: none`), or a runner that mounts it (`launched_from_cluster`)"
            )
        else:
            self._move(parcel, storage)
        return line

    def _move(self, parcel: Parcel, storage: str) -> None:
        """One small workspace for each piece, as NeMo-Run's data mover has them."""
        project = self._project.described()
        length = MOST_ARGS - len(laying(parcel, storage, 0, "")) - 2
        storage_of = {"pvc": [_without_none(pvc) for pvc in self._profile["pvcs"]]}

        def mover(number: int, piece: str) -> Mover:
            name = f"dispatch-{parcel.digest[:16]}-{number:05d}"
            spec = {"command": "sh -c", "args": f"'{laying(parcel, storage, number, piece)}'", "image": self._profile["busybox_image"]}
            return Mover(name, self._body(name, project, {**spec, "storage": storage_of}))

        movers = [mover(number, piece) for number, piece in enumerate(parcel.pieces(length))]
        there = {str(item["name"]): str(item["id"]) for item in self._project.listed(f"name=^dispatch-{parcel.digest[:16]}-")}
        move(movers, _Workspaces(self._project, there))

    def _log_files(self, run_key: str) -> list[tuple[str, str]]:
        """The pods' logs on the storage that the runner mounts; not a file that somebody has put there as a link to another."""
        folder = Path(str(self._profile["pvc_nemo_run_dir"])) / "dispatch" / "runs" / run_key / "logs"
        files = sorted((path for path in folder.glob("log-*.out") if path.is_file() and not path.is_symlink()), key=lambda p: _rank(p.stem))
        return [(path.stem.removeprefix("log-"), _tail(path, MOST_LOG // min(PODS, len(files)))) for path in files[:PODS]]


class _Workspaces:
    """Movers as workspaces (`movers.Carrier`)."""

    def __init__(self, project: DgxProject, there: Mapping[str, str]) -> None:
        self._project, self._there = project, there

    def begin(self, mover: Mover) -> str:
        return self._there.get(mover.name) or str(self._project.created("workspaces", mover.body))

    def ended(self, job_id: str) -> bool | None:
        try:
            given = self._project.api.get(f"workloads/workspaces/{job_id}")
        except NotThereError:
            return False
        phase = str(given.get("actualPhase") or given.get("phase")) if isinstance(given, dict) else ""
        return _OVER.get(phase)

    def remove(self, job_id: str) -> None:
        with suppress(NotThereError):
            self._project.write("DELETE", f"workloads/workspaces/{job_id}")


# The training operator names rank and master for PyTorch itself; torchrun reads them under names of its own.
# https://docs.pytorch.org/docs/stable/elastic/run.html
_RENDEZVOUS = """\
export PET_MASTER_ADDR="${PET_MASTER_ADDR:-$MASTER_ADDR}" PET_MASTER_PORT="${PET_MASTER_PORT:-${MASTER_PORT:-29500}}"
export PET_NODE_RANK="${PET_NODE_RANK:-${RANK:-0}}"
"""


def _state(job_id: str, item: Mapping[str, Any]) -> JobView:
    ended = _seconds(item.get("completedAt"))
    ran = item.get("totalRunningTimeSeconds")
    started = ended - ran if ended is not None and isinstance(ran, int) else None
    return JobView(job_id, str(item.get("phase") or "Unknown"), None, str(item.get("phaseMessage") or ""), started, ended)


def _seconds(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def _rank(name: str) -> tuple[int, int]:
    """Which pod comes first: the master, then by number. `NAME-master-0`, `NAME-worker-1`, `NAME-0-0-abcde`."""
    numbers = [int(part) for part in name.split("-")[2:] if part.isdigit()]
    return (0 if "-master-" in name else 1, numbers[0] if numbers else 0)


def _joined(parts: Sequence[tuple[str, str]]) -> str:
    """Several pods' logs one after the other, the first of them last: results are what is said last."""
    if len(parts) == 1:
        return parts[0][1]
    return "".join(f"== {name} ==\n{text.rstrip()}\n" for name, text in reversed(parts))


def _tail(path: Path, limit: int) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - limit))
        return file.read(limit).decode("utf-8", "replace")


def _write_pieces(parcel: Parcel, storage: str) -> None:
    """The code as one piece on storage that is mounted here."""
    import base64

    folder = Path(parcel.folder(storage))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".00000").write_bytes(base64.b64decode(parcel.code))
        (folder / ".00000").replace(folder / "00000")
    except OSError as error:
        raise ApiError("cloud.failed", f"the code cannot be written to {folder}: {error.strerror}; is the storage mounted here?") from None


def _literal(value: str) -> str:
    """A variable's value that Kubernetes leaves as it is: it would put other variables in for `$(NAME)`.

    https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    """
    return re.sub(r"\$(?=[$(])", "$$", value)


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if value is not None}
