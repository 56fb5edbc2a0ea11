"""act in host mode → a GitHub runner of our own: it runs a workflow that users write, with the action as it stands in this checkout.

https://nektosact.com. Nothing of the machine that runs the tests reaches a step but PATH and HOME (for pip's own settings).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ACTION = "org/nemotron-dispatch@v1"


@dataclass(frozen=True)
class Ran:
    """How one workflow run ended: act's exit status, everything it printed, the action's outputs (empty when the job was skipped)."""

    code: int
    log: str
    outputs: Mapping[str, str]


class ActRunner:
    """A runner in `folder`, whose prepared environments outlive it in `tools`. `run` takes 2 to 4 s when they are there."""

    def __init__(self, act: Path, folder: Path, tools: Path) -> None:
        self.act = act
        self.folder = folder
        self.tools = tools
        self.runs = 0
        self.action = folder / "action"
        _export(self.action)

    def run(
        self,
        workflow: Path,
        event: str,
        payload: Mapping[str, Any],
        *,
        env: Mapping[str, str],
        secrets: Mapping[str, str],
        variables: Mapping[str, str],
        workspace: Mapping[str, str] | None = None,
    ) -> Ran:
        """One run of a workflow. `workspace` are files that lie in the workspace, as when a step before has checked out a pull request."""
        self.runs += 1
        here = self.folder / f"run-{self.runs}"
        (here / "workspace" / ".github" / "workflows").mkdir(parents=True)
        for name, text in (workspace or {}).items():
            (here / "workspace" / name).parent.mkdir(parents=True, exist_ok=True)
            (here / "workspace" / name).write_text(text)
        (here / "event.json").write_text(json.dumps(payload))
        told = here / "outputs.json"
        file = here / "workspace" / ".github" / "workflows" / workflow.name
        file.write_text(_with_told_outputs(workflow, told))
        settings = {"RUNNER_TOOL_CACHE": str(self.tools), **env}
        command = [
            str(self.act),
            event,
            "--eventpath",
            str(here / "event.json"),
            "--workflows",
            str(file),
            "--platform",
            "ubuntu-latest=-self-hosted",
        ]
        command += ["--local-repository", f"{ACTION}={self.action}", "--action-offline-mode", "--action-cache-path", str(here / "cache")]
        command += ["--no-cache-server"]
        for flag, values in (("--env", settings), ("--secret", secrets), ("--var", variables)):
            for name, value in values.items():
                command += [flag, f"{name}={value}"]
        done = subprocess.run(
            command,
            cwd=here / "workspace",
            env={
                "PATH": runner_path(),
                "HOME": os.environ.get("HOME", "/root"),
                "XDG_CONFIG_HOME": str(here / "config"),
                "XDG_STATE_HOME": str(here / "state"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=150,
        )
        outputs = json.loads(told.read_text()) if told.exists() else {}
        return Ran(done.returncode, done.stdout, outputs)


def _with_told_outputs(workflow: Path, told: Path) -> str:
    """The workflow with one more step, which writes down the outputs of the action's step; and without what act has not learned yet."""
    text = workflow.read_text()
    uses = f"        uses: {ACTION}\n"
    assert text.count(uses) == 1
    text = text.replace(uses, f"{uses}        id: action\n").replace(", deployment: false", "")
    return f"""{text.rstrip()}
      - name: Tell
        if: always()
        env:
          OUTPUTS: ${{{{ toJSON(steps.action.outputs) }}}}
        run: printf '%s' "$OUTPUTS" > '{told}'
"""


def _export(folder: Path) -> None:
    """What git would publish of this checkout, changes that are not committed included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", "--", ".", ":!tests"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in os.fsdecode(listed.stdout).split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def runner_path() -> str:
    """PATH without the environment that runs the tests, with the uv that .ci/uv may have brought."""
    own = str(Path(sys.prefix) / "bin")
    given = [part for part in os.environ["PATH"].split(os.pathsep) if part != own]
    return os.pathsep.join([*given, str(ROOT / ".cache" / "uv" / "bin")])
