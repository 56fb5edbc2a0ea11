"""Lines on standard input (`pid N`, `gone N`, `folder PATH`) → when it closes without `done`, those processes and folders go.

Runs as a process of its own, so that a test run that is killed leaves no daemons behind. It starts as a plain file, before
anything of this repository can be imported.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path


def process_table() -> dict[int, tuple[str, int]]:
    """Process id → (name, parent's id), for every process that can be seen."""
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, rest = entry.joinpath("stat").read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            table[int(entry.name)] = (name, int(rest.split()[1]))
    return table


def with_descendants(roots: Iterable[int]) -> list[int]:
    """These processes and everything that they started and that has not been orphaned since."""
    table = process_table()
    found = set(roots)
    while True:
        more = {pid for pid, (_, parent) in table.items() if parent in found} - found
        if not more:
            return sorted(found)
        found |= more


def job_steps(folder: str) -> list[int]:
    """The Slurm job steps whose configuration lies in `folder`, and everything that they started."""
    marker = f"SLURM_CONF={folder}/".encode()
    steps = []
    for pid, (name, _) in process_table().items():
        try:
            if name.startswith("slurmstepd") and marker in Path(f"/proc/{pid}/environ").read_bytes():
                steps.append(pid)
        except OSError:
            continue
    return with_descendants(steps) if steps else []


def end(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
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
    everything = with_descendants(pids)
    for folder in folders:
        everything += job_steps(folder)
    end(pids[::-1], signal.SIGTERM)
    time.sleep(0.5)
    end(everything)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
