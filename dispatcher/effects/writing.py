"""Texts by path → files below a folder: all of them or none, whatever breaks or interrupts it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from dispatcher.errors import InputError


def write_all(root: Path, texts: Mapping[str, str]) -> None:
    """Everything is written beside its place first, and then moved there; what was moved is moved back when one cannot be.

    Raises:
        InputError: `input.not-written`, after which every file is what it was.
    """
    mark = f".{secrets.token_hex(4)}.new"
    folders: list[Path] = []
    staged: dict[Path, Path] = {}
    before: dict[Path, bytes | None] = {}
    try:
        for path, text in texts.items():
            target = root / path
            _make_folders(root, target.parent, folders)
            if target.is_dir():
                raise IsADirectoryError(21, "Is a directory", str(target))
            staged[target] = target.with_name(target.name + mark)
            staged[target].write_text(text, encoding="utf-8")
            if target.exists():
                staged[target].chmod(target.stat().st_mode & 0o777)
        for target, new in staged.items():
            before[target] = target.read_bytes() if target.exists() else None
            os.replace(new, target)
    except BaseException as error:
        _undo(staged, before, folders)
        if isinstance(error, OSError):
            words = f"{error.filename or root} cannot be written ({error.strerror}). Nothing was changed."
            raise InputError("input.not-written", words) from None
        raise


def _make_folders(root: Path, folder: Path, made: list[Path]) -> None:
    """Every folder on the way that is not there yet; notes them, outermost first."""
    for step in (*reversed(folder.relative_to(root).parents), folder.relative_to(root)):
        here = root / step
        if not here.exists():
            here.mkdir()
            made.append(here)


def _undo(staged: Mapping[Path, Path], before: Mapping[Path, bytes | None], folders: list[Path]) -> None:
    for new in staged.values():
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
    for target, content in before.items():
        with contextlib.suppress(OSError):
            if content is None:
                target.unlink(missing_ok=True)
            else:
                target.write_bytes(content)
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()
