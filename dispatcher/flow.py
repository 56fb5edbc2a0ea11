"""The story: an event → its commands → grants → plans → bundles → submissions → records → reports.

Each function is one chapter and reads from top to bottom; what a chapter needs of the world it gets as ports. Order matters:
the ledger's lock comes first, then the pending check, then the head is compared again, then the job. So a redelivered or parallel
event meets the lock, a pull request is never green early, and what runs is what was granted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import assert_never

from dispatcher.answering import answer, trigger_of
from dispatcher.asking import run
from dispatcher.attending import attend
from dispatcher.command import (
    Command,
    Drafted,
    EvaluateGate,
    HeadMoved,
    Ignored,
    MergeQueued,
    PullClosed,
    Scheduled,
    Several,
    parse_command,
)
from dispatcher.configuration import read_policy
from dispatcher.errors import DispatchError, Exit
from dispatcher.event import CheckEvent, CommentEvent, Event, LabelEvent, ManualEvent, MergeGroupEvent
from dispatcher.gatekeeper import refuse_merge_group
from dispatcher.grammar import Malformed, Run, Sweep
from dispatcher.lifecycle import gate_again, head_moved, merge_queued, pull_closed, pull_drafted
from dispatcher.limits import too_many
from dispatcher.policy import Policy, Schedule
from dispatcher.refusals import broken, denied, malformed
from dispatcher.verbs import AcceptBaseline, Approve, Cancel, Help, Logs, Retry, Status, Verb, Waive
from dispatcher.world import Outcome, World, outcome


def handle(event: Event, world: World) -> Outcome:
    """One delivery, from beginning to end. What cannot be done is answered where it was asked; nothing is lost and nothing doubled."""
    command = parse_command(event, world.settings.voice.word)
    if isinstance(command, Ignored):
        return outcome("ignored", command.reason)
    if isinstance(event, CheckEvent) and event.app_slug != world.settings.app_slug:
        return outcome("ignored", "other-check")
    if _is_anothers(command, event, world):
        told = "Somebody else's command is not given again by re-running its workflow: what it means now, they have not seen."
        return outcome("denied", "rerun-by-another", Exit.DENIED, f"{told} Give the command yourself.")
    if isinstance(command, Run | Sweep | Retry | Approve):
        world.compiler.start()  # the longest step of all, so it begins before anything is asked
    try:
        return _tidied(_answered(command, event, _marked(event, world)), command, event, world)
    finally:
        world.compiler.close()


def _is_anothers(command: Command, event: Event, world: World) -> bool:
    """Whether this is an old event that somebody else has had handled once more, which GitHub lets everybody with write access do.

    An approval, an exception or a run would be for the head and the requests of now, in the name of who gave the command back then.
    Other events name the commit that they are about, or nobody.
    """
    by = world.settings.rerun_by.lower()
    looks = command.commands if isinstance(command, Several) else (command,)
    if not by or all(isinstance(item, Status | Help | Logs | Malformed) for item in looks):
        return False
    match event:
        case CommentEvent():
            return event.author.lower() != by
        case ManualEvent():
            return event.sender.lower() != by
        case _:
            return False


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
        words = broken(error, trigger_of(event))
        if isinstance(event, MergeGroupEvent) and world.forge is not None:
            refuse_merge_group(world, event, words.reason, words.summary)
        return answer(world, event, words, error.exit)


def _carry_out(command: Command, event: Event, world: World) -> Outcome:
    match command:
        case Ignored():
            return outcome("ignored", command.reason)
        case Malformed():
            return answer(world, event, malformed(command, trigger_of(event), world.settings.voice))
        case EvaluateGate():
            return gate_again(event, read_policy(world), world)
        case HeadMoved():
            return head_moved(event, read_policy(world), world)
        case PullClosed():
            return pull_closed(event, read_policy(world), world)
        case Drafted():
            return pull_drafted(event, read_policy(world), world)
        case MergeQueued():
            return merge_queued(event, read_policy(world), world)
        case Scheduled():
            return _scheduled(command, event, world)
        case Several():
            return _several(command.commands, event, read_policy(world), world)
        case _:
            return _one(command, event, read_policy(world), world)


def _one(command: Verb, event: Event, policy: Policy, world: World) -> Outcome:
    """One thing that somebody asks for."""
    match command:
        case Run() | Sweep():
            return run(command, event, policy, world)
        case Status() | Help() | Logs() | Cancel() | Retry() | Approve() | Waive() | AcceptBaseline():
            return attend(command, event, policy, world)
        case _:
            assert_never(command)


def _several(commands: Sequence[Verb], event: Event, policy: Policy, world: World) -> Outcome:
    """The commands of one comment, one after the other, each with its own answer. What breaks in one does not stop the next."""
    many = too_many(1, len(commands), policy)
    if many is not None:
        return answer(world, event, denied(many, trigger_of(event)))
    outcomes = []
    for number, command in enumerate(commands, 1):
        own = replace(event, line=number) if isinstance(event, CommentEvent) else event
        try:
            outcomes.append(_one(command, own, policy, world))
        except DispatchError as error:
            outcomes.append(answer(world, own, broken(error, trigger_of(own)), error.exit))
    return together(outcomes)


def _scheduled(command: Scheduled, event: Event, world: World) -> Outcome:
    """Every schedule of the policy that has this cron expression."""
    policy = read_policy(world)
    outcomes = [_entry(schedule, event, policy, world) for schedule in policy.scheduled(command.cron)]
    if not outcomes:
        return outcome("ignored", "no-schedule", summary=f"No schedule in the policy has the cron expression `{command.cron}`.")
    return together(outcomes)


def _entry(schedule: Schedule, event: Event, policy: Policy, world: World) -> Outcome:
    """One entry of a schedule. What breaks in it does not stop the next."""
    try:
        return run(schedule.run, event, policy, world, schedule.name)
    except DispatchError as error:
        return answer(world, event, broken(error, trigger_of(event)), error.exit)


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Several outcomes → one: the worst one's outputs and exit status are the step's, the summaries follow each other."""
    worst = max(outcomes, key=lambda item: item.exit)
    return Outcome(worst.exit, worst.outputs, "\n\n".join(item.summary for item in outcomes if item.summary), worst.record)


def _tidied(ended: Outcome, command: Command, event: Event, world: World) -> Outcome:
    """A label that asked for one run is taken off when it has been acted on, or refused: it would say something that is not so."""
    if not isinstance(event, LabelEvent) or world.forge is None or ended.outputs["decision"] == "duplicate":
        return ended
    if isinstance(command, EvaluateGate):  # a label that asks for nothing, and is not ours
        return ended
    refused = ended.outputs["decision"] in ("denied", "malformed", "refused")
    try:
        if refused or read_policy(world).pulls.labels == "once":
            world.forge.remove_label(event.number, event.label)
    except DispatchError as error:
        world.say(f"The label could not be taken off: {error.cause}")
    return ended
