"""A thousand active runs, real ones with real jobs in Slurm's queue → what one look at all of them takes."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from datetime import datetime, timezone

from dispatcher.effects.ledger import LedgerCluster, open_local
from dispatcher.manifest import render_manifest
from dispatcher.observe import reported_as
from dispatcher.ports import Claimed, ClaimRequest, FileEntry, Submission, Submitted, Upload
from dispatcher.record import RunRecord
from dispatcher.record import Target as Reported
from dispatcher.slurm import State
from dispatcher.tarball import Member, tar_gz
from tests.bench.contenders import BIN
from tests.bench.process import run
from tests.bench.results import Section, Target, mid, seconds
from tests.rig.latency import LatencyProxy
from tests.rig.slurm import SlurmRig
from tests.stage import Stage

CHANGED = 5
SCRIPT = "#!/bin/sh\n#SBATCH --account=ml --partition=batch --time=5 --output=logs/log-%j.out --hold\nexit 0\n"
HELD = "JobHeldUser"
"""Why all of them wait: unlike the scheduler's other reasons it does not change by itself."""
CONFIGURATION = re.compile(r"/contents/")


def measure(stage: Stage, slurm: SlurmRig, wire: LatencyProxy, runs: int, count: int, rtt: int = 50) -> Section:
    """`watch` as the action runs it: with nothing changed, then with a few jobs ended; GitHub's requests are counted."""
    wire.set_rtt(0)
    commented = [_by_comment(stage) for _ in range(CHANGED)]
    _fill(stage, slurm, runs - CHANGED)
    wire.set_rtt(rtt / 1000)
    slurm.run("scontrol", "hold", *commented)
    still = [_look(stage) for _ in range(count + 1)][1:]
    slurm.run("scancel", *commented)
    for job in commented:
        slurm.wait_for_state(job, "CANCELLED")
    ended = _look(stage)
    rows = (
        (f"{runs:,} active, nothing changed", seconds(mid([look.seconds for look in still])), str(still[0].commands), str(still[0].github)),
        (f"{runs:,} active, {CHANGED} ended", seconds(ended.seconds), str(ended.commands), str(ended.github)),
    )
    targets = (
        Target(f"a look at {runs:,} active runs, {rtt} ms", mid([look.seconds for look in still]), 3.0, "s"),
        Target("commands per look", max(look.commands for look in [*still, ended]), 1, ""),
        Target("GitHub requests about runs that have not changed", max(look.github for look in still), 0, ""),
        Target(f"GitHub requests about {CHANGED} runs that ended", ended.github, 10 * CHANGED, "", "10 each"),
    )
    raw = {"still": [look.__dict__ for look in still], "ended": ended.__dict__}
    return Section("Looking at what is active", ("what", "time", "commands over SSH", "GitHub requests about runs"), rows, targets, raw)


class _Look:
    """One sweep: its seconds, the commands over SSH, the requests to GitHub that are not for policy and profiles."""

    def __init__(self, stage: Stage) -> None:
        stage.server.requests.clear()
        mark = stage.sshd.mark()
        environment = stage.environment(GITHUB_EVENT_NAME="schedule")
        ran = run([str(BIN / "nemotron-dispatch"), "watch"], environment, stage.folder)
        self.seconds = ran.seconds
        self.commands = stage.sshd.sessions(mark)
        self.github = len([seen for seen in stage.server.requests if not CONFIGURATION.search(seen.path)])
        self.said = ran.stderr.strip().splitlines()[-1:]


def _look(stage: Stage) -> _Look:
    return _Look(stage)


def _by_comment(stage: Stage) -> str:
    """A run as users start it, with a comment and a check; its job's id."""
    ended = stage.comment("/train steps=1")
    assert ended.code == 0, ended.stderr
    return ended.outputs["job-id"]


def _fill(stage: Stage, slurm: SlurmRig, runs: int) -> None:
    """More runs, through the same ledger program on this machine, each with its own job; all have been reported as pending."""
    content = b"print('loss 1.0')\n"
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    file = FileEntry("train.py", "100644", blob, len(content))
    digest = hashlib.sha256(b"bench").hexdigest()
    environment = {"PATH": os.environ["PATH"], "HOME": str(stage.folder), **slurm.env}
    cluster = LedgerCluster(lambda: open_local(environment), str(stage.job_dir), "slurm")
    now = datetime.now(timezone.utc)
    try:
        for number in range(runs):
            key = hashlib.sha256(b"run %d" % number).hexdigest()[:16]
            claim = cluster.claim(ClaimRequest(key, digest, "bench", ("bench",)))
            assert isinstance(claim, Claimed)
            record = _record(stage, key, digest, now)
            upload = None if claim.has_package else Upload(lambda: tar_gz([Member(file, len(content), iter([content]))]))
            answer = cluster.submit(Submission(key, record.to_json(), SCRIPT, (), "", render_manifest([file]), upload))
            assert isinstance(answer, Submitted), answer
            pending = record.model_copy(update={"job_id": answer.job_id, "state": State.PENDING, "reason": HELD})
            cluster.save(key, pending.to_json(), reported_as(pending))
            if number % 100 == 99:
                print(f"  {number + 1} of {runs} runs are there", file=sys.stderr)
    finally:
        cluster.close()


def _record(stage: Stage, key: str, digest: str, now: datetime) -> RunRecord:
    return RunRecord(
        run_key=key,
        content_key="c" * 64,
        digest=digest,
        target=Reported(repository=stage.repo.full_name, pull=stage.pull.number),
        trigger=f"bench:{key}",
        actor="alice",
        sha=stage.pull.head_sha,
        profile="cluster",
        recipe="default",
        program="train.py",
        executor="slurm",
        cluster=f"{stage.sshd.user}@{stage.sshd.host}",
        run_dir=f"{stage.job_dir}/runs/{key}",
        asked_at=now,
        submitted_at=now,
    )
