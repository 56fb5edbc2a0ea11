"""`retry`: which runs are meant, what is asked for again, and by whose rights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from dispatcher.flow import handle
from dispatcher.grammar import Override, Run
from dispatcher.keys import pull_tag
from dispatcher.record import RunRecord, parse_record
from dispatcher.resuming import run_of
from dispatcher.retrying import chosen_runs
from dispatcher.slurm import State
from dispatcher.verbs import Retry
from dispatcher.world import Outcome
from tests.fakes import HEAD, NOON, OTHER, POLICY, REPOSITORY, Fakes, comment_event, run_record


def runs(*rows: tuple[str, State, str, str]) -> list[RunRecord]:
    """Oldest first: the beginning of the key, the state, the commit, an override."""
    return [
        run_record(
            run_key=key + "0" * 12, state=state, sha=sha, overrides=(word,) if word else (), asked_at=NOON + timedelta(minutes=number),
            job_id=str(number), trigger=f"comment:{number}",
        )
        for number, (key, state, sha, word) in enumerate(rows, 1)
    ]  # fmt: skip


def chosen(command: Retry, records: list[RunRecord]) -> list[str]:
    return [record.run_key[:4] for record in chosen_runs(command, records, HEAD)]


FAILED, GOOD, GOING = State.FAILED, State.SUCCEEDED, State.RUNNING


@pytest.mark.parametrize(
    ("command", "rows", "expected"),
    [
        (Retry(), [("1111", FAILED, HEAD, ""), ("2222", GOOD, HEAD, "a=1")], ["1111"]),
        (Retry(all=True), [("1111", FAILED, HEAD, ""), ("2222", GOOD, HEAD, "a=1")], ["1111", "2222"]),
        # The newest of a kind counts: what has passed since has not failed.
        (Retry(), [("1111", FAILED, HEAD, ""), ("2222", GOOD, HEAD, "")], []),
        (Retry(), [("1111", GOOD, HEAD, ""), ("2222", FAILED, HEAD, "")], ["2222"]),
        (Retry(), [("1111", FAILED, HEAD, ""), ("2222", GOING, HEAD, "")], []),
        (Retry(all=True), [("1111", GOING, HEAD, "")], []),
        # Runs of the head come first; where there is none, those of older commits.
        (Retry(), [("1111", FAILED, OTHER, ""), ("2222", FAILED, HEAD, "a=1")], ["2222"]),
        (Retry(), [("1111", FAILED, OTHER, ""), ("2222", FAILED, OTHER, "a=1")], ["1111", "2222"]),
        (Retry(), [("1111", FAILED, OTHER, ""), ("2222", GOOD, HEAD, "")], []),
        # A named one is meant whatever came later, but not while it goes on.
        (Retry("1111"), [("1111", GOOD, HEAD, ""), ("2222", FAILED, HEAD, "")], ["1111"]),
        (Retry("1111"), [("1111", GOING, HEAD, "")], []),
        (Retry("11"), [("1111", FAILED, HEAD, ""), ("1122", FAILED, HEAD, "a=1")], ["1111", "1122"]),
        *(
            (Retry(), [("1111", state, HEAD, "")], ["1111"])
            for state in (State.TIMEOUT, State.CANCELLED, State.LOST, State.NODE_FAIL, State.PREEMPTED, State.OUT_OF_MEMORY)
        ),
        (Retry(), [("1111", State.QUEUED, HEAD, "")], []),
        (Retry(), [], []),
    ],
)
def test_which_are_meant(command: Retry, rows: list[tuple[str, State, str, str]], expected: list[str]) -> None:
    assert chosen(command, runs(*rows)) == expected


def test_results_that_are_missing_are_a_failure_and_terminals_runs_are_nobodys() -> None:
    [record] = runs(("1111", GOOD, HEAD, ""))
    assert chosen(Retry(), [record.model_copy(update={"results_problem": "none"})]) == ["1111"]
    [record] = runs(("1111", FAILED, HEAD, ""))
    assert chosen(Retry(), [record.model_copy(update={"origin": "terminal"})]) == []


def test_the_same_is_asked_for_on_the_head() -> None:
    [record] = runs(("1111", FAILED, HEAD, "note=a=b,c"))
    overrides = (Override("note", "a=b,c"),)
    assert run_of(record, HEAD) == Run("cluster", "default", HEAD, overrides=overrides)
    assert run_of(record, OTHER) == Run("cluster", "default", None, overrides=overrides)


# --------------------------------------------------------------------------- through the story


def world(*rows: tuple[str, State, str, str], policy: str = POLICY) -> Fakes:
    fakes = Fakes(policy)
    for record in runs(*rows):
        fakes.cluster.add(record, None if record.state.ended else "running", "FAILED", (pull_tag(REPOSITORY, 7),))
    return fakes


def retry(fakes: Fakes, body: str = "/train retry", author: str = "alice") -> tuple[str, str]:
    ended: Outcome = handle(comment_event(body, author, created_at="2024-05-06T15:00:00Z"), fakes.world)
    return ended.outputs["decision"], ended.outputs["reason-code"]


def new(fakes: Fakes) -> Iterator[RunRecord]:
    found = (parse_record(run.record) for run in fakes.cluster.runs.values())
    return (record for record in found if record.trigger == "comment:99")


def test_what_failed_runs_again_with_a_comment_of_its_own() -> None:
    fakes = world(("1111", FAILED, HEAD, "a=1"), ("2222", GOOD, HEAD, ""))
    assert retry(fakes) == ("run", "submitted")
    [record] = new(fakes)
    assert (record.overrides, record.attempt, record.retry_of, record.sha) == (("a=1",), 2, "1111" + "0" * 12, HEAD)
    assert len(fakes.forge.bodies) == 1
    # Delivered twice it is one run, although the newest of its kind is another one now.
    assert retry(fakes) == ("run", "submitted")
    assert len(list(new(fakes))) == 1


def test_a_failure_that_is_given_again_on_a_new_head_runs_that() -> None:
    fakes = world(("1111", FAILED, OTHER, "a=1"))
    assert retry(fakes) == ("run", "submitted")
    [record] = new(fakes)
    assert record.sha == HEAD


@pytest.mark.parametrize(
    ("rows", "body", "reason"),
    [
        ([], "/train retry", "nothing-failed"),
        ([("1111", GOOD, HEAD, "")], "/train retry", "nothing-failed"),
        ([("1111", FAILED, HEAD, "")], "/train retry abcd", "no-such-run"),
        ([("1111", GOING, HEAD, "")], "/train retry 1111", "no-such-run"),
        ([("1111", FAILED, HEAD, ""), ("1112", FAILED, HEAD, "a=1")], "/train retry 1111", "submitted"),
    ],
)
def test_what_there_is_to_retry(rows: list[tuple[str, State, str, str]], body: str, reason: str) -> None:
    assert retry(world(*rows), body)[1] == reason


def test_an_override_that_is_no_longer_allowed_stays_forbidden() -> None:
    fakes = world(("1111", FAILED, HEAD, "a=1"), policy=POLICY + "overrides: { deny: [a] }\n")
    assert retry(fakes) == ("denied", "override-not-allowed")


def test_of_several_all_or_none() -> None:
    fakes = world(("1111", FAILED, HEAD, "a=1"), ("2222", FAILED, HEAD, "b=1"), policy=POLICY + "overrides: { deny: [b] }\n")
    assert retry(fakes) == ("denied", "override-not-allowed")
    assert not list(new(fakes))


def test_no_more_than_one_command_may_start() -> None:
    rows = [(f"{number:04d}", FAILED, HEAD, f"a={number}") for number in range(3)]
    assert retry(world(*rows, policy=POLICY + "most: { runs: 2 }\n")) == ("denied", "too-many-runs")


@pytest.mark.parametrize(("sha", "expected"), [(HEAD, ("run", "submitted")), (OTHER, ("denied", "fork-needs-sha"))])
def test_of_a_fork_only_a_commit_that_has_run_before(sha: str, expected: tuple[str, str]) -> None:
    fakes = world(("1111", FAILED, sha, ""))
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], head_repository="bob/repo")
    assert retry(fakes) == expected
    assert retry(fakes, author="bob") == ("denied", "not-a-collaborator")


def test_above_the_threshold_a_retry_waits_too_and_remembers_what_it_repeats() -> None:
    fakes = world(("1111", FAILED, HEAD, ""), policy=POLICY + "approval: { nodes: 1 }\n")
    fakes.files["profiles/cluster.yaml"] += "nodes: 2\n"
    fakes.forge.roles["carol"] = "write"
    assert retry(fakes) == ("waiting", "waits-second")
    later = {"comment_id": 100, "created_at": "2024-05-06T16:00:00Z"}
    handle(comment_event(f"/train approve sha={HEAD}", "carol", **later), fakes.world)
    [record] = new(fakes)
    assert (record.retry_of, record.approved_by) == ("1111" + "0" * 12, "carol")


def test_delivered_again_after_it_has_failed_too_it_is_still_one_retry() -> None:
    fakes = world(("1111", FAILED, HEAD, "a=1"))
    retry(fakes)
    [record] = new(fakes)
    ended = record.model_copy(update={"state": State.FAILED})
    fakes.cluster.runs[record.run_key].record = ended.to_json()
    retry(fakes)
    assert len(list(new(fakes))) == 1
