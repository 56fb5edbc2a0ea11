"""A report → GitHub: the run's one comment and one check are found again or made, then brought to the wanted words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dispatcher.answer import RUN_MARK, Answer, marker
from dispatcher.errors import ForgeError
from dispatcher.ports import Check, CheckRef, Forge
from dispatcher.record import RunRecord
from dispatcher.report import Report

# GitHub's clock and ours may differ; a comment of ours about an event cannot be older than the event by more than this.
_SLACK = timedelta(minutes=2)


@dataclass(frozen=True)
class Published:
    """The record with the ids of what now exists, and the comment's address."""

    record: RunRecord
    comment_url: str = ""


def publish_run(forge: Forge, record: RunRecord, report: Report, look_first: bool = True, with_comment: bool = True) -> Published:
    """Brings comment, check and reaction to what the report says.

    `look_first` is False only where nothing can exist yet, because this process has just won the run's lock. Without `with_comment`
    the comment, which several runs share, has its words already.
    """
    check = publish_check(forge, report.check, record.target.check, look_first)
    record = record.model_copy(update={"target": record.target.model_copy(update={"check": check.id})})
    if record.target.pull is None or not with_comment:
        return Published(record)
    comment = forge.update_comment(record.target.comment, report.comment) if record.target.comment else None
    mark = marker(record.trigger)
    if comment is None:
        found = forge.find_comment(record.target.pull, mark, since=record.asked_at - _SLACK) if look_first else None
        comment = forge.update_comment(found.id, report.comment) if found else None
    if comment is None:
        comment = forge.create_comment(record.target.pull, report.comment, mark)
    if report.reaction and record.target.command_comment:
        forge.react(record.target.command_comment, report.reaction)
    return Published(record.model_copy(update={"target": record.target.model_copy(update={"comment": comment.id})}), comment.url)


def publish_check(forge: Forge, check: Check, known: int | None = None, look_first: bool = True) -> CheckRef:
    """Brings a check to the wanted state: the known one, else our own one with the same external id, else a new one.

    GitHub adds annotations to those that are there: where an end is said again, because whoever said it has died, they stay as they are.

    Raises `ForgeError` (`github.not-found`) where GitHub lists a check and yet does not find it: a second one would help nobody.
    """
    if check.annotations and (look_first or known):
        there = [item for item in forge.find_checks(check.sha, check.name) if item.external_id == check.external_id]
        check = replace(check, annotations=()) if any(item.annotations for item in there) else check
    updated = forge.update_check(known, check) if known else None
    if updated:
        return updated
    if look_first or known:
        for existing in forge.find_checks(check.sha, check.name):
            if existing.external_id == check.external_id:
                updated = forge.update_check(existing.id, check)
                if updated is None:
                    raise ForgeError("github.not-found", f"GitHub lists check {existing.id}, but does not find it.")
                return updated
    return forge.create_check(check)


def publish_answer(forge: Forge, answer: Answer, pull: int | None, trigger: str, since: datetime | None, comment_id: int | None) -> str:
    """Says that nothing was started, in the command's one comment; returns its address, empty where there is nobody to answer."""
    url = ""
    if pull is not None:
        mark = marker(trigger)
        found = forge.find_comment(pull, mark, since=since - _SLACK if since else None)
        if found and any(line.startswith(RUN_MARK) for line in found.body.splitlines()):
            return found.url
        written = forge.update_comment(found.id, answer.comment) if found else None
        url = (written or forge.create_comment(pull, answer.comment, mark)).url
    if comment_id is not None and answer.reaction is not None:
        forge.react(comment_id, answer.reaction)
    return url
