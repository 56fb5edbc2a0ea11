"""The queue: who has a place, who comes next, who is taken out, and that two cannot both take the last place."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from dispatcher.admission import BUSY
from dispatcher.configuration import read_policy
from dispatcher.errors import ClusterError, Exit
from dispatcher.flow import handle
from dispatcher.ports import PullRequest
from dispatcher.record import RunRecord, Target, parse_record
from dispatcher.slurm import State
from dispatcher.watching import watch
from dispatcher.world import Outcome
from tests.fakes import BASE, HEAD, OTHER, POLICY, PROFILE, REPOSITORY, Fakes, comment_event, run_record

ONE = POLICY + "active: { user: 1 }\n"
GPUS = {"cluster": PROFILE + "gpus_per_node: 8\nnodes: 1\ntime: 1:00:00\n"}
CHECK = "dispatch / cluster / default"


def told(ended: Outcome) -> tuple[str, str, str]:
    return ended.outputs["decision"], ended.outputs["reason-code"], ended.outputs["state"]


def ask(fakes: Fakes, comment: int = 99, body: str = "/train", author: str = "alice") -> Outcome:
    return handle(comment_event(body, author, comment_id=comment), fakes.world)


def sweep(fakes: Fakes) -> dict[str, int]:
    ended = watch(fakes.world, read_policy(fakes.world))
    counted: dict[str, int] = json.loads(ended.outputs["result"])
    return counted


def of(fakes: Fakes, comment: int) -> RunRecord:
    [found] = [record for run in fakes.cluster.runs.values() if (record := parse_record(run.record)).trigger == f"comment:{comment}"]
    return found


def end(fakes: Fakes, comment: int, word: str = "COMPLETED") -> None:
    fakes.cluster.scheduler[fakes.cluster.runs[of(fakes, comment).run_key].job_id] = word


# --------------------------------------------------------------------------- a place in line


def test_what_may_go_at_once_goes_at_once() -> None:
    fakes = Fakes(ONE)
    ended = ask(fakes)
    assert told(ended) == ("run", "submitted", "pending")
    assert fakes.trace.of("cluster") == [
        "cluster.claim",
        "cluster.submit hold",
        "cluster.lock",
        "cluster.standing",
        "cluster.usage 2024-05",
        f"cluster.release {ended.outputs['run-key'][:4]}",
        "cluster.unlock",
        "cluster.save pending",
        "cluster.find commit",
        "cluster.close",
    ]
    assert not fakes.cluster.queue
    assert "job 100 is waiting" in fakes.forge.bodies[0]


def test_a_policy_without_limits_never_asks_for_turns() -> None:
    fakes = Fakes()
    ask(fakes)
    assert not fakes.trace.of("cluster.lock", "cluster.standing", "cluster.release")


def test_the_second_is_queued_with_its_place_and_released_after_the_first_has_ended() -> None:
    fakes = Fakes(ONE)
    ask(fakes)
    ended = ask(fakes, 100)
    assert (ended.exit, told(ended)) == (Exit.OK, ("run", "submitted", "queued"))
    assert ended.outputs["job-id"] == ""
    body = fakes.forge.bodies[1]
    assert "is queued here" in body
    assert "place 1 in the queue: alice has 1 of 1 active runs" in body
    assert [check.status for check in fakes.forge.of_runs] == ["queued", "queued"]
    ask(fakes, 101)
    assert "place 2 in the queue" in fakes.forge.bodies[2]
    assert sweep(fakes) == {"active": 1, "changed": 0, "ended": 0, "failed": 0, "queued": 2}

    end(fakes, 99)
    assert sweep(fakes) == {"active": 1, "changed": 3, "ended": 1, "failed": 0, "queued": 2}
    assert (of(fakes, 100).state, of(fakes, 101).state) == (State.PENDING, State.QUEUED)
    assert of(fakes, 100).submitted_at == fakes.clock.now()
    assert "is waiting for 1 node" in fakes.forge.bodies[1]
    # Who moved up is told.
    assert "place 1 in the queue" in fakes.forge.bodies[2]
    end(fakes, 100)
    sweep(fakes)
    assert of(fakes, 101).state is State.PENDING
    end(fakes, 101)
    sweep(fakes)
    assert not fakes.cluster.active
    assert not fakes.cluster.queue
    assert len(fakes.forge.bodies) == 3


def test_somebody_else_passes() -> None:
    fakes = Fakes(ONE)
    fakes.forge.roles["carol"] = "write"
    ask(fakes)
    ask(fakes, 100)
    assert told(ask(fakes, 101, author="carol"))[2] == "pending"


def test_a_sweep_of_a_command_takes_places_one_by_one() -> None:
    fakes = Fakes(POLICY + "active: { pull: 2 }\n")
    ended = ask(fakes, body="/train a=1,2,3")
    assert told(ended) == ("run", "submitted", "pending")
    [body] = fakes.forge.bodies
    assert "3 runs · 2 waiting, 1 queued here" in body
    assert "place 1 in the queue" in body
    for run in fakes.cluster.runs.values():
        if run.job_id:
            fakes.cluster.scheduler[run.job_id] = "COMPLETED"
    sweep(fakes)
    [body] = fakes.forge.bodies
    assert "3 runs · 2 passed, 1 waiting" in body


def test_following_does_not_end_while_somebody_waits() -> None:
    fakes = Fakes(ONE)
    ask(fakes)
    ask(fakes, 100)
    fakes.cluster.before_sweep = [lambda: None, lambda: end(fakes, 99), lambda: end(fakes, 100)]
    watch(fakes.world, read_policy(fakes.world), follow=True)
    assert not fakes.cluster.queue
    assert not fakes.cluster.active


def test_delivered_again_it_keeps_its_place() -> None:
    fakes = Fakes(ONE)
    ask(fakes)
    ask(fakes, 100)
    ended = ask(fakes, 100)
    assert told(ended) == ("run", "submitted", "queued")
    assert (len(fakes.cluster.queue), len(fakes.forge.bodies), len(fakes.forge.of_runs)) == (1, 2, 2)
    assert "place 1 in the queue" in fakes.forge.bodies[1]


def test_a_limit_that_was_lifted_lets_everybody_go() -> None:
    fakes = Fakes(ONE)
    ask(fakes)
    ask(fakes, 100)
    fakes.files[".github/dispatch.yml"] = POLICY
    sweep(fakes)
    assert of(fakes, 100).state is State.PENDING


def test_other_repositories_in_the_same_ledger_are_neither_counted_nor_released() -> None:
    fakes = Fakes(ONE)
    theirs = Target(repository="org/other", pull=7)
    fakes.cluster.add(run_record(run_key="1" * 16, target=theirs), "pending", "PENDING")
    fakes.cluster.add(run_record(run_key="2" * 16, target=theirs, state=State.QUEUED, job_id=""), queued=True)
    assert told(ask(fakes))[2] == "pending"
    sweep(fakes)
    assert fakes.cluster.queue == ["2" * 16]


# --------------------------------------------------------------------------- the one lock


def test_two_at_once_do_not_both_take_the_last_place() -> None:
    """The second command arrives in full while the first has the lock: it waits in the queue, and the first goes."""
    fakes = Fakes(ONE)
    second: list[Outcome] = []

    def meanwhile() -> None:
        fakes.cluster.lock_is_taken = True
        second.append(ask(fakes, 100))
        fakes.cluster.lock_is_taken = False

    fakes.trace.at["cluster.standing"] = meanwhile
    first = ask(fakes)
    assert told(first)[2] == "pending"
    assert told(second[0])[2] == "queued"
    assert BUSY in fakes.forge.bodies[0]
    assert len(fakes.trace.of("cluster.release")) == 1
    sweep(fakes)
    assert of(fakes, 100).state is State.QUEUED
    assert "place 1 in the queue" in of(fakes, 100).reason


def test_places_are_counted_and_given_only_under_the_lock() -> None:
    fakes = Fakes(ONE)
    held: list[bool] = []
    for step in ("cluster.standing", "cluster.usage"):
        fakes.trace.at[step] = lambda: held.append(fakes.cluster.locked)
    ask(fakes)
    assert held == [True, True]
    order = [step.split()[0] for step in fakes.trace.of("cluster.lock", "cluster.release", "cluster.unlock")]
    assert order == ["cluster.lock", "cluster.release", "cluster.unlock"]


def test_a_sweep_without_the_lock_leaves_the_queue_alone() -> None:
    fakes = Fakes(ONE)
    ask(fakes)
    ask(fakes, 100)
    end(fakes, 99)
    fakes.cluster.lock_is_taken = True
    sweep(fakes)
    assert of(fakes, 100).state is State.QUEUED
    assert any("left alone" in line for line in fakes.said)
    fakes.cluster.lock_is_taken = False
    sweep(fakes)
    assert of(fakes, 100).state is State.PENDING


# --------------------------------------------------------------------------- taken out


def test_cancelled_while_it_waits() -> None:
    fakes = Fakes(ONE)
    ask(fakes)
    ask(fakes, 100)
    ended = handle(comment_event(f"/train cancel {of(fakes, 100).run_key[:8]}", comment_id=101), fakes.world)
    assert ended.outputs["reason-code"] == "cancelled"
    assert "was taken out of the queue" in ended.summary
    assert not fakes.trace.of("cluster.cancel")
    record = of(fakes, 100)
    assert (record.state, record.reason) == (State.CANCELLED, "cancelled by alice")
    assert [check.conclusion for check in fakes.forge.of_runs] == [None, "cancelled"]
    end(fakes, 99)
    sweep(fakes)
    assert not fakes.trace.of("cluster.release")[1:]
    # Delivered again, it stays out.
    ask(fakes, 100)
    assert of(fakes, 100).state is State.CANCELLED
    assert not fakes.cluster.queue


def test_cancelled_in_the_moment_in_which_its_turn_comes() -> None:
    fakes = Fakes(ONE)
    ask(fakes)
    ask(fakes, 100)
    key = of(fakes, 100).run_key
    fakes.trace.at[f"cluster.drop {key[:4]}"] = lambda: fakes.cluster.release(key)
    handle(comment_event(f"/train cancel {key[:8]}", comment_id=101), fakes.world)
    assert fakes.trace.of("cluster.cancel") == [f"cluster.cancel {key[:4]}"]


@pytest.mark.parametrize(
    ("pull", "why"),
    [
        ({"head_sha": OTHER}, "the head moved while it waited"),
        ({"state": "closed"}, "the pull request was closed while it waited"),
        (None, "the pull request was closed while it waited"),
    ],
)
def test_what_waits_runs_only_for_the_head_that_was_granted(pull: dict[str, str] | None, why: str) -> None:
    fakes = Fakes(ONE)
    ask(fakes)
    ask(fakes, 100)
    end(fakes, 99)
    if pull is None:
        fakes.forge.pulls.clear()
    else:
        fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], **pull)  # type: ignore[arg-type]
    sweep(fakes)
    assert (of(fakes, 100).state, of(fakes, 100).reason) == (State.CANCELLED, why)
    assert len(fakes.trace.of("cluster.release")) == 1
    assert why in fakes.forge.bodies[1]
    assert not fakes.cluster.queue


def test_a_pull_request_that_cannot_be_read_keeps_its_runs_waiting() -> None:
    fakes = Fakes(ONE)
    ask(fakes)
    ask(fakes, 100)
    end(fakes, 99)
    fakes.forge.pulls[8] = PullRequest(8, "open", False, HEAD, "t", REPOSITORY, "main", BASE, REPOSITORY, "bob")
    fakes.fail("forge.pull 7")
    sweep(fakes)
    assert of(fakes, 100).state is State.QUEUED
    assert any("could not be read" in line for line in fakes.said)


# --------------------------------------------------------------------------- budgets


def test_a_budget_that_is_exceeded_is_a_no() -> None:
    fakes = Fakes(POLICY + "budget: { user: 12 }\n", GPUS)
    assert told(ask(fakes))[2] == "pending"
    ended = ask(fakes, 100)
    assert (ended.exit, told(ended)[:2]) == (Exit.DENIED, ("denied", "budget-exceeded"))
    assert "8 are used or" in fakes.forge.bodies[1]
    assert not fakes.cluster.queue
    assert [check.conclusion for check in fakes.forge.of_runs] == [None, "cancelled"]


def test_a_no_is_still_a_no_when_it_is_delivered_again() -> None:
    fakes = Fakes(POLICY + "budget: { user: 1 }\n", GPUS)
    ask(fakes)
    ask(fakes)
    record = of(fakes, 99)
    assert record.state is State.CANCELLED
    assert "Not enough GPU-hours" in record.reason
    assert fakes.forge.check(CHECK).conclusion == "cancelled"
    assert len(fakes.forge.bodies) == 1
    assert "Not enough GPU-hours" in fakes.forge.bodies[0]
    assert not fakes.trace.of("cluster.release")


def test_what_was_not_used_is_there_again() -> None:
    fakes = Fakes(POLICY + "budget: { user: 12 }\n", GPUS)
    ask(fakes)
    end(fakes, 99)
    sweep(fakes)  # it has run for a minute
    assert told(ask(fakes, 100))[2] == "pending"


def test_while_it_waits_a_budget_can_run_out() -> None:
    fakes = Fakes(POLICY + "active: { user: 1 }\nbudget: { month: 12 }\n", GPUS)
    ask(fakes)
    ask(fakes, 100)
    # Nothing is said by itself while others are reserved for: it was refused at once, not queued.
    assert "not enough GPU-hours" in fakes.forge.bodies[1]
    fakes.files[".github/dispatch.yml"] = POLICY + "active: { user: 1 }\nbudget: { month: 100 }\nreuse: { runs: false }\n"
    ask(fakes, 101)
    assert of(fakes, 101).state is State.QUEUED
    fakes.files[".github/dispatch.yml"] = POLICY + "active: { user: 1 }\nbudget: { month: 8 }\nreuse: { runs: false }\n"
    sweep(fakes)
    assert of(fakes, 101).state is State.CANCELLED
    assert "Not enough GPU-hours" in fakes.forge.bodies[2]


def test_two_commands_do_not_both_spend_the_last_hours() -> None:
    fakes = Fakes(POLICY + "budget: { user: 12 }\n", GPUS)
    ended = ask(fakes, body="/train a=1,2")
    assert ended.exit is Exit.DENIED
    assert "2 runs · 1 waiting, 1 cancelled" in fakes.forge.bodies[0]
    assert "(Not enough GPU-hours are left this month" in fakes.forge.bodies[0]
    assert len(fakes.cluster.active) == 1


def test_a_month_is_a_month() -> None:
    fakes = Fakes(POLICY + "budget: { user: 12 }\n", GPUS)
    ask(fakes)
    end(fakes, 99)
    fakes.clock.time += timedelta(days=40)
    assert told(ask(fakes, 100))[2] == "pending"
    assert fakes.trace.of("cluster.usage")[-1] == "cluster.usage 2024-06"


# --------------------------------------------------------------------------- what breaks


def test_the_scheduler_refuses_when_its_turn_comes_at_once() -> None:
    fakes = Fakes(ONE)
    fakes.cluster.refuses = "sbatch: error: Invalid account"
    ended = ask(fakes)
    assert (ended.exit, told(ended)[:2]) == (Exit.CLUSTER, ("refused", "sbatch-refused"))
    assert fakes.forge.check(CHECK).conclusion == "cancelled"
    assert not fakes.cluster.queue
    assert not fakes.cluster.active
    # Delivered again it is still a no, with the scheduler's words; another comment asks again.
    fakes.cluster.refuses = ""
    assert told(ask(fakes))[2] == "failed"
    assert "Invalid account" in fakes.forge.bodies[0]
    assert told(ask(fakes, 100))[2] == "pending"


@pytest.mark.parametrize("body", ["/train", "/train a=1,2"])
def test_the_scheduler_refuses_when_its_turn_comes_later(body: str) -> None:
    fakes = Fakes(ONE, to_hide=("hunter22",))
    ask(fakes)
    ask(fakes, 100, body)
    ask(fakes, 101)
    end(fakes, 99)
    fakes.cluster.refuses = "sbatch: error: Invalid account hunter22"
    sweep(fakes)
    told_of = "".join(check.summary for check in fakes.forge.checks.values()) + fakes.forge.bodies[1]
    assert "Invalid account" in told_of
    assert "hunter22" not in told_of
    failed = [check for check in fakes.forge.checks.values() if check.conclusion == "failure"]
    assert failed
    # Who comes behind has their turn with the next sweep.
    fakes.cluster.refuses = ""
    sweep(fakes)
    assert fakes.cluster.active


def test_a_turn_that_cannot_be_decided_leaves_the_run_in_the_queue_and_says_so() -> None:
    fakes = Fakes(ONE)
    fakes.trace.fail["cluster.standing"] = ClusterError("cluster.timeout", "no answer")
    ended = ask(fakes)
    assert told(ended) == ("run", "submitted", "queued")
    assert fakes.forge.check(CHECK).status == "queued"
    assert "nothing was submitted" not in fakes.forge.bodies[0]
    assert not fakes.cluster.locked
    fakes.trace.fail.clear()
    sweep(fakes)
    assert of(fakes, 99).state is State.PENDING


@pytest.mark.parametrize("step", ["cluster.release", "forge.update_check", "forge.update_comment"])
def test_one_that_breaks_loses_no_other(step: str) -> None:
    """Whatever was done in a sweep that broke is said by it or by the next one."""
    fakes = Fakes(POLICY + "active: { user: 2 }\n")
    for comment in (97, 98, 99, 100):
        ask(fakes, comment)
    dropped = of(fakes, 99).run_key
    fakes.cluster.runs[dropped].record = of(fakes, 99).model_copy(update={"sha": OTHER}).to_json()
    for comment in (97, 98):
        end(fakes, comment)

    def break_it() -> None:
        raise ClusterError("cluster.timeout", "no answer")

    fakes.trace.at[step] = break_it  # once
    sweep(fakes)
    sweep(fakes)
    sweep(fakes)
    states = {comment: of(fakes, comment).state for comment in (97, 98, 99, 100)}
    assert states == {97: State.SUCCEEDED, 98: State.SUCCEEDED, 99: State.CANCELLED, 100: State.PENDING}
    assert not fakes.cluster.queue
    if step == "cluster.release":
        assert [check.conclusion for check in fakes.forge.checks.values() if check.name == CHECK] == [
            "success",
            "success",
            "cancelled",
            None,
        ]


def test_a_process_that_died_after_its_release_is_told_for_by_the_sweep() -> None:
    fakes = Fakes(ONE)
    fakes.fail_with("cluster.unlock", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        ask(fakes)
    fakes.trace.fail.clear()
    sweep(fakes)
    assert of(fakes, 99).state is State.PENDING
    assert "job 100 is waiting" in fakes.forge.bodies[0]
    assert fakes.forge.check(CHECK).status == "queued"


def test_a_record_that_cannot_be_read_holds_nobody_up() -> None:
    fakes = Fakes(ONE)
    fakes.cluster.add(run_record(run_key="1" * 16, state=State.QUEUED, job_id=""), queued=True).record = "not a record"
    assert told(ask(fakes))[2] == "pending"


@pytest.mark.parametrize("step", ["forge.update_check", "forge.update_comment"])
def test_an_end_in_the_queue_that_could_not_be_said_is_said_by_the_next_sweep(step: str) -> None:
    fakes = Fakes(ONE)
    ask(fakes)
    ask(fakes, 100)
    fakes.fail(step)
    handle(comment_event(f"/train cancel {of(fakes, 100).run_key[:8]}", comment_id=101), fakes.world)
    assert of(fakes, 100).state is State.CANCELLED
    fakes.trace.fail.clear()
    fakes.cluster.age = 300
    sweep(fakes)
    assert "was cancelled" in fakes.forge.bodies[1]
    assert [check.conclusion for check in fakes.forge.checks.values() if check.name == CHECK] == [None, "cancelled"]
    assert len(fakes.cluster.active) == 1
