"""env.toml ⇄ profiles/*.yaml: the same profiles, the same comments, and a word about what has no place in the other form."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.comments import comments_of
from dispatcher.conversion import to_toml, to_yaml, unlike
from dispatcher.errors import ConfigError
from dispatcher.profile import ResolvedProfile, resolve_profile
from dispatcher.reading import load_document

DATA = Path(__file__).parents[1] / "data/env-toml"
FILES = [*sorted(DATA.glob("*.toml")), Path(__file__).parents[2] / "profiles/env.toml"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nemotrons_files_there_and_back(file: Path) -> None:
    before = {"env.toml": file.read_text()}
    files = to_yaml(before["env.toml"], "env.toml")
    assert unlike(files.names, before, files.texts) == ()
    back = to_toml(files.texts, "env.toml")
    assert unlike(files.names, before, back.texts) == ()
    assert sorted(back.names) == sorted(files.names)
    again = to_yaml(back.texts["env.toml"], "env.toml")
    assert unlike(files.names, files.texts, again.texts) == ()


def test_what_is_resolved_is_the_same_also_with_variables() -> None:
    before = {"env.toml": (DATA / "steps.toml").read_text()}
    files = to_yaml(before["env.toml"], "env.toml")
    env = {"USER": "me", "SLURM_PARTITION": "p"}
    names = ("USER", "SLURM_HOST", "SLURM_ACCOUNT", "SLURM_PARTITION", "SLURM_CPU_PARTITION", "NEMO_RUN_DIR", "HF_HOME", "WANDB_ENTITY")
    for name in files.names:
        both = [resolve_profile(name, sources, names, env, ("HF_TOKEN", "WANDB_API_KEY")) for sources in (before, files.texts)]
        assert [found.profile for found in both if isinstance(found, ResolvedProfile)][0:2] == [getattr(both[0], "profile", None)] * 2


# --------------------------------------------------------------------------- any values

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], include_characters="\n\t"), min_size=1, max_size=20)
AWKWARD = st.sampled_from(
    ["on", "no", "~", "null", "1e-4", "04:00:00", "0010", "# x", "a # b", "'", '"', "\\${A}", "a: b", "- a", " a ", "a\n", "\n", "x\n  y\n"]
)
TEXT = st.one_of(TEXTS, AWKWARD)
PLAIN = st.one_of(TEXT, st.integers(-(10**17), 10**17), st.booleans(), st.none())
TABLE = st.dictionaries(st.one_of(st.sampled_from(["A", "b.c", "on", "x y"]), TEXT), st.one_of(TEXT, st.integers(0, 9)), max_size=3)
ITEM = st.one_of(TEXT, st.integers(0, 9), st.booleans(), st.lists(TEXT, max_size=2), st.dictionaries(TEXT, TEXT, max_size=2))
PROFILE = st.fixed_dictionaries(
    {},
    optional={
        "executor": st.just("slurm"),
        "account": PLAIN,
        "nodes": PLAIN,
        "setup_lines": TEXT,
        "mounts": st.one_of(st.none(), st.lists(ITEM, max_size=3)),
        "env_vars": st.one_of(st.none(), TABLE),
        "wandb": st.one_of(st.none(), st.dictionaries(st.sampled_from(["project", "name"]), st.one_of(TEXT, st.none()), max_size=2)),
        "detach": st.booleans(),
        "container": TEXT,
        "odd key": PLAIN,
    },
)
PROFILES = st.tuples(PROFILE, PROFILE, PROFILE).map(
    lambda found: {"base": found[0], "middle": {"extends": "base", **found[1]}, "top.2": {**found[2], "extends": "middle"}}
)


@given(PROFILES)
@settings(deadline=None)
def test_any_files_to_env_toml_and_back(profiles: dict[str, object]) -> None:
    before = {f"profiles/{name}.yaml": yaml.safe_dump(table, allow_unicode=True, sort_keys=False) for name, table in profiles.items()}
    toml = to_toml(before, "env.toml")
    assert unlike(toml.names, before, toml.texts) == ()
    back = to_yaml(toml.texts["env.toml"], "env.toml")
    assert unlike(toml.names, before, back.texts) == ()
    assert set(back.texts) == set(before)


# --------------------------------------------------------------------------- comments

YAML = """\
# About all of it.
# And more.

executor: local  # here
# before the table
env_vars:  # the table
  A: '# no comment'  # about A
  # about B
  B: "x # y"
startup_commands:
  # the first
  - echo a  # not quoted
  - 'echo # b'
setup_lines: |  # a block
  # the shell's own
  echo
time: 10:00
# at the end
"""
TOML = """\
# About all of it.

[wandb]
project = "p"  # the project

