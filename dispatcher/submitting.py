"""A prepared run → a job, in this order: lock, pending check, head again, job (or a place in the queue).

After the lock every way out either has a job or a place, or gives the lock back.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from typing_extensions import assert_never

from dispatcher.admission import take_own_turn, undecided
from dispatcher.answer import Answer
from dispatcher.authorise import AskedBy, Denial, Grant, still_granted
from dispatcher.bundle import bundle, what_travels
from dispatcher.errors import JOB_MAY_EXIST, ClusterError, DispatchError
from dispatcher.event import CommentEvent, MergeGroupEvent
from dispatcher.firstrecord import first_record
from dispatcher.jobplan import JobPlan
from dispatcher.keys import content_tag
from dispatcher.packing import package_group, package_spec
from dispatcher.policy import Policy
from dispatcher.ports import (
    AlreadySubmitted,
    Claimed,
    ClaimRequest,
    Cluster,
    Held,
    InProgress,
    Refused,
    Submission,
    Submitted,
)
from dispatcher.preparing import Prepared, compile_job
from dispatcher.profile import SlurmProfile
from dispatcher.publish import publish_check
from dispatcher.record import Member, Queued, RunRecord, parse_record
from dispatcher.refusals import denied, rejected, told, what_became
from dispatcher.report import run_report
from dispatcher.reuse import Earlier, Reused, earlier, taken_over, wanted
from dispatcher.slurm import State
from dispatcher.turns import takes_turns
from dispatcher.untrusted import redact
from dispatcher.usage import reserved
from dispatcher.wandb import expects_run
from dispatcher.world import World

# How long another delivery that has just submitted may take to tell GitHub, before it counts as dead.
REPORT_LOOKS, REPORT_PAUSE_SECONDS = 10, 0.5
# For so long a job that was seen is believed to be known to Slurm: it forgets one no sooner than MinJobAge after its end.
SEEN_SECONDS = 60


@dataclass(frozen=True)
class Begun:
    """The run has a job, or a place in the queue. `fresh`: nobody can have reported it yet."""

    job: JobPlan
    record: RunRecord
    cluster: Cluster
    fresh: bool


@dataclass(frozen=True)
class Busy:
    """Another delivery of the same command is submitting right now."""

    job: JobPlan
    since_seconds: int


@dataclass(frozen=True)
class NotBegun:
    """There is no job, and the answer says why."""

    job: JobPlan
    answer: Answer
    error: DispatchError | None = None
    """What broke, where it was not refused: another try may go better."""


Beginning = Begun | Busy | NotBegun


def begin(prepared: Prepared, group: tuple[Member, ...], event: AskedBy, policy: Policy, world: World) -> Beginning:
    """One run, from the lock to its job. `group` names all runs of the command when there are several."""
    job = prepared.plan
    world.say(f"Connecting to {job.profile.address} for run {job.run_key}.")
    cluster = world.connect(job.profile)
    if isinstance(job.profile, SlurmProfile):
        world.compiler.begin(job.for_compiler())  # rendered while the connection is made and the lock is taken
    group_name = package_group(job.grant.repository, job.profile_name, package_spec(job.recipe, job.profile))
    claim = cluster.claim(ClaimRequest(job.run_key, job.package.digest, group_name, job.tags()))
    match claim:
        case AlreadySubmitted():
            world.say(f"This command has its job already: {claim.job_id}." if claim.job_id else "This command has its place already.")
            record = _as_its_submitter_says(parse_record(claim.record), world, cluster)
            return Begun(job, record.model_copy(update={"job_id": claim.job_id}), cluster, fresh=False)
        case InProgress():
            world.say(f"Another delivery of this command is submitting right now, for {claim.since_seconds} s.")
            return Busy(job, claim.since_seconds)
        case Claimed():
            try:
                return _locked(prepared, claim, group, event, policy, world, cluster)
            except DispatchError:
                _give_back(cluster, job.run_key)
                raise
        case _:
            assert_never(claim)


def _locked(
    prepared: Prepared, claim: Claimed, group: tuple[Member, ...], event: AskedBy, policy: Policy, world: World, cluster: Cluster
) -> Beginning:
    """The lock is ours: check, head, job."""
    job = prepared.plan
    record = _first_record(prepared, group, event, world)
    # Only a run that nobody has begun before can have no check and no comment yet.
    fresh = not claim.resumed and world.settings.first_delivery
    found = _earlier(job, policy, world, cluster)
    beginning = _taken_over(job, record, found, world, cluster, fresh) if found is not None else None
    if beginning is not None:
        return beginning
    record = _pending_check(record, world, look_first=not fresh)
    try:
        compiled = compile_job(job, world)
        moved = _moved(job.grant, world)
        if moved is not None:
            return _called_off(job, record, denied(moved, job.grant.trigger), world, cluster)
        world.say(f"Sending {what_travels(job.package, claim)} and submitting.")
        looks_again = _looks_again(prepared, claim, world)
        hold = takes_turns(policy) or prepared.hold or looks_again
        usage = reserved(record, world.clock.now())
        answer = _submit(cluster, bundle(job, compiled, record, prepared.secrets, claim, world.archive(), usage, hold))
        if isinstance(answer, Held):
            if looks_again and not takes_turns(policy):
                return Begun(job, undecided(record), cluster, fresh)
            return _queued(job, record, policy, world, cluster, fresh)
    except (DispatchError, KeyboardInterrupt) as error:
        _close_check(record, f"{what_became(error)}: {getattr(error, 'code', 'interrupted')}", world)
        raise
    match answer:
        case Refused():
            words = redact(answer.words, world.settings.to_hide)
            return _called_off(job, record, rejected(words, job.grant.trigger), world, cluster)
        case Submitted():
            return Begun(job, record.model_copy(update={"job_id": answer.job_id}), cluster, fresh)
        case _:
            assert_never(answer)


def _looks_again(prepared: Prepared, claim: Claimed, world: World) -> bool:
    """Whether the jobs that Slurm is to wait for may have been forgotten by the time that everything has been sent.

    Slurm takes what it does not know for met, and forgets a job five minutes after its end: so then it is laid ready first, and
    whoever has begun the others looks how they stand before it is handed over (`sequence.py`).
    """
    seen = prepared.seen_at
    late = seen is not None and (world.clock.now() - seen).total_seconds() > SEEN_SECONDS
    return prepared.waits_in_slurm() and (late or not claim.has_package)


def _earlier(job: JobPlan, policy: Policy, world: World, cluster: Cluster) -> Earlier | None:
    """A run that will do as well; a record that cannot be read is none."""
    if not wanted(job, policy):
        return None
    records: list[RunRecord] = []
    for text in cluster.find(content_tag(job.content_key)):
        with suppress(ClusterError):
            records.append(parse_record(text))
    return earlier(job, records, policy, world.clock.now())


def _taken_over(job: JobPlan, record: RunRecord, found: Earlier, world: World, cluster: Cluster, fresh: bool) -> Beginning | None:
    """Nothing is submitted: the run has what the earlier one has. The head is compared all the same.

    None where that one has been given up since, or is gone: then it is run by itself.
    """
    moved = _moved(job.grant, world)
    if moved is not None:
        cluster.abandon(job.run_key)
        return NotBegun(job, denied(moved, job.grant.trigger))
    taken = taken_over(record, found, world.clock.now())
    if cluster.adopt(job.run_key, found.record.run_key, taken.to_json()) is None:
        world.say(f"Run {found.record.run_key} with the same content has been given up, or is gone: this one is run by itself.")
        return None
    how = "has ended well" if isinstance(found, Reused) else "goes on"
    world.say(f"Run {found.record.run_key} with the same content {how}: nothing is submitted.")
    return Begun(job, taken, cluster, fresh)


def _queued(job: JobPlan, record: RunRecord, policy: Policy, world: World, cluster: Cluster, fresh: bool) -> Beginning:
    """It lies ready. Whether its turn has come is decided under the ledger's one lock, so that two cannot both take the last place."""
    try:
        turn = take_own_turn(record, policy, world, cluster)
    except DispatchError as error:
        # It lies in the queue, whatever breaks now: the sweep goes on with it.
        world.say(f"Whether run {job.run_key} may start could not be decided: {error.cause} The next `watch` decides.")
        turn = undecided(record)
    match turn:
        case Denial():
            return _called_off(job, record, denied(turn, job.grant.trigger), world, cluster)
        case Refused():
            return _called_off(job, record, rejected(redact(turn.words, world.settings.to_hide), job.grant.trigger), world, cluster)
        case RunRecord():
            return Begun(job, turn, cluster, fresh)
        case _:
            assert_never(turn)


