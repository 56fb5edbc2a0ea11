"""Profiles of DGX Cloud and Lepton: what is refused and why, what the APIs' words mean, how code is packed for them."""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dispatcher.clouds import DgxCloudProfile, LeptonProfile
from dispatcher.clouds.freetable import laid_over
from dispatcher.cloudstates import observed
from dispatcher.effects.clouds.parcel import laying, packed, unpacking
from dispatcher.errors import ConfigError
from dispatcher.grammar import Malformed, Override
from dispatcher.ports import JobView
from dispatcher.profile import ResolvedProfile, resolve_profile
from dispatcher.runprofile import apply_overrides
from dispatcher.slurm import State

DGX = """\
executor: dgxcloud
base_url: https://example.run.ai/api/v1
project_name: team-a
container_image: nvcr.io/nvidia/nemo:25.04
pvc_nemo_run_dir: /workspace/nemo
pvcs: [{path: /workspace, existingPvc: true, claimName: w}]
"""
LEPTON = """\
executor: lepton
container_image: nvcr.io/nvidia/nemo:25.04
resource_shape: gpu.8xh100-80gb
node_group: h100
"""


def resolved(text: str) -> Any:
    found = resolve_profile("c", {"profiles/c.yaml": text}, (), {})
    assert isinstance(found, ResolvedProfile)
    return found.profile


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"{DGX}client_secret: x\n",
            "`client_secret` is not read: the application's secret comes from the environment, `DGXCLOUD_CLIENT_SECRET`",
        ),
        (f"{DGX}MAX_ARGS_CHARS: 9\n", "`MAX_ARGS_CHARS` is not read: the API's own limit holds"),
        (DGX.replace("https://", "http://"), "`base_url` is not an address such as"),
        (f"{DGX}kube_apiserver_url: https://k8s.example.com/?x=$(id)\n", "`kube_apiserver_url` is not an address such as"),
        (DGX.replace("/workspace/nemo", "/elsewhere"), "`pvc_nemo_run_dir` is on none of `pvcs` that can be written to"),
        (DGX.replace("existingPvc", "existingPVC"), "`pvcs.0.existingPVC` is not a key here; did you mean `existingPvc`?"),
        (DGX.replace("existingPvc", "readOnly"), "`pvc_nemo_run_dir` is on none of `pvcs`"),
        (f"{DGX}custom_spec: {{args: x}}\n", "`args` cannot stand here: the recipe says what runs"),
        (f"{DGX}custom_spec: {{numWorkers: 3}}\n", "`numWorkers` cannot stand here: `nodes` says it"),
        (f"{DGX}custom_spec: {{a: {'[' * 9}{']' * 9}}}\n", "`custom_spec` is deeper than 8 tables"),
        (f"{DGX}custom_spec: {{a: {'x' * 17000}}}\n", "`custom_spec` is longer than 16,384 characters"),
        (f"{LEPTON}ray_version: '2'\n", "`ray_version` is not read: there are no Ray clusters here"),
        (f"{LEPTON}nemo_run_dir: /mnt/x\n", "`nemo_run_dir` is on none of `mounts`"),
        (f"{LEPTON}mounts: [{{path: /a, mount_path: /b}}]\n", "`mounts.0.from` is missing"),
        (f"{LEPTON}secret_vars: {{'A B': x}}\n", "is not an environment variable's name"),
        (f"{LEPTON}custom_spec: {{envs: []}}\n", "`envs` cannot stand here: variables come from"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        resolved(text)
    assert words in raised.value.cause


def test_free_tables_are_json() -> None:
    profile = resolved(
        f"{DGX}nprocs_per_node: 4\ncustom_spec: {{compute: {{gpuPortionRequest: 0.5, cpuCoreRequest: 2}}, nodePools: [a]}}\n"
    )
    assert profile.custom_spec == {"compute": {"gpuPortionRequest": 0.5, "cpuCoreRequest": 2}, "nodePools": ["a"]}
    assert profile.nproc_per_node == 4
    assert apply_overrides(profile, [Override("run.nodes", "2")]).nodes == 2  # type: ignore[union-attr]
    merged = laid_over({"a": {"b": 1, "l": [1]}, "c": 1}, {"a": {"l": [2], "d": 2}, "c": {"e": 3}})
    assert merged == {"a": {"b": 1, "l": [1, 2], "d": 2}, "c": {"e": 3}}


def test_mounts_survive_an_override() -> None:
    profile = resolved(f"{LEPTON}nemo_run_dir: /mnt/x\nmounts: [{{path: /a, mount_path: /mnt, from: 'node-nfs:shared'}}]\n")
    assert apply_overrides(profile, [Override("run.nodes", "2")]).mounts == profile.mounts  # type: ignore[union-attr]


@pytest.mark.parametrize("field", sorted(DgxCloudProfile.FIXED | LeptonProfile.FIXED))
def test_where_credentials_go_is_no_choice_of_a_commenter(field: str) -> None:
    model, text = (DgxCloudProfile, DGX) if field in DgxCloudProfile.FIXED else (LeptonProfile, LEPTON)
    assert field in model.model_fields
    answer = apply_overrides(resolved(text), [Override(f"run.{field}", "https://evil.example.com")])
    assert isinstance(answer, Malformed)
    assert answer.reason_code == "not-here"


def test_places_and_logs() -> None:
    assert resolved(DGX).place == ("https://example.run.ai/api/v1", "team-a")
    assert resolved(LEPTON).place == ("",)
    assert resolved(f"{LEPTON}workspace: w\n").address == "lepton · w"
    assert not resolved(DGX).returns_log
    assert resolved(f"{DGX}launched_from_cluster: true\n").returns_log
    assert resolved(f"{DGX}kube_apiserver_url: https://k8s.example.com:6443\n").returns_log
    assert resolved(LEPTON).returns_log


@pytest.mark.parametrize(
    ("executor", "word", "state"),
    [
        *(("dgxcloud", word, State.PENDING) for word in ("Creating", "Initializing", "Resuming", "Pending")),
        *(("dgxcloud", word, State.RUNNING) for word in ("Running", "Updating", "Degraded", "Stopping", "Terminating", "Deleting")),
        ("dgxcloud", "Stopped", State.CANCELLED),
        ("dgxcloud", "Failed", State.FAILED),
        ("dgxcloud", "Completed", State.SUCCEEDED),
        ("dgxcloud", "Unknown", State.UNKNOWN),
        ("dgxcloud", "exited", State.UNKNOWN),
        *(("lepton", word, State.PENDING) for word in ("Starting", "Queueing", "Awaiting", "PendingRetry", "Restarting")),
        *(("lepton", word, State.RUNNING) for word in ("Running", "Stopping", "Deleting")),
        ("lepton", "Stopped", State.CANCELLED),
        ("lepton", "Failed", State.FAILED),
        ("lepton", "Completed", State.SUCCEEDED),
        ("lepton", "Archived", State.UNKNOWN),
        ("lepton", "UNK", State.UNKNOWN),
    ],
)
def test_words(executor: str, word: str, state: State) -> None:
    assert observed(executor, JobView("1", word)).state is state


def archive(folder: Path, size: int) -> Path:
    path = folder / "code.tar.gz"
    with gzip.open(path, "wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        info = tarfile.TarInfo("data")
        info.size = size
        tar.addfile(info, io.BytesIO(bytes(range(256)) * (size // 256)))
    return path


def test_a_parcel(tmp_path: Path) -> None:
    parcel = packed("echo 'a'\n", archive(tmp_path, 4096))
    assert gzip.decompress(base64.b64decode(parcel.script)) == b"echo 'a'\n"
    assert packed("other\n", archive(tmp_path, 4096)).digest == parcel.digest
    pieces = parcel.pieces(102)
    assert all(len(piece) <= 100 for piece in pieces)
    assert b"".join(map(base64.b64decode, pieces)) == base64.b64decode(parcel.code)
    for line in (
        unpacking(parcel),
        unpacking(parcel, "/mnt/x/"),
        unpacking(parcel, "/mnt/x", "/mnt/log"),
        laying(parcel, "/mnt/x", 3, "AAAA"),
    ):
        assert "'" not in line, "it stands in single quotes"
        assert "\n" not in line
        assert "$(" not in line, "Kubernetes would put a variable in"
    assert packed("x", None).pieces(100) == []
    assert "tar" not in unpacking(packed("x", None))
