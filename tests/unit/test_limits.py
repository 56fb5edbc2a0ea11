"""How much one run, and one comment, may ask for: the numbers, the images, and from where on a second person must agree."""

from __future__ import annotations

import pytest

from dispatcher.denial import Denial
from dispatcher.executor import LocalProfile
from dispatcher.limits import (
    Wanted,
    approval_needed,
    asked_for,
    hours_words,
    image_of,
    image_refused,
    images_of,
    limit_exceeded,
    matches,
    too_many,
    within,
)
from dispatcher.policy import Policy, load_policy
from dispatcher.record import Resources
from dispatcher.slurmprofile import SlurmProfile

POLICY = load_policy("""\
images: ["nvcr.io/nvidia/*", /images/base.sqsh, "/images/ci/*"]
limits: { nodes: 4, time: 8h, gpu_hours: 100 }
approval: { nodes: 2, gpu_hours: 64 }
recipes: { default: { script: a.py }, big: { script: b.py } }
profiles:
  large: { limits: { nodes: 16, gpu_hours: 1000 }, images: ["*"], approval: { nodes: 8 } }
  base: { limits: { nodes: 1 }, images: [/images/base.sqsh] }
recipe_rules:
  big: { limits: { nodes: 8, time: 1h }, images: ["nvcr.io/*"] }
""")


def wanted(
    *lineage: str,
    nodes: int = 1,
    gpus: int = 8,
    hours: float = 1.0,
    recipe: str = "default",
    image: str | None = None,
    unlimited: bool = False,
) -> Wanted:
    resources = Resources(nodes=nodes, gpus_per_node=gpus, seconds=round(hours * 3600))
    return Wanted(lineage or ("cluster",), recipe, resources, () if image is None else (image,), unlimited)


@pytest.mark.parametrize(
    ("asked", "reason", "rule", "words"),
    [
        (wanted(), None, "", ""),
        (wanted(nodes=4, hours=3.125), None, "", ""),
        (wanted(nodes=5), "too-many-nodes", "limits.nodes", "**5 nodes are too many.** At most 4 nodes (rule `limits.nodes`"),
        (wanted(hours=8.001, gpus=0), "too-long", "limits.time", "**A time limit of 28,804 s is too long.** At most 28,800 s"),
        (wanted(hours=9, gpus=0), "too-long", "limits.time", "9h"),
        (wanted(nodes=4, hours=3.126), "too-many-gpu-hours", "limits.gpu_hours", "4 nodes × 8 GPUs × 3h 07m"),
        (wanted(unlimited=True), "no-time-limit", "limits.time", "without time limit"),
        (wanted(hours=0, gpus=0), "no-time-limit", "limits.time", ""),
        # a number of its own replaces the general one
        (wanted("large", nodes=16, hours=7), None, "", ""),
        (wanted("large", nodes=17), "too-many-nodes", "profiles.large.limits.nodes", "At most 16 nodes"),
        (wanted("large", hours=9, gpus=0), "too-long", "limits.time", ""),
        # profile and recipe both hold, and so does what is extended
        (wanted("large", nodes=9, recipe="big"), "too-many-nodes", "recipe_rules.big.limits.nodes", "At most 8 nodes"),
        (wanted("large", nodes=8, recipe="big"), None, "", ""),
        (wanted("large", hours=2, gpus=1, recipe="big"), "too-long", "recipe_rules.big.limits.time", ""),
        (wanted("large", "base", nodes=2), "too-many-nodes", "profiles.base.limits.nodes", "At most 1 node "),
    ],
)
def test_limits(asked: Wanted, reason: str | None, rule: str, words: str) -> None:
    denial = within(asked, POLICY)
    if reason is None:
        assert denial is None
        return
    assert isinstance(denial, Denial)
    assert (denial.reason, denial.rule) == (reason, rule)
    assert words in denial.words
    assert f"`{rule}`" in denial.words
    assert denial.words.startswith("**")
    assert denial.next_step


