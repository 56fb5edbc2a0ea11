"""What Slurm's commands print → what is known about a job. Ask and understand side by side; nothing here runs anything.

The argument lists that `effects/cluster.sh` uses are named here as formats, so that a column and its reader cannot drift apart.
Sources: https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES, https://slurm.schedmd.com/sacct.html, https://slurm.schedmd.com/scontrol.html.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum

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
