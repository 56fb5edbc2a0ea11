"""One connection for each ledger while a block goes on, a new one after an error, and all of them closed at its end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcher.configuration import read_policy, read_profile
from dispatcher.connections import ledger_of, one_connection_each
from dispatcher.errors import ClusterError, ConfigError
from dispatcher.gatekeeper import evaluate_gate
from dispatcher.profile import Profile, ResolvedProfile
from dispatcher.world import World
from tests.fakes import PROFILE, Fakes


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


PROFILES = {
    "cluster": PROFILE,
    "again": "extends: cluster\nnodes: 2\n",
    "docker": "executor: docker\ncontainer_image: a:1\n",
    "bigger": "extends: docker\ncontainer_image: b:1\n",
    "elsewhere": "extends: docker\ndocker_host: tcp://gpu.example.com:2376\n",
}
GATE = "gate: {{ required: [{}] }}\n"
HOMED = "ledger: cluster\nrecipes: { default: { script: train.py } }\n"


def test_each_place_of_an_api_has_a_ledger_of_its_own_in_the_home_that_the_policy_names() -> None:
    fakes = Fakes(HOMED, PROFILES)
    policy = read_policy(fakes.world)
    places: dict[object, list[str]] = {}
    for name in PROFILES:
        resolved = read_profile(fakes.world, policy, name)
        assert isinstance(resolved, ResolvedProfile)
        assert (resolved.profile.job_dir, getattr(resolved.profile, "host", None)) == ("/jobs", "login.example.com")
        places.setdefault(ledger_of(resolved.profile), []).append(name)
    assert sorted(places.values()) == [["cluster", "again"], ["docker", "bigger"], ["elsewhere"]]


def test_the_gate_asks_every_ledger_and_none_twice() -> None:
    required = ", ".join(f"{{ profile: {name} }}" for name in PROFILES)
    fakes = Fakes(HOMED + GATE.format(required), PROFILES)
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], base_ref="main")
    evaluate_gate(fakes.world, read_policy(fakes.world), 7)
    assert fakes.trace.of("connect", "cluster.find") == ["connect", "cluster.find commit"] * 3


@pytest.mark.parametrize(
    ("policy", "profile", "words"),
    [
        ("", "executor: docker\ncontainer_image: a:1\n", "nothing says where its runs are recorded"),
        ("ledger: nobody\n", "executor: docker\ncontainer_image: a:1\n", "`ledger: nobody` is no profile"),
        ("ledger: here\n", "executor: docker\ncontainer_image: a:1\n", "`ledger: here` is no profile"),
        ("ledger: docker\n", "executor: docker\ncontainer_image: a:1\n", "`ledger: docker` is no profile"),
        ("ledger: cluster\n", "executor: docker\ncontainer_image: a:1\nhost: x\n", "write `tunnel: ssh` beside it"),
        ("ledger: cluster\n", "executor: docker\ncontainer_image: a:1\ntunnel: ssh\nhost: x\n", "`user` is missing"),
        ("ledger: cluster\n", "executor: docker\ncontainer_image: a:1\ntunnel: local\n", "`job_dir` is missing"),
    ],
)
def test_a_place_without_a_ledger_cannot_be_used(policy: str, profile: str, words: str) -> None:
    fakes = Fakes(HOMED.replace("ledger: cluster\n", policy), {"cluster": PROFILE, "here": "executor: local\n", "docker": profile})
    with pytest.raises(ConfigError) as caught:
        read_profile(fakes.world, read_policy(fakes.world), "docker")
    assert words in caught.value.cause
