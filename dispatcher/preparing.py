"""A grant → everything that will be submitted, or words that say why nothing will be: what needs no cluster is refused here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from typing_extensions import assert_never

from dispatcher.answer import UNUSABLE, Answer, refusal
from dispatcher.authorise import Denial, Facts, Grant, also_admitted, lineage_teams, overridable
from dispatcher.configuration import read_profile
from dispatcher.errors import Exit
from dispatcher.filling import filled, laid_over, unnamed_image, unnamed_repository
from dispatcher.grammar import Malformed
from dispatcher.jobconfig import JobConfig, job_facts
from dispatcher.jobplan import JobPlan
from dispatcher.launch import LAUNCH_FILE
from dispatcher.launch import to_json as launch_text
from dispatcher.limits import Wanted, approval_needed, images_of, within
from dispatcher.lookups import with_teams
from dispatcher.packing import missing_script, package_spec
from dispatcher.phrases import WITH_CHANGES
from dispatcher.plan import plan
from dispatcher.policy import Policy
from dispatcher.ports import Compiled, CompiledFile
from dispatcher.profile import CloudProfile, LocalProfile, Profile, ResolvedProfile, SlurmProfile, UnknownProfile
from dispatcher.recipe import Recipe
from dispatcher.refusals import denied, malformed, unknown_profile
from dispatcher.runprofile import apply_overrides, with_recipe
from dispatcher.squash import import_files
from dispatcher.untrusted import code
from dispatcher.world import World

# Nobody has to be asked whether somebody may approve these: who changes the default branch has decided.
DECIDED_BY_POLICY = ("schedule", "merge_group")


@dataclass(frozen=True)
class Prepared:
    """A plan and what the policy lets its job have; `approval` is the rule by which a second person must agree first."""

    plan: JobPlan
    secrets: dict[str, str]
    approval: str | None = None
    hold: bool = False
    """It is laid ready and not handed to the scheduler, whatever the policy's limits: it waits for other runs."""
    seen_at: datetime | None = None
    """When Slurm was known to have the jobs that it is to wait for."""

    def waits_in_slurm(self) -> bool:
        """Whether Slurm is asked to wait for other jobs."""
        return any(earlier.job for earlier in self.plan.earlier)


def prepare(grant: Grant, facts: Facts | None, policy: Policy, world: World) -> Prepared | Answer:
    """Profile, recipe and package → the plan. `facts` are the actor's, None where no person is asked about (a terminal, a schedule)."""
    resolved = read_profile(world, policy, grant.profile)
    if isinstance(resolved, UnknownProfile):
        return unknown_profile(resolved, grant.trigger, world.settings.voice)
    recipe = policy.recipe(grant.recipe)
    assert isinstance(recipe, Recipe), "authorise has looked it up"
    refused = _denied_by_lineage(grant, facts, resolved, policy, world)
    if refused is not None:
        return denied(refused, grant.trigger)
    profile = apply_overrides(with_recipe(resolved.profile, recipe), grant.overrides, recipe.takes_config)
    if isinstance(profile, Malformed):
        return malformed(profile, grant.trigger, world.settings.voice)
    if isinstance(profile, LocalProfile) and world.settings.guards_key:
        return _beside_key(grant)
    world.say(f"Reading commit {grant.sha[:12]}.")
    spec = package_spec(recipe, profile)
    package = world.archive().describe(grant.sha, spec)
    if package.uncommitted:
        world.say(f"What runs is the working folder: {grant.sha[:12]} {WITH_CHANGES}.")
    missing = missing_script(recipe, package)
    if missing is not None:
        return _no_script(grant, missing, spec.kind)
    own = filled(recipe, profile, package, grant.overrides, grant.sha, policy, world)
    if own.taken or (recipe.takes_config and own.config is None):
        profile = laid_over(resolved.profile, own, grant.overrides)
        if isinstance(profile, Malformed):
            return malformed(profile, grant.trigger, world.settings.voice)
    if isinstance(profile, CloudProfile) and not profile.returns_log and "results" in recipe.model_fields_set:
        return _out_of_reach(grant, recipe)
    wait = world.settings.wait if world.settings.wait is not None else profile.attach
    job_dir = _job_dir(profile, world)
    secrets = {name: world.settings.environment[name] for name in policy.secrets if name in world.settings.environment}
    job = plan(
        grant,
        grant.profile,
        profile,
        grant.recipe,
        own.recipe,
        grant.overrides,
        package,
        job_dir,
        wait,
        world.settings.python,
        grant.attempt,
        JobConfig(own.config, job_facts(grant, profile, own.recipe.program, job_dir)) if own.config is not None else None,
        own.mounts,
        secrets,
        world.settings.rendering,
    )
    told = replace(job, from_script=own.taken, not_from_script=own.left, own_runspec=not own.as_on_default_branch)
    return _weighed(told, secrets, resolved, policy, world.settings.voice.at_terminal)


