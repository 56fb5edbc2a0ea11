"""What a person asks for at a terminal: the same story without GitHub, by the right of the key that they hold."""

from __future__ import annotations

import pytest

from dispatcher.configuration import read_policy
from dispatcher.errors import ClusterError, Exit
from dispatcher.keys import commit_tag
from dispatcher.record import Resources, RunRecord, parse_record
from dispatcher.slurm import State
from dispatcher.terminal import ask, cancel, find_run, logs, status
from dispatcher.watching import watch
from dispatcher.world import Outcome
from tests.fakes import HEAD, POLICY, Fakes, run_record

KEY = "1111" + "0" * 12


def terminal(policy: str = POLICY) -> Fakes:
    return Fakes(policy, forge=False)


def submit(fakes: Fakes, *words: str, request: str = "manual:1", dry_run: bool = False) -> Outcome:
    return ask(fakes.world, read_policy(fakes.world), words, HEAD, "ci", request, dry_run)


def told(ended: Outcome) -> tuple[str, str]:
    return ended.outputs["decision"], ended.outputs["reason-code"]


def records(fakes: Fakes) -> list[RunRecord]:
    return [parse_record(run.record) for run in fakes.cluster.runs.values()]


def test_a_run() -> None:
    fakes = terminal()
    ended = submit(fakes, "profile=cluster", "a=1")
    assert (ended.exit, told(ended), ended.outputs["job-id"]) == (Exit.OK, ("run", "submitted"), "100")
    [record] = records(fakes)
    assert (record.origin, record.actor, record.sha, record.overrides) == ("terminal", "ci", HEAD, ("a=1",))
    assert not fakes.trace.of("forge")


def test_several_runs_in_one_line() -> None:
    fakes = terminal()
    ended = submit(fakes, "a=1,2", 'note="x,y"')
    assert ended.exit is Exit.OK
    assert [record.overrides for record in records(fakes)] == [("a=1", "note=x,y"), ("a=2", "note=x,y")]
    assert "2 runs · 2 waiting" in ended.summary


@pytest.mark.parametrize(
    ("words", "exit_code", "reason"),
    [
        (("cancel",), Exit.MALFORMED, "unknown-word"),
        (("status",), Exit.MALFORMED, "unknown-word"),
        (("approve", f"sha={HEAD}"), Exit.MALFORMED, "unknown-word"),
        (("profil=x",), Exit.MALFORMED, "bad-key"),
        ((f"sha={HEAD}",), Exit.MALFORMED, "not-here"),
        (("ref=main",), Exit.MALFORMED, "not-here"),
        (("pr=7",), Exit.MALFORMED, "not-here"),
        (("a=1,2", "ref=main"), Exit.MALFORMED, "not-here"),
        (("profile=gone",), Exit.CONFIG, "unknown-profile"),
        (("recipe=gone",), Exit.DENIED, "unknown-recipe"),
        (("run.nodes=4",), Exit.DENIED, "override-not-allowed"),
    ],
)
def test_what_is_not_taken(words: tuple[str, ...], exit_code: Exit, reason: str) -> None:
    fakes = terminal()
    ended = submit(fakes, *words)
    assert (ended.exit, ended.outputs["reason-code"]) == (exit_code, reason)
    assert not fakes.cluster.runs


def test_who_holds_the_key_needs_nobodys_leave_but_keeps_to_the_limits() -> None:
    assert submit(terminal(POLICY + "allow: { users: [carol] }\napproval: { nodes: 1 }\n")).exit is Exit.OK
    ended = submit(terminal(POLICY + "limits: { time: 1m }\n"))
    assert (ended.exit, told(ended)) == (Exit.DENIED, ("denied", "too-long"))


def test_a_plan() -> None:
    fakes = terminal()
    ended = submit(fakes, "a=1", dry_run=True)
    assert told(ended) == ("plan", "planned")
    assert not fakes.cluster.runs


def test_at_a_terminal_runs_take_their_turns_too() -> None:
    fakes = terminal(POLICY + "active: { user: 1 }\n")
    submit(fakes)
    ended = submit(fakes, request="manual:2")
    assert (ended.exit, ended.outputs["state"]) == (Exit.OK, "queued")
    [key] = fakes.cluster.queue
    assert find_run(fakes.world, read_policy(fakes.world), key[:6])[1].state is State.QUEUED
    fakes.cluster.scheduler["100"] = "COMPLETED"
    watch(fakes.world, read_policy(fakes.world))
    assert [record.state for record in records(fakes)] == [State.SUCCEEDED, State.PENDING]


