"""A GitHub App's identity, against a GitHub that verifies what the App signs and whose tokens expire."""

from __future__ import annotations

import base64
import re
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, PublicFormat

from dispatcher.action import INPUTS
from dispatcher.effects.assembly import for_github, for_terminal, with_forge
from dispatcher.effects.github import GitHubForge
from dispatcher.effects.github_app import AppInstallation
from dispatcher.effects.runner import Runner
from dispatcher.errors import ForgeError, InputError
from dispatcher.inputs import read_inputs
from dispatcher.ports import Button, Check
from tests.fakes import FakeClock
from tests.github_model import App, Installation, Repository
from tests.github_server import GitHubServer

GRANTED = {"contents": "read", "checks": "write", "pull_requests": "write", "metadata": "read"}


@cache
def key(number: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pem(of: Any, form: PrivateFormat = PrivateFormat.TraditionalOpenSSL, password: bytes = b"") -> str:
    """A private key as GitHub hands it out, unless told otherwise."""
    return str(of.private_bytes(Encoding.PEM, form, BestAvailableEncryption(password) if password else NoEncryption()), "ascii")


def public(of: rsa.RSAPrivateKey) -> str:
    return str(of.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "ascii")


OURS = App(4711, "our-trainer", "Our trainer", public(key()))


@pytest.fixture
def repo(github: GitHubServer) -> Repository:
    github.create_repository("org/other", {"a": "b"})
    return github.create_repository("org/repo", {"train.py": "print(1)\n"})


@pytest.fixture
def installed(github: GitHubServer, repo: Repository) -> Installation:
    return github.install(OURS, "org", dict(GRANTED))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime.now(timezone.utc))


def app(github: GitHubServer, clock: FakeClock, **changed: Any) -> AppInstallation:
    given = {"app_id": "4711", "private_key": pem(key()), "repository": "org/repo", "api_url": github.api_url, "clock": clock}
    return AppInstallation(**{**given, **changed})


def issued(github: GitHubServer) -> list[Any]:
    """The bodies of the requests for a token."""
    return [one.body for one in github.requests_to("POST", "/access_tokens$")]


# --------------------------------------------------------------------------- who we are, and what we may


def test_an_app_knows_its_own_name_and_asks_for_no_more_than_it_needs(
    github: GitHubServer, clock: FakeClock, installed: Installation
) -> None:
    ours = app(github, clock)
    assert ours.requests == 0
    token = github.tokens[ours.token()]
    assert (ours.app_slug, ours.identity) == ("our-trainer", "our-trainer[bot]")
    assert token.permissions == {"contents": "read", "checks": "write", "pull-requests": "write"}
    assert token.repositories == {"org/repo"}
    assert ours.requests == 2
    assert ours.token() == token.value
    assert ours.requests == 2
    assert issued(github) == [{"repositories": ["repo"], "permissions": {"contents": "read", "checks": "write", "pull_requests": "write"}}]


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({"members": "read"}, {"members": "read"}),
        ({"issues": "write", "members": "write"}, {"issues": "write", "members": "read"}),
        ({"issues": "read"}, {}),
        ({"contents": "write", "administration": "write"}, {}),
    ],
)
def test_what_is_welcome_is_asked_for_where_the_installation_has_it(
    github: GitHubServer, clock: FakeClock, installed: Installation, more: dict[str, str], asked: dict[str, str]
) -> None:
    installed.permissions |= more
    app(github, clock).token()
    assert issued(github)[0]["permissions"] == {"contents": "read", "checks": "write", "pull_requests": "write", **asked}


def test_an_app_speaks_and_is_believed(github: GitHubServer, clock: FakeClock, repo: Repository, installed: Installation) -> None:
    github.add_team("org", "ml", {"alice": "active"})
    installed.permissions["members"] = "read"
    repo.commit("feature", {"a": "b"})
    pull = repo.open_pull("feature")
    forge = GitHubForge("org/repo", app(github, clock), github.api_url, clock=clock)
    made = forge.create_comment(1, "<!-- m -->", "<!-- m -->")
    assert repo.comments[made.id].author == "our-trainer[bot]"
    assert forge.find_comment(1, "<!-- m -->") == made
    assert forge.team_member("org", "ml", "alice")
    check = Check("train", pull.head_sha, "k", "queued", None, "t", "s", buttons=(Button("Cancel", "Ends it", "cancel"),))
    ref = forge.create_check(check)
    assert [one["identifier"] for one in repo.checks[ref.id].actions] == ["cancel"]
    assert forge.find_checks(pull.head_sha) == (ref,)
    assert GitHubForge("org/repo", github.token, github.api_url, clock=clock).find_checks(pull.head_sha) == ()
    assert forge.requests == 5


