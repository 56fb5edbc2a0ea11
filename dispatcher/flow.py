"""The story: an event → a command → a grant → a plan → a bundle → a submission → a record → a report.

Each function is one chapter and reads from top to bottom; what a chapter needs of the world it gets as ports. Order matters:
the ledger's lock comes first, then the pending check, then the head is compared again, then the job. So a redelivered or parallel
event meets the lock, a pull request is never green early, and what runs is what was granted.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from typing_extensions import assert_never

from dispatcher.answer import Answer
from dispatcher.authorise import AskedBy, Denial, Facts, admitted, authorise, needed_facts, needed_teams
from dispatcher.command import Cancel, Command, EvaluateGate, Help, Ignored, Scheduled, Status, parse_command
from dispatcher.configuration import profile_names, read_policy
from dispatcher.errors import DispatchError, Exit
from dispatcher.event import CommentEvent, Event, LabelEvent, ManualEvent, MergeGroupEvent, PushEvent, ScheduleEvent
from dispatcher.gatekeeper import evaluate_gate, evaluate_merge_group
from dispatcher.grammar import Malformed, Run
from dispatcher.policy import Policy, Schedule
from dispatcher.publish import publish_answer
from dispatcher.refusals import broken, denied, explained, malformed, told
from dispatcher.running import cancel_run, list_runs
from dispatcher.starting import start_run
from dispatcher.world import Outcome, World, outcome


def handle(event: Event, world: World) -> Outcome:
    """One delivery, from beginning to end. What cannot be done is answered where it was asked; nothing is lost and nothing doubled."""
    command = parse_command(event, world.settings.voice.word)
    if isinstance(command, Ignored):
        return outcome("ignored", command.reason)
    if isinstance(command, Run):
        world.compiler.start()  # the longest step of all, so it begins before anything is asked
    try:
        return _answered(command, event, _marked(event, world))
    finally:
        world.compiler.close()


def _marked(event: Event, world: World) -> World:
    """Our reaction on the command comes before anything else that we write: where it is new, nothing of ours can exist yet.

    Raises `ForgeError` when there can be no reaction; then nothing else is written either.
    """
    if not isinstance(event, CommentEvent) or world.forge is None:
        return world
    new = world.forge.react(event.comment_id, "eyes")
    return replace(world, settings=replace(world.settings, first_delivery=new and world.settings.run_attempt == 1))


def _answered(command: Command, event: Event, world: World) -> Outcome:
    try:
        return _carry_out(command, event, world)
    except DispatchError as error:
        return answer(world, event, broken(error, _trigger(event)), error.exit)


def _carry_out(command: Command, event: Event, world: World) -> Outcome:
    match command:
        case Ignored():
            return outcome("ignored", command.reason)
        case Malformed():
            return answer(world, event, malformed(command, _trigger(event), world.settings.voice), Exit.MALFORMED)
        case EvaluateGate():
            return _gate(event, world)
        case Scheduled():
            return _scheduled(command, event, world)
        case Run():
            return run(command, _asked(event), read_policy(world), world)
        case Cancel() | Status() | Help():
            return _attend(command, _asked(event), read_policy(world), world)
        case _:
            assert_never(command)


def run(command: Run, event: AskedBy, policy: Policy, world: World, schedule: str = "") -> Outcome:
    """A job is asked for: who may, which commit, then `start_run`."""
    granted = authorise(command, event, gather_facts(command, event, policy, world), policy, schedule)
    if isinstance(granted, Denial):
        return answer(world, event, denied(granted, event.trigger), Exit.DENIED)
    started = start_run(granted, event, policy, world)
    return answer(world, event, started, started.exit) if isinstance(started, Answer) else started


def gather_facts(command: Run | Cancel | Status | Help, event: AskedBy, policy: Policy, world: World) -> Facts:
    """The lookups that this decision takes, and no others; each is one request."""
    needed = needed_facts(command, event)
    forge = world.forge
    if forge is None:
        return Facts(actor=needed.actor or "")
    facts = Facts(
        actor=needed.actor or "",
        role=forge.role(needed.actor) if needed.actor and needed.role else None,
        pull=forge.pull(needed.pull) if needed.pull is not None else None,
        head_sha=forge.commit_sha(needed.ref) if needed.ref else None,
    )
    asked = needed_teams(command, facts, policy)
    teams = frozenset(team for team in asked if forge.team_member(*_parts(team), facts.actor))
    return Facts(facts.actor, facts.role, teams, facts.pull, facts.head_sha)


def answer(world: World, event: Event, words: Answer, exit_code: Exit) -> Outcome:
    """Says why nothing was started: in the command's comment where there is a pull request, in the summary and outputs always."""
    url = ""
    if world.forge is not None:
        pull = event.number if isinstance(event, CommentEvent | LabelEvent) else None
        comment = event.comment_id if isinstance(event, CommentEvent) else None
        try:
            url = publish_answer(world.forge, words, pull, _trigger(event), _since(event), comment)
        except DispatchError as error:
            world.say(f"The answer could not be posted: {error.cause} {error.next_step}")
    return Outcome(exit_code, {**words.outputs, "comment-url": url}, words.summary)


