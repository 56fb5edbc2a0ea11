"""Retries of what no pull request asked for: schedules, the merge queue, runs by hand. What each still needs; what nobody can pretend."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dispatcher.attempts import Repeats, next_attempt, origin_of, retry_trigger
from dispatcher.baseline import parse_history
from dispatcher.configuration import read_policy
from dispatcher.event import Event, ManualEvent, MergeGroupEvent, ScheduleEvent
from dispatcher.flow import handle
from dispatcher.record import Queued, RunRecord, Target, parse_record
from dispatcher.sections import Retries
from dispatcher.slurm import State
from dispatcher.watching import watch
from tests.fakes import BASE, HEAD, OTHER, PROFILE, REPOSITORY, Fakes
from tests.unit.test_repeating import failed

ENTRY = f"gh-readonly-queue/main/pr-7-{BASE}"
SCHEDULE = ScheduleEvent(REPOSITORY, "0 3 * * *", "schedule:6", "main")
QUEUE = MergeGroupEvent(REPOSITORY, OTHER, f"refs/heads/{ENTRY}", "main", BASE, "main")
BY_HAND = ManualEvent(REPOSITORY, {}, "alice", "workflow_dispatch:5", "refs/heads/main", "main")
POLICY = """\
default_profile: cluster
recipes:
  default: { script: train.py }
schedules:
  - { name: nightly, cron: "0 3 * * *", overrides: lr=1 }
gate:
  required: [{ profile: cluster, recipe: default, paths: ["*.py"] }]