# --------------------------------------------------------------------------- an hour is over


def test_a_token_is_renewed_before_it_expires(github: GitHubServer, clock: FakeClock, repo: Repository, installed: Installation) -> None:
    ours = app(github, clock)
    forge = GitHubForge("org/repo", ours, github.api_url, clock=clock)
    first = ours.token()
    clock.time += timedelta(minutes=54, seconds=40)
    assert forge.commit_sha("main") == repo.sha("main")
    assert ours.token() == first
    clock.time += timedelta(seconds=20)
    assert forge.commit_sha("main") == repo.sha("main")
    assert ours.token() != first
    assert len(issued(github)) == 2
    assert ours.requests == 3


@pytest.mark.parametrize("offset", [timedelta(days=-400), timedelta(days=400)])
def test_a_runner_whose_clock_is_wrong_keeps_its_token(
    github: GitHubServer, clock: FakeClock, installed: Installation, offset: timedelta
) -> None:
    clock.time += offset
    ours = app(github, clock)
    assert ours.token() == ours.token()
    assert len(issued(github)) == 1


@pytest.mark.parametrize("elapsed", [61, 3000])
def test_a_token_that_github_takes_back_is_replaced_once(
    github: GitHubServer, clock: FakeClock, repo: Repository, installed: Installation, elapsed: int
) -> None:
    ours = app(github, clock)
    forge = GitHubForge("org/repo", ours, github.api_url, clock=clock)
    pull_body = "said once\n<!-- m -->"
    repo.commit("feature", {"a": "b"})
    pull = repo.open_pull("feature")
    assert forge.pull(1) is not None
    github.tokens[ours.token()].expires_at = datetime.now(timezone.utc) - timedelta(seconds=1)
    clock.time += timedelta(seconds=elapsed)
    forge.create_comment(1, pull_body, "<!-- m -->")
    assert [one.body for one in pull.comments] == [pull_body]
    assert len(issued(github)) == 2
    assert clock.slept == []


def test_a_token_that_is_refused_at_once_is_not_asked_for_again_and_again(
    github: GitHubServer, clock: FakeClock, installed: Installation
) -> None:
    forge = GitHubForge("org/repo", app(github, clock), github.api_url, clock=clock)
    github.fail("GET", "/commits/main$", 401, times=99)
    with pytest.raises(ForgeError) as caught:
        forge.commit_sha("main")
    assert caught.value.code == "github.unauthorized"
    assert len(issued(github)) == 1


def test_an_app_that_is_taken_away_says_so(github: GitHubServer, clock: FakeClock, installed: Installation) -> None:
    ours = app(github, clock)
    forge = GitHubForge("org/repo", ours, github.api_url, clock=clock)
    forge.commit_sha("main")
    github.installations.clear()
    github.tokens.pop(ours.token())
    clock.time += timedelta(minutes=2)
    with pytest.raises(ForgeError) as caught:
        forge.commit_sha("main")
    assert caught.value.code == "github.app-not-installed"


@pytest.mark.parametrize("path", ["/installation$", "/access_tokens$"])
@pytest.mark.parametrize("after_effect", [False, True])
def test_a_passing_fault_is_got_over(
    github: GitHubServer, clock: FakeClock, installed: Installation, path: str, after_effect: bool
) -> None:
    method = "GET" if "installation$" in path else "POST"
    github.fail(method, path, 502, after_effect=after_effect)
    assert app(github, clock).token() in github.tokens
    assert clock.slept == [0.5]


# --------------------------------------------------------------------------- what is wrong


def not_installed(github: GitHubServer, made: Installation) -> None:
    github.installations.remove(made)


def elsewhere(github: GitHubServer, made: Installation) -> None:
    made.repositories = frozenset({"org/other"})


def unknown(github: GitHubServer, made: Installation) -> None:
    github.apps.clear()


def another_key(github: GitHubServer, made: Installation) -> None:
    github.apps["4711"] = replace(OURS, public_key=public(key(1)))


def suspended(github: GitHubServer, made: Installation) -> None:
    made.suspended = True


def weak(github: GitHubServer, made: Installation) -> None:
    made.permissions.update(checks="read")
    del made.permissions["contents"]


def took_back(github: GitHubServer, made: Installation) -> None:
    github.fail("POST", "/access_tokens$", 422, message="The permissions requested are not granted to this installation.")


def limited(github: GitHubServer, made: Installation) -> None:
    github.limit("GET", "/installation$", retry_after=1800, times=9)


def strange(github: GitHubServer, made: Installation) -> None:
    github.fail("GET", "/installation$", 200, body=b'{"id": "x", "app_slug": "y", "permissions": {}}')


