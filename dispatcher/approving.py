"""`approve sha=…`: what waits on a commit → runs, when whoever approves may vouch for each of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from dispatcher.answer import Answer
from dispatcher.applies import asks_for_approval
from dispatcher.approval import APPROVAL_NAME, Request, request_check, waiting
from dispatcher.asking import granted
from dispatcher.authorise import AskedBy, Denial, Facts, Grant, approver_teams, may_approve
from dispatcher.configuration import read_profile
from dispatcher.event import CheckEvent, CommentEvent, LabelEvent, PushEvent
from dispatcher.grammar import Run
from dispatcher.lookups import gather_facts, with_teams
from dispatcher.policy import Policy
from dispatcher.ports import CheckRef
from dispatcher.profile import UnknownProfile
from dispatcher.publish import publish_answer
from dispatcher.refusals import answered, denied, nothing_waits, told
from dispatcher.resuming import resumed
from dispatcher.retrying import CLOCKS
from dispatcher.running import runs_of_pull
from dispatcher.staging import expanded
from dispatcher.starting import start_runs
from dispatcher.verbs import Approve
from dispatcher.world import Outcome, World


def approve(command: Approve, event: AskedBy, grant: Grant, facts: Facts, policy: Policy, world: World) -> Outcome | Answer:
    """Starts everything that waited on exactly this commit when this person approved, and that they may approve."""
    assert world.forge is not None, "approvals are given on GitHub"
    requests = [item for item in waiting(world.forge.find_checks(command.sha, APPROVAL_NAME), command.sha) if _meant(item[1], event, facts)]
    if not requests:
        return nothing_waits(command.sha, grant.trigger, world.settings.voice)
    # The requests have comments and perhaps checks already, however new the approval is.
    later = replace(world, settings=replace(world.settings, first_delivery=False))
    outcomes = [_approved(check, request, event, facts, policy, later) for check, request in requests]
    refused = [item for item in outcomes if isinstance(item, Answer)]
    if refused:
        return replace(refused[0], exit=max(item.exit for item in refused))
    done = [item for item in outcomes if isinstance(item, Outcome)]
    running = [item for item in done if item.outputs["decision"] in ("run", "duplicate")]
    words = answered("approved", [f"### ✅ Approved: {len(running)} of {len(requests)} requests run now"], grant.trigger)
    comment = event.comment_id if isinstance(event, CommentEvent) else None
    if comment is not None:
        world.forge.react(comment, "+1")
    worst = max(done, key=lambda item: (item.exit, item in running))
    summary = "\n\n".join([words.summary, *(item.summary for item in done)])
    said = {**worst.outputs, "reason-code": "approved"} if worst.outputs["decision"] == "run" else worst.outputs
    return Outcome(worst.exit, said, summary, worst.record)


def _meant(request: Request, event: AskedBy, facts: Facts) -> bool:
    """Whether whoever approves can have meant this request: that of the button, or what had been asked for on this pull request before."""
    if facts.pull is not None and request.number not in (None, facts.pull.number):
        return False
    if isinstance(event, CheckEvent):
        return request.external_id == event.external_id
    asked, approved = told(request.asked_at), told(event.created_at) if isinstance(event, CommentEvent) else None
    if asked is None or approved is None:
        return True
    # Both are GitHub's times where both are comments; else one of them is by our clock.
    return asked <= approved + (timedelta() if request.comment is not None else CLOCKS)


def _approved(check: CheckRef, request: Request, event: AskedBy, facts: Facts, policy: Policy, world: World) -> Outcome | Answer:
    """One request. Its own trigger goes with it, so that two who approve at once start one run, in the requester's comment."""
    assert world.forge is not None
    assert facts.pull is not None, "authorise has looked"
    number = facts.pull.number
    runs = tuple(replace(run, sha=request.sha) for run in request.runs())
    for run in expanded(runs, policy):
        extends = _extends(run, policy, world)
        facts = with_teams(facts, approver_teams(facts, policy, *_names(run, policy), request.why == "second", extends), world)
        # Neither who asked nor who vouched for the commit is a second person.
        for first in filter(None, (request.actor, request.voucher)):
            rule = may_approve(facts, policy, *_names(run, policy), first, request.why == "second", extends)
            if isinstance(rule, Denial):
                return denied(rule, event.trigger, lead="Not done")
    # Permission anew: for a fork's commit the approver's, for a second person's word that of the first one with the right.
    first = request.voucher or request.actor
    who = gather_facts(runs, _as_if(event, first), policy, world) if request.why == "second" else facts
    grants = _grants(runs, request, event, facts, who, policy, world)
    if isinstance(grants, Denial):
        return denied(grants, event.trigger)
    grants = _only_what_is_missing(grants, request, number, policy, world)
    started = start_runs(grants, who, _as_asked(event, request, number), policy, world)
    if isinstance(started, Answer):
        # The answer belongs to the request: what it asked for cannot be, or waits for somebody else still.
        publish_answer(world.forge, started, number, request.trigger, None, request.comment)
        return Outcome(started.exit, started.outputs, started.summary)
    world.forge.update_check(check.id, request_check(request, world.settings.voice.word, facts.actor))
    return started


