"""What can happen that concerns the dispatcher: one frozen dataclass for each kind of event, with only the fields that decide.

Each event's `trigger` names what caused it: GitHub delivering the same thing again gives the same trigger, and so the same run key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
    of_a_push: bool = False
    """The label stood there before; `sender` has pushed the head, and not set it."""

    @property
    def trigger(self) -> str:
        """Putting the same label on again later asks again: `updated_at` tells the two apart."""
        return f"label:{self.number}:{self.label}:{self.head_sha}:{self.updated_at}"


@dataclass(frozen=True)
class ManualEvent:
    """`workflow_dispatch`, by hand or by API, or `repository_dispatch`, whose inputs are its `client_payload`.

    `ref` is the branch or tag that was picked (`refs/heads/…`); `repository_dispatch` always runs on the default branch.
    """

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
    labels: tuple[str, ...] = ()
    """What stands on the pull request now."""

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
