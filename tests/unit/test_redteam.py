"""Attacks that were tried on the whole story, each as somebody would do it: by comments, labels, buttons, re-runs, and time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcher.answer import RUN_MARK, marker
from dispatcher.approval import APPROVAL_NAME
from dispatcher.configuration import read_policy
from dispatcher.event import CheckEvent, ManualEvent, PushEvent
from dispatcher.flow import handle
from dispatcher.ports import Check, PullRequest
from dispatcher.record import Resources, RunRecord, parse_record
from dispatcher.slurm import State
from dispatcher.waiver import WAIVED
from dispatcher.watching import watch
from dispatcher.world import Outcome
from tests.fakes import BASE, FILES, HEAD, OTHER, POLICY, PROFILE, REPOSITORY, Fakes, comment_event, entry

ABOVE_ONE_NODE = POLICY + "approval: { nodes: 1 }\n"
TWO_NODES = {"cluster": PROFILE + "nodes: 2\n"}
APPROVE = f"/train approve sha={HEAD}"


def of_fork(policy: str = POLICY, **settings: object) -> Fakes:
    """bob's fork; alice, carol and dave may write."""
    fakes = Fakes(policy, TWO_NODES, **settings)  # type: ignore[arg-type]
    fakes.forge.roles.update({"carol": "write", "dave": "write"})
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], head_repository="bob/repo")
    return fakes


def of_ours(policy: str = ABOVE_ONE_NODE, **settings: object) -> Fakes:
    """A pull request of this repository."""
    fakes = of_fork(policy, **settings)
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], head_repository=REPOSITORY)
    return fakes


def told(ended: Outcome) -> tuple[str, str]:
    return ended.outputs["decision"], ended.outputs["reason-code"]


def say(fakes: Fakes, body: str, author: str = "alice", comment: int = 50, at: str = "14:01:30", number: int = 7) -> tuple[str, str]:
    """Somebody comments, at a time of the same day."""
    event = comment_event(body, author, comment_id=comment, created_at=f"2024-05-06T{at}Z", number=number)
    return told(handle(event, fakes.world))


def records(fakes: Fakes) -> list[RunRecord]:
    return [parse_record(run.record) for run in fakes.cluster.runs.values()]


def requests(fakes: Fakes) -> list[tuple[int, Check]]:
    return [(number, check) for number, check in fakes.forge.checks.items() if check.name == APPROVAL_NAME]


def press(fakes: Fakes, number: int, sender: str, button: str = "approve") -> tuple[str, str]:
    check = fakes.forge.checks[number]
    event = CheckEvent(REPOSITORY, number, check.name, check.external_id, HEAD, 7, button, "our-app", sender, "77", "main")
    return told(handle(event, fakes.world))


# --------------------------------------------------------------------------- two people


def test_a_stranger_who_asks_and_one_who_vouches_are_not_two_people_with_rights() -> None:
    """Anybody can make an account that asks for what they would not be given alone."""
    fakes = of_fork(ABOVE_ONE_NODE)
    assert say(fakes, "/train", "bob") == ("waiting", "waits-fork")
    assert say(fakes, APPROVE, "alice", 60, "14:10:00") == ("waiting", "waits-second")
    assert not fakes.cluster.runs
    assert say(fakes, APPROVE, "alice", 61, "14:11:00") == ("denied", "own-request")
    assert say(fakes, APPROVE, "carol", 62, "14:12:00") == ("run", "approved")
    assert [(record.actor, record.approved_by) for record in records(fakes)] == [("bob", "carol")]


def test_who_has_the_right_and_asks_is_the_first_and_who_vouches_the_second() -> None:
    fakes = of_fork(ABOVE_ONE_NODE)
    assert say(fakes, "/train", "alice") == ("waiting", "waits-fork")
    assert say(fakes, APPROVE, "carol", 60, "14:10:00") == ("run", "approved")


def test_an_approval_is_for_what_had_been_asked_for_by_then() -> None:
    """What is asked for while the approver types, or before somebody has the approver's old job run again, was not approved."""
    fakes = of_ours()
    assert say(fakes, "/train a=1", at="14:01:00") == ("waiting", "waits-second")
    assert say(fakes, "/train a=2", comment=51, at="14:20:00") == ("waiting", "waits-second")
    assert say(fakes, APPROVE, "carol", 60, "14:10:00") == ("run", "approved")
    assert [record.overrides for record in records(fakes)] == [("a=1",)]
    assert say(fakes, APPROVE, "carol", 60, "14:10:00") == ("refused", "nothing-waits")
    assert say(fakes, APPROVE, "carol", 61, "14:30:00") == ("run", "approved")
    assert len(records(fakes)) == 2


