"""A stage of a pipeline × how the stages before it stand → it may begin, it waits, or it never will.

Where Slurm itself waits (`--dependency`), this says afterwards why a job never began. Slurm says it only for a while: accounting hears
nothing of a job that it ended for a dependency that cannot be met, and after MinJobAge (five minutes) nobody knows the job at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from typing_extensions import assert_never

from dispatcher.advance import advance
from dispatcher.headline import headline
from dispatcher.pipeline import When
from dispatcher.record import Member, RunRecord
from dispatcher.slurm import CANCELLED_BY, Absent, Observation, Sight, Silent, State

# The controller's word for it: https://slurm.schedmd.com/job_reason_codes.html
NEVER_SATISFIED = "DependencyNeverSatisfied"


@dataclass(frozen=True)
class Ready:
    """All that it waits for has ended as it has to."""


@dataclass(frozen=True)
class Standby:
    """Some stages that it waits for have not ended yet."""

    stages: tuple[str, ...]

    @property
    def words(self) -> str:
        """As the reason of a run that waits."""
        return f"waits for stage{'s' if len(self.stages) > 1 else ''} {', '.join(self.stages)}"


@dataclass(frozen=True)
class Never:
    """It will not run. `needless`: nothing is wrong with that, what it is for has not happened."""

    why: str
    needless: bool

    @property
    def state(self) -> State:
        """How such a run ends."""
        return State.SKIPPED if self.needless else State.CANCELLED

    def told(self, record: RunRecord, now: datetime) -> RunRecord:
        """The record of the run that never began."""
        update = {"state": self.state, "reason": self.why, "started_at": None, "ended_at": now, "exit_code": None, "signal": None}
        return record.model_copy(update={**update, "absent_since": None, "estimated_start": None, "evidence": "stages"})


Awaited = Ready | Standby | Never


def awaited(when: When, stages: Sequence[Member], known: Mapping[str, RunRecord], now: datetime) -> Awaited:
    """What waits for these stages. `known` has records by run key: a stage that is not there has left none."""
    never: list[Never] = []
    open_stages: list[str] = []
    for member in stages:
        before = known.get(member.run_key)
        if before is None:
            never.append(Never(f"stage {member.stage} has left no record", False))
        elif not before.state.ended:
            open_stages.append(member.stage)
        elif not satisfied(when, before.state):
            never.append(_never(member.stage, when, before, now))
    if never:
        bad = [item for item in never if not item.needless]
        return (bad or never)[0]
    return Standby(tuple(open_stages)) if open_stages else Ready()


def awaited_by(record: RunRecord, known: Mapping[str, RunRecord], now: datetime) -> Awaited:
    """The same for a run that may be a stage; one that is none waits for nothing."""
    return awaited(record.place.when, record.before, known, now) if record.place else Ready()


def satisfied(when: When, state: State) -> bool:
    """Whether a stage that ended like this is one after which the next one begins; as in Slurm, its exit status decides."""
    match when:
        case "afterok" | "aftercorr":
            return state is State.SUCCEEDED
        case "afternotok":
            return state is not State.SUCCEEDED
        case "afterany":
            return True
        case _:
            assert_never(when)


def _never(stage: str, when: When, before: RunRecord, now: datetime) -> Never:
    how = f"stage {stage} {headline(before, now)}"
    needless = when == "afternotok" or before.state is State.SKIPPED
    return Never(how, needless)


def as_seen(
    record: RunRecord,
    sights: Mapping[str, Sight],
    known: Mapping[str, RunRecord],
    now: datetime,
    lost_after: timedelta,
    unheard: Collection[str] = (),
) -> RunRecord:
    """The record after one look (`advance`), of a stage that never began with the reason: how those before it ended.

    `sights` is what the look says of this run and of others, `known` the records of its group, `unheard` those of it whose ledger did
    not answer. Who has no sight is as the record says.
    """
    return _as_seen(record, sights, known, now, lost_after, frozenset(unheard), frozenset())


def _as_seen(
    record: RunRecord,
    sights: Mapping[str, Sight],
    known: Mapping[str, RunRecord],
    now: datetime,
    lost_after: timedelta,
    unheard: frozenset[str],
    behind: frozenset[str],
) -> RunRecord:
    """`behind` are those that wait for it: a ledger that has circles in it must not send us round."""
    sight = sights.get(record.run_key, Silent(""))
    seen = advance(record, sight, now, lost_after)
    if record.state.ended or record.run_key in behind or not never_began(record, sight):
        return seen
    before = [known[member.run_key] for member in record.before if member.run_key in known]
    ends = {item.run_key: _as_seen(item, sights, known, now, lost_after, unheard, behind | {record.run_key}) for item in before}
    silent = tuple(member.stage for member in record.before if member.run_key in unheard)
    match Standby(silent) if silent else awaited_by(record, ends, now):
        case Never() as never:
            return never.told(record, now)
        case Standby() if seen.state is State.CANCELLED and _by_slurm(seen.reason, seen.evidence):
            return record  # Slurm has drawn its conclusion from an end that nobody has told us yet: the next look has it.
        case _:
            return seen


def never_began(record: RunRecord, sight: Sight) -> bool:
    """Whether Slurm may have ended a stage's job for what it waited for, so that the stages before it say why."""
    if not record.before:
        return False
    match sight:
        case Absent():
            return record.started_at is None
        case Observation():
            return sight.state is State.CANCELLED and not sight.nodes and not sight.reason.startswith(CANCELLED_BY)
        case _:
            return False


def _by_slurm(reason: str, source: str) -> bool:
    """Whether nobody else can have ended it. The controller says `Dependency` also of what somebody ended while it waited."""
    return reason == NEVER_SATISFIED or source == "sacct"
