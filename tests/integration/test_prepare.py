"""The action's first step with a small lock of its own: an environment there whole or not at all, whatever lies in the workspace."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.rig.act import runner_path

ROOT = Path(__file__).parents[2]
EVENT = ROOT / "tests" / "data" / "events" / "issue_comment.created.4.json"


class Action:
    """A copy of the action whose lock asks for one small package, which lies in a folder: no registry is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root, self.tools, self.workspace = folder / "action-copy", folder / "tools", folder / "workspace"
        shutil.copytree(ROOT / "dispatcher", self.root / "dispatcher", ignore=shutil.ignore_patterns("__pycache__"))
        self.workspace.mkdir()
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        wheel = self.wheels / "tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr("tiny.py", "VALUE = 42\n")
            file.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
            file.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\n")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        (self.root / "requirements.lock").write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
        # An event that cannot be understood: the dispatcher, which has to say so, is prepared.
        self.event = folder / "event.json"
        self.event.write_text("{}")

    def start(self, **changes: str) -> tuple[subprocess.Popen[str], Path]:
        """The step, running, and its outputs."""
        output = self.folder / f"outputs-{len(list(self.folder.glob('outputs-*')))}"
        output.write_text("")
        environment = {"PATH": runner_path(), "HOME": str(self.folder), "GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(output)}
        environment |= {"RUNNER_TOOL_CACHE": str(self.tools), "GITHUB_EVENT_NAME": "issue_comment", "GITHUB_EVENT_PATH": str(self.event)}
        environment |= {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(self.wheels), "UV_NO_CACHE": "1", **changes}
        command = [sys.executable, "-I", str(self.root / "dispatcher" / "effects" / "prepare.py")]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=environment, cwd=self.workspace, text=True, **streams), output

    def run(self, **changes: str) -> tuple[int, str, dict[str, str]]:
        """The step to its end → exit status, log, outputs."""
        process, output = self.start(**changes)
        log, _ = process.communicate(timeout=60)
        return process.returncode, log, dict(re.findall(r"^([\w-]+)<<(?:END_\w+)\n(.*)\n", output.read_text(), re.MULTILINE))

    @property
    def prepared(self) -> list[str]:
        """What lies in the tool cache."""
        return sorted(item.name for item in (self.tools / "nemotron-dispatch").iterdir())


@pytest.fixture
def action(tmp_path: Path) -> Action:
    done = subprocess.run(["sh", "-c", "uv --version"], env={"PATH": runner_path()}, capture_output=True)
    if done.returncode != 0:
        pytest.skip("there is no uv here; the action would fetch one")
    return Action(tmp_path)


def test_the_environment_is_made_once_and_holds_what_the_lock_says(action: Action) -> None:
    code, log, outputs = action.run()
    assert code == 0, log
    done = subprocess.run([outputs["python"], "-I", "-c", "import tiny; print(tiny.VALUE)"], capture_output=True, text=True)
    assert done.stdout == "42\n", done.stderr
    again = action.run()
    assert again == (0, "", outputs)
    assert len(action.prepared) == 1


