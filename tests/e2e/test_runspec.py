"""A script that speaks for itself, with real git, Slurm and NeMo-Run: what its block asks for, what the job gets, what the gate says."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.test_terminal import LOCAL, NO_GITHUB
from tests.github_server import GitHubServer
from tests.here import run_here
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import POLICY, Stage

RECIPE = "results: results.json }"
OPEN = "results: results.json, runspec: [launch, resources, env.MY_*] }"
SCRIPT = """\
# /// script
# [tool.runspec]
# image = "evil.sqsh"
# setup = "touch pwned"
#
# [tool.runspec.run]
# launch = "direct"
# cmd = "touch pwned"
#
# [tool.runspec.resources]
# nodes = {nodes}
#
# [tool.runspec.env]
# MY_WORD = "it's $(touch pwned)"
# OTHER = "1"
# ///
import json, os
told = {{"nodes": int(os.environ.get("SLURM_JOB_NUM_NODES", 1)), "word": os.environ["MY_WORD"], "other": os.environ.get("OTHER", "none")}}
told["pwned"] = "yes" if os.path.exists("pwned") else "no"
json.dump(told, open("results.json", "w"))
"""


@pytest.fixture
def stage(github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path) -> Stage:
    assert RECIPE in POLICY
    policy = POLICY.replace(RECIPE, OPEN) + "limits: { nodes: 2 }\n"
    made = Stage(github, cluster_sshd, tmp_path, policy=policy, extra={"train.py": SCRIPT.format(nodes=2)})
    made.repo.commit("feature", {"train.py": SCRIPT.format(nodes=2) + "# changed\n"})
    return made


def gate(stage: Stage) -> str | None:
    checks = {check.name: check for check in stage.repo.checks_on(stage.pull.head_sha)}
    return checks["dispatch/gate"].conclusion


def finished(stage: Stage, slurm: SlurmRig, body: str) -> str:
    """The job, at its end and reported; its own comment."""
    ended = stage.comment(body)
    assert ended.code == 0, ended
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED")
    assert stage.run("watch").code == 0
    return stage.answers[-1]


def test_the_job_gets_what_the_script_asks_for(stage: Stage, slurm: SlurmRig) -> None:
    said = finished(stage, slurm, "/train")
    assert "passed" in said
    for words in (r"nodes 2\b", r"word it's \$\(touch pwned\)", "other none", "pwned no"):
        assert re.search(words, said.replace("\\", "").replace("**", "").replace("`", "")), (words, said)
    assert gate(stage) == "success"


def test_a_run_that_the_pull_request_made_easier_does_not_pass_the_gate(stage: Stage, slurm: SlurmRig) -> None:
    stage.repo.commit("feature", {"train.py": SCRIPT.format(nodes=1)})
    assert "passed" in finished(stage, slurm, "/train")
    assert gate(stage) != "success"


@pytest.mark.parametrize(
    ("nodes", "words"), [("3", "3 nodes are too many"), ("1000000000", "less than or equal to 10000"), ("'all'", "whole number")]
)
def test_too_much_is_refused(stage: Stage, nodes: str, words: str) -> None:
    mark = stage.sshd.mark()
    stage.repo.commit("feature", {"train.py": SCRIPT.format(nodes=nodes)})
    ended = stage.comment("/train")
    assert ended.code != 0
    assert words in stage.answers[-1].replace("\\", "")
    assert stage.sshd.connections(mark) == 0


def test_on_this_machine(stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", str(stage.repo.git_dir), str(folder)], check=True, capture_output=True)
    (folder / "profiles" / "local.yaml").write_text(LOCAL)
    away = {"DISPATCH_SSH_KEY": "", "DISPATCH_SSH_KNOWN_HOSTS": "", "DISPATCH_STATE_DIR": str(tmp_path / "state")}
    ended = run_here(stage, "submit", "profile=local", "--json", folder=folder, **{**NO_GITHUB, "USER": "carol", **away})
    assert ended.code == 0, ended
    assert json.loads(ended.stdout)["result"] == {"nodes": 1, "word": "it's $(touch pwned)", "other": "none", "pwned": "no"}
    assert "Not taken from the script: image, run.cmd, env.OTHER." in ended.stderr
