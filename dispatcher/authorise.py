"""Command × facts about actor and pull request × policy → `Grant` (who, which exact commit, what) or `Denial` (reason code, public words).

A lookup that GitHub did not answer is a no. `author_association` and dates of commits are never looked at: one is wrong for members
whose membership is private, the other is set by whoever pushes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from typing_extensions import assert_never

from dispatcher.command import Cancel, Help, Status
from dispatcher.event import CommentEvent, LabelEvent, ManualEvent, MergeGroupEvent, ScheduleEvent
from dispatcher.grammar import Override, Run, render
from dispatcher.policy import Policy, UnknownRecipe
from dispatcher.ports import PullRequest
from dispatcher.untrusted import code

AskedBy = CommentEvent | LabelEvent | ManualEvent | ScheduleEvent | MergeGroupEvent
"""The events that can carry a command which needs to be allowed."""

Asked = Run | Cancel | Status | Help
"""The commands that need to be allowed."""

Via = Literal["comment", "label", "manual", "schedule", "merge_group"]

REASONS: Mapping[str, str] = {
    "not-a-collaborator": "GitHub does not list the account as a collaborator, or did not answer.",
    "role-too-low": "The account's role on the repository is not among those that the rule admits.",
    "denied-user": "The account stands under `deny`.",
    "pull-gone": "The pull request cannot be read.",
    "pull-closed": "The pull request is closed.",
    "fork-off": "The policy runs nothing from forks.",
    "fork-needs-sha": "For a fork the command must carry the head's full SHA: the pusher could change the head after the comment.",
    "sha-mismatch": "The SHA in the command is not the head.",
    "head-moved": "New commits arrived since it was asked for.",
    "unknown-ref": "The branch or tag does not exist in this repository.",
    "no-profile": "No profile is named, and the policy has no default.",
    "no-recipe": "No recipe is named, and the policy has no default.",
    "unknown-recipe": "The policy has no such recipe.",
    "override-not-allowed": "The policy does not allow the override, or not this value.",
}


@dataclass(frozen=True)
class Facts:
    """What was looked up for one command. Whatever GitHub did not answer is None or missing, and then counts as a no.

    `head_sha` is what the wanted branch or tag names now (schedules, manual runs without a pull request).
    """

    actor: str
    role: str | None = None
    teams: frozenset[str] = frozenset()
    pull: PullRequest | None = None
    head_sha: str | None = None


@dataclass(frozen=True)
class Grant:
    """Permission for exactly this: `actor` may have `what` done with commit `sha`. Only `authorise` makes one.

    `profile` and `recipe` are names with the defaults filled in; both are empty where nothing is to be run. `rule` names what admitted the
    actor. `number` is None where there is no pull request.
    """

    actor: str
    sha: str
    repository: str
    number: int | None
    what: str
    trigger: str
    via: Via
    rule: str
    profile: str = ""
    recipe: str = ""
    overrides: tuple[Override, ...] = ()
    from_fork: bool = False
    dry_run: bool = False
    attempt: int = 1
    schedule: str = ""


@dataclass(frozen=True)
class Denial:
    """A no, in Markdown for the public: `reason` is a key of REASONS, `words` say what is not possible and by which rule."""

    reason: str
    words: str
    next_step: str


@dataclass(frozen=True)
class Needed:
    """Which lookups a decision takes; what is None or empty need not be asked."""

    actor: str | None
    pull: int | None
    ref: str | None
    role: bool


def needed_facts(command: Asked, event: AskedBy) -> Needed:
    """The lookups for a command: the actor's role, the pull request, the branch or tag."""
    match event:
        case CommentEvent():
            return Needed(event.author, event.number, None, role=True)
        case LabelEvent():
            return Needed(event.sender, event.number, None, role=True)
        case ManualEvent():
            pull = command.pull if isinstance(command, Run) else None
            ref = (command.ref if isinstance(command, Run) else None) or _short_ref(event.ref) or event.default_branch
            return Needed(event.sender, pull, None if pull else ref, role=True)
        case ScheduleEvent():
            wanted = command.ref if isinstance(command, Run) else None
            return Needed(None, None, wanted or event.default_branch, role=False)
        case MergeGroupEvent():
            return Needed(None, None, None, role=False)
        case _:
            assert_never(event)


def needed_teams(command: Asked, facts: Facts, policy: Policy) -> tuple[str, ...]:
    """The teams whose membership still decides, once the role is known: none when the role or the name has decided already."""
    allow = policy.allowed(_profile_name(command, policy))
    decided = allow.denies(facts.actor) or allow.admits_user(facts.actor) or allow.admits_role(facts.role)
    return () if decided else allow.teams


