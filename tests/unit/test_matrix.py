"""Every cell of verb × who × kind of pull request × policy, through the whole story: what is decided, for what reason, and what was done.

What is expected comes from the rules below, which are written down anew: nothing of the product's decisions is asked. `expected` reads
from top to bottom as the story asks its questions: who, which pull request, which commit, what.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import pytest

from dispatcher.approval import Request, request_check
from dispatcher.errors import Exit
from dispatcher.flow import handle
from dispatcher.keys import pull_tag
from dispatcher.record import RunRecord
from dispatcher.slurm import State
from dispatcher.world import Outcome
from tests.fakes import HEAD, OTHER, PROFILE, REPOSITORY, Fakes, comment_event, run_record

# --------------------------------------------------------------------------- the four axes


@dataclass(frozen=True)
class Person:
    """Somebody, with the role that GitHub gives them here and whether they are in the team `org/ml`."""

    login: str
    role: str | None
    in_team: bool = False


PEOPLE = {
    "admin": Person("ada", "admin"),
    "writer": Person("alice", "write"),
    "writer in the team": Person("wanda", "write", in_team=True),
    "reader in the team": Person("theo", "read", in_team=True),
    "reader": Person("rob", "read"),
    "outsider": Person("oscar", None),
    "denied": Person("dora", "write", in_team=True),
    "author of the pull request": Person("bob", None),
    "requester": Person("rita", "write", in_team=True),
}
"""The requester has asked for the request that waits, and for none of the runs."""

PULLS = ("same", "fork, forks off", "fork", "fork, right sha", "fork, wrong sha", "closed", "draft", "unknown")

GENERAL = "allow: { deny: dora }\nrecipes:\n  default: { script: train.py }\ndefault_profile: cluster\nwatch: { profiles: [cluster] }\n"
POLICIES = {
    "default": "",
    "profile for a team": "profiles: { cluster: { allow: { teams: [org/ml] } } }\n",
    "recipe for admins": "recipe_rules: { default: { allow: { roles: admin } } }\n",
    "second person": "approval: { nodes: 1 }\n",
    "exceptions": "gate: { override: { allow: { roles: maintain } } }\n",
}

VERBS = {
    "run": "/train a=1",
    "plan": "/train plan a=1",
    "sweep": "/train a=1,2",
    "status": "/train status",
    "logs": "/train logs",
    "cancel own": "/train cancel 1111",
    "cancel other's": "/train cancel 2222",
    "retry": "/train retry 3333",
    "approve": "/train approve",
    "override": '/train override dispatch/gate reason="flaky node"',
    "baseline": "/train baseline accept",
    "help": "/train help",
}
STARTS = ("run", "plan", "sweep", "retry")


@dataclass(frozen=True)
class Cell:
    """One place of the table."""

    verb: str
    who: str
    pull: str
    policy: str

    @property
    def person(self) -> Person:
        return PEOPLE[self.who]

    @property
    def from_fork(self) -> bool:
        return self.pull.startswith("fork")

    @property
    def body(self) -> str:
        """What is commented. Whoever approves names a commit in any case: there is no word to approve without."""
        sha = {"fork, right sha": HEAD, "fork, wrong sha": OTHER, "fork": ""}.get(self.pull, "")
        if self.verb == "approve":
            sha = sha or ("" if self.pull == "fork" else HEAD)
        takes_sha = self.verb in ("run", "plan", "sweep", "approve")
        return VERBS[self.verb] + (f" sha={sha}" if sha and takes_sha else "")


Expected = tuple[str, str]
"""Decision and reason code, as the action's outputs have them."""


# --------------------------------------------------------------------------- the rules, written down anew


def expected(cell: Cell) -> Expected:
    if cell.verb == "approve" and cell.pull == "fork":
        return "malformed", "missing-word"
    if cell.verb in ("run", "plan", "sweep"):
        return _asked_for(cell)
    refused = _no_leave(cell.person, cell.policy) or _no_pull(cell)
    if refused:
        return "denied", refused
    match cell.verb:
        case "status" | "logs" | "help":
            return "answered", cell.verb
        case "baseline":
            # Nothing here has rules for metrics; only who may move a baseline is told so.
            return ("refused", "no-baselines") if cell.person.role in ("admin", "maintain") else ("denied", "role-too-low")
        case "cancel own":
            return "answered", "cancelled"
        case "cancel other's":
            refused = _no_use(cell.person, cell.policy)
            return ("denied", refused) if refused else ("answered", "cancelled")
        case "override":
            if cell.policy != "exceptions":
                return "denied", "override-off"
            return ("answered", "overridden") if cell.person.role == "admin" else ("denied", "role-too-low")
        case "retry":
            return _again(cell)
        case _:
            return _approved(cell)


