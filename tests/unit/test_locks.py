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

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]
GROUPS = PROJECT["dependency-groups"]
LOCKS = {
    "requirements.lock": RUNTIME,
    "requirements-dev.lock": RUNTIME + GROUPS["test"] + GROUPS["lint"],
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


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_what_is_asked_for_is_what_is_locked(lock: str) -> None:
    wanted = {canonicalize_name(Requirement(text).name): Requirement(text) for text in LOCKS[lock]}
    locked: dict[str, list[Version]] = {}
    for pin in pins(lock):
        locked.setdefault(pin.name, []).append(pin.version)
    assert {pin.name for pin in pins(lock) if pin.asked_for} == set(wanted), "run `make lock`"
    for name, requirement in wanted.items():
        assert all(requirement.specifier.contains(version) for version in locked[name]), f"{requirement}, but locked is {locked[name]}"


def test_both_locks_agree() -> None:
    """What the tests ran with is what users get."""
    runtime = {(pin.name, pin.version) for pin in pins("requirements.lock")}
    assert runtime <= {(pin.name, pin.version) for pin in pins("requirements-dev.lock")}


def test_ray_is_not_locked() -> None:
    assert "ray" not in {pin.name for pin in pins("requirements.lock")}


def test_the_build_lock_satisfies_the_build_requirements() -> None:
    locked = {pin.name: pin.version for pin in pins(".ci/build.lock")}
    for requirement in map(Requirement, PROJECT["build-system"]["requires"]):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)])
