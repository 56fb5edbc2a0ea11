"""What happens to a pull request (a new head, a draft, an end, the merge queue) → its gate judged, runs ended, standing labels acted on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dispatcher.answering import answer
from dispatcher.asking import run
from dispatcher.command import parse_command
from dispatcher.configuration import guarded, read_profile
from dispatcher.connections import one_connection_each
from dispatcher.dependents import last_first
from dispatcher.errors import DispatchError, Exit
from dispatcher.event import CheckEvent, ClosedEvent, DraftEvent, Event, LabelEvent, MergeGroupEvent, PushEvent
from dispatcher.gate import NotStarted, Requirement
from dispatcher.gatekeeper import evaluate_gate, evaluate_merge_group, required_for_queue
from dispatcher.grammar import Run
from dispatcher.packing import package_spec
from dispatcher.policy import Policy
from dispatcher.ports import PullRequest
from dispatcher.profile import UnknownProfile
from dispatcher.recipe import Recipe
from dispatcher.record import RunRecord
from dispatcher.refusals import broken
from dispatcher.running import end_run, runs_of_pull
from dispatcher.runprofile import with_recipe
from dispatcher.slurm import State
from dispatcher.untrusted import code
from dispatcher.world import Outcome, World, outcome

# What a standing label acts on: the first head of a pull request has a `labeled` event of its own.
NEW_HEAD = ("synchronize", "ready_for_review", "reopened")


def head_moved(event: Event, policy: Policy, world: World) -> Outcome:
    """A new head: the gate is pending from the first second, runs of older heads end if the policy says so, standing labels ask again."""
    if not isinstance(event, PushEvent):
        return outcome("ignored", "other-event")
    judged = _gate_answer(evaluate_gate(world, policy, event.number))
    pages = [judged.summary]
    if (
        policy.pulls.superseded == "cancel"
        and event.action == "synchronize"
        and _holds(world, event, lambda pull: pull.head_sha == event.head_sha)
    ):

        def older(record: RunRecord) -> bool:
            return record.sha != event.head_sha and not _packs_the_same(record, event.head_sha, policy, world)

        pages += _end(world, policy, event.repository, event.number, older, "a newer commit was pushed")
    started = _standing(event, policy, world)
    worst = max([judged, *started], key=lambda item: item.exit)
    chosen = worst if started and worst.exit != Exit.OK else judged
    return replace(chosen, summary="\n\n".join([*pages, *(item.summary for item in started)]))


def _packs_the_same(record: RunRecord, sha: str, policy: Policy, world: World) -> bool:
    """Whether a run's job is the new head's, too: it packs the same files, so whoever asks for that joins this one (`reuse.py`)."""
    recipe = policy.recipe(record.recipe)
    if not policy.reuse.runs or record.state not in (State.PENDING, State.RUNNING) or record.stage or not isinstance(recipe, Recipe):
        return False
    try:
        resolved = read_profile(world, policy, record.profile)
        if isinstance(resolved, UnknownProfile):
            return False
        same = world.archive().describe(sha, package_spec(recipe, with_recipe(resolved.profile, recipe))).digest == record.digest
    except DispatchError as error:
        world.say(f"Whether {sha[:12]} packs the same as run {record.run_key} could not be found out: {error.cause}")
        return False
    if same:
        world.say(f"Run {record.run_key} goes on: {sha[:12]} packs the same files.")
    return same


def pull_closed(event: Event, policy: Policy, world: World) -> Outcome:
    """A pull request was closed: its runs end if the policy says so."""
    if not isinstance(event, ClosedEvent) or policy.pulls.closed != "cancel" or not _holds(world, event, lambda pull: pull.state != "open"):
        return outcome("ignored", "pull-closed")
    return _ended(world, policy, event, "the pull request was closed")


def pull_drafted(event: Event, policy: Policy, world: World) -> Outcome:
    """A pull request became a draft: its runs end if the policy says so."""
    if not isinstance(event, DraftEvent) or policy.pulls.draft != "cancel" or not _holds(world, event, lambda pull: pull.draft):
        return outcome("ignored", "draft")
    return _ended(world, policy, event, "the pull request became a draft")


def merge_queued(event: Event, policy: Policy, world: World) -> Outcome:
    """The queue's commit has a tree of its own: what the gate requires is run on it, and the gate waits for that.

    What cannot be started fails: nobody would start it later, and the queue would wait until its time is up.
    """
    if not isinstance(event, MergeGroupEvent):
        return outcome("ignored", "other-event")
    judged = evaluate_merge_group(world, policy, event)
    started: list[Outcome] = []
    pages: list[str] = []
    unstarted: dict[tuple[str, str], NotStarted] = {}
    if judged.outputs["reason-code"] == "pending":
        for required in required_for_queue(policy, event):
            done, why = _begun_for_queue(required, event, policy, world)
            started.append(done)
            pages += [] if why else [done.summary]  # the gate's own page has why one was not
            unstarted |= {(required.profile, required.recipe): why} if why else {}
    if started:
        judged = evaluate_merge_group(world, policy, event, unstarted=unstarted)
    worst = max(started, key=lambda item: item.exit, default=judged)
    told = worst if worst.exit not in (Exit.OK, Exit.RUN_FAILED) else _gate_answer(judged)
    return replace(told, summary="\n\n".join([judged.summary, *pages]))


def _begun_for_queue(required: Requirement, event: MergeGroupEvent, policy: Policy, world: World) -> tuple[Outcome, NotStarted | None]:
    """One required run, and why there is none and will be none; None where there is one, or may be."""
    try:
        done = run(Run(required.profile, required.recipe), event, policy, world)
    except DispatchError as error:
        told = answer(world, event, broken(error, event.trigger))
        return told, None if error.job_may_exist else NotStarted(error.code, told.summary)
    match done.outputs["decision"]:
        case "run" | "duplicate":
            return done, None
        case "plan":
            return done, NotStarted("dry-run", f"Profile {code(required.profile)} has `dry_run`: nothing is ever run with it.")
        case _:
            return done, NotStarted(done.outputs["reason-code"], done.summary)


def gate_again(event: Event, policy: Policy, world: World) -> Outcome:
    """Somebody wants the gate looked at again, or gave the pull request a label that may ask for a run."""
    if isinstance(event, LabelEvent) and not any(rule.labels for rule in policy.gate.required):
        return outcome("ignored", "other-label")
    if isinstance(event, CheckEvent | LabelEvent) and event.number is not None:
        return _gate_answer(evaluate_gate(world, policy, event.number))
    return outcome("ignored", "other-event")


def _gate_answer(judged: Outcome) -> Outcome:
    """The verdict is the check's to tell. A job that has told it has done well, or every new pull request would begin with a red cross."""
    return replace(judged, exit=Exit.OK) if judged.outputs["decision"] == "gate" else judged


