"""Prepared runs of one command → their beginnings, in their order: a stage begins behind those that it waits for.

Slurm waits by itself (`--dependency`) where it has the jobs that are waited for, and they are known to go on: of a job that it has
forgotten it takes every dependency for met. Else the stage is laid ready in the ledger, and the sweep releases it, or calls it off.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from typing_extensions import assert_never

from dispatcher.admission import drop, hand_over, take_own_turn
from dispatcher.authorise import AskedBy
from dispatcher.awaiting import Never, Ready, Standby, awaited
from dispatcher.chaining import before_its_next_job
from dispatcher.configuration import read_profile
from dispatcher.connections import ledger_of
from dispatcher.errors import DispatchError
from dispatcher.jobplan import Earlier
from dispatcher.observe import Around, look, sights_of
from dispatcher.policy import Policy
from dispatcher.ports import Cluster, Refused
from dispatcher.preparing import Prepared
from dispatcher.profile import LocalProfile, Profile, SlurmProfile, UnknownProfile
from dispatcher.record import Member, RunRecord, parse_record
from dispatcher.refusals import broken, not_reached, rejected
from dispatcher.slurm import Observation, State
from dispatcher.submitting import SEEN_SECONDS, Beginning, Begun, Busy, NotBegun, begin
from dispatcher.turns import takes_turns
from dispatcher.untrusted import redact
from dispatcher.world import World


@dataclass(frozen=True)
class _Before:
    """A stage that is waited for, as it is now. `goes_on`: its scheduler has it, and it has not ended."""

    member: Member
    record: RunRecord | None = None
    profile: Profile | None = None
    goes_on: bool = False
    silent: bool = False


def begin_all(prepared: Sequence[Prepared], group: tuple[Member, ...], event: AskedBy, policy: Policy, world: World) -> list[Beginning]:
    """Begins them one after the other. Of several, one that breaks does not keep the others from being reported."""
    begun: dict[str, Beginning] = {}
    when: dict[str, datetime] = {}
    plans = {item.plan.run_key: item for item in prepared}
    for item in prepared:
        place = next((member for member in group if member.run_key == item.plan.run_key), None)
        waits_for = [member for member in group if place is not None and member.run_key in place.after]
        stopped = [other for member in waits_for if isinstance(other := begun.get(member.run_key), NotBegun | Busy)]
        if stopped:
            begun[item.plan.run_key] = _also(stopped[0], item)
            continue
        if place is not None and waits_for:
            just_now = {key for key, moment in when.items() if (world.clock.now() - moment).total_seconds() < SEEN_SECONDS}
            standing = [_standing(member, begun.get(member.run_key), plans, just_now, policy, world) for member in waits_for]
            item = _placed(item, place, standing, policy, world)
        now = _begun(item, group, event, policy, world)
        if isinstance(now, Begun) and now.record.state is State.QUEUED and item.waits_in_slurm() and not takes_turns(policy):
            standing = [_standing(member, begun.get(member.run_key), plans, (), policy, world) for member in waits_for]
            now = _decided(now, standing, item.plan.profile, world)
        begun[item.plan.run_key] = now
        when[item.plan.run_key] = world.clock.now()
    return list(begun.values())


def as_it_will_be(prepared: Sequence[Prepared], group: tuple[Member, ...], policy: Policy) -> list[Prepared]:
    """The runs as a preview shows them: what is not known before there are jobs is their ids, for which their stages' names stand."""
    found = []
    plans = {item.plan.run_key: item.plan for item in prepared}
    for item in prepared:
        place = next((member for member in group if member.run_key == item.plan.run_key), None)
        before = [plans[key] for key in place.after if key in plans] if place else []
        own = item.plan.profile
        by_slurm = (isinstance(own, SlurmProfile) and _same_scheduler(plan.profile, own) and plan.chain is None for plan in before)
        here = all(by_slurm) and not takes_turns(policy)
        stages = [(plan, plan.grant.stage.stage) for plan in before if plan.grant.stage]
        earlier = [
            Earlier(stage, plan.run_dir if _same_scheduler(plan.profile, own) else "", f"JOB_OF_{stage}" if here else "")
            for plan, stage in stages
        ]
        found.append(replace(item, plan=replace(item.plan, earlier=tuple(earlier))))
    return found


def _begun(item: Prepared, group: tuple[Member, ...], event: AskedBy, policy: Policy, world: World) -> Beginning:
    try:
        return begin(item, group, event, policy, world)
    except DispatchError as error:
        if not group:
            raise
        return NotBegun(item.plan, broken(error, item.plan.grant.trigger), error)


def _decided(begun: Begun, standing: Sequence[_Before], own: Profile, world: World) -> Beginning:
    """A stage that was laid ready because one before it may have ended meanwhile: by a look at those it begins now, or ends."""
    record, place = begun.record, begun.record.place
    known = {before.member.run_key: before.record for before in standing if before.record is not None}
    if place is None or any(before.silent for before in standing):
        return begun
    try:
        match awaited(place.when, record.before, known, world.clock.now()):
            case Ready():
                turn = hand_over(record, world, begun.cluster)
            case Never() as never:
                turn = drop(record, never.why, world, begun.cluster, never.state) or record
            case Standby() if all(_slurm_waits(before, own) for before in standing):
                turn = hand_over(record, world, begun.cluster)
            case Standby() as standby:
                turn = record.model_copy(update={"reason": standby.words})
            case _ as never_so:
                assert_never(never_so)
    except DispatchError as error:
        world.say(f"Whether run {record.run_key} may start could not be decided: {error.cause} The next `watch` decides.")
        return begun
    if isinstance(turn, Refused):
        return NotBegun(begun.job, rejected(redact(turn.words, world.settings.to_hide), begun.job.grant.trigger))
    return replace(begun, record=turn)


