"""Sweeps: GitHub hears of what changed and of nothing else, and no end is ever lost or invented."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from dispatcher.action import OUTPUTS
from dispatcher.configuration import read_policy
from dispatcher.errors import Exit
from dispatcher.record import RunRecord, Target, parse_record
from dispatcher.slurm import State
from dispatcher.watching import INTERRUPTED_SECONDS, watch
from dispatcher.world import Outcome
from tests.fakes import POLICY, PROFILE, FakeCluster, Fakes, run_record

KEY = run_record().run_key
CHECK = "dispatch / cluster / default"


def sweep(fakes: Fakes, follow: bool = False) -> Outcome:
    fakes.steps.clear()
    return watch(fakes.world, read_policy(fakes.world), follow)


def record_of(fakes: Fakes, key: str = KEY) -> RunRecord:
    return parse_record(fakes.cluster.runs[key].record)


def counted(ended: Outcome) -> dict[str, int]:
    result: dict[str, int] = json.loads(ended.outputs["result"])
    return result


@pytest.mark.parametrize(("reported", "word"), [("pending", "PENDING"), ("running", "RUNNING"), ("unknown", "NEW_WORD")])
def test_what_did_not_change_costs_nothing(reported: str, word: str) -> None:
    fakes = Fakes()
    for number in range(20):
        fakes.cluster.add(run_record(run_key=f"{number:016x}", job_id=str(number), state=State(reported)), reported, word)
    ended = sweep(fakes)
    assert fakes.steps == ["connect", "cluster.sweep", "cluster.close"]
    assert (ended.exit, counted(ended)) == (Exit.OK, {"active": 20, "changed": 0, "ended": 0, "failed": 0, "queued": 0})


@pytest.mark.parametrize(
    ("word", "state", "conclusion"),
    [
        ("RUNNING", State.RUNNING, None),
        ("COMPLETED", State.SUCCEEDED, "success"),
        ("FAILED", State.FAILED, "failure"),
        ("TIMEOUT", State.TIMEOUT, "timed_out"),
        ("CANCELLED by 0", State.CANCELLED, "cancelled"),
        ("NODE_FAIL", State.NODE_FAIL, "failure"),
        ("NEVER_HEARD_OF", State.UNKNOWN, None),
    ],
)
def test_what_changed_is_said_and_remembered(word: str, state: State, conclusion: str | None) -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(), "pending", word)
    ended = sweep(fakes)
    assert record_of(fakes).state is state
    assert fakes.forge.check(CHECK).conclusion == conclusion
    assert (KEY in fakes.cluster.active) == (not state.ended)
    assert counted(ended) == {"active": 1, "changed": 1, "ended": int(state.ended), "failed": 0, "queued": 0}
    assert not [step for step in sweep_again(fakes) if step.startswith("forge")]


def sweep_again(fakes: Fakes) -> list[str]:
    sweep(fakes)
    return fakes.steps


def test_only_the_changed_of_many() -> None:
    fakes = Fakes()
    for number in range(20):
        word = "FAILED" if number == 7 else "RUNNING"
        fakes.cluster.add(run_record(run_key=f"{number:016x}", job_id=str(number), state=State.RUNNING), "running", word)
    sweep(fakes)
    assert len(fakes.forge.checks) == 2  # the run's and the gate's
    assert fakes.trace.of("cluster.retire", "cluster.save") == ["cluster.save failed", "cluster.retire"]


def test_the_outputs_are_the_actions() -> None:
    assert set(sweep(Fakes()).outputs) == set(OUTPUTS)


# --------------------------------------------------------------------------- absence and silence


def test_lost_only_after_the_grace_and_across_processes() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(state=State.RUNNING), "running")
    start = fakes.clock.now()
    for minutes in (0, 5, 9):
        fakes.clock.time = start + timedelta(minutes=minutes)
        sweep(fakes)
        assert not fakes.trace.of("forge")
        assert (record_of(fakes).state, record_of(fakes).absent_since) == (State.RUNNING, start)
    fakes.clock.time = start + timedelta(minutes=10)
    sweep(fakes)
    assert record_of(fakes).state is State.LOST
    assert fakes.forge.check(CHECK).conclusion == "failure"
    assert not fakes.cluster.active


def test_a_job_that_came_back_has_the_whole_grace_again() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(state=State.RUNNING), "running")
    sweep(fakes)
    fakes.clock.sleep(300)
    fakes.cluster.scheduler["100"] = "RUNNING"
    sweep(fakes)
    fakes.clock.sleep(3600)
    del fakes.cluster.scheduler["100"]
    sweep(fakes)
    assert record_of(fakes).state is State.RUNNING
    assert not fakes.trace.of("forge")


def test_silence_changes_nothing() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(state=State.RUNNING), "running", "COMPLETED")
    fakes.cluster.answers = False
    for _ in range(3):
        fakes.clock.sleep(3600)
        ended = sweep(fakes)
        assert ended.exit is Exit.OK
        assert fakes.steps == ["connect", "cluster.sweep", "cluster.close"]
    assert fakes.cluster.active == {KEY: "running"}


# --------------------------------------------------------------------------- an end is not lost


@pytest.mark.parametrize("step", ["forge.create_check", "forge.create_comment", "forge.react"])
def test_retired_only_after_github_has_acknowledged(step: str) -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(), "running", "FAILED")
    fakes.cluster.add(run_record(run_key="f" * 16, job_id="2", trigger="comment:100"), "running", "RUNNING")
    fakes.fail(step)
    ended = sweep(fakes)
    assert (ended.exit, counted(ended)["failed"], ended.outputs["reason-code"]) == (Exit.CLUSTER, 1, "incomplete")
    assert fakes.cluster.active[KEY] == "running"
    fakes.trace.fail.clear()
    assert sweep(fakes).exit is Exit.OK
    assert KEY not in fakes.cluster.active
    assert fakes.forge.check(CHECK).conclusion == "failure"
    assert len(fakes.forge.comments) == 1


@pytest.mark.parametrize("step", ["cluster.save", "cluster.retire"])
def test_a_process_that_died_after_it_spoke_speaks_once_more_into_the_same_place(step: str) -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(), "running", "COMPLETED")
    fakes.fail_with(step, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        sweep(fakes)
    fakes.trace.fail.clear()
    sweep(fakes)
    assert KEY not in fakes.cluster.active
    assert (len(fakes.forge.comments), len(fakes.forge.checks)) == (1, 2)


def test_one_run_that_cannot_be_reported_does_not_hold_up_the_next() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(run_key="1" * 16, job_id="1"), "running", "COMPLETED").record = "not a record"
    fakes.cluster.add(run_record(run_key="2" * 16, job_id="2"), "running", "COMPLETED")
    ended = sweep(fakes)
    assert counted(ended) == {"active": 2, "changed": 1, "ended": 1, "failed": 1, "queued": 0}
    assert list(fakes.cluster.active) == ["1" * 16]


def test_a_cluster_that_does_not_answer_does_not_hold_up_the_next() -> None:
    fakes = Fakes(
        POLICY.replace("profiles: [cluster]", "profiles: [away, gone, cluster]"),
        {"cluster": PROFILE, "away": PROFILE.replace("login.", "away.")},
    )
    fakes.cluster.add(run_record(), "running", "COMPLETED")
    away = fakes.clusters["away.example.com"] = FakeCluster(fakes.trace)
    away.before_sweep = [_unreachable]
    ended = sweep(fakes)
    assert ended.exit is Exit.CLUSTER
    assert counted(ended) == {"active": 1, "changed": 1, "ended": 1, "failed": 1, "queued": 0}
    assert any("away" in line for line in fakes.said)
    assert any("gone" in line for line in fakes.said)


def _unreachable() -> None:
    from dispatcher.errors import SshError

    raise SshError("ssh.unreachable", "It does not answer.")


def test_the_gate_is_judged_once_for_a_pull_request() -> None:
    fakes = Fakes()
    for number in range(3):
        fakes.cluster.add(run_record(run_key=f"{number:016x}", job_id=str(number), trigger=f"comment:{number}"), "running", "COMPLETED")
    sweep(fakes)
    assert fakes.trace.of("forge.create_check dispatch/gate") == ["forge.create_check dispatch/gate success"]


def test_the_gate_knows_all_that_has_ended_in_this_look() -> None:
    """An older commit's run that ended first must not hide the head's: nothing of both is in the index by which ledgers are searched."""
    fakes = Fakes()
    fakes.cluster.add(run_record(run_key="1" * 16, job_id="1", sha="c" * 40, trigger="comment:1"), "running", "FAILED")
    fakes.cluster.add(run_record(run_key="2" * 16, job_id="2", trigger="comment:2"), "running", "COMPLETED")
    sweep(fakes)
    assert fakes.trace.of("forge.create_check dispatch/gate") == ["forge.create_check dispatch/gate success"]


def test_a_gate_that_cannot_be_written_does_not_undo_the_report() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(), "running", "COMPLETED")
    fakes.fail("forge.changed_files")
    assert counted(sweep(fakes))["ended"] == 1
    assert not fakes.cluster.active
    assert any("gate of aaaaaaaaaaaa could not be written" in line for line in fakes.said)


def test_other_repositories_runs_are_left_to_them() -> None:
    fakes = Fakes()
    other = run_record(target=Target(repository="other/repo", pull=7))
    fakes.cluster.add(other, "running", "COMPLETED")
    fakes.cluster.age = INTERRUPTED_SECONDS + 1
    fakes.cluster.add(other.model_copy(update={"run_key": "e" * 16, "job_id": ""}), "")
    before = {key: run.record for key, run in fakes.cluster.runs.items()}
    sweep(fakes)
    assert not fakes.trace.of("forge", "cluster.save", "cluster.retire", "cluster.claim", "cluster.abandon")
    assert {key: run.record for key, run in fakes.cluster.runs.items()} == before
    assert len(fakes.cluster.active) == 2


# --------------------------------------------------------------------------- interrupted submissions


def interrupted(fakes: Fakes, age: int = INTERRUPTED_SECONDS) -> None:
    fakes.cluster.add(run_record(job_id="", state=State.SUBMITTING), "")
    fakes.cluster.age = age


def test_a_submission_under_way_is_left_alone() -> None:
    fakes = Fakes()
    interrupted(fakes, INTERRUPTED_SECONDS - 1)
    sweep(fakes)
    assert fakes.steps == ["connect", "cluster.sweep", "cluster.close"]


def test_an_interrupted_submission_that_has_a_job_is_adopted() -> None:
    fakes = Fakes()
    interrupted(fakes)
    # The far side looks the run key up in the scheduler when it is claimed.
    fakes.trace.at["cluster.claim"] = lambda: setattr(fakes.cluster.runs[KEY], "job_id", "100")
    sweep(fakes)
    assert (record_of(fakes).state, record_of(fakes).job_id) == (State.PENDING, "100")
    assert "job 100 is waiting" in fakes.forge.bodies[0]
    assert fakes.cluster.active == {KEY: "pending"}


def test_an_interrupted_submission_without_a_job_is_declared_and_may_be_given_again() -> None:
    fakes = Fakes()
    interrupted(fakes)
    sweep(fakes)
    assert fakes.forge.check(CHECK).conclusion == "failure"
    assert "its submission was interrupted" in fakes.forge.bodies[0]
    assert not fakes.cluster.active
    assert not fakes.cluster.runs
    assert not fakes.cluster.claims


def test_a_slow_submission_is_not_taken_for_an_interrupted_one() -> None:
    fakes = Fakes()
    interrupted(fakes)
    fakes.cluster.busy = True
    sweep(fakes)
    assert not fakes.trace.of("forge", "cluster.retire", "cluster.abandon")
    assert KEY in fakes.cluster.active


def test_an_interrupted_submission_without_a_folder_is_forgotten() -> None:
    fakes = Fakes()
    interrupted(fakes)
    fakes.trace.at["cluster.fetch"] = fakes.cluster.runs.clear
    sweep(fakes)
    assert not fakes.cluster.active
    assert not fakes.trace.of("forge")


@pytest.mark.parametrize("step", ["forge.create_comment", "cluster.claim"])
def test_an_interrupted_submission_that_cannot_be_declared_does_not_hold_up_the_next(step: str) -> None:
    fakes = Fakes()
    interrupted(fakes)
    fakes.cluster.add(run_record(run_key="2" * 16, job_id="2", target=Target(repository="org/repo")), "running", "COMPLETED")
    fakes.fail(step)
    ended = sweep(fakes)
    assert counted(ended)["failed"] == 1
    assert "2" * 16 not in fakes.cluster.active


# --------------------------------------------------------------------------- again and again


def test_following_ends_when_nothing_is_active() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(), "pending", "PENDING")
    words = iter(["PENDING", "RUNNING", "RUNNING", "COMPLETED"])
    fakes.cluster.before_sweep = [lambda: fakes.cluster.scheduler.update({"100": next(words)})] * 4
    ended = sweep(fakes, follow=True)
    assert ended.exit is Exit.OK
    assert fakes.clock.slept == [60.0] * 3
    assert fakes.forge.check(CHECK).conclusion == "success"


def test_following_does_not_end_because_a_cluster_was_away() -> None:
    fakes = Fakes()
    fakes.cluster.before_sweep = [_unreachable, lambda: None]
    assert sweep(fakes, follow=True).exit is Exit.OK
    assert fakes.clock.slept == [60.0]


def test_nothing_that_a_scheduler_prints_is_taken_for_more_than_text() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(), "running", "FAILED")
    fakes.cluster.reason = "@org/everyone <script>"
    sweep(fakes)
    [body] = fakes.forge.bodies
    assert "&lt;script&gt;" in body
    assert "@org" not in body


def test_whose_the_changed_runs_are_is_asked_for_all_of_them_at_once() -> None:
    fakes = Fakes()
    for number in range(3):
        target = Target(repository="org/other", pull=7)
        fakes.cluster.add(run_record(run_key=f"{number:016x}", job_id=str(number), target=target), "pending", "COMPLETED")
    sweep(fakes)
    assert fakes.steps == ["connect", "cluster.sweep", "cluster.records 3", "cluster.close"]
