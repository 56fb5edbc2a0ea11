"""Who may have what done with which commit: tables of grants and denials."""

from dataclasses import replace
from typing import Any

import pytest

from dispatcher.authorise import (
    REASONS,
    Denial,
    Facts,
    Grant,
    Needed,
    authorise,
    needed_facts,
    needed_teams,
    still_granted,
)
from dispatcher.command import Cancel, Help, Status
from dispatcher.event import CommentEvent, LabelEvent, ManualEvent, MergeGroupEvent, ScheduleEvent
from dispatcher.grammar import Override, Run
from dispatcher.policy import load_policy
from dispatcher.ports import PullRequest

HEAD, OTHER = "a" * 40, "b" * 40

COMMENT = CommentEvent("o/r", 7, True, "open", 99, "/train", "alice", False, "created", "2026-01-01T00:00:00Z", "", "main")
LABEL = LabelEvent("o/r", 7, "train:c", HEAD, "o/r", "main", "alice", "2026-01-01T00:00:00Z", False, "main", "pull_request_target")
MANUAL = ManualEvent("o/r", {}, "alice", "5", "refs/heads/topic", "main")
SCHEDULE = ScheduleEvent("o/r", "0 5 * * *", "6", "main")
MERGE_GROUP = MergeGroupEvent("o/r", OTHER, "refs/heads/q", "main", HEAD, "main")

PULL = PullRequest(7, "open", False, HEAD, "topic", "o/r", "main", OTHER, "o/r", "bob")
FORK = replace(PULL, head_repository="mallory/r", author="mallory")
GONE_FORK = replace(FORK, head_repository="")
CLOSED = replace(PULL, state="closed")

WRITER = Facts("alice", "write", frozenset(), PULL)

POLICY = load_policy("""\
default_profile: c
forks: sha
recipes: { default: { script: a.py }, eval: { script: b.py } }
overrides: { allow: ["train.*", run.nodes], values: { run.nodes: "[1-4]" } }
profiles:
  large: { allow: { teams: [org/ml] } }
  closed: { allow: { roles: [] } }
""")
NO_FORKS = load_policy("default_profile: c\nrecipes: { default: { script: a.py } }")
DENYING = load_policy("default_profile: c\nallow: { users: [carol], deny: [Alice] }\nrecipes: { default: { script: a.py } }")
BARE = load_policy("")


def decided(command: Any = None, event: Any = COMMENT, facts: Facts = WRITER, policy: Any = POLICY) -> Grant | Denial:
    return authorise(command or Run(), event, facts, policy)


def granted(*args: Any, **kwargs: Any) -> Grant:
    decision = decided(*args, **kwargs)
    assert isinstance(decision, Grant), decision
    return decision


def test_a_grant_says_exactly_what_was_granted() -> None:
    command = Run(profile="c", recipe="eval", overrides=(Override("train.iters", "5"),), dry_run=True)
    assert granted(command) == Grant(
        actor="alice", sha=HEAD, repository="o/r", number=7, what="plan", trigger="comment:99", via="comment", rule="allow.roles",
        profile="c", recipe="eval", overrides=(Override("train.iters", "5"),), from_fork=False, dry_run=True,
    )  # fmt: skip


def test_defaults_are_filled_in() -> None:
    assert (granted().profile, granted().recipe, granted().what) == ("c", "default", "run")


