"""Reports → GitHub: what is there is found and brought up to date, what is not is made, and a run's comment is the run's."""

from __future__ import annotations

import pytest

from dispatcher.answer import RUN_MARK, Voice, marker
from dispatcher.authorise import Denial
from dispatcher.ports import Check, Comment
from dispatcher.publish import publish_answer, publish_check, publish_run
from dispatcher.record import RunRecord, Target
from dispatcher.refusals import denied
from dispatcher.report import Report, run_report
from dispatcher.slurm import State
from tests.fakes import HEAD, NOON, OTHER, REPOSITORY, Fakes, run_record

ANSWER = denied(Denial("role-too-low", "**You may not.**", "Ask."), "comment:99")


def report_of(record: RunRecord) -> Report:
    return run_report(record, "", NOON, Voice())


def check(sha: str = HEAD, external_id: str = "k", name: str = "c", status: str = "queued") -> Check:
    return Check(name, sha, external_id, status, None, "t", "s")  # type: ignore[arg-type]


# --------------------------------------------------------------------------- checks


def test_a_check_that_is_known_is_updated_without_looking() -> None:
    fakes = Fakes()
    known = fakes.forge.create_check(check())
    fakes.steps.clear()
    assert publish_check(fakes.forge, check(status="in_progress"), known.id).id == known.id
    assert fakes.steps == ["forge.update_check c in_progress"]


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (check(), True),
        (check(external_id="other"), False),
        (check(sha=OTHER), False),
        (check(name="other"), False),
    ],
)
def test_a_check_is_found_by_commit_name_and_run(there: Check, found: bool) -> None:
    fakes = Fakes()
    existing = fakes.forge.create_check(there)
    assert (publish_check(fakes.forge, check()).id == existing.id) == found
    assert len(fakes.forge.checks) == (1 if found else 2)


def test_the_newest_of_several() -> None:
    fakes = Fakes()
    _, newer = fakes.forge.create_check(check()), fakes.forge.create_check(check())
    assert publish_check(fakes.forge, check()).id == newer.id


def test_a_known_check_that_is_gone_is_made_again() -> None:
    fakes = Fakes()
    assert publish_check(fakes.forge, check(), known=5).id in fakes.forge.checks


def test_nothing_is_looked_for_where_nothing_can_be() -> None:
    fakes = Fakes()
    publish_check(fakes.forge, check(), look_first=False)
    publish_run(fakes.forge, run_record(), report_of(run_record()), look_first=False)
    assert not fakes.trace.of("forge.find")


# --------------------------------------------------------------------------- a run's comment


def test_made_then_found_then_known() -> None:
    fakes = Fakes()
    record = run_record()
    made = publish_run(fakes.forge, record, report_of(record))
    found = publish_run(fakes.forge, record, report_of(record))
    assert made == found
    fakes.steps.clear()
    known = publish_run(fakes.forge, made.record, report_of(made.record))
    assert known == made
    assert not fakes.trace.of("forge.find", "forge.create")
    assert (len(fakes.forge.comments), len(fakes.forge.checks)) == (1, 1)
    assert made.record.target.comment in fakes.forge.comments
    assert made.record.target.check in fakes.forge.checks


def test_a_comment_that_somebody_deleted_is_written_again() -> None:
    fakes = Fakes()
    made = publish_run(fakes.forge, run_record(), report_of(run_record()))
    fakes.forge.comments.clear()
    again = publish_run(fakes.forge, made.record, report_of(made.record))
    assert again.record.target.comment != made.record.target.comment
    assert again.record.target.comment in fakes.forge.comments


def test_a_refusal_of_the_same_command_becomes_the_runs_comment() -> None:
    fakes = Fakes()
    publish_answer(fakes.forge, ANSWER, 7, "comment:99", NOON, 99)
    publish_run(fakes.forge, run_record(), report_of(run_record()))
    [body] = fakes.forge.bodies
    assert RUN_MARK in body


@pytest.mark.parametrize(
    ("state", "command", "reactions"),
    [(State.RUNNING, 99, []), (State.SUCCEEDED, 99, [(99, "rocket")]), (State.FAILED, 99, [(99, "confused")]), (State.FAILED, None, [])],
)
def test_the_reaction_at_the_end(state: State, command: int | None, reactions: list[tuple[int, str]]) -> None:
    fakes = Fakes()
    record = run_record(state=state, target=Target(repository=REPOSITORY, pull=7, command_comment=command))
    publish_run(fakes.forge, record, report_of(record))
    assert fakes.forge.reactions == reactions


def test_without_a_pull_request_there_is_only_the_check() -> None:
    fakes = Fakes()
    record = run_record(target=Target(repository=REPOSITORY))
    published = publish_run(fakes.forge, record, report_of(record))
    assert published.comment_url == ""
    assert not fakes.forge.comments
    assert len(fakes.forge.checks) == 1


def test_each_command_has_a_comment_of_its_own() -> None:
    fakes = Fakes()
    for number in (98, 99, 100):
        record = run_record(trigger=f"comment:{number}", run_key=f"{number:016x}")
        publish_run(fakes.forge, record, report_of(record))
    assert len(fakes.forge.comments) == 3


# --------------------------------------------------------------------------- answers


def test_an_answer_is_one_comment() -> None:
    fakes = Fakes()
    first = publish_answer(fakes.forge, ANSWER, 7, "comment:99", NOON, 99)
    assert publish_answer(fakes.forge, ANSWER, 7, "comment:99", None, 99) == first
    assert len(fakes.forge.comments) == 1
    assert fakes.forge.reactions == [(99, "-1")] * len(fakes.forge.reactions)


def test_a_runs_comment_is_never_overwritten_by_a_later_refusal() -> None:
    fakes = Fakes()
    record = run_record()
    url = publish_run(fakes.forge, record, report_of(record)).comment_url
    assert publish_answer(fakes.forge, ANSWER, 7, "comment:99", NOON, 99) == url
    [body] = fakes.forge.bodies
    assert "job 100 is waiting" in body
    assert not fakes.forge.reactions


def test_words_that_look_like_a_runs_mark_protect_nothing() -> None:
    fakes = Fakes()
    fakes.forge.comments[1] = Comment(1, "https://u", f"`{RUN_MARK}x -->`\n\n{marker('comment:99')}")
    publish_answer(fakes.forge, ANSWER, 7, "comment:99", NOON, 99)
    assert "you may not" in fakes.forge.comments[1].body


def test_an_answer_that_was_deleted_in_between_is_written_again() -> None:
    fakes = Fakes()
    publish_answer(fakes.forge, ANSWER, 7, "comment:99", NOON, 99)
    fakes.trace.at["forge.update_comment"] = fakes.forge.comments.clear
    assert publish_answer(fakes.forge, ANSWER, 7, "comment:99", NOON, 99)
    assert len(fakes.forge.comments) == 1


def test_where_there_is_nobody_to_answer() -> None:
    fakes = Fakes()
    assert publish_answer(fakes.forge, ANSWER, None, "manual:5", None, None) == ""
    assert fakes.steps == []
