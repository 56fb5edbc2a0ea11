"""What the cluster's tests share: small packages, submissions and clusters on this machine."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha1, sha256
from pathlib import Path

from dispatcher.effects.channel import Channel
from dispatcher.effects.ledger import LedgerCluster, open_local
from dispatcher.manifest import difference, render_manifest
from dispatcher.ports import Claimed, ClaimRequest, CompiledFile, FileEntry, Refused, Submission, Submitted, Upload

KEY = "0123456789abcdef"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Tree:
    """A small package: file names → contents, as FileEntry and as the archive of all or some of them."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.contents = dict(files)
        self.files = tuple(FileEntry(path, "100644", sha1(data).hexdigest(), len(data)) for path, data in files.items())
        self.digest = sha256(render_manifest(self.files).encode("utf-8", "surrogateescape")).hexdigest()

    def archive(self, only: frozenset[str] | None = None) -> Iterator[bytes]:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for path, data in sorted(self.contents.items()):
                if only is None or path in only:
                    info = tarfile.TarInfo(path)
                    info.size, info.mtime = len(data), 315532800
                    tar.addfile(info, io.BytesIO(data))
        data = gzip.compress(buffer.getvalue(), 1, mtime=0)
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    def unpacked(self, folder: Path) -> bool:
        """Whether a folder has exactly these files."""
        found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        return found == self.contents and all(any(f.is_file() for f in d.rglob("*")) for d in folder.rglob("*") if d.is_dir())


TREE = Tree({"train.py": b"print('hi')\n", "a b/c": b"x" * 5000, "deep/er/$(touch hacked)": b"", "with\nline": b"1"})


def script(key: str = KEY, body: str = "cat code/train.py") -> str:
    return f"#!/bin/sh\n#SBATCH --job-name=dispatch-{key}\n{body}\n"


def claim_request(key: str = KEY, tree: Tree = TREE, tags: tuple[str, ...] = ("abc123", "pr-7")) -> ClaimRequest:
    return ClaimRequest(key, tree.digest, "group-1", tags)


def submission(answer: Claimed, key: str = KEY, tree: Tree = TREE, body: str = "cat code/train.py", chunks: object = None) -> Submission:
    """What to send after a claim: nothing, a difference, or the whole tree."""
    upload = None
    if not answer.has_package and answer.base is not None:
        change = difference(answer.base, tree.files)
        upload = Upload(lambda: tree.archive(change.changed), answer.base_digest, change.delete)
    elif not answer.has_package:
        upload = Upload(chunks if callable(chunks) else tree.archive)
    files = (CompiledFile("configs/a.yaml", b"a: 1\n"), CompiledFile("tool.sh", b"true\n", 0o755))
    return Submission(key, f'{{"key": "{key}"}}', script(key, body), files, "SECRET=s3cr3t\n", render_manifest(tree.files), upload)


def submit(cluster: LedgerCluster, key: str = KEY, tree: Tree = TREE, body: str = "cat code/train.py") -> Submitted | Refused:
    """Claims, which must succeed, and submits."""
    answer = cluster.claim(claim_request(key, tree))
    assert isinstance(answer, Claimed), answer
    return cluster.submit(submission(answer, key, tree, body))


def environment(*folders: Path | str, **more: str) -> dict[str, str]:
    """A session's environment with these folders in front of PATH."""
    return {"HOME": os.environ.get("HOME", "/"), "PATH": ":".join([*map(str, folders), SYSTEM_PATH]), **more}


def local(
    job_dir: Path | str, scheduler: str, env: Mapping[str, str], opened: Callable[[Channel], None] | None = None, patience: int = 20
) -> LedgerCluster:
    """A cluster on this machine; `opened` is shown the channel."""

    def connect() -> Channel:
        channel = open_local(env)
        if opened is not None:
            opened(channel)
        return channel

    return LedgerCluster(connect, str(job_dir), scheduler, patience)
