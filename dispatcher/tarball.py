"""Files with their bytes in chunks → the chunks of a gzip-compressed tar: the same bytes for the same files, nothing held in memory.

The tar is GNU format: names that are not UTF-8 travel byte for byte and every `tar` on a login node reads it. Fixed owner and time.
Compression is level 1, and none for blobs that do not compress (weights, images), which is four times as fast on those.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dispatcher.ports import FileEntry

CHUNK = 256 * 1024
"""Bytes per chunk, about."""
MTIME = 315532800
"""1980-01-01: the earliest time that zip-based tools accept, should somebody repack it."""
_SAMPLED_FROM = 32 * 1024
"""Smaller blobs are not worth a look at how well they compress."""
_SAMPLE = 16 * 1024


@dataclass
class Member:
    """A file about to be packed: `size` in bytes, and its content, to be read once before the next member is asked for."""

    entry: FileEntry
    size: int
    content: Iterator[bytes]


def tar_gz(members: Iterable[Member]) -> Iterator[bytes]:
    """Packs members in their order, symbolic links as links (their content is the target); gives chunks of CHUNK bytes or more."""
    gzip = _Gzip()
    for member in members:
        if member.entry.mode == "120000":
            yield from gzip.add(_header(member.entry, 0, b"".join(member.content)))
            continue
        yield from gzip.add(_header(member.entry, member.size))
        packed = False
        for index, chunk in enumerate(member.content):
            if index == 0:
                packed = member.size >= _SAMPLED_FROM and _is_packed(chunk)
            yield from gzip.add(chunk, stored=packed)
        yield from gzip.add(bytes(-member.size % tarfile.BLOCKSIZE))
    yield from gzip.add(bytes(2 * tarfile.BLOCKSIZE))
    yield gzip.finish()


def _header(entry: FileEntry, size: int, target: bytes | None = None) -> bytes:
    """The tar header of a file, or of a symbolic link to `target`."""
    info = tarfile.TarInfo(entry.path)
    info.size, info.mtime = size, MTIME
    info.mode = 0o755 if entry.mode == "100755" else 0o644
    if target is not None:
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, target.decode("utf-8", "surrogateescape")
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _is_packed(chunk: bytes) -> bool:
    """Whether the beginning of a blob does not compress by at least 3 %."""
    sample = chunk[:_SAMPLE]
    return len(zlib.compress(sample, 1)) > 0.97 * len(sample)


class _Gzip:
    """One gzip member (RFC 1952) whose deflate stream changes between level 1 and stored blocks.

    Python's zlib cannot change a stream's level, but deflate streams that end in a full flush can be joined (RFC 1951, 3.2.3).
    """

    def __init__(self) -> None:
        self._stored = False
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = 0
        self._size = 0
        # No name, no time, system "unknown": nothing that differs from one machine to the next.
        self._out = bytearray(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")

    def add(self, data: bytes, stored: bool = False) -> Iterator[bytes]:
        """Takes bytes in; gives a chunk out when there is enough for one."""
        if stored != self._stored:
            self._out += self._deflate.flush(zlib.Z_FULL_FLUSH)
            self._deflate = zlib.compressobj(0 if stored else 1, zlib.DEFLATED, -zlib.MAX_WBITS)
            self._stored = stored
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._out += self._deflate.compress(data)
        if len(self._out) >= CHUNK:
            yield bytes(self._out)
            self._out.clear()

    def finish(self) -> bytes:
        """What is left, and the trailer."""
        self._out += self._deflate.flush(zlib.Z_FINISH)
        self._out += self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        return bytes(self._out)
