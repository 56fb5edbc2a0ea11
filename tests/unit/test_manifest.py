"""Manifests and differences, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.manifest import difference, is_inside, parse_manifest, render_manifest
from dispatcher.ports import FileEntry


def entry(path: str, blob: str = "a", mode: str = "100644") -> FileEntry:
    return FileEntry(path, mode, blob * 40, 1)


names = st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=8).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


@given(st.sets(paths))
def test_every_path_survives(found: set[str]) -> None:
    files = tuple(entry(path) for path in found)
    parsed = parse_manifest(render_manifest(files))
    assert parsed is not None
    assert set(parsed) == set(files)


def test_bytes_that_are_no_text_survive() -> None:
    files = (entry(b"caf\xe9\n 100644".decode("utf-8", "surrogateescape"), mode="120000"),)
    text = render_manifest(files)
    assert text == f"120000 {'a' * 40} 1 caf%E9%0A%20100644\n"
    assert parse_manifest(text) == files


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "100644 abc 1 p",
        f"100644 {'a' * 40} 1 ../p",
        f"100644 {'a' * 40} 1 /p",
        f"100777 {'a' * 40} 1 p",
        f"100644 {'a' * 40} 1 a%2F..%2Fb",
    ],
)
def test_what_is_no_manifest(text: str) -> None:
    assert parse_manifest(text) is None


@pytest.mark.parametrize(
    ("base", "wanted", "changed", "delete"),
    [
        ({}, {"a": "1"}, {"a"}, ()),
        ({"a": "1"}, {"a": "1"}, set(), ()),
        ({"a": "1"}, {"a": "2"}, {"a"}, ("a",)),
        ({"a": "1", "b": "1"}, {"b": "1"}, set(), ("a",)),
        ({"d/a": "1", "d/b": "1"}, {"d/b": "1"}, set(), ("d/a",)),
        ({"d/e/a": "1", "d/e/b": "1", "d/c": "1"}, {"d/c": "1"}, set(), ("d/e",)),
        ({"d/e/a": "1", "d/f/b": "1"}, {"x": "1"}, {"x"}, ("d",)),
        ({"a": "1"}, {"a/b": "1"}, {"a/b"}, ("a",)),
        ({"a/b": "1", "a/c": "1"}, {"a": "1"}, {"a"}, ("a",)),
    ],
)
def test_difference(base: dict[str, str], wanted: dict[str, str], changed: set[str], delete: tuple[str, ...]) -> None:
    found = difference([entry(p, b) for p, b in base.items()], [entry(p, b) for p, b in wanted.items()])
    assert (set(found.changed), found.delete) == (changed, delete)


def test_a_mode_is_content() -> None:
    found = difference([entry("a")], [entry("a", mode="100755")])
    assert found.changed == {"a"}


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0b"])
def test_outside(path: str) -> None:
    assert not is_inside(path)


@pytest.mark.parametrize("path", ["a", "a/b", "...", "a b", "-rf", "a\nb"])
def test_inside(path: str) -> None:
    assert is_inside(path)
