"""A stage that the machine ends is run again by itself, with what comes after it: once, whole, and never what went wrong by itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from dispatcher.configuration import read_policy
from dispatcher.event import Event, MergeGroupEvent, ScheduleEvent
from dispatcher.flow import handle
from dispatcher.ports import PullRequest
from dispatcher.record import RunRecord, parse_record
from dispatcher.slurm import State
from dispatcher.watching import watch
from tests.fakes import BASE, HEAD, OTHER, PROFILE, REPOSITORY, FakeCluster, Fakes, comment_event
from tests.unit.test_groups import TWO_CLUSTERS, records, rows
from tests.unit.test_stages import RESCUE, STAGES, by_stage, end, gate, give, no_nodes, one, policy, sweep, waits

AGAIN = "retries: { infrastructure: 2, wait: 10m, exclude_node: true }\n"
# Two branches, and what waits for both.
BRANCHES = """\
  full:
    stages:
      pretrain: { recipe: default }
      sft: { recipe: eval }
      rl: { recipe: default, after: pretrain }
      last: { recipe: eval, after: [sft, rl] }
"""


def started(stages: str = STAGES, more: str = AGAIN) -> Fakes:
    fakes = one(stages, more)
    no_nodes(fakes)
    give(fakes, "recipe=full")
    fakes.clock.time += timedelta(minutes=30)
    fakes.compiler.jobs.clear()
    return fakes


def ends(fakes: Fakes, **words: str) -> None:
    """Newest jobs of stages end like that, and a sweep sees it."""
    end(fakes, **words)
    fakes.clock.time += timedelta(minutes=1)
    sweep(fakes)


def again(fakes: Fakes, number: int = 1) -> dict[str, RunRecord]:
    """The runs of that retry by stage."""
    return {record.stage: record for record in records(fakes.cluster) if record.trigger.startswith(f"retry:{number}:")}


def check_of(fakes: Fakes, record: RunRecord) -> Any:
    [check] = [check for check in fakes.forge.checks.values() if check.external_id == record.run_key]
    return check


def reasons(fakes: Fakes) -> set[str]:
    return {record.not_repeated for record in records(fakes.cluster)} - {""}


# --------------------------------------------------------------------------- the story


def test_it_is_submitted_again_with_what_comes_after_it_until_there_are_no_more_attempts() -> None:
    fakes = started(STAGES + RESCUE)
    first = by_stage(fakes.cluster)
    ends(fakes, pretrain="COMPLETED", rescue="CANCELLED")
    ends(fakes, sft="NODE_FAIL", rl="CANCELLED")
    second = again(fakes)
    assert list(second) == ["sft", "rl"], "what has passed is not run again, nor what was not needed"
    assert waits(fakes) == [(None, []), ("afterok", [second["sft"].job_id])]
    assert [(record.attempt, record.retry_of) for record in second.values()] == [(2, first["sft"].run_key), (2, first["rl"].run_key)]
    asked: list[Any] = [job["executor"] for job in fakes.compiler.jobs]
    assert [(one.get("exclude"), one["additional_parameters"].get("begin")) for one in asked] == [("n1", "now+600"), (None, None)]
    env = fakes.cluster.runs[second["sft"].run_key].submission
    assert env is not None
    assert f"DISPATCH_STAGE_DIR_PRETRAIN=/jobs/runs/{first['pretrain'].run_key}\n" in env.env_file
    assert set(fakes.cluster.active) == {record.run_key for record in second.values()}
    old, new = fakes.forge.bodies
    sft = first["sft"].run_key[:8]
    follows = f"attempt 2 is run `{second['sft'].run_key[:8]}`, and with it the stages that come after it."
    assert f"- run `{sft}`: It is run again by itself: {follows}" in old
    assert "`/train retry`" not in old
    assert "### ⏳ train · full · 4 stages · 1 passed, 1 not needed, 2 waiting" in new
    assert "an earlier run, reused" in rows(new)[0]
    story = f"attempt 2 of 3, after run `{sft}` failed: node failure on `n1`"
    assert f"{story}, without `n1`" in new.splitlines()[2]
    assert f"It is run again by itself: {follows}" in check_of(fakes, first["sft"]).summary
    assert f"{story} |" in check_of(fakes, second["rl"]).summary
    assert gate(fakes) is None
    # The retry's last stage fails with its node as well: it alone is run again, for the last time.
    ends(fakes, sft="COMPLETED")
    ends(fakes, rl="NODE_FAIL")
    assert list(again(fakes, 2)) == ["rl"]
    assert gate(fakes) is None
    ends(fakes, rl="NODE_FAIL")
    assert not fakes.cluster.active
    assert "It was attempt 3 of 3, and is not run again by itself." in fakes.forge.bodies[2]
    assert gate(fakes) == "failure"
    assert len(records(fakes.cluster)) == 7


def test_a_retry_that_goes_well_passes_the_gate() -> None:
    fakes = started()
    ends(fakes, pretrain="NODE_FAIL", sft="CANCELLED", rl="CANCELLED")
    assert list(again(fakes)) == ["pretrain", "sft", "rl"]
    ends(fakes, pretrain="COMPLETED", sft="COMPLETED")
    assert gate(fakes) is None
    ends(fakes, rl="COMPLETED")
    assert gate(fakes) == "success"
    assert "3 stages · 3 passed" in fakes.forge.bodies[1]


@pytest.mark.parametrize("word", ["FAILED", "TIMEOUT", "OUT_OF_MEMORY", "CANCELLED by 1000"])
def test_what_went_wrong_by_itself_is_not_run_again(word: str) -> None:
    fakes = started()
    ends(fakes, pretrain="COMPLETED", sft=word, rl="CANCELLED")
    ends(fakes)
    assert again(fakes) == {}
    assert not fakes.cluster.active
    assert gate(fakes) == "failure"
    assert "run again by itself" not in fakes.forge.bodies[0]


def test_without_the_policys_word_nothing_is_run_again() -> None:
    fakes = started(more="")
    ends(fakes, pretrain="NODE_FAIL", sft="CANCELLED", rl="CANCELLED")
    assert again(fakes) == {}
    assert gate(fakes) == "failure"


def test_stages_of_one_process_have_nobody_who_would_go_on_with_them() -> None:
    fakes = Fakes(policy(more=AGAIN), {"cluster": "executor: local\njob_dir: /state\n"})

    def failed() -> None:
        for run in fakes.cluster.runs.values():
            run.exit_file, run.log = ("1" if run.job_id else ""), b"RuntimeError: CUDA error: uncorrectable ECC error encountered\n"

    fakes.cluster.before_sweep = [failed] * 12
    give(fakes, "recipe=full")
    made = by_stage(fakes.cluster)
    assert made["pretrain"].failure is not None
    assert made["pretrain"].failure.words.blames == "machine"
    assert len(records(fakes.cluster)) == 3
    assert reasons(fakes) == {"local-stage"}


# --------------------------------------------------------------------------- branches


def test_while_another_branch_goes_on_the_retry_waits_for_it_and_the_gate_for_the_retry() -> None:
    fakes = started(BRANCHES)
    ends(fakes, pretrain="COMPLETED", rl="RUNNING")
    for _ in range(2):
        ends(fakes, sft="NODE_FAIL", last="CANCELLED")
        assert again(fakes) == {}
        assert by_stage(fakes.cluster)["sft"].retry_owed
        assert gate(fakes) is None
        assert "It is run again by itself as soon as its pipeline has ended" in fakes.forge.bodies[0]
        assert "`/train retry`" not in fakes.forge.bodies[0]
    ends(fakes, rl="COMPLETED")
    ends(fakes)
    assert list(again(fakes)) == ["sft", "last"]
    rl = by_stage(fakes.cluster)["rl"]
    assert {member.run_key for member in again(fakes)["last"].before} == {rl.run_key, again(fakes)["sft"].run_key}
    ends(fakes, sft="COMPLETED", last="COMPLETED")
    assert gate(fakes) == "success"


def test_branches_that_fail_with_their_machines_are_run_again_together() -> None:
    fakes = started(BRANCHES)
    ends(fakes, pretrain="COMPLETED")
    ends(fakes, sft="NODE_FAIL", rl="PREEMPTED", last="CANCELLED")
    ends(fakes)
    second = again(fakes)
    assert sorted(second) == ["last", "rl", "sft"]
    assert len({record.trigger for record in second.values()}) == 1
    assert {member.run_key for member in second["last"].before} == {second["sft"].run_key, second["rl"].run_key}
    first = by_stage(fakes.cluster)
    assert [first[stage].followed_by for stage in ("sft", "rl")] == [second[stage].run_key for stage in ("sft", "rl")]
    assert len(records(fakes.cluster)) == 7
    # And a second time: what a record says of its retry is held against its key.
    ends(fakes, sft="COMPLETED")
    ends(fakes, rl="PREEMPTED", last="CANCELLED")
    ends(fakes)
    assert sorted(again(fakes, 2)) == ["last", "rl"]


@pytest.mark.parametrize("word", ["FAILED", "TIMEOUT"])
def test_a_branch_that_went_wrong_by_itself_ends_the_attempts_of_all(word: str) -> None:
    fakes = started(BRANCHES)
    ends(fakes, pretrain="COMPLETED")
    ends(fakes, sft="NODE_FAIL", rl=word, last="CANCELLED")
    ends(fakes)
    assert again(fakes) == {}
    assert reasons(fakes) == {"stage-failed"}
    assert not fakes.cluster.active
    assert gate(fakes) == "failure"


def test_what_would_wait_for_a_failure_is_not_run_again() -> None:
    """A person's retry had left a branch alone that was still running, and that went wrong."""
    fakes = started(BRANCHES)
    ends(fakes, pretrain="COMPLETED", rl="RUNNING")
    ends(fakes, sft="FAILED", last="CANCELLED")
    handle(comment_event("/train retry", comment_id=100, created_at="2024-05-06T14:59:00Z"), fakes.world)
    assert sorted(by_stage(fakes.cluster, trigger="comment:100")) == ["last", "sft"]
    ends(fakes, sft="NODE_FAIL", rl="FAILED", last="CANCELLED")
    ends(fakes)
    assert again(fakes) == {}
    assert by_stage(fakes.cluster, trigger="comment:100")["sft"].not_repeated == "stage-failed"


