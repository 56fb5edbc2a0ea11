"""What waits for somebody: asked for by whom, approved by whom, for which commit, and started once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from dispatcher.approval import APPROVAL_NAME, WAITING_LIMIT, Request, request_check, waiting
from dispatcher.configuration import read_policy
from dispatcher.event import CheckEvent
from dispatcher.flow import handle
from dispatcher.ports import Check
from dispatcher.record import RunRecord, parse_record
from dispatcher.slurm import State
from dispatcher.watching import watch
from dispatcher.world import Outcome
from tests.fakes import HEAD, NOON, OTHER, POLICY, PROFILE, REPOSITORY, Fakes, comment_event

ABOVE_ONE_NODE = POLICY + "approval: { nodes: 1 }\n"
TWO_NODES = {"cluster": PROFILE + "nodes: 2\n"}
APPROVE = f"/train approve sha={HEAD}"


def of_fork(policy: str = POLICY, **settings: object) -> Fakes:
    """bob's fork; alice and carol may write, mallory has no rights."""
    fakes = Fakes(policy, TWO_NODES, **settings)  # type: ignore[arg-type]
    fakes.forge.roles.update({"carol": "write", "dave": "write", "rob": "read"})
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], head_repository="bob/repo")
    return fakes


def above(policy: str = ABOVE_ONE_NODE) -> Fakes:
    """A pull request of this repository, and a threshold that every run is above."""
    fakes = of_fork(policy)
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], head_repository=REPOSITORY)
    return fakes


def told(ended: Outcome) -> tuple[str, str]:
    return ended.outputs["decision"], ended.outputs["reason-code"]


def ask(fakes: Fakes, body: str = "/train a=1", author: str = "bob", comment: int = 50) -> tuple[str, str]:
    return told(handle(comment_event(body, author, comment_id=comment), fakes.world))


def approve(fakes: Fakes, author: str = "alice", body: str = APPROVE, comment: int = 60) -> tuple[str, str]:
    """An hour and a half after it was asked for."""
    fakes.clock.time = NOON + timedelta(minutes=90)
    return told(handle(comment_event(body, author, comment_id=comment, created_at="2024-05-06T15:30:00Z"), fakes.world))


def push(fakes: Fakes) -> None:
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], head_sha=OTHER)


def only_record(fakes: Fakes) -> RunRecord:
    [run] = fakes.cluster.runs.values()
    return parse_record(run.record)


def requests(fakes: Fakes) -> list[Check]:
    return [check for check in fakes.forge.checks.values() if check.name == APPROVAL_NAME]


# --------------------------------------------------------------------------- a fork's commit


def test_the_forks_author_asks_a_maintainer_approves_and_it_runs_where_it_was_asked_for() -> None:
    fakes = of_fork()
    assert ask(fakes) == ("waiting", "waits-fork")
    assert not fakes.trace.of("connect", "cluster")
    [check] = requests(fakes)
    assert (check.sha, check.conclusion, [button.identifier for button in check.buttons]) == (HEAD, "action_required", ["approve"])
    [waits] = fakes.forge.bodies
    assert APPROVE in waits
    assert approve(fakes) == ("run", "approved")
    record = only_record(fakes)
    assert (record.trigger, record.actor, record.approved_by, record.overrides) == ("comment:50", "bob", "alice", ("a=1",))
    assert record.target.command_comment == 50
    # One comment: the one that said that it waits says now that it runs.
    [body] = fakes.forge.bodies
    assert "job 100 is waiting for 2 nodes" in body
    [check] = requests(fakes)
    assert (check.conclusion, check.title, check.buttons) == ("neutral", "approved by alice", ())
    assert [item for item in fakes.forge.reactions if item[0] == 60] == [(60, "eyes"), (60, "+1")]


