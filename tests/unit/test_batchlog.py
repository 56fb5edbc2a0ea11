"""What Slurm says in the batch script's log, as a real one (22.05) said it; and when it is asked at all."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.batchlog import read_batch_log
from dispatcher.diagnosing import explained
from dispatcher.diagnosis import End, diagnose
from dispatcher.failure import Failure
from dispatcher.observe import look, sights_of
from dispatcher.record import RunRecord
from dispatcher.report import run_report
from dispatcher.slurm import State
from tests.fakes import NOON, Fakes, run_record

TRACED = """\
+ nodes=($(scontrol show hostnames $SLURM_JOB_NODELIST))
head_node_ip=$(srun --nodes=1 --ntasks=1 -w "$head_node" hostname --ip-address)
++ srun --nodes=1 --ntasks=1 -w n2 hostname --ip-address
+ head_node_ip=127.0.0.1
"""
KILLED = """\
srun: error: n2: task 1: Killed
srun: launch/slurm: _step_signal: Terminating StepId=5.1
srun: error: n1: task 0: Killed
srun: Force Terminated StepId=5.1
job exited with code 137
"""
EXITED = """\
srun: error: n1: task 3: Exited with exit code 9
srun: launch/slurm: _step_signal: Terminating StepId=4.1
srun: error: n2: task 1: Killed
job exited with code 9
"""
MEMORY = """\
slurmstepd-n2: error: Exceeded job memory limit
srun: Job step aborted: Waiting up to 4 seconds for job step to finish.
srun: error: n2: task 0: Killed
srun: launch/slurm: _step_signal: Terminating StepId=1.1
"""
OUT_OF_MEMORY = """\
srun: error: n2: tasks 8-15: Out Of Memory
srun: launch/slurm: _step_signal: Terminating StepId=1.0
srun: error: n1: tasks 0-7: Terminated
"""
NODE = """\
srun: error: Node failure on n1
srun: Job step aborted: Waiting up to 4 seconds for job step to finish.
"""
TIME = """\
slurmstepd-n2: error: *** JOB 2 ON n2 CANCELLED AT 2026-12-01T00:42:41 DUE TO TIME LIMIT ***
srun: Job step aborted: Waiting up to 4 seconds for job step to finish.
srun: error: n2: task 0: Terminated
"""
SEGFAULT = "srun: error: n3: task 0: Segmentation fault (core dumped)\nsrun: launch/slurm: _step_signal: Terminating StepId=6.1\n"
STEP = "srun: error: Unable to create step for job 7: Memory required by task is not available\n"
PEER = "[rank0]: torch.distributed.DistBackendError: NCCL error: remote process exited or there was a network error\n"
TRACEBACK = 'Traceback (most recent call last):\n  File "/x/train.py", line 1, in <module>\nValueError: bad\n'


def end(code: int | None = 137, state: State = State.FAILED, by_scheduler: bool = True) -> End:
    return End(state, code, None, "NonZeroExitCode" if state is State.FAILED else "", by_scheduler, "sacct")


@pytest.mark.parametrize(
    ("ended", "log", "batch", "cause", "evidence", "said_by"),
    [
        (end(), "step 1\n", KILLED, "killed", "srun: error: n2: task 1: Killed", "batch log"),
        (end(9), "step 1\n", EXITED, "exit-status", "srun: error: n1: task 3: Exited with exit code 9", "exit status"),
        (end(127), "", EXITED.replace("9", "127"), "command-missing", "srun: error: n1: task 3: Exited with exit code 127", "exit status"),
        (end(), "step 1\n", MEMORY, "host-memory", "slurmstepd-n2: error: Exceeded job memory limit", "batch log"),
        (end(1), PEER, OUT_OF_MEMORY, "host-memory", "srun: error: n2: tasks 8-15: Out Of Memory", "batch log"),
        (end(1), PEER, NODE, "node-failed-step", "srun: error: Node failure on n1", "batch log"),
        (end(139), "step 1\n", SEGFAULT, "crash", "srun: error: n3: task 0: Segmentation fault (core dumped)", "batch log"),
        (end(1), "step 1\n", STEP, "step", STEP.strip(), "batch log"),
        (end(9), "step 1\n", STEP + EXITED, "exit-status", "srun: error: n1: task 3: Exited with exit code 9", "exit status"),
        (end(0, State.TIMEOUT), "step 1\n", TIME, "time-limit", TIME.splitlines()[0], "scheduler"),
        (end(1, by_scheduler=False), "step 1\n", TIME, "time-limit", TIME.splitlines()[0], "batch log"),
        (end(1), "step 1\n", TIME, "exit-status", "", "exit status"),
        (end(), "step 1\n", "", "killed", "exit code 137", "exit status"),
    ],
)
def test_what_slurm_says(ended: End, log: str, batch: str, cause: str, evidence: str, said_by: str) -> None:
    found = diagnose(ended, log, TRACED + batch)
    assert found is not None
    assert (found.failure.cause, found.failure.evidence, found.failure.said_by) == (cause, evidence, said_by)
    assert bool(found.failure.around) == (bool(evidence) and evidence in batch)
    assert evidence in found.failure.around or not found.failure.around
    assert "+ " not in found.failure.around, "the script's trace is no word of Slurm's"


@pytest.mark.parametrize("batch", [KILLED, EXITED, MEMORY, OUT_OF_MEMORY, NODE, TIME, STEP])
@pytest.mark.parametrize(
    ("ended", "log"),
    [
        (end(1), TRACEBACK),
        (end(1), "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"),
        (end(1), "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0. Some of the step tasks have been OOM Killed.\n"),
        (end(0, State.TIMEOUT), "slurmstepd: error: *** STEP 2.1 ON n2 CANCELLED AT 2026-12-01T00:42:41 DUE TO TIME LIMIT ***\n"),
        (end(0, State.CANCELLED), ""),
    ],
)
def test_what_the_runs_log_settles_stays(ended: End, log: str, batch: str) -> None:
    alone = diagnose(ended, log)
    assert alone is not None
    assert alone.settled
    assert diagnose(ended, log, batch) == alone


@pytest.mark.parametrize("fake", [KILLED, SEGFAULT, PEER, "srun: error: n9: task 0: Exited with exit code 0\n"])
def test_a_program_that_pretends_gains_nothing_over_slurm(fake: str) -> None:
    for batch, cause in ((OUT_OF_MEMORY, "host-memory"), (NODE, "node-failed-step"), (MEMORY, "host-memory")):
        found = diagnose(end(1), fake, batch)
        assert found is not None
        assert (found.failure.cause, found.failure.said_by) == (cause, "batch log")


@given(st.text(max_size=300), st.text(max_size=300), st.sampled_from(list(State)), st.booleans())
def test_any_two_logs(log: str, batch: str, state: State, by_scheduler: bool) -> None:
    text = f"srun: {batch}\nsrun: error: n1: task 0: {batch}\nslurmstepd: error: *** {batch}\n" * 30
    found = diagnose(End(state, 1, None, "", by_scheduler), log, text)
    assert found is None or Failure.model_validate_json(found.failure.model_dump_json()) == found.failure


def test_long_and_many_lines_are_cut() -> None:
    said = read_batch_log("srun: error: a\n" * 50 + "srun: error: n1: task 0: Killed " + "x" * 5000 + "\n" + "srun: b\n" * 50, False)
    around = said.around(said.lines[50]).splitlines()
    assert len(around) == 10
    assert any(line.startswith("srun: error: n1: task 0") for line in around)
    assert max(map(len, around)) <= 200
    assert read_batch_log("", False).around("x") == ""


# --------------------------------------------------------------------------- when it is asked


def seen_end(fakes: Fakes, log: str, batch: str, word: str = "FAILED", executor: str = "slurm") -> RunRecord:
    """A look at run 100, which has ended, with these two logs."""
    record = run_record(executor=executor)
    fakes.cluster.add(record, "running", word, log=log.encode())
    fakes.cluster.runs[record.run_key].part_logs["batch"] = (TRACED + batch).encode()
    sweep = fakes.cluster.sweep()
    [run] = sweep.runs
    seen = look(fakes.world, fakes.cluster, run, sights_of(sweep, executor)[run.run_key], timedelta(minutes=10))
    assert seen is not None
    return seen.record


@pytest.mark.parametrize(
    ("log", "word", "asked"),
    [
        ("step 1\n", "FAILED", 1),
        ("step 1\n", "TIMEOUT", 1),
        (TRACEBACK, "FAILED", 0),
        ("", "COMPLETED", 0),
        ("", "CANCELLED", 0),
        ("", "RUNNING", 0),
    ],
)
def test_it_is_read_only_where_it_is_needed(log: str, word: str, asked: int) -> None:
    for executor, expected in (("slurm", asked), ("local", 0)):
        fakes = Fakes()
        seen_end(fakes, log, KILLED, word, executor)
        assert len(fakes.trace.of("cluster.fetch batch")) == expected


def test_the_comment_shows_what_slurm_said() -> None:
    fakes = Fakes(to_hide=("hunter2hunter2",))
    record = seen_end(fakes, "step 1\n", KILLED.replace("5.1", "hunter2hunter2 @org/everyone <!-- x -->"))
    body = run_report(record, "step 1\n", NOON, fakes.world.settings.voice).comment
    assert "`srun: error: n2: task 1: Killed`" in body
    assert "<summary>What Slurm said, in the batch script's log</summary>" in body
    assert "Terminating StepId=*** @org/everyone" in body
    assert "hunter2" not in body
    assert "<!-- x" not in body


def test_what_slurm_did_not_run_has_none() -> None:
    def never() -> str:
        raise AssertionError

    assert explained(run_record(state=State.FAILED, exit_code=1, evidence="sacct"), TRACEBACK, Fakes().world, "", never).failure
