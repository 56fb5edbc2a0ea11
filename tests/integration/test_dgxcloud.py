"""DGX Cloud through the real process against a Run:ai of our own: exactly once, code, logs, results, cancel, an API in trouble."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.clouds import DgxCloudProfile
from dispatcher.effects.cloud_process import CloudProcess
from dispatcher.errors import CloudError
from dispatcher.launch import results_in
from dispatcher.ports import Launched, NotLaunched
from dispatcher.slurm import State
from tests.dgx_server import CLIENT, DgxServer
from tests.integration.apijobs import SAYS, Place
from tests.integration.clusters import environment

CREDENTIALS = {"DGXCLOUD_CLIENT_ID": CLIENT[0], "DGXCLOUD_CLIENT_SECRET": CLIENT[1]}


def profile_of(server: DgxServer, **fields: Any) -> DgxCloudProfile:
    return DgxCloudProfile.model_validate(
        {
            "base_url": server.api_url,
            "kube_apiserver_url": server.kube_url,
            "project_name": server.project,
            "container_image": "nvcr.io/nvidia/nemo:25.04",
            "pvc_nemo_run_dir": "/workspace/nemo",
            "pvcs": [{"name": "w", "path": "/workspace", "existingPvc": True, "claimName": "w"}],
            "time": "00:01:00",
            "tunnel": "local",
            "job_dir": "/jobs",
            **fields,
        }
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DgxServer]:
    with DgxServer(tmp_path_factory.mktemp("runai")) as server:
        yield server


@pytest.fixture
def server(running: DgxServer) -> Iterator[DgxServer]:
    yield running
    assert running.violations == []
    running.reset()


def at(server: DgxServer, folder: Path, **fields: Any) -> Place:
    return Place(profile_of(server, **fields), folder, CREDENTIALS)


@pytest.fixture(scope="module")
def process(running: DgxServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Starting Python and importing NeMo-Run takes a second: once for all that have nothing special."""
    place = at(running, tmp_path_factory.mktemp("code"))
    yield place
    place.cloud.close()


@pytest.fixture
def place(server: DgxServer, process: Place) -> Place:
    return process


def test_from_the_launch_to_the_results(place: Place, server: DgxServer) -> None:
    launched = Launched(place.launched())
    assert place.launch() == launched, "there is one of this name"
    assert place.cloud.find(place.plan.run_key) == launched.job_id
    assert place.end(launched.job_id) is State.SUCCEEDED
    log = place.cloud.log(launched.job_id)
    assert f"rank 0 of 1 says {SAYS} ['a b', '$c']" in log.decode()
    assert results_in(log) == b'{"loss": 1.5}'
    [workload] = server.workloads.values()
    assert (workload.kind, workload.body["name"]) == ("trainings", f"dispatch-{place.plan.run_key}")
    assert workload.body["useGivenNameAsPrefix"] is False
    assert len(server.asked("POST", "/token")) <= 1
    assert len(server.asked("POST", "/workloads/")) == 1
    place.cloud.forget(launched.job_id)
    assert server.workloads == {}
    assert place.cloud.look([launched.job_id]).jobs == ()
    assert place.cloud.find(place.plan.run_key) is None
    place.cloud.forget(launched.job_id)


def test_several_nodes_and_code_that_does_not_fit_into_a_request(server: DgxServer, tmp_path: Path) -> None:
    place = at(server, tmp_path, nodes=2, gpus_per_node=4, custom_spec={"nodePools": ["h100"], "compute": {"cpuCoreRequest": 2}})
    with_code = place.launch(noise=40_000)
    assert isinstance(with_code, Launched), with_code
    assert place.end(with_code.job_id) is State.SUCCEEDED
    log = place.cloud.log(with_code.job_id).decode()
    assert "rank 1 of 2" in log
    assert log.index("rank 1 of 2") < log.index("rank 0 of 2"), "results are what is said last"
    assert results_in(log.encode()) == b'{"loss": 1.5}'
    [workload] = server.workloads.values()
    spec = workload.body["spec"]
    assert (workload.kind, spec["numWorkers"], spec["minReplicas"]) == ("distributed", 2, 2)
    assert spec["compute"] == {"gpuDevicesRequest": 4, "largeShmRequest": True, "cpuCoreRequest": 2}
    movers = server.asked("POST", "/workloads/workspaces")
    assert len(movers) == 6
    assert len(server.asked("DELETE", "/workloads/workspaces/")) == 6
    assert all(len(request.body["spec"]["args"]) <= 9_500 for request in [*movers, *server.asked("POST", "/workloads/distributed")])
    place.cloud.close()


