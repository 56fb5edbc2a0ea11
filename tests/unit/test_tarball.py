"""Members → a gzip'd tar: one member of gzip, deterministic, whatever mixes of what compresses and what does not."""

from __future__ import annotations

import io
import random
import tarfile
import zlib
from collections.abc import Iterator

from dispatcher.ports import FileEntry
from dispatcher.tarball import CHUNK, Member, tar_gz

RANDOM = random.Random(1).randbytes


def members(contents: list[bytes]) -> Iterator[Member]:
    for index, content in enumerate(contents):
        pieces = (content[at : at + CHUNK] for at in range(0, len(content), CHUNK))
        yield Member(FileEntry(f"f{index}", "100644", "", len(content)), len(content), pieces)


def test_contents_of_every_kind_and_length_come_back() -> None:
    contents = [b"", b"x", RANDOM(70_000), b"a" * 600_000, RANDOM(600_000), RANDOM(10), b"b" * 511, b"c" * 512, b"d" * 513]
    data = b"".join(tar_gz(members(contents)))
    decoder = zlib.decompressobj(wbits=31)
    tar = decoder.decompress(data) + decoder.flush()
    assert decoder.eof
    assert decoder.unused_data == b""
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as read:
        assert [read.extractfile(member).read() for member in read] == contents  # type: ignore[union-attr]
    assert b"".join(tar_gz(members(contents))) == data


def test_what_does_not_compress_is_stored_and_what_does_is_compressed() -> None:
    assert len(b"".join(tar_gz(members([RANDOM(1_000_000)])))) < 1_000_300
    assert len(b"".join(tar_gz(members([b"text " * 200_000])))) < 20_000


def test_chunks_are_of_a_size_to_send() -> None:
    sizes = [len(chunk) for chunk in tar_gz(members([RANDOM(3_000_000)]))]
    assert all(CHUNK <= size < 2 * CHUNK + 1024 for size in sizes[:-1])
    assert len(sizes) > 5


def test_the_header_names_no_machine_and_no_time() -> None:
    assert b"".join(tar_gz(iter(()))).startswith(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
