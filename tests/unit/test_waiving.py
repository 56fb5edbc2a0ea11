"""Exceptions from the gate: recorded, visible, for one commit, for a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from dispatcher.configuration import read_policy
from dispatcher.event import MergeGroupEvent, PushEvent
from dispatcher.flow import handle
from dispatcher.ports import Check
from dispatcher.slurm import State
from dispatcher.waiver import WAIVED, WAIVER_NAME, WaiverRecord, waiver_check, waiver_on
from dispatcher.watching import watch
from dispatcher.world import Outcome
from tests.fakes import BASE, HEAD, NOON, OTHER, POLICY, REPOSITORY, Fakes, comment_event, run_record

EXCEPTIONS = POLICY.replace("gate:\n", "gate:\n  override: { allow: { roles: maintain }, expires: 2h }\n")
WORDS = '/train override dispatch/gate reason="the node is flaky"'
PUSH = PushEvent(REPOSITORY, 7, OTHER, HEAD, "main", "synchronize", "main", REPOSITORY, False, False, "bob")


def failing(policy: str = EXCEPTIONS) -> Fakes:
    """A pull request whose required run has failed; mia may make exceptions."""
    from dispatcher.keys import commit_tag, pull_tag

    fakes = Fakes(policy)
    fakes.forge.roles["mia"] = "maintain"
    record = run_record(state=State.FAILED, ended_at=NOON)
    fakes.cluster.add(record, None, "FAILED", (commit_tag(HEAD), pull_tag(REPOSITORY, 7)))
    return fakes


def override(fakes: Fakes, author: str = "mia", body: str = WORDS, comment: int = 99) -> tuple[str, str]:
    ended = handle(comment_event(body, author, comment_id=comment), fakes.world)
    return ended.outputs["decision"], ended.outputs["reason-code"]


def sweep(fakes: Fakes) -> Outcome:
    return watch(fakes.world, read_policy(fakes.world))


def gate(fakes: Fakes) -> Check:
    return fakes.forge.check("dispatch/gate")


def test_it_is_recorded_said_and_seen() -> None:
    fakes = failing()
    assert override(fakes) == ("answered", "overridden")
    record = fakes.forge.check(WAIVER_NAME)
    assert (record.sha, record.conclusion) == (HEAD, "neutral")
    assert record.title == "dispatch/gate overridden by mia until 2024-05-06 16:02 UTC"
    assert "the node is flaky" in record.summary
    assert gate(fakes).conclusion == "success"
    assert gate(fakes).title == "overridden by mia: the node is flaky"
    # What the run says stays visible.
    assert "failed" in gate(fakes).summary
    assert fakes.forge.pulls[7].labels == (WAIVED.name,)
    assert WAIVED.name in fakes.forge.labels
    [body] = fakes.forge.bodies
    assert "> the node is flaky" in body
    assert "(2h)" in body


@pytest.mark.parametrize(
    ("author", "body", "reason"),
    [
        ("alice", WORDS, "role-too-low"),
        ("mia", WORDS.replace("dispatch/gate", "dispatch/gates"), "unknown-gate"),
        ("mia", WORDS.replace("dispatch/gate", "ci/lint"), "unknown-gate"),
    ],
)
def test_not_everybody_and_not_every_gate(author: str, body: str, reason: str) -> None:
    fakes = failing()
    assert override(fakes, author, body) == ("denied", reason)
    assert not fakes.forge.checks
    assert not fakes.forge.labels


def test_a_policy_without_exceptions_has_none() -> None:
    fakes = failing(POLICY)
    assert override(fakes) == ("denied", "override-off")
    assert not fakes.forge.checks


def test_a_record_that_was_made_before_the_policy_took_exceptions_away_counts_for_nothing() -> None:
    fakes = failing()
    override(fakes)
    fakes.files[".github/dispatch.yml"] = POLICY
    handle(replace(PUSH, head_sha=HEAD), fakes.world)
    assert gate(fakes).conclusion == "failure"


def test_it_expires_and_the_sweep_judges_again() -> None:
    fakes = failing()
    override(fakes)
    fakes.clock.time += timedelta(minutes=119)
    sweep(fakes)
    assert gate(fakes).conclusion == "success"
    assert fakes.forge.pulls[7].labels == (WAIVED.name,)
    fakes.clock.time += timedelta(minutes=1)
    sweep(fakes)
    assert gate(fakes).conclusion == "failure"
    assert not fakes.forge.pulls[7].labels
    fakes.steps.clear()
    sweep(fakes)
    assert fakes.trace.of("forge") == [f"forge.labelled {WAIVED.name}"]


def test_a_sweep_that_could_not_judge_leaves_the_label_for_the_next() -> None:
    fakes = failing()
    override(fakes)
    fakes.clock.time += timedelta(hours=3)
    fakes.fail("forge.changed_files")
    sweep(fakes)
    assert fakes.forge.pulls[7].labels == (WAIVED.name,)
    assert any("could not be judged again" in line for line in fakes.said)
    fakes.trace.fail.clear()
    sweep(fakes)
    assert gate(fakes).conclusion == "failure"


def test_a_new_head_needs_its_own() -> None:
    fakes = failing()
    override(fakes)
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], head_sha=OTHER)
    handle(PUSH, fakes.world)
    [new] = [check for check in fakes.forge.checks.values() if check.name == "dispatch/gate" and check.sha == OTHER]
    assert (new.status, new.conclusion) == ("in_progress", None)
    sweep(fakes)
    assert fakes.forge.pulls[7].labels == ()


def test_said_twice_it_does_not_hold_longer() -> None:
    fakes = failing()
    override(fakes)
    fakes.clock.time += timedelta(minutes=90)
    override(fakes)
    assert len([check for check in fakes.forge.checks.values() if check.name == WAIVER_NAME]) == 1
    assert "(30m" in fakes.forge.bodies[0]
    # Other words are another exception, in the same check.
    override(fakes, body=WORDS.replace("flaky", "broken"), comment=100)
    [check] = [check for check in fakes.forge.checks.values() if check.name == WAIVER_NAME]
    assert "broken" in check.text
    assert "(2h)" in fakes.forge.bodies[1]


def test_a_push_between_the_words_and_the_record() -> None:
    """The exception is for the head that was read when the right was looked up; the gate that is judged is the new head's."""
    fakes = failing()
    moved = replace(fakes.forge.pulls[7], head_sha=OTHER)
    fakes.trace.at[f"forge.find_checks {WAIVER_NAME}"] = lambda: fakes.forge.pulls.update({7: moved})
    override(fakes)
    assert fakes.forge.check(WAIVER_NAME).sha == HEAD
    assert (gate(fakes).sha, gate(fakes).conclusion) == (OTHER, None)


