"""DGX Cloud Lepton: a batch job of a workspace, named after the run, through leptonai's own client.

NeMo-Run lets a script that it fetches from a public address, unpinned, set what torchrun needs; moves code in one argument of at most
128 KB; takes an archived job for a success; and cancels by deleting, which leaves nothing to look at. Its job's description is right and is
kept: https://github.com/NVIDIA-NeMo/Run/blob/v0.11.1/nemo_run/core/execution/lepton.py. What a job finds in its environment:
https://docs.nvidia.com/dgx-cloud/lepton/features/batch-jobs/predefined-env-vars.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dispatcher.clouds.freetable import laid_over
from dispatcher.effects.clouds.api import ApiError, RefusedError, Rendered, name_of
from dispatcher.effects.clouds.lepton_workspace import LeptonWorkspace, secret_name, state, word
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
REPLICAS = 8
KEPT_SECONDS = 7 * 24 * 3600
"""How long the API keeps an ended job: a look may come late. It is deleted as soon as its end has been reported."""


class LeptonApi:
    """One workspace. Raises `ApiError` and, from `launch`, `RefusedError`."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self._profile = profile
        self._workspace = LeptonWorkspace(profile)

    def render(self, job: Mapping[str, Any], work: Path) -> Rendered:
        """The script, and the job as YAML, without its variables and its packed files."""
        import yaml

        script = self._script(job, work)
        spec = self._job(job, "(the script and the code, packed)", self._profile["node_group"])
        return Rendered(script, {"configs/job.yaml": yaml.safe_dump(_plain(spec), sort_keys=False)})

    def launch(self, job: Mapping[str, Any], code: Path | None, environment: Mapping[str, str], work: Path) -> str:
        """Moves the code where it is needed, stores the variables as a secret, then creates the job, unless there is one of this name."""
        name = name_of(str(job["run_key"]))
        existing = self._workspace.named(name)
        if existing is not None:
            return existing
        parcel = packed(self._script(job, work), code)
        group = self._workspace.node_group()
        line = self._opening(parcel, group)
        self._workspace.keep_variables(name, environment)
        try:
            return self._workspace.created(self._job(job, line, group))
        except RefusedError:
            self._workspace.drop_variables(name)
            raise

    def find(self, run_key: str) -> str | None:
        """By its name, archived ones too."""
        return self._workspace.named(name_of(run_key))

    def look(self, job_ids: Sequence[str]) -> list[JobView]:
        """One list of all our jobs; who is not in it is asked for by id, because absence has to be certain."""
        listed = {str(job.metadata.id_): job for job in self._workspace.listed("dispatch-")}
        found: list[JobView] = []
        for job_id in job_ids:
            job = listed.get(job_id) or self._workspace.by_id(job_id)
            if job is not None and word(job) != "Deleted":
                found.append(state(job_id, job))
        return found

    def log(self, job_id: str) -> str:
        """What the replicas print or printed, that of rank 0 last; from the workspace's log store when they are gone."""
        job = self._workspace.by_id(job_id)
        if job is None:
            return ""
        replicas = self._workspace.read(lambda client: client.job.get_replicas(job_id), none_for_404=True) or []
        names = sorted((str(replica.metadata.id_) for replica in replicas), key=_rank)[:REPLICAS]
        parts = [(name, self._workspace.live(job_id, name)) for name in names]
        if not parts or any(text is None for _, text in parts):
            return self._workspace.stored(job_id, job)
        texts = [(name, text or "") for name, text in parts]
        return texts[0][1] if len(texts) == 1 else "".join(f"== {name} ==\n{text.rstrip()}\n" for name, text in reversed(texts))

    def cancel(self, job_id: str) -> str:
        """Stops it, so that its end can still be seen; `forget` deletes it."""
        job = self._workspace.by_id(job_id)
        if job is None or word(job) in ("Completed", "Failed", "Stopped", "Archived", "Deleted"):
            return ""
        try:
            self._workspace.read(lambda client: client.job.update(job_id, spec={"spec": {"stopped": True}}), none_for_404=True)
        except RefusedError as refused:
            return str(refused)
        return ""

    def forget(self, job_id: str) -> None:
        """Deletes the job and the secret with its variables."""
        job = self._workspace.by_id(job_id)
        try:
            self._workspace.read(lambda client: client.job.delete(job_id), none_for_404=True)
        except RefusedError as refused:
            raise ApiError("cloud.failed", str(refused)) from None
        self._workspace.drop_variables(str((job.metadata.name if job else None) or job_id))

    def probe(self) -> list[tuple[str, int, str]]:
        """The workspace and the node group."""
        with self._workspace.calls() as client:
            found = [("workspace", 0, f"{client.workspace_id} at {client.url}")]
        try:
            group = self._workspace.node_group()
        except RefusedError as refused:
            return [*found, ("node group", 1, str(refused))]
        return [*found, ("node group", 0, f"{self._profile['node_group']} ({group})")]

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
        envs: list[dict[str, Any]] = [{"name": "DISPATCH_ENVIRONMENT", "value_from": {"secret_name_ref": secret_name(name)}}]
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
        there = {str(job.metadata.name): str(job.metadata.id_) for job in self._workspace.listed(f"dispatch-{parcel.digest[:16]}-")}
        move([mover(number, piece) for number, piece in enumerate(parcel.pieces(length))], _Movers(self._workspace, there))


class _Movers:
    """Movers as jobs (`movers.Carrier`)."""

    def __init__(self, workspace: LeptonWorkspace, there: Mapping[str, str]) -> None:
        self._workspace, self._there = workspace, there

    def begin(self, mover: Mover) -> str:
        return self._there.get(mover.name) or self._workspace.created(mover.body["job"])

    def ended(self, job_id: str) -> bool | None:
        job = self._workspace.by_id(job_id)
        return False if job is None else {"Completed": True, "Failed": False, "Stopped": False, "Deleted": False}.get(word(job))

    def remove(self, job_id: str) -> None:
        with suppress(RefusedError):
            self._workspace.read(lambda client: client.job.delete(job_id), none_for_404=True)


_VARIABLES = 'eval "$(printf %s "$DISPATCH_ENVIRONMENT" | base64 -d)"; unset DISPATCH_ENVIRONMENT'
# What torchrun is given by NeMo-Run: it fetches a script that sets the same from the same. One node needs no name that has to be resolved.
_RENDEZVOUS = {
    False: "export MASTER_ADDR=127.0.0.1 MASTER_PORT=29400 NNODES=1 NODE_RANK=0",
    True: """\
export MASTER_ADDR="$LEPTON_JOB_WORKER_PREFIX-0.$LEPTON_SUBDOMAIN" MASTER_PORT=29400
export NNODES="$LEPTON_JOB_TOTAL_WORKERS" NODE_RANK="$LEPTON_JOB_WORKER_INDEX\"""",
}


def _rank(replica: str) -> int:
    """`NAME-INDEX-abcde` → the index."""
    found = re.search(r"-([0-9]+)-[a-z0-9]+$", replica)
    return int(found[1]) if found else 0


def _mounts(mounts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    named = [{("from" if key == "from_" else key): value for key, value in mount.items()} for mount in mounts]
    return [{key: value for key, value in mount.items() if value is not None} for mount in named]


def _plain(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
