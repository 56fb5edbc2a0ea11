"""Real commits, packed by git: whatever changes in what is packed makes another content key, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from dispatcher.content import content_key
from dispatcher.effects.archive import GitArchive
from dispatcher.packager import PackagerField, whole_spec
from dispatcher.recipe import Recipe
from tests.rig.gitrepo import Repo
from tests.unit.test_plan import SLURM

READ: TypeAdapter[object] = TypeAdapter(PackagerField)
TRAIN = Recipe(script="train.py")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 5\n"
FILES: dict[str, bytes | str] = {
    "train.py": b"print(1)\n",
    "run.sh": b"#!/bin/sh\n",
    "latest": "train.py",
    "model.bin": POINTER % (b"a" * 64),
    "conf/a.yaml": b"a: 1\n",
    "docs/x.md": b"x\n",
}
CHANGES: dict[str, Callable[[Repo], object]] = {
    "a file": lambda repo: repo.write({"train.py": b"print(2)\n"}),
    "a file's mode": lambda repo: (repo.path / "train.py").chmod(0o755),
    "a link's target": lambda repo: ((repo.path / "latest").unlink(), repo.write({"latest": "run.sh"})),
    "a link that becomes a file": lambda repo: ((repo.path / "latest").unlink(), repo.write({"latest": b"train.py"})),
    "a file more": lambda repo: repo.write({"empty": b""}),
    "a file less": lambda repo: (repo.path / "conf/a.yaml").unlink(),
    "a file's name": lambda repo: repo.git("mv", "conf/a.yaml", "conf/b.yaml"),
    "a folder's name": lambda repo: repo.git("mv", "conf", "config"),
    "a submodule's pin": lambda repo: repo.git("-C", "lib", "checkout", "-q", "HEAD~1"),
    "a pointer of Git LFS": lambda repo: repo.write({"model.bin": POINTER % (b"b" * 64)}),
}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    lib = Repo.create(tmp_path / "lib").write({"lib.py": b"1\n"})
    lib.commit()
    lib.write({"lib.py": b"2\n"}).commit()
    repo = Repo.create(tmp_path / "origin").write(FILES, executable=["run.sh"])
    repo.add_submodule(str(lib.path), "lib")
    repo.commit()
    return repo


def test_each_change_of_a_commit_alone_is_another_content(repo: Repo) -> None:
    first = repo.git("rev-parse", "HEAD")
    commits = {"nothing": first}
    for name, change in CHANGES.items():
        repo.git("checkout", "-q", "-f", "--recurse-submodules", first)
        change(repo)
        commits[name] = repo.commit(name)
    repo.git("checkout", "-q", "-f", "--recurse-submodules", first)
    again = repo.commit("says something else")
    undone = repo.write({"train.py": b"print(2)\n"}).commit() and repo.write({"train.py": b"print(1)\n"}).commit()
    with GitArchive("", workspace=repo.path) as archive:
        git = whole_spec(READ.validate_python("git"))  # type: ignore[arg-type]
        keys = {name: content_key(archive.describe(sha, git), SLURM, TRAIN, ()) for name, sha in commits.items()}
        assert len(set(keys.values())) == len(keys)
        for sha in (again, undone):
            assert content_key(archive.describe(sha, git), SLURM, TRAIN, ()) == keys["nothing"]


def test_packagers_that_take_other_files_or_lay_them_elsewhere(repo: Repo) -> None:
    written: list[object] = [
        "git",
        {"type": "git", "include_submodules": False},
        {"type": "git", "subpath": "conf"},
        {"type": "pattern", "include_pattern": "conf/*"},
        {"type": "pattern", "include_pattern": "conf/*", "relative_path": "conf"},
        {"type": "pattern", "include_pattern": ["conf/*", "docs/*"]},
        {"type": "hybrid", "sub_packagers": {"a": {"type": "pattern", "include_pattern": "conf/*"}}},
        {"type": "hybrid", "sub_packagers": {"b": {"type": "pattern", "include_pattern": "conf/*"}}},
        "none",
    ]
    with GitArchive("", workspace=repo.path) as archive:
        sha = repo.git("rev-parse", "HEAD")
        # By the files alone, whatever the fields of the profile say.
        packages = [archive.describe(sha, whole_spec(READ.validate_python(item))) for item in written]  # type: ignore[arg-type]
        keys = [content_key(package, SLURM, TRAIN, ()) for package in packages]
        by_files = {package.files: key for package, key in zip(packages, keys, strict=True)}
        assert len(set(keys)) == len(by_files)
        # What is not packed changes nothing.
        repo.write({"docs/x.md": b"y\n"})
        changed = archive.describe(repo.commit(), whole_spec(READ.validate_python(written[3])))  # type: ignore[arg-type]
        assert content_key(changed, SLURM, TRAIN, ()) == keys[3]
        assert len(by_files) >= 7
