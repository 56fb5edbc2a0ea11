"""A size → a git repository of that size with a policy, a profile and a script, to be submitted by everybody alike."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from tests.rig.gitrepo import Repo

POLICY = """\
default_profile: cluster
recipes:
  default: { script: train.py, entrypoint: python3 }
env: [BENCH_JOB_DIR]
"""

PROFILE = """\
executor: slurm
tunnel: ssh
account: ml
partition: batch
time: "00:05:00"
host: 127.0.0.1
port: {port}
user: {user}
remote_job_dir: ${{oc.env:BENCH_JOB_DIR}}
"""

FILE_BYTES = 16_000
WORDS = ["".join(random.Random(number).choices("abcdefghijklmnopqrstuvwxyz_", k=2 + number % 8)) for number in range(400)]


@dataclass
class Checkout:
    """`sizes` in MB and files as they came out; `change()` commits another content of one file."""

    repo: Repo
    megabytes: float
    files: int
    changes: int = 0

    @property
    def path(self) -> Path:
        """The worktree."""
        return self.repo.path

    def change(self) -> None:
        """One file of 16 KB gets a new content in a new commit."""
        self.changes += 1
        (self.path / "src" / "m000" / "f0000.py").write_bytes(_text(random.Random(-self.changes), FILE_BYTES))
        self.repo.git("commit", "-q", "-a", "-m", f"change {self.changes}")


def make(folder: Path, megabytes: float, port: int, user: str) -> Checkout:
    """The same bytes every time: one file in twenty is 160 KB that do not compress, the others are 1 to 16 KB of text; half and half."""
    repo = Repo.create(folder)
    chance = random.Random(1)
    left, count = megabytes * 1e6, 0
    while left > 0:
        incompressible = count % 20 == 0
        size = int(min(left, 10 * FILE_BYTES if incompressible else chance.randint(1000, FILE_BYTES)))
        path = folder / "src" / f"m{count // 40:03}" / f"f{count:04}.{'bin' if incompressible else 'py'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(size) if incompressible else _text(chance, size))
        left, count = left - size, count + 1
    (folder / "src" / "m000" / "f0000.py").write_bytes(_text(chance, FILE_BYTES))
    (folder / "train.py").write_text("print('loss 1.0')\n")
    for name, text in ((".github/dispatch.yml", POLICY), ("profiles/cluster.yaml", PROFILE.format(port=port, user=user))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    repo.commit("everything")
    repo.git("repack", "-a", "-d", "-q", "--window=0")  # a clone has its objects in one file, too
    return Checkout(repo, megabytes, count + 4)


def _text(chance: random.Random, size: int) -> bytes:
    """Lines of words from a small vocabulary: about 3:1 under gzip, as sources are."""
    text = bytearray()
    while len(text) < size:
        text += b" " * (4 * chance.randint(0, 3)) + " ".join(chance.choices(WORDS, k=chance.randint(2, 9))).encode() + b"\n"
    return bytes(text[:size])
