"""Runs that go on in further jobs: when they do, that they stay one run in comment, check, gate and books, and why one ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from dispatcher.causes import CAUSES
from dispatcher.chain import Chain, EarlierJob, Last, Next, continued, with_next_job
from dispatcher.chaining import NotYet, go_on
from dispatcher.configuration import read_policy
from dispatcher.curvereport import progress_line
from dispatcher.effects.logfile import LogFile, LogFolder
from dispatcher.endedlogs import keep_ended
from dispatcher.errors import ConfigError
from dispatcher.failure import Failure
from dispatcher.flow import handle
from dispatcher.following import follow
from dispatcher.gate import Fail, Pending, judge, required_runs
from dispatcher.keeping import keep_log
from dispatcher.keys import commit_tag, pull_tag, run_key
from dispatcher.measuring import with_series
from dispatcher.observe import Seen, look, sights_of
from dispatcher.policy import load_policy
from dispatcher.ports import Check, PullRequest, RunFiles
from dispatcher.record import Resources, RunRecord, parse_record
from dispatcher.series import Curve, Progress
from dispatcher.slurm import State
from dispatcher.terminal import logs
from dispatcher.usage import reserved, used
from dispatcher.watching import watch
from tests.fakes import BASE, HEAD, OTHER, POLICY, PROFILE, REPOSITORY, Fakes, comment_event, run_record

KEY = run_key(REPOSITORY, "comment:99", "cluster", "default", ())
CHAIN = Chain(jobs=3, checkpoints="ckpt", exit_code=85)
CHAINED = POLICY.replace("script: train.py", "script: train.py, chain: { jobs: 3, checkpoints: ckpt, exit_code: 85 }", 1)
CHECK = "dispatch / cluster / default"
ENDED = datetime.fromtimestamp(1714996980, timezone.utc)
ASKED = Resources(nodes=2, gpus_per_node=8, seconds=4 * 3600, partition="batch", jobs=3)
FOUR_HOURS = EarlierJob(job_id="98", seconds=4 * 3600, nodes="n[1-2]", cause="time-limit")


def ended(cause: str = "time-limit", **fields: Any) -> RunRecord:
    failure = Failure(kind=CAUSES[cause].kind, cause=cause, said_by="scheduler") if cause else None
    given = {"state": State.TIMEOUT, "failure": failure, "ended_at": ENDED, "started_at": ENDED - timedelta(hours=4), "resources": ASKED}
    return run_record(**{**given, **fields})


# --------------------------------------------------------------------------- the decision


MACHINE = {
    "preempted", "evicted", "node-failed", "node-failed-step", "gpu-fault", "gpu-runtime", "not-started", "scheduler-failure",
    "name-resolution", "file-system", "service",
}  # fmt: skip


@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_what_the_limit_or_the_machine_ended_goes_on(cause: str) -> None:
    assert (continued(ended(cause), CHAIN) == Next("code/ckpt")) == (cause in {*MACHINE, "time-limit"})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": State.FAILED, "exit_code": 85}, Next("code/ckpt")),
        ({"state": State.FAILED, "exit_code": 1}, None),
        ({"state": State.SUCCEEDED, "exit_code": 0}, None),
        ({"state": State.CANCELLED, "exit_code": 85}, None),
        # Somebody gave it up, and its job's own end came first.
        ({"state": State.FAILED, "exit_code": 85, "given_up": "cancelled by alice"}, None),
        # What was granted is one job.
        ({"state": State.FAILED, "exit_code": 85, "resources": ASKED.model_copy(update={"jobs": 1})}, None),
        ({"state": State.FAILED, "exit_code": 85, "earlier_jobs": (FOUR_HOURS,)}, Next("code/ckpt")),
        ({"state": State.FAILED, "exit_code": 85, "earlier_jobs": (FOUR_HOURS, FOUR_HOURS)}, Last("jobs-used")),
    ],
)
def test_which_ends_are_none(fields: dict[str, Any], expected: object) -> None:
    assert continued(ended("", **fields), CHAIN) == expected


def test_the_policy_of_now_can_only_make_it_shorter() -> None:
    one = ended(earlier_jobs=(FOUR_HOURS,))
    assert continued(one, CHAIN.model_copy(update={"jobs": 2})) == Last("jobs-used")
    assert continued(ended(earlier_jobs=(FOUR_HOURS, FOUR_HOURS)), CHAIN.model_copy(update={"jobs": 50})) == Last("jobs-used")
    assert continued(one, None) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chain: { jobs: 1, checkpoints: ckpt }", "jobs"),
        ("chain: { jobs: 3 }", "checkpoints"),
        ("chain: { jobs: 3, checkpoints: /data/ckpt }", "checkpoints"),
        ("chain: { jobs: 3, checkpoints: ../other }", "checkpoints"),
        ("chain: { jobs: 3, checkpoints: ckpt, exit_code: 0 }", "exit_code"),
        ("chain: { job: 3, checkpoints: ckpt }", "did you mean `jobs`"),
    ],
)
def test_chains_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_policy(f"recipes:\n  default:\n    script: train.py\n    {text}\n")


# --------------------------------------------------------------------------- through the story


def running(policy: str = CHAINED, word: str = "TIMEOUT", saved: bool = True, **fields: Any) -> Fakes:
    """A run of the head whose job has just ended like that."""
    fakes = Fakes(policy)
    fakes.clock.time = ENDED + timedelta(minutes=5)
    given = {"run_key": KEY, "asked_at": ENDED - timedelta(hours=5), "state": State.RUNNING, "resources": ASKED}
    record = run_record(**{**given, **fields})
    fakes.forge.checks[1] = Check(CHECK, HEAD, KEY, "in_progress", None, "is running", "")
    run = fakes.cluster.add(record, "running", word, (commit_tag(record.sha),))
    run.saved = {"code/ckpt"} if saved else set()
    return fakes


def sweep(fakes: Fakes) -> None:
    fakes.steps.clear()
    watch(fakes.world, read_policy(fakes.world))


def now(fakes: Fakes) -> RunRecord:
    return parse_record(fakes.cluster.runs[KEY].record)


def body(fakes: Fakes) -> str:
    [found] = [text for text in fakes.forge.bodies if f"run `{KEY}`" in text]
    return found


def test_one_run_in_three_jobs() -> None:
    fakes = running()
    sweep(fakes)
    record = now(fakes)
    assert (record.state, record.job_id, [job.job_id for job in record.earlier_jobs]) == (State.PENDING, "101", ["100"])
    assert (record.earlier_jobs[0].cause, record.earlier_jobs[0].seconds) == ("time-limit", 60)
    assert "### ⏳ train · cluster · job 101, 2 of at most 3, is waiting for 2 nodes" in body(fakes)
    assert "goes on after job `100` (1m, timeout)" in body(fakes)
    assert "at most 3 jobs of 4h, one after the other = 192 GPU-hours" in body(fakes)
    assert fakes.forge.check(CHECK).status == "queued"
    assert "dispatch/gate" not in {check.name for check in fakes.forge.checks.values()}, "nothing has ended"

    fakes.cluster.scheduler["101"] = "RUNNING"
    sweep(fakes)
    assert "job 101, 2 of at most 3, is running" in body(fakes)
    fakes.cluster.scheduler["101"] = "NODE_FAIL"
    fakes.cluster.runs[KEY].saved = {"code/ckpt"}
    sweep(fakes)
    assert now(fakes).job_id == "102"
    assert "goes on after jobs `100` (1m, timeout), `101` (1m, node failure)" in body(fakes)

    fakes.cluster.scheduler["102"] = "COMPLETED"
    sweep(fakes)
    assert "passed in 3m" in body(fakes), "all jobs together"
    assert fakes.forge.check(CHECK).conclusion == "success"
    assert len(fakes.forge.bodies) == 1
    assert not fakes.cluster.active
    [line] = fakes.cluster.journal["2024-05"]
    assert line.endswith(f" {3 * 60 * 16 / 3600:.4f}"), "and all of them are paid for"


@pytest.mark.parametrize(
    ("fields", "saved", "reason", "step"),
    [
        ({}, False, "nothing-saved", "Let the script save its state more often than every 4h"),
        ({"earlier_jobs": (FOUR_HOURS, FOUR_HOURS)}, True, "jobs-used", "It needs more than 3 × 4h"),
    ],
)
def test_the_last_job(fields: dict[str, Any], saved: bool, reason: str, step: str) -> None:
    fakes = running(saved=saved, **fields)
    sweep(fakes)
    assert (now(fakes).state, now(fakes).not_continued) == (State.TIMEOUT, reason)
    assert f"No further job continues it (`{reason}`)." in body(fakes)
    assert step in body(fakes)
    assert fakes.forge.check(CHECK).conclusion == "timed_out"
    assert not fakes.cluster.active


def _head_moves(fakes: Fakes) -> None:
    fakes.forge.pulls[7] = PullRequest(7, "open", False, OTHER, "topic", "org/repo", "main", BASE, "org/repo", "bob")


def _closed(fakes: Fakes) -> None:
    fakes.forge.pulls[7] = PullRequest(7, "closed", False, HEAD, "topic", "org/repo", "main", BASE, "org/repo", "bob")


def _refuses(fakes: Fakes) -> None:
    fakes.cluster.refuses = "sbatch: error: invalid account"


@pytest.mark.parametrize(("happens", "reason"), [(_head_moves, "head-moved"), (_closed, "pull-closed"), (_refuses, "next-job-refused")])
def test_what_may_not_go_on_ends_and_that_is_said(happens: Any, reason: str) -> None:
    fakes = running()
    happens(fakes)
    sweep(fakes)
    assert f"No further job continues it (`{reason}`)." in body(fakes)
    assert not fakes.cluster.active


def test_who_has_looked_before_somebody_else_let_it_go_on_counts_no_job_twice() -> None:
    fakes = running()
    old = fakes.cluster.sweep()
    sights = sights_of(old, "slurm")
    sweep(fakes)
    before = now(fakes)
    assert before.job_id == "101"
    seen = look(fakes.world, fakes.cluster, old.runs[0], sights[KEY], timedelta(seconds=600))
    assert seen is not None
    assert seen.record == before


def test_a_run_that_no_pull_request_asked_for_goes_on_as_well() -> None:
    fakes = running(target={"repository": REPOSITORY, "check": 1}, trigger="schedule:nightly", actor="schedule")
    sweep(fakes)
    assert now(fakes).job_id == "101"


def test_what_cannot_be_found_out_is_no_end() -> None:
    fakes = running()
    fakes.fail("cluster.go_on", "cluster.scheduler-silent")
    sweep(fakes)
    assert now(fakes).state is State.RUNNING, "nothing has been said"
    assert fakes.forge.check(CHECK).status == "in_progress"
    assert KEY in fakes.cluster.active
    assert not [check for check in fakes.forge.checks.values() if check.name == "dispatch/gate"]
    fakes.trace.fail.clear()
    sweep(fakes)
    assert now(fakes).job_id == "101"


def test_what_cannot_be_submitted_for_hours_is_given_up() -> None:
    fakes = running()
    fakes.clock.time = ENDED + timedelta(hours=7)
    fakes.fail("cluster.go_on", "cluster.failed")
    sweep(fakes)
    assert "No further job continues it (`cluster.failed`)." in body(fakes)


def test_while_another_one_submits_it_nothing_is_said() -> None:
    fakes = running()
    fakes.cluster.busy = True
    sweep(fakes)
    assert now(fakes).state is State.RUNNING
    assert KEY in fakes.cluster.active


@pytest.mark.parametrize("step", ["cluster.go_on", "forge.update_check", "cluster.save pending"])
def test_whoever_dies_in_between_loses_and_doubles_nothing(step: str) -> None:
    fakes = running()
    fakes.fail_with(step, KeyboardInterrupt())
    try:
        sweep(fakes)
    except KeyboardInterrupt:
        fakes.cluster.close()
    fakes.trace.fail.clear()
    sweep(fakes)
    sweep(fakes)
    record = now(fakes)
    assert (record.job_id, [job.job_id for job in record.earlier_jobs]) == ("101", ["100"])
    assert "job 101, 2 of at most 3" in body(fakes)
    assert len(fakes.forge.bodies) == 1


def test_what_nobody_saw_end_is_counted_with_its_whole_limit() -> None:
    """The next job was submitted, and whoever did it died before it could say so."""
    fakes = running(word="")
    fakes.cluster.runs[KEY].job_id, fakes.cluster.scheduler["101"], fakes.cluster.active[KEY] = "101", "RUNNING", "unreported"
    sweep(fakes)
    record = now(fakes)
    assert record.earlier_jobs == (EarlierJob(job_id="100"),)
    assert record.earlier_seconds == 4 * 3600
    assert "goes on after job `100`" in body(fakes)


def test_a_sweep_that_comes_while_the_next_job_is_being_submitted_forgets_none() -> None:
    fakes = running(word="")
    run = fakes.cluster.runs[KEY]
    run.job_id, fakes.cluster.age = "", 3600

    def submitted() -> None:
        run.job_id, fakes.cluster.scheduler["101"] = "101", "PENDING"

    fakes.cluster.before_claim = [submitted]
    sweep(fakes)
    assert (now(fakes).job_id, [job.job_id for job in now(fakes).earlier_jobs]) == ("101", ["100"])


def test_whoever_shares_the_job_goes_on_with_it() -> None:
    fakes = running()
    fakes.cluster.add(run_record(run_key="f" * 16, state=State.RUNNING, job_id="100", resources=ASKED))
    other = now(fakes).model_copy(update={"same_as": "f" * 16, "same_sha": OTHER})
    fakes.cluster.runs[KEY].record = other.to_json()
    sweep(fakes)
    assert (now(fakes).state, fakes.cluster.runs[KEY].job_id) == (State.RUNNING, "100"), "not decided there yet"
    assert not [step for step in fakes.steps if step.startswith("cluster.go_on")], "that is the other's to do"
    # Its next job is this one's, too: the ledger's file is a link.
    fakes.cluster.runs[KEY].job_id, fakes.cluster.scheduler["101"] = "101", "PENDING"
    sweep(fakes)
    assert (now(fakes).job_id, now(fakes).state) == ("101", State.PENDING)
    # And its end is this one's end.
    theirs = run_record(run_key="f" * 16, state=State.TIMEOUT, job_id="101", resources=ASKED, not_continued="nothing-saved")
    fakes.cluster.runs["f" * 16].record = theirs.to_json()
    fakes.cluster.scheduler["101"] = "TIMEOUT"
    sweep(fakes)
    assert (now(fakes).state, now(fakes).not_continued) == (State.TIMEOUT, "nothing-saved")


@pytest.mark.parametrize("state", [State.CANCELLED, State.TIMEOUT])
def test_whose_chain_was_given_up_by_the_run_that_began_it_is_told_so(state: State) -> None:
    """That run has left, or whoever took it out died before it was reported, and it has its job's end."""
    fakes = running()
    left = run_record(run_key="f" * 16, state=state, job_id="100", resources=ASKED, given_up="cancelled by alice")
    fakes.cluster.add(left)
    fakes.cluster.runs[KEY].record = now(fakes).model_copy(update={"same_as": "f" * 16, "same_sha": OTHER}).to_json()
    sweep(fakes)
    assert (now(fakes).state, now(fakes).not_continued) == (State.TIMEOUT, "chain-given-up")
    assert "No further job continues it (`chain-given-up`). The run that started its job was given up" in body(fakes)
    assert "raise `time`" not in body(fakes)


