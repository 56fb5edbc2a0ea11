"""When a stage may begin, when it never will, and how it is told that Slurm gave up on it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dispatcher.awaiting import Never, Ready, Standby, as_seen, awaited
from dispatcher.pipeline import WHENS, When
from dispatcher.record import Member, RunRecord
from dispatcher.slurm import Absent, Observation, Sight, Silent, State
from tests.fakes import NOON, run_record

KEYS = {name: f"{number:016x}" for number, name in enumerate(["pretrain", "sft", "rl", "rescue"], 1)}
GRACE = timedelta(minutes=10)
ENDED = [state for state in State if state.ended]


def member(stage: str, *after: str, when: When = "afterok") -> Member:
    return Member(run_key=KEYS[stage], profile="cluster", stage=stage, after=tuple(KEYS[name] for name in after), when=when)


GROUP = (
    member("pretrain"),
    member("sft", "pretrain"),
    member("rl", "sft"),
    member("rescue", "pretrain", when="afternotok"),
)


def record(stage: str, state: State = State.PENDING, **fields: object) -> RunRecord:
    given = {"run_key": KEYS[stage], "pipeline": "full", "stage": stage, "group": GROUP, "job_id": str(list(KEYS).index(stage) + 1)}
    return run_record(**{**given, "state": state, **fields})


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("state", list(State))
def test_one_that_waits_for_one(when: When, state: State) -> None:
    found = awaited(when, GROUP[:1], {KEYS["pretrain"]: record("pretrain", state)}, NOON)
    if not state.ended:
        assert found == Standby(("pretrain",))
    elif when == "afterany" or (when == "afternotok") == (state is not State.SUCCEEDED):
        assert found == Ready()
    else:
        assert isinstance(found, Never)
        # What is there for a failure is not needed where there is none; nor is what comes after something that was not needed.
        assert found.needless == (when == "afternotok" or state is State.SKIPPED)
        assert found.state is (State.SKIPPED if found.needless else State.CANCELLED)
        assert "stage pretrain" in found.why


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (State.SUCCEEDED, State.RUNNING, Standby(("rl",))),
        (State.PENDING, State.QUEUED, Standby(("sft", "rl"))),
        (State.SUCCEEDED, State.SUCCEEDED, Ready()),
        (State.FAILED, State.RUNNING, "stage sft failed"),
        (State.SKIPPED, State.FAILED, "stage rl failed"),
        (State.SKIPPED, State.SUCCEEDED, "stage sft was not needed"),
    ],
)
def test_one_that_waits_for_two(first: State, second: State, found: object) -> None:
    known = {KEYS["sft"]: record("sft", first), KEYS["rl"]: record("rl", second)}
    seen = awaited("afterok", GROUP[1:3], known, NOON)
    assert seen == found if not isinstance(found, str) else isinstance(seen, Never) and found in seen.why


def test_a_stage_without_a_record_is_not_waited_for_for_ever() -> None:
    assert awaited("afterok", GROUP[:1], {}, NOON) == Never("stage pretrain has left no record", False)


# --------------------------------------------------------------------------- what Slurm ended, or has forgotten

KILLED = Observation(State.CANCELLED, "squeue", reason="DependencyNeverSatisfied", start=NOON)
ACCOUNTED = Observation(State.CANCELLED, "sacct", reason="Dependency", start=NOON, end=NOON)
BY_SOMEBODY = Observation(State.CANCELLED, "sacct", reason="cancelled by user id 0", start=NOON, end=NOON)
FAILED = Observation(State.FAILED, "sacct", exit_code=3, start=NOON, end=NOON)
PASSED = Observation(State.SUCCEEDED, "sacct", exit_code=0, start=NOON, end=NOON)
RUNNING = Observation(State.RUNNING, "squeue", start=NOON)


@pytest.mark.parametrize("killed", [KILLED, ACCOUNTED, Absent()])
@pytest.mark.parametrize(
    ("stage", "before", "state", "reason"),
    [
        ("sft", FAILED, State.CANCELLED, "stage pretrain failed with exit code 3"),
        ("rescue", PASSED, State.SKIPPED, "stage pretrain passed"),
    ],
)
def test_why_slurm_ended_it(killed: Sight, stage: str, before: Sight, state: State, reason: str) -> None:
    known = {key: record(name) for name, key in KEYS.items()}
    seen = as_seen(known[KEYS[stage]], {KEYS[stage]: killed, KEYS["pretrain"]: before}, known, NOON, GRACE)
    assert (seen.state, seen.started_at) == (state, None)
    assert seen.reason.startswith(reason)


def test_the_whole_chain_is_told_by_its_beginning_whoever_is_looked_at_first() -> None:
    known = {key: record(name) for name, key in KEYS.items()}
    sights: dict[str, Sight] = {KEYS["rl"]: Absent(), KEYS["sft"]: Absent(), KEYS["pretrain"]: FAILED}
    seen = as_seen(known[KEYS["rl"]], sights, known, NOON, GRACE)
    assert (seen.state, seen.reason) == (State.CANCELLED, "stage sft was cancelled")


@pytest.mark.parametrize(
    ("sight", "before", "state"),
    [
        (KILLED, RUNNING, State.PENDING),  # the next look knows more
        (KILLED, Silent(""), State.PENDING),
        (BY_SOMEBODY, RUNNING, State.CANCELLED),
        (BY_SOMEBODY, FAILED, State.CANCELLED),
        (Observation(State.CANCELLED, "squeue", reason="Dependency", start=NOON), RUNNING, State.CANCELLED),
        (Absent(), RUNNING, State.PENDING),  # lost, once it has been so for long enough
        (Absent(), PASSED, State.PENDING),
        (RUNNING, PASSED, State.RUNNING),
        (Silent(""), FAILED, State.PENDING),
    ],
)
def test_what_is_not_slurms_doing(sight: Sight, before: Sight, state: State) -> None:
    known = {key: record(name) for name, key in KEYS.items()}
    seen = as_seen(known[KEYS["sft"]], {KEYS["sft"]: sight, KEYS["pretrain"]: before}, known, NOON, GRACE)
    assert seen.state is state
    assert "pretrain" not in seen.reason


def test_an_absent_one_is_lost_after_its_grace_where_nothing_explains_it() -> None:
    known = {key: record(name) for name, key in KEYS.items()}
    before = known[KEYS["sft"]].model_copy(update={"absent_since": NOON - GRACE})
    assert as_seen(before, {KEYS["sft"]: Absent(), KEYS["pretrain"]: PASSED}, known, NOON, GRACE).state is State.LOST


@pytest.mark.parametrize(("killed", "state"), [(KILLED, State.PENDING), (ACCOUNTED, State.PENDING), (Absent(), State.PENDING)])
def test_a_ledger_that_does_not_answer_explains_nothing(killed: Sight, state: State) -> None:
    known = {KEYS["sft"]: record("sft")}
    seen = as_seen(known[KEYS["sft"]], {KEYS["sft"]: killed}, known, NOON, GRACE, [KEYS["pretrain"]])
    assert (seen.state, seen.reason) == (state, "")


def test_a_ledger_with_circles_sends_nobody_round() -> None:
    circle = (member("pretrain", "sft"), member("sft", "pretrain"))
    known = {KEYS[name]: record(name, group=circle) for name in ("pretrain", "sft")}
    seen = as_seen(known[KEYS["sft"]], dict.fromkeys(known, Absent()), known, NOON, GRACE)
    assert seen.state is State.PENDING
