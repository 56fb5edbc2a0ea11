"""Executors behind an API: the name in a profile → its model."""

from collections.abc import Mapping

from dispatcher.clouds.base import CloudProfile
from dispatcher.clouds.docker import DockerProfile

CLOUDS: Mapping[str, type[CloudProfile]] = {
    "docker": DockerProfile,
}

__all__ = ["CLOUDS", "CloudProfile", "DockerProfile"]