def _denied_by_lineage(grant: Grant, facts: Facts | None, resolved: ResolvedProfile, policy: Policy, world: World) -> Denial | None:
    """What a profile extends has rules of its own, for who may run it and what may be overridden: they are known only now."""
    if facts is not None and grant.via not in DECIDED_BY_POLICY:
        known = with_teams(facts, lineage_teams(resolved.lineage, facts, policy), world)
        inherited = also_admitted(resolved.lineage, known, policy, grant.overrides)
        if isinstance(inherited, Denial):
            return inherited
    return overridable(grant.overrides, resolved.lineage, grant.recipe, policy)


def _job_dir(profile: Profile, world: World) -> str:
    """Where the ledger lies; jobs that an API starts have a part of it to themselves."""
    folder = (profile.job_dir or world.settings.local_job_dir).rstrip("/")
    return f"{folder}/{profile.ledger_name}" if isinstance(profile, CloudProfile) else folder


def _beside_key(grant: Grant) -> Answer:
    title = "a local run would run beside a private key"
    words = "`executor: local` runs the pull request's code on this runner, where it could read the private key that the job was given."
    step = "Use a workflow without `ssh-key` and `app-private-key` for local profiles, or a profile with `executor: slurm`."
    return refusal(title, "local-beside-key", words, step, grant.trigger, UNUSABLE, Exit.CONFIG)


def _no_script(grant: Grant, missing: str, packager: str) -> Answer:
    title = f"there is no {code(missing)} in the commit"
    lacks = f"and the packager `{packager}` does not take it from commit `{grant.sha[:12]}`."
    words = f"Recipe {code(grant.recipe)} runs {code(missing)}, {lacks}"
    step = "Correct `script` (or `subpath`, `include_pattern`, `packager`) of the recipe on the default branch, or add the file."
    return refusal(title, "script-missing", words, step, grant.trigger, UNUSABLE, Exit.CONFIG)


def _out_of_reach(grant: Grant, recipe: Recipe) -> Answer:
    title = f"the results of {code(grant.recipe)} would not come back"
    lacks = f"and with profile {code(grant.profile)} the job's log, which brings it, cannot be read."
    words = f"The recipe has to write {code(recipe.results)}, {lacks}"
    step = "Make the log readable (`docs/executors.md` says how for this executor), or take `results` out of the recipe."
    return refusal(title, "results-out-of-reach", words, step, grant.trigger, UNUSABLE, Exit.CONFIG)


def _weighed(job: JobPlan, secrets: dict[str, str], resolved: ResolvedProfile, policy: Policy, at_terminal: bool) -> Prepared | Answer:
    """How much it asks for, against what the policy allows; and whether somebody else has to agree."""
    wanted = Wanted(resolved.lineage, job.recipe_name, job.resources, images_of(job.profile), unlimited=job.resources.seconds == 0)
    too_much = within(wanted, policy) or unnamed_image(wanted, job.from_script, policy) or unnamed_repository(job.mounts, policy)
    if too_much is not None:
        return denied(too_much, job.grant.trigger)
    # What the script asks for is the default branch's word only where that branch's script says the same.
    by_policy = (job.grant.via in DECIDED_BY_POLICY and not job.own_runspec) or at_terminal
    agreed = job.grant.approved_by and job.grant.approved_by.lower() != job.grant.actor.lower()
    return Prepared(job, secrets, None if by_policy or agreed else approval_needed(wanted, policy))


def compile_job(job: JobPlan, world: World) -> Compiled:
    """What NeMo-Run makes of the plan, with its configuration; a local run needs no rendering, NeMo-Run itself starts it later."""
    made = _rendered(job, world)
    return replace(made, files=(*made.files, *job.config.files(job.inside))) if job.config is not None else made


def _rendered(job: JobPlan, world: World) -> Compiled:
    match job.profile:
        case SlurmProfile():
            rendered = world.compiler.compile(job.for_compiler())
            return replace(rendered, files=(*rendered.files, *import_files(job.profile.images, job.profile.squash)))
        case LocalProfile():
            return job.local_job()
        case CloudProfile() as profile:
            assert world.cloud is not None, "whoever may plan for an API has one"
            rendered = world.cloud(profile).render(job.for_compiler())
            return Compiled(rendered.script, (*rendered.files, CompiledFile(LAUNCH_FILE, launch_text(job).encode())))
        case _:
            assert_never(job.profile)
