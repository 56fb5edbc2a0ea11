"""A run that the machine has ended × the policy's `retries` → whether it is run again by itself, as which attempt, when and where.

Nothing but the ended run's record and the policy decides. Failures that look like the change, or of which that cannot be told, never are
run again by themselves: the table in `causes.py` says whom each blames.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from dispatcher.causes import CAUSES, Kind, blames_machine

if TYPE_CHECKING:
    from dispatcher.record import RunRecord
    from dispatcher.sections import Retries

MOST_RETRIES = 10
PATIENCE = timedelta(hours=6)
"""So long after a run's end what is down is tried again by itself; what is down for longer needs a person."""
_RETRY = re.compile(r"retry:[0-9]{1,3}:[0-9a-f]{16}(?::(?P<origin>.+))?", re.DOTALL)
_NODE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_ONE_NODE = re.compile(_NODE)


class Repeats(BaseModel):
    """What one retry repeats: the `number`-th of at most `most`, after a failure of that cause. `wait` is in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1, le=MOST_RETRIES)
    most: int = Field(ge=1, le=MOST_RETRIES)
    cause: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")
    """A name of `CAUSES`: why the run before failed."""
    node: str = Field(default="", pattern=rf"^({_NODE})?$")
    """Where it failed, if it ran on one node alone."""
    wait: int = Field(default=0, ge=0)
    """How long Slurm lets the job wait, from its submission on."""
    of: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    """Of a pipeline's stage that is run again with another one: the run of that one, whose failure it was."""
    without: tuple[Annotated[str, Field(pattern=rf"^{_NODE}$")], ...] = Field(default=(), max_length=MOST_RETRIES)
    """Nodes on which it must not run."""

    @property
    def words(self) -> str:
        """Which attempt it is: `attempt 2 of 3`; what a person asked for was the first."""
        return f"attempt {self.number + 1} of {self.most + 1}"

    @property
    def why(self) -> str:
        """The class of the failure before: `node failure`."""
        known = CAUSES.get(self.cause)
        return known.kind.value if known is not None else "infrastructure"


@dataclass(frozen=True)
class Exhausted:
    """It would be run again, but has been as often as the policy allows."""


def next_attempt(record: RunRecord, retries: Retries) -> Repeats | Exhausted | None:
    """The retry that an ended run gets. None where it gets none whatever number it is: nothing need be said about that.

    What becomes of a stage depends on the others of its pipeline, too (`tails.py`).
    """
    failure = record.failure
    if not retries.infrastructure or failure is None or not blames_machine(failure.cause):
        return None
    if record.given_up:
        return None
    if record.origin != "github" or not _can_be_asked_about(record):
        return None
    before = record.repeats
    number = (before.number if before else 0) + 1
    if number > retries.infrastructure:
        return Exhausted() if before else None
    node = record.nodes if _ONE_NODE.fullmatch(record.nodes) else ""
    without = before.without if before else ()
    if retries.exclude_node and node and node not in without and CAUSES[failure.cause].kind in (Kind.NODE, Kind.LAUNCHER):
        without = (*without, node)
    return Repeats(
        number=number,
        most=retries.infrastructure,
        cause=failure.cause,
        node=node,
        wait=retries.wait * 2 ** (number - 1),
        without=without if retries.exclude_node else (),
    )


def _can_be_asked_about(record: RunRecord) -> bool:
    """Whether something says today whether the run still may: a pull request, the policy itself, or the branch that its commit is on."""
    return record.target.pull is not None or origin_of(record.trigger).startswith(("schedule:", "merge_group:", "manual:"))


def retry_trigger(number: int, before: str, origin: str = "") -> str:
    """What brings a retry about: part of its run key, so no record can say that it was an earlier one, or that another way led to it.

    `origin` is the trigger of the first attempt where there is no pull request; empty where there is one.
    """
    return f"retry:{number}:{before}" + (f":{origin}" if origin else "")


def origin_of(trigger: str) -> str:
    """The trigger of the first attempt, of which a retry's own trigger tells; empty where that tells of none."""
    retry = _RETRY.fullmatch(trigger)
    return trigger if retry is None else retry["origin"] or ""
