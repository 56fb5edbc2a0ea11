"""Grants of one command → its runs and their first report, or words that say why nothing was started.

Everything is prepared before anything is begun: of a command that becomes several runs, all can be refused and none is half done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from typing_extensions import assert_never

from dispatcher.action import blank_outputs
from dispatcher.answer import Answer
from dispatcher.authorise import AskedBy, Denial, Facts, Grant
from dispatcher.configuration import guarded
from dispatcher.connections import one_connection_each
from dispatcher.errors import DispatchError, Exit
from dispatcher.event import CommentEvent
from dispatcher.firstreport import first_report, first_reports
from dispatcher.following import follow
from dispatcher.gatekeeper import judge_begun
from dispatcher.group import group_lines
from dispatcher.jobplan import JobPlan
from dispatcher.limits import too_many
from dispatcher.observe import Seen
from dispatcher.parking import Asked, park
from dispatcher.policy import Policy
from dispatcher.preparing import Prepared, prepare
from dispatcher.previewing import shown
from dispatcher.record import RunRecord
from dispatcher.refusals import answered, denied
from dispatcher.report import outputs, run_report
from dispatcher.sequence import as_it_will_be, begin_all, when_its_turn_comes
from dispatcher.staging import asked_runs, members
from dispatcher.submitting import Beginning, Begun, Busy, NotBegun, submitted
from dispatcher.untrusted import code
from dispatcher.world import Outcome, World


def start_runs(grants: Sequence[Grant], facts: Facts | None, event: AskedBy, policy: Policy, world: World) -> Outcome | Answer:
    """From permission to jobs with their one comment and their checks. `facts` are the actor's; None where nobody is asked about."""
    world = guarded(world, policy)
    first = grants[0]
    many = too_many(len(grants), 1, policy)
    if many is not None:
        return denied(many, first.trigger)
    prepared: list[Prepared] = []
    for grant in grants:
        ready = prepare(grant, facts, policy, world)
        if isinstance(ready, Answer):
            return (
                ready
                if len(grants) == 1
                else ready.about(code(f"profile={grant.profile} " + " ".join(item.word for item in grant.overrides)))
            )
        prepared.append(ready)
    if any(item.plan.grant.dry_run or item.plan.profile.dry_run for item in prepared):
        return _previews(prepared, event, policy, world)
    asked = next((item.approval for item in prepared if item.approval), None)
    if asked:
        return _waits_for_a_second(grants, asked, event, world)
    with one_connection_each(world) as connected:
        return _started(prepared, event, policy, connected)


def _waits_for_a_second(grants: Sequence[Grant], rule: str, event: AskedBy, world: World) -> Answer:
    """Above what one person may start alone."""
    first = grants[0]
    if first.number is None:
        words = f"**A second person has to agree.** It is more than one may start alone (rule {code(rule)} in `.github/dispatch.yml`)."
        return denied(Denial("approval-needed", words, "Ask for it in a pull request, where somebody can.", rule), first.trigger)
    asked = Asked(first.sha, first.trigger, first.actor, first.number, asked_runs(grants), "second", rule, first.retry_of, first.vouched_by)
    return park(asked, event, world)


def _previews(prepared: Sequence[Prepared], event: AskedBy, policy: Policy, world: World) -> Outcome | Answer:
    """What would run, for each of them; nothing is submitted."""
    group = members([item.plan for item in prepared])
    pages = [shown(item, policy, world) for item in as_it_will_be(prepared, group, policy)]
    told = {**outputs_of_plan(prepared[0].plan)}
    if isinstance(event, CommentEvent):
        return replace(answered("planned", "\n\n".join(pages).splitlines(), prepared[0].plan.grant.trigger), outputs=told)
    return Outcome(Exit.OK, told, "\n\n".join(pages))


def _started(prepared: Sequence[Prepared], event: AskedBy, policy: Policy, world: World) -> Outcome | Answer:
    group = members([item.plan for item in prepared])
    beginnings = begin_all(prepared, group, event, policy, world)
    if not group:
        only = beginnings[0]
        match only:
            case NotBegun():
                return only.answer
            case Busy():
                return Outcome(Exit.OK, {**outputs_of_plan(only.job), "decision": "duplicate", "reason-code": "in-progress"})
            case Begun():
                only = replace(only, record=submitted(only.record, world))
                seen, came_to = first_report(only, policy, world)
                judge_begun(world, policy, _going_on((seen,)))
                return _followed(only, seen, came_to, policy, world)
            case _:
                assert_never(only)
    return _first_reports(beginnings, policy, world)


def _first_reports(beginnings: Sequence[Beginning], policy: Policy, world: World) -> Outcome | Answer:
    """Several runs: all of them first, then one comment with a table in which also those that were not begun are told about."""
    begun = [replace(item, record=submitted(item.record, world)) for item in beginnings if isinstance(item, Begun)]
    refused = [item for item in beginnings if isinstance(item, NotBegun)]
    if not begun:
        busy = Outcome(Exit.OK, {**outputs_of_plan(beginnings[0].job), "decision": "duplicate", "reason-code": "in-progress"})
        return refused[0].answer if refused else busy
    missing = {item.job.run_key: item.answer.title for item in refused}
    reported = first_reports(begun, missing, policy, world)
    judge_begun(world, policy, _going_on([seen for seen, _ in reported]))
    outcomes = [_followed(item, seen, code, policy, world) for item, (seen, code) in zip(begun, reported, strict=True)]
    records = {item.record.run_key: item.record for item in outcomes if item.record is not None}
    summary = "\n".join(group_lines(begun[0].record.group, records, missing, world.clock.now(), world.settings.voice))
    worst = max([*(item.exit for item in outcomes), *(item.answer.exit for item in refused)])
    return Outcome(worst, {**outcomes[0].outputs, "comment-url": reported[0][0].comment_url}, summary, outcomes[0].record)


def _going_on(seen: Iterable[Seen]) -> list[RunRecord]:
    """What has ended already, as an earlier run's end that is taken over, has been judged with its report."""
    return [item.record for item in seen if not item.record.state.ended]


def _followed(begun: Begun, seen: Seen, code: Exit, policy: Policy, world: World) -> Outcome:
    """An attached run is followed to its end; of any other, this is how it stands."""
    if begun.job.attached and (next_one := when_its_turn_comes(begun, policy, world)) is not begun:
        begun = replace(next_one, record=submitted(next_one.record, world))
        seen, code = first_report(begun, policy, world)
    if begun.job.attached and seen.record.job_id and not seen.record.state.ended:
        try:
            return follow(world, begun.cluster, policy, seen)
        except DispatchError as error:
            world.say(f"The job goes on, but cannot be followed any more: {error.cause} `watch` reports its end.")
            code = error.exit
    told = {**outputs(seen.record, seen.record.log_url or world.settings.voice.summary_url), "comment-url": seen.comment_url}
    words = run_report(seen.record, seen.tail, world.clock.now(), world.settings.voice)
    return Outcome(code, told, words.summary, seen.record)


def outputs_of_plan(job: JobPlan) -> dict[str, str]:
    """The action's outputs where a plan is all that there is."""
    return {**blank_outputs("plan", "planned"), "run-key": job.run_key}
