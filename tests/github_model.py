"""Repositories, pull requests, comments and checks as GitHub has them, as plain state over real bare git repositories.

What GitHub would answer about them is in github_server.py; this module is what tests set up and look at.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

GIT_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Alice",
    "GIT_AUTHOR_EMAIL": "alice@example.com",
    "GIT_COMMITTER_NAME": "Alice",
    "GIT_COMMITTER_EMAIL": "alice@example.com",
}
FORMAT = "%Y-%m-%dT%H:%M:%SZ"
PERMISSION_OF_ROLE = {"admin": "admin", "maintain": "write", "write": "write", "triage": "read", "read": "read"}


def now() -> str:
    """GitHub's way to write a time: whole seconds."""
    return datetime.now(timezone.utc).strftime(FORMAT)


def git(repository: Path, *arguments: str, stdin: bytes | None = None, check: bool = True) -> bytes:
    """What git prints; without `check` an empty answer stands for a failure."""
    done = subprocess.run(["git", "-C", str(repository), *arguments], input=stdin, capture_output=True, env=GIT_ENV, check=False)
    if done.returncode and check:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return b"" if done.returncode else done.stdout


@dataclass(frozen=True)
class File:
    """A tree entry that is not a plain file: mode 100755, 120000 (content is the target) or 160000 (content is a commit)."""

    mode: str
    content: str | bytes


Files = Mapping[str, "str | bytes | File | None"]


@dataclass(frozen=True)
class App:
    """A GitHub App: checks belong to one. `public_key` (PEM) verifies what it signs."""

    id: int
    slug: str
    name: str
    public_key: str = ""


ACTIONS = App(15368, "github-actions", "GitHub Actions")


@dataclass
class Token:
    """Who a token speaks for and what it may do; `repositories` None means all."""

    value: str
    login: str
    app: App | None
    permissions: dict[str, str]
    repositories: frozenset[str] | None = None
    expires_at: datetime | None = None
    is_app: bool = False
    """A JSON web token, which may do nothing but ask about the App and its installations."""


@dataclass
class Installation:
    """Where an App is installed: `permissions` as GitHub writes them (`pull_requests`), `repositories` None means all of the owner's."""

    id: int
    app: App
    owner: str
    permissions: dict[str, str]
    repositories: frozenset[str] | None = None
    suspended: bool = False

    def has(self, full_name: str) -> bool:
        """Whether it reaches a repository."""
        name = full_name.lower()
        return name.split("/")[0] == self.owner.lower() and (self.repositories is None or name in self.repositories)


@dataclass
class Comment:
    """A comment on a pull request or an issue; `reactions` are (login, content)."""

    id: int
    number: int
    author: str
    body: str
    created_at: str
    updated_at: str
    app: App | None = None
    reactions: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class RepositoryLabel:
    """A label that the repository has."""

    id: int
    name: str
    color: str = "ededed"
    description: str = ""


@dataclass
class CheckRun:
    """A check run; `history` has every (status, conclusion) it was in."""

    id: int
    app: App
    name: str
    head_sha: str
    external_id: str
    status: str
    conclusion: str | None
    details_url: str | None
    title: str | None
    summary: str | None
    text: str | None
    annotations: list[dict[str, Any]]
    started_at: str
    completed_at: str | None
    history: list[tuple[str, str | None]] = field(default_factory=list)
    actions: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Status:
    """A commit status."""

    id: int
    sha: str
    state: str
    context: str
    description: str | None
    target_url: str | None
    login: str
    created_at: str


@dataclass
class Issue:
    """An issue; a `Pull` is one too."""

    repository: Repository
    number: int
    id: int
    author: str
    title: str
    body: str
    created_at: str
    state: str = "open"
    closed_at: str | None = None
    labels: list[str] = field(default_factory=list)
    updated_at: str = ""

    def __post_init__(self) -> None:
        self.updated_at = self.created_at

    def touch(self) -> None:
        """Something happened; every time is a later second, so that a test need not wait for one."""
        before = datetime.strptime(self.updated_at, FORMAT) + timedelta(seconds=1)
        self.updated_at = max(now(), before.strftime(FORMAT))

    def comment(self, body: str, author: str = "alice") -> Comment:
        """Somebody writes a comment."""
        return self.repository.add_comment(self.number, author, body)

    @property
    def comments(self) -> list[Comment]:
        """All comments, oldest first."""
        return [one for one in self.repository.comments.values() if one.number == self.number]

    def add_label(self, name: str) -> None:
        """Sets a label."""
        if name not in self.labels:
            self.labels.append(name)
            self.touch()

    def remove_label(self, name: str) -> None:
        """Takes a label off."""
        self.labels.remove(name)
        self.touch()

    def close(self) -> None:
        """Closes it without merging."""
        self.state, self.closed_at = "closed", now()
        self.touch()


