"""Whose turn it is: limits are never exceeded, order is kept where runs wait for the same, nobody starves, budgets are not overdrawn."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.denial import REASONS
from dispatcher.policy import Policy, load_policy
from dispatcher.record import Resources, RunRecord, Target
from dispatcher.slurm import State
from dispatcher.turns import Go, Over, Turn, Wait, take_turns, takes_turns
from dispatcher.usage import Spent

NOTHING = Spent()
NOON = datetime(2026, 11, 2, 12, tzinfo=timezone.utc)


def run(
    number: int,
    actor: str = "alice",
    pull: int | None = 7,
    profile: str = "cluster",
    recipe: str = "default",
    hours: float = 1.0,
    gpus: int = 1,
    state: State = State.QUEUED,
    repository: str = "o/r",
    trigger: str = "comment:1",
) -> RunRecord:
    return RunRecord(
        run_key=f"{number:016x}",
        content_key="c",
        digest="d",
        target=Target(repository=repository, pull=pull),
        trigger=trigger,
        actor=actor,
        sha="e" * 40,
        profile=profile,
        recipe=recipe,
        program="train.py",
        executor="slurm",
        cluster="c",
        run_dir="/r",
        resources=Resources(nodes=1, gpus_per_node=gpus, seconds=round(hours * 3600)),
        asked_at=NOON,
        state=state,
    )


def at_it(number: int, **more: object) -> RunRecord:
    return run(number, **{"state": State.RUNNING, **more})  # type: ignore[arg-type]


def turns(policy: str | Policy, active: list[RunRecord], queued: list[RunRecord], spent: Spent = NOTHING) -> list[str]:
    loaded = load_policy(policy) if isinstance(policy, str) else policy
    found = take_turns(active, queued, spent, loaded, "O/R")
    assert [int(turn.run_key, 16) for turn in found] == [int(item.run_key, 16) for item in queued if item.target.repository == "o/r"]
    return [told(turn) for turn in found]


def told(turn: Turn) -> str:
    match turn:
        case Go():
            return "go"
        case Wait():
            return f"{turn.place}: {turn.because}"
        case Over():
            assert turn.denial.reason in REASONS
            return f"over {turn.denial.rule}"


@pytest.mark.parametrize(
    ("policy", "active", "queued", "expected"),
    [
        ("", [at_it(1)], [run(2), run(3)], ["go", "go"]),
        ("active: {user: 1}", [], [run(2), run(3)], ["go", "1: alice has 1 of 1 active runs"]),
        ("active: {user: 1}", [at_it(1)], [run(2), run(3)], ["1: alice has 1 of 1 active runs", "2: alice has 1 of 1 active runs"]),
        ("active: {user: 1}", [at_it(1, actor="ALICE")], [run(2)], ["1: alice has 1 of 1 active runs"]),
        # others may pass, and do not count as ahead
        (
            "active: {user: 1}",
            [at_it(1)],
            [run(2), run(3, "bob"), run(4, "bob")],
            ["1: alice has 1 of 1 active runs", "go", "1: bob has 1 of 1 active runs"],
        ),
        ("active: {pull: 1}", [at_it(1)], [run(2), run(3, pull=8)], ["1: pull request #7 has 1 of 1 active runs", "go"]),
        ("active: {pull: 1}", [at_it(1, pull=None)], [run(2, pull=None)], ["go"]),
        ("active: {profile: 2}", [at_it(1)], [run(2), run(3, "bob")], ["go", "1: profile cluster has 2 of 2 active runs"]),
        # a number of the profile's own replaces the general one
        ("active: {profile: 1}\nprofiles: {cluster: {active: 2}}", [at_it(1)], [run(2)], ["go"]),
        (
            "profiles: {cluster: {active: 1}}",
            [at_it(1)],
            [run(2), run(3, profile="x")],
            ["1: profile cluster has 1 of 1 active runs", "go"],
        ),
        (
            "recipes: {default: {script: a}}\nrecipe_rules: {default: {active: 1}}",
            [at_it(1)],
            [run(2), run(3, recipe="eval")],
            ["1: recipe default has 1 of 1 active runs", "go"],
        ),
        # several limits at once
        (
            "active: {user: 1, profile: 1}",
            [at_it(1)],
            [run(2), run(3, "bob"), run(4, profile="x"), run(5, "bob", profile="x")],
            [
                "1: alice has 1 of 1 active runs and profile cluster has 1 of 1 active runs",
                "2: profile cluster has 1 of 1 active runs",
                "2: alice has 1 of 1 active runs",
                "go",
            ],
        ),
        # what does not count
        ("active: {user: 1}", [at_it(1, state=State.FAILED), at_it(9, repository="o/other")], [run(2)], ["go"]),
        ("active: {user: 1}", [at_it(2)], [run(2)], ["go"]),
        ("active: {user: 1}", [], [run(2, repository="o/other"), run(3)], ["go"]),
        ("active: {user: 1}", [at_it(1, state=State.UNKNOWN)], [run(2)], ["1: alice has 1 of 1 active runs"]),
        # nobody's runs: no limit for a user
        ("active: {user: 1}", [], [run(2, "schedule", trigger="schedule:x"), run(3, "schedule", trigger="schedule:y")], ["go", "go"]),
        (
            "active: {user: 1}",
            [],
            [run(2, "merge queue", trigger="merge_group:x"), run(3, "merge queue", trigger="merge_group:y")],
            ["go", "go"],
        ),
        (
            "active: {user: 1}",
            [],
            [run(2, "schedule", trigger=f"retry:1:{'e' * 16}:schedule:x"), run(3, "schedule", trigger=f"retry:1:{'f' * 16}:schedule:y")],
            ["go", "go"],
        ),
        (
            "active: {user: 1}",
            [],
            [run(2, "schedule", trigger=f"retry:1:{'e' * 16}"), run(3, "schedule", trigger=f"retry:1:{'f' * 16}:manual:5")],
            ["go", "1: schedule has 1 of 1 active runs"],
        ),
        ("active: {user: 1}", [], [run(2, "schedule"), run(3, "schedule")], ["go", "1: schedule has 1 of 1 active runs"]),
        # more than are allowed are at it already, because the policy changed
        ("active: {user: 1}", [at_it(1), at_it(2)], [run(3)], ["1: alice has 2 of 1 active runs"]),
    ],
)
def test_turns(policy: str, active: list[RunRecord], queued: list[RunRecord], expected: list[str]) -> None:
    assert turns(policy, active, queued) == expected


SPENT = Spent(90.0, {"alice": 40.0, "bob": 50.0}, {7: 30.0}, {"cluster": 60.0}, {"default": 20.0})


@pytest.mark.parametrize(
    ("policy", "queued", "expected"),
    [
        ("budget: {user: 50}", [run(1, hours=10)], ["go"]),
        ("budget: {user: 50}", [run(1, hours=10.1)], ["over budget.user"]),
        ("budget: {user: 50}", [run(1, "Alice", hours=10.1)], ["over budget.user"]),
        ("budget: {user: 50}", [run(1, "carol", hours=50)], ["go"]),
        ("budget: {user: 0}", [run(1, "schedule", hours=50, trigger="schedule:x")], ["go"]),
        ("budget: {pull: 31}", [run(1), run(2, pull=None), run(3, pull=8), run(4)], ["go", "go", "go", "over budget.pull"]),
        ("budget: {profile: 61}", [run(1, hours=2), run(2)], ["over budget.profile", "go"]),
        ("budget: {profile: 1000}\nprofiles: {cluster: {budget: 60.5}}", [run(1)], ["over profiles.cluster.budget"]),
        (
            "recipes: {default: {script: a}}\nrecipe_rules: {default: {budget: 20}}",
            [run(1), run(2, recipe="x")],
            ["over recipe_rules.default.budget", "go"],
        ),
        ("budget: {month: 92}", [run(1, "a"), run(2, "b"), run(3, "c")], ["go", "go", "over budget.month"]),
        # what asks for no GPU exceeds no budget, not even one that is overdrawn
        ("budget: {month: 1}", [run(1, gpus=0, hours=100)], ["go"]),
        ("budget: {month: 1000}", [run(1, hours=0)], ["over budget.month"]),
        # who waits reserves nothing; who is over is told at once
        ("budget: {month: 91.5}\nactive: {user: 1}", [run(1), run(2), run(3, "bob", hours=0.5)], ["go", "over budget.month", "go"]),
        ("budget: {month: 92}\nactive: {user: 1}", [run(1), run(2), run(3, "bob")], ["go", "1: alice has 1 of 1 active runs", "go"]),
    ],
)
def test_budgets(policy: str, queued: list[RunRecord], expected: list[str]) -> None:
    assert turns(policy, [], queued, SPENT) == expected


def test_a_budget_says_how_much_is_left_of_what() -> None:
    [turn] = take_turns([], [run(1, hours=20)], SPENT, load_policy("budget: {user: 50}"), "o/r")
    assert isinstance(turn, Over)
    assert turn.denial.reason == "budget-exceeded"
    assert turn.denial.words == (
        "**Not enough GPU-hours are left this month.** The budget of `alice` is 50 GPU-hours; 40 are used or reserved, "
        "and this run asks for 20 (rule `budget.user` in `.github/dispatch.yml`)."
    )
    [turn] = take_turns([], [run(1, hours=0)], SPENT, load_policy("budget: {user: 50}"), "o/r")
    assert isinstance(turn, Over)
    assert turn.denial.reason == "no-time-limit"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("budget: {pull: 1}", "The budget of pull request 7 "),
        ("budget: {profile: 1}", "The budget of profile `cluster` "),
        ("budget: {month: 1}", "The budget of this repository "),
        ("recipes: {default: {script: a}}\nrecipe_rules: {default: {budget: 1}}", "The budget of recipe `default` "),
    ],
)
def test_whose_budget_it_is(rule: str, words: str) -> None:
    [turn] = take_turns([], [run(1)], SPENT, load_policy(rule), "o/r")
    assert isinstance(turn, Over)
    assert words in turn.denial.words


def test_a_wait_in_words() -> None:
    assert Wait("a" * 16, 2, "alice has 2 of 2 active runs").words == "place 2 in the queue: alice has 2 of 2 active runs"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", False),
        ("active: {}\nbudget: {}", False),
        ("limits: {nodes: 1}\nprofiles: {a: {limits: {nodes: 1}}}", False),
        ("active: {user: 1}", True),
        ("active: {profile: 1}", True),
        ("budget: {month: 0}", True),
        ("profiles: {a: {active: 1}}", True),
        ("profiles: {a: {budget: 0}}", True),
        ("recipes: {a: {script: a}}\nrecipe_rules: {a: {budget: 1}}", True),
    ],
)
def test_which_policies_take_turns(policy: str, expected: bool) -> None:
    assert takes_turns(load_policy(policy)) is expected


# --------------------------------------------------------------------------- properties

caps = st.none() | st.integers(1, 3)
policies = st.builds(
    lambda user, pull, profile, own, budget: Policy.model_validate(
        {
            "active": {name: value for name, value in {"user": user, "pull": pull, "profile": profile}.items() if value},
            "profiles": {"p0": {"active": own}} if own else {},
            "budget": {"month": budget} if budget is not None else {},
        }
    ),
    caps,
    caps,
    caps,
    caps,
    st.none() | st.integers(0, 8),
)
askers = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(1, 3), st.sampled_from(["p0", "p1"])), max_size=14)


def scopes(record: RunRecord, policy: Policy) -> list[tuple[str, str, int]]:
    """The limits that a run comes under, said once more and simply."""
    own = policy.profiles.get(record.profile)
    most = own.active if own and own.active else policy.active.profile
    found = [("user", record.actor, policy.active.user), ("profile", record.profile, most)]
    found += [("pull", str(record.target.pull), policy.active.pull)] if record.target.pull else []
    return [(kind, name, number) for kind, name, number in found if number is not None]


def many(given: list[tuple[str, int | None, str]], start: int, state: State) -> list[RunRecord]:
    return [run(start + place, actor, pull, profile, state=state) for place, (actor, pull, profile) in enumerate(given)]


@given(policies, askers, askers)
def test_no_limit_is_ever_exceeded_and_nobody_waits_without_cause(
    policy: Policy, active: list[tuple[str, int | None, str]], queued: list[tuple[str, int | None, str]]
) -> None:
    running, waiting = many(active, 1, State.RUNNING), many(queued, 100, State.QUEUED)
    counts = Counter(scope for record in running for scope in scopes(record, policy))
    hours = 0.0
    blocked: set[tuple[str, str, int]] = set()
    for record, turn in zip(waiting, take_turns(running, waiting, Spent(), policy, "o/r"), strict=True):
        mine = scopes(record, policy)
        match turn:
            case Go():
                assert not blocked & set(mine), "it passed somebody who waits for the same"
                counts.update(mine)
                hours += record.resources.gpu_hours
                assert all(counts[scope] <= scope[2] for scope in mine)
                assert policy.budget.month is None or hours <= policy.budget.month
            case Wait():
                full = {scope for scope in mine if counts[scope] >= scope[2]}
                assert full
                assert turn.place >= 1
                blocked |= full
            case Over():
                assert policy.budget.month is not None
                assert hours + record.resources.gpu_hours > policy.budget.month


@given(policies, askers)
def test_whoever_waits_comes_to_their_turn(policy: Policy, queued: list[tuple[str, int | None, str]]) -> None:
    policy = policy.model_copy(update={"budget": Policy().budget})
    waiting, running, looks = many(queued, 100, State.QUEUED), list[RunRecord](), 0
    order: list[str] = []
    while waiting:
        looks += 1
        assert looks <= len(queued), "every look releases somebody"
        going = {turn.run_key for turn in take_turns(running, waiting, Spent(), policy, "o/r") if isinstance(turn, Go)}
        # By the next look these have ended, and nobody new has come.
        running = [record.model_copy(update={"state": State.SUCCEEDED}) for record in waiting if record.run_key in going]
        waiting = [record for record in waiting if record.run_key not in going]
        order += sorted(going)
    alike = {record.run_key: (record.actor, record.target.pull, record.profile) for record in many(queued, 100, State.QUEUED)}
    for kind in set(alike.values()):
        keys = [key for key in order if alike[key] == kind]
        assert keys == sorted(keys), "those who are alike go in the order in which they asked"


@given(policies, askers)
def test_places_count_up_among_those_who_wait_for_the_same(policy: Policy, queued: list[tuple[str, int | None, str]]) -> None:
    same: list[tuple[str, int | None, str]] = [("a", 1, "p0")] * len(queued)
    places = [turn.place for turn in take_turns([], many(same, 1, State.QUEUED), Spent(), policy, "o/r") if isinstance(turn, Wait)]
    assert places == list(range(1, len(places) + 1))
