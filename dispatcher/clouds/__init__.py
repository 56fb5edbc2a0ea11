"""Executors behind an API: the name in a profile → its model."""

from collections.abc import Mapping

from dispatcher.clouds.base import CloudProfile
from dispatcher.clouds.dgxcloud import DgxCloudProfile
from dispatcher.clouds.docker import DockerProfile
from dispatcher.clouds.kubeflow import KubeflowProfile
from dispatcher.clouds.kuberay import KubeRayProfile
from dispatcher.clouds.lepton import LeptonProfile
from dispatcher.clouds.skypilot import SkypilotJobsProfile, SkypilotProfile

CLOUDS: Mapping[str, type[CloudProfile]] = {
    "docker": DockerProfile,
    "kubeflow": KubeflowProfile,
    "kuberay": KubeRayProfile,
    "skypilot": SkypilotProfile,
    "skypilot-jobs": SkypilotJobsProfile,
    "dgxcloud": DgxCloudProfile,
    "lepton": LeptonProfile,
}

__all__ = [
    "CLOUDS",
    "CloudProfile",
    "DgxCloudProfile",
    "DockerProfile",
    "KubeRayProfile",
    "KubeflowProfile",
    "LeptonProfile",
    "SkypilotJobsProfile",
    "SkypilotProfile",
]
