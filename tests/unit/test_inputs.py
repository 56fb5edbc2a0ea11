"""The environment and the event file → typed values: an empty value is none, a broken one says what is wrong, and secrets stay hidden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dispatcher.action import INPUTS
from dispatcher.errors import InputError
from dispatcher.event import MergeGroupEvent, OtherEvent, ScheduleEvent
from dispatcher.glance import glance
from dispatcher.inputs import MAX_EVENT_BYTES, read_event, read_inputs

GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_EVENT_NAME": "issue_comment",
    "GITHUB_EVENT_PATH": "/event.json",
    "GITHUB_REPOSITORY": "org/repo",
    "GITHUB_SHA": "a" * 40,
    "GITHUB_RUN_ID": "101",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_WORKSPACE": "/work",
    "GITHUB_OUTPUT": "/out",
    "GITHUB_STEP_SUMMARY": "/summary",
    "GITHUB_API_URL": "https://ghe.example.com/api/v3",
    "GITHUB_SERVER_URL": "https://ghe.example.com",
    "GITHUB_TOKEN": "ghs_token",
}


@pytest.mark.parametrize(("attempt", "by"), [("1", ""), ("2", "carol"), ("17", "carol")])
def test_who_had_it_run_again_is_nobody_on_the_first_attempt(attempt: str, by: str) -> None:
    github = read_inputs({**GITHUB, "GITHUB_RUN_ATTEMPT": attempt, "GITHUB_TRIGGERING_ACTOR": "carol"}).github
    assert github.rerun_by == by


def test_what_github_sets() -> None:
    github = read_inputs(GITHUB).github
    assert (github.event_name, github.event_path, github.repository, github.sha) == ("issue_comment", "/event.json", "org/repo", "a" * 40)
    assert (github.run_id, github.run_attempt, github.workspace) == ("101", "2", "/work")
    assert (github.output_file, github.summary_file, github.in_actions) == ("/out", "/summary", True)
    assert (github.api_url, github.server_url, github.token) == ("https://ghe.example.com/api/v3", "https://ghe.example.com", "ghs_token")
    assert github.run_url == "https://ghe.example.com/org/repo/actions/runs/101"
    assert github.identity == "github-actions[bot]"


def test_where_nothing_is_set() -> None:
    inputs = read_inputs({})
    assert (inputs.github.api_url, inputs.github.server_url, inputs.github.run_url) == (
        "https://api.github.com",
        "https://github.com",
        None,
    )
    assert (inputs.github.in_actions, inputs.github.token, inputs.github.run_attempt) == (False, "", "1")
    assert (inputs.word, inputs.wait, inputs.git_url) == ("/train", None, None)
    assert (inputs.ssh.key, inputs.ssh.passphrase, inputs.ssh.certificate, inputs.ssh.known_hosts, inputs.ssh.agent_socket) == (
        None, None, None, "", None,
    )  # fmt: skip
    assert inputs.to_hide == ()


@pytest.mark.parametrize("variable", sorted({item.variable for item in INPUTS} | set(GITHUB)))
def test_an_empty_value_is_the_same_as_none(variable: str) -> None:
    assert read_inputs({variable: ""}) == read_inputs({})


@pytest.mark.parametrize("item", [item for item in INPUTS if item.variable != "DISPATCH_MODE"], ids=lambda item: item.name)
def test_every_input_of_the_action_is_read(item: object) -> None:
    variable = getattr(item, "variable", "")
    given = read_inputs({variable: "true"})
    found = (given.github, given.ssh, given.word, given.wait, given.extras_word)
    logs = (given.log_folder, given.log_artifact, given.log_retention_word)
    assert (found, logs) != ((read_inputs({}).github, read_inputs({}).ssh, "/train", None, ""), ("", False, ""))


@pytest.mark.parametrize(("text", "days"), [("", None), ("1", 1), ("090", 90), (" 400 ", 400)])
def test_for_how_long_logs_are_kept(text: str, days: int | None) -> None:
    assert read_inputs({"DISPATCH_LOG_RETENTION_DAYS": text}).log_retention_days == days


@pytest.mark.parametrize("text", ["0", "401", "-1", "1.5", "a month", "１２", "9" * 5000, "30\n31"])
def test_what_is_no_number_of_days(text: str) -> None:
    with pytest.raises(InputError) as caught:
        _ = read_inputs({"DISPATCH_LOG_RETENTION_DAYS": text}).log_retention_days
    assert caught.value.code == "input.retention"
    assert "from 1 to 400" in caught.value.cause
    assert len(caught.value.cause) < 200


def test_an_app_speaks_under_its_own_name() -> None:
    assert read_inputs({"DISPATCH_APP_SLUG": "my-app"}).github.identity == "my-app[bot]"
    assert read_inputs({"DISPATCH_APP_SLUG": "my-app", "DISPATCH_IDENTITY": "somebody"}).github.identity == "somebody"


@pytest.mark.parametrize(
    ("given", "speaks"),
    [
        ({}, False),
        ({"GITHUB_TOKEN": "ghs_x"}, True),
        ({"DISPATCH_APP_ID": "1", "DISPATCH_APP_PRIVATE_KEY": "x"}, True),
        # Half an App is a mistake that must be told, not a reason to be silent.
        ({"DISPATCH_APP_ID": "1"}, True),
    ],
)
def test_whether_there_is_anything_to_speak_to_github_with(given: dict[str, str], speaks: bool) -> None:
    assert read_inputs(given).github.speaks is speaks


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("True", True),
        ("1", True),
        ("yes", True),
        ("false", False),
        ("FALSE", False),
        ("0", False),
        ("no", False),
        ("", None),
    ],
)
def test_flags(text: str, value: bool | None) -> None:
    assert read_inputs({"DISPATCH_WAIT": text}).wait is value


@pytest.mark.parametrize("text", ["maybe", " true", "2", "on"])
def test_a_flag_that_is_none(text: str) -> None:
    inputs = read_inputs({"DISPATCH_WAIT": text})
    with pytest.raises(InputError) as refused:
        print(inputs.wait)
    assert refused.value.code == "input.flag"
    assert "DISPATCH_WAIT" in refused.value.cause


@pytest.mark.parametrize(("text", "extras"), [("", ()), ("kubeflow", ("kubeflow",)), (" kubeflow,\nkubeflow ,", ("kubeflow",)), (",", ())])
def test_extras(text: str, extras: tuple[str, ...]) -> None:
    assert read_inputs({"DISPATCH_EXTRAS": text}).extras == extras


@pytest.mark.parametrize("text", ["kubeflo", "kubeflow,../x", "dev", "kubeflow;rm"])
def test_an_extra_that_does_not_exist(text: str) -> None:
    with pytest.raises(InputError, match="there are kubeflow") as raised:
        _ = read_inputs({"DISPATCH_EXTRAS": text}).extras
    assert raised.value.code == "input.extras"


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({"HOME": "/home/me"}, "/home/me/.local/state/nemotron-dispatch"),
        ({"HOME": "/home/me", "XDG_STATE_HOME": "/state"}, "/state/nemotron-dispatch"),
        ({"DISPATCH_STATE_DIR": "/mine", "XDG_STATE_HOME": "/state"}, "/mine"),
    ],
)
def test_where_local_runs_are_kept(given: dict[str, str], folder: str) -> None:
    assert read_inputs(given).state_dir == folder


SECRETS = {
    "GITHUB_TOKEN": "value-1",
    "DISPATCH_SSH_KEY": "value-2",
    "DISPATCH_SSH_PASSPHRASE": "value-3",
    "DISPATCH_APP_PRIVATE_KEY": "value-9",
    "SIGNING_PRIVATE_KEY": "value-10",
    "WANDB_API_KEY": "value-4",
    "HF_TOKEN": "value-5",
    "MY_PASSWORD": "value-6",
    "aws_secret_access_key": "value-7",
    "DB_CREDENTIALS": "value-8",
}


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_what_sounds_like_a_secret_is_hidden(name: str) -> None:
    inputs = read_inputs({name: SECRETS[name], "PATH": "/bin"})
    assert SECRETS[name] in inputs.to_hide
    assert "/bin" not in inputs.to_hide


def test_nothing_of_a_secret_stands_in_a_traceback() -> None:
    assert "value-" not in repr(read_inputs(SECRETS))


def test_only_secrets_that_are_asked_for_and_set() -> None:
    assert read_inputs(SECRETS).secrets(("HF_TOKEN", "WANDB_MISSING")) == {"HF_TOKEN": "value-5"}


# --------------------------------------------------------------------------- the event file


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "does not hold a JSON object"),
        (b'"x"', "does not hold a JSON object"),
        (b"null", "does not hold a JSON object"),
    ],
)
def test_an_event_file_that_is_none(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "event.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=words) as refused:
        read_event(str(file))
    assert refused.value.code == "input.event-file"


def test_other_event_files(tmp_path: Path) -> None:
    big = tmp_path / "big.json"
    with big.open("wb") as file:
        file.truncate(MAX_EVENT_BYTES + 1)
    for path, words in ((str(big), "larger than"), ("", "is not set"), (str(tmp_path), "cannot be read")):
        with pytest.raises(InputError, match=words):
            read_event(path)


# --------------------------------------------------------------------------- a glance


def event_file(tmp_path: Path, payload: object) -> str:
    file = tmp_path / "event.json"
    file.write_text(json.dumps(payload))
    return str(file)


def test_a_schedule_learns_its_repository_from_the_environment(tmp_path: Path) -> None:
    inputs = read_inputs({**GITHUB, "GITHUB_EVENT_NAME": "schedule", "GITHUB_EVENT_PATH": event_file(tmp_path, {"schedule": "0 3 * * *"})})
    event, _ = glance(inputs)
    assert event == ScheduleEvent("org/repo", "0 3 * * *", "101", "a" * 40)


def test_another_repositorys_event_is_refused(tmp_path: Path) -> None:
    payload = {
        "action": "checks_requested",
        "repository": {"full_name": "other/repo", "default_branch": "main"},
        "merge_group": {"head_sha": "a" * 40, "base_sha": "b" * 40, "head_ref": "q", "base_ref": "main"},
    }
    path = event_file(tmp_path, payload)
    with pytest.raises(InputError, match="other/repo") as refused:
        glance(read_inputs(GITHUB), "merge_group", path)
    assert refused.value.code == "input.event"
    event, _ = glance(read_inputs({**GITHUB, "GITHUB_REPOSITORY": "Other/Repo"}), "merge_group", path)
    assert isinstance(event, MergeGroupEvent)


def test_what_is_given_wins_over_the_environment(tmp_path: Path) -> None:
    event, _ = glance(read_inputs(GITHUB), "push", event_file(tmp_path, {"action": "x"}))
    assert event == OtherEvent("push", "x")
