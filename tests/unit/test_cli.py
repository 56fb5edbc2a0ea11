"""The command line itself: help for everything, exit statuses that mean one thing, one JSON object and nothing beside it."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher import __version__
from dispatcher.action import MODES, OUTPUTS
from dispatcher.arguments import STATUSES, parser
from dispatcher.cli import main, plain
from dispatcher.errors import CATALOGUE, Exit
from tests.stage import read_outputs

COMMANDS = (
    "init",
    "policy",
    "profile",
    "doctor",
    "demo",
    "plan",
    "submit",
    "status",
    "logs",
    "history",
    "cancel",
    "handle",
    "watch",
    "gate",
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing of the machine's GitHub or SSH settings, a folder that is no repository, and the signal handler put back."""
    import os

    for name in list(os.environ):
        if name.startswith(("GITHUB_", "DISPATCH_", "SSH_", "RUNNER_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def subcommands() -> dict[str, argparse.ArgumentParser]:
    [found] = [action.choices for action in parser()._actions if action.dest == "command"]
    assert isinstance(found, dict)
    return found


def test_the_commands() -> None:
    assert tuple(subcommands()) == COMMANDS
    assert set(MODES) <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"nemotron-dispatch {command}" in text
    assert "--json" in text
    assert "--debug" in text
    sub = subcommands()[command]
    # Every option and argument says what it is for, and the example can be typed as it stands.
    assert all(action.help for action in sub._actions)
    example = (sub.epilog or "").splitlines()[-1].split()
    assert example[:2] == ["nemotron-dispatch", command]
    parser().parse_args(example[1:])


def test_help_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {command} " in text for command in COMMANDS)
    assert STATUSES in text


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"nemotron-dispatch {__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["handle", "--nonsense"],
        ["logs"],
        ["gate", "x"],
        ["gate", "0"],
        ["logs", "4f1c", "-n", "-3"],
        ["logs", "4f1c", "--task", "-1"],
        ["logs", "4f1c", "--task", "+1"],
        ["policy", "check", "--head", "123"],
        ["policy", "check", "--team", "ml"],
        ["watch", "--interval", "soon"],
        ["submit", "--wait=maybe"],
    ],
)
def test_what_cannot_be_parsed_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == Exit.USAGE
    assert capsys.readouterr().out == ""


def test_a_command_that_is_nearly_right_is_answered_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, right in (("sumbit", "Did you mean `submit`?"), ("polcy", "Did you mean `policy`?"), ("xyz", "There are: init, policy, ")):
        with pytest.raises(SystemExit):
            main([wrong])
        assert f"there is no command `{wrong}`. {right}" in capsys.readouterr().err


def test_exit_statuses_are_unique_and_documented() -> None:
    assert len({item.value for item in Exit}) == len(Exit.__members__)
    assert all(0 <= item.value < 128 or item is Exit.INTERRUPTED for item in Exit)
    assert len(STATUSES.splitlines()) == len(Exit)
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    for item in Exit:
        assert f"| {item.value} |" in page or f"| `{item.value}` |" in page, item
    # An error's exit status is never one that says how a run ended.
    assert not {kind.exit for kind in CATALOGUE.values()} & {Exit.OK, Exit.RUN_FAILED, Exit.PENDING, Exit.INTERRUPTED}


EVENT = {
    "action": "created",
    "repository": {"full_name": "org/repo", "default_branch": "main"},
    "issue": {"number": 7, "state": "open", "pull_request": {}},
    "comment": {"id": 99, "body": "just words", "user": {"login": "alice", "type": "User"}, "created_at": "2024-05-06T14:02:00Z"},
}


def test_a_comment_that_is_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps(EVENT))
    code = main(["handle", "--event", str(event), "--event-name", "issue_comment", "--json"])
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (code, told["decision"], told["reason-code"], told["result"]) == (0, "ignored", "not-a-command", {})
    assert set(told) == {*OUTPUTS, "summary"}
    assert said.err == "Nothing to do: not-a-command.\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["handle"], "input.event-file"),
        (["handle", "--event", "gone.json", "--event-name", "issue_comment"], "input.event-file"),
    ],
)
def test_an_error_is_told_once_everywhere(arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--json"]) == CATALOGUE[code].exit
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["decision"], told["reason-code"]) == ("refused", code)
    assert set(told) == {*OUTPUTS, "summary"}
    assert said.err.startswith(f"{code}: ")
    assert "\nNext: " in said.err
    assert "Traceback" not in said.err


def test_an_error_in_actions_sets_outputs_and_is_an_annotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    assert main(["handle"]) == Exit.USAGE
    told = read_outputs(output)
    assert (told["decision"], told["reason-code"]) == ("refused", "input.event-file")
    assert set(told) == set(OUTPUTS)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("::error title=input.event-file::")
    assert len(said.err.splitlines()) == 1


def test_a_traceback_only_when_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    main(["handle", "--debug"])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("markdown", "words"),
    [
        ("### 🚫 Not started: **no**\n\nBecause.\n\n| | |\n|---|---|\n\n<sub>x</sub>", "🚫 Not started: no\nBecause."),
        ("", ""),
        ("\n".join(f"line {number}" for number in range(9)), "line 0\nline 1\nline 2\nline 3"),
    ],
)
def test_the_first_lines_without_markup(markdown: str, words: str) -> None:
    assert plain(markdown) == words
