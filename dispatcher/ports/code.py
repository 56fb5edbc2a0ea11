"""The pull request's code as git objects (`Archive`), and what NeMo-Run makes of a job (`Compiler`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol


@dataclass(frozen=True)
class Choice:
    """Files of a commit by a gitwildmatch pattern that begins at the repository's top folder; with `!` in front it takes files away.

    The files are packed under their path below the folder `relative_path`.
    """

    pattern: str
    relative_path: str = ""


@dataclass(frozen=True)
class PackageSpec:
    """What of a commit is packed. `subpath` becomes the archive's root; `include_pattern` are gitwildmatch patterns (all if empty).

    `more` are files from the whole commit beside those.
    """

    kind: ClassVar[str] = "git"
    subpath: str = ""
    include_pattern: tuple[str, ...] = ()
    include_submodules: bool = True
    more: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class PatternSpec:
    """Only the files that are chosen."""

    kind: ClassVar[str] = "pattern"
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class HybridSpec:
    """Several packages in one, each in the folder of its name; with `extract_at_root` all in the top folder, later over earlier."""

    kind: ClassVar[str] = "hybrid"
    parts: tuple[tuple[str, PackageSpec | PatternSpec], ...]
    extract_at_root: bool = False


@dataclass(frozen=True)
class NothingSpec:
    """No file at all: what runs is there already."""

    kind: ClassVar[str] = "none"


AnySpec = PackageSpec | PatternSpec | HybridSpec | NothingSpec


@dataclass(frozen=True)
class FileEntry:
    """One packed file: path from the archive's root, git mode (100644, 100755, 120000), git blob id, size in bytes (-1 unknown)."""

    path: str
    mode: str
    blob: str
    size: int


@dataclass(frozen=True)
class Package:
    """What would travel. `digest` (64 hex) depends only on paths, modes and blob ids, so two commits with the same tree share it."""

    sha: str
    digest: str
    files: tuple[FileEntry, ...]
    lfs_pointers: tuple[str, ...] = ()
    uncommitted: bool = False
    """It is not what the commit packs: a person's working folder had changes."""

    @property
    def size(self) -> int:
        """Bytes before compression."""
        return sum(max(entry.size, 0) for entry in self.files)


class Archive(Protocol):
    """The pull request's code as git objects. Raises `GitError` with a `git.*` code. Nothing is checked out, filtered or executed."""

    def describe(self, sha: str, spec: AnySpec) -> Package:
        """Lists what a commit packs; fetches the commit (and submodules at their pins) when it is not there."""

    def read_text(self, sha: str, path: str) -> str | None:
        """One file of the commit as text; None when it is not there. Never follows a symbolic link."""

    def stream(self, package: Package, only: frozenset[str] | None = None) -> Iterator[bytes]:
        """A gzip-compressed tar, the same bytes for the same package; `only` restricts it to some paths. Never held in memory."""


@dataclass(frozen=True)
class CompiledFile:
    """A file for the run's folder."""

    path: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Compiled:
    """What NeMo-Run rendered: `script` is exactly what sbatch gets (or what the local runner starts); `files` go beside it."""

    script: str
    files: tuple[CompiledFile, ...] = ()


class Compiler(Protocol):
    """NeMo-Run in a process of its own. Raises `CompileError`."""

    def start(self) -> None:
        """Begins importing NeMo-Run, the longest step of all; returns at once, may be called more than once."""

    def begin(self, job: Mapping[str, object]) -> None:
        """Asks for a rendering ahead, so that `compile` of the same job finds it done; returns at once and raises nothing."""

    def compile(self, job: Mapping[str, object]) -> Compiled:
        """Renders one job from `JobPlan.for_compiler()`."""

    def close(self) -> None:
        """Ends the process; nothing is left behind."""
