"""What a repository wants of its workflows → their texts: triggers, conditions and permissions, for every choice."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import yaml

from dispatcher.event import GATE_ACTIONS
from dispatcher.workflows import EXAMPLE_ACTION, WAYS, ActionRef, Choices, examples, parse_action, parse_cron, render, workflows

SHA = "0123456789abcdef0123456789abcdef01234567"
ACTION = ActionRef("org/nemotron-dispatch", SHA, "v1.2.3")
TRIGGERS = {
    "comments": "issue_comment",
    "labels": "pull_request_target",
    "merge-queue": "merge_group",
    "schedule": "schedule",
    "api": "repository_dispatch",
    "manual": "workflow_dispatch",
}


def choices(*ways: str, **more: Any) -> Choices:
    given: dict[str, Any] = {"gate": "no", "end_with_pull": False, "action": ACTION, "cron": "0 3 * * *", **more}
    return Choices(frozenset(ways), **given)


def load(text: str) -> dict[str, Any]:
    """YAML 1.1 reads the key `on` as true."""
    return {("on" if key is True else key): value for key, value in yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)).items()}


def train(wanted: Choices) -> dict[str, Any]:
    return load(workflows(wanted)["train.yml"])


EVERY = [
    choices(*ways, gate=gate, end_with_pull=ended, app=app, ssh_variable=variable)
    for ways in [WAYS, *((way,) for way in WAYS)]
    for gate in ("no", "check", "job")
    for ended, app, variable in itertools.product((True, False), repeat=3)
]


def test_every_choice_is_a_workflow_with_exactly_its_triggers() -> None:
    for wanted in EVERY:
        written = workflows(wanted)
        assert set(written) == {"train.yml", "watch.yml", *(["gate.yml"] if wanted.gate == "job" else [])}
        for text in written.values():
            assert not re.search(r"@@|^#(if|end)\b", text, re.MULTILINE), text
            workflow = load(text)
            assert workflow["permissions"] == {}
            [job] = workflow["jobs"].values()
            assert job["steps"][0]["uses"] == f"{ACTION.repository}@{SHA}"
            assert f"uses: {ACTION.uses}\n" in text
            given = job["steps"][0]["with"]
            assert ("ssh-known-hosts" in given) == wanted.ssh_variable
            assert ("app-id" in given) == ("app-private-key" in given) == wanted.app == (job["permissions"] == {})
        on = train(wanted)["on"]
        expected = {TRIGGERS[way] for way in wanted.ways}
        expected |= {"pull_request_target"} if wanted.gate != "no" or wanted.end_with_pull else set()
        expected |= {"check_run"} if wanted.app else set()
        assert set(on) == expected


def test_events_of_pull_requests_are_those_that_matter() -> None:
    assert choices("labels").pull_types == ("labeled",)
    assert set(choices("comments", gate="check").pull_types) == GATE_ACTIONS | {"edited"}
    assert choices("comments", end_with_pull=True).pull_types == ("closed", "converted_to_draft")
    assert choices("comments").pull_types == ()
    on = train(choices(*WAYS, gate="check", end_with_pull=True))["on"]
    assert set(on["pull_request_target"]["types"]) == {*GATE_ACTIONS, "edited", "labeled", "closed", "converted_to_draft"}
    assert on["schedule"] == [{"cron": "0 3 * * *"}]
    assert on["repository_dispatch"] == {"types": ["train"]}
    assert train(choices("manual", app=True))["on"]["check_run"] == {"types": ["rerequested", "requested_action"]}


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [
        (choices("manual"), ()),
        (choices("schedule", "merge-queue", "api"), ()),
        (choices("comments"), ("issue.pull_request", "user.type != 'Bot'", "startsWith(github.event.comment.body, '/train')")),
        (choices("labels"), ("startsWith(github.event.label.name, 'train:')",)),
        (choices("manual", gate="check"), ("github.event.changes.base",)),
        (choices("manual", end_with_pull=True), ()),
        (choices("manual", app=True), ("startsWith(github.event.check_run.name, 'dispatch')",)),
    ],
)
def test_the_condition_has_a_rule_for_each_trigger_that_needs_one(wanted: Choices, parts: tuple[str, ...]) -> None:
    job = train(wanted)["jobs"]["train"]
    assert ("if" in job) == bool(parts)
    condition = job.get("if", "")
    assert all(part in condition for part in parts)
    # A rule for each, no more; all of them must hold, and its lines are one expression.
    assert len(wanted.condition) - len([line for line in wanted.condition if line.startswith("startsWith")]) == bool(parts)
    assert "\n" not in condition
    assert condition.count("(") == condition.count(")")


def test_no_delivery_shares_a_group_with_another() -> None:
    """GitHub drops the older of two that wait in one group: a command would be lost."""
    workflow = train(choices("comments"))
    assert workflow["concurrency"] == {"group": "train-${{ github.run_id }}", "cancel-in-progress": False}


def test_runs_of_the_runner_itself_need_no_secret_and_no_watch() -> None:
    written = workflows(choices("comments", ssh=False))
    assert set(written) == {"train.yml"}
    job = load(written["train.yml"])["jobs"]["train"]
    assert "environment" not in job
    assert "with" not in job["steps"][0]
    assert job["timeout-minutes"] > 60
    as_app = load(workflows(choices("comments", ssh=False, app=True))["train.yml"])["jobs"]["train"]
    assert set(as_app["steps"][0]["with"]) == {"app-id", "app-private-key"}
    assert as_app["environment"]["name"] == "cluster"


def test_the_examples_offer_everything_that_a_jobs_own_token_can_do() -> None:
    written = examples()
    assert set(written) == {"train.yml", "watch.yml", "gate.yml"}
    assert set(load(written["train.yml"])["on"]) == set(TRIGGERS.values())
    assert all(f"uses: {EXAMPLE_ACTION.uses}\n" in text for text in written.values())


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        (f"org/name@{SHA}", f"org/name@{SHA}"),
        (f"  org/name@{SHA} # v1.2.3 ", f"org/name@{SHA} # v1.2.3"),
        (f"org/name@{SHA}#v1", f"org/name@{SHA} # v1"),
    ],
)
def test_an_action(text: str, uses: str) -> None:
    assert parse_action(text).uses == uses
    assert parse_action(uses) == parse_action(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "org/name",
        "org/name@v1",
        f"org/name@{SHA[:39]}",
        f"org/name@{SHA.upper()}",
        f"org/name/path@{SHA}",
        f"org/na me@{SHA}",
        f"org/name@{SHA} v1",
        f"org/name@{SHA} # v1\n          with: x",
        f"org/name@{SHA} # ${{{{ secrets.X }}}}",
        f"org/name@{SHA} # v1 # zizmor: ignore",
    ],
)
def test_what_is_no_action(text: str) -> None:
    with pytest.raises(ValueError, match="40 hex digits"):
        parse_action(text)


@pytest.mark.parametrize("text", ["17 3 * * 1-5", "*/10 * * * *", "0 0,12 1 */2 MON-FRI", "  5  4 * *   sun "])
def test_a_cron_expression(text: str) -> None:
    assert parse_cron(text) == " ".join(text.split())


@pytest.mark.parametrize("text", ["", "@daily", "* * * *", "* * * * * *", '0 3 * * *"', "0 3 * * $(x)", "1- * * * *"])
def test_what_is_no_cron_expression(text: str) -> None:
    with pytest.raises(ValueError, match="cron"):
        parse_cron(text)


def test_a_value_is_never_read_as_a_mark() -> None:
    values = {"docs": "@@time@@", "profile": "p", "time": "#end\n#if x"}
    text = render("profile-local.yaml", (), values)
    assert "@@time@@/profiles.md" in text
    assert '"#end\n' in text
    with pytest.raises(KeyError):
        render("profile-local.yaml", (), {})
