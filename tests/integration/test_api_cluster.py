"""Runs that an API starts: the real ledger beside an API of our own, death at every step between them, the queue, logs, the end."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dispatcher.cloudstates import CloudSightings
from dispatcher.effects.api_cluster import KEPT_LOG, ApiCluster
from dispatcher.effects.api_ledger import ApiLedger
from dispatcher.effects.channel import Channel, LocalShell
from dispatcher.effects.ledger import open_local
from dispatcher.errors import CloudError, ClusterError, DispatchError
from dispatcher.launch import LAUNCH_FILE, to_json
from dispatcher.observe import sightings_of
from dispatcher.ports import (
    AlreadySubmitted,
    Claimed,
    ClaimRequest,
    CompiledFile,
    Held,
    InProgress,
    Refused,
    Submission,
    Submitted,
    Upload,
)
from dispatcher.slurm import Observation, State
from tests.fakes import FakeArchive, FakeCloud, Trace, cloud_plan
from tests.integration.clusters import environment
from tests.rig.sabotage import Sabotage, at_every_step

JOB = cloud_plan()
KEY = JOB.run_key
REQUEST = ClaimRequest(KEY, JOB.package.digest, "group-1", ("abc123",))
CODE = b"the archive"


def submission(hold: bool = False) -> Submission:
    files = (CompiledFile("configs/request.yaml", b"kind: Job\n"), CompiledFile(LAUNCH_FILE, to_json(JOB).encode()))
    upload = Upload(lambda: iter([CODE[:4], CODE[4:]]))
    return Submission(KEY, '{"first": 1}', "run train.py\n", files, JOB.environment({"TOKEN": "s3cret"}), "", upload, hold=hold)


class Place:
    """One API and one ledger for it; `opened` gives what a process of its own would have."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.job_dir = folder, folder / "jobs" / "docker-1"
        self.trace = Trace()
        self.cloud, self.archive = FakeCloud(self.trace), FakeArchive(self.trace)
        self.path = environment()["PATH"]

    def opened(self, shown: Callable[[Channel], None] | None = None, path: str = "") -> ApiCluster:
        def connect() -> Channel:
            channel = open_local({**environment(), "PATH": path or self.path})
            if shown:
                shown(channel)
            return channel

        return ApiCluster(ApiLedger(connect, str(self.job_dir), "api", patience=8), self.cloud, lambda: self.archive)

    @contextlib.contextmanager
    def process(self) -> Iterator[ApiCluster]:
        cluster = self.opened()
        try:
            yield cluster
        finally:
            cluster.close()

    def deliver(self) -> str:
        """A delivery, as the story does it, as often as it takes."""
        for _ in range(3):
            with self.process() as cluster:
                answer = cluster.claim(REQUEST)
                if isinstance(answer, Claimed):
                    answer = cluster.submit(submission())  # type: ignore[assignment]
            if not isinstance(answer, InProgress):
                assert isinstance(answer, (Submitted, AlreadySubmitted)), answer
                return answer.job_id
        raise AssertionError("still in progress")

    @property
    def run(self) -> Path:
        return self.job_dir / "runs" / KEY


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def one_job(place: Place, job_id: str) -> None:
    assert job_id == f"job-{KEY}"
    assert [key for key, _, _ in place.cloud.started] == [KEY]
    assert (place.run / "job").read_text() == f"{job_id}\n"
    assert (place.job_dir / "active" / KEY).exists()
    assert (place.job_dir / "tags" / "abc123" / KEY).exists()
    assert not list((place.job_dir / "tmp").iterdir())


