"""`.github/dispatch.yml` → the policy; who is admitted, which overrides pass, which names exist."""

import pytest

from dispatcher.applies import allows, hours_limits, image_rules, named, nodes_approvals, nodes_limits, override_refusal
from dispatcher.errors import ConfigError
from dispatcher.grammar import Override, Run
from dispatcher.policy import Policy, UnknownRecipe, load_policy
from dispatcher.recipe import Recipe
from dispatcher.rules import Allow, Overrides


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
  override: { allow: { roles: [admin] }, expires: 2h }
watch: { profiles: [cluster], lost_after: 1h30m }
images: nvcr.io/*
repositories: https://github.com/NVIDIA-NeMo/*
limits: { nodes: 8, time: 4h, gpu_hours: 256 }
most: { runs: 16, commands: 3 }
active: { user: 2, pull: 4, profile: 6 }
budget: { user: 100, pull: 50.5, profile: 500, month: 1000 }
approval: { nodes: 4, gpu_hours: 64, allow: { teams: org/leads } }
recipe_rules: { eval: { active: 1, budget: 10, approval: { nodes: 1 } } }
pulls: { superseded: cancel, closed: cancel, draft: cancel, labels: standing }
noise: { outsiders: comment }
ledger: large
reuse: { max_age: 1d, merge_queue: run }
retries: { infrastructure: 2, wait: 1m, exclude_node: true }
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
    assert (policy.limits.nodes, policy.limits.time, policy.limits.gpu_hours, policy.images) == (8, 14400, 256.0, ("nvcr.io/*",))
    assert policy.repositories == ("https://github.com/NVIDIA-NeMo/*",)
    assert (policy.most.runs, policy.most.commands, policy.active.user, policy.active.pull, policy.active.profile) == (16, 3, 2, 4, 6)
    assert (policy.budget.user, policy.budget.pull, policy.budget.profile, policy.budget.month) == (100, 50.5, 500, 1000)
    assert (policy.approval.nodes, policy.approval.gpu_hours, policy.approval.allow) == (4, 64, Allow(roles=(), teams=("org/leads",)))
    rule = policy.recipe_rules["eval"]
    assert (rule.active, rule.budget, rule.approval and rule.approval.nodes, rule.limits.nodes) == (1, 10, 1, None)
    assert policy.gate.override is not None
    assert (policy.gate.override.allow.roles, policy.gate.override.expires) == (("admin",), 7200)
    assert {policy.pulls.superseded, policy.pulls.closed, policy.pulls.draft} == {"cancel"}
    assert policy.ledger == "large"
    assert (policy.retries.infrastructure, policy.retries.wait, policy.retries.exclude_node) == (2, 60, True)
    assert (policy.reuse.runs, policy.reuse.max_age, policy.reuse.merge_queue) == (True, 86400, "run")
    assert (policy.pulls.labels, policy.noise.outsiders) == ("standing", "comment")
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
        ("recipes: {eval: {script: a}}\nrecipe_rules: {evla: {}}", ":2`: there is no recipe `evla`; did you mean `eval`?"),
        ("recipe_rules: {'a b': {}}", "is not a recipe's name"),
        ("limits: {nodes: 0}", "greater than or equal to 1"),
        ("limits: {time: 0}", "greater than or equal to 1"),
        ("limits: {time: soon}", "is not a duration"),
        ("limits: {gpu_hours: nan}", "`limits.gpu_hours` is not a number such as"),
        ("limits: {gpu_hours: -1}", "greater than or equal to 0"),
        ("limits: {hours: 1}", "`limits.hours` is not a key here"),
        ("budget: {month: true}", "is not a number"),
        ("active: {user: many}", "is not a whole number"),
        ("active: {user: true}", "is not a whole number"),
        ("approval: {gpuhours: 3}", "did you mean `gpu_hours`?"),
        ("most: {runs: 257}", "less than or equal to 256"),
        ("most: {commands: 0}", "greater than or equal to 1"),
        ("pulls: {closed: stop}", "'leave' or 'cancel'"),
        ("pulls: {labels: twice}", "'once' or 'standing'"),
        ("noise: {outsiders: nothing}", "'reaction' or 'comment'"),
        ("gate: {override: {expires: 10s}}", "greater than or equal to 60"),
        ("profiles: {a: {budget: {month: 1}}}", "`profiles.a.budget`"),
        ("profiles: {a: {limits: {node: 1}}}", "did you mean `nodes`?"),
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


RULES = load_policy("""\
allow: { roles: [write], deny: mallory }
overrides: { allow: [a, run.nodes], deny: [a.secret], values: { a: "[0-9]" } }
images: ["nvcr.io/*"]
limits: { nodes: 4, gpu_hours: 100 }
approval: { nodes: 2 }
recipes: { eval: { script: eval.py }, big: { script: big.py } }
profiles:
  large:
    allow: { teams: org/large, deny: eve }
    overrides: { allow: [b], deny: [b.path], values: { b: x } }
    limits: { nodes: 16 }
    images: ["*"]
  values: { overrides: { values: { a: "[0-4]", run.nodes: "1" } } }
recipe_rules:
  big: { allow: { users: alice }, overrides: { deny: [b.c] }, limits: { nodes: 8 }, approval: { nodes: 1 } }
""")


def where(rules: tuple[object, ...]) -> list[str]:
    return [rule.where for rule in rules]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("profiles", "recipe", "paths"),
    [
        (("",), "", ["allow"]),
        (("cluster",), "eval", ["allow"]),
        (("large",), "eval", ["profiles.large.allow"]),
        (("large", "large"), "eval", ["profiles.large.allow"]),
        (("cluster", "large"), "eval", ["profiles.large.allow"]),
        (("cluster",), "big", ["recipe_rules.big.allow"]),
        (("large",), "big", ["profiles.large.allow", "recipe_rules.big.allow"]),
    ],
)
def test_a_rule_of_its_own_replaces_the_general_one_and_profile_and_recipe_both_hold(
    profiles: tuple[str, ...], recipe: str, paths: list[str]
) -> None:
    assert where(allows(RULES, profiles, recipe)) == paths


def test_denials_add_up() -> None:
    [large] = allows(RULES, ("large",), "")
    assert (large.rule.roles, large.rule.teams, large.rule.deny) == ((), ("org/large",), ("mallory", "eve"))
    [general] = allows(RULES, ("cluster",), "")
    assert general.rule is RULES.allow


def test_numbers_and_images_that_are_given_replace_the_general_ones() -> None:
    def numbers(rules: tuple[object, ...]) -> list[tuple[str, object]]:
        return [(rule.where, rule.rule) for rule in rules]  # type: ignore[attr-defined]

    assert numbers(nodes_limits(RULES, ("cluster",), "eval")) == [("limits.nodes", 4)]
    assert numbers(nodes_limits(RULES, ("large",), "big")) == [("profiles.large.limits.nodes", 16), ("recipe_rules.big.limits.nodes", 8)]
    assert numbers(hours_limits(RULES, ("large",), "big")) == [("limits.gpu_hours", 100)]
    assert numbers(image_rules(RULES, ("large",), "eval")) == [("profiles.large.images", ("*",))]
    assert numbers(image_rules(RULES, ("cluster",), "big")) == [("images", ("nvcr.io/*",))]
    assert numbers(nodes_approvals(RULES, ("large",), "big")) == [("recipe_rules.big.approval.nodes", 1)]
    assert nodes_limits(Policy(), ("cluster",), "") == ()


@pytest.mark.parametrize(
    ("profiles", "recipe", "override", "refusal"),
    [
        (("cluster",), "eval", "a=1", None),
        (("cluster",), "eval", "a=x", "overrides.values: [0-9]"),
        (("cluster",), "eval", "b=x", "overrides.allow"),
        (("cluster",), "eval", "a.secret=1", "overrides.deny"),
        (("large",), "eval", "b=x", None),
        (("large",), "eval", "a=1", "profiles.large.overrides.allow"),
        (("large",), "eval", "b=y", "profiles.large.overrides.values: x"),
        (("large",), "eval", "b.path=x", "profiles.large.overrides.deny"),
        (("large",), "eval", "a.secret=1", "overrides.deny"),
        (("cluster",), "big", "a=1", None),
        (("cluster",), "big", "b.c=1", "recipe_rules.big.overrides.deny"),
        (("large",), "big", "b=x", "overrides.allow"),
        (("values",), "eval", "a=7", "profiles.values.overrides.values: [0-4]"),
        (("values",), "eval", "run.nodes=2", "profiles.values.overrides.values: 1"),
        (("values",), "eval", "c=2", "overrides.allow"),
    ],
)
def test_overrides_meet_every_rule_and_the_one_that_refuses_is_named(
    profiles: tuple[str, ...], recipe: str, override: str, refusal: str | None
) -> None:
    key, _, value = override.partition("=")
    assert override_refusal(Override(key, value), RULES, profiles, recipe) == refusal


def test_the_rules_by_name() -> None:
    assert where(named(RULES, ("values", "nothing", "large"), "big")) == ["profiles.values", "profiles.large", "recipe_rules.big"]


def test_an_unknown_recipe_names_the_nearest() -> None:
    found = load_policy(FULL).recipe("nano3/pretrian")
    assert isinstance(found, UnknownRecipe)
    assert (found.nearest, found.known) == ("nano3/pretrain", ("eval", "nano3/pretrain"))
