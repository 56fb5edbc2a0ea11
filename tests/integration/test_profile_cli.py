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


LOCAL = '[here]\nexecutor = "local"\n'


def test_another_file_of_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`NEMOTRON_ENV_FILE`: from the current folder, from the checkout's, by a whole path, from home; and what is none."""
    (tmp_path / "env.toml").rename(tmp_path / "env.slurm.toml")
    (tmp_path / "sub").mkdir()
    outside = tmp_path.parent / f"{tmp_path.name}-home"
    outside.mkdir()
    (outside / "mine.toml").write_text(LOCAL)
    assert main(["profile", "show", "big"]) == Exit.CONFIG
    monkeypatch.setenv("HOME", str(outside))
    for folder, named, profile in (
        (".", "env.slurm.toml", "big"),
        ("sub", "env.slurm.toml", "big"),
        ("sub", "../env.slurm.toml", "big"),
        (".", str(tmp_path / "env.slurm.toml"), "big"),
        (".", str(outside / "mine.toml"), "here"),
        (".", "~/mine.toml", "here"),
    ):
        monkeypatch.chdir(tmp_path / folder)
        monkeypatch.setenv("NEMOTRON_ENV_FILE", named)
        assert main(["profile", "show", profile]) == Exit.OK, named
    shown = capsys.readouterr().out
    assert "big: slurm, based on base (env.slurm.toml)" in shown
    assert f"here: local ({outside}/mine.toml)" in shown
    for named in ("nothing.toml", "sub", ".github/dispatch.yml"):
        monkeypatch.setenv("NEMOTRON_ENV_FILE", named)
        assert main(["profile", "show", "big"]) == Exit.CONFIG
        assert f"`NEMOTRON_ENV_FILE` is `{named}`, which is no `.toml` file" in capsys.readouterr().err


def test_the_nearest_file_of_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Up to the folder with pyproject.toml, as Nemotron looks for it; then at the checkout's top."""
    project = tmp_path / "projects" / "one"
    (project / "src").mkdir(parents=True)
    monkeypatch.chdir(project / "src")
    assert main(["profile", "show", "big"]) == Exit.OK, "that of the checkout"
    (tmp_path / "projects" / "env.toml").write_text(LOCAL)
    assert [main(["profile", "show", name]) for name in ("here", "big")] == [Exit.OK, Exit.CONFIG]
    (project / "pyproject.toml").write_text("")
    assert [main(["profile", "show", name]) for name in ("here", "big")] == [Exit.CONFIG, Exit.OK]
    (project / "env.toml").write_text(LOCAL)
    assert main(["profile", "show", "here"]) == Exit.OK
    monkeypatch.chdir(tmp_path)
    assert main(["profile", "show", "here", "--repo", "projects/one/src"]) == Exit.OK


# --------------------------------------------------------------------------- convert


def test_convert_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "convert", "--check"]) == Exit.OK
    assert not (tmp_path / "profiles").exists()
    assert main(["profile", "convert"]) == Exit.OK
    assert (tmp_path / "profiles/big.yaml").read_text() == "extends: base\nnodes: 16  # all of them\n"
    assert (tmp_path / "profiles/base.yaml").read_text().startswith("# Clusters.\n\nexecutor: slurm\n")
    assert main(["profile", "convert"]) == Exit.OK
    assert "profiles/big.yaml: is so already" in capsys.readouterr().out
    (tmp_path / "env.toml").unlink()
    assert main(["profile", "convert", "--json"]) == Exit.OK
    told = json.loads(capsys.readouterr().out)["result"]
    assert (told["to"], told["profiles"], told["files"]) == ("toml", ["base", "big"], {"env.toml": "new"})
    assert (tmp_path / "env.toml").read_text() == ENV_TOML.replace("16  #", "16 #")


