"""What the story in `flow.py` asks of the world, as Protocols: effects/ makes them real, tests/fakes.py makes them quick.

Every value that crosses a port is a frozen dataclass of plain values, parsed by the effect that received it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

# --------------------------------------------------------------------------- GitHub


@dataclass(frozen=True)
class PullRequest:
    """The facts about a pull request that decide; `head_repository` is empty when the fork was deleted."""

    number: int
    state: Literal["open", "closed"]
    draft: bool
    head_sha: str
    head_ref: str
    head_repository: str
    base_ref: str
    base_sha: str
    base_repository: str
    author: str
    labels: tuple[str, ...] = ()

    @property
    def from_fork(self) -> bool:
        """Whether the head is in another repository, whose pushes nobody here has vouched for."""
        return self.head_repository != self.base_repository


@dataclass(frozen=True)
class Comment:
    """A comment of ours, found again or just written."""

    id: int
    url: str
    body: str


@dataclass(frozen=True)
class Annotation:
    """A message on a line of a file, shown beside the check."""

    path: str
    line: int
    level: Literal["notice", "warning", "failure"]
    message: str


Conclusion = Literal["success", "failure", "neutral", "cancelled", "timed_out", "action_required", "skipped"]


@dataclass(frozen=True)
class Check:
    """The whole wanted state of a check run; `conclusion` is None while it is pending."""

    name: str
    sha: str
    external_id: str
    status: Literal["queued", "in_progress", "completed"]
    conclusion: Conclusion | None
    title: str
    summary: str
    details_url: str | None = None
    annotations: tuple[Annotation, ...] = ()


@dataclass(frozen=True)
class CheckRef:
    """A check run that exists and that our identity made."""

    id: int
    url: str
    external_id: str
    status: str
    conclusion: str | None


Reaction = Literal["eyes", "rocket", "hooray", "confused", "-1", "+1"]


class Forge(Protocol):
    """GitHub, for one repository. Raises `ForgeError` with a `github.*` code; a lookup that GitHub answers with 404 gives None.

    Reads are retried on 5xx, resets and rate limits within a bounded time; a write is repeated only after looking whether
    the first one took effect.
    """

    @property
    def requests(self) -> int:
        """How many requests were sent so far."""

    def pull(self, number: int) -> PullRequest | None:
        """The pull request as it is now."""

    def role(self, login: str) -> str | None:
        """`role_name` on this repository (admin, maintain, write, triage, read, or a custom name); None when not a collaborator."""

    def team_member(self, org: str, team: str, login: str) -> bool:
        """Whether `login` is an active member; False also when the team does not exist or cannot be seen."""

    def commit_sha(self, ref: str) -> str | None:
        """The full SHA that a branch, tag or SHA of this repository names."""

    def read_text(self, path: str, ref: str) -> str | None:
        """The text of a file at a ref; None when it is not there."""

    def list_files(self, path: str, ref: str) -> tuple[str, ...]:
        """Names of the files directly in a folder at a ref; empty when there is no such folder."""

    def changed_files(self, number: int) -> tuple[str, ...]:
        """Every path that the pull request touches (GitHub lists at most 3,000)."""

    def react(self, comment_id: int, content: Reaction) -> bool:
        """Adds our reaction to a comment → whether it was not there yet; adding the same one again changes nothing."""

    def find_comment(self, number: int, marker: str, since: datetime | None = None) -> Comment | None:
        """Our own comment on the pull request that contains `marker`; every page is read; others' comments never count."""

    def create_comment(self, number: int, body: str, marker: str) -> Comment:
        """Writes a comment that contains `marker`; after an unclear answer it looks for the marker before writing again."""

    def update_comment(self, comment_id: int, body: str) -> Comment | None:
        """Replaces the body; None when somebody deleted the comment."""

    def find_checks(self, sha: str, name: str | None = None) -> tuple[CheckRef, ...]:
        """Check runs on a commit that our own identity made, newest first, all pages."""

    def create_check(self, check: Check) -> CheckRef:
        """Makes a check run; after an unclear answer it looks for the same `external_id` before making another."""

    def update_check(self, check_id: int, check: Check) -> CheckRef | None:
        """Brings a check run to the wanted state; None when it no longer exists. More than 50 annotations go in several requests."""

    def remove_label(self, number: int, label: str) -> None:
        """Takes a label off; no error when it is gone already."""