@pytest.mark.parametrize(
    ("image", "lineage", "recipe", "rule"),
    [
        (None, "cluster", "default", ""),
        ("nvcr.io/nvidia/pytorch:24.01-py3", "cluster", "default", ""),
        ("/images/base.sqsh", "cluster", "default", ""),
        ("/images/ci/x.sqsh", "cluster", "default", ""),
        ("/images/base.sqsh2", "cluster", "default", "images"),
        ("xnvcr.io/nvidia/pytorch", "cluster", "default", "images"),
        ("nvcrxio/nvidia/pytorch", "cluster", "default", "images"),
        ("docker.io/evil", "cluster", "default", "images"),
        # a path that climbs out of the folder that is allowed
        ("/images/ci/../../home/mallory/x.sqsh", "cluster", "default", "images"),
        ("/images/ci/..", "cluster", "default", "images"),
        ("docker.io/anything", "large", "default", ""),
        ("/images/../x", "large", "default", ""),
        ("docker.io/anything", "large", "big", "recipe_rules.big.images"),
        ("nvcr.io/any", "large", "big", ""),
        ("nvcr.io/any", "cluster", "big", ""),
        ("nvcr.io/any", "base", "default", "profiles.base.images"),
    ],
)
def test_images(image: str | None, lineage: str, recipe: str, rule: str) -> None:
    denial = within(wanted(lineage, image=image, recipe=recipe), POLICY)
    assert denial is None if not rule else denial is not None and (denial.reason, denial.rule) == ("image-not-allowed", rule)


def test_an_image_that_may_not_run_is_named_with_those_that_may() -> None:
    denial = within(wanted("base", image="docker.io/`x`"), POLICY)
    assert denial is not None
    assert "`/images/base.sqsh`" in denial.words
    nothing = within(wanted(image="a"), load_policy("images: []"))
    assert nothing is not None
    assert "none" in nothing.words


def test_without_rules_there_is_no_limit() -> None:
    assert within(wanted(nodes=10_000, hours=9_000, image="any"), Policy()) is None
    assert within(wanted(unlimited=True), Policy()) is None
    assert approval_needed(wanted(nodes=10_000, unlimited=True), Policy()) is None


def test_gpu_hours_do_not_concern_who_has_no_gpu() -> None:
    policy = load_policy("limits: {gpu_hours: 0}\napproval: {gpu_hours: 0}")
    assert within(wanted(gpus=0, hours=5), policy) is None
    assert within(wanted(gpus=0, unlimited=True), policy) is None
    assert approval_needed(wanted(gpus=0, unlimited=True), policy) is None
    assert within(wanted(gpus=1), policy) is not None
    endless = within(wanted(gpus=1, unlimited=True), policy)
    assert endless is not None
    assert (endless.reason, endless.rule) == ("no-time-limit", "limits.gpu_hours")


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        (wanted(nodes=2), None),
        (wanted(nodes=3), "approval.nodes"),
        (wanted(nodes=2, hours=4), None),
        (wanted(nodes=2, hours=4.01), "approval.gpu_hours"),
        (wanted(unlimited=True), "approval.gpu_hours"),
        (wanted("large", nodes=8), None),
        (wanted("large", nodes=9, gpus=0), "profiles.large.approval.nodes"),
        (wanted("large", nodes=8, hours=2), "approval.gpu_hours"),
    ],
)
def test_from_where_on_a_second_person_must_agree(asked: Wanted, rule: str | None) -> None:
    assert approval_needed(asked, POLICY) == rule


@pytest.mark.parametrize(
    ("runs", "commands", "reason"),
    [(8, 5, None), (1, 1, None), (9, 1, "too-many-runs"), (1, 6, "too-many-commands"), (9, 6, "too-many-commands")],
)
def test_what_one_comment_may_ask_for(runs: int, commands: int, reason: str | None) -> None:
    denial = too_many(runs, commands, Policy())
    assert (denial and denial.reason) == reason
    assert denial is None or denial.rule in denial.words


@pytest.mark.parametrize(
    ("text", "patterns", "met"),
    [
        ("a.b", ("a.b",), True),
        ("axb", ("a.b",), False),
        ("abc", ("a*",), True),
        ("abc", ("*c", "x"), True),
        ("abc", ("b",), False),
        ("abc", (), False),
        ("a\nb", ("a*",), False),
    ],
)
def test_patterns(text: str, patterns: tuple[str, ...], met: bool) -> None:
    assert matches(text, patterns) is met


def slurm(**fields: object) -> SlurmProfile:
    return SlurmProfile.model_validate({"account": "a", "job_dir": "/j", "host": "h", "user": "u", **fields})


