"""What we send and what the stand-in knows × GitHub's own description of its API."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dispatcher.effects.github import GitHubForge
from dispatcher.effects.github_app import AppInstallation
from dispatcher.ports import Annotation, Button, Check, Label
from tests.fakes import FakeClock
from tests.github_model import App, Repository
from tests.github_openapi import description
from tests.github_routes import ROUTES
from tests.github_server import JOB_PERMISSIONS, GitHubServer

USED = {
    ("GET", "/repos/{owner}/{repo}/installation"),
    ("POST", "/app/installations/{installation_id}/access_tokens"),
    ("GET", "/orgs/{org}/teams/{team_slug}/memberships/{username}"),
    ("GET", "/repos/{owner}/{repo}/collaborators/{username}/permission"),
    ("GET", "/repos/{owner}/{repo}/commits/{ref}"),
    ("GET", "/repos/{owner}/{repo}/commits/{ref}/check-runs"),
    ("GET", "/repos/{owner}/{repo}/contents/{path}"),
    ("GET", "/repos/{owner}/{repo}/issues/{issue_number}/comments"),
    ("GET", "/repos/{owner}/{repo}/labels/{name}"),
    ("GET", "/repos/{owner}/{repo}/pulls"),
    ("GET", "/repos/{owner}/{repo}/pulls/{pull_number}"),
    ("GET", "/repos/{owner}/{repo}/pulls/{pull_number}/files"),
    ("GET", "/repos/{owner}/{repo}/check-runs/{check_run_id}"),
    ("POST", "/repos/{owner}/{repo}/check-runs"),
    ("POST", "/repos/{owner}/{repo}/issues/comments/{comment_id}/reactions"),
    ("POST", "/repos/{owner}/{repo}/issues/{issue_number}/comments"),
    ("POST", "/repos/{owner}/{repo}/issues/{issue_number}/labels"),
    ("POST", "/repos/{owner}/{repo}/labels"),
    ("PATCH", "/repos/{owner}/{repo}/check-runs/{check_run_id}"),
    ("PATCH", "/repos/{owner}/{repo}/issues/comments/{comment_id}"),
    ("PATCH", "/repos/{owner}/{repo}/labels/{name}"),
    ("DELETE", "/repos/{owner}/{repo}/issues/{issue_number}/labels/{name}"),
}
"""Every endpoint that dispatcher/effects/github.py and github_app.py call."""


def _call_everything(github: GitHubServer, repo: Repository) -> None:
    repo.commit("feature", {"a.py": "b"})
    pull = repo.open_pull("feature")
    key = generate_private_key(65537, 2048)
    pem = str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "ascii")
    public = str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "ascii")
    github.install(
        App(4711, "ours", "Ours", public), "org", {"contents": "read", "checks": "write", "pull_requests": "write", "members": "read"}
    )
    forge = GitHubForge(
        "org/repo", AppInstallation("4711", pem, "org/repo", github.api_url, FakeClock()), github.api_url, clock=FakeClock()
    )
    forge.pull(1)
    forge.role("alice")
    forge.team_member("org", "team", "alice")
    forge.commit_sha("main")
    forge.read_text("a.py", "feature")
    forge.list_files("", "main")
    forge.changed_files(1)
    forge.open_pulls_at(pull.head_sha)
    forge.react(pull.comment("/train").id, "eyes")
    forge.find_comment(1, "marker")
    forge.update_comment(forge.create_comment(1, "marker", "marker").id, "marker")
    check = Check("train", pull.head_sha, "k", "queued", None, "t", "s", "https://example.com", (Annotation("a.py", 1, "notice", "m"),))
    check = replace(check, text="{}", buttons=(Button("Cancel", "Ends the job", "cancel"),))
    forge.find_checks(pull.head_sha, "train")
    github.reset("PATCH", "check-runs", after_effect=True)
    forge.update_check(forge.create_check(check).id, check)
    forge.add_label(1, "train:cluster")
    forge.labelled("train:cluster")
    forge.remove_label(1, "train:cluster")
    github.reset("POST", "/repo/labels$")
    forge.create_label(Label("train:gpu", "0e8a16", "Trains"))
    forge.create_label(Label("train:gpu", "ffffff", "Trains more"))


def test_what_we_call_is_described(github: GitHubServer) -> None:
    _call_everything(github, github.create_repository("org/repo", {"README.md": "x"}))
    called = set()
    for request in github.requests:
        operation = description().operation(request.method, request.path)
        assert operation, request
        called.add((request.method, operation.path))
    assert called == USED
    assert all(
        "actions" in request.body for request in github.requests if request.method in ("POST", "PATCH") and "/check-runs" in request.path
    )


def test_the_documented_permissions_are_enough_and_none_is_too_many() -> None:
    needed: dict[str, str] = {}
    for route in ROUTES:
        if (route.method, route.path) in USED and route.needs and route.needs != ("members",):
            need = "pull-requests" if "pull-requests" in route.needs else route.needs[0]
            needed[need] = "write" if route.method != "GET" or needed.get(need) == "write" else "read"
    assert needed == JOB_PERMISSIONS


def test_every_route_of_the_stand_in_is_described() -> None:
    described = {(one.method, one.path) for one in description().operations}
    assert [(one.method, one.path) for one in ROUTES if (one.method, one.path) not in described] == []


COMMENTS = "/repos/o/r/issues/1/comments"
CHECKS = "/repos/o/r/check-runs"
OUTPUT = {"title": "t", "summary": "s"}


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "words"),
    [
        ("GET", COMMENTS, {"per_page": ["100"], "since": ["2024-01-02T03:04:05Z"]}, None, ""),
        ("GET", COMMENTS, {"per_pages": ["100"]}, None, "unknown query field per_pages"),
        ("GET", COMMENTS, {"per_page": ["many"]}, None, "is not of type 'integer'"),
        ("GET", COMMENTS, {}, {"body": "x"}, "a body where none belongs"),
        ("POST", COMMENTS, {}, {"body": "x"}, ""),
        ("POST", COMMENTS, {}, None, "no body where one is required"),
        ("POST", COMMENTS, {}, {"text": "x"}, "'body' is a required property"),
        ("POST", COMMENTS, {}, {"body": "x", "marker": "y"}, "unknown field marker"),
        ("POST", CHECKS, {}, {"name": "n", "head_sha": "s", "output": OUTPUT}, ""),
        ("POST", CHECKS, {}, {"name": "n", "head_sha": "s", "output": {**OUTPUT, "image": []}}, "body.output: unknown field image"),
        ("POST", CHECKS, {}, {"name": "n", "head_sha": "s", "status": "pending"}, "'pending' is not one of"),
        ("POST", CHECKS, {}, {"name": "n", "head_sha": "s", "output": {**OUTPUT, "annotations": [{}] * 51}}, "is too long"),
        ("POST", CHECKS, {}, {"name": "n", "head_sha": "s", "conclusion": None}, "None is not of type 'string'"),
        ("PATCH", f"{CHECKS}/1", {}, {"status": "completed", "conclusion": "success", "output": OUTPUT}, ""),
        ("PATCH", f"{CHECKS}/1", {}, {"head_sha": "s"}, "unknown field head_sha"),
    ],
)
def test_the_description_is_held_against_requests(method: str, path: str, query: dict[str, list[str]], body: Any, words: str) -> None:
    operation = description().operation(method, path)
    assert operation
    wrong = description().check_request(operation, query, body)
    assert any(words in one for one in wrong) if words else wrong == []


def test_a_violation_is_noticed(github: GitHubServer) -> None:
    github.create_repository("org/repo", {"README.md": "x"})
    for method, path, body in (
        ("GET", "/repos/org/repo/isues/1", None),
        ("GET", "/repos/org/repo/issues/1/comments?perpage=100", None),
        ("POST", "/repos/org/repo/check-runs", b'{"name": "n"}'),
    ):
        status, _headers, _answer = github.answer(method, path, f"Bearer {github.token}", body or b"")
        assert status in (400, 404)
    assert len(github.violations) == 3
    github.violations.clear()
