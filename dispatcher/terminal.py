"""What a person asks for at a terminal, in their own checkout: plan, submit, status, logs, cancel. Their SSH key is their permission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from dispatcher.admission import drop
from dispatcher.answer import Answer
from dispatcher.asking import granted
from dispatcher.authorise import Denial, Facts
from dispatcher.chaining import before_its_next_job
from dispatcher.configuration import guarded, read_profile
from dispatcher.dependents import dependents, last_first
from dispatcher.errors import ClusterError, DispatchError, Exit
from dispatcher.event import ManualEvent
from dispatcher.following import exit_of
from dispatcher.grammar import Malformed, Run, Sweep
from dispatcher.grouping import group_records
from dispatcher.headline import headline
from dispatcher.keys import commit_tag
from dispatcher.loglines import CHUNK, show_new_lines
from dispatcher.observe import UNREPORTED, Around, Seen, look, sight_of, sightings_of, sights_of
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.profile import Profile, UnknownProfile
from dispatcher.record import RunRecord, parse_record
from dispatcher.refusals import denied, malformed, unknown_profile
from dispatcher.report import outputs, run_report
from dispatcher.running import goes_on_for, left, no_log_of, runs_table, watched_profiles
from dispatcher.salvage import readable
from dispatcher.slurm import Absent, Observation, State
from dispatcher.starting import start_runs
from dispatcher.telling import report
from dispatcher.untrusted import redact
from dispatcher.verbs import RUN_KEY, parse_words
from dispatcher.world import Outcome, World, outcome

LOG_INTERVAL_SECONDS = 2.0
BY_HAND = "cancelled at a terminal"


def ask(world: World, policy: Policy, words: Sequence[str], sha: str, user: str, request: str, dry_run: bool) -> Outcome:
    """`profile=… recipe=… key=value …` for a commit of the checkout. `request` names this request: the same one again has the same run."""
    command = parse_words(list(words), manual=True)
    if isinstance(command, Malformed):
        return _said(malformed(command, request, world.settings.voice))
    if not isinstance(command, Run | Sweep):
        words_needed = Malformed("unknown-word", "this takes `key=value` words", "For example `profile=local recipe=default`.")
        return _said(malformed(words_needed, request, world.settings.voice))
    runs = command.runs if isinstance(command, Sweep) else (command,)
    if any(run.ref or run.pull or run.sha for run in runs):
        elsewhere = Malformed("not-here", "`ref`, `pr` and `sha` are for GitHub", "Here `--commit` names what runs.")
        return _said(malformed(elsewhere, request, world.settings.voice))
    event = ManualEvent(world.settings.repository, {}, user, request, "HEAD", "HEAD")
    # Whoever holds the cluster's key needs no leave from GitHub; what the policy says about overrides still holds.
    facts = Facts(actor=user, head_sha=sha, holds_key=True)
    grants = granted(tuple(replace(run, dry_run=dry_run or run.dry_run) for run in runs), event, facts, policy, world.settings.voice.word)
    if isinstance(grants, Denial):
        return _said(denied(grants, event.trigger))
    started = start_runs(grants, None, event, policy, world)
    return _said(started) if isinstance(started, Answer) else started


def status(world: World, policy: Policy, sha: str, run_key: str | None) -> Outcome:
    """One run as its comment would show it, or a table of what is active and of what ran on this commit."""
    if run_key is not None:
        world = guarded(world, policy)
        record = _as_it_is(world, policy, *find_run(world, policy, run_key))
        words = run_report(record, "", world.clock.now(), world.settings.voice)
        told = {**outputs(record, record.log_url), "comment-url": ""}
        return Outcome(exit_of(record) if record.state.ended else Exit.PENDING, told, words.summary, record)
    records: dict[str, RunRecord] = {}
    for _, profile in watched_profiles(world, policy):
        cluster = world.connect(profile)
        try:
            found, problem = readable(cluster.find(commit_tag(sha)))
            if problem:
                world.say(problem)
            sweep = cluster.sweep()
            sights = sights_of(sweep, profile.executor)
            for run in sweep.runs:
                seen = look(
                    world,
                    cluster,
                    run,
                    sights[run.run_key],
                    timedelta(seconds=policy.watch.lost_after),
                    Around(sights, policy, measure=True),
                )
                found += [before_its_next_job(seen.record, policy)] if seen else []
        finally:
            cluster.close()
        records.update({record.run_key: record for record in found})
    return outcome("answered", "status", summary="\n".join(runs_table(list(records.values()), world)))


def _as_it_is(world: World, policy: Policy, profile: Profile, record: RunRecord) -> RunRecord:
    """The record as the scheduler has it now; what is reported to GitHub is left to `watch`."""
    if record.state.ended:
        return record
    cluster = world.connect(profile)
    try:
        sweep = cluster.sweep()
        run = next((run for run in sweep.runs if run.run_key == record.run_key), None)
        sights = sights_of(sweep, profile.executor)
        seen = (
            look(world, cluster, run, sights[run.run_key], timedelta(seconds=policy.watch.lost_after), Around(sights, policy, measure=True))
            if run
            else None
        )
    finally:
        cluster.close()
    return before_its_next_job(seen.record, policy) if seen else record


def logs(world: World, policy: Policy, run_key: str, lines: int, follow: bool, task: int | None = None) -> Outcome:
    """The end of a run's log, or of one task's, or with `follow` everything that comes, until the run has ended."""
    world = guarded(world, policy)
    profile, record = find_run(world, policy, run_key)
    cluster = world.connect(profile)
    try:
        part = record.log_part if task is None else task
        files = cluster.fetch(record.run_key, -CHUNK, CHUNK, 0, part=part)
        assert files is not None, "find_run has just seen it"
        # Who follows sees half a line when it is whole: half a secret would not be known as one.
        shown = files.log[: files.log.rfind(b"\n") + 1] if follow else files.log
        text = redact(shown.decode("utf-8", "replace"), world.settings.to_hide).splitlines()
        world.show_log("".join(line + "\n" for line in text[max(len(text) - max(lines, 0), 0) :]).encode())
        if task is not None and not files.log_size:
            world.say(no_log_of(record, task).replace("`task=`", "`--task`"))
        offset, over = files.log_offset + len(shown), not follow
        while not over:
            over = is_over(cluster, record)
            newer = newer_log(cluster, record) if task is None else None
            offset, _ = show_new_lines(world, cluster, record.run_key, offset, last=over or newer is not None, part=part)
            if newer is not None:
                world.say(f"The run goes on as job {newer.job_id}.")
                record, part, offset, over = newer, newer.log_part, 0, False
            world.clock.sleep(0 if over else LOG_INTERVAL_SECONDS)
    finally:
        cluster.close()
    return Outcome(Exit.OK, {**outputs(record, record.log_url), "comment-url": ""})


def cancel(world: World, policy: Policy, run_key: str) -> Outcome:
    """Ends a run's job, or takes it out of the queue. What became of a job is seen by the next look.

    Raises `ClusterError`: `cluster.failed` when the scheduler says no, `cluster.run-unknown` where there is no job to end.
    """
    profile, found = find_run(world, policy, run_key)
    record = found if found.state is State.QUEUED else _as_it_is(world, policy, profile, found)
    if record.state.ended:
        told = {**outputs(record, record.log_url), "decision": "answered", "reason-code": "nothing-active", "comment-url": ""}
        return Outcome(Exit.OK, told, f"Run {record.run_key} has ended already: it {headline(record, world.clock.now())}.", record)
    cluster = world.connect(profile)
    try:
        if record.state is State.QUEUED:
            return _unqueued(record, policy, world, cluster)
        after = _end_what_follows(record, policy, world, cluster)
        said = cluster.cancel(record.run_key, BY_HAND)
        if said.others:
            return _left(record, said.others, policy, world, cluster)
    finally:
        cluster.close()
    if said.status != 0:
        raise ClusterError("cluster.failed", f"The job could not be ended: {redact(said.stderr or said.stdout)[:500]}")
    told = {**outputs(record, record.log_url), "decision": "cancelled", "reason-code": "cancelled", "comment-url": ""}
    return Outcome(Exit.OK, told, f"Job {record.job_id} of run {record.run_key} is being ended{after}.", record)


def _left(record: RunRecord, others: Sequence[str], policy: Policy, world: World, cluster: Cluster) -> Outcome:
    """Its job goes on for others. What was asked for on GitHub is reported there by the next sweep."""
    over = left(record, BY_HAND, world)
    if record.origin == "github":
        cluster.save(over.run_key, over.to_json(), UNREPORTED)
    else:
        report(world, cluster, policy, Seen(over, ""))
    told = {**outputs(over, over.log_url), "decision": "cancelled", "reason-code": "cancelled", "comment-url": ""}
    goes_on = goes_on_for(others).replace("`", "")
    return Outcome(Exit.OK, told, f"Run {record.run_key} is given up; its job {record.job_id} goes on, for {goes_on}.", over)


def _end_what_follows(record: RunRecord, policy: Policy, world: World, cluster: Cluster) -> str:
    """The stages after it in the same ledger, the last one first → what to say of it. Others are called off by the next sweep."""
    if not record.stage:
        return ""
    active = [item for item in group_records(record, cluster, policy, world).records.values() if not item.state.ended]
    ended = [item for item in last_first(dependents([record], active)) if _ends(item, policy, world, cluster)]
    return "".join([", with what comes after it: ", ", ".join(item.run_key for item in reversed(ended))]) if ended else ""


def _ends(record: RunRecord, policy: Policy, world: World, cluster: Cluster) -> bool:
    """Whether a stage could be taken out of the queue, or its job be ended. What GitHub has a check for is left to its own sweep there."""
    try:
        if record.state is State.QUEUED and record.origin != "github":
            dropped = drop(record, BY_HAND, world, cluster)
            if dropped is not None:
                report(world, cluster, policy, Seen(dropped, ""))
            return dropped is not None
        return record.state is not State.QUEUED and cluster.cancel(record.run_key, BY_HAND).status == 0
    except DispatchError:
        return False


def _unqueued(record: RunRecord, policy: Policy, world: World, cluster: Cluster) -> Outcome:
    """Out of the queue. What was asked for on GitHub has a check there that waits, and nobody at a terminal could close it."""
    if record.origin == "github":
        words = f"Run {record.run_key} waits in the queue for pull request #{record.target.pull}."
        raise ClusterError("cluster.run-unknown", words, f"Comment `{world.settings.voice.word} cancel {record.run_key[:8]}` there.")
    dropped = drop(record, BY_HAND, world, cluster)
    if dropped is None:
        raise ClusterError("cluster.run-unknown", f"The turn of run {record.run_key} has just come.", "Cancel it once more.")
    report(world, cluster, policy, Seen(dropped, ""))
    told = {**outputs(dropped, dropped.log_url), "decision": "cancelled", "reason-code": "cancelled", "comment-url": ""}
    return Outcome(Exit.OK, told, f"Run {record.run_key} was taken out of the queue.", dropped)


def find_run(world: World, policy: Policy, run_key: str) -> tuple[Profile, RunRecord]:
    """A run by its key (16 digits), or by the beginning of an active one's.

    Raises:
        ClusterError: `cluster.no-such-run`.
    """
    if not RUN_KEY.fullmatch(run_key):
        raise ClusterError("cluster.no-such-run", f"{run_key!r} is no run key: it has 4 to 16 hex digits.")
    for name, profile in watched_profiles(world, policy):
        try:
            cluster = world.connect(profile)
            try:
                record = _record(cluster, run_key)
            finally:
                cluster.close()
        except DispatchError as error:
            world.say(f"{name}: {error.cause}")
            continue
        if record is not None:
            return profile, record
    raise ClusterError("cluster.no-such-run", f"No ledger knows a run {run_key}.")


def profile_or_refusal(world: World, policy: Policy, name: str | None) -> tuple[str, Profile] | Outcome:
    """The named profile, or the policy's default one."""
    wanted = name or policy.default_profile or ""
    resolved = read_profile(world, policy, wanted)
    if isinstance(resolved, UnknownProfile):
        return _said(unknown_profile(resolved, "terminal", world.settings.voice))
    return wanted, resolved.profile