@pytest.mark.parametrize(
    ("fields", "gpus"),
    [
        ({}, 0),
        ({"gpus_per_node": 8}, 8),
        ({"gres": "gpu:8"}, 8),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:a100:4"}, 4),
        ({"gres": "gpu:a100:4,gpu:h100:2,shard:3"}, 6),
        ({"gres": "gpu=4"}, 4),
        ({"gres": "gres/gpu:4"}, 4),
        ({"gres": "shard:3"}, 0),
        ({"gres": "gpu:2", "gpus_per_node": 8}, 8),
        ({"gres": "gpu:8", "gpus_per_node": 2}, 8),
        ({"additional_parameters": {"gpus_per_node": "a100:4"}}, 4),
        ({"additional_parameters": {"gpus-per-node": "8"}, "gpus_per_node": 2}, 8),
        ({"additional_parameters": {"gpus_per_n": "8"}}, 8),
        ({"additional_parameters": {"gres": "gpu:h100:8"}}, 8),
        ({"additional_parameters": {"gpus": "16"}}, 8),
        ({"additional_parameters": {"gpus": "a100:8,h100:7"}}, 8),
        ({"additional_parameters": {"gpus_per_task": "1"}, "ntasks_per_node": 8}, 8),
        ({"additional_parameters": {"gpus-per-task": "1", "ntasks": "15"}}, 8),
        ({"gpus_per_task": 2, "ntasks_per_node": 4}, 8),
        ({"additional_parameters": {"gpus-per-socket": "4", "sockets-per-node": "2"}}, 8),
        ({"additional_parameters": {"mail_type": "END", "nice": "8"}}, 0),
    ],
)
def test_gpus_count_however_they_are_asked_for(fields: dict[str, object], gpus: int) -> None:
    asked = asked_for(slurm(nodes=2, time="01:30:00", **fields), "batch")
    assert asked == Resources(nodes=2, gpus_per_node=gpus, seconds=5400, partition="batch")
    assert asked.gpu_hours == 2 * gpus * 1.5


@pytest.mark.parametrize(("given", "nodes"), [("1", 2), ("16", 16), ("2-8", 8), ("1,3,5", 5), ("4-", 4), ("x", 2)])
def test_nodes_count_however_they_are_asked_for(given: str, nodes: int) -> None:
    """An option of sbatch goes past the profile's field, and must not go past the limit."""
    assert asked_for(slurm(nodes=2, additional_parameters={"nodes": given})).nodes == nodes


def test_what_a_local_profile_asks_for() -> None:
    assert asked_for(LocalProfile(time="10")) == Resources(nodes=1, gpus_per_node=0, seconds=600)
    assert image_of(LocalProfile()) is None
    assert image_of(slurm(container_image="nvcr.io/x")) == "nvcr.io/x"


def test_every_image_of_a_job_counts() -> None:
    groups = [{"container_image": "/images/loader.sqsh"}, {}, {"container_image": "nvcr.io/x"}]
    profile = slurm(container_image="nvcr.io/x", het_groups=groups)
    assert images_of(profile) == ("nvcr.io/x", "/images/loader.sqsh")
    policy = load_policy("images: [nvcr.io/*]")
    refused = image_refused(Wanted(("cluster",), "default", asked_for(profile), images_of(profile)), policy)
    assert refused is not None
    assert "`/images/loader.sqsh` may not run" in refused.words
    assert images_of(LocalProfile()) == ()


def test_every_task_of_an_array_counts() -> None:
    """All of them run in the end, and as many at a time as may."""
    asked = asked_for(slurm(nodes=2, gpus_per_node=4, time="01:30:00", array="0-31:2%4"))
    assert asked == Resources(nodes=2, gpus_per_node=4, seconds=5400, tasks=16, at_once=4)
    assert (asked.gpu_hours, asked.most_nodes) == (16 * 2 * 4 * 1.5, 8)
    assert hours_words(asked) == "192 GPU-hours (16 tasks × 2 nodes × 4 GPUs × 1h 30m)"
    seven = load_policy("limits: { nodes: 7 }\nrecipes: { default: { script: train.py } }\n")
    refused = limit_exceeded(Wanted(("cluster",), "default", asked), seven)
    assert refused is not None
    assert "8 nodes are too many" in refused.words


def test_every_component_counts() -> None:
    groups = [{"nodes": 1, "gpus_per_node": 8}, {"nodes": 2}, {"gpus_per_node": 1}]
    asked = asked_for(slurm(nodes=2, gpus_per_node=0, time="60", het_groups=groups))
    assert asked == Resources(nodes=5, gpus_per_node=2, seconds=3600), "8 + 0 + 2 GPUs on five nodes"
