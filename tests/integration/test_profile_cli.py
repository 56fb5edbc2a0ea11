"""`profile` as it is typed: flags, exit statuses, one JSON object."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from dispatcher.cli import main
from dispatcher.errors import Exit

POLICY = "recipes: { default: { script: train.py, nodes: 3 } }\n"
ENV_TOML = """\
# Clusters.
[base]
executor = "slurm"
account = "ml"
host = "h"
user = "u"
remote_job_dir = "/j"

[big]
extends = "base"
nodes = 16  # all of them
"""


@pytest.fixture(autouse=True)
def _checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("GITHUB_", "DISPATCH_", "SSH_", "RUNNER_", "NEMOTRON_")):
            monkeypatch.delenv(name)
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github/dispatch.yml").write_text(POLICY)
    (tmp_path / "env.toml").write_text(ENV_TOML)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "words", [["profile", "show", "big", "--json"], ["profile", "--json", "show", "big", "recipe=default", "--origin"]]
)
def test_show_as_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == Exit.OK
    told = json.loads(capsys.readouterr().out)["result"]
    nodes = next(row for row in told["fields"] if row["key"] == "nodes")
    assert (nodes["value"], nodes["from"]) == ((3, "recipe") if "recipe=default" in words else (16, "profile"))


def test_show_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "show", "big", "run.nodes=2", "--origin"]) == Exit.OK
    shown = capsys.readouterr().out
    assert "→ the override run.nodes=2" in shown
    assert "→ env.toml:4 (base)" in shown


@pytest.mark.parametrize(("words", "status"), [(["bgi"], Exit.CONFIG), (["big", "run.nods=1"], Exit.MALFORMED)])
def test_show_refuses(words: list[str], status: Exit) -> None:
    assert main(["profile", "show", *words]) == status


def test_another_file_of_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "env.toml").rename(tmp_path / "env.slurm.toml")
    assert main(["profile", "show", "big"]) == Exit.CONFIG
    monkeypatch.setenv("NEMOTRON_ENV_FILE", "env.slurm.toml")
    assert main(["profile", "show", "big"]) == Exit.OK
    monkeypatch.setenv("NEMOTRON_ENV_FILE", "../env.slurm.toml")
    assert main(["profile", "show", "big"]) == Exit.CONFIG
    assert "NEMOTRON_ENV_FILE" in capsys.readouterr().err
