"""action.yml says what the code does: inputs, outputs and modes are those of `dispatcher/action.py`, and all workflows pass the linters."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dispatcher.action import INPUTS, LOG_OUTPUTS, MODES, OUTPUTS
from dispatcher.inputs import read_inputs
from dispatcher.world import outcome

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yml"))
WORKFLOWS = [*sorted((ROOT / ".github" / "workflows").glob("*.yml")), *EXAMPLES]
EVENT = ROOT / "tests" / "data" / "events" / "issue_comment.created.4.json"
TOOLS = Path(sys.prefix) / "bin"


def load(path: Path) -> dict[str, Any]:
    """A workflow; YAML 1.1 reads the key `on` as true."""
    document = yaml.safe_load(path.read_text())
    return {("on" if key is True else key): value for key, value in document.items()}


def steps(document: dict[str, Any]) -> list[dict[str, Any]]:
    jobs = document["jobs"].values() if "jobs" in document else [document["runs"]]
    return [step for job in jobs for step in job.get("steps", [])]


def test_the_inputs_are_those_of_the_code() -> None:
    published = {name: given["default"] for name, given in ACTION["inputs"].items()}
    assert published == {given.name: given.default for given in INPUTS}
    assert all(given["description"] and given["required"] is False for given in ACTION["inputs"].values())


def test_every_input_enters_under_its_variable_and_secrets_only_where_they_are_used() -> None:
    prepare, dispatch, _ = steps(ACTION)
    assert dispatch["env"].pop("DISPATCH_PYTHON") == "${{ steps.prepare.outputs.python }}"
    assert dispatch["env"].pop("DISPATCH_LOG_FOLDER") == "${{ steps.prepare.outputs.log-folder }}"
    entering = {given.variable: f"${{{{ inputs.{given.name} }}}}" for given in INPUTS}
    early = {"DISPATCH_EXTRAS", "DISPATCH_LOG_ARTIFACT", "DISPATCH_LOG_RETENTION_DAYS", "DISPATCH_LOG_FOLDER"}
    assert dispatch["env"] == {name: value for name, value in entering.items() if name not in early}
    assert prepare["env"] == {name: value for name, value in entering.items() if name in {"DISPATCH_MODE", "DISPATCH_COMMAND", *early}}


def test_logs_are_uploaded_by_the_action_that_releases_use_only_where_there_are_any_and_no_step_fails_for_it() -> None:
    *_, upload = steps(ACTION)
    release = steps(load(ROOT / ".github" / "workflows" / "release.yml"))
    assert upload["uses"] in {step.get("uses") for step in release}
    for needed in ("always()", "steps.prepare.outputs.log-artifact != ''", "steps.dispatch.outputs.log-files != ''"):
        assert needed in upload["if"].split(" && ")
    assert upload["continue-on-error"] is True
    assert upload["with"] == {
        "name": "${{ steps.prepare.outputs.log-artifact }}",
        "path": "${{ steps.dispatch.outputs.log-files }}",
        "if-no-files-found": "ignore",
        "retention-days": "${{ steps.prepare.outputs.log-retention-days }}",
    }


@pytest.mark.parametrize("variable", [given.variable for given in INPUTS if given.name != "mode"])
def test_every_input_is_read(variable: str) -> None:
    # What is handed on as it came does not count as reading it.
    def read(value: str) -> tuple[object, ...]:
        given = read_inputs({variable: value})
        logs = (given.log_folder, given.log_artifact, given.log_retention_word)
        return given.github, given.ssh, given.word, given.wait, given.extras_word, logs

    assert read("true") != read("")


def test_the_defaults_are_those_of_the_code() -> None:
    defaults = {given.variable: given.default for given in INPUTS if not given.default.startswith("${{")}
    assert read_inputs(defaults).github == read_inputs({}).github
    assert read_inputs(defaults).word == read_inputs({}).word
    assert {given.name: given.default for given in INPUTS}["mode"] == MODES[0]


def test_the_outputs_are_those_of_the_code() -> None:
    assert tuple(ACTION["outputs"]) == (*OUTPUTS, *LOG_OUTPUTS)
    for name, given in ACTION["outputs"].items():
        assert given["value"] == LOG_OUTPUTS.get(name, f"${{{{ steps.dispatch.outputs.{name} || steps.prepare.outputs.{name} }}}}")
        assert given["description"]
    assert tuple(outcome("ignored", "bot").outputs) == OUTPUTS


@pytest.mark.parametrize(
    ("changes", "code", "decision", "reason"),
    [
        ({}, 0, "ignored", "not-a-command"),
        ({"GITHUB_EVENT_PATH": "/nowhere.json"}, 2, "refused", "input.event-file"),
        ({"DISPATCH_COMMAND": "You"}, 0, "ignored", "plain-issue"),
    ],
)
def test_every_output_is_written_without_a_run(tmp_path: Path, changes: dict[str, str], code: int, decision: str, reason: str) -> None:
    ended, told = run_action_step("perform.py", tmp_path, **changes)
    assert (ended.returncode, told["decision"], told["reason-code"]) == (code, decision, reason), ended.stderr
    assert set(told) == set(OUTPUTS)
    assert told["result"] == "{}"


def test_a_mode_that_does_not_exist_is_refused_and_no_other_command_can_be_reached(tmp_path: Path) -> None:
    for mode in ("submit", "nonsense", "--help"):
        ended, told = run_action_step("perform.py", tmp_path, DISPATCH_MODE=mode)
        assert (ended.returncode, told) == (2, {})
        assert "::error title=input.mode::The input `mode` takes handle, watch, gate." in ended.stderr


def run_action_step(name: str, folder: Path, **changes: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """One of the action's programs, as action.yml starts it → how it ended, and its outputs."""
    output = folder / "outputs"
    output.write_text("")
    environment = {"GITHUB_EVENT_NAME": "issue_comment", "GITHUB_EVENT_PATH": str(EVENT), "GITHUB_ACTIONS": "true"}
    environment |= {"PATH": os.environ["PATH"], "GITHUB_OUTPUT": str(output), **changes}
    command = [sys.executable, "-I", "-X", "utf8", str(ROOT / "dispatcher" / "effects" / name)]
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    return ended, dict(re.findall(r"^([\w-]+)<<(?:END_\w+)\n(.*)\n", output.read_text(), re.MULTILINE))


