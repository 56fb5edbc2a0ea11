"""One call of GitHub's API × the state → its answer: one function per endpoint, and how each thing looks as JSON."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from tests.github_model import CheckRun, Comment, Issue, Pull, Repository, RepositoryLabel, Status, Token, now
from tests.github_openapi import WHEN, description

if TYPE_CHECKING:
    from tests.github_server import GitHubServer

Answer = tuple[int, Any]
DOCS = "https://docs.github.com/rest"


class Refused(Exception):
    """An answer of 400 and more."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = {"message": message, "documentation_url": DOCS, "status": str(status), **more}


@dataclass
class Call:
    """A request that was understood: whose it is, and to which repository."""

    server: GitHubServer
    token: Token
    parts: dict[str, str]
    query: dict[str, list[str]]
    body: Any
    url: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def repo(self) -> Repository:
        """The repository in the address."""
        return self.server.repositories[f"{self.parts['owner']}/{self.parts['repo']}".lower()]

    def asked(self, name: str, default: str = "") -> str:
        """One query field."""
        return self.query.get(name, [default])[0]

    def page(self, items: list[Any]) -> list[Any]:
        """One page of a list, 30 long unless asked otherwise and never longer than 100, with GitHub's Link header."""
        size = min(max(int(self.asked("per_page", "30")), 1), 100)
        number = max(int(self.asked("page", "1")), 1)
        last = max(-(-len(items) // size), 1)
        links = []
        for rel, target in (("prev", number - 1), ("next", number + 1), ("last", last), ("first", 1)):
            if (rel in ("next", "last") and number < last) or (rel in ("prev", "first") and number > 1):
                query = {**{name: values[0] for name, values in self.query.items()}, "page": target}
                links.append(f'<{self.url}?{urlencode(query)}>; rel="{rel}"')
        if links:
            self.headers["Link"] = ", ".join(links)
        return items[(number - 1) * size : number * size]


@dataclass(frozen=True)
class Route:
    """An endpoint: `needs` are the permissions one of which the token must have (read for GET, write otherwise)."""

    method: str
    path: str
    needs: tuple[str, ...]
    answer: Callable[[Call], Answer]
    by_app: bool = False
    """Only for an App itself, by what it signed."""


ROUTES: list[Route] = []
TALK = ("issues", "pull-requests")


def route(method: str, path: str, *needs: str, by_app: bool = False) -> Callable[[Callable[[Call], Answer]], Callable[[Call], Answer]]:
    """Registers an endpoint."""

    def register(answer: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
        ROUTES.append(Route(method, path, needs, answer, by_app))
        return answer

    return register


# --------------------------------------------------------------------------- how things look


def user(server: GitHubServer, login: str) -> dict[str, Any]:
    """A simple-user."""
    url = f"{server.api_url}/users/{login}"
    known = {
        "login": login,
        "id": server.user_id(login),
        "node_id": f"U_{server.user_id(login)}",
        "avatar_url": f"{server.url}/avatars/{server.user_id(login)}",
        "gravatar_id": "",
        "url": url,
        "html_url": f"{server.url}/apps/{login[:-5]}" if login.endswith("[bot]") else f"{server.url}/{login}",
        "type": "Bot" if login.endswith("[bot]") else "User",
        "site_admin": False,
    }
    return description().fill("simple-user", known, url)


def app(server: GitHubServer, one: Any) -> dict[str, Any]:
    """An integration."""
    known = {
        "id": one.id,
        "slug": one.slug,
        "node_id": f"A_{one.id}",
        "owner": user(server, "github"),
        "name": one.name,
        "description": "",
        "external_url": server.url,
        "html_url": f"{server.url}/apps/{one.slug}",
        "created_at": WHEN,
        "updated_at": WHEN,
        "permissions": {},
        "events": [],
    }
    return description().fill("nullable-integration", known, server.url)


def repository(server: GitHubServer, repo: Repository, schema: str = "repository") -> dict[str, Any]:
    """A repository, a full-repository or a minimal-repository."""
    url = f"{server.api_url}/repos/{repo.full_name}"
    html = f"{server.url}/{repo.full_name}"
    known: dict[str, Any] = {
        "id": repo.id,
        "node_id": f"R_{repo.id}",
        "name": repo.name,
        "full_name": repo.full_name,
        "private": repo.private,
        "visibility": "private" if repo.private else "public",
        "owner": user(server, repo.owner),
        "html_url": html,
        "url": url,
        "fork": repo.parent is not None,
        "clone_url": f"{html}.git",
        "git_url": f"{html}.git",
        "ssh_url": f"git@localhost:{repo.full_name}.git",
        "svn_url": html,
        "default_branch": repo.default_branch,
        "created_at": repo.created_at,
        "updated_at": repo.created_at,
        "pushed_at": repo.created_at,
        "has_issues": True,
        "contents_url": f"{url}/contents/{{+path}}",
        "issues_url": f"{url}/issues{{/number}}",
        "pulls_url": f"{url}/pulls{{/number}}",
        "issue_comment_url": f"{url}/issues/comments{{/number}}",
        "commits_url": f"{url}/commits{{/sha}}",
        "statuses_url": f"{url}/statuses/{{sha}}",
        "labels_url": f"{url}/labels{{/name}}",
    }
    return description().fill(schema, known, url)


def label(server: GitHubServer, repo: Repository, name: str) -> dict[str, Any]:
    """A label; made when first seen."""
    one = repo.label(name)
    return {
        "id": one.id,
        "node_id": f"L_{one.id}",
        "url": f"{server.api_url}/repos/{repo.full_name}/labels/{quote(one.name, safe='')}",
        "name": one.name,
        "color": one.color,
        "default": False,
        "description": one.description,
    }


def association(repo: Repository, login: str) -> str:
    """author_association, as unreliable as GitHub's own."""
    return "OWNER" if login == repo.owner else "COLLABORATOR" if login.lower() in repo.roles else "NONE"


def comment(server: GitHubServer, repo: Repository, one: Comment) -> dict[str, Any]:
    """An issue-comment."""
    url = f"{server.api_url}/repos/{repo.full_name}/issues/comments/{one.id}"
    kind = "pull" if isinstance(repo.issues.get(one.number), Pull) else "issues"
    known = {
        "id": one.id,
        "node_id": f"IC_{one.id}",
        "url": url,
        "html_url": f"{server.url}/{repo.full_name}/{kind}/{one.number}#issuecomment-{one.id}",
        "issue_url": f"{server.api_url}/repos/{repo.full_name}/issues/{one.number}",
        "user": user(server, one.author),
        "author_association": association(repo, one.author),
        "body": one.body,
        "created_at": one.created_at,
        "updated_at": one.updated_at,
        "performed_via_github_app": app(server, one.app) if one.app else None,
    }
    return description().fill("issue-comment", known, url)


def issue(server: GitHubServer, one: Issue) -> dict[str, Any]:
    """An issue, with `pull_request` if it is one."""
    repo = one.repository
    url = f"{server.api_url}/repos/{repo.full_name}/issues/{one.number}"
    html = f"{server.url}/{repo.full_name}/{'pull' if isinstance(one, Pull) else 'issues'}/{one.number}"
    known: dict[str, Any] = {
        "id": one.id,
        "node_id": f"I_{one.id}",
        "number": one.number,
        "title": one.title,
        "body": one.body,
        "state": one.state,
        "user": user(server, one.author),
        "labels": [label(server, repo, name) for name in one.labels],
        "comments": len(one.comments),
        "created_at": one.created_at,
        "updated_at": one.updated_at,
        "closed_at": one.closed_at,
        "author_association": association(repo, one.author),
        "url": url,
        "html_url": html,
        "repository_url": f"{server.api_url}/repos/{repo.full_name}",
        "comments_url": f"{url}/comments",
        "events_url": f"{url}/events",
        "labels_url": f"{url}/labels{{/name}}",
        "assignees": [],
    }
    if isinstance(one, Pull):
        pull_url = f"{server.api_url}/repos/{repo.full_name}/pulls/{one.number}"
        known["draft"] = one.draft
        known["pull_request"] = {
            "url": pull_url,
            "html_url": html,
            "diff_url": f"{html}.diff",
            "patch_url": f"{html}.patch",
            "merged_at": None,
        }
    return description().fill("issue", known, url)


def pull(server: GitHubServer, one: Pull) -> dict[str, Any]:
    """A pull-request."""
    repo = one.repository
    url = f"{server.api_url}/repos/{repo.full_name}/pulls/{one.number}"
    issues = f"{server.api_url}/repos/{repo.full_name}/issues/{one.number}"
    html = f"{server.url}/{repo.full_name}/pull/{one.number}"
    head_repo = one.head_repository
    merge_base = repo.of_objects("merge-base", one.base_sha, one.head_sha).decode().strip()
    changed = changes(repo, merge_base, one.head_sha)
    statuses = f"{server.api_url}/repos/{repo.full_name}/statuses/{one.head_sha}"

    def end(owner: str, ref: str, sha: str, of: Repository | None) -> dict[str, Any]:
        return {
            "label": f"{owner}:{ref}",
            "ref": ref,
            "sha": sha,
            "user": user(server, owner),
            "repo": repository(server, of) if of else None,
        }

    links = {
        "self": url,
        "html": html,
        "issue": issues,
        "comments": f"{issues}/comments",
        "review_comments": f"{url}/comments",
        "review_comment": f"{url[: -len(str(one.number)) - 1]}/comments{{/number}}",
        "commits": f"{url}/commits",
        "statuses": statuses,
    }
    known: dict[str, Any] = {
        "id": one.id,
        "node_id": f"PR_{one.id}",
        "number": one.number,
        "state": one.state,
        "locked": False,
        "title": one.title,
        "body": one.body,
        "user": user(server, one.author),
        "labels": [label(server, repo, name) for name in one.labels],
        "draft": one.draft,
        "created_at": one.created_at,
        "updated_at": one.updated_at,
        "closed_at": one.closed_at,
        "merged_at": one.closed_at if one.merge_sha else None,
        "merged": one.merge_sha is not None,
        "merge_commit_sha": one.merge_sha,
        "mergeable": True if one.state == "open" else None,
        "mergeable_state": "blocked" if repo.unmet_checks(one.head_sha) else "clean",
        "url": url,
        "html_url": html,
        "diff_url": f"{html}.diff",
        "patch_url": f"{html}.patch",
        "issue_url": issues,
        "comments_url": f"{issues}/comments",
        "commits_url": f"{url}/commits",
        "review_comments_url": f"{url}/comments",
        "review_comment_url": links["review_comment"],
        "statuses_url": statuses,
        "head": end(one.head_owner, one.head_ref, one.head_sha, head_repo),
        "base": end(repo.owner, one.base_ref, one.base_sha, repo),
        "_links": {name: {"href": target} for name, target in links.items()},
        "author_association": association(repo, one.author),
        "assignees": [],
        "comments": len(one.comments),
        "commits": int(repo.of_objects("rev-list", "--count", f"{merge_base}..{one.head_sha}")),
        "additions": sum(entry["additions"] for entry in changed),
        "deletions": sum(entry["deletions"] for entry in changed),
        "changed_files": len(changed),
    }
    return description().fill("pull-request", known, url)


def changes(repo: Repository, old: str, new: str) -> list[dict[str, Any]]:
    """What differs between two commits: filename, previous_filename, status, sha, additions, deletions."""
    words = {"A": "added", "M": "modified", "D": "removed", "R": "renamed", "C": "copied", "T": "changed"}
    raw = repo.of_objects("diff", "--raw", "-z", "-M", "--abbrev=40", old, new).decode().split("\0")
    found: list[dict[str, Any]] = []
    while raw and raw[0]:
        _mode, _mode2, _old, blob, letter = raw.pop(0).split()
        path = raw.pop(0)
        entry: dict[str, Any] = {"sha": blob, "status": words[letter[0]], "filename": path, "additions": 0, "deletions": 0}
        if letter[0] in "RC":
            entry["previous_filename"], entry["filename"] = path, raw.pop(0)
        found.append(entry)
    counts = [line.split("\t") for line in repo.of_objects("diff", "--numstat", "-M", old, new).decode().splitlines()]
    for entry, (added, deleted, _path) in zip(found, counts, strict=True):
        entry["additions"], entry["deletions"] = (0, 0) if added == "-" else (int(added), int(deleted))
    return found


def diff_entries(server: GitHubServer, repo: Repository, sha: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """diff-entry, for pull request files and for commits."""
    url = f"{server.api_url}/repos/{repo.full_name}"
    html = f"{server.url}/{repo.full_name}"
    return [
        {
            **entry,
            "changes": entry["additions"] + entry["deletions"],
            "blob_url": f"{html}/blob/{sha}/{entry['filename']}",
            "raw_url": f"{html}/raw/{sha}/{entry['filename']}",
            "contents_url": f"{url}/contents/{entry['filename']}?ref={sha}",
        }
        for entry in entries
    ]


def commit(call: Call, repo: Repository, sha: str) -> dict[str, Any]:
    """A commit, with one page of its files."""
    said = repo.of_objects("show", "-s", "--format=%T%x00%P%x00%an%x00%ae%x00%ct%x00%B", sha).decode()
    tree, parents, author, email, when, message = said.split("\0", 5)
    url = f"{call.server.api_url}/repos/{repo.full_name}/commits/{sha}"
    html = f"{call.server.url}/{repo.full_name}/commit/{sha}"
    person = {"name": author, "email": email, "date": _time(int(when))}
    inner = {
        "author": person,
        "committer": person,
        "message": message.strip(),
        "tree": {"sha": tree, "url": url.replace("/commits/", "/git/trees/")},
        "url": url.replace("/commits/", "/git/commits/"),
        "comment_count": 0,
    }
    empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    entries = changes(repo, parents.split()[0] if parents else empty, sha)
    return {
        "sha": sha,
        "node_id": f"C_{sha[:12]}",
        "url": url,
        "html_url": html,
        "comments_url": f"{url}/comments",
        "commit": inner,
        "author": None,
        "committer": None,
        "parents": [{"sha": one, "url": url.replace(sha, one), "html_url": html.replace(sha, one)} for one in parents.split()],
        "files": diff_entries(call.server, repo, sha, call.page(entries)),
    }


def _time(seconds: int) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def check(server: GitHubServer, repo: Repository, one: CheckRun) -> dict[str, Any]:
    """A check-run."""
    url = f"{server.api_url}/repos/{repo.full_name}/check-runs/{one.id}"
    return {
        "id": one.id,
        "node_id": f"CR_{one.id}",
        "head_sha": one.head_sha,
        "name": one.name,
        "url": url,
        "html_url": f"{server.url}/{repo.full_name}/runs/{one.id}",
        "details_url": one.details_url,
        "external_id": one.external_id,
        "status": one.status,
        "conclusion": one.conclusion,
        "started_at": one.started_at,
        "completed_at": one.completed_at,
        "check_suite": {"id": one.app.id},
        "app": app(server, one.app),
        "pull_requests": [
            _pull_of_check(server, pull)
            for pull in repo.pulls
            if pull.state == "open" and pull.head_sha == one.head_sha and not pull.from_fork
        ],
        "output": {
            "title": one.title,
            "summary": one.summary,
            "text": one.text,
            "annotations_count": len(one.annotations),
            "annotations_url": f"{url}/annotations",
        },
    }


def _pull_of_check(server: GitHubServer, one: Pull) -> dict[str, Any]:
    """A pull-request-minimal: GitHub names those whose head the commit is, and none of a fork."""
    repo = one.repository
    here = {"id": repo.id, "url": f"{server.api_url}/repos/{repo.full_name}", "name": repo.name}
    return {
        "id": one.id,
        "number": one.number,
        "url": f"{here['url']}/pulls/{one.number}",
        "head": {"ref": one.head_ref, "sha": one.head_sha, "repo": here},
        "base": {"ref": one.base_ref, "sha": one.base_sha, "repo": here},
    }


def status(server: GitHubServer, repo: Repository, one: Status) -> dict[str, Any]:
    """A status."""
    return {
        "id": one.id,
        "node_id": f"S_{one.id}",
        "url": f"{server.api_url}/repos/{repo.full_name}/statuses/{one.sha}",
        "avatar_url": f"{server.url}/avatars/{server.user_id(one.login)}",
        "state": one.state,
        "context": one.context,
        "description": one.description,
        "target_url": one.target_url,
        "creator": user(server, one.login),
        "created_at": one.created_at,
        "updated_at": one.created_at,
    }


# --------------------------------------------------------------------------- repositories, commits, files


@route("GET", "/repos/{owner}/{repo}")
def get_repository(call: Call) -> Answer:
    """The repository, with what the token's owner may do in it."""
    found = repository(call.server, call.repo, "full-repository")
    permission = call.repo.roles.get(call.token.login.lower(), ("", "read"))[1]
    found["permissions"] = {"admin": permission == "admin", "push": permission in ("admin", "write"), "pull": True}
    return 200, found


@route("GET", "/repos/{owner}/{repo}/commits/{ref}", "contents")
def get_commit(call: Call) -> Answer:
    """A commit by branch, tag or SHA."""
    return 200, commit(call, call.repo, _resolved(call))


@route("GET", "/repos/{owner}/{repo}/compare/{basehead}", "contents")
def compare_commits(call: Call) -> Answer:
    """Where two commits parted; without their files and commits, which nobody asks for here."""
    base, _, head = call.parts["basehead"].partition("...")
    ours, theirs = call.repo.sha(base), call.repo.sha(head)
    if not (ours and theirs):
        raise Refused(404, "Not Found")
    shared = call.repo.git("merge-base", ours, theirs).strip()
    ahead, behind = (int(call.repo.git("rev-list", "--count", f"{one}..{other}")) for one, other in ((ours, theirs), (theirs, ours)))
    url = f"{call.server.api_url}/repos/{call.repo.full_name}/compare/{base}...{head}"
    return 200, {
        "url": url,
        "html_url": url,
        "permalink_url": url,
        "diff_url": f"{url}.diff",
        "patch_url": f"{url}.patch",
        "base_commit": commit(call, call.repo, ours),
        "merge_base_commit": commit(call, call.repo, shared),
        "status": "diverged" if ahead and behind else "ahead" if ahead else "behind" if behind else "identical",
        "ahead_by": ahead,
        "behind_by": behind,
        "total_commits": ahead,
        "commits": [],
        "files": [],
    }


def _resolved(call: Call) -> str:
    if not call.repo.git("for-each-ref", "--count=1"):
        raise Refused(409, "Git Repository is empty.")
    sha = call.repo.sha(call.parts["ref"])
    if not sha:
        raise Refused(422, f"No commit found for SHA: {call.parts['ref']}")
    return sha


@route("GET", "/repos/{owner}/{repo}/contents/{path}", "contents")
def get_contents(call: Call) -> Answer:
    """A file, a folder, a link or a submodule at a ref."""
    ref = call.asked("ref", call.repo.default_branch)
    sha = call.repo.sha(ref)
    if not sha:
        raise Refused(404, f"No commit found for the ref {ref}")
    return 200, _contents(call, sha, ref, call.parts["path"].strip("/"))


def _contents(call: Call, sha: str, ref: str, path: str) -> Any:
    if path:
        entries = _tree(call.repo, sha, path)
        if not entries:
            raise Refused(404, "Not Found")
        mode, kind, blob, size, _path = entries[0]
        if mode == "120000":
            target = call.repo.of_objects("cat-file", "blob", blob).decode()
            resolved = "/".join([*path.split("/")[:-1], target])
            behind = _tree(call.repo, sha, resolved) if not target.startswith(("/", "../")) else []
            if behind and behind[0][0].startswith("100"):
                return _contents(call, sha, ref, resolved)
            return {**_entry(call, ref, mode, kind, blob, size, path), "target": target}
        if mode == "160000":
            return {**_entry(call, ref, mode, kind, blob, size, path), "submodule_git_url": None}
        if kind == "blob":
            content = call.repo.of_objects("cat-file", "blob", blob) if size <= 1_000_000 else b""
            text = base64.encodebytes(content).decode()
            return {
                **_entry(call, ref, mode, kind, blob, size, path),
                "content": text,
                "encoding": "base64" if size <= 1_000_000 else "none",
            }
    return [_entry(call, ref, *one) for one in _tree(call.repo, sha, f"{path}/" if path else "")[:1000]]


def _tree(repo: Repository, sha: str, path: str) -> list[tuple[str, str, str, int, str]]:
    listed = repo.of_objects("--literal-pathspecs", "ls-tree", "-z", "-l", sha, *(["--", path] if path else []), check=False).decode()
    found = []
    for line in filter(None, listed.split("\0")):
        facts, name = line.split("\t", 1)
        mode, kind, blob, size = facts.split()
        found.append((mode, kind, blob, 0 if size == "-" else int(size), name))
    return found


def _entry(call: Call, ref: str, mode: str, kind: str, blob: str, size: int, path: str) -> dict[str, Any]:
    repo = call.repo
    url = f"{call.server.api_url}/repos/{repo.full_name}"
    own = f"{url}/contents/{path}?ref={ref}"
    html = f"{call.server.url}/{repo.full_name}/blob/{ref}/{path}"
    git_url = f"{url}/git/{'trees' if kind == 'tree' else 'blobs'}/{blob}"
    words = {"120000": "symlink", "160000": "submodule", "040000": "dir"}
    return {
        "name": path.split("/")[-1],
        "path": path,
        "sha": blob,
        "size": size,
        "url": own,
        "html_url": html,
        "git_url": git_url,
        "download_url": f"{call.server.url}/{repo.full_name}/raw/{ref}/{path}" if kind == "blob" else None,
        "type": words.get(mode, "file"),
        "_links": {"self": own, "git": git_url, "html": html},
    }


@route("GET", "/repos/{owner}/{repo}/collaborators/{username}/permission")
def get_permission(call: Call) -> Answer:
    """What somebody may do: `permission` is coarse, `role_name` is fine."""
    login = call.parts["username"]
    if login.lower() in call.server.missing_users:
        raise Refused(404, f"{login} is not a user")
    role, permission = call.repo.roles.get(login.lower(), ("none", "none") if call.repo.private else ("read", "read"))
    found = {**user(call.server, login), "role_name": role}
    found["permissions"] = {name: permission in allowed for name, allowed in _ALLOWED.items()}
    return 200, {"permission": permission, "role_name": role, "user": found}


_ALLOWED = {
    "pull": ("read", "write", "admin"),
    "triage": ("write", "admin"),
    "push": ("write", "admin"),
    "maintain": ("admin",),
    "admin": ("admin",),
}


@route("GET", "/orgs/{org}/teams/{team_slug}/memberships/{username}", "members")
def get_membership(call: Call) -> Answer:
    """Whether somebody is in a team; invited people are pending."""
    org, team, login = call.parts["org"], call.parts["team_slug"], call.parts["username"]
    state = call.server.teams.get((org.lower(), team.lower()), {}).get(login.lower())
    if state is None:
        raise Refused(404, "Not Found")
    url = f"{call.server.api_url}/organizations/1/team/1/memberships/{login}"
    return 200, {"state": state, "role": "member", "url": url}


@route("GET", "/rate_limit")
def get_rate_limit(call: Call) -> Answer:
    """How much the token has left."""
    one = {"limit": 1000, "remaining": call.server.remaining, "reset": call.server.reset_at, "used": 1000 - call.server.remaining}
    return 200, {"resources": {"core": one, "search": one}, "rate": one}


# --------------------------------------------------------------------------- pull requests and issues


def _pull(call: Call) -> Pull:
    found = call.repo.issues.get(int(call.parts["pull_number"]))
    if not isinstance(found, Pull):
        raise Refused(404, "Not Found")
    return found


def _issue(call: Call) -> Issue:
    found = call.repo.issues.get(int(call.parts["issue_number"]))
    if found is None:
        raise Refused(404, "Not Found")
    return found


@route("GET", "/repos/{owner}/{repo}/pulls", "pull-requests")
def list_pulls(call: Call) -> Answer:
    """Pull requests, newest first; `head` is owner:branch."""
    state, head = call.asked("state", "open"), call.asked("head")
    found = [one for one in call.repo.pulls if state in ("all", one.state) and head in ("", f"{one.head_owner}:{one.head_ref}")]
    simple = description().document["components"]["schemas"]["pull-request-simple"]["properties"]
    return 200, [{key: value for key, value in pull(call.server, one).items() if key in simple} for one in call.page(found[::-1])]


@route("GET", "/repos/{owner}/{repo}/pulls/{pull_number}", "pull-requests")
def get_pull(call: Call) -> Answer:
    """One pull request."""
    return 200, pull(call.server, _pull(call))


@route("GET", "/repos/{owner}/{repo}/pulls/{pull_number}/files", "pull-requests")
def list_pull_files(call: Call) -> Answer:
    """What a pull request changes, at most 3,000 files."""
    one = _pull(call)
    base = call.repo.of_objects("merge-base", one.base_sha, one.head_sha).decode().strip()
    return 200, diff_entries(call.server, call.repo, one.head_sha, call.page(changes(call.repo, base, one.head_sha)[:3000]))


@route("PUT", "/repos/{owner}/{repo}/pulls/{pull_number}/merge", "contents")
def merge_pull(call: Call) -> Answer:
    """Merges, unless a required check has not succeeded."""
    one = _pull(call)
    unmet = call.repo.unmet_checks(one.head_sha)
    if unmet or one.state != "open":
        raise Refused(405, f'Required status check "{unmet[0]}" is expected.' if unmet else "Pull Request is not mergeable")
    if (call.body or {}).get("sha", one.head_sha) != one.head_sha:
        raise Refused(409, "Head branch was modified. Review and try the merge again.")
    one.merge_sha = call.repo.merged(one, f"refs/heads/{one.base_ref}", f"Merge pull request #{one.number}")
    one.close()
    return 200, {"sha": one.merge_sha, "merged": True, "message": "Pull Request successfully merged"}


@route("GET", "/repos/{owner}/{repo}/issues/{issue_number}", *TALK)
def get_issue(call: Call) -> Answer:
    """An issue or a pull request."""
    return 200, issue(call.server, _issue(call))


@route("GET", "/repos/{owner}/{repo}/issues/{issue_number}/comments", *TALK)
def list_comments(call: Call) -> Answer:
    """Comments, oldest first; `since` looks at when they were last changed."""
    since = call.asked("since")
    found = [one for one in _issue(call).comments if one.updated_at >= since]
    return 200, [comment(call.server, call.repo, one) for one in call.page(found)]


@route("POST", "/repos/{owner}/{repo}/issues/{issue_number}/comments", *TALK)
def create_comment(call: Call) -> Answer:
    """A new comment, by whom the token speaks for."""
    made = call.repo.add_comment(_issue(call).number, call.token.login, _comment_body(call), call.token.app)
    return 201, comment(call.server, call.repo, made)


def _comment_body(call: Call) -> str:
    body = str(call.body["body"])
    if not body.strip():
        raise Refused(422, "Validation Failed", errors=[{"resource": "IssueComment", "code": "missing_field", "field": "body"}])
    if len(body) > 65_536:
        problem = {
            "resource": "IssueComment",
            "code": "unprocessable",
            "field": "data",
            "message": "Body is too long (maximum is 65536 characters)",
        }
        raise Refused(422, "Validation Failed", errors=[problem])
    return body


def _comment(call: Call) -> Comment:
    found = call.repo.comments.get(int(call.parts["comment_id"]))
    if found is None:
        raise Refused(404, "Not Found")
    return found


@route("GET", "/repos/{owner}/{repo}/issues/comments/{comment_id}", *TALK)
def get_comment(call: Call) -> Answer:
    """One comment."""
    return 200, comment(call.server, call.repo, _comment(call))


@route("PATCH", "/repos/{owner}/{repo}/issues/comments/{comment_id}", *TALK)
def update_comment(call: Call) -> Answer:
    """Replaces a comment's body."""
    one = _comment(call)
    one.body, one.updated_at = _comment_body(call), now()
    return 200, comment(call.server, call.repo, one)


@route("DELETE", "/repos/{owner}/{repo}/issues/comments/{comment_id}", *TALK)
def delete_comment(call: Call) -> Answer:
    """Deletes a comment."""
    del call.repo.comments[_comment(call).id]
    return 204, None


@route("GET", "/repos/{owner}/{repo}/issues/comments/{comment_id}/reactions", *TALK)
def list_reactions(call: Call) -> Answer:
    """Who reacted how."""
    return 200, [_reaction(call, *one) for one in call.page(_comment(call).reactions)]


@route("POST", "/repos/{owner}/{repo}/issues/comments/{comment_id}/reactions", *TALK)
def create_reaction(call: Call) -> Answer:
    """A reaction; 200 if the same person had it there already."""
    one = _comment(call)
    reaction = (call.token.login, str(call.body["content"]))
    had = reaction in one.reactions
    if not had:
        one.reactions.append(reaction)
    return 200 if had else 201, _reaction(call, *reaction)


def _reaction(call: Call, login: str, content: str) -> dict[str, Any]:
    return {"id": 1, "node_id": "REA_1", "user": user(call.server, login), "content": content, "created_at": now()}


@route("GET", "/repos/{owner}/{repo}/issues/{issue_number}/labels", *TALK)
def list_labels(call: Call) -> Answer:
    """The labels that are set."""
    return 200, [label(call.server, call.repo, name) for name in call.page(_issue(call).labels)]


@route("POST", "/repos/{owner}/{repo}/issues/{issue_number}/labels", *TALK)
def add_labels(call: Call) -> Answer:
    """Sets labels."""
    one = _issue(call)
    for name in call.body["labels"]:
        _fits(name=name)
        one.add_label(call.repo.label(name).name)
    return 200, [label(call.server, call.repo, name) for name in one.labels]


@route("DELETE", "/repos/{owner}/{repo}/issues/{issue_number}/labels/{name}", *TALK)
def remove_label(call: Call) -> Answer:
    """Takes a label off."""
    one = _issue(call)
    if call.parts["name"] not in one.labels:
        raise Refused(404, "Label does not exist")
    one.labels.remove(call.parts["name"])
    one.touch()
    return 200, [label(call.server, call.repo, name) for name in one.labels]


def _fits(name: str, description: str = "") -> None:
    """What GitHub says about a label whose words are too long."""
    for field_name, text, limit in (("name", name, 50), ("description", description, 100)):
        if len(text) > limit or (field_name == "name" and not text.strip()):
            problem = {"resource": "Label", "code": "invalid", "field": field_name}
            raise Refused(422, "Validation Failed", errors=[problem])


@route("POST", "/repos/{owner}/{repo}/labels", *TALK)
def create_label(call: Call) -> Answer:
    """Makes a label, unless there is one of that name."""
    name, body = call.body["name"], call.body
    _fits(name, body.get("description", ""))
    if name.lower() in call.repo.labels:
        problem = {"resource": "Label", "code": "already_exists", "field": "name"}
        raise Refused(422, "Validation Failed", errors=[problem])
    made = call.repo.label(name)
    made.color, made.description = body.get("color", made.color), body.get("description", "")
    return 201, label(call.server, call.repo, name)


def _label(call: Call) -> RepositoryLabel:
    found = call.repo.labels.get(call.parts["name"].lower())
    if found is None:
        raise Refused(404, "Not Found")
    return found


@route("GET", "/repos/{owner}/{repo}/labels/{name}", *TALK)
def get_label(call: Call) -> Answer:
    """One label."""
    return 200, label(call.server, call.repo, _label(call).name)


@route("PATCH", "/repos/{owner}/{repo}/labels/{name}", *TALK)
def update_label(call: Call) -> Answer:
    """Changes a label."""
    one, body = _label(call), call.body
    _fits(body.get("new_name", one.name), body.get("description", ""))
    one.name = body.get("new_name", one.name)
    one.color, one.description = body.get("color", one.color), body.get("description", one.description)
    return 200, label(call.server, call.repo, one.name)


# --------------------------------------------------------------------------- checks and statuses


@route("GET", "/repos/{owner}/{repo}/commits/{ref}/check-runs", "checks")
def list_checks(call: Call) -> Answer:
    """Check runs on a commit, newest first; `latest` keeps one of each name and app."""
    sha = _resolved(call)
    found = call.repo.checks_on(sha, call.asked("check_name") or None)[::-1]
    if call.asked("app_id"):
        found = [one for one in found if str(one.app.id) == call.asked("app_id")]
    if call.asked("status"):
        found = [one for one in found if one.status == call.asked("status")]
    if call.asked("filter", "latest") == "latest":
        found = list({(one.app.id, one.name): one for one in reversed(found)}.values())[::-1]
    return 200, {"total_count": len(found), "check_runs": [check(call.server, call.repo, one) for one in call.page(found)]}


@route("POST", "/repos/{owner}/{repo}/check-runs", "checks")
def create_check(call: Call) -> Answer:
    """A new check run by the token's app."""
    if call.token.app is None:
        raise Refused(403, "You must authenticate via a GitHub App.")
    sha = call.body["head_sha"]
    if len(sha) != 40 or not call.repo.sha(sha):
        raise Refused(422, f"No commit found for SHA: {sha}")
    made = CheckRun(call.repo.ids.next(), call.token.app, "", sha, "", "queued", None, None, None, None, None, [], now(), None)
    _change_check(call, made)
    call.repo.checks[made.id] = made
    return 201, check(call.server, call.repo, made)


def _check(call: Call) -> CheckRun:
    found = call.repo.checks.get(int(call.parts["check_run_id"]))
    if found is None:
        raise Refused(404, "Not Found")
    return found


@route("GET", "/repos/{owner}/{repo}/check-runs/{check_run_id}", "checks")
def get_check(call: Call) -> Answer:
    """One check run."""
    return 200, check(call.server, call.repo, _check(call))


@route("GET", "/repos/{owner}/{repo}/check-runs/{check_run_id}/annotations", "checks")
def list_annotations(call: Call) -> Answer:
    """A check run's annotations."""
    shown = ("path", "start_line", "end_line", "annotation_level", "message", "title", "raw_details", "start_column", "end_column")
    return 200, [{**dict.fromkeys(shown), "blob_href": "", **one} for one in call.page(_check(call).annotations)]


@route("PATCH", "/repos/{owner}/{repo}/check-runs/{check_run_id}", "checks")
def update_check(call: Call) -> Answer:
    """Changes a check run; only its own app may, and annotations add up."""
    one = _check(call)
    if one.app != call.token.app:
        raise Refused(403, f"Invalid app_id `{one.app.id}` - check run can only be modified by the GitHub App that created it.")
    _change_check(call, one)
    return 200, check(call.server, call.repo, one)


def _change_check(call: Call, one: CheckRun) -> None:
    body, output = call.body, call.body.get("output", {})
    for name in ("summary", "text"):
        size = len(output.get(name, "").encode())
        if size > 65_535:
            raise Refused(422, f"Invalid request.\n\nOnly 65535 characters are allowed; {size} were supplied.")
    if len(output.get("annotations", [])) > 50:
        raise Refused(422, f"Invalid request.\n\nNo more than 50 items are allowed; {len(output['annotations'])} were supplied.")
    if body.get("status") == "completed" and not body.get("conclusion"):
        raise Refused(422, 'Invalid request.\n\nNo subschema in "anyOf" matched.')
    for name in ("name", "external_id", "details_url"):
        setattr(one, name, body.get(name, getattr(one, name)))
    for name in ("title", "summary", "text"):
        setattr(one, name, output.get(name, getattr(one, name)))
    one.annotations += output.get("annotations", [])
    one.actions = body.get("actions", one.actions)
    one.status = "completed" if body.get("conclusion") else body.get("status", one.status)
    one.conclusion = body.get("conclusion") if one.status == "completed" else None
    one.completed_at = (one.completed_at or now()) if one.status == "completed" else None
    one.history.append((one.status, one.conclusion))


@route("GET", "/repos/{owner}/{repo}/commits/{ref}/status", "statuses")
def get_combined_status(call: Call) -> Answer:
    """The newest status of each context, and all of them summed up."""
    sha = _resolved(call)
    newest = {one.context: one for one in call.repo.statuses if one.sha == sha}
    states = {one.state for one in newest.values()}
    state = "failure" if states & {"failure", "error"} else "success" if states == {"success"} else "pending"
    url = f"{call.server.api_url}/repos/{call.repo.full_name}/commits/{sha}"
    simple = description().document["components"]["schemas"]["simple-commit-status"]["properties"]
    shown = [
        {key: value for key, value in status(call.server, call.repo, one).items() if key in simple}
        for one in call.page(list(newest.values()))
    ]
    repo = repository(call.server, call.repo, "minimal-repository")
    found = {
        "state": state,
        "sha": sha,
        "total_count": len(newest),
        "statuses": shown,
        "repository": repo,
        "commit_url": url,
        "url": f"{url}/status",
    }
    return 200, found


@route("GET", "/repos/{owner}/{repo}/commits/{ref}/statuses", "statuses")
def list_statuses(call: Call) -> Answer:
    """All statuses of a commit, newest first."""
    sha = _resolved(call)
    return 200, [status(call.server, call.repo, one) for one in call.page([one for one in call.repo.statuses if one.sha == sha][::-1])]


@route("POST", "/repos/{owner}/{repo}/statuses/{sha}", "statuses")
def create_status(call: Call) -> Answer:
    """A new status."""
    sha, body = call.parts["sha"], call.body
    if not call.repo.sha(sha):
        raise Refused(422, f"No commit found for SHA: {sha}")
    if len(body.get("description") or "") > 140:
        raise Refused(422, "Validation Failed", errors=[{"resource": "Status", "code": "custom", "message": "description is too long"}])
    made = Status(call.repo.ids.next(), sha, body["state"], body.get("context", "default"), body.get("description"), body.get("target_url"),
                  call.token.login, now())  # fmt: skip
    call.repo.statuses.append(made)
    return 201, status(call.server, call.repo, made)


@route("GET", "/repos/{owner}/{repo}/rules/branches/{branch}")
def get_branch_rules(call: Call) -> Answer:
    """What a branch requires before something is merged into it."""
    if not call.repo.required_checks:
        return 200, []
    checks = [{"context": name} for name in call.repo.required_checks]
    rule = {
        "type": "required_status_checks",
        "parameters": {"required_status_checks": checks, "strict_required_status_checks_policy": False},
        "ruleset_source_type": "Repository",
        "ruleset_source": call.repo.full_name,
        "ruleset_id": 1,
    }
    return 200, [rule]
