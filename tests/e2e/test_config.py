"""A recipe with a configuration, with real git, Slurm and NeMo-Run: what the script reads, in a container and without one, and here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.test_terminal import LOCAL, NO_GITHUB
from tests.github_server import GitHubServer
from tests.here import run_here
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import POLICY, Stage

# What runs is this environment's Python: the script reads its file as Nemotron's recipes do.
RECIPE = "default: { script: train.py, entrypoint: python3, results: results.json }"
OPEN = f"default: {{ script: train.py, entrypoint: {sys.executable}, results: results.json, config: conf/default.yaml, RUNSPEC }}"
SCRIPT = """\
import json, os, sys
from omegaconf import OmegaConf
OmegaConf.register_new_resolver("art", lambda name, field: f"/artifacts/{config.run[name]}/{field}")
assert sys.argv[1] == "--config" and sys.argv[2] == os.environ["DISPATCH_CONFIG"] and len(sys.argv) == 3, sys.argv
config = OmegaConf.load(sys.argv[2])
told = {key: str(config.train[key]) for key in config.train}
told["here"] = "yes" if os.path.samefile(config.here, os.getcwd()) else "no"
told["pwned"] = "yes" if os.path.exists("pwned") else "no"
told["library"] = open("/opt/library/version").read() if os.path.exists("/opt/library") else "none"
json.dump(told, open(os.environ["DISPATCH_RESULTS"], "w"))
"""
BASE = """\
run:
  data: blend
  env: { account: other, env_vars: { MY_WORD: 'a b' } }
train:
  lr: 1.0e-4
  iters: 100
  note: none
  word: ${oc.env:MY_WORD,unset}
  path: ${art:data,path}
  project: ${run.wandb.project}
  # This runs where the job runs: the runner's variables are not read.
  token: ${oc.env:GITHUB_TOKEN,none}
