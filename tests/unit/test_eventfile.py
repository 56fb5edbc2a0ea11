"""Event files: what a real writer wrote, and what becomes of it when it is cut, broken, or made to be expensive."""

from __future__ import annotations

import math
import struct
import time
from pathlib import Path

import google_crc32c
import pytest

from dispatcher.eventfile import MOST_BROKEN, parse_events
from dispatcher.series import MAX_NAMES, READ_BYTES, Measured

WRITTEN = next((Path(__file__).parents[1] / "data" / "tensorboard").iterdir()).read_bytes()
LOSSES = [(1, 1.9), (2, 1.8), (3, 1.7), (4, 1.6), (5, 1.5)]


def masked(data: bytes) -> int:
    checksum = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def header(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked(packed))


def record(data: bytes) -> bytes:
    return header(len(data)) + data + struct.pack("<I", masked(data))


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def event(step: int, value: float = 1.5, tag: bytes = b"loss") -> bytes:
    """One scalar, encoded by hand: https://protobuf.dev/programming-guides/encoding/."""
    scalar = field(1, tag) + b"\x15" + struct.pack("<f", value)
    return record(b"\x10" + varint(step) + field(5, field(1, scalar)))


def points(measured: Measured, name: str = "loss") -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in measured.series.get(name, ())]


def test_what_a_real_writer_wrote() -> None:
    measured = parse_events(WRITTEN)
    assert points(measured, "train/loss") == LOSSES  # float32, as it was meant
    assert set(measured.series) == {"train/loss", "grad", "scale", "eval/acc", "eval/f1"}
    assert math.isnan(measured.last["grad"])
    assert (measured.last["scale"], measured.last["eval/acc"], measured.last["eval/f1"]) == (math.inf, 0.9, 0.8)
    assert measured.skipped == 1  # the tag that is no metric's name


@pytest.mark.parametrize("end", range(0, len(WRITTEN), 97))
def test_wherever_it_ends_what_came_before_counts(end: int) -> None:
    measured = parse_events(WRITTEN[:end])
    found = points(measured, "train/loss")
    assert found == LOSSES[: len(found)]
    assert measured.skipped == 0


@pytest.mark.parametrize("start", range(1, len(WRITTEN), 97))
def test_wherever_it_begins_what_comes_after_counts(start: int) -> None:
    measured = parse_events(WRITTEN[start:], cut=True)
    found = points(measured, "train/loss")
    assert found == LOSSES[len(LOSSES) - len(found) :]
    assert measured.skipped <= 1


FIRST = event(1)


@pytest.mark.parametrize(
    ("content", "expected", "skipped"),
    [
        (b"", [], 0),
        (event(1) + event(2, 2.0), [(1, 1.5), (2, 2.0)], 0),
        (event(2) + event(1) + event(2, 9.0), [(1, 1.5), (2, 9.0)], 0),
        # The data's checksum is wrong, then its own, then the length's.
        (FIRST[:-6] + b"\xff" + FIRST[-5:] + event(2), [(2, 1.5)], 1),
        (FIRST[:-1] + b"\xff" + event(2), [(2, 1.5)], 1),
        (FIRST[:8] + b"\xff" + FIRST[9:] + event(2), [(2, 1.5)], 1),
        # Another file follows one whose last record has no end.
        (event(1) + event(2)[:20] + event(3), [(1, 1.5), (3, 1.5)], 1),
        # Lengths that nothing has.
        (header(2**63) + event(2), [(2, 1.5)], 1),
        (header(2**40) + event(2), [(2, 1.5)], 1),
        (header(2**30) + event(2), [(2, 1.5)], 1),
        (event(1) + header(2**30), [(1, 1.5)], 0),
        (header(0) + struct.pack("<I", masked(b"")) + event(2), [(2, 1.5)], 1),
        # A record that is whole, and no event.
        (record(b"\xff" * 40) + event(2), [(2, 1.5)], 1),
        (event(1, tag=b"\xff\xfe") + event(2), [(2, 1.5)], 1),
        (record(b"\x10\x05" + field(5, b"\x0a" * 3)) + event(2), [(2, 1.5)], 1),
        # Groups inside of groups: protobuf ends it.
        (record(b"\x0b" * 100_000) + event(2), [(2, 1.5)], 1),
        (event(-1) + event(2), [(2, 1.5)], 1),
        (event(2**60) + event(2), [(2, 1.5)], 1),
        (event(1, tag=b"](x)") + event(2), [(2, 1.5)], 1),
        (event(9, tag=b"lm loss vs samples") + event(2), [(2, 1.5)], 0),
        (event(1, -math.inf), [(1, -math.inf)], 0),
        (event(1, 3.4028234663852886e38), [(1, 3.4028235e38)], 0),
        (event(1, 1e-45), [(1, 1.4013e-45)], 0),
        (b"<html>no such file</html>" * 10, [], 1),
    ],
)
def test_what_counts(content: bytes, expected: list[tuple[int, float]], skipped: int) -> None:
    measured = parse_events(content)
    assert (points(measured), measured.skipped) == (expected, skipped)


def test_nan_is_a_value() -> None:
    assert math.isnan(parse_events(event(1, math.nan)).last["loss"])


def test_names_are_bounded() -> None:
    measured = parse_events(b"".join(event(1, tag=b"m%d" % number) for number in range(MAX_NAMES + 5)))
    assert (len(measured.series), measured.skipped) == (MAX_NAMES, 5)


@pytest.mark.parametrize(
    "unit",
    [b"\0", b"\1\0\0\0\0\0\0\0", header(READ_BYTES // 2), header(2**63), record(b"")],
    ids=["zeros", "lengths", "overlapping", "huge", "empty"],
)
def test_no_content_is_expensive(unit: bytes) -> None:
    begun = time.process_time()
    measured = parse_events(unit * (READ_BYTES // len(unit)))
    assert measured.series == {}
    assert measured.skipped <= MOST_BROKEN
    assert time.process_time() - begun < 5
