"""A profile and a job → SkyPilot's task, made by NeMo-Run's executor; and the task as YAML for the preview.

NeMo-Run's `to_task` mounts the job's folder at /nemo_run and goes to its `code`; the script of ours that it runs lies in that folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dispatcher.effects.clouds.api import name_of
from dispatcher.effects.clouds.program import RUN_DIR, command_of, launch_script
from dispatcher.effects.nemorun import import_nemo_run

IDLE_MINUTES = 60
"""How long a run's own cluster stays after its job, should nobody report the end: its log, and in it the result, goes with it."""

# The commit is unpacked there and not here: on the runner, a link in it could point at any file. Then the lines of NeMo-Run's own
# `to_task`, for a script that is a process of its own.
_BEFORE = (
    f"""if [ -f {RUN_DIR}/code.tar.gz ]; then
    mkdir -p {RUN_DIR}/code && tar -xzf {RUN_DIR}/code.tar.gz --no-same-owner -C {RUN_DIR}/code || exit 1
fi
"""
    + """num_nodes=$(echo "$SKYPILOT_NODE_IPS" | wc -l)
head_node_ip=$(echo "$SKYPILOT_NODE_IPS" | head -n1)"""
)

# NeMo-Run takes one value, or a list of which SkyPilot may choose.
_ONE_OR_SEVERAL = ("cloud", "region", "zone", "gpus", "cpus", "memory", "instance_type", "use_spot", "disk_size", "disk_tier")
_AS_THEY_ARE = ("container_image", "gpus_per_node", "infra", "network_tier", "setup")


def executor_of(profile: Mapping[str, Any]) -> Any:
    """NeMo-Run's executor with the profile's fields. What `launch` alone takes (autodown and the like) is not in it."""
    run = import_nemo_run()
    fields: dict[str, Any] = {name: profile[name] for name in _AS_THEY_ARE}
    for name in _ONE_OR_SEVERAL:
        values = list(profile[name])
        fields[name] = values[0] if len(values) == 1 else values or None
    make = run.SkypilotJobsExecutor if profile["executor"] == "skypilot-jobs" else run.SkypilotExecutor
    return make(
        **fields,
        num_nodes=profile["nodes"],
        file_mounts=dict(profile["file_mounts"]) or None,
        storage_mounts={
            path: {name: value for name, value in mount.items() if value is not None} for path, mount in profile["storage_mounts"].items()
        }
        or None,
        cluster_config_overrides=profile["cluster_config_overrides"] or None,
        torchrun_nproc_per_node=profile["nproc_per_node"],
    )


def task_of(profile: Mapping[str, Any], job: Mapping[str, Any], work: Path, code: Path | None = None) -> tuple[Any, str]:
    """SkyPilot's task and the script that it runs. Script and archive lie in the folder that the task sends, below `work`."""
    executor = executor_of(profile)
    command = command_of(executor, job, work)
    script = launch_script(job, command, before=_BEFORE)
    folder = Path(executor.job_dir)
    (folder / "code").mkdir(parents=True, exist_ok=True)
    (folder / "launch.sh").write_text(script)
    if code is not None:
        shutil.copy(code, folder / "code.tar.gz")
    task = executor.to_task(name_of(str(job["run_key"])), ["bash", f"{RUN_DIR}/launch.sh"])
    if profile["ports"]:
        # NeMo-Run takes a list of them for alternatives, and hands on the tuple that its type says, which SkyPilot refuses.
        kept = type(task.resources)
        task.set_resources(kept(each.copy(ports=list(profile["ports"])) for each in task.resources))
    return task, script


def as_yaml(task: Any, work: Path, run_key: str) -> str:
    """The task as SkyPilot reads it, with a name for the folder that is another one each time."""
    from sky.utils import yaml_utils

    config = task.to_yaml_config()
    config.get("resources", {}).get("any_of", []).sort(key=str)  # a set to SkyPilot, and so in another order each time
    text: str = yaml_utils.dump_yaml_str(config)
    return text.replace(str(work / run_key), f"./{name_of(run_key)}")
