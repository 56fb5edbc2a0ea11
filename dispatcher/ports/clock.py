"""Time, as a port."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time, so that the story can be told in tests."""

    def now(self) -> datetime:
        """UTC, aware."""

    def sleep(self, seconds: float) -> None:
        """Waits."""