@pytest.mark.parametrize(
    ("command", "event", "facts", "sha", "via", "actor"),
    [
        (Run(), COMMENT, WRITER, HEAD, "comment", "alice"),
        (Run(sha=HEAD), COMMENT, WRITER, HEAD, "comment", "alice"),
        (Run(sha=HEAD), COMMENT, replace(WRITER, pull=FORK), HEAD, "comment", "alice"),
        (Run(sha=HEAD), COMMENT, replace(WRITER, pull=GONE_FORK), HEAD, "comment", "alice"),
        (Run(), COMMENT, replace(WRITER, pull=replace(PULL, draft=True)), HEAD, "comment", "alice"),
        (Run(), LABEL, WRITER, HEAD, "label", "alice"),
        (Run(), MANUAL, Facts("alice", "admin", head_sha=OTHER), OTHER, "manual", "alice"),
        (Run(sha=OTHER, ref="x"), MANUAL, Facts("alice", "write", head_sha=OTHER), OTHER, "manual", "alice"),
        (Run(pull=7), MANUAL, WRITER, HEAD, "manual", "alice"),
        (Run(pull=7, sha=HEAD), MANUAL, replace(WRITER, pull=FORK), HEAD, "manual", "alice"),
        (Run(), SCHEDULE, Facts("", head_sha=OTHER), OTHER, "schedule", "schedule"),
        (Run(), MERGE_GROUP, Facts(""), OTHER, "merge_group", "merge queue"),
        (Cancel(), COMMENT, replace(WRITER, pull=CLOSED), HEAD, "comment", "alice"),
        (Status(), COMMENT, replace(WRITER, pull=FORK), HEAD, "comment", "alice"),
        (Help(), COMMENT, WRITER, HEAD, "comment", "alice"),
    ],
)
def test_which_commit(command: Any, event: Any, facts: Facts, sha: str, via: str, actor: str) -> None:
    grant = granted(command, event, facts)
    assert (grant.sha, grant.via, grant.actor, grant.trigger) == (sha, via, actor, event.trigger)
    assert grant.from_fork is bool(facts.pull and facts.pull.from_fork)


