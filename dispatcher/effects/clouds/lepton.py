"""DGX Cloud Lepton: a batch job of a workspace, named after the run, through leptonai's own client.

NeMo-Run lets a script that it fetches from a public address, unpinned, set what torchrun needs; moves code in one argument of at most
128 KB; takes an archived job for a success; and cancels by deleting, which leaves nothing to look at. Its job's description is right and is
kept: https://github.com/NVIDIA-NeMo/Run/blob/v0.11.1/nemo_run/core/execution/lepton.py. What a job finds in its environment:
https://docs.nvidia.com/dgx-cloud/lepton/features/batch-jobs/predefined-env-vars.
"""

from __future__ import annotations

import base64
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from dispatcher.clouds.freetable import laid_over
from dispatcher.effects.clouds.api import ApiError, RefusedError, Rendered, name_of
from dispatcher.effects.clouds.movers import Mover, move
from dispatcher.effects.clouds.parcel import Parcel, laying, packed, unpacking
from dispatcher.effects.clouds.program import command_of, launch_script
from dispatcher.effects.nemorun import import_nemo_run
from dispatcher.ports import JobView

MOST_LINE = 96 * 1024
"""Bytes of one argument: Linux takes 128 KiB."""
MOST_CODE = 8 << 20
"""Bytes of packed code that are moved through the API: some 115 small jobs, eight at a time."""
MOVER_SHAPE = "cpu.small"
MOST_LOG = 8 << 20
REPLICAS = 8
KEPT_SECONDS = 7 * 24 * 3600
"""How long the API keeps an ended job: a look may come late. It is deleted as soon as its end has been reported."""
_PASSING = (429, 500, 502, 503, 504)
T = TypeVar("T")