def authorise(command: Asked, event: AskedBy, facts: Facts, policy: Policy, schedule: str = "") -> Grant | Denial:
    """The decision. For a scheduled run `command` is `Schedule.run` and `schedule` its name."""
    via = _via(event)
    rule = "the policy" if via in ("schedule", "merge_group") else admitted(_profile_name(command, policy), facts, policy)
    if isinstance(rule, Denial):
        return rule
    pinned = _pinned(command, event, facts, policy)
    if isinstance(pinned, Denial):
        return pinned
    grant = Grant(
        actor=facts.actor or {"schedule": "schedule", "merge_group": "merge queue"}.get(via, ""),
        sha=pinned,
        repository=event.repository,
        number=facts.pull.number if facts.pull else None,
        what=type(command).__name__.lower(),
        trigger=f"{event.trigger}:{schedule}" if schedule else event.trigger,
        via=via,
        rule=rule,
        from_fork=bool(facts.pull and facts.pull.from_fork),
        schedule=schedule,
    )
    return _run_granted(command, grant, policy) if isinstance(command, Run) else grant


def still_granted(grant: Grant, pull_now: PullRequest | None) -> Grant | Denial:
    """The comparison right before submitting: the pull request is still open and its head is still what was granted."""
    if grant.number is None:
        return grant
    if pull_now is None:
        return _pull_gone(grant.number)
    if pull_now.state != "open":
        return _pull_closed(pull_now)
    if pull_now.head_sha != grant.sha:
        return _head_moved(grant.sha, pull_now.head_sha)
    return grant


# --------------------------------------------------------------------------- who


def admitted(profile: str, facts: Facts, policy: Policy) -> str | Denial:
    """The rule that lets the actor use the profile (or, for an empty name, the dispatcher at all), else the no."""
    allow, rule = policy.allowed(profile), policy.rule_name(profile)
    if allow.denies(facts.actor):
        where = f"(rule `{rule}` in `.github/dispatch.yml`)"
        words = f"**{code(facts.actor)} may not use {_of(profile)}.** The account stands under `deny` {where}."
        return Denial("denied-user", words, "Ask somebody with write access to run it.")
    if allow.admits_user(facts.actor):
        return f"{rule}.users"
    if allow.admits_role(facts.role):
        return f"{rule}.roles"
    if any(team.lower() in {mine.lower() for mine in facts.teams} for team in allow.teams):
        return f"{rule}.teams"
    takes = _takes(allow.roles, allow.users, allow.teams)
    words = f"**{code(facts.actor)} may not use {_of(profile)}.** It takes {takes} (rule `{rule}` in `.github/dispatch.yml`)."
    if facts.role is None:
        words += " GitHub does not list the account as a collaborator of this repository."
        return Denial("not-a-collaborator", words, "Somebody who may can run it for this commit with the same command.")
    return Denial("role-too-low", f"{words} Its role here is {code(facts.role)}.", "Somebody who may can run it with the same command.")


def _takes(roles: tuple[str, ...], users: tuple[str, ...], teams: tuple[str, ...]) -> str:
    """A rule in words. People are not listed by name: the answer would mention them all."""
    lowest = [f"{code(role)} access" for role in roles if role not in ("maintain", "admin") or "write" not in roles]
    parts = [*lowest, *(f"membership of {code(team)}" for team in teams), *(["being listed by name"] if users else [])]
    return " or ".join(parts) or "being admitted by the policy, which admits nobody"


def _of(profile: str) -> str:
    return f"profile {code(profile)}" if profile else "this command"


# --------------------------------------------------------------------------- which commit


def _pinned(command: Asked, event: AskedBy, facts: Facts, policy: Policy) -> str | Denial:
    """The one commit that the command is about."""
    if isinstance(event, MergeGroupEvent):
        return event.head_sha
    by_hand = isinstance(command, Run) and isinstance(event, ManualEvent)
    if isinstance(event, CommentEvent | LabelEvent) or (by_hand and isinstance(command, Run) and command.pull is not None):
        number = event.number if isinstance(event, CommentEvent | LabelEvent) else None
        return _pinned_pull(command, event, facts, policy, number)
    if facts.head_sha is None:
        ref = needed_facts(command, event).ref or ""
        words = f"**There is no branch or tag {code(ref)}.**"
        return Denial("unknown-ref", words, "Give `ref` the name of a branch or tag of this repository.")
    if isinstance(command, Run) and command.sha not in (None, facts.head_sha):
        return _sha_mismatch(command.sha or "", facts.head_sha)
    return facts.head_sha


