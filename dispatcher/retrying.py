"""`retry`: runs that exist → the same asked for once more, on the head as it is now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from dispatcher.answer import Answer
from dispatcher.asking import granted
from dispatcher.authorise import AskedBy, Denial, Facts, Grant, needed_teams
from dispatcher.event import CommentEvent
from dispatcher.grammar import Malformed
from dispatcher.lookups import with_teams
from dispatcher.policy import Policy
from dispatcher.record import RunRecord
from dispatcher.refusals import denied, malformed, nothing_failed, told
from dispatcher.resuming import asked_again, newest_pipelines
from dispatcher.running import Found, which
from dispatcher.staging import expanded
from dispatcher.starting import start_runs
from dispatcher.verbs import Retry
from dispatcher.world import Outcome, World

# GitHub's clock and ours may differ by this much.
CLOCKS = timedelta(minutes=2)


def retry(
    command: Retry, event: AskedBy, grant: Grant, facts: Facts, runs: Sequence[Found], policy: Policy, world: World
) -> Outcome | Answer:
    """Starts again what failed (or all, or one), if whoever asks may use its profile. Several become one command's runs."""
    # What this very command has started is left out: delivered again, it means the same runs as before.
    runs = [item for item in runs if item.record.trigger != grant.trigger and not (command.run is None and _came_later(item.record, event))]
    chosen = chosen_runs(command, [item.record for item in runs], grant.sha)
    if not chosen:
        if command.run:
            return which(
                [item.record for item in runs if item.record.run_key.startswith(command.run)], command.run, grant.trigger, world, "retry"
            )
        return nothing_failed(grant.trigger, world.settings.voice, bool(runs))
    if command.run and len(chosen) > 1:
        return which(chosen, command.run, grant.trigger, world, "retry")
    asked = asked_again(chosen, [item.record for item in runs], grant.sha)
    if isinstance(asked, Malformed):
        return malformed(asked, grant.trigger, world.settings.voice)
    wanted = expanded([item.run for item in asked], policy)
    facts = with_teams(facts, [team for run in wanted for team in needed_teams(run, facts, policy)], world)
    grants: list[Grant] = []
    for number, item in enumerate(asked):
        decided = granted((item.run,), event, facts, policy, world.settings.voice.word)
        if isinstance(decided, Denial):
            return denied(decided, grant.trigger)
        grants += item.narrowed(decided, number, policy)
    return start_runs(grants, facts, event, policy, world)


def _came_later(record: RunRecord, event: AskedBy) -> bool:
    """Whether the run was asked for when the command had long been given: an old event that is delivered again means no newer runs."""
    given = told(event.created_at) if isinstance(event, CommentEvent) else None
    return given is not None and record.asked_at > given + CLOCKS


def chosen_runs(command: Retry, records: Sequence[RunRecord], head: str) -> list[RunRecord]:
    """Which of a pull request's runs (oldest first) are meant: the newest of each kind, those that failed, unless more is asked for.

    A named run is meant even when it is not the newest of its kind, but not while it is still going on.
    """
    if command.run:
        return [record for record in records if record.run_key.startswith(command.run) and record.state.ended]
    on_github = newest_pipelines([record for record in records if record.origin == "github"])
    newest = {(record.profile, record.name, record.recipe, record.overrides): record for record in on_github}
    on_head = [record for record in newest.values() if record.sha == head] or list(newest.values())
    return [record for record in on_head if record.state.ended and (command.all or failed(record))]


def failed(record: RunRecord) -> bool:
    """Whether it ended, and not well."""
    return record.state.ended and not record.ended_well