# --------------------------------------------------------------------------- git


@dataclass(frozen=True)
class PackageSpec:
    """What of a commit is packed. `subpath` becomes the archive's root; `include_pattern` are gitwildmatch patterns (all if empty)."""

    subpath: str = ""
    include_pattern: tuple[str, ...] = ()
    include_submodules: bool = True


@dataclass(frozen=True)
class FileEntry:
    """One packed file: path from the archive's root, git mode (100644, 100755, 120000), git blob id, size in bytes (-1 unknown)."""

    path: str
    mode: str
    blob: str
    size: int


@dataclass(frozen=True)
class Package:
    """What would travel. `digest` (64 hex) depends only on paths, modes and blob ids, so two commits with the same tree share it."""

    sha: str
    digest: str
    files: tuple[FileEntry, ...]
    lfs_pointers: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes before compression."""
        return sum(max(entry.size, 0) for entry in self.files)


class Archive(Protocol):
    """The pull request's code as git objects. Raises `GitError` with a `git.*` code. Nothing is checked out, filtered or executed."""

    def describe(self, sha: str, spec: PackageSpec) -> Package:
        """Lists what a commit packs; fetches the commit (and submodules at their pins) when it is not there."""

    def read_text(self, sha: str, path: str) -> str | None:
        """One file of the commit as text; None when it is not there. Never follows a symbolic link."""

    def stream(self, package: Package, only: frozenset[str] | None = None) -> Iterator[bytes]:
        """A gzip-compressed tar, the same bytes for the same package; `only` restricts it to some paths. Never held in memory."""


# --------------------------------------------------------------------------- NeMo-Run


@dataclass(frozen=True)
class CompiledFile:
    """A file for the run's folder."""

    path: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Compiled:
    """What NeMo-Run rendered: `script` is exactly what sbatch gets (or what the local runner starts); `files` go beside it."""

    script: str
    files: tuple[CompiledFile, ...] = ()


class Compiler(Protocol):
    """NeMo-Run in a process of its own. Raises `CompileError`."""

    def start(self) -> None:
        """Begins importing NeMo-Run, the longest step of all; returns at once, may be called more than once."""

    def begin(self, job: Mapping[str, object]) -> None:
        """Asks for a rendering ahead, so that `compile` of the same job finds it done; returns at once and raises nothing."""

    def compile(self, job: Mapping[str, object]) -> Compiled:
        """Renders one job from `JobPlan.for_compiler()`."""

    def close(self) -> None:
        """Ends the process; nothing is left behind."""


# --------------------------------------------------------------------------- the cluster and its ledger


@dataclass(frozen=True)
class ClaimRequest:
    """Asks for the right to submit one run key. `tags` are index names (hex) under which the run can be found again."""

    run_key: str
    digest: str
    package_group: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Claimed:
    """The run folder is ours. `resumed`: an earlier submission was interrupted before it had a job."""

    resumed: bool
    has_package: bool
    base: tuple[FileEntry, ...] | None
    """What the cluster has of an earlier package of the same group: the difference to it can be sent; None when it has none."""
    base_digest: str | None = None
    """Names that base, for `Upload.base_digest`."""


@dataclass(frozen=True)
class AlreadySubmitted:
    """The run key has a job; `record` is the ledger's text."""

    job_id: str
    record: str


@dataclass(frozen=True)
class InProgress:
    """Another delivery of the same run key is submitting right now and did not finish while we waited."""

    since_seconds: int


ClaimAnswer = Claimed | AlreadySubmitted | InProgress


