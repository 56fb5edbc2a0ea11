"""A run that the machine has ended → permission for its next attempt, as if it were asked for today; or the reason why there is none.

What its first attempt rested on is looked up anew: a pull request's head and its person's rights, a schedule in the policy, the merge
queue's entry, a commit on its branch. The record lies where jobs can write, and no person looks at it before it is repeated: what it
says is believed only as far as its run key and our own check bear it out, and the trigger is part of the run key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dispatcher.attempts import Repeats, origin_of, retry_trigger
from dispatcher.authorise import AskedBy, Denial, Facts, Grant, authorise
from dispatcher.event import CheckEvent, ManualEvent, MergeGroupEvent, ScheduleEvent
from dispatcher.facts import profile_name, recipe_name, short_ref
from dispatcher.gatekeeper import required_for_queue
from dispatcher.grammar import Malformed, Override, Run
from dispatcher.keys import run_key
from dispatcher.lookups import gather_facts
from dispatcher.policy import Policy
from dispatcher.ports import Forge
from dispatcher.record import RunRecord
from dispatcher.report import check_name
from dispatcher.resuming import Again, run_of
from dispatcher.staging import stage_grants
from dispatcher.tails import Tail
from dispatcher.world import World


@dataclass(frozen=True)
class Renewed:
    """Permission as it is today, for the next attempt; `event` is as if the run had just been asked for."""

    grant: Grant
    facts: Facts
    event: AskedBy


@dataclass(frozen=True)
class RenewedStages:
    """The same for stages that are run again together, each grant behind those of the stages that it waits for."""

    grants: tuple[Grant, ...]
    facts: Facts
    event: AskedBy


@dataclass(frozen=True)
class _Anew:
    """The run asked for once more, in the way that it was; `schedule` is the name of the policy's entry."""

    run: Run
    event: AskedBy
    facts: Facts
    schedule: str = ""


def renewed(record: RunRecord, repeats: Repeats, policy: Policy, world: World) -> Renewed | str:
    """An ended run that is owed a retry → permission for that, or the reason for which there is none (`denial.REASONS`).

    Raises `ForgeError` where GitHub does not answer: then nothing is decided.
    """
    run = run_of(record, record.sha)
    if isinstance(run, Malformed):
        return "malformed"
    if not _is_as_granted(record, run.overrides, world):
        return "record-changed"
    anew = _anew(record, run, policy, world)
    if isinstance(anew, str):
        return anew
    grant = _granted(anew, policy, world)
    if isinstance(grant, str):
        return grant
    return Renewed(_as_the_next(grant, record, repeats), anew.facts, anew.event)


def renewed_stages(tail: Tail, before: Mapping[str, RunRecord], policy: Policy, world: World) -> RenewedStages | str:
    """The same for stages of a pipeline: they are asked for as the whole pipeline was. `before` has the run of every stage, by its name.

    The words that asked for the pipeline are in no run key. So each stage has to be just what those words make of it today.
    """
    first = tail.first
    run = run_of(first, first.sha)
    if isinstance(run, Malformed):
        return "malformed"
    anew = _anew(first, run, policy, world)
    if isinstance(anew, str):
        return anew
    whole = _granted(anew, policy, world)
    if isinstance(whole, str):
        return whole
    stages = stage_grants(whole, 0, anew.facts, policy)
    if isinstance(stages, Denial):
        return stages.reason
    if {grant.stage.stage for grant in stages if grant.stage} != set(before) or not all(_is_still(grant, before) for grant in stages):
        return "pipeline-changed"
    if not all(grant.stage and _is_as_granted(before[grant.stage.stage], grant.overrides, world) for grant in stages):
        return "record-changed"
    again = Again(run, before, tail.failed).narrowed(stages, 0, policy)
    if [grant.stage.stage for grant in again if grant.stage] != list(tail.repeats):
        return "pipeline-changed"
    trigger = retry_trigger(next(iter(tail.repeats.values())).number, first.run_key, _origin(first))
    grants = tuple(
        replace(grant, trigger=trigger, approved_by=before[grant.stage.stage].approved_by, repeats=tail.repeats[grant.stage.stage])
        for grant in again
        if grant.stage
    )
    return RenewedStages(grants, anew.facts, anew.event)


def _is_still(grant: Grant, before: Mapping[str, RunRecord]) -> bool:
    """Whether the policy makes of a stage what its run was, behind the same stages."""
    assert grant.stage is not None
    run = before[grant.stage.stage]
    ran = (
        run.sha,
        run.pipeline,
        run.profile,
        run.recipe,
        run.overrides,
        run.place.when if run.place else "",
        {one.stage for one in run.before},
    )
    overrides = tuple(override.word for override in grant.overrides)
    return ran == (grant.sha, grant.stage.pipeline, grant.profile, grant.recipe, overrides, grant.stage.when, set(grant.stage.after))


def _granted(anew: _Anew, policy: Policy, world: World) -> Grant | str:
    grant = authorise(anew.run, anew.event, anew.facts, policy, anew.schedule, world.settings.voice.word)
    if isinstance(grant, Denial):
        # It is we who name the run's commit: nobody has mistaken it.
        return "head-moved" if grant.reason == "sha-mismatch" else grant.reason
    return grant


