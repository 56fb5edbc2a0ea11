"""`[tool.runspec]`: what a script says for itself, how much of it counts, and what a hostile one cannot have."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dispatcher.errors import ConfigError
from dispatcher.recipe import Recipe
from dispatcher.runspec import BLOCK_LIMIT, BLOCKS_LIMIT, LINES_LIMIT, fill, read_runspec

# As Nemotron's recipes have it: https://github.com/NVIDIA-NeMo/Nemotron/tree/main/src/nemotron/recipes
NEMOTRON = """\
#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "omegaconf>=2.3",
# ]
#
# [tool.runspec]
# schema = "1"
# docs = "https://raw.githubusercontent.com/NVIDIA-NeMo/Nemotron/main/docs/runspec/v1/spec.md"
# name = "nano3/pretrain"
# image = "nvcr.io/nvidia/nemo:25.11"
# # Comments may stand there too.
# setup = "NeMo is pre-installed in the image."
#
# [tool.runspec.run]
# launch = "torchrun"
# cmd = "uv run --no-project {script} --config {config}"
# workdir = "/opt/nemo-rl"
#
# [tool.runspec.config]
# dir = "./config"
# default = "default"
# format = "omegaconf"
#
# [tool.runspec.resources]
# nodes = 2
# gpus_per_node = 8
#
# [tool.runspec.env]
# NCCL_DEBUG = "INFO"
# STEPS = 5
# ///

