"""Submissions to a real Slurm, over a real SSH connection: adopted, cancelled, refused, forgotten, and its faults."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.effects.conversation import command
from dispatcher.effects.ledger import LedgerCluster
from dispatcher.effects.ssh import SshCredentials, SshTarget, open_ssh
from dispatcher.errors import ClusterError
from dispatcher.ports import AlreadySubmitted, Claimed, Refused, Submission, Submitted
from dispatcher.sightings import Sightings
from dispatcher.slurm import Absent, Observation, State
from tests.conftest import started
from tests.integration.clusters import KEY, TREE, claim_request, submission
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd


def connect(server: Sshd, job_dir: Path) -> LedgerCluster:
    to = SshTarget(server.host, server.user, server.known_hosts, server.port)
    return LedgerCluster(lambda: open_ssh(to, SshCredentials(server.key().private), command()), str(job_dir), "slurm")


def wanted(answer: object, key: str = KEY, body: str = "true", options: str = "") -> Submission:
    assert isinstance(answer, Claimed), answer
    made = submission(answer, key)
    lines = [f"--job-name=dispatch-{key}", f"--comment={key}", "--account=ml", "--output=logs/sbatch_%x_%j.out"]
    head = "#!/bin/bash\n" + "".join(f"#SBATCH {line}\n" for line in lines)
    return Submission(key, made.record, f"{head}{options}\n{body}\n", made.files, made.env_file, made.manifest, made.upload)


def sighting(cluster: LedgerCluster, job_id: str) -> object:
    sweep = cluster.sweep()
    return Sightings(sweep.squeue, sweep.sacct, sweep.scontrol).of(job_id)


def wait_for(cluster: LedgerCluster, job_id: str, state: State, seconds: float = 40, coded: bool = False) -> Observation:
    deadline = time.monotonic() + seconds
    while True:
        seen = sighting(cluster, job_id)
        if isinstance(seen, Observation) and seen.state is state and not (coded and seen.exit_code is None):
            return seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.3)


@pytest.fixture
def cluster(cluster_sshd: Sshd, tmp_path: Path) -> Iterator[LedgerCluster]:
    made = connect(cluster_sshd, tmp_path / "job 'dir'")
    yield made
    made.close()


def test_from_claim_to_results(cluster: LedgerCluster, cluster_sshd: Sshd, slurm: SlurmRig, tmp_path: Path) -> None:
    body = "pwd; cat code/train.py; . ./env; echo secret=${#SECRET}; echo '{\"loss\": 1}' >results.json; sleep 1; exit 3"
    answer = cluster.submit(wanted(cluster.claim(claim_request()), body=body))
    assert isinstance(answer, Submitted)
    fields = slurm.run("squeue", "--states=all", "-h", "-j", answer.job_id, "-o", "%j|%k").strip()
    assert fields == f"dispatch-{KEY}|{KEY}"
    # Where squeue knows already, and accounting not yet, there is no exit code for a moment.
    seen = wait_for(cluster, answer.job_id, State.FAILED, coded=True)
    assert seen.exit_code == 3
    assert seen.start is not None
    assert abs(seen.start.timestamp() - time.time()) < 120, "times are UTC"
    files = cluster.fetch(KEY, 0, 1000, 1000)
    assert files is not None
    assert files.log.decode() == f"{tmp_path}/job 'dir'/runs/{KEY}\nprint('hi')\nsecret=6\n"
    assert files.results == b'{"loss": 1}\n'
    again = connect(cluster_sshd, tmp_path / "job 'dir'")
    assert isinstance(again.claim(claim_request()), AlreadySubmitted)
    again.close()


def test_a_running_job_is_cancelled(cluster: LedgerCluster) -> None:
    answer = cluster.submit(wanted(cluster.claim(claim_request()), body="sleep 60"))
    assert isinstance(answer, Submitted)
    wait_for(cluster, answer.job_id, State.RUNNING)
    assert cluster.cancel(KEY).status == 0
    wait_for(cluster, answer.job_id, State.CANCELLED)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("#SBATCH --partition=batchh", "invalid partition"),
        ("#SBATCH --account=nobody", "Invalid account"),
        ("#SBATCH --nodes=99", "Node count"),
        ("#SBATCH --nonsense", "unrecognized option"),
    ],
)
def test_slurms_own_words_for_a_refusal(options: str, words: str, cluster: LedgerCluster, slurm: SlurmRig, tmp_path: Path) -> None:
    answer = cluster.submit(wanted(cluster.claim(claim_request()), options=options))
    assert isinstance(answer, Refused)
    assert words in answer.words
    assert not list((tmp_path / "job 'dir'" / "runs").iterdir())
    assert isinstance(cluster.submit(wanted(cluster.claim(claim_request()))), Submitted)


def test_the_place_in_the_queue(cluster: LedgerCluster, slurm: SlurmRig) -> None:
    everything = "#SBATCH --nodes=4\n#SBATCH --exclusive\n"
    running = slurm.run("sbatch", "--parsable", "--nodes=4", "--exclusive", "--wrap", "sleep 60", "--output=/dev/null").strip()
    slurm.wait_for_state(running, "RUNNING")
    waiting = []
    for key in ("c1" * 8, "c2" * 8):
        answer = cluster.submit(wanted(cluster.claim(claim_request(key)), key, options=everything))
        assert isinstance(answer, Submitted)
        waiting.append(answer.job_id)
    sweep = cluster.sweep()
    sights = Sightings(sweep.squeue, sweep.sacct, sweep.scontrol, sweep.pending)
    first, second = (sights.of(job) for job in waiting)
    slurm.run("scancel", running, *waiting)
    assert isinstance(first, Observation)
    assert isinstance(second, Observation)
    assert first.place is not None
    assert second.place is not None
    assert second.place.number == first.place.number + 1 <= second.place.of == first.place.of


def test_estimates_and_probes(cluster: LedgerCluster, slurm: SlurmRig) -> None:
    before = set(slurm.run("squeue", "-h", "--states=all", "-o", "%i").split())
    head = "#!/bin/sh\n#SBATCH --account=ml\n"
    good = cluster.estimate(f"{head}#SBATCH --nodes=2\ntrue\n")
    assert good.status == 0
    assert "to start at" in good.stderr
    bad = cluster.estimate(f"{head}#SBATCH --partition=batchh\ntrue\n")
    assert bad.status != 0
    assert "invalid partition" in bad.stderr
    assert set(slurm.run("squeue", "-h", "--states=all", "-o", "%i").split()) == before
    probes = {probe.name: probe.output for probe in cluster.probe("ml", "batch")}
    assert probes["sbatch"].stdout.startswith("slurm")
    assert "PartitionName=batch" in probes["partition"].stdout
    assert "ml|" in probes["account"].stdout
    assert "container-image" in probes["pyxis"].stdout
    assert {probe.name: probe.output for probe in cluster.probe("ml", "batchh")}["partition"].status != 0


def test_an_interrupted_submission_adopts_its_job(cluster: LedgerCluster, cluster_sshd: Sshd, slurm: SlurmRig, tmp_path: Path) -> None:
    """Everything of the ledger that was written after sbatch is missing, as after a power cut: the scheduler knows the job's name."""
    answer = cluster.submit(wanted(cluster.claim(claim_request("a" * 16)), "a" * 16, "sleep 30"))
    assert isinstance(answer, Submitted)
    cluster.close()
    run = tmp_path / "job 'dir'" / "runs" / ("a" * 16)
    for name in ("job", "answer", "listed"):
        (run / name).unlink()
    time.sleep(4)
    again = connect(cluster_sshd, tmp_path / "job 'dir'")
    found = again.claim(claim_request("a" * 16))
    assert isinstance(found, AlreadySubmitted)
    assert found.job_id == answer.job_id
    again.cancel("a" * 16)
    again.close()


