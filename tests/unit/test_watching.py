"""Sweeps: GitHub hears of what changed and of nothing else, and no end is ever lost or invented."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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


def broken(fakes: Fakes, change: dict[str, object] | str, word: str = "COMPLETED") -> None:
    """A run that was reported as running, whose record somebody has changed since; and beside it one that is as it should be."""
    run = fakes.cluster.add(run_record(run_key="1" * 16, job_id="1", trigger="comment:1"), "running", word)
    run.record = change if isinstance(change, str) else json.dumps({**json.loads(run.record), **change})
    fakes.cluster.add(run_record(run_key="2" * 16, job_id="2", trigger="comment:2"), "running", "COMPLETED")


@pytest.mark.parametrize(
    "change",
    [
        {"exit_code": "none"},
        {"curves": [{"name": "x"}]},
        {"reason": "a\ud800b"},
        {"field_of_a_newer_version": 1},
        {"steps": [1], "nodes": 3},
    ],
)
def test_a_run_with_a_damaged_record_is_reported_as_failed_and_is_over(change: dict[str, object]) -> None:
    fakes = Fakes()
    broken(fakes, change)
    ended = sweep(fakes)
    assert (ended.exit, counted(ended)["ended"], counted(ended)["failed"]) == (Exit.CLUSTER, 1, 1)
    assert fakes.cluster.active == {"1" * 16: "broken"}, "it may have been a moment's: the next sweep tries once more"
    assert counted(sweep(fakes))["ended"] == 1
    assert not fakes.cluster.active
    [check] = [check for check in fakes.forge.checks.values() if check.external_id == "1" * 16]
    assert (check.conclusion, record_of(fakes, "1" * 16).state) == ("failure", State.SUCCEEDED)
    assert "cluster.bad-record, cluster.set-aside" in check.title
    assert sweep(fakes).exit is Exit.OK


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None, exclude_categories=()), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(set(RunRecord.model_fields) - {"target", "origin"})), _JSON, min_size=1, max_size=3))
@example({"parts": 2})
def test_whatever_stands_in_a_record_all_ends_are_said(change: dict[str, object]) -> None:
    fakes = Fakes()
    broken(fakes, change)
    sweep(fakes)
    assert "2" * 16 not in fakes.cluster.active
    sweep(fakes)
    # By its record it may have more parts than the scheduler speaks of: those are waited for as long as a job that is not known.
    fakes.clock.time += timedelta(minutes=10)
    sweep(fakes)
    assert not fakes.cluster.active
    assert sweep(fakes).exit is Exit.OK


@pytest.mark.parametrize("text", ["", "{broken", "[1]", "{}", '{"target": 1}', '"x"', "[" * 100_000])
def test_a_run_that_does_not_say_whose_it_is_is_set_aside_once_it_has_ended(text: str) -> None:
    fakes = Fakes()
    broken(fakes, text, "RUNNING")
    sweep(fakes)
    sweep(fakes)
    assert set(fakes.cluster.active) == {"1" * 16}, "while its job runs, somebody may put the record back"
    fakes.cluster.scheduler["1"] = "COMPLETED"
    sweep(fakes)
    assert sweep(fakes).exit is Exit.CLUSTER
    assert not fakes.cluster.active
    assert any("Run 1111111111111111 is set aside" in line and "job_dir" in line for line in fakes.said)
    assert sweep(fakes).exit is Exit.OK


def test_a_record_of_a_newer_version_is_another_repositorys_own_affair() -> None:
    fakes = Fakes()
    other = run_record(target=Target(repository="other/repo", pull=7))
    added = fakes.cluster.add(other, "running", "COMPLETED")
    added.record = before = json.dumps({**json.loads(added.record), "field_of_a_newer_version": 1})
    for _ in range(3):
        assert sweep(fakes).exit is Exit.OK
    assert (added.record, fakes.cluster.active) == (before, {KEY: "running"})


@pytest.mark.parametrize(
    "step", ["forge.create_check", "forge.create_comment", "cluster.fetch", "cluster.save succeeded", "cluster.retire"]
)
def test_a_bug_at_one_run_holds_up_no_other(step: str) -> None:
    fakes = Fakes()
    broken(fakes, {})

    def once() -> None:
        raise RuntimeError("half a pair \ud800, ghp_" + "x" * 36)

    fakes.trace.at[step] = once
    ended = sweep(fakes)
    assert (ended.exit, counted(ended)["failed"], counted(ended)["ended"]) == (Exit.CLUSTER, 1, 1)
    assert fakes.cluster.active == {"1" * 16: "broken"}
    [said] = [line for line in fakes.said if "This is a bug: RuntimeError: half a pair" in line]
    assert "ghp_" not in said
    assert said.isascii()
    assert sweep(fakes).exit is Exit.OK
    assert not fakes.cluster.active
    assert {check.conclusion for check in fakes.forge.checks.values()} == {"success"}
    assert len(fakes.forge.comments) == 2


@pytest.mark.parametrize("step", ["forge.find_checks dispatch/gate", "forge.changed_files"])
def test_a_bug_of_the_gate_does_not_stop_a_sweep(step: str) -> None:
    fakes = Fakes()
    broken(fakes, {})
    fakes.fail_with(step, RuntimeError("no"))
    assert counted(sweep(fakes))["ended"] == 2
    assert any("could not be written. This is a bug: RuntimeError: no." in line for line in fakes.said)


def test_what_a_look_breaks_at_for_good_ends_as_a_failure() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(), "running", "COMPLETED")
    fakes.fail_with("cluster.fetch", RuntimeError("no"))
    assert sweep(fakes).exit is Exit.CLUSTER
    assert fakes.cluster.active == {KEY: "broken"}
    sweep(fakes)
    assert not fakes.cluster.active
    check = fakes.forge.check(CHECK)
    assert check.conclusion == "failure"
    assert "what it left behind cannot be dealt with (RuntimeError, cluster.set-aside)" in check.title
    assert "Look at `/jobs/runs/0123456789abcdef`" in fakes.forge.bodies[0]


def test_a_moments_bug_costs_a_run_nothing() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(), "running", "COMPLETED")
    fakes.fail_with("cluster.fetch", RuntimeError("no"))
    sweep(fakes)
    fakes.trace.fail.clear()
    sweep(fakes)
    assert (fakes.forge.check(CHECK).conclusion, fakes.cluster.active) == ("success", {})


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(3)])
def test_who_stops_a_sweep_stops_it(stop: BaseException) -> None:
    fakes = Fakes()
    broken(fakes, {})
    fakes.fail_with("cluster.fetch", stop)
    with pytest.raises(type(stop)):
        sweep(fakes)


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
