"""A file that a log is kept in, as a port (`effects/logfile.py`)."""

from __future__ import annotations

from typing import Protocol


class KeptLog(Protocol):
    """Where a log is kept, and how far it is there. Raises `InputError` (`input.not-written`)."""

    @property
    def offset(self) -> int:
        """Bytes of the cluster's file that are here; as masked text they may be more or fewer."""

    def write(self, text: bytes) -> None:
        """Adds what has come."""

    def reached(self, offset: int) -> None:
        """Remembers how far it is, so that whoever comes next goes on from here."""

    def finished(self) -> None:
        """It is whole: nobody has to go on."""
