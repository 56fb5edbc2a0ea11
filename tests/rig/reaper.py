"""Lines on standard input (`pid N`, `gone N`, `folder PATH`, `done`) → when it closes without `done`, those processes end and the folders go.

Runs as a process of its own, so that a test run that is killed leaves no daemons behind. It starts as a plain file, before
anything of this repository can be imported.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path


def job_steps(folder: str) -> list[int]:
    """Process ids of the Slurm job steps whose configuration lies in `folder`, and of everything that they started."""
    parents: dict[int, int] = {}
    roots: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name, rest = entry.joinpath("stat").read_text().split("(", 1)[1].rsplit(")", 1)
            parents[int(entry.name)] = int(rest.split()[1])
            if name == "slurmstepd" and f"SLURM_CONF={folder}/".encode() in entry.joinpath("environ").read_bytes():
                roots.add(int(entry.name))
        except OSError:
            continue
    found = set(roots)
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return sorted(found)
        found |= more


def end(pids: list[int], number: signal.Signals) -> None:
    """Signals each process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def main() -> None:
    """Reads until the pipe closes; does nothing after `done`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pids: list[int] = []
    folders: list[str] = []
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "done":
            return
        if word == "pid":
            pids.append(int(value))
        elif word == "gone":
            pids.remove(int(value))
        elif value not in folders:
            folders.append(value)
    end(pids[::-1], signal.SIGTERM)
    for folder in folders:
        end(job_steps(folder), signal.SIGKILL)
    time.sleep(1)
    end(pids, signal.SIGKILL)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
