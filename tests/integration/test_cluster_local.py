"""The remote program and its client on this machine, under every shell there is: the ledger's promises one by one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.effects.channel import Channel, LocalShell
from dispatcher.effects.conversation import Conversation, command, program
from dispatcher.effects.ledger import LedgerCluster, open_local
from dispatcher.errors import CATALOGUE, ClusterError, GitError
from dispatcher.ports import AlreadySubmitted, Claimed, ClaimRequest, GivenUp, InProgress, Part, Refused, Submitted
from dispatcher.series import READ_BYTES
from tests.conftest import missing
from tests.integration.clusters import KEY, SYSTEM_PATH, TREE, Tree, claim_request, environment, local, script, submission, submit
from tests.rig.pretend_slurm import PretendSlurm

SHELLS = ("dash", "bash", "busybox", "mksh")


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH whose `sh` is that shell; with busybox every other tool is its own too."""
    found = shutil.which(request.param)
    if found is None:
        missing(f"`{request.param}` is not installed", may_be_required=False)
    folder = tmp_path_factory.mktemp("shell")
    (folder / "sh").symlink_to(found)
    if request.param == "busybox":
        subprocess.run([found, "--install", "-s", str(folder)], check=True)
        (folder / "sh").unlink()
        (folder / "sh").symlink_to(found)
        return str(folder)
    return f"{folder}:{SYSTEM_PATH}"


@pytest.fixture
def slurm_like(tmp_path: Path) -> PretendSlurm:
    return PretendSlurm(tmp_path / "slurm")


@pytest.fixture
def job_dir(tmp_path: Path) -> Path:
    return tmp_path / "job $(touch hacked) 'dir\" ; # é"


def with_path(slurm_like: PretendSlurm, path: str = SYSTEM_PATH, **more: str) -> dict[str, str]:
    return {**environment(**more), "PATH": f"{slurm_like.bin}:{path}"}


@pytest.fixture
def cluster(job_dir: Path, slurm_like: PretendSlurm) -> Iterator[LedgerCluster]:
    made = local(job_dir, "slurm", with_path(slurm_like))
    yield made
    made.close()


def wait_until(condition: object, seconds: float = 10) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# --------------------------------------------------------------------------- the whole way


def events_of_a_folder(cluster: LedgerCluster, folder: Path) -> None:
    """Of a folder the newest event files come back as one, the oldest first; nothing else in it does."""

    def end(cap: int) -> tuple[bytes | None, bool]:
        files = cluster.fetch(KEY, 0, 0, -cap, folder.name)
        assert files is not None
        return files.results, files.results_too_big

    folder.mkdir()
    assert end(100) == (None, False)
    (folder / "other.bin").write_bytes(b"other")
    (folder / "events.out.tfevents.5.folder").mkdir()
    os.mkfifo(folder / "events.out.tfevents.6.pipe")
    assert end(100) == (None, False)
    for number in range(1, 8):
        name = f"events.out.tfevents.170000000{number}.$(touch hacked) 'x\n"
        (folder / name).write_bytes(b"\0%d\n" % number)
    assert end(100) == (b"".join(b"\0%d\n" % number for number in range(1, 8)), False)
    assert end(5) == (b"6\n\x007\n", True)
    for number in range(10, 15):
        (folder / f"events.out.tfevents.17000001{number}.x").write_bytes(b"%d " % number)
    assert end(100) == (b"\x005\n\x006\n\x007\n10 11 12 13 14 ", False)
    (folder / "events.out.tfevents.1800000000.x").write_bytes(b"x" * 3_000_000 + b"end")
    found, too_big = end(READ_BYTES)
    assert found is not None
    assert (len(found), found[-4:], too_big) == (READ_BYTES, b"xend", True)
    whole = cluster.fetch(KEY, 0, 0, 1000, folder.name)
    assert whole is not None
    assert (whole.results, whole.results_too_big) == (None, False)


def test_a_submission_under_every_shell(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "slurm", with_path(slurm_like, shell))
    assert submit(cluster) == Submitted("1000")
    run = job_dir / "runs" / KEY
    assert TREE.unpacked(run / "code")
    assert (run / "record.json").read_text() == f'{{"key": "{KEY}"}}'
    assert (run / "job.sbatch").read_text() == script()
    assert (run / "env").read_text() == "SECRET=s3cr3t\n"
    assert (run / "env").stat().st_mode & 0o777 == 0o600
    assert run.stat().st_mode & 0o077 == 0
    assert (run / "configs/a.yaml").read_text() == "a: 1\n"
    assert os.access(run / "tool.sh", os.X_OK)
    assert (run / "job").read_text() == "1000\n"
    assert (slurm_like.folder / "jobs" / "1000").read_text() == f"dispatch-{KEY}|{run}\n"
    assert [file.name for file in (job_dir / "active").iterdir()] == [KEY]
    assert {tag.name for tag in (job_dir / "tags").iterdir() if (tag / KEY).exists()} == {"abc123", "pr-7"}
    wait_until(lambda: not list((job_dir / "tmp").iterdir()))
    (run / "logs" / "sbatch_x_1000.out").write_text("sbatch\n")
    (run / "logs" / "log-x_1000_0.out").write_bytes(b"0123456789\n\xff\x00end")
    (run / "results.json").write_text('{"loss": 1}')
    sweep = cluster.sweep()
    assert [(r.run_key, r.job_id, r.reported, r.log_size, r.exit_file) for r in sweep.runs] == [(KEY, "1000", "", 16, "")]
    assert sweep.runs[0].age_seconds < 60
    assert sweep.squeue.stdout.splitlines() == [f"1000|RUNNING|None|1700000000|dispatch-{KEY}|n1|1"]
    files = cluster.fetch(KEY, 4, 1000, 1000)
    assert files is not None
    assert (files.log, files.log_offset, files.log_size, files.results) == (b"456789\n\xff\x00end", 4, 16, b'{"loss": 1}')
    tail = cluster.fetch(KEY, -3, 1000, 5)
    assert tail is not None
    assert (tail.log, tail.log_offset, tail.results, tail.results_too_big) == (b"end", 13, None, True)
    for cap, expected, cut in ((-4, b": 1}", True), (-1000, b'{"loss": 1}', False)):
        ending = cluster.fetch(KEY, 0, 0, cap)
        assert ending is not None
        assert (ending.results, ending.results_too_big) == (expected, cut)
    (run / "series.jsonl").write_bytes(b"x" * 3_000_000 + b"end")
    long = cluster.fetch(KEY, 0, 0, -READ_BYTES, "series.jsonl")
    assert long is not None
    assert long.results is not None
    assert (len(long.results), long.results[-4:], long.results_too_big) == (READ_BYTES, b"xend", True)
    events_of_a_folder(cluster, run / "tb")
    beyond = cluster.fetch(KEY, 999, 1000, 1000, "no/such.json")
    assert beyond is not None
    assert (beyond.log, beyond.log_offset, beyond.results) == (b"", 16, None)
    capped = cluster.fetch(KEY, -999, 4, 1000)
    assert capped is not None
    assert (capped.log, capped.log_offset) == (b"0123", 0)
    assert cluster.fetch("f" * 16, 0, 1, 1) is None
    assert cluster.find("pr-7") == (f'{{"key": "{KEY}"}}',)
    assert cluster.find("pr-8") == ()
    cluster.save(KEY, '{"new": "é"}\n' * 1000, "running since 12:00")
    assert cluster.sweep().runs[0].reported == "running since 12:00"
    again = local(job_dir, "slurm", with_path(slurm_like, shell))
    assert again.claim(claim_request()) == AlreadySubmitted("1000", '{"new": "é"}\n' * 1000)
    again.close()
    assert cluster.cancel(KEY).status == 0
    cluster.retire(KEY)
    assert cluster.sweep().runs == ()
    assert cluster.find("pr-7") != ()
    for unknown in (lambda: cluster.save("f" * 16, "{}", "x"), lambda: cluster.cancel("f" * 16)):
        with pytest.raises(ClusterError) as caught:
            unknown()
        assert caught.value.code == "cluster.run-unknown"
    estimate = cluster.estimate(script())
    assert "to start at 2030" in estimate.stderr
    probes = {probe.name: probe.output for probe in cluster.probe("ml", "batch")}
    assert probes["job_dir"].status == 0
    assert probes["sbatch"].stdout == "slurm 99.9\n"
    wait_until(lambda: not list((job_dir / "tmp").iterdir()))
    cluster.close()
    assert slurm_like.calls[1:] == ["scancel 1000", slurm_like.calls[2], "scontrol -o show partition batch"]
    assert not list(job_dir.parent.rglob("hacked"))


