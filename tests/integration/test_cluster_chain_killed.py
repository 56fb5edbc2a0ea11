"""A run's next job: submitted once, whoever asks and whoever is killed at which step; what the run has saved is never lost."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from dispatcher.effects.ledger import LedgerCluster
from dispatcher.errors import DispatchError
from dispatcher.ports import AlreadySubmitted, InProgress, NothingSaved, Refused, Submitted
from tests.integration.clusters import KEY, claim_request, local, submit
from tests.integration.test_cluster_queue_killed import RECORD, Scene
from tests.rig.sabotage import at_every_step

SAVED = "code/ckpt/step 4"
STEPS = 60

pytestmark = pytest.mark.timeout(900)


def begun(folder: Path, saves: bool = True) -> tuple[Scene, str]:
    """A run whose job has saved something, and that job's id."""
    scene = Scene(folder, "slurm")
    with scene.talk() as cluster:
        answer = submit(cluster)
    assert isinstance(answer, Submitted)
    if saves:
        save(scene, "4")
    return scene, answer.job_id


def save(scene: Scene, words: str) -> None:
    file = scene.job_dir / "runs" / KEY / SAVED
    file.parent.mkdir(exist_ok=True)
    file.write_text(words)


def go_on(cluster: LedgerCluster, job: str) -> object:
    return cluster.go_on(KEY, job, "code/ckpt")


def settled(scene: Scene, first: str) -> str:
    """What sweeps do until the run has its next job, which is returned."""
    for _ in range(20):
        with scene.talk() as cluster:
            (run,) = cluster.sweep().runs
            if not run.job_id:  # as the sweep does with an interrupted submission
                answer = cluster.claim(claim_request())
                assert isinstance(answer, AlreadySubmitted | InProgress), (scene.where, answer)
            elif run.job_id == first:
                go_on(cluster, first)
            else:
                return run.job_id
        time.sleep(0.5)
    raise AssertionError(f"{scene.where}: it never goes on")


def check(scene: Scene, first: str, second: str) -> None:
    folder = scene.job_dir / "runs" / KEY
    assert scene.slurm_like.jobs == [first, second], scene.where
    assert (folder / SAVED).read_text() == "4", scene.where
    with scene.talk() as cluster:
        assert cluster.claim(claim_request()) == AlreadySubmitted(second, RECORD), scene.where
        assert go_on(cluster, first) == Submitted(second), f"{scene.where}: an old look changes nothing"
        assert go_on(cluster, second) == NothingSaved(), f"{scene.where}: the second has saved nothing yet"
        assert cluster.find("pr-7") == (RECORD,), scene.where
    assert os.listdir(scene.job_dir / "runs") == [KEY], scene.where


@pytest.mark.parametrize(("when", "target"), [("before", "shell"), ("after", "group")])
def test_killed_at_every_step(when: str, target: str, tmp_path: Path) -> None:
    lines: list[str] = []

    def killed(step: int) -> bool:
        scene, first = begun(tmp_path / str(step))
        if not scene.killed(step, when, target, lambda cluster: go_on(cluster, first)):
            return False
        lines.append(scene.where)
        check(scene, first, settled(scene, first))
        return True

    at_every_step(killed, STEPS)
    assert len(lines) >= 4, "hardly anything was killed"
    assert any("sbatch --parsable" in line for line in lines), lines


def test_many_at_once(tmp_path: Path) -> None:
    """All get the same job; none of them a second one."""
    scene, first = begun(tmp_path)
    answers: list[object] = []

    def ask() -> None:
        with scene.talk() as cluster:
            answers.append(go_on(cluster, first))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    second = settled(scene, first)
    assert set(answers) <= {Submitted(second), Submitted(first), None}, answers
    check(scene, first, second)


def test_a_job_that_saved_nothing_is_not_continued(tmp_path: Path) -> None:
    scene, first = begun(tmp_path, saves=False)
    folder = scene.job_dir / "runs" / KEY / "code"
    with scene.talk() as cluster:
        assert go_on(cluster, first) == NothingSaved(), "the folder is not there"
        assert cluster.go_on(KEY, first, "code") == NothingSaved(), "what came with the commit was there before"
        (folder / "ckpt").mkdir()
        assert go_on(cluster, first) == NothingSaved(), "a folder is no file"
        assert cluster.sweep().runs[0].job_id == first
    assert scene.slurm_like.jobs == [first]


