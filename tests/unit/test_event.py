"""Real payloads → events; anything else → one coded error."""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.errors import InputError
from dispatcher.event import (
    CheckEvent,
    ClosedEvent,
    CommentEvent,
    DraftEvent,
    LabelEvent,
    ManualEvent,
    MergeGroupEvent,
    OtherEvent,
    PushEvent,
    ScheduleEvent,
    parse_event,
)

EVENTS = Path(__file__).parents[1] / "data" / "events"
HEAD = "ec26c3e57ca3a959ca5aad62de7213c562f8c821"


def payload(name: str) -> dict[str, Any]:
    return json.loads((EVENTS / name).read_text())


def comment(on_pull: bool = True) -> dict[str, Any]:
    found = payload("issue_comment.created.4.json")
    if on_pull:
        found["issue"]["pull_request"] = {"url": "https://api.github.com/repos/Codertocat/Hello-World/pulls/1"}
    return found


def changed(found: Any, *path: str, to: Any = None, drop: bool = False) -> Any:
    """The payload with one value replaced or taken out."""
    found = copy.deepcopy(found)
    here = found
    for key in path[:-1]:
        here = here[key]
    if drop:
        del here[path[-1]]
    else:
        here[path[-1]] = to
    return found


def test_a_comment_on_a_pull_request() -> None:
    event = parse_event("issue_comment", comment())
    assert isinstance(event, CommentEvent)
    assert (event.repository, event.number, event.comment_id, event.author) == ("Codertocat/Hello-World", 1, 492700400, "Codertocat")
    assert (event.is_pull, event.pull_state, event.author_is_bot, event.action) == (True, "open", False, "created")
    assert event.default_branch == "master"
    assert event.body.startswith("You are totally right!")
    assert event.trigger == "comment:492700400"


def test_a_comment_on_an_issue_is_not_on_a_pull_request() -> None:
    event = parse_event("issue_comment", comment(on_pull=False))
    assert isinstance(event, CommentEvent)
    assert not event.is_pull


@pytest.mark.parametrize(
    ("user", "author", "bot"),
    [
        ({"login": "dependabot[bot]", "type": "Bot"}, "dependabot[bot]", True),
        ({"login": "some-app[bot]", "type": "User"}, "some-app[bot]", True),
        ({"login": "looks-human", "type": "Bot"}, "looks-human", True),
        ({"login": "alice_corp", "type": "User"}, "alice_corp", False),
        (None, "", False),
    ],
)
def test_who_wrote_a_comment(user: Any, author: str, bot: bool) -> None:
    event = parse_event("issue_comment", changed(comment(), "comment", "user", to=user))
    assert isinstance(event, CommentEvent)
    assert (event.author, event.author_is_bot) == (author, bot)


@pytest.mark.parametrize("name", ["pull_request", "pull_request_target"])
def test_a_label(name: str) -> None:
    found = changed(payload("pull_request.labeled.1.json"), "label", "name", to="train:cluster")
    event = parse_event(name, found)
    assert isinstance(event, LabelEvent)
    assert (event.number, event.label, event.head_sha, event.from_fork, event.event_name) == (2, "train:cluster", HEAD, False, name)
    assert (event.sender, event.base_ref, event.head_repository) == ("Codertocat", "master", "Codertocat/Hello-World")
    assert event.trigger == f"label:2:train:cluster:{HEAD}:2019-05-15T15:20:35Z"


@pytest.mark.parametrize(
    ("repo", "fork"), [(None, True), ({"full_name": "mallory/Hello-World"}, True), ({"full_name": "Codertocat/Hello-World"}, False)]
)
def test_a_head_that_is_not_shown_to_be_ours_is_a_fork(repo: Any, fork: bool) -> None:
    event = parse_event("pull_request_target", changed(payload("pull_request.labeled.1.json"), "pull_request", "head", "repo", to=repo))
    assert isinstance(event, LabelEvent)
    assert event.from_fork is fork


def test_a_push_to_a_pull_request() -> None:
    event = parse_event("pull_request", payload("pull_request.synchronize.0.json"))
    assert isinstance(event, PushEvent)
    assert (event.number, event.head_sha, event.base_ref, event.action) == (2, HEAD, "master", "synchronize")


