"""A commit × what to pack → the files of the package, with the commit (its own, or a submodule's) that each blob belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

from typing_extensions import assert_never

from dispatcher.effects.gitcommit import Commit
from dispatcher.effects.gitwalk import Place, find_folder, list_files
from dispatcher.errors import GitError
from dispatcher.gittree import select, split_path
from dispatcher.ports import AnySpec, Choice, FileEntry, HybridSpec, NothingSpec, PackageSpec, PatternSpec
from dispatcher.selection import chosen, combined, reach


@dataclass
class Packing:
    """One package in the making; `owners` says for each blob's id which commit it came from."""

    commit: Commit
    max_files: int
    owners: dict[str, Commit] = field(default_factory=dict)

    def files(self, spec: AnySpec) -> tuple[FileEntry, ...]:
        """The package's files, sorted; sizes are -1. Raises GitError as the port says."""
        match spec:
            case PackageSpec():
                found = self._folder(spec)
                if spec.more:
                    found = combined([("", found), ("", self._more(spec.more, spec.include_submodules))])
            case PatternSpec():
                found = combined([("", self._more(spec.choices, True))])
            case HybridSpec():
                parts = [("" if spec.extract_at_root else name, self.files(part)) for name, part in spec.parts]
                found = combined(parts)
            case NothingSpec():
                found = ()
            case _:
                assert_never(spec)
        if len(found) > self.max_files:
            raise GitError("git.too-big", f"The package has more than {self.max_files} files.")
        return found

    def _folder(self, spec: PackageSpec) -> tuple[FileEntry, ...]:
        """One folder of the commit, or what patterns choose of it."""
        listed = list_files(find_folder(self.commit, split_path(spec.subpath)), spec.include_submodules, self.max_files)
        self.owners.update({entry.blob: owner for entry, owner in listed})
        return select([entry for entry, _ in listed], spec.include_pattern)

    def _more(self, choices: tuple[Choice, ...], include_submodules: bool) -> tuple[FileEntry, ...]:
        """What patterns choose of the whole commit."""
        listed = list_files(Place(self.commit, self.commit.root()), include_submodules, self.max_files, reach(choices))
        self.owners.update({entry.blob: owner for entry, owner in listed})
        return chosen([entry for entry, _ in listed], choices)
