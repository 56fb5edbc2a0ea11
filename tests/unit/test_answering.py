"""How much is said: a comment for whoever may give commands, a reaction for everybody else, and never a word too many."""

from __future__ import annotations

import pytest

from dispatcher.event import LabelEvent
from dispatcher.flow import handle
from dispatcher.world import Outcome
from tests.fakes import HEAD, POLICY, REPOSITORY, Fakes, comment_event

LOUD = POLICY + "noise: { outsiders: comment }\n"
TYPO = "/train profil=x"


def say(fakes: Fakes, body: str = "/train", author: str = "mallory") -> Outcome:
    return handle(comment_event(body, author), fakes.world)


def reactions(fakes: Fakes) -> list[str]:
    return [content for _, content in fakes.forge.reactions]


@pytest.mark.parametrize(
    ("body", "reaction"),
    [("/train", "-1"), (TYPO, "confused"), ("/train status", "-1"), ("/train help", "-1"), ("/train a=1\n/train b=1", "-1")],
)
@pytest.mark.parametrize("role", [None, "read", "triage"])
def test_an_outsider_gets_a_reaction_and_no_words(body: str, reaction: str, role: str | None) -> None:
    fakes = Fakes()
    if role:
        fakes.forge.roles["mallory"] = role
    ended = say(fakes, body)
    assert not fakes.trace.of("forge.create_comment", "forge.find_comment")
    assert set(reactions(fakes)) == {"eyes", reaction}
    assert ended.outputs["comment-url"] == ""
    # Whoever looks into the job finds the words.
    assert ended.summary


@pytest.mark.parametrize("body", ["/train", TYPO])
def test_where_the_policy_says_so_outsiders_get_words(body: str) -> None:
    fakes = Fakes(LOUD)
    say(fakes, body)
    assert len(fakes.forge.bodies) == 1


@pytest.mark.parametrize("body", [TYPO, "/train recipe=gone", "/train profile=gone"])
def test_who_may_give_commands_is_answered(body: str) -> None:
    fakes = Fakes()
    say(fakes, body, "alice")
    [answer] = fakes.forge.bodies
    assert "**Next:**" in answer
    assert len(reactions(fakes)) == 2


def test_who_stands_under_deny_is_an_outsider() -> None:
    fakes = Fakes(POLICY + "allow: { deny: alice }\n")
    say(fakes, author="alice")
    assert not fakes.forge.bodies
    assert reactions(fakes) == ["eyes", "-1"]


def test_a_member_of_a_team_that_may_is_no_outsider() -> None:
    fakes = Fakes(POLICY + "allow: { teams: [org/ml] }\n")
    fakes.forge.teams = {("org", "ml", "mallory")}
    say(fakes, TYPO)
    assert len(fakes.forge.bodies) == 1


@pytest.mark.parametrize("step", ["forge.role", "forge.team_member"])
def test_what_cannot_be_looked_up_is_one_more_silence(step: str) -> None:
    fakes = Fakes(POLICY + "allow: { roles: [write], teams: [org/ml] }\n")
    fakes.fail(step)
    ended = say(fakes, TYPO)
    assert ended.outputs["reason-code"] == "bad-key"
    assert not fakes.forge.bodies
    assert any("could not be looked up" in line for line in fakes.said)


def test_a_policy_that_is_not_there_is_told_to_whoever_asks() -> None:
    """That is broken, not refused; it is the same for everybody, and nobody could find out whether somebody may."""
    fakes = Fakes()
    del fakes.files[".github/dispatch.yml"]
    assert say(fakes).outputs["reason-code"] == "config.missing"
    assert len(fakes.forge.bodies) == 1


@pytest.mark.parametrize("body", ["hello", "I ran /train yesterday", "    /train", "> /train", "/trainer", ""])
def test_nothing_is_said_about_what_is_no_command(body: str) -> None:
    fakes = Fakes()
    assert say(fakes, body, "alice").outputs["decision"] == "ignored"
    assert not fakes.steps


def test_a_refused_label_has_words_because_only_who_has_rights_can_set_one() -> None:
    fakes = Fakes()
    fakes.forge.roles["tess"] = "triage"
    label = LabelEvent(REPOSITORY, 7, "train:cluster", HEAD, REPOSITORY, "main", "tess", "t1", False, "main", "pull_request_target")
    handle(label, fakes.world)
    assert len(fakes.forge.bodies) == 1


def test_a_name_in_an_answer_pings_nobody() -> None:
    fakes = Fakes(LOUD)
    say(fakes, author="mallory")
    say(fakes, '/train profile="@org"', "alice")
    for body in fakes.forge.bodies:
        assert "@org" not in body.replace("`@org`", "")
        assert "@mallory" not in body
