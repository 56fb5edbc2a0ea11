"""One commit of one repository → its folders, its blobs, its submodules at their pins; what is missing is fetched when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dispatcher.effects.gitfetch import Fetcher
from dispatcher.effects.gitstore import ObjectStore, Reader, check_sha
from dispatcher.errors import GitError
from dispatcher.gittree import TreeEntry, parse_tree, show, tree_of_commit
from dispatcher.giturl import GitUrl, submodule_url

_GITMODULES_CAP = 1024 * 1024


@dataclass
class Commit:
    """A commit, `at` a folder of the repository that is packed ("" for its own commit).

    `parent` is the commit that pins this one as a submodule, at its folder `pinned_at`.
    """

    store: ObjectStore
    fetcher: Fetcher
    reader: Reader
    sha: str
    at: str = ""
    parent: Commit | None = None
    pinned_at: str = ""
    fetched: bool = False
    _trees: dict[str, tuple[TreeEntry, ...]] = field(default_factory=dict)
    _declared: dict[str, str] | None = None

    def root(self) -> str:
        """The id of its top folder. Raises GitError `git.bad-sha` when the SHA is something else than a commit."""
        raw = self._read([check_sha(self.sha)], "commit")[self.sha]
        try:
            return tree_of_commit(raw)
        except ValueError:
            raise GitError("git.bad-sha", f"{self.sha} is not a commit.") from None

    def tree(self, oid: str, folder: str) -> tuple[TreeEntry, ...]:
        """The entries of one folder."""
        return self.trees({folder: oid})[folder]

    def trees(self, wanted: Mapping[str, str]) -> dict[str, tuple[TreeEntry, ...]]:
        """{folder: tree id} → {folder: entries}. Raises GitError `git.unsafe-tree`."""
        unread = {oid: folder for folder, oid in wanted.items() if oid not in self._trees}
        for oid, raw in self._read(list(unread), "tree").items():
            self._trees[oid] = parse_tree(raw, unread[oid])
        return {folder: self._trees[oid] for folder, oid in wanted.items()}

    def blob(self, oid: str, cap: int, path: str) -> bytes:
        """One file, at most `cap` bytes; else GitError `git.too-big`."""
        for _ in range(2):
            found = next(self.reader.objects([oid]))
            if found.kind:
                if found.size > cap:
                    raise GitError("git.too-big", f"{show(path)} has {found.size} bytes; at most {cap} are read.")
                return found.read()
            self.fetcher.blobs(self.url(), [oid], self.sha)
        raise GitError("git.commit-missing", f"{show(path)} of {self.sha} could not be fetched.")

    def submodule(self, folder: str, sha: str) -> Commit:
        """The commit that a submodule entry at `folder` (seen from the archive's root) pins."""
        pinned_at = folder[len(self.at) + 1 :] if self.at else folder
        return Commit(self.store, self.fetcher, self.reader, sha, folder, self, pinned_at)

    def url(self) -> GitUrl:
        """Where it can be fetched: asked only when something is missing. Raises GitError `git.bad-url` or `git.submodule`."""
        if self.parent is None:
            if self.fetcher.root is None:
                raise GitError("git.commit-missing", f"{self.sha} is not in the local repository, and no remote was named.")
            return self.fetcher.root
        declared = self.parent.declared().get(self.pinned_at)
        if declared is None:
            raise GitError("git.submodule", f"The submodule {show(self.at)} has no url in .gitmodules.")
        try:
            return submodule_url(self.parent.url(), declared)
        except ValueError as error:
            raise GitError("git.submodule", f"The submodule {show(self.at)} cannot be fetched: {error}.") from None

    def declared(self) -> dict[str, str]:
        """{path: url} of `.gitmodules` at this commit; a symbolic link of that name does not count."""
        if self._declared is None:
            entries = {entry.name: entry for entry in self.tree(self.root(), self.at)}
            entry = entries.get(".gitmodules")
            regular = entry is not None and entry.mode in ("100644", "100755")
            self._declared = self.store.submodules(self.blob(entry.oid, _GITMODULES_CAP, ".gitmodules")) if entry and regular else {}
        return self._declared

    def fetch(self) -> None:
        """Fetches commit, trees and small blobs; a submodule's failure says which one it is."""
        self.fetched = True
        url = self.url()
        try:
            self.fetcher.commit(url, self.sha)
        except GitError as error:
            if self.parent is None:
                raise
            raise GitError(
                "git.submodule", f"The submodule {show(self.at)} at {self.sha[:12]}: {error.cause}", _SUBMODULE_STEPS.get(error.code)
            ) from error

    def _read(self, oids: Sequence[str], kind: str) -> dict[str, bytes]:
        """Whole objects of one kind, fetched at most once when some are missing."""
        found: dict[str, bytes] = {}
        missing: list[str] = []
        for item in self.reader.objects(oids):
            if not item.kind:
                missing.append(item.oid)
            elif item.kind != kind:
                raise GitError("git.bad-sha" if kind == "commit" else "git.unsafe-tree", f"{item.oid} is a {item.kind}, not a {kind}.")
            else:
                found[item.oid] = item.read()
        if missing and self.fetched:
            raise GitError("git.commit-missing", f"The {kind} {missing[0]} of {self.sha} was not sent.")
        if missing:
            self.fetch()
            found |= self._read(missing, kind)
        return found


_SUBMODULE_STEPS = {
    "git.commit-missing": "Push the submodule's commit, or pin one that its repository has; or set `include_submodules: false`.",
    "git.denied": "Give the token read access to the submodule's repository, or set `include_submodules: false`.",
    "git.moved": "Write the submodule's present address into .gitmodules.",
}
