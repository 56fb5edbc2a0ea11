"""A packager for plain NeMo-Run scripts: one exact commit → `<job_dir>/<name>.tar.gz`, made from git objects alone.

NeMo-Run's own `GitArchivePackager` (nemo_run/core/packaging/git.py at v0.11.1) packs a ref through a shell, takes submodules from the
worktree's HEAD instead of the commit's pin, and puts nested ones into the wrong folder; this one is put in its place:

    executor = run.SlurmExecutor(..., packager=CommitPackager(commit="<40 hex digits>"))
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nemo_run.core.packaging.git import GitArchivePackager

from dispatcher.effects.archive import GitArchive
from dispatcher.errors import ConfigError
from dispatcher.ports import PackageSpec


@dataclass(kw_only=True)
class CommitPackager(GitArchivePackager):  # type: ignore[misc]  # NeMo-Run ships no types
    """Packs `commit` (40 hex digits); the state of the worktree is no matter. `subpath` and `include_submodules` are as in NeMo-Run.

    `include_pattern` chooses among the commit's files (gitwildmatch, seen from the archive's root); files that are not in the commit
    are never packed, so `include_pattern_relative_path` is refused. `basepath` is the checkout, the working directory if empty.
    """

    #: The commit to pack, 40 hex digits.
    commit: str = ""

    #: Where to fetch what the checkout does not have; nothing is fetched if empty.
    remote_url: str = ""

    #: Name of the environment variable with the token for remote_url (none if empty): a token given as a value would be written
    #: into the experiment's folder, where NeMo-Run keeps every field.
    token_env: str = ""

    def package(self, path: Path, job_dir: str, name: str) -> str:
        """Writes the archive, whole or not at all, and gives its path. Raises GitError, and ConfigError `config.invalid`."""
        if self.ref != "HEAD" or any(_listed(self.include_pattern_relative_path)):
            raise ConfigError("config.invalid", "CommitPackager packs `commit`: it takes no `ref` and no `include_pattern_relative_path`.")
        spec = PackageSpec(self.subpath.rstrip("/"), tuple(filter(None, _listed(self.include_pattern))), self.include_submodules)
        output = Path(job_dir, f"{name}.tar.gz")
        workspace = Path(self.basepath or path)
        token = os.environ.get(self.token_env) if self.token_env else None
        with GitArchive(self.remote_url, token, workspace) as archive:
            package = archive.describe(self.commit, spec)
            descriptor, unfinished = tempfile.mkstemp(dir=job_dir, prefix=".packing-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.writelines(archive.stream(package))
                os.replace(unfinished, output)
            except BaseException:
                os.unlink(unfinished)
                raise
        return str(output)


def _listed(value: str | list[str]) -> list[str]:
    """NeMo-Run takes one pattern or a list of them."""
    return [value] if isinstance(value, str) else value