def test_the_same_tree_is_sent_once_and_a_changed_one_as_a_difference(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "slurm", with_path(slurm_like, shell))
    first = Tree({"a/b/c": b"1", "a/b/d": b"2", "file": b"3", "to-folder": b"4", "folder/x": b"5", "same": b"6", "-rf": b"7"})
    second = Tree({"a/e": b"1", "file": b"33", "to-folder/x": b"4", "folder": b"5", "same": b"6", "new\nline *": b"8"})
    submit(cluster, "1" * 16, first)
    answer = cluster.claim(claim_request("2" * 16, second))
    assert isinstance(answer, Claimed)
    assert answer.base_digest == first.digest
    assert answer.base is not None
    assert set(answer.base) == set(first.files)
    sent = submission(answer, "2" * 16, second)
    assert sent.upload is not None
    assert sent.upload.base_digest == first.digest
    assert isinstance(cluster.submit(sent), Submitted)
    assert second.unpacked(job_dir / "runs" / ("2" * 16) / "code")
    for key, tree in (("3" * 16, first), ("4" * 16, second)):
        answer = cluster.claim(claim_request(key, tree))
        assert answer == Claimed(False, True, None)
        assert isinstance(cluster.submit(submission(answer, key, tree)), Submitted)
        assert tree.unpacked(job_dir / "runs" / key / "code")
    third = Tree({**second.contents, "same": b"66"})
    answer = cluster.claim(claim_request("5" * 16, third))
    assert isinstance(answer, Claimed)
    assert answer.base_digest == first.digest, "a difference is always to a whole package"
    cluster.close()


def test_the_next_submission_finds_its_tree_unpacked(job_dir: Path, cluster: LedgerCluster) -> None:
    def ready(tree: Tree) -> Path:
        return job_dir / "packages" / f"{tree.digest}.tree"

    submit(cluster, "1" * 16)
    wait_until(ready(TREE).exists)
    (ready(TREE) / "mark").write_text("")
    answer = cluster.claim(claim_request("2" * 16))
    assert isinstance(answer, Claimed)
    wait_until((job_dir / "runs" / ("2" * 16) / "code" / "mark").exists)
    cluster.submit(submission(answer, "2" * 16))
    wait_until(ready(TREE).exists)
    (ready(TREE) / "mark").write_text("")
    os.utime(ready(TREE), (0, time.time() - 3 * 86400))
    submit(cluster, "3" * 16)
    assert TREE.unpacked(job_dir / "runs" / ("3" * 16) / "code"), "an old tree may have been purged in part"
    other = Tree({"other": b"1"})
    assert isinstance(cluster.claim(claim_request("4" * 16, other)), Claimed)
    cluster.submit(submission(Claimed(False, False, None), "4" * 16, other))
    wait_until(ready(other).exists)
    wait_until(lambda: not ready(TREE).exists())


def test_a_whole_package_may_be_sent_although_there_is_a_base(job_dir: Path, cluster: LedgerCluster) -> None:
    submit(cluster, "1" * 16, Tree({"old": b"1"}))
    new = Tree({"new": b"2"})
    answer = cluster.claim(claim_request("2" * 16, new))
    assert isinstance(answer, Claimed)
    assert answer.base is not None
    assert isinstance(cluster.submit(submission(Claimed(False, False, None), "2" * 16, new)), Submitted)
    assert new.unpacked(job_dir / "runs" / ("2" * 16) / "code")


def test_a_damaged_manifest_means_that_everything_is_sent(job_dir: Path, cluster: LedgerCluster) -> None:
    submit(cluster, "1" * 16, Tree({"old": b"1"}))
    for file in (job_dir / "packages").glob("*.files.gz"):
        file.write_bytes(b"\x1f\x8bgarbage")
    answer = cluster.claim(claim_request("2" * 16))
    assert answer == Claimed(False, False, None)
    assert isinstance(cluster.submit(submission(answer, "2" * 16)), Submitted)


