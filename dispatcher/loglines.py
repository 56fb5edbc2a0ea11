"""A run's log beyond an offset → whole lines, masked, piece by piece; however long it is, one piece of it is in memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256

from dispatcher.ports import Cluster
from dispatcher.untrusted import redact
from dispatcher.world import World

CHUNK = 256 * 1024
# By so many bytes before an offset it is known whether a file is the one of last time.
MARK_BYTES = 256
# A private key is longer than a line: of one that has begun so much is waited for.
KEY_BYTES = 16 * 1024
# So far back in a line that is longer than a piece a space is looked for, at which it is cut: no secret has one.
CUT_BYTES = 4 * 1024
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
    reached: Callable[[int, str], None] = lambda offset, mark: None,
    until: int | None = None,
    mark: str = "",
    exact: bool = False,
) -> tuple[int, bool]:
    """Every whole line of the log (or that of a part) beyond `offset`, masked; with `last` the rest too → the next offset, whether it grew.

    Whole lines, because what masks a secret and what disarms a workflow command looks at one: half of it could be completed later.
    For the same reason a private key that has begun is waited for. A file that shrank (rotated, truncated, a requeued job's new one) is
    read from its beginning again, and so is one that is longer already, where `mark` says what stood before `offset`. `reached` hears of
    each piece: the offset behind it, and its mark, a digest that tells nothing of the log. None begins at `until` or behind it. `exact`: it
    goes into a file, where a line that is longer than a piece stays one; elsewhere its rest could make half a command a whole one.
    """
    grown = False
    while until is None or offset < until:
        back = min(MARK_BYTES, offset) if mark else 0
        files = cluster.fetch(run_key, offset - back, back + CHUNK, 0, part=part)
        if files is None:
            return offset, grown
        if files.log_size < offset or (back and _mark(files.log[:back]) != mark):
            how = "truncated" if files.log_size < offset else "replaced"
            world.say(f"The log was {how}; it goes on from its beginning.")
            offset, mark = 0, ""
            continue
        log = files.log[back:]
        whole = max(log.rfind(b"\n"), log.rfind(b"\r")) + 1
        if not (last and files.log_offset + len(files.log) >= files.log_size):
            whole = _before_half_a_key(log[:whole])
        new = log[:whole] or (_piece(log) if len(log) >= CHUNK else log if last else b"")
        if not new:
            return offset, grown
        text = redact(new.decode("utf-8", "replace"), world.settings.to_hide)
        world.show_log((text if whole or (exact and len(log) >= CHUNK) else text + "\n").encode())
        offset, grown = files.log_offset + back + len(new), True
        read = files.log[: back + len(new)]
        mark = _mark(read[-MARK_BYTES:]) if len(read) >= min(MARK_BYTES, offset) else ""
        reached(offset, mark)
    return offset, grown


def _mark(end: bytes) -> str:
    return sha256(end).hexdigest()


def _piece(log: bytes) -> bytes:
    """As much of a line that goes on as can be shown by itself: words, else characters, that are whole."""
    if space := log.rfind(b" ", len(log) - CUT_BYTES) + 1:
        return log[:space]
    begins = next((place for place in range(1, 5) if log[-place] & 0xC0 != 0x80), 0)
    return log[:-begins] if begins and log[-begins] >= 0xC0 else log


def _before_half_a_key(log: bytes) -> int:
    """How much of it can be shown: what follows would not be known as a key's second half."""
    begins = max((found.start() for found in _KEY_BEGINS.finditer(log, max(len(log) - KEY_BYTES, 0))), default=len(log))
    return len(log) if b"-----END " in log[begins:] else begins
