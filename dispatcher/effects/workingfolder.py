"""A person's checkout as it lies → what it packs, one of its files, or a tar of it: the `Archive` port for `--working-folder`.

Only at a terminal: whoever has the folder has written or pulled what is in it. Files are named by git (tracked, and for patterns those that
are not), and hashed to the ids that they would have as blobs, so that a package of the same files is the same, and another is sent as a
difference. Links are packed as links, nothing is read through one, and `.git` never travels. https://git-scm.com/docs/git-ls-files
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from typing_extensions import assert_never

from dispatcher.errors import GitError
from dispatcher.gittree import digest_of, select, show, split_path
from dispatcher.ports import AnySpec, Archive, Choice, FileEntry, HybridSpec, NothingSpec, Package, PackageSpec, PatternSpec
from dispatcher.selection import chosen, combined, named_exactly
from dispatcher.tarball import Member, tar_gz

_PIECE = 256 * 1024
_TEXT_CAP = 1024 * 1024
_LFS_HEAD = b"version https://git-lfs.github.com/spec/"
_SUBMODULE = "160000"


@dataclass(frozen=True)
class _Listed:
    """Files of the checkout and its submodules: what git keeps, and what it neither keeps nor ignores."""

    tracked: tuple[FileEntry, ...]
    others: tuple[FileEntry, ...]


class WorkingFolder:
    """Packs `folder`, the top of a checkout. `committed` has its commits: where nothing differs, the package is the commit's own.

    While files are only listed, `FileEntry.blob` is the path in the folder; content is read for what is packed. A package of more than
    `max_files` files or `max_bytes` bytes is refused.
    """

    def __init__(
        self, folder: Path, committed: Archive, git: str = "git", *, max_files: int = 200_000, max_bytes: int = 50 * 1024**3
    ) -> None:
        self._folder, self._committed, self._git = folder, committed, git
        self._max_files, self._max_bytes = max_files, max_bytes
        self._sources: dict[str, dict[str, str]] = {}

    def describe(self, sha: str, spec: AnySpec) -> Package:
        """Lists what the folder packs; `sha` is the commit that it is based on. Raises GitError.

        It is the commit's own package only where no file of the folder differs: one that is not packed may still be read.
        """
        files, sources, pointers = self._described(spec)
        digest = digest_of(files)
        if digest == self._digest_of_commit(sha, spec) and self._is_clean(sha, spec):
            return self._committed.describe(sha, spec)
        self._sources[digest] = {entry.path: source for entry, source in zip(files, sources, strict=True)}
        return Package(sha, digest, files, pointers, uncommitted=True)

    def _described(self, spec: AnySpec) -> tuple[tuple[FileEntry, ...], tuple[str, ...], tuple[str, ...]]:
        """The package's files, where each lies in the folder, and which of them stand for others in Git LFS."""
        found = self._files(spec)
        if len(found) > self._max_files:
            raise GitError("git.too-big", f"The package has more than {self._max_files} files.")
        size = sum(entry.size for entry in found)
        if size > self._max_bytes:
            raise GitError("git.too-big", f"The files have {size} bytes; at most {self._max_bytes} are packed.")
        hashed = [self._hashed(entry) for entry in found]
        pointers = tuple(entry.path for entry, is_pointer in hashed if is_pointer)
        return tuple(entry for entry, _ in hashed), tuple(entry.blob for entry in found), pointers

    def read_text(self, sha: str, path: str) -> str | None:
        """One regular file that git keeps or that is packed, at most 1 MiB of UTF-8; None when there is none (links are not followed)."""
        entry = self._entry("/".join(split_path(path)))
        if entry is None or entry.mode == "120000" or not self._is_known(entry.path):
            return None
        if entry.size > _TEXT_CAP:
            raise GitError("git.too-big", f"{show(path)} has {entry.size} bytes; at most {_TEXT_CAP} are read.")
        try:
            return b"".join(self._content(entry.blob, entry)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise GitError("git.not-text", f"{show(path)} is not UTF-8 text (byte {error.start}).") from None

    def stream(self, package: Package, only: frozenset[str] | None = None) -> Iterator[bytes]:
        """A gzip'd tar of the package, or of the paths in `only`. Raises GitError `git.changed` for a file that is not what it was."""
        sources = self._sources.get(package.digest)
        if sources is None:
            yield from self._committed.stream(package, only)
            return
        files = [entry for entry in package.files if only is None or entry.path in only]
        yield from tar_gz(Member(entry, entry.size, self._checked(sources[entry.path], entry)) for entry in files)

    # ------------------------------------------------------------------ which files

    def _files(self, spec: AnySpec) -> tuple[FileEntry, ...]:
        """The package's files, sorted, each with its place in the folder instead of a blob's id."""
        match spec:
            case PackageSpec():
                found = self._below(spec)
                return combined([("", found), ("", self._chosen(spec.more, spec.include_submodules))]) if spec.more else found
            case PatternSpec():
                return combined([("", self._chosen(spec.choices, True))])
            case HybridSpec():
                return combined([("" if spec.extract_at_root else name, self._files(part)) for name, part in spec.parts])
            case NothingSpec():
                return ()
            case _:
                assert_never(spec)

    def _below(self, spec: PackageSpec) -> tuple[FileEntry, ...]:
        """What git keeps below one folder, or what patterns choose of it."""
        folder = "/".join(split_path(spec.subpath))
        files = self._listed(spec.include_submodules).tracked
        if folder:
            if not (self._folder / folder).is_dir():
                raise GitError("git.no-subpath", f"{show(folder)} is not a folder of {self._folder}.")
            below = [entry for entry in files if entry.path.startswith(f"{folder}/")]
            files = tuple(replace(entry, path=entry.path[len(folder) + 1 :]) for entry in below)
        return select(files, spec.include_pattern)

    def _chosen(self, choices: Sequence[Choice], include_submodules: bool) -> tuple[FileEntry, ...]:
        """What patterns choose of everything that is not ignored, and of what is ignored where they name it without a wildcard."""
        listed = self._listed(include_submodules)
        files = {entry.path: entry for entry in (*listed.tracked, *listed.others)}
        for name in named_exactly(choices):
            files.update({entry.path: entry for entry in self._walked(name) if entry.path not in files})
        return chosen(sorted(files.values(), key=lambda entry: entry.path), choices)

    def _listed(self, include_submodules: bool, at: str = "") -> _Listed:
        """What git says of one repository, and of its submodules."""
        tracked: list[FileEntry] = []
        others = [found for path in self._ask(at, "--others", "--exclude-standard") if (found := self._entry(_join(at, path)))]
        for line in dict.fromkeys(self._ask(at, "--stage")):
            about, _, path = line.partition("\t")
            path = _join(at, path)
            if about.split(" ")[0] != _SUBMODULE:
                tracked += [found] if (found := self._entry(path)) else []
            elif include_submodules:
                if not os.path.lexists(self._folder / path / ".git"):
                    words = f"The submodule {show(path)} is not there."
                    raise GitError("git.submodule", words, "Run `git submodule update --init --recursive`, or leave submodules out.")
                inner = self._listed(True, path)
                tracked += inner.tracked
                others += inner.others
        return _Listed(tuple({entry.path: entry for entry in tracked}.values()), tuple(others))

    def _ask(self, at: str, *arguments: str) -> list[str]:
        """`git ls-files`, without programs that the repository's configuration names."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = [self._git, "-C", str(self._folder / at), "-c", "core.fsmonitor=false", "ls-files", "-z", *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, env={**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}, stdin=subprocess.DEVNULL, check=False
            )
        except OSError as error:
            raise GitError("git.not-found", f"{self._git} cannot be started: {error.strerror}.") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[:300]
            raise GitError("git.corrupt", f"git cannot list the files of {self._folder / at}: {said}.")
        return [path for path in done.stdout.decode("utf-8", "surrogateescape").split("\0") if path]

    def _walked(self, name: str) -> Iterator[FileEntry]:
        """A file, or all files below a folder."""
        found = self._entry(name)
        if found is not None:
            yield found
        if self._through_a_link(name) or (self._folder / name).is_symlink():
            return
        for here, folders, files in os.walk(self._folder / name):
            folders[:] = [folder for folder in folders if folder.lower() != ".git"]
            # A link to a folder is listed as a folder, and not gone into.
            links = [folder for folder in folders if os.path.islink(os.path.join(here, folder))]
            for file in (*files, *links):
                inner = self._entry(os.path.relpath(os.path.join(here, file), self._folder))
                if inner is not None:
                    yield inner

    def _entry(self, path: str) -> FileEntry | None:
        """A file or a link as it lies; None for what is not there, is a folder, belongs to git itself, or lies behind a link."""
        if path.endswith("/") or ".git" in path.lower().split("/") or self._through_a_link(path):
            return None
        try:
            about = os.lstat(self._folder / path)
        except OSError:
            return None
        if stat.S_ISLNK(about.st_mode):
            return FileEntry(path, "120000", path, len(os.fsencode(os.readlink(self._folder / path))))
        if not stat.S_ISREG(about.st_mode):
            return None
        return FileEntry(path, "100755" if about.st_mode & 0o100 else "100644", path, about.st_size)

    def _through_a_link(self, path: str) -> bool:
        parts = path.split("/")[:-1]
        return any((self._folder / "/".join(parts[: length + 1])).is_symlink() for length in range(len(parts)))

    # ------------------------------------------------------------------ their content

    def _hashed(self, entry: FileEntry) -> tuple[FileEntry, bool]:
        """The file with the id that it would have as a blob; and whether it stands for another in Git LFS."""
        digest, first = hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False), b""
        for piece in self._content(entry.blob, entry):
            digest.update(piece)
            first = first or piece[: len(_LFS_HEAD)]
        return replace(entry, blob=digest.hexdigest()), first == _LFS_HEAD and entry.size < 1024 and entry.mode != "120000"

    def _content(self, source: str, entry: FileEntry) -> Iterator[bytes]:
        """Exactly as many bytes as the file had."""
        path = self._folder / source
        try:
            if entry.mode == "120000":
                pieces: Iterable[bytes] = [os.fsencode(os.readlink(path))]
            else:
                pieces = _read(path)
            seen = 0
            for piece in pieces:
                seen += len(piece)
                yield piece
        except OSError as error:
            raise GitError("git.changed", f"{show(source)} cannot be read any more: {error.strerror}.") from None
        if seen != entry.size:
            raise GitError("git.changed", f"{show(source)} had {entry.size} bytes and has {seen} now.")

    def _checked(self, source: str, entry: FileEntry) -> Iterator[bytes]:
        """The content once more, held against what was described."""
        digest, seen = hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False), 0
        for piece in self._content(source, entry):
            seen += len(piece)
            if seen > entry.size:
                break
            digest.update(piece)
            yield piece
        if digest.hexdigest() != entry.blob or seen != entry.size:
            raise GitError("git.changed", f"{show(source)} is not what it was when the package was described.")

    def _is_known(self, path: str) -> bool:
        """Whether it is part of what runs: else a run could depend on a file of which no trace is left."""
        packed = any(path in sources.values() for sources in self._sources.values())
        return packed or bool(self._ask("", "--", f":(top,literal){path}"))

    def _is_clean(self, sha: str, spec: AnySpec) -> bool:
        """Whether all that git keeps is as the commit has it; what was just compared is not compared again."""
        whole = PackageSpec(include_submodules=False)
        return spec == PackageSpec() or digest_of(self._described(whole)[0]) == self._digest_of_commit(sha, whole)

    def _digest_of_commit(self, sha: str, spec: AnySpec) -> str:
        """The same package of the commit; empty where it has none, which is a difference."""
        try:
            return self._committed.describe(sha, spec).digest
        except GitError:
            return ""


def _read(path: Path) -> Iterator[bytes]:
    # A link, or a pipe that would be waited for, may have come in the file's place.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _join(at: str, path: str) -> str:
    return f"{at}/{path}" if at else path
