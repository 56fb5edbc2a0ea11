"""What is kept of a run that an API starts, and what such a job leaves in its log: written, and read back."""

from __future__ import annotations

import base64
import json

import pytest

from dispatcher.errors import ClusterError
from dispatcher.launch import parse, parse_environment, results_in, to_json, without_marks
from dispatcher.packager import Packager, whole_spec
from dispatcher.ports import AnySpec, HybridSpec, NothingSpec, PackageSpec, PatternSpec
from tests.fakes import cloud_plan

SPECS: list[tuple[object, type]] = [
    ("git", PackageSpec),
    ({"type": "git", "subpath": "src", "include_pattern": ["data/*.json"], "include_submodules": False}, PackageSpec),
    ({"type": "pattern", "include_pattern": ["a/*", "b"], "relative_path": ["a", ""]}, PatternSpec),
    ({"type": "hybrid", "sub_packagers": {"x": {"subpath": "s"}, "y": {"type": "pattern", "include_pattern": "*.py"}}}, HybridSpec),
    ("none", NothingSpec),
]


@pytest.mark.parametrize(("packager", "kind"), SPECS)
def test_whoever_starts_it_later_packs_the_same(packager: object, kind: type) -> None:
    job = cloud_plan(packager=packager)
    launch = parse(to_json(job))
    wanted: AnySpec = whole_spec(Packager.model_validate({"type": packager} if isinstance(packager, str) else packager))
    assert launch.spec == wanted
    assert isinstance(launch.spec, kind)
    assert launch.sha == job.grant.sha
    assert launch.job == json.loads(json.dumps(job.for_compiler()))
    assert launch.packs


def broken(**changes: object) -> str:
    return json.dumps({**json.loads(to_json(cloud_plan())), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        broken(sha="main"),
        broken(sha="a" * 39 + "\n"),
        broken(job=[]),
        broken(job={"cloud": {"packs": "yes"}}),
        broken(spec={"kind": "shell"}),
        broken(spec={"kind": "git", "subpath": 3}),
        broken(spec={"kind": "hybrid", "parts": [["x", {"kind": "none"}, 1]]}),
    ],
)
def test_what_is_not_ours_is_not_started(text: str) -> None:
    with pytest.raises(ClusterError) as caught:
        parse(text)
    assert caught.value.code == "cluster.bad-record"


def test_the_environment_survives_its_file() -> None:
    values = {"A": "", "B": 'it\'s $HOME `x` "q"', "C": "two\nlines", "D": "ü=ß"}
    job = cloud_plan(env_vars={"GREETING": "a 'b'"})
    read = parse_environment(job.environment({"TOKEN": values["C"], **values}))
    assert {name: read[name] for name in values} == values
    assert (read["GREETING"], read["TOKEN"]) == ("a 'b'", "two\nlines")
    assert read["DISPATCH_RUN_DIR"] == "/nemo_run"
    assert read["DISPATCH_RESULTS"] == "/nemo_run/code/results.json"


@pytest.mark.parametrize("text", ["export A='1\n", "A=1\n", "export A=1 B=2\n", "export A-B=1\n", "export A=1\nrm -rf /\n", "export\n"])
def test_an_environment_that_is_not_ours(text: str) -> None:
    with pytest.raises(ClusterError):
        parse_environment(text)


def mark(text: str) -> str:
    return f"dispatch-results: {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("log", "results"),
    [
        ("step 1\n", None),
        (f"step 1\n\n{mark('{}')}\n", b"{}"),
        (f"{mark('1')}\nlater\n{mark('2')}\n", b"2"),
        (f"[pod-0] {mark('3')}\r\n", b"3"),
        (f"words {mark('no')}\n", None),
        ("dispatch-results: AAA\n", b""),
        ("dispatch-results: \n", b""),
        ("dispatch-results: $(x)\n", None),
    ],
)
def test_results_come_out_of_the_log(log: str, results: bytes | None) -> None:
    assert results_in(log.encode()) == results


def test_people_do_not_see_the_marks() -> None:
    log = f"step 1\n{mark('{}')}\n[pod-1] {mark('{}')}\nthe end"
    assert without_marks(log.encode()) == b"step 1\nthe end"