class LeptonApi:
    """One workspace. Raises `ApiError` and, from `launch`, `RefusedError`."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self._profile = profile
        self._made: Any = None

    def render(self, job: Mapping[str, Any], work: Path) -> Rendered:
        """The script, and the job as YAML, without its variables and its packed files."""
        import yaml

        script = self._script(job, work)
        spec = self._job(job, "(the script and the code, packed)", self._profile["node_group"])
        return Rendered(script, {"configs/job.yaml": yaml.safe_dump(_plain(spec), sort_keys=False)})

    def launch(self, job: Mapping[str, Any], code: Path | None, environment: Mapping[str, str], work: Path) -> str:
        """Moves the code where it is needed, stores the variables as a secret, then creates the job, unless there is one of this name."""
        name = name_of(str(job["run_key"]))
        existing = self._named(name)
        if existing is not None:
            return existing
        parcel = packed(self._script(job, work), code)
        group = self._node_group()
        line = self._opening(parcel, group)
        self._keep_variables(name, environment)
        try:
            return self._created(self._job(job, line, group))
        except RefusedError:
            self._drop_variables(name)
            raise

    def find(self, run_key: str) -> str | None:
        """By its name, archived ones too."""
        return self._named(name_of(run_key))

    def look(self, job_ids: Sequence[str]) -> list[JobView]:
        """One list of all our jobs; who is not in it is asked for by id, because absence has to be certain."""
        listed = {str(job.metadata.id_): job for job in self._listed("dispatch-")}
        found: list[JobView] = []
        for job_id in job_ids:
            job = listed.get(job_id) or self._by_id(job_id)
            if job is not None and _word(job) != "Deleted":
                found.append(_state(job_id, job))
        return found

    def log(self, job_id: str) -> str:
        """What the replicas print or printed, that of rank 0 last; from the workspace's log store when they are gone."""
        job = self._by_id(job_id)
        if job is None:
            return ""
        replicas = self._read(lambda client: client.job.get_replicas(job_id), none_for_404=True) or []
        names = sorted((str(replica.metadata.id_) for replica in replicas), key=_rank)[:REPLICAS]
        parts = [(name, self._live(job_id, name)) for name in names]
        if not parts or any(text is None for _, text in parts):
            return self._stored(job_id, job)
        texts = [(name, text or "") for name, text in parts]
        return texts[0][1] if len(texts) == 1 else "".join(f"== {name} ==\n{text.rstrip()}\n" for name, text in reversed(texts))

    def cancel(self, job_id: str) -> str:
        """Stops it, so that its end can still be seen; `forget` deletes it."""
        job = self._by_id(job_id)
        if job is None or _word(job) in ("Completed", "Failed", "Stopped", "Archived", "Deleted"):
            return ""
        try:
            self._read(lambda client: client.job.update(job_id, spec={"spec": {"stopped": True}}), none_for_404=True)
        except RefusedError as refused:
            return str(refused)
        return ""

    def forget(self, job_id: str) -> None:
        """Deletes the job and the secret with its variables."""
        job = self._by_id(job_id)
        try:
            self._read(lambda client: client.job.delete(job_id), none_for_404=True)
        except RefusedError as refused:
            raise ApiError("cloud.failed", str(refused)) from None
        self._drop_variables(str((job.metadata.name if job else None) or job_id))

    def probe(self) -> list[tuple[str, int, str]]:
        """The workspace and the node group."""
        with self._calls() as client:
            found = [("workspace", 0, f"{client.workspace_id} at {client.url}")]
        try:
            group = self._node_group()
        except RefusedError as refused:
            return [*found, ("node group", 1, str(refused))]
        return [*found, ("node group", 0, f"{self._profile['node_group']} ({group})")]

    # ------------------------------------------------------------------ requests

    @contextmanager
    def _calls(self) -> Iterator[Any]:
        """The client; its errors become ours."""
        import requests

        import_nemo_run(frozenset())
        from leptonai.api.v1.api_resource import ClientError, ServerError
        from leptonai.api.v2.client import APIClient
        from leptonai.api.v2.utils import WorkspaceConfigurationError, WorkspaceError

        try:
            if self._made is None:
                self._made = self._client(APIClient)
            yield self._made
        except (WorkspaceConfigurationError, WorkspaceError) as error:
            raise ApiError("cloud.credentials", f"there are no credentials for a workspace: {error.args[0]}") from None
        except (ClientError, ServerError) as error:
            raise _said(error.response.status_code, error.response.text) from None
        except requests.exceptions.JSONDecodeError:
            raise ApiError("cloud.failed", "Lepton answered with something that is not JSON") from None
        except requests.exceptions.RequestException as error:
            raise ApiError("cloud.unreachable", f"Lepton does not answer: {type(error).__name__}") from None

    def _client(self, make: Callable[[], Any]) -> Any:
        """leptonai's client, for whatever workspace the environment or `lep login` names."""
        try:
            client = make()
        except TypeError:  # it cannot do without a token, and does not say so
            raise ApiError("cloud.credentials", "LEPTON_WORKSPACE_TOKEN is not set") from None
        client._timeout = 60
        wanted = self._profile["workspace"]
        if wanted and client.workspace_id != wanted:
            raise ApiError("cloud.credentials", f"the credentials are for workspace {client.workspace_id}, the profile is for {wanted}")
        return client

    def _read(self, ask: Callable[[Any], T], none_for_404: bool = False) -> T | None:
        """A request that may be made again, a few times while the trouble may pass."""
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

        def once() -> T | None:
            with self._calls() as client:
                return ask(client)

        waiting = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, ApiError) and error.code in ("cloud.failed", "cloud.unreachable")),
            stop=stop_after_attempt(4),
            wait=wait_exponential(0.3, max=4),
            reraise=True,
        )
        try:
            return waiting(once)
        except _NotThereError as error:
            if none_for_404:
                return None
            raise ApiError("cloud.failed", f"there is nothing at this address: {error}") from None

    def _listed(self, part: str) -> list[Any]:
        """Jobs whose name has this in it, archived ones too."""
        try:
            return self._read(lambda client: client.job.list_all(job_query_mode="alive_and_archive", q=part)) or []
        except RefusedError as refused:
            raise ApiError("cloud.failed", str(refused)) from None

    def _named(self, name: str) -> str | None:
        """The job of this name. The API may add something to a job's id, never to its name."""
        found = [job for job in self._listed(name) if name in (job.metadata.name, job.metadata.id_) and _word(job) != "Deleted"]
        return str(found[0].metadata.id_) if found else None

    def _by_id(self, job_id: str) -> Any:
        try:
            return self._read(lambda client: client.job.get(job_id), none_for_404=True)
        except RefusedError as refused:
            raise ApiError("cloud.failed", str(refused)) from None

    def _created(self, job: Any) -> str:
        """The id of the job of this name: a request whose answer was lost is not repeated before a look."""
        name = str(job.metadata.name)
        for attempt in (1, 2):
            try:
                with self._calls() as client:
                    made = client.job.create(job)
            except _TakenError as taken:
                existing = self._named(name)
                if existing is None:
                    raise RefusedError(str(taken)) from None
                return existing
            except _NotThereError as error:
                raise RefusedError(str(error)) from None
            except ApiError as error:
                if error.code == "cloud.credentials":
                    raise
                existing = self._named(name)
                if existing is not None:
                    return existing
                if attempt == 2:
                    raise
            else:
                return str(made.metadata.id_ or name)
        raise AssertionError("unreachable")

    def _node_group(self) -> str:
        """The id of the node group of exactly this name."""
        groups = self._read(lambda client: client.nodegroup.list_all()) or []
        found = [str(group.metadata.id_) for group in groups if group.metadata.name == self._profile["node_group"]]
        if not found:
            names = ", ".join(sorted(str(group.metadata.name) for group in groups)[:10])
            raise RefusedError(f"the workspace has no node group {self._profile['node_group']}; it has {names or 'none'}")
        return found[0]

    def _keep_variables(self, name: str, environment: Mapping[str, str]) -> None:
        """The job's variables as one secret of the workspace: they are not seen in the job's description."""
        import_nemo_run(frozenset())
        from leptonai.api.v1.types.common import LeptonVisibility
        from leptonai.api.v1.types.secret import SecretItem

        exports = "".join(f"export {variable}={shlex.quote(value)}\n" for variable, value in environment.items())
        item = SecretItem(name=_secret(name), value=base64.b64encode(exports.encode()).decode(), visibility=LeptonVisibility.PRIVATE)
        try:
            self._read(lambda client: client.secret.create([item]))
        except (_TakenError, RefusedError):  # of a launch that was cut
            self._drop_variables(name)
            self._read(lambda client: client.secret.create([item]))

    def _drop_variables(self, name: str) -> None:
        with suppress(RefusedError):
            self._read(lambda client: client.secret.delete(_secret(name)), none_for_404=True)

    def _live(self, job_id: str, replica: str) -> str | None:
        """What a replica printed, while it is there. A running one's log has no end: what has come after a moment's silence is all of it.

        leptonai's own `get_log` decodes each chunk by itself, and fails where one ends within a character.
        """
        import requests

        kept, until = b"", time.monotonic() + 30
        with self._calls() as client:
            response = client._get(f"/jobs/{job_id}/replicas/{replica}/log", stream=True, timeout=(10, 3))
            if response.status_code in (400, 404, 410):
                return None
            if not response.ok:
                raise _said(response.status_code, response.text)
            with response, suppress(requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError):
                for chunk in response.iter_content(None):
                    kept = (kept + chunk)[-MOST_LOG:]
                    if time.monotonic() > until:
                        break
        return kept.decode("utf-8", "replace")

    def _stored(self, job_id: str, job: Any) -> str:
        """The newest lines from the workspace's log store, page by page as leptonai's command line asks for them."""
        start = int(job.metadata.created_at or 0) * 1_000_000 or 1
        end, lines = time.time_ns(), dict[tuple[int, str], None]()
        for _ in range(10):
            given = self._page(job_id, start, end)
            fresh = [line for line in given if line not in lines]
            if not fresh:
                break
            lines |= dict.fromkeys(fresh)
            end = min(moment for moment, _ in fresh)
        return "".join(f"{text.rstrip()}\n" for _, text in sorted(lines, key=lambda line: line[0]))[-MOST_LOG:]

    def _page(self, job_id: str, start: int, end: int) -> list[tuple[int, str]]:
        def ask(client: Any) -> list[tuple[int, str]]:
            query = {"job": job_id, "start": start, "end": end, "limit": 10_000, "direction": "backward", "timestamps": True}
            response = client._get("/logs", params={**query, "q": "", "job_query_mode": "alive_and_archive"})
            if not response.ok:
                raise _said(response.status_code, response.text)
            return _lines(response.json())

        try:
            return self._read(ask, none_for_404=True) or []
        except RefusedError as refused:
            raise ApiError("cloud.failed", str(refused)) from None

    # ------------------------------------------------------------------ what is sent

    def _script(self, job: Mapping[str, Any], work: Path) -> str:
        import_nemo_run(frozenset())
        before = "\n".join([_VARIABLES, *self._profile["pre_launch_commands"], _RENDEZVOUS[self._profile["nodes"] > 1]])
        return launch_script(job, command_of(self._executor(job), job, work), before=before)

    def _executor(self, job: Mapping[str, Any]) -> Any:
        """NeMo-Run's executor, as far as its words for the recipe depend on it."""
        run, given = import_nemo_run(frozenset()), self._profile
        return run.LeptonExecutor(
            container_image=given["container_image"],
            nemo_run_dir=given["nemo_run_dir"] or "/nemo_run",
            nodes=given["nodes"],
            # NeMo-Run takes the GPUs for torchrun's processes whenever there are some.
            gpus_per_node=0,
            nprocs_per_node=job["torchrun_nproc_per_node"] or 1,
            packager=run.Packager(),
        )

    def _job(self, job: Mapping[str, Any], line: str, group: str) -> Any:
        """The job as NeMo-Run's `create_lepton_job` describes it, under our name and without retries of the API's own."""
        import_nemo_run(frozenset())
        from leptonai.api.v1.types.job import LeptonJobUserSpec

        given, name = self._profile, name_of(str(job["run_key"]))
        envs: list[dict[str, Any]] = [{"name": "DISPATCH_ENVIRONMENT", "value_from": {"secret_name_ref": _secret(name)}}]
        envs += [{"name": variable, "value_from": {"secret_name_ref": secret}} for variable, secret in given["secret_vars"].items()]
        spec: dict[str, Any] = {
            "resource_shape": given["resource_shape"],
            "affinity": {"allowed_dedicated_node_groups": [group]},
            "container": {"image": given["container_image"], "command": ["/bin/bash", "-c", line]},
            "shared_memory_size": given["shared_memory_size"],
            "completions": given["nodes"],
            "parallelism": given["nodes"],
            "max_failure_retry": 0,
            "max_job_failure_retry": 0,
            "envs": envs,
            "mounts": _mounts(given["mounts"]),
            "image_pull_secrets": list(given["image_pull_secrets"]),
            "ttl_seconds_after_finished": KEPT_SECONDS,
            "intra_job_communication": True,
        }
        if given["can_be_preempted"] or given["can_preempt"] or given["queue_priority"]:
            flags = {flag: True for flag in ("can_be_preempted", "can_preempt") if given[flag]}
            spec["queue_config"] = {"priority_class": given["queue_priority"] or "mid-4000", **flags}
        if given["node_reservation"]:
            spec["reservation_config"] = {"reservation_id": given["node_reservation"]}
        try:
            return self._described(name, LeptonJobUserSpec(**laid_over(spec, given["custom_spec"])))
        except ValueError as error:
            raise RefusedError(f"`custom_spec` is not what a job's spec is: {error}") from None

    @staticmethod
    def _described(name: str, spec: Any) -> Any:
        from leptonai.api.v1.types.common import LeptonVisibility, Metadata
        from leptonai.api.v1.types.job import LeptonJob

        return LeptonJob(metadata=Metadata(id=name, name=name, visibility=LeptonVisibility.PRIVATE), spec=spec)

    def _opening(self, parcel: Parcel, group: str) -> str:
        """The line that the job starts with; what does not fit into it lies on the storage when this returns."""
        line = unpacking(parcel)
        if len(line) <= MOST_LINE:
            return line
        storage = self._profile["nemo_run_dir"]
        if not storage:
            kib = parcel.size >> 10
            raise RefusedError(f"{kib} KiB of packed code do not fit into a request: give `nemo_run_dir`, a folder on one of `mounts`")
        line = unpacking(parcel, storage)
        if len(line) > MOST_LINE:
            raise RefusedError("the job's script does not fit into a request: make `setup_lines` or the recipe's arguments shorter")
        if parcel.size > MOST_CODE:
            raise RefusedError(
                f"{parcel.size / (1 << 20):.1f} MB of packed code are too much for this API, which takes {MOST_CODE >> 20} MB: pack less"
                " (`packager`), or have the code in the image (`packager: none`)"
            )
        self._move(parcel, storage, group)
        return line

    def _move(self, parcel: Parcel, storage: str, group: str) -> None:
        """One small job for each piece; NeMo-Run's data mover has all of it in one argument."""
        import_nemo_run(frozenset())
        from leptonai.api.v1.types.job import LeptonJobUserSpec

        def mover(number: int, piece: str) -> Mover:
            name = f"dispatch-{parcel.digest[:16]}-{number:05d}"
            spec = LeptonJobUserSpec(
                resource_shape=MOVER_SHAPE,
                affinity={"allowed_dedicated_node_groups": [group]},
                container={"image": self._profile["busybox_image"], "command": ["sh", "-c", laying(parcel, storage, number, piece)]},
                completions=1,
                parallelism=1,
                mounts=_mounts(self._profile["mounts"]),
            )
            return Mover(name, {"job": self._described(name, spec)})

        length = MOST_LINE - len(laying(parcel, storage, 0, ""))
        there = {str(job.metadata.name): str(job.metadata.id_) for job in self._listed(f"dispatch-{parcel.digest[:16]}-")}
        move([mover(number, piece) for number, piece in enumerate(parcel.pieces(length))], _Movers(self, there))