@dataclass(frozen=True)
class Upload:
    """The archive to send: whole, or the difference to the base that `Claimed` named (`base_digest`, paths to delete)."""

    chunks: Callable[[], Iterator[bytes]]
    base_digest: str | None = None
    delete: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submission:
    """Everything for one atomic submission; `upload` is None when the cluster has the package."""

    run_key: str
    record: str
    script: str
    files: tuple[CompiledFile, ...]
    env_file: str
    manifest: str
    upload: Upload | None


@dataclass(frozen=True)
class Submitted:
    """The scheduler took the job."""

    job_id: str


@dataclass(frozen=True)
class Refused:
    """sbatch said no; `words` are its own, redacted. The run folder is gone again, so the same key may try once more."""

    words: str


@dataclass(frozen=True)
class ActiveRun:
    """An entry of active/: `job_id` is empty for an interrupted submission; sizes are bytes now on disk."""

    run_key: str
    job_id: str
    reported: str
    """The state that was last reported, as the ledger remembers it."""
    age_seconds: int
    log_size: int
    exit_file: str
    """Local runs only: what the runner left as its exit status; empty while it runs."""
    alive: bool


@dataclass(frozen=True)
class Sweep:
    """One look at everything active: the ledger's entries and the scheduler's own words, unparsed (`slurm.py` reads them)."""

    runs: tuple[ActiveRun, ...]
    now: int
    squeue: CommandOutput
    sacct: CommandOutput
    scontrol: CommandOutput | None
    """None when it was not asked, because the other two know every job: that is no answer."""


@dataclass(frozen=True)
class CommandOutput:
    """What a remote command printed (size-capped, both streams apart) and its exit status; 127 when it is not there."""

    status: int
    stdout: str
    stderr: str = ""


@dataclass(frozen=True)
class RunFiles:
    """What a run left: the ledger's record, new log bytes from an offset (capped), its results (capped; None when absent)."""

    record: str
    log: bytes
    log_offset: int
    log_size: int
    results: bytes | None
    results_too_big: bool = False


@dataclass(frozen=True)
class Probe:
    """One finding of `doctor`, in the cluster's own words."""

    name: str
    output: CommandOutput


class Cluster(Protocol):
    """One cluster: its scheduler and its ledger, over one connection and one exec for the life of the object.

    Raises `SshError` (`ssh.*`) when there is no trusted connection and `ClusterError` (`cluster.*`) when the far side refuses.
    """

    def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """Takes the run key's lock (mkdir), or says who has it."""

    def submit(self, submission: Submission) -> Submitted | Refused:
        """Writes the run folder, unpacks, submits, records the job id and lists the run as active, all by itself once it has the data."""

    def abandon(self, run_key: str) -> None:
        """Gives the claim back; nothing was submitted."""

    def sweep(self) -> Sweep:
        """Looks at every active run at once."""

    def fetch(self, run_key: str, log_offset: int, log_cap: int, results_cap: int, results_path: str = "") -> RunFiles | None:
        """Reads one run; None when the ledger does not know it. A negative offset counts from the log's end."""

    def records(self, run_keys: Sequence[str]) -> tuple[str | None, ...]:
        """The records (ledger texts) of many runs, for little more than one costs; None for those that the ledger does not know."""

    def find(self, tag: str) -> tuple[str, ...]:
        """The records (ledger texts) of all runs with this tag."""

    def save(self, run_key: str, record: str, reported: str) -> None:
        """Replaces a record atomically and remembers the reported state."""

    def retire(self, run_key: str) -> None:
        """Takes a run out of active/, after GitHub has acknowledged its end."""

    def cancel(self, run_key: str) -> CommandOutput:
        """scancel for the run's job."""

    def probe(self, account: str, partition: str) -> tuple[Probe, ...]:
        """What `doctor` wants to know."""

    def estimate(self, script: str) -> CommandOutput:
        """`sbatch --test-only`: the scheduler's own start estimate; submits nothing."""

    def close(self) -> None:
        """Ends the connection."""


class Clock(Protocol):
    """Time, so that the story can be told in tests."""

    def now(self) -> datetime:
        """UTC, aware."""

    def sleep(self, seconds: float) -> None:
        """Waits."""