def _standing(event: PushEvent, policy: Policy, world: World) -> list[Outcome]:
    """Labels that ask for a run of each new head: as if whoever pushed had just set them."""
    if policy.pulls.labels != "standing" or event.action not in NEW_HEAD or event.draft:
        return []
    found = []
    for label in event.labels:
        own = _as_labelled(event, label)
        command = parse_command(own, world.settings.voice.word)
        if isinstance(command, Run):
            try:
                found.append(run(command, own, policy, world))
            except DispatchError as error:
                found.append(answer(world, own, broken(error, own.trigger)))
    return found


def _as_labelled(event: PushEvent, label: str) -> LabelEvent:
    return LabelEvent(
        repository=event.repository,
        number=event.number,
        label=label,
        head_sha=event.head_sha,
        head_repository=event.head_repository,
        base_ref=event.base_ref,
        sender=event.sender,
        updated_at="",
        from_fork=event.from_fork,
        default_branch=event.default_branch,
        event_name="pull_request_target",
        of_a_push=True,
    )


def _holds(world: World, event: PushEvent | ClosedEvent | DraftEvent, still: Callable[[PullRequest], bool]) -> bool:
    """Whether what the event says is still so. One that comes late, or is delivered again, must not end what was started since."""
    pull = world.forge.pull(event.number) if world.forge is not None else None
    return pull is not None and still(pull)


def _ended(world: World, policy: Policy, event: ClosedEvent | DraftEvent, why: str) -> Outcome:
    lines = _end(world, policy, event.repository, event.number, lambda record: True, why)
    return outcome("answered", "cancelled" if lines else "nothing-active", summary="\n".join(lines))


def _end(world: World, policy: Policy, repository: str, number: int, which: Callable[[RunRecord], bool], why: str) -> Sequence[str]:
    """Ends a pull request's active runs that are meant → a line about each. Their comments follow at the next look."""
    lines = []
    with one_connection_each(guarded(world, policy)) as connected:
        found = runs_of_pull(connected, policy, repository, number)
        items = {item.record.run_key: item for item in found if not item.record.state.ended and which(item.record)}
        for record in last_first([item.record for item in items.values()]):
            item = items[record.run_key]
            told = end_run(item, why, policy, connected)
            lines.append(f"- `{record.run_key[:8]}` ({record.profile} / {record.name}): {told or 'is being ended'}, because {why}")
            world.say(f"Run {record.run_key}: {told or 'is being ended'}, because {why}.")
    return lines
