"""Command × facts about actor and pull request × policy → `Grant` (who, which exact commit, what) or `Denial` (reason code, public words).

Which lookups that takes says `facts.py`, who may says `rights.py`; here it becomes one decision, about one commit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dispatcher.attempts import Repeats
from dispatcher.denial import REASONS, Denial
from dispatcher.event import CheckEvent, CommentEvent, LabelEvent, ManualEvent, MergeGroupEvent, PushEvent, ScheduleEvent
from dispatcher.facts import Asked, AskedBy, Facts, Needed, Via, needed_facts, profile_name, recipe_name, via_of
from dispatcher.grammar import Override, Run
from dispatcher.pipeline import Place
from dispatcher.policy import Policy, UnknownRecipe
from dispatcher.ports import PullRequest
from dispatcher.printing import render
from dispatcher.rights import (
    admitted,
    also_admitted,
    approver_teams,
    lineage_teams,
    may_approve,
    may_command,
    may_waive,
    needed_teams,
    overridable,
)
from dispatcher.untrusted import code
from dispatcher.verbs import Approve, Retry, Waive

__all__ = ["REASONS", "Asked", "AskedBy", "Denial", "Facts", "Grant", "Needed", "Via", "admitted", "also_admitted", "approver_teams"]
__all__ += [
    "authorise",
    "lineage_teams",
    "may_approve",
    "may_waive",
    "needed_facts",
    "needed_teams",
    "overridable",
    "pinned",
    "still_granted",
]


@dataclass(frozen=True)
class Grant:
    """Permission for exactly this: `actor` may have `what` done with commit `sha`. Only `authorise` makes one.

    `profile` and `recipe` are names with the defaults filled in; both are empty where nothing is to be run. `rule` names what admitted the
    actor. `number` is None where there is no pull request. `approved_by` is who agreed as second person,
    `vouched_by` who vouched for a fork's commit, `retry_of` the run key that is repeated: whoever looks that up adds them.
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
    approved_by: str = ""
    retry_of: str = ""
    repeats: Repeats | None = None
    """What it repeats by itself; None where a person or an event asked for it."""
    vouched_by: str = ""
    stage: Place | None = None
    """Its place in a pipeline; `recipe` is then the stage's own."""
    fresh: bool = False
    """An earlier run with the same content will not do."""
    on_default: bool = False
    """The commit is the default branch's, or the one that the merge queue would make it."""


def authorise(command: Asked, event: AskedBy, facts: Facts, policy: Policy, schedule: str = "", word: str = "/train") -> Grant | Denial:
    """The decision. For a scheduled run `command` is `Schedule.run` and `schedule` its name; `word` begins what is suggested."""
    via = via_of(event)
    who = (profile_name(command, policy), recipe_name(command, policy))
    if via in ("schedule", "merge_group"):
        rule: str | Denial = "the policy"
    else:
        rule = admitted(*who, facts, policy) if isinstance(command, Run) else may_command(facts, policy)
    if isinstance(rule, Denial):
        return rule
    sha = pinned(command, event, facts, policy, word)
    if isinstance(sha, Denial):
        return sha
    grant = Grant(
        actor=facts.actor or {"schedule": "schedule", "merge_group": "merge queue"}.get(via, ""),
        sha=sha,
        repository=event.repository,
        number=facts.pull.number if facts.pull else None,
        what=type(command).__name__.lower(),
        trigger=f"{event.trigger}:{schedule}" if schedule else event.trigger,
        via=via,
        rule=rule,
        from_fork=bool(facts.pull and facts.pull.from_fork),
        schedule=schedule,
        on_default=isinstance(command, Run) and _is_the_default_branchs(command, event),
    )
    return _run_granted(command, grant, policy) if isinstance(command, Run) else grant


def _is_the_default_branchs(command: Run, event: AskedBy) -> bool:
    """Whether what runs is the default branch, or what the merge queue is about to make of it; a ref that is named may be another."""
    match event:
        case MergeGroupEvent():
            return True
        case ScheduleEvent():
            return command.ref is None
        case ManualEvent():
            return command.ref is None and command.pull is None and event.ref == f"refs/heads/{event.default_branch}"
        case _:
            return False


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


# --------------------------------------------------------------------------- which commit


