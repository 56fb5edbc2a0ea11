"""The ledger's memory of one run: JSON text ↔ `RunRecord`.

A record is written by us and read back from a file system that others can write to: it is parsed strictly, and what it says is
shown as untrusted text. Times are UTC, ISO 8601.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from dispatcher.attempts import Repeats
from dispatcher.chain import MOST_JOBS, EarlierJob
from dispatcher.errors import ClusterError
from dispatcher.failure import Failure
from dispatcher.pipeline import MOST_STAGES, When
from dispatcher.series import MOST_CURVES, Curve, Progress
from dispatcher.slurm import State
from dispatcher.thresholds import MetricVerdict
from dispatcher.wandb import RUN_PATTERN, SITE, SITE_PATTERN

SCHEMA = 1
# Stands for the job's id in `log_template`: the record is written before there is a job.
JOB_ID = "0JOBID0"
# The words of a cancellation, as we write them: they come back from the cluster, where others can write.
GIVEN_UP = r"^[A-Za-z0-9 ,.\[\]_-]{0,200}$"


class _Frozen(BaseModel):
    # NaN and infinity are results too, so they must survive a round trip.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Queued(_Frozen):
    """The entry of a merge queue that a run is for, as the event named it: the gate on its commit is judged again at the run's end."""

    head_ref: str
    base_ref: str
    base_sha: str = Field(default="", pattern=r"^([0-9a-f]{40,64})?$")
    """The commit that the entry's own is built on; empty in records of before it was kept."""


class Target(_Frozen):
    """Where a run reports on GitHub; ids are 0 or None until the thing exists."""

    repository: str
    pull: int | None = None
    command_comment: int | None = None
    comment: int | None = None
    check: int | None = None
    merge_queue: Queued | None = None


class Resources(_Frozen):
    """What was asked of the scheduler; `seconds` is the time limit, 0 when there is none."""

    nodes: int = 1
    gpus_per_node: int = 0
    seconds: int = 0
    partition: str = ""
    tasks: int = 1
    """An array's tasks, each of which gets all that."""
    at_once: int = 1
    """How many of them may run at the same time."""
    jobs: int = 1
    """Jobs that may follow one another, each with that time limit."""

    @property
    def most_nodes(self) -> int:
        """Nodes that are taken at the same time."""
        return self.nodes * self.at_once

    @property
    def gpu_hours(self) -> float:
        """GPU-hours when the whole time limit is used, of every job."""
        return self.jobs * self.tasks * self.nodes * self.gpus_per_node * self.seconds / 3600


_STAGE = r"^([A-Za-z][A-Za-z0-9_-]{0,31})?$"


class Member(_Frozen):
    """One run of a command that became several: they share a comment, and may lie in different ledgers."""

    run_key: str = Field(pattern=r"^[0-9a-f]{16}$")
    profile: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")
    stage: str = Field(default="", pattern=_STAGE)
    """Of a pipeline: the stage's name."""
    after: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")], ...] = Field(default=(), max_length=MOST_STAGES)
    """The run keys of the members that it waits for, and how those have to end (`when`)."""
    when: When = "afterok"
    reused: bool = False
    """It had run before the command was given, and was not run again."""


_FOLDER = r"^([^/\x00-\x1f\x7f\\][^\x00-\x1f\x7f\\]{0,399})?$"


class CodeRoot(_Frozen):
    """A folder of the package, and the folder of the repository that its files come from; empty: the top one."""

    package: str = Field(default="", pattern=_FOLDER)
    repository: str = Field(default="", pattern=_FOLDER)


