"""A checkout on this machine, asked through git: where it begins, its commits, its origin and that one's default branch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from dispatcher.errors import InputError


def top_folder(start: Path) -> Path:
    """The checkout that a folder lies in."""
    found = _git(start, "rev-parse", "--show-toplevel")
    if not found:
        raise InputError("input.missing", f"{start} is not in a git repository.", "Go into a checkout, or name one with `--repo`.")
    return Path(found)


def commit_at(folder: Path, name: str) -> str:
    """The full SHA of a commit of the checkout."""
    found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if not found:
        raise InputError("input.missing", f"{name!r} names no commit of {folder}.", "Give a branch, a tag or a SHA that `git log` shows.")
    return found


def uncommitted(folder: Path) -> bool:
    """Whether the checkout has changes that no commit has: they will not travel."""
    return bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))


def repository_name(folder: Path) -> str:
    """`owner/name` from the checkout's origin, or the folder's own name where there is none."""
    url = origin_url(folder).removesuffix(".git").rstrip("/")
    parts = [part for part in url.replace(":", "/").split("/") if part]
    return "/".join(parts[-2:]) if len(parts) >= 2 else f"local/{folder.name}"


def origin_url(folder: Path) -> str:
    """Where the checkout's origin is; empty where there is none."""
    return _git(folder, "remote", "get-url", "origin")


def default_branch(folder: Path) -> str:
    """The origin's default branch as the checkout remembers it, else the branch that is checked out, else `main`."""
    remembered = _git(folder, "symbolic-ref", "--quiet", "refs/remotes/origin/HEAD").removeprefix("refs/remotes/origin/")
    return remembered or _git(folder, "symbolic-ref", "--quiet", "--short", "HEAD") or "main"


def _git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise InputError("input.missing", "There is no `git` on PATH.", "Install git.") from None
    return done.stdout.strip() if done.returncode == 0 else ""
