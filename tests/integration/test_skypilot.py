"""SkyPilot's executors against a double of its API server that reads and answers as SkyPilot does and runs the jobs, and a real dry run."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from dispatcher.clouds import CLOUDS
from dispatcher.cloudstates import CloudSightings
from dispatcher.effects.cloud_process import CloudProcess
from dispatcher.errors import CloudError
from dispatcher.jobplan import JobPlan
from dispatcher.launch import parse_environment, results_in
from dispatcher.ports import Launched, NotLaunched
from dispatcher.recipe import Recipe
from dispatcher.slurm import Absent, Observation, Silent, State
from tests.fakes import cloud_plan
from tests.rig.skypilot import SkyDouble, until

TRAIN = """
import json, os, sys, time
print(os.getcwd()[-5:], sys.argv[1:], os.environ["GREETING"], flush=True)
assert os.environ["TOKEN"] == "s3cret"
json.dump({"loss": 0.5}, open(os.environ["DISPATCH_RESULTS"], "w"))
"""
SLEEP = "import time\nprint('on it', flush=True)\ntime.sleep(60)\n"


def job_of(script: str = TRAIN, executor: str = "skypilot", attempt: int = 0, **fields: Any) -> JobPlan:
    profile = CLOUDS[executor].model_validate({"executor": executor, "env_vars": {"GREETING": "hello 'you' $x"}, **fields})
    recipe = Recipe.model_validate({"script": "train.py", "entrypoint": "python3", "args": ["a b", "$HOME"]})
    plan = replace(cloud_plan(recipe), profile=profile, profile_name="sky")
    return replace(plan, run_key=sha256(f"{script}{executor}{attempt}{fields}".encode()).hexdigest()[:16])


def archive_of(folder: Path, script: str) -> Path:
    path = folder / "code.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("train.py")
        info.size = len(script.encode())
        tar.addfile(info, io.BytesIO(script.encode()))
    return path


def cloud_for(double: SkyDouble, executor: str = "skypilot", **environment: str) -> CloudProcess:
    profile = CLOUDS[executor].model_validate({"executor": executor})
    return CloudProcess(profile, {**double.env, **environment}, str(double.python))


def sight_of(cloud: CloudProcess, job_id: str) -> Observation:
    sight = CloudSightings(cloud.look([job_id])).of(job_id)
    assert isinstance(sight, Observation), sight
    return sight


def ended(cloud: CloudProcess, job_id: str) -> Observation:
    until(lambda: sight_of(cloud, job_id).state.ended, 30)
    return sight_of(cloud, job_id)


def launch(cloud: CloudProcess, job: JobPlan, code: Path | None) -> str:
    answer = cloud.launch(job.for_compiler(), code, parse_environment(job.environment({"TOKEN": "s3cret"})))
    assert isinstance(answer, Launched), answer
    return answer.job_id


@pytest.fixture(scope="module")
def processes(sky_double: SkyDouble) -> Iterator[dict[str, CloudProcess]]:
    """One for each executor: importing SkyPilot and NeMo-Run takes longer than any test."""
    found = {executor: cloud_for(sky_double, executor) for executor in ("skypilot", "skypilot-jobs")}
    yield found
    for process in found.values():
        process.close()


@pytest.fixture(params=["skypilot", "skypilot-jobs"])
def either(request: pytest.FixtureRequest, processes: dict[str, CloudProcess]) -> CloudProcess:
    return processes[request.param]


@pytest.fixture
def cloud(processes: dict[str, CloudProcess]) -> CloudProcess:
    return processes["skypilot"]


@pytest.fixture(autouse=True)
def in_order(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "sky_double" in request.fixturenames:
        request.getfixturevalue("sky_double").tell(hold_launch=False, hold_answers=False, status=0, token="", no_resources=False)


def kind(cloud: CloudProcess) -> str:
    return cloud._profile.executor


def test_a_job_from_its_files_to_its_results(either: CloudProcess, sky_double: SkyDouble, tmp_path: Path) -> None:
    job = job_of(executor=kind(either), setup_lines=["echo set up"])
    name = f"dispatch-{job.run_key}"
    before = sky_double.tell()["launches"]
    assert either.find(job.run_key) is None
    assert launch(either, job, archive_of(tmp_path, TRAIN)) == name
    assert either.find(job.run_key) == name
    end = ended(either, name)
    assert (end.state, end.exit_code) == (State.SUCCEEDED, None)
    assert end.start is not None
    assert end.end is not None
    log = either.log(name)
    assert b"set up\n/code ['a b', '$HOME'] hello 'you' $x\n" in log
    assert results_in(log) == b'{"loss": 0.5}'
    assert launch(either, job, archive_of(tmp_path, TRAIN)) == name
    assert sky_double.tell()["launches"] == before + 1, "the same run again is the same job"
    cluster = sky_double.tell()["clusters"].get(name)
    if kind(either) == "skypilot":
        assert cluster == {"status": "UP", "down": [True, 60], "jobs": 1}, "it goes by itself, should nobody report its end"
    either.forget(name)
    assert name not in sky_double.tell()["clusters"]
    either.forget(name)
    if kind(either) == "skypilot":
        assert isinstance(CloudSightings(either.look([name])).of(name), Absent)
        assert either.find(job.run_key) == name, "a run that was there is not begun again"


def test_ends_and_who_ended_it(either: CloudProcess, tmp_path: Path) -> None:
    failing = "import sys\nsys.exit(3)\n"
    failed = ended(either, launch(either, job_of(failing, kind(either)), archive_of(tmp_path, failing)))
    assert (failed.state, failed.exit_code) == (State.FAILED, 3)
    slow = ended(either, launch(either, job_of(SLEEP, kind(either), time="00:00:01"), archive_of(tmp_path, SLEEP)))
    assert (slow.state, slow.exit_code) == (State.TIMEOUT, 124)
    name = launch(either, job_of(SLEEP, kind(either)), archive_of(tmp_path, SLEEP))
    assert sight_of(either, name).state is State.RUNNING
    assert either.cancel(name) == ""
    assert sight_of(either, name).state is State.CANCELLED
    assert either.cancel(name) == "", "what has ended is no error"
    for job_id in (failed, name):
        if isinstance(job_id, str):
            either.forget(job_id)


def test_while_machines_are_looked_for(either: CloudProcess, sky_double: SkyDouble, tmp_path: Path) -> None:
    """The runner dies after the request has gone out: whoever comes next finds it, and starts nothing; cancelling ends the request."""
    executor = kind(either)
    sky_double.tell(hold_launch=True)
    job = job_of(SLEEP, executor, attempt=1)
    name = f"dispatch-{job.run_key}"
    first = cloud_for(sky_double, executor)
    first.start()
    first._send({"verb": "launch", "job": job.for_compiler(), "code": str(archive_of(tmp_path, SLEEP)), "environment": {}})
    until(lambda: either.find(job.run_key) == name, 60)
    first.close()
    before = sky_double.tell()["launches"]
    assert launch(either, job, archive_of(tmp_path, SLEEP)) == name
    assert sight_of(either, name).state is State.PENDING
    assert either.log(name) == b""
    assert either.cancel(name) == ""
    assert sight_of(either, name).state is State.CANCELLED
    assert sky_double.tell()["launches"] == before


def test_no_machine_to_be_had(cloud: CloudProcess, sky_double: SkyDouble, tmp_path: Path) -> None:
    sky_double.tell(no_resources=True)
    job = job_of(SLEEP, attempt=2)
    answer = cloud.launch(job.for_compiler(), archive_of(tmp_path, SLEEP), {})
    assert answer == NotLaunched("no H100 anywhere")
    assert sky_double.tell()["clusters"].get(f"dispatch-{job.run_key}") is None, "what a failed launch leaves costs money"
    assert cloud.find(job.run_key) is None
    seen = sight_of(cloud, f"dispatch-{job.run_key}")
    assert (seen.state, seen.reason) == (State.FAILED, "no H100 anywhere")


def test_a_shared_cluster(sky_double: SkyDouble, tmp_path: Path) -> None:
    profile = CLOUDS["skypilot"].model_validate({"executor": "skypilot", "cluster_name": "team", "nodes": 2})
    cloud = CloudProcess(profile, sky_double.env, str(sky_double.python))
    try:
        one, two = job_of(cluster_name="team", nodes=2), job_of(SLEEP, cluster_name="team", nodes=2)
        names = [launch(cloud, job, archive_of(tmp_path, script)) for job, script in ((one, TRAIN), (two, SLEEP))]
        assert sky_double.tell()["clusters"]["team"] == {"status": "UP", "down": None, "jobs": 2}
        assert ended(cloud, names[0]).state is State.SUCCEEDED
        log = cloud.log(names[0])
        assert results_in(log) == b'{"loss": 0.5}', "the head node's, not another's"
        assert b"(worker1, rank=1, pid=78, ip=10.0.0.2) on it\n" in log
        assert cloud.find(two.run_key) == names[1]
        cloud.cancel(names[1])
        assert sight_of(cloud, names[1]).state is State.CANCELLED
        assert cloud.find("f" * 16) is None
        for name in names:
            cloud.forget(name)
        assert sky_double.tell()["clusters"]["team"]["jobs"] == 2
    finally:
        cloud.close()


def test_who_is_not_let_in_and_a_server_out_of_order(cloud: CloudProcess, sky_double: SkyDouble, tmp_path: Path) -> None:
    sky_double.tell(status=500)
    silent = CloudSightings(cloud.look(["dispatch-0123456789abcdef"])).of("dispatch-0123456789abcdef")
    assert isinstance(silent, Silent)
    with pytest.raises(CloudError) as raised:
        cloud.find("0" * 16)
    assert raised.value.code == "cloud.unreachable"
    sky_double.tell(status=403)
    with pytest.raises(CloudError) as raised:
        cloud.look(["dispatch-0123456789abcdef"])
    assert raised.value.code == "cloud.credentials"
    sky_double.tell(status=0, token="sky_right")
    with pytest.raises(CloudError) as raised:
        cloud.find("0" * 16)
    assert raised.value.code == "cloud.credentials"
    right = cloud_for(sky_double, SKYPILOT_SERVICE_ACCOUNT_TOKEN="sky_right")
    try:
        assert right.find("0" * 16) is None
        assert ("clouds", 0, "kubernetes") in right.probe()
    finally:
        right.close()


def test_no_server_at_all(sky_double: SkyDouble) -> None:
    """None is started on the runner: it would outlive nothing and forget everything."""
    environment = {name: value for name, value in sky_double.env.items() if name != "SKYPILOT_API_SERVER_ENDPOINT"}
    profile = CLOUDS["skypilot"].model_validate({"executor": "skypilot"})
    cloud = CloudProcess(profile, {**environment, "SKYPILOT_API_SERVER_LOCAL_PORT": "9"}, str(sky_double.python))
    try:
        with pytest.raises(CloudError) as raised:
            cloud.find("0" * 16)
        assert raised.value.code == "cloud.unreachable"
        assert "SKYPILOT_API_SERVER_ENDPOINT" in raised.value.cause
        assert yaml.safe_load(cloud.render(job_of().for_compiler()).files[0].content)["num_nodes"] == 1, "a preview needs no server"
    finally:
        cloud.close()


def test_a_name_for_each_preview(cloud: CloudProcess) -> None:
    job = job_of(cloud=["aws", "gcp"], region=["us-east-1", "us-central1"], cpus="8+")
    compiled = cloud.render(job.for_compiler())
    assert cloud.render(job.for_compiler()) == compiled, "the same job gives the same bytes"
    assert "python3 train.py 'a b' '$HOME'" in compiled.script
    [file] = compiled.files
    assert yaml.safe_load(file.content)["file_mounts"] == {"/nemo_run": f"./dispatch-{job.run_key}"}
    assert b"hello" not in file.content
