"""DGX Cloud Lepton through leptonai's real client in the real process, against a workspace of our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.clouds import LeptonProfile
from dispatcher.effects.cloud_process import CloudProcess
from dispatcher.errors import CloudError
from dispatcher.launch import results_in
from dispatcher.ports import NotLaunched
from dispatcher.recipe import Recipe
from dispatcher.slurm import State
from tests.fakes import plan_on
from tests.integration.apijobs import SAYS, Place
from tests.integration.clusters import environment
from tests.lepton_server import TOKEN, WORKSPACE, LeptonServer

FIELDS: dict[str, Any] = {
    "container_image": "nvcr.io/nvidia/nemo:25.04",
    "resource_shape": "gpu.8xh100-80gb",
    "node_group": "h100",
    "nemo_run_dir": "/mnt/nemo",
    "mounts": [{"path": "/team", "mount_path": "/mnt", "from": "node-nfs:shared"}],
    "secret_vars": {"HF_TOKEN": "hf"},
    "time": "00:01:00",
    "tunnel": "local",
    "job_dir": "/jobs",
}


MORE = {"log": {"enable_collection": True}}


def at(server: LeptonServer, folder: Path, recipe: Recipe | None = None, **fields: Any) -> Place:
    return Place(LeptonProfile.model_validate({**FIELDS, **fields}), folder, server.environment, recipe)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeptonServer]:
    with LeptonServer(tmp_path_factory.mktemp("lepton")) as server:
        yield server


@pytest.fixture
def server(running: LeptonServer) -> Iterator[LeptonServer]:
    yield running
    assert running.violations == []
    running.reset()


@pytest.fixture(scope="module")
def process(running: LeptonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Importing leptonai takes seconds: once for all that have nothing special."""
    place = at(running, tmp_path_factory.mktemp("code"), workspace=WORKSPACE)
    yield place
    place.cloud.close()


@pytest.fixture
def place(server: LeptonServer, process: Place) -> Place:
    return process


def test_from_the_launch_to_the_results(place: Place, server: LeptonServer) -> None:
    job_id = place.launched()
    assert place.launched() == job_id, "there is one of this name"
    assert place.cloud.find(place.plan.run_key) == job_id == f"dispatch-{place.plan.run_key}"
    secret = f"DISPATCH_{place.plan.run_key.upper()}"
    assert secret in server.secrets
    assert SAYS not in str(server.asked("POST", "/jobs")), "variables are no part of the description"
    assert place.end(job_id) is State.SUCCEEDED
    log = place.cloud.log(job_id)
    assert f"says {SAYS} ['a b', '$c']" in log.decode()
    assert results_in(log) == b'{"loss": 1.5}'
    server.gone = True
    assert results_in(place.cloud.log(job_id)) == b'{"loss": 1.5}', "from the log store"
    place.cloud.forget(job_id)
    assert (server.jobs, list(server.secrets)) == ({}, ["hf"])
    assert place.cloud.look([job_id]).jobs == ()
    assert place.cloud.log(job_id) == b""
    place.cloud.forget(job_id)


def test_several_nodes_and_code_that_does_not_fit_into_a_request(server: LeptonServer, tmp_path: Path) -> None:
    server.suffix = "-x1y2"  # an API may make another id of what it is given
    place = at(
        server,
        tmp_path,
        nodes=2,
        gpus_per_node=8,
        queue_priority="high-7000",
        can_be_preempted=True,
        custom_spec={"log": {"enable_collection": True}},
    )
    job_id = place.launched(noise=200_000)
    assert job_id.endswith("-x1y2")
    assert place.launched(noise=200_000) == job_id
    assert place.end(job_id) is State.SUCCEEDED
    log = place.cloud.log(job_id).decode()
    assert log.index("-1-a1b2c") < log.index("-0-a1b2c"), "results are what is said last"
    assert results_in(log.encode()) == b'{"loss": 1.5}'
    movers = [request for request in server.asked("POST", "/jobs$") if request.body["spec"]["resource_shape"] == "cpu.small"]
    assert len(movers) == 3
    [job] = server.jobs.values()
    spec = job.body["spec"]
    assert (spec["completions"], spec["parallelism"], spec["max_failure_retry"]) == (2, 2, 0)
    assert spec["queue_config"] == {"priority_class": "high-7000", "can_be_preempted": True}
    assert spec["affinity"] == {"allowed_dedicated_node_groups": ["group-1"]}
    assert spec["log"] == MORE["log"]
    torchrun = plan_on(place.profile, Recipe(script="train.py", launcher="torchrun"))
    server.requests.clear()
    script = place.cloud.render(torchrun.for_compiler()).script
    where = "--node-rank $NODE_RANK --master-addr $MASTER_ADDR --master-port $MASTER_PORT"
    assert f"\ntorchrun --nnodes 2 --nproc-per-node 8 {where} train.py\n" in script
    assert 'export MASTER_ADDR="$LEPTON_JOB_WORKER_PREFIX-0.$LEPTON_SUBDOMAIN" MASTER_PORT=29400\n' in script
    assert "wget" not in script
    assert server.requests == []
    place.cloud.close()


