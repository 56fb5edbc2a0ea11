"""What Slurm's commands print → what is known about a job. Ask and understand side by side; nothing here runs anything.

The argument lists that `effects/cluster.sh` uses are named here as formats, so that a column and its reader cannot drift apart.
Sources: https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES, https://slurm.schedmd.com/sacct.html, https://slurm.schedmd.com/scontrol.html.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum

from dispatcher.jobparts import part_order, parts_of
from dispatcher.ports import CommandOutput

SQUEUE_FORMAT = "%i|%T|%r|%S|%j|%N|%Q"
# How the reason of a job begins that somebody has ended, and not Slurm itself.
CANCELLED_BY = "cancelled by user id"
SACCT_FORMAT = "JobID,State,ExitCode,Start,End,ElapsedRaw,NodeList,Reason"


class State(str, Enum):
    """Where a run stands. Only `SUCCEEDED` passes a gate; `LOST` and `UNKNOWN` never do."""

    SUBMITTING = "submitting"
    QUEUED = "queued"
    """Queued here, because a limit of the policy is reached or Slurm cannot wait for what it waits for: nobody else has been asked yet."""
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    NODE_FAIL = "node_fail"
    SKIPPED = "skipped"
    """A stage of a pipeline that was not needed: what it is for did not happen. It has never run."""
    LOST = "lost"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come. Unknown is not an end: the next look may know more."""
        return self in _ENDED


_ENDED = frozenset(
    {State.SUCCEEDED, State.FAILED, State.TIMEOUT, State.OUT_OF_MEMORY, State.CANCELLED, State.PREEMPTED, State.NODE_FAIL, State.LOST}
    | {State.SKIPPED}
)

_WORDS: Mapping[str, State] = {
    **dict.fromkeys(["PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"], State.PENDING),
    **dict.fromkeys(["RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"], State.RUNNING),
    "COMPLETED": State.SUCCEEDED,
    "FAILED": State.FAILED,
    "TIMEOUT": State.TIMEOUT,
    "DEADLINE": State.TIMEOUT,
    "OUT_OF_MEMORY": State.OUT_OF_MEMORY,
    "CANCELLED": State.CANCELLED,
    "REVOKED": State.CANCELLED,
    "PREEMPTED": State.PREEMPTED,
    "NODE_FAIL": State.NODE_FAIL,
    "BOOT_FAIL": State.NODE_FAIL,
}
# After these Slurm starts a job again by itself where it may (`JobRequeue`, `PreemptMode=REQUEUE`), and accounting hears of that late.
_MAY_BEGIN_AGAIN = (State.PREEMPTED, State.NODE_FAIL)


@dataclass(frozen=True)
class Place:
    """A waiting job's place among all that wait in its partition and might begin, by their priority; the first has number 1."""

    number: int
    of: int


@dataclass(frozen=True)
class Observation:
    """One look at one job. `source` says who knew; times are UTC as the scheduler gave them, None when it did not.

    `parts` is how many tasks of an array or components of a heterogeneous job it speaks of, None when it speaks of all of it;
    `task_seconds` is how long an array's tasks ran, all together.
    """

    state: State
    source: str
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    nodes: str = ""
    start: datetime | None = None
    end: datetime | None = None
    elapsed_seconds: int | None = None
    parts: int | None = 1
    task_seconds: int | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Absent:
    """Everybody who could know was asked, answered, and does not know the job."""


@dataclass(frozen=True)
class Silent:
    """Nobody who could know has answered: nothing follows from that."""

    words: str


Sight = Observation | Absent | Silent


def state_of(word: str) -> State:
    """Slurm's word → ours. `CANCELLED by 0` and `COMPLETING+` are the words with their ends cut; an unheard-of one is `UNKNOWN`."""
    first = re.split(r"[ +]", word.strip(), maxsplit=1)[0].upper()
    return _WORDS.get(first, State.UNKNOWN)


def parse_squeue(output: CommandOutput) -> dict[str, Observation] | None:
    """Rows of `squeue --noheader -o SQUEUE_FORMAT` by job id; None when squeue did not answer."""
    if output.status != 0:
        return None
    jobs: dict[str, Observation] = {}
    for line in output.stdout.splitlines():
        cells = line.split("|")
        if len(cells) != len(SQUEUE_FORMAT.split("|")):
            continue
        job_id, word, reason, start, _, nodes, _ = cells
        jobs[job_id.strip()] = Observation(
            state_of(word), "squeue", reason="" if reason in ("None", "") else reason, nodes=nodes.strip(), start=parse_time(start)
        )
    return jobs


