"""A GitHub of one's own for a test: real HTTP on loopback, real git over smart HTTP, and every fault that the real one has.

    with GitHubServer() as server:
        repo = server.create_repository("org/repo", {"train.py": "print(1)"})
        repo.commit("feature", {"train.py": "print(2)"})
        pull = repo.open_pull("feature", author="alice")
        comment = pull.comment("/train profile=cluster", author="alice")
        server.fail("POST", r"/comments$", 502, after_effect=True)

`server.api_url` and `server.token` go to the client; `server.requests` is what it sent; `server.violations` is what it, or
the stand-in, did against GitHub's own description of the API, and must stay empty.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import tempfile
import threading
import time
from base64 import b64decode
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.github_apps import app_of
from tests.github_events import Events
from tests.github_model import ACTIONS, GIT_ENV, App, Files, Ids, Installation, Repository, Token
from tests.github_openapi import description
from tests.github_routes import DOCS, ROUTES, Call, Refused, Route

JOB_PERMISSIONS = {"contents": "read", "checks": "write", "pull-requests": "write"}
"""What the documented workflow gives its job; a method that needs more fails here as it would there."""


@dataclass(frozen=True)
class Seen:
    """A request to the API, and what was answered (0: nothing)."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    status: int
    login: str


@dataclass
class Fault:
    """What goes wrong with some requests: the `nth` that matches and the `times - 1` after it."""

    method: str
    path: re.Pattern[str]
    nth: int = 1
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: bool = False
    seconds: float = 0.0
    chop: int = 0
    after_effect: bool = False
    seen: int = 0
    done: bool = False
    """Whether it has struck, and (with `after_effect`) what was asked for has been done."""

    def strikes(self, method: str, path: str) -> bool:
        """Counts a request; whether it is one of those."""
        if self.method not in ("*", method) or not self.path.search(path):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


