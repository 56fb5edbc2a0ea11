"""A webhook payload, as GitHub hands it to the action → one of a few events (`dispatcher/event_types.py`).

Imports nothing heavy: most deliveries are comments that are no commands.
"""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.event_types import (
    CheckEvent,
    ClosedEvent,
    CommentEvent,
    DraftEvent,
    Event,
    LabelEvent,
    ManualEvent,
    MergeGroupEvent,
    OtherEvent,
    PushEvent,
    ScheduleEvent,
)
from dispatcher.payload import Reader, refuse, workflow_run

__all__ = [
    "CheckEvent",
    "ClosedEvent",
    "CommentEvent",
    "DraftEvent",
    "Event",
    "LabelEvent",
    "ManualEvent",
    "MergeGroupEvent",
    "OtherEvent",
    "PushEvent",
    "ScheduleEvent",
    "parse_event",
]

# https://docs.github.com/en/webhooks/webhook-events-and-payloads#pull_request: what brings new commits or a new base to a pull request.
GATE_ACTIONS = frozenset({"opened", "reopened", "synchronize", "ready_for_review"})
LABELS = 100
"""How many of a pull request's labels are looked at; GitHub allows no more."""


def parse_event(name: str, payload: Mapping[str, object], run_id: str = "") -> Event:
    """`GITHUB_EVENT_NAME`, the parsed event file and `GITHUB_RUN_ID` → the event.

    Raises `InputError` (`input.event`) when the payload lacks a field or a field has the wrong type or shape; nothing else.
    """
    if not isinstance(payload, Mapping):
        refuse("event", "is not a JSON object")
    reader = Reader(payload)
    if name == "issue_comment":
        return _comment(reader)
    if name in ("pull_request", "pull_request_target"):
        return _pull(reader, name)
    if name == "workflow_dispatch":
        return _manual(reader, "inputs", workflow_run(name, run_id), reader.line("ref", absent=""))
    if name == "repository_dispatch":
        branch = reader.line("branch", absent="") or reader.default_branch()
        return _manual(reader, "client_payload", workflow_run(name, run_id), f"refs/heads/{branch}")
    if name == "check_run" and reader.action() in ("rerequested", "requested_action"):
        return _check(reader, workflow_run(name, run_id))
    if name == "schedule":
        repository = reader.text("repository", "full_name", absent="")
        return ScheduleEvent(
            repository if not repository else reader.repository(),
            reader.line("schedule"),
            workflow_run(name, run_id),
            reader.line("repository", "default_branch", absent=""),
        )
    if name == "merge_group" and reader.action() == "checks_requested":
        return MergeGroupEvent(
            reader.repository(),
            reader.sha("merge_group", "head_sha"),
            reader.line("merge_group", "head_ref"),
            reader.branch("merge_group", "base_ref"),
            reader.sha("merge_group", "base_sha"),
            reader.default_branch(),
        )
    return OtherEvent(name, reader.action())


def _comment(reader: Reader) -> CommentEvent:
    """An `issue_comment` payload; https://docs.github.com/en/webhooks/webhook-events-and-payloads#issue_comment."""
    author = reader.login("comment", "user", "login")
    return CommentEvent(
        repository=reader.repository(),
        number=reader.positive("issue", "number"),
        is_pull=reader.find("issue", "pull_request") is not None,
        pull_state=reader.line("issue", "state"),
        comment_id=reader.positive("comment", "id"),
        body=reader.text("comment", "body", absent=""),
        author=author,
        author_is_bot=reader.text("comment", "user", "type", absent="") == "Bot" or author.endswith("[bot]"),
        action=reader.action(),
        created_at=reader.line("comment", "created_at"),
        comment_url=reader.line("comment", "html_url", absent=""),
        default_branch=reader.default_branch(),
    )


def _pull(reader: Reader, name: str) -> Event:
    """A `pull_request` or `pull_request_target` payload: by its action a label, a reason to look at the gate, an end, or nothing."""
    action = reader.action()
    rebased = action == "edited" and reader.find("changes", "base") is not None
    if action not in GATE_ACTIONS | {"labeled", "unlabeled", "closed", "converted_to_draft"} and not rebased:
        return OtherEvent(name, action)
    repository = reader.repository()
    number = reader.positive("pull_request", "number")
    head_sha = reader.sha("pull_request", "head", "sha")
    head_repository = reader.text("pull_request", "head", "repo", "full_name", absent="")
    base_ref = reader.line("pull_request", "base", "ref")
    sender = reader.login("sender", "login")
    default_branch = reader.default_branch()
    # A deleted fork has no repository any more: whatever cannot be shown to be ours is a fork.
    from_fork = head_repository != repository
    if action == "closed":
        return ClosedEvent(repository, number, reader.flag("pull_request", "merged"), head_sha, base_ref, sender, default_branch)
    if action == "converted_to_draft":
        return DraftEvent(repository, number, head_sha, base_ref, sender, default_branch)
    if action == "labeled":
        label, updated_at = reader.text("label", "name"), reader.line("pull_request", "updated_at")
        return LabelEvent(
            repository, number, label, head_sha, head_repository, base_ref, sender, updated_at, from_fork, default_branch, event_name=name
        )
    before = reader.text("before", absent="")
    draft = reader.flag("pull_request", "draft")
    labels = tuple(one.text("name") for one in reader.items("pull_request", "labels"))[:LABELS]
    return PushEvent(
        repository, number, head_sha, before, base_ref, action, default_branch, head_repository, from_fork, draft, sender, labels
    )


def _manual(reader: Reader, where: str, run_id: str, ref: str) -> ManualEvent:
    """`workflow_dispatch` and `repository_dispatch`: empty and absent inputs are left out, booleans and numbers become their JSON text."""
    given = reader.find(where)
    if not isinstance(given, Mapping | None):
        refuse(where, "is not an object")
    inputs: dict[str, str] = {}
    for key, value in (given or {}).items():
        if not isinstance(value, str | bool | int | float | None) or not isinstance(key, str):
            refuse(where, "holds something that is no text")
        written = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
        if written.strip():
            inputs[key] = written
    return ManualEvent(reader.repository(), inputs, reader.login("sender", "login"), run_id, ref, reader.default_branch())


def _check(reader: Reader, run_id: str) -> CheckEvent:
    """A `check_run` payload whose button was pressed; https://docs.github.com/en/webhooks/webhook-events-and-payloads#check_run.

    GitHub names the pull requests whose head the commit is, and among them may be some of other repositories.
    """
    ours = reader.find("repository", "id")
    numbers = [one.positive("number") for one in reader.items("check_run", "pull_requests") if one.find("base", "repo", "id") == ours]
    return CheckEvent(
        repository=reader.repository(),
        check_id=reader.positive("check_run", "id"),
        name=reader.text("check_run", "name"),
        external_id=reader.text("check_run", "external_id", absent=""),
        head_sha=reader.sha("check_run", "head_sha"),
        number=numbers[0] if numbers and ours is not None else None,
        button=reader.line("requested_action", "identifier", absent="") if reader.action() == "requested_action" else "",
        app_slug=reader.line("check_run", "app", "slug", absent=""),
        sender=reader.login("sender", "login"),
        run_id=run_id,
        default_branch=reader.default_branch(),
    )
