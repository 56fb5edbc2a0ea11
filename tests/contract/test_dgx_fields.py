"""DGX Cloud and Lepton: NeMo-Run's fields are reachable or refused; what is rendered is what the APIs' clients take."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from leptonai.api.v1.types.job import LeptonJob, LeptonJobState

from dispatcher.clouds import CLOUDS
from dispatcher.cloudstates import WORDS
from dispatcher.counterparts import ALIASES, REFUSED
from dispatcher.effects.clouds.dgxcloud import DgxCloudApi
from dispatcher.effects.clouds.lepton import LeptonApi
from dispatcher.effects.nemorun import import_nemo_run
from dispatcher.jobplan import NOT_FOR_AN_API
from dispatcher.profile import ResolvedProfile, resolve_profile
from tests.dgx_server import MODELS
from tests.dgx_server import against as against_runai
from tests.fakes import plan_on
from tests.lepton_server import against as against_lepton

EXAMPLES = Path(__file__).parents[2] / "profiles"
EXECUTORS = {"dgxcloud": "DGXCloudExecutor", "lepton": "LeptonExecutor"}


@pytest.mark.parametrize("name", EXECUTORS)
def test_a_field_of_nemo_run_is_reachable_or_refused(name: str) -> None:
    executor, model = getattr(import_nemo_run(), EXECUTORS[name]), CLOUDS[name]
    fields = {field.name for field in dataclasses.fields(executor) if not field.name.startswith("_")}
    ours = set(model.model_fields) | set(ALIASES)
    assert fields - ours - set(model.REFUSED) - set(REFUSED) - {"retries"} == set()
    assert set(model.REFUSED) - fields == set()
    assert set(model.REFUSED) & ours == set()


def rendered(name: str, api: type[DgxCloudApi] | type[LeptonApi], folder: Path) -> tuple[str, dict[str, Any]]:
    """The example profile's preview."""
    found = resolve_profile(name, {f"profiles/{name}.yaml": (EXAMPLES / f"{name}.yaml").read_text()}, (), {})
    assert isinstance(found, ResolvedProfile)
    profile: Any = found.profile
    made = api(profile.model_dump(mode="json", exclude=NOT_FOR_AN_API))
    preview = made.render(plan_on(profile).for_compiler(), folder)
    [(_, text)] = preview.files.items()
    return preview.script, yaml.safe_load(text)


def test_the_example_is_a_workload_of_run_ai(tmp_path: Path) -> None:
    script, body = rendered("dgxcloud", DgxCloudApi, tmp_path)
    assert against_runai("DistributedCreationRequest", body) == []
    assert body["spec"]["nodePools"] == ["h100"]
    assert against_runai("DistributedCreationRequest", {**body, "spec": {**body["spec"], "nosuch": 1}}) != [], "the models would say so"
    assert "PET_NODE_RANK" in script


def test_the_example_is_a_job_of_lepton(tmp_path: Path) -> None:
    _, body = rendered("lepton", LeptonApi, tmp_path)
    assert against_lepton(LeptonJob, body) == []
    assert {item["name"] for item in body["spec"]["envs"]} == {"DISPATCH_ENVIRONMENT", "HF_TOKEN"}
    assert against_lepton(LeptonJob, {**body, "spec": {**body["spec"], "nosuch": 1}}) != []


def test_all_words_of_the_apis_are_known() -> None:
    phases = {phase.lower() for phase in MODELS["$defs"]["Phase"]["enum"]}
    assert phases - set(WORDS["dgxcloud"]) == {"unknown"}
    states = {state.value.lower() for state in LeptonJobState}
    assert states - set(WORDS["lepton"]) == {"unk", "archived", "deleted"}
