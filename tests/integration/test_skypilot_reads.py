"""What a profile says → the task that we render → what SkyPilot's own parser reads in it, field by field; and SkyPilot's own dry run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

from dispatcher.clouds import SkypilotJobsProfile, SkypilotProfile
from dispatcher.cloudstates import WORDS
from dispatcher.counterparts import ALIASES, REFUSED
from dispatcher.effects.nemorun import import_nemo_run
from tests.integration.test_skypilot import job_of
from tests.rig.skypilot import SkyDouble, SkyServer

READER = Path(__file__).parents[1] / "rig" / "skypilot_reader.py"
GPUS = {"accelerators": {"H100": 8}}
SHARED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # profile → what SkyPilot reads; `resources` without what is nothing but SkyPilot's own
    "nothing": ({}, {"num_nodes": 1, "resources": [{}], "setup": "", "envs": {}}),
    "kubernetes": (
        {"infra": "k8s/ctx", "gpus": "H100", "gpus_per_node": 8, "nodes": 2, "network_tier": "best", "disk_size": 100},
        {"num_nodes": 2, "nproc": 8, "resources": [{"infra": "kubernetes/ctx", "disk_size": 100, "network_tier": "best", **GPUS}]},
    ),
    "image": (
        {"infra": "k8s/ctx", "container_image": "nvcr.io/nvidia/nemo:dev"},
        {"resources": [{"infra": "kubernetes/ctx", "image_id": {"ctx": "docker:nvcr.io/nvidia/nemo:dev"}}]},
    ),
    "one GPU": ({"gpus": "H100"}, {"nproc": 1, "resources": [{"accelerators": {"H100": 1}}]}),
    "either GPU": ({"gpus": ["H100", "A100"]}, {"resources": [{"accelerators": {"A100": 1}}, {"accelerators": {"H100": 1}}]}),
    "cpus and memory": ({"cpus": "8+", "memory": 32}, {"resources": [{"cpus": "8+", "memory": "32"}]}),
    "place": ({"cloud": "aws", "region": "us-east-1", "zone": "us-east-1a"}, {"resources": [{"infra": "aws/us-east-1/us-east-1a"}]}),
    "either place": (
        {"cloud": ["aws", "gcp"], "region": ["us-east-1", "us-central1"], "use_spot": [True, False], "disk_tier": "high"},
        {
            "resources": [
                {"infra": "aws/us-east-1", "use_spot": True, "disk_tier": "high"},
                {"infra": "gcp/us-central1", "use_spot": False, "disk_tier": "high"},
            ]
        },
    ),
    "machine": (
        {"cloud": "aws", "instance_type": "p5.48xlarge", "gpus_per_node": 8},
        {"resources": [{"infra": "aws", "instance_type": "p5.48xlarge"}]},
    ),
    "ports": ({"ports": ["8080", "10000-10010"]}, {"resources": [{"ports": ["8080", "10000-10010"]}]}),
    "setup": ({"setup": "pip install -e .\necho 'it'\n"}, {"setup": "pip install -e .\necho 'it'\n"}),
    "buckets": (
        {"file_mounts": {"/data": "s3://bucket/data"}, "storage_mounts": {"/out": {"name": "my-out", "store": "s3", "persistent": False}}},
        {"storage_mounts": {"/out": {"name": "my-out", "store": "S3", "persistent": False, "mode": "MOUNT"}}},
    ),
    "configuration": (
        {"cluster_config_overrides": {"kubernetes": {"pod_config": {"spec": {"runtimeClassName": "nvidia"}}}}},
        {"resources": [{"_cluster_config_overrides": {"kubernetes": {"pod_config": {"spec": {"runtimeClassName": "nvidia"}}}}}]},
    ),
}  # fmt: skip


def given_to(executor: str, fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    job = job_of(executor=executor, **fields).for_compiler()
    return {"profile": job["cloud"]["profile"], "job": job, **more}  # type: ignore[index]


def read(python: Path, environment: dict[str, str], given: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    done = subprocess.run(
        [str(python), "-I", str(READER)], input=json.dumps(given), env=environment, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    return found["tasks"], found["words"]


def test_skypilot_reads_what_the_profile_says(sky_double: SkyDouble) -> None:
    """Both executors; NeMo-Run makes the same of them."""
    cases = [(executor, name) for executor in ("skypilot", "skypilot-jobs") for name in SHARED]
    torchrun = given_to("skypilot", SHARED["kubernetes"][0])
    torchrun["job"] |= {"launcher": "torchrun", "torchrun_nproc_per_node": 8}
    given = [given_to(executor, SHARED[name][0]) for executor, name in cases]
    (*found, last), words = read(sky_double.python, sky_double.env, [*given, torchrun])
    for executor, known in words.items():
        assert {word.lower() for word in known} == set(WORDS[executor]) - {"launching", "launch-failed"}, executor
    [line] = [line for line in last["script"].splitlines() if line.startswith("torchrun")]
    assert "--rdzv-endpoint $head_node_ip:29500" in line
    assert "--nnodes 2 --nproc-per-node 8 --node-rank $SKYPILOT_NODE_RANK" in line
    own = {"memory", "cpus", "_requires_fuse", "disk_size"}
    for (executor, name), task in zip(cases, found, strict=True):
        fields, expected = SHARED[name]
        where = f"{executor}, {name}"
        job = job_of(executor=executor, **fields)
        mounts = {**fields.get("file_mounts", {}), "/nemo_run": f"./dispatch-{job.run_key}"}
        assert (task["name"], task["file_mounts"]) == (f"dispatch-{job.run_key}", mounts), where
        assert task["run"].rstrip().endswith("cd /nemo_run/code\n\nbash /nemo_run/launch.sh"), where
        assert "hello" not in json.dumps(task), "variables are in the request, not in what people see"
        for key, value in expected.items():
            if key == "resources":
                asked = {name for each in value for name in each}
                value = sorted(value, key=str)
                task[key] = [{name: item for name, item in each.items() if name in asked or name not in own} for each in task[key]]
            assert task[key] == value, f"{where}: {key}"


def test_a_field_of_nemo_run_is_reachable_or_refused() -> None:
    """A new version of NeMo-Run that has more fields is noticed here."""
    run = import_nemo_run()
    for executor, model in ((run.SkypilotExecutor, SkypilotProfile), (run.SkypilotJobsExecutor, SkypilotJobsProfile)):
        theirs = {field.name for field in dataclasses.fields(executor) if not field.name.startswith("_")}
        reachable = set(model.model_fields) | {alias for alias, name in ALIASES.items() if name in model.model_fields}
        assert theirs - reachable - set(model.REFUSED) - set(REFUSED) == set(), model
        assert set(model.REFUSED) & reachable == set(), model
        assert set(model.REFUSED) - theirs == set(), model


def test_skypilots_own_dry_run(sky_server: SkyServer, sky_python: Path) -> None:
    """The real API server plans what it can have, refuses what it cannot, and understands every question that we have."""
    fields = {"infra": "k8s/ctx", "gpus": "H100", "gpus_per_node": 8, "cpus": "16+"}
    impossible = given_to("skypilot", {**fields, "gpus": "A100"})
    [task], _ = read(sky_python, sky_server.env, [given_to("skypilot", fields, dryrun=True, impossible=impossible)])
    assert task["dryrun"] == [None, None], "no job, no cluster: SkyPilot's words for a dry run that went well"
    assert ["clouds", 0, "kubernetes"] in task["asked"]["probe"]
    assert task["asked"]["SkypilotApi"] == task["asked"]["SkypilotJobsApi"] == [None, [], "", ""]
    assert "A100" in task["asked"]["refused"]
