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


def job_processes(folder: str) -> list[int]:
    """The Slurm job steps whose configuration lies in `folder`, and everything that runs in their jobs, orphans too."""
    configured = f"SLURM_CONF={folder}/".encode()
    found = []
    for pid, (name, _) in process_table().items():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(each.startswith(configured) for each in variables):
            in_job = any(each.startswith(b"SLURM_JOB_ID=") for each in variables)
            if in_job or name.startswith("slurmstepd"):
                found.append(pid)
    return with_descendants(found)


def end_jobs(folder: str) -> None:
    """Kills every job of the cluster in `folder`; once more for what was started meanwhile."""
    deadline = time.monotonic() + 5
    while (pids := job_processes(folder)) and time.monotonic() < deadline:
        end(pids)
        time.sleep(0.05)


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
    end(pids[::-1], signal.SIGTERM)
    time.sleep(0.5)
    end(everything)
    for folder in folders:
        end_jobs(folder)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
