"""`help`: what this very person may do here; generated from the table of verbs and the policy."""

from __future__ import annotations

import pytest

from dispatcher.authorise import Facts
from dispatcher.flow import handle
from dispatcher.grammar import Malformed
from dispatcher.helping import help_words
from dispatcher.policy import load_policy
from dispatcher.rights import named_teams
from dispatcher.verb_help import TOPICS, VERBS
from dispatcher.verbs import parse_line
from tests.fakes import POLICY, PROFILE, Fakes, comment_event
from tests.powerless import acting

RULES = POLICY + (
    "profiles: { large: { allow: { teams: [org/ml] }, limits: { nodes: 4, time: 1h } } }\n"
    "recipe_rules: { eval: { allow: { roles: admin } } }\n"
    "limits: { nodes: 2, gpu_hours: 64 }\n"
)
PROFILES = ("cluster", "large")


def words(topic: str = "", policy: str = RULES, **facts: object) -> str:
    known = Facts(**{"actor": "alice", "role": "write", **facts})  # type: ignore[arg-type]
    return help_words(topic, load_policy(policy), known, PROFILES, "/train", "comment:99").comment


def row(text: str, name: str) -> str:
    [found] = [line for line in text.splitlines() if line.startswith(f"| `{name}`")]
    return found


def test_every_verb_stands_in_the_table_and_every_topic_has_an_answer() -> None:
    text = words()
    for verb in VERBS.values():
        assert verb.does in text
    for topic in TOPICS:
        assert words(topic).startswith("### ")
    assert "For `alice`" in text


@pytest.mark.parametrize("verb", VERBS)
def test_examples_are_commands_that_can_be_given_as_they_stand(verb: str) -> None:
    text = words(verb)
    assert VERBS[verb].does in text
    for example in VERBS[verb].examples:
        assert f"`/train {example}`" in text.replace("``", "`")
        assert not isinstance(parse_line(" " + example), Malformed), example


def test_profiles_say_who_and_how_much() -> None:
    text = words("profiles")
    assert "yes (`allow.roles`)" in row(text, "cluster")
    assert "(default)" in row(text, "cluster")
    assert "2 nodes, 64 GPU-hours" in row(text, "cluster")
    assert "takes membership of `org/ml`" in row(text, "large")
    assert "4 nodes, 1h, 64 GPU-hours" in row(text, "large")
    assert "yes (`profiles.large.allow.teams`)" in row(words("profiles", teams=frozenset({"org/ml"})), "large")


def test_recipes_say_who() -> None:
    assert "| yes |" in row(words("recipes"), "default")
    assert "| no: " in row(words("recipes"), "eval")
    assert "| yes |" in row(words("recipes", role="admin"), "eval")


def test_only_what_can_be_used_is_offered() -> None:
    assert "**Profiles** `cluster` (default)\n" in words()
    assert "**Recipes** `default` (default)\n" in words()
    assert "**Recipes** `default` (default), `eval`\n" in words(role="admin")


@pytest.mark.parametrize(
    ("policy", "role", "mark"),
    [
        (POLICY, "admin", "*not here*"),
        (POLICY.replace("gate:\n", "gate:\n  override: {}\n"), "write", "*not you*"),
        (POLICY.replace("gate:\n", "gate:\n  override: {}\n"), "maintain", ""),
    ],
)
def test_exceptions_are_marked_where_there_are_none_or_not_for_you(policy: str, role: str, mark: str) -> None:
    [line] = [line for line in words(policy=policy, role=role).splitlines() if "override" in line and line.startswith("| ")]
    assert mark in line
    assert bool(mark) == ("*not" in line)
    assert ("You may." in words("override", policy, role=role)) == (not mark)


def test_where_there_is_nothing_yet_it_says_what_to_add() -> None:
    policy = load_policy("allow: {}\n")
    facts = Facts(actor="alice", role="write")
    assert "add `profiles/NAME.yaml`" in help_words("profiles", policy, facts, (), "/train", "t").comment
    assert "add `recipes:`" in help_words("recipes", policy, facts, (), "/train", "t").comment
    assert "**Profiles** none" in help_words("", policy, facts, (), "/train", "t").comment


def test_the_word_is_the_policys() -> None:
    assert "`/run plan" in help_words("", load_policy(POLICY), Facts("a", "write"), (), "/run", "t").comment


@pytest.mark.parametrize("topic", ["", "profiles", "recipes", *VERBS])
def test_nothing_in_it_acts(topic: str) -> None:
    answer = help_words(topic, load_policy(RULES), Facts("@org/x`<b>", "write"), ("cluster", "a`b"), "/train", "t")
    marker = [line for line in answer.comment.splitlines() if line.startswith("<!-- nemotron-dispatch ")]
    assert acting(answer.comment, marker, ("https://github.com/",)) == []


def test_teams_are_looked_up_once_and_only_for_who_asks() -> None:
    policy = RULES.replace("large: {", "cluster: { allow: { teams: [org/ml, org/infra], roles: write } }, large: {")
    assert set(named_teams(load_policy(policy))) == {"org/ml", "org/infra"}
    fakes = Fakes(policy, {"cluster": PROFILE, "large": PROFILE})
    fakes.forge.teams = {("org", "ml", "alice")}
    handle(comment_event("/train help profiles"), fakes.world)
    assert sorted(fakes.trace.of("forge.team_member")) == ["forge.team_member org/infra alice", "forge.team_member org/ml alice"]
    assert "yes (`profiles.large.allow.teams`)" in fakes.forge.bodies[0]
    assert not fakes.trace.of("connect")