def test_another_lock_is_another_environment(action: Action) -> None:
    first = action.run()[2]
    with (action.root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert action.run()[2] != first
    assert len(action.prepared) == 2


def test_an_extra_is_another_environment_from_its_own_lock(action: Action) -> None:
    """Each lock has everything; where several are installed they have the same pins in common."""
    lock = (action.root / "requirements.lock").read_text()
    (action.root / "requirements-kubeflow.lock").write_text(lock + "    # via kubeflow\n")
    plain, extra = action.run()[2], action.run(DISPATCH_EXTRAS="kubeflow")
    assert extra[0] == 0, extra[1]
    assert extra[2] != plain
    assert f"--require-hashes {action.root / 'requirements-kubeflow.lock'}" in extra[1]
    assert action.run(DISPATCH_EXTRAS=" kubeflow, ") == (0, "", extra[2])
    assert len(action.prepared) == 2
    (action.root / "requirements-skypilot.lock").write_text(lock + "    # via skypilot\n")
    both = action.run(DISPATCH_EXTRAS="kubeflow,skypilot")
    assert both[0] == 0, both[1]
    assert f"--require-hashes {action.root / 'requirements-skypilot.lock'}" in both[1], "it has the other's client, too"
    assert "requirements-kubeflow" not in both[1]
    code, log, outputs = action.run(DISPATCH_EXTRAS="kubeflow, kuberay")
    assert (code, outputs) == (2, {})
    assert "::error title=input.extras::" in log


def test_two_locks_with_pins_in_common_can_be_installed_at_once(action: Action) -> None:
    lock = (action.root / "requirements.lock").read_text()
    (action.root / "requirements-kubeflow.lock").write_text(lock)
    (action.root / "requirements-other.lock").write_text("# another\n" + lock)
    file = action.root / "dispatcher" / "action.py"
    file.write_text(file.read_text().replace("EXTRAS = (", 'EXTRAS = ("other", '))
    code, log, outputs = action.run(DISPATCH_EXTRAS="kubeflow,other")
    assert (code, list(outputs)) == (0, ["python"]), log


@pytest.mark.parametrize("lock", [f"tiny==1.0 --hash=sha256:{'0' * 64}\n", "tiny==1.0\n"], ids=["another hash", "no hash"])
def test_a_file_that_the_lock_does_not_vouch_for_leaves_nothing_behind(action: Action, lock: str) -> None:
    (action.root / "requirements.lock").write_text(lock)
    code, log, outputs = action.run()
    assert (code, outputs) == (1, {})
    assert "::error title=install.failed::" in log
    assert action.prepared == []


def test_two_jobs_at_once_end_with_one_environment(action: Action) -> None:
    started = [action.start() for _ in range(3)]
    logs = [process.communicate(timeout=60)[0] for process, _ in started]
    assert [process.returncode for process, _ in started] == [0, 0, 0], logs
    assert len(action.prepared) == 1


def test_an_environment_whose_python_has_gone_is_made_again(action: Action) -> None:
    python = Path(action.run()[2]["python"])
    python.unlink()
    python.symlink_to("/nowhere/python3")
    code, log, outputs = action.run()
    assert (code, outputs) == (0, {"python": str(python)}), log
    assert len(action.prepared) == 1


def test_nothing_of_the_workspace_is_heard(action: Action) -> None:
    """A step before may have checked out a pull request there."""
    (action.workspace / "uv.toml").write_text("nonsense = true\n")
    (action.workspace / "pyproject.toml").write_text("[tool.uv]\nnonsense = true\n")
    (action.workspace / ".python-version").write_text("2.7\n")
    (action.workspace / "dispatcher").mkdir()
    (action.workspace / "dispatcher" / "__init__.py").write_text("raise SystemExit('code of the workspace was run')\n")
    (action.workspace / "json.py").write_text("raise SystemExit('code of the workspace was run')\n")
    code, log, outputs = action.run(PYTHONPATH=".")
    assert code == 0, log
    assert list(outputs) == ["python"]


def test_a_tool_cache_that_cannot_be_written_is_not_needed(action: Action) -> None:
    (action.folder / "file").write_text("not a folder")
    outputs = action.run(RUNNER_TOOL_CACHE=str(action.folder / "file"), RUNNER_TEMP=str(action.folder / "temp"))[2]
    assert outputs["python"].startswith(str(action.folder / "temp"))


def test_a_comment_that_is_no_command_is_answered_without_any_environment(action: Action) -> None:
    payload = json.loads(EVENT.read_text())
    payload["issue"]["pull_request"] = {}
    action.event.write_text(json.dumps(payload))
    code, log, outputs = action.run(PATH=os.defpath)
    assert (code, outputs["decision"], outputs["reason-code"]) == (0, "ignored", "not-a-command"), log
    assert not action.tools.exists()


def test_watch_and_gate_are_never_ignored(action: Action) -> None:
    action.event.write_text(EVENT.read_text())
    assert list(action.run(DISPATCH_MODE="watch")[2]) == ["python"]


def test_a_place_for_logs_and_a_name_that_no_other_job_has(action: Action) -> None:
    there = {"RUNNER_TEMP": str(action.folder / "temp"), "GITHUB_JOB": "watch", "GITHUB_RUN_ATTEMPT": "2", "DISPATCH_LOG_ARTIFACT": "true"}
    first, second = (action.run(**there, DISPATCH_LOG_RETENTION_DAYS="30")[2] for _ in range(2))
    for told in (first, second):
        assert Path(told["log-folder"]).parent == action.folder / "temp"
        assert list(Path(told["log-folder"]).iterdir()) == []
        assert re.fullmatch(r"dispatch-logs-watch-2-[0-9a-f]{8}", told["log-artifact"])
        assert told["log-retention-days"] == "30"
    assert first["log-artifact"] != second["log-artifact"]
    own = action.run(DISPATCH_LOG_FOLDER="kept/logs", GITHUB_WORKSPACE=str(action.workspace))[2]
    assert (own["log-folder"], own["log-artifact"]) == (str(action.workspace / "kept" / "logs"), "")
    assert Path(own["log-folder"]).is_dir()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"DISPATCH_LOG_ARTIFACT": "yes please"}, "input.flag"),
        ({"DISPATCH_LOG_ARTIFACT": "true", "DISPATCH_LOG_RETENTION_DAYS": "401"}, "input.retention"),
        ({"DISPATCH_LOG_FOLDER": "/dev/null/logs"}, "input.not-written"),
    ],
)
def test_what_cannot_be_meant_of_logs_is_refused_before_anything_is_installed(action: Action, changes: dict[str, str], reason: str) -> None:
    code, log, outputs = action.run(**changes)
    assert (code, outputs) == (2, {})
    assert f"::error title={reason}::" in log
    assert not action.tools.exists()
