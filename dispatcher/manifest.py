"""What a package holds ↔ the text that the ledger keeps of it, and the difference between two packages.

A manifest is a line per file: `mode blob size path`, the path percent-encoded, so that neither spaces nor newlines nor bytes that
are no UTF-8 (git allows them all) can forge a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from dispatcher.ports import FileEntry

_LINE = re.compile(r"(100644|100755|120000) ([0-9a-f]{40,64}) (-1|\d{1,15}) ([!-~]{1,12288})")
_PLAIN = "/!#$&'()*+,:;=?@[]^{}|~"


@dataclass(frozen=True)
class Difference:
    """What turns a base into another package: `delete` (paths, whole folders too), then unpack the archive of `changed`."""

    changed: frozenset[str]
    delete: tuple[str, ...]


def render_manifest(files: Iterable[FileEntry]) -> str:
    """Files → manifest, sorted by path."""
    lines = (f"{f.mode} {f.blob} {f.size} {quote(f.path, safe=_PLAIN, errors='surrogateescape')}\n" for f in files)
    return "".join(sorted(lines, key=lambda line: line.split(" ", 3)[3]))


def parse_manifest(text: str) -> tuple[FileEntry, ...] | None:
    """Manifest → files; None when it is not one (it lay on a file system that others write to): then the package is sent whole."""
    files = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        mode, blob, size, encoded = match.groups()
        path = unquote(encoded, errors="surrogateescape")
        if not is_inside(path):
            return None
        files.append(FileEntry(path, mode, blob, int(size)))
    return tuple(files)


def difference(base: Iterable[FileEntry], wanted: Iterable[FileEntry]) -> Difference:
    """What to delete from `base` and what to unpack over it to have exactly `wanted`.

    A path that changes is deleted too, so that nothing is ever written through an old symbolic link; a folder that has no file
    left is deleted as a whole, so that no empty one stays.
    """
    old = {entry.path: (entry.mode, entry.blob) for entry in base}
    new = {entry.path: (entry.mode, entry.blob) for entry in wanted}
    changed = frozenset(path for path, content in new.items() if old.get(path) != content)
    vanished = _folders(old) - _folders(new)
    gone = {path for path, content in old.items() if new.get(path) != content}
    topmost = {folder for folder in vanished if not _folders([folder]) & vanished}
    return Difference(changed, tuple(sorted(topmost | {path for path in gone if not _folders([path]) & vanished})))


def is_inside(path: str) -> bool:
    """Whether a relative path stays inside its folder: no empty part, no `.`, no `..`, no NUL."""
    return "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def _folders(paths: Iterable[str]) -> set[str]:
    """Every folder that the paths lie in."""
    found: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found
