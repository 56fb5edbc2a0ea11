"""`profile show`: every value with the file, the profile, the recipe or the override that it came from, and no secret."""

import json
from typing import Any

import pytest

from dispatcher.errors import Exit
from dispatcher.showing import show
from dispatcher.world import Outcome
from tests.fakes import Fakes

POLICY = """\
env: [LOGIN, PARTITION]
secrets: [HF_TOKEN]
recipes:
  big:
    script: train.py
    nodes: 16
    env_vars: { FROM_RECIPE: 1, BOTH: recipe }
"""
PROFILES = {
    "base": """\
executor: slurm
account: acc
host: login.example.com
user: ${oc.env:LOGIN,ci}
remote_job_dir: /lustre/ci
env_vars: { BOTH: profile, MY_API_KEY: abcdefgh, EMPTY_TOKEN: "", PLAIN: ghp_012345678901234567890123456789012345,
            ASKED: "${oc.env:PARTITION,ghp_abc345678901234567890123456789012345}" }
mounts: ['/a:/${oc.env:PARTITION,x}', /b:/b]
""",
    "cluster": "extends: base\nnodes: 4\nenv_vars:\n  OWN: 1\ncontainer: img:1\n",
}
ENVIRONMENT = {"LOGIN": "bob", "HF_TOKEN": "top-secret-value"}


def shown(*words: str, name: str = "cluster", origin: bool = True, **files: str) -> Outcome:
    world = Fakes(POLICY, PROFILES, forge=False, environment=ENVIRONMENT)
    world.files.update({path.replace("_", "."): text for path, text in files.items()})
    return show(world.world, name, words, origin)


def fields(told: Outcome) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in json.loads(told.outputs["result"])["fields"]}


@pytest.mark.parametrize(
    ("key", "value", "kind", "place", "by"),
    [
        ("nodes", 4, "profile", "profiles/cluster.yaml:2", "cluster"),
        ("account", "acc", "profile", "profiles/base.yaml:2", "base"),
        ("job_dir", "/lustre/ci", "profile", "profiles/base.yaml:5", "base"),
        ("container_image", "img:1", "profile", "profiles/cluster.yaml:5", "cluster"),
        ("env_vars.OWN", "1", "profile", "profiles/cluster.yaml:4", "cluster"),
        ("env_vars.BOTH", "profile", "profile", "profiles/base.yaml:6", "base"),
        ("time", "04:00:00", "default", "", ""),
        ("qos", None, "default", "", ""),
    ],
)
def test_where_a_profiles_values_come_from(key: str, value: object, kind: str, place: str, by: str) -> None:
    row = fields(shown())[key]
    assert (row["value"], row["from"], row["place"], row["by"]) == (value, kind, place, by)


def test_a_recipe_and_overrides_are_laid_over_it() -> None:
    rows = fields(shown("recipe=big", "run.time=10:00", "run.container=img:2", "run.env_vars.NEW=x", "lr=1"))
    assert (rows["nodes"]["value"], rows["nodes"]["from"], rows["nodes"]["place"]) == (16, "recipe", ".github/dispatch.yml:6")
    assert (rows["env_vars.FROM_RECIPE"]["from"], rows["env_vars.FROM_RECIPE"]["by"]) == ("recipe", "big")
    assert (rows["env_vars.BOTH"]["value"], rows["env_vars.BOTH"]["from"]) == ("profile", "profile")
    assert (rows["time"]["value"], rows["time"]["from"], rows["time"]["by"]) == ("10:00", "override", "run.time=10:00")
    assert (rows["container_image"]["value"], rows["container_image"]["from"]) == ("img:2", "override")
    assert rows["env_vars.NEW"]["from"] == "override"
    nodes = fields(shown("recipe=big", "run.nodes=2"))["nodes"]
    assert (nodes["value"], nodes["from"]) == (2, "override")


def test_variables_are_named_beside_their_values() -> None:
    rows = fields(shown())
    assert (rows["user"]["value"], rows["user"]["written"], rows["user"]["variables"]) == ("bob", "${oc.env:LOGIN,ci}", ["LOGIN"])
    assert (rows["mounts"]["value"], rows["mounts"]["variables"]) == (["/a:/x", "/b:/b"], ["PARTITION"])
    assert "→ profiles/base.yaml:4 (base) · written ${oc.env:LOGIN,ci}" in shown().summary


def test_no_secret_is_shown() -> None:
    told = shown("run.env_vars.OTHER_TOKEN=hidden-value", "run.env_vars.X=top-secret-value")
    for secret in ("abcdefgh", "ghp_0123", "ghp_abc3", "hidden-value", "top-secret-value"):
        assert secret not in told.summary + told.outputs["result"]
    rows = fields(told)
    assert [rows[f"env_vars.{name}"]["value"] for name in ("MY_API_KEY", "EMPTY_TOKEN", "PLAIN", "X")] == ["***", "", "***", "***"]


def test_for_people() -> None:
    plain, with_origin = shown(origin=False).summary, shown().summary
    assert "cluster: slurm, based on base (profiles/cluster.yaml, profiles/base.yaml)" in plain
    assert "profiles/cluster.yaml:2" not in plain
    assert "→ profiles/cluster.yaml:2 (cluster)" in with_origin
    assert "→ the default" in with_origin
    assert "Left out: " in plain


def test_inline_tables_keep_their_profile() -> None:
    text = '[a]\nexecutor = "local"\nenv_vars = { A = "1" }\n[b]\nextends = "a"\nidentity = "~/.ssh/id"\nenv_vars = { B = "2" }\n'
    told = shown(name="b", env_toml=text)
    rows = fields(told)
    assert [(rows[key]["place"], rows[key]["by"]) for key in ("env_vars.A", "env_vars.B")] == [("env.toml:3", "a"), ("env.toml:7", "b")]
    assert "env.toml:6: identity is not read" in told.summary
    assert json.loads(told.outputs["result"])["notes"][0]["key"] == "identity"


@pytest.mark.parametrize(
    ("name", "words", "exit", "expected"),
    [
        ("clutser", (), Exit.CONFIG, "Did you mean **`cluster`**?"),
        ("cluster", ("recipe=bgi",), Exit.MALFORMED, "there is no recipe `bgi`"),
        ("cluster", ("run.nods=1",), Exit.MALFORMED, "`run.nodes`"),
        ("cluster", ("profile=base",), Exit.MALFORMED, "recipe=…"),
        ("cluster", ("status",), Exit.MALFORMED, "recipe=…"),
        ("cluster", ("run.nodes=many",), Exit.MALFORMED, "whole number"),
    ],
)
def test_what_cannot_be_shown(name: str, words: tuple[str, ...], exit: Exit, expected: str) -> None:
    told = shown(*words, name=name)
    assert told.exit == exit
    assert expected in told.summary