def _attend(command: Cancel | Status | Help, event: AskedBy, policy: Policy, world: World) -> Outcome:
    """What a comment may ask of runs that exist."""
    facts = gather_facts(command, event, policy, world)
    granted = authorise(command, event, facts, policy)
    if isinstance(granted, Denial):
        return answer(world, event, denied(granted, event.trigger), Exit.DENIED)
    match command:
        case Cancel():
            words = cancel_run(world, policy, granted, command.run, lambda profile: admitted(profile, facts, policy))
            return answer(world, event, words, words.exit)
        case Status():
            return answer(world, event, list_runs(world, policy, granted), Exit.OK)
        case Help():
            return answer(world, event, explained(policy, profile_names(world), event.trigger, world.settings.voice.word), Exit.OK)
        case _:
            assert_never(command)


def _scheduled(command: Scheduled, event: Event, world: World) -> Outcome:
    """Every schedule of the policy that has this cron expression; the worst one's outputs and exit status are the step's."""
    policy = read_policy(world)
    due = policy.scheduled(command.cron)
    outcomes = [_entry(schedule, event, policy, world) for schedule in due]
    if not outcomes:
        return outcome("ignored", "no-schedule", summary=f"No schedule in the policy has the cron expression `{command.cron}`.")
    worst = max(outcomes, key=lambda item: item.exit)
    return Outcome(worst.exit, worst.outputs, "\n\n".join(item.summary for item in outcomes), worst.record)


def _entry(schedule: Schedule, event: Event, policy: Policy, world: World) -> Outcome:
    """One entry of a schedule. What breaks in it does not stop the next."""
    try:
        return run(schedule.run, _asked(event), policy, world, schedule.name)
    except DispatchError as error:
        return answer(world, event, broken(error, _trigger(event)), error.exit)


def _gate(event: Event, world: World) -> Outcome:
    """A pull request has a new head, or a merge queue has made a commit: the gate is pending from the first second."""
    policy = read_policy(world)
    match event:
        case PushEvent():
            judged = evaluate_gate(world, policy, event.number)
        case MergeGroupEvent():
            judged = evaluate_merge_group(world, policy, event)
        case _:
            return outcome("ignored", "other-event")
    # The verdict is the check's to tell. A job that has told it has done well, or every new pull request would begin with a red cross.
    return replace(judged, exit=Exit.OK) if judged.outputs["decision"] == "gate" else judged


def _asked(event: Event) -> AskedBy:
    assert isinstance(event, CommentEvent | LabelEvent | ManualEvent | ScheduleEvent | MergeGroupEvent)
    return event


def _trigger(event: Event) -> str:
    return getattr(event, "trigger", "")


def _parts(team: str) -> tuple[str, str]:
    org, _, name = team.partition("/")
    return org, name


def _since(event: Event) -> datetime | None:
    """Since when a comment of ours about this event can exist; None when the event does not say."""
    return told(event.created_at) if isinstance(event, CommentEvent) else None
