"""A Docker engine, on this machine or over `DOCKER_HOST`, as NeMo-Run's DockerExecutor takes it.

https://github.com/NVIDIA-NeMo/Run/blob/v0.11.1/nemo_run/core/execution/docker.py
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dispatcher.clouds.base import CloudProfile
from dispatcher.values import Between, Image, Mount, OneOrMore, Shape

ShmSize = Annotated[str, Shape(r"[0-9]{1,9}[bkmgBKMG]?", "an amount of memory such as `30g`", 16)]
Ulimit = Annotated[str, Shape(r"[a-z]+=-?[0-9]+(?::-?[0-9]+)?", "a limit such as `memlock=-1` or `nofile=1024:4096`", 64)]
NetworkName = Annotated[str, Shape(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "a Docker network's name, such as `host`", 128)]
DockerHost = Annotated[
    str,
    Shape(r"(?:unix:///[A-Za-z0-9_./-]+|(?:tcp|ssh|https?)://[A-Za-z0-9_.@:\[\]-]+)", "an address such as `unix:///run/docker.sock`", 256),
]


class DockerProfile(CloudProfile):
    """Docker: one container on one engine."""

    CREDENTIALS: ClassVar[tuple[str, ...]] = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG")
    FIXED: ClassVar[frozenset[str]] = frozenset({"docker_host"})

    executor: Literal["docker"] = Field(default="docker", description="What runs the job.")
    container_image: Image = Field(description="The image. Also: `container`.")
    docker_host: DockerHost | None = Field(default=None, description="The engine's address; without it `DOCKER_HOST`, else this machine's.")
    nodes: Annotated[int, Between(1, 1)] = Field(default=1, description="One: a container is on one machine.")
    ntasks_per_node: Annotated[int, Between(1, 1024)] = Field(
        default=1, description="Processes that torchrun starts, where nothing else says so."
    )
    mounts: OneOrMore[Mount] = Field(default=(), description="Folders of the engine's machine. Also: `container_mounts`.")
    runtime: NetworkName | None = Field(default=None, description="The engine's runtime, such as `nvidia`.")
    network: NetworkName = Field(default="bridge", description="The container's network.")
    ipc_mode: NetworkName | None = Field(default=None, description="Such as `host`.")
    shm_size: ShmSize | None = Field(default=None, description="Size of /dev/shm.")
    ulimits: OneOrMore[Ulimit] = Field(default=(), description="Limits of the container's processes.")
    privileged: bool = Field(
        default=False, description="Gives the container the machine. Only where all who may start runs are trusted with it."
    )

    @property
    def place(self) -> tuple[str, ...]:
        """The engine."""
        return (self.docker_host or "",)
