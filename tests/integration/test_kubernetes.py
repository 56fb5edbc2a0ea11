"""TrainJobs and RayJobs through the client's own process and real HTTP: started once, seen, their logs, cancel, what can break."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.cloudstates import CloudSightings
from dispatcher.effects.cloud_process import CloudProcess
from dispatcher.errors import CloudError
from dispatcher.jobplan import JobPlan
from dispatcher.launch import results_in
from dispatcher.ports import Launched, NotLaunched
from dispatcher.recipe import Recipe
from dispatcher.slurm import Absent, Observation, Silent, State
from tests.fakes import cloud_plan
from tests.kubernetes_server import RAY_JOBS, TRAIN_JOBS, Fault, KubernetesServer
from tests.stage import TRAIN

ENVIRONMENT = {"DISPATCH_SHA": "a" * 40, "TOKEN": "s3cret \"quoted\" $HOME 'x'\nsecond line"}
KINDS = {"kubeflow": TRAIN_JOBS, "kuberay": RAY_JOBS}
RECIPE = Recipe(script="train.py", entrypoint="python3", args=("steps=2",))
both = pytest.mark.parametrize("executor", sorted(KINDS))


class Place:
    """A cluster, and processes that speak to it."""

    def __init__(self, server: KubernetesServer) -> None:
        self.server, self.opened = server, dict[str, CloudProcess]()
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(server.folder), "KUBECONFIG": server.kubeconfig()}

    def plan(self, executor: str, trigger: str = "comment:1", recipe: Recipe = RECIPE, **more: object) -> JobPlan:
        return cloud_plan(recipe, executor, trigger, **{"context": "here", "namespace": "ml", **more})

    def cloud(self, job: JobPlan, **environment: str) -> CloudProcess:
        """One process for each place and environment, as a watch has it; each job brings its own profile."""
        key = repr((job.profile.executor, job.profile.ledger_name, environment))
        return self.opened.setdefault(key, CloudProcess(job.profile, {**self.environment, **environment}))

    def launch(self, job: JobPlan, code: Path | None, **environment: str) -> str:
        answer = self.cloud(job, **environment).launch(job.for_compiler(), code, ENVIRONMENT)
        assert isinstance(answer, Launched), answer
        return answer.job_id

    def seen(self, job: JobPlan, *ids: str) -> Any:
        return CloudSightings(self.cloud(job).look(ids)).of(ids[0])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with KubernetesServer(tmp_path_factory.mktemp("kubernetes")) as server:
        place = Place(server)
        yield place
        for cloud in place.opened.values():
            cloud.close()


@pytest.fixture
def place(shared: Place) -> Place:
    """Empty, and without faults."""
    server = shared.server
    for kept in (server.objects, server.logs):
        kept.clear()
    for kept in (server.requests, server.faults):
        kept.clear()
    server.forbidden, server.without, server.page = set(), set(), 500
    return shared


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("code") / "code.tar.gz", {"train.py": TRAIN.encode()})


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@both
def test_from_the_launch_to_the_end_and_nothing_left(place: Place, code: Path, executor: str) -> None:
    job = place.plan(executor, **({"nodes": 2} if executor == "kubeflow" else {}))
    cloud = place.cloud(job)
    assert cloud.find(job.run_key) is None
    name = place.launch(job, code)
    assert name == f"dispatch-{job.run_key}"
    assert cloud.find(job.run_key) == name
    assert place.seen(job, name).state is State.PENDING
    # Delivered again: the same job, and the API is not asked for another.
    assert place.launch(job, code) == name
    assert place.server.asked("POST", KINDS[executor].format("ml")) == 1
    # What is there is what the preview showed; the secret is in the Secret and nowhere else.
    [made] = place.server.of_kind(KINDS[executor]).values()
    shown = cloud.render(job.for_compiler())
    assert json.dumps(made["spec"], sort_keys=True) == json.dumps(_yaml(shown.files[0].content)["spec"], sort_keys=True)
    assert "s3cret" not in json.dumps(made) + shown.script
    place.server.schedule(name)
    running = place.seen(job, name)
    assert (running.state, running.end) == (State.RUNNING, None)
    place.server.drop_pods(name)
    assert place.server.play(name) == 0
    ended = place.seen(job, name)
    assert (ended.state, ended.exit_code) == (State.SUCCEEDED, None)
    assert ended.end is not None
    log = cloud.log(name)
    assert json.loads(results_in(log) or b"") == {"loss": 1.875, "sha": "aaaaaaa"}
    assert b"step 1 loss 1.9" in log
    if executor == "kubeflow":
        assert b"[0] step 0 loss 2.0\n" in log
        assert b"[1] step 0 loss 2.0\n" in log
    cloud.forget(name)
    assert [objects for objects in place.server.objects.values() if objects] == []
    assert isinstance(place.seen(job, name), Absent)
    cloud.forget(name)


def _yaml(content: bytes) -> Any:
    import yaml

    return yaml.safe_load(content)


@both
def test_a_program_that_fails_says_with_which_status(place: Place, code: Path, executor: str) -> None:
    job = place.plan(executor, recipe=Recipe(script="train.py", entrypoint="python3", args=("steps=1", "fail=nan")))
    name = place.launch(job, code)
    assert place.server.play(name) == 3
    seen = place.seen(job, name)
    assert (seen.state, seen.exit_code) == (State.FAILED, 3)
    assert b"ValueError: nan" in place.cloud(job).log(name)


def test_the_environment_arrives_as_it_is_and_time_is_up_when_it_is(place: Place, tmp_path: Path) -> None:
    script = "import os, time\nprint(repr(os.environ['TOKEN']), flush=True)\ntime.sleep(30)\n"
    packed = archive(tmp_path / "code.tar.gz", {"train.py": script.encode()})
    job = place.plan("kubeflow", time="00:00:02")
    name = place.launch(job, packed)
    assert place.server.play(name) == 124
    assert place.seen(job, name).state is State.TIMEOUT
    assert repr(ENVIRONMENT["TOKEN"]) in place.cloud(job).log(name).decode()


@both
def test_cancelled(place: Place, code: Path, executor: str) -> None:
    """A job that was cancelled is gone and is known to have been; its log is kept until the end has been reported."""
    job = place.plan(executor)
    cloud, name = place.cloud(job), place.launch(job, code)
    [pod] = place.server.schedule(name)
    place.server.logs[pod["metadata"]["name"]] = ["2026-11-30T14:02:00.000000000Z step 1"]
    assert cloud.cancel(name) == ""
    assert place.seen(job, name).state is State.RUNNING, "its pods are still there"
    assert cloud.cancel(name) == ""
    place.server.collect()
    assert place.seen(job, name).state is State.CANCELLED
    assert cloud.find(job.run_key) == name
    assert cloud.log(name) == b"step 1\n"
    assert cloud.cancel(name) == ""
    secret = place.server.of_kind("secrets")[name]["data"]
    assert set(secret) == {"launch.sh", "log.gz"}, "neither code nor variables are needed any more"
    cloud.forget(name)
    assert [objects for objects in place.server.objects.values() if objects] == []


@both
def test_an_end_is_not_cancelled_and_who_deletes_by_hand_leaves_a_job_that_is_lost(place: Place, code: Path, executor: str) -> None:
    job = place.plan(executor)
    name = place.launch(job, code)
    place.server.schedule(name)
    place.server.finish(name, 0)
    assert place.cloud(job).cancel(name) == ""
    assert place.seen(job, name).state is State.SUCCEEDED
    del place.server.of_kind(KINDS[executor])[name]
    assert isinstance(place.seen(job, name), Absent)


def test_many_jobs_are_looked_at_in_two_requests_and_page_by_page(place: Place, code: Path) -> None:
    jobs = [place.plan("kubeflow", trigger=f"comment:{number}") for number in range(5)]
    ids = [place.launch(job, code) for job in jobs]
    place.server.schedule(ids[3])
    place.server.of_kind(TRAIN_JOBS)["somebody-elses"] = {"metadata": {"name": "somebody-elses"}, "status": {}}
    place.server.requests.clear()
    place.seen(jobs[0], *ids)
    assert len(place.server.requests) == 2
    place.server.page = 2
    views = place.cloud(jobs[0]).look(ids)
    assert {view.job_id for view in views.jobs} == set(ids)
    assert [view.word for view in views.jobs if view.job_id == ids[3]] == ["Running"]


def test_a_claim_takes_larger_code_through_a_pod(place: Place, tmp_path: Path) -> None:
    packed = archive(tmp_path / "code.tar.gz", {"train.py": TRAIN.encode(), "data.bin": os.urandom(1_000_000)})
    refused = place.plan("kubeflow")
    answer = place.cloud(refused).launch(refused.for_compiler(), packed, ENVIRONMENT)
    assert isinstance(answer, NotLaunched)
    assert "a Secret takes 900,000: name a claim as `workdir_pvc`" in answer.words
    assert place.server.of_kind("secrets") == {}
    job = place.plan("kubeflow", workdir_pvc="work")
    path = f"{place.server.kubectl()}:{os.environ['PATH']}"
    name = place.launch(job, packed, PATH=path)
    assert (place.server.claim / "dispatch" / job.run_key / "code" / "data.bin").stat().st_size == 1_000_000
    assert place.server.of_kind("pods") == {}, "the pod that copied has gone"
    assert "code.tar.gz" not in place.server.of_kind("secrets")[name]["data"]
    [call] = [json.loads(line) for line in (place.server.folder / "kubectl-calls").read_text().splitlines()]
    assert call[0][:7] == ["--context", "here", "-n", "ml", "exec", "-i", f"{name}-mover"]
    assert call[1] == place.environment["KUBECONFIG"]
    assert place.server.play(name) == 0


def test_no_kubectl_and_one_that_fails(place: Place, code: Path, tmp_path: Path) -> None:
    job = place.plan("kubeflow", trigger="comment:2", workdir_pvc="work")
    (tmp_path / "python3").symlink_to(sys.executable)
    with pytest.raises(CloudError) as raised:
        place.cloud(job, PATH=str(tmp_path)).launch(job.for_compiler(), code, ENVIRONMENT)
    assert raised.value.code == "cloud.kubectl"
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "kubectl").write_text("#!/bin/sh\necho 'tar: no space left' >&2\nexit 2\n")
    (broken / "kubectl").chmod(0o755)
    with pytest.raises(CloudError, match="could not be copied into work: tar: no space left") as raised:
        place.cloud(job, PATH=f"{broken}:{os.environ['PATH']}").launch(job.for_compiler(), code, ENVIRONMENT)
    assert raised.value.code == "cloud.failed"
    assert place.server.of_kind(TRAIN_JOBS) == {}
    assert place.server.of_kind("pods") == {}


@both
def test_what_the_api_refuses_and_why(place: Place, code: Path, executor: str) -> None:
    def refused(job: JobPlan) -> str:
        answer = place.cloud(job).launch(job.for_compiler(), code, ENVIRONMENT)
        assert isinstance(answer, NotLaunched), answer
        assert place.server.of_kind("secrets") == {}, "nothing is left of it"
        return answer.words

    if executor == "kubeflow":
        assert 'ClusterTrainingRuntime "jax" not found' in refused(place.plan(executor, runtime_ref="jax"))
        assert "unknown field 'nonsense'" in refused(place.plan(executor, spec_kwargs={"nonsense": True}))
    assert 'namespaces "gone" not found' in refused(place.plan(executor, namespace="gone"))
    place.server.without = {"trainjobs", "rayjobs"}
    job = place.plan(executor)
    assert "could not find the requested resource" in refused(job)
    # A cluster without such jobs knows nothing about ours: that is no answer.
    assert isinstance(place.seen(job, "dispatch-1"), Silent)
    place.server.faults = [Fault(403, "exceeded quota: gpus", "POST", KINDS[executor].format("ml"))]
    place.server.without = set()
    assert "exceeded quota: gpus" in refused(job)


def test_who_is_not_let_in(place: Place, code: Path) -> None:
    job = place.plan("kubeflow")
    wrong = {"KUBECONFIG": place.server.kubeconfig(token="another")}
    for ask in (
        lambda cloud: cloud.launch(job.for_compiler(), code, ENVIRONMENT),
        lambda cloud: cloud.find(job.run_key),
        lambda cloud: cloud.look(["dispatch-1"]),
    ):
        with pytest.raises(CloudError, match="Unauthorized") as raised:
            ask(place.cloud(job, **wrong))
        assert raised.value.code == "cloud.credentials"
    place.server.forbidden = {("create", "trainjobs"), ("get", "pods/log")}
    with pytest.raises(CloudError, match='cannot create resource "trainjobs"') as raised:
        place.cloud(job).launch(job.for_compiler(), code, ENVIRONMENT)
    assert raised.value.code == "cloud.credentials"
    assert ("rights", 1, "not allowed in namespace ml: create trainjobs, get pods/log") in place.cloud(job).probe()


def test_no_kubeconfig_no_context_no_server(place: Place, tmp_path: Path) -> None:
    job, elsewhere = place.plan("kubeflow"), place.plan("kubeflow", context="third")
    none = {"KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    with pytest.raises(CloudError, match="there is no kubeconfig that can be used") as raised:
        place.cloud(job, **none).look(["dispatch-1"])
    assert raised.value.code == "cloud.credentials"
    # A preview needs none of it.
    assert "dispatch-" in place.cloud(job, **none).render(job.for_compiler()).script
    with pytest.raises(CloudError, match="third") as raised:
        place.cloud(elsewhere).find(job.run_key)
    assert raised.value.code == "cloud.credentials"
    away = place.cloud(place.plan("kubeflow", context="nowhere"))
    assert isinstance(CloudSightings(away.look(["dispatch-1"])).of("dispatch-1"), Silent)
    with pytest.raises(CloudError) as raised:
        away.find(job.run_key)
    assert raised.value.code == "cloud.unreachable"


@both
@pytest.mark.parametrize("fault", [Fault(500, after=True), Fault(reset=True, after=True), Fault(503), Fault(reset=True), Fault(429)])
def test_an_unclear_answer_to_the_launch_never_makes_two_jobs(place: Place, code: Path, executor: str, fault: Fault) -> None:
    job = place.plan(executor)
    place.server.faults = [Fault(**{**vars(fault), "method": "POST", "path": KINDS[executor].format("ml"), "times": 1})]
    with pytest.raises(CloudError) as raised:
        place.cloud(job).launch(job.for_compiler(), code, ENVIRONMENT)
    assert raised.value.code in ("cloud.failed", "cloud.unreachable")
    assert len(place.server.of_kind(KINDS[executor])) == (1 if fault.after else 0)
    assert (place.cloud(job).find(job.run_key) is not None) == fault.after
    place.launch(job, code)
    assert len(place.server.of_kind(KINDS[executor])) == 1
    assert base64.b64decode(place.server.of_kind("secrets")[f"dispatch-{job.run_key}"]["data"]["launch.sh"]).startswith(b"#!/bin/bash")


@pytest.mark.parametrize("fault", [Fault(500, times=9), Fault(reset=True, times=9), Fault(504, path="/pods", times=9)])
def test_silence_is_no_end(place: Place, code: Path, fault: Fault) -> None:
    job = place.plan("kubeflow")
    name = place.launch(job, code)
    place.server.faults = [Fault(**vars(fault))]
    assert isinstance(place.seen(job, name), Silent)
    assert isinstance(place.seen(job, "dispatch-other", name), Silent)
    place.server.faults = []
    assert isinstance(place.seen(job, name), Observation)


def test_logs_of_pods_that_have_not_begun_or_are_gone(place: Place, code: Path) -> None:
    job = place.plan("kubeflow", nodes=3)
    cloud, name = place.cloud(job), place.launch(job, code)
    assert cloud.log(name) == b""
    first, second, third = place.server.schedule(name)
    place.server.logs[first["metadata"]["name"]] = ["2026-11-30T14:00:01.5Z one", "2026-11-30T14:00:09.5Z \x1b[31mfour\r 9%\x0b"]
    place.server.logs[third["metadata"]["name"]] = ["2026-11-30T14:00:02.5Z two  ", "2026-11-30T14:00:03.5Z three"]
    second["status"]["phase"] = "Pending"
    assert cloud.log(name).decode() == "[0] one\n[2] two  \n[2] three\n[0] \x1b[31mfour\r 9%\x0b\n"
    place.server.logs[first["metadata"]["name"]] = []
    place.server.drop_pods(name)
    assert cloud.log(name) == b""


@both
def test_without_its_extra_an_executor_says_which_one(place: Place, executor: str, tmp_path: Path) -> None:
    """A Python that has everything but the Kubernetes client, as an environment from the plain lock is."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    [there] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    for item in Path(pytest.__file__).parents[1].iterdir():
        if not item.name.startswith(("kubernetes", "__pycache__")):
            (there / item.name).symlink_to(item)
    job = place.plan(executor)
    cloud = CloudProcess(job.profile, place.environment, python=str(tmp_path / "venv" / "bin" / "python"))
    try:
        for ask in (lambda: cloud.render(job.for_compiler()), lambda: cloud.look(["dispatch-1"])):
            with pytest.raises(CloudError, match=r"`nemotron-dispatch\[kubeflow\]` is not installed here") as raised:
                ask()
            assert raised.value.code == "cloud.extra"
            assert "input `extras`" in raised.value.next_step
    finally:
        cloud.close()
