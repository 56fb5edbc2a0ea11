"""The stand-in's state → the webhook payloads that GitHub would send about it, made from real ones.

Every real payload in data/events keeps its shape; what the stand-in knows better (ids, names, SHAs, addresses) replaces
what stands there, and what is left of the original repository's addresses points to the stand-in.
"""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import github_routes as look
from tests.github_model import CheckRun, Comment, Issue, Pull, Repository

if TYPE_CHECKING:
    from tests.github_server import GitHubServer

EVENTS = Path(__file__).parent / "data" / "events"


class Events:
    """The part of the stand-in that tells what happened."""

    def comment_event(self: Any, issue: Issue, comment: Comment, action: str = "created", sender: str | None = None) -> dict[str, Any]:
        """`issue_comment`: somebody commented on a pull request or an issue."""
        payload = _payload("issue_comment.created.4.json", self, issue.repository, sender or comment.author)
        payload["action"] = action
        if action == "edited":
            payload["changes"] = {"body": {"from": "what stood there before"}}
        payload["issue"].pop("assignee"), payload["issue"].update(assignees=[], milestone=None, assignee=None)
        _take(payload["issue"], look.issue(self, issue), also=("pull_request", "draft"))
        _take(payload["comment"], look.comment(self, issue.repository, comment))
        return payload

    def pull_request_event(self: Any, pull: Pull, action: str, sender: str | None = None, before: str | None = None) -> dict[str, Any]:
        """`pull_request` and `pull_request_target`: opened, reopened, synchronize, closed, …; `before` is the head before a push."""
        name = "pull_request.closed.1.json" if action == "closed" else "pull_request.synchronize.0.json"
        payload = _payload(name, self, pull.repository, sender or pull.author)
        payload["action"], payload["number"] = action, pull.number
        if action == "synchronize":
            payload["before"], payload["after"] = before or pull.base_sha, pull.head_sha
        else:
            payload.pop("before", None), payload.pop("after", None)
        _take_pull(payload, self, pull)
        return payload

    def labeled_event(self: Any, pull: Pull, label: str, sender: str | None = None, action: str = "labeled") -> dict[str, Any]:
        """`pull_request` and `pull_request_target` labeled (or unlabeled)."""
        if action == "labeled":
            pull.add_label(label)
        payload = _payload("pull_request.labeled.1.json", self, pull.repository, sender or pull.author)
        payload["action"], payload["number"] = action, pull.number
        payload["label"] = look.label(self, pull.repository, label)
        _take_pull(payload, self, pull)
        return payload

    def workflow_dispatch_event(
        self: Any, repo: Repository, inputs: dict[str, str] | None = None, sender: str = "alice", ref: str | None = None
    ) -> dict[str, Any]:
        """`workflow_dispatch` with its inputs."""
        payload = _payload("workflow_dispatch.1.json", self, repo, sender)
        payload["inputs"] = inputs or {}
        payload["ref"] = ref or f"refs/heads/{repo.default_branch}"
        payload["workflow"] = ".github/workflows/train.yml"
        return payload

    def repository_dispatch_event(
        self: Any, repo: Repository, client_payload: dict[str, Any] | None = None, sender: str = "alice", event_type: str = "train"
    ) -> dict[str, Any]:
        """`repository_dispatch`: a program asked for something, by the API."""
        payload = _payload("repository_dispatch.1.json", self, repo, sender)
        payload.update(action=event_type, branch=repo.default_branch, client_payload=client_payload or {})
        return payload

    def check_run_event(self: Any, repo: Repository, check: CheckRun, button: str = "", sender: str = "alice") -> dict[str, Any]:
        """`check_run`: somebody pressed one of a check's buttons, or (without one) "Re-run"."""
        assert not button or button in [one["identifier"] for one in check.actions], f"the check has no button {button}"
        payload = _payload("check_run.requested_action.json", self, repo, sender)
        payload["check_run"] = look.check(self, repo, check)
        payload["action"] = "requested_action" if button else "rerequested"
        payload["requested_action"] = {"identifier": button}
        if not button:
            del payload["requested_action"]
        return payload

    def merge_group_event(self: Any, pull: Pull, sha: str | None = None, action: str = "checks_requested") -> dict[str, Any]:
        """`merge_group`: the queue made a commit (`Repository.queue`) and wants its checks."""
        repo = pull.repository
        sha = sha or repo.queue(pull)
        payload = _payload("merge_group.checks_requested.1.json", self, repo, pull.author)
        group = payload["merge_group"]
        base = repo.sha(f"refs/heads/{pull.base_ref}")
        group.update(head_sha=sha, head_ref=f"refs/heads/gh-readonly-queue/{pull.base_ref}/pr-{pull.number}-{pull.base_sha}")
        group.update(base_sha=base, base_ref=f"refs/heads/{pull.base_ref}")
        group["head_commit"].update(id=sha, tree_id=repo.git("rev-parse", f"{sha}^{{tree}}").strip())
        group["head_commit"]["message"] = f"Merge pull request #{pull.number} from {pull.head_owner}/{pull.head_ref}"
        payload["action"] = action
        return payload

    def schedule_event(self: Any, repo: Repository, cron: str = "17 3 * * *") -> dict[str, Any]:
        """`schedule`: no more than which line of the workflow fired, and where."""
        return {"schedule": cron, "workflow": ".github/workflows/train.yml", "repository": look.repository(self, repo)}


@cache
def _read(name: str) -> str:
    return (EVENTS / name).read_text()


def _payload(name: str, server: GitHubServer, repo: Repository, sender: str) -> dict[str, Any]:
    """A real payload, moved to a repository of the stand-in."""
    text = _read(name)
    original = json.loads(text)
    owner, called = original["repository"]["full_name"].split("/")
    for old, new in (
        (f"/{owner}/{called}", f"/{repo.full_name}"),
        ("https://api.github.com", server.api_url),
        ("https://github.com", server.url),
        (owner, repo.owner),
        (original.get("organization", {}).get("login", owner), repo.owner),
    ):
        text = text.replace(old, new)
    payload: dict[str, Any] = json.loads(text)
    _take(payload["repository"], look.repository(server, repo))
    payload["sender"] = look.user(server, sender)
    if "organization" in payload:
        payload["organization"].update(login=repo.owner, id=server.user_id(repo.owner), url=f"{server.api_url}/orgs/{repo.owner}")
    return payload


def _take(into: dict[str, Any], known: dict[str, Any], also: tuple[str, ...] = ()) -> None:
    """Replaces every field of the payload that is known, at every depth; adds those named in `also`."""
    for name, value in known.items():
        if name in also or (
            name in into and not (isinstance(into[name], dict) and isinstance(value, dict) and name not in ("user", "repo", "owner"))
        ):
            into[name] = deepcopy(value)
        elif name in into:
            _take(into[name], value)


def _take_pull(payload: dict[str, Any], server: GitHubServer, pull: Pull) -> None:
    remote = payload["pull_request"]
    remote.update(assignee=None, assignees=[], requested_reviewers=[], requested_teams=[], milestone=None)
    _take(remote, look.pull(server, pull))