def test_its_end_is_a_reaction_on_what_was_asked() -> None:
    fakes = of_fork()
    ask(fakes)
    approve(fakes)
    fakes.cluster.scheduler["100"] = "COMPLETED"
    watch(fakes.world, read_policy(fakes.world))
    assert (50, "rocket") in fakes.forge.reactions
    assert (60, "rocket") not in fakes.forge.reactions


@pytest.mark.parametrize("body", [APPROVE, f"/train approve sha={OTHER}"])
def test_after_a_push_the_old_approval_is_worth_nothing(body: str) -> None:
    fakes = of_fork()
    ask(fakes)
    push(fakes)
    expected = ("denied", "sha-mismatch") if body == APPROVE else ("refused", "nothing-waits")
    assert approve(fakes, body=body) == expected
    assert not fakes.cluster.runs


def test_a_push_while_it_is_being_approved() -> None:
    fakes = of_fork()
    ask(fakes)
    fakes.trace.at["compiler.compile"] = lambda: push(fakes)
    approve(fakes)
    assert not fakes.cluster.runs
    assert not fakes.trace.of("cluster.submit")
    assert "head-moved" in fakes.forge.bodies[0]


def test_approved_twice_is_one_job() -> None:
    fakes = of_fork()
    ask(fakes)
    approve(fakes)
    assert approve(fakes, "carol", comment=61) == ("refused", "nothing-waits")
    assert approve(fakes) == ("refused", "nothing-waits")
    assert len(fakes.cluster.runs) == 1


@pytest.mark.parametrize("step", ["cluster.claim", "compiler.compile", "cluster.submit", "forge.update_check"])
def test_two_who_approve_at_once_start_one_job(step: str) -> None:
    """Both see that it waits; the second meets the first's lock, or its job."""
    fakes = of_fork()
    ask(fakes)

    def second() -> None:
        claims = dict(fakes.cluster.claims)
        fakes.cluster.busy = bool(claims)
        ended = handle(comment_event(APPROVE, "carol", comment_id=61), fakes.world)
        assert ended.outputs["decision"] in ("run", "duplicate"), ended
        # Another process's connection gives back no claim but its own when it ends.
        fakes.cluster.claims.update(claims)
        fakes.cluster.busy = False

    fakes.trace.at[step] = second
    assert approve(fakes)[0] in ("run", "duplicate")
    assert len(fakes.cluster.runs) == 1
    assert fakes.steps.count("cluster.submit") == 1
    assert len([body for body in fakes.forge.bodies if "job 100" in body]) == 1


@pytest.mark.parametrize(
    ("author", "reason"),
    [("rob", "role-too-low"), ("mallory", "not-a-collaborator"), ("bob", "not-a-collaborator")],
)
def test_who_has_no_right_vouches_for_nothing(author: str, reason: str) -> None:
    fakes = of_fork()
    ask(fakes)
    assert approve(fakes, author) == ("denied", reason)
    assert not fakes.cluster.runs
    assert requests(fakes)[0].conclusion == "action_required"


def test_who_may_not_use_the_profile_cannot_approve_it() -> None:
    fakes = of_fork(POLICY + "profiles: { cluster: { allow: { teams: [org/ml] } } }\n")
    fakes.forge.teams = {("org", "ml", "carol")}
    assert ask(fakes) == ("waiting", "waits-fork")
    assert approve(fakes) == ("denied", "role-too-low")
    assert approve(fakes, "carol", comment=61) == ("run", "approved")


def test_an_approver_may_have_the_right_by_a_rule_that_only_approvers_have() -> None:
    fakes = above(POLICY + "approval: { nodes: 1, allow: { teams: [org/leads] } }\n")
    fakes.forge.teams = {("org", "leads", "carol")}
    assert ask(fakes, author="alice") == ("waiting", "waits-second")
    assert approve(fakes, "dave") == ("denied", "role-too-low")
    assert approve(fakes, "carol", comment=61) == ("run", "approved")


