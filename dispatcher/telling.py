"""A run after a look → GitHub hears how it stands, the ledger that this was said, and at its end what it measured and used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from dispatcher.group import group_comment
from dispatcher.grouping import group_records
from dispatcher.judging import judged, remember
from dispatcher.measuring import follows
from dispatcher.observe import UNREPORTED, Seen, reported_as
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.publish import publish_run
from dispatcher.record import RunRecord
from dispatcher.report import Report, run_report
from dispatcher.salvage import readable
from dispatcher.slurm import State
from dispatcher.usage import used, used_by
from dispatcher.world import World

_NOTHING: Mapping[str, str] = MappingProxyType({})


def report(
    world: World,
    cluster: Cluster,
    policy: Policy,
    seen: Seen,
    look_first: bool = True,
    with_comment: bool = True,
    missing: Mapping[str, str] = _NOTHING,
) -> Seen:
    """Says on GitHub how a run stands, then remembers in the ledger that it was said, then (at its end) takes it out of active/.

    In this order: a process that dies in between says the same thing once more, and never leaves an end unsaid. What was asked for at
    a terminal is nobody's business on GitHub, which may not even have its commit. `missing`: why other runs of the command have no job.
    """
    if seen.record.origin == "github" and world.forge is None:
        return seen  # A check waits for this one's end: it stays active for whoever can tell GitHub.
    seen = say(world, cluster, policy, seen, look_first, with_comment, missing)
    record = seen.record
    if record.state.ended:
        remember(record, world, cluster)
        spent = _spent(record, cluster) if record.resources.gpu_hours else None
        if spent is not None:
            cluster.account(spent)
        cluster.retire(record.run_key)
    return seen


def _spent(record: RunRecord, cluster: Cluster) -> str | None:
    """What an end adds to the journal. A job that several runs have had is the one's that started it."""
    if not record.same_as:
        return used(record)
    starters = cluster.records([record.same_as]) if record.joined else ()
    found, _ = readable(text for text in starters if text is not None)
    return next((used_by(starter, record) for starter in found), None)


def say(
    world: World,
    cluster: Cluster,
    policy: Policy,
    seen: Seen,
    look_first: bool = True,
    with_comment: bool = True,
    missing: Mapping[str, str] = _NOTHING,
) -> Seen:
    """Judges what the run measured, if that has not been done; says on GitHub how it stands; remembers in the ledger that it was said."""
    record, url = judged(seen.record, world, cluster, policy), ""
    if record.origin == "github" and world.forge is not None:
        words = run_report(record, seen.tail, world.clock.now(), world.settings.voice)
        if record.group and with_comment:
            words = _with_group(words, record, cluster, policy, world, missing)
        published = publish_run(world.forge, record, words, look_first, with_comment)
        record, url = published.record, published.comment_url
    told = f", told {world.clock.now().timestamp():.0f}" if record.state is State.RUNNING and follows(record, policy) else ""
    cluster.save(record.run_key, record.to_json(), reported_as(record) + told)
    return Seen(record, seen.tail, url)


def _with_group(words: Report, record: RunRecord, cluster: Cluster, policy: Policy, world: World, missing: Mapping[str, str]) -> Report:
    """The report of one of several runs: its comment tells of all. The reaction is the last one's to end, and the worst one's."""
    # Before the others are read: of two that report at once, whoever comes second then knows of both.
    cluster.save(record.run_key, record.to_json(), UNREPORTED)
    group = group_records(record, cluster, policy, world)
    known = group.records.values()
    comment = group_comment(record.group, group.records, missing, world.clock.now(), world.settings.voice, group.unheard)
    over = not group.unheard and all(item.state.ended for item in known)
    good = len(known) == len(record.group) and all(item.ended_well for item in known)
    return replace(words, comment=comment, reaction=("rocket" if good else "confused") if over else None)