raise SystemExit("never run here")
"""

LEFT_ALONE = ("run.cmd", "run.workdir", "config.dir", "config.default", "config.format")


def block(*lines: str) -> str:
    return "\n".join(["# /// script", *(f"# {line}" if line else "#" for line in lines), "# ///", "print(1)", ""])


def recipe(*parts: str, **fields: object) -> Recipe:
    return Recipe.model_validate({"script": "train.py", "runspec": list(parts), **fields})


def refused(text: str, *parts: str, **fields: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        fill(recipe(*parts, **fields), read_runspec(text, "train.py"), ("MY_OWN",))
    return caught.value


# --------------------------------------------------------------------------- what counts


@pytest.mark.parametrize(
    ("parts", "fields", "taken"),
    [
        ((), {}, {}),
        (("launch",), {}, {"run.launch": "torchrun"}),
        (("resources",), {}, {"resources.nodes": "2", "resources.gpus_per_node": "8"}),
        (("image",), {}, {"image": "nvcr.io/nvidia/nemo:25.11"}),
        (("env.NCCL_*",), {}, {"env.NCCL_DEBUG": "INFO"}),
        (("env.*",), {}, {"env.NCCL_DEBUG": "INFO", "env.STEPS": "5"}),
        (("env.STEP",), {}, {}),
        # What the recipe says itself is not open, also where it says what would hold anyway.
        (("launch", "resources"), {"launcher": "none", "nodes": 1}, {"resources.gpus_per_node": "8"}),
        (("image",), {"container_image": "own.sqsh"}, {}),
        (("env.*",), {"env_vars": {"STEPS": "1"}}, {"env.NCCL_DEBUG": "INFO"}),
    ],
)
def test_only_what_is_allowed_and_open_is_taken(parts: tuple[str, ...], fields: dict[str, object], taken: dict[str, str]) -> None:
    found = fill(recipe(*parts, **fields), read_runspec(NEMOTRON, "train.py"))
    assert dict(found.taken) == taken
    assert set(LEFT_ALONE) <= set(found.left)
    assert not set(found.left) & set(taken)


def test_what_is_taken_is_the_recipes() -> None:
    found = fill(recipe("launch", "resources", "image", "env.*", env_vars={"A": "1"}), read_runspec(NEMOTRON, "train.py")).recipe
    assert (found.launcher, found.nodes, found.gpus_per_node, found.container_image) == ("torchrun", 2, 8, "nvcr.io/nvidia/nemo:25.11")
    assert found.env_vars == {"A": "1", "NCCL_DEBUG": "INFO", "STEPS": "5"}
    assert (found.script, found.entrypoint, found.args, found.subpath) == ("train.py", "python", (), "")
    # Whether results have to be there is by what the recipe itself says.
    assert "results" not in found.model_fields_set


@pytest.mark.parametrize(("written", "launcher"), [("direct", "none"), ("python", "none"), ("torchrun", "torchrun"), ("ray", "slurm_ray")])
def test_launchers(written: str, launcher: str) -> None:
    script = read_runspec(block("[tool.runspec.run]", f'launch = "{written}"'), "a.py")
    assert fill(recipe("launch"), script).recipe.launcher == launcher


@pytest.mark.parametrize(
    "text",
    [
        "",
        "print(1)\n",
        "# /// script\nprint(1)\n",
        block('dependencies = ["a"]'),
        "# /// other\n# [tool.runspec]\n# ///\n",
        block("tool = 1"),
    ],
)
def test_a_script_may_say_nothing(text: str) -> None:
    assert read_runspec(text, "a.py") is None
    assert fill(recipe("launch"), None) == fill(recipe("launch"), read_runspec(text, "a.py"))


def test_line_ends_of_another_system() -> None:
    assert read_runspec(NEMOTRON.replace("\n", "\r\n"), "a.py") is not None


def test_unusual_separators_inside_a_line_are_text() -> None:
    script = read_runspec(block("[tool.runspec]", 'setup = "a\u2028b\u0085c"'), "a.py")
    assert script is not None
    assert script.runspec.setup == "a\u2028b\u0085c"


def test_true_is_what_limits_bound() -> None:
    assert Recipe.model_validate({"script": "a.py", "runspec": True}).runspec == ("launch", "resources")
    assert Recipe.model_validate({"script": "a.py", "runspec": False}).runspec == ()
    assert Recipe.model_validate({"script": "a.py", "runspec": "image"}).runspec == ("image",)


@pytest.mark.parametrize("part", ["env", "host", "setup", "workdir", "env.", "env.A-B", "env.A.B", "run.launch", "*", 1])
def test_what_cannot_be_allowed(part: object) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate({"script": "a.py", "runspec": [part]})


def test_a_module_has_no_block() -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate({"module": "a", "runspec": True})


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["[tool.runspec]", 'host = "evil.example.com"'], "`train.py:3`: `host` is not a key here"),
        (["[tool.runspec]", 'setup_lines = "curl evil"'], "`setup_lines` is not a key here; did you mean `setup`?"),
        (["[tool.runspec]", 'secrets = ["X"]'], "`secrets` is not a key here"),
        (["[tool.runspec]", 'account = "other"'], "`account` is not a key here"),
        (["[tool.runspec.resources]", "nodes = 1000000000"], "`train.py:3`: `resources.nodes` should be less than or equal to 10000"),
        (["[tool.runspec.resources]", "nodes = 1e9"], "`resources.nodes` is not a whole number"),
        (["[tool.runspec.resources]", "nodes = 0"], "`resources.nodes`"),
        (["[tool.runspec.resources]", "nodes = true"], "`resources.nodes`"),
        (["[tool.runspec.resources]", "nodse = 1"], "`resources.nodse` is not a key here; did you mean `nodes`?"),
        (["[tool.runspec.resources]", 'partition = "all"'], "`resources.partition` is not a key here"),
        (["[tool.runspec.run]", 'launch = "mpirun"'], "`run.launch`"),
        (["[tool.runspec]", 'image = "a b"'], "`image` is not a container image"),
        (["[tool.runspec]", 'image = "--container-mounts=/:/host"'], "`image` is not a container image"),
        (["[tool.runspec]", 'schema = "2"'], "`schema`"),
        (["[tool.runspec.env]", '"A B" = "1"'], "`env.A B`"),
        (["[tool.runspec.env]", 'A = "1\\n2"'], "`env.A` is not one line"),
        (["[tool.runspec.env.A]", 'B = "1"'], "`env.A`"),
        (["[tool]", "runspec = 1"], "`tool.runspec` is not a table"),
        (["[tool.runspec"], "`train.py:2`: not TOML"),
        (["[tool.runspec]", "[tool.runspec]"], "`train.py:3`: not TOML"),
        (['a."@org/team" = 1', 'a."@org/team" = 1'], "not TOML: `"),
        (["a = " + "[" * 5000], "nested too deep"),
        (["a = 1"] * (LINES_LIMIT + 1), f"more than {BLOCK_LIMIT:,} characters or {LINES_LIMIT} lines"),
        (["x" * BLOCK_LIMIT], f"more than {BLOCK_LIMIT:,} characters or {LINES_LIMIT} lines"),
    ],
)
def test_what_a_block_may_not_say(lines: list[str], words: str) -> None:
    error = refused(block(*lines))
    assert words in error.cause
    assert "block in the script" in error.next_step


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/evil"),
        ("LD_PRELOAD", "/evil.so"),
        ("BASH_ENV", "/evil"),
        ("DISPATCH_RUN_KEY", "1"),
        ("SLURM_JOB_ID", "1"),
        ("GITHUB_TOKEN", "1"),
        ("WANDB_API_KEY", "1"),
        ("MY_OWN", "1"),
        ("RUNNER_TEMP", "/evil"),
        ("SSH_AUTH_SOCK", "/evil"),
        ("ENROOT_MOUNT_HOME", "y"),
        ("https_proxy", "http://evil"),
        ("HF_ENDPOINT", "http://evil"),
        ("WANDB_BASE_URL", "http://evil"),
        ("PYTHONSTARTUP", "/evil"),
        ("HOME", "/evil"),
    ],
)
def test_variables_that_no_pattern_opens(name: str, value: str) -> None:
    text = block("[tool.runspec.env]", f'{name} = "{value}"')
    error = refused(text, "env.*")
    assert (error.code, error.cause) == ("config.invalid", f"`train.py:3`: `env.{name}` is not for a script to set")
    # Where it is not allowed anyway, it is left alone like everything else.
    assert fill(recipe("launch"), read_runspec(text, "train.py")).taken == ()


def test_what_is_allowed_and_cannot_be_had() -> None:
    assert "climbs" in refused(block("[tool.runspec]", 'image = "/ok/../evil.sqsh"'), "image").cause


def test_a_second_block_is_an_error() -> None:
    error = refused(NEMOTRON + block("[tool.runspec]"))
    assert error.code == "config.syntax"
    assert "second block" in error.cause
    # One of another kind is not ours.
    assert read_runspec(NEMOTRON + "# /// other\n# x\n# ///\n", "a.py") is not None


@pytest.mark.parametrize(
    "text",
    [
        "# /// script\n" * 70_000,
        "# /// script\n" * BLOCKS_LIMIT + "# x\n" * 200_000,
        "# /// script\n" + "#\n" * 400_000,
        "#\n" * 400_000,
        block("a = [", *["1,"] * (LINES_LIMIT - 3), "]"),
        block("a = " + "[" * 300 + "]" * 300),
    ],
    ids=["openings", "never-closed", "one-never-closed", "comments", "long-value", "deep-value"],
)
def test_a_script_that_is_made_to_be_slow(text: str) -> None:
    began = time.process_time()
    with suppress(ConfigError):
        read_runspec(text, "a.py")
    assert time.process_time() - began < 5


# --------------------------------------------------------------------------- whatever comes

_KEYS = st.sampled_from(["schema", "name", "image", "setup", "host", "run", "config", "resources", "env", "", "a b", "é", "@org/team"])
_VALUES = st.one_of(st.integers(), st.booleans(), st.floats(), st.text(max_size=20), st.lists(st.integers(), max_size=2))


@given(st.text(alphabet=st.sampled_from(list("# /script[]tool.runspec=\"'\n\r\t1a{}\u2028\x0c")), max_size=200))
def test_no_text_breaks_it(body: str) -> None:
    for text in (body, f"# /// script\n{body}\n# ///\n", f"# /// script\n# [tool.runspec]\n# {body}\n# ///\n"):
        with suppress(ConfigError):
            fill(recipe("launch", "resources", "image", "env.*"), read_runspec(text, "a.py"))


@given(st.dictionaries(_KEYS, _VALUES, max_size=4), st.sampled_from(["", ".run", ".config", ".resources", ".env"]))
def test_no_value_breaks_it(table: dict[str, object], where: str) -> None:
    def written(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return '"' + "".join(f"\\u{ord(ch):04X}" for ch in value if ord(ch) < 0xD800) + '"' if isinstance(value, str) else str(value)

    lines = [f"[tool.runspec{where}]", *(f"{written(key)} = {written(value)}" for key, value in table.items())]
    with suppress(ConfigError):
        found = fill(recipe("launch", "resources", "image", "env.*"), read_runspec(block(*lines), "a.py"))
        # Whatever was taken is a recipe.
        assert Recipe.model_validate(found.recipe.model_dump(exclude_unset=True)) == found.recipe
