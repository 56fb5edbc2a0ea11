"""The stand-in GitHub itself: git over HTTP, events that belong to its state, limits that it enforces."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from dispatcher.event import CheckEvent, DraftEvent, parse_event
from tests.github_model import GIT_ENV, CheckRun, File, Pull, Repository
from tests.github_server import GitHubServer


@pytest.fixture
def repo(github: GitHubServer) -> Repository:
    return github.create_repository("org/repo", {"train.py": "print(1)\n", "tools/run": File("100755", "#!/bin/sh\n")})


@pytest.fixture
def pull(repo: Repository) -> Pull:
    repo.commit("feature", {"train.py": "print(2)\n"})
    return repo.open_pull("feature", author="alice")


def _call(github: GitHubServer, method: str, path: str, body: Any = None, token: str | None = None) -> requests.Response:
    headers = {"Authorization": f"Bearer {token or github.token}"}
    return requests.request(method, github.api_url + path, json=body, headers=headers, timeout=10)


def _fetch(github: GitHubServer, folder: Path, what: str, token: str | None, *options: str) -> subprocess.CompletedProcess[bytes]:
    subprocess.run(["git", "init", "-q", str(folder)], check=True, env=GIT_ENV)
    url = f"{github.url}/org/repo"
    if token:
        url = url.replace("://", f"://x-access-token:{token}@")
    command = ["git", "-C", str(folder), "fetch", "-q", *options, url, what]
    return subprocess.run(command, capture_output=True, env={**GIT_ENV, "GIT_TERMINAL_PROMPT": "0"}, check=False)


# --------------------------------------------------------------------------- git


def test_a_commit_is_fetched_by_its_sha(github: GitHubServer, repo: Repository, pull: Pull, tmp_path: Path) -> None:
    fork = github.fork(repo, "bob/repo")
    fork.commit("mine", {"train.py": "print('bob')\n"})
    theirs = repo.open_pull("mine", author="bob", fork="bob/repo")
    for number, wanted in enumerate((pull.head_sha, theirs.head_sha)):
        done = _fetch(github, tmp_path / str(number), wanted, github.token, "--depth=1", "--filter=blob:none")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / str(number) / ".git" / "FETCH_HEAD").read_text().startswith(wanted)
    assert _fetch(github, tmp_path / "ref", f"refs/pull/{theirs.number}/head", github.token).returncode == 0
    gone = pull.head_sha
    repo.set_branch("feature", repo.sha("main"))
    assert _fetch(github, tmp_path / "gone", gone, github.token).returncode == 0, "GitHub still has what was force-pushed away"


def test_git_wants_a_token(github: GitHubServer, repo: Repository, tmp_path: Path) -> None:
    for number, token in enumerate((None, "ghs_wrong", github.add_token("ghs_poor", permissions={"checks": "write"}))):
        assert _fetch(github, tmp_path / str(number), repo.sha("main"), token).returncode != 0


def test_nobody_pushes(github: GitHubServer, repo: Repository, tmp_path: Path) -> None:
    assert _fetch(github, tmp_path, "main", github.token).returncode == 0
    url = f"{github.url}/org/repo".replace("://", f"://x-access-token:{github.token}@")
    pushed = subprocess.run(
        ["git", "-C", str(tmp_path), "push", "-q", url, "FETCH_HEAD:refs/heads/x"], capture_output=True, env=GIT_ENV, check=False
    )
    assert pushed.returncode != 0
    assert not repo.sha("x")


# --------------------------------------------------------------------------- events


def _everything(github: GitHubServer, repo: Repository, pull: Pull) -> dict[str, dict[str, Any]]:
    comment = pull.comment("/train profile=cluster", author="bob")
    return {
        "issue_comment": github.comment_event(pull, comment),
        "pull_request_target": github.labeled_event(pull, "train:cluster", sender="carol"),
        "pull_request": github.pull_request_event(pull, "synchronize"),
        "workflow_dispatch": github.workflow_dispatch_event(repo, {"profile": "cluster"}),
        "merge_group": github.merge_group_event(pull),
        "schedule": github.schedule_event(repo),
        "repository_dispatch": github.repository_dispatch_event(repo, {"profile": "cluster"}, sender="carol"),
        "check_run": github.check_run_event(repo, _check_with_a_button(github, repo, pull), "cancel", sender="carol"),
    }


def _check_with_a_button(github: GitHubServer, repo: Repository, pull: Pull) -> CheckRun:
    output = {"title": "t", "summary": "s"}
    button = {"label": "Cancel", "description": "Ends the job", "identifier": "cancel"}
    body = {"name": "train", "head_sha": pull.head_sha, "external_id": "k", "output": output, "actions": [button]}
    return repo.checks[_call(github, "POST", "/repos/org/repo/check-runs", body).json()["id"]]


def test_events_belong_to_the_stand_in(github: GitHubServer, repo: Repository, pull: Pull) -> None:
    for name, payload in _everything(github, repo, pull).items():
        text = json.dumps({**payload, "installation": None})
        assert payload["repository"]["full_name"] == "org/repo", name
        assert payload["repository"]["id"] == repo.id
        assert "api.github.com" not in text
        assert "//github.com" not in text
        assert not re.search(r"(Codertocat|octo-org|Hello-World|octo-repo)/", text)


def test_events_say_what_happened(github: GitHubServer, repo: Repository, pull: Pull) -> None:
    events = _everything(github, repo, pull)
    comment = events["issue_comment"]
    assert comment["comment"]["body"] == "/train profile=cluster"
    assert comment["comment"]["user"]["login"] == comment["sender"]["login"] == "bob"
    assert comment["issue"]["number"] == pull.number
    assert comment["issue"]["pull_request"]["url"] == f"{github.api_url}/repos/org/repo/pulls/{pull.number}"
    assert comment["comment"] == {
        **comment["comment"],
        **_call(github, "GET", f"/repos/org/repo/issues/comments/{comment['comment']['id']}").json(),
    }
    labeled = events["pull_request_target"]
    assert (labeled["action"], labeled["label"]["name"], labeled["sender"]["login"]) == ("labeled", "train:cluster", "carol")
    assert labeled["pull_request"]["head"]["sha"] == pull.head_sha
    assert labeled["pull_request"]["base"]["repo"]["full_name"] == "org/repo"
    assert events["merge_group"]["merge_group"]["head_sha"] == repo.sha(f"gh-readonly-queue/main/pr-1-{pull.base_sha}")
    assert events["workflow_dispatch"]["inputs"] == {"profile": "cluster"}


def test_events_can_be_read(github: GitHubServer, repo: Repository, pull: Pull) -> None:
    for name, payload in _everything(github, repo, pull).items():
        event = parse_event(name, payload, run_id="77")
        assert type(event).__name__ != "OtherEvent", name
    draft = parse_event("pull_request", github.pull_request_event(pull, "converted_to_draft"))
    assert isinstance(draft, DraftEvent)
    assert draft.head_sha == pull.head_sha
    closed = github.pull_request_event(pull, "closed")
    assert closed["pull_request"]["state"] == "open"
    pull.close()
    assert github.pull_request_event(pull, "closed")["pull_request"]["state"] == "closed"


def test_a_button_belongs_to_its_check_and_pull_request(github: GitHubServer, repo: Repository, pull: Pull) -> None:
    check = _check_with_a_button(github, repo, pull)
    pressed = parse_event("check_run", github.check_run_event(repo, check, "cancel", sender="carol"), "77")
    assert isinstance(pressed, CheckEvent)
    assert (pressed.check_id, pressed.number, pressed.button) == (check.id, pull.number, "cancel")
    assert (pressed.app_slug, pressed.sender, pressed.external_id) == ("github-actions", "carol", "k")
    again = parse_event("check_run", github.check_run_event(repo, check), "77")
    assert isinstance(again, CheckEvent)
    assert again.button == ""
    fork = github.fork(repo, "bob/repo")
    fork.commit("mine", {"x": "y"})
    theirs = repo.open_pull("mine", author="bob", fork="bob/repo")
    body = {"name": "train", "head_sha": theirs.head_sha, "output": {"title": "t", "summary": "s"}}
    made = repo.checks[_call(github, "POST", "/repos/org/repo/check-runs", body).json()["id"]]
    of_fork = parse_event("check_run", github.check_run_event(repo, made), "77")
    assert isinstance(of_fork, CheckEvent)
    assert of_fork.number is None


def test_a_comment_on_a_plain_issue_has_no_pull_request(github: GitHubServer, repo: Repository) -> None:
    issue = repo.open_issue()
    assert "pull_request" not in github.comment_event(issue, issue.comment("/train"))["issue"]


def test_a_label_set_again_is_another_moment(github: GitHubServer, pull: Pull) -> None:
    first = github.labeled_event(pull, "train:cluster")
    pull.remove_label("train:cluster")
    second = github.labeled_event(pull, "train:cluster")
    assert first["pull_request"]["updated_at"] < second["pull_request"]["updated_at"]


# --------------------------------------------------------------------------- what GitHub enforces


def test_limits_are_enforced(github: GitHubServer, pull: Pull) -> None:
    comments = "/repos/org/repo/issues/1/comments"
    assert _call(github, "POST", comments, {"body": "ü" * 65_536}).status_code == 201
    assert _call(github, "POST", comments, {"body": "x" * 65_537}).status_code == 422
    made = next(iter(pull.comments))
    assert _call(github, "PATCH", f"/repos/org/repo/issues/comments/{made.id}", {"body": "x" * 65_537}).status_code == 422
    check: dict[str, Any] = {"name": "n", "head_sha": pull.head_sha, "output": {"title": "t", "summary": "ü" * 32_767}}
    assert _call(github, "POST", "/repos/org/repo/check-runs", check).status_code == 201
    check["output"]["summary"] = "ü" * 32_768
    assert _call(github, "POST", "/repos/org/repo/check-runs", check).status_code == 422
    check["output"] = {
        "title": "t",
        "summary": "s",
        "annotations": [{"path": "a", "start_line": 1, "end_line": 1, "annotation_level": "notice", "message": "m"}] * 51,
    }
    assert _call(github, "POST", "/repos/org/repo/check-runs", check).status_code == 400
    assert len(github.violations) == 1
    github.violations.clear()
    github.add_token("ghp_person", "alice", app=None, permissions={"checks": "write"})
    check["output"] = {"title": "t", "summary": "s"}
    assert _call(github, "POST", "/repos/org/repo/check-runs", check, token="ghp_person").status_code == 403


def test_thirty_a_page_and_never_more_than_a_hundred(github: GitHubServer, pull: Pull) -> None:
    for number in range(130):
        pull.comment(str(number))
    for query, length, last in (("", 30, 5), ("?per_page=100", 100, 2), ("?per_page=500", 100, 2)):
        answer = _call(github, "GET", f"/repos/org/repo/issues/1/comments{query}")
        assert len(answer.json()) == length
        assert f"page={last}" in answer.links["last"]["url"]
        assert answer.headers["X-RateLimit-Limit"] == "1000"


def test_tokens_see_and_do_what_they_may(github: GitHubServer, repo: Repository, pull: Pull) -> None:
    github.create_repository("org/other", {"a": "b"})
    narrow = github.add_token("ghs_narrow", repositories=frozenset({"org/other"}), permissions={"pull-requests": "read"})
    assert _call(github, "GET", "/repos/org/repo/pulls/1", token=narrow).status_code == 404
    assert _call(github, "GET", "/repos/org/repo/pulls/1", token="ghs_wrong").status_code == 401
    reader = github.add_token("ghs_reader", permissions={"pull-requests": "read"})
    assert _call(github, "GET", "/repos/org/repo/pulls/1", token=reader).status_code == 200
    assert _call(github, "POST", "/repos/org/repo/issues/1/comments", {"body": "x"}, token=reader).status_code == 403


def test_the_merge_is_blocked_until_the_required_check_has_passed(github: GitHubServer, repo: Repository, pull: Pull) -> None:
    repo.required_checks.append("dispatch/gate")
    merger = github.add_token("ghp_alice", "alice", app=None, permissions={"contents": "write", "pull-requests": "read"})
    merge = "/repos/org/repo/pulls/1/merge"
    assert _call(github, "GET", "/repos/org/repo/pulls/1").json()["mergeable_state"] == "blocked"
    assert _call(github, "PUT", merge, {}, token=merger).status_code == 405
    output = {"title": "t", "summary": "s"}
    made = _call(
        github,
        "POST",
        "/repos/org/repo/check-runs",
        {"name": "dispatch/gate", "head_sha": pull.head_sha, "status": "queued", "output": output},
    )
    assert _call(github, "PUT", merge, {}, token=merger).status_code == 405
    _call(github, "PATCH", f"/repos/org/repo/check-runs/{made.json()['id']}", {"status": "completed", "conclusion": "success"})
    assert _call(github, "GET", "/repos/org/repo/rules/branches/main").status_code == 200
    assert _call(github, "PUT", merge, {"sha": "0" * 40}, token=merger).status_code == 409
    assert _call(github, "PUT", merge, {}, token=merger).json()["merged"]
    assert "print(2)" in repo.git("show", "main:train.py")


def test_every_get_route_answers_as_described(github: GitHubServer, repo: Repository, pull: Pull) -> None:
    comment = pull.comment("hello")
    pull.add_label("bug")
    _call(github, "POST", f"/repos/org/repo/issues/comments/{comment.id}/reactions", {"content": "eyes"})
    note = {"path": "a", "start_line": 1, "end_line": 1, "annotation_level": "notice", "message": "m"}
    output = {"title": "t", "summary": "s", "annotations": [note]}
    check = _call(github, "POST", "/repos/org/repo/check-runs", {"name": "n", "head_sha": pull.head_sha, "output": output}).json()
    writer = github.add_token("ghs_all", permissions=dict.fromkeys(("contents", "checks", "issues", "statuses", "pull-requests"), "write"))
    base = "/repos/org/repo"
    made = _call(github, "POST", f"{base}/statuses/{pull.head_sha}", {"state": "success", "context": "ci"}, token=writer)
    assert made.status_code == 201
    assert _call(github, "POST", f"{base}/issues/1/labels", {"labels": ["more"]}, token=writer).status_code == 200
    for path in (
        "",
        "/pulls",
        "/pulls/1",
        "/pulls/1/files",
        "/issues/1",
        "/issues/1/comments",
        f"/issues/comments/{comment.id}",
        f"/issues/comments/{comment.id}/reactions",
        "/issues/1/labels",
        "/labels/bug",
        "/commits/main",
        "/commits/main/status",
        f"/commits/{pull.head_sha}/statuses",
        f"/commits/{pull.head_sha}/check-runs",
        f"/check-runs/{check['id']}",
        f"/check-runs/{check['id']}/annotations",
        "/contents/",
        "/contents/tools/run",
        "/collaborators/alice/permission",
        "/rules/branches/main",
    ):
        assert _call(github, "GET", base + path, token=writer).status_code == 200, path
    assert _call(github, "GET", "/rate_limit").status_code == 200
    assert _call(github, "DELETE", f"{base}/issues/comments/{comment.id}", token=writer).status_code == 204
