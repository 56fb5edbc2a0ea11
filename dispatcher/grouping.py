"""A run of a command that became several → the records of all of them, wherever their ledgers are."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.configuration import read_profile
from dispatcher.errors import DispatchError
from dispatcher.policy import Policy
from dispatcher.ports import Cluster
from dispatcher.profile import UnknownProfile
from dispatcher.record import RunRecord, parse_record
from dispatcher.world import World


@dataclass(frozen=True)
class Group:
    """The records by run key, in the command's order, and the keys of those whose ledger did not answer; the others have no record."""

    records: dict[str, RunRecord]
    unheard: tuple[str, ...]


def group_records(record: RunRecord, cluster: Cluster, policy: Policy, world: World) -> Group:
    """What can be read of the others. `cluster` is the record's own; a ledger that does not answer is told about."""
    found = {record.run_key: record}
    unheard: list[str] = []
    for profile in dict.fromkeys(member.profile for member in record.group):
        keys = [member.run_key for member in record.group if member.profile == profile and member.run_key != record.run_key]
        if not keys:
            continue
        try:
            texts = cluster.records(keys) if profile == record.profile else _elsewhere(profile, keys, policy, world)
            others = [parse_record(text) for text in texts if text is not None]
        except DispatchError as error:
            world.say(f"The other runs of this command on {profile} could not be read: {error.cause}")
            unheard += keys
            continue
        found.update({other.run_key: other for other in others if other.trigger == record.trigger})
    return Group({member.run_key: found[member.run_key] for member in record.group if member.run_key in found}, tuple(unheard))


def _elsewhere(name: str, keys: list[str], policy: Policy, world: World) -> tuple[str | None, ...]:
    resolved = read_profile(world, policy, name)
    if isinstance(resolved, UnknownProfile):
        return ()
    cluster = world.connect(resolved.profile)
    try:
        return cluster.records(keys)
    finally:
        cluster.close()