def test_the_button_beside_one_request_approves_no_other() -> None:
    fakes = of_ours(app_slug="our-app")
    say(fakes, "/train a=1")
    say(fakes, "/train a=2", comment=51)
    first, second = (number for number, _ in requests(fakes))
    assert press(fakes, second, "carol") == ("run", "approved")
    assert [record.overrides for record in records(fakes)] == [("a=2",)]
    assert fakes.forge.checks[first].conclusion == "action_required"


def test_what_was_asked_for_on_one_pull_request_is_not_started_from_another_with_the_same_head() -> None:
    fakes = of_ours()
    fakes.forge.pulls[8] = PullRequest(8, "open", False, HEAD, "other", REPOSITORY, "main", BASE, REPOSITORY, "bob")
    say(fakes, "/train")
    assert say(fakes, APPROVE, "carol", 60, "14:10:00", number=8) == ("refused", "nothing-waits")
    assert not fakes.cluster.runs
    assert say(fakes, APPROVE, "carol", 61, "14:11:00") == ("run", "approved")
    assert [record.target.pull for record in records(fakes)] == [7]


def test_a_request_that_was_approved_does_not_wait_again_when_it_is_delivered_again() -> None:
    fakes = of_ours()
    say(fakes, "/train")
    say(fakes, APPROVE, "carol", 60, "14:10:00")
    say(fakes, "/train")
    [(_, check)] = requests(fakes)
    assert check.conclusion == "neutral"
    assert len(fakes.cluster.runs) == 1


@pytest.mark.parametrize("word", ["@trainbot run", "/训练"])
def test_a_label_of_any_command_word_can_wait(word: str) -> None:
    from tests.unit.test_flow import LABEL

    fakes = of_ours()
    fakes.world = replace(fakes.world, settings=replace(fakes.world.settings, voice=replace(fakes.world.settings.voice, word=word)))
    event = replace(LABEL, label=f"{word.lstrip('/')}:cluster")
    assert told(handle(event, fakes.world)) == ("waiting", "waits-second")


# --------------------------------------------------------------------------- "Re-run jobs", by somebody else

WAIVABLE = POLICY.replace("gate:\n", "gate:\n  override: {}\n")


def rerun(fakes: Fakes, by: str) -> None:
    """From now on every delivery is an old one that somebody has had handled once more: GitHub's event is the same."""
    fakes.world = replace(fakes.world, settings=replace(fakes.world.settings, run_attempt=2, rerun_by=by))


def test_an_exception_is_not_made_again_for_a_newer_commit_by_running_its_job_again() -> None:
    fakes = of_ours(WAIVABLE)
    fakes.forge.roles["mia"] = "maintain"
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], head_sha="c" * 40)
    rerun(fakes, "alice")
    assert say(fakes, '/train override dispatch/gate reason="down until noon"', "mia") == ("denied", "rerun-by-another")
    assert not fakes.forge.checks
    assert not fakes.forge.bodies
    rerun(fakes, "Mia")
    assert say(fakes, '/train override dispatch/gate reason="down until noon"', "mia") == ("answered", "overridden")


@pytest.mark.parametrize("body", ["/train", "/train lr=1,2", "/train retry", APPROVE, "/train cancel all", "/train status\n/train"])
def test_nobody_speaks_by_running_somebody_elses_job_again(body: str) -> None:
    fakes = of_ours(POLICY)
    rerun(fakes, "mallory")
    assert say(fakes, body) == ("denied", "rerun-by-another")
    assert fakes.steps == []


@pytest.mark.parametrize("body", ["/train help", "/train status", "/train logs", "/train nonsense", "not for us"])
def test_what_only_looks_may_be_answered_again(body: str) -> None:
    fakes = of_ours(POLICY)
    rerun(fakes, "dave")
    assert say(fakes, body)[1] != "rerun-by-another"


def test_a_manual_run_is_its_starters_too() -> None:
    fakes = of_ours(POLICY)
    event = ManualEvent(REPOSITORY, {}, "alice", "5", "refs/heads/main", "main")
    rerun(fakes, "dave")
    assert told(handle(event, fakes.world)) == ("denied", "rerun-by-another")
    rerun(fakes, "alice")
    assert told(handle(event, fakes.world)) == ("run", "submitted")


