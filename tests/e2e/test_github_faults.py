"""Every call of a good run × everything that GitHub can do to it → success or a coded end; and once it is over, the same event again
ends with exactly one job, one comment and one check.

GitHub is real HTTP, the cluster is the real remote program in front of pretended Slurm commands. Only time is not real, so that
waiting for better times takes none, and NeMo-Run is left out: no fault here can reach it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone

import pytest

from dispatcher.action import blank_outputs
from dispatcher.authorise import REASONS
from dispatcher.configuration import read_policy
from dispatcher.effects.archive import GitArchive
from dispatcher.effects.assembly import for_github
from dispatcher.effects.clock import SystemClock
from dispatcher.effects.github import GitHubForge
from dispatcher.effects.runner import Runner
from dispatcher.errors import CATALOGUE, DispatchError, Exit
from dispatcher.event import parse_event
from dispatcher.flow import handle
from dispatcher.inputs import read_inputs
from dispatcher.ports import Clock
from dispatcher.report import marker
from dispatcher.watching import watch
from dispatcher.world import Outcome, World
from tests.fakes import FakeClock, FakeCompiler, Trace
from tests.github_server import GitHubServer
from tests.integration.clusters import environment, local
from tests.rig.pretend_slurm import PretendSlurm
from tests.rig.sshd import Sshd
from tests.stage import Stage

# What a good run asks of GitHub, in this order.
CALLS = (
    ("POST", r"/reactions$", 1),
    ("GET", r"/contents/\.github/dispatch\.yml$", 1),
    ("GET", r"/permission$", 1),
    ("GET", r"/pulls/1$", 1),
    ("GET", r"/contents/profiles/cluster\.yaml$", 1),
    ("POST", r"/check-runs$", 1),
    ("GET", r"/pulls/1$", 2),
    ("PATCH", r"/check-runs/\d+$", 1),
    ("POST", r"/issues/1/comments$", 1),
)

Fault = Callable[[GitHubServer, str, str, int], object]

FAULTS: dict[str, Fault] = {
    "401": lambda server, method, path, nth: server.fail(method, path, 401, nth=nth, times=99),
    "403": lambda server, method, path, nth: server.fail(method, path, 403, nth=nth, times=99),
    "404": lambda server, method, path, nth: server.fail(method, path, 404, nth=nth, times=99),
    "422": lambda server, method, path, nth: server.fail(method, path, 422, nth=nth, times=99, message="Validation Failed"),
    "429 once": lambda server, method, path, nth: server.limit(method, path, retry_after=2, nth=nth),
    "429 for an hour": lambda server, method, path, nth: server.limit(method, path, retry_after=3600, nth=nth, times=99),
    "secondary limit": lambda server, method, path, nth: server.limit(method, path, status=403, nth=nth, times=99),
    "500 once": lambda server, method, path, nth: server.fail(method, path, 500, nth=nth),
    "503 for long": lambda server, method, path, nth: server.fail(method, path, 503, nth=nth, times=99),
    "502 although it was done": lambda server, method, path, nth: server.fail(method, path, 502, nth=nth, after_effect=True),
    "reset": lambda server, method, path, nth: server.reset(method, path, nth=nth),
    "reset for long": lambda server, method, path, nth: server.reset(method, path, nth=nth, times=99),
    "reset although it was done": lambda server, method, path, nth: server.reset(method, path, nth=nth, times=99, after_effect=True),
    "half an answer": lambda server, method, path, nth: server.chop(method, path, 20, nth=nth),
    "a web page": lambda server, method, path, nth: server.fail(method, path, 200, nth=nth, times=99, body=b"<html>Sign in</html>"),
}


@dataclass(frozen=True)
class Scene:
    """A stage whose cluster is pretended, and one archive of its commits for all deliveries."""

    stage: Stage
    slurm: PretendSlurm
    archive: GitArchive

    def world(self, clock: Clock) -> World:
        """The world of one process: real GitHub requests, a real shell in front of pretended Slurm commands."""
        stage = self.stage
        forge = GitHubForge(stage.repo.full_name, stage.server.token, stage.server.api_url, clock=clock)
        return replace(
            for_github(read_inputs(stage.environment()), Runner(None, None, True), "main"),
            forge=forge,
            clock=clock,
            compiler=FakeCompiler(Trace()),
            archive=lambda: self.archive,
            connect=lambda profile: local(stage.job_dir, "slurm", environment(self.slurm.bin)),
            read_config=lambda path: forge.read_text(path, "main"),
            list_config=lambda folder: forge.list_files(folder, "main"),
            say=lambda line: None,
        )

    def deliver(self, event: dict[str, object], clock: Clock | None = None) -> Outcome:
        """One delivery, as in a process of its own. Anything else that it raised would have been a crash."""
        world = self.world(clock or FakeClock(datetime.now(timezone.utc)))
        try:
            return handle(parse_event("issue_comment", event), world)
        except DispatchError as error:  # as `cli.py` tells it: in the step's log and outputs, for there is no way to GitHub
            return Outcome(error.exit, blank_outputs("refused", error.code), error.cause)

    def sweep(self) -> Outcome:
        """One sweep."""
        world = self.world(SystemClock())
        return watch(world, read_policy(world))

    def jobs(self, key: str) -> list[str]:
        """The jobs that were submitted for a run."""
        jobs = (self.slurm.folder / "jobs").iterdir()
        return [job.name for job in jobs if job.read_text().startswith(f"dispatch-{key}|")]


@pytest.fixture(scope="module")
def scene(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("faults")
    with GitHubServer() as server:
        stage = Stage(server, sshd, folder)
        stage.repo.commit("main", {"profiles/cluster.yaml": stage.profile + "tunnel: local\n"})
        server.remaining = 1_000_000
        archive = GitArchive(f"{server.url}/org/repo", server.token)
        yield Scene(stage, PretendSlurm(folder / "slurm"), archive)
        assert server.violations == []


@pytest.fixture(autouse=True)
def no_fault_stays(scene: Scene) -> Iterator[None]:
    yield
    scene.stage.server.faults.clear()


def asked(scene: Scene) -> dict[str, object]:
    """Somebody asks for a run."""
    stage = scene.stage
    stage.repo.checks.clear()
    event: dict[str, object] = stage.server.comment_event(stage.pull, stage.pull.comment("/train steps=1"))
    return event


def exactly_one(scene: Scene, event: dict[str, object], ended: Outcome) -> None:
    """One job, one comment, one check, and nothing that says otherwise."""
    assert (ended.exit, ended.outputs["decision"]) == (Exit.OK, "run"), ended
    key = ended.outputs["run-key"]
    assert scene.jobs(key) == [ended.outputs["job-id"]]
    mark = marker(f"comment:{event['comment']['id']}")  # type: ignore[index]
    [comment] = [body for body in scene.stage.answers if mark in body]
    assert f"`{ended.outputs['job-id']}`" in comment
    [check] = [check for check in scene.stage.repo.checks_on(scene.stage.pull.head_sha) if check.external_id == key]
    assert check.status == "queued"
    assert (scene.stage.job_dir / "active" / key).exists()


def test_a_good_run_asks_for_exactly_this(scene: Scene) -> None:
    event = asked(scene)
    before = len(scene.stage.server.requests)
    exactly_one(scene, event, scene.deliver(event))
    requests = scene.stage.server.requests[before:]
    assert len(requests) == len(CALLS) <= 10
    for (method, path, _), seen in zip(CALLS, requests, strict=True):
        assert seen.method == method
        assert _matches(path, seen.path), (path, seen.path)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize(("method", "path", "nth"), CALLS, ids=[f"{method} {path} {nth}" for method, path, nth in CALLS])
def test_whatever_github_does(scene: Scene, method: str, path: str, nth: int, fault: Fault) -> None:
    event = asked(scene)
    fault(scene.stage.server, method, path, nth)
    first = scene.deliver(event)
    [struck] = scene.stage.server.faults
    assert struck.done, "the fault never struck"
    assert first.exit is not Exit.BUG
    if first.exit is not Exit.OK:
        assert first.outputs["reason-code"] in {*CATALOGUE, *REASONS, "unknown-profile", "submitted"}, first
        assert scene.stage.server.token not in first.summary
        # Either there is a job, and the ledger knows that it was not reported; or nothing is left of the run.
        assert not list((scene.stage.job_dir / "runs").glob("*/claim.*"))
    scene.stage.server.faults.clear()
    exactly_one(scene, event, scene.deliver(event))


def test_a_second_delivery_while_the_first_one_writes_its_comment(scene: Scene) -> None:
    event = asked(scene)
    # GitHub takes its time to make the comment: nobody who looks for it finds it meanwhile.
    slow = scene.stage.server.slow("POST", r"/issues/1/comments$", 1.5)
    with ThreadPoolExecutor() as others:
        first = others.submit(scene.deliver, event, SystemClock())
        while not slow.seen:
            time.sleep(0.01)
        second = scene.deliver(event, SystemClock())
    assert first.result().outputs["job-id"] == second.outputs["job-id"]
    exactly_one(scene, event, second)


def test_a_sweep_while_a_delivery_writes_its_comment(scene: Scene) -> None:
    event = asked(scene)
    slow = scene.stage.server.slow("POST", r"/issues/1/comments$", 1.5)
    with ThreadPoolExecutor() as others:
        first = others.submit(scene.deliver, event, SystemClock())
        while not slow.seen:
            time.sleep(0.01)
        swept = scene.sweep()
    assert swept.exit is Exit.OK
    exactly_one(scene, event, first.result())


def _matches(pattern: str, path: str) -> bool:
    return re.search(pattern, path) is not None
