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