def test_who_follows_the_run_sees_all_of_its_jobs() -> None:
    fakes = running()
    run = fakes.cluster.runs[KEY]
    run.part_logs = {100: b"step 1\nstep 2\n", 101: b"step 3\nstep 4\n"}
    run.log = run.part_logs[100]

    def ends() -> None:
        run.log, fakes.cluster.scheduler["101"] = run.part_logs[101], "COMPLETED"

    fakes.cluster.before_sweep = [lambda: None, ends]
    outcome = follow(fakes.world, fakes.cluster, read_policy(fakes.world), Seen(now(fakes), ""))
    assert outcome.record is not None
    assert outcome.record.state is State.SUCCEEDED
    assert fakes.shown == b"step 1\nstep 2\nstep 3\nstep 4\n"
    assert any("goes on as job 101" in line for line in fakes.said)


def test_without_github_a_run_of_a_pull_request_is_left_to_whoever_can_tell() -> None:
    fakes = running()
    world = Fakes(CHAINED, forge=False).world
    seen = Seen(ended(), "")
    assert go_on(world, fakes.cluster, read_policy(world), seen) == seen


def test_a_gate_waits_for_the_next_job() -> None:
    policy = load_policy(f"default_profile: cluster\n{CHAINED.partition(chr(10))[2]}")
    required = required_runs(policy, "main", None)
    fakes = running()
    fakes.cluster.busy = True
    went = go_on(fakes.world, fakes.cluster, policy, Seen(ended(run_key=KEY), ""))
    assert isinstance(went, NotYet)
    assert isinstance(judge(required, [went.seen.record], HEAD), Pending)
    assert isinstance(judge(required, [with_next_job(ended(), "101")], HEAD), Pending)
    assert isinstance(judge(required, [ended()], HEAD), Fail)