@pytest.mark.parametrize(
    ("body", "author", "decided"),
    [
        ("/train a=1", "bob", ("waiting", "waits-fork")),
        ("/train a=1", "alice", ("waiting", "waits-fork")),
        (f"/train a=1 sha={HEAD}", "bob", ("waiting", "waits-fork")),
        (f"/train a=1 sha={HEAD}", "alice", ("run", "submitted")),
        (f"/train a=1 sha={OTHER}", "bob", ("denied", "not-a-collaborator")),
        ("/train plan a=1", "bob", ("denied", "not-a-collaborator")),
        ("/train plan a=1", "alice", ("denied", "fork-needs-sha")),
        ("/train a=1", "mallory", ("denied", "not-a-collaborator")),
        ("/train a=1", "rob", ("denied", "role-too-low")),
        ("/train recipe=gone", "bob", ("waiting", "waits-fork")),
    ],
)
def test_who_may_ask_for_a_forks_commit(body: str, author: str, decided: tuple[str, str]) -> None:
    fakes = of_fork()
    assert ask(fakes, body, author) == decided
    assert len(requests(fakes)) == (decided[0] == "waiting")


def test_forks_that_are_off_wait_for_nothing() -> None:
    fakes = of_fork(POLICY.replace("forks: sha", "forks: off"))
    assert ask(fakes) == ("denied", "not-a-collaborator")
    assert ask(fakes, author="alice") == ("denied", "fork-off")
    assert not requests(fakes)


def test_a_stranger_has_one_request_for_a_commit_and_the_page_has_five() -> None:
    fakes = of_fork()
    assert ask(fakes) == ("waiting", "waits-fork")
    assert ask(fakes, "/train a=2", comment=51) == ("denied", "not-a-collaborator")
    for number in range(1, WAITING_LIMIT):
        assert ask(fakes, author="alice", comment=51 + number) == ("waiting", "waits-fork")
    assert ask(fakes, author="alice", comment=59) == ("denied", "too-many-waiting")
    # Delivered again, the same request is the same check.
    assert ask(fakes, author="alice", comment=52) == ("waiting", "waits-fork")
    assert len(requests(fakes)) == WAITING_LIMIT


def test_what_can_no_longer_be_is_told_where_it_was_asked_for() -> None:
    fakes = of_fork()
    ask(fakes, "/train profile=gone")
    assert approve(fakes) == ("refused", "unknown-profile")
    [body] = fakes.forge.bodies
    assert "there is no profile `gone`" in body
    assert not fakes.cluster.runs


def test_the_policy_of_the_moment_decides() -> None:
    fakes = of_fork()
    ask(fakes, "/train a=1")
    fakes.files[".github/dispatch.yml"] = POLICY + "overrides: { deny: [a] }\n"
    assert approve(fakes) == ("denied", "override-not-allowed")
    assert not fakes.cluster.runs


def test_several_requests_of_one_commit_are_approved_together() -> None:
    fakes = of_fork()
    ask(fakes)
    ask(fakes, "/train a=2,3", "alice", 51)
    assert approve(fakes) == ("run", "approved")
    assert len(fakes.cluster.runs) == 3
    triggers = sorted(parse_record(run.record).trigger for run in fakes.cluster.runs.values())
    assert triggers == ["comment:50", "comment:51", "comment:51"]
    assert len(fakes.forge.bodies) == 2


def test_the_button_is_an_approval_too() -> None:
    fakes = of_fork(app_slug="our-app")
    ask(fakes)
    [(number, check)] = [(key, one) for key, one in fakes.forge.checks.items() if one.name == APPROVAL_NAME]
    event = CheckEvent(REPOSITORY, number, APPROVAL_NAME, check.external_id, HEAD, 7, "approve", "our-app", "alice", "77", "main")
    assert told(handle(event, fakes.world)) == ("run", "approved")
    record = only_record(fakes)
    assert (record.trigger, record.actor, record.target.command_comment) == ("comment:50", "bob", 50)
    assert len(fakes.forge.bodies) == 1


# --------------------------------------------------------------------------- a second person