def test_a_queued_run_is_taken_out_of_the_queue() -> None:
    fakes = terminal(POLICY + "active: { user: 1 }\n")
    submit(fakes)
    submit(fakes, request="manual:2")
    [key] = fakes.cluster.queue
    ended = cancel(fakes.world, read_policy(fakes.world), key[:8])
    assert (ended.exit, told(ended)) == (Exit.OK, ("cancelled", "cancelled"))
    assert not fakes.cluster.queue
    assert not fakes.trace.of("cluster.cancel")
    assert records(fakes)[1].state is State.CANCELLED


def test_a_queued_run_that_was_asked_for_on_github_is_cancelled_there() -> None:
    fakes = terminal()
    fakes.cluster.add(run_record(run_key=KEY, state=State.QUEUED, job_id=""), queued=True)
    with pytest.raises(ClusterError, match="pull request #7") as error:
        cancel(fakes.world, read_policy(fakes.world), KEY)
    assert "/train cancel 11110000" in error.value.next_step
    assert fakes.cluster.queue == [KEY]


def test_a_turn_that_comes_while_it_is_cancelled() -> None:
    fakes = terminal()
    fakes.cluster.add(run_record(run_key=KEY, origin="terminal", state=State.QUEUED, job_id=""), queued=True)
    fakes.trace.at["cluster.drop"] = lambda: fakes.cluster.release(KEY)
    with pytest.raises(ClusterError, match="has just come"):
        cancel(fakes.world, read_policy(fakes.world), KEY)


def test_a_job_is_ended() -> None:
    fakes = terminal()
    fakes.cluster.add(run_record(run_key=KEY), "pending", "PENDING")
    assert cancel(fakes.world, read_policy(fakes.world), "1111").exit is Exit.OK
    assert fakes.trace.of("cluster.cancel") == ["cluster.cancel 1111"]


@pytest.mark.parametrize("key", ["", "xyz", "111", "2222", "../../etc/passwd"])
def test_a_run_that_nobody_knows(key: str) -> None:
    fakes = terminal()
    fakes.cluster.add(run_record(run_key=KEY), "pending", "PENDING")
    with pytest.raises(ClusterError):
        find_run(fakes.world, read_policy(fakes.world), key)


def test_how_one_run_stands_is_the_schedulers_word() -> None:
    fakes = terminal()
    fakes.cluster.add(run_record(run_key=KEY), "pending", "FAILED")
    ended = status(fakes.world, read_policy(fakes.world), HEAD, KEY)
    assert (ended.exit, ended.outputs["state"]) == (Exit.RUN_FAILED, "failed")
    fakes.cluster.scheduler["100"] = "RUNNING"
    assert status(fakes.world, read_policy(fakes.world), HEAD, "1111").exit is Exit.PENDING


def test_all_that_ran_on_the_commit_or_is_active() -> None:
    fakes = terminal()
    fakes.cluster.add(run_record(run_key=KEY), "pending", "RUNNING")
    fakes.cluster.add(run_record(run_key="2" * 16, job_id="2", state=State.FAILED), None, "FAILED", (commit_tag(HEAD),))
    ended = status(fakes.world, read_policy(fakes.world), HEAD, None)
    assert "11110000" in ended.summary
    assert "22222222" in ended.summary


def test_the_end_of_a_log() -> None:
    fakes = terminal()
    fakes.cluster.add(run_record(run_key=KEY), "running", "RUNNING", log=b"one\ntwo\nthree")
    logs(fakes.world, read_policy(fakes.world), KEY, 2, follow=False)
    assert fakes.shown == b"two\nthree\n"


def test_the_log_of_one_task() -> None:
    fakes = terminal()
    fakes.cluster.add(run_record(run_key=KEY, parts=4, resources=Resources(tasks=4)), "running", "RUNNING", log=b"task 0\n")
    fakes.cluster.runs[KEY].part_logs[3] = b"task 3: one\ntwo\n"
    logs(fakes.world, read_policy(fakes.world), KEY, 200, follow=False, task=3)
    assert fakes.shown == b"task 3: one\ntwo\n"
    logs(fakes.world, read_policy(fakes.world), KEY, 200, follow=False, task=9)
    assert fakes.shown == b"task 3: one\ntwo\n"
    assert "Task 9 has written nothing yet, or there is none such: the job has 4 parts." in fakes.said
    fakes.cluster.scheduler["100"] = "COMPLETED"
    logs(fakes.world, read_policy(fakes.world), KEY, 1, follow=True, task=3)
    assert fakes.shown.endswith(b"two\ntwo\n")