def test_another_base_is_looked_at_again_and_another_title_is_not() -> None:
    edited = changed(payload("pull_request.synchronize.0.json"), "action", to="edited")
    assert isinstance(parse_event("pull_request", {**edited, "changes": {"base": {"ref": {"from": "old"}}}}), PushEvent)
    assert parse_event("pull_request", {**edited, "changes": {"title": {"from": "old"}}}) == OtherEvent("pull_request", "edited")


def test_a_closed_pull_request() -> None:
    event = parse_event("pull_request", payload("pull_request.closed.1.json"))
    assert isinstance(event, ClosedEvent)
    assert (event.number, event.merged) == (2, False)


@pytest.mark.parametrize("name", ["pull_request", "pull_request_target"])
def test_a_pull_request_becomes_a_draft(name: str) -> None:
    event = parse_event(name, changed(payload("pull_request.synchronize.0.json"), "action", to="converted_to_draft"))
    assert event == DraftEvent("Codertocat/Hello-World", 2, HEAD, "master", "Codertocat", "master")
    assert event.trigger == f"draft:2:{HEAD}"


@pytest.mark.parametrize("count", [0, 3, 250])
def test_a_push_tells_the_labels_that_stand_there_now(count: int) -> None:
    labels = [{"name": f"train:{number}", "color": "ededed"} for number in range(count)]
    event = parse_event("pull_request", changed(payload("pull_request.synchronize.0.json"), "pull_request", "labels", to=labels))
    assert isinstance(event, PushEvent)
    assert event.labels == tuple(f"train:{number}" for number in range(min(count, 100)))


def pressed(**fields: Any) -> dict[str, Any]:
    """Somebody pressed a button beside a check."""
    return {**payload("check_run.requested_action.json"), **fields}


def test_a_button_beside_a_check() -> None:
    event = parse_event("check_run", pressed(), "42")
    assert isinstance(event, CheckEvent)
    assert (event.repository, event.number, event.button) == ("electron/electron", 26764, "lgtm|26764")
    assert (event.check_id, event.head_sha, event.app_slug) == (1494503112, "5bd5f196a46b8222fb7484f05faba41a73cf34bd", "electron-cation")
    assert (event.name, event.external_id) == ("API Review", "")
    assert (event.sender, event.default_branch) == ("codebytere", "master")
    assert event.trigger == "check:1494503112:42"


def test_run_it_again_is_a_button_without_a_name() -> None:
    event = parse_event("check_run", pressed(action="rerequested", requested_action={"identifier": "cancel"}), "42")
    assert isinstance(event, CheckEvent)
    assert event.button == ""


@pytest.mark.parametrize(
    ("bases", "number"),
    [([], None), ([9384267], 100), ([1], None), ([1, 9384267, 9384267], 101)],
)
def test_a_check_belongs_to_a_pull_request_of_this_repository_or_to_none(bases: list[int], number: int | None) -> None:
    pulls = [{"number": 100 + place, "base": {"repo": {"id": base}}} for place, base in enumerate(bases)]
    event = parse_event("check_run", changed(pressed(), "check_run", "pull_requests", to=pulls), "42")
    assert isinstance(event, CheckEvent)
    assert event.number == number


@pytest.mark.parametrize("action", ["created", "completed"])
def test_what_else_happens_to_checks_asks_for_nothing(action: str) -> None:
    assert parse_event("check_run", pressed(action=action)) == OtherEvent("check_run", action)


def test_a_merge_group() -> None:
    event = parse_event("merge_group", payload("merge_group.checks_requested.1.json"))
    assert isinstance(event, MergeGroupEvent)
    assert (event.head_sha, event.base_ref) == ("2ffea6db159f6b6c47a24e778fb9ef40cf6b1c7d", "main")
    assert event.trigger == "merge_group:2ffea6db159f6b6c47a24e778fb9ef40cf6b1c7d"


def test_manual_inputs_are_text_and_empty_ones_are_left_out() -> None:
    inputs = {"profile": "cluster", "recipe": "", "ref": None, "dry-run": True, "pr": 7, "overrides": " a=1"}
    event = parse_event("workflow_dispatch", changed(payload("workflow_dispatch.1.json"), "inputs", to=inputs), "42")
    assert isinstance(event, ManualEvent)
    assert event.inputs == {"profile": "cluster", "dry-run": "true", "pr": "7", "overrides": " a=1"}
    assert (event.sender, event.ref, event.default_branch, event.trigger) == ("Codertocat", "refs/heads/master", "master", "manual:42")