def _first_record(prepared: Prepared, group: tuple[Member, ...], event: AskedBy, world: World) -> RunRecord:
    job = prepared.plan
    comment = event.comment_id if isinstance(event, CommentEvent) else None
    asked = (told(event.created_at) if isinstance(event, CommentEvent) else None) or world.clock.now()
    record = first_record(job, asked, job.profile.address, comment, job.grant.number, world.settings.voice.at_terminal)
    if isinstance(event, MergeGroupEvent):
        entry = Queued(head_ref=event.head_ref, base_ref=event.base_ref, base_sha=event.base_sha)
        record = record.model_copy(update={"target": record.target.model_copy(update={"merge_queue": entry})})
    reports = expects_run({**job.profile.environment, **prepared.secrets})
    return record.model_copy(update={"group": group, "wandb_expected": reports})


def _moved(grant: Grant, world: World) -> Denial | None:
    """The head is asked for again, right before submitting."""
    if world.forge is None or grant.number is None:
        return None
    granted = still_granted(grant, world.forge.pull(grant.number))
    return granted if isinstance(granted, Denial) else None


def _submit(cluster: Cluster, submission: Submission) -> Submitted | Held | Refused:
    """One submission; what breaks now may break after the scheduler has the job."""
    try:
        return cluster.submit(submission)
    except DispatchError as error:
        error.job_may_exist = error.code in JOB_MAY_EXIST
        raise


