"""The queue over a real SSH connection, before a real Slurm."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from dispatcher.ports import AlreadySubmitted, Held, Refused, Submitted
from dispatcher.slurm import State
from tests.integration.clusters import KEY, claim_request
from tests.integration.test_submit_slurm import connect, wait_for, wanted
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd


def test_held_released_and_run(cluster_sshd: Sshd, slurm: SlurmRig, tmp_path: Path) -> None:
    """One login lays it ready and goes away; of the others that come later one brings it to Slurm."""
    first = connect(cluster_sshd, tmp_path / "job dir")
    assert first.submit(replace(wanted(first.claim(claim_request())), hold=True, usage=f"2026-11 {KEY} x")) == Held()
    first.close()
    assert jobs_in(tmp_path, slurm) == 0
    others = [connect(cluster_sshd, tmp_path / "job dir") for _ in range(3)]
    outcomes: list[object] = []

    def sweep(number: int) -> None:
        assert others[number].lock()
        if others[number].standing().queued:
            outcomes.append(others[number].release(KEY))
        others[number].unlock()

    threads = [threading.Thread(target=sweep, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (outcome,) = outcomes
    assert isinstance(outcome, Submitted)
    seen = wait_for(others[0], outcome.job_id, State.SUCCEEDED)
    assert seen.exit_code == 0
    assert jobs_in(tmp_path, slurm) == 1
    again = others[1].claim(claim_request())
    assert isinstance(again, AlreadySubmitted)
    assert again.job_id == outcome.job_id
    assert others[2].usage("2026-11") == f"2026-11 {KEY} x\n"
    for other in others:
        other.close()


def test_what_slurm_refuses_leaves_the_queue(cluster_sshd: Sshd, slurm: SlurmRig, tmp_path: Path) -> None:
    made = connect(cluster_sshd, tmp_path / "job dir")
    assert made.submit(replace(wanted(made.claim(claim_request()), options="#SBATCH --partition=nowhere"), hold=True)) == Held()
    refused = made.release(KEY)
    assert isinstance(refused, Refused)
    assert "partition" in refused.words
    assert made.sweep().queued == (KEY,), "until whoever has said so drops it"
    assert made.drop(KEY)
    assert made.sweep().queued == ()
    made.close()


def jobs_in(folder: Path, slurm: SlurmRig) -> int:
    """How many jobs there are of this folder's ledger: other tests have runs with the same key."""
    return slurm.run("squeue", "--states=all", "-h", "-o", "%Z").count(str(folder))
