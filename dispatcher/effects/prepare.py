"""An event and the lock files → nothing to do (the action's outputs), or a Python that has everything (output `python`) and room for logs.

Runs on the runner's own Python and its standard library, before anything is installed and without any secret. The environment
is kept in the runner's tool cache under a name that says what is in it, so that a runner that stays prepares it once; it appears
there whole or not at all, whoever else prepares the same one at the same time.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.inputs import Inputs

ROOT = Path(__file__).resolve().parents[2]
UV_LOCK = ROOT / ".ci" / "tool-uv.lock"


def main() -> int:
    """Writes the outputs; 1 when there is no environment to be had, with the reason in the log."""
    from dispatcher.effects.runner import Runner
    from dispatcher.errors import InputError
    from dispatcher.inputs import read_inputs

    inputs = read_inputs()
    github = inputs.github
    runner = Runner(github.output_file, github.summary_file, github.in_actions)
    outputs = nothing_to_do(os.environ)
    if outputs:
        print(f"Nothing to do: {outputs['reason-code']}.")
        runner.outputs(outputs)
        return 0
    try:
        logs = where_logs_go(inputs, os.environ)
        runner.outputs({"python": str(environment(tool_cache(os.environ), locks(inputs.extras)))} | logs)
    except InputError as error:
        runner.error(error.code, f"{error.cause} {error.next_step}")
        return 2
    except (OSError, subprocess.CalledProcessError) as error:
        step = "The lines above say why. A runner without uv and pip needs one of them, or actions/setup-python before this step."
        runner.error("install.failed", f"The dispatcher's packages could not be installed: {error}. {step}")
        return 1
    return 0


def nothing_to_do(environ: Mapping[str, str]) -> dict[str, str] | None:
    """The action's outputs when the event asks for nothing; None when it asks for something or cannot be understood: others say why."""
    from dispatcher.action import blank_outputs
    from dispatcher.command import Ignored
    from dispatcher.errors import DispatchError
    from dispatcher.glance import glance
    from dispatcher.inputs import read_inputs

    if environ.get("DISPATCH_MODE", "handle") != "handle":
        return None
    try:
        command = glance(read_inputs(environ))[1]
    except DispatchError:
        return None
    return blank_outputs("ignored", command.reason) if isinstance(command, Ignored) else None


def where_logs_go(inputs: Inputs, environ: Mapping[str, str]) -> dict[str, str]:
    """Outputs for complete logs: their folder, the name and retention of the artifact if there is to be one; nothing where none are wanted.

    An artifact's name must be the only one of its kind in a workflow run: a job of a matrix, a second use in a job, a re-run have others.

    Raises:
        InputError: `input.flag`, `input.retention`, `input.not-written`.
    """
    from dispatcher.errors import InputError

    artifact, days = inputs.log_artifact, inputs.log_retention_days
    if not (artifact or inputs.log_folder):
        return {}
    try:
        if inputs.log_folder:
            folder = Path(inputs.github.workspace, inputs.log_folder).expanduser().absolute()
            folder.mkdir(parents=True, exist_ok=True)
        else:
            temporary = Path(environ.get("RUNNER_TEMP") or tempfile.gettempdir())
            temporary.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="nemotron-dispatch-logs-", dir=temporary))
    except OSError as error:
        words = f"The folder for logs cannot be made: {error.strerror}."
        raise InputError("input.not-written", words, "Name another one in `log-folder`.") from None
    job = re.sub(r"[^A-Za-z0-9_-]", "", inputs.github.job)[:100] or "job"
    name = f"dispatch-logs-{job}-{inputs.github.run_attempt}-{secrets.token_hex(4)}" if artifact else ""
    return {"log-folder": str(folder), "log-artifact": name, "log-retention-days": str(days or "")}


def tool_cache(environ: Mapping[str, str]) -> Path:
    """The folder for environments: the runner's tool cache, which outlives a job where runners do, else its temporary folder.

    https://docs.github.com/en/actions/reference/workflows-and-actions/variables
    """
    for name in ("RUNNER_TOOL_CACHE", "RUNNER_TEMP"):
        if environ.get(name):
            folder = Path(environ[name], "nemotron-dispatch")
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError:
                continue
            if os.access(folder, os.W_OK):
                return folder
    return Path(tempfile.mkdtemp(prefix="nemotron-dispatch-"))


def locks(extras: Sequence[str]) -> list[Path]:
    """The lock files of an environment: one for each extra, which has everything else in it, too; without any, the plain one.

    SkyPilot's has the other extras, too, because it has other versions of what they share.
    """
    if "skypilot" in extras:
        return [ROOT / "requirements-skypilot.lock"]
    return [ROOT / f"requirements-{extra}.lock" for extra in extras] or [ROOT / "requirements.lock"]


def environment(folder: Path, locked: Sequence[Path]) -> Path:
    """The Python of an environment with exactly what the lock files say, made in `folder` unless it is there."""
    what = b"".join(lock.read_bytes() for lock in locked)
    what += f"{sys.version} {platform.machine()} {os.path.realpath(sys.executable)}".encode()
    home = folder / hashlib.sha256(what).hexdigest()[:16]
    python = home / "bin" / "python"
    if not _starts(python):
        with tempfile.TemporaryDirectory(prefix="new-", dir=folder) as work:
            new = Path(work, "environment")
            _install(new, Path(work), locked)
            # What is there does not start, or was finished by another job in the meantime: that one is as good.
            if home.exists() and not _starts(python):
                shutil.rmtree(home)
            if not home.exists():
                new.rename(home)
    return python


def _install(new: Path, work: Path, locked: Sequence[Path]) -> None:
    """Makes the environment; every file is checked against its hash in the locks."""
    uv = _uv(work)
    _run([*uv, "venv", "-q", "--no-project", "--python", sys.executable, str(new)], work)
    _run([*uv, "pip", "sync", "-q", "--python", str(new / "bin" / "python"), "--require-hashes", *map(str, locked)], work)


def _uv(work: Path) -> list[str]:
    """uv: the runner's, or one from its own hashed lock. It installs in seconds what takes pip a minute and more."""
    if shutil.which("uv") and subprocess.run(["uv", "--version"], capture_output=True, cwd=work, check=False).returncode == 0:
        return ["uv"]
    python = sys.executable
    if subprocess.run([python, "-I", "-m", "pip", "--version"], capture_output=True, cwd=work, check=False).returncode != 0:
        _run([python, "-I", "-m", "venv", str(work / "pip")], work)
        python = str(work / "pip" / "bin" / "python")
    pip = [python, "-I", "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check", "--no-deps"]
    _run([*pip, "--require-hashes", "--target", str(work / "uv"), "-r", str(UV_LOCK)], work)
    return [str(work / "uv" / "bin" / "uv")]


def _run(argv: list[str], work: Path) -> None:
    """Runs a tool where no file of the workspace can configure it, trusting the certificates that the runner trusts."""
    print(" ".join(argv), flush=True)
    quiet = {"PIP_ROOT_USER_ACTION": "ignore"}
    certificates = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"} if Path("/etc/ssl/certs/ca-certificates.crt").exists() else {}
    subprocess.run(argv, cwd=work, stdin=subprocess.DEVNULL, env={**quiet, **certificates, **os.environ}, check=True)


def _starts(python: Path) -> bool:
    """Whether there is a Python that starts: the one it was made from may be gone."""
    return python.exists() and subprocess.run([str(python), "-I", "-c", ""], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    # Isolated (-I): only our own folder is added to where modules come from, never the workspace.
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
