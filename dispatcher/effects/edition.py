"""This installation → one word for what it makes jobs with: the dispatcher's own files, and the release of NeMo-Run beside them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent


def edition(package: Path = _PACKAGE) -> str:
    """64 hex digits. Another release may render another script, and nobody has to remember to say so."""
    try:
        nemo_run = version("nemo-run")
    except PackageNotFoundError:  # another process has it, or nothing is compiled here
        nemo_run = ""
    digest = hashlib.sha256(nemo_run.encode())
    for path in sorted(path for path in package.rglob("*") if path.suffix in (".py", ".sh")):
        name = path.relative_to(package).as_posix()
        digest.update(f"\0{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


@cache
def own_edition() -> str:
    """Of the installation that this process runs from: it stays what it was when the process began."""
    return edition()
