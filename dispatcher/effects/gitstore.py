"""Git as a source of verified objects: object ids → bytes, from a checkout that happens to be there, from a cache, or fetched.

Nobody's configuration is read: git runs in repositories of our own making (three small files), and a checkout takes part only as a
folder of objects (`GIT_ALTERNATE_OBJECT_DIRECTORIES`), so that hooks, filters, fsmonitor, `core.sshCommand`, `insteadOf` and promisor
remotes in its `.git/config` never come to life. Reading and fetching use different repositories: only the fetching one knows a remote,
so nothing is ever fetched behind our back. Every object's content is hashed again when it is read.

Environment variables: https://git-scm.com/docs/git#_environment_variables
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dispatcher.effects.gitfetch import make_repository
from dispatcher.errors import GitError

_SHA = re.compile(r"[0-9a-f]{40}")
_AHEAD = 256
"""Requests to cat-file that wait for their answer: 256 × 41 bytes fit into every system's pipe, so writing never blocks."""
_PIECE = 256 * 1024

# What git needs from our surroundings; nothing that begins with GIT_ and changes what it does, and no secrets of ours.
_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|TMPDIR|LD_LIBRARY_PATH|SSH_AUTH_SOCK|SSL_CERT_(FILE|DIR)|GIT_SSL_CA(INFO|PATH)|(HTTPS?|ALL|NO)_PROXY|(https?|all|no)_proxy"
)
_FIXED = {
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
}
# Blobs above 1 MB are streamed rather than held, and packs are mapped in small windows: memory stays flat whatever the size.
READING_CONFIG = """\
[core]
\trepositoryformatversion = 0
\tbare = true
\tbigFileThreshold = 1m
\tpackedGitWindowSize = 4m
\tpackedGitLimit = 16m
\tdeltaBaseCacheLimit = 32m
\tcommitGraph = false
\thooksPath = /dev/null
[protocol]
\tallow = never
"""


def check_sha(sha: str) -> str:
    """The SHA itself if it is 40 lower-case hex digits; else GitError `git.bad-sha`."""
    if not _SHA.fullmatch(sha):
        raise GitError("git.bad-sha", f"{sha[:60]!r} is not a full commit SHA of 40 hex digits.")
    return sha


@dataclass
class GitObject:
    """An object as it comes out of git: `kind` is blob, tree, commit or tag, or empty when the object is not there; read `chunks` once."""

    oid: str
    kind: str
    size: int
    chunks: Iterator[bytes]

    def read(self) -> bytes:
        """The whole content; only for what is known to be small."""
        return b"".join(self.chunks)


