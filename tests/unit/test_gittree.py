"""Raw trees → entries or a refusal; paths, selection and digest. (Real trees are in tests/integration/test_archive.py.)"""

from __future__ import annotations

import pytest

from dispatcher.errors import GitError
from dispatcher.gittree import TreeEntry, digest_of, parse_tree, select, show, split_path, tree_of_commit
from dispatcher.ports import FileEntry

OID = bytes(range(20))


def raw(*entries: tuple[bytes, bytes]) -> bytes:
    return b"".join(mode + b" " + name + b"\0" + OID for mode, name in entries)


def test_modes_are_gits_own_old_ones_included() -> None:
    entries = parse_tree(
        raw((b"100644", b"a"), (b"100664", b"b"), (b"100755", b"c"), (b"120000", b"d"), (b"040000", b"e"), (b"160000", b"f")), ""
    )
    assert [(entry.name, entry.mode) for entry in entries] == [
        ("a", "100644"),
        ("b", "100644"),
        ("c", "100755"),
        ("d", "120000"),
        ("e", "40000"),
        ("f", "160000"),
    ]
    assert entries[0] == TreeEntry("a", "100644", OID.hex())
    assert (entries[4].is_tree, entries[5].is_submodule) == (True, True)


@pytest.mark.parametrize("name", [b".", b"..", b"", b".git", b".GIT", b"a/b", b"/", b"../x"])
def test_a_name_that_means_something_else_is_refused(name: bytes) -> None:
    with pytest.raises(GitError) as caught:
        parse_tree(raw((b"100644", name)), "folder")
    assert caught.value.code == "git.unsafe-tree"
    assert "'folder'" in caught.value.cause


@pytest.mark.parametrize("name", [b"..a", b"...", b".gitignore", b".github", b"git", b" ", b"\xff"])
def test_a_name_that_only_looks_strange_is_not(name: bytes) -> None:
    assert parse_tree(raw((b"100644", name)), "")[0].name.encode("utf-8", "surrogateescape") == name


@pytest.mark.parametrize("data", [b"x", b"100644 a", b"100644 a\0", b"100644 a\0" + OID[:-1], raw((b"", b"a")), raw((b"100000", b"a"))])
def test_what_is_no_tree_is_refused(data: bytes) -> None:
    with pytest.raises(GitError):
        parse_tree(data, "")


def test_a_commit_begins_with_its_tree() -> None:
    assert tree_of_commit(b"tree " + b"a" * 40 + b"\nparent ...") == "a" * 40
    with pytest.raises(ValueError, match="commit"):
        tree_of_commit(b"object " + b"a" * 40)


@pytest.mark.parametrize(("path", "parts"), [("", ()), ("a", ("a",)), ("./a//b/", ("a", "b")), ("..a", ("..a",))])
def test_a_path_is_split(path: str, parts: tuple[str, ...]) -> None:
    assert split_path(path) == parts


@pytest.mark.parametrize("path", ["/", "/a", "..", "a/../b", "a\0b"])
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(GitError):
        split_path(path)


def test_the_digest_depends_on_path_mode_and_blob_only() -> None:
    files = [FileEntry("a", "100644", "1" * 40, 5), FileEntry("b", "100644", "2" * 40, 5)]
    digest = digest_of(files)
    assert len(digest) == 64
    assert digest_of([files[1], FileEntry("a", "100644", "1" * 40, -1)]) == digest
    for other in (FileEntry("c", "100644", "1" * 40, 5), FileEntry("a", "100755", "1" * 40, 5), FileEntry("a", "100644", "3" * 40, 5)):
        assert digest_of([other, files[1]]) != digest


def test_a_name_cannot_pretend_to_be_two_lines_of_the_digest() -> None:
    two = [FileEntry("a", "100644", "1" * 40, 0), FileEntry("b", "100644", "2" * 40, 0)]
    one = FileEntry("a 100644 " + "1" * 40 + "\nb", "100644", "2" * 40, 0)
    assert digest_of([one]) != digest_of(two)


def test_the_selection_is_sorted_by_bytes() -> None:
    files = [FileEntry(path, "100644", "", 0) for path in ("é", "\udcff", "z", "a/b", "a-b", "\U0001f600")]
    assert [entry.path for entry in select(files, ())] == ["a-b", "a/b", "z", "é", "\U0001f600", "\udcff"]


def test_a_name_from_outside_is_harmless_in_a_message() -> None:
    assert show("a\n\udcff`") == "'a\\n\\\\xff`'"
    assert len(show("x" * 1000)) == 120
