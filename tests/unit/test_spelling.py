"""Nemotron's env.toml as its guide and its generator write it: what is used, what has no effect and is said to, what is refused."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dispatcher.counterparts import ALIASES
from dispatcher.errors import ConfigError
from dispatcher.extends import names_in
from dispatcher.profile import ResolvedProfile, needed, resolve_profile, uninterpolated
from dispatcher.reading import load_document
from dispatcher.slurmprofile import SlurmProfile
from dispatcher.spelling import IGNORED_FIELDS

DATA = Path(__file__).parents[1] / "data/env-toml"
GUIDE = {"env.toml": (DATA / "guide.toml").read_text()}
STEPS = {"env.slurm.toml": (DATA / "steps.toml").read_text()}
VARIABLES = ("SLURM_HOST", "SLURM_ACCOUNT", "SLURM_PARTITION", "SLURM_CPU_PARTITION", "USER", "NEMO_RUN_DIR", "HF_HOME", "WANDB_ENTITY")
SECRETS = ("WANDB_API_KEY", "HF_TOKEN")
SLURM = 'executor = "slurm"\naccount = "a"\nhost = "h"\nuser = "u"\nremote_job_dir = "/x"\n'


def resolved(name: str, sources: dict[str, str], env: dict[str, str] | None = None) -> ResolvedProfile:
    found = resolve_profile(name, sources, VARIABLES, {"USER": "me", **(env or {})}, SECRETS)
    assert isinstance(found, ResolvedProfile), found
    return found


def refused(text: str, name: str = "c", code: str = "config.invalid") -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        resolve_profile(name, {"env.toml": text}, VARIABLES, {}, SECRETS)
    assert raised.value.code == code
    return raised.value


def test_the_guides_profiles_are_used_as_they_are() -> None:
    assert names_in(GUIDE) == ("local", "my-cluster", "pretrain", "pretrain-large", "data-prep", "rl")
    assert {name: resolved(name, GUIDE).profile.executor for name in names_in(GUIDE)}["local"] == "local"
    large = resolved("pretrain-large", GUIDE).profile
    assert isinstance(large, SlurmProfile)
    assert (large.nodes, large.seconds, large.gpu_count, large.mem, large.exclusive, large.dry_run) == (8, 28800, 64, "0", True, True)
    assert (large.attach, large.partition_for(attached=True), large.partition_for(attached=False)) == (False, "interactive", "backfill")
    assert large.environment == {"WANDB_PROJECT": "nemotron", "WANDB_ENTITY": "my-team"}
    assert (large.shell_lines, large.remote_job_dir) == (("source /opt/env.sh",), "/lustre/users/me/run")
    rl = resolved("rl", GUIDE).profile
    assert isinstance(rl, SlurmProfile)
    assert (rl.container_image, rl.container_mounts) == ("/lustre/users/me/nano3-rl.sqsh", ("/lustre:/lustre",))


def test_what_has_no_effect_is_said_with_its_place() -> None:
    notes = {note.key: (note.place.path, note.place.line, note.words) for note in resolved("rl", GUIDE).notes}
    assert list(notes) == ["identity", "build_partition", "build_time", "[artifacts]", "[cache]", "[cli]"]
    assert notes["identity"][:2] == ("env.toml", 36)
    assert "DISPATCH_SSH_KEY" in notes["identity"][2]
    assert notes["[cache]"][1] == 14
    assert resolved("p", {"profiles/p.yaml": "executor: local", **GUIDE}).notes == ()


def test_the_generators_profiles_are_used_as_they_are() -> None:
    found = resolved("slurm_prep_sft_packing", STEPS, {"SLURM_ACCOUNT": "acc"})
    profile = found.profile
    assert isinstance(profile, SlurmProfile)
    assert (profile.account, profile.partition, profile.address) == ("acc", "cpu", "me@login.example.com")
    assert (profile.remote_job_dir, profile.gpu_count, profile.cpus_per_task) == ("/lustre/me/nemo-run", 0, 4)
    assert profile.container_mounts == ("/lustre:/lustre",)
    assert profile.environment == {
        "WANDB_PROJECT": "nemotron",
        "WANDB_ENTITY": "nvidia",
        "HF_HOME": "/lustre/me/hf",
        "PYTHONPATH": "/nemo_run/code/src",
        "RAY_DEDUP_LOGS": "0",
        "RAY_RUNTIME_ENV_PYTHONPATH": "/nemo_run/code/src",
        "RAY_MAX_LIMIT_FROM_API_SERVER": "100000",
        "SFT_OUTPUT_DIR": "/lustre/me/output/data_prep/sft_packing",
    }
    secrets = [note for note in found.notes if note.key.startswith("env_vars.")]
    assert [(note.key, note.place.line) for note in secrets] == [("env_vars.HF_TOKEN", 31), ("env_vars.WANDB_API_KEY", 33)]
    for name in names_in(STEPS):
        assert resolved(name, STEPS)


def test_a_secret_that_the_policy_does_not_list_says_where_to_list_it() -> None:
    text = f"[c]\n{SLURM}[c.env_vars]\nNGC_API_KEY = \"${{oc.env:NGC_API_KEY,''}}\"\n"
    assert "secrets:" in refused(text, code="config.env-not-listed").next_step


@pytest.mark.parametrize("written", ["x${oc.env:HF_TOKEN}", "${oc.env:WANDB_API_KEY,''}", "${oc.env:HF_TOKEN,${oc.env:HF_HOME,x}}"])
def test_only_the_plain_question_for_a_secret_is_left_to_the_policy(written: str) -> None:
    refused(f'[c]\n{SLURM}[c.env_vars]\nHF_TOKEN = "{written}"\n', code="config.env-not-listed")


def test_another_file_name() -> None:
    assert needed("c", {}, "conf/env.slurm.toml") == ("profiles/c.yaml", "conf/env.slurm.toml")
    assert resolved("slurm_base", STEPS).where("nodes") == "env.slurm.toml:25"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run_command = 'python x'", "`env.toml:7`: `run_command` is no field of a profile: what runs is the recipe's"),
        ("launcher = 'torchrun'", "`launcher` is not read: the recipe says"),
        ("packager = 'pattern'", "the packager `pattern` needs an `include_pattern`"),
        ("packager = 'hybrid'", "the packager `hybrid` needs `sub_packagers`"),
        ("packager = 'zip'", "`packager` should be 'git', 'pattern', 'hybrid' or 'none'"),
        (
            "packager_include_patern = 'src/**/*.py'",
            "`packager_include_patern` is no option of the packager; did you mean `packager_include_pattern`?",
        ),
        ("packager_relative_path = 'src'", "`env.toml:7`: `relative_path` is no option of the packager `git`, but of `pattern`"),
        (
            "packager = { type = 'git' }\npackager_subpath = 'src'",
            "`env.toml:8`: `packager_subpath` and a table `packager` exclude each other",
        ),
        ("detach = 'yes'", "`detach` is `true` or `false`"),
        ("nods = 2", "`nods` is not a key here; did you mean `nodes`?"),
        ("node_group = 'x'", "`node_group` is not a key here"),
        ("mounts = ['${auto_mount:git+https://github.com/a/b}']", "only `${oc.env:NAME}`"),
    ],
)
def test_what_is_unknown_or_set_elsewhere(line: str, expected: str) -> None:
    assert expected in refused(f"[c]\n{SLURM}{line}\n").cause


def test_a_child_may_correct_what_its_parent_cannot_have() -> None:
    text = f"[base]\n{SLURM}packager = 'pattern'\n[c]\nextends = 'base'\npackager = 'git'\n"
    assert resolved("c", {"env.toml": text}).profile.packager.type == "git"


def test_empty_texts_of_env_toml_mean_nothing_was_given() -> None:
    text = (
        f"[base]\n{SLURM}lustre_mount = '/l:/l'\npartition = \"${{oc.env:SLURM_PARTITION,''}}\"\n[c]\nextends = 'base'\nlustre_mount = ''\n"
    )
    profile = resolved("c", {"env.toml": text + "[wandb]\nproject = 'p'\nentity = ''\n"}).profile
    assert isinstance(profile, SlurmProfile)
    assert (profile.container_mounts, profile.partition, profile.environment) == ((), None, {"WANDB_PROJECT": "p"})
    with pytest.raises(ConfigError, match="partition"):
        resolve_profile("p", {"profiles/p.yaml": "executor: slurm\naccount: a\ntunnel: local\njob_dir: /x\npartition: ''"}, (), {})


def test_a_variable_that_is_empty_leaves_a_field_out_in_files_too() -> None:
    text = "executor: slurm\naccount: a\ntunnel: local\njob_dir: /x\npartition: \"${oc.env:SLURM_PARTITION,''}\"\n"
    profile = resolved("p", {"profiles/p.yaml": text}).profile
    assert isinstance(profile, SlurmProfile)
    assert profile.partition is None


def test_wandb_reaches_what_extends_a_section_from_a_file() -> None:
    sources = {"profiles/p.yaml": "extends: base\nnodes: 3\n", "env.toml": f"[wandb]\nproject = 'p'\n[base]\n{SLURM}"}
    assert resolved("p", sources).profile.environment == {"WANDB_PROJECT": "p"}


def test_every_place_says_whose_it_is() -> None:
    places = resolved("rl", GUIDE).document
    assert [places.place((key,)).holder for key in ("container_image", "nodes", "account", "wandb")] == [
        "rl",
        "pretrain",
        "my-cluster",
        "[wandb]",
    ]


@pytest.mark.parametrize("sources", [GUIDE, STEPS], ids=["guide", "steps"])
def test_profiles_merge_as_nemotron_merges_them(sources: dict[str, str]) -> None:
    """Its loader lays a profile over what it extends with OmegaConf (`nemo_runspec/env.py`)."""
    [(path, text)] = sources.items()
    sections = load_document(text, path).value

    def merged(name: str) -> dict[str, Any]:
        own = {key: value for key, value in sections[name].items() if key != "extends"}
        parent = sections[name].get("extends")
        under = OmegaConf.create(merged(parent)) if parent else OmegaConf.create({})
        container = OmegaConf.to_container(OmegaConf.merge(under, OmegaConf.create(own)), resolve=False)
        return {str(key): value for key, value in dict(container).items()} if isinstance(container, dict) else {}

    for name in names_in(sources):
        expected = {ALIASES.get(key, key): value for key, value in merged(name).items() if key not in IGNORED_FIELDS and value != ""}
        if "detach" in expected:
            expected["attach"] = not expected.pop("detach")
        found = uninterpolated(name, sources)
        assert found is not None
        assert found.value == {**expected, "wandb": sections["wandb"]}