def _grants(
    runs: tuple[Run, ...], request: Request, event: AskedBy, facts: Facts, who: Facts, policy: Policy, world: World
) -> tuple[Grant, ...] | Denial:
    """What may run by `who`'s rights, as the policy is now, with who vouched for it and who agreed."""
    decided = granted(runs, event, who, policy, world.settings.voice.word)
    if isinstance(decided, Denial):
        return decided
    agrees = request.why == "second" or _agrees_too(runs, request, event, facts, policy, world)
    approved = facts.actor if agrees else ""
    vouched = request.voucher if request.why == "second" else facts.actor
    return tuple(
        replace(grant, trigger=request.trigger, actor=request.actor, retry_of=request.retry_of, approved_by=approved, vouched_by=vouched)
        for grant in decided
    )


def _only_what_is_missing(grants: tuple[Grant, ...], request: Request, number: int, policy: Policy, world: World) -> tuple[Grant, ...]:
    """Of a pipeline whose retry was asked for, what had failed when it was asked for, and what comes after that; else all."""
    if not request.retry_of or not any(grant.stage for grant in grants):
        return grants
    runs = [item.record for item in runs_of_pull(world, policy, world.settings.repository, number)]
    repeated = [record for record in runs if record.run_key == request.retry_of]
    return resumed(grants, repeated, runs, request.sha, policy)


def _agrees_too(runs: tuple[Run, ...], request: Request, event: AskedBy, facts: Facts, policy: Policy, world: World) -> bool:
    """Whether who vouches for a fork's commit is the second person as well: only where who asked is a first one, with the right to.

    Else one person with rights, and an account that anybody can make, would be two.
    """
    if not asks_for_approval(policy):
        return False
    asked = _as_if(event, request.actor)
    if isinstance(granted(runs, asked, gather_facts(runs, asked, policy, world), policy, world.settings.voice.word), Denial):
        return False
    for run in expanded(runs, policy):
        names, extends = _names(run, policy), _extends(run, policy, world)
        facts = with_teams(facts, approver_teams(facts, policy, *names, True, extends), world)
        if isinstance(may_approve(facts, policy, *names, request.actor, True, extends), Denial):
            return False
    return True


def _extends(run: Run, policy: Policy, world: World) -> tuple[str, ...]:
    """The profiles that the run's profile extends: their rules count too. One that does not exist is refused later, with its name."""
    resolved = read_profile(world, policy, _names(run, policy)[0])
    return () if isinstance(resolved, UnknownProfile) else resolved.lineage[1:]


def _names(run: Run, policy: Policy) -> tuple[str, str]:
    return run.profile or policy.default_profile or "", run.recipe or policy.default_recipe or ""


def _as_if(event: AskedBy, login: str) -> AskedBy:
    """The event as if somebody else had sent it: about whom the lookups are."""
    if isinstance(event, CommentEvent):
        return replace(event, author=login)
    return replace(event, sender=login) if isinstance(event, LabelEvent | CheckEvent | PushEvent) else event


def _as_asked(event: AskedBy, request: Request, number: int) -> AskedBy:
    """The event that the request came by, as far as reports need it: its comment, and when that was written."""
    if request.comment is None:
        return event
    return CommentEvent(
        repository=event.repository,
        number=number,
        is_pull=True,
        pull_state="open",
        comment_id=request.comment,
        body="",
        author=request.actor,
        author_is_bot=False,
        action="created",
        created_at=request.asked_at,
        comment_url="",
        default_branch=event.default_branch,
    )