def test_a_launch_that_was_cut_goes_on_with_its_movers(place: Place, server: DgxServer) -> None:
    server.trouble("GET", "/workloads/workspaces/", 403, times=99)
    with pytest.raises(CloudError) as raised:
        place.launch(noise=20_000)
    assert raised.value.code == "cloud.credentials"
    moved = len(server.asked("POST", "/workloads/workspaces"))
    assert moved == 3
    server.troubles.clear()
    server.trouble("POST", "/workloads/trainings", 503, times=2)
    with pytest.raises(CloudError):
        place.launch(noise=20_000)
    assert len(server.asked("POST", "/workloads/workspaces")) == moved, "they were found by their names"
    assert server.workloads == {}
    assert isinstance(place.launch(noise=20_000), Launched)


def test_too_much_code_is_refused_before_anything_is_moved(place: Place, server: DgxServer) -> None:
    refused = place.launch(noise=1_200_000)
    assert isinstance(refused, NotLaunched)
    assert "1.1 MB of packed code are too much" in refused.words
    assert server.workloads == {}


def test_cancelled(place: Place, server: DgxServer) -> None:
    launched = place.launch(PAUSE="60")
    assert place.state(launched.job_id) is State.RUNNING
    assert place.cloud.cancel(launched.job_id) == ""
    assert place.state(launched.job_id) is State.CANCELLED
    assert place.cloud.cancel(launched.job_id) == ""
    assert len(server.asked("POST", "/trainings/.*/suspend")) == 1
    place.cloud.forget(launched.job_id)
    assert server.workloads == {}


def test_failed_and_too_long(server: DgxServer, tmp_path: Path) -> None:
    place = at(server, tmp_path, time="00:00:01")
    launched = place.launch(PAUSE="60")
    assert place.end(launched.job_id) is State.FAILED
    place.cloud.forget(launched.job_id)
    place.cloud.close()


def test_the_token_expires(place: Place, server: DgxServer) -> None:
    launched = place.launch()
    server.requests.clear()
    server.expire()
    assert place.end(launched.job_id) is State.SUCCEEDED
    assert len(server.asked("POST", "/token")) == 1


@pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        ({"path": "/token$", "status": 401, "body": {"code": 401, "message": "no such client"}}, "cloud.credentials", "no such client"),
        ({"path": "/workloads$", "status": 401}, "cloud.credentials", "not allowed (401)"),
        ({"path": "/workloads$", "status": 403, "body": {"message": "no right"}}, "cloud.credentials", "no right"),
        ({"path": "/workloads$", "status": 404}, "cloud.failed", "is `base_url` written"),
        ({"path": "/workloads$", "status": 302}, "cloud.failed", "leads somewhere else"),
        ({"path": "/workloads$", "status": 500, "body": {"message": "database"}}, "cloud.failed", "database"),
        ({"path": "/workloads$", "status": 200, "body": "<html>proxy</html>"}, "cloud.failed", "not JSON"),
        ({"path": "/workloads$", "reset": True}, "cloud.unreachable", "does not answer"),
    ],
)
def test_an_api_in_trouble(place: Place, server: DgxServer, trouble: dict[str, Any], code: str, words: str) -> None:
    server.expire()
    server.trouble("*", times=99, **trouble)
    with pytest.raises(CloudError) as raised:
        place.cloud.find(place.plan.run_key)
    assert (raised.value.code, words in raised.value.cause) == (code, True), raised.value.cause
    assert CLIENT[1] not in raised.value.cause


def test_trouble_that_passes(place: Place, server: DgxServer) -> None:
    server.trouble("GET", "/projects", 500, times=2)
    server.trouble("GET", "/workloads$", reset=True, times=1)
    server.trouble("GET", "/workloads$", 429, times=1)
    place.launched()
    server.trouble("GET", "/trainings/", 503, times=9)
    assert place.cloud.look(["11111111-2222-3333-4444-555555555555"]).silent, "who cannot be asked about is not gone"


