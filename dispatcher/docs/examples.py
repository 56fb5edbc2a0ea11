"""Invented runs → the comments that the dispatcher would write about them, through the very code that writes them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from dispatcher.answer import Voice
from dispatcher.authorise import Denial
from dispatcher.profile import UnknownProfile
from dispatcher.record import Resources, RunRecord, Target
from dispatcher.refusals import denied, unknown_profile
from dispatcher.report import run_report
from dispatcher.slurm import State

_ASKED = datetime(2026, 3, 2, 14, 2, tzinfo=timezone.utc)
_FOLDER = "/lustre/ci/dispatch/runs/4f1c2d3e4f5a6b7c"
_RUN = RunRecord(
    run_key="4f1c2d3e4f5a6b7c",
    content_key="0" * 64,
    digest="0" * 64,
    target=Target(repository="org/model", pull=12, command_comment=1),
    trigger="comment:1",
    actor="alice",
    sha="a1b2c3d4e5f60718293a4b5c6d7e8f9001122334",
    profile="cluster",
    recipe="default",
    program="train.py",
    overrides=("train.iters=200",),
    executor="slurm",
    cluster="ci@login.example.com",
    run_dir=_FOLDER,
    log_template=f"https://ondemand.example.com/pun/sys/dashboard/files/fs{_FOLDER}/logs/log-dispatch-4f1c2d3e4f5a6b7c_12345_0.out",
    resources=Resources(nodes=2, gpus_per_node=8, seconds=4 * 3600, partition="batch"),
    asked_at=_ASKED,
    submitted_at=_ASKED + timedelta(seconds=4),
    job_id="12345",
    state=State.PENDING,
)
_TAIL = """step 180 | loss 1.902 | 411 samples/s
step 190 | loss 1.894 | 412 samples/s
Traceback (most recent call last):
  File "train.py", line 41, in <module>
    loss = step(batch)
RuntimeError: shape '[8, 4096]' is invalid for input of size 16384"""


def waiting() -> str:
    """The first comment."""
    return _comment(_RUN)


def passed() -> str:
    """The same comment, later."""
    return _comment(_ended(State.SUCCEEDED, timedelta(minutes=12, seconds=4), results={"loss": 1.873, "samples_per_s": 412.0}))


def failed() -> str:
    """A run that failed, with the end of its log."""
    return _comment(_ended(State.FAILED, timedelta(minutes=3, seconds=12), exit_code=1), _TAIL)


def refused() -> str:
    """Two answers to commands that started nothing."""
    rule = "(rule `profiles.cluster.allow` in `.github/dispatch.yml`)"
    words = f"**`bob` may not use profile `cluster`.** It takes membership of `org/ml-team` {rule}."
    no = denied(Denial("role-too-low", words, "Somebody who may can run it with the same command."), "comment:2")
    unknown = unknown_profile(UnknownProfile("clutser", "cluster", ("cluster", "cluster-large", "local")), "comment:3", Voice())
    return f"{no.summary}\n\n{unknown.summary}"


def _ended(state: State, after: timedelta, **more: object) -> RunRecord:
    started = _ASKED + timedelta(minutes=18)
    return _RUN.model_copy(update={"state": state, "started_at": started, "ended_at": started + after, "nodes": "n[1-2]", **more})


def _comment(record: RunRecord, tail: str = "") -> str:
    now = (record.ended_at or record.asked_at) + timedelta(minutes=1)
    return run_report(record, tail, now, Voice()).summary