def stranger(github: GitHubServer, made: Installation) -> None:
    github.fail("POST", "/access_tokens$", 201, body=b'{"token": "x", "expires_at": "tomorrow"}')


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (not_installed, "github.app-not-installed", "not installed on `repo`"),
        (elsewhere, "github.app-not-installed", "not installed on `repo`"),
        (unknown, "github.app-refused", "Integration not found"),
        (another_key, "github.app-refused", "could not be decoded"),
        (suspended, "github.app-refused", "has been suspended"),
        (took_back, "github.app-refused", "not granted"),
        (weak, "github.app-permissions", "lacks `contents: read`, `checks: write` here"),
        (limited, "github.rate-limited", "until"),
        (strange, "github.bad-answer", "not look as documented"),
        (stranger, "github.bad-answer", "not look as documented"),
    ],
)
def test_every_refusal_has_its_own_next_step(
    github: GitHubServer, clock: FakeClock, installed: Installation, spoil: Any, code: str, words: str
) -> None:
    spoil(github, installed)
    ours = app(github, clock)
    with pytest.raises(ForgeError, match=words) as caught:
        ours.token()
    assert caught.value.code == code
    assert "PRIVATE KEY" not in f"{caught.value!r} {caught.value.next_step}"
    assert len(caught.value.next_step) > 20
    assert github.requests_to("GET", "/installation$")


KEYS = {
    "as GitHub gives it": lambda: pem(key()),
    "PKCS#8": lambda: pem(key(), PrivateFormat.PKCS8),
    "lines joined by \\n": lambda: pem(key()).replace("\n", "\\n"),
    "windows": lambda: pem(key()).replace("\n", "\r\n"),
    "one line": lambda: pem(key()).replace("\n", " "),
    "base64 of it": lambda: base64.b64encode(pem(key()).encode()).decode(),
    "quotes and space": lambda: f'  "{pem(key())}"\n',
}


@pytest.mark.parametrize("form", KEYS)
def test_a_key_is_taken_as_forms_and_shells_leave_it(github: GitHubServer, clock: FakeClock, installed: Installation, form: str) -> None:
    assert app(github, clock, private_key=KEYS[form](), app_id=" 4711\n").token() in github.tokens


BAD_KEYS = {
    "empty": lambda: "",
    "no key": lambda: "hello",
    "public": lambda: public(key()),
    "cut off": lambda: pem(key())[:300],
    "damaged": lambda: pem(key()).replace("A", "B"),
    "encrypted": lambda: pem(key(), PrivateFormat.PKCS8, b"secret"),
    "ed25519": lambda: pem(ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8),
    "openssh": lambda: pem(key(), PrivateFormat.OpenSSH),
}


@pytest.mark.parametrize("kind", BAD_KEYS)
def test_what_is_no_apps_key_is_refused_before_anything_is_sent(github: GitHubServer, clock: FakeClock, kind: str) -> None:
    with pytest.raises(ForgeError) as caught:
        app(github, clock, private_key=BAD_KEYS[kind]())
    assert caught.value.code == "github.app-key"
    assert github.requests == []


# --------------------------------------------------------------------------- wired into the world


def environment(github: GitHubServer, **more: str) -> dict[str, str]:
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_REPOSITORY": "org/repo",
        "GITHUB_API_URL": github.api_url,
        "GITHUB_SERVER_URL": github.url,
        "GITHUB_TOKEN": github.token,
        "DISPATCH_APP_ID": "4711",
        "DISPATCH_APP_PRIVATE_KEY": pem(key()),
        **more,
    }


