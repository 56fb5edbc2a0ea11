"""Raw git objects → checked tree entries, the selection that is packed, and the package's digest. All of it untrusted, none of it I/O.

Format of a tree: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects (`<mode> <name>\\0<20 bytes>` for every entry).
Git itself lets a crafted tree through when it fetches, so names that would escape from the folder they are unpacked in stop here.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dispatcher.errors import ConfigError, GitError
from dispatcher.ports import FileEntry

_FILE_MODES = {"100644": "100644", "100664": "100644", "100755": "100755", "120000": "120000"}
_DIGEST_HEADER = b"nemotron-dispatch package 1\n"


@dataclass(frozen=True)
class TreeEntry:
    """One name in a folder: mode 40000 (folder), 100644, 100755, 120000 (symbolic link) or 160000 (submodule), and the object's id."""

    name: str
    mode: str
    oid: str

    @property
    def is_tree(self) -> bool:
        """A folder."""
        return self.mode == "40000"

    @property
    def is_submodule(self) -> bool:
        """A commit of another repository."""
        return self.mode == "160000"


def parse_tree(raw: bytes, folder: str) -> tuple[TreeEntry, ...]:
    """The entries of a tree object. Names that are not UTF-8 keep their bytes (surrogateescape). Raises GitError `git.unsafe-tree`."""
    entries: dict[str, TreeEntry] = {}
    at = 0
    while at < len(raw):
        space = raw.find(b" ", at)
        end = raw.find(b"\0", space)
        if space < 0 or end < 0 or end + 21 > len(raw):
            raise _unsafe(folder, "is not a well-formed tree")
        mode = raw[at:space].decode("ascii", "replace").lstrip("0")
        name = raw[space + 1 : end].decode("utf-8", "surrogateescape")
        _check_name(name, folder)
        if name in entries:
            raise _unsafe(folder, f"has the name {show(name)} twice")
        if mode not in ("40000", "160000") and mode not in _FILE_MODES:
            raise _unsafe(folder, f"has {show(name)} with the unknown mode {show(mode)}")
        entries[name] = TreeEntry(name, _FILE_MODES.get(mode, mode), raw[end + 1 : end + 21].hex())
        at = end + 21
    return tuple(entries.values())


def _check_name(name: str, folder: str) -> None:
    """Refuses names that mean something else than a new file in this folder."""
    if name in ("", ".", "..") or "/" in name or name.lower() == ".git":
        raise _unsafe(folder, f"has an entry named {show(name)}")


def _unsafe(folder: str, what: str) -> GitError:
    return GitError("git.unsafe-tree", f"The folder {show(folder or '/')} of the commit {what}.")


def tree_of_commit(raw: bytes) -> str:
    """The tree id in a commit object; raises ValueError when it is none."""
    header = raw[:46]
    if not header.startswith(b"tree ") or header[45:46] != b"\n":
        raise ValueError("not a commit")
    return header[5:45].decode("ascii")


def show(text: str) -> str:
    """A name from outside, for a message: quoted, control characters and broken UTF-8 escaped, at most 120 characters."""
    return repr(text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))[:120]


def split_path(path: str) -> tuple[str, ...]:
    """`a/b` → (`a`, `b`); raises GitError `git.bad-path` when it is absolute or has `..` in it. A trailing slash and `./` are no matter."""
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise GitError("git.bad-path", f"{show(path)} is not a path inside the repository.")
    return parts


def nearest_folder(name: str, entries: Iterable[TreeEntry]) -> str | None:
    """The folder among `entries` whose name is most like `name`."""
    names = [entry.name for entry in entries if entry.is_tree or entry.is_submodule]
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.5)), None)


def select(files: Sequence[FileEntry], patterns: Sequence[str]) -> tuple[FileEntry, ...]:
    """The files that gitwildmatch patterns choose, seen from the archive's root; all when there are none, sorted by the bytes of the path.

    Raises ConfigError for a pattern that is none and GitError `git.nothing-packed` when the patterns choose nothing.
    """
    chosen: Iterable[FileEntry] = files
    if patterns:
        # Imported here because it takes 50 ms, and most packages have no patterns.
        from pathspec import GitIgnoreSpec

        try:
            spec = GitIgnoreSpec.from_lines(patterns)
        except ValueError as error:
            raise ConfigError("config.invalid", f"include_pattern: {error}") from error
        chosen = [entry for entry in files if spec.match_file(entry.path)]
        if not chosen:
            raise GitError("git.nothing-packed", f"No file of the commit matches {', '.join(show(pattern) for pattern in patterns)}.")
    return tuple(sorted(chosen, key=lambda entry: path_bytes(entry.path)))


def path_bytes(path: str) -> bytes:
    """A path as git has it."""
    return path.encode("utf-8", "surrogateescape")


def digest_of(files: Sequence[FileEntry]) -> str:
    """64 hex digits over the sorted (path, mode, blob id) lines, so that two commits which pack the same have the same digest."""
    digest = hashlib.sha256(_DIGEST_HEADER)
    for entry in sorted(files, key=lambda entry: path_bytes(entry.path)):
        digest.update(b"%b\0%b %b\n" % (path_bytes(entry.path), entry.mode.encode(), entry.blob.encode()))
    return digest.hexdigest()
