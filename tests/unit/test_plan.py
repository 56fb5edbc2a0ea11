"""The plan: what names a run, what names its content, and what reaches the script."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.authorise import Grant
from dispatcher.configuration import read_profile
from dispatcher.firstrecord import first_record, log_path
from dispatcher.jobplan import JobPlan
from dispatcher.keys import commit_tag, pull_tag, run_key
from dispatcher.packing import missing_script, package_group, package_spec
from dispatcher.plan import plan
from dispatcher.policy import load_policy
from dispatcher.ports import PackageSpec
from dispatcher.profile import LocalProfile, Profile, ResolvedProfile, SlurmProfile
from dispatcher.recipe import Recipe
from dispatcher.runprofile import with_recipe
from dispatcher.slurm import State
from tests.fakes import HEAD, NOON, PROFILE, REPOSITORY, Fakes, overrides, package

GRANT = Grant("alice", HEAD, REPOSITORY, 7, "run", "comment:99", "comment", "allow.roles", "cluster", "default")
SLURM = SlurmProfile(account="ml", partition="batch", host="login.example.com", user="ci", job_dir="/jobs")
LOCAL = LocalProfile()
TRAIN = Recipe(script="train.py")


def planned(profile: Profile = SLURM, recipe: Recipe = TRAIN, *words: str, attached: bool = False, **fields: Any) -> JobPlan:
    made = plan(GRANT, "cluster", with_recipe(profile, recipe), "default", recipe, overrides(*words), package(), "/jobs", attached, "/py")
    return replace(made, **fields)


def slurm(**fields: Any) -> SlurmProfile:
    return SlurmProfile.model_validate({**SLURM.model_dump(exclude_unset=True), **fields})


# --------------------------------------------------------------------------- keys

ASKED: dict[str, Any] = {
    "repository": REPOSITORY,
    "trigger": "comment:99",
    "profile": "cluster",
    "recipe": "default",
    "overrides": overrides("a=1", "b=2"),
    "attempt": 1,
}


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "org/other"},
        {"trigger": "comment:98"},
        {"trigger": "comment:99:nightly"},
        {"profile": "cluster2"},
        {"recipe": "eval"},
        {"overrides": ()},
        {"overrides": overrides("a=1")},
        {"overrides": overrides("a=1", "b=3")},
        {"overrides": overrides("a=1", "c=2")},
        {"attempt": 2},
        # Moving a character from one part to the next is another request.
        {"profile": "clusterd", "recipe": "efault"},
        {"overrides": overrides("a=1b=2")},
    ],
)
def test_each_part_of_a_request_alone_makes_another_run(change: dict[str, Any]) -> None:
    assert run_key(**{**ASKED, **change}) != run_key(**ASKED)


def test_the_same_request_is_the_same_run() -> None:
    assert run_key(**ASKED) == run_key(**{**ASKED, "repository": "ORG/Repo"})
    assert re.fullmatch(r"[0-9a-f]{16}", run_key(**ASKED))


@given(st.lists(st.tuples(*[st.text("ab:/\x1f", max_size=3)] * 3), min_size=2, max_size=2, unique=True))
def test_different_requests_never_meet(pair: list[tuple[str, str, str]]) -> None:
    first, second = (run_key("o/r", trigger, profile, recipe, ()) for trigger, profile, recipe in pair)
    assert first != second


def test_a_plan_carries_both() -> None:
    job = planned(SLURM, TRAIN, "a=1")
    assert job.run_key == run_key(REPOSITORY, "comment:99", "cluster", "default", overrides("a=1"))
    assert len(job.content_key) == 64
    assert (job.run_dir, job.runs_dir) == (f"/jobs/runs/{job.run_key}", "/jobs/runs")


def test_names_under_which_it_is_found() -> None:
    content = f"content-{planned().content_key}"
    assert planned().tags() == (f"commit-{HEAD}", content, pull_tag(REPOSITORY, 7))
    assert planned(grant=replace(GRANT, number=None)).tags() == (commit_tag(HEAD), content)
    assert pull_tag("Org/Repo", 7) == pull_tag("org/repo", 7) != pull_tag("org/repo", 77)
    # As the ledger checks them.
    assert all(re.fullmatch(r"[0-9a-z][0-9a-z-]{0,127}", tag) for tag in planned().tags())


def test_packages_that_are_likely_to_be_alike() -> None:
    spec = package_spec(TRAIN, SLURM)
    group = package_group(REPOSITORY, "cluster", spec)
    assert group == package_group("ORG/repo", "cluster", PackageSpec())
    others = [PackageSpec("src"), PackageSpec(include_pattern=("*.py",)), PackageSpec(include_submodules=False)]
    assert len({group, *(package_group(REPOSITORY, "cluster", other) for other in others)}) == 4


@pytest.mark.parametrize(
    ("recipe", "missing"),
    [(TRAIN, None), (Recipe(script="src/train.py"), "src/train.py"), (Recipe(script="Train.py"), "Train.py"), (Recipe(module="a.b"), None)],
)
def test_a_script_that_the_commit_lacks(recipe: Recipe, missing: str | None) -> None:
    assert missing_script(recipe, package()) == missing


# --------------------------------------------------------------------------- what NeMo-Run gets


def executor(profile: Profile = SLURM, recipe: Recipe = TRAIN, attached: bool = False) -> dict[str, Any]:
    fields = planned(profile, recipe, attached=attached).for_compiler()["executor"]
    assert isinstance(fields, dict)
    return fields


def test_arguments_are_the_recipes_then_the_overrides_without_the_profiles() -> None:
    job = planned(SLURM, Recipe(script="train.py", args=["--x", "y z"]), "b=2", "run.nodes=2", "a='1'")
    assert job.for_compiler()["args"] == ["--x", "y z", "b=2", "a='1'"]


@pytest.mark.parametrize(
    ("profile", "attached", "partition"),
    [
        (SLURM, False, "batch"),
        (slurm(run_partition="interactive"), True, "interactive"),
        (slurm(run_partition="interactive"), False, "batch"),
        (slurm(batch_partition="long"), False, "long"),
        (slurm(batch_partition="long"), True, "batch"),
        (slurm(partition=None), False, None),
    ],
)
def test_partitions_for_who_waits_and_for_who_does_not(profile: Profile, attached: bool, partition: str | None) -> None:
    assert executor(profile, attached=attached).get("partition") == partition
    assert planned(profile, attached=attached).resources.partition == (partition or "")


TORCHRUN = Recipe(script="train.py", launcher="torchrun")


@pytest.mark.parametrize(
    ("profile", "recipe", "processes"),
    [
        (SLURM, TORCHRUN, 1),
        (slurm(gpus_per_node=8), TORCHRUN, 8),
        (slurm(ntasks_per_node=4, gpus_per_node=8), TORCHRUN, 4),
        (slurm(ntasks_per_node=8, gpus_per_node=8), TORCHRUN, 8),
        (slurm(nproc_per_node=2, ntasks_per_node=4, gpus_per_node=8), TORCHRUN, 2),
        (slurm(nodes=4, gpus_per_node=8), TORCHRUN, 8),
        (slurm(gpus_per_node=8), Recipe(script="train.py", launcher="torchrun", nproc_per_node=3), 3),
        (slurm(gpus_per_node=8), Recipe(script="train.py", launcher="torchrun", gpus_per_node=2), 2),
        (LOCAL, TORCHRUN, 1),
        (LocalProfile(nproc_per_node=2), TORCHRUN, 2),
    ],
)
def test_torchruns_processes_on_each_node(profile: Profile, recipe: Recipe, processes: int) -> None:
    job = planned(profile, recipe)
    assert job.for_compiler()["torchrun_nproc_per_node"] == processes
    if isinstance(profile, SlurmProfile):
        # One launcher on each node, whatever the number of tasks.
        assert executor(profile, recipe)["ntasks_per_node"] == 1


def test_without_torchrun_slurm_starts_the_tasks() -> None:
    job = planned(slurm(ntasks_per_node=4, gpus_per_node=8))
    assert job.for_compiler()["torchrun_nproc_per_node"] is None
    assert executor(slurm(ntasks_per_node=4))["ntasks_per_node"] == 4


def test_every_field_that_a_scheduler_understands_reaches_it() -> None:
    given: dict[str, Any] = {
        "nodes": 2,
        "gpus_per_node": 8,
        "cpus_per_task": 4,
        "mem": "64G",
        "qos": "high",
        "gres": "gpu:a100:8",
        "constraint": "ib",
        "exclude": "n7",
        "exclusive": True,
        "time": "01:00:00",
        "retries": 2,
        "srun_args": ["--mpi=pmix"],
    }
    fields = executor(slurm(**given, reservation="maint", additional_parameters={"mail_type": "END"}))
    assert {name: fields[name] for name in given} == given
    assert fields["additional_parameters"]["reservation"] == "maint"
    assert fields["additional_parameters"]["mail_type"] == "END"
    assert fields["account"] == "ml"
    assert fields["comment"] == planned(slurm(**given)).run_key


def test_what_is_not_given_is_left_to_nemo_run() -> None:
    assert None not in executor().values()
    assert not {"mem", "gpus_per_node", "container_image", "container_mounts", "exclusive", "srun_args"} & set(executor())


def test_mounts_go_with_an_image() -> None:
    mounts = {"mounts": ["/data:/data:ro"], "lustre_mount": "/lustre:/lustre"}
    assert executor(slurm(container_image="a.sqsh", **mounts))["container_mounts"] == ["/data:/data:ro", "/lustre:/lustre"]
    assert "container_mounts" not in executor(slurm(**mounts))


def test_setup_lines() -> None:
    job = planned(slurm(setup_lines=["module load a"], startup_commands="source b"), Recipe(script="train.py", results="out/m.json"))
    lines = job.for_compiler()["setup_lines"]
    assert isinstance(lines, list)
    run_dir = job.run_dir
    # Tracing goes off before anything that could show a secret; how it ends is caught before anything can end it.
    assert lines[0] == "{ set +vx; } 2>/dev/null"
    assert [f"trap '{part}' EXIT" for part in re.findall(r"(?m)^trap '(.*)' EXIT$", "\n".join(lines)) if f"{run_dir}/exit" in part]
    assert lines[-5:] == [
        f"rm -f {run_dir}/exit {run_dir}/code/out/m.json",
        f"mkdir -p {run_dir}/code/out || :",
        f". {run_dir}/env",
        "module load a",
        "source b",
    ]


@pytest.mark.parametrize(
    ("recipe", "made"),
    [
        (TRAIN, []),
        (Recipe(script="train.py", series="m.jsonl", wandb_summary="wandb/latest-run/files/s.json"), []),
        (Recipe(script="train.py", results="out/m.json", series="out/s.jsonl", tensorboard="tb"), ["out", "tb"]),
    ],
)
def test_the_folders_of_what_a_job_is_to_write_are_there(recipe: Recipe, made: list[str]) -> None:
    job = planned(LOCAL, recipe)
    lines = [f"mkdir -p {' '.join(f'{job.run_dir}/code/{folder}' for folder in made)} || :"] if made else []
    assert [line for line in job.local_job().script.splitlines() if line.startswith("mkdir")] == lines


@pytest.mark.parametrize("recipe", [TRAIN, TORCHRUN])
@pytest.mark.parametrize("profile", [SLURM, LOCAL, slurm(container_image="a.sqsh")])
def test_no_environment_and_so_no_secret_reaches_nemo_run(profile: Profile, recipe: Recipe) -> None:
    given = with_recipe(profile, recipe).model_copy(update={"env_vars": {"VISIBLE": "value-of-a-variable"}})
    job = replace(planned(profile, recipe), profile=given)
    env = job.environment({"WANDB_API_KEY": "value-of-a-secret"})
    assert "value-of-a-secret" in env
    assert "value-of-a-variable" in env
    told = json.dumps(job.for_compiler()) + job.local_job().script + repr(job.local_job().files)
    assert "value-of" not in told
    assert json.loads(json.dumps(job.for_compiler())) == job.for_compiler()


# --------------------------------------------------------------------------- environment, local job, record


def environment(job: JobPlan, **secrets: str) -> dict[str, str]:
    lines = [re.fullmatch(r"export ([A-Za-z_]\w*)=(.*)", line) for line in job.environment(secrets).splitlines()]
    return {found[1]: found[2] for found in lines if found}


def test_the_jobs_environment() -> None:
    job = planned(slurm(env_vars={"A": "1", "HF_TOKEN": "no"}, wandb={"project": "p", "tags": ["x", "y"]}))
    found = environment(job, HF_TOKEN="secret")
    assert found == {
        "WANDB_PROJECT": "p",
        "WANDB_TAGS": "x,y",
        "A": "1",
        "HF_TOKEN": "secret",
        "DISPATCH_RUN_KEY": job.run_key,
        "DISPATCH_RUN_DIR": job.run_dir,
        "DISPATCH_RESULTS": f"{job.run_dir}/code/results.json",
        "DISPATCH_REPOSITORY": REPOSITORY,
        "DISPATCH_SHA": HEAD,
    }


def test_what_the_job_is_to_write_lies_where_it_is_looked_for() -> None:
    recipe = Recipe(script="train.py", series="m.jsonl", tensorboard="out/tb", wandb_summary="wandb/latest-run/files/wandb-summary.json")
    job = planned(recipe=recipe)
    code = f"{job.run_dir}/code"
    assert job.written.split() == [
        f"{code}/results.json",
        f"{code}/wandb/latest-run/files/wandb-summary.json",
        f"{code}/m.jsonl",
        f"{code}/out/tb/events.out.tfevents.*",
    ]
    assert environment(job)["DISPATCH_TENSORBOARD"] == f"{code}/out/tb"
    record = first_record(job, NOON, "", None, None, at_terminal=True)
    assert (record.tensorboard_path, record.wandb_summary_path) == ("code/out/tb", "code/wandb/latest-run/files/wandb-summary.json")


def test_inside_a_container_the_folders_are_where_it_sees_them() -> None:
    found = environment(planned(slurm(container_image="a.sqsh"), Recipe(script="train.py", results="out/m.json")))
    assert (found["DISPATCH_RUN_DIR"], found["DISPATCH_RESULTS"]) == ("/nemo_run", "/nemo_run/code/out/m.json")


def test_nobody_can_pretend_to_be_another_run() -> None:
    assert environment(planned(), DISPATCH_SHA="x", DISPATCH_RUN_KEY="y")["DISPATCH_SHA"] == HEAD


def test_a_local_job() -> None:
    job = planned(LocalProfile(setup_lines="echo hi", time="00:01:00"), TRAIN, "a=1")
    compiled = job.local_job()
    lines = compiled.script.splitlines()
    assert lines[0] == "#!/bin/sh"
    assert lines[-4:] == [
        f"rm -f {job.run_dir}/code/results.json",
        "echo hi",
        f"cd {job.run_dir}/code || exit 1",
        lines[-1],
    ]
    assert re.fullmatch(rf"exec timeout 60 /py -I \S+/effects/nemorun\.py run {job.run_dir}/configs/job\.json", lines[-1])
    [file] = compiled.files
    assert json.loads(file.content) == job.for_compiler()


def test_the_record() -> None:
    job = planned(
        slurm(nodes=2, gpus_per_node=8, log_url="https://x/{run_key}/{job_id}{path}"),
        Recipe(script="train.py", results="m.json"),
        "a=1",
        "run.nodes=2",
    )
    record = first_record(job, NOON, "ci@login", 99, 7, at_terminal=False)
    assert (record.state, record.origin, record.job_id) == (State.SUBMITTING, "github", "")
    assert (record.results_path, record.results_required) == ("code/m.json", True)
    assert record.overrides == ("a=1", "run.nodes=2")
    assert (record.resources.nodes, record.resources.gpus_per_node, record.resources.seconds) == (2, 8, 4 * 3600)
    assert record.log_url is None
    path = log_path(job.run_dir, job.run_key, "77", "slurm")
    assert record.model_copy(update={"job_id": "77"}).log_url == f"https://x/{job.run_key}/77{path}"


def test_results_are_promised_only_by_who_names_them() -> None:
    assert not first_record(planned(), NOON, "", None, None, at_terminal=True).results_required
    assert first_record(planned(), NOON, "", None, None, at_terminal=True).origin == "terminal"


def test_the_profile_in_these_tests_is_one_that_people_write() -> None:
    fakes = Fakes(profiles={"cluster": PROFILE})
    found = read_profile(fakes.world, load_policy(""), "cluster")
    assert isinstance(found, ResolvedProfile)
    assert found.profile == slurm(log_url="https://logs.example.com{path}?job={job_id}")