def test_above_the_threshold_somebody_else_has_to_agree() -> None:
    fakes = above()
    assert ask(fakes, author="alice") == ("waiting", "waits-second")
    assert "rule `approval.nodes`" in fakes.forge.bodies[0]
    assert not fakes.trace.of("connect", "cluster")
    assert approve(fakes, "alice") == ("denied", "own-request")
    assert approve(fakes, "ALICE", comment=61)[1] in ("own-request", "not-a-collaborator")
    assert approve(fakes, "carol", comment=62) == ("run", "approved")
    record = only_record(fakes)
    assert (record.actor, record.approved_by, record.trigger) == ("alice", "carol", "comment:50")


def test_who_has_lost_the_right_has_asked_for_nothing() -> None:
    fakes = above()
    ask(fakes, author="alice")
    fakes.forge.roles["alice"] = "read"
    assert approve(fakes, "carol") == ("denied", "role-too-low")
    assert not fakes.cluster.runs


def test_of_a_fork_neither_who_asked_nor_who_vouched_is_the_second() -> None:
    fakes = of_fork(POLICY + "approval: { nodes: 1, allow: { users: [carol, dave, alice] } }\n")
    ask(fakes, author="alice")
    # dave vouches and, not having asked, agrees as well.
    assert approve(fakes, "dave") == ("run", "approved")
    assert only_record(fakes).approved_by == "dave"


def test_who_may_vouch_may_not_always_agree() -> None:
    fakes = of_fork(POLICY + "approval: { nodes: 1, allow: { users: [alice, dave, erin] } }\n")
    ask(fakes, author="alice")
    assert approve(fakes, "carol") == ("waiting", "waits-second")
    assert not fakes.cluster.runs
    [check] = requests(fakes)
    assert json.loads(check.text)["voucher"] == "carol"
    assert approve(fakes, "carol", comment=61) == ("denied", "role-too-low")
    fakes.files[".github/dispatch.yml"] = POLICY + "approval: { nodes: 1, allow: { users: [alice, carol, dave] } }\n"
    assert approve(fakes, "carol", comment=64) == ("denied", "own-request")
    assert approve(fakes, "alice", comment=62) == ("denied", "own-request")
    assert approve(fakes, "dave", comment=63) == ("run", "approved")
    record = only_record(fakes)
    assert (record.actor, record.approved_by) == ("alice", "dave")


def test_the_author_who_asks_is_not_the_second_when_the_right_came_later() -> None:
    fakes = of_fork(POLICY + "approval: { nodes: 1, allow: { users: [bob, dave] } }\n")
    ask(fakes)
    assert approve(fakes, "carol") == ("waiting", "waits-second")
    fakes.forge.roles["bob"] = "write"
    assert approve(fakes, "bob", comment=61) == ("denied", "own-request")
    assert approve(fakes, "dave", comment=62) == ("run", "approved")


def test_a_label_can_wait_too() -> None:
    from tests.unit.test_flow import LABEL

    fakes = above()
    assert told(handle(LABEL, fakes.world)) == ("waiting", "waits-second")
    assert approve(fakes, "carol") == ("run", "approved")
    assert only_record(fakes).trigger == LABEL.trigger
    assert fakes.trace.of("forge.remove_label") == ["forge.remove_label train:cluster"]


# --------------------------------------------------------------------------- what stands in the check


def good(**changes: object) -> Request:
    given = {"sha": HEAD, "trigger": "comment:50", "actor": "bob", "lines": ("a=1",), "why": "fork", **changes}
    return Request.model_validate(given)


