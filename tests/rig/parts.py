"""What a rig needs from the machine → found, or `PartMissing` with words that say how to get it."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from functools import cache

# https://docs.kernel.org/networking/ip-sysctl.html: ip_local_port_range begins at 32768.
FIRST_PORT, PORTS_EACH, WORKERS = 12_000, 2_500, 8
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
    """`count` different TCP ports of 127.0.0.1 that nobody listens on at this moment.

    Below those that the system gives to connections, and for each of pytest's workers others: between being found free here and being
    listened on, nobody else must take them.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    first = FIRST_PORT + worker * PORTS_EACH
    ports: list[int] = []
    for port in random.sample(range(first, first + PORTS_EACH), PORTS_EACH):
        with socket.socket() as listener:
            # What a daemon that has ended leaves behind for a minute is no listener.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise PartMissing(f"{count} free TCP ports between {first} and {first + PORTS_EACH}")
