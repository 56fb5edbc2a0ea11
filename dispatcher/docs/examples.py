"""Invented runs → the comments that the dispatcher would write about them, through the very code that writes them."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

from dispatcher.answer import Voice
from dispatcher.approval import Request
from dispatcher.authorise import Denial, Facts
from dispatcher.causes import Kind
from dispatcher.failure import Failure, Place
from dispatcher.gate import Requirement, judge
from dispatcher.gatereport import gate_lines
from dispatcher.group import group_lines
from dispatcher.helping import help_words
from dispatcher.overlay import RunCurve
from dispatcher.policy import load_policy
from dispatcher.profile import UnknownProfile
from dispatcher.record import Member, Resources, RunRecord, Target
from dispatcher.refusals import denied, parked, unknown_profile
from dispatcher.report import run_report
from dispatcher.series import Curve, Point, curve_of
from dispatcher.slurm import State
from dispatcher.thresholds import Compared, Margin, MetricRule
from dispatcher.thresholds import judge as judge_metrics
from dispatcher.waiver import WaiverRecord

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
    link = "https://wandb.ai/my-team/pretraining/runs/k3x9a2b1"
    results = {"loss": 1.873, "samples_per_s": 412.0}
    return _comment(_ended(State.SUCCEEDED, timedelta(minutes=12, seconds=4), results=results, wandb_url=link))


def failed() -> str:
    """A run that failed, with the end of its log."""
    evidence = _TAIL.splitlines()[-1]
    places = (Place(path="train.py", line=41, function="<module>"),)
    failure = Failure(kind=Kind.CODE, cause="exception", evidence=evidence, said_by="log", error="RuntimeError", places=places)
    return _comment(_ended(State.FAILED, timedelta(minutes=3, seconds=12), exit_code=1, failure=failure), _TAIL)


def worse() -> str:
    """A run that ended well and measured worse than the default branch's runs, with its curve beside theirs."""
    margin = Margin(0.03, True)
    rules = {
        "loss": MetricRule(no_worse_than="baseline"),
        "tokens_per_second": MetricRule(no_worse_than="baseline", better="higher", tolerance=margin),
        "peak_memory_gb": MetricRule(max=78.0),
    }
    measured = {"loss": 1.994, "tokens_per_second": 41_870.0, "peak_memory_gb": 71.3}
    theirs = RunCurve(run_key="9c" * 8, sha="c0ffee" + "5" * 34, value=1.871, curve=_curve(1.871, 0.045))
    median = "median of the default branch's last 10 runs"
    spread = {"loss": Compared(1.873, 0.006, f"the {median}", theirs), "tokens_per_second": Compared(42_100.0, 310.0, f"the {median}")}
    verdicts = judge_metrics(rules, measured, {"baseline": spread})
    more = {
        "results": measured,
        "verdicts": verdicts,
        "results_problem": verdicts[0].why,
        "curves": (_curve(1.994, 0.03),),
        "overrides": (),
    }
    return _comment(_ended(State.SUCCEEDED, timedelta(minutes=12, seconds=4), **more))


def failed_memory() -> str:
    """A run whose GPU memory was too small, as one rank of several said it."""
    evidence = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total capacity of 79.11 GiB"
    places = (Place(path="train.py", line=31, function="main"), Place(path="src/model/attention.py", line=118, function="forward"))
    words = {"kind": Kind.GPU_MEMORY, "cause": "gpu-memory", "evidence": evidence, "said_by": "log", "error": "OutOfMemoryError"}
    failure = Failure.model_validate({**words, "rank": 3, "places": places})
    return _comment(_ended(State.FAILED, timedelta(minutes=3, seconds=12), exit_code=1, failure=failure))


def several() -> str:
    """The comment of a command that became four runs."""
    found: list[RunRecord] = []
    for number, (profile, rate) in enumerate((("cluster", "1e-3"), ("cluster", "3e-4"), ("large", "1e-3"), ("large", "3e-4"))):
        state = (State.SUCCEEDED, State.FAILED, State.RUNNING, State.QUEUED)[number]
        after = timedelta(minutes=12, seconds=4)
        record = _ended(state, after, overrides=(f"lr={rate}", "train.iters=200")) if state.ended else _RUN
        more: dict[str, object] = {"run_key": f"{number + 4}f1c2d3e4f5a6b7c", "profile": profile, "state": state, "log_template": ""}
        more |= {"overrides": (f"lr={rate}", "train.iters=200"), "job_id": "" if state is State.QUEUED else str(12345 + number)}
        more |= {"exit_code": 1} if state is State.FAILED else {"results": {"loss": 1.873}} if state is State.SUCCEEDED else {}
        more |= {"started_at": _ASKED + timedelta(minutes=18)} if state is State.RUNNING else {}
        more |= {"reason": "place 1 in the queue: profile large has 1 of 1 active runs"} if state is State.QUEUED else {}
        found.append(record.model_copy(update=more))
    members = tuple(Member(run_key=record.run_key, profile=record.profile) for record in found)
    lines = group_lines(members, {record.run_key: record for record in found}, {}, _ASKED + timedelta(minutes=31), Voice())
    return "\n".join(lines)


