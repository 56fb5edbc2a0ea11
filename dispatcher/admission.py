"""Runs that lie ready in a ledger's queue → the scheduler, in their order, as far as the policy's limits allow.

What is in use is looked at, and runs are released, under the ledger's one admission lock: two commands at once cannot both take
the last place.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from typing_extensions import assert_never

from dispatcher.authorise import Denial
from dispatcher.awaiting import Never, Standby
from dispatcher.errors import ClusterError, DispatchError
from dispatcher.observe import Seen
from dispatcher.policy import Policy
from dispatcher.ports import Cluster, PullRequest, Refused, Submitted
from dispatcher.record import RunRecord, parse_record
from dispatcher.slurm import State
from dispatcher.standby import stages_that_wait
from dispatcher.telling import report
from dispatcher.turns import Go, Over, Turn, Wait, take_turns
from dispatcher.untrusted import redact
from dispatcher.usage import month_of, reserved, spent
from dispatcher.world import World

BUSY = "other commands are being admitted right now; the next sweep decides"


def take_own_turn(record: RunRecord, policy: Policy, world: World, cluster: Cluster) -> RunRecord | Denial | Refused:
    """The run's own turn: with a job when it has come, queued with the reason when not; over a budget it is taken out again."""
    if not cluster.lock():
        return _waiting(record, BUSY)
    try:
        queued, stages, turns = _turns(policy, world, cluster)
        if record.run_key in stages:
            return _kept_back(stages[record.run_key], record, world, cluster) or queued[record.run_key]
        mine = next((turn for turn in turns if turn.run_key == record.run_key), None)
        match mine:
            case None:
                return queued.get(record.run_key, record)
            case Go():
                return hand_over(record, world, cluster)
            case Wait():
                return _waiting(record, mine.words)
            case Over():
                _over(record, _plain(mine.denial), world, cluster)
                return mine.denial
            case _:
                assert_never(mine)
    finally:
        _unlock(cluster)


def hand_over(record: RunRecord, world: World, cluster: Cluster) -> RunRecord | Refused:
    """A run that lies ready → its job. What the scheduler refuses is taken out, because who asked for it is told right now."""
    outcome = _released(record, world, cluster)
    if isinstance(outcome, Refused):
        _over(record, redact(outcome.words, world.settings.to_hide)[:300], world, cluster, State.FAILED)
    return outcome


def take_every_turn(policy: Policy, world: World, cluster: Cluster) -> list[Seen]:
    """The sweep's part: releases whatever may go now, calls off what must not run any more, and says each change on GitHub."""
    if not cluster.lock():
        world.say(f"The queue is left alone: {BUSY}.")
        return []
    changed: list[RunRecord] = []
    pulls: dict[int, PullRequest | None] = {}
    try:
        queued, stages, turns = _turns(policy, world, cluster)
        for run_key, stage in stages.items():
            record = _still_waits(stage, queued[run_key], pulls, world, cluster)
            changed += [record] if record is not None else []
        for turn in turns:
            record = _turned(turn, queued[turn.run_key], pulls, world, cluster)
            changed += [record] if record is not None else []
    except DispatchError as error:
        # What has been dropped already is in no list any more, so it is said now or never.
        world.say(f"The rest of the queue waits for the next sweep: {error.cause} {error.next_step}")
    finally:
        _unlock(cluster)
    return [seen for record in changed if (seen := _said(record, policy, world, cluster)) is not None]


def drop(record: RunRecord, why: str, world: World, cluster: Cluster, state: State = State.CANCELLED) -> RunRecord | None:
    """Takes a queued run out for good → its record, ended, as the ledger has it now; None when its turn came in the meantime."""
    if not cluster.drop(record.run_key):
        return None
    ended = record.model_copy(update={"state": state, "reason": why, "ended_at": world.clock.now()})
    # Whoever asks for the same again finds this, whatever becomes of the report.
    cluster.save(ended.run_key, ended.to_json(), "")
    return ended


def _over(record: RunRecord, why: str, world: World, cluster: Cluster, state: State = State.CANCELLED) -> None:
    """Takes the run out that this very command asked for: its answer says so, and nothing is left to be said later."""
    if drop(record, why, world, cluster, state) is not None:
        cluster.retire(record.run_key)


def undecided(record: RunRecord) -> RunRecord:
    """The record of a run that waits without anybody having said for what."""
    return _waiting(record, BUSY)


def _kept_back(stage: Standby | Never, record: RunRecord, world: World, cluster: Cluster) -> RunRecord | None:
    """A stage that waits for others, or that will not run any more: then it is taken out. None when its turn came in the meantime."""
    match stage:
        case Standby():
            return _waiting(record, stage.words)
        case Never():
            return drop(record, stage.why, world, cluster, stage.state)
        case _:
            assert_never(stage)