def test_an_old_retry_repeats_nothing_that_was_asked_for_since() -> None:
    fakes = of_ours(POLICY)
    for comment, (body, at) in enumerate([("/train", "13:00:00"), ("/train retry", "13:10:00"), ("/train retry", "13:30:00")], 50):
        assert say(fakes, body, comment=comment, at=at) == ("run", "submitted")
        fakes.cluster.scheduler[str(50 + comment)] = "FAILED"
        watch(fakes.world, read_policy(fakes.world))
    # "Re-run jobs" on the first retry, after all of them have failed.
    say(fakes, "/train retry", comment=51, at="13:10:00")
    assert sorted((record.trigger, record.attempt) for record in records(fakes)) == [
        ("comment:50", 1),
        ("comment:51", 2),
        ("comment:52", 3),
    ]


# --------------------------------------------------------------------------- labels

STANDING = POLICY + "pulls: { labels: standing }\n"
PUSHED = PushEvent(REPOSITORY, 7, HEAD, OTHER, "main", "synchronize", "main", "bob/repo", True, False, "bob", ("train:cluster",))


def test_our_own_label_is_no_command_whatever_the_word_is() -> None:
    """Acted upon it would be malformed, answered and taken off; then the sweep could not find the exception when it expires."""
    from tests.unit.test_flow import LABEL

    fakes = of_ours(POLICY)
    fakes.world = replace(fakes.world, settings=replace(fakes.world.settings, voice=replace(fakes.world.settings.voice, word="/dispatch")))
    assert told(handle(replace(LABEL, label=WAIVED.name), fakes.world)) == ("ignored", "other-label")
    assert fakes.steps == []


@pytest.mark.parametrize(("sender", "comments"), [("bob", 0), ("alice", 1)])
def test_a_stranger_who_pushes_under_a_standing_label_gets_no_comment_for_each_push(sender: str, comments: int) -> None:
    fakes = of_fork(STANDING)
    handle(replace(PUSHED, sender=sender), fakes.world)
    assert not fakes.cluster.runs
    assert len(fakes.forge.bodies) == comments


# --------------------------------------------------------------------------- what is shown, and what comes back


def test_a_file_name_in_a_preview_is_no_marker_and_a_secret_in_a_profile_is_masked() -> None:
    """By a marker our comments are found: a commit that brings one along would have another command's report written over the preview."""
    fakes = of_ours(POLICY, to_hide=("hunter2-hunter2",))
    fakes.files["profiles/cluster.yaml"] = PROFILE + "env_vars: { GREETING: hunter2-hunter2 }\n"
    fakes.archive.commits[HEAD] = (*FILES, entry(f"a\n{marker('comment:99')}\n{RUN_MARK}0 -->\nb"))
    assert say(fakes, "/train plan")[1] == "planned"
    [body] = fakes.forge.bodies
    assert marker("comment:99") not in body.splitlines()
    assert not [line for line in body.splitlines() if line.startswith(RUN_MARK)]
    assert "hunter2" not in body
    assert "GREETING" in body


@pytest.mark.parametrize("word", ["lr=${oc.env:HOME}", "run=1", "no pair", "a=\u202e1", "a=" + "x" * 513])
def test_an_override_that_somebody_wrote_into_the_ledger_is_not_repeated(word: str) -> None:
    fakes = of_ours(POLICY)
    say(fakes, "/train a=1", at="13:00:00")
    [run] = fakes.cluster.runs.values()
    run.record = parse_record(run.record).model_copy(update={"overrides": (word,), "state": State.FAILED}).to_json()
    fakes.cluster.active.clear()
    assert say(fakes, "/train retry", comment=51)[0] == "malformed"
    assert len(fakes.cluster.runs) == 1


# --------------------------------------------------------------------------- what a stranger's comment costs


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        ("/train", ["react", "role", "pull", "role", "react"]),
        ("/train nonsense", ["react", "role", "react"]),
        ("/train a=1\n" * 40, ["react", "role", "react"]),
        ("/train cancel all", ["react", "role", "pull", "role", "react"]),
        ("no command", []),
    ],
)
def test_a_strangers_comment_costs_few_requests_and_no_connection(body: str, cost: list[str]) -> None:
    """The job's token has a thousand an hour for the whole repository."""
    fakes = of_ours(POLICY)
    say(fakes, body, "mallory")
    assert [step.split()[0].removeprefix("forge.") for step in fakes.trace.of("forge.")] == cost
    assert not fakes.trace.of("connect")
    assert not fakes.forge.bodies