def test_what_a_job_puts_in_place_of_its_runs_files_holds_up_no_chain(tmp_path: Path) -> None:
    scene, first = begun(tmp_path)
    run = scene.job_dir / "runs" / KEY
    for name in ("job.new", "commit.boot.1.1", "jobs", "answer", "words", "exit", "images", "listed"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    with scene.talk() as cluster:
        second = go_on(cluster, first)
        assert isinstance(second, Submitted)
        assert cluster.sweep().runs[0].job_id == second.job_id
    assert scene.slurm_like.jobs == [first, second.job_id]


def test_where_a_folder_on_another_disk_is_linked(tmp_path: Path) -> None:
    scene, first = begun(tmp_path / "run", saves=False)
    (tmp_path / "scratch").mkdir()
    (scene.job_dir / "runs" / KEY / "code" / "ckpt").symlink_to(tmp_path / "scratch")
    save(scene, "4")
    with scene.talk() as cluster:
        assert isinstance(go_on(cluster, first), Submitted)


def test_three_jobs_and_a_refusal(tmp_path: Path) -> None:
    """What the scheduler refuses leaves the run with its ended job, and everything in it."""
    scene, first = begun(tmp_path)
    with scene.talk() as cluster:
        second = go_on(cluster, first)
        assert isinstance(second, Submitted)
        save(scene, "8")
        refusing = tmp_path / "refusing"
        refusing.mkdir()
        (refusing / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: account is over its limit' >&2\nexit 1\n")
        (refusing / "sbatch").chmod(0o755)
        other = local(scene.job_dir, "slurm", {**scene.env, "PATH": f"{refusing}:{scene.env['PATH']}"})
        answer = go_on(other, second.job_id)
        assert answer == Refused("sbatch: error: account is over its limit")
        other.close()
        assert cluster.sweep().runs[0].job_id == second.job_id
        third = go_on(cluster, second.job_id)
        assert isinstance(third, Submitted)
        assert scene.slurm_like.jobs == [first, second.job_id, third.job_id]
        (run,) = cluster.sweep().runs
        assert (run.job_id, run.reported) == (third.job_id, "unreported"), "whoever looks next says so"
    assert (scene.job_dir / "runs" / KEY / SAVED).read_text() == "8"


def test_what_was_given_up_after_it_was_looked_at_gets_no_further_job(tmp_path: Path) -> None:
    """A sweep read the run before somebody cancelled it, and goes on with what it knows."""
    scene, first = begun(tmp_path)
    with scene.talk() as cluster:
        assert cluster.cancel(KEY, "cancelled by alice").status == 0
        assert go_on(cluster, first) is None
        assert cluster.sweep().runs[0].job_id == first, "the run has its ended job as before"
    assert scene.slurm_like.jobs == [first]


def test_what_is_given_up_while_its_next_job_is_submitted_has_that_job_ended(tmp_path: Path) -> None:
    scene, first = begun(tmp_path)
    slow = tmp_path / "slow"
    slow.mkdir()
    real = f"PATH='{scene.env['PATH']}'"
    waits = f"touch {tmp_path}/begun; n=0; while [ ! -e {tmp_path}/go ] && [ $((n += 1)) -lt 1200 ]; do sleep 0.05; done"
    (slow / "sbatch").write_text(f'#!/bin/sh\n{real}\n{waits}\nexec sbatch "$@"\n')
    (slow / "sbatch").chmod(0o755)
    other = local(scene.job_dir, "slurm", {**scene.env, "PATH": f"{slow}:{scene.env['PATH']}"})
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(go_on(other, first)))
    # Whoever cancels has read which job the run has just before the next one is begun.
    with scene.talk() as cluster:
        thread.start()
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        with pytest.raises(DispatchError, match="the run has no job"):
            cluster.cancel(KEY, "cancelled by bob")
        (scene.job_dir / "runs" / KEY / "left").write_text("cancelled by alice\n")
        (tmp_path / "go").touch()
        thread.join(60)
        assert isinstance(answers[0], Submitted)
        assert f"scancel {answers[0].job_id}" in scene.slurm_like.calls
        assert f"scancel {first}" not in scene.slurm_like.calls
    other.close()


def test_what_goes_on_just_before_it_is_given_up_has_its_newest_job_ended(tmp_path: Path) -> None:
    """Whoever cancels has read the job's id, and the run gets its next job before that is written down."""
    scene, first = begun(tmp_path)
    between = tmp_path / "between"
    between.mkdir()
    moves = f'case $2 in */left) echo 1009 >"{scene.job_dir}/runs/{KEY}/job" ;; esac'
    (between / "mv").write_text(f"#!/bin/sh\nPATH='{scene.env['PATH']}'\nmv \"$@\" || exit\n{moves}\n")
    (between / "mv").chmod(0o755)
    cluster = local(scene.job_dir, "slurm", {**scene.env, "PATH": f"{between}:{scene.env['PATH']}"})
    assert cluster.cancel(KEY, "cancelled by alice").status == 0
    assert "scancel 1009" in scene.slurm_like.calls
    assert f"scancel {first}" not in scene.slurm_like.calls
    cluster.close()


def test_what_cannot_go_on(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "slurm")
    with scene.talk() as cluster:
        scene.hold(cluster)
        assert go_on(cluster, "1") is None, "it waits in the queue"
        assert cluster.sweep().queued == (KEY,)
        with pytest.raises(ValueError, match="leaves the run"):
            cluster.go_on(KEY, "1", "../other/ckpt")