def _pinned_pull(command: Asked, event: AskedBy, facts: Facts, policy: Policy, number: int | None) -> str | Denial:
    """The pull request's head, when it may be run: for a fork only the commit that the command vouches for."""
    pull = facts.pull
    if pull is None:
        return _pull_gone(number)
    if not isinstance(command, Run):
        return pull.head_sha
    if pull.state != "open":
        return _pull_closed(pull)
    if pull.from_fork and policy.forks == "off":
        words = "**Nothing is run from forks.** The policy says `forks: off` in `.github/dispatch.yml`."
        return Denial("fork-off", words, "Push the branch to this repository, or set `forks: sha` on the default branch.")
    if pull.from_fork and command.sha is None:
        again = render(Run(command.profile, command.recipe, pull.head_sha, overrides=command.overrides, dry_run=command.dry_run))
        why = f"The head is {code(pull.head_sha)}; it can change at any time, so the command must name it."
        words = f"**A fork's commit must be vouched for.** {why}"
        return Denial("fork-needs-sha", words, f"Read the change, then comment {code(again, 2000)}.")
    if command.sha is not None and command.sha != pull.head_sha:
        return _sha_mismatch(command.sha, pull.head_sha)
    if isinstance(event, LabelEvent) and event.head_sha != pull.head_sha:
        return _head_moved(event.head_sha, pull.head_sha)
    return pull.head_sha


def _sha_mismatch(given: str, head: str) -> Denial:
    words = f"**{code(given[:12])} is not the head.** The head is {code(head)}."
    return Denial("sha-mismatch", words, "Look at the newer commits, then give the head's SHA.")


def _head_moved(granted: str, head: str) -> Denial:
    words = f"**The head has moved** from {code(granted[:12])} to {code(head[:12])} since this was asked for. Nothing was submitted."
    return Denial("head-moved", words, "Ask again for the new head.")


def _pull_closed(pull: PullRequest) -> Denial:
    return Denial("pull-closed", f"**Pull request {pull.number} is closed.** Nothing is run for it.", "Open it again, then ask again.")


def _pull_gone(number: int | None) -> Denial:
    return Denial(
        "pull-gone", f"**Pull request {number or ''} cannot be read.**".replace("  ", " "), "Check the number and the token's permissions."
    )


# --------------------------------------------------------------------------- what


def _run_granted(command: Run, grant: Grant, policy: Policy) -> Grant | Denial:
    """A grant → the same with everything about the run that the policy has to say yes to."""
    profile = _profile_name(command, policy)
    if not profile:
        words = "**No profile is named**, and `.github/dispatch.yml` has no `default_profile`."
        return Denial("no-profile", words, "Name one: `profile=…`.")
    recipe = policy.recipe(command.recipe)
    if isinstance(recipe, UnknownRecipe):
        return _unknown_recipe(recipe)
    rules = policy.allowed_overrides(profile)
    for override in command.overrides:
        refusal = rules.refusal(override)
        if refusal:
            words = (
                f"**{code(override.word)} may not be set** for profile {code(profile)} (rule {code(refusal)} in `.github/dispatch.yml`)."
            )
            return Denial("override-not-allowed", words, "Leave it out, or have the policy changed on the default branch.")
    return Grant(
        actor=grant.actor,
        sha=grant.sha,
        repository=grant.repository,
        number=grant.number,
        what="plan" if command.dry_run else "run",
        trigger=grant.trigger,
        via=grant.via,
        rule=grant.rule,
        profile=profile,
        recipe=command.recipe or policy.default_recipe or "",
        overrides=command.overrides,
        from_fork=grant.from_fork,
        dry_run=command.dry_run,
        attempt=command.attempt,
        schedule=grant.schedule,
    )


def _unknown_recipe(found: UnknownRecipe) -> Denial:
    known = ", ".join(code(name) for name in found.known) or "none"
    if not found.name:
        return Denial("no-recipe", "**No recipe is named**, and the policy has no default.", f"Name one: `recipe=…`. There are: {known}.")
    hint = f"Did you mean **{code(found.nearest)}**? " if found.nearest else ""
    return Denial("unknown-recipe", f"**There is no recipe {code(found.name)}.**", f"{hint}There are: {known}.")


def _profile_name(command: Asked, policy: Policy) -> str:
    """The profile that is asked for; empty for commands that run nothing."""
    return (command.profile or policy.default_profile or "") if isinstance(command, Run) else ""


def _short_ref(ref: str) -> str:
    """`refs/heads/main` → `main`."""
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


def _via(event: AskedBy) -> Via:
    match event:
        case CommentEvent():
            return "comment"
        case LabelEvent():
            return "label"
        case ManualEvent():
            return "manual"
        case ScheduleEvent():
            return "schedule"
        case MergeGroupEvent():
            return "merge_group"
        case _:
            assert_never(event)