@pytest.mark.parametrize("fields", [{"status": 502}, {"reset": True}])
def test_an_answer_that_is_lost_starts_nothing_twice(place: Place, server: DgxServer, fields: dict[str, Any]) -> None:
    server.trouble("POST", "/workloads/trainings", after_effect=True, **fields)
    launched = Launched(place.launched())
    assert list(server.workloads) == [launched.job_id]
    assert len(server.asked("POST", "/workloads/trainings")) == 1


def test_a_request_that_the_api_refuses(place: Place, server: DgxServer, tmp_path: Path) -> None:
    server.trouble("POST", "/workloads/trainings", 400, body={"code": 400, "message": "quota exceeded"})
    assert place.launch() == NotLaunched("quota exceeded (400)")
    server.logs_allowed = False
    refused = place.launch()
    assert isinstance(refused, NotLaunched)
    assert "may not read the logs of pods" in refused.words
    server.logs_allowed = True
    elsewhere = at(server, tmp_path, project_name="team-a-othe")
    refused = elsewhere.launch()
    assert isinstance(refused, NotLaunched)
    assert "sees no project team-a-othe" in refused.words
    elsewhere.cloud.close()
    server.projects.append((server.project, "22222222-2222-2222-2222-222222222222"))
    twice = at(server, tmp_path)
    refused = twice.launch()
    assert isinstance(refused, NotLaunched)
    assert "say which with `cluster_id`" in refused.words
    assert ("project", 1) in [(name, status) for name, status, _ in twice.cloud.probe()]
    twice.cloud.close()
    assert server.workloads == {}


def test_a_runner_that_mounts_the_storage(server: DgxServer, tmp_path: Path) -> None:
    storage = server.folder / "pvc" / str(tmp_path).strip("/") / "mounted"
    mounted = tmp_path / "mounted"
    storage.parent.mkdir(parents=True)
    mounted.mkdir()
    storage.symlink_to(mounted)
    pvcs = [{"path": str(mounted)}]
    place = at(server, tmp_path, launched_from_cluster=True, kube_apiserver_url=None, pvc_nemo_run_dir=f"{mounted}/nemo", pvcs=pvcs)
    launched = place.launch(noise=40_000)
    assert isinstance(launched, Launched), launched
    assert place.end(launched.job_id) is State.SUCCEEDED
    assert results_in(place.cloud.log(launched.job_id)) == b'{"loss": 1.5}'
    assert server.asked("POST", "/workspaces") == []
    place.cloud.close()


def test_without_logs_the_workload_stays_where_its_log_is(server: DgxServer, tmp_path: Path) -> None:
    place = at(server, tmp_path, kube_apiserver_url=None)
    launched = place.launch()
    assert place.end(launched.job_id) is State.SUCCEEDED
    assert place.cloud.log(launched.job_id) == b""
    place.cloud.forget(launched.job_id)
    assert launched.job_id in server.workloads
    place.cloud.close()


def test_a_mover_that_fails(place: Place, server: DgxServer) -> None:
    blocked = server.folder / "pvc/workspace/nemo/dispatch/packages"
    blocked.rename(blocked.with_name("away"))
    blocked.write_text("a file where a folder should be")
    with pytest.raises(CloudError) as raised:
        place.launch(noise=30_000)
    assert "of the code could not be laid on the storage" in raised.value.cause
    blocked.unlink()
    blocked.with_name("away").rename(blocked)
    assert isinstance(place.launch(noise=30_000), Launched)


def test_the_preview_asks_nobody_and_has_no_secret(place: Place, server: DgxServer) -> None:
    compiled = place.cloud.render(place.plan.for_compiler())
    [file] = compiled.files
    assert file.path == "configs/trainings.yaml"
    assert "python3 train.py 'a b' '$c'" in compiled.script
    assert server.requests == []
    missing = CloudProcess(place.profile, environment())
    with pytest.raises(CloudError) as raised:
        missing.find(place.plan.run_key)
    assert raised.value.code == "cloud.credentials"
    missing.close()
    assert [status for _, status, _ in place.cloud.probe()] == [0, 0, 0]
