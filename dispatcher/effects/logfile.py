"""A file that a log is kept in, and beside it how far that is: what was written without being remembered is taken back."""

from __future__ import annotations

import json
from pathlib import Path

from dispatcher.errors import InputError


class LogFile:
    """`path` has the log called `name`; `<path>.state` says where to go on. Another log's file is written anew.

    Raises:
        InputError: `input.not-written`.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._state, self._name = path, path.with_name(path.name + ".state"), name
        self.offset, size = self._known()
        try:
            with path.open("r+b" if size else "wb") as file:
                file.truncate(size)
        except OSError as error:
            raise self._cannot(error) from None

    def _known(self) -> tuple[int, int]:
        """How far the cluster's file is here, and how long ours is for that."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            offset, size = int(state["offset"]), int(state["size"])
            known = state["log"] == self._name and offset >= 0 and 0 < size <= self._path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 0
        return (offset, size) if known else (0, 0)

    def write(self, text: bytes) -> None:
        """Adds to the end."""
        try:
            with self._path.open("ab") as file:
                file.write(text)
        except OSError as error:
            raise self._cannot(error) from None

    def reached(self, offset: int) -> None:
        """Remembers it, whole or not at all."""
        self.offset = offset
        new = self._state.with_name(self._state.name + ".new")
        try:
            state = {"log": self._name, "offset": offset, "size": self._path.stat().st_size}
            new.write_text(json.dumps(state), encoding="utf-8")
            new.replace(self._state)
        except OSError as error:
            raise self._cannot(error) from None

    def _cannot(self, error: OSError) -> InputError:
        return InputError("input.not-written", f"{self._path} cannot be written ({error.strerror}).")