def _record(cluster: Cluster, run_key: str) -> RunRecord | None:
    key = run_key
    if len(run_key) < 16:
        sweep = cluster.sweep()
        matching = [key for key in (*(run.run_key for run in sweep.runs), *sweep.queued) if key.startswith(run_key)]
        if len(matching) != 1:
            return None
        key = matching[0]
    files = cluster.fetch(key, 0, 0, 0)
    return parse_record(files.record) if files else None


def is_over(cluster: Cluster, record: RunRecord) -> bool:
    """Whether the job writes no more, as far as anybody knows."""
    sweep = cluster.sweep()
    run = next((run for run in sweep.runs if run.run_key == record.run_key), None)
    if run is None or run.exit_file.strip():
        return True
    sight = sight_of(run, sightings_of(sweep), record.executor)
    return isinstance(sight, Absent) or (isinstance(sight, Observation) and sight.state.ended)


def newer_log(cluster: Cluster, record: RunRecord) -> RunRecord | None:
    """The record of a run that has gone on in another job since, which has a log of its own; None for any other."""
    if record.log_part is None:
        return None
    (text,) = cluster.records([record.run_key])
    now = parse_record(text) if text is not None else record
    return now if now.job_id != record.job_id else None


def _said(answer: Answer) -> Outcome:
    return Outcome(answer.exit, {**answer.outputs, "comment-url": ""}, answer.summary)