def test_an_array_that_goes_task_by_task_may_still_run_some() -> None:
    fakes = started(STAGES.replace("rl: { recipe: default }", "rl: { recipe: default, when: aftercorr }"))
    ends(fakes, pretrain="COMPLETED")
    ends(fakes, sft="NODE_FAIL")
    assert again(fakes) == {}
    ends(fakes, rl="CANCELLED")
    ends(fakes)
    assert sorted(again(fakes)) == ["rl", "sft"]


def test_what_somebody_has_cancelled_is_not_brought_back() -> None:
    fakes = started()
    ends(fakes, pretrain="COMPLETED", sft="RUNNING")
    give(fakes, f"cancel {by_stage(fakes.cluster)['rl'].run_key[:8]}", 100)
    ends(fakes, rl="CANCELLED")
    ends(fakes, sft="NODE_FAIL")
    assert again(fakes) == {}
    assert reasons(fakes) == {"stage-failed"}


def test_who_does_not_want_to_wait_for_the_other_branch_runs_it_again_and_nobody_does_it_twice() -> None:
    fakes = started(BRANCHES)
    ends(fakes, pretrain="COMPLETED", rl="RUNNING")
    ends(fakes, sft="NODE_FAIL", last="CANCELLED")
    handle(comment_event("/train retry", comment_id=100, created_at="2024-05-06T14:59:00Z"), fakes.world)
    assert sorted(by_stage(fakes.cluster, trigger="comment:100")) == ["last", "sft"]
    ends(fakes, rl="COMPLETED")
    ends(fakes)
    assert again(fakes) == {}
    assert reasons(fakes) == {"asked-again"}
    ends(fakes, sft="COMPLETED", last="COMPLETED")
    assert gate(fakes) == "success"


