"""A job's script and its code → text that fits into an API's requests, and the shell lines that make files of it again.

For APIs that take no files: what is small travels in the job's own command; what is not is laid in pieces on storage that the job mounts.
Pieces are named by the code's digest, so a launch that is repeated goes on where the last stopped, and runs of one commit share them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from dispatcher.effects.clouds.program import RUN_DIR


@dataclass(frozen=True)
class Parcel:
    """`script` and `code` are base64 of a gzip file; `code` is empty when nothing travels. `digest` is SHA-256 of the code's gzip file."""

    script: str
    code: str = ""
    digest: str = ""

    @property
    def size(self) -> int:
        """Bytes of the packed code."""
        return len(self.code) * 3 // 4

    def pieces(self, length: int) -> list[str]:
        """The code in pieces of at most `length` characters, each of which can be decoded by itself."""
        step = length // 4 * 4
        return [self.code[start : start + step] for start in range(0, len(self.code), step)]

    def folder(self, storage: str) -> str:
        """Where its pieces lie on the storage that is mounted at `storage`."""
        return f"{storage.rstrip('/')}/dispatch/packages/{self.digest[:32]}"


def packed(script: str, code: Path | None) -> Parcel:
    """`code` is a gzip-compressed tar. The same files give the same digest."""
    text = _base64(script.encode())
    if code is None:
        return Parcel(text)
    with gzip.open(code) as stream:
        data = gzip.compress(stream.read(), 9, mtime=0)
    return Parcel(text, base64.b64encode(data).decode(), hashlib.sha256(data).hexdigest())


def _base64(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def unpacking(parcel: Parcel, storage: str | None = None, log: str = "") -> str:
    """One line for bash: makes the files in the job's folder and becomes the script. It has no single quotes in it, and no `$(…)`.

    With `storage` the code is what lies there in pieces, else it stands in the line. With `log`, a folder, each pod's output goes to a
    file in it, too.
    """
    steps = ["set -e", f"mkdir -p {RUN_DIR}/code", f"cd {RUN_DIR}", f"echo {parcel.script} | base64 -d | gzip -d >launch.sh"]
    if parcel.code and storage is None:
        steps.append(f"echo {parcel.code} | base64 -d | tar -xzf - -C code")
    elif parcel.code and storage is not None:
        steps += [
            f"cat {parcel.folder(storage)}/[0-9]* >code.tar.gz",
            f'echo "{parcel.digest}  code.tar.gz" | sha256sum -c - >/dev/null',
            "tar -xzf code.tar.gz -C code",
            "rm code.tar.gz",
        ]
    if not log:
        return "; ".join([*steps, "exec bash launch.sh"])
    return "; ".join(
        [*steps, f"mkdir -p {log}", "set +e", f"bash launch.sh 2>&1 | tee -a {log}/log-$HOSTNAME.out", "exit ${PIPESTATUS[0]}"]
    )


def laying(parcel: Parcel, storage: str, number: int, piece: str) -> str:
    """One line for a POSIX shell: makes one piece of the code a file. A file is whole or is not there."""
    name, folder = f"{number:05d}", parcel.folder(storage)
    return f"set -e; mkdir -p {folder}; cd {folder}; echo {piece} | base64 -d >.{name}; mv .{name} {name}"