FORGED: list[Callable[[Check], Check]] = [
    lambda check: replace(check, text=""),
    lambda check: replace(check, text="{"),
    lambda check: replace(check, text="[]"),
    lambda check: replace(check, text=check.text.replace("comment:50", "comment:51")),
    lambda check: replace(check, text=check.text.replace(HEAD, OTHER)),
    lambda check: replace(check, text=check.text.replace('"a=1"', '"cancel all"')),
    lambda check: replace(check, text=check.text.replace('"a=1"', '"a=${oc.env:HOME}"')),
    lambda check: replace(check, text=check.text[:-1] + ',"more":1}'),
    lambda check: replace(check, text=check.text.replace('["a=1"]', "[]")),
    lambda check: replace(check, external_id="approval-0"),
    lambda check: replace(check, conclusion="neutral"),
    lambda check: replace(check, name="dispatch/other"),
]


@pytest.mark.parametrize("forge", FORGED)
def test_what_is_not_ours_in_a_check_counts_as_nothing(forge: Callable[[Check], Check]) -> None:
    fakes = of_fork()
    fakes.forge.create_check(forge(request_check(good(), "/train")))
    assert approve(fakes) == ("refused", "nothing-waits")
    assert not fakes.cluster.runs


def test_a_good_one_beside_them_does() -> None:
    fakes = of_fork()
    for change in FORGED:
        fakes.forge.create_check(change(request_check(good(), "/train")))
    fakes.forge.create_check(request_check(good(), "/train"))
    assert approve(fakes) == ("run", "approved")
    assert len(fakes.cluster.runs) == 1


def test_a_forged_requester_wins_nothing() -> None:
    """Somebody who could write such a check could not make more of it than they may ask for: the requester's rights are looked up."""
    fakes = above()
    fakes.forge.create_check(request_check(good(actor="mallory", why="second"), "/train"))
    assert approve(fakes, "carol") == ("denied", "not-a-collaborator")
    assert not fakes.cluster.runs


def test_what_waits_survives_its_check() -> None:
    request = good(lines=("profile=a recipe=b x='1,2'", "x=3,4"), rule="approval.nodes", voucher="carol", retry_of="0" * 16)
    fakes = of_fork()
    ref = fakes.forge.create_check(request_check(request, "/train"))
    assert [found for _, found in waiting([ref], HEAD)] == [request]
    assert [run.overrides[0].value for run in request.runs()] == ["1,2", "3", "4"]


def test_what_could_not_be_started_waits_still() -> None:
    fakes = of_fork()
    ask(fakes)
    fakes.fail("cluster.claim", "ssh.unreachable")
    assert approve(fakes) == ("refused", "ssh.unreachable")
    assert requests(fakes)[0].conclusion == "action_required"
    fakes.trace.fail.clear()
    assert approve(fakes, comment=61) == ("run", "approved")
    assert only_record(fakes).state is State.PENDING


# --------------------------------------------------------------------------- what an approval means


def test_an_approval_is_not_for_what_was_asked_after_it() -> None:
    """The comment was written, then somebody asked for something else on the same commit, then the delivery arrived."""
    fakes = of_fork()
    handle(comment_event("/train a=9", "alice", comment_id=51, created_at="2024-05-06T16:00:00Z"), fakes.world)
    assert approve(fakes) == ("refused", "nothing-waits")
    assert not fakes.cluster.runs


def test_the_button_approves_only_what_it_stands_beside() -> None:
    fakes = of_fork(app_slug="our-app")
    ask(fakes)
    ask(fakes, "/train a=2", "alice", 51)
    [(number, check), _] = [(key, one) for key, one in fakes.forge.checks.items() if one.name == APPROVAL_NAME]
    event = CheckEvent(REPOSITORY, number, APPROVAL_NAME, check.external_id, HEAD, 7, "approve", "our-app", "dave", "77", "main")
    assert told(handle(event, fakes.world)) == ("run", "approved")
    assert only_record(fakes).overrides == ("a=1",)


def test_one_person_with_rights_and_an_account_that_anybody_can_make_are_not_two() -> None:
    fakes = of_fork(ABOVE_ONE_NODE)
    ask(fakes, author="bob")
    assert approve(fakes, "alice") == ("waiting", "waits-second")
    assert not fakes.cluster.runs
    assert approve(fakes, "carol", comment=61) == ("run", "approved")
