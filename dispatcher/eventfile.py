"""Bytes of TensorBoard event files → numbers over steps by tag, as a series file has them.

An event file is records, one after another: the length of the data (8 bytes, little-endian), that length's checksum (4), the data, its
checksum (4) (https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/lib/io/record_writer.h). The data is an `Event`
(https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto), of which only what scalars need is described
here. The file is written by the job: capped where it is read, and a record counts only when both checksums are right. What was read may
begin in the middle of a record and be the ends of several files: the next record is looked for by the checksum of its length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

from dispatcher.results import is_metric
from dispatcher.series import MOST_STEPS, Collector, Measured

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_FLOAT = struct.Struct("<f")
_MASK_DELTA = 0xA282EAD8
MOST_BROKEN = 1_000
"""After so many broken stretches the rest is left unread: each may cost a checksum over everything."""
# No protobuf message is longer, and no event is empty.
_LONGEST = 2**31
_PACKAGE = "dispatcher.tensorboard"
# Megatron writes each of its scalars a second time, with samples for steps.
_NOT_BY_STEP = (" vs samples", "_vs_samples")
_DT_FLOAT, _DT_DOUBLE, _DT_INT32, _DT_INT64 = 1, 2, 3, 9
_IN_BYTES = {_DT_FLOAT: "<f", _DT_DOUBLE: "<d", _DT_INT32: "<i", _DT_INT64: "<q"}
_IN_LIST = {_DT_FLOAT: "float_val", _DT_DOUBLE: "double_val", _DT_INT32: "int_val", _DT_INT64: "int64_val"}


def parse_events(content: bytes, cut: bool = False) -> Measured:
    """Bytes of event files, the oldest first → what was measured; never raises. `cut`: the beginning is missing.

    What cannot be read is skipped and counted, once for each stretch of it; a last record without its end is still being written.
    Histograms, images and texts are no numbers, and count as nothing.
    """
    collector = Collector()
    for data in _records(content, cut):
        if data is None:
            collector.skipped += 1
        else:
            _take(collector, data)
    return collector.measured()


def _records(content: bytes, cut: bool) -> Iterator[bytes | None]:
    """The data of each record; None for a stretch that is none, or whose checksum is wrong."""
    at: int | None = 0
    lost, broken = cut, 0
    while at is not None and len(content) - at >= _HEADER.size and broken < MOST_BROKEN:
        length = _length_at(content, at)
        end = at + _HEADER.size + length + _CHECKSUM.size if length is not None else at
        unfinished = end > len(content)
        data = content[at + _HEADER.size : end - _CHECKSUM.size]
        if length is not None and not unfinished and _masked(data) == _CHECKSUM.unpack_from(content, end - _CHECKSUM.size)[0]:
            yield data
            at, lost = end, False
            continue
        # An older file may end in the middle of a record, and the next file's first one then lies inside of what this one claims.
        at, broken = _next(content, at + 1), broken + 1
        if not lost and not (unfinished and at is None):
            yield None
        lost = False


def _length_at(content: bytes, at: int) -> int | None:
    """How long the data is of the record that begins here; None when none does."""
    length, checksum = _HEADER.unpack_from(content, at)
    return length if 0 < length < _LONGEST and _masked(content[at : at + 8]) == checksum else None


def _next(content: bytes, at: int) -> int | None:
    """Where the next record begins; the upper four bytes of its length are always zero."""
    while (zeros := content.find(b"\0\0\0\0", at + 4)) >= 0 and zeros - 4 + _HEADER.size <= len(content):
        if _length_at(content, zeros - 4) is not None:
            return zeros - 4
        at = zeros - 3
    return None


def _masked(data: bytes) -> int:
    """The checksum as TFRecord has it: CRC32C, rotated by 15 bits, and a constant added."""
    # Imported here, as protobuf is: together they take 80 ms, and most runs have no event files.
    import google_crc32c

    checksum: int = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _take(collector: Collector, data: bytes) -> None:
    event = _event_class()()
    try:
        event.ParseFromString(data)
    except Exception:  # protobuf's implementations raise DecodeError, or something of their own
        collector.skipped += 1
        return
    for value in event.summary.value:
        number = value.simple_value if value.WhichOneof("value") == "simple_value" else _scalar(value.tensor)
        if number is None or value.tag.endswith(_NOT_BY_STEP):
            continue
        if is_metric(value.tag) and 0 <= event.step <= MOST_STEPS:
            collector.add(value.tag, event.step, _short(number))
        else:
            collector.skipped += 1


def _scalar(tensor: Any) -> float | None:
    """A tensor's one number (TensorFlow 2 writes scalars so); None when it has another number of them, or something else."""
    if tensor.dtype not in _IN_BYTES:
        return None
    if tensor.tensor_content:
        form = struct.Struct(_IN_BYTES[tensor.dtype])
        return float(form.unpack(tensor.tensor_content)[0]) if len(tensor.tensor_content) == form.size else None
    values = getattr(tensor, _IN_LIST[tensor.dtype])
    return float(values[0]) if len(values) == 1 and all(size.size == 1 for size in tensor.tensor_shape.dim) else None


def _short(value: float) -> float:
    """A float32 as its writer meant it: 1.9, and not 1.899999976158142, which `min: 1.9` would refuse; any other number as it is."""
    try:
        exact = _FLOAT.unpack(_FLOAT.pack(value))[0] == value
    except OverflowError:
        return value
    if not exact:
        return value
    return next(near for digits in range(6, 18) if _FLOAT.pack(near := _rounded(value, digits)) == _FLOAT.pack(value))


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


_Field = tuple[str, int, str]
# Name, number, and type: of the messages' fields those that scalars need. An unknown field is passed over, as protobuf always does.
_MESSAGES: dict[str, tuple[_Field, ...]] = {
    "Event": (("step", 2, "int64"), ("summary", 5, "Summary")),
    "Summary": (("value", 1, "[]Value"),),
    "Value": (("tag", 1, "string"), ("simple_value", 2, "float"), ("tensor", 8, "Tensor")),
    "Tensor": (
        ("dtype", 1, "int32"),
        ("tensor_shape", 2, "Shape"),
        ("tensor_content", 4, "bytes"),
        ("float_val", 5, "[]float"),
        ("double_val", 6, "[]double"),
        ("int_val", 7, "[]int32"),
        ("int64_val", 10, "[]int64"),
    ),
    "Shape": (("dim", 2, "[]Dim"),),
    "Dim": (("size", 1, "int64"),),
}


@cache
def _event_class() -> Any:
    """The class that reads an `Event`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="dispatcher/tensorboard.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            field = described.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if kind.startswith("[]") else field.LABEL_OPTIONAL
            kind = kind.removeprefix("[]")
            if kind in _MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
            if message == "Value" and name != "tag":
                field.oneof_index = 0
        if message == "Value":
            described.oneof_decl.add(name="value")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Event"))
