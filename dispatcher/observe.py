"""A cluster's active runs → records that know how they stand, with the end of their log; GitHub hears only of what changed.

Shared by the sweep (`watch`), by the attached mode and by the first report after a submission.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial

from typing_extensions import assert_never

from dispatcher.advance import advance
from dispatcher.awaiting import as_seen, never_began
from dispatcher.chain import with_next_job
from dispatcher.cloudstates import CloudSightings
from dispatcher.diagnosing import EXPLAIN_READ, explained, wants_explanation
from dispatcher.errors import ClusterError
from dispatcher.grouping import group_records
from dispatcher.measuring import with_series
from dispatcher.policy import Policy
from dispatcher.ports import ActiveRun, Cluster, RunFiles, Sweep
from dispatcher.record import GIVEN_UP, RunRecord, parse_record
from dispatcher.results import MAX_BYTES, NO_RESULTS, BrokenResults, NoResults, Results, parse_results
from dispatcher.sightings import Sightings
from dispatcher.slurm import Absent, Observation, Sight, Silent, State
from dispatcher.squash import import_failure
from dispatcher.untrusted import redact
from dispatcher.wandb import run_link
from dispatcher.world import World

TAIL_READ = 64 * 1024
# Slurm's words on a job's end are the last ones of its batch script's log.
BATCH_READ = 32 * 1024
# In so much of a log's beginning the job's run at Weights & Biases is looked for.
HEAD_READ = 256 * 1024
ABSENT = "absent"
# Stands for the reported state where what is in the ledger has not been said yet: the next look says it.
UNREPORTED = "unreported"
# Stands for `running` while the log of the job may still name its run at Weights & Biases.
_LINK_WANTED = f"{State.RUNNING.value}, link wanted"
# Follows these words where the run's steps were told, and when: the next time they are may be due.
_TOLD = re.compile(r"(?P<words>.*), told (?P<at>[0-9]{1,12})", re.ASCII)

# How a local run's script ended: by itself, by `timeout`, by somebody's Ctrl-C or cancel.
_LOCAL_ENDS = {0: State.SUCCEEDED, 124: State.TIMEOUT, 130: State.CANCELLED, 143: State.CANCELLED}


@dataclass(frozen=True)
class Seen:
    """One active run after a look: its record, the end of its log, and where it was last published."""

    record: RunRecord
    tail: str
    comment_url: str = ""
    moved: bool = False
    """Its steps are news: telling them is due, and they have gone on since they were told."""


@dataclass(frozen=True)
class Around:
    """What a look at one run may need of others: what the same sweep says of them, and the policy that names their ledgers."""

    sights: Mapping[str, Sight]
    policy: Policy
    measure: bool = False
    """Somebody wants to see how far the run is, whether or not that is news."""


def sight_of(run: ActiveRun, sightings: Sightings | CloudSightings, executor: str) -> Sight:
    """What one sweep says about one run. A local run is known by its process and by the exit status that it left."""
    if executor != "local":
        return sightings.of(run.job_id, run.exit_file)
    if run.exit_file.strip().isdigit():
        code = int(run.exit_file)
        return Observation(_LOCAL_ENDS.get(code, State.FAILED), "exit file", exit_code=code)
    return Observation(State.RUNNING, "process") if run.alive else Absent()


def sightings_of(sweep: Sweep) -> Sightings | CloudSightings:
    """The sweep's answers, parsed once: the scheduler's three, or an API's."""
    if sweep.views is not None:
        return CloudSightings(sweep.views)
    return Sightings(sweep.squeue, sweep.sacct, sweep.scontrol, sweep.pending)


def changed(run: ActiveRun, sight: Sight) -> bool:
    """Whether the ledger has to be read at all: most runs of a sweep are as they were reported.

    An end is news for as long as the run is active: whoever has said it may have died before it was retired.
    """
    match sight:
        case Observation():
            if sight.state is State.RUNNING:
                return _words(run.reported) not in (State.RUNNING.value, _LINK_WANTED)
            return sight.state.ended or _state_words(sight.state, sight.reason) != run.reported
        case Absent():
            return True
        case Silent():
            return False
        case _:
            assert_never(sight)


def may_name_its_run(run: ActiveRun, sight: Sight) -> bool:
    """Whether a running job has written something, and its log has not been looked through yet for its run at Weights & Biases."""
    running = isinstance(sight, Observation) and sight.state is State.RUNNING
    return running and _words(run.reported) == _LINK_WANTED and run.log_size > 0


