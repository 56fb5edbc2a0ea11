"""Quick stand-ins at the ports of dispatcher/ports.py; the only place where tests have them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone


class FakeClock:
    """A `Clock` whose sleep takes no time but moves the clock; `slept` lists how long was asked for."""

    def __init__(self, start: datetime = datetime(2024, 5, 6, 14, 2, tzinfo=timezone.utc)) -> None:
        self.time = start
        self.slept: list[float] = []

    def now(self) -> datetime:
        """The time that has been slept to."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Moves the clock."""
        self.slept.append(seconds)
        self.time += timedelta(seconds=seconds)
