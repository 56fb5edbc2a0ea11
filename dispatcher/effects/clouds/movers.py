"""Pieces of code → small jobs that lay them on storage, several at a time, each found again by its name.

A launch that is repeated after a death finds the jobs of the first and waits for them; all are removed when the last piece lies there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

from dispatcher.effects.clouds.api import ApiError

AT_ONCE = 8
PATIENCE = 600.0
"""Seconds for one piece: its pod may have to wait for a machine and for its image."""
PAUSE = 1.0


@dataclass(frozen=True)
class Mover:
    """One job that lays one piece. `body` is its request."""

    name: str
    body: Mapping[str, Any]


class Carrier(Protocol):
    """An API that runs movers."""

    def begin(self, mover: Mover) -> str:
        """Starts it, or finds the one of its name → its id."""

    def ended(self, job_id: str) -> bool | None:
        """Whether it ended well; None while it has not ended."""

    def remove(self, job_id: str) -> None:
        """Deletes it."""


def move(movers: Sequence[Mover], carrier: Carrier, pause: float = PAUSE, patience: float = PATIENCE) -> None:
    """Returns when all pieces lie there.

    Raises:
        ApiError: `cloud.failed` when a piece does not get there.
    """
    begun: list[str] = []
    given_up = Event()

    def carry(numbered: tuple[int, Mover]) -> None:
        number, mover = numbered
        if given_up.is_set():
            return
        try:
            lay(number, mover)
        except BaseException:
            given_up.set()
            raise

    def lay(number: int, mover: Mover) -> None:
        job_id = carrier.begin(mover)
        begun.append(job_id)
        deadline = time.monotonic() + patience
        while (well := carrier.ended(job_id)) is None and not given_up.is_set():
            if time.monotonic() > deadline:
                raise ApiError("cloud.failed", f"piece {number} of {len(movers)} of the code is not on the storage after {patience:.0f} s")
            time.sleep(pause)
        if well is None:
            return
        if not well:
            carrier.remove(job_id)  # under its name the next launch would find it, and fail again
            raise ApiError("cloud.failed", f"piece {number} of {len(movers)} of the code could not be laid on the storage ({mover.name})")
        print(f"code: piece {number} of {len(movers)} lies there", flush=True)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        carried = [pool.submit(carry, numbered) for numbered in enumerate(movers, 1)]
        failed = next((error for task in carried if (error := task.exception()) is not None), None)
    if failed is not None:
        raise failed
    for job_id in begun:
        carrier.remove(job_id)