@pytest.mark.timeout(300)
def test_faults_of_the_scheduler(tmp_path: Path) -> None:
    """slurmdbd gone, slurmctld gone, both back: what is said about a job is never made up, and nothing is submitted twice."""
    with started(SlurmRig()) as slurm, started(Sshd(env=slurm.env)) as server:
        cluster = connect(server, tmp_path)
        answer = cluster.submit(wanted(cluster.claim(claim_request()), body="sleep 8"))
        assert isinstance(answer, Submitted)
        slurm.stop_slurmdbd()
        wait_for(cluster, answer.job_id, State.RUNNING)
        slurm.stop_slurmctld()
        begun = time.monotonic()
        sweep = cluster.sweep()
        assert time.monotonic() - begun < 45
        assert sweep.squeue.status != 0
        assert sweep.sacct.status != 0
        assert not isinstance(Sightings(sweep.squeue, sweep.sacct, sweep.scontrol).of(answer.job_id), (Absent, Observation))
        with pytest.raises(ClusterError) as caught:
            cluster.submit(wanted(cluster.claim(claim_request("b" * 16)), "b" * 16))
        assert caught.value.code == "cluster.scheduler-silent"
        slurm.start_slurmdbd()
        slurm.start_slurmctld()
        seen = wait_for(cluster, answer.job_id, State.SUCCEEDED, 60)
        assert seen.exit_code in (0, None), "squeue knows the end before accounting knows the exit code"
        cluster.close()
        again = connect(server, tmp_path)
        late = again.claim(claim_request("b" * 16))
        if isinstance(late, Claimed):
            late_job = again.submit(wanted(late, "b" * 16))
            assert isinstance(late_job, Submitted)
        again.close()
        names = slurm.run("squeue", "-h", "--states=all", "-o", "%j").split()
        assert sorted(names) == [f"dispatch-{KEY}", f"dispatch-{'b' * 16}"]
    assert TREE.files