class RunRecord(_Frozen):
    """Who asked for what, where it runs, how it stands, and what was last reported."""

    schema_version: int = SCHEMA
    run_key: str = Field(pattern=r"^[0-9a-f]{16}$")
    content_key: str
    digest: str
    target: Target
    origin: Literal["github", "terminal"] = "github"
    trigger: str
    actor: str
    sha: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    profile: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")
    recipe: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,255}$")
    program: str
    pipeline: str = Field(default="", pattern=r"^([A-Za-z0-9_][A-Za-z0-9_./-]{0,255})?$")
    """The recipe of which this run is a stage, and the stage's name; `recipe` is the stage's own. Empty where it is none."""
    stage: str = Field(default="", pattern=_STAGE)
    asked: str = Field(default="", max_length=8000)
    """Of a stage: the words that ask for its whole pipeline."""
    overrides: tuple[str, ...] = ()
    attempt: int = 1
    retry_of: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    """The run that this one repeats."""
    repeats: Repeats | None = None
    """It repeats that one by itself, and not because a person asked."""
    given_up: str = Field(default="", pattern=GIVEN_UP)
    """Who gave its job up, and why, as they said before it was ended. For words alone: how it ended is the scheduler's to say."""
    followed_by: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    """The run that repeats this one by itself."""
    not_repeated: str = Field(default="", pattern=r"^([a-z][a-z0-9.-]{0,63})?$")
    """The reason or error code for which there is none, though the policy wants one."""
    verdict_owed: bool = False
    """It ended well as another run's end that it took over, and nobody has judged it yet: until then no gate may take it for passed."""
    retry_owed: bool = False
    """It has ended and will be repeated, but could not be yet: a gate waits for that."""
    approved_by: str = ""
    """Who vouched for the commit, or agreed as second person; empty where nobody had to."""
    own_runspec: bool = False
    """What the commit's script says for itself is not what it says on the default branch: no gate counts this run."""
    uncommitted: bool = False
    """What ran is not the commit: a working folder with changes, from a terminal. No gate counts this run."""
    group: tuple[Member, ...] = ()
    """All runs of the command, this one included, in their order; empty where it is the only one."""
    executor: str
    cluster: str
    run_dir: str = Field(pattern=r"^/[A-Za-z0-9_./@:+=,-]*$")
    results_path: str = ""
    results_required: bool = False
    series_path: str = ""
    tensorboard_path: str = ""
    """A folder of event files."""
    wandb_summary_path: str = ""
    steps: int | None = None
    """How many steps there are to be, as the recipe says."""
    log_template: str = Field(default="", pattern=r"^(https?://[^\s<>\"'`()\[\]\\|]+)?$")
    resources: Resources = Resources()
    parts: int = 1
    """Tasks of an array job, or components of a heterogeneous one: so many have to end well."""
    array: str = Field(default="", max_length=256, pattern=r"^[0-9,:%-]*$")
    """The tasks of an array job, as Slurm gets them: `0-7`, `1,3,5`."""
    task_seconds: int | None = None
    """How long an array's tasks ran, all together."""
    asked_at: AwareDatetime
    submitted_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    estimated_start: AwareDatetime | None = None
    queue_place: int | None = Field(default=None, ge=1)
    """While it waits: its place in its partition's queue, and how many wait there."""
    queue_length: int | None = Field(default=None, ge=1)
    absent_since: AwareDatetime | None = None
    job_id: str = Field(default="", pattern=r"^[0-9A-Za-z_+.-]{0,64}$")
    earlier_jobs: tuple[EarlierJob, ...] = Field(default=(), max_length=MOST_JOBS)
    """Jobs that this one continues, the first one first."""
    not_continued: str = Field(default="", pattern=r"^([a-z][a-z0-9.-]{0,63})?$")
    """The reason or error code for which no other job continues it, though the recipe's chain wants one."""
    state: State = State.SUBMITTING
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    nodes: str = ""
    evidence: str = ""
    log_offset: int = 0
    wandb_site: str = Field(default=SITE, pattern=f"^{SITE_PATTERN}$")
    """Where the job's Weights & Biases runs are, without scheme."""
    wandb_url: str = Field(default="", pattern=f"^({RUN_PATTERN})?$")
    """Its run there, once the log has named it."""
    wandb_expected: bool = False
    """While it runs, its log is looked through for that; else only once it has ended."""
    log_head_read: bool = False
    """The beginning of the log has been looked through as far as it ever is."""
    lfs_pointers: tuple[str, ...] = ()
    code_roots: tuple[CodeRoot, ...] = ()
    """Where the package's files lie in the repository; empty where the package is the repository as it is."""
    failure: Failure | None = None
    """Why it failed, once it has."""
    results: dict[str, float | int | str | None] = Field(default_factory=dict)
    results_problem: str = ""
    progress: Progress | None = None
    """How far it is, or got, as its series say."""
    curves: tuple[Curve, ...] = Field(default=(), max_length=MOST_CURVES)
    """What is drawn of its series, once it has ended."""
    series_skipped: int = 0
    """Lines and records of its series that could not be read."""
    series_notes: tuple[Annotated[str, Field(max_length=600)], ...] = Field(default=(), max_length=3)
    """What else is to be said of its series: of which there was nothing, or of which only the end was read."""
    verdicts: tuple[MetricVerdict, ...] = ()
    """How the metrics stand that the recipe has rules for; one that fails is the results' problem, too."""
    same_as: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    """The earlier run with the same content whose end, or whose job, is this one's too: nothing was run for this one."""
    same_sha: str = Field(default="", pattern=r"^([0-9a-f]{40,64})?$")
    """The commit of that."""
    joined: bool = False
    """It was its job, which went on: and not its end alone."""
    same_report: str = Field(default="", pattern=r"^(pull/[1-9][0-9]{0,9}#issuecomment-[1-9][0-9]{0,19}|runs/[1-9][0-9]{0,19})?$")
    """Where that is told about: a comment, or a check, below the repository's address."""
    on_default: bool = False
    """What ran is the default branch itself, or what the merge queue makes of it: later runs are compared with it."""

    @property
    def log_url(self) -> str | None:
        """The log's address; None when the profile gives none, or while there is no job."""
        return self.log_template.replace(JOB_ID, self.job_id) if self.log_template and self.job_id else None

    @property
    def log_part(self) -> int | None:
        """Which log is its own, as `Cluster.fetch` takes it, where several jobs may leave one each."""
        return int(self.job_id) if self.resources.jobs > 1 and self.job_id.isdigit() else None

    @property
    def name(self) -> str:
        """What is run, as people write it: the recipe, or pipeline and stage (`full:sft`)."""
        return f"{self.pipeline}:{self.stage}" if self.stage else self.recipe

    @property
    def results_broken(self) -> bool:
        """Whether its results could not be used; what is worse than a rule lets pass is no such problem: it is judged again."""
        return bool(self.results_problem) and not any(verdict.outcome == "fail" for verdict in self.verdicts)

    @property
    def ended_well(self) -> bool:
        """Whether it ended as one wants: with the results that it owes, or as a stage that was not needed."""
        return (self.state is State.SUCCEEDED and not self.results_problem and not self.verdict_owed) or self.state is State.SKIPPED

    @property
    def place(self) -> Member | None:
        """Its place among the stages of its pipeline; None where it is no stage."""
        return next((member for member in self.group if member.run_key == self.run_key and member.stage), None)

    @property
    def before(self) -> tuple[Member, ...]:
        """The stages that it waits for."""
        place = self.place
        return tuple(member for member in self.group if place is not None and member.run_key in place.after)

    def to_json(self) -> str:
        """One line of JSON."""
        return self.model_dump_json()

    @property
    def elapsed_seconds(self) -> int | None:
        """How long it ran, all its jobs together; None where that of the only one is not known."""
        own = self.own_seconds
        return own if own is None and not self.earlier_jobs else self.earlier_seconds + (own or 0)

    @property
    def own_seconds(self) -> int | None:
        """How long the newest job ran, when both ends are known."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0, round((self.ended_at - self.started_at).total_seconds()))

    @property
    def earlier_seconds(self) -> int:
        """How long the jobs before the newest ran; one of which that is not known counts with its whole time limit."""
        return sum(self.resources.seconds if job.seconds is None else job.seconds for job in self.earlier_jobs)


def not_repeated(record: RunRecord, reason: str) -> RunRecord:
    """The record of a run that is not run again by itself, though the policy wants that."""
    return record.model_copy(update={"not_repeated": reason})


def parse_record(text: str) -> RunRecord:
    """JSON text → record.

    Raises:
        ClusterError: `cluster.bad-record` when the ledger's file is not one of ours.
    """
    try:
        return RunRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ClusterError("cluster.bad-record", f"A record in the ledger cannot be read ({where}: {first['msg']}).") from None
