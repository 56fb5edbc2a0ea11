"""What Slurm prints → what is known: each command's words, and how they fill in for each other."""

from datetime import datetime, timezone

import pytest

from dispatcher.ports import CommandOutput
from dispatcher.slurm import Absent, Observation, Sight, Silent, State, observe, parse_exit, parse_job_id, parse_sacct, parse_time, state_of

DOWN = CommandOutput(1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
EMPTY = CommandOutput(0, "")
NO_ACCOUNTING = CommandOutput(1, "", "Slurm accounting storage is disabled")
FORGOTTEN = CommandOutput(1, "", "slurm_load_jobs error: Invalid job id specified")


def squeue(state: str, reason: str = "None", start: str = "N/A", nodes: str = "") -> CommandOutput:
    return CommandOutput(0, f"77|{state}|{reason}|{start}|dispatch-x|{nodes}|1\n78|RUNNING|None|N/A|other|n1|1\n")


def sacct(state: str, exit_code: str = "0:0") -> CommandOutput:
    return CommandOutput(0, f"77|{state}|{exit_code}|1700000000|1700000060|60|n[1-2]|None\n")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("COMPLETED", State.SUCCEEDED),
        ("CANCELLED by 1001", State.CANCELLED),
        ("CANCELLED+", State.CANCELLED),
        ("COMPLETING", State.RUNNING),
        ("REQUEUE_HOLD", State.PENDING),
        ("OUT_OF_ME+", State.UNKNOWN),
        ("DEADLINE", State.TIMEOUT),
        ("BOOT_FAIL", State.NODE_FAIL),
        ("SOMETHING_NEW", State.UNKNOWN),
        ("", State.UNKNOWN),
    ],
)
def test_every_word_has_a_state(word: str, state: State) -> None:
    assert state_of(word) is state


@pytest.mark.parametrize(
    ("queue", "accounting", "controller", "exit_file", "expected"),
    [
        # The queue knows what is active, and wins over accounting that lags behind or remembers an earlier start.
        (squeue("PENDING", "Resources"), EMPTY, None, "", State.PENDING),
        (squeue("RUNNING"), sacct("NODE_FAIL"), None, "", State.RUNNING),
        # Accounting knows ends.
        (EMPTY, sacct("COMPLETED"), None, "", State.SUCCEEDED),
        (squeue("OUT_OF_MEMORY"), sacct("OUT_OF_MEMORY", "0:125"), None, "", State.OUT_OF_MEMORY),
        # Accounting may still tell of an earlier start, after which Slurm has started the job again.
        (squeue("COMPLETED"), sacct("NODE_FAIL", "0:0"), None, "", State.SUCCEEDED),
        (squeue("CANCELLED"), sacct("NODE_FAIL", "0:0"), None, "", State.CANCELLED),
        (DOWN, sacct("FAILED", "1:0"), DOWN, "", State.FAILED),
        # Without accounting, the controller knows for a while.
        (EMPTY, NO_ACCOUNTING, CommandOutput(0, "JobId=77 JobState=TIMEOUT Reason=TimeLimit ExitCode=0:15"), "", State.TIMEOUT),
        (squeue("FAILED"), NO_ACCOUNTING, None, "", State.FAILED),
        # And then only what the batch script left behind.
        (EMPTY, NO_ACCOUNTING, FORGOTTEN, "0", State.SUCCEEDED),
        (EMPTY, NO_ACCOUNTING, FORGOTTEN, "3", State.FAILED),
        # Everybody answered and nobody knows it.
        (EMPTY, EMPTY, FORGOTTEN, "", Absent),
        (EMPTY, EMPTY, FORGOTTEN, "0", Absent),
        (EMPTY, NO_ACCOUNTING, FORGOTTEN, "", Absent),
        # Nobody who could know has answered: that is no absence.
        (DOWN, DOWN, DOWN, "", Silent),
        (DOWN, EMPTY, DOWN, "0", Silent),
        (DOWN, None, None, "", Silent),
        # Accounting alone lags behind: what it says of a job that has not ended may be long over.
        (DOWN, sacct("RUNNING"), DOWN, "", Silent),
        (squeue("WHATEVER"), EMPTY, None, "", State.UNKNOWN),
    ],
)
def test_each_fills_in_for_the_other(
    queue: CommandOutput, accounting: CommandOutput | None, controller: CommandOutput | None, exit_file: str, expected: object
) -> None:
    sight: Sight = observe("77", queue, accounting, controller, exit_file)
    assert (sight.state if isinstance(sight, Observation) else type(sight)) is expected


def test_accounting_gives_exit_times_and_who_cancelled() -> None:
    seen = (parse_sacct(sacct("CANCELLED by 1001", "0:15")) or {})["77"]
    assert (seen.exit_code, seen.signal, seen.elapsed_seconds, seen.nodes) == (0, 15, 60, "n[1-2]")
    assert seen.reason == "cancelled by user id 1001"
    assert seen.end == datetime(2023, 11, 14, 22, 14, 20, tzinfo=timezone.utc)


LATE = CommandOutput(0, "77|FAILED|0:0|1699999990|Unknown|10|n1|None\n")


@pytest.mark.parametrize(
    ("queue", "exit_file", "expected"),
    [(squeue("FAILED"), "3", 3), (squeue("FAILED"), "", None), (EMPTY, "3", 3), (EMPTY, "", None), (DOWN, "3", "silent")],
)
def test_an_end_without_an_end_is_not_believed_about_its_exit_code(queue: CommandOutput, exit_file: str, expected: object) -> None:
    sight = observe("77", queue, LATE, DOWN if queue is DOWN else None, exit_file)
    if expected == "silent":
        assert isinstance(sight, Silent)
        return
    assert isinstance(sight, Observation)
    assert (sight.state, sight.exit_code) == (State.FAILED, expected)


def test_the_last_row_of_a_requeued_job_counts() -> None:
    rows = CommandOutput(0, "77|NODE_FAIL|1:0|1|2|1|n1|None\n77|COMPLETED|0:0|3|4|1|n2|None\n")
    assert (parse_sacct(rows) or {})["77"].state is State.SUCCEEDED


@pytest.mark.parametrize("text", ["N/A", "Unknown", "None", "", "tomorrow", "99999999999999"])
def test_no_time_is_none(text: str) -> None:
    assert parse_time(text) is None


@pytest.mark.parametrize(("text", "parsed"), [("1:0", (1, None)), ("0:9", (0, 9)), ("", (None, None)), ("x:y", (None, None))])
def test_exit_codes(text: str, parsed: tuple[int | None, int | None]) -> None:
    assert parse_exit(text) == parsed


@pytest.mark.parametrize(
    ("text", "job"), [("123\n", "123"), ("123;alpha\n", "123"), ("Submitted batch job 5", None), ("", None), ("-1", None)]
)
def test_sbatch_answers(text: str, job: str | None) -> None:
    assert parse_job_id(text) == job
