"""A file that a log is kept in, as a port (`effects/logfile.py`)."""

from __future__ import annotations

from typing import Protocol


class KeptLog(Protocol):
    """Where a log is kept, and how far it is there. Raises `InputError` (`input.not-written`)."""

    @property
    def offset(self) -> int:
        """Bytes of the cluster's file that are here; as masked text they may be more or fewer."""

    @property
    def mark(self) -> str:
        """By which what stood before that offset is known again (`loglines.py`); empty where nothing was remembered."""

    def write(self, text: bytes) -> None:
        """Adds what has come."""

    def reached(self, offset: int, mark: str) -> None:
        """Remembers how far it is, and the mark there, so that whoever comes next goes on from here."""

    def finished(self) -> None:
        """It is whole: nobody has to go on."""