@dataclass
class Pull(Issue):
    """A pull request. `head_sha` follows its branch while it is open."""

    head_ref: str = ""
    head_sha: str = ""
    head_owner: str = ""
    head_repository: Repository | None = None
    base_ref: str = ""
    base_sha: str = ""
    draft: bool = False
    merge_sha: str | None = None

    def push(self, files: Files, message: str = "More") -> str:
        """A new commit on the head branch; its SHA."""
        assert self.head_repository is not None
        return self.head_repository.commit(self.head_ref, files, message)

    @property
    def from_fork(self) -> bool:
        """Whether the head is in another repository."""
        return self.head_repository is not self.repository


class Ids:
    """Ids that only ever grow, from where GitHub's might be.

    Each server begins elsewhere: a comment's id makes its run's key, by which jobs are found again on a Slurm that several tests share.
    """

    def __init__(self) -> None:
        self._last = random.randrange(1_600_000_000, 3_000_000_000)
        self._lock = threading.Lock()

    def next(self) -> int:
        """The next one."""
        with self._lock:
            self._last += 7
            return self._last


class Repository:
    """One repository: a bare git repository with refs/pull/N/head, and what people and bots did around it."""

    def __init__(self, ids: Ids, folder: Path, full_name: str, default_branch: str, private: bool) -> None:
        self.ids = ids
        self.id = ids.next()
        self.full_name = full_name
        self.default_branch = default_branch
        self.private = private
        self.parent: Repository | None = None
        self.git_dir = folder / f"{full_name}.git"
        self.issues: dict[int, Issue] = {}
        self.comments: dict[int, Comment] = {}
        self.checks: dict[int, CheckRun] = {}
        self.statuses: list[Status] = []
        self.roles: dict[str, tuple[str, str]] = {}
        self.labels: dict[str, RepositoryLabel] = {}
        self.required_checks: list[str] = []
        self.forks: list[Repository] = []
        self.created_at = now()
        self._said: dict[tuple[str, ...], bytes] = {}
        self.git_dir.parent.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "-q", "--bare", "--template=", f"--initial-branch={default_branch}", str(self.git_dir))
        # What GitHub allows when fetching: any commit it has, by its SHA, and partial clones.
        allowed = ("allowAnySHA1InWant", "allowReachableSHA1InWant", "allowTipSHA1InWant", "allowFilter")
        with (self.git_dir / "config").open("a") as config:
            config.write("[uploadpack]\n" + "".join(f"\t{key} = true\n" for key in allowed))

    @property
    def owner(self) -> str:
        """The part before the slash."""
        return self.full_name.split("/")[0]

    @property
    def name(self) -> str:
        """The part after the slash."""
        return self.full_name.split("/")[1]

    # ------------------------------------------------------------------- git

    def commit(self, branch: str, files: Files, message: str = "Change", base: str | None = None) -> str:
        """Commits on a branch (made from `base`, else the default branch); None deletes a path. Open pull requests follow. → SHA"""
        ref = f"refs/heads/{branch}"
        start = self.sha(ref) or self.sha(base or f"refs/heads/{self.default_branch}")
        stream = [b"feature done\nfeature get-mark\n", f"commit {ref}\nmark :1\n".encode()]
        stream.append(f"committer Alice <alice@example.com> {int(datetime.now(timezone.utc).timestamp())} +0000\n".encode())
        stream.append(_data(message.encode()))
        if start:
            stream.append(f"from {start}\n".encode())
        for path, content in files.items():
            entry = content if isinstance(content, File) else File("100644", content) if content is not None else None
            if entry is None:
                stream.append(f"D {_quoted(path)}\n".encode())
                continue
            blob = entry.content.encode() if isinstance(entry.content, str) else entry.content
            if entry.mode == "160000":
                stream.append(f"M 160000 {blob.decode()} {_quoted(path)}\n".encode())
            else:
                stream.append(f"M {entry.mode} inline {_quoted(path)}\n".encode() + _data(blob))
        stream.append(b"\nget-mark :1\ndone\n")
        sha = git(self.git_dir, "fast-import", "--quiet", "--force", "--cat-blob-fd=1", stdin=b"".join(stream)).decode().split()[0]
        self._follow(branch)
        return sha

    def set_branch(self, branch: str, sha: str) -> None:
        """Moves a branch to a commit, as a force-push does."""
        git(self.git_dir, "update-ref", f"refs/heads/{branch}", sha)
        self._follow(branch)

    def delete_branch(self, branch: str) -> None:
        """Deletes a branch; pull requests keep their last head."""
        git(self.git_dir, "update-ref", "-d", f"refs/heads/{branch}")

    def _follow(self, branch: str) -> None:
        """Brings open pull requests to the new head of their branch."""
        for base in (self, *([self.parent] if self.parent else [])):
            for pull in base.pulls:
                if pull.state == "open" and pull.head_repository is self and pull.head_ref == branch:
                    base.take_head(pull)

    def take_head(self, pull: Pull) -> None:
        """Copies the head's objects here and moves refs/pull/N/head."""
        assert pull.head_repository is not None
        pull.head_sha = pull.head_repository.sha(f"refs/heads/{pull.head_ref}")
        if pull.from_fork:
            git(self.git_dir, "fetch", "-q", "--no-tags", str(pull.head_repository.git_dir), f"refs/heads/{pull.head_ref}")
        git(self.git_dir, "update-ref", f"refs/pull/{pull.number}/head", pull.head_sha)
        pull.touch()

    def sha(self, ref: str) -> str:
        """The commit that a ref, branch, tag or SHA names; empty when there is none."""
        if "\n" in ref:
            return ""
        asked = "".join(f"{start}{ref}^{{commit}}\n" for start in ("", "refs/heads/", "refs/tags/")).encode()
        lines = git(self.git_dir, "cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=asked).decode().splitlines()
        return next((line.split()[0] for line in lines if line.endswith(" commit")), "")

    def git(self, *arguments: str) -> str:
        """What git prints about this repository."""
        return git(self.git_dir, *arguments).decode()

    def of_objects(self, *arguments: str, check: bool = True) -> bytes:
        """What git prints about objects that are named by their SHA: it cannot change, so git is asked once."""
        if not self._said.get(arguments):
            self._said[arguments] = git(self.git_dir, *arguments, check=check)
        return self._said[arguments]

    # ------------------------------------------------------------------- people

    def add_collaborator(self, login: str, role: str = "write", permission: str | None = None) -> None:
        """Gives a role; a custom role needs the `permission` it is based on."""
        self.roles[login.lower()] = (role, permission or PERMISSION_OF_ROLE[role])

    # ------------------------------------------------------------------- issues and pull requests

    @property
    def pulls(self) -> list[Pull]:
        """All pull requests."""
        return [one for one in self.issues.values() if isinstance(one, Pull)]

    def open_issue(self, title: str = "An issue", author: str = "alice", body: str = "") -> Issue:
        """An issue that is no pull request."""
        issue = Issue(self, len(self.issues) + 1, self.ids.next(), author, title, body, now())
        self.issues[issue.number] = issue
        return issue

    def open_pull(
        self,
        head: str,
        author: str = "alice",
        fork: str | None = None,
        base: str | None = None,
        title: str = "A change",
        draft: bool = False,
    ) -> Pull:
        """A pull request from a branch of this repository, or of its fork `owner/name`."""
        source = self if fork is None else next(one for one in self.forks if one.full_name == fork)
        base_ref = base or self.default_branch
        pull = Pull(self, len(self.issues) + 1, self.ids.next(), author, title, "", now())
        pull.head_ref, pull.head_owner, pull.head_repository = head, source.owner, source
        pull.base_ref, pull.base_sha, pull.draft = base_ref, self.sha(f"refs/heads/{base_ref}"), draft
        assert source.sha(f"refs/heads/{head}"), f"there is no branch {head} in {source.full_name}"
        self.issues[pull.number] = pull
        self.take_head(pull)
        return pull

    def add_comment(self, number: int, author: str, body: str, app: App | None = None) -> Comment:
        """A comment on issue or pull request `number`."""
        comment = Comment(self.ids.next(), number, author, body, now(), now(), app)
        self.comments[comment.id] = comment
        return comment

    def queue(self, pull: Pull) -> str:
        """Puts a pull request into the merge queue; the SHA that the queue made (base and head merged)."""
        assert pull.head_sha
        branch = f"gh-readonly-queue/{pull.base_ref}/pr-{pull.number}-{pull.base_sha}"
        return self.merged(pull, f"refs/heads/{branch}", f"Merge pull request #{pull.number}")

    def merged(self, pull: Pull, ref: str, message: str) -> str:
        """Makes the merge commit of a pull request and points a ref to it."""
        base = self.sha(f"refs/heads/{pull.base_ref}")
        tree = self.git("merge-tree", "--write-tree", base, pull.head_sha).split()[0]
        sha = self.git("commit-tree", tree, "-p", base, "-p", pull.head_sha, "-m", message).strip()
        git(self.git_dir, "update-ref", ref, sha)
        return sha

    def label(self, name: str) -> RepositoryLabel:
        """A label, made when first seen; their names are the same in capitals and in small letters."""
        return self.labels.setdefault(name.lower(), RepositoryLabel(self.ids.next(), name))

    # ------------------------------------------------------------------- checks

    def checks_on(self, sha: str, name: str | None = None) -> list[CheckRun]:
        """Check runs on a commit, oldest first."""
        return [one for one in self.checks.values() if one.head_sha == sha and name in (None, one.name)]

    def unmet_checks(self, sha: str) -> list[str]:
        """Required checks that have not succeeded on a commit: what keeps GitHub from merging."""
        unmet = []
        for name in self.required_checks:
            runs = self.checks_on(sha, name)
            statuses = [one for one in self.statuses if one.sha == sha and one.context == name]
            passed = (runs and runs[-1].conclusion in ("success", "neutral", "skipped")) or (statuses and statuses[-1].state == "success")
            if not passed:
                unmet.append(name)
        return unmet


def _data(content: bytes) -> bytes:
    return f"data {len(content)}\n".encode() + content + b"\n"


def _quoted(path: str) -> str:
    """A path as fast-import reads it."""
    if not any(letter in path for letter in '"\n\\'):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