class GitHubServer(Events):
    """The server and everything on it. `prefix="/api/v3"` makes it a GitHub Enterprise Server."""

    def __init__(self, prefix: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="github-")
        self.lock = threading.RLock()
        self.prefix = prefix
        self.ids = Ids()
        self.repositories: dict[str, Repository] = {}
        self.moved: dict[str, Repository] = {}
        self.teams: dict[tuple[str, str], dict[str, str]] = {}
        self.missing_users: set[str] = set()
        self.tokens: dict[str, Token] = {}
        self.apps: dict[str, App] = {}
        self.installations: list[Installation] = []
        self.faults: list[Fault] = []
        self.requests: list[Seen] = []
        self.git_requests: list[str] = []
        self.violations: list[str] = []
        self.remaining = 1000
        self.reset_at = int(time.time()) + 3600
        self._users: dict[str, int] = {}
        self.token = self.add_token("ghs_0123456789abcdefghijklmnopqrstuvwxyz")
        self._http = _Listener(self)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.api_url = self.url + prefix
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def __enter__(self) -> GitHubServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stops listening and deletes the repositories."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._folder.cleanup()

    # ------------------------------------------------------------------- what is there

    def create_repository(
        self, full_name: str, files: Files | None = None, private: bool = True, default_branch: str = "main"
    ) -> Repository:
        """A repository with a first commit on its default branch (none if `files` is None)."""
        repo = Repository(self.ids, Path(self._folder.name), full_name, default_branch, private)
        self.repositories[full_name.lower()] = repo
        if files is not None:
            repo.commit(default_branch, files, "First")
        return repo

    def fork(self, parent: Repository, full_name: str) -> Repository:
        """A fork with everything its parent has now."""
        repo = self.create_repository(full_name, None, parent.private, parent.default_branch)
        repo.parent = parent
        parent.forks.append(repo)
        repo.git("fetch", "-q", str(parent.git_dir), "refs/heads/*:refs/heads/*")
        return repo

    def delete_repository(self, full_name: str) -> None:
        """Deletes a repository; pull requests from it lose their head's."""
        gone = self.repositories.pop(full_name.lower())
        for pull in gone.parent.pulls if gone.parent else []:
            if pull.head_repository is gone:
                pull.head_repository = None

    def rename_repository(self, repo: Repository, full_name: str) -> None:
        """Renames; the old name redirects."""
        self.moved[repo.full_name.lower()] = repo
        del self.repositories[repo.full_name.lower()]
        repo.full_name = full_name
        self.repositories[full_name.lower()] = repo

    def add_token(
        self,
        value: str,
        login: str = "github-actions[bot]",
        app: App | None = ACTIONS,
        permissions: dict[str, str] | None = None,
        repositories: frozenset[str] | None = None,
    ) -> str:
        """Makes a token known, with the job's permissions unless told; a person's has `app=None`. → the token"""
        self.tokens[value] = Token(value, login, app, JOB_PERMISSIONS if permissions is None else permissions, repositories)
        return value

    def install(
        self, app: App, owner: str, permissions: dict[str, str] | None = None, repositories: frozenset[str] | None = None
    ) -> Installation:
        """Makes an App known and installs it; with what the documentation asks for, unless told."""
        self.apps[str(app.id)] = app
        given = (
            {"contents": "read", "checks": "write", "pull_requests": "write", "metadata": "read"} if permissions is None else permissions
        )
        made = Installation(self.ids.next(), app, owner, given, repositories)
        self.installations.append(made)
        return made

    def add_team(self, org: str, slug: str, members: dict[str, str]) -> None:
        """A team; `members` maps logins to active or pending."""
        self.teams[(org.lower(), slug.lower())] = {login.lower(): state for login, state in members.items()}

    def user_id(self, login: str) -> int:
        """Always the same id for a login."""
        return self._users.setdefault(login.lower(), 21_000_000 + len(self._users))

    def requests_to(self, method: str, path: str) -> list[Seen]:
        """Requests whose path matches."""
        return [one for one in self.requests if one.method == method and re.search(path, one.path)]

    # ------------------------------------------------------------------- what goes wrong

    def fail(
        self,
        method: str,
        path: str,
        status: int,
        *,
        message: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        nth: int = 1,
        times: int = 1,
        after_effect: bool = False,
    ) -> Fault:
        """Answers with an error; `after_effect`: although it was done. `path` is a regular expression."""
        text = message or {401: "Bad credentials", 404: "Not Found", 403: "Resource not accessible by integration"}.get(
            status, "Server Error"
        )
        error = {"message": text, "documentation_url": DOCS, "status": str(status)}
        raw = json.dumps(error).encode() if body is None else body
        return self._add(Fault(method, re.compile(path), nth, times, status, headers or {}, raw, after_effect=after_effect))

    def reset(self, method: str, path: str, *, nth: int = 1, times: int = 1, after_effect: bool = False) -> Fault:
        """Resets the connection instead of answering; `after_effect`: what was asked for is done, and only the answer is lost."""
        return self._add(Fault(method, re.compile(path), nth, times, reset=True, after_effect=after_effect))

    def slow(self, method: str, path: str, seconds: float, *, nth: int = 1, times: int = 1, after_effect: bool = False) -> Fault:
        """Answers late; `after_effect`: what was asked for is done at once."""
        return self._add(Fault(method, re.compile(path), nth, times, seconds=seconds, after_effect=after_effect))

    def chop(self, method: str, path: str, length: int, *, nth: int = 1, times: int = 1) -> Fault:
        """Ends the connection after `length` bytes of the answer's body."""
        return self._add(Fault(method, re.compile(path), nth, times, chop=length, after_effect=True))

    def limit(self, method: str, path: str, *, retry_after: int | None = None, status: int = 429, nth: int = 1, times: int = 1) -> Fault:
        """A secondary rate limit."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
        return self.fail(method, path, status, message=message, headers=headers, nth=nth, times=times)

    def _add(self, fault: Fault) -> Fault:
        with self.lock:
            self.faults.append(fault)
        return fault

    # ------------------------------------------------------------------- answering

    def answer(self, method: str, target: str, authorization: str, raw: bytes) -> tuple[int, dict[str, str], Any]:
        """One API request → status, headers, JSON (None: no body). Nothing else is done at the same time."""
        split = urlsplit(target)
        raw_path = split.path.removeprefix(self.prefix)
        query = parse_qs(split.query, keep_blank_values=True)
        with self.lock:
            self.remaining -= 1
            token, body, headers = None, None, {}
            try:
                token = self._token(authorization)
                body = json.loads(raw) if raw else None
                status, headers, answer = self._route(method, raw_path, query, body, token, split.query)
            except Refused as refused:
                status, headers, answer = refused.status, refused.headers, refused.body
            except json.JSONDecodeError:
                status, answer = 400, {"message": "Problems parsing JSON", "documentation_url": DOCS, "status": "400"}
            self.requests.append(Seen(method, unquote(raw_path), query, body, status, token.login if token else ""))
            return status, {**headers, **self._limits()}, answer

    def _limits(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": "1000",
            "X-RateLimit-Remaining": str(max(self.remaining, 0)),
            "X-RateLimit-Reset": str(self.reset_at),
            "X-RateLimit-Used": str(1000 - self.remaining),
            "X-RateLimit-Resource": "core",
            "X-GitHub-Request-Id": f"{len(self.requests):04X}:1:2:3",
        }

    def _token(self, authorization: str) -> Token:
        if not authorization:
            raise Refused(401, "Requires authentication")
        value = authorization.split(" ", 1)[-1]
        token = app_of(self.apps, value) if value.count(".") == 2 else self.tokens.get(value)
        if token is None or (token.expires_at and token.expires_at <= datetime.now(timezone.utc)):
            raise Refused(401, "Bad credentials")
        if self.remaining < 0:
            raise Refused(403, "API rate limit exceeded for installation ID 1.")
        return token

    def _route(
        self, method: str, path: str, query: dict[str, list[str]], body: Any, token: Token, raw_query: str
    ) -> tuple[int, dict[str, str], Any]:
        path, redirect = self._renamed(method, path, raw_query)
        if redirect:
            return redirect
        operation = description().operation(method, path)
        if operation is None:
            self.violations.append(f"{method} {path}: GitHub describes no such request")
            raise Refused(404, "Not Found")
        found = operation.pattern.match(path)
        assert found
        parts = dict(zip(re.findall(r"\{(\w+)\}", operation.path), map(unquote, found.groups()), strict=True))
        route = next((one for one in ROUTES if (one.method, one.path) == (method, operation.path)), None)
        if route is None:
            raise NotImplementedError(f"the stand-in does not do {method} {operation.path}")
        wrong = description().check_request(operation, query, body)
        if wrong:
            # 400 and not 500, so that a client does not try the same again and again.
            self.violations += [f"{method} {path}: {one}" for one in wrong]
            raise Refused(400, f"not as described: {'; '.join(wrong)[:300]}")
        self._admit(token, parts, route)
        call = Call(self, token, parts, query, body, self.api_url + path)
        try:
            status, answer = route.answer(call)
        except Refused as refused:
            status, answer, call.headers = refused.status, refused.body, refused.headers
        self.violations += [f"answer to {method} {path}: {one}" for one in description().check_answer(operation, status, answer)]
        return status, call.headers, answer

    def _renamed(self, method: str, path: str, query: str) -> tuple[str, tuple[int, dict[str, str], Any] | None]:
        """Old names redirect to /repositories/ID, and that address works. https://docs.github.com/rest/repos"""
        parts = path.split("/")
        if len(parts) > 3 and parts[1] == "repos" and (repo := self.moved.get("/".join(parts[2:4]).lower())):
            url = "/".join([f"{self.api_url}/repositories/{repo.id}", *parts[4:]]) + (f"?{query}" if query else "")
            status, message = (301, "Moved Permanently") if method == "GET" else (307, "Temporary Redirect")
            return path, (status, {"Location": url}, {"message": message, "url": url, "documentation_url": DOCS})
        if len(parts) > 2 and parts[1] == "repositories":
            repo = next(one for one in self.repositories.values() if str(one.id) == parts[2])
            return "/".join(["/repos", repo.full_name, *parts[3:]]), None
        return path, None

    def _admit(self, token: Token, parts: dict[str, str], route: Route) -> None:
        """404 for what the token cannot see, 403 for what it may not do."""
        if route.by_app or token.is_app:
            if not (route.by_app and token.is_app):
                raise Refused(401, "A JSON web token could not be decoded" if route.by_app else "Bad credentials")
            return
        if "repo" in parts:
            name = f"{parts['owner']}/{parts['repo']}".lower()
            if name not in self.repositories or (token.repositories is not None and name not in token.repositories):
                raise Refused(404, "Not Found")
        level = "read" if route.method == "GET" else "write"
        if route.needs and not any(token.permissions.get(need) in (level, "write") for need in route.needs):
            accepted = "; ".join(f"{need.replace('-', '_')}={level}" for need in route.needs)
            raise Refused(403, "Resource not accessible by integration", {"X-Accepted-GitHub-Permissions": accepted})

    def may_fetch(self, authorization: str, repo: Repository) -> bool:
        """Whether git may read: a token as basic auth's password, as `actions/checkout` sends it."""
        try:
            scheme, _, encoded = authorization.partition(" ")
            _user, password = b64decode(encoded if scheme.lower() == "basic" else "").decode().split(":", 1)
        except ValueError:
            return False
        token = self.tokens.get(password)
        return token is not None and token.permissions.get("contents") in ("read", "write") and (
            token.repositories is None or repo.full_name.lower() in token.repositories
        )  # fmt: skip