# About a.
[a]  # the section
executor = "local"  # here
startup_commands = [
  # the first
  "echo # a",  # not quoted
]
setup_lines = '''
# the shell's own
echo'''
# the last
time = "10:00"

[a.env_vars]  # the table
A = "# no comment"
# at the end
"""


def words(text: str, path: str) -> list[str]:
    """Every comment, in no order."""
    found = comments_of(text, load_document(text, path))
    return sorted([line for lines in found.before.values() for line in lines] + [*found.behind.values(), *found.end])


def test_comments_of_yaml_survive() -> None:
    assert len(words(YAML, "profiles/a.yaml")) == 11
    toml = to_toml({"profiles/a.yaml": YAML}, "env.toml").texts["env.toml"]
    assert words(toml, "env.toml") == words(YAML, "profiles/a.yaml")
    back = to_yaml(toml, "env.toml").texts["profiles/a.yaml"]
    assert words(back, "profiles/a.yaml") == words(YAML, "profiles/a.yaml")
    assert 'executor = "local" # here' in toml
    assert "# about B\nB = " in toml
    assert "  # about B\n  B: " in back


@pytest.mark.parametrize(
    "text", ["a: 1\r\n# x\r\nb: 2  # y\r\n", "# x\na: {b: 1}  # y", "a:\n- 'b # no'  # x\n-  c\n# y\n", "a: >-  # x\n  # no\nb: 1 # y"]
)
def test_comments_in_odd_places(text: str) -> None:
    assert words(text, "profiles/a.yaml") == ["x", "y"]


def test_comments_of_toml_survive() -> None:
    assert len(words(TOML, "env.toml")) == 10
    text = to_yaml(TOML, "env.toml").texts["profiles/a.yaml"]
    assert words(text, "profiles/a.yaml") == words(TOML, "env.toml")
    assert text.startswith("# About all of it.\n# About a.\n# the section\n\nexecutor: local  # here\n")
    assert "# the first\n# not quoted\nstartup_commands: ['echo # a']\n" in text


# --------------------------------------------------------------------------- what one form has and the other has not


def test_null_and_empty_texts_mean_the_same() -> None:
    before = {
        "profiles/a.yaml": "executor: local\nlog_url: https://x/\nenv_vars: {A: 1}\n",
        "profiles/b.yaml": "extends: a\nlog_url: null\nenv_vars:\n",
    }
    toml = to_toml(before, "env.toml")
    assert 'log_url = ""' in toml.texts["env.toml"]
    assert unlike(("a", "b"), before, toml.texts) == ()
    assert "log_url: null" in to_yaml(toml.texts["env.toml"], "env.toml").texts["profiles/b.yaml"]


def test_wandb_goes_to_every_root_and_its_children_keep_their_own() -> None:
    shared, first = "[wandb]\nproject = 'p'\nentity = 'e'\n", "[a]\nexecutor = 'local'\n[a.wandb]\nentity = ''\n"
    text = shared + first + "[b]\nextends = 'a'\n[b.wandb]\nentity = 'f'\n[c]\nexecutor = 'local'\n"
    files = to_yaml(text, "env.toml")
    assert unlike(files.names, {"env.toml": text}, files.texts) == ()
    assert load_document(files.texts["profiles/a.yaml"], "x").value["wandb"] == {"project": "p", "entity": None}
    assert "project" not in files.texts["profiles/b.yaml"]
    assert load_document(files.texts["profiles/c.yaml"], "x").value["wandb"] == {"project": "p", "entity": "e"}


def test_what_is_left_out_is_said() -> None:
    files = to_yaml((DATA / "guide.toml").read_text(), "env.toml")
    assert [note.key for note in files.left_out] == [
        "[artifacts]",
        "[cache]",
        "[cli]",
        "my-cluster.identity",
        "my-cluster.build_partition",
        "my-cluster.build_time",
    ]
    assert not any("identity" in text or "build_" in text for text in files.texts.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[wandb]\nproject = 'p'\n[a]\nextends = 'elsewhere'\n", "`env.toml:4`: `[wandb]` lies under everything"),
        ("['a b']\nexecutor = 'local'\n", "`a b` cannot be a profile's name"),
    ],
)
def test_what_has_no_place_in_files(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        to_yaml(text, "env.toml")
    assert expected in raised.value.cause


def test_a_reserved_name_has_no_place_in_env_toml() -> None:
    with pytest.raises(ConfigError, match="means something else"):
        to_toml({"profiles/cache.yaml": "executor: local"}, "env.toml")


def test_a_difference_is_noticed() -> None:
    assert unlike(("a",), {"profiles/a.yaml": "executor: local"}, {"profiles/a.yaml": "executor: local\ntime: 1"}) == ("a",)
    assert unlike(("a",), {"profiles/a.yaml": "executor: local"}, {"profiles/a.yaml": "extends: b"}) == ("a",)
