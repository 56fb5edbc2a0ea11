"""The executors that a profile can name → their models."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.clouds import CLOUDS, CloudProfile
from dispatcher.counterparts import ALIASES, REFUSED
from dispatcher.executor import LocalProfile
from dispatcher.slurmprofile import SlurmProfile

Profile = SlurmProfile | LocalProfile | CloudProfile

EXECUTORS: Mapping[str, type[SlurmProfile] | type[LocalProfile] | type[CloudProfile]] = {
    "slurm": SlurmProfile,
    "local": LocalProfile,
    **CLOUDS,
}


def is_field(name: str) -> bool:
    """Whether a profile of any executor has such a field, under one of its names, or refuses it with a reason."""
    return name in {"extends", "env", *ALIASES, *REFUSED} or any(name in model.model_fields for model in EXECUTORS.values())