def test_what_follows_a_failure_runs_before_it_is_tried_again() -> None:
    """What runs because a stage failed would else run beside its own repetition."""
    fakes = started(STAGES + RESCUE)
    ends(fakes, pretrain="NODE_FAIL", sft="CANCELLED", rl="CANCELLED", rescue="RUNNING")
    assert again(fakes) == {}
    ends(fakes, rescue="FAILED")
    ends(fakes)
    assert list(again(fakes)) == ["pretrain", "sft", "rl", "rescue"]
    ends(fakes, pretrain="COMPLETED", sft="COMPLETED", rl="COMPLETED", rescue="CANCELLED")
    assert gate(fakes) == "success"


# --------------------------------------------------------------------------- nothing lost, nothing doubled


def test_whoever_dies_at_any_step_loses_and_doubles_nothing() -> None:
    """Each step that a sweep takes is once the one before which it is killed."""
    number, died = 0, True
    while died:
        fakes = started()
        ends(fakes, pretrain="COMPLETED", sft="RUNNING")
        end(fakes, sft="NODE_FAIL", rl="CANCELLED")
        fakes.steps.clear()
        add = dies_before(fakes, number)
        try:
            sweep(fakes)
            died = False
        except KeyboardInterrupt:
            fakes.cluster.close()
        fakes.trace.add = add  # type: ignore[method-assign]
        assert gate(fakes) is None, number
        for _ in range(3):
            sweep(fakes)
        assert_it_is_whole(fakes, f"killed before step {number}")
        number += 1
    assert number > 60


