"""A run's whole log → a file of this machine: only what has come since the last time, masked like everything that is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dispatcher.configuration import guarded
from dispatcher.errors import Exit
from dispatcher.loglines import log_name, show_new_lines
from dispatcher.policy import Policy
from dispatcher.ports import KeptLog
from dispatcher.report import outputs
from dispatcher.running import no_log_of
from dispatcher.terminal import LOG_INTERVAL_SECONDS, find_run, is_over, newer_log
from dispatcher.world import Outcome, World


def keep_log(world: World, policy: Policy, run_key: str, follow: bool, task: int | None, keep: Callable[[str], KeptLog]) -> Outcome:
    """Brings the file up to date, with `follow` until the run has ended. `keep` opens it for one run's log, named by key and task.

    Of a run that goes on in several jobs it is the newest one's: each has a log of its own.
    """
    world = guarded(world, policy)
    profile, record = find_run(world, policy, run_key)
    part = record.log_part if task is None else task
    kept = keep(log_name(record.run_key, part))
    before = kept.offset
    quiet = replace(world, show_log=kept.write)
    cluster = world.connect(profile)
    try:
        while True:
            over = is_over(cluster, record)
            newer = newer_log(cluster, record) if task is None else None
            last = over or newer is not None
            offset, _ = show_new_lines(
                quiet, cluster, record.run_key, kept.offset, last=last, part=part, reached=kept.reached, mark=kept.mark, exact=True
            )
            if last or not follow:
                break
            world.clock.sleep(LOG_INTERVAL_SECONDS)
    finally:
        cluster.close()
    if task is not None and not offset:
        world.say(no_log_of(record, task).replace("`task=`", "`--task`"))
    came = f"{offset - before:,} bytes more" if 0 < before <= offset else f"{offset:,} bytes"
    state = "The run has ended." if over else "The run goes on; the same command fetches what comes."
    if newer is not None:
        state = f"The run goes on as job {newer.job_id}, which has a log of its own; `--task {part}` names this one's."
    elif record.earlier_jobs and task is None:
        jobs = ", ".join(f"`--task {job.job_id}`" for job in record.earlier_jobs)
        state += f" It is its newest job's; {jobs} has those before it."
    return Outcome(Exit.OK, {**outputs(record, record.log_url), "comment-url": ""}, f"The log of run {record.run_key}: {came}. {state}")