def test_what_does_not_fit_anywhere(server: LeptonServer, place: Place, tmp_path: Path) -> None:
    server.group_name = "a100"
    assert "no node group h100; it has a100" in place.refused()
    server.group_name = "h100"
    assert "8 MB: pack less" in place.refused(noise=9 << 20)
    without = at(server, tmp_path, nemo_run_dir=None)
    assert "give `nemo_run_dir`" in without.refused(noise=200_000)
    without.cloud.close()
    assert (server.jobs, list(server.secrets)) == ({}, ["hf"])


def test_cancelled_and_failed(place: Place, server: LeptonServer) -> None:
    job_id = place.launched(PAUSE="60")
    assert place.state(job_id) is State.RUNNING
    assert place.cloud.cancel(job_id) == ""
    assert place.state(job_id) is State.CANCELLED
    assert place.cloud.cancel(job_id) == ""
    assert len(server.asked("PATCH", "/jobs/")) == 1
    place.cloud.forget(job_id)
    job_id = place.launched(EXIT="3")
    assert place.end(job_id) is State.FAILED


@pytest.mark.parametrize(
    ("state", "fields", "meant"),
    [("Archived", {}, State.UNKNOWN), ("Queueing", {}, State.PENDING), ("Stopping", {}, State.RUNNING), ("NewWord", {}, State.UNKNOWN)],
)
def test_words(place: Place, server: LeptonServer, state: str, fields: dict[str, Any], meant: State) -> None:
    job_id = place.launched(PAUSE="60")
    server.jobs[job_id].state = state
    assert place.state(job_id) is meant
    if state == "Archived":
        server.jobs[job_id].stop("Archived")
        server.jobs[job_id].state = "Archived"
        assert place.state(job_id) is State.FAILED


@pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        ({"path": "/jobs$", "status": 401, "body": {"message": "token expired"}}, "cloud.credentials", "token expired"),
        ({"path": "/jobs$", "status": 403}, "cloud.credentials", "(403)"),
        ({"path": "/jobs$", "status": 404}, "cloud.failed", "nothing at this address"),
        ({"path": "/jobs$", "status": 500, "body": {"message": "database"}}, "cloud.failed", "database"),
        ({"path": "/jobs$", "reset": True}, "cloud.unreachable", "does not answer"),
        ({"path": "/jobs$", "status": 200, "body": "<html>proxy</html>"}, "cloud.failed", "not JSON"),
    ],
)
def test_an_api_in_trouble(place: Place, server: LeptonServer, trouble: dict[str, Any], code: str, words: str) -> None:
    server.trouble("*", times=99, **trouble)
    with pytest.raises(CloudError) as raised:
        place.cloud.find(place.plan.run_key)
    assert (raised.value.code, words in raised.value.cause) == (code, True), raised.value.cause
    assert TOKEN not in raised.value.cause


@pytest.mark.parametrize("fields", [{"status": 502}, {"reset": True}])
def test_an_answer_that_is_lost_starts_nothing_twice(place: Place, server: LeptonServer, fields: dict[str, Any]) -> None:
    server.trouble("GET", "/jobs", 503, times=2)
    server.trouble("POST", "/jobs", after_effect=True, **fields)
    assert place.launched() in server.jobs
    assert len(server.jobs) == 1
    server.trouble("GET", "/jobs/", 503, times=9)
    assert place.cloud.look(["dispatch-0000000000000000"]).silent, "who cannot be asked about is not gone"


def test_a_request_that_the_api_refuses(place: Place, server: LeptonServer) -> None:
    server.trouble("POST", "/jobs$", 400, body={"message": "no such shape"})
    assert place.launch() == NotLaunched("no such shape (400)")
    assert (server.jobs, list(server.secrets)) == ({}, ["hf"])
    # A secret that a launch left behind that died is replaced.
    server.secrets[f"DISPATCH_{place.plan.run_key.upper()}"] = "old"
    assert place.end(place.launched()) is State.SUCCEEDED


def test_credentials(place: Place, server: LeptonServer) -> None:
    assert [status for _, status, _ in place.cloud.probe()] == [0, 0]
    without = {name: value for name, value in server.environment.items() if name != "LEPTON_WORKSPACE_TOKEN"}
    cloud = CloudProcess(place.profile, {**environment(HOME=str(server.folder)), **without})
    with pytest.raises(CloudError) as raised:
        cloud.find(place.plan.run_key)
    cloud.close()
    assert raised.value.code == "cloud.credentials"
    assert "LEPTON_WORKSPACE_TOKEN is not set" in raised.value.cause
