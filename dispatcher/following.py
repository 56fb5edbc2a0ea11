"""An attached run: waits for its end, shows new log bytes as they come, reports each change, and ends as the job ended."""

from __future__ import annotations

from datetime import timedelta

from dispatcher.errors import Exit
from dispatcher.gatekeeper import evaluate_gate
from dispatcher.observe import Seen, look, report, sight_of, sightings_of
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.record import RunRecord
from dispatcher.report import outputs, run_report
from dispatcher.slurm import State
from dispatcher.world import Outcome, World

# Slow enough for a busy controller, quick enough for somebody who watches.
INTERVAL_SECONDS = {"slurm": 10.0, "local": 0.5}
CHUNK = 256 * 1024


def follow(world: World, cluster: Cluster, policy: Policy, seen: Seen) -> Outcome:
    """From the first report to the last. Ended by a signal, it leaves the job running and the ledger knowing it: the sweep goes on."""
    offset, quiet = 0, 0
    while True:
        sweep = cluster.sweep()
        run = next((item for item in sweep.runs if item.run_key == seen.record.run_key), None)
        # Bytes are read before the state is believed: what the job wrote last must have been seen when its end is.
        offset, grown = _show_new_bytes(world, cluster, seen.record.run_key, offset)
        quiet = 0 if grown else quiet + 1
        if run is None:
            return _ended(world, seen)
        sight = sight_of(run, sightings_of(sweep), seen.record.executor)
        now = look(world, cluster, run, sight, timedelta(seconds=policy.watch.lost_after))
        if now is None:
            return _ended(world, seen)
        if now.record.state is not seen.record.state:
            if now.record.state.ended:
                offset, _ = _show_new_bytes(world, cluster, now.record.run_key, offset)
            seen = report(world, cluster, now)
            world.say(f"Job {seen.record.job_id} is {seen.record.state.value}.")
        if seen.record.state.ended:
            if world.forge is not None and seen.record.target.pull is not None and policy.gate.required:
                evaluate_gate(world, policy, seen.record.target.pull, (seen.record,))
            return _ended(world, seen)
        world.clock.sleep(min(INTERVAL_SECONDS.get(seen.record.executor, 10.0) * (1 + quiet // 10), 30.0))


def exit_of(record: RunRecord) -> Exit:
    """The exit status that a job's end gives to whoever waited for it."""
    return Exit.OK if record.state is State.SUCCEEDED and not record.results_problem else Exit.RUN_FAILED


def _show_new_bytes(world: World, cluster: Cluster, run_key: str, offset: int) -> tuple[int, bool]:
    """Everything that the log has beyond `offset`; a file that shrank (rotated, truncated) is read from its beginning again."""
    grown = False
    while True:
        files = cluster.fetch(run_key, offset, CHUNK, 0)
        if files is None:
            return offset, grown
        if files.log_size < offset:
            world.say("The log was truncated; it goes on from its beginning.")
            offset = 0
            continue
        if not files.log:
            return offset, grown
        world.show_log(files.log)
        offset, grown = files.log_offset + len(files.log), True


def _ended(world: World, seen: Seen) -> Outcome:
    words = run_report(seen.record, seen.tail, world.clock.now(), world.settings.voice)
    told = {**outputs(seen.record, seen.record.log_url or world.settings.voice.summary_url), "comment-url": seen.comment_url}
    return Outcome(exit_of(seen.record), told, words.summary, seen.record)