def _is_as_granted(record: RunRecord, overrides: Sequence[Override], world: World) -> bool:
    """Whether the record still says what was granted once.

    The run key is a digest of trigger, profile, recipe, overrides, attempt and stage; a check of our own identity has it on that commit.
    """
    stage = record.name if record.stage else ""
    own = run_key(record.target.repository, record.trigger, record.profile, record.recipe, overrides, record.attempt, stage)
    repeats = record.repeats
    trigger = retry_trigger(repeats.number, repeats.of or record.retry_of, _origin(record)) if repeats else ""
    if own != record.run_key or (record.trigger.startswith("retry:") and record.trigger != trigger):
        return False
    checks = _forge(world).find_checks(record.sha, check_name(record.profile, record.name))
    return any(check.external_id == record.run_key for check in checks)


def _origin(record: RunRecord) -> str:
    """What a retry's trigger tells of the first attempt's: nothing in a pull request, which says itself whether the run still may."""
    return "" if record.target.pull is not None else origin_of(record.trigger)


def _as_the_next(grant: Grant, record: RunRecord, repeats: Repeats) -> Grant:
    """Who agreed to this run agreed to this commit and this size."""
    return replace(
        grant,
        trigger=retry_trigger(repeats.number, record.run_key, _origin(record)),
        attempt=record.attempt + 1,
        retry_of=record.run_key,
        approved_by=record.approved_by,
        repeats=repeats,
    )


# --------------------------------------------------------------------------- what the first attempt rested on


def _anew(record: RunRecord, run: Run, policy: Policy, world: World) -> _Anew | str:
    origin = origin_of(record.trigger)
    if record.target.pull is not None:
        event = _as_by_the_button(record, record.target.pull)
        return _Anew(run, event, gather_facts((run,), event, policy, world))
    if origin.startswith("schedule:"):
        return _by_the_schedule(record, run, origin.rpartition(":")[2], policy, world)
    if origin.startswith("merge_group:"):
        return _by_the_queue(record, run, policy, world)
    return _by_hand(record, run, policy, world)


def _as_by_the_button(record: RunRecord, number: int) -> CheckEvent:
    """As if whoever asked for the run had pressed "Re-run" beside its check: about that very commit, which still has to be the head."""
    return CheckEvent(
        repository=record.target.repository,
        check_id=record.target.check or 0,
        name="",
        external_id=record.run_key,
        head_sha=record.sha,
        number=number,
        button="",
        app_slug="",
        sender=record.actor,
        run_id="",
        default_branch="",
    )


def _by_the_schedule(record: RunRecord, run: Run, name: str, policy: Policy, world: World) -> _Anew | str:
    """The policy still has the schedule, which still runs the same; its branch may have gone on, but still has the commit."""
    schedule = next((one for one in policy.schedules if one.name == name), None)
    if schedule is None or not _are_the_same(schedule.run, run, policy):
        return "not-scheduled"
    branch = schedule.ref or _forge(world).default_branch()
    if not _is_on(branch, record.sha, world):
        return "not-on-branch"
    event = ScheduleEvent(record.target.repository, schedule.cron, "", branch)
    return _Anew(schedule.run, event, Facts(actor="", head_sha=record.sha), schedule.name)


def _by_the_queue(record: RunRecord, run: Run, policy: Policy, world: World) -> _Anew | str:
    """The queue still has its commit, and the policy still wants this run on it."""
    entry = record.target.merge_queue
    if entry is None or not _is_an_entry(entry.head_ref, entry.base_ref):
        return "record-changed"
    event = MergeGroupEvent(record.target.repository, record.sha, entry.head_ref, entry.base_ref, entry.base_sha, "")
    required = [Run(one.profile, one.recipe) for one in required_for_queue(policy, event)]
    if policy.reuse.merge_queue == "never" or not any(_are_the_same(one, run, policy) for one in required):
        return "not-required"
    if _forge(world).commit_sha(short_ref(entry.head_ref)) != record.sha:
        return "queue-entry-gone"
    return _Anew(run, event, Facts(actor=""))


def _is_an_entry(head_ref: str, base_ref: str) -> bool:
    """The queue's own branches, which nobody else can push: `gh-readonly-queue/<base>/pr-<number>-<sha>`."""
    return short_ref(head_ref).startswith(f"gh-readonly-queue/{short_ref(base_ref)}/pr-")


def _by_hand(record: RunRecord, run: Run, policy: Policy, world: World) -> _Anew | str:
    """Whoever started it still may. Of other branches than the default one nothing says which of their commits may run."""
    branch = _forge(world).default_branch()
    if not _is_on(branch, record.sha, world):
        return "not-on-branch"
    event = ManualEvent(record.target.repository, {}, record.actor, "", f"refs/heads/{branch}", branch)
    facts = gather_facts((run,), event, policy, world)
    return _Anew(run, event, replace(facts, head_sha=record.sha))


def _are_the_same(wanted: Run, run: Run, policy: Policy) -> bool:
    """Whether two commands ask for the same, with the policy's defaults filled in."""
    one, other = (
        (profile_name(item, policy), recipe_name(item, policy), sorted(override.word for override in item.overrides))
        for item in (wanted, run)
    )
    return one == other


def _is_on(branch: str, sha: str, world: World) -> bool:
    """Whether a branch or tag has a commit: then that is where the two parted."""
    return _forge(world).merge_base(branch, sha) == sha


def _forge(world: World) -> Forge:
    assert world.forge is not None, "without GitHub nothing is run again by itself"
    return world.forge