def progress_due(run: ActiveRun, sight: Sight, policy: Policy, now: datetime) -> bool:
    """Whether a running job's steps may be told again: the policy says how often at most (`watch.progress`)."""
    told = _TOLD.fullmatch(run.reported)
    if policy.watch.progress is None or told is None or not isinstance(sight, Observation) or sight.state is not State.RUNNING:
        return False
    return now - datetime.fromtimestamp(int(told["at"]), timezone.utc) >= timedelta(seconds=policy.watch.progress)


def _words(reported: str) -> str:
    """What was reported, without when its steps were told."""
    told = _TOLD.fullmatch(reported)
    return told["words"] if told else reported


def reported_as(record: RunRecord) -> str:
    """What the ledger remembers of a report: the state; while a job waits, what for; while it runs, whether a link is still looked for."""
    if record.state is State.RUNNING and record.wandb_expected and not (record.wandb_url or record.log_head_read):
        return _LINK_WANTED
    return _state_words(record.state, record.reason)


def _state_words(state: State, reason: str) -> str:
    """Of a job that waits, another reason is news."""
    return f"{state.value} {reason[:60]}".strip() if state is State.PENDING else state.value


def note_absence(cluster: Cluster, seen: Seen) -> None:
    """Since when a job is absent must survive this process; GitHub is told nothing.

    `ABSENT` stands for what was reported, so that a job that comes back is looked at, and has its whole grace again.
    """
    cluster.save(seen.record.run_key, seen.record.to_json(), ABSENT)


def note_no_link(cluster: Cluster, run: ActiveRun, seen: Seen) -> None:
    """That a running job's log begins without a run at Weights & Biases is remembered, so that it is not read again and again."""
    if seen.record.state is State.RUNNING and seen.record.log_head_read and _words(run.reported) == _LINK_WANTED:
        cluster.save(seen.record.run_key, seen.record.to_json(), reported_as(seen.record) + run.reported.removeprefix(_LINK_WANTED))


def sights_of(sweep: Sweep, executor: str) -> dict[str, Sight]:
    """What one sweep says about each of its runs."""
    sightings = sightings_of(sweep)
    return {run.run_key: sight_of(run, sightings, executor) for run in sweep.runs}


def look(world: World, cluster: Cluster, run: ActiveRun, sight: Sight, lost_after: timedelta, around: Around | None = None) -> Seen | None:
    """Reads one run and brings its record up to date; None when its folder is gone or it is somebody else's.

    Of a stage that never began, those before it say why: `around` is how they are found.
    """
    files = cluster.fetch(run.run_key, -TAIL_READ, TAIL_READ, MAX_BYTES)
    if files is None:
        return None
    known = parse_record(files.record)
    if any(job.job_id == run.job_id for job in known.earlier_jobs):
        # Since the sweep was read, somebody else has let the run go on in its next job: what was seen is that of an earlier one.
        return Seen(known, redact(files.log.decode("utf-8", "replace"), world.settings.to_hide))
    before = of_job(known, run.job_id)
    if before.run_key != run.run_key:
        raise ClusterError("cluster.bad-record", f"The record of run {run.run_key} in the ledger is another run's.")
    if before.log_part is not None:  # until this one writes, the newest log is that of another
        files = cluster.fetch(run.run_key, -TAIL_READ, TAIL_READ, MAX_BYTES, part=before.log_part) or files
    record = _given_up(_as_seen(before, sight, cluster, around, world, lost_after), files.given_up)
    if record.state.ended:
        record = _with_results(record, _results_of(cluster, record, files), world.settings.to_hide)
    if record.target.repository != world.settings.repository:
        return None  # Another repository's run in the same job_dir: its own sweep speaks for it.
    tail = redact(files.log.decode("utf-8", "replace"), world.settings.to_hide)
    if wants_explanation(record):
        more = _more_of(tail, record, files, cluster, world)
        record = explained(record, more, world, run.exit_file, partial(_batch_log_of, record, cluster, world))
    if record.state is State.FAILED:  # of which Slurm says no more than `NonZeroExitCode`
        record = record.model_copy(update={"reason": import_failure(tail) or record.reason})
    due = around is not None and progress_due(run, sight, around.policy, world.clock.now())
    if due or changed(run, sight) or (around is not None and around.measure):
        record = with_series(record, tail, files, cluster, around.policy if around else None, world.settings.to_hide)
    moved = due and record.progress is not None and not record.progress.same_as(before.progress)
    return Seen(_with_link(record, cluster, files, tail, world.settings.to_hide), tail, moved=moved)


