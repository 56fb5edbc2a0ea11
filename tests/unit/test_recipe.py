"""What a recipe may say."""

import pytest
from pydantic import ValidationError

from dispatcher.recipe import Recipe


@pytest.mark.parametrize(
    ("fields", "program"),
    [
        ({"script": "train.py"}, "train.py"),
        ({"script": "a/b-c/d_e.py", "launcher": "torchrun"}, "a/b-c/d_e.py"),
        ({"module": "pkg.train"}, "-m pkg.train"),
        ({"script": "run.sh", "entrypoint": "bash"}, "run.sh"),
        ({"script": "a.py", "args": "one argument; $(id)"}, "a.py"),
        ({"script": "a.py", "subpath": "pkg", "include_pattern": ["*.py", "!x/"]}, "a.py"),
        ({"inline": "nvidia-smi\n"}, "inline bash"),
        ({"inline": "print(1)", "entrypoint": "python", "launcher": "torchrun"}, "inline python"),
        ({"module": "pkg.train", "launcher": "ft", "ft": {"max_restarts": "3", "rank_heartbeat_timeout": "0.5"}}, "-m pkg.train"),
        ({"script": "a.py", "launcher": "slurm_ray", "slurm_ray": {"gcs_server_port": 6379}}, "a.py"),
    ],
)
def test_recipes(fields: dict[str, object], program: str) -> None:
    assert Recipe.model_validate(fields).program == program


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"script": "a.py", "module": "b"},
        {"script": "../a.py"},
        {"script": "a/../../b.py"},
        {"script": "a/.."},
        {"script": "./a.py"},
        {"script": "a//b.py"},
        {"script": "/etc/passwd"},
        {"script": "-c"},
        {"script": "a b.py"},
        {"script": "a.py\n"},
        {"script": "$(id).py"},
        {"script": "a'b.py"},
        {"script": ""},
        {"module": "a-b"},
        {"module": "a;b"},
        {"module": "größe"},
        {"module": "a", "entrypoint": "bash"},
        {"script": "a.py", "entrypoint": "python -c"},
        {"script": "a.py", "entrypoint": "-x"},
        {"script": "a.py", "launcher": "mpirun"},
        {"script": "a.py", "inline": "true"},
        {"module": "a", "inline": "true"},
        {"inline": " \n"},
        {"inline": "a\0b"},
        {"inline": "#" * 65_537},
        {"inline": "true", "runspec": True},
        {"script": "a.py", "ft": {}},
        {"script": "a.py", "launcher": "torchrun", "ft": {"max_restarts": 1}},
        {"script": "a.py", "launcher": "ft", "slurm_ray": {}},
        {"script": "a.py", "launcher": "ft", "ft": {"cfg_path": "/x"}},
        {"script": "a.py", "launcher": "ft", "ft": {"rank_heartbeat_timeout": 0}},
        {"script": "a.py", "launcher": "ft", "ft": {"rank_heartbeat_timeout": "nan"}},
        {"script": "a.py", "launcher": "ft", "ft": {"rank_heartbeat_timeout": True}},
        {"script": "a.py", "launcher": "ft", "ft": {"rank_termination_signal": "SIGKILL; true"}},
        {"script": "a.py", "launcher": "ft", "ft": {"log_level": "$(id)"}},
        {"script": "a.py", "launcher": "slurm_ray", "slurm_ray": {"start_timeout": 1}},
        {"script": "a.py", "launcher": "slurm_ray", "slurm_ray": {"gcs_server_port": 70_000}},
        {"script": "a.py", "results": "/etc/x"},
        {"script": "a.py", "results": "../x"},
        {"script": "a.py", "subpath": ".."},
        {"script": "a.py", "include_pattern": ["../x"]},
        {"script": "a.py", "args": ["a\nb"]},
        {"script": "a.py", "args": ["a\0b"]},
        {"script": "a.py", "nodes": 0},
        {"script": "a.py", "nodes": True},
        {"script": "a.py", "nodes": 1.5},
        {"script": "a.py", "env_vars": {"A B": "1"}},
        {"script": "a.py", "env_vars": {"A": "1\n2"}},
        {"script": "a.py", "container_image": "a b"},
        {"script": "a.py", "container_image": "-x"},
    ],
)
def test_what_a_recipe_may_not_say(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(fields)


def test_values_stay_as_written() -> None:
    recipe = Recipe.model_validate({"script": "a.py", "args": ["--n", 4, True, "1e-4"], "env_vars": {"A": 1, "b": "x y", "C": False}})
    assert recipe.args == ("--n", "4", "true", "1e-4")
    assert recipe.env_vars == {"A": "1", "b": "x y", "C": "false"}


@pytest.mark.parametrize(
    ("fields", "interpreter"),
    [({"script": "a.py"}, "python"), ({"inline": "true"}, "bash"), ({"inline": "1", "entrypoint": "python"}, "python")],
)
def test_what_runs_it(fields: dict[str, object], interpreter: str) -> None:
    assert Recipe.model_validate(fields).interpreter == interpreter


def test_whole_seconds_are_whole_numbers() -> None:
    given = {"rank_heartbeat_timeout": 300, "initial_rank_heartbeat_timeout": "0.5"}
    options = Recipe.model_validate({"script": "a.py", "launcher": "ft", "ft": given}).ft.options()
    assert {name: str(value) for name, value in options.items()} == {
        "workload_check_interval": "5",
        "initial_rank_heartbeat_timeout": "0.5",
        "rank_heartbeat_timeout": "300",
        "rdzv_port": "29500",
    }
