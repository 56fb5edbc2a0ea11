"""The ledger's memory: JSON there and back, strictly, and one step at a time."""

from __future__ import annotations

import json
import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.advance import advance
from dispatcher.errors import ClusterError
from dispatcher.record import JOB_ID, Resources, RunRecord, Target, parse_record
from dispatcher.slurm import Absent, Observation, Sight, Silent, State
from tests.fakes import NOON, run_record

GRACE = timedelta(minutes=10)
LATER = NOON + timedelta(hours=1)


def test_there_and_back() -> None:
    record = run_record(
        overrides=("a=ü | `x`", "b=1"),
        submitted_at=NOON,
        started_at=NOON,
        ended_at=LATER,
        exit_code=1,
        signal=9,
        reason="\u2028 odd\n",
        results={"loss": 1.5, "steps": 3, "device": "cpu", "none": None},
        target=Target(repository="o/r", pull=7, command_comment=1, comment=2, check=3),
        resources=Resources(nodes=2, gpus_per_node=8, seconds=3600, partition="p"),
    )
    assert parse_record(record.to_json()) == record
    assert "\n" not in record.to_json()


def test_what_is_no_number_survives() -> None:
    record = run_record(results={"nan": math.nan, "up": math.inf, "down": -math.inf})
    back = parse_record(record.to_json()).results
    assert math.isnan(float(str(back["nan"])))
    assert (back["up"], back["down"]) == (math.inf, -math.inf)


@given(st.dictionaries(st.text(max_size=20), st.floats() | st.integers(-(2**63), 2**63) | st.text(max_size=20) | st.none(), max_size=5))
def test_any_results_survive(results: dict[str, float | int | str | None]) -> None:
    assert repr(parse_record(run_record(results=results).to_json()).results) == repr(results)


HOSTILE = "x) [y](https://evil.example) @org/everyone | <b> `"


@pytest.mark.parametrize(
    "change",
    [
        {"run_key": "../../etc"},
        {"run_key": "0123456789abcde"},
        {"run_key": "0123456789abcdef\n"},
        {"sha": HOSTILE},
        {"profile": HOSTILE},
        {"recipe": HOSTILE},
        {"job_id": HOSTILE},
        {"log_template": "javascript:alert(1)"},
        {"log_template": f"https://{HOSTILE}"},
        {"run_dir": f"/{HOSTILE}"},
        {"state": "finished"},
        {"asked_at": "yesterday"},
        {"nonsense": 1},
        {"results": {"a": []}},
        {"origin": "elsewhere"},
    ],
)
def test_a_record_that_is_not_ours_is_refused(change: dict[str, object]) -> None:
    text = json.dumps({**json.loads(run_record().to_json()), **change})
    with pytest.raises(ClusterError) as refused:
        parse_record(text)
    assert refused.value.code == "cluster.bad-record"
    assert "evil" not in refused.value.cause


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}", "\x00"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ClusterError):
        parse_record(text)


def test_a_record_of_an_older_version_without_newer_fields_is_read() -> None:
    document = json.loads(run_record().to_json())
    for name in ("origin", "lfs_pointers", "results_required"):
        document.pop(name, None)
    assert parse_record(json.dumps(document)) == run_record()


@pytest.mark.parametrize(
    ("template", "job", "url"),
    [
        (f"https://logs/{JOB_ID}/a?j={JOB_ID}", "77", "https://logs/77/a?j=77"),
        (f"https://logs/{JOB_ID}", "", None),
        ("", "77", None),
    ],
)
def test_log_links(template: str, job: str, url: str | None) -> None:
    assert run_record(log_template=template, job_id=job).log_url == url


@pytest.mark.parametrize(
    ("started", "ended", "seconds"),
    [(NOON, LATER, 3600), (LATER, NOON, 0), (None, LATER, None), (NOON, None, None)],
)
def test_elapsed(started: object, ended: object, seconds: int | None) -> None:
    assert run_record(started_at=started, ended_at=ended).elapsed_seconds == seconds


def test_gpu_hours() -> None:
    assert Resources(nodes=2, gpus_per_node=8, seconds=4 * 3600).gpu_hours == 64


# --------------------------------------------------------------------------- one look

SQUEUED = Observation(State.PENDING, "squeue", reason="Priority", start=LATER)
RUNNING = Observation(State.RUNNING, "squeue", nodes="n[1-2]", start=NOON)
DONE = Observation(State.SUCCEEDED, "sacct", exit_code=0, nodes="n[1-2]", start=NOON, end=LATER)


