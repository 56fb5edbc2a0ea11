"""A real Docker engine: what NeMo-Run would give it is what we give it, and what it says is what we understand."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from dispatcher.clouds import DockerProfile
from dispatcher.cloudstates import CloudSightings
from dispatcher.effects.cloud_process import CloudProcess
from dispatcher.effects.clouds.docker import DockerApi
from dispatcher.errors import CloudError
from dispatcher.jobplan import NOT_FOR_AN_API, JobPlan
from dispatcher.launch import parse_environment, results_in
from dispatcher.ports import Launched, NotLaunched
from dispatcher.recipe import Recipe
from dispatcher.slurm import Absent, Observation, Silent, State
from tests.fakes import cloud_plan
from tests.rig.docker import IMAGE, DockerRig

FULL: dict[str, Any] = {
    "container_image": IMAGE,
    "gpus_per_node": 2,
    "mounts": ["/data:/data:ro"],
    "runtime": "nvidia",
    "network": "host",
    "ipc_mode": "host",
    "shm_size": "30g",
    "ulimits": ["memlock=-1", "nofile=1024:4096"],
    "privileged": True,
}


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "docker" in request.fixturenames:
        request.getfixturevalue("docker").remove_all()


def profile(rig: DockerRig, **fields: Any) -> DockerProfile:
    return DockerProfile.model_validate({"container_image": IMAGE, "network": "host", "docker_host": rig.host, **fields})


def job_of(rig: DockerRig, script: str = "import os; print(os.getcwd(), os.environ['TOKEN'])", attempt: int = 1, **fields: Any) -> JobPlan:
    recipe = Recipe.model_validate({"script": "train.py", "entrypoint": "python3", "args": ["a b", "$HOME", "it's", "$$"]})
    plan = cloud_plan(recipe, network="host", docker_host=rig.host, **{"container_image": IMAGE, **fields})
    return replace(plan, run_key=sha256(f"{script}{attempt}{fields}".encode()).hexdigest()[:16])


def archive_of(folder: Path, script: str) -> Path:
    path = folder / "code.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("train.py")
        info.size = len(script.encode())
        tar.addfile(info, io.BytesIO(script.encode()))
    return path


def ended(cloud: CloudProcess, job_id: str, seconds: float = 20) -> Observation:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sight = CloudSightings(cloud.look([job_id])).of(job_id)
        assert isinstance(sight, Observation), sight
        if sight.state.ended:
            return sight
        time.sleep(0.1)
    raise AssertionError("it has not ended")


@pytest.fixture(scope="module")
def cloud(docker: DockerRig) -> Iterator[CloudProcess]:
    process = CloudProcess(profile(docker), {})
    yield process
    process.close()


class Recorder:
    """A client in whose place NeMo-Run's own code puts what it would tell the engine."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.containers = self

    def run(self, image: str, command: str, **settings: Any) -> None:
        self.given = {"image": image, **settings}


def test_the_engine_is_told_what_nemo_run_would_tell_it(tmp_path: Path) -> None:
    given = DockerProfile.model_validate(FULL)
    api = DockerApi(given.model_dump(mode="json", exclude=NOT_FOR_AN_API))
    executor = api._executor()
    executor.assign("exp", str(tmp_path), "task", "task")
    from nemo_run.core.execution.docker import DockerContainer

    theirs = Recorder()
    DockerContainer(name="x", command=["true"], executor=executor, extra_env={}).run(theirs, "id")  # type: ignore[arg-type]
    ours = api._settings(executor)
    # Names and labels are the run key's; the container is kept, its files are sent, and its variables are in a file.
    own = {"image", "name", "hostname", "labels", "working_dir", "environment", "detach", "remove", "healthcheck"}
    expected = {name: value for name, value in theirs.given.items() if name not in own}
    assert json.loads(json.dumps(ours)) == json.loads(json.dumps(expected))


def test_the_preview_is_the_request(cloud: CloudProcess, docker: DockerRig) -> None:
    job = job_of(docker)
    compiled = cloud.render(job.for_compiler())
    assert "python3 train.py 'a b' '$HOME' 'it'\"'\"'s' '$$'" in compiled.script
    [file] = compiled.files
    settings = yaml.safe_load(file.content)
    assert settings == {"name": f"dispatch-{job.run_key}", "image": IMAGE, "network": "host"}
    assert cloud.render(job.for_compiler()) == compiled, "the same job gives the same bytes"


def launch(cloud: CloudProcess, job: JobPlan, code: Path | None, **secrets: str) -> str:
    answer = cloud.launch(job.for_compiler(), code, parse_environment(job.environment({"TOKEN": "s3cret", **secrets})))
    assert isinstance(answer, Launched), answer
    return answer.job_id


TRAIN = """
import json, os, sys
print(os.getcwd(), sys.argv[1:], os.environ["TOKEN"], os.environ["GREETING"])
json.dump({"loss": 0.5}, open(os.environ["DISPATCH_RESULTS"], "w"))
"""


