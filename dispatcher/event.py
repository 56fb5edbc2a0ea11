"""A webhook payload, as GitHub hands it to the action → one of a few events, with only the fields that decide.

Each event's `trigger` names what caused it: GitHub delivering the same thing again gives the same trigger, and so the same run key.
Imports nothing heavy: most deliveries are comments that are no commands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from dispatcher.errors import InputError

# https://docs.github.com/en/webhooks/webhook-events-and-payloads#pull_request: what brings new commits or a new base to a pull request.
GATE_ACTIONS = frozenset({"opened", "reopened", "synchronize", "ready_for_review"})

_SHA = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_LOGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\[bot\])?")


@dataclass(frozen=True)
class CommentEvent:
    """A comment on an issue or a pull request; `author` is empty when the account is gone."""

    repository: str
    number: int
    is_pull: bool
    pull_state: str
    comment_id: int
    body: str
    author: str
    author_is_bot: bool
    action: str
    created_at: str
    comment_url: str
    default_branch: str
    line: int = 1
    """Which of the comment's commands is meant, where it has several."""

    @property
    def trigger(self) -> str:
        """The comment: whatever happens to it later, each of its commands asks once."""
        return f"comment:{self.comment_id}" if self.line == 1 else f"comment:{self.comment_id}:{self.line}"


@dataclass(frozen=True)
class LabelEvent:
    """A label was put on a pull request, by `sender`; the head is the one at that moment."""

    repository: str
    number: int
    label: str
    head_sha: str
    head_repository: str
    base_ref: str
    sender: str
    updated_at: str
    from_fork: bool
    default_branch: str
    event_name: str

    @property
    def trigger(self) -> str:
        """Putting the same label on again later asks again: `updated_at` tells the two apart."""
        return f"label:{self.number}:{self.label}:{self.head_sha}:{self.updated_at}"


@dataclass(frozen=True)
class ManualEvent:
    """`workflow_dispatch`, by hand or by API; `ref` is the branch or tag that was picked (`refs/heads/…`)."""

    repository: str
    inputs: Mapping[str, str]
    sender: str
    run_id: str
    ref: str
    default_branch: str

    @property
    def trigger(self) -> str:
        """The workflow run: running it again by GitHub's button asks for the same thing."""
        return f"manual:{self.run_id}"


@dataclass(frozen=True)
class ScheduleEvent:
    """A cron expression of the workflow fired. `repository` may be empty: GitHub promises no payload here."""

    repository: str
    cron: str
    run_id: str
    default_branch: str

    @property
    def trigger(self) -> str:
        """The workflow run that the schedule started."""
        return f"schedule:{self.cron}:{self.run_id}"


@dataclass(frozen=True)
class MergeGroupEvent:
    """The merge queue made a commit of its own and waits for checks on it."""

    repository: str
    head_sha: str
    head_ref: str
    base_ref: str
    base_sha: str
    default_branch: str

    @property
    def trigger(self) -> str:
        """The queue's commit."""
        return f"merge_group:{self.head_sha}"


@dataclass(frozen=True)
class PushEvent:
    """A pull request was opened, reopened, given new commits or another base: the gate is looked at again."""

    repository: str
    number: int
    head_sha: str
    before: str
    base_ref: str
    action: str
    default_branch: str
    head_repository: str
    from_fork: bool
    draft: bool
    sender: str

    @property
    def trigger(self) -> str:
        """The head that is to be judged, against its base."""
        return f"push:{self.number}:{self.head_sha}:{self.base_ref}"


@dataclass(frozen=True)
class ClosedEvent:
    """A pull request was closed, merged or not."""

    repository: str
    number: int
    merged: bool
    head_sha: str
    base_ref: str
    sender: str
    default_branch: str

    @property
    def trigger(self) -> str:
        """The closing of this head."""
        return f"closed:{self.number}:{self.head_sha}"


@dataclass(frozen=True)
class DraftEvent:
    """A pull request was converted to a draft."""

    repository: str
    number: int
    head_sha: str
    base_ref: str
    sender: str
    default_branch: str

    @property
    def trigger(self) -> str:
        """The conversion, at this head."""
        return f"draft:{self.number}:{self.head_sha}"


@dataclass(frozen=True)
class CheckEvent:
    """Somebody pressed "Re-run" or one of our buttons beside a check (`button` is its identifier, empty for "Re-run").

    `number` is None where GitHub names no pull request, as for forks. `app_slug` is the App that made the check.
    """

    repository: str
    check_id: int
    name: str
    external_id: str
    head_sha: str
    number: int | None
    button: str
    app_slug: str
    sender: str
    run_id: str
    default_branch: str

    @property
    def trigger(self) -> str:
        """The workflow run that the press of the button started: pressing it again asks again."""
        return f"check:{self.check_id}:{self.run_id}"


@dataclass(frozen=True)
class OtherEvent:
    """Anything that asks for nothing here."""

    name: str
    action: str

    @property
    def trigger(self) -> str:
        """The event's name and action."""
        return f"other:{self.name}:{self.action}"


Event = (
    CommentEvent
    | LabelEvent
    | ManualEvent
    | ScheduleEvent
    | MergeGroupEvent
    | PushEvent
    | ClosedEvent
    | DraftEvent
    | CheckEvent
    | OtherEvent
)


