"""A plan, what NeMo-Run made of it and what the cluster has → the bundle that is sent: everything for one atomic submission."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from dispatcher.jobplan import JobPlan
from dispatcher.manifest import difference, render_manifest
from dispatcher.phrases import plural
from dispatcher.ports import Archive, Claimed, Compiled, Package, Submission, Upload
from dispatcher.record import RunRecord

# Beyond this share of changed bytes, sending everything is simpler and hardly slower.
WORTH_SENDING = 0.5


def bundle(
    job: JobPlan,
    compiled: Compiled,
    record: RunRecord,
    secrets: Mapping[str, str],
    claim: Claimed,
    archive: Archive,
    usage: str = "",
    hold: bool = False,
) -> Submission:
    """Everything that the run's folder will hold; the code only as far as the cluster does not have it.

    `usage` is the journal's line about it; with `hold` it waits in the ledger's queue.
    """
    return Submission(
        run_key=job.run_key,
        record=record.to_json(),
        script=compiled.script,
        files=compiled.files,
        env_file=job.environment(secrets),
        manifest=render_manifest(job.package.files),
        upload=None if claim.has_package else upload(job.package, claim, archive),
        usage=usage,
        hold=hold,
    )


def upload(package: Package, claim: Claimed, archive: Archive) -> Upload:
    """What has to travel: the difference to a package that the cluster has, unless that would be most of it anyway."""
    if claim.base is not None and claim.base_digest is not None:
        change = difference(claim.base, package.files)
        sizes = {entry.path: max(entry.size, 1) for entry in package.files}
        if sum(sizes[path] for path in change.changed) <= WORTH_SENDING * sum(sizes.values()):
            return Upload(partial(archive.stream, package, change.changed), claim.base_digest, change.delete)
    return Upload(partial(archive.stream, package))


def what_travels(package: Package, claim: Claimed) -> str:
    """The same in words, for the log."""
    if claim.has_package:
        return "no code (the cluster has this tree)"
    if not package.files:
        return "no code (nothing is packed)"
    files = plural(len(package.files), "file")
    return f"the difference of {files} to what the cluster has" if claim.base is not None else files