def dies_before(fakes: Fakes, number: int) -> Callable[..., None]:
    """Kills the process before that step; returns what noted the steps."""
    add = fakes.trace.add

    def counted(step: str, detail: object = "") -> None:
        if len(fakes.steps) == number:
            fakes.trace.add = add  # type: ignore[method-assign]
            raise KeyboardInterrupt
        add(step, detail)

    fakes.trace.add = counted  # type: ignore[method-assign]
    return add


def assert_it_is_whole(fakes: Fakes, when: str) -> None:
    """One retry, of both stages, with one job and one check each, and one comment; and it comes to its end."""
    assert sorted(again(fakes)) == ["rl", "sft"], when
    assert len(records(fakes.cluster)) == len(fakes.cluster.scheduler) == len({run.job_id for run in fakes.cluster.runs.values()}) == 5, (
        when
    )
    assert [body.count("### ") for body in fakes.forge.bodies] == [1, 1], when
    assert set(fakes.cluster.active) == {record.run_key for record in again(fakes).values()}, when
    assert by_stage(fakes.cluster)["sft"].followed_by == again(fakes)["sft"].run_key, when
    ids = [check.external_id for check in fakes.forge.checks.values() if check.name != "dispatch/gate"]
    assert len(ids) == len(set(ids)) == 5, when
    assert gate(fakes) is None, when
    ends(fakes, sft="COMPLETED", rl="COMPLETED")
    assert gate(fakes) == "success", when


def at_the(fakes: Fakes, number: int, step: str, happens: Callable[[], None]) -> None:
    """The `number`-th time from now that it comes to this step."""
    before = len(fakes.trace.of(step))

    def come() -> None:
        if len(fakes.trace.of(step)) - before >= number:
            happens()
        else:
            fakes.trace.at[step] = come

    fakes.trace.at[step] = come


def test_what_cannot_be_submitted_is_tried_by_the_next_sweep_and_the_gate_waits() -> None:
    fakes = started()
    ends(fakes, pretrain="COMPLETED", sft="RUNNING")
    at_the(fakes, 2, "cluster.submit", lambda: fakes.fail("cluster.submit", "cluster.failed"))
    ends(fakes, sft="NODE_FAIL", rl="CANCELLED")
    assert sorted(again(fakes)) == ["sft"]
    assert by_stage(fakes.cluster)["sft"].retry_owed
    assert gate(fakes) is None
    fakes.trace.fail.clear()
    fakes.trace.at.clear()
    ends(fakes)
    assert sorted(again(fakes)) == ["rl", "sft"]
    assert not by_stage(fakes.cluster)["sft"].retry_owed
    assert "did not start" not in fakes.forge.bodies[1]


def test_while_another_one_is_submitting_it_the_end_is_left_to_be_settled() -> None:
    fakes = started()
    ends(fakes, pretrain="COMPLETED", sft="RUNNING")
    fakes.cluster.busy = True
    ends(fakes, sft="NODE_FAIL", rl="CANCELLED")
    assert again(fakes) == {}
    assert by_stage(fakes.cluster)["sft"].retry_owed
    fakes.cluster.busy = False
    ends(fakes)
    assert sorted(again(fakes)) == ["rl", "sft"]


