"""The dispatcher's folder layout, as a NeMo-Run tunnel: rendered paths are `<runs_dir>/<run key>/…`, and nothing is ever connected.

A module of its own because NeMo-Run serialises executors by importable class names.
"""

from __future__ import annotations

from dataclasses import dataclass

from nemo_run.core.tunnel.client import LocalTunnel


@dataclass(kw_only=True)
class RunFolderTunnel(LocalTunnel):  # type: ignore[misc]
    """Keeps `job_dir` as given, where NeMo-Run would append the experiment's title and id."""

    def _set_job_dir(self, experiment_id: str) -> None:
        """Leaves the folder alone: the run key alone names a run."""
