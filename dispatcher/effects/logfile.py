"""A file that a log is kept in, and beside it how far that is: what was written and not remembered is taken back; a folder of those."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from dispatcher.errors import InputError

# What a runner's disk must have left for everything else.
SPARE_BYTES = 512 * 1024 * 1024
# An array of ten thousand tasks has as many logs.
MOST_LISTED = 100


class LogFile:
    """`path` has the log called `name`; `<path>.state` says where to go on. Another log's file is written anew.

    With `spare`, so many bytes of the disk are left free.

    Raises:
        InputError: `input.not-written`.
    """

    def __init__(self, path: Path, name: str, spare: int = 0) -> None:
        self._path, self._state, self._name, self._spare = path, path.with_name(path.name + ".state"), name, spare
        self.offset, size, self.mark = self._known()
        try:
            with path.open("r+b" if size else "wb") as file:
                file.truncate(size)
        except OSError as error:
            raise self._cannot(error) from None

    def _known(self) -> tuple[int, int, str]:
        """How far the cluster's file is here, how long ours is for that, and the mark there."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            offset, size = int(state["offset"]), int(state["size"])
            mark = state.get("mark", "")  # an earlier version remembered none
            known = isinstance(mark, str) and state["log"] == self._name and offset >= 0 and 0 < size <= self._path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 0, ""
        return (offset, size, mark) if known else (0, 0, "")

    def write(self, text: bytes) -> None:
        """Adds to the end."""
        try:
            if self._spare and shutil.disk_usage(self._path.parent).free < self._spare + len(text):
                raise InputError("input.not-written", f"{self._path} is not written any further: the disk is nearly full.")
            with self._path.open("ab") as file:
                file.write(text)
        except OSError as error:
            raise self._cannot(error) from None

    def reached(self, offset: int, mark: str) -> None:
        """Remembers it, whole or not at all."""
        self.offset, self.mark = offset, mark
        new = self._state.with_name(self._state.name + ".new")
        try:
            state = {"log": self._name, "offset": offset, "size": self._path.stat().st_size, "mark": mark}
            new.write_text(json.dumps(state), encoding="utf-8")
            new.replace(self._state)
        except OSError as error:
            raise self._cannot(error) from None

    def finished(self) -> None:
        """Takes away what says how far it is."""
        self._state.unlink(missing_ok=True)

    def _cannot(self, error: OSError) -> InputError:
        return InputError("input.not-written", f"{self._path} cannot be written ({error.strerror}).")


class LogFolder:
    """The folder of complete logs, made when the first one comes; `told` hears of the paths of all of them, one a line, after each.

    Of more than `MOST_LISTED` it hears a pattern that finds them.
    """

    def __init__(self, folder: Path, told: Callable[[str], None], spare: int = SPARE_BYTES) -> None:
        self._folder, self._told, self._spare = folder, told, spare
        self._paths: list[str] = []

    def open(self, file: str, log: str) -> LogFile:
        """The file of that name, for the log of that name.

        Raises:
            InputError: `input.not-written`.
        """
        path = self._folder / file
        if path.is_symlink():  # what lies in a workspace may be a pull request's
            raise InputError("input.not-written", f"{path} is a symbolic link.", "Name another folder for the logs.")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError("input.not-written", f"The folder {self._folder} cannot be made ({error.strerror}).") from None
        opened = LogFile(path, log, self._spare)
        if str(path) not in self._paths and len(self._paths) <= MOST_LISTED:
            self._paths.append(str(path))
            self._told("\n".join(self._paths) if len(self._paths) <= MOST_LISTED else str(self._folder / "*.log"))
        return opened