# --------------------------------------------------------------------------- what it costs, and how far it is


def test_limits_and_books_count_every_job() -> None:
    assert ASKED.gpu_hours == 192
    before = ended(earlier_jobs=(FOUR_HOURS,), resources=ASKED)
    line = used(before.model_copy(update={"state": State.CANCELLED, "started_at": None}))
    assert line is not None
    assert line.endswith(" 64.0000"), "what ran before it was cancelled while it waited"
    assert reserved(before, ENDED).endswith(" 192.0000")
    going = with_next_job(ended(), "101").model_copy(
        update={"state": State.RUNNING, "started_at": ENDED, "progress": Progress(step=5, values={})}
    )
    assert "96.0 GPU-hours so far" in progress_line(going, ENDED + timedelta(hours=2))


def test_a_limit_on_gpu_hours_refuses_the_whole_chain() -> None:
    fakes = Fakes(f"{CHAINED}limits: {{ gpu_hours: 100 }}\n", {"cluster": f"{PROFILE}nodes: 2\ngpus_per_node: 8\ntime: '04:00:00'\n"})
    handle(comment_event(), fakes.world)
    assert not fakes.cluster.runs
    assert "192 GPU-hours (3 jobs × 2 nodes × 8 GPUs × 4h)" in fakes.forge.bodies[-1]


