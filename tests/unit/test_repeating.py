"""Retries by themselves: which failures get one, by whose rights, as which job, and that none is lost or doubled."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from dispatcher.attempts import Exhausted, Repeats, next_attempt
from dispatcher.causes import CAUSES
from dispatcher.configuration import read_policy
from dispatcher.errors import ConfigError, Exit
from dispatcher.failure import Failure
from dispatcher.flow import handle
from dispatcher.following import follow
from dispatcher.keys import commit_tag, run_key
from dispatcher.observe import Seen
from dispatcher.policy import load_policy
from dispatcher.ports import Check, PullRequest
from dispatcher.record import RunRecord, parse_record
from dispatcher.sections import Retries
from dispatcher.slurm import State
from dispatcher.watching import watch
from tests.fakes import BASE, HEAD, OTHER, POLICY, PROFILE, REPOSITORY, Fakes, comment_event, run_record

KEY = run_key(REPOSITORY, "comment:99", "cluster", "default", ())
ONCE = f"{POLICY}retries: {{ infrastructure: 1 }}\n"
CHECK = "dispatch / cluster / default"
# When the fake scheduler's jobs have ended.
ENDED = datetime.fromtimestamp(1714996980, timezone.utc)


def failed(cause: str = "node-failed", **fields: Any) -> RunRecord:
    failure = Failure(kind=CAUSES[cause].kind, cause=cause, said_by="scheduler")
    given = {"state": State.FAILED, "failure": failure, "nodes": "node7", "ended_at": ENDED, **fields}
    return run_record(**given)


# --------------------------------------------------------------------------- the decision


AGAIN = {
    "preempted", "evicted", "node-failed", "node-failed-step", "gpu-fault", "gpu-runtime", "not-started", "scheduler-failure",
    "name-resolution", "file-system", "service",
}  # fmt: skip


@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_only_what_blames_the_machine_is_run_again(cause: str) -> None:
    assert isinstance(next_attempt(failed(cause), Retries(infrastructure=1)), Repeats) == (cause in AGAIN)


def test_it_is_off_unless_the_policy_says_so() -> None:
    assert load_policy("").retries.infrastructure == 0
    assert next_attempt(failed(), Retries()) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"failure": None},
        {"origin": "terminal"},
        {"target": {"repository": "org/repo"}},
    ],
)
def test_runs_that_never_are(fields: dict[str, Any]) -> None:
    assert next_attempt(failed(**fields), Retries(infrastructure=3)) is None


def test_each_waits_twice_as_long_and_there_is_a_last_one() -> None:
    rule, record, found = Retries(infrastructure=3, wait=60), failed(), []
    while isinstance(repeats := next_attempt(record, rule), Repeats):
        found.append((repeats.words, repeats.wait))
        record = record.model_copy(update={"repeats": repeats})
    assert found == [("attempt 2 of 4", 60), ("attempt 3 of 4", 120), ("attempt 4 of 4", 240)]
    assert repeats == Exhausted()


@pytest.mark.parametrize(
    ("cause", "nodes", "expected"),
    [
        ("node-failed", "node7", ("bad1", "node7")),
        ("gpu-runtime", "node7", ("bad1", "node7")),
        ("node-failed", "bad1", ("bad1",)),
        # Which of several it was is not known; a preemption is no fault of the node; what is no node's name never reaches sbatch.
        ("node-failed", "node[7-8]", ("bad1",)),
        ("preempted", "node7", ("bad1",)),
        ("node-failed", "node7,--wrap=x", ("bad1",)),
    ],
)
def test_which_nodes_are_left_out(cause: str, nodes: str, expected: tuple[str, ...]) -> None:
    before = Repeats(number=1, most=2, cause="gpu-fault", without=("bad1",))
    repeats = next_attempt(failed(cause, nodes=nodes, repeats=before), Retries(infrastructure=2, exclude_node=True))
    assert isinstance(repeats, Repeats)
    assert repeats.without == expected
    kept = next_attempt(failed(cause, nodes=nodes, repeats=before), Retries(infrastructure=2))
    assert isinstance(kept, Repeats)
    assert kept.without == ()


# --------------------------------------------------------------------------- through the story


def ended(policy: str = ONCE, word: str = "NODE_FAIL", **fields: Any) -> Fakes:
    """A run of the head whose job has just ended like that."""
    fakes = Fakes(policy)
    fakes.clock.time = ENDED + timedelta(minutes=5)
    record = run_record(**{"run_key": KEY, "asked_at": ENDED - timedelta(hours=1), **fields})
    fakes.forge.checks[1] = Check(CHECK, HEAD, KEY, "in_progress", None, "is running", "")
    fakes.cluster.add(record, "running", word, (commit_tag(record.sha),))
    return fakes


def sweep(fakes: Fakes) -> None:
    fakes.steps.clear()
    watch(fakes.world, read_policy(fakes.world))


def old(fakes: Fakes) -> RunRecord:
    return parse_record(fakes.cluster.runs[KEY].record)


def new(fakes: Fakes) -> list[RunRecord]:
    return [parse_record(run.record) for key, run in fakes.cluster.runs.items() if key != KEY]


def body(fakes: Fakes, key: str) -> str:
    [found] = [text for text in fakes.forge.bodies if f"run `{key}`" in text]
    return found


def test_a_node_fails_and_the_run_is_run_again() -> None:
    fakes = ended(f"{POLICY}retries: {{ infrastructure: 2, wait: 10m, exclude_node: true }}\n")
    sweep(fakes)
    [record] = new(fakes)
    assert (record.attempt, record.retry_of, record.sha, record.actor, record.state) == (2, KEY, HEAD, "alice", State.PENDING)
    assert old(fakes).followed_by == record.run_key
    assert list(fakes.cluster.active) == [record.run_key], "the end is settled, and the retry is looked after"
    assert f"attempt 2 of 3, after run `{KEY[:8]}` failed: node failure on `n1`, without `n1`" in body(fakes, record.run_key)
    assert f"It is run again by itself: attempt 2 is run `{record.run_key[:8]}`." in body(fakes, KEY)
    executor: Any = fakes.compiler.jobs[-1]["executor"]
    assert executor["exclude"] == "n1"
    assert executor["additional_parameters"]["begin"] == "now+600"
    gate = fakes.forge.check("dispatch/gate")
    assert gate.conclusion is None, "the gate waits for the attempt that goes on"
    # And what fails again is run again, for the last time.
    fakes.cluster.scheduler[record.job_id] = "NODE_FAIL"
    sweep(fakes)
    [_, third] = new(fakes)
    assert (third.attempt, third.retry_of) == (3, record.run_key)
    fakes.cluster.scheduler[third.job_id] = "NODE_FAIL"
    sweep(fakes)
    assert len(new(fakes)) == 2
    assert not fakes.cluster.active
    assert "It was attempt 3 of 3, and is not run again by itself." in body(fakes, third.run_key)
    assert fakes.forge.check("dispatch/gate").conclusion == "failure"


@pytest.mark.parametrize("word", ["FAILED", "TIMEOUT", "OUT_OF_MEMORY", "CANCELLED by 1000", "CANCELLED by 0", "COMPLETED"])
def test_whatever_else_ends_a_run_is_an_end(word: str) -> None:
    fakes = ended(word=word)
    sweep(fakes)
    assert new(fakes) == []
    assert not fakes.cluster.active
    assert "run again by itself" not in body(fakes, KEY)


def test_without_the_policys_word_nothing_is_run_again() -> None:
    fakes = ended(POLICY)
    sweep(fakes)
    assert new(fakes) == []


def test_who_follows_the_job_has_it_run_again_without_waiting_for_that() -> None:
    fakes = ended()
    outcome = follow(fakes.world, fakes.cluster, read_policy(fakes.world), Seen(old(fakes), ""))
    [record] = new(fakes)
    assert outcome.outputs["run-key"] == KEY
    assert old(fakes).followed_by == record.run_key
    sweep(fakes)
    assert len(new(fakes)) == 1


@pytest.mark.parametrize("owed", [False, True])
def test_a_sweep_that_follows_waits_for_the_retry_as_well(owed: bool) -> None:
    fakes = ended()
    if owed:
        fakes.fail("cluster.submit", "cluster.failed")

    def passes() -> None:
        fakes.trace.fail.clear()
        fakes.cluster.scheduler.update({record.job_id: "COMPLETED" for record in new(fakes)})

    fakes.cluster.before_sweep = [lambda: None, *[passes] * 2]
    assert watch(fakes.world, read_policy(fakes.world), follow=True).exit is Exit.OK
    [record] = new(fakes)
    assert record.state is State.SUCCEEDED
    assert not fakes.cluster.active
    assert fakes.clock.slept == [60.0] * (2 if owed else 1)


def _head_moves(fakes: Fakes) -> None:
    fakes.forge.pulls[7] = PullRequest(7, "open", False, OTHER, "topic", "org/repo", "main", BASE, "org/repo", "bob")


def _closed(fakes: Fakes) -> None:
    fakes.forge.pulls[7] = PullRequest(7, "closed", False, HEAD, "topic", "org/repo", "main", BASE, "org/repo", "bob")


def _left(fakes: Fakes) -> None:
    fakes.forge.roles.clear()


def _refuses(fakes: Fakes) -> None:
    fakes.cluster.refuses = "sbatch: error: invalid account"


def _configuration_breaks(fakes: Fakes) -> None:
    fakes.fail_with("compiler.compile", ConfigError("config.invalid", "It cannot be."))


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (_head_moves, "head-moved"),
        (_closed, "pull-closed"),
        (_left, "not-a-collaborator"),
        (_refuses, "sbatch-refused"),
        (_configuration_breaks, "config.invalid"),
    ],
)
def test_what_may_not_run_any_more_is_not_run_again_and_that_is_said(happens: Any, reason: str) -> None:
    fakes = ended()
    happens(fakes)
    sweep(fakes)
    assert new(fakes) == []
    assert not fakes.cluster.active
    assert f"It is not run again by itself (`{reason}`)." in body(fakes, KEY)


def test_the_limits_are_asked_again() -> None:
    fakes = ended(f"{ONCE}limits: {{ nodes: 1 }}\n")
    fakes.files["profiles/cluster.yaml"] += "nodes: 2\n"
    sweep(fakes)
    assert "It is not run again by itself (`too-many-nodes`)." in body(fakes, KEY)


@pytest.mark.parametrize(("approved_by", "again"), [("carol", True), ("", False), ("Alice", False)])
def test_who_agreed_to_the_run_agreed_to_its_retry_and_nobody_else_is_asked(approved_by: str, again: bool) -> None:
    fakes = ended(f"{ONCE}approval: {{ nodes: 1 }}\n", approved_by=approved_by)
    fakes.files["profiles/cluster.yaml"] += "nodes: 2\n"
    sweep(fakes)
    assert [record.approved_by for record in new(fakes)] == ([approved_by] if again else [])
    assert ("(`approval-needed`)" in body(fakes, KEY)) != again


@pytest.mark.parametrize(("forks", "again"), [("sha", True), ("off", False)])
def test_a_forks_commit_stays_vouched_for_as_long_as_it_is_the_head(forks: str, again: bool) -> None:
    fakes = ended(ONCE.replace("forks: sha", f"forks: {forks}"))
    fakes.forge.pulls[7] = PullRequest(7, "open", False, HEAD, "topic", "fork/repo", "main", BASE, "org/repo", "bob")
    sweep(fakes)
    assert [record.sha for record in new(fakes)] == ([HEAD] if again else [])


def test_an_active_run_that_ends_gives_its_place_to_its_retry_at_the_next_sweep() -> None:
    fakes = ended(f"{ONCE}active: {{ user: 1 }}\n")
    sweep(fakes)
    sweep(fakes)
    [record] = new(fakes)
    assert (record.state, list(fakes.cluster.active), fakes.cluster.queue) == (State.PENDING, [record.run_key], [])


@pytest.mark.parametrize("step", ["cluster.submit", "forge.role", "archive.describe"])
def test_a_retry_that_is_owed_waits_for_the_next_sweep(step: str) -> None:
    fakes = ended()
    fakes.fail(step, "cluster.failed" if step.startswith("cluster") else "github.unavailable")
    sweep(fakes)
    assert new(fakes) == []
    assert KEY in fakes.cluster.active, "it is settled again"
    assert _conclusions(fakes)[KEY] == "failure", "and yet its end is told"
    assert "It is run again by itself as soon as that can be submitted." in body(fakes, KEY)
    assert fakes.forge.check("dispatch/gate").conclusion is None
    fakes.trace.fail.clear()
    sweep(fakes)
    [record] = new(fakes)
    assert KEY not in fakes.cluster.active
    assert _conclusions(fakes) == {KEY: "failure", record.run_key: None}


def _conclusions(fakes: Fakes) -> dict[str, str | None]:
    """Of each run's one check."""
    found = [check for check in fakes.forge.checks.values() if check.name == CHECK]
    assert len({check.external_id for check in found}) == len(found)
    return {check.external_id: check.conclusion for check in found}


