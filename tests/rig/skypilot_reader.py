"""Profiles → tasks by our code → YAML → SkyPilot's own parser → what it understood: a program for a Python that has SkyPilot.

Standard input has a list of `{"profile": …, "job": …, "dryrun": bool}` as JSON; with `dryrun` the API server is asked as well, by
SkyPilot's own dry run, by both of our APIs, and for a machine that it does not have (`impossible`). Standard output gets what was
understood, as
`{"tasks": […], "words": {executor: [every state of a job]}}`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def understood(given: dict[str, Any], work: Path) -> dict[str, Any]:
    """One task as SkyPilot has read it."""
    import sky
    import yaml

    from dispatcher.effects.clouds.skypilot_task import as_yaml, executor_of, task_of

    task, script = task_of(given["profile"], given["job"], work)
    text = as_yaml(task, work, given["job"]["run_key"])
    read = sky.Task.from_yaml_config(yaml.safe_load(text))
    resources = [each.to_yaml_config() for each in read.resources]
    for each in resources:
        each.pop("_user_specified_yaml", None)
    found = {
        "name": read.name,
        "num_nodes": read.num_nodes,
        "setup": read.setup,
        "run": read.run,
        "envs": read.envs,
        "file_mounts": read.file_mounts,
        "storage_mounts": {path: mount.to_yaml_config() for path, mount in read.storage_mounts.items()},
        "resources": sorted(resources, key=str),
        "script": script,
        "nproc": executor_of(given["profile"]).nproc_per_node(),
    }
    if given.get("dryrun"):
        found["dryrun"] = sky.get(sky.launch(task, cluster_name="dryrun", dryrun=True, down=True))
        found["asked"] = asked(given["profile"], given["impossible"], work)
    return found


def asked(profile: dict[str, Any], impossible: dict[str, Any], work: Path) -> dict[str, Any]:
    """What our APIs get from the server: about a job that is not there, who and what it is, and for a launch that cannot be."""
    from dispatcher.effects.clouds.api import RefusedError, name_of
    from dispatcher.effects.clouds.skypilot import SkypilotApi
    from dispatcher.effects.clouds.skypilot_jobs import SkypilotJobsApi

    key = "0" * 16
    found: dict[str, Any] = {"probe": SkypilotApi(profile).probe()}
    for api in (SkypilotApi(profile), SkypilotJobsApi({**profile, "executor": "skypilot-jobs"})):
        name = name_of(key)
        api.forget(name)
        found[type(api).__name__] = [api.find(key), api.look([name]), api.log(name), api.cancel(name)]
    (work / "x").write_text("no archive is opened before there are machines")
    try:
        SkypilotApi(impossible["profile"]).launch(impossible["job"], work / "x", {"TOKEN": "s3cret"}, work)
    except RefusedError as error:
        found["refused"] = str(error)
    return found


def main() -> None:
    """Answers one list."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # SkyPilot prints
    sys.path.insert(0, str(ROOT))
    found = []
    for given in json.load(sys.stdin):
        with tempfile.TemporaryDirectory() as work:
            found.append(understood(given, Path(work)))
    from sky.jobs.state import ManagedJobStatus
    from sky.skylet.job_lib import JobStatus

    words = {"skypilot": [each.value for each in JobStatus], "skypilot-jobs": [each.value for each in ManagedJobStatus]}
    json.dump({"tasks": found, "words": words}, answers, default=str)


if __name__ == "__main__":
    main()