watch: { profiles: [cluster, large] }
retries: { infrastructure: 2 }
"""


def started(event: Event, policy: str = POLICY) -> Fakes:
    """What an event has started: one run, whose commit is where it was then."""
    fakes = Fakes(policy, dict.fromkeys(("cluster", "large"), f"{PROFILE}nodes: 2\n"))
    fakes.forge.refs.update({ENTRY: OTHER, "topic": HEAD})
    fakes.forge.merge_bases[("main", BASE)] = BASE
    handle(event, fakes.world)
    [record] = records(fakes)
    assert record.state is State.PENDING
    fakes.clock.time += timedelta(minutes=30)
    return fakes


def records(fakes: Fakes) -> list[RunRecord]:
    return [parse_record(run.record) for run in fakes.cluster.runs.values()]


def ends(fakes: Fakes, word: str = "NODE_FAIL") -> None:
    """The newest job ends like that, and a sweep sees it."""
    fakes.cluster.scheduler[records(fakes)[-1].job_id] = word
    fakes.clock.time += timedelta(minutes=1)
    watch(fakes.world, read_policy(fakes.world))


def gates(fakes: Fakes) -> list[str]:
    """How the gate has stood, one word for each time that it was written."""
    return [step.rpartition(" ")[2] for step in fakes.steps if "_check dispatch/gate" in step]


# --------------------------------------------------------------------------- each way, to its end


@pytest.mark.parametrize(("event", "sha", "actor"), [(SCHEDULE, BASE, "schedule"), (QUEUE, OTHER, "merge queue"), (BY_HAND, BASE, "alice")])
def test_each_is_run_again_on_its_commit_and_has_an_end(event: Event, sha: str, actor: str) -> None:
    fakes = started(event)
    fakes.forge.refs["main"] = HEAD  # the branch goes on
    for number in (2, 3):
        ends(fakes)
        newest = records(fakes)[-1]
        assert (len(records(fakes)), newest.attempt, newest.sha, newest.actor) == (number, number, sha, actor)
        assert newest.on_default == records(fakes)[0].on_default == (event is not SCHEDULE), "with overrides nothing is compared"
        assert origin_of(newest.trigger) == records(fakes)[0].trigger
    assert {record.overrides for record in records(fakes)} == {("lr=1",) if event is SCHEDULE else ()}
    assert fakes.compiler.jobs[-1]["executor"]["additional_parameters"]["begin"] == "now+600"  # type: ignore[index]
    ends(fakes)
    assert [record.not_repeated for record in records(fakes)] == ["", "", "attempts-used"]
    assert not fakes.cluster.active
    assert fakes.forge.bodies == [], "there is no pull request in which it could be said"
    [first] = [check for check in fakes.forge.checks.values() if check.external_id == records(fakes)[0].run_key]
    assert f"It is run again by itself: attempt 2 is run `{records(fakes)[1].run_key[:8]}`." in first.summary


def test_a_schedules_retry_is_remembered_once() -> None:
    fakes = started(SCHEDULE, POLICY.replace(", overrides: lr=1", ""))
    ends(fakes)
    newest = records(fakes)[-1]
    fakes.cluster.runs[newest.run_key].results["code/results.json"] = b'{"loss": 1.5}'
    ends(fakes, "COMPLETED")
    watch(fakes.world, read_policy(fakes.world))
    [lines] = fakes.cluster.remembered.values()
    assert [(one.sha, one.metrics) for one in parse_history("\n".join(lines)).entries] == [(BASE, {"loss": 1.5})]
    assert [record.state for record in records(fakes)] == [State.NODE_FAIL, State.SUCCEEDED]


# --------------------------------------------------------------------------- the merge queue


@pytest.mark.parametrize(("word", "verdict"), [("COMPLETED", "success"), ("FAILED", "failure")])
def test_the_queues_gate_waits_for_the_retry(word: str, verdict: str) -> None:
    fakes = started(QUEUE)
    ends(fakes)
    assert set(gates(fakes)) == {"in_progress"}
    retry = records(fakes)[-1]
    assert retry.target.merge_queue == Queued(head_ref=QUEUE.head_ref, base_ref="main", base_sha=BASE)
    fakes.cluster.runs[retry.run_key].results["code/results.json"] = b"{}"
    ends(fakes, word)
    assert gates(fakes)[-1] == verdict
    assert set(gates(fakes)[:-1]) == {"in_progress"}
    assert fakes.forge.check("dispatch/gate").sha == OTHER


@pytest.mark.parametrize("step", ["cluster.submit", "forge.commit_sha", "archive.describe"])
def test_while_the_retry_cannot_be_submitted_the_gate_waits_for_that_too(step: str) -> None:
    fakes = started(QUEUE)
    fakes.fail(step, "cluster.failed" if step.startswith("cluster") else "github.unavailable")
    ends(fakes)
    fakes.trace.fail.clear()
    ends(fakes)
    assert "failure" not in gates(fakes)
    assert [record.retry_owed for record in records(fakes)] == [False, False]
    assert len(records(fakes)) == 2


def test_a_gate_that_is_looked_at_meanwhile_says_what_it_waits_for() -> None:
    fakes = started(QUEUE)
    fakes.fail("cluster.submit", "cluster.failed")
    ends(fakes)
    [record] = records(fakes)
    assert record.retry_owed
    assert fakes.forge.check("dispatch/gate").conclusion is None
    assert "it is about to be run again by itself" in fakes.forge.check("dispatch/gate").summary
    # Nor does it wait for ever.
    fakes.clock.time += timedelta(hours=7)
    ends(fakes)
    [record] = records(fakes)
    assert (record.retry_owed, record.not_repeated) == (False, "cluster.failed")
    assert fakes.forge.check("dispatch/gate").conclusion == "failure"


def test_a_policy_that_wants_no_retries_any_more_owes_none() -> None:
    fakes = started(QUEUE)
    fakes.fail("cluster.submit", "cluster.failed")
    ends(fakes)
    fakes.files[".github/dispatch.yml"] = fakes.files[".github/dispatch.yml"].replace("infrastructure: 2", "infrastructure: 0")
    ends(fakes)
    assert [(record.retry_owed, record.not_repeated) for record in records(fakes)] == [(False, "")]
    assert gates(fakes)[-1] == "failure"


# --------------------------------------------------------------------------- what does not hold any more


def _policy(old: str, new: str) -> Any:
    def changed(fakes: Fakes) -> None:
        assert old in fakes.files[".github/dispatch.yml"]
        fakes.files[".github/dispatch.yml"] = fakes.files[".github/dispatch.yml"].replace(old, new)

    return changed


def _forced_push(fakes: Fakes) -> None:
    fakes.forge.merge_bases[("main", BASE)] = OTHER


def _left_the_queue(fakes: Fakes) -> None:
    del fakes.forge.refs[ENTRY]


def _queued_anew(fakes: Fakes) -> None:
    fakes.forge.refs[ENTRY] = HEAD


def _no_rights(fakes: Fakes) -> None:
    fakes.forge.roles.clear()


@pytest.mark.parametrize(
    ("event", "happens", "reason"),
    [
        (SCHEDULE, _policy("name: nightly", "name: weekly"), "not-scheduled"),
        (SCHEDULE, _policy("overrides: lr=1", "overrides: lr=2"), "not-scheduled"),
        (SCHEDULE, _policy("overrides: lr=1", "overrides: lr=1, profile: large"), "not-scheduled"),
        (SCHEDULE, _policy("overrides: lr=1", "overrides: lr=1, ref: release"), "not-on-branch"),
        (SCHEDULE, _forced_push, "not-on-branch"),
        (QUEUE, _left_the_queue, "queue-entry-gone"),
        (QUEUE, _queued_anew, "queue-entry-gone"),
        (QUEUE, _policy("profile: cluster, recipe: default", "profile: large, recipe: default"), "not-required"),
        (QUEUE, _policy("reuse: { runs: false }", "reuse: { merge_queue: never }"), "not-required"),
        (BY_HAND, _forced_push, "not-on-branch"),
        (replace(BY_HAND, ref="refs/heads/topic"), _forced_push, "not-on-branch"),
        (BY_HAND, _no_rights, "not-a-collaborator"),
        (BY_HAND, _policy("retries:", "approval: { nodes: 1 }\nretries:"), "approval-needed"),
    ],
)
def test_what_its_first_attempt_rested_on_is_asked_again(event: Event, happens: Any, reason: str) -> None:
    fakes = started(event)
    happens(fakes)
    ends(fakes)
    assert [record.not_repeated for record in records(fakes)] == [reason]
    assert not fakes.cluster.active
    [check] = [check for check in fakes.forge.checks.values() if check.external_id == records(fakes)[0].run_key]
    assert f"It is not run again by itself (`{reason}`)." in check.summary


def test_a_schedules_cron_may_change() -> None:
    fakes = started(SCHEDULE)
    _policy("0 3 * * *", "30 3 * * *")(fakes)
    ends(fakes)
    assert len(records(fakes)) == 2


# --------------------------------------------------------------------------- what nobody can pretend


RETRY = Repeats(number=1, most=2, cause="node-failed")
BEFORE = "e" * 16


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (BY_HAND, {"trigger": "schedule:0 3 * * *:schedule:6:nightly"}),
        (BY_HAND, {"trigger": f"merge_group:{BASE}", "target": Target(repository=REPOSITORY)}),
        (BY_HAND, {"trigger": retry_trigger(1, BEFORE, SCHEDULE.trigger + ":nightly"), "retry_of": BEFORE, "repeats": RETRY}),
        (SCHEDULE, {"trigger": "schedule:0 3 * * *:schedule:7:nightly"}),
        (SCHEDULE, {"sha": HEAD}),
        (SCHEDULE, {"profile": "large"}),
        (QUEUE, {"target": Target(repository=REPOSITORY)}),
        (QUEUE, {"target": Target(repository=REPOSITORY, merge_queue=Queued(head_ref="refs/heads/main", base_ref="main"))}),
        (QUEUE, {"target": Target(repository=REPOSITORY, merge_queue=Queued(head_ref=QUEUE.head_ref, base_ref="release"))}),
        (QUEUE, {"sha": BASE}),
    ],
)
def test_a_record_that_a_job_has_changed_is_not_run(event: Event, fields: dict[str, Any]) -> None:
    fakes = started(event)
    [record] = records(fakes)
    changed = record.model_copy(update=fields)
    fakes.cluster.runs[record.run_key].record = changed.to_json()
    ends(fakes)
    assert [one.not_repeated for one in records(fakes)] == ["record-changed"]


def test_a_retrys_origin_is_part_of_its_key() -> None:
    """A retry of a person's run that says a schedule had led to it, so that nobody is asked whether that person still may."""
    fakes = started(BY_HAND)
    ends(fakes)
    first, again = records(fakes)
    fakes.forge.roles.clear()
    pretended = retry_trigger(1, first.run_key, f"{SCHEDULE.trigger}:nightly")
    fakes.cluster.runs[again.run_key].record = again.model_copy(update={"trigger": pretended}).to_json()
    ends(fakes)
    assert records(fakes)[-1].not_repeated == "record-changed"


@pytest.mark.parametrize(
    ("trigger", "again"),
    [
        ("schedule:0 3 * * *:schedule:6:nightly", True),
        (f"merge_group:{OTHER}", True),
        ("manual:workflow_dispatch:5", True),
        (f"retry:1:{BEFORE}:manual:workflow_dispatch:5", True),
        # Of a pull request that the record does not name.
        ("comment:9", False),
        (f"retry:1:{BEFORE}", False),
        ("retry:1:schedule:x", False),
    ],
)
def test_who_can_be_asked_without_a_pull_request(trigger: str, again: bool) -> None:
    record = failed(trigger=trigger, target=Target(repository=REPOSITORY))
    assert isinstance(next_attempt(record, Retries(infrastructure=1)), Repeats) == again
