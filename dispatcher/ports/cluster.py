"""One cluster: its scheduler and its ledger, and the port `Cluster`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from dispatcher.ports.cloud import Views
from dispatcher.ports.code import CompiledFile, FileEntry

Part = int | Literal["batch"]
"""Whose log: a task's of an array, a component's of a heterogeneous job; or the batch script's own."""


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
    """The run key has a job, or waits in the queue, or was taken out of it (then `job_id` is empty); `record` is the ledger's text."""

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
    usage: str = ""
    """A line for the usage journal (`usage.py`), entered together with the job id; empty: none."""
    hold: bool = False
    """Everything is laid ready, and the run waits in the queue until `release`; the scheduler is not asked."""


@dataclass(frozen=True)
class Submitted:
    """The scheduler took the job."""

    job_id: str


@dataclass(frozen=True)
class Held:
    """The run lies ready in the queue: nothing has reached the scheduler."""


@dataclass(frozen=True)
class NothingSaved:
    """The job that is to be continued has written no file where it was to save its state: the next one would do the same again."""


@dataclass(frozen=True)
class Standing:
    """Who is at it and who waits: ledger texts of the records of everything in active/, and of the queue in its order."""

    active: tuple[str, ...]
    queued: tuple[str, ...]


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
    queued: tuple[str, ...] = ()
    """Run keys that wait in the queue, in its order; none of them is in `runs`."""
    pending: CommandOutput | None = None
    """Everybody's waiting jobs, the next one first (`slurm.parse_places`); None where none of ours waits."""
    views: Views | None = None
    """What an API says, where jobs are started through one: then there is no scheduler to ask, and its three answers are empty."""


@dataclass(frozen=True)
class CommandOutput:
    """What a remote command printed (size-capped, both streams apart) and its exit status; 127 when it is not there."""

    status: int
    stdout: str
    stderr: str = ""


@dataclass(frozen=True)
class GivenUp(CommandOutput):
    """What came of giving a run's job up: what ended it printed. `others` are the run keys for which it goes on; then nothing was ended."""

    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunFiles:
    """What a run left: the ledger's record, new log bytes from an offset (capped), its results (capped; None when absent)."""

    record: str
    log: bytes
    log_offset: int
    log_size: int
    results: bytes | None
    results_too_big: bool = False
    job_id: str = ""
    """The job's id as the ledger has it, which may be newer than the record; empty when there is none."""
    given_up: str = ""
    """Why `cancel` was asked for; empty where it was not, or where that said nothing."""


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

    def submit(self, submission: Submission) -> Submitted | Held | Refused:
        """Writes the run folder, unpacks, submits, records the job id and lists the run as active, all by itself once it has the data."""

    def release(self, run_key: str) -> Submitted | Refused | None:
        """Hands a queued run to the scheduler, by the same steps as `submit` and as safe against death at any of them.

        None when it is not in the queue any more: somebody else has released or dropped it. What the scheduler refused stays in the
        queue, until whoever has said so drops it.
        """

    def go_on(self, run_key: str, ended: str, saved: str) -> Submitted | Refused | NothingSaved | None:
        """Submits the run's script once more, as the job that continues the job `ended`, by the same steps as `submit`.

        `saved` is where in the run's folder that job has saved its state. Of several who ask for the same, all get the same job's id.
        None where it cannot be said yet: somebody else is at it, or the run has no job of its own. What the scheduler refused leaves
        the run with its ended job.
        """

    def drop(self, run_key: str) -> bool:
        """Takes a queued run out of the queue for good: its key finds its record from now on, and never gets a job. False: not queued.

        It stays in active/, without a job, until `retire`: should its end not be said now, the sweep says it.
        """

    def lock(self) -> bool:
        """Takes the ledger's one admission lock, waiting a while for whoever has it; False when it is not to be had.

        Who looks how much is in use (`standing`, `usage`) and then releases does so under it, so that two cannot both take the last place.
        It is given back by `unlock`, and by the death of the connection.
        """

    def unlock(self) -> None:
        """Gives the admission lock back; nothing when we do not have it."""

    def standing(self) -> Standing:
        """The records of all active and of all queued runs, in one round trip or two."""

    def usage(self, month: str) -> str:
        """The usage journal of a month (`2026-11`), its text (capped at 4 MB); empty when there is none."""

    def account(self, line: str) -> None:
        """Appends one line to the usage journal; the line's first word is its month (`usage.py` writes and reads it)."""

    def adopt(self, run_key: str, other: str, record: str) -> str | None:
        """Gives a claimed run the job, the code, the logs and the exit status of another one that has a job → that job's id.

        None where the other one has given its job up, which may have been ended, or has none any more: the run is claimed as before.

        It is active until it is retired, like any other; nothing is submitted.
        """

    def history(self, name: str) -> str:
        """What `remember` has put under a name (32 hex digits): its lines, the newest megabyte; empty when there are none."""

    def remember(self, name: str, line: str) -> None:
        """Puts one line (without a line's end, at most 64 kB) under a name."""

    def abandon(self, run_key: str) -> None:
        """Gives the claim back; nothing was submitted."""

    def sweep(self) -> Sweep:
        """Looks at every active run at once."""

    def fetch(
        self, run_key: str, log_offset: int, log_cap: int, results_cap: int, results_path: str = "", part: Part | None = None
    ) -> RunFiles | None:
        """Reads one run; None when the ledger does not know it. A negative offset counts from the log's end.

        Of results longer than `results_cap` nothing is read; of a negative cap, that many bytes of their end (both are `results_too_big`).

        `part` is a task of an array or a component of a heterogeneous job, whose log is read (empty when there is none such), or `batch`:
        what Slurm's batch script itself printed. Without it the log that says most: of an array that of a task that failed, else the
        newest.
        """

    def records(self, run_keys: Sequence[str]) -> tuple[str | None, ...]:
        """The records (ledger texts) of many runs, for little more than one costs; None for those that the ledger does not know.

        Of a run with a job whose record is gone, or is no file, the text is empty: here, in `fetch`, in `find` and in `standing`.
        """

    def find(self, tag: str) -> tuple[str, ...]:
        """The records (ledger texts) of all runs with this tag."""

    def save(self, run_key: str, record: str, reported: str) -> None:
        """Replaces a record atomically and remembers the reported state."""

    def retire(self, run_key: str) -> None:
        """Takes a run out of active/, after GitHub has acknowledged its end."""

    def cancel(self, run_key: str, why: str = "") -> GivenUp:
        """The run gives its job up. It is ended (scancel) unless another active run has it, too.

        `why` (one line, for people) is kept with the run before anything is ended; of several the first one.
        """

    def probe(self, account: str, partition: str) -> tuple[Probe, ...]:
        """What `doctor` wants to know."""

    def estimate(self, script: str) -> CommandOutput:
        """`sbatch --test-only`: the scheduler's own start estimate; submits nothing."""

    def close(self) -> None:
        """Ends the connection."""
