"""A Docker engine of this test run, on a socket of its own, with one small image: bash, coreutils and Python from Debian's packages.

There is no bridge and no registry: containers use the host's network, and the image is made by mmdebstrap once and kept in `.cache`.
https://docs.docker.com/reference/cli/dockerd/, mmdebstrap(1)
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from tests.rig.parts import find_program, require_root
from tests.rig.processes import Processes

IMAGE = "dispatch-test:1"
PACKAGES = "bash,coreutils,dash,libc-bin,python3"
CACHE = Path(__file__).parents[2] / ".cache" / "docker-image-1.tar"
WITHOUT = ("bridge=none", "iptables=false", "ip6tables=false", "ip-forward=false", "ip-masq=false", "userland-proxy=false")


class DockerRig:
    """One engine. `env` points a client at it; a context manager: leaving it ends the engine and removes its folders."""

    image = IMAGE

    def __init__(self) -> None:
        # A socket's path may have 107 characters, so not below pytest's long folders.
        self.folder = Path(tempfile.mkdtemp(prefix="dispatch-docker-"))
        self.processes = Processes(self.folder)
        self.host = f"unix://{self.folder}/docker.sock"

    @property
    def env(self) -> dict[str, str]:
        """What a client needs."""
        return {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self.folder / "config")}

    def start(self) -> None:
        """Starts the engine and gives it the image. Raises PartMissing."""
        require_root("a Docker engine")
        engine, _, _ = find_program("dockerd"), find_program("docker"), find_program("mmdebstrap")
        (self.folder / "config").mkdir(mode=0o700)
        folders = {"data-root": "data", "exec-root": "exec", "pidfile": "docker.pid"}
        options = [f"--{name}={self.folder / path}" for name, path in folders.items()] + [f"--{option}" for option in WITHOUT]
        self.processes.start("dockerd", [engine, "-H", self.host, *options])
        self.processes.wait_until("dockerd", lambda: self._run("version", check=False).returncode == 0)
        self._run("import", "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin", str(image_archive()), IMAGE)

    def docker(self, *arguments: str) -> str:
        """What `docker ARGUMENTS` prints."""
        return self._run(*arguments).stdout.strip()

    def containers(self, run_key: str) -> list[str]:
        """The ids of every container of a run, whatever became of it."""
        return self.docker("ps", "-aq", "--filter", f"name=dispatch-{run_key}").split()

    def state(self, container: str) -> dict[str, object]:
        """What the engine knows of a container."""
        found: list[dict[str, dict[str, object]]] = json.loads(self.docker("inspect", container))
        return found[0]["State"]

    def remove_all(self) -> None:
        """Every container, between two tests."""
        ids = self.docker("ps", "-aq").split()
        if ids:
            self._run("rm", "-f", *ids)

    def stop(self) -> None:
        """Ends it."""
        if "dockerd" in self.processes.running:
            self.remove_all()
        self.processes.stop_all()
        subprocess.run(["umount", "-lq", *map(str, self.folder.glob("data/*/merged"))], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [find_program("docker"), *arguments]
        return subprocess.run(
            command, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=check
        )

    def __enter__(self) -> DockerRig:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def image_archive() -> Path:
    """The image's file system as a tar, made when it is not there yet: some twenty seconds, mostly of downloads."""
    CACHE.parent.mkdir(exist_ok=True)
    with CACHE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not CACHE.exists():
            suite = _suite()
            new = CACHE.with_suffix(".new.tar")
            command = [find_program("mmdebstrap"), "--quiet", "--variant=extract", f"--include={PACKAGES}", suite, str(new)]
            subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True)
            new.rename(CACHE)
    return CACHE


def _suite() -> str:
    """The release that this machine gets packages of: its mirror has it for sure."""
    release = Path("/etc/os-release").read_text()
    found = [line.partition("=")[2].strip('"') for line in release.splitlines() if line.startswith("VERSION_CODENAME=")]
    return found[0] if found else "stable"