@pytest.mark.parametrize("shape", ["array: 0-3", "het_groups: [{ nodes: 1 }, { nodes: 1 }]"])
def test_jobs_of_parts_have_no_chain(shape: str) -> None:
    fakes = Fakes(CHAINED, {"cluster": f"{PROFILE}{shape}\n"})
    outcome = handle(comment_event(), fakes.world)
    assert not fakes.cluster.runs
    assert "has a `chain`" in outcome.summary + "".join(fakes.forge.bodies)


def test_what_the_job_is_told_and_what_it_leaves_alone() -> None:
    policy = CHAINED.replace("chain:", "series: s.jsonl, tensorboard: tb, chain:")
    fakes = Fakes(policy)
    handle(comment_event(), fakes.world)
    [run] = fakes.cluster.runs.values()
    assert run.submission is not None
    assert "export DISPATCH_CHECKPOINTS=" in run.submission.env_file
    job: Any = fakes.compiler.jobs[-1]
    lines = "\n".join(job["setup_lines"])
    folder = parse_record(run.record).run_dir
    assert f"rm -f {folder}/exit {folder}/code/results.json\n" in f"{lines}\n", "what only one job can have left goes before each"
    grown = f"{folder}/code/s.jsonl {folder}/code/tb/events.out.tfevents.*"
    assert f"[ -e {folder}/begun ] || {{ rm -f {grown}; : > {folder}/begun; }}" in lines


