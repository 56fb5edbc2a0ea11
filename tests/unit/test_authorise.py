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
    also_admitted,
    approver_teams,
    authorise,
    lineage_teams,
    may_approve,
    may_waive,
    needed_facts,
    needed_teams,
    still_granted,
)
from dispatcher.event import CheckEvent, CommentEvent, LabelEvent, ManualEvent, MergeGroupEvent, PushEvent, ScheduleEvent
from dispatcher.grammar import Override, Run
from dispatcher.policy import load_policy
from dispatcher.ports import PullRequest
from dispatcher.verbs import AcceptBaseline, Approve, Cancel, Help, Logs, Retry, Status, Waive

HEAD, OTHER = "a" * 40, "b" * 40

COMMENT = CommentEvent("o/r", 7, True, "open", 99, "/train", "alice", False, "created", "2026-01-01T00:00:00Z", "", "main")
LABEL = LabelEvent("o/r", 7, "train:c", HEAD, "o/r", "main", "alice", "2026-01-01T00:00:00Z", False, "main", "pull_request_target")
MANUAL = ManualEvent("o/r", {}, "alice", "5", "refs/heads/topic", "main")
SCHEDULE = ScheduleEvent("o/r", "0 5 * * *", "6", "main")
MERGE_GROUP = MergeGroupEvent("o/r", OTHER, "refs/heads/q", "main", HEAD, "main")
CHECK = CheckEvent("o/r", 3, "dispatch/c", "f" * 16, HEAD, 7, "retry", "dispatch-app", "alice", "8", "main")
PUSH = PushEvent("o/r", 7, HEAD, OTHER, "main", "synchronize", "main", "o/r", False, False, "alice")

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
recipe_rules:
  eval: { allow: { roles: [maintain] }, overrides: { deny: [train.iters] } }
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
    command = Run(profile="c", recipe="default", overrides=(Override("train.iters", "5"),), dry_run=True)
    assert granted(command) == Grant(
        actor="alice", sha=HEAD, repository="o/r", number=7, what="plan", trigger="comment:99", via="comment", rule="allow.roles",
        profile="c", recipe="default", overrides=(Override("train.iters", "5"),), from_fork=False, dry_run=True,
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
        (Logs(), COMMENT, replace(WRITER, pull=CLOSED), HEAD, "comment", "alice"),
        (AcceptBaseline(), COMMENT, replace(WRITER, pull=CLOSED), HEAD, "comment", "alice"),
        (Retry(), COMMENT, WRITER, HEAD, "comment", "alice"),
        (Retry(), COMMENT, replace(WRITER, pull=FORK), HEAD, "comment", "alice"),
        (Approve(HEAD), COMMENT, replace(WRITER, pull=FORK), HEAD, "comment", "alice"),
        (Waive("dispatch/gate", "x"), COMMENT, WRITER, HEAD, "comment", "alice"),
        (Run(), CHECK, WRITER, HEAD, "button", "alice"),
        (Retry("f" * 16), CHECK, WRITER, HEAD, "button", "alice"),
        (Cancel("f" * 16), CHECK, replace(WRITER, pull=replace(PULL, head_sha=OTHER)), OTHER, "button", "alice"),
        (Run(), PUSH, WRITER, HEAD, "label", "alice"),
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
        "`aaaaaaaaaaaa` when this was asked for, and is `bbbbbbbbbbbb` now",
        "Ask again",
        Run(),
        LABEL,
        replace(WRITER, pull=replace(PULL, head_sha=OTHER)),
        POLICY,
    ),
    ("head-moved", "", "Ask again", Run(), PUSH, replace(WRITER, pull=replace(PULL, head_sha=OTHER)), POLICY),
    ("head-moved", "", "Ask again", Run(), CHECK, replace(WRITER, pull=replace(PULL, head_sha=OTHER)), POLICY),
    ("head-moved", "", "Ask again", Retry(), CHECK, replace(WRITER, pull=replace(PULL, head_sha=OTHER)), POLICY),
    ("pull-gone", "Pull request cannot", "", Retry(), replace(CHECK, number=None), replace(WRITER, pull=None), POLICY),
    ("pull-closed", "", "", Retry(), COMMENT, replace(WRITER, pull=CLOSED), POLICY),
    ("pull-closed", "", "", Approve(HEAD), COMMENT, replace(WRITER, pull=CLOSED), POLICY),
    ("pull-closed", "", "", Waive("dispatch/gate", "x"), COMMENT, replace(WRITER, pull=CLOSED), POLICY),
    ("sha-mismatch", HEAD, "", Approve(OTHER), COMMENT, replace(WRITER, pull=FORK), POLICY),
    ("sha-mismatch", HEAD, "", Approve(OTHER), COMMENT, WRITER, POLICY),
    ("role-too-low", "", "", Approve(HEAD), COMMENT, replace(WRITER, role="read"), POLICY),
    ("role-too-low", "", "", Run(), PUSH, replace(WRITER, role="read"), POLICY),
    ("not-a-collaborator", "", "", Retry(), CHECK, replace(WRITER, role=None), POLICY),
    ("fork-needs-sha", "", "", Run(), PUSH, replace(WRITER, pull=FORK), POLICY),
    ("fork-needs-sha", "", f"`/train approve sha={HEAD}`", Run(), COMMENT, replace(WRITER, pull=FORK), POLICY),
    ("role-too-low", "(rule `recipe_rules.eval.allow`", "", Run(recipe="eval"), COMMENT, WRITER, POLICY),
    ("role-too-low", "(rule `profiles.large.allow`", "", Run("large", "eval"), COMMENT, replace(WRITER, role="admin"), POLICY),
    (
        "role-too-low",
        "(rule `recipe_rules.eval.allow`",
        "",
        Run("large", "eval"),
        COMMENT,
        replace(WRITER, role="read", teams=frozenset({"org/ml"})),
        POLICY,
    ),
    (
        "override-not-allowed",
        "rule `recipe_rules.eval.overrides.deny`",
        "",
        Run(recipe="eval", overrides=(Override("train.iters", "1"),)),
        COMMENT,
        replace(WRITER, role="admin"),
        POLICY,
    ),
    ("unknown-ref", "`nope`", "", Run(ref="nope"), MANUAL, Facts("alice", "write"), POLICY),
    ("unknown-ref", "`topic`", "", Run(), MANUAL, Facts("alice", "write"), POLICY),
    ("unknown-ref", "`main`", "", Run(), SCHEDULE, Facts(""), POLICY),
    ("no-profile", "`default_profile`", "`profile=…`", Run(), COMMENT, WRITER, BARE),
    ("no-recipe", "no default", "`recipe=…`", Run(profile="c"), COMMENT, WRITER, BARE),
    ("unknown-recipe", "`eva`.** Did you mean **`eval`**?", "`recipes:`", Run(recipe="eva"), COMMENT, WRITER, POLICY),
    ("override-not-allowed", "`data.x=1` may not be set", "", Run(overrides=(Override("data.x", "1"),)), COMMENT, WRITER, POLICY),
    (
        "override-not-allowed",
        "Its value has to match `[1-4]` (rule `overrides.values` in",
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


# What other decisions than `authorise` say no with; their own tables are below and in the tests of limits and turns.
ELSEWHERE = {"own-request", "override-off", "unknown-gate", "too-many-nodes", "too-long", "too-many-gpu-hours", "no-time-limit"}
ELSEWHERE |= {"approval-needed", "image-not-allowed", "too-many-runs", "too-many-commands", "budget-exceeded", "rerun-by-another"}
ELSEWHERE |= {"repository-not-allowed", "attempts-used", "record-changed", "stage-failed", "pipeline-changed", "asked-again", "local-stage"}
ELSEWHERE |= {"jobs-used", "nothing-saved", "chain-given-up", "next-job-refused"}
ELSEWHERE |= {"not-on-branch", "not-scheduled", "not-required", "queue-entry-gone"}


def test_every_reason_is_documented_and_met() -> None:
    assert {row[0] for row in DENIALS} == set(REASONS) - ELSEWHERE
    assert set(REASONS) >= ELSEWHERE


# --------------------------------------------------------------------------- every cell: verb × who × pull request × policy

VERBS: dict[str, Any] = {
    "run": Run(),
    "run sha": Run(sha=HEAD),
    "run other sha": Run(sha=OTHER),
    "run large": Run("large", sha=HEAD),
    "plan": Run(dry_run=True),
    "status": Status(),
    "help": Help(),
    "logs": Logs(),
    "cancel": Cancel(all=True),
    "baseline": AcceptBaseline(),
    "retry": Retry(),
    "approve": Approve(HEAD),
    "approve other": Approve(OTHER),
    "override": Waive("dispatch/gate", "because"),
}
WHO: dict[str, Facts] = {
    "stranger": Facts("alice"),
    "reader": Facts("alice", "read"),
    "custom": Facts("alice", "ml-ops"),
    "writer": Facts("alice", "write"),
    "admin": Facts("alice", "admin"),
    "team": Facts("alice", "read", frozenset({"org/ml"})),
    "refused": Facts("Mallory", "admin", frozenset({"org/ml"})),
}
PULLS: dict[str, PullRequest | None] = {
    "open": PULL,
    "draft": replace(PULL, draft=True),
    "closed": CLOSED,
    "fork": FORK,
    "gone fork": GONE_FORK,
    "closed fork": replace(FORK, state="closed"),
    "gone": None,
}
_RULES = """\
default_profile: c
allow: { deny: [mallory] }
profiles: { large: { allow: { teams: [org/ml] } } }
recipes: { default: { script: a.py } }
"""
POLICIES: dict[str, Any] = {"forks": load_policy(_RULES + "forks: sha\n"), "no forks": load_policy(_RULES)}
RUNS, LOOKS = "run, run sha, run other sha, run large, plan", "status, help, logs, cancel, baseline"
FORKS, CLOSED_PULLS = "fork, gone fork", "closed, closed fork"
# The first row that fits decides: verbs, who, pull requests, policies (empty: all), and what becomes of it.
TABLE: list[tuple[str, str, str, str, str]] = [
    ("", "refused", "", "", "denied-user"),
    ("run large", "stranger", "", "", "not-a-collaborator"),
    ("run large", "reader, custom, writer, admin", "", "", "role-too-low"),
    ("", "stranger", "", "", "not-a-collaborator"),
    ("run, run sha, run other sha, plan", "reader, custom, team", "", "", "role-too-low"),
    # Whoever may use one of the profiles may give the commands that run nothing.
    (f"{LOOKS}, retry, approve, approve other, override", "reader, custom", "", "", "role-too-low"),
    ("", "", "gone", "", "pull-gone"),
    (LOOKS, "", "", "", "allowed"),
    ("", "", CLOSED_PULLS, "", "pull-closed"),
    (RUNS, "", FORKS, "no forks", "fork-off"),
    ("run, plan", "", FORKS, "", "fork-needs-sha"),
    ("run other sha, approve other", "", "", "", "sha-mismatch"),
    ("", "", "", "", "allowed"),
]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("pull", PULLS)
def test_every_cell(verb: str, who: str, pull: str) -> None:
    for name, policy in POLICIES.items():
        cell = (verb, who, pull, name)
        expected = next(row[4] for row in TABLE if all(not part or at in part.split(", ") for part, at in zip(row, cell, strict=False)))
        facts = replace(WHO[who], pull=PULLS[pull])
        decision = authorise(VERBS[verb], COMMENT, facts, policy)
        assert (decision.reason if isinstance(decision, Denial) else "allowed") == expected, cell
        # A label, a pushed head and a button decide alike, where they can ask for it.
        for event in (LABEL, PUSH, CHECK):
            other = authorise(VERBS[verb], event, facts, policy)
            assert (other.reason if isinstance(other, Denial) else "allowed") == expected, (cell, event)


def test_every_row_of_the_table_is_met() -> None:
    cells = [(verb, who, pull, policy) for verb in VERBS for who in WHO for pull in PULLS for policy in POLICIES]
    met = {
        next(
            number
            for number, row in enumerate(TABLE)
            if all(not part or at in part.split(", ") for part, at in zip(row, cell, strict=False))
        )
        for cell in cells
    }
    assert met == set(range(len(TABLE)))


@pytest.mark.parametrize(
    ("command", "facts", "policy", "rule"),
    [
        (Run(), replace(WRITER, role="read"), POLICY, "allow"),
        (Run("large"), WRITER, POLICY, "profiles.large.allow"),
        (Run(recipe="eval"), WRITER, POLICY, "recipe_rules.eval.allow"),
        (Run(), replace(WRITER, pull=FORK), NO_FORKS, "forks"),
        (Run(overrides=(Override("data.x", "1"),)), WRITER, POLICY, "overrides.allow"),
        (Run(overrides=(Override("run.nodes", "9"),)), WRITER, POLICY, "overrides.values"),
        (Run(), replace(WRITER, pull=CLOSED), POLICY, ""),
        (Run(recipe="nope"), WRITER, POLICY, ""),
    ],
)
def test_a_denial_names_the_rule(command: Any, facts: Facts, policy: Any, rule: str) -> None:
    denial = authorise(command, COMMENT, facts, policy)
    assert isinstance(denial, Denial)
    assert denial.rule == rule


def test_suggestions_begin_with_the_word_that_is_used_here() -> None:
    denial = authorise(Run(), COMMENT, replace(WRITER, pull=FORK), POLICY, word="/go")
    assert isinstance(denial, Denial)
    assert f"`/go sha={HEAD}`" in denial.next_step
    assert f"`/go approve sha={HEAD}`" in denial.next_step


@pytest.mark.parametrize(
    ("facts", "profile", "policy", "rule"),
    [
        (WRITER, "c", POLICY, "allow.roles"),
        (replace(WRITER, role="maintain"), "c", POLICY, "allow.roles"),
        (replace(WRITER, role="read", teams=frozenset({"ORG/ML"})), "large", POLICY, "profiles.large.allow.teams"),
        (replace(WRITER, role=None, teams=frozenset({"org/ml"})), "large", POLICY, "profiles.large.allow.teams"),
        (replace(WRITER, actor="Carol", role=None), "c", DENYING, "allow.users"),
        (Facts("alice", "maintain", frozenset({"org/ml"}), PULL), "large", POLICY, "profiles.large.allow.teams"),
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
        (Run(), PUSH, Needed("alice", 7, None, True)),
        (Retry(), CHECK, Needed("alice", 7, None, True)),
        (Retry(), replace(CHECK, number=None), Needed("alice", None, None, True)),
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


# --------------------------------------------------------------------------- rules beside the profile's own

RULED = load_policy("""\
allow: { roles: [write], deny: [eve] }
recipes: { default: { script: a.py }, big: { script: b.py } }
approval: { nodes: 2, allow: { roles: [maintain], users: [eve] } }
gate: { override: { allow: { users: [olga, eve], teams: [org/release] } } }
profiles:
  base: { allow: { teams: [org/ml] }, overrides: { allow: ["train.*"] } }
  child: { allow: { roles: [read] } }
  strict: { allow: { roles: [admin] }, approval: { allow: { users: [dan] } } }
  free: { limits: { nodes: 3 } }
recipe_rules:
  big: { allow: { teams: [org/big] }, approval: { allow: { teams: [org/leads] } } }
""")


def someone(role: str | None = "write", *teams: str, actor: str = "alice") -> Facts:
    return Facts(actor, role, frozenset(teams), PULL)


@pytest.mark.parametrize(
    ("lineage", "facts", "reason", "rule"),
    [
        (("child",), someone("read"), None, ""),
        (("free",), someone("read"), None, ""),
        (("child", "nothing"), someone("read"), None, ""),
        (("child", "base"), someone("admin"), "role-too-low", "profiles.base.allow"),
        (("child", "free", "base"), someone("admin"), "role-too-low", "profiles.base.allow"),
        (("child", "base"), someone("read", "org/ML"), None, ""),
        (("free", "base"), someone(None), "not-a-collaborator", "profiles.base.allow"),
        (("free", "base"), someone("admin", "org/ml", actor="Eve"), "denied-user", "profiles.base.allow"),
    ],
)
def test_who_extends_a_restricted_profile_is_as_restricted(lineage: tuple[str, ...], facts: Facts, reason: str | None, rule: str) -> None:
    answer = also_admitted(lineage, facts, RULED)
    assert answer is None if reason is None else answer is not None and (answer.reason, answer.rule) == (reason, rule)


def test_overrides_of_an_extended_profile_hold_too() -> None:
    member = someone("admin", "org/ml")
    assert also_admitted(("child", "base"), member, RULED, (Override("train.iters", "1"),)) is None
    refused = also_admitted(("child", "base"), member, RULED, (Override("data.path", "1"),))
    assert refused is not None
    assert (refused.reason, refused.rule) == ("override-not-allowed", "profiles.base.overrides.allow")


@pytest.mark.parametrize(
    ("profile", "recipe", "facts", "second", "expected"),
    [
        # a second person: `approval.allow`, the profile's and the recipe's in the general one's place
        ("free", "default", someone("maintain"), True, "approval.allow.roles"),
        ("free", "default", someone("write"), True, "role-too-low"),
        ("free", "default", someone(None), True, "not-a-collaborator"),
        ("strict", "default", someone("admin"), True, "role-too-low"),
        ("strict", "default", someone("read", actor="Dan"), True, "profiles.strict.approval.allow.users"),
        ("strict", "big", someone("read", actor="dan"), True, "role-too-low"),
        (
            "strict",
            "big",
            someone("read", "org/leads", actor="dan"),
            True,
            "profiles.strict.approval.allow.users and recipe_rules.big.approval.allow.teams",
        ),
        ("free", "default", someone("maintain", actor="bob"), True, "own-request"),
        ("free", "default", someone("maintain", actor="BOB"), True, "own-request"),
        ("free", "default", someone("admin", actor="eve"), True, "denied-user"),
        # vouching for a fork's commit: whoever may use profile and recipe
        ("free", "default", someone("write"), False, "allow.roles"),
        ("free", "default", someone("write", actor="bob"), False, "allow.roles"),
        ("free", "big", someone("admin"), False, "role-too-low"),
        ("base", "big", someone("read", "org/ml", "org/big"), False, "profiles.base.allow.teams and recipe_rules.big.allow.teams"),
        ("free", "default", someone("read"), False, "role-too-low"),
    ],
)
def test_who_may_approve(profile: str, recipe: str, facts: Facts, second: bool, expected: str) -> None:
    answer = may_approve(facts, RULED, profile, recipe, "bob", second)
    assert (answer.reason if isinstance(answer, Denial) else answer) == expected


def test_without_a_rule_about_approving_whoever_may_use_the_profile_may_approve() -> None:
    assert may_approve(someone("write"), POLICY, "c", "default", "bob") == "allow.roles"
    denial = may_approve(someone("write"), POLICY, "large", "default", "bob")
    assert isinstance(denial, Denial)
    assert denial.rule == "profiles.large.allow"
    denial = may_approve(someone("write"), POLICY, "c", "default", "bob", extends=("c", "large"))
    assert isinstance(denial, Denial)
    assert denial.rule == "profiles.large.allow"


@pytest.mark.parametrize(
    ("gate", "facts", "policy", "expected"),
    [
        ("dispatch/gate", someone(actor="Olga"), RULED, "gate.override.allow.users"),
        ("dispatch/gate", someone("read", "org/release"), RULED, "gate.override.allow.teams"),
        ("dispatch/gate", someone("admin"), RULED, "role-too-low"),
        ("dispatch/gate", someone("admin", actor="eve"), RULED, "denied-user"),
        ("dispatch/gate", someone("admin"), POLICY, "override-off"),
        ("dispatch/gate", someone("maintain"), load_policy("gate: {override: {}}"), "gate.override.allow.roles"),
        ("dispatch/gate", someone("write"), load_policy("gate: {override: {}}"), "role-too-low"),
        ("dispatch/gat", someone("admin"), RULED, "unknown-gate"),
        ("x", someone("admin"), RULED, "unknown-gate"),
    ],
)
def test_who_may_make_an_exception(gate: str, facts: Facts, policy: Any, expected: str) -> None:
    answer = may_waive(facts, policy, gate)
    assert (answer.reason if isinstance(answer, Denial) else answer) == expected


def test_a_gate_that_does_not_exist_names_the_nearest() -> None:
    near, far = may_waive(someone(), RULED, "dispatch/gaet"), may_waive(someone(), RULED, "x")
    assert isinstance(near, Denial)
    assert isinstance(far, Denial)
    assert "Did you mean **`dispatch/gate`**?" in near.words
    assert "Did you mean" not in far.words
    assert "`dispatch/gate`" in far.next_step


def test_the_teams_that_each_of_these_decisions_takes() -> None:
    nobody = someone(None)
    assert needed_teams(Run("base", "big"), nobody, RULED) == ("org/ml", "org/big")
    assert needed_teams(Run("free", "default"), nobody, RULED, extends=("base",)) == ("org/ml",)
    assert needed_teams(Run("base", "big"), someone(None, actor="eve"), RULED) == ()
    assert needed_teams(Waive("dispatch/gate", "x"), someone(), RULED) == ("org/release",)
    assert set(needed_teams(Status(), nobody, RULED)) == {"org/ml", "org/big", "org/release"}
    assert needed_teams(Status(), someone(), RULED) == ()
    assert needed_teams(Status(), someone(None, actor="eve"), RULED) == ()
    assert needed_teams(Waive("dispatch/gate", "x"), someone(actor="olga"), RULED) == ()
    assert needed_teams(Waive("dispatch/gate", "x"), someone(), POLICY) == ()
    assert approver_teams(nobody, RULED, "strict", "big") == ("org/leads",)
    assert approver_teams(nobody, RULED, "base", "default", second=False) == ("org/ml",)
    assert lineage_teams(("child", "base"), someone("admin"), RULED) == ("org/ml",)
    assert lineage_teams(("child", "base"), someone("admin", "org/ML"), RULED) == ()
    assert lineage_teams(("free",), nobody, RULED) == ()
