"""Nothing → the time, from the machine: the real `Clock`."""

from __future__ import annotations

import time
from datetime import datetime, timezone


class SystemClock:
    """Implements the `Clock` port of ports.py."""

    def now(self) -> datetime:
        """The current time, UTC, aware."""
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Waits; a negative number waits not at all."""
        time.sleep(max(seconds, 0.0))
