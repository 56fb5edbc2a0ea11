"""A commit → the folder that a path names in it, and every file below that folder, through submodules at their pinned commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dispatcher.effects.gitcommit import Commit
from dispatcher.errors import GitError
from dispatcher.gittree import TreeEntry, nearest_folder, show
from dispatcher.ports import FileEntry

_DEPTH_CAP = 200
_SUBMODULES_CAP = 256


@dataclass(frozen=True)
class Place:
    """A folder: the commit that it belongs to, its tree id, and its path from the archive's repository ("" for the top)."""

    commit: Commit
    tree: str
    path: str = ""


def find_folder(commit: Commit, parts: Sequence[str]) -> Place:
    """Goes down from the top, into submodules where they are; raises GitError `git.no-subpath` with the nearest name."""
    place = Place(commit, commit.root())
    for part in parts:
        entries = place.commit.tree(place.tree, place.path)
        entry = next((entry for entry in entries if entry.name == part), None)
        path = _join(place.path, part)
        if entry and entry.is_tree:
            place = Place(place.commit, entry.oid, path)
        elif entry and entry.is_submodule:
            child = place.commit.submodule(path, entry.oid)
            place = Place(child, child.root(), path)
        else:
            like = nearest_folder(part, entries)
            hint = f" Did you mean {show(_join(place.path, like))}?" if like else f" {show(place.path or '/')} has no such folder."
            raise GitError("git.no-subpath", f"{show('/'.join(parts))} is not a folder of {commit.sha[:12]}.{hint}")
    return place


def list_files(
    top: Place, include_submodules: bool, max_files: int, within: Callable[[str], bool] = lambda folder: True
) -> list[tuple[FileEntry, Commit]]:
    """Every file below a folder with the commit that it belongs to; paths are seen from that folder, sizes are -1.

    Folders and submodules that are not `within` are left out. Raises GitError `git.too-big` for more than `max_files` files and folders:
    a few crafted trees can name billions.
    """
    walk = _Walk(top.path, include_submodules, max_files, within)
    level = [(top.commit, {"": top.tree})]
    for _ in range(_DEPTH_CAP):
        level = walk.below(level)
        if not level:
            return walk.found
    raise GitError("git.too-big", f"The commit's folders are nested more than {_DEPTH_CAP} deep.")


@dataclass
class _Walk:
    """What was found so far. A level is a list of (commit, {folder: tree id}), so that git is asked for many trees at once."""

    top: str
    include_submodules: bool
    max_files: int
    within: Callable[[str], bool]
    found: list[tuple[FileEntry, Commit]] = field(default_factory=list)
    seen: int = 0
    submodules: int = 0

    def below(self, level: list[tuple[Commit, dict[str, str]]]) -> list[tuple[Commit, dict[str, str]]]:
        """Notes the files of one level and gives the next."""
        next_level: list[tuple[Commit, dict[str, str]]] = []
        for owner, folders in level:
            deeper: dict[str, str] = {}
            for folder, entries in owner.trees(folders).items():
                self._count(len(entries))
                for entry in entries:
                    path = _join(folder, entry.name)
                    if not entry.is_tree and not entry.is_submodule:
                        self.found.append((FileEntry(path, entry.mode, entry.oid, -1), owner))
                    elif not self.within(path):
                        continue
                    elif entry.is_tree:
                        deeper[path] = entry.oid
                    elif self.include_submodules:
                        next_level.append(self._submodule(owner, path, entry))
            if deeper:
                next_level.append((owner, deeper))
        return next_level

    def _submodule(self, owner: Commit, path: str, entry: TreeEntry) -> tuple[Commit, dict[str, str]]:
        """The top folder of a submodule, in its place."""
        self.submodules += 1
        if self.submodules > _SUBMODULES_CAP:
            raise GitError("git.too-big", f"The commit has more than {_SUBMODULES_CAP} submodules.")
        child = owner.submodule(_join(self.top, path), entry.oid)
        return child, {path: child.root()}

    def _count(self, entries: int) -> None:
        self.seen += entries
        if self.seen > self.max_files:
            raise GitError("git.too-big", f"The commit has more than {self.max_files} files and folders.")


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
