"""Stand-ins for a shell program's tools that kill the program at its n-th step, before or after the real tool has run."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOOLS = (
    *("mkdir", "mv", "rm", "tar", "gzip", "tee", "cat", "touch", "sleep", "stat", "sbatch", "head", "date"),
    *("xargs", "sed", "env", "setsid", "tail"),
)

STEP = r"""#!/bin/sh
[ -e "@@/pid" ] || exec "TOOL" "$@"
step=1
set -C
until true >"@@/step.$step"; do step=$((step + 1)); done 2>/dev/null
set +C
read -r at when pid <"@@/pid"
[ "$step" = "$at" ] || exec "TOOL" "$@"
echo "$0 $*" >"@@/killed"
[ "$when" = before ] || "TOOL" "$@" <&0
kill -9 $pid
[ "$when" != before ] || exec "TOOL" "$@"
"""


class Sabotage:
    """Wrapped tools in `bin`; they do nothing special until armed. A negative target is a process group."""

    def __init__(self, folder: Path, path: str) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for tool in TOOLS:
            real = shutil.which(tool, path=path)
            assert real, tool
            (self.bin / tool).write_text(STEP.replace("@@", str(folder)).replace("TOOL", real))
            (self.bin / tool).chmod(0o755)

    def arm(self, step: int, when: str, target: int) -> None:
        """Whom to kill, and the step at which: `before` or `after` its tool has run."""
        (self.folder / "pid").write_text(f"{step} {when} {target}\n")

    @property
    def killed(self) -> str:
        """The tool's command line at which it happened; empty when the program ended before that step."""
        file = self.folder / "killed"
        return file.read_text() if file.exists() else ""


AT_ONCE = 6
"""Whoever finds a submission that was killed waits for seconds before it goes on; others are killed meanwhile."""


def at_every_step(killed: Callable[[int], bool], most: int) -> None:
    """Calls `killed` with 1, 2, 3, …, several at a time, until it says that nobody was killed: there is no such step any more."""
    steps, over = itertools.count(1), threading.Event()

    def one_after_another() -> None:
        try:
            while not over.is_set() and killed(step := next(steps)):
                assert step < most, f"there are more than {most} steps"
        finally:
            over.set()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        workers = [pool.submit(one_after_another) for _ in range(AT_ONCE)]
    for worker in workers:
        worker.result()