def test_sbatch_sees_the_sessions_environment_and_not_ours(job_dir: Path, slurm_like: PretendSlurm) -> None:
    env = with_path(slurm_like, LANG="de_DE.UTF-8", SLURM_CONF="/etc/slurm.conf", GITHUB_TOKEN="ghs_secret", DISPATCH_SSH_KEY="secret")
    channel = LocalShell(command(), env)
    channel._process.kill()
    channel.close()
    cluster = local(job_dir, "slurm", env)
    submit(cluster)
    cluster.close()
    seen = dict(line.split("=", 1) for line in (slurm_like.folder / "env").read_text().splitlines() if "=" in line)
    assert seen["SLURM_CONF"] == "/etc/slurm.conf"
    assert seen["LANG"] == "de_DE.UTF-8"
    assert "LC_ALL" not in seen
    assert "GITHUB_TOKEN" not in seen
    assert "DISPATCH_SSH_KEY" not in seen


def test_slurm_settings_of_a_session_do_not_reach_sbatch(job_dir: Path, slurm_like: PretendSlurm) -> None:
    env = {
        **with_path(slurm_like),
        "SBATCH_PARTITION": "other",
        "SLURM_JOB_ID": "7",
        "SQUEUE_FORMAT": "%i",
        "SLURM_CONF": "/c",
        "SHELL": "/bin/sh",
    }

    class Direct(LocalShell):
        """A login session, whose environment is not filtered."""

        def __init__(self) -> None:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", command()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, env=env
            )
            self._adopt()

    cluster = LedgerCluster(Direct, str(job_dir), "slurm")
    submit(cluster)
    cluster.close()
    names = {line.split("=", 1)[0] for line in (slurm_like.folder / "env").read_text().splitlines()}
    assert names & {"SBATCH_PARTITION", "SLURM_JOB_ID", "SQUEUE_FORMAT"} == set()
    assert "SLURM_CONF" in names


# --------------------------------------------------------------------------- one job, whatever happens


def test_parallel_claims_make_one_job(job_dir: Path, slurm_like: PretendSlurm) -> None:
    answers: list[object] = []

    def deliver() -> None:
        cluster = local(job_dir, "slurm", with_path(slurm_like))
        answer = cluster.claim(claim_request())
        if isinstance(answer, Claimed):
            time.sleep(0.5)
            answers.append(cluster.submit(submission(answer)))
        else:
            answers.append(answer)
        cluster.close()

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slurm_like.jobs == ["1000"]
    assert sum(isinstance(answer, Submitted) for answer in answers) == 1
    assert answers.count(AlreadySubmitted("1000", f'{{"key": "{KEY}"}}')) == 7