DENIALS: list[tuple[str, str, str, Any, Any, Any, Any]] = [
    # reason, in the words, in the next step, command, event, facts, policy
    ("not-a-collaborator", "`alice` may not use profile `c`", "same command", Run(), COMMENT, replace(WRITER, role=None), POLICY),
    ("not-a-collaborator", "`write` access", "", Run(), LABEL, replace(WRITER, role=None), POLICY),
    ("not-a-collaborator", "", "", Run(), MANUAL, Facts("alice", None, head_sha=HEAD), POLICY),
    ("not-a-collaborator", "may not use this command", "", Cancel(), COMMENT, replace(WRITER, role=None), POLICY),
    ("not-a-collaborator", "", "", Help(), COMMENT, replace(WRITER, role=None), POLICY),
    ("role-too-low", "Its role here is `read`", "", Run(), COMMENT, replace(WRITER, role="read"), POLICY),
    ("role-too-low", "Its role here is `triage`", "", Run(), LABEL, replace(WRITER, role="triage"), POLICY),
    ("role-too-low", "membership of `org/ml` (rule `profiles.large.allow`", "", Run(profile="large"), COMMENT, WRITER, POLICY),
    ("role-too-low", "", "", Run(profile="large"), COMMENT, replace(WRITER, role="admin", teams=frozenset({"org/other"})), POLICY),
    ("role-too-low", "admits nobody", "", Run(profile="closed"), COMMENT, replace(WRITER, role="admin"), POLICY),
    ("role-too-low", "", "", Run(), MANUAL, Facts("alice", "read", head_sha=HEAD), POLICY),
    ("denied-user", "stands under `deny`", "", Run(), COMMENT, replace(WRITER, role="admin"), DENYING),
    ("pull-gone", "Pull request 7", "", Run(), COMMENT, replace(WRITER, pull=None), POLICY),
    ("pull-gone", "Pull request", "", Run(pull=8), MANUAL, replace(WRITER, pull=None), POLICY),
    ("pull-closed", "7 is closed", "", Run(), COMMENT, replace(WRITER, pull=CLOSED), POLICY),
    ("pull-closed", "", "", Run(), LABEL, replace(WRITER, pull=CLOSED), POLICY),
    ("pull-closed", "", "", Run(pull=7), MANUAL, replace(WRITER, pull=CLOSED), POLICY),
    ("fork-off", "`forks: off`", "`forks: sha`", Run(sha=HEAD), COMMENT, replace(WRITER, pull=FORK), NO_FORKS),
    ("fork-off", "", "", Run(), LABEL, replace(WRITER, pull=FORK), NO_FORKS),
    (
        "fork-needs-sha",
        HEAD,
        f"`/train profile=c sha={HEAD} a.b=1`",
        Run(profile="c", overrides=(Override("a.b", "1"),)),
        COMMENT,
        replace(WRITER, pull=FORK),
        POLICY,
    ),
    ("fork-needs-sha", "", "", Run(), COMMENT, replace(WRITER, pull=GONE_FORK), POLICY),
    ("fork-needs-sha", "", f"sha={HEAD}", Run(), LABEL, replace(WRITER, pull=FORK), POLICY),
    ("fork-needs-sha", "", "", Run(pull=7), MANUAL, replace(WRITER, pull=FORK), POLICY),
    ("sha-mismatch", HEAD, "", Run(sha=OTHER), COMMENT, WRITER, POLICY),
    ("sha-mismatch", HEAD, "", Run(sha=OTHER), COMMENT, replace(WRITER, pull=FORK), POLICY),
    ("sha-mismatch", HEAD, "", Run(sha=OTHER), MANUAL, Facts("alice", "write", head_sha=HEAD), POLICY),
    (
        "head-moved",
        "aaaaaaaaaaaa` to `bbbbbbbbbbbb`",
        "Ask again",
        Run(),
        LABEL,
        replace(WRITER, pull=replace(PULL, head_sha=OTHER)),
        POLICY,
    ),
    ("unknown-ref", "`nope`", "", Run(ref="nope"), MANUAL, Facts("alice", "write"), POLICY),
    ("unknown-ref", "`topic`", "", Run(), MANUAL, Facts("alice", "write"), POLICY),
    ("unknown-ref", "`main`", "", Run(), SCHEDULE, Facts(""), POLICY),
    ("no-profile", "`default_profile`", "`profile=…`", Run(), COMMENT, WRITER, BARE),
    ("no-recipe", "no default", "`recipe=…`", Run(profile="c"), COMMENT, WRITER, BARE),
    ("unknown-recipe", "`eva`", "Did you mean **`eval`**?", Run(recipe="eva"), COMMENT, WRITER, POLICY),
    ("override-not-allowed", "`data.x=1` may not be set", "", Run(overrides=(Override("data.x", "1"),)), COMMENT, WRITER, POLICY),
    (
        "override-not-allowed",
        "`[1-4]`" and "overrides.values: [1-4]",
        "",
        Run(overrides=(Override("run.nodes", "9"),)),
        COMMENT,
        WRITER,
        POLICY,
    ),
    ("override-not-allowed", "", "", Run(overrides=(Override("run.nodes", "2"),)), COMMENT, WRITER, NO_FORKS),
]


@pytest.mark.parametrize(("reason", "words", "step", "command", "event", "facts", "policy"), DENIALS)
def test_denials(reason: str, words: str, step: str, command: Any, event: Any, facts: Facts, policy: Any) -> None:
    denial = authorise(command, event, facts, policy)
    assert isinstance(denial, Denial), denial
    assert denial.reason == reason
    assert words in denial.words
    assert step in denial.next_step
    assert denial.words.startswith("**")
    assert denial.next_step


def test_every_reason_is_documented_and_met() -> None:
    assert {row[0] for row in DENIALS} == set(REASONS)


@pytest.mark.parametrize(
    ("facts", "profile", "policy", "rule"),
    [
        (WRITER, "c", POLICY, "allow.roles"),
        (replace(WRITER, role="maintain"), "c", POLICY, "allow.roles"),
        (replace(WRITER, role="read", teams=frozenset({"ORG/ML"})), "large", POLICY, "profiles.large.allow.teams"),
        (replace(WRITER, role=None, teams=frozenset({"org/ml"})), "large", POLICY, "profiles.large.allow.teams"),
        (replace(WRITER, actor="Carol", role=None), "c", DENYING, "allow.users"),
    ],
)
def test_what_admits(facts: Facts, profile: str, policy: Any, rule: str) -> None:
    assert granted(Run(profile=profile), facts=facts, policy=policy).rule == rule


