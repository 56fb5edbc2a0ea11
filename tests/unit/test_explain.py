"""`policy check`: the explanation says what the decision says, names the rule and its line, and finds names that nothing has."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from dispatcher.answer import Voice
from dispatcher.authorise import REASONS, Denial, Facts, authorise
from dispatcher.checking import Supposed, check_command, check_files
from dispatcher.errors import ConfigError, Exit, InputError
from dispatcher.explain import Basis, explain
from dispatcher.policy import load_policy
from dispatcher.ports import PullRequest
from dispatcher.reading import load_document
from dispatcher.steps import place_of
from dispatcher.verbs import parse_line
from dispatcher.world import Outcome
from tests.fakes import HEAD, OTHER, PROFILE, REPOSITORY, Fakes, comment_event

POLICY = """\
default_profile: cluster
forks: sha
recipes:
  default: { script: train.py }
  eval: { script: eval.py }
overrides:
  allow: ["train.*", run.nodes, run.time, run.container_image, run.gpus_per_node]
images: ["nvcr.io/*"]
limits: { nodes: 4, time: 8h }
active: { user: 2 }
budget: { month: 100 }
approval: { nodes: 2 }
profiles:
  cluster:
    allow: { roles: [write], deny: [mallory] }
  base: { allow: { teams: [org/ml] } }
recipe_rules:
  eval: { allow: { roles: [maintain] } }
gate:
  override: {}