def _also(stopped: NotBegun | Busy, item: Prepared) -> Beginning:
    """What waits for a stage that has not begun does not begin either; the next delivery of the command goes on from there."""
    match stopped:
        case Busy():
            return Busy(item.plan, stopped.since_seconds)
        case NotBegun():
            place = stopped.job.grant.stage
            return NotBegun(item.plan, not_reached(place.stage if place else "", stopped.answer, item.plan.grant.trigger))
        case _:
            assert_never(stopped)


def _placed(item: Prepared, place: Member, standing: Sequence[_Before], policy: Policy, world: World) -> Prepared:
    """The stage with the jobs that Slurm waits for, and the folders of those before it; or to be held."""
    known = {before.member.run_key: before.record for before in standing if before.record is not None}
    stage = awaited(place.when, [before.member for before in standing], known, world.clock.now())
    own = item.plan.profile
    by_slurm = isinstance(stage, Standby) and not takes_turns(policy) and all(_slurm_waits(before, own) for before in standing)
    silent = any(before.silent for before in standing)
    earlier = tuple(_earlier(before, own, by_slurm) for before in standing)
    held = silent or not (by_slurm or isinstance(stage, Ready))
    return replace(item, plan=replace(item.plan, earlier=earlier), hold=held, seen_at=world.clock.now())


def _slurm_waits(before: _Before, own: Profile) -> bool:
    """Whether Slurm itself can wait for it, or need not: it has ended as it has to.

    Of a run that may go on in further jobs, the end of its job is not the end.
    """
    ended = before.record is not None and before.record.state.ended
    chained = before.record is not None and before.record.resources.jobs > 1
    return ended or (before.goes_on and not chained and isinstance(own, SlurmProfile) and _same_scheduler(before.profile, own))


def _earlier(before: _Before, own: Profile, by_slurm: bool) -> Earlier:
    record, here = before.record, _same_scheduler(before.profile, own)
    waits = by_slurm and record is not None and not record.state.ended
    return Earlier(before.member.stage, record.run_dir if record and here else "", record.job_id if record and waits else "")


def _same_scheduler(one: Profile | None, other: Profile) -> bool:
    """Whether two profiles mean one scheduler, with one file system."""
    if isinstance(one, SlurmProfile) and isinstance(other, SlurmProfile):
        *mine, _folder = ledger_of(one)
        *others, _folder = ledger_of(other)
        return mine == others
    return isinstance(one, LocalProfile) and isinstance(other, LocalProfile)


# --------------------------------------------------------------------------- how those before it stand


def _standing(
    member: Member, begun: Beginning | None, plans: Mapping[str, Prepared], just_now: Collection[str], policy: Policy, world: World
) -> _Before:
    """A stage that is waited for: this process has just begun it, or its ledger and its scheduler are asked."""
    if isinstance(begun, Begun):
        profile = plans[member.run_key].plan.profile
        if begun.fresh and member.run_key in just_now:
            return _Before(member, begun.record, profile, goes_on=bool(begun.record.job_id))
        return _asked(member, profile, begun.cluster, policy, world, begun.record)
    try:
        resolved = read_profile(world, policy, member.profile)
        if isinstance(resolved, UnknownProfile):
            return _Before(member, silent=True)
        return _asked(member, resolved.profile, world.connect(resolved.profile), policy, world)
    except DispatchError as error:
        world.say(f"How stage {member.stage} stands could not be read: {error.cause}")
        return _Before(member, silent=True)


def _asked(member: Member, profile: Profile, cluster: Cluster, policy: Policy, world: World, known: RunRecord | None = None) -> _Before:
    """Its record, brought up to date by a look that tells nobody."""
    try:
        sweep = cluster.sweep()
        run = next((run for run in sweep.runs if run.run_key == member.run_key), None)
        sights = sights_of(sweep, profile.executor)
        if run is not None and run.job_id:
            seen = look(world, cluster, run, sights[run.run_key], timedelta(seconds=policy.watch.lost_after), Around(sights, policy))
            sight = sights[run.run_key]
            goes_on = isinstance(sight, Observation) and not sight.state.ended and sight.state is not State.UNKNOWN
            return _Before(member, before_its_next_job(seen.record, policy) if seen else known, profile, goes_on)
        (text,) = cluster.records([member.run_key])
        return _Before(member, parse_record(text) if text is not None else known, profile)
    except DispatchError as error:
        world.say(f"How stage {member.stage} stands could not be read: {error.cause}")
        return _Before(member, known, profile, silent=True)


# --------------------------------------------------------------------------- who waits for its end


def when_its_turn_comes(begun: Begun, policy: Policy, world: World) -> Begun:
    """A stage that lies ready, once those before it have been followed to their ends: it begins now, or has ended without beginning.

    What waits for something else still waits for the sweep.
    """
    record = begun.record
    if record.state is not State.QUEUED or not record.before:
        return begun
    turn = take_own_turn(record, policy, world, begun.cluster)
    if not isinstance(turn, RunRecord):
        (text,) = begun.cluster.records([record.run_key])
        turn = parse_record(text) if text is not None else record
    return replace(begun, record=turn, fresh=False)