def test_whoever_was_not_the_first_to_submit_it_does_not_say_that_it_is_owed() -> None:
    fakes = started()
    ends(fakes, pretrain="COMPLETED", sft="RUNNING")
    end(fakes, sft="NODE_FAIL", rl="CANCELLED")

    def another_sweep_is_at_it() -> None:
        fakes.cluster.busy = True
        key = by_stage(fakes.cluster)["sft"].run_key
        fakes.cluster.runs[key].record = by_stage(fakes.cluster)["sft"].model_copy(update={"followed_by": "e" * 16}).to_json()

    at_the(fakes, 1, "cluster.claim", another_sweep_is_at_it)
    sweep(fakes)
    assert (by_stage(fakes.cluster)["sft"].followed_by, by_stage(fakes.cluster)["sft"].retry_owed) == ("e" * 16, False)


def test_a_ledger_that_does_not_answer_decides_nothing() -> None:
    fakes = Fakes(policy(BRANCHES.replace("rl: { recipe: default,", "rl: { recipe: default, profile: away,"), AGAIN), TWO_CLUSTERS)
    away = fakes.clusters["away.example.com"] = FakeCluster(fakes.trace)
    give(fakes, "recipe=full")
    fakes.clock.time += timedelta(minutes=30)
    both = read_policy(fakes.world).model_copy(
        update={"watch": read_policy(fakes.world).watch.model_copy(update={"profiles": ("cluster", "away")})}
    )
    end(fakes, pretrain="COMPLETED")
    for _ in range(2):
        watch(fakes.world, both)
    end(fakes, away, rl="COMPLETED")
    watch(fakes.world, both)
    end(fakes, sft="NODE_FAIL")
    answers = away.records
    away.records = _down  # type: ignore[method-assign,assignment]
    watch(fakes.world, both)
    assert again(fakes) == {}
    assert by_stage(fakes.cluster)["sft"].retry_owed
    away.records = answers  # type: ignore[method-assign]
    for _ in range(2):
        watch(fakes.world, both)
    assert sorted(again(fakes)) == ["last", "sft"]


def _down(*_: object) -> None:
    from dispatcher.errors import SshError

    raise SshError("ssh.unreachable", "away.example.com does not answer.")


# --------------------------------------------------------------------------- by whose permission


def _head_moves(fakes: Fakes) -> None:
    fakes.forge.pulls[7] = PullRequest(7, "open", False, OTHER, "topic", "org/repo", "main", BASE, "org/repo", "bob")


def _left(fakes: Fakes) -> None:
    fakes.forge.roles.clear()


def _policy(old: str, new: str) -> Callable[[Fakes], None]:
    def changed(fakes: Fakes) -> None:
        assert old in fakes.files[".github/dispatch.yml"]
        fakes.files[".github/dispatch.yml"] = fakes.files[".github/dispatch.yml"].replace(old, new)

    return changed


def _refuses(fakes: Fakes) -> None:
    fakes.cluster.refuses = "sbatch: error: invalid account"


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (_head_moves, "head-moved"),
        (_left, "not-a-collaborator"),
        (_refuses, "sbatch-refused"),
        (_policy("sft: { recipe: eval }", "sft: { recipe: default }"), "pipeline-changed"),
        (_policy("      rl: { recipe: default }\n", ""), "pipeline-changed"),
        (_policy("rl: { recipe: default }", "rl: { recipe: default, when: afterany }"), "pipeline-changed"),
        (_policy("retries:", "recipe_rules: { default: { allow: { users: [carol] } } }\nretries:"), "role-too-low"),
        (_policy("retries:", "most: { runs: 1 }\nretries:"), "too-many-runs"),
        (_policy("retries:", "limits: { time: 1h }\nretries:"), "too-long"),
    ],
)
def test_what_may_not_run_any_more_is_not_run_again_and_that_is_said(happens: Any, reason: str) -> None:
    fakes = started()
    ends(fakes, pretrain="COMPLETED", sft="RUNNING")
    happens(fakes)
    ends(fakes, sft="NODE_FAIL", rl="CANCELLED")
    assert again(fakes) == {}
    assert reasons(fakes) == {reason}
    assert not fakes.cluster.active
    assert f"It is not run again by itself (`{reason}`)." in fakes.forge.bodies[0]


def _changed(fakes: Fakes, stage: str, /, **fields: Any) -> None:
    record = by_stage(fakes.cluster)[stage]
    fakes.cluster.runs[record.run_key].record = record.model_copy(update=fields).to_json()


def _without_check(fakes: Fakes, stage: str) -> None:
    key = by_stage(fakes.cluster)[stage].run_key
    fakes.forge.checks = {number: check for number, check in fakes.forge.checks.items() if check.external_id != key}


