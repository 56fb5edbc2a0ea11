"""`--working-folder`: what a checkout packs as it lies, beside what a commit of the same files would pack, with the real git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.bundle import upload
from dispatcher.effects.archive import GitArchive
from dispatcher.effects.workingfolder import WorkingFolder
from dispatcher.errors import GitError
from dispatcher.ports import AnySpec, Choice, Claimed, HybridSpec, NothingSpec, Package, PackageSpec, PatternSpec
from tests.rig.gitrepo import Repo, nested_submodules, unpack

ALL = PackageSpec()
FILES: dict[str, bytes | str] = {
    ".gitignore": b"*.log\noutputs/\n",
    "train.py": b"print(1)\n",
    "src/a.py": b"a\n",
    "src/b.py": b"b\n" * 5000,
    "configs/a.yaml": b"a: 1\n",
    "link": "train.py",
}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    repo = Repo.create(tmp_path / "repo").write(FILES, executable=["train.py"])
    repo.commit()
    return repo


@pytest.fixture
def folder(repo: Repo) -> Iterator[WorkingFolder]:
    with GitArchive("", workspace=repo.path) as committed:
        yield WorkingFolder(repo.path, committed)


def head(repo: Repo) -> str:
    return repo.git("rev-parse", "HEAD")


def described(folder: WorkingFolder, repo: Repo, spec: AnySpec = ALL) -> Package:
    return folder.describe(head(repo), spec)


def content(folder: WorkingFolder, repo: Repo, spec: AnySpec = ALL) -> dict[str, tuple[str, bytes]]:
    return unpack(b"".join(folder.stream(described(folder, repo, spec))))


def change(repo: Repo) -> None:
    """One of each: changed, executable, gone, a link that leads elsewhere, staged, untracked, ignored."""
    repo.write({"src/a.py": b"changed\n", "new.py": b"staged\n", "notes.txt": b"untracked\n", "x.log": b"ignored\n"}, ["src/b.py"])
    repo.write({"outputs/model.bin": b"weights\n", "outputs/deep/m.bin": b"more\n"})
    (repo.path / "configs/a.yaml").unlink()
    (repo.path / "link").unlink()
    (repo.path / "link").symlink_to("src/a.py")
    repo.git("add", "new.py")


CHANGED = {
    ".gitignore": ("0o644", FILES[".gitignore"]),
    "train.py": ("0o755", b"print(1)\n"),
    "src/a.py": ("0o644", b"changed\n"),
    "src/b.py": ("0o755", b"b\n" * 5000),
    "new.py": ("0o644", b"staged\n"),
    "link": ("link", b"src/a.py"),
}


def test_where_nothing_differs_it_is_the_commit(folder: WorkingFolder, repo: Repo) -> None:
    repo.write({"notes.txt": b"untracked\n"})
    with GitArchive("", workspace=repo.path) as archive:
        assert described(folder, repo) == archive.describe(head(repo), ALL)
        assert content(folder, repo) == unpack(b"".join(archive.stream(archive.describe(head(repo), ALL))))


@pytest.mark.parametrize("spec", [NothingSpec(), PackageSpec("configs"), PatternSpec((Choice("configs"),))])
def test_a_change_of_what_is_not_packed_is_one_too(folder: WorkingFolder, repo: Repo, spec: AnySpec) -> None:
    """A configuration or a script's metadata may be read from it."""
    assert not described(folder, repo, spec).uncommitted
    repo.write({"src/a.py": b"changed\n"})
    package = described(folder, repo, spec)
    with GitArchive("", workspace=repo.path) as archive:
        assert (package.uncommitted, package.digest) == (True, archive.describe(head(repo), spec).digest)
    assert set(unpack(b"".join(folder.stream(package)))) == {entry.path for entry in package.files}


def test_files_travel_as_they_lie(folder: WorkingFolder, repo: Repo) -> None:
    change(repo)
    assert described(folder, repo).uncommitted
    assert described(folder, repo).sha == head(repo)
    assert content(folder, repo) == CHANGED


def test_it_is_the_package_of_a_commit_that_has_the_same_files(folder: WorkingFolder, repo: Repo) -> None:
    change(repo)
    before = described(folder, repo)
    repo.git("commit", "-qam", "all of it")
    with GitArchive("", workspace=repo.path) as archive:
        after = archive.describe(head(repo), ALL)
    assert (after.digest, after.files) == (before.digest, before.files)
    assert not described(folder, repo).uncommitted


