"""NeMo-Run's fields that a profile does not have under their own name: what they are called here, or why a profile may not set them.

Every field of `SlurmExecutor` is a field of `SlurmProfile`, or stands in one of these tables; a test compares them with the package.
"""

from __future__ import annotations

from collections.abc import Mapping

ALIASES: Mapping[str, str] = {
    "container": "container_image",
    "container_mounts": "mounts",
    "image": "container_image",
    "nprocs_per_node": "nproc_per_node",
    "num_nodes": "nodes",
    "remote_job_dir": "job_dir",
    "torchrun_nproc_per_node": "nproc_per_node",
}

_BY_RUN_KEY = "the job is found again by the name and comment that the dispatcher gives it"
_OWN_LOGS = "logs lie in the run's folder, where they are found again"
_INNER = "NeMo-Run sets it itself while it compiles"

# Completes the sentence “`field` is not read: …”.
REFUSED: Mapping[str, str] = {
    "identity": "the key comes from the environment, `DISPATCH_SSH_KEY` (or an SSH agent)",
    "comment": _BY_RUN_KEY,
    "job_name": _BY_RUN_KEY,
    "job_name_prefix": _BY_RUN_KEY,
    "job_details": _OWN_LOGS,
    "stderr_to_stdout": f"{_OWN_LOGS}, both streams in one",
    "launcher": "the recipe says what starts the processes (`launcher`)",
    "poll_estimated_start_time": "the comment shows the scheduler's own estimate while the job waits",
    "ray_template": "there are no Ray jobs here",
    "heterogeneous": "a job with `het_groups` is one",
    "het_group_indices": "each entry of `het_groups` is a component, in their order",
    "experiment_id": _INNER,
    "experiment_dir": _INNER,
    "resource_group": _INNER,
    "run_as_group": _INNER,
}