class _Listener(ThreadingHTTPServer):
    """One thread per connection; ends with the test."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, github: GitHubServer) -> None:
        self.github = github
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else must fail the test."""
        import sys

        problem = sys.exc_info()[1]
        if not isinstance(problem, OSError):
            self.github.violations.append(f"the stand-in broke: {problem!r}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        """Any request."""
        length = int(self.headers.get("Content-Length") or 0)
        raw = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
        github = self.server.github
        in_git = re.match(
            r"/([^/]+/[^/]+?)(?:\.git)?(/info/refs|/git-upload-pack|/git-receive-pack|/HEAD|/objects/.*)$", urlsplit(self.path).path
        )
        if in_git:
            self._git(in_git[1], in_git[2], raw)
            return
        path = unquote(urlsplit(self.path).path.removeprefix(github.prefix))
        with github.lock:
            fault = next((one for one in github.faults if one.strikes(self.command, path)), None)
        try:
            self._answer(fault, raw)
        except (NotImplementedError, AssertionError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as problem:
            github.violations.append(f"the stand-in broke on {self.command} {path}: {problem!r}")
            self._send(500, {}, json.dumps({"message": repr(problem), "documentation_url": DOCS}).encode())

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

    def _answer(self, fault: Fault | None, raw: bytes) -> None:
        authorization = self.headers.get("Authorization") or ""
        if fault is None or fault.after_effect:
            status, headers, body = self.server.github.answer(self.command, self.path, authorization, raw)
            content = b"" if body is None else json.dumps(body).encode()
        else:
            status, headers, content = 0, {}, b""
        if fault:
            fault.done = True
            time.sleep(fault.seconds)
            if fault.reset:
                self._seen_fault(fault, raw)
                self._reset()
                return
            if fault.status:
                self._seen_fault(fault, raw)
                status, headers, content = fault.status, fault.headers, fault.body
            elif not fault.after_effect:
                status, headers, body = self.server.github.answer(self.command, self.path, authorization, raw)
                content = b"" if body is None else json.dumps(body).encode()
        self._send(status, headers, content, fault.chop if fault else 0)

    def _seen_fault(self, fault: Fault, raw: bytes) -> None:
        """Requests that never reached the state count too."""
        if not fault.after_effect:
            split = urlsplit(self.path)
            path = unquote(split.path.removeprefix(self.server.github.prefix))
            self.server.github.requests.append(
                Seen(self.command, path, parse_qs(split.query), json.loads(raw) if raw else None, fault.status, "")
            )

    def _send(self, status: int, headers: dict[str, str], content: bytes, chop: int = 0) -> None:
        self.send_response_only(status)
        always = {"Date": self.date_time_string(), "Server": "github.com", "Content-Type": "application/json; charset=utf-8"}
        for name, value in {**always, **headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[:chop] if chop else content)
        self.close_connection = self.close_connection or bool(chop)

    def _reset(self) -> None:
        """RST instead of an answer."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _git(self, full_name: str, service: str, raw: bytes) -> None:
        """git's own smart HTTP server, for reading. https://git-scm.com/docs/git-http-backend"""
        github = self.server.github
        repo = github.repositories.get(full_name.lower())
        github.git_requests.append(f"{self.command} {self.path}")
        if repo is None or not github.may_fetch(self.headers.get("Authorization") or "", repo):
            missing = "Authorization" not in self.headers or repo is not None
            headers = (
                {"WWW-Authenticate": 'Basic realm="GitHub"', "Content-Type": "text/plain"} if missing else {"Content-Type": "text/plain"}
            )
            self._send(401 if missing else 404, headers, b"Repository not found.\n")
            return
        split = urlsplit(self.path)
        if "receive-pack" in split.path + split.query:
            self._send(403, {"Content-Type": "text/plain"}, b"Write access to repository not granted.\n")
            return
        environment = {
            **GIT_ENV,
            "GIT_PROJECT_ROOT": str(repo.git_dir.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": f"/{repo.git_dir.name}{service}",
            "QUERY_STRING": split.query,
            "CONTENT_TYPE": self.headers.get("Content-Type") or "",
            "CONTENT_LENGTH": str(len(raw)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
            "REMOTE_USER": "x-access-token",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], input=raw, capture_output=True, env=environment, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        self._send(status, headers, content)
