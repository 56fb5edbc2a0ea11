"""`github` → a stand-in GitHub for one test, which fails if anything that was sent or answered is not as GitHub describes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.github_server import GitHubServer


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    """An empty GitHub with one token (`github.token`), that of a job with the documented permissions."""
    with GitHubServer() as server:
        yield server
        assert server.violations == []
