"""`stages:` of a recipe: what may stand there, in which order stages run, and which of them may turn out not to be needed."""

from __future__ import annotations

import pytest

from dispatcher.errors import ConfigError
from dispatcher.grammar import Override
from dispatcher.pipeline import Pipeline
from dispatcher.policy import load_policy

RECIPES = """\
default_profile: cluster
recipes:
  pretrain: { script: a.py }
  sft: { script: b.py }
  full:
"""


def pipeline(stages: str) -> Pipeline:
    return load_policy(f"{RECIPES}    stages: {stages}\n").pipelines["full"]


@pytest.mark.parametrize(
    ("stages", "order", "after", "spare"),
    [
        ("{ pretrain: {} }", ["pretrain"], [()], []),
        ("{ pretrain: {}, sft: {} }", ["pretrain", "sft"], [(), ("pretrain",)], []),
        ("{ sft: { after: pretrain }, pretrain: { after: [] } }", ["pretrain", "sft"], [(), ("pretrain",)], []),
        ("{ pretrain: {}, sft: { after: [] } }", ["pretrain", "sft"], [(), ()], []),
        (
            "{ pretrain: {}, again: { recipe: sft, when: afternotok }, more: { recipe: sft }, last: { recipe: sft, when: afterany } }",
            ["pretrain", "again", "more", "last"],
            [(), ("pretrain",), ("again",), ("more",)],
            ["again", "more"],
        ),
        (
            "{ d: { recipe: sft, after: [b, c] }, b: {recipe: sft, after: a}, c: {recipe: sft, after: a}, a: {recipe: sft, after: []}}",
            ["a", "b", "c", "d"],
            [(), ("a",), ("a",), ("b", "c")],
            [],
        ),
    ],
)
def test_order(stages: str, order: list[str], after: list[tuple[str, ...]], spare: list[str]) -> None:
    found = pipeline(stages)
    assert list(found.order) == order
    assert [found.after(name) for name in order] == after
    assert sorted(found.spare) == sorted(spare)
    assert found.program == " → ".join(order)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ("\n      pretrain: {}\n      sft: { after: pretrian }", "dispatch.yml:8`: there is no stage `pretrian`; did you mean `pretrain`?"),
        ("\n      pretrain: {}\n      sft: { after: sft }", "dispatch.yml:8`: the stage `sft` waits for itself"),
        ("\n      pretrain: { after: sft }\n      sft: {}", "dispatch.yml:7`: these stages wait for each other: `pretrain`, `sft`"),
        (
            "\n      a: { recipe: sft, after: [] }\n      b: {recipe: sft, after: [a, c]}\n      c: {recipe: sft}\n      d: {recipe: sft}",
            "dispatch.yml:8`: these stages wait for each other: `b`, `c`",
        ),
        ("\n      pretrain: { when: afterany }\n      sft: {}", "dispatch.yml:7`: the stage waits for nothing: leave `when` out"),
        ("\n      pretrain: {}\n      sft: { wehn: afterany }", "`recipes.full.stages.sft.wehn` is not a key here; did you mean `when`?"),
        ("\n      pretrain: {}\n      sft: { when: afterwards }", "'afterok', 'afterany', 'afternotok' or 'aftercorr'"),
        ("\n      pretrain: {}\n      sfd: {}", "dispatch.yml:8`: there is no recipe `sfd`; did you mean `sft`?"),
        ("\n      a: { recipe: sft }\n      b: { recipe: full }", "dispatch.yml:8`: `full` has stages itself"),
        ("\n      a-b: { recipe: sft }\n      A_b: { recipe: sft }", "dispatch.yml:8`: the names `a-b` and `A_b` are too much alike"),
        ("\n      a b: { recipe: sft }", "is not a stage's name"),
        ("\n      a: { recipe: sft, overrides: 'x' }", "key=value"),
        ("{}", "at least 1 item"),
        ("[pretrain, sft]", "`recipes.full.stages` should be a table of `key: value`"),
        ("{ " + ", ".join(f"s{number}: {{ recipe: sft }}" for number in range(33)) + " }", "at most 32 items"),
    ],
)
def test_what_cannot_be(stages: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline(stages)
    assert words in caught.value.cause


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("    stagse: { pretrain: {} }", "`recipes.full.stagse` is not a key here; did you mean `stages`?"),
        ("    stages: { pretrain: {} }\n    script: x.py", "dispatch.yml:7`: `recipes.full.script` is not a key here"),
        ("    stages: { pretrain: {} }\nrecipe_rules: { full: { limits: { nodes: 2 } } }", "`full` has stages: its own rules are `allow`"),
        ("    stages: { pretrain: {} }\nrecipe_rules: { full: { budget: 2 } }", "say this of the recipes of its stages"),
    ],
)
def test_around_it(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy(f"{RECIPES}{text}\n")
    assert words in caught.value.cause


def test_its_own_rules_are_who_may_and_with_what() -> None:
    rules = "recipe_rules: { full: { allow: { users: [carol] }, overrides: { allow: [lr] } } }"
    assert load_policy(f"{RECIPES}    stages: {{ pretrain: {{}} }}\n{rules}\n").pipelines


def test_a_commands_overrides_win_over_a_stages() -> None:
    stage = pipeline("{ pretrain: { overrides: [lr=1, steps=5] } }").stages["pretrain"]
    assert stage.asked((Override("lr", "3"), Override("x", "y"))) == (Override("steps", "5"), Override("lr", "3"), Override("x", "y"))
