"""A world that connects each time it is asked → one that connects to each cluster once, for as long as a block goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from dispatcher.errors import DispatchError
from dispatcher.ports import Cluster
from dispatcher.profile import CloudProfile, LocalProfile, Profile
from dispatcher.world import World

Ledger = tuple[str, ...]
"""What two profiles have in common when they mean the same ledger: executor, user and host, port, folder, API."""


def ledger_of(profile: Profile) -> Ledger:
    """Where a profile's runs are kept."""
    if isinstance(profile, LocalProfile):
        return profile.executor, profile.job_dir or ""
    where = (profile.tunnel or "local", profile.user or "", profile.host or "", str(profile.port))
    place = (profile.ledger_name,) if isinstance(profile, CloudProfile) else ()
    return profile.executor, *where, profile.job_dir or "", *place


@contextmanager
def one_connection_each(world: World) -> Iterator[World]:
    """The same world; its clusters stay connected until the block ends.

    After an error of a cluster the next `connect` makes a new connection; who has the old one may go on with it.
    """
    current: dict[Ledger, Cluster] = {}
    opened: list[Cluster] = []

    def connect(profile: Profile) -> Cluster:
        ledger = ledger_of(profile)
        if ledger not in current:
            current[ledger] = world.connect(profile)
            opened.append(current[ledger])
        cluster = current[ledger]

        def forget() -> None:
            if current.get(ledger) is cluster:
                del current[ledger]

        return cast(Cluster, _Kept(cluster, forget))

    try:
        yield replace(world, connect=connect)
    finally:
        for cluster in opened:
            cluster.close()


class _Kept:
    """A cluster that whoever has asked for it cannot close: others go on with it."""

    def __init__(self, cluster: Cluster, forget: Callable[[], None]) -> None:
        self._cluster, self._forget = cluster, forget

    def close(self) -> None:
        """It stays open."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)

        def asked(*arguments: object, **named: object) -> object:
            try:
                return method(*arguments, **named)
            except DispatchError:
                self._forget()
                raise

        return asked