def _still_waits(
    stage: Standby | Never, record: RunRecord, pulls: dict[int, PullRequest | None], world: World, cluster: Cluster
) -> RunRecord | None:
    """What became of a queued stage that may not begin yet; None when nothing did."""
    try:
        why = _unwanted(record, pulls, world, anew=False)
    except DispatchError as error:
        world.say(f"Run {record.run_key} stays queued: its pull request could not be read. {error.cause}")
        return None
    if why:
        return drop(record, why, world, cluster)
    if isinstance(stage, Standby) and stage.words == record.reason:
        return None
    return _kept_back(stage, record, world, cluster)


def _turns(policy: Policy, world: World, cluster: Cluster) -> tuple[dict[str, RunRecord], dict[str, Standby | Never], tuple[Turn, ...]]:
    """Who is queued, which stages may not begin yet, and whose turn of the others it is. Who waits for a stage holds up nobody."""
    standing = cluster.standing()
    queued = {record.run_key: record for record in _records(standing.queued, world)}
    journal = cluster.usage(month_of(world.clock.now()))
    repository = world.settings.repository
    active = _records(standing.active, world)
    stages = stages_that_wait(tuple(queued.values()), policy, world, cluster)
    others = tuple(record for run_key, record in queued.items() if run_key not in stages)
    return queued, stages, take_turns(active, others, spent(journal, repository), policy, repository)


def _records(texts: Sequence[str], world: World) -> tuple[RunRecord, ...]:
    found = []
    for text in texts:
        try:
            found.append(parse_record(text))
        except ClusterError as error:
            world.say(error.cause)
    return tuple(found)


def _turned(turn: Turn, record: RunRecord, pulls: dict[int, PullRequest | None], world: World, cluster: Cluster) -> RunRecord | None:
    """What became of one queued run; None when nothing did. `pulls` are the pull requests that this sweep has read."""
    try:
        why = _unwanted(record, pulls, world, anew=isinstance(turn, Go))
    except DispatchError as error:
        world.say(f"Run {record.run_key} stays queued: its pull request could not be read. {error.cause}")
        return None
    if why:
        return drop(record, why, world, cluster)
    match turn:
        case Go():
            outcome = _released(record, world, cluster)
            if isinstance(outcome, Refused):
                return drop(record, redact(outcome.words, world.settings.to_hide)[:300], world, cluster, State.FAILED)
            return outcome
        case Wait():
            return _waiting(record, turn.words) if turn.words != record.reason else None
        case Over():
            return drop(record, _plain(turn.denial), world, cluster)
        case _:
            assert_never(turn)


def _unwanted(record: RunRecord, pulls: dict[int, PullRequest | None], world: World, anew: bool) -> str:
    """Why a queued run must not run any more: what runs is the head that was granted. Empty when it may. Raises `ForgeError`.

    `anew`: it would be submitted now, so the head is asked for again. For the others once in a sweep is enough: a long queue would
    use up the requests that GitHub allows in an hour.
    """
    number = record.target.pull
    if world.forge is None or number is None:
        return ""
    if anew or number not in pulls:
        pulls[number] = world.forge.pull(number)
    pull = pulls[number]
    if pull is None or pull.state != "open":
        return "the pull request was closed while it waited"
    return "" if pull.head_sha == record.sha else "the head moved while it waited"


def _released(record: RunRecord, world: World, cluster: Cluster) -> RunRecord | Refused:
    outcome = cluster.release(record.run_key)
    match outcome:
        case Submitted():
            now = world.clock.now()
            update = {"job_id": outcome.job_id, "state": State.PENDING, "reason": "", "submitted_at": now}
            started = record.model_copy(update=update)
            if month_of(record.asked_at) != month_of(now):
                cluster.account(reserved(started, now))  # what was laid ready says the month in which it was
            return started
        case Refused():
            return outcome
        case None:
            return _waiting(record, "another sweep is starting it right now")
        case _:
            assert_never(outcome)


def _said(record: RunRecord, policy: Policy, world: World, cluster: Cluster) -> Seen | None:
    """Reports one change; that one cannot be does not hold up the others."""
    try:
        return report(world, cluster, policy, Seen(record, ""))
    except DispatchError as error:
        world.say(f"Run {record.run_key} is {record.state.value}, and could not be reported: {error.cause} {error.next_step}")
        return None


def _unlock(cluster: Cluster) -> None:
    """A connection that is gone has given the lock back by itself."""
    with suppress(DispatchError):
        cluster.unlock()


def _plain(denial: Denial) -> str:
    """A denial's words as a reason, without its headline's marks."""
    return denial.words.replace("**", "")


def _waiting(record: RunRecord, why: str) -> RunRecord:
    return record.model_copy(update={"state": State.QUEUED, "reason": why})
