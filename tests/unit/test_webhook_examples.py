"""Every payload that the public collection has, of every event that GitHub knows, goes through the parser and the whole story."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from dispatcher.command import Ignored, parse_command
from dispatcher.errors import InputError
from dispatcher.event import CheckEvent, CommentEvent, Event, LabelEvent, ManualEvent, parse_event
from dispatcher.flow import handle
from tests.fakes import FILES, HEAD, Fakes

EXAMPLES: dict[str, list[dict[str, Any]]] = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "data" / "webhooks-examples.json.gz").read_bytes())
)
every_event = pytest.mark.parametrize("name", sorted(EXAMPLES))


def events(name: str) -> Iterator[Event]:
    """The examples that can be read; any exception but the one coded error fails the test."""
    for payload in EXAMPLES[name]:
        with suppress(InputError):
            yield parse_event(name, payload, run_id="77")


def test_the_collection_is_whole() -> None:
    assert len(EXAMPLES) == 64
    assert sum(map(len, EXAMPLES.values())) == 404


@every_event
def test_an_example_is_an_event_and_asks_for_something_or_nothing(name: str) -> None:
    found = list(events(name))
    assert found
    for event in found:
        assert isinstance(event, get_args(Event))
        assert event.trigger
        # The word `/train` stands in none of them; the empty word makes a command of every comment.
        for word in ("/train", ""):
            parse_command(event, word)


REFUSED = 0
"""How many of the 404 are not what their event promises."""


def test_real_payloads_are_not_refused() -> None:
    assert sum(len(EXAMPLES[name]) - len(list(events(name))) for name in EXAMPLES) == REFUSED


KNOWN = {
    "check_run",
    "issue_comment",
    "merge_group",
    "pull_request",
    "repository_dispatch",
    "workflow_dispatch",
}


def test_only_what_the_dispatcher_knows_asks_for_anything() -> None:
    asking = {name for name in EXAMPLES for event in events(name) if type(event).__name__ != "OtherEvent"}
    assert asking == KNOWN


@every_event
def test_an_example_goes_through_the_story(name: str) -> None:
    for event in events(name):
        fakes = Fakes()
        fakes.archive.commits = defaultdict(lambda: FILES)
        ended = handle(event, fakes.world)
        assert ended.outputs["decision"]
        if isinstance(parse_command(event), Ignored):
            assert fakes.steps == []


def asking(event: Event) -> Event:
    """The same event, asking for a run where an event of its kind can."""
    match event:
        case CommentEvent():
            return replace(event, body="/train\n/train plan lr=1,2", action="created", is_pull=True, author_is_bot=False)
        case LabelEvent():
            return replace(event, label="train:cluster")
        case ManualEvent():
            return replace(event, inputs={"profile": "cluster", "ref": "main"})
        case CheckEvent():
            return replace(event, external_id="0123456789abcdef", button="retry" if event.button else "")
        case _:
            return event


@pytest.mark.parametrize("name", sorted(KNOWN))
@pytest.mark.parametrize("role", ["admin", None])
def test_an_example_that_asks_for_a_run_is_answered(name: str, role: str | None) -> None:
    """The pull request is there, with the example's own words in it, and who asks may or may not."""
    for event in map(asking, events(name)):
        fakes = Fakes(app_slug=getattr(event, "app_slug", "github-actions"))
        fakes.archive.commits = defaultdict(lambda: FILES)
        number, sha = getattr(event, "number", None), getattr(event, "head_sha", HEAD)
        if number is not None:
            fakes.forge.pulls[number] = replace(fakes.forge.pulls[7], number=number, head_sha=sha)
            fakes.forge.changed[number] = ("train.py",)
        login = getattr(event, "author", "") or getattr(event, "sender", "")
        fakes.forge.roles = {login: role} if role else {}
        told = handle(event, fakes.world).outputs
        assert told["decision"]
        if isinstance(event, CommentEvent | LabelEvent | ManualEvent | CheckEvent):
            assert told["decision"] not in ("ignored", "malformed")
