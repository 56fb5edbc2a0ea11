"""`.github/dispatch.yml` → the policy; who is admitted, which overrides pass, which names exist."""

import pytest

from dispatcher.errors import ConfigError
from dispatcher.grammar import Override, Run
from dispatcher.policy import Allow, Overrides, Policy, UnknownRecipe, load_policy
from dispatcher.recipe import Recipe


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_policy(text)
    assert raised.value.code == "config.invalid"
    return raised.value.cause


def test_an_empty_policy_has_careful_defaults() -> None:
    policy = load_policy("")
    assert policy == Policy()
    assert policy.forks == "off"
    assert policy.env == ()
    assert policy.secrets == ("WANDB_API_KEY", "HF_TOKEN")
    assert policy.allow.roles == ("admin", "maintain", "write")
    assert policy.watch.lost_after == 600
    assert isinstance(policy.recipe(None), UnknownRecipe)


FULL = """\
version: 1
default_profile: cluster
allow: { roles: [maintain], users: [alice], teams: [org/ml], deny: mallory }
forks: sha
env: [CLUSTER_USER]
secrets: [HF_TOKEN]
overrides:
  allow: ["train.*", run.nodes]
  deny: [train.secret]
  values: { run.nodes: "[1-8]" }
profiles:
  large:
    allow: { teams: org/large }
    overrides: { allow: ["*"] }
recipes:
  nano3/pretrain: { script: train.py, launcher: torchrun, args: [--lr, 1e-4] }
  eval: { module: pkg.eval }
default_recipe: nano3/pretrain
schedules:
  - { name: nightly, cron: "0 5 * * *", overrides: [train.iters=10] }
  - { name: weekly, cron: "0  5 * * 1", profile: large, recipe: eval, ref: release }
gate:
  required:
    - { profile: cluster, paths: ["src/**"], branches: [main] }
watch: { profiles: [cluster], lost_after: 1h30m }
"""


def test_every_key_is_read() -> None:
    policy = load_policy(FULL)
    assert policy.allow == Allow(roles=("maintain",), users=("alice",), teams=("org/ml",), deny=("mallory",))
    assert policy.recipes["nano3/pretrain"].args == ("--lr", "1e-4")
    assert policy.recipe(None) is policy.recipes["nano3/pretrain"]
    assert policy.recipe("eval") == Recipe(module="pkg.eval")
    assert policy.watch.lost_after == 5400
    assert policy.gate.required[0].paths == ("src/**",)
    assert [item.name for item in policy.scheduled("0 5 * * *")] == ["nightly"]
    assert [item.name for item in policy.scheduled("0 5 * * 1")] == ["weekly"]
    assert policy.schedules[0].run == Run(overrides=(Override("train.iters", "10"),))
    assert policy.schedules[1].run == Run(profile="large", recipe="eval", ref="release")
    assert set(Policy.model_fields) <= set(FULL.replace(":", " ").split()), "a key of the policy is not in this test"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recipies: {}", "dispatch.yml:1`: `recipies` is not a key here; did you mean `recipes`?"),
        (
            "recipes:\n  a:\n    script: a.py\n    laucher: none",
            "dispatch.yml:4`: `recipes.a.laucher` is not a key here; did you mean `launcher`?",
        ),
        ("recipes:\n  a: {script: a.py}\ndefault_recipe: b", "dispatch.yml:3`: there is no recipe `b`"),
        ("recipes:\n  train: {script: a.py}\ndefault_recipe: trian", "did you mean `train`?"),
        ("default_profile: p\ngate:\n  required:\n    - paths: [x]\n    - recipe: nope", "dispatch.yml:5`: there is no recipe `nope`"),
        ("gate:\n  required:\n    - recipe: a\nrecipes: {a: {script: a.py}}", "dispatch.yml:3`: no profile is named here"),
        ("default_profile: p\nschedules:\n  - {name: n, cron: '* * * * *'}", "dispatch.yml:3`: no recipe is named here"),
        ("default_profile: p\nrecipes: {a: {script: a.py}}\nschedules:\n  - {name: n, cron: x}\n  - {name: n, cron: y}", "twice"),
        ("allow: {users: ['@bob']}", "`allow.users.0` is not an account name"),
        ("allow: {teams: [ml]}", "is not a team, written `org/team`"),
        ("forks: on", "`forks` should be 'off' or 'sha'"),
        ("version: 2", "`version` should be 1"),
        ("env: [DISPATCH_SSH_KEY]", "never handed on"),
        ("env: [GITHUB_TOKEN]", "never handed on"),
        ("secrets: [ACTIONS_RUNTIME_TOKEN]", "never handed on"),
        ("secrets: [DISPATCH_SSH_PASSPHRASE]", "never handed on"),
        ("secrets: [LD_PRELOAD]", "never handed on"),
        ("env: [WANDB_API_KEY]", "sounds like a secret"),
        ("env: [A B]", "is not an environment variable's name"),
        ("env: [X]\nsecrets: [X]", "dispatch.yml:2`: `X` stands under both"),
        ("overrides: {values: {a: '['}}", "is not a regular expression"),
        ("schedules: [{name: n, cron: x, profile: p, overrides: ['a b']}]", "is not an override"),
        ("schedules: [{name: n, cron: x, profile: p, overrides: ['a=${x}']}]", "is not an override"),
        ("schedules: [{name: n, cron: x, ref: refs/pull/1/head}]", "is not the name of a branch or tag"),
        ("gate: {required: [{profile: p, paths: ['#x']}]}", "matches nothing"),
        ("gate: {required: [{profile: p, paths: ['!x']}]}", "matches nothing"),
        ("watch: {lost_after: soon}", "is not a duration"),
        ("watch: {lost_after: 1s}", "greater than or equal to 60"),
        ("profiles: {a: {alow: {}}}", "did you mean `allow`?"),
        ("profiles: {'a b': {}}", "is not a profile's name"),
        ("recipes: {'a b': {script: x}}", "is not a recipe's name"),
        ("recipes: [a]", "`recipes`"),
    ],
)
def test_what_is_wrong_is_named(text: str, expected: str) -> None:
    assert expected in refused(text)


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("{default: {script: a}, b: {script: b}}", "default"),
        ("{b: {script: b}}", "b"),
        ("{b: {script: b}, c: {script: c}}", None),
        ("{}", None),
    ],
)
def test_the_default_recipe(text: str, default: str | None) -> None:
    assert load_policy(f"recipes: {text}").default_recipe == default


