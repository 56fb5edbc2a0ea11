"""This installation → the repository and the commit that it came from, which is what a workflow should pin; None when nothing says so."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from dispatcher import __version__
from dispatcher.effects.checkout import commit_at, origin_url
from dispatcher.errors import InputError
from dispatcher.workflows import ActionRef

_RELEASE = re.compile(r"v\d+\.\d+\.\d+")
_GITHUB = re.compile(r"(?:git\+)?(?:https://|ssh://git@|git@)[^/:]+[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?", re.ASCII)


def installed_action() -> ActionRef | None:
    """By what the installer wrote down (https://packaging.python.org/en/latest/specifications/direct-url/), else by the source checkout."""
    return recorded_action(_direct_url()) or checkout_action(Path(__file__).parents[2])


def recorded_action(direct_url: str | None) -> ActionRef | None:
    """The text of `direct_url.json` → the commit that was installed from a repository."""
    try:
        told = json.loads(direct_url or "{}")
        vcs, url = told.get("vcs_info", {}), str(told.get("url", ""))
        commit, asked = str(vcs.get("commit_id", "")), str(vcs.get("requested_revision", ""))
    except (ValueError, AttributeError):
        return None
    name = repository_on_github(url)
    if not name or not re.fullmatch(r"[0-9a-f]{40}", commit):
        return None
    return ActionRef(name, commit, asked if _RELEASE.fullmatch(asked) else _unreleased())


def checkout_action(folder: Path) -> ActionRef | None:
    """The HEAD of a checkout with an `origin`, when the program runs from its sources."""
    name = repository_on_github(origin_url(folder)) if (folder / ".git").exists() else None
    commit = _commit(folder, "HEAD")
    if not name or not commit:
        return None
    release = f"v{__version__}"
    return ActionRef(name, commit, release if _commit(folder, f"refs/tags/{release}") == commit else _unreleased())


def repository_on_github(url: str) -> str | None:
    """A remote's address → `owner/name`; None for a path, or an address of another shape."""
    found = _GITHUB.fullmatch(url)
    return found[1] if found else None


def _commit(folder: Path, name: str) -> str | None:
    try:
        return commit_at(folder, name)
    except InputError:
        return None


def _unreleased() -> str:
    return f"after v{__version__} or on the way to it"


def _direct_url() -> str | None:
    try:
        return distribution("nemotron-dispatch").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
