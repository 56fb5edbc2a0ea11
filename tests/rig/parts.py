"""What a rig needs from the machine → found, or `PartMissing` with words that say how to get it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import ExitStack
from functools import cache

SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")


class PartMissing(Exception):
    """A program, a right or a file that a rig needs is not here; the text says which and how to get it."""


def find_program(name: str) -> str:
    """The absolute path of a program, looked for in PATH and in the sbin folders that a user's PATH often lacks."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_FOLDERS))
    found = shutil.which(name, path=path)
    if found is None:
        raise PartMissing(f"`{name}` is not installed (as root, `.ci/rig` installs everything the rigs need)")
    return found


def require_root(what: str) -> None:
    """Refuses to go on as anybody but root."""
    if os.geteuid() != 0:
        raise PartMissing(f"{what} needs root")


@cache
def has_mount_namespaces() -> bool:
    """Whether this process may make mounts that nobody else sees; not so without root, and in most containers."""
    command = [find_program("unshare"), "--mount", "--propagation", "private", "true"]
    return os.geteuid() == 0 and subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def require_mount_namespaces(what: str) -> None:
    """Refuses to go on where mounts cannot be made in private."""
    if not has_mount_namespaces():
        raise PartMissing(f"{what} needs root and a mount namespace, which a container only has with CAP_SYS_ADMIN")


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports of 127.0.0.1 that nobody listens on at this moment."""
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(int(listener.getsockname()[1]))
        return ports
