"""All active runs of the configured clusters → one look, and GitHub hears of what changed. Once, or again and again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from typing_extensions import assert_never

from dispatcher.admission import take_every_turn
from dispatcher.advance import advance
from dispatcher.configuration import guarded
from dispatcher.connections import one_connection_each
from dispatcher.endedlogs import keep_ended, kept_words
from dispatcher.errors import ClusterError, DispatchError, Exit
from dispatcher.gatekeeper import judge_ended
from dispatcher.headline import SET_ASIDE
from dispatcher.observe import Around, Seen, changed, look, may_name_its_run, note_absence, note_no_link, of_job, progress_due, sights_of
from dispatcher.phrases import plural
from dispatcher.policy import Policy
from dispatcher.ports import ActiveRun, AlreadySubmitted, Claimed, ClaimRequest, Cluster, InProgress
from dispatcher.profile import Profile
from dispatcher.record import RunRecord, parse_record
from dispatcher.repeating import settle
from dispatcher.report import run_report
from dispatcher.running import watched_profiles
from dispatcher.salvage import repository_named, salvaged
from dispatcher.slurm import Absent, Observation, Sight, State
from dispatcher.waiving import judge_expired
from dispatcher.world import Outcome, World, bug_words, outcome

# A submission that has had no job for so long was interrupted: its process is gone, or it would have given the lock back.
INTERRUPTED_SECONDS = 180
# Stands for what was reported of a run where the look at it broke: when it breaks once more, the run is set aside.
BROKEN = "broken"
# For so long a run that has not been reported yet is left to the delivery that submitted it.
SUBMITTER_SECONDS = 30


@dataclass
class Tally:
    """What one sweep came to."""

    active: int = 0
    changed: int = 0
    ended: int = 0
    failed: int = 0
    queued: int = 0


def watch(world: World, policy: Policy, follow: bool = False, interval: float = 60.0) -> Outcome:
    """Sweeps every configured cluster. With `follow`, until nothing is active any more."""
    world = guarded(world, policy)
    owners: dict[str, bool] | None = {} if follow else None
    kept: list[str] = []
    while True:
        tally = Tally()
        seen: list[Seen] = []
        ended: list[tuple[Profile, RunRecord]] = []
        with one_connection_each(world) as connected:
            for name, profile in watched_profiles(world, policy):
                news: list[Seen] = []
                try:
                    _sweep(connected, policy, profile, tally, owners, news)
                except DispatchError as error:
                    tally.failed += 1
                    world.say(f"{name}: {error.cause} {error.next_step}")
                except Exception as error:
                    tally.failed += 1
                    world.say(f"{name} could not be looked at to the end. This is a bug: {bug_words(error, world)}.")
                seen += news
                ended += [(profile, item.record) for item in news if item.record.state.ended]
            judge_expired(connected, policy)
            judge_ended(connected, policy, [record for _, record in ended])
            # Last, because it may take long: by now GitHub has heard of everything.
            for profile, record in ended:
                try:
                    kept += keep_ended(connected, connected.connect(profile), record)
                except Exception as error:
                    words = error.cause if isinstance(error, DispatchError) else f"this is a bug: {bug_words(error, world)}"
                    world.say(f"The complete log of run {record.run_key} could not be kept: {words}")
        went = f"{tally.active} active, {tally.changed} changed, {tally.ended} ended, {tally.queued} queued"
        world.say(f"{went}, {plural(tally.failed, 'failure')}.")
        # An end that is followed by a retry is none: that one was not active yet when this sweep was read.
        goes_on = any(item.record.followed_by or item.record.retry_owed for item in seen)
        if not follow or (tally.active == tally.ended and not tally.failed and not tally.queued and not goes_on):
            pages = [run_report(item.record, item.tail, world.clock.now(), world.settings.voice).summary for item in seen]
            reason, code = ("incomplete", Exit.CLUSTER) if tally.failed else ("swept", Exit.OK)
            return outcome("watched", reason, code, "\n\n".join(filter(None, (*pages, kept_words(kept)))), result=json.dumps(asdict(tally)))
        world.clock.sleep(interval)


def _sweep(world: World, policy: Policy, profile: Profile, tally: Tally, owners: dict[str, bool] | None, news: list[Seen]) -> None:
    """One cluster, one connection, one exec → what changed, in `news`. What breaks at one run keeps no other from being reported.

    A run that cannot be reported is left as it is, for the next sweep; one whose files break the look is set aside.
    """
    cluster = world.connect(profile)
    try:
        sweep = cluster.sweep()
        sights, now = sights_of(sweep, profile.executor), world.clock.now()
        # Who waits for the ends of our runs has to know which are ours; who looks once need not ask about those that are as they were.
        asked = sweep.runs if owners is not None else tuple(run for run in sweep.runs if _is_due(run, sights[run.run_key], policy, now))
        foreign = _foreign(world, cluster, asked, {} if owners is None else owners)
        tally.active += len(sweep.runs) - len(foreign if owners is not None else ())
        for run in sweep.runs:
            if run.run_key in foreign or not _is_due(run, sights[run.run_key], policy, now):
                continue
            try:
                seen = _look_after(world, cluster, run, sights, policy, tally)
            except Exception as error:
                tally.failed += 1
                seen = _broken(world, cluster, run, sights[run.run_key], policy, tally, error)
            news += [seen] if seen else []
        if sweep.queued:
            released = take_every_turn(policy, world, cluster)
            tally.queued += len(sweep.queued)
            tally.changed += len(released)
            news += released
    finally:
        cluster.close()


def _broken(world: World, cluster: Cluster, run: ActiveRun, sight: Sight, policy: Policy, tally: Tally, error: Exception) -> Seen | None:
    """A look that broke: said, and tried again; where that is of no use, the run is set aside at the second time."""
    lasting = not isinstance(error, DispatchError) or error.code == "cluster.bad-record"
    words = f"{error.cause} {error.next_step}" if isinstance(error, DispatchError) else f"This is a bug: {bug_words(error, world)}."
    world.say(f"Run {run.run_key}: {words}")
    if not lasting or not run.job_id:
        return None
    try:
        if run.reported == BROKEN:
            return _set_aside(world, cluster, run, sight, policy, tally, error)
        cluster.save(run.run_key, cluster.records([run.run_key])[0] or "", BROKEN)
    except Exception as again:
        world.say(f"Run {run.run_key} stays as it is: {again.cause if isinstance(again, DispatchError) else bug_words(again, world)}")
    return None


def _set_aside(world: World, cluster: Cluster, run: ActiveRun, sight: Sight, policy: Policy, tally: Tally, error: Exception) -> Seen | None:
    """Once its job has ended: its end is said without anything that the job left behind, or, where nobody can tell where, not at all."""
    now, lost_after = world.clock.now(), timedelta(seconds=policy.watch.lost_after)
    record = salvaged(cluster.records([run.run_key])[0] or "")
    if record is None:
        gone = isinstance(sight, Absent) and run.age_seconds >= policy.watch.lost_after
        if gone or (isinstance(sight, Observation) and sight.state.ended):
            cluster.retire(run.run_key)
            aside = ClusterError(
                "cluster.set-aside", f"Run {run.run_key} is set aside: its record does not say where its end is to be reported."
            )
            world.say(f"{aside.cause} {aside.next_step}")
        return None
    record = advance(record.model_copy(update={"run_key": run.run_key, "job_id": run.job_id}), sight, now, lost_after)
    if not record.state.ended:
        cluster.save(run.run_key, record.to_json(), BROKEN)
        return None
    name = error.code if isinstance(error, DispatchError) else type(error).__name__
    nothing: dict[str, object] = {"results": {}, "curves": (), "verdicts": (), "progress": None, "failure": None}
    problem = f"what it left behind cannot be dealt with ({name}, {SET_ASIDE})"
    return _said(world, cluster, policy, Seen(record.model_copy(update={**nothing, "results_problem": problem}), ""), tally)


def _is_due(run: ActiveRun, sight: Sight, policy: Policy, now: datetime) -> bool:
    """Whether there may be something to say about a run."""
    if not run.job_id:
        return run.age_seconds >= INTERRUPTED_SECONDS
    # Who submitted it a moment ago is reporting it right now; two at once would write two comments.
    if may_name_its_run(run, sight) or progress_due(run, sight, policy, now):
        return True
    return changed(run, sight) and not (not run.reported and run.age_seconds < SUBMITTER_SECONDS)


def _foreign(world: World, cluster: Cluster, runs: Sequence[ActiveRun], owners: dict[str, bool]) -> set[str]:
    """Which runs are another repository's: several may share a folder, and each one's own sweep speaks for its runs."""
    unknown = [run.run_key for run in runs if run.run_key not in owners]
    for run_key, text in zip(unknown, cluster.records(unknown), strict=True):
        owners[run_key] = text is None or _is_ours(world, text)
    return {run.run_key for run in runs if not owners[run.run_key]}


def _is_ours(world: World, text: str) -> bool:
    """A record that cannot be read is looked at as if it were ours, and what is wrong with it is said."""
    try:
        return parse_record(text).target.repository == world.settings.repository
    except ClusterError:
        return repository_named(text) in (None, world.settings.repository)


def _look_after(world: World, cluster: Cluster, run: ActiveRun, sights: Mapping[str, Sight], policy: Policy, tally: Tally) -> Seen | None:
    """One active run; what there is to say about it is said."""
    if not run.job_id:
        return _adopt(world, cluster, run, policy, tally)
    seen = look(world, cluster, run, sights[run.run_key], timedelta(seconds=policy.watch.lost_after), Around(sights, policy))
    if seen is None:
        return None
    if seen.record.absent_since is not None and not seen.record.state.ended:
        note_absence(cluster, seen)
        return None
    sight = sights[run.run_key]
    if not (changed(run, sight) or seen.moved or (may_name_its_run(run, sight) and seen.record.wandb_url)):
        note_no_link(cluster, run, seen)
        return None
    return _said(world, cluster, policy, seen, tally)


def _adopt(world: World, cluster: Cluster, run: ActiveRun, policy: Policy, tally: Tally) -> Seen | None:
    """A run folder without a job: if the scheduler knows the run key it is adopted, else the command may be given again."""
    files = cluster.fetch(run.run_key, 0, 0, 0)
    if files is None:
        cluster.retire(run.run_key)
        return None
    record = parse_record(files.record)
    if record.target.repository != world.settings.repository:
        return None
    claim = cluster.claim(ClaimRequest(run.run_key, record.digest, "adopt", ()))
    match claim:
        case InProgress():
            return None  # It is still being sent: slow, not interrupted.
        case AlreadySubmitted() if not claim.job_id:
            # It was taken out of the queue, and nobody has said so yet.
            over = (
                {} if record.state.ended else {"state": State.CANCELLED, "reason": "taken out of the queue", "ended_at": world.clock.now()}
            )
            return _said(world, cluster, policy, Seen(record.model_copy(update=over), ""), tally)
        case AlreadySubmitted():
            # Of a chain it may be the next job, which somebody was submitting when we looked.
            adopted = of_job(record, claim.job_id).model_copy(update={"state": State.PENDING})
            return _said(world, cluster, policy, Seen(adopted, ""), tally)
        case Claimed():
            world.say(f"Run {run.run_key} was interrupted before it had a job; giving the command again submits it.")
            lost = record.model_copy(update={"state": State.LOST, "reason": "its submission was interrupted"})
            seen = _said(world, cluster, policy, Seen(lost, ""), tally)
            cluster.abandon(run.run_key)
            return seen
        case _:
            assert_never(claim)


def _said(world: World, cluster: Cluster, policy: Policy, seen: Seen, tally: Tally) -> Seen:
    """Reports and counts."""
    tally.changed += 1
    seen = settle(world, cluster, policy, seen)
    tally.ended += seen.record.state.ended
    world.say(f"Run {seen.record.run_key}, job {seen.record.job_id or '-'}: {seen.record.state.value}.")
    return seen