def pinned(command: Asked, event: AskedBy, facts: Facts, policy: Policy, word: str = "/train") -> str | Denial:
    """The one commit that the command is about."""
    if isinstance(event, MergeGroupEvent):
        return event.head_sha
    if isinstance(event, CommentEvent | LabelEvent | PushEvent | CheckEvent):
        return _pinned_pull(command, event, facts, policy, event.number, word)
    if isinstance(event, ManualEvent) and isinstance(command, Run) and command.pull is not None:
        return _pinned_pull(command, event, facts, policy, command.pull, word)
    if facts.head_sha is None:
        ref = needed_facts(command, event).ref or ""
        words = f"**There is no branch or tag {code(ref)}.**"
        return Denial("unknown-ref", words, "Give `ref` the name of a branch or tag of this repository.")
    named = _named_sha(command)
    return facts.head_sha if named in (None, facts.head_sha) else _sha_mismatch(named or "", facts.head_sha)


def _pinned_pull(command: Asked, event: AskedBy, facts: Facts, policy: Policy, number: int | None, word: str) -> str | Denial:
    """The pull request's head, when it may be run: for a fork only the commit that the command vouches for."""
    pull = facts.pull
    if pull is None:
        return _pull_gone(number)
    if not isinstance(command, Run | Retry | Approve | Waive):
        return pull.head_sha
    if pull.state != "open":
        return _pull_closed(pull)
    if isinstance(command, Run) and pull.from_fork:
        unvouched = _unvouched(command, pull, policy, word)
        if unvouched is not None:
            return unvouched
    named = _named_sha(command)
    if named not in (None, pull.head_sha):
        return _sha_mismatch(named or "", pull.head_sha)
    # A label, a push and a button are about the commit that was the head then; nobody has looked at a newer one.
    if isinstance(event, LabelEvent | PushEvent | CheckEvent) and event.head_sha != pull.head_sha:
        return _head_moved(event.head_sha, pull.head_sha)
    return pull.head_sha


def _unvouched(command: Run, pull: PullRequest, policy: Policy, word: str) -> Denial | None:
    """Why a fork's commit may not be run with this command."""
    if policy.forks == "off":
        words = "**Nothing is run from forks.** The policy says `forks: off` in `.github/dispatch.yml`."
        step = "Push the branch to this repository, or set `forks: sha` on the default branch."
        return Denial("fork-off", words, step, "forks")
    if command.sha is None:
        again = render(
            Run(command.profile, command.recipe, pull.head_sha, overrides=command.overrides, dry_run=command.dry_run, fresh=command.fresh),
            word,
        )
        why = f"The head is {code(pull.head_sha)}; it can change at any time, so the command must name it."
        words = f"**A fork's commit must be vouched for.** {why}"
        vouch = f"somebody who may can vouch for this one: {code(f'{word} approve sha={pull.head_sha}')}"
        return Denial("fork-needs-sha", words, f"Read the change, then comment {code(again, 2000)}; or {vouch}.", "forks")
    return None


def _named_sha(command: Asked) -> str | None:
    """The commit that the command itself names."""
    return command.sha if isinstance(command, Run | Approve) else None


def _sha_mismatch(given: str, head: str) -> Denial:
    words = f"**{code(given[:12])} is not the head.** The head is {code(head)}."
    return Denial("sha-mismatch", words, "Look at the newer commits, then give the head's SHA.")


def _head_moved(granted: str, head: str) -> Denial:
    words = f"**The head has moved.** It was {code(granted[:12])} when this was asked for, and is {code(head[:12])} now."
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
    profile = profile_name(command, policy)
    if not profile:
        words = "**No profile is named.** `.github/dispatch.yml` has no `default_profile`."
        return Denial("no-profile", words, "Name one: `profile=…`.")
    recipe = policy.recipe(command.recipe)
    if isinstance(recipe, UnknownRecipe):
        return _unknown_recipe(recipe)
    refused = overridable(command.overrides, (profile,), recipe_name(command, policy), policy)
    if refused is not None:
        return refused
    return replace(
        grant,
        what="plan" if command.dry_run else "run",
        profile=profile,
        recipe=recipe_name(command, policy),
        overrides=command.overrides,
        dry_run=command.dry_run,
        attempt=command.attempt,
        fresh=command.fresh,
    )


def _unknown_recipe(found: UnknownRecipe) -> Denial:
    known = ", ".join(code(name) for name in found.known) or "none"
    if not found.name:
        return Denial("no-recipe", f"**No recipe is named.** The policy has no default. There are: {known}.", "Name one: `recipe=…`.")
    hint = f"Did you mean **{code(found.nearest)}**? " if found.nearest else ""
    words = f"**There is no recipe {code(found.name)}.** {hint}There are: {known}."
    return Denial("unknown-recipe", words, "Name one of these, or have it added under `recipes:` on the default branch.")