def test_a_repository_dispatch_is_a_manual_start_on_the_default_branch() -> None:
    given = {"profile": "cluster", "dry-run": True, "pr": 7, "lr": 0.5, "recipe": None}
    event = parse_event("repository_dispatch", changed(payload("repository_dispatch.1.json"), "client_payload", to=given), "42")
    assert isinstance(event, ManualEvent)
    assert event.inputs == {"profile": "cluster", "dry-run": "true", "pr": "7", "lr": "0.5"}
    assert (event.repository, event.sender, event.ref) == ("octo-org/octo-repo", "Codertocat", "refs/heads/master")
    assert event.trigger == "manual:42"


@pytest.mark.parametrize("branch", [None, "trunk"])
def test_a_repository_dispatch_says_its_branch_or_means_the_default_one(branch: str | None) -> None:
    event = parse_event("repository_dispatch", changed(payload("repository_dispatch.1.json"), "branch", to=branch), "42")
    assert isinstance(event, ManualEvent)
    assert event.ref == f"refs/heads/{branch or event.default_branch}"


def test_no_inputs_at_all_is_fine() -> None:
    event = parse_event("workflow_dispatch", changed(payload("workflow_dispatch.1.json"), "inputs", to=None), "42")
    assert isinstance(event, ManualEvent)
    assert event.inputs == {}


@pytest.mark.parametrize("repository", [{}, {"repository": {"full_name": "o/r", "default_branch": "main"}}])
def test_a_schedule_needs_no_more_than_its_cron(repository: Mapping[str, object]) -> None:
    event = parse_event("schedule", {"schedule": "0 5 * * *", **repository}, "99")
    assert isinstance(event, ScheduleEvent)
    assert (event.cron, event.trigger, event.repository) == ("0 5 * * *", "schedule:0 5 * * *:99", "o/r" if repository else "")


@pytest.mark.parametrize(
    ("name", "found", "action"),
    [
        ("push", {}, ""),
        ("pull_request", {"action": "assigned"}, "assigned"),
        ("merge_group", {"action": "destroyed"}, "destroyed"),
        ("", {}, ""),
    ],
)
def test_everything_else_is_other(name: str, found: Mapping[str, object], action: str) -> None:
    assert parse_event(name, found) == OtherEvent(name, action)


def test_a_label_that_was_taken_off_may_change_what_is_required() -> None:
    event = parse_event("pull_request_target", changed(payload("pull_request.labeled.1.json"), "action", to="unlabeled"))
    assert isinstance(event, PushEvent)
    assert (event.action, event.number) == ("unlabeled", payload("pull_request.labeled.1.json")["number"])


@pytest.mark.parametrize("name", ["workflow_dispatch", "repository_dispatch", "schedule", "check_run"])
def test_without_a_run_id_two_runs_could_not_be_told_apart(name: str) -> None:
    with pytest.raises(InputError, match="GITHUB_RUN_ID"):
        parse_event(name, {"schedule": "0 5 * * *", **payload("workflow_dispatch.1.json"), "action": "rerequested"}, "")