@pytest.mark.parametrize(
    ("command", "event", "needed"),
    [
        (Run(), COMMENT, Needed("alice", 7, None, True)),
        (Cancel(), COMMENT, Needed("alice", 7, None, True)),
        (Run(), LABEL, Needed("alice", 7, None, True)),
        (Run(), MANUAL, Needed("alice", None, "topic", True)),
        (Run(ref="x"), MANUAL, Needed("alice", None, "x", True)),
        (Run(pull=3), MANUAL, Needed("alice", 3, None, True)),
        (Run(), replace(MANUAL, ref=""), Needed("alice", None, "main", True)),
        (Run(), SCHEDULE, Needed(None, None, "main", False)),
        (Run(ref="release"), SCHEDULE, Needed(None, None, "release", False)),
        (Run(), MERGE_GROUP, Needed(None, None, None, False)),
    ],
)
def test_which_lookups_are_needed(command: Any, event: Any, needed: Needed) -> None:
    assert needed_facts(command, event) == needed


@pytest.mark.parametrize(
    ("profile", "role", "teams"),
    [("large", "write", ("org/ml",)), ("large", None, ("org/ml",)), ("c", "write", ()), ("c", "read", ())],
)
def test_teams_are_asked_only_when_they_decide(profile: str, role: str | None, teams: tuple[str, ...]) -> None:
    assert needed_teams(Run(profile=profile), Facts("alice", role), POLICY) == teams


def test_teams_are_not_asked_for_whom_a_name_has_decided_about() -> None:
    policy = load_policy("allow: { users: [alice], deny: [bob], teams: [o/t] }")
    assert needed_teams(Help(), Facts("alice", None), policy) == ()
    assert needed_teams(Help(), Facts("bob", None), policy) == ()
    assert needed_teams(Help(), Facts("carol", None), policy) == ("o/t",)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (PULL, None),
        (replace(PULL, draft=True, labels=("x",)), None),
        (None, "pull-gone"),
        (CLOSED, "pull-closed"),
        (replace(PULL, head_sha=OTHER), "head-moved"),
    ],
)
def test_the_comparison_right_before_submitting(now: PullRequest | None, reason: str | None) -> None:
    grant = granted()
    decision = still_granted(grant, now)
    assert decision == grant if reason is None else isinstance(decision, Denial) and decision.reason == reason


def test_without_a_pull_request_there_is_no_head_to_move() -> None:
    grant = granted(Run(), SCHEDULE, Facts("", head_sha=OTHER))
    assert still_granted(grant, None) == grant


def test_two_schedules_of_one_cron_have_triggers_of_their_own() -> None:
    decisions = [authorise(Run(), SCHEDULE, Facts("", head_sha=OTHER), POLICY, name) for name in ("nightly", "weekly")]
    assert [decision.trigger for decision in decisions if isinstance(decision, Grant)] == [
        "schedule:0 5 * * *:6:nightly",
        "schedule:0 5 * * *:6:weekly",
    ]


@pytest.mark.parametrize("name", ["@org/everyone", "<img src=x>", "`x`", "[a](http://b)", "::error::x"])
def test_words_hold_nothing_that_acts(name: str) -> None:
    command = Run(overrides=(Override("x", name),))
    denial = authorise(command, COMMENT, WRITER, load_policy("default_profile: c\nrecipes: {default: {script: a}}\noverrides: {allow: []}"))
    assert isinstance(denial, Denial)
    outside = denial.words.replace(f"`x={name}`", "").replace(f"`` x={name} ``", "")
    assert name not in outside