def _regrouped(fakes: Fakes, **fields: Any) -> None:
    """The failed stage's record says something else of the stage after it."""
    group = by_stage(fakes.cluster)["sft"].group
    _changed(fakes, "sft", group=tuple(one.model_copy(update=fields) if one.stage == "rl" else one for one in group))


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (lambda fakes: _changed(fakes, "sft", asked="profile=cluster recipe=full lr=9"), "pipeline-changed"),
        (lambda fakes: _changed(fakes, "sft", asked="profile=large recipe=full"), "pipeline-changed"),
        (lambda fakes: _changed(fakes, "sft", asked="profile=cluster recipe=default"), "malformed"),
        (lambda fakes: _changed(fakes, "rl", overrides=("lr=9",)), "pipeline-changed"),
        (lambda fakes: _changed(fakes, "sft", attempt=2), "record-changed"),
        (lambda fakes: _changed(fakes, "pretrain", sha=OTHER), "pipeline-changed"),
        (lambda fakes: _changed(fakes, "sft", group=()), "record-changed"),
        (lambda fakes: _without_check(fakes, "sft"), "record-changed"),
        (lambda fakes: _without_check(fakes, "rl"), "record-changed"),
        (lambda fakes: _regrouped(fakes, run_key="f" * 16), "stage-failed"),
        (lambda fakes: _regrouped(fakes, after=()), "pipeline-changed"),
        (lambda fakes: _regrouped(fakes, reused=True), "pipeline-changed"),
    ],
)
def test_records_that_a_job_has_changed_are_not_run(happens: Any, reason: str) -> None:
    fakes = started()
    fakes.files["profiles/large.yaml"] = PROFILE
    ends(fakes, pretrain="COMPLETED", sft="RUNNING")
    happens(fakes)
    ends(fakes, sft="NODE_FAIL", rl="CANCELLED")
    ends(fakes)
    assert again(fakes) == {}
    assert reason in reasons(fakes)
    assert not fakes.cluster.active


def test_two_runs_that_say_that_they_are_one_stage_are_none() -> None:
    fakes = started()
    ends(fakes, pretrain="COMPLETED", sft="RUNNING")
    end(fakes, sft="NODE_FAIL", rl="CANCELLED")
    _changed(fakes, "rl", stage="sft")
    sweep(fakes)
    assert again(fakes) == {}
    assert "record-changed" in reasons(fakes)


def test_who_agreed_to_each_stage_agreed_to_its_retry() -> None:
    fakes = started(more=f"{AGAIN}approval: {{ nodes: 1 }}\n")
    fakes.files["profiles/cluster.yaml"] += "nodes: 2\n"
    for stage in ("pretrain", "sft", "rl"):
        _changed(fakes, stage, approved_by="dave")
    ends(fakes, pretrain="NODE_FAIL", sft="CANCELLED", rl="CANCELLED")
    assert {record.approved_by for record in again(fakes).values()} == {"dave"}
    fakes = started(more=f"{AGAIN}approval: {{ nodes: 1 }}\n")
    fakes.files["profiles/cluster.yaml"] += "nodes: 2\n"
    ends(fakes, pretrain="NODE_FAIL", sft="CANCELLED", rl="CANCELLED")
    assert reasons(fakes) == {"approval-needed"}


def test_of_several_pipelines_of_one_command_only_that_is_run_again() -> None:
    fakes = one(more=AGAIN)
    no_nodes(fakes)
    give(fakes, "recipe=full lr=1,2")
    fakes.clock.time += timedelta(minutes=30)
    fakes.cluster.scheduler.update(dict.fromkeys(("100", "103", "104", "105"), "COMPLETED") | {"101": "NODE_FAIL", "102": "CANCELLED"})
    for _ in range(2):
        sweep(fakes)
    assert [(record.stage, record.overrides) for record in again(fakes).values()] == [("sft", ("lr=1",)), ("rl", ("lr=1",))]
    assert "full · 3 stages · 1 passed, 2 waiting" in fakes.forge.bodies[1]