def test_an_app_wins_over_the_token_for_every_request_and_for_git(
    github: GitHubServer, repo: Repository, installed: Installation, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from dispatcher.ports import PackageSpec

    world = for_github(read_inputs(environment(github)), Runner(None, None, True), "main")
    assert world.settings.app_slug == "our-trainer"
    assert world.forge is not None
    assert world.forge.commit_sha("main") == repo.sha("main")
    github.tokens.pop(github.token)
    package = world.archive().describe(repo.sha("main"), PackageSpec())
    assert [one.path for one in package.files] == ["train.py"]
    assert {one.login for one in github.requests} == {"our-trainer[bot]"}
    [token] = [value for value in github.tokens if re.fullmatch("ghs_[0-9]+x+", value)]
    assert f"::add-mask::{token}" in capsys.readouterr().err
    assert world.archive() is world.archive()


def test_a_token_alone_still_speaks_for_itself(github: GitHubServer, repo: Repository) -> None:
    given = environment(github, DISPATCH_APP_ID="", DISPATCH_APP_PRIVATE_KEY="")
    world = for_github(read_inputs(given), Runner(None, None, False), "main")
    assert world.forge is not None
    assert world.forge.commit_sha("main") == repo.sha("main")
    assert {one.login for one in github.requests} == {"github-actions[bot]"}


@pytest.mark.parametrize(("key_given", "guarded"), [(True, True), (False, False)])
def test_an_apps_key_is_guarded_from_local_runs_like_the_clusters(
    github: GitHubServer, repo: Repository, installed: Installation, key_given: bool, guarded: bool
) -> None:
    given = environment(github) if key_given else environment(github, DISPATCH_APP_ID="", DISPATCH_APP_PRIVATE_KEY="")
    assert for_github(read_inputs(given), Runner(None, None, False), "main").settings.guards_key is guarded


def test_an_enterprise_server_has_apps_too(clock: FakeClock) -> None:
    with GitHubServer(prefix="/api/v3") as server:
        repo = server.create_repository("org/repo", {"a": "b"})
        server.install(OURS, "org", dict(GRANTED))
        forge = GitHubForge("org/repo", app(server, clock), server.api_url, clock=clock)
        assert forge.commit_sha("main") == repo.sha("main")
        assert server.violations == []


def test_an_app_needs_no_token_at_all(github: GitHubServer, repo: Repository, installed: Installation) -> None:
    world = for_github(read_inputs(environment(github, GITHUB_TOKEN="")), Runner(None, None, False), "main")
    assert world.forge is not None
    assert world.forge.commit_sha("main") == repo.sha("main")


def test_a_terminal_may_be_an_app_too(github: GitHubServer, repo: Repository, installed: Installation, tmp_path: Path) -> None:
    inputs = read_inputs(environment(github, GITHUB_TOKEN="", GITHUB_ACTIONS=""))
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    world = with_forge(inputs, for_terminal(inputs, Runner(None, None, False), tmp_path))
    assert world.forge is not None
    assert world.forge.commit_sha("main") == repo.sha("main")


@pytest.mark.parametrize("name", ["app-id", "app-private-key"])
def test_half_an_app_is_none(github: GitHubServer, name: str) -> None:
    variable = {given.name: given.variable for given in INPUTS}[name]
    with pytest.raises(InputError, match=f"no `{name}`") as caught:
        for_github(read_inputs(environment(github, **{variable: ""})), Runner(None, None, False), "main")
    assert caught.value.code == "input.missing"


# --------------------------------------------------------------------------- the stand-in itself


def signed(github: GitHubServer, **claims: Any) -> requests.Response:
    now = int(datetime.now(timezone.utc).timestamp())
    whole = {
        "iat": now - 10,
        "exp": now + 60,
        "iss": "4711",
        **{name: now + value for name, value in claims.items() if isinstance(value, int)},
    }
    text = jwt.encode({**whole, **{name: value for name, value in claims.items() if not isinstance(value, int)}}, pem(key()), "RS256")
    return requests.get(f"{github.api_url}/app", headers={"Authorization": f"Bearer {text}"}, timeout=10)


@pytest.mark.parametrize(
    ("claims", "status", "words"),
    [
        ({}, 200, ""),
        ({"exp": 599}, 200, ""),
        ({"exp": 700}, 401, "too far in the future"),
        ({"exp": -1}, 401, "future time at which the assertion expires"),
        ({"iat": 60}, 401, "'Issued at'"),
        ({"iss": "12"}, 404, "Integration not found"),
    ],
)
def test_what_an_app_signs_is_held_to_githubs_rules(
    github: GitHubServer, installed: Installation, claims: dict[str, Any], status: int, words: str
) -> None:
    answer = signed(github, **claims)
    assert answer.status_code == status
    assert words in answer.json().get("message", "")


def test_an_apps_own_name_opens_nothing_else_and_a_token_is_no_app(github: GitHubServer, clock: FakeClock, installed: Installation) -> None:
    ours = app(github, clock)
    for path, token in (("/repos/org/repo/commits/main", ours._http._account.token()), ("/app", ours.token())):
        headers = {"Authorization": f"Bearer {token}"}
        assert requests.get(github.api_url + path, headers=headers, timeout=10).status_code == 401


def test_a_token_reaches_no_further_than_it_was_asked_for(github: GitHubServer, clock: FakeClock, installed: Installation) -> None:
    headers = {"Authorization": f"Bearer {app(github, clock).token()}"}
    assert requests.get(f"{github.api_url}/repos/org/repo/commits/main", headers=headers, timeout=10).status_code == 200
    assert requests.get(f"{github.api_url}/repos/org/other/commits/main", headers=headers, timeout=10).status_code == 404