# --------------------------------------------------------------------------- workflows


@pytest.mark.parametrize("path", [ROOT / "action.yml", *WORKFLOWS], ids=lambda path: path.name)
def test_nothing_is_interpolated_into_a_script(path: Path) -> None:
    scripts = [step["run"] for step in steps(load(path)) if "run" in step]
    assert [script for script in scripts if "${{" in script] == []


@pytest.mark.parametrize("path", [ROOT / "action.yml", *WORKFLOWS], ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit_with_its_version_beside(path: Path) -> None:
    for line in path.read_text().splitlines():
        found = re.match(r"\s*-? *uses: (\S+)(.*)", line)
        if found and not found[1].startswith(("./", "org/nemotron-dispatch@v1")):
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", found[1]), line
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", found[2]), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_permission_is_given_but_to_the_job_that_needs_it(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {}
    assert all("permissions" in job and "timeout-minutes" in job for job in workflow["jobs"].values())


def test_the_examples_hold_exactly_the_documented_permissions() -> None:
    for path in [*EXAMPLES, ROOT / ".github" / "workflows" / "dispatch.yml"]:
        [job] = load(path)["jobs"].values()
        pulls = "read" if path.name == "gate.yml" else "write"
        assert job["permissions"] == {"contents": "read", "checks": "write", "pull-requests": pulls}, path.name


def test_the_reusable_workflow_hands_everything_on() -> None:
    workflow = load(ROOT / ".github" / "workflows" / "dispatch.yml")
    call, [job] = workflow["on"]["workflow_call"], workflow["jobs"].values()
    handed = {step.get("id"): step for step in job["steps"]}["dispatch"]["with"]
    assert set(handed) == {given.name for given in INPUTS}
    for name, value in handed.items():
        assert value in (
            f"${{{{ inputs.{name} }}}}",
            f"${{{{ secrets.{name.replace('-', '_')} }}}}",
            "${{ secrets.token || github.token }}",
        )
        assert (name.replace("-", "_") in call["secrets"]) if "secrets." in value else (name in call["inputs"])
    for name in INPUTS:
        if name.name in call["inputs"]:
            assert call["inputs"][name.name]["default"] == name.default
    # Folder and files are gone with the runner.
    assert tuple(job["outputs"]) == tuple(call["outputs"]) == (*OUTPUTS, "log-artifact-url")
    for name in call["outputs"]:
        assert job["outputs"][name] == f"${{{{ steps.dispatch.outputs.{name} }}}}"
        assert call["outputs"][name]["value"] == f"${{{{ jobs.dispatch.outputs.{name} }}}}"


LINTERS = {
    "workflow schema": ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS)],
    "action schema": ["check-jsonschema", "--builtin-schema", "vendor.github-actions", str(ROOT / "action.yml")],
    "actionlint": ["actionlint", "-shellcheck=", "-pyflakes=", *map(str, WORKFLOWS)],
    "zizmor": ["zizmor", "--offline", "--no-progress", "--persona=auditor", str(ROOT / "action.yml"), *map(str, WORKFLOWS)],
}


@pytest.mark.parametrize("name", LINTERS)
def test_the_linters_have_nothing_to_say(name: str) -> None:
    program, *arguments = LINTERS[name]
    done = subprocess.run([str(TOOLS / program), *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_linter_is_told_to_ignore_is_known_and_has_its_reason() -> None:
    ignored = [found for path in WORKFLOWS for found in re.findall(r"zizmor: ignore\[([\w-]+)\](.*)", path.read_text())]
    assert sorted(rule for rule, _ in ignored) == ["dangerous-triggers", "dangerous-triggers", "self-repository"]
    assert all(re.match(r" - .{20,}", reason) for _, reason in ignored)


def test_the_payload_is_what_the_tests_above_take_it_for() -> None:
    payload = json.loads(EVENT.read_text())
    assert "pull_request" not in payload["issue"]
    assert payload["comment"]["body"].startswith("You")
