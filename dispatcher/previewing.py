"""A prepared run → its preview, with what only the cluster can say: what would be sent, when it would start, what ran last."""

from __future__ import annotations

from dispatcher.bundle import what_travels
from dispatcher.errors import DispatchError
from dispatcher.jobplan import JobPlan
from dispatcher.keys import pull_tag
from dispatcher.packing import package_group, package_spec
from dispatcher.policy import Policy
from dispatcher.ports import Claimed, ClaimRequest, Cluster, Compiled
from dispatcher.preparing import Prepared, compile_job
from dispatcher.preview import differences, preview
from dispatcher.profile import SlurmProfile
from dispatcher.record import RunRecord
from dispatcher.salvage import readable
from dispatcher.slurm import start_estimate
from dispatcher.untrusted import redact
from dispatcher.world import World


def shown(prepared: Prepared, policy: Policy, world: World) -> str:
    """The preview, as Markdown, without secrets: a profile's fields and what is read from the runner's variables stand in it."""
    return redact(_page(prepared, world), world.settings.to_hide)


def _page(prepared: Prepared, world: World) -> str:
    """The preview. A cluster that does not answer leaves out what only it can say, and says that it does."""
    job = prepared.plan
    compiled = compile_job(job, world)
    try:
        cluster = world.connect(job.profile)
        try:
            upload, estimate, last = _asked(job, compiled, cluster, world)
        finally:
            cluster.close()
    except DispatchError as error:
        world.say(f"The preview goes without the cluster: {error.cause}")
        return preview(job, compiled, approval=prepared.approval, silent=error.code)
    return preview(job, compiled, upload, estimate, differences(job, last) if last else None, prepared.approval)


def _asked(job: JobPlan, compiled: Compiled, cluster: Cluster, world: World) -> tuple[str | None, str | None, RunRecord | None]:
    """What would travel, when it would start, and the last run of this kind for the pull request."""
    group = package_group(job.grant.repository, job.profile_name, package_spec(job.recipe, job.profile))
    claim = cluster.claim(ClaimRequest(job.run_key, job.package.digest, group, ()))
    upload = None
    if isinstance(claim, Claimed):
        upload = what_travels(job.package, claim)
        cluster.abandon(job.run_key)
    estimate = None
    # Of a job that waits for others Slurm knows no start.
    if isinstance(job.profile, SlurmProfile) and not job.earlier:
        said = cluster.estimate(compiled.script)
        estimate = start_estimate(said) or redact((said.stderr or said.stdout).strip(), world.settings.to_hide)[:300]
    last = None
    if job.grant.number is not None:
        records, _ = readable(cluster.find(pull_tag(job.grant.repository, job.grant.number)))
        same = [record for record in records if (record.profile, record.name) == (job.profile_name, job.name)]
        last = max(same, key=lambda record: record.asked_at, default=None)
    return upload, estimate, last