def test_a_claim_that_is_held_is_in_progress(job_dir: Path, slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    assert isinstance(cluster.claim(claim_request()), Claimed)
    second = local(job_dir, "slurm", with_path(slurm_like), patience=3)
    begun = time.monotonic()
    assert isinstance(second.claim(claim_request()), InProgress)
    assert time.monotonic() - begun > 2
    second.close()
    assert isinstance(cluster.submit(submission(Claimed(False, False, None))), Submitted)


@pytest.mark.parametrize("how", ["abandon", "close"])
def test_a_claim_given_back_leaves_nothing(how: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "slurm", with_path(slurm_like))
    cluster.claim(claim_request())
    if how == "abandon":
        cluster.abandon(KEY)
    cluster.close()
    wait_until(lambda: not list((job_dir / "runs").iterdir()))
    wait_until(lambda: not list((job_dir / "tmp").iterdir()))
    assert slurm_like.jobs == []


def test_a_silent_claim_is_taken_over_and_cannot_be_used_any_more(job_dir: Path, slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    """The first client sits behind a stalled connection: its shell lives, but says nothing for minutes."""
    first = cluster.claim(claim_request())
    assert isinstance(first, Claimed)
    (claim,) = (job_dir / "runs" / KEY).glob("claim.*")
    os.utime(claim, (0, time.time() - 121))
    second = local(job_dir, "slurm", with_path(slurm_like))
    taken = second.claim(claim_request())
    assert taken == Claimed(True, False, None)
    results: list[object] = []
    late = threading.Thread(target=lambda: results.append(cluster.submit(submission(first))))
    late.start()
    time.sleep(0.3)
    assert second.submit(submission(taken)) == Submitted("1000")
    late.join()
    assert results == [Submitted("1000")], "the late one learns the job of the one that took over"
    assert slurm_like.jobs == ["1000"]
    second.close()


def test_a_claim_that_is_taken_over_in_mid_upload(job_dir: Path, slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    """The last moment at which it may be noticed: the rename right before sbatch."""
    first = cluster.claim(claim_request())
    assert isinstance(first, Claimed)
    second = local(job_dir, "slurm", with_path(slurm_like))

    def slow() -> Iterator[bytes]:
        yield from TREE.archive()
        (claim,) = (job_dir / "runs" / KEY).glob("claim.*")
        os.utime(claim, (0, time.time() - 121))
        taken = second.claim(claim_request())
        assert taken == Claimed(True, False, None)
        threading.Timer(1, lambda: second.submit(submission(taken))).start()

    assert cluster.submit(submission(first, chunks=slow)) == Submitted("1000")
    assert slurm_like.jobs == ["1000"]
    second.close()


@pytest.mark.parametrize("scheduler", ["slurm", "local"])
def test_the_rename_before_sbatch_decides(scheduler: str, job_dir: Path, tmp_path: Path, slurm_like: PretendSlurm) -> None:
    """The claim goes away between the last look at it and the rename."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mv").write_text(
        '#!/bin/sh\ncase "$2" in commit.*) /bin/mv "$1" claim.somebody.1.1; echo 4711 >job.x; /bin/mv job.x job;; esac\nexec /bin/mv "$@"\n'
    )
    (tmp_path / "bin" / "mv").chmod(0o755)
    cluster = local(job_dir, scheduler, {**environment(), "PATH": f"{tmp_path}/bin:{slurm_like.bin}:{SYSTEM_PATH}"})
    assert submit(cluster, body=f"touch '{tmp_path}/ran'") == Submitted("4711")
    assert slurm_like.jobs == []
    assert not (tmp_path / "ran").exists()
    cluster.close()


def test_the_archive_cannot_be_made(job_dir: Path, slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    def broken() -> Iterator[bytes]:
        yield from list(TREE.archive())[:2]
        raise GitError("git.corrupt", "no")

    answer = cluster.claim(claim_request())
    assert isinstance(answer, Claimed)
    with pytest.raises(GitError):
        cluster.submit(submission(answer, chunks=broken))
    assert not list((job_dir / "runs").iterdir())
    assert not list((job_dir / "tmp").iterdir())
    assert submit(cluster) == Submitted("1000"), "the conversation goes on"


@pytest.mark.parametrize("cut", ["short", "garbage", "not-tar"])
def test_a_damaged_archive_is_never_kept(cut: str, job_dir: Path, slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    whole = b"".join(TREE.archive())
    damaged = {"short": whole[:-9], "garbage": whole[:200] + b"\0" * 40 + whole[240:], "not-tar": b"\x1f\x8b"}[cut]
    answer = cluster.claim(claim_request())
    assert isinstance(answer, Claimed)
    with pytest.raises(ClusterError) as caught:
        cluster.submit(submission(answer, chunks=lambda: [damaged]))
    assert caught.value.code == "cluster.failed"
    assert slurm_like.jobs == []
    assert not list((job_dir / "runs").iterdir())
    assert not [file for file in (job_dir / "packages").iterdir() if file.is_file()]
    assert submit(cluster) == Submitted("1000")


# --------------------------------------------------------------------------- sbatch


def test_a_refusal_leaves_nothing_and_may_be_tried_again(job_dir: Path, slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    slurm_like.mode("sbatch", "refuse")
    refused = submit(cluster)
    assert isinstance(refused, Refused)
    assert refused.words == "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified"
    for folder in ("runs", "active", "tags/pr-7"):
        assert not list((job_dir / folder).iterdir())
    wait_until(lambda: not list((job_dir / "tmp").iterdir()))
    slurm_like.mode("sbatch", "")
    assert submit(cluster) == Submitted("1000")


@pytest.mark.parametrize("mode", ["lost-answer", "kill-after", "chatty"])
def test_a_job_whose_answer_got_lost_is_found(mode: str, slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    slurm_like.mode("sbatch", mode)
    assert submit(cluster) == Submitted("1000")
    assert [run.job_id for run in cluster.sweep().runs] == ["1000"]


def test_a_request_that_got_lost_is_a_refusal(slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    slurm_like.mode("sbatch", "lost-request")
    refused = submit(cluster)
    assert isinstance(refused, Refused)
    assert "connect failure" in refused.words


def test_while_the_scheduler_is_silent_nothing_is_submitted_twice(job_dir: Path, slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    slurm_like.mode("sbatch", "lost-answer")
    slurm_like.mode("squeue", "down")
    with pytest.raises(ClusterError) as caught:
        submit(cluster)
    assert caught.value.code == "cluster.scheduler-silent"
    (commit,) = (job_dir / "runs" / KEY).glob("commit.*")
    os.utime(commit, (0, time.time() - 10))
    with pytest.raises(ClusterError) as caught:
        cluster.claim(claim_request())
    assert caught.value.code == "cluster.scheduler-silent"
    slurm_like.mode("squeue", "")
    (commit,) = (job_dir / "runs" / KEY).glob("commit.*")
    other = local(job_dir, "slurm", with_path(slurm_like))
    cluster.close()
    os.utime(commit, (0, time.time() - 10))
    assert other.claim(claim_request()) == AlreadySubmitted("1000", f'{{"key": "{KEY}"}}')
    assert slurm_like.jobs == ["1000"]
    other.close()


@pytest.mark.parametrize("source", ["answer", "squeue", "sacct", "log"])
def test_an_interrupted_submission_finds_its_job(source: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    """sbatch had put it in, then the login node died before anybody could write the id down."""
    cluster = local(job_dir, "slurm", with_path(slurm_like))
    submit(cluster)
    cluster.close()
    run = job_dir / "runs" / KEY
    for name in ("job", "listed", *(("answer",) if source != "answer" else ())):
        (run / name).unlink()
    (job_dir / "active" / KEY).unlink()
    if source == "answer":
        slurm_like.mode("squeue", "down")
    elif source != "squeue":
        slurm_like.mode("squeue", "forget")
        slurm_like.mode("sacct", "knows" if source == "sacct" else "disabled")
    if source == "log":
        (run / "logs" / f"sbatch_dispatch-{KEY}_1000_12.out").write_text("")
    (commit,) = run.glob("commit.*")
    os.utime(commit, (0, time.time() - 1000))
    again = local(job_dir, "slurm", with_path(slurm_like))
    assert again.claim(claim_request()) == AlreadySubmitted("1000", f'{{"key": "{KEY}"}}')
    assert (job_dir / "active" / KEY).exists()
    again.close()
    assert slurm_like.jobs == ["1000"]


def test_a_slow_sbatch_is_waited_for_by_others(job_dir: Path, slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    slurm_like.mode("sbatch", "slow")
    first = threading.Thread(target=lambda: submit(cluster))
    first.start()
    wait_until(lambda: list((job_dir / "runs").glob("*/commit.*")))
    second = local(job_dir, "slurm", with_path(slurm_like))
    assert isinstance(second.claim(claim_request()), AlreadySubmitted)
    second.close()
    first.join()
    assert slurm_like.jobs == ["1000"]


def test_the_runs_folder_was_emptied_from_outside(job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "slurm", with_path(slurm_like), patience=1)
    (job_dir / "runs" / KEY).mkdir(parents=True)
    os.utime(job_dir / "runs" / KEY, (0, time.time() - 1000))
    with pytest.raises(ClusterError) as caught:
        cluster.claim(claim_request())
    assert caught.value.code == "cluster.broken-run"
    cluster.close()


# --------------------------------------------------------------------------- looking


def test_a_hanging_scheduler_does_not_hang_the_sweep(slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    submit(cluster)
    slurm_like.mode("squeue", "hang")
    slurm_like.mode("sacct", "down")
    begun = time.monotonic()
    sweep = cluster.sweep()
    assert time.monotonic() - begun < 15
    assert sweep.squeue.status == 124
    assert sweep.sacct.status == 1
    assert "Connection refused" in sweep.sacct.stderr
    assert slurm_like.calls[-1] == "scontrol -o show job 1000"
    assert sweep.scontrol.status == 1
    assert "Invalid job id" in sweep.scontrol.stderr


def test_a_thousand_active_runs_in_a_second(job_dir: Path, slurm_like: PretendSlurm, cluster: LedgerCluster) -> None:
    assert cluster.sweep().runs == ()
    for number in range(1000):
        key = f"{number:016x}"
        (job_dir / "runs" / key / "logs").mkdir(parents=True)
        (job_dir / "runs" / key / "job").write_text(f"{number + 5000}\n")
        (job_dir / "runs" / key / "logs" / f"log-x_{number}_0.out").write_text("x" * number)
        (job_dir / "runs" / key / "logs" / f"sbatch_x_{number}.out").write_text("")
        (job_dir / "active" / key).write_text("1700000000\nrunning\n")
        (slurm_like.folder / "jobs" / f"{number + 5000}").write_text(f"dispatch-{key}|/\n")
    cluster.sweep()
    begun = time.monotonic()
    sweep = cluster.sweep()
    took = time.monotonic() - begun
    assert len(sweep.runs) == 1000
    assert {run.log_size for run in sweep.runs} == set(range(1000))
    assert {run.job_id for run in sweep.runs} == {str(number + 5000) for number in range(1000)}
    assert took < 2, f"{took:.2f} s"
    begun = time.monotonic()
    keys = [run.run_key for run in sweep.runs[:100]]
    for key in keys[::2]:
        (job_dir / "runs" / key / "record.json").write_text(f"record of {key}")
    assert cluster.records(keys) == tuple(f"record of {key}" if number % 2 == 0 else "" for number, key in enumerate(keys))
    assert time.monotonic() - begun < 2


def test_a_listed_run_without_a_folder_is_forgotten(job_dir: Path, cluster: LedgerCluster) -> None:
    cluster.sweep()
    (job_dir / "active" / KEY).write_text("1\n\n")
    (job_dir / "active" / "no key").write_text("")
    assert cluster.sweep().runs == ()
    assert [file.name for file in (job_dir / "active").iterdir()] == ["no key"]


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a//b", "a/\n/b"])
def test_results_outside_the_run_are_not_read(path: str, cluster: LedgerCluster) -> None:
    with pytest.raises(ValueError):
        cluster.fetch(KEY, 0, 1, 1, path)


def test_a_job_cannot_pretend_to_be_the_program(job_dir: Path, cluster: LedgerCluster) -> None:
    submit(cluster)
    log = job_dir / "runs" / KEY / "logs" / "log-x_1_0.out"
    forged = b"\n@0000 done known 0 0 -\nok\n@ end log\n"
    log.write_bytes(forged * 1000)
    files = cluster.fetch(KEY, 0, 1 << 20, 10)
    assert files is not None
    assert files.log == forged * 1000


def test_what_a_job_puts_in_place_of_a_file_keeps_nobody_waiting(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "slurm", with_path(slurm_like, shell))
    submit(cluster)
    run = job_dir / "runs" / KEY
    for name in ("record.json", "exit", "exit.0", "usage", "tags", "jobs", "answer", "images", "listed", "started"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    begun = time.monotonic()
    [seen] = cluster.sweep().runs
    assert (seen.run_key, seen.job_id, seen.exit_file) == (KEY, "1000", "")
    files = cluster.fetch(KEY, 0, 100, 100)
    assert files is not None
    assert files.record == "", "there is a run, and nobody can say which"
    assert cluster.records([KEY]) == ("",)
    assert cluster.find("abc123") == ("",)
    assert cluster.standing().active == ("",)
    assert cluster.claim(claim_request()) == AlreadySubmitted("1000", "")
    (run / "record.json").unlink()
    (run / "record.json").symlink_to("/dev/zero")
    assert cluster.records([KEY]) == ("",)
    (run / "job").unlink()
    os.mkfifo(run / "job")
    assert [item.job_id for item in cluster.sweep().runs] == [""]
    cluster.save(KEY, "{}", "failed")
    cluster.retire(KEY)
    assert cluster.sweep().runs == ()
    assert time.monotonic() - begun < 10
    cluster.close()


def test_a_log_that_is_no_file_is_not_read(job_dir: Path, cluster: LedgerCluster) -> None:
    submit(cluster)
    logs = job_dir / "runs" / KEY / "logs"
    os.mkfifo(logs / "log-a_1_0.out")
    (logs / "log-b_1_0.out").mkdir()
    (logs / "log-c_1_0.out").symlink_to("/dev/zero")
    (logs / "log-\n_2_0.out").write_text("odd name")
    files = cluster.fetch(KEY, 0, 100, 100)
    assert files is not None
    assert (files.log, files.log_size) == (b"", 0)
    (logs / "sbatch_x_1.out").write_text("this one")
    files = cluster.fetch(KEY, 0, 100, 100)
    assert files is not None
    assert files.log == b"this one"


@pytest.mark.parametrize(
    ("part", "log"),
    [(3, b"task 3 again"), (0, b"task 0"), (10, b"batch 10"), (2, b""), (1, b"component 1"), ("batch", b"batch 11")],
)
def test_the_log_of_one_part(job_dir: Path, cluster: LedgerCluster, part: Part, log: bytes) -> None:
    submit(cluster)
    logs = job_dir / "runs" / KEY / "logs"
    for number, (name, text) in enumerate(
        [
            (f"log-dispatch-{KEY}_3_0_0.out", "task 0"),
            (f"log-dispatch-{KEY}_3_3_0.out", "task 3"),
            (f"log-dispatch-{KEY}_3_3_1.out", "task 3 again"),
            (f"log-dispatch-{KEY}-1_3_0.out", "component 1"),
            (f"sbatch_dispatch-{KEY}_3_10.out", "batch 10"),
            (f"sbatch_dispatch-{KEY}_3_11.out", "batch 11"),
            (f"log-dispatch-{KEY}_3_2_$(x).out", "odd name"),
            ("log-z_9_9_9.out", "another's"),
        ]
    ):
        (logs / name).write_text(text)
        os.utime(logs / name, (number, number))
    files = cluster.fetch(KEY, -100, 100, 100, part=part)
    assert files is not None
    assert (files.log, files.log_size) == (log, len(log))


def test_of_an_array_the_batch_log_of_a_task_that_failed(job_dir: Path, cluster: LedgerCluster) -> None:
    submit(cluster)
    run = job_dir / "runs" / KEY
    for task in range(3):
        (run / f"exit.{task}").write_text("9\n" if task == 1 else "0\n")
        log = run / "logs" / f"sbatch_dispatch-{KEY}_3_{task}.out"
        log.write_text(f"batch {task}")
        os.utime(log, (task, task))
    files = cluster.fetch(KEY, -100, 100, 0, part="batch")
    assert files is not None
    assert files.log == b"batch 1"


@pytest.mark.parametrize("part", [-1, 12345678901])
def test_what_is_no_part_is_not_asked_for(cluster: LedgerCluster, part: int) -> None:
    with pytest.raises(ValueError, match="part"):
        cluster.fetch(KEY, 0, 1, 1, part=part)


# --------------------------------------------------------------------------- where it cannot work


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, slurm_like: PretendSlurm) -> None:
    (tmp_path / "file").write_text("")
    cluster = local(tmp_path / "file" / "job_dir", "slurm", with_path(slurm_like))
    with pytest.raises(ClusterError) as caught:
        cluster.sweep()
    assert caught.value.code in ("cluster.not-writable", "cluster.failed")
    assert "Not a directory" in caught.value.cause
    cluster.close()


@pytest.mark.parametrize("room", [0, 8, 40, 120, 240])
def test_a_full_disk_submits_nothing(room: int, small_disk: Path, slurm_like: PretendSlurm) -> None:
    """`room` kB are left: not enough for the folder, the record, the archive, the tree or the kept package."""
    incompressible = Tree({f"f{number}": os.urandom(4096) for number in range(30)})
    cluster = local(small_disk / "job", "slurm", with_path(slurm_like))
    cluster.sweep()
    used = sum(file.stat().st_blocks // 2 for file in small_disk.rglob("*"))
    (small_disk / "everything").write_bytes(b"\0" * 1024 * (400 - used - room))
    with pytest.raises(ClusterError) as caught:
        submit(cluster, tree=incompressible)
    assert caught.value.code == "cluster.disk-full"
    assert "No space left" in caught.value.cause
    assert slurm_like.jobs == []
    (small_disk / "everything").unlink()
    for folder in ("runs", "active", "tmp"):
        assert not list((small_disk / "job" / folder).iterdir()), folder
    assert submit(cluster, tree=incompressible) == Submitted("1000")
    cluster.close()


def test_a_record_that_has_no_room_keeps_the_old_one(small_disk: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(small_disk / "job", "slurm", with_path(slurm_like))
    submit(cluster)
    with pytest.raises(ClusterError) as caught:
        cluster.save(KEY, "x" * 500_000, "running")
    assert caught.value.code == "cluster.disk-full"
    files = cluster.fetch(KEY, 0, 0, 0)
    assert files is not None
    assert files.record == f'{{"key": "{KEY}"}}'
    wait_until(lambda: not list((small_disk / "job" / "tmp").iterdir()))
    cluster.close()


def test_a_read_only_folder(small_disk: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(small_disk / "job", "slurm", with_path(slurm_like))
    submit(cluster)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert [run.job_id for run in cluster.sweep().runs] == ["1000"], "looking still works"
    for change in (lambda: cluster.claim(claim_request("1" * 16)), lambda: cluster.save(KEY, "{}", "x"), lambda: cluster.retire(KEY)):
        with pytest.raises(ClusterError) as caught:
            change()
        assert caught.value.code == "cluster.not-writable"
    cluster.close()


def few_tools(tmp_path: Path) -> Path:
    """A folder with what a login node has at least, and no Slurm."""
    folder = tmp_path / "tools"
    folder.mkdir()
    names = ("sh", "bash", "awk", "dd", "env", "sed", "mkdir", "mv", "rm", "tar", "gzip", "tee", "cat", "touch", "sleep", "stat", "head")
    for name in (*names, "date", "xargs", "tail", "timeout", "find", "uname"):
        (folder / name).symlink_to(shutil.which(name) or "")
    return folder


def test_there_is_no_sbatch(tmp_path: Path, job_dir: Path) -> None:
    tools = few_tools(tmp_path)
    env = {"PATH": str(tools), "HOME": str(tmp_path), "SHELL": "/bin/true"}
    cluster = local(job_dir, "slurm", env)
    with pytest.raises(ClusterError) as caught:
        cluster.claim(claim_request())
    assert caught.value.code == "cluster.no-sbatch"
    assert not list((job_dir / "runs").iterdir())
    cluster.close()


def test_sbatch_that_only_login_shells_know_is_found(tmp_path: Path, job_dir: Path, slurm_like: PretendSlurm) -> None:
    tools = few_tools(tmp_path)
    (tmp_path / ".profile").write_text(f"echo Welcome\nPATH='{slurm_like.bin}':$PATH\n")
    env = {"PATH": str(tools), "HOME": str(tmp_path), "SHELL": str(tools / "bash")}
    cluster = local(job_dir, "slurm", env)
    assert submit(cluster) == Submitted("1000")
    cluster.close()


# --------------------------------------------------------------------------- somebody else answers


class Says(LocalShell):
    """A far side that says something of its own instead of running the program."""

    def __init__(self, text: str) -> None:
        super().__init__(f"cat >/dev/null & {text}", environment())


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("echo 'This account is currently not available.'; exit 1", "This account is currently not available."),
        ("printf 'token=ghs_abcdefghijklmnopqrstuvwxyz0123456789 \\033[31mred'; exit 0", "token=*** red"),
        ("exit 254", "It said nothing"),
        ("yes noise | head -c 3000000", "noise noise"),
    ],
)
def test_a_foreign_answer_is_quoted(text: str, heard: str, job_dir: Path) -> None:
    cluster = LedgerCluster(lambda: Says(text), str(job_dir), "slurm")
    with pytest.raises(ClusterError) as caught:
        cluster.sweep()
    assert caught.value.code == "cluster.bad-answer"
    assert heard in caught.value.cause
    assert len(caught.value.cause) < 600
    cluster.close()


def test_after_a_timeout_nothing_is_misunderstood(job_dir: Path, slurm_like: PretendSlurm) -> None:
    """The late answer to one request must not become the answer to the next."""
    talk = Conversation(open_local(with_path(slurm_like)), "slurm", str(job_dir))
    talk.ask("sweep")
    with pytest.raises(ClusterError) as caught:
        talk.answer(0)
    assert caught.value.code == "cluster.timeout"
    time.sleep(1)
    with pytest.raises(ClusterError) as caught:
        talk.ask("find", "pr-7")
    assert caught.value.code == "cluster.timeout"
    talk.close()


def test_a_noisy_login_shell_does_no_harm(job_dir: Path, slurm_like: PretendSlurm) -> None:
    noise = "echo Welcome; echo '@0 hello 1 slurm /'; printf 'quota: 81 %%'; printf 'no end' >&2; "
    cluster = LedgerCluster(lambda: LocalShell(noise + command(), with_path(slurm_like)), str(job_dir), "slurm")
    assert submit(cluster) == Submitted("1000")
    cluster.close()


@pytest.mark.parametrize("job_dir_name", ["relative", "~/x", "/a\nb"])
def test_a_job_dir_that_is_not_absolute(job_dir_name: str) -> None:
    with pytest.raises(ClusterError) as caught:
        local(job_dir_name, "slurm", {})
    assert caught.value.code == "cluster.job-dir"


@pytest.mark.parametrize("bad", ["../x", "", "a/b", "a b", "A" * 16, "a\nb", "x" * 300])
def test_names_that_could_leave_the_ledger(bad: str, cluster: LedgerCluster) -> None:
    for request in (
        lambda: cluster.claim(claim_request(bad)),
        lambda: cluster.claim(claim_request(tags=(bad,))),
        lambda: cluster.find(bad),
        lambda: cluster.retire(bad),
        lambda: cluster.save(bad, "{}", "x"),
        lambda: cluster.save(KEY, "{}", "a\nb"),
    ):
        with pytest.raises(ValueError):
            request()


def test_the_far_side_checks_names_itself(job_dir: Path, slurm_like: PretendSlurm) -> None:
    """Straight to the program, past our own checks: nothing is made outside job_dir."""
    words = f"claim ../../x {'a' * 64} g tag 3 find ../x fetch ../.. 0 1 1 x - retire ../x cancel a/b why"
    words += f" fetch {KEY} 0 1 1 x $(x) fetch {KEY} 0 1 1 x ../1"
    lines = ["@m", "1", "slurm", str(job_dir), *words.split()]
    done = subprocess.run(
        ["sh", "-c", command()],
        input=program() + "".join(f"{line}\n" for line in lines).encode(),
        capture_output=True,
        env=with_path(slurm_like),
    )
    assert done.stdout.decode().split("\n").count("@m fail cluster.bad-request") == 7
    assert {file.name for file in job_dir.parent.iterdir()} == {job_dir.name, "slurm"}


def test_codes_that_the_program_uses_are_in_the_catalogue() -> None:
    import re

    codes = set(re.findall(rb"cluster\.[a-z-]+", program()))
    assert {code.decode() for code in codes} <= set(CATALOGUE)


# --------------------------------------------------------------------------- jobs on this machine


def test_a_local_job_runs_detached_and_leaves_its_status(shell: str, job_dir: Path) -> None:
    cluster = local(job_dir, "local", {**environment(), "PATH": shell, "LC_ALL": "C.UTF-8"})
    answer = submit(cluster, body="pwd; cat code/train.py; echo $LC_ALL; echo to stderr >&2; sleep 1; exit 7")
    assert isinstance(answer, Submitted)
    assert cluster.sweep().runs[0].alive
    cluster.close()
    wait_until(lambda: (job_dir / "runs" / KEY / "exit").exists())
    cluster = local(job_dir, "local", {**environment(), "PATH": shell})
    (run,) = cluster.sweep().runs
    assert (run.job_id, run.exit_file, run.alive) == (answer.job_id, "7", False)
    files = cluster.fetch(KEY, 0, 1000, 0)
    assert files is not None
    assert files.log.decode() == f"{job_dir}/runs/{KEY}\nprint('hi')\nC.UTF-8\nto stderr\n"
    cluster.close()


def test_a_local_job_can_be_cancelled_with_everything_that_it_started(job_dir: Path, tmp_path: Path) -> None:
    cluster = local(job_dir, "local", environment())
    mark = tmp_path / "still there"
    submit(cluster, body=f"trap 'echo caught; exit 3' TERM; (sleep 2; touch '{mark}') & wait")
    time.sleep(0.3)
    assert cluster.cancel(KEY).status == 0
    wait_until(lambda: not cluster.sweep().runs[0].alive)
    time.sleep(2)
    assert not mark.exists()
    assert cluster.cancel(KEY).status == 0, "cancelling what has ended is no error"
    cluster.close()


def test_a_pid_that_was_given_to_somebody_else_is_not_the_job(job_dir: Path) -> None:
    cluster = local(job_dir, "local", environment())
    submit(cluster, body="true")
    wait_until(lambda: (job_dir / "runs" / KEY / "exit").exists())
    (job_dir / "runs" / KEY / "exit").unlink()
    (job_dir / "runs" / KEY / "job").write_text(f"{os.getpid()}-12345\n")
    assert not cluster.sweep().runs[0].alive
    cluster.cancel(KEY)  # would be our own end
    cluster.close()


def test_the_shell_outlives_a_client_that_was_killed(job_dir: Path, slurm_like: PretendSlurm) -> None:
    """The client is killed while sbatch runs: the far side writes the job down nevertheless."""
    slurm_like.mode("sbatch", "slow")
    shown: list[Channel] = []

    def once(channel: Channel) -> None:
        shown.append(channel)
        if len(shown) > 1:
            raise ClusterError("cluster.cut", "a killed client does not come back")

    cluster = local(job_dir, "slurm", with_path(slurm_like), once)
    answer = cluster.claim(claim_request())
    assert isinstance(answer, Claimed)
    thread = threading.Thread(target=cluster.submit, args=[submission(answer)])
    thread.start()
    wait_until(lambda: list((job_dir / "runs").glob("*/commit.*")))
    channel = shown[0]
    assert isinstance(channel, LocalShell)
    os.kill(channel.pid, signal.SIGHUP)
    os.kill(channel.pid, signal.SIGTERM)
    channel._stdin.close()
    wait_until(lambda: (job_dir / "runs" / KEY / "job").exists())
    thread.join()
    assert slurm_like.jobs == ["1000"]
    cluster.close()


def test_what_is_remembered_under_every_shell(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "slurm", with_path(slurm_like, shell))
    name, lines = "ab" * 16, ['{"loss": 1.5}', "x" * 60_000, "'; $(touch hacked) `id` \\n %s", "ü"]
    assert cluster.history(name) == ""
    for line in lines:
        cluster.remember(name, line)
    assert cluster.history(name).splitlines() == lines
    assert cluster.history("cd" * 16) == ""
    with (job_dir / "history" / name).open("a") as torn:
        torn.write('{"loss": 1.')
    cluster.remember(name, lines[0])
    assert cluster.history(name).splitlines() == [*lines, '{"loss": 1.', lines[0]], "a line that was cut takes no other with it"
    for bad in ("two\nlines", "x" * 65_536):
        with pytest.raises(ValueError, match="one short line"):
            cluster.remember(name, bad)
    with pytest.raises(ValueError, match="history"):
        cluster.history("../x")
    (job_dir / "history" / name).write_text("".join(f"{number:09d}\n" for number in range(110_000)))
    newest = cluster.history(name).splitlines()
    assert (newest[-1], len(newest[0])) == ("000109999", 9)
    cluster.close()


def test_a_shared_job_is_ended_by_the_last_who_leaves_it_under_every_shell(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "slurm", with_path(slurm_like, shell))
    assert submit(cluster) == Submitted("1000")
    others = ("e" * 16, "f" * 16)
    for other in others:
        cluster.claim(ClaimRequest(other, TREE.digest, "group-1", ()))
        assert cluster.adopt(other, KEY, "{}") == "1000"

    def ended() -> bool:
        return "scancel 1000" in slurm_like.calls

    assert cluster.cancel(KEY, "cancelled by alice").others == others
    cluster.retire(KEY)
    late = "d" * 16
    claimed = cluster.claim(ClaimRequest(late, TREE.digest, "group-1", ("content-2",)))
    assert isinstance(claimed, Claimed)
    assert cluster.adopt(late, KEY, "{}") is None, "nobody joins what was given up"
    assert not ended()
    assert [run.run_key for run in cluster.sweep().runs] == list(others)
    assert cluster.find("content-2") == ()
    cluster.abandon(late)
    assert cluster.cancel(others[0], "a newer commit was pushed").others == (others[1],)
    assert not ended()
    assert (cluster.cancel(others[1], "two\nlines"), ended()) == (GivenUp(0, ""), True)
    for key, why in ((KEY, "cancelled by alice"), (others[0], "a newer commit was pushed"), (others[1], "two lines")):
        files = cluster.fetch(key, 0, 0, 0)
        assert files is not None
        assert files.given_up == why
    cluster.cancel(KEY, "cancelled by bob")
    files = cluster.fetch(KEY, 0, 0, 0)
    assert files is not None
    assert files.given_up == "cancelled by alice", "whoever was first"
    cluster.close()


def test_who_joins_what_nobody_wants_any_more_ends_it_and_is_claimed_as_before(job_dir: Path, slurm_like: PretendSlurm) -> None:
    """The other one left without seeing us: one of the two has to end the job."""
    cluster = local(job_dir, "slurm", with_path(slurm_like))
    assert submit(cluster) == Submitted("1000")
    (job_dir / "runs" / KEY / "left").write_text("cancelled by alice\n")
    other = "f" * 16
    claimed = cluster.claim(claim_request(other, TREE))
    assert isinstance(claimed, Claimed)
    assert cluster.adopt(other, KEY, "{}") is None
    assert "scancel 1000" in slurm_like.calls
    assert cluster.submit(submission(claimed, other)) == Submitted("1001")
    cluster.close()


def test_a_run_that_has_what_another_has_under_every_shell(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    cluster = local(job_dir, "slurm", with_path(slurm_like, shell))
    assert submit(cluster) == Submitted("1000")
    (job_dir / "runs" / KEY / "logs" / "log-x_1000_0.out").write_text("the log\n")
    other, tags = "f" * 16, ("content-1", "pr-8")
    claimed = cluster.claim(ClaimRequest(other, TREE.digest, "group-1", tags))
    assert isinstance(claimed, Claimed)
    assert cluster.adopt(other, KEY, '{"same": 1}') == "1000"
    assert slurm_like.jobs == ["1000"], "nothing is submitted"
    assert {run.run_key: run.job_id for run in cluster.sweep().runs} == {KEY: "1000", other: "1000"}
    (job_dir / "runs" / KEY / "code" / "results.json").write_text('{"loss": 1}')
    (job_dir / "runs" / KEY / "exit").write_text("0\n")
    files = cluster.fetch(other, 0, 100, 100, "code/results.json")
    assert files is not None
    assert (files.record, files.log, files.results, files.job_id) == ('{"same": 1}', b"the log\n", b'{"loss": 1}', "1000")
    assert {run.run_key: run.exit_file for run in cluster.sweep().runs} == {KEY: "0", other: "0"}
    assert cluster.find("content-1") == ('{"same": 1}',)
    assert cluster.claim(ClaimRequest(other, TREE.digest, "group-1", tags)) == AlreadySubmitted("1000", '{"same": 1}')
    for key, of in (("e" * 16, KEY), (other, KEY)):
        with pytest.raises(ClusterError) as caught:
            cluster.adopt(key, of, "{}")
        assert caught.value.code == "cluster.claim-lost"
    (job_dir / "runs" / KEY / "job").unlink()  # where old files are purged, some go before others
    late = cluster.claim(ClaimRequest("d" * 16, TREE.digest, "group-1", ()))
    assert isinstance(late, Claimed)
    for of in (KEY, "c" * 16):
        assert cluster.adopt("d" * 16, of, "{}") is None
    assert cluster.submit(submission(late, "d" * 16)) == Submitted("1001"), "it is run by itself"
    cluster.close()


def test_the_logs_of_who_has_what_another_has_are_that_ones_under_every_shell(shell: str, job_dir: Path, slurm_like: PretendSlurm) -> None:
    """They bear its name: of an array's tasks and of a chain's jobs each is found, and that of the task that failed."""
    cluster = local(job_dir, "slurm", with_path(slurm_like, shell))
    submit(cluster)
    folder, other = job_dir / "runs" / KEY, "f" * 16
    cluster.claim(ClaimRequest(other, TREE.digest, "group-1", ()))
    assert cluster.adopt(other, KEY, "{}") == "1000"
    for name in ("1000_0_0", "1000_1_0", "1000_2_0", "1001_0"):
        (folder / "logs" / f"log-dispatch-{KEY}_{name}.out").write_text(name)
    for task in range(3):
        (folder / "logs" / f"sbatch_dispatch-{KEY}_1000_{task}.out").write_text(f"batch {task}")
    (folder / "exit.1").write_text("3\n")

    def logs(key: str) -> list[bytes]:
        parts: list[Part | None] = [None, 0, 2, 1001, "batch"]
        return [files.log for part in parts if (files := cluster.fetch(key, 0, 100, 0, part=part))]

    assert logs(KEY) == [b"1000_1_0", b"1000_0_0", b"1000_2_0", b"1001_0", b"batch 1"]
    assert logs(other) == logs(KEY)
    cluster.close()
