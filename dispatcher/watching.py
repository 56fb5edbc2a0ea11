"""All active runs of the configured clusters → one look, and GitHub hears of what changed. Once, or again and again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from dispatcher.errors import DispatchError, Exit
from dispatcher.gatekeeper import evaluate_gate
from dispatcher.observe import Seen, changed, look, report, sight_of, sightings_of
from dispatcher.policy import Policy
from dispatcher.ports import ActiveRun, AlreadySubmitted, ClaimRequest, Cluster
from dispatcher.profile import Profile
from dispatcher.record import parse_record
from dispatcher.report import run_report
from dispatcher.running import watched_profiles
from dispatcher.slurm import Absent, State
from dispatcher.world import Outcome, World

# A submission that has had no job for so long was interrupted: its process is gone, or it would have given the lock back.
INTERRUPTED_SECONDS = 180
# For so long a run that has not been reported yet is left to the delivery that submitted it.
SUBMITTER_SECONDS = 30


@dataclass
class Tally:
    """What one sweep came to."""

    active: int = 0
    changed: int = 0
    ended: int = 0
    failed: int = 0


def watch(world: World, policy: Policy, follow: bool = False, interval: float = 60.0) -> Outcome:
    """Sweeps every configured cluster. With `follow`, until nothing is active any more."""
    while True:
        tally = Tally()
        seen: list[Seen] = []
        for name, profile in watched_profiles(world, policy):
            try:
                seen += _sweep(world, policy, profile, tally)
            except DispatchError as error:
                tally.failed += 1
                world.say(f"{name}: {error.cause} {error.next_step}")
        _gates(world, policy, [item for item in seen if item.record.state.ended])
        world.say(f"{tally.active} active, {tally.changed} changed, {tally.ended} ended, {tally.failed} clusters did not answer.")
        if not follow or (tally.active == tally.ended and not tally.failed):
            counts = {"decision": "watched", "reason-code": "swept" if not tally.failed else "incomplete"}
            pages = [run_report(item.record, item.tail, world.clock.now(), world.settings.voice).summary for item in seen]
            return Outcome(Exit.OK if not tally.failed else Exit.CLUSTER, {**counts, "result": _json(tally)}, "\n\n".join(pages))
        world.clock.sleep(interval)


def _sweep(world: World, policy: Policy, profile: Profile, tally: Tally) -> list[Seen]:
    """One cluster, one connection, one exec → what changed. A run that cannot be reported is left as it is, for the next sweep."""
    cluster = world.connect(profile)
    news: list[Seen] = []
    try:
        sweep = cluster.sweep()
        sightings = sightings_of(sweep)
        tally.active += len(sweep.runs)
        for run in sweep.runs:
            if not run.job_id:
                _adopt(world, cluster, run)
                continue
            if not run.reported and run.age_seconds < SUBMITTER_SECONDS:
                continue  # Who submitted it is reporting it right now; two at once would write two comments.
            sight = sight_of(run, sightings, profile.executor)
            if not changed(run, sight):
                continue
            try:
                seen = _reported(world, cluster, run, sight, policy, tally)
            except DispatchError as error:
                tally.failed += 1
                world.say(f"Run {run.run_key}: {error.cause} {error.next_step}")
                continue
            news += [seen] if seen else []
    finally:
        cluster.close()
    return news


def _reported(world: World, cluster: Cluster, run: ActiveRun, sight: object, policy: Policy, tally: Tally) -> Seen | None:
    seen = look(world, cluster, run, sight, timedelta(seconds=policy.watch.lost_after))  # type: ignore[arg-type]
    if seen is None:
        return None
    if isinstance(sight, Absent) and not seen.record.state.ended:
        # Nothing to tell yet, but since when it is absent must survive this process.
        cluster.save(run.run_key, seen.record.to_json(), run.reported)
        return None
    tally.changed += 1
    seen = report(world, cluster, seen)
    tally.ended += seen.record.state.ended
    world.say(f"Run {run.run_key}, job {run.job_id}: {seen.record.state.value}.")
    return seen


def _adopt(world: World, cluster: Cluster, run: ActiveRun) -> None:
    """A run folder without a job: if the scheduler knows the run key it is adopted, else the command may be given again."""
    if run.age_seconds < INTERRUPTED_SECONDS:
        return
    files = cluster.fetch(run.run_key, 0, 0, 0)
    if files is None:
        cluster.retire(run.run_key)
        return
    record = parse_record(files.record)
    if record.target.repository != world.settings.repository:
        return
    claim = cluster.claim(ClaimRequest(run.run_key, record.digest, "adopt", ()))
    if isinstance(claim, AlreadySubmitted):
        adopted = record.model_copy(update={"job_id": claim.job_id, "state": State.PENDING})
        report(world, cluster, Seen(adopted, ""))
        return
    world.say(f"Run {run.run_key} was interrupted before it had a job; giving the command again submits it.")
    report(world, cluster, Seen(record.model_copy(update={"state": State.LOST, "reason": "its submission was interrupted"}), ""))
    cluster.abandon(run.run_key)


def _gates(world: World, policy: Policy, ended: list[Seen]) -> None:
    """The gate of every pull request of which a run has ended; each once."""
    if world.forge is None or not policy.gate.required:
        return
    for number in sorted({seen.record.target.pull for seen in ended if seen.record.target.pull is not None}):
        mine = tuple(seen.record for seen in ended if seen.record.target.pull == number)
        try:
            evaluate_gate(world, policy, number, mine)
        except DispatchError as error:
            world.say(f"The gate of #{number} could not be written: {error.cause} {error.next_step}")


def _json(tally: Tally) -> str:
    return f'{{"active": {tally.active}, "changed": {tally.changed}, "ended": {tally.ended}, "failed": {tally.failed}}}'
