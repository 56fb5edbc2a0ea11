"""A grant → a submitted job and its first report: profile, recipe, package, plan, lock, pending check, head again, job.

Everything that can be refused is refused before the lock; after the lock every way out either has a job or gives the lock back.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from typing_extensions import assert_never

from dispatcher.answer import UNUSABLE, Answer, refusal
from dispatcher.authorise import AskedBy, Denial, Grant, still_granted
from dispatcher.bundle import bundle, what_travels
from dispatcher.configuration import guarded, read_profile
from dispatcher.errors import JOB_MAY_EXIST, DispatchError, Exit, ForgeError
from dispatcher.event import CommentEvent
from dispatcher.following import follow
from dispatcher.grammar import Malformed
from dispatcher.observe import Seen, report, tail_of
from dispatcher.plan import JobPlan, log_path, missing_script, package_group, package_spec, plan
from dispatcher.policy import Policy
from dispatcher.ports import (
    AlreadySubmitted,
    Claimed,
    ClaimRequest,
    Cluster,
    Compiled,
    InProgress,
    Refused,
    Submission,
    Submitted,
)
from dispatcher.preview import preview
from dispatcher.profile import LocalProfile, SlurmProfile, UnknownProfile, apply_overrides, with_recipe
from dispatcher.publish import publish_check
from dispatcher.recipe import Recipe
from dispatcher.record import RunRecord, parse_record
from dispatcher.refusals import answered, denied, malformed, rejected, told, unknown_profile, what_became
from dispatcher.report import outputs, run_report
from dispatcher.slurm import State
from dispatcher.untrusted import code, redact
from dispatcher.world import Outcome, World

# How long another delivery that has just submitted may take to tell GitHub, before it counts as dead.
REPORT_LOOKS, REPORT_PAUSE_SECONDS = 10, 0.5
# Stands for the reported state where the submitter has given up reporting: the next sweep need not leave the run to it.
UNREPORTED = "unreported"


@dataclass(frozen=True)
class Prepared:
    """A plan and what the policy lets its job have."""

    plan: JobPlan
    secrets: dict[str, str]


def start_run(grant: Grant, event: AskedBy, policy: Policy, world: World) -> Outcome | Answer:
    """From permission to a job with its comment and check, or to words that say why not."""
    world = guarded(world, policy)
    prepared = prepare(grant, policy, world)
    if isinstance(prepared, Answer):
        return prepared
    if grant.dry_run or prepared.plan.profile.dry_run:
        shown = preview(prepared.plan, compile_job(prepared.plan, world))
        if isinstance(event, CommentEvent):
            return replace(answered("planned", shown.splitlines(), grant.trigger), outputs=_planned(prepared.plan))
        return Outcome(Exit.OK, _planned(prepared.plan), shown)
    world.say(f"Connecting to {prepared.plan.profile.address} for run {prepared.plan.run_key}.")
    cluster = world.connect(prepared.plan.profile)
    try:
        return _with_lock(prepared, event, policy, world, cluster)
    finally:
        cluster.close()


def prepare(grant: Grant, policy: Policy, world: World) -> Prepared | Answer:
    """Profile, recipe and package → the plan; everything that can be refused without the cluster is refused here."""
    resolved = read_profile(world, policy, grant.profile)
    if isinstance(resolved, UnknownProfile):
        return unknown_profile(resolved, grant.trigger, world.settings.voice)
    recipe = policy.recipe(grant.recipe)
    assert isinstance(recipe, Recipe), "authorise has looked it up"
    profile = apply_overrides(with_recipe(resolved.profile, recipe), grant.overrides)
    if isinstance(profile, Malformed):
        return malformed(profile, grant.trigger, world.settings.voice)
    world.say(f"Reading commit {grant.sha[:12]}.")
    package = world.archive().describe(grant.sha, package_spec(recipe))
    missing = missing_script(recipe, package)
    if missing is not None:
        title = f"there is no {code(missing)} in the commit"
        words = f"Recipe {code(grant.recipe)} runs {code(missing)}, and commit `{grant.sha[:12]}` does not pack it."
        step = "Correct `script` (or `subpath`, `include_pattern`) of the recipe on the default branch, or add the file."
        return refusal(title, "script-missing", words, step, grant.trigger, UNUSABLE, Exit.CONFIG)
    if isinstance(profile, LocalProfile) and world.settings.guards_key:
        title = "a local run would run beside the cluster's key"
        words = "`executor: local` runs the pull request's code on this runner, where it could read the SSH key that the job was given."
        step = "Use a workflow without `ssh-key` for local profiles, or a profile with `executor: slurm`."
        return refusal(title, "local-beside-key", words, step, grant.trigger, UNUSABLE, Exit.CONFIG)
    wait = world.settings.wait if world.settings.wait is not None else profile.attach
    job_dir = (profile.job_dir or world.settings.local_job_dir).rstrip("/")
    job = plan(
        grant, grant.profile, profile, grant.recipe, recipe, grant.overrides, package, job_dir, wait, world.settings.python, grant.attempt
    )
    return Prepared(job, {name: world.settings.environment[name] for name in policy.secrets if name in world.settings.environment})


def compile_job(job: JobPlan, world: World) -> Compiled:
    """What NeMo-Run makes of the plan; a local run needs no rendering, NeMo-Run itself starts it later."""
    return world.compiler.compile(job.for_compiler()) if isinstance(job.profile, SlurmProfile) else job.local_job()


def _with_lock(prepared: Prepared, event: AskedBy, policy: Policy, world: World, cluster: Cluster) -> Outcome | Answer:
    job = prepared.plan
    if isinstance(job.profile, SlurmProfile):
        world.compiler.begin(job.for_compiler())  # rendered while the connection is made and the lock is taken
    group = package_group(job.grant.repository, job.profile_name, package_spec(job.recipe))
    claim = cluster.claim(ClaimRequest(job.run_key, job.package.digest, group, job.tags()))
    match claim:
        case AlreadySubmitted():
            world.say(f"This command has its job already: {claim.job_id}.")
            record = _as_its_submitter_says(parse_record(claim.record), world, cluster)
            record = record.model_copy(update={"job_id": claim.job_id})
            return _reported(record, job, policy, world, cluster, look_first=True)
        case InProgress():
            world.say(f"Another delivery of this command is submitting right now, for {claim.since_seconds} s.")
            return Outcome(Exit.OK, {**_planned(job), "decision": "duplicate", "reason-code": "in-progress"})
        case Claimed():
            try:
                return _submitted(prepared, claim, event, policy, world, cluster)
            except DispatchError:
                _give_back(cluster, job.run_key)
                raise
        case _:
            assert_never(claim)


def _submitted(prepared: Prepared, claim: Claimed, event: AskedBy, policy: Policy, world: World, cluster: Cluster) -> Outcome | Answer:
    """The lock is ours: check, head, job, in this order."""
    job = prepared.plan
    comment = event.comment_id if isinstance(event, CommentEvent) else None
    asked = (told(event.created_at) if isinstance(event, CommentEvent) else None) or world.clock.now()
    record = job.record(asked, job.profile.address, comment, job.grant.number, world.settings.voice.at_terminal)
    # Only a run that nobody has begun before can have no check and no comment yet.
    fresh = not claim.resumed and world.settings.first_delivery
    record = _pending_check(record, world, look_first=not fresh)
    try:
        compiled = compile_job(job, world)
        if world.forge is not None and job.grant.number is not None:
            granted = still_granted(job.grant, world.forge.pull(job.grant.number))
            if isinstance(granted, Denial):
                return _called_off(record, denied(granted, job.grant.trigger), world, cluster)
        world.say(f"Sending {what_travels(job.package, claim)} and submitting.")
        answer = _submit(cluster, bundle(job, compiled, record, prepared.secrets, claim, world.archive()))
    except (DispatchError, KeyboardInterrupt) as error:
        _close_check(record, f"{what_became(error)}: {getattr(error, 'code', 'interrupted')}", world)
        raise
    match answer:
        case Refused():
            return _called_off(record, rejected(redact(answer.words, world.settings.to_hide), job.grant.trigger), world, cluster)
        case Submitted():
            record = record.model_copy(update={"job_id": answer.job_id})
            return _reported(record, job, policy, world, cluster, look_first=not fresh)
        case _:
            assert_never(answer)


def _submit(cluster: Cluster, submission: Submission) -> Submitted | Refused:
    """One submission; what breaks now may break after the scheduler has the job."""
    try:
        return cluster.submit(submission)
    except DispatchError as error:
        error.job_may_exist = error.code in JOB_MAY_EXIST
        raise


def _as_its_submitter_says(record: RunRecord, world: World, cluster: Cluster) -> RunRecord:
    """The record once the delivery that submitted has reported it, or at last as it is: two that report at once write two comments."""
    waits_for_comment = world.forge is not None and record.target.pull is not None
    for _ in range(REPORT_LOOKS):
        if record.target.comment or not waits_for_comment:
            break
        world.clock.sleep(REPORT_PAUSE_SECONDS)
        files = cluster.fetch(record.run_key, 0, 0, 0)
        record = parse_record(files.record) if files else record
    return record


def _reported(record: RunRecord, job: JobPlan, policy: Policy, world: World, cluster: Cluster, look_first: bool) -> Outcome:
    """The first report of a submitted job; an attached run is then followed to its end."""
    if not record.state.ended and record.state in (State.SUBMITTING, State.UNKNOWN):
        record = record.model_copy(update={"state": State.PENDING, "submitted_at": record.submitted_at or world.clock.now()})
    path = log_path(record.run_dir, record.run_key, record.job_id, record.executor)
    world.say(f"Run {record.run_key} is job {record.job_id}; its log is {path}.")
    seen = Seen(record, tail_of(world, cluster, record) if record.state.ended else "")
    code = Exit.OK
    try:
        seen = report(world, cluster, seen, look_first)
    except ForgeError as error:
        # There is a job: whatever GitHub says now, that is not undone. The ledger knows that nothing was reported yet.
        world.say(f"The job runs, but could not be reported: {error.cause} The next `watch` reports it.")
        code = error.exit
        with suppress(DispatchError):
            cluster.save(record.run_key, record.to_json(), UNREPORTED)
    if job.attached and not seen.record.state.ended:
        try:
            return follow(world, cluster, policy, seen)
        except DispatchError as error:
            world.say(f"The job goes on, but cannot be followed any more: {error.cause} `watch` reports its end.")
            code = error.exit
    told_outputs = {**outputs(seen.record, seen.record.log_url or world.settings.voice.summary_url), "comment-url": seen.comment_url}
    words = run_report(seen.record, seen.tail, world.clock.now(), world.settings.voice)
    return Outcome(code, told_outputs, words.summary, seen.record)


def _pending_check(record: RunRecord, world: World, look_first: bool) -> RunRecord:
    if world.forge is None:
        return record
    words = run_report(record, "", world.clock.now(), world.settings.voice)
    check = publish_check(world.forge, words.check, None, look_first)
    return record.model_copy(update={"target": record.target.model_copy(update={"check": check.id})})


def _give_back(cluster: Cluster, run_key: str) -> None:
    """The lock, to whoever asks next. When the connection is gone, the far side does it by itself."""
    with suppress(DispatchError):
        cluster.abandon(run_key)


def _called_off(record: RunRecord, answer: Answer, world: World, cluster: Cluster) -> Answer:
    cluster.abandon(record.run_key)
    _close_check(record, f"nothing was submitted: {answer.reason}", world, answer.summary)
    return answer


def _close_check(record: RunRecord, title: str, world: World, summary: str = "") -> None:
    """A check that was pending must not stay so when there is no job; failing to say so must not hide why."""
    if world.forge is None or record.target.check is None:
        return
    words = run_report(record, "", world.clock.now(), world.settings.voice).check
    ended = type(words)(words.name, words.sha, words.external_id, "completed", "cancelled", title, summary or title)
    try:
        world.forge.update_check(record.target.check, ended)
    except DispatchError as error:
        world.say(f"The pending check could not be closed: {error.cause}")


def _planned(job: JobPlan) -> dict[str, str]:
    empty = {"job-id": "", "state": "", "log-url": "", "comment-url": "", "result": "{}"}
    return {"decision": "plan", "reason-code": "planned", "run-key": job.run_key, **empty}
