"""The dispatcher's folder layout in NeMo-Run's terms: rendered paths are `<runs_dir>/<run key>/…`, and nothing is ever connected.

A module of its own because NeMo-Run serialises executors by importable class names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nemo_run.core.execution.slurm import SlurmJobDetails
from nemo_run.core.tunnel.client import LocalTunnel


@dataclass(kw_only=True)
class RunFolderTunnel(LocalTunnel):  # type: ignore[misc]
    """Keeps `job_dir` as given, where NeMo-Run would append the experiment's title and id."""

    def _set_job_dir(self, experiment_id: str) -> None:
        """Leaves the folder alone: the run key alone names a run."""


@dataclass(kw_only=True)
class ArrayDetails(SlurmJobDetails):  # type: ignore[misc]
    """Logs of an array's tasks by the job's id and the task's number, where NeMo-Run takes an id that each task has for itself."""

    @property
    def srun_stdout(self) -> Path:
        """As in SlurmJobDetails, with srun's `%A_%a`."""
        return Path(str(super().srun_stdout).replace("%j", "%A_%a"))