def test_nothing_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/big.yaml").write_text("executor: local\n")
    assert main(["profile", "convert", "--check"]) == Exit.CONFIG
    assert "profiles/big.yaml: is there already, and different" in capsys.readouterr().out
    assert main(["profile", "convert"]) == Exit.USAGE
    assert (tmp_path / "profiles/big.yaml").read_text() == "executor: local\n"
    assert not (tmp_path / "profiles/base.yaml").exists()
    assert main(["profile", "convert", "--out", str(tmp_path / "elsewhere")]) == Exit.OK
    assert sorted(file.name for file in (tmp_path / "elsewhere/profiles").iterdir()) == ["base.yaml", "big.yaml"]
    assert main(["profile", "convert", "--to", "toml"]) == Exit.USAGE, "env.toml is there, and different"


def test_what_cannot_be_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/mine.yaml").write_text("extends: base\n")
    assert main(["profile", "convert", "--to", "toml", "--out", str(tmp_path / "x")]) == Exit.CONFIG
    assert "`mine`" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert main(["profile", "convert", "nothing.toml"]) == Exit.USAGE
    assert main(["profile", "convert", "profiles/mine.yaml"]) == Exit.USAGE
    assert main(["profile", "convert", "env.toml", "--to", "toml"]) == Exit.USAGE


def test_a_section_may_extend_a_file_that_stays(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/root.yaml").write_text("executor: local\n")
    (tmp_path / "other.toml").write_text("[child]\nextends = 'root'\ntime = 10\n")
    assert main(["profile", "convert", "other.toml"]) == Exit.OK
    assert main(["profile", "show", "child"]) == Exit.OK


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "env.toml").write_text("[cli]\ntheme = 'x'\n[a]\nexecutor = 'local'\nidentity = '~/.ssh/id'\n")
    assert main(["profile", "convert"]) == Exit.OK
    shown = capsys.readouterr().out
    assert "env.toml:1: [cli] is left out: it has no effect" in shown
    assert "env.toml:5: a.identity is left out: it is not read" in shown


# --------------------------------------------------------------------------- import

PROGRAM = """\
import nemo_run as run
open("was-executed", "w")
def slurm(nodes=2):
    tunnel = run.SSHTunnel(host="login.example.com", user="me", job_dir="/jobs")
    return run.SlurmExecutor(account="ml", partition="{x}", nodes=nodes, tunnel=tunnel, launcher="torchrun")
half = run.SlurmExecutor(account=ACCOUNT)
"""


def test_import_writes_profiles_and_executes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "infra.py").write_text(PROGRAM)
    assert main(["profile", "import", "infra.py", "--check"]) == Exit.CONFIG, "`half` has no account"
    shown = capsys.readouterr().out
    assert "account: ml" in shown
    assert "line 6: account: `ACCOUNT` is not set in this file" in shown
    assert "it cannot be used yet: `profiles/slurm.yaml:5`: `partition`" in shown
    assert not (tmp_path / "profiles").exists()
    (tmp_path / "infra.py").write_text(PROGRAM.replace("{x}", "batch"))
    assert main(["profile", "import", "infra.py:slurm", "--as", "mine", "--json"]) == Exit.OK
    told = json.loads(capsys.readouterr().out)["result"]
    assert (told["files"], told["problems"]) == ({"profiles/mine.yaml": "new"}, {})
    assert [left["field"] for left in told["left_out"]] == ["launcher"]
    assert main(["profile", "show", "mine"]) == Exit.OK
    assert "login.example.com" in capsys.readouterr().out
    assert not (tmp_path / "was-executed").exists()


def test_import_replaces_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "infra.py").write_text(PROGRAM)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/slurm.yaml").write_text("executor: local\n")
    assert main(["profile", "import", "infra.py"]) == Exit.USAGE
    assert "profiles/slurm.yaml" in capsys.readouterr().err
    assert not (tmp_path / "profiles/half.yaml").exists()
    assert (tmp_path / "profiles/slurm.yaml").read_text() == "executor: local\n"


@pytest.mark.parametrize(
    ("source", "status"), [("no.py", Exit.USAGE), ("env.toml", Exit.USAGE), ("empty.py", Exit.CONFIG), ("bad.py", Exit.CONFIG)]
)
def test_what_cannot_be_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, status: Exit) -> None:
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "bad.py").write_text("x = (\n")
    assert main(["profile", "import", source]) == status
    assert "Traceback" not in capsys.readouterr().err