def test_what_cannot_be_submitted_for_hours_is_given_up() -> None:
    fakes = ended()
    fakes.clock.time = ENDED + timedelta(hours=7)
    fakes.fail("cluster.submit", "cluster.failed")
    sweep(fakes)
    assert KEY not in fakes.cluster.active
    assert "It is not run again by itself (`cluster.failed`)." in body(fakes, KEY)


@pytest.mark.parametrize(
    "step", ["cluster.submit", "forge.create_comment", "cluster.save failed", "cluster.save node_fail", "cluster.retire"]
)
def test_whoever_dies_in_between_loses_and_doubles_nothing(step: str) -> None:
    fakes = ended()
    fakes.fail_with(step, KeyboardInterrupt())
    try:
        sweep(fakes)
    except KeyboardInterrupt:
        fakes.cluster.close()
    fakes.trace.fail.clear()
    sweep(fakes)
    sweep(fakes)
    [record] = new(fakes)
    assert old(fakes).followed_by == record.run_key
    assert list(fakes.cluster.active) == [record.run_key]
    assert len(fakes.forge.bodies) == 2


def test_while_another_one_is_submitting_it_the_end_is_left_to_be_settled() -> None:
    fakes = ended()
    fakes.cluster.busy = True
    sweep(fakes)
    assert KEY in fakes.cluster.active
    assert new(fakes) == []
    assert old(fakes).not_repeated == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"profile": "large"},
        {"overrides": ("lr=1",)},
        {"trigger": "comment:1"},
        {"attempt": 2},
        {"sha": OTHER},
        # A later retry that says it was the first, or what a person asked for.
        {"trigger": f"retry:2:{'e' * 16}", "retry_of": "e" * 16, "repeats": Repeats(number=1, most=9, cause="node-failed")},
        {"trigger": f"retry:2:{'e' * 16}", "retry_of": "e" * 16},
    ],
)
def test_a_record_that_a_job_has_changed_is_not_run(fields: dict[str, Any]) -> None:
    given = {"trigger": "comment:99", **fields}
    key = run_key(REPOSITORY, given["trigger"], "cluster", "default", ()) if "retry_of" in fields else KEY
    fakes = Fakes(f"{POLICY}retries: {{ infrastructure: 9 }}\n", {"cluster": PROFILE, "large": PROFILE})
    fakes.clock.time = ENDED
    fakes.forge.checks[1] = Check(CHECK, HEAD, key, "in_progress", None, "is running", "")
    fakes.cluster.add(run_record(run_key=key, **given), "running", "NODE_FAIL")
    sweep(fakes)
    assert len(fakes.cluster.runs) == 1
    assert parse_record(fakes.cluster.runs[key].record).not_repeated == "record-changed"


def test_without_a_check_of_ours_nobody_has_granted_it() -> None:
    fakes = ended()
    fakes.forge.checks.clear()
    sweep(fakes)
    assert old(fakes).not_repeated == "record-changed"


def test_what_a_comment_asked_for_is_run_again_with_its_overrides() -> None:
    fakes = Fakes(f"{POLICY}retries: {{ infrastructure: 2 }}\n")
    fakes.clock.time = ENDED
    handle(comment_event('/train lr=1e-3 note="a, b"', created_at="2024-05-06T12:03:00Z"), fakes.world)
    for _ in range(3):
        fakes.cluster.scheduler.update(dict.fromkeys(fakes.cluster.scheduler, "NODE_FAIL"))
        sweep(fakes)
    found = [parse_record(run.record) for run in fakes.cluster.runs.values()]
    assert [record.overrides for record in found] == [("lr=1e-3", "note=a, b")] * 3
    assert [record.not_repeated for record in found] == ["", "", "attempts-used"]