BROKEN: list[tuple[str, Callable[[], Any]]] = [
    ("issue_comment", dict),
    ("issue_comment", lambda: {"comment": []}),
    ("issue_comment", lambda: changed(comment(), "comment", "id", to="7")),
    ("issue_comment", lambda: changed(comment(), "comment", "id", to=True)),
    ("issue_comment", lambda: changed(comment(), "comment", "id", to=-1)),
    ("issue_comment", lambda: changed(comment(), "comment", "body", to=["/train"])),
    ("issue_comment", lambda: changed(comment(), "comment", "user", "login", to="a/../b")),
    ("issue_comment", lambda: changed(comment(), "comment", "user", "login", to="$(id)")),
    ("issue_comment", lambda: changed(comment(), "repository", "full_name", to="no-owner")),
    ("issue_comment", lambda: changed(comment(), "repository", "full_name", to="o/r\nx")),
    ("issue_comment", lambda: changed(comment(), "repository", "default_branch", drop=True)),
    ("pull_request", lambda: changed(payload("pull_request.labeled.1.json"), "pull_request", "head", "sha", to="HEAD")),
    ("pull_request", lambda: changed(payload("pull_request.labeled.1.json"), "pull_request", "head", "sha", to=HEAD + "\n")),
    ("pull_request", lambda: changed(payload("pull_request.labeled.1.json"), "pull_request", to="x")),
    ("pull_request", lambda: changed(payload("pull_request.closed.1.json"), "pull_request", "merged", to="yes")),
    ("merge_group", lambda: changed(payload("merge_group.checks_requested.1.json"), "merge_group", drop=True)),
    ("workflow_dispatch", lambda: changed(payload("workflow_dispatch.1.json"), "inputs", to=["profile"])),
    ("workflow_dispatch", lambda: changed(payload("workflow_dispatch.1.json"), "inputs", to={"profile": {"a": 1}})),
    ("repository_dispatch", lambda: changed(payload("repository_dispatch.1.json"), "client_payload", to={"profile": ["a"]})),
    ("repository_dispatch", lambda: changed(payload("repository_dispatch.1.json"), "client_payload", to="profile=a")),
    ("check_run", lambda: changed(pressed(), "check_run", "pull_requests", to={"number": 1})),
    ("check_run", lambda: changed(pressed(), "check_run", "pull_requests", to=[7])),
    ("check_run", lambda: changed(pressed(), "check_run", "id", to=None)),
    ("check_run", lambda: changed(pressed(), "requested_action", "identifier", to="a\nb")),
    ("pull_request", lambda: changed(payload("pull_request.synchronize.0.json"), "pull_request", "labels", to="train")),
    ("pull_request", lambda: changed(payload("pull_request.synchronize.0.json"), "pull_request", "labels", to=[{"name": 7}])),
    ("schedule", lambda: {"schedule": 5}),
    ("issue_comment", lambda: ["not", "an", "object"]),
    ("issue_comment", lambda: None),
]


@pytest.mark.parametrize(("name", "make"), BROKEN)
def test_a_malformed_payload_is_one_coded_error(name: str, make: Callable[[], Any]) -> None:
    with pytest.raises(InputError) as raised:
        parse_event(name, make(), "1")
    assert raised.value.code == "input.event"


NAMES = ["issue_comment", "pull_request", "pull_request_target", "workflow_dispatch", "schedule", "merge_group", "push", "check_run"]
NAMES += ["repository_dispatch"]
KEYS = ["check_run", "pull_requests", "requested_action", "identifier", "client_payload", "branch", "labels", "name", "app", "slug"]
KEYS += ["action", "comment", "issue", "pull_request", "repository", "label", "inputs", "merge_group", "schedule"]
KEYS += [
    "full_name",
    "number",
    "id",
    "body",
    "user",
    "login",
    "type",
    "head",
    "sha",
    "repo",
    "base",
    "ref",
    "default_branch",
    "sender",
    "state",
    "draft",
    "merged",
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["labeled", "closed", "synchronize", "converted_to_draft", "rerequested", "requested_action", HEAD, "o/r"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=8),
    max_leaves=25,
)


def parsed_or_refused(name: str, found: Any, run_id: str) -> str:
    """The event's trigger, or the error's code; any other exception fails the test."""
    try:
        return parse_event(name, found, run_id).trigger
    except InputError as error:
        return error.code


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(NAMES), found=JSON, run_id=st.text(max_size=6))
def test_nothing_but_the_coded_error_escapes(name: str, found: Any, run_id: str) -> None:
    assert parsed_or_refused(name, found, run_id)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), junk=JSON)
def test_a_real_payload_with_one_part_spoilt_is_an_event_or_the_coded_error(data: Any, junk: Any) -> None:
    name, found = data.draw(
        st.sampled_from([("issue_comment", comment()), ("pull_request", payload("pull_request.labeled.1.json")), ("check_run", pressed())])
    )
    path: list[str] = []
    here = found
    while isinstance(here, dict) and here and (not path or data.draw(st.booleans())):
        path.append(data.draw(st.sampled_from(sorted(here))))
        here = here[path[-1]]
    assert parsed_or_refused(name, changed(found, *path, to=junk), "1")