def _as_its_submitter_says(record: RunRecord, world: World, cluster: Cluster) -> RunRecord:
    """The record once the delivery that submitted has reported it, or at last as it is: two that report at once write two comments."""
    waits_for_comment = world.forge is not None and record.target.pull is not None
    for _ in range(REPORT_LOOKS):
        if record.target.comment or not waits_for_comment:
            break
        world.clock.sleep(REPORT_PAUSE_SECONDS)
        files = cluster.fetch(record.run_key, 0, 0, 0)
        record = parse_record(files.record) if files else record
    return record


def _pending_check(record: RunRecord, world: World, look_first: bool) -> RunRecord:
    if world.forge is None:
        return record
    words = run_report(record, "", world.clock.now(), world.settings.voice)
    check = publish_check(world.forge, words.check, None, look_first)
    return record.model_copy(update={"target": record.target.model_copy(update={"check": check.id})})


def _give_back(cluster: Cluster, run_key: str) -> None:
    """The lock, to whoever asks next. When the connection is gone, the far side does it by itself."""
    with suppress(DispatchError):
        cluster.abandon(run_key)


def _called_off(job: JobPlan, record: RunRecord, answer: Answer, world: World, cluster: Cluster) -> NotBegun:
    cluster.abandon(record.run_key)
    _close_check(record, f"nothing was submitted: {answer.reason}", world, answer.summary)
    return NotBegun(job, answer)


def _close_check(record: RunRecord, title: str, world: World, summary: str = "") -> None:
    """A check that was pending must not stay so when there is no job; failing to say so must not hide why."""
    if world.forge is None or record.target.check is None:
        return
    words = run_report(record, "", world.clock.now(), world.settings.voice).check
    ended = type(words)(words.name, words.sha, words.external_id, "completed", "cancelled", title, summary or title)
    try:
        world.forge.update_check(record.target.check, ended)
    except DispatchError as error:
        world.say(f"The pending check could not be closed: {error.cause}")


def submitted(record: RunRecord, world: World) -> RunRecord:
    """The record of a run that has just got its job."""
    if record.job_id and record.state in (State.SUBMITTING, State.QUEUED, State.UNKNOWN):
        return record.model_copy(update={"state": State.PENDING, "reason": "", "submitted_at": record.submitted_at or world.clock.now()})
    return record
