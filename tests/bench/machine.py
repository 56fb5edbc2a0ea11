"""This machine → the lines that a table of measurements needs beside it."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from tests.rig.parts import find_program


def describe() -> dict[str, str]:
    """What the numbers depend on; nothing that names the machine or its owner."""
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "model name: unknown")
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
        "cpu": f"{os.cpu_count()} × {cpu.partition(':')[2].strip()}",
        "memory": f"{int(memory.split()[1]) / 1e6:.0f} GB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, {_distribution()}",
        "python": platform.python_version(),
        "nemo_run": version("nemo_run"),
        "git": _said("git", "--version").removeprefix("git version "),
        "ssh": _said("ssh", "-V").split(",")[0],
        "slurm": _said(find_program("slurmctld"), "-V").removeprefix("slurm-wlm "),
        "load": load(),
    }


def load() -> str:
    """Load average of the last minute: above the number of cores, others were measured too."""
    return f"{os.getloadavg()[0]:.1f}"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown"


def _said(*argv: str) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()