def parse_sacct(output: CommandOutput) -> dict[str, Observation] | None:
    """Rows of `sacct --noheader --parsable2 --allocations -o SACCT_FORMAT` by job id; None when accounting did not answer.

    A requeued job has a row for every start when `--duplicates` is given; the last row is the newest.
    """
    if output.status != 0 or "Slurm accounting storage is disabled" in output.stdout + output.stderr:
        return None
    jobs: dict[str, Observation] = {}
    for line in output.stdout.splitlines():
        cells = line.split("|")
        if len(cells) < len(SACCT_FORMAT.split(",")):
            continue
        job_id, word, exit_code, start, end, elapsed, nodes = cells[:7]
        code, signal = parse_exit(exit_code)
        jobs[job_id.strip()] = Observation(
            state_of(word),
            "sacct",
            exit_code=code,
            signal=signal,
            reason=_cancelled_by(word) or "|".join(cells[7:]).replace("None", "").strip(),
            nodes="" if nodes == "None assigned" else nodes,
            start=parse_time(start),
            end=parse_time(end),
            elapsed_seconds=int(elapsed) if elapsed.isdigit() else None,
        )
    return jobs


def parse_scontrol(output: CommandOutput) -> dict[str, Observation] | None:
    """`scontrol -o show job`, one line a job, by job id; None when the controller did not answer.

    "Invalid job id specified" is an answer: the controller has forgotten the job (MinJobAge) or never knew it.
    """
    if output.status != 0 and "Invalid job id" not in output.stderr + output.stdout:
        return None
    jobs: dict[str, Observation] = {}
    for line in output.stdout.splitlines():
        pairs = dict(re.findall(r"(\w+)=(\S*)", line))
        if "JobId" not in pairs or "JobState" not in pairs:
            continue
        code, signal = parse_exit(pairs.get("ExitCode", ""))
        jobs[_id_of(pairs)] = Observation(
            state_of(pairs["JobState"]),
            "scontrol",
            exit_code=code,
            signal=signal,
            reason=pairs.get("Reason", "").replace("None", ""),
            nodes=pairs.get("NodeList", "").replace("(null)", ""),
            start=parse_time(pairs.get("StartTime", "")),
            end=parse_time(pairs.get("EndTime", "")),
        )
    return jobs


# Such a job waits for something else than the others, and takes nothing from them: https://slurm.schedmd.com/job_reason_codes.html
_NOT_IN_LINE = re.compile(r"Dependency|JobHeld|BeginTime|JobArrayTaskLimit|Assoc|QOS|PartitionDown|PartitionInactive")


def parse_places(output: CommandOutput) -> dict[str, Place]:
    """Rows of `squeue --states=PENDING --sort=-p,i -o "%P|%F|%r"` → the place of each job in its partition's queue; nothing is no answer.

    A job that may begin in several partitions has its place in the first one that it names. Where `PrivateData` hides others' jobs, only
    those that can be seen are counted.
    """
    if output.status != 0:
        return {}
    lines: dict[str, list[str]] = {}
    for line in output.stdout.splitlines():
        cells = line.split("|")
        if len(cells) == 3 and not _NOT_IN_LINE.match(cells[2].strip("( )")):
            row = lines.setdefault(cells[0].partition(",")[0].strip(), [])
            if cells[1].strip() not in row[-1:]:  # an array's tasks are one job
                row.append(cells[1].strip())
    return {job: Place(number, len(row)) for row in lines.values() for number, job in enumerate(row, 1)}


def _id_of(pairs: Mapping[str, str]) -> str:
    """The id as squeue writes it: scontrol gives every part of a job a number of its own."""
    if "ArrayTaskId" in pairs:
        task = pairs["ArrayTaskId"]
        return f"{pairs['ArrayJobId']}_{task if task.isdigit() else f'[{task}]'}"
    return f"{pairs['HetJobId']}+{pairs['HetJobOffset']}" if "HetJobOffset" in pairs else pairs["JobId"]


def parse_exit(text: str) -> tuple[int | None, int | None]:
    """`1:0` → (1, None), `0:9` → (0, 9), anything else → (None, None)."""
    match = re.fullmatch(r"(\d+):(\d+)", text.strip())
    if match is None:
        return None, None
    return int(match[1]), int(match[2]) or None


def parse_time(text: str) -> datetime | None:
    """Seconds since the epoch (the remote program sets SLURM_TIME_FORMAT=%s) or ISO 8601 → aware UTC; `N/A`, `Unknown`, `None` → None."""
    text = text.strip()
    if re.fullmatch(r"\d{9,11}", text):
        return datetime.fromtimestamp(int(text), tz=timezone.utc)
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def observe(
    job_id: str, squeue: CommandOutput | None, sacct: CommandOutput | None, scontrol: CommandOutput | None, exit_file: str = ""
) -> Sight:
    """Convenience of `Sightings` for one job."""
    return Sightings(squeue, sacct, scontrol).of(job_id, exit_file)


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
            return _filled(ended[0], exit_file)
        if accounted and accounted.state.ended:
            # Accounting that was down hears of a job's start when it has ended: a state without an end, and an exit code that is none.
            return _filled(replace(accounted, exit_code=None), exit_file) if self._squeue is not None else Silent(self._words)
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


