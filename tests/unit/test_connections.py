"""One connection for each ledger while a block goes on, a new one after an error, and all of them closed at its end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcher.configuration import read_policy, read_profile
from dispatcher.connections import one_connection_each
from dispatcher.errors import ClusterError
from dispatcher.profile import Profile, ResolvedProfile
from dispatcher.world import World
from tests.fakes import Fakes


def profile(world: World) -> Profile:
    resolved = read_profile(world, read_policy(world), "cluster")
    assert isinstance(resolved, ResolvedProfile)
    return resolved.profile


def test_it_connects_once_and_closes_at_the_end() -> None:
    fakes = Fakes()
    with one_connection_each(fakes.world) as world:
        for _ in range(2):
            cluster = world.connect(profile(world))
            cluster.sweep()
            cluster.close()
        assert fakes.steps == ["connect", "cluster.sweep", "cluster.sweep"]
    assert fakes.steps[-1:] == ["cluster.close"]


def test_another_folder_is_another_ledger() -> None:
    fakes = Fakes()
    with one_connection_each(fakes.world) as world:
        one = profile(world)
        world.connect(one)
        world.connect(one.model_copy(update={"job_dir": "/elsewhere"}))
    assert fakes.steps == ["connect", "connect", "cluster.close", "cluster.close"]


def test_after_an_error_the_next_one_is_new_and_the_old_one_goes_on() -> None:
    fakes = Fakes()

    def broken(profile: Profile) -> object:
        cluster = fakes.world.connect(profile)
        fails = [ClusterError("cluster.timeout", "it said nothing")]
        find = cluster.find
        cluster.find = lambda tag: (_ for _ in ()).throw(fails.pop()) if fails else find(tag)  # type: ignore[method-assign]
        return cluster

    with one_connection_each(replace(fakes.world, connect=broken)) as world:  # type: ignore[arg-type]
        first = world.connect(profile(world))
        with pytest.raises(ClusterError):
            first.find("commit-a")
        first.sweep()
        world.connect(profile(world)).sweep()
        assert fakes.steps == ["connect", "cluster.sweep", "connect", "cluster.sweep"]
    assert fakes.steps[-2:] == ["cluster.close", "cluster.close"]