here: ${oc.env:PWD}
"""
TINY = "defaults: default\ntrain: { iters: 10, twice: '${train.iters}' }\n"
NOTE = "it's $(touch pwned)"
EXPECTED = {"lr": "0.0001", "iters": 7, "twice": 7, "note": NOTE, "word": "a b", "path": "/artifacts/blend/path"}
EXPECTED |= {"project": "pre", "token": "none", "here": "yes", "pwned": "no"}


def stage_with(
    github: GitHubServer, sshd: Sshd, folder: Path, more: str = "", repositories: str = "[]", recipe: str = OPEN, script: str = SCRIPT
) -> Stage:
    assert RECIPE in POLICY
    policy = (
        POLICY.replace(RECIPE, recipe.replace("RUNSPEC", "runspec: [env.MY_*, mounts, cmd, config]")) + f"repositories: {repositories}\n"
    )
    files = {"conf/default.yaml": BASE, "conf/tiny.yaml": TINY, "train.py": script}
    made = Stage(github, sshd, folder, policy=policy, extra=files)
    made.repo.commit("main", {"profiles/cluster.yaml": made.profile + "wandb: { project: pre }\n" + more})
    made.repo.commit("feature", {**files, "train.py": script + "# changed\n"})
    return made


def results(told: dict[str, Any]) -> dict[str, Any]:
    """Numbers are numbers, however they were written."""
    return {key: int(value) if str(value).isdigit() else value for key, value in told.items() if key != "library"}


def ended(stage: Stage, slurm: SlurmRig, body: str) -> tuple[dict[str, Any], Path]:
    """What the job left, and its folder."""
    asked = stage.comment(body)
    assert asked.code == 0, asked
    folder = stage.job_dir / "runs" / asked.outputs["run-key"]
    slurm.wait_for_state(asked.outputs["job-id"], "COMPLETED", "FAILED")
    log = "".join(file.read_text() for file in (folder / "logs").iterdir())
    assert (folder / "code" / "results.json").exists(), log
    return json.loads((folder / "code" / "results.json").read_text()), folder


@pytest.mark.slurm
def test_the_script_reads_what_was_merged(github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path) -> None:
    stage = stage_with(github, cluster_sshd, tmp_path)
    shown = stage.comment(f'/train plan -c tiny train.iters=7 train.note="{NOTE}"')
    assert shown.code == 0, shown
    assert "`conf/tiny.yaml` over `conf/default.yaml`" in stage.answers[-1]
    assert "iters: 7" in stage.answers[-1]
    told, folder = ended(stage, slurm, f'/train -c tiny train.iters=7 train.note="{NOTE}"')
    assert results(told) == EXPECTED
    train, job = (yaml.safe_load((folder / "configs" / name).read_text()) for name in ("train.yaml", "job.yaml"))
    assert (train["here"], train["train"]["twice"]) == (str(folder / "code"), "${train.iters}")
    assert (job["run"]["cli"]["config"], job["run"]["source"]["sha"]) == ("tiny", stage.pull.head_sha)
    assert job["run"]["env"]["account"] == "ml"


@pytest.mark.slurm
def test_in_a_container_with_a_repository_at_its_commit(github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path) -> None:
    source, url = tmp_path / "library", "https://git.example.com/org/library.git"
    source.mkdir()
    (source / "version").write_text("1.2")
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    for arguments in (("init", "-q"), ("add", "-A"), (*author, "commit", "-q", "-m", "x")):
        subprocess.run(["git", "-C", str(source), *arguments], check=True)
    sha = subprocess.run(["git", "-C", str(source), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    mirror = f"GIT_CONFIG_COUNT: 1, GIT_CONFIG_KEY_0: 'url.file://{source}.insteadOf', GIT_CONFIG_VALUE_0: '{url}'"
    more = f"container_image: example.com/image:1\nenv_vars: {{ {mirror} }}\n"
    # Here the script's own block says how it is started, and where its configurations lie.
    block = ("run]", f'cmd = "{sys.executable} -u {{script}} --config {{config}}"', "config]", 'dir = "./conf"')
    script = (
        "# /// script\n" + "".join(f"# [tool.runspec.{line}\n" if "]" in line else f"# {line}\n" for line in block) + "# ///\n" + SCRIPT
    )
    recipe = "default: { script: train.py, results: results.json, RUNSPEC }"
    stage = stage_with(github, cluster_sshd, tmp_path, more, "['https://git.example.com/org/*']", recipe, script)
    mounted = BASE.replace("account: other,", f"mounts: ['${{auto_mount:git+{url}@{sha},/opt/library}}'],")
    stage.repo.commit("feature", {"conf/default.yaml": mounted})
    told, folder = ended(stage, slurm, f'/train -c tiny train.iters=7 train.note="{NOTE}"')
    assert (results(told), told["library"]) == (EXPECTED, "1.2")
    assert yaml.safe_load((folder / "configs" / "train.yaml").read_text())["here"] == "/nemo_run/code"
    assert os.listdir(stage.job_dir / "repositories") == [sha]


def test_on_this_machine(github: GitHubServer, sshd: Sshd, tmp_path: Path) -> None:
    stage = stage_with(github, sshd, tmp_path)
    folder = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", "-b", "feature", str(stage.repo.git_dir), str(folder)], check=True, capture_output=True)
    (folder / "profiles" / "local.yaml").write_text(LOCAL + "wandb: { project: pre }\n")
    away = {"DISPATCH_SSH_KEY": "", "DISPATCH_SSH_KNOWN_HOSTS": "", "DISPATCH_STATE_DIR": str(tmp_path / "state")}
    words = ("-c", "tiny", "train.iters=7", f"train.note={NOTE}")
    shown = run_here(stage, "plan", "profile=local", *words, folder=folder, **{**NO_GITHUB, "USER": "carol", **away})
    assert "conf/tiny.yaml" in shown.stdout
    ran = run_here(stage, "submit", "profile=local", *words, "--json", folder=folder, **{**NO_GITHUB, "USER": "carol", **away})
    assert ran.code == 0, ran
    assert results(json.loads(ran.stdout)["result"]) == EXPECTED
