"""A run of a command that became several → the records of all of them, wherever their ledgers are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dispatcher.configuration import read_profile
from dispatcher.errors import DispatchError
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.profile import UnknownProfile
from dispatcher.record import Member, RunRecord, parse_record
from dispatcher.world import World


@dataclass(frozen=True)
class Group:
    """The records by run key, in the command's order, and the keys of those whose ledger did not answer; the others have no record."""

    records: dict[str, RunRecord]
    unheard: tuple[str, ...]


def group_records(record: RunRecord, cluster: Cluster, policy: Policy, world: World) -> Group:
    """What can be read of the others. `cluster` is the record's own; a ledger that does not answer is told about."""
    others = [member for member in record.group if member.run_key != record.run_key]
    group = read_members(others, record, cluster, policy, world)
    found = {record.run_key: record, **group.records}
    return Group({member.run_key: found[member.run_key] for member in record.group if member.run_key in found}, group.unheard)


def read_members(members: Sequence[Member], record: RunRecord, cluster: Cluster, policy: Policy, world: World) -> Group:
    """Some of a record's group, without itself."""
    found: dict[str, RunRecord] = {}
    unheard: list[str] = []
    reused = {member.run_key for member in members if member.reused}
    for profile in dict.fromkeys(member.profile for member in members):
        keys = [member.run_key for member in members if member.profile == profile]
        try:
            texts = cluster.records(keys) if profile == record.profile else _elsewhere(profile, keys, policy, world)
            others = [parse_record(text) for text in texts if text is not None]
        except DispatchError as error:
            world.say(f"The other runs of this command on {profile} could not be read: {error.cause}")
            unheard += keys
            continue
        found.update({other.run_key: other for other in others if other.trigger == record.trigger or _was_before(other, record, reused)})
    return Group(found, tuple(unheard))


def _was_before(other: RunRecord, record: RunRecord, reused: Collection[str]) -> bool:
    """Whether it is a stage of the same pipeline on the same commit that an earlier command ran."""
    same = (other.target.repository, other.sha, other.pipeline) == (record.target.repository, record.sha, record.pipeline)
    return other.run_key in reused and same


def _elsewhere(name: str, keys: list[str], policy: Policy, world: World) -> tuple[str | None, ...]:
    resolved = read_profile(world, policy, name)
    if isinstance(resolved, UnknownProfile):
        return ()
    cluster = world.connect(resolved.profile)
    try:
        return cluster.records(keys)
    finally:
        cluster.close()