def test_a_job_with_its_code_and_its_environment(place: Place) -> None:
    one_job(place, place.deliver())
    [(_, code, variables)] = place.cloud.started
    assert code == CODE
    assert (variables["TOKEN"], variables["DISPATCH_RUN_KEY"]) == ("s3cret", KEY)
    assert (place.run / "env").stat().st_mode & 0o777 == 0o600
    assert (place.run / "configs" / "request.yaml").read_text() == "kind: Job\n"
    # Code is the API's business.
    assert not (place.run / "code").exists()
    assert not list((place.job_dir / "packages").glob("*.tar"))
    assert place.deliver() == f"job-{KEY}"
    assert place.trace.of("cloud.launch") == ["cloud.launch"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_process_dies_around_the_launch(place: Place, when: str) -> None:
    place.cloud.dies = ("launch", when)
    cluster = place.opened()
    assert isinstance(cluster.claim(REQUEST), Claimed)
    with pytest.raises(KeyboardInterrupt):
        cluster.submit(submission())
    cluster.close()
    assert (place.job_dir / "active" / KEY).exists(), "the next sweep sees it, even if the command never comes again"
    place.cloud.dies = None
    one_job(place, place.deliver())
    assert place.trace.of("cloud.find") == ["cloud.find"]


def test_the_sweep_finds_the_job_of_an_orphan(place: Place) -> None:
    place.cloud.dies = ("launch", "after")
    cluster = place.opened()
    cluster.claim(REQUEST)
    with contextlib.suppress(KeyboardInterrupt):
        cluster.submit(submission())
    cluster.close()
    place.cloud.dies = None
    with place.process() as cluster:
        [run] = cluster.sweep().runs
        assert (run.run_key, run.job_id) == (KEY, "")
        for _ in range(2):
            answer = cluster.claim(ClaimRequest(KEY, JOB.package.digest, "adopt", ()))
            if not isinstance(answer, InProgress):
                break
        assert answer == AlreadySubmitted(f"job-{KEY}", '{"first": 1}')
        [run] = cluster.sweep().runs
        assert run.job_id == f"job-{KEY}"


def test_an_orphan_without_a_job_is_ours_to_begin_or_to_give_back(place: Place) -> None:
    place.cloud.dies = ("launch", "before")
    cluster = place.opened()
    cluster.claim(REQUEST)
    with contextlib.suppress(KeyboardInterrupt):
        cluster.submit(submission())
    cluster.close()
    with place.process() as cluster:
        answer = cluster.claim(REQUEST)
        assert answer == Claimed(True, False, None)
        cluster.abandon(KEY)
    assert not place.run.exists()


def test_nobody_takes_a_run_whose_submitter_lives(place: Place) -> None:
    place.cloud.dies = ("launch", "before")
    first = place.opened()
    first.claim(REQUEST)
    with contextlib.suppress(KeyboardInterrupt):
        first.submit(submission())
    with place.process() as second:
        second._ledger._patience = 1
        assert isinstance(second.claim(REQUEST), InProgress)
    first.close()


def test_an_api_that_refuses_leaves_nothing(place: Place) -> None:
    place.cloud.refuses = "no such image"
    with place.process() as cluster:
        cluster.claim(REQUEST)
        assert cluster.submit(submission()) == Refused("no such image")
    assert not place.run.exists()
    assert not (place.job_dir / "active" / KEY).exists()
    place.cloud.refuses = ""
    one_job(place, place.deliver())


@pytest.mark.parametrize(("code", "left"), [("cloud.extra", False), ("cloud.credentials", False), ("cloud.failed", True)])
def test_an_error_gives_the_lock_back_only_where_there_can_be_no_job(place: Place, code: str, left: bool) -> None:
    place.cloud.error = CloudError(code, "no")
    with place.process() as cluster:
        cluster.claim(REQUEST)
        with pytest.raises(CloudError):
            cluster.submit(submission())
        cluster.abandon(KEY)  # as the story does
    assert place.run.exists() is left
    place.cloud.error = None
    one_job(place, place.deliver())


def test_a_run_that_waits_is_packed_again_when_its_turn_comes(place: Place) -> None:
    with place.process() as cluster:
        cluster.claim(REQUEST)
        assert cluster.submit(submission(hold=True)) == Held()
        assert cluster.sweep().queued == (KEY,)
    assert place.cloud.started == []
    with place.process() as cluster:
        assert cluster.lock()
        assert cluster.release(KEY) == Submitted(f"job-{KEY}")
        cluster.unlock()
        assert cluster.release(KEY) is None
        assert cluster.sweep().queued == ()
    [(_, code, variables)] = place.cloud.started
    assert code == b"".join(place.archive.stream(JOB.package))
    assert variables["TOKEN"] == "s3cret"
    one_job(place, f"job-{KEY}")


@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_releases_dies_around_the_launch(place: Place, when: str) -> None:
    with place.process() as cluster:
        cluster.claim(REQUEST)
        cluster.submit(submission(hold=True))
    place.cloud.dies = ("launch", when)
    cluster = place.opened()
    with contextlib.suppress(KeyboardInterrupt):
        cluster.release(KEY)
    cluster.close()
    place.cloud.dies = None
    for _ in range(20):
        with place.process() as cluster:
            assert len(cluster.standing().queued) + len(cluster.standing().active) == 1
            released = cluster.release(KEY)
        if released is not None:
            break
        time.sleep(0.3)  # what the dead one may have asked for has to become visible first
    assert released == Submitted(f"job-{KEY}")
    one_job(place, f"job-{KEY}")


def test_a_turn_whose_code_cannot_be_had_goes_back(place: Place) -> None:
    with place.process() as cluster:
        cluster.claim(REQUEST)
        cluster.submit(submission(hold=True))
        place.trace.fail["archive.describe"] = ClusterError("cluster.failed", "gone")
        with pytest.raises(DispatchError):
            cluster.release(KEY)
        place.trace.fail.clear()
        assert cluster.sweep().queued == (KEY,)
        assert cluster.release(KEY) == Submitted(f"job-{KEY}")


def test_what_waits_is_refused_and_waits_on_until_it_is_dropped(place: Place) -> None:
    with place.process() as cluster:
        cluster.claim(REQUEST)
        cluster.submit(submission(hold=True))
        place.cloud.refuses = "no quota"
        assert cluster.release(KEY) == Refused("no quota")
        assert cluster.sweep().queued == (KEY,)
        assert cluster.drop(KEY)
        assert cluster.sweep().queued == ()


def test_looks_logs_results_and_the_end(place: Place) -> None:
    job_id = place.deliver()
    results = base64.b64encode(b'{"loss": 1}').decode()
    with place.process() as cluster:
        place.cloud.logs[job_id] = f"one\ntwo\ndispatch-results: {results}\n".encode()
        sightings = sightings_of(cluster.sweep())
        assert isinstance(sightings, CloudSightings)
        sight = sightings.of(job_id)
        assert isinstance(sight, Observation)
        assert sight.state is State.RUNNING
        files = cluster.fetch(KEY, -4, 100, 1000, "results.json")
        assert files is not None
        assert (files.log, files.log_offset, files.log_size, files.results) == (b"two\n", 4, 8, b'{"loss": 1}')
        assert cluster.fetch(KEY, 0, 3, 0).log == b"one"  # type: ignore[union-attr]
        assert cluster.fetch(KEY, 0, 100, 4).results_too_big  # type: ignore[union-attr]
        assert cluster.fetch("f" * 16, 0, 1, 1) is None
        assert cluster.records([KEY, "f" * 16]) == ('{"first": 1}', None)
        assert cluster.find("abc123") == ('{"first": 1}',)
        place.cloud.jobs[KEY] = "exited"
        cluster.save(KEY, '{"second": 2}', "failed")
        cluster.retire(KEY)
    assert place.cloud.forgotten == [job_id]
    assert place.cloud.logs == {}
    with place.process() as cluster:
        kept = cluster.fetch(KEY, -4, 100, 1000, "results.json")
        assert kept is not None
        assert (kept.record, kept.log, kept.results) == ('{"second": 2}', b"two\n", b'{"loss": 1}')
        assert cluster.sweep().runs == ()


def test_a_long_log_is_kept_to_its_end(place: Place) -> None:
    job_id = place.deliver()
    place.cloud.logs[job_id] = b"x" * (KEPT_LOG + 5) + b"\nthe end\n"
    with place.process() as cluster:
        cluster.retire(KEY)
    assert (place.run / "logs" / "job.log").stat().st_size == KEPT_LOG
    assert (place.run / "logs" / "job.log").read_bytes().endswith(b"\nthe end\n")


def test_a_log_that_is_gone_does_not_keep_a_run_active(place: Place) -> None:
    place.deliver()
    place.cloud.error = CloudError("cloud.unreachable", "no")
    with place.process() as cluster:
        cluster.retire(KEY)
        assert cluster.sweep().runs == ()


def test_silence_is_no_end(place: Place) -> None:
    job_id = place.deliver()
    place.cloud.silent = "it timed out"
    with place.process() as cluster:
        views = cluster.sweep().views
    assert views is not None
    assert (views.silent, type(CloudSightings(views).of(job_id)).__name__) == ("it timed out", "Silent")


def test_cancel_and_probe(place: Place) -> None:
    place.deliver()
    with place.process() as cluster:
        assert cluster.cancel(KEY).status == 0
        assert place.cloud.jobs[KEY] == "exited"
        with pytest.raises(ClusterError) as caught:
            cluster.cancel("f" * 16)
        assert caught.value.code == "cluster.run-unknown"
        probes = {probe.name: probe.output for probe in cluster.probe("", "")}
        assert probes["job_dir"].status == 0
        assert probes["api.engine"].stdout == "answers"
        place.cloud.error = CloudError("cloud.credentials", "who are you?")
        [said] = [probe.output for probe in cluster.probe("", "") if probe.name.startswith("api.")]
        assert (said.status, "who are you?" in said.stderr) == (1, True)


def test_what_lies_in_the_ledger_is_read_strictly(place: Place) -> None:
    with place.process() as cluster:
        cluster.claim(REQUEST)
        cluster.submit(submission(hold=True))
        forged = json.loads(to_json(JOB))
        forged["sha"] = "--upload-pack=x"
        (place.run / "configs" / "launch.json").write_text(json.dumps(forged))
        with pytest.raises(ClusterError) as caught:
            cluster.release(KEY)
        assert caught.value.code == "cluster.bad-record"
        assert place.cloud.started == []
        (place.run / "configs" / "launch.json").write_text(to_json(JOB))
        (place.run / "job").write_text("$(touch x)\n")
        (place.job_dir / "active" / KEY).write_text("0\n\n")
        with pytest.raises(ClusterError):
            cluster.sweep()


STEPS = 70


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("when", "target"), [("before", "shell"), ("after", "group")])
def test_the_far_side_is_killed_at_every_step(when: str, target: str, tmp_path: Path) -> None:
    killed: list[str] = []

    def killed_at(step: int) -> bool:
        place = Place(tmp_path / str(step))
        sabotage = Sabotage(place.folder / "sabotage", place.path)

        def arm(channel: Channel) -> None:
            assert isinstance(channel, LocalShell)
            if (sabotage.folder / "pid").exists():
                channel.close()
                raise ClusterError("cluster.cut", "the client is gone too")
            sabotage.arm(step, when, channel.pid if target == "shell" else -channel.pid)

        first = place.opened(arm, f"{sabotage.bin}:{place.path}")
        with contextlib.suppress(DispatchError):
            if isinstance(first.claim(REQUEST), Claimed):
                first.submit(submission())
        with contextlib.suppress(DispatchError):
            first.close()
        if not sabotage.killed:
            return False
        killed.append(sabotage.killed)
        try:
            job_id = place.deliver()
            one_job(replaced(place), job_id)
        except (DispatchError, AssertionError) as error:
            raise AssertionError(f"step {step}, {when} `{sabotage.killed.strip()}`: {error}") from error
        return True

    at_every_step(killed_at, STEPS)
    assert len(killed) > 10, killed


def replaced(place: Place) -> Place:
    """What a dead program left in tmp/ is swept away after a day; it is no part of the promise here."""
    for left in (place.job_dir / "tmp").glob("*"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
    return place


def test_the_submission_needs_its_launch_file(place: Place) -> None:
    with place.process() as cluster:
        cluster.claim(REQUEST)
        with pytest.raises(ClusterError):
            cluster.submit(replace(submission(), files=()))
