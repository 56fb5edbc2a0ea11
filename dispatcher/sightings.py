"""What squeue, sacct and scontrol say, and what the batch script has left → what counts of each job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dispatcher.jobparts import part_order, parts_of
from dispatcher.ports import CommandOutput
from dispatcher.slurm import Absent, Observation, Sight, Silent, State, parse_places, parse_sacct, parse_scontrol, parse_squeue
from dispatcher.wholejob import filled, together

# After these Slurm starts a job again by itself where it may (`JobRequeue`, `PreemptMode=REQUEUE`), and accounting hears of that late.
_MAY_BEGIN_AGAIN = (State.PREEMPTED, State.NODE_FAIL)


class Sightings:
    """The three commands' answers, parsed once, asked per job: each fills in for the others.

    squeue knows what is active, and wins then, because accounting lags behind by seconds. sacct knows how a job ended. scontrol
    knows both for a while (MinJobAge). Where there is no accounting at all, the exit status that the batch script itself left
    behind counts, but only once the controller says that the job is gone.
    """

    def __init__(
        self,
        squeue: CommandOutput | None,
        sacct: CommandOutput | None,
        scontrol: CommandOutput | None,
        pending: CommandOutput | None = None,
    ) -> None:
        self._places = parse_places(pending) if pending else {}
        self._squeue = _by_part(parse_squeue(squeue)) if squeue else None
        self._sacct = _by_part(parse_sacct(sacct)) if sacct else None
        self._scontrol = _by_part(parse_scontrol(scontrol)) if scontrol else None
        spoken = [output.stderr.strip() for output in (squeue, sacct, scontrol) if output and output.status != 0 and output.stderr.strip()]
        self._words = spoken[0].splitlines()[0] if spoken else "the scheduler does not answer"

    def of(self, job_id: str, exit_file: str = "") -> Sight:
        """What is known of one job; of one that has parts, what they come to together."""
        sight = self._known_of(job_id, exit_file)
        if isinstance(sight, Observation) and sight.state is State.PENDING:
            return replace(sight, place=self._places.get(job_id))
        return sight

    def _known_of(self, job_id: str, exit_file: str) -> Sight:
        queued, accounted, controlled = ((answers or {}).get(job_id, {}) for answers in (self._squeue, self._sacct, self._scontrol))
        parts = sorted({*queued, *accounted, *controlled} - {""}, key=part_order)
        if not parts:
            return self._of(queued.get(""), accounted.get(""), controlled.get(""), exit_file)
        sights = {part: self._of(queued.get(part), accounted.get(part), controlled.get(part), "") for part in parts}
        seen = {part: sight for part, sight in sights.items() if isinstance(sight, Observation)}
        if any(not sight.state.ended and sight.state is not State.UNKNOWN for sight in seen.values()):
            return together(seen)
        if self._sacct is None and self._squeue is not None and exit_file.strip().isdigit():
            # Where there is no accounting, tasks that ended early are forgotten before the last one ends.
            return _told_by(exit_file)
        silent = [sight for sight in sights.values() if isinstance(sight, Silent)]
        return silent[0] if silent else together(seen, exit_file) if len(seen) == len(sights) else Absent()

    def _of(self, queued: Observation | None, accounted: Observation | None, controlled: Observation | None, exit_file: str) -> Sight:
        """One job, or one part of one: what the three say of it → what counts."""
        if queued and not queued.state.ended and queued.state is not State.UNKNOWN:
            return queued
        ended = [seen for seen in (controlled, queued) if seen and seen.state.ended]
        # Where the controller knows another end, accounting still tells of an earlier start: a node failed, Slurm started the job again.
        if (
            accounted
            and accounted.state.ended
            and accounted.end is not None
            and accounted.state in [seen.state for seen in ended or [accounted]]
        ):
            unheard = self._squeue is None and self._scontrol is None
            return Silent(self._words) if unheard and accounted.state in _MAY_BEGIN_AGAIN else accounted
        if ended:
            return filled(ended[0], exit_file)
        if accounted and accounted.state.ended:
            # Accounting that was down hears of a job's start when it has ended: a state without an end, and an exit code that is none.
            return filled(replace(accounted, exit_code=None), exit_file) if self._squeue is not None else Silent(self._words)
        known = [seen for seen in (controlled, accounted, queued) if seen]
        if self._squeue is None and self._scontrol is None:
            # Only accounting spoke, which lags behind: what it says of a job that has not ended may be long over.
            return Silent(self._words)
        if self._sacct is None and exit_file.strip().isdigit():
            return _told_by(exit_file)
        if known and known[0].source != "sacct":
            return known[0]
        return Absent()


def _by_part(jobs: Mapping[str, Observation] | None) -> dict[str, dict[str, Observation]] | None:
    """Observations by id, as the commands wrote it → by job, then by part; a part of its own goes before one in a list."""
    if jobs is None:
        return None
    found: dict[str, dict[str, Observation]] = {}
    for job_id, seen in jobs.items():
        job, parts = parts_of(job_id)
        alone = len(parts) == 1
        for part in parts:
            if alone or part not in found.get(job, {}):
                found.setdefault(job, {})[part] = seen
    return found


def _told_by(exit_file: str) -> Observation:
    """The end of a job that only its own batch script tells of."""
    code = int(exit_file)
    return Observation(State.SUCCEEDED if code == 0 else State.FAILED, "exit file", exit_code=code, parts=None)
