"""A run that has ended → its complete log, or those of all its parts, as files of the folder for logs: masked, and never held in memory.

Its end is reported by then. Whatever goes wrong here is said, and nothing else comes of it: the log itself lies in the run's folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from dispatcher.errors import DispatchError
from dispatcher.jobparts import array_tasks
from dispatcher.loglines import CHUNK, log_name, show_new_lines
from dispatcher.ports import Cluster, KeptLog
from dispatcher.record import RunRecord
from dispatcher.world import World

# Of a longer log its two ends are kept, each half of that.
MOST_BYTES = 2 * 1024**3


def keep_ended(world: World, cluster: Cluster, record: RunRecord, most: int = MOST_BYTES) -> tuple[str, ...]:
    """Keeps what a run has written → the names of its files; none where no logs are kept, or where it has no log of its own."""
    if world.keep is None or not _has_own_log(record, world):
        return ()
    names = []
    for part in _parts(record):
        try:
            if _kept(world, cluster, record, part, most):
                names.append(file_name(record, part))
        except DispatchError as error:
            world.say(f"The complete log of run {record.run_key} could not be kept: {error.cause} {_another_way(record, part)}")
            break  # the next part would wait for the same
    return tuple(names)


def file_name(record: RunRecord, part: int | None) -> str:
    """`cluster-default-4f1c2d3e4f5a6b7c.log`; of a part `…-task-3.log` or `…-job-12345.log`. Nothing in it needs quoting anywhere."""
    what = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{record.profile}-{record.name}")[:120].lstrip(".-")
    return f"{what}-{record.run_key}{'' if part is None else f'-{_part_word(record)}-{part}'}.log"


def kept_words(names: Sequence[str]) -> str:
    """For a summary, in Markdown: what has been kept; empty for nothing."""
    shown = ", ".join(f"`{name}`" for name in names[:20])
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"Complete logs kept: {shown}{more}." if names else ""


def _has_own_log(record: RunRecord, world: World) -> bool:
    """Whether there is a job that is nobody else's. What was asked for at a terminal is nobody's business on GitHub."""
    ours = record.origin == "github" or world.settings.voice.at_terminal
    return ours and record.state.ended and bool(record.job_id) and not record.same_as


def _part_word(record: RunRecord) -> str:
    return "task" if record.log_part is None else "job"


def _parts(record: RunRecord) -> tuple[int | None, ...]:
    """The numbers of the tasks or components, or the ids of the jobs, that have a log each; None for a job without such."""
    if record.log_part is not None:
        return (*(int(job.job_id) for job in record.earlier_jobs if job.job_id.isdigit()), record.log_part)
    if record.parts == 1 and not record.array:
        return (None,)
    try:
        return array_tasks(record.array) if record.array else tuple(range(record.parts))
    except ValueError:  # somebody has written into the ledger
        return tuple(range(record.parts))


def _kept(world: World, cluster: Cluster, record: RunRecord, part: int | None, most: int) -> bool:
    """Keeps one log; False where nothing was written."""
    files = cluster.fetch(record.run_key, 0, 0, 0, part=part)
    if world.keep is None or files is None or not files.log_size:
        return False
    name = file_name(record, part)
    kept = world.keep(name, log_name(record.run_key, part))
    whole = False
    try:
        _fill(replace(world, show_log=kept.write), cluster, record, part, kept, files.log_size, most)
        whole = True
    finally:
        if not whole:  # also when the job was cancelled: what is here may still be uploaded
            _mark(kept, f"the log goes on, and could not be fetched any further. {_another_way(record, part)}")
    kept.finished()
    world.say(f"The complete log of run {record.run_key}, {files.log_size:,} bytes, is kept as {name}.")
    return True


def _fill(world: World, cluster: Cluster, record: RunRecord, part: int | None, kept: KeptLog, size: int, most: int) -> None:
    """Everything up to `size`, where it stood when the run had ended; of more than `most` the two ends."""
    half = most // 2
    end = size if size <= most else min(half, size)
    offset, _ = show_new_lines(world, cluster, record.run_key, kept.offset, True, part, kept.reached, until=end, mark=kept.mark, exact=True)
    if size <= most:
        return
    goes_on = _next_line(cluster, record.run_key, max(size - half, offset), part)
    _mark(kept, f"{goes_on - offset:,} of {size:,} bytes are left out here. {_another_way(record, part)}")
    show_new_lines(world, cluster, record.run_key, goes_on, True, part, until=size, exact=True)


def _next_line(cluster: Cluster, run_key: str, offset: int, part: int | None) -> int:
    """Where the line after `offset` begins: half a secret would not be known as one."""
    files = cluster.fetch(run_key, offset, CHUNK, 0, part=part)
    log = files.log if files else b""
    return offset + (log.find(b"\n") + 1 or len(log))


def _mark(kept: KeptLog, words: str) -> None:
    """A line of our own in the file, where something is missing."""
    try:
        kept.write(f"\n[nemotron-dispatch: {words}]\n".encode())
    except DispatchError:
        return  # it is said where everybody looks; the file is where it cannot be


def _another_way(record: RunRecord, part: int | None) -> str:
    task = "" if part is None else f" --task {part}"
    return f"`nemotron-dispatch logs {record.run_key}{task} --output FILE` fetches it."