def _asked_for(cell: Cell) -> Expected:
    refused = _no_use(cell.person, cell.policy)
    waits = cell.from_fork and cell.pull != "fork, forks off" and cell.verb != "plan"
    if refused:
        # The author of a fork's pull request may ask, for its head: somebody else has to vouch for it.
        asks = waits and cell.person.login == "bob" and cell.pull != "fork, wrong sha" and refused != "denied-user"
        return ("waiting", "waits-fork") if asks else ("denied", refused)
    if cell.pull in ("unknown", "closed"):
        return "denied", {"unknown": "pull-gone", "closed": "pull-closed"}[cell.pull]
    if cell.pull == "fork":
        return ("waiting", "waits-fork") if waits else ("denied", "fork-needs-sha")
    if cell.pull in ("fork, forks off", "fork, wrong sha"):
        return "denied", {"fork, forks off": "fork-off", "fork, wrong sha": "sha-mismatch"}[cell.pull]
    if cell.verb == "plan":
        return "plan", "planned"
    return ("waiting", "waits-second") if cell.policy == "second person" else ("run", "submitted")


def _again(cell: Cell) -> Expected:
    """A commit that has run before has been vouched for before; everything else is asked anew."""
    refused = _no_use(cell.person, cell.policy) or ("fork-off" if cell.pull == "fork, forks off" else "")
    if refused:
        return "denied", refused
    return ("waiting", "waits-second") if cell.policy == "second person" else ("run", "submitted")


def _approved(cell: Cell) -> Expected:
    """On a fork the request waits for a voucher, elsewhere for a second person."""
    if cell.pull == "fork, wrong sha":
        return "denied", "sha-mismatch"
    if not cell.from_fork and cell.who == "requester":
        return "denied", "own-request"
    # What runs above somebody's own rights needs a second person who has them, and a first one who still has them.
    refused = _no_use(cell.person, cell.policy) or ("" if cell.from_fork else _no_use(PEOPLE["requester"], cell.policy))
    if refused:
        return "denied", refused
    if cell.pull == "fork, forks off":
        return "denied", "fork-off"
    if cell.from_fork and cell.policy == "second person" and cell.who == "requester":
        return "waiting", "waits-second"
    return "run", "approved"


def _no_leave(person: Person, policy: str) -> str:
    """Why somebody may not give commands at all; empty when they may, or may use at least one profile or recipe."""
    if person.login == "dora":
        return "denied-user"
    if person.role in ("admin", "write") or (policy == "profile for a team" and person.in_team):
        return ""
    return "not-a-collaborator" if person.role is None else "role-too-low"


def _no_use(person: Person, policy: str) -> str:
    """Why somebody may not use profile and recipe. A rule of their own stands instead of the general one; who is denied stays denied."""
    if person.login == "dora":
        return "denied-user"
    admitted = {
        "profile for a team": person.in_team,
        "recipe for admins": person.role == "admin",
    }.get(policy, person.role in ("admin", "write"))
    if admitted:
        return ""
    return "not-a-collaborator" if person.role is None else "role-too-low"


def _no_pull(cell: Cell) -> str:
    if cell.pull == "unknown":
        return "pull-gone"
    if cell.pull == "closed" and cell.verb in ("retry", "approve", "override"):
        return "pull-closed"
    return ""


# --------------------------------------------------------------------------- each cell, played


def arranged(cell: Cell) -> Fakes:
    forks = "off" if cell.pull == "fork, forks off" else "sha"
    fakes = Fakes(f"{GENERAL}forks: {forks}\n{POLICIES[cell.policy]}", {"cluster": PROFILE + "nodes: 2\n"})
    fakes.forge.roles = {person.login: person.role for person in PEOPLE.values() if person.role}
    fakes.forge.teams = {("org", "ml", person.login) for person in PEOPLE.values() if person.in_team}
    pull = fakes.forge.pulls[7]
    if cell.pull == "unknown":
        del fakes.forge.pulls[7]
    elif cell.pull in ("closed", "draft"):
        fakes.forge.pulls[7] = replace(pull, state="closed" if cell.pull == "closed" else "open", draft=cell.pull == "draft")
    elif cell.from_fork:
        fakes.forge.pulls[7] = replace(pull, head_repository="bob/repo")
    for record, reported in (
        (_run("1111", cell.person.login), "pending"),
        (_run("2222", "carol"), "pending"),
        (_run("3333", "carol", State.FAILED), None),
    ):
        fakes.cluster.add(record, reported, "PENDING" if reported else "FAILED", (pull_tag(REPOSITORY, 7),))
    if cell.verb == "approve":
        why: Literal["fork", "second"] = "fork" if cell.from_fork else "second"
        request = Request(sha=HEAD, trigger="comment:50", actor="rita", lines=("a=1",), why=why, rule="approval.nodes", comment=50)
        fakes.forge.create_check(request_check(request, "/train"))
    fakes.steps.clear()
    return fakes


