"""The end of a run's job → the run with its next job, where its recipe's chain wants one and the job has saved its state.

The ledger's program submits it, once, whoever asks (`Cluster.go_on`); what it is to continue is named by its id, so that an old look at
a run that goes on already changes nothing. Whoever dies in between leaves the run with its ended job, and the next look does the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from typing_extensions import assert_never

from dispatcher.attempts import PATIENCE
from dispatcher.chain import GIVEN_UP, NOTHING_SAVED, Chain, Last, Next, continued, with_next_job
from dispatcher.errors import DispatchError
from dispatcher.observe import Seen
from dispatcher.policy import Policy
from dispatcher.ports import Cluster, NothingSaved, Refused, Submitted
from dispatcher.recipe import Recipe
from dispatcher.record import RunRecord, parse_record
from dispatcher.slurm import State
from dispatcher.world import World

REFUSED = "next-job-refused"
_GOES_ON = MappingProxyType(
    {"state": State.PENDING, "reason": "its next job", "ended_at": None, "exit_code": None, "signal": None, "failure": None}
)


@dataclass(frozen=True)
class NotYet:
    """Whether the run goes on could not be found out, or somebody else is at it: the next look decides, and nothing is to be reported.

    `seen` has not ended: neither a gate nor whoever waits may take its job's end for the run's.
    """

    seen: Seen


def go_on(world: World, cluster: Cluster, policy: Policy, seen: Seen) -> Seen | NotYet:
    """A run whose job has ended: with the next one, or with the reason for which there is none, or as it is where it has no chain."""
    record = seen.record
    if record.origin == "github" and world.forge is None:
        return seen  # whoever can tell GitHub settles it
    wanted = continued(record, chain_of(record, policy))
    match wanted:
        case None:
            return seen
        case Last():
            return replace(seen, record=_last(record, wanted.reason))
        case Next() if record.same_as:
            return _others(cluster, seen)
        case Next():
            return _submitted(world, cluster, seen, wanted)
        case _:
            assert_never(wanted)


def before_its_next_job(record: RunRecord, policy: Policy) -> RunRecord:
    """What a look that settles nothing knows of a run: a job that another one will continue is not its end."""
    if record.state.ended and isinstance(continued(record, chain_of(record, policy)), Next):
        return record.model_copy(update=_GOES_ON)
    return record


def chain_of(record: RunRecord, policy: Policy) -> Chain | None:
    """The chain that the default branch gives the run's recipe now."""
    recipe = policy.recipe(record.recipe)
    return recipe.chain if isinstance(recipe, Recipe) else None


def _submitted(world: World, cluster: Cluster, seen: Seen, wanted: Next) -> Seen | NotYet:
    record = seen.record
    try:
        if why := _unwanted(record, world):
            return replace(seen, record=_last(record, why))
        answer = cluster.go_on(record.run_key, record.job_id, wanted.saved)
    except DispatchError as error:
        if record.ended_at is not None and world.clock.now() - record.ended_at >= PATIENCE and not error.job_may_exist:
            return replace(seen, record=_last(record, error.code))
        world.say(f"Run {record.run_key} could not go on yet: {error.cause} The next look tries it.")
        return _not_yet(seen)
    match answer:
        case Submitted() if answer.job_id != record.job_id:
            world.say(f"Run {record.run_key} goes on as job {answer.job_id}, after job {record.job_id}.")
            return replace(seen, record=with_next_job(record, answer.job_id))
        case Submitted() | None:
            return _not_yet(seen)
        case NothingSaved():
            return replace(seen, record=_last(record, NOTHING_SAVED))
        case Refused():
            world.say(f"Run {record.run_key} cannot go on: {answer.words}")
            return replace(seen, record=_last(record, REFUSED))
        case _:
            assert_never(answer)


def _unwanted(record: RunRecord, world: World) -> str:
    """Why the run must not go on, as a reason: what runs is the pull request's head. Raises `ForgeError`."""
    number = record.target.pull
    if world.forge is None or number is None:
        return ""
    pull = world.forge.pull(number)
    if pull is None or pull.state != "open":
        return "pull-closed"
    return "" if pull.head_sha == record.sha else "head-moved"


def _others(cluster: Cluster, seen: Seen) -> Seen | NotYet:
    """The job is another run's: whether that goes on is decided where it is settled, and its next job is this run's, too."""
    (text,) = cluster.records([seen.record.same_as])
    if text is None:
        return seen
    other = parse_record(text)
    if other.state.ended:
        return replace(seen, record=_last(seen.record, GIVEN_UP if other.given_up else other.not_continued))
    return _not_yet(seen)


def _not_yet(seen: Seen) -> NotYet:
    return NotYet(replace(seen, record=seen.record.model_copy(update=_GOES_ON)))


def _last(record: RunRecord, reason: str) -> RunRecord:
    return record.model_copy(update={"not_continued": reason})
