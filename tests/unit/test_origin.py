"""What an installer wrote down → the action and its commit."""

from __future__ import annotations

import json

import pytest

from dispatcher import __version__
from dispatcher.effects.origin import recorded_action, repository_on_github

SHA = "0123456789abcdef0123456789abcdef01234567"


def direct(url: str, commit: str = SHA, revision: str | None = None) -> str:
    vcs = {"vcs": "git", "commit_id": commit, **({"requested_revision": revision} if revision else {})}
    return json.dumps({"url": url, "vcs_info": vcs})


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        (direct("https://github.com/org/nemotron-dispatch.git", revision="v1.2.3"), f"org/nemotron-dispatch@{SHA} # v1.2.3"),
        (direct("https://github.com/org/nemotron-dispatch", revision="main"), f"org/nemotron-dispatch@{SHA} # after v{__version__} or "),
        (direct("ssh://git@github.com/org/nemotron-dispatch.git"), f"org/nemotron-dispatch@{SHA} # after"),
    ],
)
def test_an_installation_from_a_repository(text: str, uses: str) -> None:
    found = recorded_action(text)
    assert found is not None
    assert found.uses.startswith(uses)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        "[]",
        '{"vcs_info": []}',
        '{"url": "file:///src", "dir_info": {"editable": true}}',
        direct("https://github.com/org/nemotron-dispatch", commit="abc"),
        direct("file:///src/nemotron-dispatch"),
    ],
)
def test_an_installation_that_does_not_say(text: str | None) -> None:
    assert recorded_action(text) is None


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("git@github.com:org/repo.git", "org/repo"),
        ("https://github.com/org/repo/", "org/repo"),
        ("ssh://git@github.com/org/repo", "org/repo"),
        ("/srv/git/repo", None),
        ("../repo", None),
        ("", None),
        ("https://github.com/org/repo;rm", None),
    ],
)
def test_a_remote(url: str, name: str | None) -> None:
    assert repository_on_github(url) == name
