"""A command and the event that brought it → which lookups the decision takes; and what they answered, as `Facts`.

A lookup that GitHub did not answer is a no. `author_association` and dates of commits are never looked at: one is wrong for members
whose membership is private, the other is set by whoever pushes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from typing_extensions import assert_never

from dispatcher.event import CheckEvent, CommentEvent, LabelEvent, ManualEvent, MergeGroupEvent, PushEvent, ScheduleEvent
from dispatcher.grammar import Run
from dispatcher.policy import Policy
from dispatcher.ports import PullRequest
from dispatcher.verbs import AcceptBaseline, Approve, Cancel, Help, Logs, Retry, Status, Waive

AskedBy = CommentEvent | LabelEvent | ManualEvent | ScheduleEvent | MergeGroupEvent | CheckEvent | PushEvent
"""The events that can carry a command which needs to be allowed. A push does by a standing label; its actor is who pushed."""

Asked = Run | Cancel | Status | Help | Logs | Retry | Approve | Waive | AcceptBaseline
"""The commands that need to be allowed; a sweep is decided by its runs, one by one."""

Via = Literal["comment", "label", "manual", "schedule", "merge_group", "button"]


@dataclass(frozen=True)
class Facts:
    """What was looked up for one command. Whatever GitHub did not answer is None or missing, and then counts as a no.

    `head_sha` is what the wanted branch or tag names now (schedules, manual runs without a pull request).
    """

    actor: str
    role: str | None = None
    teams: frozenset[str] = frozenset()
    pull: PullRequest | None = None
    head_sha: str | None = None
    holds_key: bool = False
    """At a terminal: whoever holds the cluster's key needs nobody's leave to use it. What `deny` says still counts."""


@dataclass(frozen=True)
class Needed:
    """Which lookups a decision takes; what is None or empty need not be asked."""

    actor: str | None
    pull: int | None
    ref: str | None
    role: bool


def needed_facts(command: Asked, event: AskedBy) -> Needed:
    """The lookups for a command: the actor's role, the pull request, the branch or tag."""
    match event:
        case CommentEvent():
            return Needed(event.author, event.number, None, role=True)
        case LabelEvent() | PushEvent() | CheckEvent():
            return Needed(event.sender, event.number, None, role=True)
        case ManualEvent():
            pull = command.pull if isinstance(command, Run) else None
            ref = (command.ref if isinstance(command, Run) else None) or short_ref(event.ref) or event.default_branch
            return Needed(event.sender, pull, None if pull else ref, role=True)
        case ScheduleEvent():
            wanted = command.ref if isinstance(command, Run) else None
            return Needed(None, None, wanted or event.default_branch, role=False)
        case MergeGroupEvent():
            return Needed(None, None, None, role=False)
        case _:
            assert_never(event)


def via_of(event: AskedBy) -> Via:
    """The way in."""
    match event:
        case CommentEvent():
            return "comment"
        case LabelEvent() | PushEvent():
            return "label"
        case ManualEvent():
            return "manual"
        case ScheduleEvent():
            return "schedule"
        case MergeGroupEvent():
            return "merge_group"
        case CheckEvent():
            return "button"
        case _:
            assert_never(event)


def profile_name(command: Asked, policy: Policy) -> str:
    """The profile that is asked for; empty for commands that run nothing."""
    return (command.profile or policy.default_profile or "") if isinstance(command, Run) else ""


def recipe_name(command: Asked, policy: Policy) -> str:
    """The recipe that is asked for; empty for commands that run nothing."""
    return (command.recipe or policy.default_recipe or "") if isinstance(command, Run) else ""


def short_ref(ref: str) -> str:
    """`refs/heads/main` → `main`."""
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
