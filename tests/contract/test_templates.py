"""The templates that `init` fills: the examples are made from them, and every choice passes all linters."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dispatcher.action import INPUTS
from dispatcher.workflows import WAYS, Choices, examples, parse_action, workflows

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.prefix) / "bin"
ACTION = parse_action("org/nemotron-dispatch@0123456789abcdef0123456789abcdef01234567 # v1.2.3")


def every_choice() -> list[Choices]:
    """All ways, each alone; each with every other choice."""
    return [
        Choices(frozenset(ways), gate, ended, ACTION, app=app, ssh=ssh, ssh_variable=variable, cron="0 3 * * *")
        for ways in [WAYS, *((way,) for way in WAYS)]
        for ssh in (True, False)
        for gate in (("no", "check", "job") if ssh else ("no",))
        for ended, variable in (((True, False), (False, True)) if ssh else ((False, False),))
        for app in (True, False)
    ]


def test_the_examples_are_what_the_templates_say() -> None:
    folder = ROOT / "docs" / "examples"
    assert {file.name: file.read_text() for file in folder.glob("*.yml")} == examples(), "run `python -m dispatcher.docs`"


def test_the_docs_command_brings_the_examples_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "docs" / "examples").mkdir(parents=True)
    (tmp_path / "docs" / "examples" / "watch.yml").write_text("old\n")
    command = [sys.executable, "-m", "dispatcher.docs", str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {file.name: file.read_text() for file in (tmp_path / "docs" / "examples").iterdir()} == examples()
    assert len(told.stdout.splitlines()) == 3
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""


def test_every_input_that_is_written_exists() -> None:
    known = set(yaml.safe_load((ROOT / "action.yml").read_text())["inputs"])
    assert known == {given.name for given in INPUTS}
    for wanted in every_choice():
        for text in workflows(wanted).values():
            [job] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["jobs"].values()
            assert set(job["steps"][0].get("with", {})) <= known


@pytest.mark.parametrize(
    "linter",
    [
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
        ["actionlint", "-shellcheck=", "-pyflakes="],
        ["zizmor", "--offline", "--no-progress", "--persona=auditor", "--no-config"],
    ],
    ids=lambda linter: linter[0],
)
def test_every_choice_passes_the_linters(linter: list[str], tmp_path: Path) -> None:
    """With at most one ignore in a file, which says why."""
    files: list[str] = []
    for number, wanted in enumerate(every_choice()):
        for name, text in workflows(wanted).items():
            file = tmp_path / f"{number:03d}-{name}"
            file.write_text(text)
            files.append(str(file))
            ignores = [line for line in text.splitlines() if "zizmor:" in line]
            assert len(ignores) <= 1
            assert all("# zizmor: ignore[dangerous-triggers] - " in line for line in ignores)
    assert len(files) > 100
    checked = subprocess.run([str(TOOLS / linter[0]), *linter[1:], *files], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_no_linter_is_asked_to_look_away_where_nothing_is_dangerous() -> None:
    for way, app in itertools.product(("manual", "schedule", "api", "merge-queue"), (True, False)):
        wanted = Choices(frozenset([way]), "no", False, ACTION, app=app, cron="0 3 * * *")
        assert not any("zizmor" in text for text in workflows(wanted).values())