def test_a_job_from_its_files_to_its_results(cloud: CloudProcess, docker: DockerRig, tmp_path: Path) -> None:
    job = job_of(docker, TRAIN, env_vars={"GREETING": "hello 'you' $x"}, setup_lines=["echo set up in $PWD"])
    assert cloud.find(job.run_key) is None
    job_id = launch(cloud, job, archive_of(tmp_path, TRAIN))
    assert cloud.find(job.run_key) == job_id
    end = ended(cloud, job_id)
    assert (end.state, end.exit_code) == (State.SUCCEEDED, 0)
    assert end.start is not None
    assert end.end is not None
    log = cloud.log(job_id)
    assert log.startswith(b"set up in /nemo_run/code\n/nemo_run/code ['a b', '$HOME', \"it's\", '$$'] s3cret hello 'you' $x\n")
    assert results_in(log) == b'{"loss": 0.5}'
    # Whoever may look at the engine sees no secret: it is in a file inside.
    assert "s3cret" not in docker.docker("inspect", job_id)
    assert launch(cloud, job, archive_of(tmp_path, TRAIN)) == job_id, "the same run again is the same container"
    assert docker.containers(job.run_key) == [job_id]
    cloud.forget(job_id)
    assert docker.containers(job.run_key) == []
    assert (cloud.log(job_id), cloud.find(job.run_key)) == (b"", None)
    assert isinstance(CloudSightings(cloud.look([job_id])).of(job_id), Absent)
    cloud.forget(job_id)


@pytest.mark.parametrize(
    ("script", "fields", "state", "code"),
    [
        ("import sys; sys.exit(3)", {}, State.FAILED, 3),
        ("import os; os.kill(os.getpid(), 9)", {}, State.FAILED, 137),
        ("import time; time.sleep(60)", {"time": "00:00:01"}, State.TIMEOUT, 124),
    ],
)
def test_ends(
    cloud: CloudProcess, docker: DockerRig, tmp_path: Path, script: str, fields: Mapping[str, Any], state: State, code: int
) -> None:
    job_id = launch(cloud, job_of(docker, script, **fields), archive_of(tmp_path, script))
    end = ended(cloud, job_id)
    assert (end.state, end.exit_code) == (state, code)


def test_cancel_and_another_process(cloud: CloudProcess, docker: DockerRig, tmp_path: Path) -> None:
    script = "import time; print('on it', flush=True); time.sleep(60)"
    job = job_of(docker, script)
    job_id = launch(cloud, job, archive_of(tmp_path, script))
    other = CloudProcess(profile(docker), {})
    try:
        sight = CloudSightings(other.look([job_id])).of(job_id)
        assert isinstance(sight, Observation)
        assert sight.state is State.RUNNING
        assert other.cancel(job_id) == ""
        assert ended(other, job_id).state is State.CANCELLED
        assert other.cancel(job_id) == "", "what has ended is no error"
        assert other.cancel("f" * 12) == ""
    finally:
        other.close()


def test_a_recipe_without_files_and_with_torchrun(cloud: CloudProcess, docker: DockerRig) -> None:
    recipe = Recipe.model_validate({"module": "pkg.train", "launcher": "torchrun"})
    job = cloud_plan(recipe, network="host", docker_host=docker.host, container_image=IMAGE, gpus_per_node=4)
    script = cloud.render(job.for_compiler()).script
    assert "torchrun" in script
    assert "--nproc-per-node 4" in script
    assert "--nnodes 1" in script
    assert script.rstrip().splitlines()[-6].endswith("-m pkg.train")


def test_an_image_that_is_nowhere_is_refused(cloud: CloudProcess, docker: DockerRig) -> None:
    job = job_of(docker, container_image="no.registry.invalid/nothing:1")
    answer = cloud.launch(job.for_compiler(), None, {})
    assert isinstance(answer, NotLaunched)
    assert "no.registry.invalid/nothing:1" in answer.words
    assert docker.containers(job.run_key) == []


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    cloud = CloudProcess(DockerProfile(container_image=IMAGE, docker_host=f"unix://{tmp_path}/nobody.sock"), {})
    try:
        views = cloud.look(["abc"])
        assert isinstance(CloudSightings(views).of("abc"), Silent)
        for ask in (lambda: cloud.find("0" * 16), lambda: cloud.log("abc"), lambda: cloud.cancel("abc"), cloud.probe):
            with pytest.raises(CloudError) as caught:
                ask()
            assert caught.value.code == "cloud.unreachable"
            assert "does not answer" in caught.value.cause
    finally:
        cloud.close()


def test_the_engine_is_found_by_the_environment_and_nothing_else_is_passed_on(docker: DockerRig) -> None:
    cloud = CloudProcess(DockerProfile(container_image=IMAGE), {**docker.env, "AWS_SECRET_ACCESS_KEY": "x", "PATH": "/usr/bin:/bin"})
    try:
        found = {name: (status, words) for name, status, words in cloud.probe()}
        assert found["engine"][0] == 0
        assert found["image"] == (0, f"{IMAGE} is there")
        assert "AWS_SECRET_ACCESS_KEY" not in cloud._environment
    finally:
        cloud.close()


def test_a_process_that_dies_is_said_and_begun_again(docker: DockerRig) -> None:
    cloud = CloudProcess(profile(docker), {})
    try:
        cloud.probe()
        assert cloud._process is not None
        cloud._process.kill()
        with pytest.raises(CloudError) as caught:
            cloud.find("0" * 16)
        assert caught.value.code == "cloud.no-answer"
        assert cloud.find("0" * 16) is None
    finally:
        cloud.close()