class _Movers:
    """Movers as jobs (`movers.Carrier`)."""

    def __init__(self, api: LeptonApi, there: Mapping[str, str]) -> None:
        self._api, self._there = api, there

    def begin(self, mover: Mover) -> str:
        return self._there.get(mover.name) or self._api._created(mover.body["job"])

    def ended(self, job_id: str) -> bool | None:
        job = self._api._by_id(job_id)
        return False if job is None else {"Completed": True, "Failed": False, "Stopped": False, "Deleted": False}.get(_word(job))

    def remove(self, job_id: str) -> None:
        with suppress(RefusedError):
            self._api._read(lambda client: client.job.delete(job_id), none_for_404=True)


class _NotThereError(Exception):
    """404."""


class _TakenError(Exception):
    """409."""


_VARIABLES = 'eval "$(printf %s "$DISPATCH_ENVIRONMENT" | base64 -d)"; unset DISPATCH_ENVIRONMENT'
# What torchrun is given by NeMo-Run: it fetches a script that sets the same from the same. One node needs no name that has to be resolved.
_RENDEZVOUS = {
    False: "export MASTER_ADDR=127.0.0.1 MASTER_PORT=29400 NNODES=1 NODE_RANK=0",
    True: """\
export MASTER_ADDR="$LEPTON_JOB_WORKER_PREFIX-0.$LEPTON_SUBDOMAIN" MASTER_PORT=29400
export NNODES="$LEPTON_JOB_TOTAL_WORKERS" NODE_RANK="$LEPTON_JOB_WORKER_INDEX\"""",
}


