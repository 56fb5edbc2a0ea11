"""GPU-hours of a run → a line of the journal, and the journal → what was spent, whatever else stands in it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.record import Resources, RunRecord, Target
from dispatcher.slurm import State
from dispatcher.usage import Spent, month_of, reserved, spent, used

ASKED = datetime(2026, 10, 31, 23, 50, tzinfo=timezone.utc)
SUBMITTED = ASKED + timedelta(minutes=20)
KEY, OTHER = "a" * 16, "b" * 16


def record(**more: object) -> RunRecord:
    given = {
        "run_key": KEY,
        "content_key": "c",
        "digest": "d",
        "target": Target(repository="Org/Model", pull=12),
        "trigger": "comment:1",
        "actor": "Alice",
        "sha": "e" * 40,
        "profile": "cluster",
        "recipe": "nano3/pretrain",
        "program": "train.py",
        "executor": "slurm",
        "cluster": "c",
        "run_dir": "/r",
        "resources": Resources(nodes=2, gpus_per_node=8, seconds=4 * 3600),
        "asked_at": ASKED,
        **more,
    }
    return RunRecord.model_validate(given)


def ended(seconds: float | None, state: State = State.SUCCEEDED, **more: object) -> RunRecord:
    end = SUBMITTED + timedelta(hours=9)
    start = None if seconds is None else end - timedelta(seconds=seconds)
    return record(**{"state": state, "submitted_at": SUBMITTED, "started_at": start, "ended_at": end, **more})


def test_a_submission_reserves_what_it_asks_for() -> None:
    assert reserved(record(), SUBMITTED) == f"2026-11 {KEY} Org/Model Alice 12 cluster nano3/pretrain 64.0000"
    assert reserved(record(target=Target(repository="o/r")), ASKED) == f"2026-10 {KEY} o/r Alice - cluster nano3/pretrain 64.0000"
    assert reserved(record(submitted_at=ASKED), SUBMITTED).startswith("2026-10 "), "the record says when"


@pytest.mark.parametrize(
    ("run", "hours"),
    [
        (ended(3600), "16.0000"),
        (ended(3600, State.FAILED), "16.0000"),
        (ended(5 * 3600, State.TIMEOUT), "80.0000"),
        (ended(None, State.CANCELLED), "0.0000"),
        (ended(0), "0.0000"),
        (ended(-5), "0.0000"),
        (ended(1), "0.0044"),
        (ended(9 * 3600, State.LOST), "64.0000"),
        (ended(60, State.LOST), "0.2667"),
        (ended(None, State.LOST), "0.0000"),
        (ended(None, State.LOST, job_id="7"), "64.0000"),
        (ended(None, State.SUCCEEDED, job_id="7", evidence="exit file"), "64.0000"),
        (ended(None, State.FAILED, job_id="7", evidence="exit file", submitted_at=SUBMITTED + timedelta(hours=8)), "16.0000"),
        (ended(None, State.CANCELLED, job_id="7", evidence="exit file", submitted_at=SUBMITTED + timedelta(hours=8)), "16.0000"),
        (ended(None, State.CANCELLED, job_id="7", evidence="squeue"), "0.0000"),
        (ended(3600, resources=Resources(nodes=2, seconds=60)), "0.0000"),
    ],
)
def test_an_end_says_what_was_used(run: RunRecord, hours: str) -> None:
    assert used(run) == f"2026-11 {KEY} Org/Model Alice 12 cluster nano3/pretrain {hours}"


@pytest.mark.parametrize("state", [state for state in State if not state.ended])
def test_what_has_not_ended_has_no_end(state: State) -> None:
    assert used(record(state=state, started_at=SUBMITTED)) is None


def test_who_was_never_submitted_used_nothing_in_the_month_in_which_it_was_asked_for() -> None:
    assert used(record(state=State.CANCELLED, ended_at=SUBMITTED)) == f"2026-10 {KEY} Org/Model Alice 12 cluster nano3/pretrain 0.0000"


def test_months_are_utc() -> None:
    assert month_of(datetime(2026, 11, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))) == "2026-10"


JOURNAL = f"""\
2026-11 {KEY} org/model alice 12 cluster default 64.0000
2026-11 {OTHER} org/model ALICE 13 Large default 10.5
2026-11 {"c" * 16} org/model merge%20queue - cluster eval 1
2026-11 {"d" * 16} other/model alice 12 cluster default 500
2026-11 {KEY} ORG/model alice 12 cluster default 6.0
"""


def test_the_last_line_of_a_run_counts_and_only_this_repository() -> None:
    found = spent(JOURNAL, "Org/Model")
    assert found.month == 17.5
    assert (found.user("Alice"), found.user("bob"), found.user("merge queue")) == (16.5, 0, 1)
    assert (found.pull(12), found.pull(13), found.pull(1)) == (6, 10.5, 0)
    assert (found.profile("cluster"), found.profile("LARGE"), found.profile("x")) == (7, 10.5, 0)
    assert (found.recipe("default"), found.recipe("eval"), found.recipe("x")) == (16.5, 1, 0)


def test_one_run_can_be_left_out() -> None:
    assert spent(JOURNAL, "org/model", KEY).month == 11.5


def test_an_empty_journal_has_nothing() -> None:
    assert spent("", "o/r") == Spent()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        f"2026-11 {KEY} org/model alice 12 cluster default",
        f"2026-11 {KEY} org/model alice 12 cluster default -5",
        f"2026-11 {KEY} org/model alice 12 cluster default nan",
        f"2026-11 {KEY} org/model alice 12 cluster default inf",
        f"2026-11 {KEY} org/model alice 12 cluster default 1e9",
        f"2026-11 {KEY} org/model alice 12 cluster default 1_0",
        f"2026-11 {KEY} org/model alice 12 cluster default ٣",
        f"2026-11 {KEY} org/model alice 0 cluster default 1",
        f"2026-11 {KEY} org/model alice x cluster default 1",
        f"2026-11 {KEY[1:]} org/model alice 1 cluster default 1",
        f"11-2026 {KEY} org/model alice 1 cluster default 1",
        f"2026-11 {KEY} org/model ali ce 1 cluster default 1",
        f"2026-11 {KEY} org/model alice 1 cluster default 1 more",
        f" 2026-11 {KEY} org/model alice 1 cluster default 1",
        "\0",
    ],
)
def test_a_broken_line_is_no_line(line: str) -> None:
    assert spent(f"{JOURNAL}{line}\n", "org/model") == spent(JOURNAL, "org/model")
    assert spent(f"{line}\r\n", "org/model") == Spent()


def test_the_first_half_of_a_line_that_was_cut_off_is_no_line() -> None:
    whole = spent(JOURNAL, "org/model")
    for cut in range(len("ORG/model alice 12 cluster default 6.0\n")):
        assert spent(JOURNAL[: len(JOURNAL) - cut - 2], "org/model").month in (whole.month, whole.month + 58)


@given(st.text(), st.text())
def test_no_journal_makes_it_raise(journal: str, repository: str) -> None:
    assert spent(journal, repository).month >= 0


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=20),
            st.integers(1, 999) | st.none(),
            st.floats(0, 100),
            st.integers(0, 2**64 - 1),
        )
    )
)
def test_what_is_written_is_read_again(runs: list[tuple[str, int | None, float, int]]) -> None:
    lines, hours, users = "", {}, {}
    for actor, pull, amount, number in runs:
        seconds = round(amount * 3600)
        run = record(
            run_key=f"{number:016x}",
            actor=actor,
            target=Target(repository="Org/Model", pull=pull),
            resources=Resources(nodes=1, gpus_per_node=1, seconds=seconds),
        )
        lines += reserved(run, SUBMITTED) + "\n"
        hours[number], users[number] = seconds / 3600, actor.lower()
    found = spent(lines, "org/model")
    assert found.month == pytest.approx(sum(hours.values()), abs=1e-3)
    for actor in set(users.values()):
        assert found.user(actor) == pytest.approx(sum(hours[number] for number, name in users.items() if name == actor), abs=1e-3)


def test_an_array_used_what_its_tasks_did() -> None:
    array = Resources(nodes=2, gpus_per_node=8, seconds=4 * 3600, tasks=4)
    assert reserved(record(resources=array), SUBMITTED).endswith(" 256.0000")
    assert str(used(ended(3600, resources=array, task_seconds=9000))).endswith(" 40.0000")
    assert str(used(ended(400_000, State.LOST, resources=array))).endswith(" 256.0000")
