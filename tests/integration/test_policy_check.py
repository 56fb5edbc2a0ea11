"""`policy check` as it is typed: flags before and behind the comment, exit statuses, one JSON object."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from dispatcher.cli import main
from dispatcher.errors import Exit

POLICY = """\
default_profile: cluster
recipes: { default: { script: train.py } }
profiles:
  cluster: { allow: { roles: [write] }, limits: { nodes: 2 } }
"""
PROFILE = "executor: slurm\naccount: ml\nhost: h\nuser: u\nremote_job_dir: /j\n"


@pytest.fixture(autouse=True)
def _checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("GITHUB_", "DISPATCH_", "SSH_", "RUNNER_")):
            monkeypatch.delenv(name)
    (tmp_path / ".github").mkdir()
    (tmp_path / "profiles").mkdir()
    (tmp_path / ".github/dispatch.yml").write_text(POLICY)
    (tmp_path / "profiles/cluster.yaml").write_text(PROFILE)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        ([], Exit.OK, "healthy"),
        (["--actor", "bob", "--role", "write", "/train"], Exit.OK, "allowed"),
        (["/train", "--actor", "bob", "--role", "write"], Exit.OK, "allowed"),
        (["--actor", "bob", "/train", "--role", "write", "--draft"], Exit.OK, "allowed"),
        (["--actor", "bob", "--role", "write", "--closed", "/train"], Exit.DENIED, "pull-closed"),
        (["--role", "write", "--fork", "/train"], Exit.DENIED, "fork-off"),
        (["--role", "write", "--pr", "12", "/train run.nodes=3"], Exit.DENIED, "override-not-allowed"),
        (["/train"], Exit.DENIED, "not-a-collaborator"),
        (["--team", "org/ml", "--team", "org/x", "/train"], Exit.DENIED, "not-a-collaborator"),
        (["--role", "write", "/train profile=clutser"], Exit.CONFIG, "unknown-profile"),
        (["--role", "write", "/train statsu"], Exit.MALFORMED, "unknown-word"),
        (["--role", "write", "train"], Exit.MALFORMED, "not-a-command"),
    ],
)
def test_statuses(words: list[str], status: Exit, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", *words, "--json"]) == status
    told = json.loads(capsys.readouterr().out)
    assert told["reason-code"] == reason
    assert told["result"]


@pytest.mark.parametrize("words", [["policy", "--json", "check"], ["policy", "check", "--json"]])
def test_json_is_one_object_wherever_it_is_asked_for(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == Exit.OK
    assert json.loads(capsys.readouterr().out)["result"]["problems"] == 0


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "check", "--actor", "bob", "--role", "read", "/train"]) == Exit.DENIED
    shown = capsys.readouterr().out
    assert "✗ who" in shown
    assert "profiles.cluster.allow · .github/dispatch.yml:4" in shown
    assert "denied: role-too-low" in shown


def test_a_policy_that_cannot_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / ".github/dispatch.yml").write_text("alow: {}\n")
    assert main(["policy", "check"]) == Exit.CONFIG
    assert ".github/dispatch.yml:1" in capsys.readouterr().err


def test_its_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["policy", "check", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "Nothing is\nsubmitted" in text or "Nothing is submitted" in text
    assert "nemotron-dispatch policy check --actor bob --role write '/train profile=cluster'" in text


@pytest.mark.parametrize(
    ("text", "mark", "status"),
    [
        ("defaults: base\na: 1\n", "✓ config      `default`: `conf/a.yaml`, over `conf/base.yaml`", Exit.OK),
        ("a: [\n", "✗ config      `default`: `conf/a.yaml:", Exit.CONFIG),
        # A pull request may bring it along.
        (None, "! config      `default`: There is no configuration `a.yaml` in `conf`", Exit.OK),
    ],
)
def test_configurations_are_looked_at(
    text: str | None, mark: str, status: Exit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".github/dispatch.yml").write_text(POLICY.replace("train.py }", "train.py, config: conf/a.yaml }"))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/base.yaml").write_text("b: 1\n")
    if text is not None:
        (tmp_path / "conf/a.yaml").write_text(text)
    assert main(["policy", "check"]) == status
    assert mark in capsys.readouterr().out
