"""A commit's SHA → what it packs, one of its files, or a tar of it: the `Archive` port, made real with git objects alone.

Nothing is checked out: attributes, filters and hooks never run, and links are packed as links. Objects come from a checkout when it
has them, and are fetched when not, so it does not matter whether `actions/checkout` has run, nor how shallow it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dispatcher.effects.gitcommit import Commit
from dispatcher.effects.gitfetch import Fetcher
from dispatcher.effects.gitpack import Packing
from dispatcher.effects.gitstore import ObjectStore, Reader
from dispatcher.effects.gitwalk import find_folder
from dispatcher.errors import GitError
from dispatcher.gittree import digest_of, show
from dispatcher.giturl import GitUrl, parse_url
from dispatcher.ports import AnySpec, FileEntry, Package
from dispatcher.tarball import Member, tar_gz

_TEXT_CAP = 1024 * 1024
_LINK_CAP = 4096
_LFS_HEAD = b"version https://git-lfs.github.com/spec/"
# "Pointer files must be less than 1024 bytes": https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_LFS_CAP = 1024


class GitArchive:
    """Packs commits of the repository at `remote_url` (https, ssh, or a folder; "" to never fetch).

    `token` opens that host over https; a password in the url is taken as the token. `workspace` may be a checkout, whose objects are
    used and which is never written to nor read as a configuration; `cache` keeps fetched objects for the next process. `timeout` is in
    seconds for one fetch. A commit of more than `max_files` files or `max_bytes` bytes is refused, so that a few crafted trees cannot
    make a package without end. Raises GitError as the port says. `close()` removes temporary files; so does the end of the process.
    """

    def __init__(
        self,
        remote_url: str,
        token: str | None = None,
        workspace: Path | None = None,
        cache: Path | None = None,
        git: str = "git",
        *,
        timeout: float = 300,
        max_files: int = 200_000,
        max_bytes: int = 50 * 1024**3,
        progress: Callable[[str], None] = lambda words: None,
    ) -> None:
        root = _root(remote_url)
        self._store = ObjectStore(workspace, cache, git)
        self._fetcher = Fetcher(
            git, self._store.env, self._store.folder, root, token or (root.password or None if root else None), timeout, progress
        )
        self._max_files, self._max_bytes = max_files, max_bytes
        self._origins: dict[str, tuple[GitUrl, str]] = {}

    @property
    def requests(self) -> int:
        """How often something was fetched."""
        return self._fetcher.requests

    def close(self) -> None:
        """Removes what is temporary."""
        self._store.close()

    def __enter__(self) -> GitArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def describe(self, sha: str, spec: AnySpec) -> Package:
        """Lists what a commit packs. Sizes of blobs that were not fetched are -1; they are too big to be LFS pointers."""
        with self._store.reader() as reader:
            packing = Packing(self._commit(reader, sha), self._max_files)
            files = packing.files(spec)
            sizes = self._sizes(files, packing.owners)
            files = tuple(replace(entry, size=sizes.get(entry.blob, -1)) for entry in files)
            self._check_size(sum(max(entry.size, 0) for entry in files))
            return Package(sha, digest_of(files), files, _lfs_pointers(reader, files))

    def read_text(self, sha: str, path: str) -> str | None:
        """One file of the commit, at most 1 MiB of UTF-8; None when there is no regular file of that name (links are not followed)."""
        *folders, name = path.split("/")
        with self._store.reader() as reader:
            try:
                place = find_folder(self._commit(reader, sha), folders)
            except GitError as error:
                if error.code == "git.no-subpath":
                    return None
                raise
            entry = next((entry for entry in place.commit.tree(place.tree, place.path) if entry.name == name), None)
            if entry is None or entry.mode not in ("100644", "100755"):
                return None
            try:
                return place.commit.blob(entry.oid, _TEXT_CAP, path).decode("utf-8")
            except UnicodeDecodeError as error:
                raise GitError("git.not-text", f"{show(path)} is not UTF-8 text (byte {error.start}).") from None

    def stream(self, package: Package, only: frozenset[str] | None = None) -> Iterator[bytes]:
        """A gzip'd tar of the package, or of the paths in `only`; missing blobs are fetched first, in one request per repository."""
        files = [entry for entry in package.files if only is None or entry.path in only]
        self._complete(package.sha, files)
        with self._store.reader() as reader:
            yield from tar_gz(self._members(reader, files))

    def _commit(self, reader: Reader, sha: str) -> Commit:
        return Commit(self._store, self._fetcher, reader, sha)

    def _sizes(self, files: Sequence[FileEntry], owners: dict[str, Commit]) -> dict[str, int]:
        """Bytes of the blobs that are there. A checkout may lack small blobs, too: then those are fetched; where the rest is, is noted."""
        sizes = self._store.sizes(entry.blob for entry in files)
        missing = [entry.blob for entry in files if entry.blob not in sizes]
        unfetched = {id(owners[oid]): owners[oid] for oid in missing if not owners[oid].fetched}
        for owner in unfetched.values():
            owner.fetch()
        if unfetched:
            sizes |= self._store.sizes(missing)
        self._origins.update({oid: (owners[oid].url(), owners[oid].sha) for oid in missing if oid not in sizes})
        return sizes

    def _complete(self, sha: str, files: Sequence[FileEntry]) -> None:
        """Fetches the blobs that are missing; raises GitError `git.commit-missing` when some are still not there."""
        blobs = dict.fromkeys(entry.blob for entry in files)
        sizes = self._store.sizes(blobs)
        wanted: dict[tuple[GitUrl, str], list[str]] = {}
        for oid in blobs:
            if oid not in sizes:
                wanted.setdefault(self._origin(oid, sha), []).append(oid)
        for (url, commit), oids in wanted.items():
            self._fetcher.blobs(url, oids, commit)
        if wanted:
            sizes = self._store.sizes(blobs)
        absent = next((entry for entry in files if entry.blob not in sizes), None)
        if absent:
            raise GitError("git.commit-missing", f"{show(absent.path)} of {sha} could not be fetched.")
        self._check_size(sum(sizes[entry.blob] for entry in files))

    def _origin(self, oid: str, sha: str) -> tuple[GitUrl, str]:
        """Where a missing blob can be fetched: where `describe` found that it belongs, else the repository itself."""
        if oid not in self._origins and self._fetcher.root is None:
            raise GitError("git.commit-missing", f"A file of {sha} is not in the local repository, and no remote was named.")
        return self._origins.get(oid) or (self._fetcher.root or parse_url("/"), sha)

    def _members(self, reader: Reader, files: Sequence[FileEntry]) -> Iterator[Member]:
        """The files with their content, one after the other, from one git process."""
        for entry, found in zip(files, reader.objects([entry.blob for entry in files]), strict=True):
            if found.kind != "blob":
                raise GitError("git.unsafe-tree", f"{show(entry.path)} is not a file's content but {found.kind or 'gone'}.")
            if entry.mode == "120000" and found.size > _LINK_CAP:
                raise GitError("git.unsafe-tree", f"{show(entry.path)} is a symbolic link with a target of {found.size} bytes.")
            yield Member(entry, found.size, found.chunks)

    def _check_size(self, size: int) -> None:
        """Refuses what is too much for a package."""
        if size > self._max_bytes:
            raise GitError("git.too-big", f"The commit's files have {size} bytes; at most {self._max_bytes} are packed.")


def _root(remote_url: str) -> GitUrl | None:
    """The repository's address; GitError `git.bad-url` when it is none."""
    if not remote_url:
        return None
    try:
        return parse_url(remote_url)
    except ValueError as error:
        raise GitError("git.bad-url", f"The repository cannot be fetched: {error}.") from None


def _lfs_pointers(reader: Reader, files: Sequence[FileEntry]) -> tuple[str, ...]:
    """Paths whose content is a Git LFS pointer; only blobs of a pointer's size are looked at."""
    candidates = [entry for entry in files if len(_LFS_HEAD) < entry.size < _LFS_CAP and entry.mode != "120000"]
    unique = list(dict.fromkeys(entry.blob for entry in candidates))
    pointers = {found.oid for found in reader.objects(unique) if found.read().startswith(_LFS_HEAD)}
    return tuple(entry.path for entry in candidates if entry.blob in pointers)
