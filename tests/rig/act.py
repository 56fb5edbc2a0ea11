"""act in host mode → a GitHub runner of our own: it runs a workflow that users write, with the action as it stands in this checkout.

https://nektosact.com. Nothing of the machine that runs the tests reaches a step but PATH and HOME (for pip's own settings).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ACTION = "org/nemotron-dispatch@v1"
# What action.yml itself uses has a stand-in here: act fetches it for every run, wanted or not, as GitHub's runner does.
UPLOAD = re.findall(r"uses: (actions/upload-artifact@[0-9a-f]{40})", (ROOT / "action.yml").read_text())[0]
STANDIN = ROOT / "tests" / "rig" / "upload-artifact"


@dataclass(frozen=True)
class Ran:
    """How one workflow run ended: act's exit status, everything it printed, the action's outputs (empty when the job was skipped).

    `artifacts` is a folder with one for each artifact, and beside that `<name>.json`: with what it was uploaded.
    """

    code: int
    log: str
    outputs: Mapping[str, str]
    artifacts: Path


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
        inputs: Mapping[str, str] | None = None,
    ) -> Ran:
        """One run of a workflow. `workspace` are files that a step before puts there, as `actions/checkout` of a pull request would;
        `inputs` are given to the action beside those of the workflow.
        """
        self.runs += 1
        here = self.folder / f"run-{self.runs}"
        for name, text in {
            "event.json": json.dumps(payload),
            **{f"files/{name}": text for name, text in (workspace or {}).items()},
        }.items():
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_text(text)
        file = here / "repository" / ".github" / "workflows" / workflow.name
        file.parent.mkdir(parents=True)
        file.write_text(_observed(workflow, here, inputs or {}))
        command = [str(self.act), event, f"--eventpath={here}/event.json", f"--workflows={file}", f"--action-cache-path={here}/cache"]
        command += ["--platform=ubuntu-latest=-self-hosted", f"--local-repository={ACTION}={self.action}"]
        command += [f"--local-repository={UPLOAD}={STANDIN}", "--action-offline-mode", "--no-cache-server"]
        given = {"RUNNER_TOOL_CACHE": str(self.tools), "STANDIN_ARTIFACTS": str(here / "artifacts"), **env}
        for flag, values in (("--env", given), ("--secret", secrets), ("--var", variables)):
            for name, value in values.items():
                command += [flag, f"{name}={value}"]
        own = {"PATH": runner_path(), "HOME": os.environ.get("HOME", "/root")}
        own |= {"XDG_CONFIG_HOME": f"{here}/config", "XDG_STATE_HOME": f"{here}/state"}
        done = subprocess.run(
            command,
            cwd=here / "repository",
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=150,
        )
        told = here / "outputs.json"
        return Ran(done.returncode, done.stdout, json.loads(told.read_text()) if told.exists() else {}, here / "artifacts")


def _observed(workflow: Path, here: Path, inputs: Mapping[str, str]) -> str:
    """The workflow between a step that fills the workspace and one that writes down the outputs; without what act does not know."""
    text = workflow.read_text()
    uses = f"        uses: {ACTION}\n"
    assert text.count(uses) == text.count("    steps:\n") == 1
    text = text.replace(uses, f"{uses}        id: action\n").replace(", deployment: false", "")
    if inputs:
        assert text.count("        with:\n") == 1
        text = text.replace(
            "        with:\n", "        with:\n" + "".join(f"          {name}: {json.dumps(value)}\n" for name, value in inputs.items())
        )
    if (here / "files").exists():
        text = text.replace("    steps:\n", f"    steps:\n      - name: Fill\n        run: cp -R '{here}/files/.' .\n")
    return f"""{text.rstrip()}
      - name: Tell
        if: always()
        env:
          OUTPUTS: ${{{{ toJSON(steps.action.outputs) }}}}
        run: printf '%s' "$OUTPUTS" > '{here}/outputs.json'
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