def together(parts: Mapping[str, Observation], exit_file: str = "") -> Observation:
    """The parts of one job, by name (`_4`, `+1`) in their order → the job: it has ended when all of them have, and passes when all do.

    What failed first is named, by its end and then by its number; what was cancelled counts as a failure's consequence.
    """
    seen = list(parts.values())
    moving = [one for one in seen if not one.state.ended]
    starts = [one.start for one in seen if one.start and one.state is not State.PENDING and one.elapsed_seconds != 0]
    whole = Observation(
        _state_of_all(seen),
        seen[0].source,
        nodes=",".join(dict.fromkeys(one.nodes for one in seen if one.nodes))[:200],
        start=min(starts, default=None),
        parts=len(parts),
        task_seconds=None if any(part.startswith("+") for part in parts) else _seconds_of_all(seen),
    )
    if whole.state is State.PENDING:
        return replace(whole, reason=seen[0].reason, start=min((one.start for one in seen if one.start), default=None))
    if moving:
        return replace(whole, reason=_counts(seen))
    whole = replace(whole, end=max((one.end for one in seen if one.end), default=None), exit_code=0)
    if whole.state is State.SUCCEEDED:
        return whole
    first, failed = min(
        ((part, one) for part, one in parts.items() if one.state is whole.state),
        key=lambda item: (item[1].end is None, item[1].end.timestamp() if item[1].end else 0.0, part_order(item[0])),
    )
    if sum(one.state is not State.SUCCEEDED for one in seen) == 1:
        failed = _filled(failed, exit_file)  # which has the greatest status of all parts
    kind = "component" if first.startswith("+") else "task"
    how = f" by signal {failed.signal}" if failed.signal else f" with exit code {failed.exit_code}" if failed.exit_code else ""
    # Of other ends the scheduler still says what the part once waited for.
    why = f" ({failed.reason})" if failed.reason and failed.state is State.CANCELLED else ""
    reason = f"{kind} {first[1:]} ended as {failed.state.value.replace('_', ' ')}{how}{why}; {_counts(seen)}"
    return replace(whole, exit_code=failed.exit_code, signal=failed.signal, reason=reason)


def _state_of_all(seen: Sequence[Observation]) -> State:
    """Waiting while all wait, running until all have ended; then the state of what failed first."""
    states = {one.state for one in seen}
    if states == {State.PENDING}:
        return State.PENDING
    if not all(state.ended for state in states):
        # A task that waits for the others' end, or for its next start, keeps the job going.
        return State.UNKNOWN if states - _ENDED == {State.UNKNOWN} else State.RUNNING
    failed = [one for one in seen if one.state is not State.SUCCEEDED]
    if not failed:
        return State.SUCCEEDED
    causes = [one for one in failed if one.state is not State.CANCELLED] or failed
    return min(causes, key=lambda one: (one.end is None, one.end.timestamp() if one.end else 0.0)).state


def _seconds_of_all(seen: Sequence[Observation]) -> int | None:
    """How long all of them ran together; None while that is not known of each, as before accounting has heard of an end."""
    total = 0
    for one in seen:
        if one.elapsed_seconds is not None:
            total += one.elapsed_seconds
        elif one.start and one.end and one.state.ended:
            total += max(0, round((one.end - one.start).total_seconds()))
        else:
            return None
    return total


def _counts(seen: Sequence[Observation]) -> str:
    """`of 4: 3 succeeded, 1 failed`."""
    counts = Counter(one.state for one in seen)
    words = [
        f"{count} {state.value.replace('_', ' ')}" for state, count in sorted(counts.items(), key=lambda item: list(State).index(item[0]))
    ]
    return f"of {len(seen)}: {', '.join(words)}"


def _filled(seen: Observation, exit_file: str) -> Observation:
    """An end whose exit code nobody told, with the one that the batch script itself left behind."""
    told_by_script = seen.exit_code is None and seen.state in (State.SUCCEEDED, State.FAILED) and exit_file.strip().isdigit()
    return replace(seen, exit_code=int(exit_file)) if told_by_script else seen


def _cancelled_by(word: str) -> str:
    match = re.match(r"CANCELLED by (\S+)", word)
    return f"{CANCELLED_BY} {match[1]}" if match else ""


def parse_job_id(text: str) -> str | None:
    """What `sbatch --parsable` prints, `123` or `123;cluster`, → `123`."""
    match = re.fullmatch(r"(\d+)(;\S+)?", text.strip())
    return match[1] if match else None


def start_estimate(said: CommandOutput) -> str | None:
    """`sbatch --test-only` → when and where the job would start, in words; None when it did not say.

    It writes `sbatch: Job 7 to start at 2026-11-20T14:20:00 using 16 processors on nodes n[1-2] in partition batch` on standard error, in
    the cluster's own time zone; https://slurm.schedmd.com/sbatch.html#OPT_test-only.
    """
    found = re.search(r"to start at (\S+) using (\d+) processors on (?:nodes )?(\S+)(?: in partition (\S+))?", said.stderr + said.stdout)
    if found is None:
        return None
    moment, processors, nodes, partition = found.groups()
    where = f" in partition {partition}" if partition else ""
    return f"the scheduler estimates {moment.replace('T', ' ')} (cluster time), {processors} processors on {nodes}{where}"