def parse_event(name: str, payload: Mapping[str, object], run_id: str = "") -> Event:
    """`GITHUB_EVENT_NAME`, the parsed event file and `GITHUB_RUN_ID` → the event.

    Raises `InputError` (`input.event`) when the payload lacks a field or a field has the wrong type or shape; nothing else.
    """
    if not isinstance(payload, Mapping):
        _refuse("event", "is not a JSON object")
    reader = _Reader(payload)
    if name == "issue_comment":
        return _comment(reader)
    if name in ("pull_request", "pull_request_target"):
        return _pull(reader, name)
    if name == "workflow_dispatch":
        return _manual(reader, _run_id(name, run_id))
    if name == "schedule":
        repository = reader.text("repository", "full_name", absent="")
        return ScheduleEvent(
            repository if not repository else reader.repository(),
            reader.line("schedule"),
            _run_id(name, run_id),
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


def _comment(reader: _Reader) -> CommentEvent:
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


def _pull(reader: _Reader, name: str) -> Event:
    """A `pull_request` or `pull_request_target` payload: by its action a label, a reason to look at the gate, an end, or nothing."""
    action = reader.action()
    rebased = action == "edited" and reader.find("changes", "base") is not None
    if action not in GATE_ACTIONS | {"labeled", "closed"} and not rebased:
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
    if action == "labeled":
        label, updated_at = reader.text("label", "name"), reader.line("pull_request", "updated_at")
        return LabelEvent(
            repository, number, label, head_sha, head_repository, base_ref, sender, updated_at, from_fork, default_branch, event_name=name
        )
    before = reader.text("before", absent="")
    draft = reader.flag("pull_request", "draft")
    return PushEvent(repository, number, head_sha, before, base_ref, action, default_branch, head_repository, from_fork, draft, sender)


def _manual(reader: _Reader, run_id: str) -> ManualEvent:
    """A `workflow_dispatch` payload; empty and absent inputs are left out, booleans and numbers become their JSON text."""
    given = reader.find("inputs")
    if not isinstance(given, Mapping | None):
        _refuse("inputs", "is not an object")
    inputs: dict[str, str] = {}
    for key, value in (given or {}).items():
        if not isinstance(value, str | bool | int | float | None) or not isinstance(key, str):
            _refuse("inputs", "holds something that is no text")
        written = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
        if written.strip():
            inputs[key] = written
    return ManualEvent(
        reader.repository(), inputs, reader.login("sender", "login"), run_id, reader.line("ref", absent=""), reader.default_branch()
    )


def _run_id(name: str, run_id: str) -> str:
    """The workflow run's id, without which two runs could not be told apart."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", run_id):
        raise InputError("input.event", f"A `{name}` event needs the workflow run's id, and `GITHUB_RUN_ID` holds none.")
    return run_id


def _refuse(where: str, what: str) -> NoReturn:
    raise InputError("input.event", f"The event's `{where}` {what}.")


_MISSING = object()


class _Reader:
    """Typed access to a payload: every method names the path it looked at when something else is there."""

    def __init__(self, payload: Mapping[str, object]) -> None:
        self._payload = payload

    def find(self, *path: str) -> object:
        """What stands at the path; None when any part of it is absent or null."""
        here: object = self._payload
        for key in path:
            if not isinstance(here, Mapping):
                return None
            here = here.get(key)
        return here

    def text(self, *path: str, absent: object = _MISSING) -> str:
        """A string; `absent` stands in for a missing or null one."""
        found = self.find(*path)
        if found is None and isinstance(absent, str):
            return absent
        if not isinstance(found, str):
            _refuse(".".join(path), "is missing" if found is None else "is not text")
        return found

    def line(self, *path: str, absent: object = _MISSING) -> str:
        """A string of at most 1,024 printing characters."""
        found = self.text(*path, absent=absent)
        if not found.isprintable() or len(found) > 1024:
            _refuse(".".join(path), "is not one short line")
        return found

    def positive(self, *path: str) -> int:
        """A whole number above zero."""
        found = self.find(*path)
        if isinstance(found, bool) or not isinstance(found, int) or found <= 0:
            _refuse(".".join(path), "is not a positive number")
        return found

    def flag(self, *path: str) -> bool:
        """True or false; absent is false."""
        found = self.find(*path)
        if not isinstance(found, bool | None):
            _refuse(".".join(path), "is neither true nor false")
        return bool(found)

    def sha(self, *path: str) -> str:
        """A full commit SHA."""
        found = self.text(*path)
        if not _SHA.fullmatch(found):
            _refuse(".".join(path), "is not a commit's full SHA")
        return found

    def branch(self, *path: str) -> str:
        """A branch name, without `refs/heads/`."""
        return self.line(*path).removeprefix("refs/heads/")

    def login(self, *path: str) -> str:
        """An account name; empty when the account is gone."""
        found = self.text(*path, absent="")
        if found and not _LOGIN.fullmatch(found):
            _refuse(".".join(path), "is not an account name")
        return found

    def repository(self) -> str:
        """`owner/name`."""
        found = self.text("repository", "full_name")
        if not _REPOSITORY.fullmatch(found):
            _refuse("repository.full_name", "is not `owner/name`")
        return found

    def default_branch(self) -> str:
        """The branch that policy and profiles are read from."""
        return self.line("repository", "default_branch")

    def action(self) -> str:
        """What happened; empty for events that have no action."""
        return self.line("action", absent="")