@pytest.mark.parametrize(
    ("written", "roles"),
    [
        ("{}", ("admin", "maintain", "write")),
        ("{deny: [x]}", ("admin", "maintain", "write")),
        ("{users: [x]}", ()),
        ("{teams: [o/t]}", ()),
        ("{teams: [o/t], roles: [admin]}", ("admin",)),
        ("{roles: []}", ()),
    ],
)
def test_listing_people_leaves_out_everybody_else(written: str, roles: tuple[str, ...]) -> None:
    assert load_policy(f"allow: {written}").allow.roles == roles


@pytest.mark.parametrize(
    ("roles", "role", "admitted"),
    [
        (("write",), "write", True),
        (("write",), "maintain", True),
        (("write",), "admin", True),
        (("write",), "triage", False),
        (("write",), "read", False),
        (("write",), None, False),
        (("admin",), "maintain", False),
        (("read",), "triage", True),
        (("ml-ops",), "ml-ops", True),
        (("ml-ops",), "admin", False),
        (("write",), "ml-ops", False),
        ((), "admin", False),
    ],
)
def test_roles(roles: tuple[str, ...], role: str | None, admitted: bool) -> None:
    assert Allow(roles=roles).admits_role(role) is admitted


@pytest.mark.parametrize(
    ("rules", "key", "value", "refusal"),
    [
        ({}, "train.iters", "5", None),
        ({}, "run.nodes", "5", "overrides.allow"),
        ({"allow": ("*",)}, "run.nodes", "5", "overrides.allow"),
        ({"allow": ("run.*",)}, "run.nodes", "5", None),
        ({"allow": ("run.*",)}, "train.iters", "5", "overrides.allow"),
        ({"allow": ("run.n*",)}, "run.gpus", "5", "overrides.allow"),
        ({"allow": ("train.*",)}, "training", "5", "overrides.allow"),
        ({"allow": ("a.b",)}, "axb", "5", "overrides.allow"),
        ({"allow": ("a[0].*",)}, "a[0].b", "5", None),
        ({"deny": ("*.path",)}, "data.path", "/", "overrides.deny"),
        ({"allow": ("data.path",), "deny": ("data.*",)}, "data.path", "/", "overrides.deny"),
        ({"values": {"n": "[1-8]"}}, "n", "8", None),
        ({"values": {"n": "[1-8]"}}, "n", "80", "overrides.values: [1-8]"),
        ({"values": {"*": "[a-z]*"}}, "x.y", "A", "overrides.values: [a-z]*"),
        ({"allow": ()}, "a", "1", "overrides.allow"),
    ],
)
def test_overrides(rules: dict[str, object], key: str, value: str, refusal: str | None) -> None:
    assert Overrides.model_validate(rules).refusal(Override(key, value)) == refusal


def test_a_profiles_rules_replace_the_general_ones_and_denials_add_up() -> None:
    policy = load_policy(FULL)
    assert policy.allowed("cluster") is policy.allow
    large = policy.allowed("large")
    assert (large.roles, large.teams, large.users, large.deny) == ((), ("org/large",), (), ("mallory",))
    assert policy.allowed_overrides("cluster") is policy.overrides
    rules = policy.allowed_overrides("large")
    assert (rules.allow, rules.deny, dict(rules.values)) == (("*",), ("train.secret",), {"run.nodes": "[1-8]"})
    assert (policy.rule_name("large"), policy.rule_name("cluster")) == ("profiles.large.allow", "allow")


def test_a_profiles_values_add_to_the_general_allow() -> None:
    policy = load_policy("overrides: {allow: [a]}\nprofiles: {p: {overrides: {values: {a: '1'}}}}")
    assert policy.allowed_overrides("p") == Overrides(allow=("a",), values={"a": "1"})


def test_an_unknown_recipe_names_the_nearest() -> None:
    found = load_policy(FULL).recipe("nano3/pretrian")
    assert isinstance(found, UnknownRecipe)
    assert (found.nearest, found.known) == ("nano3/pretrain", ("eval", "nano3/pretrain"))
