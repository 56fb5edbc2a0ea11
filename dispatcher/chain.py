"""A run whose job has ended before its work had × the recipe's `chain` → whether another job continues it, or why none does.

All jobs of a chain are one run: one folder, one comment, one check, one verdict. What the next one goes on from is what the one before
has saved in the folder; a job that saved nothing is never continued, because the next would do the same again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from dispatcher.causes import blames_machine
from dispatcher.slurm import State
from dispatcher.values import Between, Model, RelativePath

if TYPE_CHECKING:
    from dispatcher.record import RunRecord

MOST_JOBS = 100

JOBS_USED = "jobs-used"
NOTHING_SAVED = "nothing-saved"
GIVEN_UP = "chain-given-up"


class Chain(Model):
    """Jobs of one run, one after the other: what the time limit ends, the next job continues."""

    jobs: Annotated[int, Between(2, MOST_JOBS)] = Field(description="At most so many jobs, the first one included.")
    checkpoints: RelativePath = Field(
        description="The folder or file in which the script saves its state, seen from the packed root. "
        "A job that has written nothing there is not continued."
    )
    exit_code: Annotated[int, Between(1, 255)] | None = Field(
        default=None,
        description="With this exit status the script says that it has saved its state, and wants to go on before the limit ends it.",
    )


class EarlierJob(BaseModel):
    """A job of a run that another job has continued; `seconds` is how long it ran, None where nobody saw it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str = Field(pattern=r"^[0-9A-Za-z_+.-]{1,64}$")
    seconds: int | None = Field(default=None, ge=0)
    nodes: str = Field(default="", max_length=1000)
    cause: str = Field(default="", pattern=r"^([a-z][a-z0-9-]{0,39})?$")
    """A name of `CAUSES`: what ended it; empty where it said itself that it wanted to be continued."""


@dataclass(frozen=True)
class Next:
    """Another job continues the run, from what the one before has saved there in the run's folder."""

    saved: str


@dataclass(frozen=True)
class Last:
    """The run would go on, and does not: `reason` is a key of `denial.REASONS`."""

    reason: str


def continued(record: RunRecord, chain: Chain | None) -> Next | Last | None:
    """What follows the end of a run's job; None where its end is the run's, whatever the chain says."""
    most = record.resources.jobs
    if chain is None or most < 2 or record.given_up or not _unfinished(record, chain):
        return None
    # The policy may have become stricter since the run was granted, never looser.
    if len(record.earlier_jobs) + 1 >= min(most, chain.jobs):
        return Last(JOBS_USED)
    return Next(f"code/{chain.checkpoints}")


def _unfinished(record: RunRecord, chain: Chain) -> bool:
    """Whether the job was ended by its time limit or the machine, or says itself that it wants to go on."""
    if record.state is State.FAILED and record.exit_code is not None and record.exit_code == chain.exit_code:
        return True
    return bool(_ended_by(record))


def _ended_by(record: RunRecord) -> str:
    """The cause, where it is not the program's own end."""
    cause = record.failure.cause if record.failure is not None else ""
    return cause if cause == "time-limit" or blames_machine(cause) else ""


def with_next_job(record: RunRecord, job_id: str) -> RunRecord:
    """The record of a run that another job continues: what was known of the one before becomes a line of its own.

    Curves and steps stay until there are newer ones.
    """
    ended = EarlierJob(job_id=record.job_id, seconds=record.own_seconds, nodes=record.nodes[:1000], cause=_ended_by(record))
    update: dict[str, object] = {
        "earlier_jobs": (*record.earlier_jobs, ended),
        "job_id": job_id,
        "state": State.PENDING,
        "exit_code": None,
        "signal": None,
        "reason": "",
        "nodes": "",
        "evidence": "",
        "started_at": None,
        "ended_at": None,
        "estimated_start": None,
        "queue_place": None,
        "queue_length": None,
        "absent_since": None,
        "failure": None,
        "results": {},
        "results_problem": "",
        "verdicts": (),
        "wandb_url": "",
        "log_head_read": False,
        "not_continued": "",
    }
    return record.model_copy(update=update)
