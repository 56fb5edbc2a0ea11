"""One run or a sweep is asked for → who may, for which commit → `start_runs`."""

from __future__ import annotations

from dataclasses import replace

from dispatcher.answer import Answer
from dispatcher.answering import answer
from dispatcher.approval import APPROVAL_NAME, waiting
from dispatcher.authorise import AskedBy, Denial, Facts, Grant, authorise
from dispatcher.event import CheckEvent, CommentEvent, Event, LabelEvent, ManualEvent, MergeGroupEvent, PushEvent, ScheduleEvent
from dispatcher.grammar import Run, Sweep
from dispatcher.limits import too_many
from dispatcher.lookups import gather_facts
from dispatcher.parking import Asked, park
from dispatcher.policy import Policy
from dispatcher.refusals import denied
from dispatcher.staging import stage_grants
from dispatcher.starting import start_runs
from dispatcher.world import Outcome, World

# What an approval would change: who asked has no rights here, or has not named the fork's commit.
VOUCHABLE = frozenset({"not-a-collaborator", "role-too-low", "fork-needs-sha"})


def run(command: Run | Sweep, event: Event, policy: Policy, world: World, schedule: str = "") -> Outcome:
    """Jobs are asked for: who may, which commit, then `start_runs`."""
    asked = asked_by(event)
    runs = command.runs if isinstance(command, Sweep) else (command,)
    many = too_many(len(runs), 1, policy)
    if many is not None:
        return answer(world, event, denied(many, asked.trigger))
    facts = gather_facts(runs, asked, policy, world)
    grants = granted(runs, asked, facts, policy, world.settings.voice.word, schedule)
    if isinstance(grants, Denial):
        waits = _waits_for_a_voucher(grants, runs, asked, facts, policy, world)
        return answer(world, event, waits or denied(grants, asked.trigger))
    started = start_runs(grants, facts, asked, policy, world)
    return answer(world, event, started) if isinstance(started, Answer) else started


def granted(
    runs: tuple[Run, ...], event: AskedBy, facts: Facts, policy: Policy, word: str, schedule: str = ""
) -> tuple[Grant, ...] | Denial:
    """A grant for each run and each stage of a pipeline, or the first no: of one command everything may run, or nothing does.

    `word` begins what is suggested.
    """
    grants: list[Grant] = []
    for number, item in enumerate(runs):
        decision = authorise(item, event, facts, policy, schedule, word)
        stages = decision if isinstance(decision, Denial) else stage_grants(decision, number, facts, policy)
        if isinstance(stages, Denial):
            return stages
        grants += stages
    return tuple(grants)


def asked_by(event: Event) -> AskedBy:
    """The event as one that can ask for something."""
    kinds = CommentEvent | LabelEvent | ManualEvent | ScheduleEvent | MergeGroupEvent | CheckEvent | PushEvent
    assert isinstance(event, kinds), "only these carry such commands"
    return event


def _waits_for_a_voucher(
    denial: Denial, runs: tuple[Run, ...], event: AskedBy, facts: Facts, policy: Policy, world: World
) -> Answer | None:
    """A fork's author may ask, and whoever has the right to may ask without the SHA: it then waits for `approve sha=…`."""
    pull = facts.pull
    if denial.reason not in VOUCHABLE or pull is None or not pull.from_fork or policy.forks != "sha" or world.forge is None:
        return None
    if pull.state != "open" or not isinstance(event, CommentEvent):
        return None
    if denial.reason != "fork-needs-sha" and facts.actor.lower() != pull.author.lower():
        return None
    if any(item.sha not in (None, pull.head_sha) or item.dry_run for item in runs):
        return None
    if denial.reason != "fork-needs-sha" and waiting(world.forge.find_checks(pull.head_sha, APPROVAL_NAME), pull.head_sha):
        return None  # One request of a stranger's is enough for one commit.
    request = Asked(
        pull.head_sha, event.trigger, facts.actor, pull.number, tuple(replace(item, sha=None) for item in runs), "fork", "forks"
    )
    return park(request, event, world)