PATTERNS: dict[str, tuple[AnySpec, set[str]]] = {
    "a pattern finds what is untracked": (PatternSpec((Choice("*.txt"), Choice("src"))), {"notes.txt", "src/a.py", "src/b.py"}),
    "and not what is ignored": (
        PatternSpec((Choice("*"),)),
        {".gitignore", "train.py", "new.py", "link", "notes.txt", "src/a.py", "src/b.py"},
    ),
    "unless it names the file": (PatternSpec((Choice("x.log"),)), {"x.log"}),
    "or its folder": (PatternSpec((Choice("outputs", "outputs"),)), {"model.bin", "deep/m.bin"}),
    "or takes it away again": (PatternSpec((Choice("outputs"), Choice("!outputs/deep"))), {"outputs/model.bin"}),
    "git's packager keeps to what is tracked": (PackageSpec("src"), {"a.py", "b.py"}),
    "and adds what patterns choose": (
        PackageSpec("src", more=(Choice("*.txt"), Choice("outputs/model.bin"))),
        {"a.py", "b.py", "notes.txt", "outputs/model.bin"},
    ),
    "a recipe chooses among what is tracked": (PackageSpec("", ("*.txt", "*.py")), {"train.py", "new.py", "src/a.py", "src/b.py"}),
    "in parts": (
        HybridSpec((("code", PackageSpec("src")), ("more", PatternSpec((Choice("*.txt"),))))),
        {"code/a.py", "code/b.py", "more/notes.txt"},
    ),
    "nothing": (NothingSpec(), set()),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_what_patterns_choose(folder: WorkingFolder, repo: Repo, name: str) -> None:
    spec, expected = PATTERNS[name]
    change(repo)
    assert set(content(folder, repo, spec)) == expected


@pytest.mark.parametrize("pattern", [".git", ".git/config", "**", "*", ".git/**", "sub", "sub/.git"])
def test_git_itself_never_travels(folder: WorkingFolder, repo: Repo, pattern: str) -> None:
    Repo.create(repo.path / "sub").write({"inner.py": b"another repository's\n"}).commit()
    try:
        paths = set(content(folder, repo, PatternSpec((Choice(pattern),))))
    except GitError as error:
        paths = {error.code}
    assert not [path for path in paths if ".git" in path.split("/")]
    assert paths == {"sub/inner.py"} if pattern == "sub" else "sub/inner.py" not in paths


def test_nothing_is_read_through_a_link(folder: WorkingFolder, repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.py").write_text("private\n")
    (repo.path / "src").rename(tmp_path / "gone")
    (repo.path / "src").symlink_to(tmp_path / "elsewhere")
    for spec in (ALL, PatternSpec((Choice("src"),)), PatternSpec((Choice("src/a.py"), Choice("train.py"), Choice("src/**")))):
        found = content(folder, repo, spec)
        assert not [path for path in found if path.startswith("src/")]
    assert content(folder, repo, PatternSpec((Choice("src"),))) == {"src": ("link", os.fsencode(tmp_path / "elsewhere"))}
    assert folder.read_text(head(repo), "src/a.py") is None


def test_names_that_are_odd(folder: WorkingFolder, repo: Repo) -> None:
    odd: dict[str, bytes | str] = {"-rf": b"1", "a\nb": b"2", "\udcff.py": b"3", " ": b"4", "$(touch pwned)": b"5", "ü": b"6"}
    repo.write(odd)
    repo.git("add", "--", "-rf")
    found = content(folder, repo, PatternSpec((Choice("*"),)))
    assert {name: found[name][1] for name in odd} == odd
    assert not (repo.path / "pwned").exists()


@pytest.mark.parametrize("how", ["another size", "the same size", "gone", "a link", "a pipe", "unreadable folder"])
def test_a_file_that_changes_meanwhile_is_noticed(folder: WorkingFolder, repo: Repo, how: str) -> None:
    change(repo)
    package = described(folder, repo)
    file = repo.path / "src/a.py"
    if how in ("gone", "a link", "a pipe"):
        file.unlink()
    if how == "a link":
        file.symlink_to("/etc/passwd")
    elif how == "a pipe":
        os.mkfifo(file)
    elif how == "unreadable folder":
        (repo.path / "src").rename(repo.path / "moved")
    elif how != "gone":
        file.write_bytes(b"changed, and longer\n" if how == "another size" else b"CHANGED\n")
    with pytest.raises(GitError) as refused:
        b"".join(folder.stream(package))
    assert refused.value.code == "git.changed"


def test_only_the_difference_is_sent(folder: WorkingFolder, repo: Repo) -> None:
    base = described(folder, repo)
    repo.write({"src/a.py": b"changed\n"})
    package = described(folder, repo)
    sent = upload(package, Claimed(False, False, base.files, base.digest), folder)
    assert sent.base_digest == base.digest
    assert set(unpack(b"".join(sent.chunks()))) == {"src/a.py"}


def test_submodules_as_they_lie(tmp_path: Path) -> None:
    main = nested_submodules(tmp_path)
    main.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive")
    main.write({"vendor/lib/lib.py": b"changed here\n", "vendor/lib/new.txt": b"untracked there\n"})
    with GitArchive("", workspace=main.path) as committed:
        folder = WorkingFolder(main.path, committed)
        assert content(folder, main)["vendor/lib/lib.py"][1] == b"changed here\n"
        assert content(folder, main)["vendor/lib/deep/core/core.py"][1] == b"pinned core\n"
        assert set(content(folder, main, PatternSpec((Choice("vendor/**/*.txt"),)))) == {"vendor/lib/new.txt"}
        assert "main.py" in content(folder, main, PackageSpec(include_submodules=False))
        main.git("submodule", "--quiet", "deinit", "--force", "--all")
        with pytest.raises(GitError) as refused:
            described(folder, main)
    assert refused.value.code == "git.submodule"


def test_what_cannot_be_packed(folder: WorkingFolder, repo: Repo) -> None:
    cases: list[tuple[dict[str, Any], AnySpec, str]] = [
        ({}, PackageSpec("nowhere"), "git.no-subpath"),
        ({}, PatternSpec((Choice("*.nothing"),)), "git.nothing-packed"),
        ({"max_files": 2}, ALL, "git.too-big"),
        ({"max_bytes": 10}, ALL, "git.too-big"),
        ({"git": "no-such-git"}, ALL, "git.not-found"),
    ]
    for limits, spec, code in cases:
        with GitArchive("", workspace=repo.path) as committed, pytest.raises(GitError) as refused:
            described(WorkingFolder(repo.path, committed, **limits), repo, spec)
        assert refused.value.code == code
    subprocess.run(["rm", "-rf", str(repo.path / ".git")], check=True)
    with pytest.raises(GitError) as refused:
        folder.describe("a" * 40, ALL)
    assert refused.value.code == "git.corrupt"


def test_a_file_as_text(folder: WorkingFolder, repo: Repo) -> None:
    repo.write({"src/a.py": b"changed\n", "binary": b"\xff\xfe", "big": b"x" * (1024 * 1024 + 1), "notes.txt": b"untracked\n"})
    repo.git("add", "binary", "big")
    assert folder.read_text(head(repo), "src/a.py") == "changed\n"
    assert [folder.read_text(head(repo), path) for path in ("nothing", "src", "link", "train.py/x", "*.txt", "notes.txt")] == [None] * 6
    described(folder, repo, PatternSpec((Choice("notes.txt"),)))
    assert folder.read_text(head(repo), "notes.txt") == "untracked\n", "it travels"
    for path, code in (("binary", "git.not-text"), ("big", "git.too-big"), ("../x", "git.bad-path"), ("/etc/passwd", "git.bad-path")):
        with pytest.raises(GitError) as refused:
            folder.read_text(head(repo), path)
        assert refused.value.code == code


def test_no_program_of_the_configuration_runs(folder: WorkingFolder, repo: Repo) -> None:
    program = repo.path / "program"
    program.write_text(f"#!/bin/sh\ntouch {repo.path}/pwned\ncat\n")
    program.chmod(0o755)
    repo.git("config", "core.fsmonitor", str(program))
    repo.git("config", "filter.x.clean", str(program))
    repo.git("config", "filter.x.smudge", str(program))
    repo.write({".gitattributes": b"* filter=x\n", "src/a.py": b"changed\n"})
    assert content(folder, repo)["src/a.py"][1] == b"changed\n"
    assert not (repo.path / "pwned").exists()


def test_a_pointer_of_git_lfs_is_named(folder: WorkingFolder, repo: Repo) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
    repo.write({"weights.bin": pointer, "src/a.py": b"changed\n"})
    repo.git("add", "weights.bin")
    assert described(folder, repo).lfs_pointers == ("weights.bin",)
    # Where the checkout has the file itself, that is what travels.
    repo.write({"weights.bin": b"real\n"})
    assert described(folder, repo).lfs_pointers == ()
