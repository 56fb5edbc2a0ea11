"""A run's log beyond an offset → whole lines, masked, piece by piece; however long it is, one piece of it is in memory."""

from __future__ import annotations

import re
from collections.abc import Callable

from dispatcher.ports import Cluster
from dispatcher.untrusted import redact
from dispatcher.world import World

CHUNK = 256 * 1024
# A private key is longer than a line: of one that has begun so much is waited for.
KEY_BYTES = 16 * 1024
_KEY_BEGINS = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")


def log_name(run_key: str, part: int | None) -> str:
    """What a log is called where it is kept: the run's key, and which of its parts."""
    return run_key if part is None else f"{run_key}/{part}"


def show_new_lines(
    world: World,
    cluster: Cluster,
    run_key: str,
    offset: int,
    last: bool = False,
    part: int | None = None,
    reached: Callable[[int], None] = lambda offset: None,
    until: int | None = None,
) -> tuple[int, bool]:
    """Every whole line of the log (or that of a part) beyond `offset`, masked; with `last` the rest too → the next offset, whether it grew.

    Whole lines, because what masks a secret and what disarms a workflow command looks at one: half of it could be completed later.
    For the same reason a private key that has begun is waited for. A file that shrank (rotated, truncated, a requeued job's new one) is
    read from its beginning again. `reached` hears of each piece; none begins at `until` or behind it.
    """
    grown = False
    while until is None or offset < until:
        files = cluster.fetch(run_key, offset, CHUNK, 0, part=part)
        if files is None:
            return offset, grown
        if files.log_size < offset:
            world.say("The log was truncated; it goes on from its beginning.")
            offset = 0
            continue
        whole = max(files.log.rfind(b"\n"), files.log.rfind(b"\r")) + 1
        if not (last and files.log_offset + len(files.log) >= files.log_size):
            whole = _before_half_a_key(files.log[:whole])
        new = files.log[:whole] or (files.log if last or len(files.log) >= CHUNK else b"")
        if not new:
            return offset, grown
        text = redact(new.decode("utf-8", "replace"), world.settings.to_hide)
        world.show_log((text if whole else text + "\n").encode())
        offset, grown = files.log_offset + len(new), True
        reached(offset)
    return offset, grown


def _before_half_a_key(log: bytes) -> int:
    """How much of it can be shown: what follows would not be known as a key's second half."""
    begins = max((found.start() for found in _KEY_BEGINS.finditer(log, max(len(log) - KEY_BYTES, 0))), default=len(log))
    return len(log) if b"-----END " in log[begins:] else begins
