"""An attached run: waits for its end, shows new log bytes as they come, reports each change, and ends as the job ended."""

from __future__ import annotations

from datetime import timedelta

from dispatcher.endedlogs import keep_ended, kept_words
from dispatcher.errors import Exit, ForgeError
from dispatcher.gatekeeper import judge_ended
from dispatcher.headline import headline
from dispatcher.judging import unjudged
from dispatcher.loglines import show_new_lines
from dispatcher.observe import Around, Seen, changed, look, note_absence, note_no_link, sights_of, tail_of
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.record import RunRecord, parse_record
from dispatcher.repeating import settle
from dispatcher.report import outputs, run_report
from dispatcher.world import Outcome, World

# Slow enough for a busy controller, quick enough for somebody who watches.
INTERVAL_SECONDS = {"slurm": 10.0, "local": 0.5}


def follow(world: World, cluster: Cluster, policy: Policy, seen: Seen) -> Outcome:
    """From the first report to the last. Ended by a signal, it leaves the job running and the ledger knowing it: the sweep goes on."""
    offset, quiet = 0, 0
    while True:
        sweep = cluster.sweep()
        run = next((item for item in sweep.runs if item.run_key == seen.record.run_key), None)
        # Bytes are read before the state is believed: what the job wrote last must have been seen when its end is.
        offset, grown = show_new_lines(world, cluster, seen.record.run_key, offset, part=seen.record.log_part)
        quiet = 0 if grown else quiet + 1
        if run is None:
            return _ended_elsewhere(world, cluster, seen, offset)
        sights = sights_of(sweep, seen.record.executor)
        sight = sights[run.run_key]
        now = look(world, cluster, run, sight, timedelta(seconds=policy.watch.lost_after), Around(sights, policy))
        if now is None:
            return _ended_elsewhere(world, cluster, seen, offset)
        if now.record.state.ended:
            offset, _ = show_new_lines(world, cluster, now.record.run_key, offset, last=True, part=seen.record.log_part)
        before = seen.record
        if now.record.absent_since is not None and not now.record.state.ended:
            note_absence(cluster, now)
        elif changed(run, sight) or now.moved or (now.record.wandb_url and not before.wandb_url) or now.record.job_id != before.job_id:
            seen = _said(world, cluster, policy, now)
        else:
            note_no_link(cluster, run, now)
        if seen.record.job_id != before.job_id:
            show_new_lines(world, cluster, before.run_key, offset, last=True, part=before.log_part)
            offset = 0
        if seen.record.state.ended:
            judge_ended(world, policy, (seen.record,))
            return _ended(world, cluster, seen)
        world.clock.sleep(min(INTERVAL_SECONDS.get(seen.record.executor, 10.0) * (1 + quiet // 10), 30.0))


def exit_of(record: RunRecord) -> Exit:
    """The exit status that a job's end gives to whoever waited for it."""
    return Exit.OK if record.ended_well else Exit.RUN_FAILED


def _said(world: World, cluster: Cluster, policy: Policy, now: Seen) -> Seen:
    """Reports a change. When GitHub does not hear it, the ledger does not remember it as said: the next look, or `watch`, says it.

    Raises:
        ForgeError: it ended well, and nobody knows yet whether what it measured passes: whoever waits must not be told that it did.
    """
    try:
        told = settle(world, cluster, policy, now)
    except ForgeError as error:
        if unjudged(now.record, policy):
            raise
        world.say(f"GitHub could not be told: {error.cause} The next look tells it.")
        told = now
    # Reported first: only then it is known whether what it measured passes.
    world.say(f"Run {told.record.run_key}: {headline(told.record, world.clock.now())}.")
    return told


def _ended_elsewhere(world: World, cluster: Cluster, seen: Seen, offset: int) -> Outcome:
    """Somebody else, such as a sweep on a schedule, has reported the end: the ledger has it. Without the folder nobody knows more."""
    show_new_lines(world, cluster, seen.record.run_key, offset, last=True, part=seen.record.log_part)
    (text,) = cluster.records([seen.record.run_key])
    if text is not None:
        record = parse_record(text)
        if record.job_id != seen.record.job_id:
            show_new_lines(world, cluster, record.run_key, 0, last=True, part=record.log_part)
        seen = Seen(record, tail_of(world, cluster, record), seen.comment_url)
    return _ended(world, cluster, seen)


def _ended(world: World, cluster: Cluster, seen: Seen) -> Outcome:
    kept = kept_words(keep_ended(world, cluster, seen.record))
    # At a terminal the log has just been shown; only of a failed run its end is worth saying twice.
    shown = world.settings.voice.at_terminal and exit_of(seen.record) is Exit.OK
    words = run_report(seen.record, "" if shown else seen.tail, world.clock.now(), world.settings.voice)
    told = {**outputs(seen.record, seen.record.log_url or world.settings.voice.summary_url), "comment-url": seen.comment_url}
    return Outcome(exit_of(seen.record), told, "\n\n".join(filter(None, (words.summary, kept))), seen.record)