class ObjectStore:
    """Objects of one archive and its submodules, in a folder of its own (temporary, or under `cache` when one is given)."""

    def __init__(self, workspace: Path | None, cache: Path | None, git: str) -> None:
        self._git = git
        folder = tempfile.mkdtemp(prefix="nemotron-dispatch-git-")
        self._finalizer = weakref.finalize(self, shutil.rmtree, folder, True)
        self.folder = Path(folder)
        self._objects = (cache.absolute() if cache else self.folder) / "objects"
        try:
            self._objects.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GitError("git.cache", f"{self._objects} cannot be made: {error.strerror}.") from error
        kept = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
        self.env = {**kept, **_FIXED, "GIT_OBJECT_DIRECTORY": str(self._objects)}
        """What a fetching git needs besides a repository; it never sees the checkout."""
        reading = make_repository(self.folder / "read", READING_CONFIG)
        alternates = os.pathsep.join(_quoted(path) for path in object_folders(workspace)) if workspace else ""
        self._reading_env = {**self.env, "GIT_DIR": str(reading), "GIT_ALTERNATE_OBJECT_DIRECTORIES": alternates}

    def close(self) -> None:
        """Removes the temporary folder."""
        self._finalizer()

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """A `git cat-file` process to ask; it ends with the block."""
        process = self._start(["cat-file", "--batch"])
        try:
            yield Reader(process)
        finally:
            process.kill()
            process.communicate()

    def sizes(self, oids: Iterable[str]) -> dict[str, int]:
        """Bytes of every object that is there; those that are not there are left out."""
        wanted = "".join(f"{oid}\n" for oid in dict.fromkeys(oids))
        if not wanted:
            return {}
        process = self._start(["cat-file", "--batch-check", "--buffer"])
        out, _ = process.communicate(wanted.encode("ascii"))
        rows = (line.split() for line in out.decode("ascii", "replace").splitlines())
        return {row[0]: int(row[2]) for row in rows if len(row) == 3 and row[2].isdigit()}

    def submodules(self, gitmodules: bytes) -> dict[str, str]:
        """`.gitmodules` → {path: url}, read by git's own parser from its standard input, includes left alone."""
        process = self._start(["config", "--no-includes", "--file", "-", "--null", "--list"])
        out, _ = process.communicate(gitmodules)
        if process.returncode:
            raise GitError("git.submodule", "The commit's .gitmodules cannot be read as a git configuration.")
        values: dict[str, dict[str, str]] = {}
        for item in out.decode("utf-8", "surrogateescape").split("\0"):
            key, _, value = item.partition("\n")
            section, _, field = key.rpartition(".")
            if section.startswith("submodule.") and field in ("path", "url"):
                values.setdefault(section, {})[field] = value
        return {entry["path"].rstrip("/"): entry["url"] for entry in values.values() if "path" in entry and "url" in entry}

    def _start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        """Starts git on the reading repository."""
        try:
            return subprocess.Popen(
                [self._git, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._reading_env,
                cwd=self.folder,
            )
        except OSError as error:
            raise GitError("git.not-found", f"{self._git} cannot be started: {error.strerror}.") from error


class Reader:
    """One `git cat-file --batch`: https://git-scm.com/docs/git-cat-file#_batch_output."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        self._in, self._out = process.stdin, process.stdout

    def objects(self, oids: Sequence[str]) -> Iterator[GitObject]:
        """The objects in the order asked for, each to be read before the next. Raises GitError `git.corrupt` when content and id differ."""
        waiting = iter(oids)
        self._ask(islice(waiting, _AHEAD))
        for oid in oids:
            header = self._out.readline().split()
            self._ask(islice(waiting, 1))
            if len(header) == 2 and header[1] == b"missing":
                yield GitObject(oid, "", 0, iter(()))
                continue
            if len(header) != 3 or header[0] != oid.encode():
                raise GitError("git.corrupt", f"git could not read the object {oid}.")
            found = GitObject(oid, header[1].decode(), int(header[2]), self._content(oid, header[1], int(header[2])))
            yield found
            for _ in found.chunks:
                pass

    def _ask(self, oids: Iterable[str]) -> None:
        """Writes requests; when git has died, reading its answer will say so."""
        try:
            self._in.write("".join(f"{oid}\n" for oid in oids).encode("ascii"))
            self._in.flush()
        except BrokenPipeError:
            pass

    def _content(self, oid: str, kind: bytes, size: int) -> Iterator[bytes]:
        """Exactly `size` bytes in pieces, hashed on the way, and the newline after them."""
        seen = hashlib.sha1(b"%b %d\0" % (kind, size), usedforsecurity=False)
        left = size
        while left:
            piece = self._out.read(min(_PIECE, left))
            if not piece:
                raise GitError("git.corrupt", f"git could not read the object {oid} to its end.")
            seen.update(piece)
            left -= len(piece)
            yield piece
        self._out.read(1)
        if seen.hexdigest() != oid:
            raise GitError("git.corrupt", f"The object {oid} has other content than its id says.")


def object_folders(workspace: Path) -> tuple[Path, ...]:
    """The object folders of a checkout, linked worktree, submodule or bare repository, and of its submodules; empty when it is none.

    Found by looking at files alone: asking git would make it read the checkout's configuration.
    """
    for folder in (workspace.absolute(), *workspace.absolute().parents):
        found = _git_folder(folder)
        if found:
            break
    else:
        return ()
    folders = [found / "objects"]
    for here, names, files in os.walk(found / "modules"):
        if "HEAD" in files and "objects" in names:
            folders.append(Path(here, "objects"))
            names[:] = [name for name in names if name == "modules"]
    return tuple(folder for folder in folders if folder.is_dir())


def _git_folder(folder: Path) -> Path | None:
    """`folder/.git` (or `folder` itself, when bare), through `gitdir:` files and `commondir`."""
    try:
        git = folder / ".git"
        if git.is_file():
            git = folder / git.read_text().removeprefix("gitdir:").strip()
        elif not git.is_dir():
            git = folder
        if not (git / "HEAD").is_file():
            return None
        common = git / "commondir"
        return (git / common.read_text().strip() if common.is_file() else git).resolve()
    except (OSError, ValueError):
        return None


def _quoted(path: Path) -> str:
    """A path for a list whose separator may be part of it."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
