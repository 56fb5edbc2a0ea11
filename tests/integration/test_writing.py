"""Several files at once: all of them or none, whatever breaks in between; and where this program's own sources come from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dispatcher import __version__
from dispatcher.effects.checkout import default_branch, origin_url
from dispatcher.effects.origin import checkout_action
from dispatcher.effects.writing import write_all
from dispatcher.errors import InputError


def tree(root: Path) -> dict[str, str | None]:
    """Everything below a folder: a file's text, None for a folder."""
    return {str(path.relative_to(root)): path.read_text() if path.is_file() else None for path in sorted(root.rglob("*"))}


def test_new_and_replaced_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "old").write_text("old")
    (tmp_path / "b" / "old").chmod(0o600)
    write_all(tmp_path, {"a/b/c": "new é\n", "b/old": "changed", "top": ""})
    assert tree(tmp_path) == {"a": None, "a/b": None, "a/b/c": "new é\n", "b": None, "b/old": "changed", "top": ""}
    assert (tmp_path / "b" / "old").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("blocked", ["b/c/file", "b", "dir"])
def test_when_one_cannot_be_written_nothing_is_changed(tmp_path: Path, blocked: str) -> None:
    (tmp_path / "b").write_text("a file where a folder would be")
    (tmp_path / "dir").mkdir()
    (tmp_path / "old").write_text("old")
    before = tree(tmp_path)
    texts = {"a/new": "1", "old": "2", "dir" if blocked == "dir" else "b/c/file": "3"}
    with pytest.raises(InputError) as refused:
        write_all(tmp_path, texts)
    assert refused.value.code == "input.not-written"
    assert tree(tmp_path) == before


class Interrupted(dict[str, str]):
    """Texts in whose middle somebody presses Ctrl-C."""

    def items(self):  # type: ignore[no-untyped-def]
        yield from list(super().items())
        raise KeyboardInterrupt


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_all(tmp_path, Interrupted({"a/b/new": "1", "old": "2"}))
    assert tree(tmp_path) == {"old": "old"}


@pytest.mark.skipif(os.geteuid() != 0, reason="takes chattr, which is root's")
def test_what_was_moved_already_is_moved_back(tmp_path: Path) -> None:
    """The last file cannot be replaced, which is found out only when the others have been."""
    for name in ("first", "second"):
        (tmp_path / name).write_text("old")
    if subprocess.run(["chattr", "+i", str(tmp_path / "second")], capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(InputError):
            write_all(tmp_path, {"first": "new", "a/new": "new", "second": "new"})
        assert tree(tmp_path) == {"first": "old", "second": "old"}
    finally:
        subprocess.run(["chattr", "-i", str(tmp_path / "second")], check=True)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_the_sources_say_where_they_come_from(tmp_path: Path) -> None:
    assert checkout_action(tmp_path) is None
    git(tmp_path, "init", "-q", "-b", "trunk")
    assert checkout_action(tmp_path) is None
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
    assert checkout_action(tmp_path) is None
    assert (origin_url(tmp_path), default_branch(tmp_path)) == ("", "trunk")
    git(tmp_path, "remote", "add", "origin", "git@github.com:org/nemotron-dispatch.git")
    found = checkout_action(tmp_path)
    assert found is not None
    assert found.uses.startswith(f"org/nemotron-dispatch@{git(tmp_path, 'rev-parse', 'HEAD')} # after v")
    git(tmp_path, "tag", f"v{__version__}")
    released = checkout_action(tmp_path)
    assert released is not None
    assert released.version == f"v{__version__}"
    git(tmp_path, "update-ref", "refs/remotes/origin/main", "HEAD")
    git(tmp_path, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    assert default_branch(tmp_path) == "main"