most: { runs: 4, commands: 2 }
"""
LOADED, DOCUMENT = load_policy(POLICY), load_document(POLICY, ".github/dispatch.yml")
PROFILES = {
    "cluster": PROFILE + "gpus_per_node: 8\n",
    "base": PROFILE,
    "small": "extends: base\n",
    "broken": "executor: slurm\nacount: x\n",
}


def fakes(policy: str = POLICY, forge: bool = False) -> Fakes:
    return Fakes(policy, PROFILES, forge=forge)


def check(body: str, policy: str = POLICY, **supposed: Any) -> Outcome:
    given = {"actor": "bob", "role": "write", **supposed}
    return check_command(fakes(policy).world, Supposed(**given), body)


def steps(told: Outcome, command: int = 0) -> dict[str, dict[str, Any]]:
    return {step["step"]: step for step in json.loads(told.outputs["result"])["commands"][command]["steps"]}


def test_every_step_of_a_run_that_may_run() -> None:
    told = check("/train train.iters=5 run.container_image=nvcr.io/x")
    assert told.exit == Exit.OK
    assert told.outputs["decision"] == told.outputs["reason-code"] == "allowed"
    assert told.summary.splitlines() == [
        "```text",
        "bob: role write; pull request 1, open (supposed)",
        "",
        "/train train.iters=5 run.container_image=nvcr.io/x",
        "  ✓ understood  a run",
        "  ✓ who         `bob` may",
        "                → profiles.cluster.allow.roles · .github/dispatch.yml:15",
        "  ✓ commit      the head",
        "  ✓ recipe      `default` runs `train.py`",
        "                → recipes.default · .github/dispatch.yml:4",
        "  ✓ overrides   `train.iters=5`, `run.container_image=nvcr.io/x`",
        "  ✓ profile     `cluster`: slurm",
        "                → profiles/cluster.yaml:1",
        "  ✓ limits      1 node × 8 GPUs × 4h = 32 GPU-hours",
        "  ✓ image       `nvcr.io/x`",
        "  – turn        the ledger says when it runs whether it starts, waits or is over a budget: `active.user` 2, `budget.month` 100",
        "                → active.user · .github/dispatch.yml:10",
        "  ✓ approval    nobody else has to agree",
        "allowed",
        "```",
    ]


@pytest.mark.parametrize(
    ("body", "supposed", "exit", "reason", "step", "rule", "line"),
    [
        ("/train", {"role": None}, Exit.DENIED, "not-a-collaborator", "who", "profiles.cluster.allow", 15),
        ("/train", {"role": "read"}, Exit.DENIED, "role-too-low", "who", "profiles.cluster.allow", 15),
        ("/train", {"actor": "Mallory"}, Exit.DENIED, "denied-user", "who", "profiles.cluster.allow", 15),
        ("/train recipe=eval", {}, Exit.DENIED, "role-too-low", "who", "recipe_rules.eval.allow", 18),
        ("/train", {"closed": True}, Exit.DENIED, "pull-closed", "commit", "", None),
        ("/train", {"fork": True}, Exit.DENIED, "fork-needs-sha", "commit", "forks", 2),
        (f"/train sha={OTHER}", {"fork": True, "head": HEAD}, Exit.DENIED, "sha-mismatch", "commit", "", None),
        ("/train recipe=evel", {"role": "admin"}, Exit.DENIED, "unknown-recipe", "recipe", "", None),
        ("/train data.x=1", {}, Exit.DENIED, "override-not-allowed", "overrides", "overrides.allow", 7),
        ("/train profile=clutser", {}, Exit.CONFIG, "unknown-profile", "profile", "", None),
        ("/train profile=broken", {}, Exit.CONFIG, "config.invalid", "profile", "", None),
        ("/train profile=base", {}, Exit.DENIED, "role-too-low", "who", "profiles.base.allow", 16),
        ("/train profile=small", {}, Exit.DENIED, "role-too-low", "profile", "profiles.base.allow", 16),
        ("/train run.nodes=many", {}, Exit.MALFORMED, "bad-value", "fields", "", None),
        ("/train run.nodes=5", {}, Exit.DENIED, "too-many-nodes", "limits", "limits.nodes", 9),
        ("/train run.time=9:00:00", {}, Exit.DENIED, "too-long", "limits", "limits.time", 9),
        ("/train run.container_image=docker.io/x", {}, Exit.DENIED, "image-not-allowed", "image", "images", 8),
        ("/train run.nodes=4 run.time=4:00:00", {}, Exit.DENIED, "budget-exceeded", "turn", "budget.month", 11),
        ("/train profle=x", {}, Exit.MALFORMED, "bad-key", "understood", "", None),
        ("/train run.nodes=1,2,3 train.x=1,2", {}, Exit.DENIED, "too-many-runs", "runs", "most.runs", 21),
        ("/train\n/train status\n/train help", {}, Exit.DENIED, "too-many-commands", "commands", "most.commands", 21),
        ("hello", {}, Exit.MALFORMED, "not-a-command", "understood", "", None),
        ('/train override dispatch/gate reason="it is broken"', {}, Exit.DENIED, "role-too-low", "gate", "gate.override.allow", 20),
        ('/train override dispatch/x reason="it is broken"', {}, Exit.DENIED, "unknown-gate", "gate", "", None),
        ("/train status", {"role": "read"}, Exit.DENIED, "role-too-low", "who", "allow", None),
        (f"/train approve sha={OTHER}", {"head": HEAD}, Exit.DENIED, "sha-mismatch", "commit", "", None),
        ("/train baseline accept", {}, Exit.DENIED, "role-too-low", "baseline", "gate.baseline", 19),
    ],
)
def test_refusals(body: str, supposed: dict[str, Any], exit: Exit, reason: str, step: str, rule: str, line: int | None) -> None:
    told = check(body, **supposed)
    assert (told.exit, told.outputs["reason-code"]) == (exit, reason)
    found = steps(told)[step]
    assert (found["passed"], found["reason"], found["rule"]) == (False, reason, rule)
    assert found["place"] == (f".github/dispatch.yml:{line}" if line else "")
    assert f"✗ {step}" in told.summary
    assert reason in told.summary.splitlines()[-2]


@pytest.mark.parametrize(
    ("body", "supposed", "words"),
    [
        (f"/train sha={HEAD}", {"fork": True, "head": HEAD}, "vouched for by naming it"),
        (f"/train sha={HEAD}", {"fork": True}, "vouched for by naming it"),
        ("/train profile=small", {"teams": ("org/ml",)}, "`small`: slurm, based on `base`"),
        ("/train plan", {}, "a preview, which submits nothing"),
        ("/train", {"draft": True}, "open, a draft"),
        ("/train run.nodes=3 run.time=1:00:00", {}, "allowed, once somebody else agrees"),
        ("/train help", {}, "it runs nothing by itself"),
        ("/train status", {"role": "read", "teams": ("org/ml",)}, "`bob` may"),
        ("/train cancel all", {}, "one's own runs may be ended"),
        ("/train retry", {}, "every run is decided again"),
        ("/train logs", {}, "allowed"),
        (f"/train approve sha={HEAD}", {"fork": True}, "what waits for this commit is known when it runs"),
        ('/train override dispatch/gate reason="it is broken"', {"role": "maintain"}, "`dispatch/gate` may be overridden, for 24h"),
    ],
)
def test_what_is_allowed(body: str, supposed: dict[str, Any], words: str) -> None:
    told = check(body, **supposed)
    assert told.exit == Exit.OK, told.summary
    assert words in told.summary


def test_what_a_script_may_say_for_itself_is_known_only_from_a_commit() -> None:
    told = check("/train", POLICY.replace("{ script: train.py }", "{ script: train.py, runspec: true }"))
    assert told.exit == Exit.OK
    found = steps(told)["script"]
    assert (found["passed"], found["rule"], found["place"]) == (None, "recipes.default.runspec", ".github/dispatch.yml:4")
    assert "`launch`, `resources`" in found["words"]
    assert "script" not in steps(check("/train"))


def test_several_commands_and_lists_are_explained_one_by_one() -> None:
    told = check("/train profile=cluster,small\n/train status")
    commands = json.loads(told.outputs["result"])["commands"]
    assert [item["command"] for item in commands] == ["/train profile=cluster", "/train profile=small", "/train status"]
    assert [item["verdict"] for item in commands] == ["allowed", "denied", "allowed"]
    assert (told.exit, told.outputs["decision"]) == (Exit.DENIED, "denied")


@pytest.mark.parametrize(
    ("words", "role", "teams", "fork", "closed"),
    list(
        product(
            [
                "",
                "recipe=eval",
                "recipe=no",
                "profile=base",
                "profile=base recipe=eval",
                f"sha={HEAD}",
                f"sha={OTHER}",
                "data.x=1 recipe=eval",
            ],
            [None, "read", "write", "admin"],
            [(), ("org/ml",)],
            [False, True],
            [False, True],
        )
    ),
)
def test_the_explanation_never_says_otherwise_than_the_decision(
    words: str, role: str | None, teams: tuple[str, ...], fork: bool, closed: bool
) -> None:
    """Where `authorise` says no, the first step that says no has the same reason, rule and words."""
    command: Any = parse_line(words)
    pull = PullRequest(
        7, "closed" if closed else "open", False, HEAD, "x", "fork/r" if fork else REPOSITORY, "main", OTHER, REPOSITORY, "bob"
    )
    facts = Facts("bob", role, frozenset(teams), pull)
    decision = authorise(command, comment_event(), facts, LOADED)
    [explained] = explain(command, Basis(comment_event(), facts, LOADED, DOCUMENT, {}, Voice()))
    refusal = explained.refusal
    if isinstance(decision, Denial):
        assert refusal is not None
        assert (refusal.reason, refusal.rule, refusal.exit) == (decision.reason, decision.rule, Exit.DENIED)
        assert refusal.words == f"{decision.words} {decision.next_step}"
        assert decision.reason in REASONS
    else:
        assert refusal is None


# --------------------------------------------------------------------------- GitHub is asked


def test_with_a_token_and_a_pull_request_github_is_asked() -> None:
    world = fakes(forge=True)
    told = check_command(world.world, Supposed("alice", number=7), "/train")
    assert told.exit == Exit.OK
    assert "alice: role write; pull request 7, open (as GitHub says)" in told.summary
    assert HEAD[:12] in told.summary
    world.forge.roles["alice"] = "read"
    assert check_command(world.world, Supposed("alice", number=7), "/train").exit == Exit.DENIED
    assert check_command(world.world, Supposed("alice", "admin", number=7), "/train").exit == Exit.OK, "a role that is given is supposed"
    assert not [step for step in world.steps if step.startswith(("create", "update", "react", "claim", "submit"))]


def test_the_teams_of_what_a_profile_extends_are_asked_too() -> None:
    world = fakes(forge=True)
    assert check_command(world.world, Supposed("alice", number=7), "/train profile=small").exit == Exit.DENIED
    world.forge.teams.add(("org", "ml", "alice"))
    told = check_command(world.world, Supposed("alice", number=7), "/train profile=small")
    assert told.exit == Exit.OK, told.summary
    assert "in org/ml" in told.summary


def test_a_pull_request_that_github_does_not_have() -> None:
    with pytest.raises(InputError) as raised:
        check_command(fakes(forge=True).world, Supposed("alice", number=8), "/train")
    assert raised.value.code == "input.missing"


# --------------------------------------------------------------------------- the files


def test_policy_and_profiles_that_can_be_used() -> None:
    told = check_files(Fakes("default_profile: cluster\n", {"cluster": PROFILE, "small": "extends: cluster\n"}).world)
    assert (told.exit, told.outputs["decision"], told.outputs["reason-code"]) == (Exit.OK, "checked", "healthy")
    assert told.summary.splitlines() == [
        "```text",
        "  ✓ policy      .github/dispatch.yml can be used",
        "  ✓ profile     `cluster`: slurm",
        "  ✓ profile     `small`: slurm, based on `cluster`",
        "0 problems, 0 warnings.",
        "```",
    ]


def test_a_rule_for_a_profile_that_does_not_exist_is_warned_of() -> None:
    policy = "profiles:\n  cluster: {}\n  clutser: { allow: { users: [alice] } }\n"
    told = check_files(Fakes(policy, {"cluster": PROFILE}).world)
    assert told.exit == Exit.OK
    words = "`profiles.clutser` protects nothing: there is no profile `clutser`. Did you mean `cluster`?"
    assert f"  ! rule        {words}  → .github/dispatch.yml:3" in told.summary.splitlines()
    assert "0 problems, 1 warning." in told.summary


@pytest.mark.parametrize(
    ("types", "warned"),
    [("opened, labeled, unlabeled", False), ("opened, unlabeled", True), ("labeled", True), (None, True)],
)
def test_a_rule_with_labels_of_which_no_workflow_hears_is_warned_of(types: str | None, warned: bool) -> None:
    """A label that is put on after the gate is green would ask for a run, and nobody would look."""
    policy = "default_profile: cluster\nrecipes: { default: { script: a } }\ngate: { required: [{ recipe: default }, { labels: slow }] }\n"
    fakes = Fakes(policy, {"cluster": PROFILE})
    if types is not None:
        fakes.files[".github/workflows/gate.yml"] = f"on: {{ pull_request_target: {{ types: [{types}] }} }}\n"
    told = check_files(fakes.world)
    assert told.exit == Exit.OK
    assert ("so a new label leaves the gate as it was  → .github/dispatch.yml:3" in told.summary) is warned
    assert ("0 problems, 1 warning." in told.summary) is warned


def test_a_profile_that_is_relied_on_and_does_not_exist_is_a_problem() -> None:
    policy = (
        "default_profile: a1\nrecipes: {default: {script: a}}\nwatch: {profiles: [a2]}\nschedules: [{name: n, cron: x, profile: a3}]\n"
        "gate: {required: [{profile: a4}]}\n"
    )
    told = check_files(Fakes(policy, {"cluster": PROFILE}).world)
    assert told.exit == Exit.CONFIG
    found = [(step["rule"], step["place"]) for step in json.loads(told.outputs["result"])["steps"] if step["passed"] is False]
    assert found == [
        ("default_profile", ".github/dispatch.yml:1"),
        ("watch.profiles.0", ".github/dispatch.yml:3"),
        ("schedules.0.profile", ".github/dispatch.yml:4"),
        ("gate.required.0.profile", ".github/dispatch.yml:5"),
    ]


def test_a_profile_that_cannot_be_used_is_a_problem_and_a_variable_of_the_runner_only_a_warning() -> None:
    profiles = {"bad": "executor: slrum\n", "far": PROFILE.replace("user: ci", "user: ${oc.env:CLUSTER_USER}")}
    told = check_files(Fakes("env: [CLUSTER_USER]", profiles).world)
    assert told.exit == Exit.CONFIG
    found = {step["words"].split("`")[1]: step["passed"] for step in json.loads(told.outputs["result"])["steps"][1:]}
    assert found == {"bad": False, "far": None}
    assert "profiles/bad.yaml:1" in told.summary


def test_a_policy_that_cannot_be_used_is_an_error_with_its_line() -> None:
    with pytest.raises(ConfigError) as raised:
        check_files(Fakes("alow: {}", {}).world)
    assert "did you mean `allow`?" in raised.value.cause


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        ("profiles.a.b.allow.roles", "p:3"),
        ("profiles.a.limits.nodes", "p:4"),
        ("profiles.c.allow", "p:1"),
        ("most.runs", ""),
        ("", ""),
    ],
)
def test_where_a_rule_stands(rule: str, place: str) -> None:
    document = load_document("profiles:\n  a.b:\n    allow: { users: [x] }\n  a: { limits: {} }\n", "p")
    assert place_of(document, rule) == place