def _said(status: int, text: str) -> Exception:
    """An answer that is an error → ours."""
    import json

    try:
        given = json.loads(text)
        words = str(given.get("message") or given.get("error") or text) if isinstance(given, dict) else text
    except ValueError:
        words = text
    words = f"{words.strip()[:400]} ({status})"
    if status in (401, 403):
        return ApiError("cloud.credentials", f"Lepton does not allow it: {words}")
    if status == 404:
        return _NotThereError(words)
    if status == 409:
        return _TakenError(words)
    return ApiError("cloud.failed", words) if status in _PASSING or status >= 500 else RefusedError(words)


def _word(job: Any) -> str:
    """A job's state in Lepton's words, and more exactly: archived says nothing about how it ended, running may mean one of several."""
    status = job.status
    if status is None or status.state is None:
        return "Unknown"
    word = str(status.state.value)
    if word == "Running" and (status.ready or 0) < (status.active or 0):
        return "Starting"
    if word == "Archived":
        if job.spec.stopped:
            return "Stopped"
        if status.failed:
            return "Failed"
        return "Completed" if (status.succeeded or 0) >= (job.spec.completions or 1) else "Archived"
    return word


def _state(job_id: str, job: Any) -> JobView:
    started, ended = _seconds(job.status and job.status.creation_time), _seconds(job.status and job.status.completion_time)
    return JobView(job_id, _word(job), None, "", started, ended)


def _seconds(value: int | None) -> float | None:
    """The API has both seconds and milliseconds."""
    return None if not value else value / 1000 if value > 1e11 else float(value)


def _rank(replica: str) -> int:
    """`NAME-INDEX-abcde` → the index."""
    found = re.search(r"-([0-9]+)-[a-z0-9]+$", replica)
    return int(found[1]) if found else 0


def _secret(name: str) -> str:
    return name.upper().replace("-", "_")


def _mounts(mounts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    named = [{("from" if key == "from_" else key): value for key, value in mount.items()} for mount in mounts]
    return [{key: value for key, value in mount.items() if value is not None} for mount in named]


def _plain(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _lines(given: Any) -> list[tuple[int, str]]:
    """Lines of the log store, each with its moment in nanoseconds."""
    return [(int(value[0]), str(value[1])) for stream in given["data"]["result"] for value in stream["values"]]
