"""The lock files say what `pyproject.toml` asks for: nothing missing, nothing left over, every file hashed, no registry named."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from dispatcher.action import EXTRAS as ACTION_EXTRAS
from dispatcher.clouds import CLOUDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]
GROUPS = PROJECT["dependency-groups"]
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
RUNTIME_LOCKS = {"requirements.lock": RUNTIME, **{f"requirements-{name}.lock": RUNTIME + wanted for name, wanted in EXTRAS.items()}}
# It pins old versions of what others have, too, and is installed alone (`prepare.locks`).
APART = "requirements-skypilot.lock"
RUNTIME_LOCKS[APART] = [*RUNTIME, *(text for wanted in EXTRAS.values() for text in wanted)]
IN_DEV = [text for name, wanted in EXTRAS.items() if name != "skypilot" for text in wanted]
LOCKS = {
    **RUNTIME_LOCKS,
    "requirements-dev.lock": [*RUNTIME, *IN_DEV] + GROUPS["test"] + GROUPS["lint"],
    ".ci/build.lock": [],
    ".ci/tool-uv.lock": [],
    ".ci/tool-go.lock": [],
    ".ci/tool-ray.lock": [],
}


@dataclass(frozen=True)
class Pin:
    """One entry of a lock file; `asked_for` when pyproject.toml itself asks for it."""

    name: str
    version: Version
    hashes: int
    asked_for: bool


def pins(lock: str) -> list[Pin]:
    """The entries of a lock file, in order; a package that is pinned twice under different markers has two."""
    entries = re.split(r"^(?=[A-Za-z0-9])", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
    found = []
    for entry in entries:
        name, version = re.match(r"([^\s=\[]+)(?:\[[^\]]*\])?==(\S+)", entry).groups()  # type: ignore[union-attr]
        asked_for = "nemotron-dispatch" in entry.split("# via", 1)[1]
        found.append(Pin(canonicalize_name(name), Version(version), entry.count("--hash=sha256:"), asked_for))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_registry_is_named(lock: str) -> None:
    assert pins(lock)
    assert [pin.name for pin in pins(lock) if not pin.hashes] == []
    assert not re.search(r"https?://|^--|@ ", (ROOT / lock).read_text(), re.MULTILINE)


@pytest.mark.parametrize("lock", [*RUNTIME_LOCKS, "requirements-dev.lock"])
def test_what_is_asked_for_is_what_is_locked(lock: str) -> None:
    wanted = {canonicalize_name(Requirement(text).name): Requirement(text) for text in LOCKS[lock]}
    locked: dict[str, list[Version]] = {}
    for pin in pins(lock):
        locked.setdefault(pin.name, []).append(pin.version)
    assert {pin.name for pin in pins(lock) if pin.asked_for} == set(wanted), "run `make lock`"
    for name, requirement in wanted.items():
        assert all(requirement.specifier.contains(version) for version in locked[name]), f"{requirement}, but locked is {locked[name]}"


@pytest.mark.parametrize("lock", sorted(set(RUNTIME_LOCKS) - {APART}))
def test_the_locks_agree(lock: str) -> None:
    """What the tests ran with is what users get; and because of it the locks of two extras can be installed together."""
    runtime = {(pin.name, pin.version) for pin in pins(lock)}
    assert runtime <= {(pin.name, pin.version) for pin in pins("requirements-dev.lock")}


@pytest.mark.parametrize("lock", RUNTIME_LOCKS)
def test_ray_is_not_locked(lock: str) -> None:
    assert "ray" not in {pin.name for pin in pins(lock)}


def test_the_extras_are_those_that_the_action_and_the_executors_name() -> None:
    assert tuple(EXTRAS) == ACTION_EXTRAS
    assert {model.EXTRA for model in CLOUDS.values()} - {""} <= set(EXTRAS)


def test_the_build_lock_satisfies_the_build_requirements() -> None:
    locked = {pin.name: pin.version for pin in pins(".ci/build.lock")}
    for requirement in map(Requirement, PROJECT["build-system"]["requires"]):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)])