def stages() -> str:
    """The comment of a pipeline of which one stage is running."""
    states = {"pretrain": State.SUCCEEDED, "sft": State.RUNNING, "rl": State.PENDING, "rescue": State.SKIPPED}
    profiles = {"pretrain": "large", "sft": "cluster", "rl": "cluster", "rescue": "cluster"}
    keys = {stage: f"{number + 4}f1c2d3e4f5a6b7c" for number, stage in enumerate(states)}
    members = tuple(
        Member(
            run_key=key,
            profile=profiles[stage],
            stage=stage,
            after=() if stage == "pretrain" else (keys["sft" if stage == "rl" else "pretrain"],),
            when="afternotok" if stage == "rescue" else "afterok",
        )
        for stage, key in keys.items()
    )
    found: dict[str, RunRecord] = {}
    for number, (stage, state) in enumerate(states.items()):
        record = _ended(state, timedelta(minutes=12, seconds=4)) if state.ended else _RUN
        more: dict[str, object] = {"run_key": keys[stage], "profile": profiles[stage], "recipe": stage, "state": state, "group": members}
        more |= {"pipeline": "nano", "stage": stage, "job_id": str(12345 + number), "log_template": "", "overrides": ("train.iters=200",)}
        more |= {"results": {"loss": 1.873}} if state is State.SUCCEEDED else {}
        more |= {"started_at": _ASKED + timedelta(minutes=18)} if state is State.RUNNING else {}
        more |= {"reason": "Dependency"} if state is State.PENDING else {}
        more |= {"reason": "stage pretrain passed in 12m 04s"} if state is State.SKIPPED else {}
        found[keys[stage]] = record.model_copy(update=more)
    return "\n".join(group_lines(members, found, {}, _ASKED + timedelta(minutes=31), Voice()))


def waits() -> str:
    """Two requests that wait for somebody's approval."""
    asked = {"sha": _RUN.sha, "trigger": "comment:4", "actor": "carol", "lines": ("profile=cluster",)}
    fork = parked(Request.model_validate({**asked, "why": "fork"}), Voice())
    second = parked(Request.model_validate({**asked, "actor": "alice", "why": "second", "rule": "approval.gpu_hours"}), Voice())
    return f"{fork.summary}\n\n{second.summary}"


def overridden() -> str:
    """The gate's check while an exception holds."""
    waiver = WaiverRecord(
        gate="dispatch/gate",
        sha=_RUN.sha,
        actor="dana",
        reason="the cluster is down until Monday",
        made_at=_ASKED,
        expires_at=_ASKED + timedelta(days=1),
    )
    verdict = judge((Requirement("cluster", "default", "train.py"),), (), _RUN.sha, waiver)
    return "\n".join(gate_lines(verdict, (), "/train"))


def helped() -> str:
    """What `help` says to somebody with write access, with a policy of a few lines."""
    text = "default_profile: cluster\nprofiles: { large: { allow: { teams: [org/ml-team] }, limits: { gpu_hours: 512 } } }\n"
    policy = load_policy(text + "limits: { gpu_hours: 64 }\nrecipes: { default: { script: train.py } }\n")
    return help_words("", policy, Facts("alice", "write"), ("cluster", "large"), "/train", "comment:5").summary


def refused() -> str:
    """Two answers to commands that started nothing."""
    rule = "(rule `profiles.cluster.allow` in `.github/dispatch.yml`)"
    words = f"**`bob` may not use profile `cluster`.** It takes membership of `org/ml-team` {rule}."
    no = denied(Denial("role-too-low", words, "Somebody who may can give the same command."), "comment:2")
    unknown = unknown_profile(UnknownProfile("clutser", "cluster", ("cluster", "cluster-large", "local")), "comment:3", Voice())
    return f"{no.summary}\n\n{unknown.summary}"


def _curve(end: float, rate: float) -> Curve:
    """A loss that falls from 10.4 to `end` in 200 steps."""
    points = [Point(step, round(end + (10.4 - end) * math.exp(-rate * step), 3)) for step in range(201)]
    curve = curve_of("loss", points, limit=40)
    if curve is None:
        raise ValueError("there is nothing to draw")
    return curve


def _ended(state: State, after: timedelta, **more: object) -> RunRecord:
    started = _ASKED + timedelta(minutes=18)
    return _RUN.model_copy(update={"state": state, "started_at": started, "ended_at": started + after, "nodes": "n[1-2]", **more})


def _comment(record: RunRecord, tail: str = "") -> str:
    now = (record.ended_at or record.asked_at) + timedelta(minutes=1)
    return run_report(record, tail, now, Voice()).summary
