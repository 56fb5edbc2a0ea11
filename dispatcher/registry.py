"""The executors that a profile can name → their models."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.clouds import CLOUDS, CloudProfile
from dispatcher.executor import LocalProfile, SlurmProfile

Profile = SlurmProfile | LocalProfile | CloudProfile

EXECUTORS: Mapping[str, type[SlurmProfile] | type[LocalProfile] | type[CloudProfile]] = {
    "slurm": SlurmProfile,
    "local": LocalProfile,
    **CLOUDS,
}
