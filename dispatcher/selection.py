"""Files of a commit × patterns → the files of a package under their new paths. Nothing is matched by a shell, nothing is read.

Patterns are gitignore's (https://git-scm.com/docs/gitignore#_pattern_format), and begin at the repository's top folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from dispatcher.errors import ConfigError, GitError
from dispatcher.gittree import path_bytes, show, split_path
from dispatcher.ports import Choice, FileEntry

_MAGIC = frozenset("*?[\\")


def chosen(files: Sequence[FileEntry], choices: Sequence[Choice]) -> tuple[FileEntry, ...]:
    """The files that the choices name, one choice after the other, under their paths below `relative_path`.

    Raises:
        ConfigError: `config.invalid` for a pattern that is none.
        GitError: `git.nothing-packed` when nothing is chosen; `git.bad-path` for a file that is not below its `relative_path`.
    """
    # By old path and folder: the same file may be chosen twice, and taken away again.
    found: dict[tuple[str, str], FileEntry] = {}
    for choice in choices:
        matches = _matcher(choice.pattern.removeprefix("!"))
        if choice.pattern.startswith("!"):
            found = {key: entry for key, entry in found.items() if not matches(key[0])}
        else:
            # Taken out first, so that what was chosen last also comes last.
            for entry in (entry for entry in files if matches(entry.path)):
                found.pop((entry.path, choice.relative_path), None)
                found[entry.path, choice.relative_path] = replace(entry, path=_below(entry.path, choice.relative_path))
    if not found:
        raise GitError("git.nothing-packed", f"No file of the commit matches {', '.join(show(choice.pattern) for choice in choices)}.")
    return tuple(found.values())


def combined(parts: Iterable[tuple[str, Iterable[FileEntry]]]) -> tuple[FileEntry, ...]:
    """Folder's name ("" for the root) and its files → one package; a later file replaces an earlier one. Sorted by the bytes of the path.

    Raises GitError `git.clash` when a file would lie in a folder that is itself a file or a symbolic link: unpacking it would fail, or
    write wherever the link leads.
    """
    placed: dict[str, FileEntry] = {}
    for folder, files in parts:
        for entry in files:
            path = f"{folder}/{entry.path}" if folder else entry.path
            placed[path] = replace(entry, path=path)
    for path in placed:
        above = path.rpartition("/")[0]
        while above:
            if above in placed:
                raise GitError("git.clash", f"{show(path)} would lie in {show(above)}, which is packed as a file or a symbolic link.")
            above = above.rpartition("/")[0]
    return tuple(sorted(placed.values(), key=lambda entry: path_bytes(entry.path)))


def reach(choices: Sequence[Choice]) -> Callable[[str], bool]:
    """Whether anything below a folder can be chosen: folders and submodules out of reach need not be looked into, nor fetched."""
    starts = [_literal(choice.pattern) for choice in choices if not choice.pattern.startswith("!")]

    def within(folder: str) -> bool:
        parts = tuple(folder.split("/"))
        return any(all(one == other for one, other in zip(start, parts, strict=False)) for start in starts)

    return within


def named_exactly(choices: Sequence[Choice]) -> tuple[str, ...]:
    """Files and folders that a choice names without any wildcard: those are meant even where gitignore leaves them out."""
    patterns = (choice.pattern.lstrip("/") for choice in choices if not choice.pattern.startswith("!"))
    return tuple("/".join(split_path(pattern)) for pattern in patterns if not _MAGIC & set(pattern) and split_path(pattern))


def _literal(pattern: str) -> tuple[str, ...]:
    """The folders that a pattern begins with, up to the first that is a pattern."""
    parts: list[str] = []
    for part in split_path(pattern.lstrip("/")):
        if _MAGIC & set(part):
            break
        parts.append(part)
    return tuple(parts)


def _matcher(pattern: str) -> Callable[[str], bool]:
    """A pattern that begins at the top; a folder stands for all that is below it."""
    # Imported here because it takes 50 ms, and most packages have no patterns.
    from pathspec import GitIgnoreSpec

    anchored = "/" + ("/".join(split_path(pattern.lstrip("/"))) or "**")
    try:
        return GitIgnoreSpec.from_lines([anchored]).match_file
    except ValueError as error:
        raise ConfigError("config.invalid", f"include_pattern: {error}") from error


def _below(path: str, relative_path: str) -> str:
    """The path as it is seen from a folder."""
    folder = split_path(relative_path)
    parts = tuple(path.split("/"))
    if parts[: len(folder)] != folder or len(parts) == len(folder):
        raise GitError("git.bad-path", f"{show(path)} is not below {show(relative_path)}, from which it should be packed.")
    return "/".join(parts[len(folder) :])
