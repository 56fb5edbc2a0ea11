"""GitHub's part in the demo: a `Forge` in memory for one pull request of a git repository."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from dispatcher.ports import Check, CheckRef, Comment, Label, PullRequest, Reaction


@dataclass
class DemoForge:
    """The `Forge` port for one pull request, in memory; files are read from the git repository."""

    pull_request: PullRequest
    folder: Path
    base: str
    comments: dict[int, str] = field(default_factory=dict)
    checks: dict[int, Check] = field(default_factory=dict)
    requests: int = 0

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def pull(self, number: int) -> PullRequest | None:
        """The one there is."""
        return self.pull_request if number == self.pull_request.number else None

    def role(self, login: str) -> str | None:
        """Everybody who is you is an admin."""
        return "admin" if login == "you" else None

    def team_member(self, org: str, team: str, login: str) -> bool:
        """There are no teams."""
        return False

    def commit_sha(self, ref: str) -> str | None:
        """As git has it."""
        return self._git("rev-parse", ref)

    def default_branch(self) -> str:
        """The demo's own."""
        return "main"

    def merge_base(self, base: str, head: str) -> str | None:
        """Nothing is compared with it here."""
        return None

    def read_text(self, path: str, ref: str) -> str | None:
        """A file of a commit."""
        done = subprocess.run(["git", "-C", str(self.folder), "show", f"{ref}:{path}"], capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def list_files(self, path: str, ref: str) -> tuple[str, ...]:
        """Names in a folder of a commit."""
        return tuple(Path(name).name for name in self._git("ls-tree", "--name-only", ref, f"{path}/").splitlines())

    def changed_files(self, number: int) -> tuple[str, ...]:
        """As git has it."""
        return tuple(self._git("diff", "--name-only", f"{self.base}...{self.pull_request.head_sha}").splitlines())

    def open_pulls_at(self, sha: str) -> tuple[PullRequest, ...]:
        """The one there is."""
        return (self.pull_request,) if sha == self.pull_request.head_sha else ()

    def react(self, comment_id: int, content: Reaction) -> bool:
        """Nobody sees it here."""
        return True

    def find_comment(self, number: int, marker: str, since: datetime | None = None) -> Comment | None:
        """By its marker."""
        return next((Comment(key, "", body) for key, body in self.comments.items() if marker in body), None)

    def create_comment(self, number: int, body: str, marker: str) -> Comment:
        """Kept."""
        key = len(self.comments) + 1
        self.comments[key] = body
        return Comment(key, "", body)

    def update_comment(self, comment_id: int, body: str) -> Comment | None:
        """Replaced."""
        self.comments[comment_id] = body
        return Comment(comment_id, "", body)

    def find_checks(self, sha: str, name: str | None = None) -> tuple[CheckRef, ...]:
        """On this commit."""
        return tuple(_ref(key, check) for key, check in self.checks.items() if check.sha == sha and name in (None, check.name))

    def create_check(self, check: Check) -> CheckRef:
        """Kept."""
        key = len(self.checks) + 1
        self.checks[key] = check
        return _ref(key, check)

    def update_check(self, check_id: int, check: Check) -> CheckRef | None:
        """Replaced."""
        self.checks[check_id] = check
        return _ref(check_id, check)

    def add_label(self, number: int, label: str) -> None:
        """There are no labels."""

    def remove_label(self, number: int, label: str) -> None:
        """There are no labels."""

    def create_label(self, label: Label) -> bool:
        """There are no labels."""
        return False

    def labelled(self, label: str) -> tuple[int, ...]:
        """There are no labels."""
        return ()


def _ref(key: int, check: Check) -> CheckRef:
    return CheckRef(key, "", check.external_id, check.status, check.conclusion, check.name, check.text)
