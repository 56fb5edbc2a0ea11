"""GitHub, for one repository: the facts it has, the words we leave there, and the port `Forge`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol


@dataclass(frozen=True)
class PullRequest:
    """The facts about a pull request that decide; `head_repository` is empty when the fork was deleted."""

    number: int
    state: Literal["open", "closed"]
    draft: bool
    head_sha: str
    head_ref: str
    head_repository: str
    base_ref: str
    base_sha: str
    base_repository: str
    author: str
    labels: tuple[str, ...] = ()

    @property
    def from_fork(self) -> bool:
        """Whether the head is in another repository, whose pushes nobody here has vouched for."""
        return self.head_repository != self.base_repository


@dataclass(frozen=True)
class Comment:
    """A comment of ours, found again or just written."""

    id: int
    url: str
    body: str


@dataclass(frozen=True)
class Annotation:
    """A message on a line of a file, shown beside the check."""

    path: str
    line: int
    level: Literal["notice", "warning", "failure"]
    message: str


@dataclass(frozen=True)
class Button:
    """A button beside a check, shown only for a GitHub App's checks; pressing it gives `check_run` / `requested_action`.

    GitHub's limits: https://docs.github.com/rest/checks/runs#create-a-check-run (`actions`: at most 3; label 20, description 40,
    identifier 20 characters).
    """

    label: str
    description: str
    identifier: str


@dataclass(frozen=True)
class Label:
    """A label of the repository: its name, six hex digits of colour, at most 100 characters of description."""

    name: str
    color: str
    description: str


Conclusion = Literal["success", "failure", "neutral", "cancelled", "timed_out", "action_required", "skipped"]


@dataclass(frozen=True)
class Check:
    """The whole wanted state of a check run; `conclusion` is None while it is pending."""

    name: str
    sha: str
    external_id: str
    status: Literal["queued", "in_progress", "completed"]
    conclusion: Conclusion | None
    title: str
    summary: str
    details_url: str | None = None
    annotations: tuple[Annotation, ...] = ()
    text: str = ""
    """More, below the summary: what the dispatcher wants to read again itself stands here (`CheckRef.text`)."""
    buttons: tuple[Button, ...] = ()


@dataclass(frozen=True)
class CheckRef:
    """A check run that exists and that our identity made."""

    id: int
    url: str
    external_id: str
    status: str
    conclusion: str | None
    name: str = ""
    text: str = ""
    annotations: int = 0
    """How many it has."""


Reaction = Literal["eyes", "rocket", "hooray", "confused", "-1", "+1"]


class Forge(Protocol):
    """GitHub, for one repository. Raises `ForgeError` with a `github.*` code; a lookup that GitHub answers with 404 gives None.

    Reads are retried on 5xx, resets and rate limits within a bounded time; a write is repeated only after looking whether
    the first one took effect.
    """

    @property
    def requests(self) -> int:
        """How many requests were sent so far."""

    def pull(self, number: int) -> PullRequest | None:
        """The pull request as it is now."""

    def role(self, login: str) -> str | None:
        """`role_name` on this repository (admin, maintain, write, triage, read, or a custom name); None when not a collaborator."""

    def team_member(self, org: str, team: str, login: str) -> bool:
        """Whether `login` is an active member; False also when the team does not exist or cannot be seen."""

    def commit_sha(self, ref: str) -> str | None:
        """The full SHA that a branch, tag or SHA of this repository names."""

    def default_branch(self) -> str:
        """The name of the branch whose policy counts."""

    def merge_base(self, base: str, head: str) -> str | None:
        """The commit at which `head` (a full SHA) left the branch `base`; None when they have none, or one of them is not there."""

    def read_text(self, path: str, ref: str) -> str | None:
        """The text of a file at a ref; None when it is not there."""

    def list_files(self, path: str, ref: str) -> tuple[str, ...]:
        """Names of the files directly in a folder at a ref; empty when there is no such folder."""

    def changed_files(self, number: int) -> tuple[str, ...]:
        """Every path that the pull request touches (GitHub lists at most 3,000)."""

    def open_pulls_at(self, sha: str) -> tuple[PullRequest, ...]:
        """The open pull requests whose head is exactly this commit, forks' too, all pages."""

    def react(self, comment_id: int, content: Reaction) -> bool:
        """Adds our reaction to a comment → whether it was not there yet; adding the same one again changes nothing."""

    def find_comment(self, number: int, marker: str, since: datetime | None = None) -> Comment | None:
        """Our own comment on the pull request that contains `marker`; every page is read; others' comments never count."""

    def create_comment(self, number: int, body: str, marker: str) -> Comment:
        """Writes a comment that contains `marker`; after an unclear answer it looks for the marker before writing again."""

    def update_comment(self, comment_id: int, body: str) -> Comment | None:
        """Replaces the body; None when somebody deleted the comment."""

    def find_checks(self, sha: str, name: str | None = None) -> tuple[CheckRef, ...]:
        """Check runs on a commit that our own identity made, newest first, all pages."""

    def create_check(self, check: Check) -> CheckRef:
        """Makes a check run; after an unclear answer it looks for the same `external_id` before making another."""

    def update_check(self, check_id: int, check: Check) -> CheckRef | None:
        """Brings a check run to the wanted state; None when it no longer exists. More than 50 annotations go in several requests."""

    def add_label(self, number: int, label: str) -> None:
        """Puts a label on; GitHub makes one that does not exist yet. Once more changes nothing."""

    def remove_label(self, number: int, label: str) -> None:
        """Takes a label off; no error when it is gone already."""

    def create_label(self, label: Label) -> bool:
        """Makes a label of the repository, or brings an existing one to this colour and description → whether it is new."""

    def labelled(self, label: str) -> tuple[int, ...]:
        """The numbers of the open pull requests that have a label, all pages."""