def test_a_long_queue_does_not_use_up_the_requests_of_an_hour() -> None:
    fakes = of_ours(POLICY + "active: { user: 1 }\n")
    for number in range(6):
        say(fakes, f"/train a={number}", comment=50 + number)
    assert len(fakes.cluster.queue) == 5
    before = len(fakes.trace.of("forge.pull"))
    watch(fakes.world, read_policy(fakes.world))
    assert len(fakes.trace.of("forge.pull")) - before == 1


def test_the_head_is_asked_for_again_before_each_release() -> None:
    """It may move between two releases of one sweep."""
    fakes = of_ours(POLICY + "active: { user: 1 }\n")
    for number in range(3):
        say(fakes, f"/train a={number}", comment=50 + number)
    fakes.files[".github/dispatch.yml"] = POLICY
    fakes.trace.at["cluster.release"] = lambda: fakes.forge.pulls.update({7: replace(fakes.forge.pulls[7], head_sha=OTHER)})
    watch(fakes.world, read_policy(fakes.world))
    assert len([run for run in fakes.cluster.runs.values() if run.job_id]) == 2
    assert len(fakes.cluster.dropped) == 1


def test_a_log_that_is_one_endless_line_is_not_empty() -> None:
    fakes = of_ours(POLICY)
    say(fakes, "/train")
    [run] = fakes.cluster.runs.values()
    run.log = b"start\n" + b"x" * 100_000 + b"END\n"
    assert say(fakes, "/train logs", comment=51) == ("answered", "logs")
    assert "xEND\n" in fakes.forge.bodies[-1]
    assert "nothing yet" not in fakes.forge.bodies[-1]


def test_the_log_of_one_task_in_a_comment() -> None:
    fakes = of_ours(POLICY)
    say(fakes, "/train")
    [run] = fakes.cluster.runs.values()
    run.log, run.part_logs[3] = b"all\n", b"only @alice's <b>task</b>\n"
    parts = {"parts": 4, "resources": Resources(tasks=4)}
    run.record = parse_record(run.record).model_copy(update=parts).to_json()
    assert say(fakes, "/train logs task=3", comment=51) == ("answered", "logs")
    assert "log of task 3 of run" in fakes.forge.bodies[-1]
    assert "```text\nonly @alice's <b>task</b>\n```" in fakes.forge.bodies[-1]
    say(fakes, "/train logs task=7", comment=52)
    assert "Task 7 has written nothing yet, or there is none such: the job has 4 parts." in fakes.forge.bodies[-1]
    run.record = parse_record(run.record).model_copy(update={"parts": 2, "resources": Resources()}).to_json()
    say(fakes, "/train logs task=1", comment=53)
    assert "log of component 1 of run" in fakes.forge.bodies[-1]
    run.record = parse_record(run.record).model_copy(update={"parts": 1}).to_json()
    say(fakes, "/train logs task=1", comment=54)
    assert "it is one job, not an array" in fakes.forge.bodies[-1]


def test_a_queued_run_whose_submitter_died_before_it_said_so_can_be_cancelled() -> None:
    fakes = of_ours(POLICY + "active: { user: 1 }\n")
    say(fakes, "/train a=1")
    say(fakes, "/train a=2", comment=51)
    [key] = fakes.cluster.queue
    run = fakes.cluster.runs[key]
    run.record = parse_record(run.record).model_copy(update={"state": State.SUBMITTING}).to_json()
    assert say(fakes, f"/train cancel {key[:8]}", comment=52) == ("answered", "cancelled")
    assert fakes.cluster.queue == []
    assert "taken out of the queue" in fakes.forge.bodies[-1]


@pytest.mark.parametrize("step", ["forge.create_label", "forge.add_label"])
def test_there_is_no_exception_that_the_sweep_would_not_find(step: str) -> None:
    fakes = of_ours(WAIVABLE)
    fakes.forge.roles["mia"] = "maintain"
    fakes.fail(step)
    assert say(fakes, '/train override dispatch/gate reason="down until noon"', "mia") == ("refused", "github.unavailable")
    assert not fakes.forge.checks


def test_a_clock_that_is_ahead_does_not_keep_a_label_from_being_approved() -> None:
    from tests.unit.test_flow import LABEL

    fakes = of_ours()
    assert told(handle(LABEL, fakes.world)) == ("waiting", "waits-second")  # at 14:02:00 by our clock
    assert say(fakes, APPROVE, "carol", 60, "13:59:00") == ("refused", "nothing-waits")
    assert say(fakes, APPROVE, "carol", 61, "14:01:30") == ("run", "approved")