def test_the_queues_commit_has_the_pull_requests_exception() -> None:
    fakes = failing()
    override(fakes)
    queued = "d" * 40
    fakes.archive.commits[queued] = fakes.archive.commits[HEAD]
    event = MergeGroupEvent(REPOSITORY, queued, f"refs/heads/gh-readonly-queue/main/pr-7-{BASE}", "refs/heads/main", BASE, "main")
    handle(event, fakes.world)
    [check] = [check for check in fakes.forge.checks.values() if check.name == "dispatch/gate" and check.sha == queued]
    assert check.conclusion == "success"
    assert not fakes.trace.of("cluster.submit")


def test_everything_passed_needs_no_exception() -> None:
    fakes = failing()
    [run] = fakes.cluster.runs.values()
    run.record = run_record(state=State.SUCCEEDED, ended_at=NOON).to_json()
    override(fakes)
    assert gate(fakes).title == "1 required run passed"


# --------------------------------------------------------------------------- what stands in the check


def made(**changes: object) -> WaiverRecord:
    until = NOON + timedelta(hours=1)
    given = {"gate": "dispatch/gate", "sha": HEAD, "actor": "mia", "reason": "why", "made_at": NOON, "expires_at": until}
    return WaiverRecord.model_validate({**given, **changes})


FORGED: list[Callable[[Check], Check]] = [
    lambda check: replace(check, text=""),
    lambda check: replace(check, text="null"),
    lambda check: replace(check, text=check.text.replace(HEAD, OTHER)),
    lambda check: replace(check, text=check.text.replace("dispatch/gate", "dispatch/other")),
    lambda check: replace(check, text=check.text[:-1] + ',"more":1}'),
    lambda check: replace(check, external_id="override-x"),
    lambda check: waiver_check(made(expires_at=NOON)),
    lambda check: replace(waiver_check(made(sha=OTHER)), sha=HEAD),
    lambda check: waiver_check(made(gate="dispatch/other")),
    lambda check: waiver_check(made(made_at=NOON + timedelta(seconds=1))),
    lambda check: waiver_check(made(expires_at=(NOON + timedelta(hours=1)).replace(tzinfo=None))),
]


@pytest.mark.parametrize("change", FORGED)
def test_what_is_not_ours_counts_as_nothing(change: Callable[[Check], Check]) -> None:
    fakes = failing()
    ref = fakes.forge.create_check(change(waiver_check(made())))
    assert waiver_on([ref], "dispatch/gate", HEAD, NOON) is None
    handle(replace(PUSH, head_sha=HEAD), fakes.world)
    assert gate(fakes).conclusion == "failure"


def test_the_newest_that_holds_counts() -> None:
    fakes = failing()
    refs = [
        fakes.forge.create_check(waiver_check(made(made_at=NOON - timedelta(minutes=minutes), actor=actor)))
        for minutes, actor in ((30, "a"), (10, "b"), (20, "c"))
    ]
    found = waiver_on(refs, "dispatch/gate", HEAD, NOON)
    assert found is not None
    assert found.actor == "b"


def test_a_reason_does_nothing_wherever_it_stands() -> None:
    from tests.powerless import acting

    fakes = failing()
    override(fakes, body='/train override dispatch/gate reason="@org/all <img src=x> ](http://x) | #1"')
    ours = ("https://github.com/org/",)
    for text in (*(check.summary for check in fakes.forge.checks.values()), fakes.forge.bodies[0]):
        assert acting(text, [line for line in text.splitlines() if line.startswith("<!-- nemotron-dispatch ")], ours) == []
