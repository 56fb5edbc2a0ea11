"""What Slurm prints → what is known: each command's words, and how they fill in for each other."""

from datetime import datetime, timezone

import pytest

from dispatcher.jobparts import array_tasks, at_once, parts_of
from dispatcher.ports import CommandOutput
from dispatcher.sightings import Sightings
from dispatcher.slurm import (
    Absent,
    Observation,
    Place,
    Sight,
    Silent,
    State,
    parse_exit,
    parse_job_id,
    parse_sacct,
    parse_scontrol,
    parse_time,
    state_of,
)

DOWN = CommandOutput(1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
EMPTY = CommandOutput(0, "")
NO_ACCOUNTING = CommandOutput(1, "", "Slurm accounting storage is disabled")
FORGOTTEN = CommandOutput(1, "", "slurm_load_jobs error: Invalid job id specified")


def observe(
    job_id: str, squeue: CommandOutput | None, sacct: CommandOutput | None, scontrol: CommandOutput | None, exit_file: str = ""
) -> Sight:
    return Sightings(squeue, sacct, scontrol).of(job_id, exit_file)


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
        # Unless that may have been no end: where the controller is silent, Slurm may have put the job back into its queue.
        (DOWN, sacct("PREEMPTED", "0:0"), DOWN, "", Silent),
        (DOWN, sacct("NODE_FAIL", "0:0"), None, "", Silent),
        (EMPTY, sacct("PREEMPTED", "0:0"), None, "", State.PREEMPTED),
        (squeue("PENDING", "BeginTime"), sacct("PREEMPTED", "0:0"), None, "", State.PENDING),
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


# --------------------------------------------------------------------------- jobs with parts


def asked(sacct_rows: str, squeue_rows: str = "", exit_file: str = "", accounting: bool = True) -> Sight:
    accounted = CommandOutput(0, sacct_rows) if accounting else NO_ACCOUNTING
    return observe("9", CommandOutput(0, squeue_rows), accounted, None, exit_file)


def row(part: str, state: str, exit_code: str = "0:0", start: int = 100, end: int = 200, nodes: str = "n1") -> str:
    return f"9{part}|{state}|{exit_code}|{1700000000 + start}|{1700000000 + end}|{end - start}|{nodes}|None\n"


def queued(part: str, state: str, reason: str = "None") -> str:
    return f"9{part}|{state}|{reason}|N/A|dispatch-x||1\n"


GOOD = [row(f"_{number}", "COMPLETED", nodes=f"n{number}") for number in range(4)]


@pytest.mark.parametrize(
    ("sacct_rows", "squeue_rows", "state", "reason"),
    [
        ("".join(GOOD), "", State.SUCCEEDED, ""),
        ("", queued("_[0-3%2]", "PENDING", "Resources"), State.PENDING, "Resources"),
        (GOOD[0], queued("_1", "RUNNING") + queued("_[2-3%2]", "PENDING"), State.RUNNING, "of 4: 2 pending, 1 running, 1 succeeded"),
        # All but one have ended, and that one waits: for a node, or for its next start.
        ("".join(GOOD[:3]), queued("_3", "PENDING"), State.RUNNING, "of 4: 1 pending, 3 succeeded"),
        (GOOD[0] + row("_1", "FAILED", "3:0"), queued("_1", "REQUEUED"), State.RUNNING, "of 2: 1 pending, 1 succeeded"),
        # The first to fail is named, by its end; what was cancelled is no cause.
        (
            GOOD[0] + row("_1", "TIMEOUT", end=900) + row("_2", "FAILED", "3:0", end=300) + row("_10", "CANCELLED by 0", end=150),
            "",
            State.FAILED,
            "task 2 ended as failed with exit code 3; of 4: 1 succeeded, 1 failed, 1 timeout, 1 cancelled",
        ),
        (row("_0", "FAILED", "0:9"), "", State.FAILED, "task 0 ended as failed by signal 9; of 1: 1 failed"),
        (
            GOOD[0] + row("_[1-3%1]", "CANCELLED by 7", end=100),
            "",
            State.CANCELLED,
            "task 1 ended as cancelled (cancelled by user id 7); of 4: 1 succeeded, 3 cancelled",
        ),
        # A heterogeneous job, whose first row once had no `+0`.
        (row("", "PENDING"), queued("+0", "RUNNING") + queued("+1", "RUNNING"), State.RUNNING, "of 2: 2 running"),
        (row("+0", "COMPLETED") + row("+1", "COMPLETED"), "", State.SUCCEEDED, ""),
        (
            row("+0", "COMPLETED") + row("+1", "NODE_FAIL", "1:0"),
            "",
            State.NODE_FAIL,
            "component 1 ended as node fail with exit code 1; of 2: 1 succeeded, 1 node fail",
        ),
        # A long list that Slurm has cut: the rest waits.
        ("".join(GOOD), queued("_[7,9,...]", "PENDING"), State.RUNNING, "of 7: 3 pending, 4 succeeded"),
        (GOOD[0], queued("_1", "STRANGE"), State.UNKNOWN, "of 2: 1 succeeded, 1 unknown"),
    ],
)
def test_the_parts_of_a_job_are_one_run(sacct_rows: str, squeue_rows: str, state: State, reason: str) -> None:
    seen = asked(sacct_rows, squeue_rows)
    assert isinstance(seen, Observation)
    assert (seen.state, seen.reason) == (state, reason)


def test_an_arrays_times_codes_and_nodes() -> None:
    seen = asked(GOOD[0] + row("_1", "FAILED", "3:0", start=150, end=700, nodes="n2") + row("_2", "FAILED", "4:0", start=150, end=800))
    assert isinstance(seen, Observation)
    assert (seen.exit_code, seen.nodes, seen.parts, seen.task_seconds) == (3, "n0,n2,n1", 3, 100 + 550 + 650)
    assert (seen.start, seen.end) == (parse_time("1700000100"), parse_time("1700000800"))


def test_how_long_tasks_ran_is_known_of_all_or_not_at_all() -> None:
    seen = asked(GOOD[0], queued("_1", "FAILED"))
    assert isinstance(seen, Observation)
    assert (seen.state, seen.task_seconds) == (State.FAILED, None)


def test_a_part_that_nobody_knows_is_no_success() -> None:
    """squeue has nothing active, and accounting has not heard of one task's end: that is no end."""
    assert isinstance(asked("".join(GOOD[:3]) + row("_3", "RUNNING")), Absent)
    assert isinstance(observe("9", DOWN, CommandOutput(0, "".join(GOOD[:3]) + row("_3", "RUNNING")), None), Silent)
    assert isinstance(observe("9", DOWN, CommandOutput(0, "".join(GOOD)), None), Observation)


def test_without_accounting_the_tasks_own_word_counts_for_what_is_forgotten() -> None:
    """The controller forgets the task that failed first; the batch scripts left the greatest status."""
    rest = queued("_2", "COMPLETED") + queued("_3", "COMPLETED")
    for left, state, parts in (("3", State.FAILED, None), ("0", State.SUCCEEDED, None), ("", State.SUCCEEDED, 2)):
        seen = asked("", rest, left, accounting=False)
        assert isinstance(seen, Observation)
        assert (seen.state, seen.parts) == (state, parts)
    assert asked("", rest + queued("_4", "RUNNING"), "0", accounting=False).state is State.RUNNING  # type: ignore[union-attr]


def test_other_jobs_are_not_its_parts() -> None:
    assert isinstance(asked("", "99_1|RUNNING|None|N/A|x|n1|1\n1_9|RUNNING|None|N/A|x|n1|1\n"), Absent)


SCONTROL = """\
JobId=9 ArrayJobId=9 ArrayTaskId=2-3%2 ArrayTaskThrottle=2 JobName=x JobState=PENDING Reason=Resources ExitCode=0:0
JobId=10 ArrayJobId=9 ArrayTaskId=0 JobName=x JobState=FAILED Reason=NonZeroExitCode ExitCode=1:0 NodeList=n1
JobId=20 HetJobId=20 HetJobOffset=0 JobName=x-0 JobState=RUNNING Reason=None ExitCode=0:0
JobId=21 HetJobId=20 HetJobOffset=1 JobName=x-1 JobState=RUNNING Reason=None ExitCode=0:0
"""


def test_the_controller_numbers_parts_for_itself() -> None:
    assert list(parse_scontrol(CommandOutput(0, SCONTROL)) or {}) == ["9_[2-3%2]", "9_0", "20+0", "20+1"]


@pytest.mark.parametrize(
    ("job_id", "parts"),
    [
        ("9", ("9", ("",))),
        ("9_4", ("9", ("_4",))),
        ("9+1", ("9", ("+1",))),
        ("9_[0-2%2]", ("9", ("_0", "_1", "_2"))),
        ("9_[1,4-8:2]", ("9", ("_1", "_4", "_6", "_8"))),
        ("9_[1-2,7,...]", ("9", ("_1", "_2", "_7", "_..."))),
        ("9_[1-2", ("9", ("_1", "_2", "_..."))),
        ("9_[]", ("9", ("_...",))),
        ("9_[0-9999999]", ("9", ("_...",))),
        ("odd", ("odd", ("",))),
    ],
)
def test_forms_of_a_jobs_id(job_id: str, parts: tuple[str, tuple[str, ...]]) -> None:
    assert parts_of(job_id) == parts


@pytest.mark.parametrize(
    ("expression", "tasks", "together"),
    [("3", (3,), 1), ("0-3", (0, 1, 2, 3), 4), ("1,3,5-9:2%2", (1, 3, 5, 7, 9), 2), ("0-1,0-1", (0, 1), 2), ("0-3%0", (0, 1, 2, 3), 4)],
)
def test_tasks_of_an_array(expression: str, tasks: tuple[int, ...], together: int) -> None:
    assert (array_tasks(expression), at_once(expression)) == (tasks, together)


@pytest.mark.parametrize("expression", ["", "a", "3-1", "0-4:0", "0-", ",1", "0-10000", ",".join(["0-9999", "20000"]), "1 2", "-1"])
def test_no_tasks_of_an_array(expression: str) -> None:
    with pytest.raises(ValueError, match="tasks"):
        array_tasks(expression)


PENDING = """\
batch|7|Resources
batch|9|Priority
batch|12|Priority
batch|12|Priority
batch|10|Dependency
batch|11|JobHeldUser
short,batch|8|Priority
nonsense
"""


@pytest.mark.parametrize(
    ("job_id", "place"),
    [("7", Place(1, 3)), ("9", Place(2, 3)), ("12", Place(3, 3)), ("8", Place(1, 1)), ("10", None), ("11", None), ("99", None)],
)
def test_the_place_of_a_job_that_waits(job_id: str, place: Place | None) -> None:
    row = f"{job_id}|PENDING|Priority|N/A|dispatch|n1|1\n"
    sight = Sightings(CommandOutput(0, row), None, None, CommandOutput(0, PENDING)).of(job_id)
    assert isinstance(sight, Observation)
    assert sight.place == place
    running = Sightings(CommandOutput(0, row.replace("PENDING", "RUNNING")), None, None, CommandOutput(0, PENDING)).of(job_id)
    assert isinstance(running, Observation)
    assert running.place is None
    silent = Sightings(CommandOutput(0, row), None, None, CommandOutput(1, PENDING)).of(job_id)
    assert isinstance(silent, Observation)
    assert silent.place is None
