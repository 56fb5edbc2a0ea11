"""A Docker engine: one container a run, made as NeMo-Run's DockerExecutor says and kept until its end has been reported.

NeMo-Run starts its container with `remove=True`, under a name of the experiment, with the job's folder mounted from the machine that
starts it. Here the container keeps its exit code, has the run key's name (the engine refuses a second one), and gets its files sent, so
that an engine on another machine (`DOCKER_HOST`) needs no folder of ours. https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import gzip
import io
import json
import shlex
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from dispatcher.effects.clouds.api import ApiError, RefusedError, Rendered, name_of
from dispatcher.effects.clouds.program import RUN_DIR, command_of, launch_script
from dispatcher.effects.nemorun import import_nemo_run
from dispatcher.ports import JobView

LABEL = "nemotron-dispatch"
CANCELLED = f"{RUN_DIR}/cancelled"
"""A file in the container that says that we ended it: the engine remembers only the signal's exit code."""


class DockerApi:
    """One engine. Raises `ApiError` and, from `launch`, `RefusedError`."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self._profile = profile
        self._engine: Any = None

    def render(self, job: Mapping[str, Any], work: Path) -> Rendered:
        """The script, and the container's settings as YAML."""
        import yaml

        executor = self._executor()
        script = launch_script(job, command_of(executor, job, work))
        settings = {"name": name_of(str(job["run_key"])), "image": executor.container_image, **self._settings(executor)}
        shown = {name: value for name, value in settings.items() if value not in (None, [], {}, False)}
        return Rendered(script, {"configs/container.yaml": yaml.safe_dump(json.loads(json.dumps(shown)), sort_keys=False)})

    def launch(self, job: Mapping[str, Any], code: Path | None, environment: Mapping[str, str], work: Path) -> str:
        """Makes the container, puts script, environment and code into it, starts it."""
        from docker.errors import APIError, ImageNotFound

        name, executor = name_of(str(job["run_key"])), self._executor()
        script = launch_script(job, command_of(executor, job, work))
        with self._calls() as engine:
            existing = self._named(name)
            if existing is None:
                self._pull(executor.container_image)
                try:
                    existing = engine.containers.create(
                        executor.container_image,
                        ["bash", f"{RUN_DIR}/launch.sh"],
                        name=name,
                        hostname=name[-32:],
                        labels={LABEL: str(job["run_key"])},
                        working_dir=RUN_DIR,
                        **self._settings(executor),
                    )
                except ImageNotFound as error:
                    raise RefusedError(
                        f"the engine has no image {executor.container_image} and cannot pull it: {error.explanation}"
                    ) from None
                except APIError as error:
                    if error.status_code != 409:
                        raise
                    existing = self._named(name)  # another one was quicker
                    if existing is None:
                        raise
            if existing.status == "created":
                existing.put_archive("/", _small_files(script, environment))
                if code is not None:
                    existing.put_archive(f"{RUN_DIR}/code", _unzipped(code))
                try:
                    existing.start()
                except APIError as error:
                    existing.remove(force=True)
                    raise RefusedError(str(error.explanation)) from None
            return str(existing.short_id)

    def find(self, run_key: str) -> str | None:
        """A container that was made and never started is no job yet: `launch` goes on with it."""
        with self._calls():
            found = self._named(name_of(run_key))
            return None if found is None or found.status == "created" else str(found.short_id)

    def look(self, job_ids: Sequence[str]) -> list[JobView]:
        """One request for each container."""
        from docker.errors import NotFound

        found: list[JobView] = []
        with self._calls() as engine:
            for job_id in job_ids:
                try:
                    state = engine.api.inspect_container(job_id)["State"]
                except NotFound:
                    continue
                started, ended = _seconds(state.get("StartedAt")), _seconds(state.get("FinishedAt"))
                over = state["Status"] in ("exited", "dead")
                word = "cancelled" if over and state.get("ExitCode") and self._was_cancelled(job_id) else state["Status"]
                reason = "OOMKilled" if state.get("OOMKilled") else str(state.get("Error") or "")
                code = state.get("ExitCode") if over else None
                found.append(JobView(job_id, word, code, reason, started, ended if over else None))
        return found

    def log(self, job_id: str) -> str:
        """Both streams, as they came."""
        from docker.errors import NotFound

        with self._calls() as engine:
            try:
                return str(engine.containers.get(job_id).logs(tail=200_000).decode("utf-8", "replace"))
            except NotFound:
                return ""

    def cancel(self, job_id: str) -> str:
        """SIGTERM, and SIGKILL ten seconds later."""
        from docker.errors import NotFound

        with self._calls() as engine, suppress(NotFound):
            _stop(engine.containers.get(job_id))
        return ""

    def forget(self, job_id: str) -> None:
        """Removes the container and its anonymous volumes."""
        from docker.errors import NotFound

        with self._calls() as engine, suppress(NotFound):
            engine.containers.get(job_id).remove(v=True)

    def probe(self) -> list[tuple[str, int, str]]:
        """The engine, and whether it has the image."""
        from docker.errors import ImageNotFound

        image = str(self._profile["container_image"])
        with self._calls() as engine:
            found = [("engine", 0, f"Docker {engine.version()['Version']} answers")]
            try:
                engine.images.get(image)
                found.append(("image", 0, f"{image} is there"))
            except ImageNotFound:
                found.append(("image", 0, f"{image} is not there; it is pulled when a job needs it"))
        return found

    # ------------------------------------------------------------------ parts

    def _executor(self) -> Any:
        """NeMo-Run's executor with the profile's fields."""
        run, given = import_nemo_run(), self._profile
        gpus = given["gpus_per_node"]
        return run.DockerExecutor(
            container_image=given["container_image"],
            ntasks_per_node=given["nproc_per_node"] or gpus or given["ntasks_per_node"],
            runtime=given["runtime"],
            num_gpus=gpus,
            shm_size=given["shm_size"],
            ulimits=[limit.replace("=", ":") for limit in given["ulimits"]],
            ipc_mode=given["ipc_mode"],
            privileged=given["privileged"],
            network=given["network"],
            volumes=list(given["mounts"]),
            packager=run.Packager(),
        )

    def _settings(self, executor: Any) -> dict[str, Any]:
        """What NeMo-Run's DockerContainer.run hands to the engine, without what makes a container vanish."""
        from docker.types import DeviceRequest, Ulimit

        limits = [limit.split(":") for limit in executor.ulimits]
        settings: dict[str, Any] = {
            "runtime": executor.runtime,
            "volumes": executor.volumes,
            "shm_size": executor.shm_size,
            "ulimits": [Ulimit(name=name, soft=int(soft), hard=int((rest or [soft])[0])) for name, soft, *rest in limits],
            "ipc_mode": executor.ipc_mode,
            "privileged": executor.privileged,
            "network": executor.network,
        }
        if executor.num_gpus:
            settings["device_requests"] = [DeviceRequest(count=executor.num_gpus, capabilities=[["compute", "utility"]])]
        return {name: value for name, value in settings.items() if value not in (None, [], False)}

    def _was_cancelled(self, job_id: str) -> bool:
        from docker.errors import NotFound

        try:
            self._engine.api.get_archive(job_id, CANCELLED)
            return True
        except NotFound:
            return False

    def _pull(self, image: str) -> None:
        """The image, if it can be had; an engine that has it needs no registry."""
        from docker.errors import APIError, ImageNotFound

        try:
            self._engine.images.get(image)
        except ImageNotFound:
            print(f"pulling {image}", flush=True)
            try:
                self._engine.images.pull(image)
            except APIError as error:
                raise RefusedError(f"the image {image} cannot be pulled: {error.explanation}") from None

    def _named(self, name: str) -> Any:
        from docker.errors import NotFound

        try:
            return self._engine.containers.get(name)
        except NotFound:
            return None

    @contextmanager
    def _calls(self) -> Iterator[Any]:
        """The engine; its errors become ours."""
        import requests
        from docker import DockerClient, from_env
        from docker.errors import APIError, DockerException

        try:
            if self._engine is None:
                address = self._profile["docker_host"]
                self._engine = DockerClient(base_url=address, timeout=60) if address else from_env(timeout=60)
            yield self._engine
        except APIError as error:
            raise ApiError(
                "cloud.credentials" if error.status_code in (401, 403) else "cloud.failed", str(error.explanation or error)
            ) from None
        except (DockerException, requests.exceptions.RequestException, OSError) as error:
            raise ApiError("cloud.unreachable", f"the Docker engine does not answer: {error}") from None


