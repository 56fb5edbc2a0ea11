"""Every field of the installed NeMo-Run's SlurmExecutor can be reached from a profile, or is refused with a reason."""

from __future__ import annotations

import dataclasses

import pytest

from dispatcher.counterparts import ALIASES, REFUSED
from dispatcher.effects.nemorun import import_nemo_run
from dispatcher.errors import ConfigError
from dispatcher.grammar import Malformed, Override
from dispatcher.profile import resolve_profile
from dispatcher.runprofile import apply_overrides
from dispatcher.slurmprofile import SlurmProfile
from tests.unit.test_profile import BASE, slurm


def fields_of_nemo_run() -> set[str]:
    executor = import_nemo_run().SlurmExecutor
    return {field.name for field in dataclasses.fields(executor) if not field.name.startswith("_")}


def test_a_field_of_nemo_run_is_reachable_or_refused() -> None:
    """A new version of NeMo-Run that has more fields is noticed here."""
    reachable = set(SlurmProfile.model_fields) | set(ALIASES)
    assert fields_of_nemo_run() - reachable - set(REFUSED) == set()


def test_nothing_is_both_or_left_over() -> None:
    assert set(REFUSED) & (set(SlurmProfile.model_fields) | set(ALIASES)) == set()
    assert set(REFUSED) - fields_of_nemo_run() == {"identity"}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_says_why(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve_profile("c", {"profiles/c.yaml": f"{BASE}{name}: x\n"}, (), {})
    assert f"`profiles/c.yaml:9`: `{name}` is not read: {REFUSED[name]}" in raised.value.cause
    answer = apply_overrides(slurm(), [Override(f"run.{name}", "x")])
    assert isinstance(answer, Malformed)
    assert answer.reason_code == "not-here"
