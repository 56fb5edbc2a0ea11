"""The file that a job sources, in a real /bin/sh: every value arrives as it was given, and none of them does anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_plan import LOCAL, planned, slurm

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
SHELLS = [Path(shell) for shell in ("/bin/sh", "/bin/bash") if Path(shell).exists()]

HOSTILE = [
    "",
    " ",
    "plain",
    "two words",
    "'",
    '"',
    "it's",
    "$HOME ${HOME} $(touch pwned) `touch pwned`",
    "$$ $0 $?",
    "a;touch pwned;b",
    "a&&touch pwned||b|c&d",
    "> pwned",
    "\\",
    "\\n\\t",
    "a\\",
    "!history",
    "*?[a-z]~",
    "#comment",
    "-n",
    "--help",
    "=",
    "a=b",
    "tab\there",
    "two\nlines",
    "'\n'; touch pwned; '",
    "\r\n",
    "ünïcödé 🚀 \u2028",
    "%s %d %%",
    "{a,b}",
    "x" * 5000,
]


def sourced(shell: Path, text: str, folder: Path) -> dict[str, str]:
    """The environment of a program that is started after the file was sourced, as the batch script does it."""
    (folder / "env").write_text(text, encoding="utf-8")
    script = f'set -e\n. {folder}/env\nexec "$0" -c "$1"\n'
    done = subprocess.run(
        [shell, "-c", script, sys.executable, SHOW], cwd=folder, env={"LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=True
    )
    assert not (folder / "pwned").exists()
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
def test_every_value_arrives_as_it_is(shell: Path, tmp_path: Path) -> None:
    secrets = {f"V{number}": value for number, value in enumerate(HOSTILE)}
    found = sourced(shell, planned().environment(secrets), tmp_path)
    assert {name: found.get(name) for name in secrets} == secrets


def test_a_private_key_arrives_whole(tmp_path: Path) -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\ndef==\n-----END OPENSSH PRIVATE KEY-----\n"
    assert sourced(Path("/bin/sh"), planned().environment({"KEY": key}), tmp_path)["KEY"] == key


def test_the_profiles_values_arrive_too(tmp_path: Path) -> None:
    values = {f"P{number}": value for number, value in enumerate(HOSTILE) if "\n" not in value and "\r" not in value}
    assert values.items() <= sourced(Path("/bin/sh"), planned(slurm(env_vars=values)).environment({}), tmp_path).items()


@pytest.mark.parametrize("trailing", ["", "/deep/down"])
def test_a_local_jobs_script_goes_where_it_should(trailing: str, tmp_path: Path) -> None:
    job_dir = f"{tmp_path}{trailing}"
    from dataclasses import replace

    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$DISPATCH_RUN_KEY" "$@"\n')
    python.chmod(0o755)
    job = replace(planned(LOCAL), job_dir=job_dir, python=str(python))
    code = Path(job.run_dir) / "code"
    code.mkdir(parents=True)
    (code / "results.json").write_text('{"forged": 1}')
    (Path(job.run_dir) / "env").write_text(job.environment({}))
    script = Path(job.run_dir) / "job.sbatch"
    script.write_text(job.local_job().script)
    done = subprocess.run(["/bin/sh", str(script)], capture_output=True, text=True, check=True)
    where, key, isolated, program, verb, described = done.stdout.splitlines()
    assert (where, key, isolated, verb) == (str(code), job.run_key, "-I", "run")
    assert Path(program).name == "nemorun.py"
    assert described == f"{job.run_dir}/configs/job.json"
    assert not (code / "results.json").exists()


def test_a_second_job_of_the_same_run_ends_before_it_begins(tmp_path: Path) -> None:
    """The ledger's lock keeps it from being submitted; this is for an sbatch that hung somewhere and got through in the end."""
    job = planned(slurm(), job_dir=str(tmp_path))
    (tmp_path / "runs" / job.run_key).mkdir(parents=True)
    lines = job.for_compiler()["setup_lines"]
    assert isinstance(lines, list)
    guard = "\n".join([*lines[: next(i for i, line in enumerate(lines) if "started" in line) + 1], "echo goes on"])

    def started(job_id: str) -> tuple[int, str]:
        done = subprocess.run(["bash", "-c", guard], env={"SLURM_JOB_ID": job_id, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
        return done.returncode, done.stdout

    assert started("41") == (0, "goes on\n")
    assert started("42") == (1, "Another job of this run has started.\n")
    assert started("41") == (0, "goes on\n"), "Slurm has started the same job again"