def _small_files(script: str, environment: Mapping[str, str]) -> bytes:
    """Script and environment as a tar for the container's root; the environment is a file that only the container's user can read."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    return _tar({f"{RUN_DIR}/launch.sh": (script, 0o755), f"{RUN_DIR}/env": (exports, 0o600)}, f"{RUN_DIR}/code")


def _stop(container: Any) -> None:
    """SIGTERM, then SIGKILL, to a container that has not ended; that it was us is written down first."""
    if container.status not in ("exited", "dead"):
        container.put_archive("/", _tar({CANCELLED: ("", 0o644)}))
        container.stop(timeout=10)


def _tar(files: Mapping[str, tuple[str, int]], *folders: str) -> bytes:
    """Texts with their modes, and folders, as a tar for the container's root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in (RUN_DIR, *folders) if folders else ():
            info = tarfile.TarInfo(path.strip("/"))
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for path, (text, mode) in files.items():
            info = tarfile.TarInfo(path.strip("/"))
            info.size, info.mode = len(text.encode()), mode
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _unzipped(code: Path) -> Iterator[bytes]:
    """The archive's tar, in pieces: the engine unpacks it."""
    with gzip.open(code) as stream:
        while data := stream.read(1 << 20):
            yield data


def _seconds(text: object) -> float | None:
    """`2026-11-30T14:02:00.123456789Z` → seconds; Docker writes the year 1 for what has not happened."""
    if not isinstance(text, str) or text.startswith("0001"):
        return None
    moment = text.partition(".")[0].rstrip("Z")
    try:
        return datetime.fromisoformat(f"{moment}+00:00").timestamp()
    except ValueError:
        return None