def _run(key: str, actor: str, state: State = State.PENDING) -> RunRecord:
    return run_record(run_key=key + "0" * 12, job_id=key, actor=actor, state=state, trigger=f"comment:{key}")


def cells(verb: str, policy: str) -> Iterator[Cell]:
    for who, pull in itertools.product(PEOPLE, PULLS):
        yield Cell(verb, who, pull, policy)


def deeds(fakes: Fakes) -> tuple[int, int, int]:
    """What the cell has changed in the world: jobs that were submitted, jobs that were ended, requests that now wait."""
    asked = fakes.trace.of("forge.create_check dispatch/approval")
    return len(fakes.trace.of("cluster.submit")), len(fakes.trace.of("cluster.cancel")), len(asked)


def expected_deeds(cell: Cell, wanted: Expected) -> tuple[int, int, int]:
    runs = 2 if cell.verb == "sweep" else 1
    match wanted:
        case ("run", _):
            return runs, 0, 0
        case ("answered", "cancelled"):
            return 0, 1, 0
        case ("waiting", _):
            # The same request, waiting for another reason now, is the same check.
            return 0, 0, 0 if cell.verb == "approve" else 1
        case _:
            return 0, 0, 0


def exits(wanted: Expected) -> Exit:
    by_reason = {"no-baselines": Exit.MALFORMED}
    return by_reason.get(wanted[1], {"denied": Exit.DENIED, "malformed": Exit.MALFORMED}.get(wanted[0], Exit.OK))


def answered_where(cell: Cell, wanted: Expected) -> int:
    """How many comments there are afterwards: refused outsiders get a reaction; who approves gets one, and the run its comment."""
    return 0 if wanted[0] in ("denied", "malformed") and _no_leave(cell.person, cell.policy) else 1


def differences(cell: Cell) -> list[str]:
    fakes = arranged(cell)
    ended: Outcome = handle(comment_event(cell.body, cell.person.login), fakes.world)
    wanted = expected(cell)
    found = []
    for what, is_, should in (
        ("decided", (ended.outputs["decision"], ended.outputs["reason-code"]), wanted),
        ("did", deeds(fakes), expected_deeds(cell, wanted)),
        ("exit", ended.exit, exits(wanted)),
        ("comments", len(fakes.forge.bodies), answered_where(cell, wanted)),
        ("lock", fakes.cluster.claims, {}),
    ):
        if is_ != should:
            found.append(f"{cell.verb} × {cell.who} × {cell.pull} × {cell.policy}: {what} {is_}, expected {should}")
    refusal = {"denied": "-1", "malformed": "confused"}.get(wanted[0])
    if refusal and fakes.forge.reactions != [(99, "eyes"), (99, refusal)]:
        found.append(f"{cell}: {fakes.forge.reactions}")
    return found


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("verb", VERBS)
def test_every_cell(verb: str, policy: str) -> None:
    found = [line for cell in cells(verb, policy) for line in differences(cell)]
    assert not found, "\n".join(found)


def test_the_table_has_no_dull_corner() -> None:
    """The rules say yes and no for each verb, and each policy, person and pull request makes a difference somewhere."""
    table = {cell: expected(cell) for verb, policy in itertools.product(VERBS, POLICIES) for cell in cells(verb, policy)}
    assert len(table) == len(VERBS) * len(PEOPLE) * len(PULLS) * len(POLICIES) == 4320
    assert {reason for _, reason in table.values()} >= {
        "denied-user", "not-a-collaborator", "role-too-low", "pull-gone", "pull-closed", "fork-off", "fork-needs-sha", "sha-mismatch",
        "own-request", "override-off", "waits-fork", "waits-second", "submitted", "approved", "overridden", "cancelled",
    }  # fmt: skip
    for verb in VERBS:
        decided = {wanted[0] for cell, wanted in table.items() if cell.verb == verb}
        assert len(decided) > 1, verb
    for axis, values in {"who": PEOPLE, "pull": PULLS, "policy": POLICIES}.items():
        columns = [
            tuple(wanted for cell, wanted in table.items() if getattr(cell, axis) == value)
            for value in values
            # A draft is like any other: that is a decision, too.
            if value not in ("draft",)
        ]
        assert len(set(columns)) == len(columns), axis