def test_the_curve_of_a_log_goes_on_where_the_last_job_stopped() -> None:
    policy = load_policy(
        "recipes:\n  default: { script: train.py, log_metrics: { loss: 'loss (\\S+)', step: 'at (\\d+)' }, "
        "chain: { jobs: 3, checkpoints: ckpt } }\n"
    )
    curve = Curve(name="loss", first=1, last=4, values=(4.0, 3.0, 2.0, 1.5), points=4, gaps=0)
    record = with_next_job(ended(curves=(curve,)), "101").model_copy(update={"state": State.SUCCEEDED})
    log = b"loss 2.0 at 3\nloss 1.0 at 4\nloss 0.5 at 5\n"
    files = RunFiles(record.to_json(), log, 0, len(log), None)
    read = with_series(record, log.decode(), files, Fakes().cluster, policy, ())
    [joined] = read.curves
    assert (joined.first, joined.last, joined.values) == (1, 5, (4.0, 3.0, 2.0, 1.0, 0.5)), "steps that were done twice count once"


# --------------------------------------------------------------------------- the logs of its jobs


def going_on() -> Fakes:
    """A run in its second job, which has written something."""
    fakes = running(word="RUNNING", job_id="100")
    record = with_next_job(now(fakes), "101").model_copy(update={"state": State.RUNNING})
    run = fakes.cluster.runs[KEY]
    run.record, run.job_id, run.part_logs = record.to_json(), "101", {100: b"one\ntwo\n", 101: b"three\n"}
    run.log = run.part_logs[101]
    fakes.cluster.scheduler = {"100": "TIMEOUT", "101": "RUNNING"}
    return fakes