@pytest.mark.parametrize(
    ("before", "sight", "expected"),
    [
        ({}, SQUEUED, {"state": State.PENDING, "reason": "Priority", "estimated_start": LATER, "started_at": None}),
        ({}, RUNNING, {"state": State.RUNNING, "started_at": NOON, "nodes": "n[1-2]", "estimated_start": None, "evidence": "squeue"}),
        # Without a time from the scheduler it began when it was first seen, or when that was remembered.
        ({}, Observation(State.RUNNING, "process"), {"started_at": LATER}),
        ({"started_at": NOON}, Observation(State.RUNNING, "process"), {"started_at": NOON}),
        ({}, DONE, {"state": State.SUCCEEDED, "exit_code": 0, "started_at": NOON, "ended_at": LATER}),
        (
            {"started_at": NOON, "nodes": "n1"},
            Observation(State.FAILED, "exit file", exit_code=3),
            {"ended_at": LATER, "nodes": "n1", "exit_code": 3},
        ),
        ({}, Observation(State.FAILED, "sacct", end=LATER, elapsed_seconds=60), {"started_at": LATER - timedelta(seconds=60)}),
        # A job that was requeued waits again: it has not started.
        ({"state": State.RUNNING, "started_at": NOON}, SQUEUED, {"state": State.PENDING, "started_at": None}),
        ({"absent_since": NOON}, RUNNING, {"absent_since": None}),
        ({}, Observation(State.UNKNOWN, "squeue"), {"state": State.UNKNOWN, "ended_at": None}),
        ({}, Absent(), {"state": State.PENDING, "absent_since": LATER}),
        ({"absent_since": LATER - GRACE + timedelta(seconds=1)}, Absent(), {"state": State.PENDING}),
        ({"absent_since": LATER - GRACE}, Absent(), {"state": State.LOST, "ended_at": LATER, "absent_since": LATER - GRACE}),
        ({"absent_since": NOON}, Silent("down"), {"state": State.PENDING, "absent_since": NOON}),
        ({}, Silent("down"), {"state": State.PENDING, "absent_since": None}),
    ],
)
def test_one_step(before: dict[str, object], sight: Sight, expected: dict[str, object]) -> None:
    after = advance(run_record(**before), sight, LATER, GRACE)
    assert {name: getattr(after, name) for name in expected} == expected


observations = st.builds(Observation, st.sampled_from(list(State)), st.just("squeue"), exit_code=st.none() | st.integers(0, 255))
sights: st.SearchStrategy[Sight] = observations | st.just(Absent()) | st.just(Silent("down"))


@given(st.lists(sights, max_size=20))
def test_an_end_is_final_and_success_needs_a_witness(looks: list[Sight]) -> None:
    record = run_record()
    now = NOON
    for sight in looks:
        now += timedelta(minutes=3)
        after = advance(record, sight, now, GRACE)
        if record.state.ended:
            assert after == record
        if after.state is State.SUCCEEDED and record.state is not State.SUCCEEDED:
            assert isinstance(sight, Observation)
            assert sight.state is State.SUCCEEDED
        assert parse_record(after.to_json()) == after
        record = after


@given(st.lists(sights, max_size=20))
def test_lost_takes_the_whole_grace_without_a_sign_of_life(looks: list[Sight]) -> None:
    record: RunRecord = run_record()
    now = last_seen = NOON
    for sight in looks:
        now += timedelta(minutes=3)
        last_seen = now if isinstance(sight, Observation) else last_seen
        record = advance(record, sight, now, GRACE)
        if record.state is State.LOST and record.reason:
            assert now - last_seen >= GRACE
            break


def test_parts_that_nobody_knows_of_have_not_ended_well() -> None:
    """Accounting may have lost a task: that is an absence, with its grace."""
    record = run_record(state=State.RUNNING, parts=4)
    three = Observation(State.SUCCEEDED, "sacct", exit_code=0, parts=3)
    first = advance(record, three, NOON, GRACE)
    assert (first.state, first.absent_since) == (State.RUNNING, NOON)
    lost = advance(first, three, LATER, GRACE)
    assert (lost.state, lost.reason) == (State.LOST, "the scheduler knows the end of 3 of 4 parts of the job")
    assert advance(first, Observation(State.SUCCEEDED, "sacct", parts=4), LATER, GRACE).state is State.SUCCEEDED
    assert advance(record, Observation(State.SUCCEEDED, "exit file", parts=None), LATER, GRACE).state is State.SUCCEEDED
    assert advance(record, Observation(State.FAILED, "sacct", parts=1), LATER, GRACE).state is State.FAILED
