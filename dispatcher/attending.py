"""What somebody asks about runs that exist, or about the rules → an answer, and what it does: cancel, retry, approve, override …"""

from __future__ import annotations

from dataclasses import replace

from typing_extensions import assert_never

from dispatcher.accepting import accept
from dispatcher.answer import Answer
from dispatcher.answering import answer
from dispatcher.approving import approve
from dispatcher.asking import asked_by
from dispatcher.authorise import AskedBy, Denial, Facts, Grant, admitted, authorise, needed_teams
from dispatcher.configuration import guarded, profile_names
from dispatcher.connections import one_connection_each
from dispatcher.event import CheckEvent, Event
from dispatcher.grammar import Run
from dispatcher.helping import help_words
from dispatcher.lookups import gather_facts, with_teams
from dispatcher.policy import Policy
from dispatcher.record import RunRecord
from dispatcher.refusals import answered, denied
from dispatcher.retrying import retry
from dispatcher.rights import named_teams
from dispatcher.running import Found, cancel_runs, runs_of_pull, runs_table, show_log
from dispatcher.verbs import AcceptBaseline, Approve, Cancel, Help, Logs, Retry, Status, Waive
from dispatcher.waiving import waive
from dispatcher.world import Outcome, World

Attended = Status | Help | Logs | Cancel | Retry | Approve | Waive | AcceptBaseline


def attend(command: Attended, event: Event, policy: Policy, world: World) -> Outcome:
    """Whoever may give commands at all may look; what changes something asks for more."""
    asked = asked_by(event)
    facts = gather_facts((command,), asked, policy, world)
    grant = authorise(command, asked, facts, policy, word=world.settings.voice.word)
    if isinstance(grant, Denial):
        return answer(world, event, denied(grant, asked.trigger, lead="Not done"))
    with one_connection_each(guarded(world, policy)) as connected:
        done = _done(command, asked, grant, facts, policy, connected)
    return done if isinstance(done, Outcome) else answer(world, event, _of_a_button(done, event))


def _done(command: Attended, event: AskedBy, grant: Grant, facts: Facts, policy: Policy, world: World) -> Outcome | Answer:
    match command:
        case Help():
            known = with_teams(facts, named_teams(policy), world)
            return help_words(command.topic, policy, known, profile_names(world), world.settings.voice.word, grant.trigger)
        case Status():
            records = [item.record for item in _runs(grant, policy, world)]
            return answered("status", runs_table(records, world), grant.trigger)
        case Logs():
            return show_log(world, command, _runs(grant, policy, world), grant.trigger)
        case Cancel():

            def may(record: RunRecord) -> str | Denial:
                teams = needed_teams(Run(record.profile, record.recipe), facts, policy)
                return admitted(record.profile, record.recipe, with_teams(facts, teams, world), policy)

            return cancel_runs(world, policy, command, _runs(grant, policy, world), grant.actor, grant.trigger, may)
        case Retry():
            return retry(command, event, grant, facts, _runs(grant, policy, world), policy, world)
        case Approve():
            return approve(command, event, grant, facts, policy, world)
        case Waive():
            return waive(command, grant, facts, policy, world)
        case AcceptBaseline():
            return accept(command, grant, facts, _runs(grant, policy, world), policy, world)
        case _:
            assert_never(command)


def _runs(grant: Grant, policy: Policy, world: World) -> list[Found]:
    assert grant.number is not None, "comments and checks are on pull requests"
    return runs_of_pull(world, policy, grant.repository, grant.number)


def _of_a_button(words: Answer, event: Event) -> Answer:
    """A button's answer has no command to react to."""
    return replace(words, reaction=None) if isinstance(event, CheckEvent) else words