@pytest.mark.parametrize(("second", "hint"), [("FAILED", True), ("PREEMPTED", False)])
def test_several_runs_that_are_no_stages_say_in_their_comment_which_are_run_again(second: str, hint: bool) -> None:
    fakes = one(more=AGAIN)
    give(fakes, "lr=1,2")
    fakes.clock.time += timedelta(minutes=30)
    fakes.cluster.scheduler.update({"100": "NODE_FAIL", "101": second})
    sweep(fakes)
    first, *_ = records(fakes.cluster)
    body = fakes.forge.bodies[0]
    assert f"- run `{first.run_key[:8]}`: It is run again by itself: attempt 2 is run `{first.followed_by[:8]}`." in body
    assert ("`/train retry` runs what failed once more" in body) == hint


ENTRY = f"gh-readonly-queue/main/pr-7-{BASE}"
QUEUE = MergeGroupEvent(REPOSITORY, OTHER, f"refs/heads/{ENTRY}", "main", BASE, "main")
SCHEDULE = ScheduleEvent(REPOSITORY, "0 3 * * *", "schedule:6", "main")


@pytest.mark.parametrize("event", [QUEUE, SCHEDULE])
def test_a_schedule_and_the_merge_queue(event: Event) -> None:
    fakes = one(more=AGAIN)
    _policy("{ name: nightly,", "{ name: nightly, recipe: full,")(fakes)
    _policy('  - { name: weekly, cron: "0 3 * * *", recipe: eval }\n', "")(fakes)
    no_nodes(fakes)
    fakes.forge.refs[ENTRY] = OTHER
    fakes.forge.merge_bases[("main", BASE)] = BASE
    handle(event, fakes.world)
    assert len(records(fakes.cluster)) == 3
    fakes.clock.time += timedelta(minutes=30)
    for words in ({"pretrain": "COMPLETED"}, {"sft": "NODE_FAIL", "rl": "CANCELLED"}, {"sft": "PREEMPTED", "rl": "CANCELLED"}):
        ends(fakes, **words)
        ends(fakes)
    assert [sorted(again(fakes, number)) for number in (1, 2)] == [["rl", "sft"]] * 2
    ends(fakes, sft="COMPLETED", rl="COMPLETED")
    verdicts = [step.rpartition(" ")[2] for step in fakes.steps if "_check dispatch/gate" in step]
    if event is QUEUE:
        assert verdicts[-1] == "success"
        assert "failure" not in verdicts, "red would throw the pull request out of the queue"


def test_over_two_clusters_each_stage_is_run_again_where_it_was() -> None:
    both = policy(STAGES.replace("sft: { recipe: eval }", "sft: { recipe: eval, profile: away }"), AGAIN).replace(
        "[cluster]", "[cluster, away]"
    )
    fakes = Fakes(both, TWO_CLUSTERS)
    away = fakes.clusters["away.example.com"] = FakeCluster(fakes.trace)
    give(fakes, "recipe=full")
    fakes.clock.time += timedelta(minutes=30)
    end(fakes, pretrain="NODE_FAIL")
    for _ in range(2):
        sweep(fakes)
    second = again(fakes)
    assert (sorted(second), len(away.runs), len(away.queue)) == (["pretrain", "rl"], 2, 1)
    for cluster, stage in ((fakes.cluster, "pretrain"), (away, "sft"), (fakes.cluster, "rl")):
        end(fakes, cluster, **{stage: "COMPLETED"})
        for _ in range(2):
            sweep(fakes)
    assert gate(fakes) == "success"
    assert all(parse_record(run.record).state.ended for cluster in (fakes.cluster, away) for run in cluster.runs.values())


def test_a_command_of_a_person_begins_to_count_anew() -> None:
    fakes = started(more=AGAIN.replace("infrastructure: 2", "infrastructure: 1"))
    for _ in range(2):
        ends(fakes, pretrain="NODE_FAIL", sft="CANCELLED", rl="CANCELLED")
        ends(fakes)
    assert reasons(fakes) == {"attempts-used"}
    handle(comment_event("/train retry", comment_id=100, created_at="2024-05-06T14:59:00Z"), fakes.world)
    ends(fakes, pretrain="NODE_FAIL", sft="CANCELLED", rl="CANCELLED")
    assert [record.attempt for record in records(fakes.cluster) if record.stage == "pretrain"] == [1, 2, 3, 4]
    assert {record.sha for record in records(fakes.cluster)} == {HEAD}
    assert by_stage(fakes.cluster, trigger="comment:100")["pretrain"].state is State.NODE_FAIL