def _as_seen(before: RunRecord, sight: Sight, cluster: Cluster, around: Around | None, world: World, lost_after: timedelta) -> RunRecord:
    """The record after the look. The stages before it may be in other ledgers; they are read only where they have something to say."""
    now = world.clock.now()
    if around is None or not never_began(before, sight):
        return advance(before, sight, now, lost_after)
    group = group_records(before, cluster, around.policy, world)
    return as_seen(before, {**around.sights, before.run_key: sight}, group.records, now, lost_after, group.unheard)


def of_job(record: RunRecord, job_id: str) -> RunRecord:
    """The record was written before there was a job, or whoever submitted the next one died: the ledger's `job` file is newer."""
    if job_id and record.job_id and job_id != record.job_id and record.resources.jobs > 1:
        return with_next_job(record, job_id)
    return record.model_copy(update={"job_id": job_id or record.job_id})


def _given_up(record: RunRecord, why: str) -> RunRecord:
    """The record with who gave its job up. What the scheduler says of a cancelled job is only under whose account that was done."""
    if not why:
        return record
    why = why if re.fullmatch(GIVEN_UP, why) else "somebody gave it up here"
    return record.model_copy(update={"given_up": why, **({"reason": why} if record.state is State.CANCELLED else {})})


def tail_of(world: World, cluster: Cluster, record: RunRecord) -> str:
    """The end of a run's log, redacted."""
    files = cluster.fetch(record.run_key, -TAIL_READ, TAIL_READ, 0, part=record.log_part)
    return redact(files.log.decode("utf-8", "replace"), world.settings.to_hide) if files else ""


def _more_of(tail: str, record: RunRecord, files: RunFiles, cluster: Cluster, world: World) -> str:
    """Of a long log, more than its last lines: why one rank failed stands before what all the others say of it."""
    more = cluster.fetch(record.run_key, -EXPLAIN_READ, EXPLAIN_READ, 0, part=record.log_part) if files.log_size > TAIL_READ else None
    return redact(more.log.decode("utf-8", "replace"), world.settings.to_hide) if more else tail


def _batch_log_of(record: RunRecord, cluster: Cluster, world: World) -> str:
    """The end of what the batch script printed: srun says there how a task ended, and on which node."""
    files = cluster.fetch(record.run_key, -BATCH_READ, BATCH_READ, 0, part="batch") if record.executor == "slurm" else None
    return redact(files.log.decode("utf-8", "replace"), world.settings.to_hide) if files else ""


def _with_link(record: RunRecord, cluster: Cluster, files: RunFiles, tail: str, to_hide: Collection[str]) -> RunRecord:
    """The record with the job's run at Weights & Biases, which it names at the beginning of its log, and again at its end."""
    if record.wandb_url:
        return record
    url = run_link(tail, record.wandb_site)
    wanted = record.wandb_expected or record.state.ended
    if not url and wanted and files.log_offset and not record.log_head_read:
        head = cluster.fetch(record.run_key, 0, HEAD_READ, 0, part=record.log_part)
        url = run_link(redact(head.log.decode("utf-8", "replace"), to_hide), record.wandb_site) if head else ""
    read = record.log_head_read or (wanted and files.log_size >= HEAD_READ)
    return record.model_copy(update={"wandb_url": url, "log_head_read": read})


def _results_of(cluster: Cluster, record: RunRecord, files: RunFiles) -> RunFiles:
    """Results are read where the recipe says; the first read could not know that path."""
    if not record.results_path:
        return files
    return cluster.fetch(record.run_key, 0, 0, MAX_BYTES, record.results_path) or files


def _with_results(record: RunRecord, files: RunFiles, to_hide: Collection[str]) -> RunRecord:
    match parse_results(files.results, files.results_too_big):
        case Results(metrics):
            shown = {redact(name, to_hide): redact(value, to_hide) if isinstance(value, str) else value for name, value in metrics.items()}
            return record.model_copy(update={"results": shown})
        case BrokenResults(why):
            return record.model_copy(update={"results_problem": redact(why, to_hide)})
        case NoResults():
            missing = record.results_required and record.state is State.SUCCEEDED
            return record.model_copy(update={"results_problem": NO_RESULTS}) if missing else record
