"""Real repositories → what `GitArchive` packs of them, from checkouts of every kind and over HTTP, friendly and hostile."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.effects.archive import GitArchive
from dispatcher.errors import CATALOGUE, ConfigError, GitError
from dispatcher.ports import Package, PackageSpec
from tests.rig.gitrepo import NESTED, GitServer, Repo, blob_id, nested_submodules, serve, unpack

ALL = PackageSpec()
FILES = {"train.py": b"print('hi')\n", "conf/a.yaml": b"a: 1\n", "run.sh": b"#!/bin/sh\n"}


def pack(archive: GitArchive, package: Package, only: frozenset[str] | None = None) -> bytes:
    return b"".join(archive.stream(package, only))


def packed(archive: GitArchive, sha: str, spec: PackageSpec = ALL) -> dict[str, tuple[str, bytes]]:
    return unpack(pack(archive, archive.describe(sha, spec)))


def refused(archive: GitArchive, sha: str, spec: PackageSpec = ALL) -> GitError:
    with pytest.raises(GitError) as caught:
        pack(archive, archive.describe(sha, spec))
    assert caught.value.code in CATALOGUE
    assert caught.value.next_step
    return caught.value


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo.create(tmp_path / "origin").write(FILES, executable=["run.sh"])


@pytest.fixture
def nested(tmp_path: Path) -> Repo:
    return nested_submodules(tmp_path)


def without_gitmodules(files: dict[str, tuple[str, bytes]]) -> dict[str, bytes]:
    return {path: content for path, (_, content) in files.items() if not path.endswith(".gitmodules")}


# --------------------------------------------------------------------------- what is packed


def test_a_commit_is_packed_as_it_is_however_dirty_the_worktree(repo: Repo) -> None:
    sha = repo.commit()
    repo.write({"train.py": b"changed\n", "untracked.py": b""})
    with GitArchive("", workspace=repo.path) as archive:
        package = archive.describe(sha, ALL)
        assert [(entry.path, entry.mode, entry.size) for entry in package.files] == [
            ("conf/a.yaml", "100644", 5),
            ("run.sh", "100755", 10),
            ("train.py", "100644", 12),
        ]
        assert package.size == 27
        assert unpack(pack(archive, package)) == {
            "conf/a.yaml": ("0o644", b"a: 1\n"),
            "run.sh": ("0o755", b"#!/bin/sh\n"),
            "train.py": ("0o644", b"print('hi')\n"),
        }
        assert archive.requests == 0


def test_the_same_tree_from_two_commits_is_the_same_package_and_one_changed_byte_is_not(repo: Repo) -> None:
    first = repo.commit("one")
    second = repo.commit("two")
    third = repo.write({"conf/a.yaml": b"a: 2\n"}).commit("three")
    with GitArchive("", workspace=repo.path) as archive, GitArchive(str(repo.path)) as fetching:
        packages = [archive.describe(sha, ALL) for sha in (first, second, third)]
        assert first != second
        assert packages[0].digest == packages[1].digest != packages[2].digest
        assert all(len(package.digest) == 64 for package in packages)
        assert pack(archive, packages[0]) == pack(archive, packages[1]) == pack(fetching, fetching.describe(first, ALL))
        assert pack(archive, packages[2]) != pack(archive, packages[0])


def test_only_the_paths_asked_for_make_a_difference_tar(repo: Repo) -> None:
    sha = repo.commit()
    with GitArchive("", workspace=repo.path) as archive:
        package = archive.describe(sha, ALL)
        assert list(unpack(pack(archive, package, frozenset({"train.py", "gone.py"})))) == ["train.py"]
        assert unpack(pack(archive, package, frozenset())) == {}


def test_an_executable_bit_alone_changes_the_digest(repo: Repo) -> None:
    before = repo.commit()
    (repo.path / "train.py").chmod(0o755)
    after = repo.commit()
    with GitArchive("", workspace=repo.path) as archive:
        assert archive.describe(before, ALL).digest != archive.describe(after, ALL).digest


WEIRD = [
    "with space.py",
    "quote'\".py",
    "new\nline.py",
    "$(touch pwned).py",
    "`touch pwned`",
    "--help",
    "-rf",
    "ünïcode/日本.py",
    "bad\udcff\udcfeutf8.py",
    "tab\there",
    "back\\slash",
    "%0A::set-output",
    "a" * 200,
    "/".join(["long" * 20] * 5) + "/x.py",
]


def test_every_name_that_git_can_hold_is_packed_byte_for_byte(repo: Repo, tmp_path: Path) -> None:
    sha = repo.write({name: name.encode("utf-8", "surrogateescape") for name in WEIRD}).commit()
    with GitArchive("", workspace=repo.path) as archive:
        package = archive.describe(sha, ALL)
        data = pack(archive, package)
    assert {entry.path for entry in package.files} == {*WEIRD, *FILES}
    assert {name: unpack(data)[name][1] for name in WEIRD} == {name: name.encode("utf-8", "surrogateescape") for name in WEIRD}
    # And by the tar that a login node has.
    subprocess.run(["tar", "-xzf", "-", "-C", str(tmp_path)], input=data, check=True)
    for name in WEIRD:
        with open(os.fsencode(tmp_path) + b"/" + name.encode("utf-8", "surrogateescape"), "rb") as file:
            assert file.read() == name.encode("utf-8", "surrogateescape")


def test_links_are_packed_as_links_and_never_followed(repo: Repo) -> None:
    target = "x" * 300
    sha = repo.write({"absolute": "/etc/passwd", "up": "../../outside", "folder": "conf", "far": target}).commit()
    with GitArchive("", workspace=repo.path) as archive:
        found = packed(archive, sha)
        assert found["absolute"] == ("link", b"/etc/passwd")
        assert found["up"] == ("link", b"../../outside")
        assert found["far"] == ("link", target.encode())
        assert archive.read_text(sha, "absolute") is None
        assert archive.read_text(sha, "folder/a.yaml") is None


def test_attributes_and_filters_are_not_applied(repo: Repo) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    repo.git("config", "filter.lfs.clean", "cat")
    repo.git("config", "filter.lfs.smudge", "echo SMUDGED")
    repo.git("config", "filter.lfs.required", "true")
    attributes = b"sub.txt export-subst\nhidden.txt export-ignore\n*.bin filter=lfs\ncrlf.txt eol=crlf\n"
    sha = repo.write(
        {
            ".gitattributes": attributes,
            "sub.txt": b"$Format:%H$\n",
            "hidden.txt": b"h\n",
            "w.bin": pointer,
            "not.bin": b"version 1\n",
            "crlf.txt": b"a\n",
        }
    ).commit()
    with GitArchive("", workspace=repo.path) as archive:
        package = archive.describe(sha, ALL)
        found = unpack(pack(archive, package))
    assert found["sub.txt"][1] == b"$Format:%H$\n"
    assert found["hidden.txt"][1] == b"h\n"
    assert found["w.bin"][1] == pointer
    assert found["crlf.txt"][1] == b"a\n"
    assert package.lfs_pointers == ("w.bin",)


def test_an_empty_tree_is_an_empty_archive(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "empty")
    sha = repo.commit()
    with GitArchive("", workspace=repo.path) as archive:
        assert archive.describe(sha, ALL).files == ()
        assert packed(archive, sha) == {}


def test_a_repository_of_many_small_files_keeps_every_byte(tmp_path: Path) -> None:
    """More requests than fit into a pipe, compressible and incompressible blobs mixed, across chunk borders."""
    files: dict[str, bytes] = {f"d{n % 7}/f{n}.txt": b"%d" % n * (n % 50) for n in range(2000)}
    files |= {f"big{n}.bin": os.urandom(n) for n in (32767, 32768, 262143, 262144, 262145, 700_001)}
    files |= {"text.txt": b"line\n" * 200_000}
    repo = Repo.create(tmp_path / "many").write(dict(files))
    sha = repo.commit()
    with GitArchive("", workspace=repo.path) as archive:
        package = archive.describe(sha, ALL)
        chunks = list(archive.stream(package))
    assert len(chunks) > 3
    assert {path: content for path, (_, content) in unpack(b"".join(chunks)).items()} == files


# --------------------------------------------------------------------------- subpath and include_pattern


def test_subpath_becomes_the_root_and_patterns_choose_within_it(repo: Repo) -> None:
    sha = repo.write({"src/a/x.py": b"x", "src/a/x.md": b"m", "src/b/y.py": b"y", "src/b/secret.py": b"s"}).commit()
    with GitArchive("", workspace=repo.path) as archive:

        def paths(*spec: object) -> list[str]:
            return list(packed(archive, sha, PackageSpec(*spec)))  # type: ignore[arg-type]

        assert paths("src") == ["a/x.md", "a/x.py", "b/secret.py", "b/y.py"]
        assert paths("src/") == paths("./src") == paths("src")
        assert paths("src/a") == ["x.md", "x.py"]
        assert paths("src", ("*.py", "!secret.py")) == ["a/x.py", "b/y.py"]
        assert paths("src", ("/b/",)) == ["b/secret.py", "b/y.py"]
        assert paths("", ("/*.py",)) == ["train.py"]


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        (PackageSpec("../up"), "git.bad-path", "'../up'"),
        (PackageSpec("conf/../.."), "git.bad-path", "not a path inside"),
        (PackageSpec("/etc"), "git.bad-path", "'/etc'"),
        (PackageSpec("cnof"), "git.no-subpath", "Did you mean 'conf'?"),
        (PackageSpec("conf/nothing"), "git.no-subpath", "'conf' has no such folder"),
        (PackageSpec("train.py"), "git.no-subpath", "not a folder"),
        (PackageSpec("", ("*.rs",)), "git.nothing-packed", "'*.rs'"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(repo: Repo, spec: PackageSpec, code: str, words: str) -> None:
    sha = repo.commit()
    with GitArchive("", workspace=repo.path) as archive:
        error = refused(archive, sha, spec)
    assert error.code == code
    assert words in error.cause


def test_a_pattern_that_is_none_is_a_mistake_in_the_profile(repo: Repo) -> None:
    sha = repo.commit()
    with GitArchive("", workspace=repo.path) as archive, pytest.raises(ConfigError):
        archive.describe(sha, PackageSpec("", ("!",)))


# --------------------------------------------------------------------------- read_text


def test_one_file_is_read_as_text(repo: Repo) -> None:
    sha = repo.write({"latin.txt": b"\xe9", "big.txt": b"x" * (1024 * 1024 + 1), "full.txt": b"y" * 1024 * 1024}).commit()
    with GitArchive("", workspace=repo.path) as archive:
        assert archive.read_text(sha, "train.py") == "print('hi')\n"
        assert archive.read_text(sha, "conf/a.yaml") == "a: 1\n"
        assert len(archive.read_text(sha, "full.txt") or "") == 1024 * 1024
        for absent in ("no.py", "conf", "no/no.py", "../origin/train.py", "/etc/passwd", "", "train.py/x", "conf//a.yaml"):
            assert archive.read_text(sha, absent) is None, absent
        for path, code in (("latin.txt", "git.not-text"), ("big.txt", "git.too-big")):
            with pytest.raises(GitError) as caught:
                archive.read_text(sha, path)
            assert caught.value.code == code


# --------------------------------------------------------------------------- where objects come from


def test_checkouts_of_every_kind_are_enough_and_nothing_is_written_into_them(repo: Repo, tmp_path: Path) -> None:
    repo.commit("old")
    sha = repo.write({"conf/a.yaml": b"a: 3\n"}).commit()
    url = f"file://{repo.path}"
    repo.git("clone", "-q", "--depth=1", url, str(tmp_path / "shallow"))
    repo.git("clone", "-q", "--bare", url, str(tmp_path / "bare"))
    repo.git("clone", "-q", "--shared", str(repo.path), str(tmp_path / "shared"))
    repo.git("worktree", "add", "-q", "--detach", str(tmp_path / "worktree"))
    for name in ("shallow", "bare", "shared", "worktree", "origin/conf"):
        workspace = tmp_path / name
        before = sorted((path, path.stat().st_mtime_ns) for path in workspace.rglob("*"))
        with GitArchive("", workspace=workspace) as archive:
            assert packed(archive, sha)["conf/a.yaml"][1] == b"a: 3\n", name
        assert sorted((path, path.stat().st_mtime_ns) for path in workspace.rglob("*")) == before


def test_a_partial_checkout_is_completed_in_our_own_folder(repo: Repo, tmp_path: Path) -> None:
    big = os.urandom(40_000)
    sha = repo.write({"big.bin": big, "pointer": b"version https://git-lfs.github.com/spec/v1\n"}).commit()
    workspace = tmp_path / "partial"
    repo.git("clone", "-q", "--filter=blob:none", "--no-checkout", f"file://{repo.path}", str(workspace))
    before = sorted(workspace.rglob("*"))
    with GitArchive(str(repo.path), workspace=workspace) as archive:
        package = archive.describe(sha, ALL)
        assert package.lfs_pointers == ("pointer",)
        assert unpack(pack(archive, package))["big.bin"][1] == big
        assert archive.requests == 2
    assert sorted(workspace.rglob("*")) == before
    with GitArchive("", workspace=workspace) as archive:
        assert refused(archive, sha).code == "git.commit-missing"


def test_without_a_checkout_the_list_costs_one_fetch_and_the_large_files_one_more(repo: Repo) -> None:
    large = {f"w{n}.bin": os.urandom(20_000) for n in range(5)}
    sha = repo.write({**large, ".gitmodules": b""}).commit()
    with serve(repo.path.parent) as server, GitArchive(f"{server.url}/origin") as archive:
        package = archive.describe(sha, ALL)
        assert archive.requests == 1
        assert {entry.path for entry in package.files if entry.size == -1} == set(large)
        assert archive.read_text(sha, "train.py") == "print('hi')\n"
        assert archive.requests == 1
        found = unpack(pack(archive, package))
        assert archive.requests == 2
        assert {path: found[path][1] for path in large} == large
        pack(archive, package)
        assert archive.requests == 2


def test_only_the_files_of_a_difference_are_fetched(repo: Repo) -> None:
    large = {f"w{n}.bin": os.urandom(20_000) for n in range(3)}
    sha = repo.write(dict(large)).commit()
    with GitArchive(str(repo.path)) as archive:
        package = archive.describe(sha, ALL)
        pack(archive, package, frozenset({"w1.bin"}))
        assert {entry.path for entry in archive.describe(sha, ALL).files if entry.size == -1} == {"w0.bin", "w2.bin"}


def test_a_server_that_sends_only_whole_commits_will_do(repo: Repo) -> None:
    sha = repo.write({"big.bin": b"z" * 50_000}).commit()
    repo.git("config", "uploadpack.allowFilter", "false")
    with GitArchive(str(repo.path)) as archive:
        assert packed(archive, sha)["big.bin"][1] == b"z" * 50_000
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpackfilter.allow", "false")
    with GitArchive(str(repo.path)) as archive:
        assert packed(archive, sha)["big.bin"][1] == b"z" * 50_000


def test_a_cache_saves_the_next_process_the_fetch(repo: Repo, tmp_path: Path) -> None:
    sha = repo.commit()
    for requests in (1, 0):
        with GitArchive(str(repo.path), cache=tmp_path / "cache") as archive:
            packed(archive, sha)
            assert archive.requests == requests


def test_nothing_is_left_behind(repo: Repo, tmp_path: Path) -> None:
    sha = repo.commit()
    program = (
        "import sys; from dispatcher.effects.archive import GitArchive; from dispatcher.ports import PackageSpec\n"
        "a = GitArchive(sys.argv[1]); next(a.stream(a.describe(sys.argv[2], PackageSpec())))"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    subprocess.run([sys.executable, "-c", program, str(repo.path), sha], check=True, env={**os.environ, "TMPDIR": str(temporary)})
    assert list(temporary.iterdir()) == []


# --------------------------------------------------------------------------- submodules


def test_nested_submodules_are_packed_at_their_pins_in_their_folders(nested: Repo) -> None:
    sha = nested.git("rev-parse", "HEAD")
    with serve(nested.path.parent) as server, GitArchive(f"{server.url}/main") as archive:
        assert without_gitmodules(packed(archive, sha)) == NESTED
        assert archive.requests == 3
        assert list(packed(archive, sha, PackageSpec("vendor/lib/deep"))) == ["core/core.py"]
        assert list(packed(archive, sha, PackageSpec("vendor/lib/deep/core"))) == ["core.py"]
        assert archive.read_text(sha, "vendor/lib/deep/core/core.py") == "pinned core\n"


def test_submodules_below_a_subpath_are_found_at_their_addresses(nested: Repo) -> None:
    sha = nested.git("rev-parse", "HEAD")
    with GitArchive(str(nested.path)) as archive:
        expected = {path.removeprefix("vendor/"): content for path, content in NESTED.items() if path != "main.py"}
        assert without_gitmodules(packed(archive, sha, PackageSpec("vendor"))) == expected


def test_submodules_that_are_not_wanted_cost_nothing(nested: Repo) -> None:
    sha = nested.git("rev-parse", "HEAD")
    with GitArchive(str(nested.path)) as archive:
        assert without_gitmodules(packed(archive, sha, PackageSpec(include_submodules=False))) == {"main.py": b"main\n"}
        assert archive.requests == 1


def test_submodules_of_a_checkout_are_used_where_they_are(nested: Repo) -> None:
    nested.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive")
    with GitArchive("", workspace=nested.path) as archive:
        assert without_gitmodules(packed(archive, nested.git("rev-parse", "HEAD"))) == NESTED


def test_a_submodule_with_large_files_gets_them_from_its_own_remote(tmp_path: Path) -> None:
    big = os.urandom(30_000)
    lib = Repo.create(tmp_path / "lib").write({"big.bin": big})
    lib.commit()
    main = Repo.create(tmp_path / "main").write({"m": b""})
    main.add_submodule(str(lib.path), "lib")
    sha = main.commit()
    with GitArchive(str(main.path)) as archive:
        assert packed(archive, sha)["lib/big.bin"][1] == big


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ext::sh -c 'touch pwned'", "neither https:// nor ssh"),
        ("--upload-pack=touch pwned", "neither https:// nor ssh"),
        ("file:///etc", "a folder on this machine"),
        ("/etc", "a folder on this machine"),
        ("git://example.org/x", "only https and ssh"),
        ("http://169.254.169.254/latest", "not allowed"),
        ("ssh://-oProxyCommand=touch/x", "no proper host"),
        ("git@example.org:x/y", "not allowed"),
        ("../../../..", "out of the host"),
        ("../gone", "not found"),
    ],
)
def test_a_submodule_that_may_not_or_cannot_be_fetched_is_named(tmp_path: Path, url: str, words: str) -> None:
    main = Repo.create(tmp_path / "main")
    main.git("config", "-f", ".gitmodules", "submodule.x.path", "third/party")
    main.git("config", "-f", ".gitmodules", "submodule.x.url", url)
    main.git("add", ".gitmodules")
    main.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},third/party")
    main.git("commit", "-q", "-m", "x")
    with serve(tmp_path) as server, GitArchive(f"{server.url}/main") as archive:
        error = refused(archive, main.git("rev-parse", "HEAD"))
    assert error.code == "git.submodule"
    assert "'third/party'" in error.cause
    assert words in error.cause
    assert not list(tmp_path.rglob("pwned"))


def test_a_submodule_without_an_address_or_with_a_broken_gitmodules_is_named(tmp_path: Path) -> None:
    main = Repo.create(tmp_path / "main")
    pin = ("160000", b"sub", "1" * 40)
    for content, words in ((None, "no url"), (b"[submodule", "cannot be read"), (b"[include]\npath = /etc/passwd\n", "no url")):
        entries = [("100644", b".gitmodules", main.blob(content))] if content else []
        with GitArchive(str(main.path), workspace=main.path) as archive:
            error = refused(archive, main.crafted([*entries, pin]))
        assert error.code == "git.submodule"
        assert words in error.cause
    link = main.blob(b"/etc/passwd")
    with GitArchive(str(main.path), workspace=main.path) as archive:
        assert "no url" in refused(archive, main.crafted([("120000", b".gitmodules", link), pin])).cause


# --------------------------------------------------------------------------- hostile commits


def evil(repo: Repo, case: str) -> str:
    blob = repo.blob(b"x")
    tree = repo.git("mktree", stdin=f"100644 blob {blob}\tf\n".encode())
    cases: dict[str, list[tuple[str, bytes, str]]] = {
        "dotdot": [("40000", b"..", tree)],
        "dotdot file": [("100644", b"..", blob)],
        "dot": [("40000", b".", tree)],
        "slash": [("100644", b"../../etc/cron.d/x", blob)],
        "absolute": [("100644", b"/etc/x", blob)],
        "git": [("40000", b".git", tree)],
        "GIT": [("40000", b".GiT", tree)],
        "empty": [("100644", b"", blob)],
        "twice": [("100644", b"a", blob), ("100755", b"a", blob)],
        "file and folder": [("120000", b"a", blob), ("40000", b"a", tree)],
        "mode": [("60000", b"device", blob)],
        "file that is a folder": [("100644", b"a", tree)],
        "folder that is a file": [("40000", b"a", blob)],
        "long link": [("120000", b"a", repo.blob(b"x" * 5000))],
    }
    return repo.crafted(cases[case])


@pytest.mark.parametrize(
    "case",
    [
        "dotdot",
        "dotdot file",
        "dot",
        "slash",
        "absolute",
        "git",
        "GIT",
        "empty",
        "twice",
        "file and folder",
        "mode",
        "file that is a folder",
        "folder that is a file",
        "long link",
    ],
)
def test_a_tree_that_would_escape_when_unpacked_is_refused(tmp_path: Path, case: str) -> None:
    repo = Repo.create(tmp_path / "evil")
    with GitArchive("", workspace=repo.path) as archive:
        assert refused(archive, evil(repo, case)).code == "git.unsafe-tree"


def test_a_tree_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "evil")
    tree = repo.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=b"100644 name\0short")
    with GitArchive("", workspace=repo.path) as archive:
        assert refused(archive, repo.commit_tree(tree)).code == "git.unsafe-tree"


def test_a_few_trees_that_name_billions_of_files_are_refused(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "bomb")
    oid, kind = repo.blob(b"boom"), "100644 blob"
    for _ in range(10):
        oid, kind = repo.git("mktree", stdin="".join(f"{kind} {oid}\td{n}\n" for n in range(10)).encode()), "040000 tree"
    with GitArchive("", workspace=repo.path) as archive:
        assert refused(archive, repo.commit_tree(oid)).code == "git.too-big"
    deep = repo.git("mktree", stdin=f"100644 blob {repo.blob(b'x')}\tf\n".encode())
    for _ in range(250):
        deep = repo.git("mktree", stdin=f"040000 tree {deep}\td\n".encode())
    with GitArchive("", workspace=repo.path) as archive:
        assert refused(archive, repo.commit_tree(deep)).code == "git.too-big"


def test_more_bytes_than_allowed_are_refused_also_when_sizes_were_not_known(repo: Repo) -> None:
    sha = repo.write({"big.bin": os.urandom(20_000)}).commit()
    with GitArchive("", workspace=repo.path, max_bytes=10_000) as archive, pytest.raises(GitError) as caught:
        archive.describe(sha, ALL)
    assert caught.value.code == "git.too-big"
    with GitArchive(str(repo.path), max_bytes=10_000) as archive:
        package = archive.describe(sha, ALL)
        with pytest.raises(GitError, match="20"):
            pack(archive, package)


def test_an_object_with_other_content_than_its_id_is_never_packed(repo: Repo) -> None:
    sha = repo.commit()
    oid = blob_id(FILES["train.py"])
    other = blob_id(FILES["run.sh"])
    objects = repo.path / ".git" / "objects"
    forged = objects / oid[:2] / oid[2:]
    forged.chmod(0o644)
    forged.write_bytes((objects / other[:2] / other[2:]).read_bytes())
    with GitArchive("", workspace=repo.path) as archive:
        assert refused(archive, sha).code == "git.corrupt"
    forged.write_bytes(b"garbage")
    with GitArchive("", workspace=repo.path) as archive:
        assert refused(archive, sha).code in ("git.corrupt", "git.commit-missing")


@pytest.mark.parametrize("sha", ["HEAD", "main", "", "abc", "A" * 40, "0" * 39 + "g", "--help", "a" * 40 + "\n", "$(touch pwned)"])
def test_only_a_full_sha_names_a_commit(repo: Repo, sha: str) -> None:
    repo.commit()
    with GitArchive(str(repo.path), workspace=repo.path) as archive:
        assert refused(archive, sha).code == "git.bad-sha"
        with pytest.raises(GitError):
            archive.read_text(sha, "train.py")


def test_a_sha_of_something_else_is_no_commit(repo: Repo) -> None:
    sha = repo.commit()
    repo.git("tag", "-a", "-m", "t", "t")
    with GitArchive("", workspace=repo.path) as archive:
        for name in (f"{sha}^{{tree}}", f"{sha}:train.py", "t"):
            assert refused(archive, repo.git("rev-parse", name)).code == "git.bad-sha"


# --------------------------------------------------------------------------- hostile checkouts


def test_the_configuration_of_a_checkout_executes_nothing_and_leads_nowhere(repo: Repo, tmp_path: Path) -> None:
    sha = repo.write({".gitattributes": b"* filter=evil diff=evil\n", "sub/x": b"x"}).commit()
    workspace = Repo(tmp_path / "ws")
    repo.git("clone", "-q", "--filter=blob:none", f"file://{repo.path}", str(workspace.path))
    marker = tmp_path / "pwned"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\necho $0 $@ >> {marker}\n")
    script.chmod(0o755)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"):
        (hooks / hook).symlink_to(script)
    (tmp_path / "included").write_text(f"[core]\n\tpager = {script}\n")
    for key, value in {
        "core.fsmonitor": str(script),
        "core.hooksPath": str(hooks),
        "core.sshCommand": str(script),
        "core.askPass": str(script),
        "core.gitProxy": str(script),
        "core.alternateRefsCommand": str(script),
        "credential.helper": f"!{script}",
        "uploadpack.packObjectsHook": str(script),
        "filter.evil.smudge": str(script),
        "filter.evil.clean": str(script),
        "diff.evil.textconv": str(script),
        "include.path": str(tmp_path / "included"),
        "protocol.ext.allow": "always",
        f"url.ext::{script} .insteadOf": "file://",
        f"url.ext::{script} x.insteadOf": str(repo.path),
        "remote.origin.uploadpack": str(script),
    }.items():
        workspace.git("config", key, value)
    with GitArchive("", workspace=workspace.path) as archive:
        packed(archive, sha)
    second = repo.write({"new.py": b"n" * 20_000}).commit()
    with GitArchive(str(repo.path), workspace=workspace.path) as archive:
        assert packed(archive, second)["new.py"][1] == b"n" * 20_000
    assert not marker.exists()
    subprocess.run(["git", "status"], cwd=workspace.path, capture_output=True, env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})
    assert marker.exists(), "this checkout would not have executed anything anyway"


def test_a_missing_blob_is_not_fetched_through_the_checkouts_own_remote(repo: Repo, tmp_path: Path) -> None:
    sha = repo.commit()
    marker = tmp_path / "pwned"
    repo.git("clone", "-q", "--filter=blob:none", "--no-checkout", f"file://{repo.path}", str(tmp_path / "ws"))
    workspace = Repo(tmp_path / "ws")
    workspace.git("config", "protocol.ext.allow", "always")
    workspace.git("config", "remote.origin.url", f"ext::touch {marker}")
    with GitArchive("", workspace=workspace.path) as archive:
        assert refused(archive, sha).code == "git.commit-missing"
        with pytest.raises(GitError):
            archive.read_text(sha, "train.py")
    assert not marker.exists()
    subprocess.run(["git", "show", f"{sha}:train.py"], cwd=workspace.path, capture_output=True)
    assert marker.exists(), "git itself would not have executed anything either"


def test_git_variables_of_our_surroundings_do_not_matter(repo: Repo, tmp_path: Path) -> None:
    sha = repo.commit()
    other = Repo.create(tmp_path / "other")
    program = (
        "import sys; from dispatcher.effects.archive import GitArchive; from dispatcher.ports import PackageSpec\n"
        "a = GitArchive(sys.argv[1]); print(len(a.describe(sys.argv[2], PackageSpec()).files))"
    )
    env = {
        **os.environ,
        "GIT_DIR": str(other.path / ".git"),
        "GIT_WORK_TREE": "/",
        "GIT_OBJECT_DIRECTORY": "/nonexistent",
        "GIT_SSH_COMMAND": "false",
        "GIT_TRACE": str(tmp_path / "trace"),
        "GIT_CONFIG_PARAMETERS": "'protocol.file.allow'='never'",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "protocol.file.allow",
        "GIT_CONFIG_VALUE_0": "never",
    }
    done = subprocess.run([sys.executable, "-c", program, str(repo.path), sha], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("3\n", "")
    assert not (tmp_path / "trace").exists()


def test_a_folder_that_is_no_checkout_is_no_help(repo: Repo, tmp_path: Path) -> None:
    sha = repo.commit()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / ".git").write_text("gitdir: /nonexistent\n")
    for workspace in (tmp_path / "nowhere", broken):
        with GitArchive(str(repo.path), workspace=workspace) as archive:
            assert set(packed(archive, sha)) == set(FILES)


# --------------------------------------------------------------------------- tokens and failures on the way

TOKEN = "ghs_" + "S3cret" * 6


@pytest.fixture
def private(repo: Repo) -> Iterator[GitServer]:
    with serve(repo.path.parent, token=TOKEN) as server:
        yield server


def test_the_token_is_sent_and_seen_nowhere_else(repo: Repo, private: GitServer, tmp_path: Path) -> None:
    sha = repo.commit()
    log = tmp_path / "argv"
    wrapper = tmp_path / "git-wrapper"
    wrapper.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {log}\nexec git "$@"\n')
    wrapper.chmod(0o755)
    cache = tmp_path / "cache"
    with GitArchive(f"{private.url}/origin", TOKEN, cache=cache, git=str(wrapper)) as archive:
        assert set(packed(archive, sha)) == set(FILES)
    basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    assert {header for _, _, header in private.seen} == {f"Basic {basic}"}
    assert "fetch" in log.read_text()
    written = log.read_bytes() + b"".join(path.read_bytes() for path in cache.rglob("*") if path.is_file())
    assert TOKEN.encode() not in written
    assert basic.encode() not in written


def test_a_password_in_the_address_is_taken_as_the_token_and_not_shown(repo: Repo, private: GitServer) -> None:
    sha = repo.commit()
    words: list[str] = []
    address = private.url.replace("http://", f"http://x-access-token:{TOKEN}@")
    with GitArchive(f"{address}/origin", progress=words.append) as archive:
        assert set(packed(archive, sha)) == set(FILES)
    assert words
    assert TOKEN not in "".join(words)
    with GitArchive(f"{address}/gone") as archive:
        error = refused(archive, sha)
    assert error.code == "git.denied"
    assert TOKEN not in error.cause


def test_what_git_says_is_shown_without_secrets(repo: Repo, private: GitServer, tmp_path: Path) -> None:
    sha = repo.commit()
    chatty = tmp_path / "git"
    said = f"fatal: odd: $GIT_CONFIG_VALUE_1 {TOKEN} https://me:hunter2@host/x ${{GITHUB_TOKEN:-unset}}"
    chatty.write_text(f'#!/bin/sh\ncase $1 in fetch) echo "{said}" >&2; exit 1;; esac\nexec git "$@"\n')
    chatty.chmod(0o755)
    with GitArchive(f"{private.url}/origin", TOKEN, git=str(chatty)) as archive:
        error = refused(archive, sha)
    assert error.code == "git.fetch-failed"
    assert error.cause.endswith("fatal: odd: Authorization: Basic *** *** https://***@host/x unset")


def test_a_submodule_on_another_host_gets_no_token(repo: Repo, private: GitServer, tmp_path: Path) -> None:
    sub = repo.commit()
    with serve(tmp_path) as other:
        main = Repo.create(tmp_path / "main")
        blob = main.blob(f'[submodule "s"]\npath = s\nurl = {other.url}/origin\n'.encode())
        sha = main.crafted([("100644", b".gitmodules", blob), ("160000", b"s", sub)])
        with GitArchive(f"{private.url}/main", TOKEN) as archive:
            error = refused(archive, sha)
        assert error.code == "git.submodule"
        assert other.seen == []


def test_a_redirection_is_not_followed_with_a_token(repo: Repo, private: GitServer, tmp_path: Path) -> None:
    sha = repo.commit()
    with serve(tmp_path) as other:
        private.moved = other.url
        with GitArchive(f"{private.url}/origin", TOKEN) as archive:
            assert refused(archive, sha).code == "git.moved"
        assert other.seen == []


def test_what_goes_wrong_on_the_way_has_a_name(repo: Repo, private: GitServer, tmp_path: Path) -> None:
    sha = repo.commit()

    def code(url: str, token: str | None = None, sha: str = sha, **options: object) -> str:
        with GitArchive(url, token, **options) as archive:  # type: ignore[arg-type]
            return refused(archive, sha).code

    assert code(f"{private.url}/origin") == "git.denied"
    assert code(f"{private.url}/gone", TOKEN) == "git.denied"
    assert code(str(tmp_path / "gone")) == "git.denied"
    assert code(f"{private.url}/origin", TOKEN, "1" * 40) == "git.commit-missing"
    assert code(str(repo.path), None, "1" * 40) == "git.commit-missing"
    assert code("", None, "1" * 40) == "git.commit-missing"
    assert code(str(repo.path), git="/nonexistent/git") == "git.not-found"
    private.silent = True
    assert code(f"{private.url}/origin", TOKEN, timeout=0.5) == "git.timeout"
    for url in ("origin", "ext::sh", "git://example.org/x", "--upload-pack=x"):
        with pytest.raises(GitError) as caught:
            GitArchive(url)
        assert caught.value.code == "git.bad-url"
    (tmp_path / "file").write_text("")
    with pytest.raises(GitError) as caught:
        GitArchive("", cache=tmp_path / "file" / "x")
    assert caught.value.code == "git.cache"


def test_a_server_that_stumbles_is_asked_again_and_one_that_lies_down_is_named(repo: Repo) -> None:
    sha = repo.commit()
    with serve(repo.path.parent) as server:
        server.broken = 1
        with GitArchive(f"{server.url}/origin") as archive:
            assert set(packed(archive, sha)) == set(FILES)
            assert archive.requests == 2
        server.broken = 99
        with GitArchive(f"{server.url}/origin") as archive:
            assert refused(archive, sha).code == "git.fetch-failed"


def test_a_stream_that_is_given_up_leaves_no_process(repo: Repo) -> None:
    sha = repo.write({f"w{n}.bin": os.urandom(600_000) for n in range(4)}).commit()
    with GitArchive("", workspace=repo.path) as archive:
        stream = archive.stream(archive.describe(sha, ALL))
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [pid for pid in children if "cat-file" in Path(f"/proc/{pid}/cmdline").read_text()]


# --------------------------------------------------------------------------- memory


_MEASURE = """
import resource, sys
from pathlib import Path
from dispatcher.effects.archive import GitArchive
from dispatcher.ports import PackageSpec
archive = GitArchive(sys.argv[1], workspace=Path(sys.argv[2]) if sys.argv[2] else None)
print(sum(len(chunk) for chunk in archive.stream(archive.describe(sys.argv[3], PackageSpec()))))
# Not RUSAGE_SELF: that remembers the process that started this one.
here = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(max(here, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024)
"""


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository with one file of 300 MB, and its commit."""
    repo = Repo.create(tmp_path_factory.mktemp("archive") / "huge")
    # For the server's side, which is git's own: what is measured is this one.
    for key, value in (("bigFileThreshold", "1m"), ("compression", "0"), ("packedGitWindowSize", "4m"), ("packedGitLimit", "16m")):
        repo.git("config", f"core.{key}", value)
    piece = os.urandom(1 << 20)
    with open(repo.path / "weights.bin", "wb") as file:
        for _ in range(300):
            file.write(piece)
    sha = repo.commit()
    (repo.path / "weights.bin").unlink()
    return repo.path, sha


@pytest.mark.parametrize("checkout", [True, False])
def test_a_file_of_300_mb_takes_little_memory_here_and_in_git(huge: tuple[Path, str], checkout: bool) -> None:
    path, sha = huge
    where = ["", str(path)] if checkout else [str(path), ""]
    done = subprocess.run([sys.executable, "-c", _MEASURE, *where, sha], check=True, capture_output=True, text=True)
    size, peak = map(int, done.stdout.split())
    assert size > 300 << 20
    assert peak < 60, f"{peak} MB"
