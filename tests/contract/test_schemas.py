"""The published JSON Schemas are what the code says, and say what the code does; the example profiles are both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dispatcher.clouds import DgxCloudProfile, KubeflowProfile, KubeRayProfile, LeptonProfile, SkypilotJobsProfile
from dispatcher.errors import ConfigError
from dispatcher.executor import LocalProfile
from dispatcher.policy import load_policy
from dispatcher.profile import ResolvedProfile, resolve_profile
from dispatcher.reading import load_document
from dispatcher.schema import main, rendered
from dispatcher.slurmprofile import SlurmProfile

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "profiles").glob("*.yaml"))
SOURCES = {f"profiles/{path.name}": path.read_text() for path in EXAMPLES} | {"env.toml": (ROOT / "profiles/env.toml").read_text()}


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((ROOT / "docs/schema" / name).read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


POLICY, PROFILE = validator("policy.schema.json"), validator("profile.schema.json")


@pytest.mark.parametrize("name", ["policy.schema.json", "profile.schema.json"])
def test_the_published_schema_is_current(name: str) -> None:
    assert (ROOT / "docs/schema" / name).read_text() == rendered()[name], "run `python -m dispatcher.schema`"


def test_the_command_writes_them(tmp_path: Path) -> None:
    assert main([str(tmp_path / "schema")]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "schema").iterdir()} == rendered()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_profiles_fit_the_schema(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=../docs/schema/profile.schema.json\n")
    assert not list(PROFILE.iter_errors(load_document(text, path.name).value))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("local", LocalProfile),
        ("skypilot", SkypilotJobsProfile),
        ("slurm", SlurmProfile),
        ("slurm-container", SlurmProfile),
        ("kubeflow", KubeflowProfile),
        ("kuberay", KubeRayProfile),
        ("dgxcloud", DgxCloudProfile),
        ("lepton", LeptonProfile),
        ("base", SlurmProfile),
        ("dgx", SlurmProfile),
        ("dgx-large", SlurmProfile),
    ],
)
def test_example_profiles_can_be_used(name: str, kind: type[object]) -> None:
    found = resolve_profile(name, SOURCES, ("CLUSTER_USER",), {})
    assert isinstance(found, ResolvedProfile)
    assert isinstance(found.profile, kind)


def test_every_example_is_in_the_table_above() -> None:
    assert {path.stem for path in EXAMPLES} == {
        "local",
        "slurm",
        "slurm-container",
        "kubeflow",
        "kuberay",
        "skypilot",
        "dgxcloud",
        "lepton",
    }
    sections = load_document(SOURCES["env.toml"], "env.toml").value
    assert set(sections) == {"wandb", "base", "dgx", "dgx-large"}


def test_the_container_example_inherits_and_adds() -> None:
    found = resolve_profile("slurm-container", SOURCES, (), {})
    assert isinstance(found, ResolvedProfile)
    assert isinstance(found.profile, SlurmProfile)
    assert (found.profile.account, found.profile.nodes) == ("my-account", 2)
    assert set(found.profile.env_vars) == {"PYTHONUNBUFFERED", "HF_HOME"}


POLICIES = [
    ("", True),
    ("recipes: {default: {script: train.py, launcher: torchrun}}", True),
    ("recipes: {a: {script: a.py}, p: {stages: {a: {}, b: {recipe: a, after: [a], when: afterany, profile: x, overrides: lr=1}}}}", True),
    ("recipes: {a: {script: a.py}, p: {stages: {a: {when: later}}}}", False),
    ("recipes: {a: {script: a.py}, p: {stages: {a: {}}, script: a.py}}", False),
    ("recipes: {a: {script: a.py}, p: {stages: {}}}", False),
    ("recipes: {default: {script: train.py, env_vars: {A: 1, B: true}, args: x}}", True),
    ("env: CLUSTER_USER\nwatch: {lost_after: 10m}", True),
    ("forks: sha\ndefault_profile: a\ngate: {required: [{profile: a, recipe: b, paths: 'src/**'}]}\nrecipes: {b: {module: x}}", True),
    ("recipies: {}", False),
    ("recipes: {default: {scrpt: train.py}}", False),
    ("recipes: {default: {script: ../train.py}}", False),
    ("recipes: {default: {script: a.py, nodes: 0}}", False),
    ("forks: yes", False),
    ("allow: {users: ['@bob']}", False),
    ("schedules: [{name: n}]", False),
    ("version: 2", False),
    ("limits: {nodes: 4, time: 4h, gpu_hours: 64}\nbudget: {month: 1.5, user: 100}\nactive: {user: 2}\nmost: {runs: 16}", True),
    ("images: 'nvcr.io/*'\napproval: {nodes: 4, allow: {teams: o/t}}\npulls: {closed: cancel}\nnoise: {outsiders: comment}", True),
    ("profiles: {a: {active: 2, budget: 10, limits: {nodes: 1}, images: x, approval: {gpu_hours: 2}}}\ngate: {override: {}}", True),
    ("budget: {month: true}", False),
    ("budget: {month: -1}", False),
    ("budget: {month: much}", False),
    ("active: {user: 0}", False),
    ("active: {user: 1.5}", False),
    ("limits: {hours: 1}", False),
    ("most: {runs: 1000}", False),
    ("profiles: {a: {budget: {month: 1}}}", False),
    ("pulls: {labels: twice}", False),
]

SLURM = "executor: slurm\naccount: a\nhost: h\nuser: u\nremote_job_dir: /x\n"
PROFILES = [
    (SLURM, True),
    (SLURM + "nodes: ${oc.env:N,2}\ntime: ${oc.env:T,90}\nexclusive: ${oc.env:E,true}", True),
    (SLURM + "env_vars: [A=1, {name: B, value: 2}]\nsetup_lines: |\n  a\n  b\nmounts: /a:/b\ncontainer: x", True),
    (SLURM + "qos: null\ndetach: true", True),
    ("executor: local", True),
    ("executor: local\nenv_vars: {A: 1}\ntime: 90", True),
    (SLURM + "gpu_per_node: 3", False),
    (SLURM + "identity: x", False),
    (SLURM + "container_image: a b", False),
    (SLURM + "nodes: many", False),
    (SLURM + "mounts: [a]", False),
    (SLURM + "wandb: {projct: x}", False),
    ("executor: local\naccount: a", False),
    ("executor: ray", False),
]


def accepted(load: Any) -> bool:
    try:
        load()
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(("text", "fine"), POLICIES)
def test_policies_schema_and_code_agree(text: str, fine: bool) -> None:
    assert accepted(lambda: load_policy(text)) is fine
    assert POLICY.is_valid(load_document(text, "a.yaml").value) is fine


@pytest.mark.parametrize(("text", "fine"), PROFILES)
def test_profiles_schema_and_code_agree(text: str, fine: bool) -> None:
    assert accepted(lambda: resolve_profile("p", {"profiles/p.yaml": text}, ("N", "T", "E"), {})) is fine
    assert PROFILE.is_valid(load_document(text, "a.yaml").value) is fine


def test_a_child_need_not_repeat_what_its_parent_says() -> None:
    assert PROFILE.is_valid({"extends": "slurm", "nodes": 4})


@pytest.mark.parametrize("checker", [POLICY, PROFILE], ids=["policy", "profile"])
def test_every_key_of_the_schema_is_explained_or_named_after_slurm(checker: Draft202012Validator) -> None:
    """Editors show the description; keys without one are those that Slurm, W&B or the recipe already explain by their name."""
    properties = checker.schema.get("properties") or checker.schema["$defs"]["slurm"]["properties"]
    assert sum("description" in json.dumps(value) for value in properties.values()) >= len(properties) // 2