def test_each_job_has_a_log_of_its_own() -> None:
    fakes = going_on()
    policy = read_policy(fakes.world)
    logs(fakes.world, policy, KEY, 10, follow=False)
    assert fakes.shown == b"three\n"
    logs(fakes.world, policy, KEY, 10, follow=False, task=100)
    assert fakes.shown == b"three\none\ntwo\n"
    fakes.cluster.runs[KEY].tags = (pull_tag(REPOSITORY, 7),)
    handle(comment_event("/train logs task=7"), fakes.world)
    assert "Job 7 has written nothing yet, or is none of the run's: `100`, `101`." in fakes.forge.bodies[-1]


def test_who_follows_the_logs_goes_on_with_the_next_job() -> None:
    fakes = running(word="RUNNING")
    run = fakes.cluster.runs[KEY]
    run.part_logs = {100: b"one\n"}

    def goes_on() -> None:
        run.record = with_next_job(now(fakes), "101").to_json()
        run.part_logs[100] += b"two\n"
        run.job_id, run.part_logs[101], fakes.cluster.scheduler["101"] = "101", b"three\n", "COMPLETED"

    fakes.cluster.before_sweep = [lambda: None, goes_on]
    logs(fakes.world, read_policy(fakes.world), KEY, 10, follow=True)
    assert fakes.shown == b"one\ntwo\nthree\n"


def test_the_complete_logs_of_a_chain_are_a_file_for_each_job(tmp_path: Path) -> None:
    fakes = going_on()
    record = now(fakes).model_copy(update={"state": State.SUCCEEDED, "ended_at": ENDED})
    folder = LogFolder(tmp_path, lambda paths: None, spare=0)
    names = keep_ended(replace(fakes.world, keep=folder.open), fakes.cluster, record)
    assert names == (f"cluster-default-{KEY}-job-100.log", f"cluster-default-{KEY}-job-101.log")
    assert [(tmp_path / name).read_bytes() for name in names] == [b"one\ntwo\n", b"three\n"]


def test_a_file_has_the_newest_jobs_log_and_says_where_the_others_are(tmp_path: Path) -> None:
    fakes = going_on()
    outcome = keep_log(fakes.world, read_policy(fakes.world), KEY, False, None, lambda name: LogFile(tmp_path / "train.log", name))
    assert (tmp_path / "train.log").read_bytes() == b"three\n"
    assert "`--task 100` has those before it." in outcome.summary
