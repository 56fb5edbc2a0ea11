"""Every call of a good run × everything that GitHub can do to it → success or a coded end; and once it is over, the same event again
ends with exactly one job, one comment and one check.

NeMo-Run is left out (`tests/scene.py`): no fault here can reach it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dispatcher.answer import marker
from dispatcher.authorise import REASONS
from dispatcher.effects.clock import SystemClock
from dispatcher.errors import CATALOGUE, Exit
from dispatcher.world import Outcome
from tests.github_server import GitHubServer
from tests.rig.sshd import Sshd
from tests.scene import Scene, make_scene

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


@pytest.fixture(scope="module")
def scene(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with GitHubServer() as server:
        yield make_scene(server, sshd, tmp_path_factory.mktemp("faults"))
        assert server.violations == []


@pytest.fixture(autouse=True)
def no_fault_stays(scene: Scene) -> Iterator[None]:
    yield
    scene.stage.server.faults.clear()


def asked(scene: Scene) -> dict[str, Any]:
    """Somebody asks for a run, on a commit without checks."""
    scene.stage.repo.checks.clear()
    return scene.asked()


def exactly_one(scene: Scene, event: dict[str, Any], ended: Outcome) -> None:
    """One job, one comment, one check, and nothing that says otherwise."""
    assert (ended.exit, ended.outputs["decision"]) == (Exit.OK, "run"), ended
    key = ended.outputs["run-key"]
    assert scene.jobs(key) == [ended.outputs["job-id"]]
    mark = marker(f"comment:{event['comment']['id']}")
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


def _matches(pattern: str, path: str) -> bool:
    return re.search(pattern, path) is not None
