"""The hostile corpus through the parser and the story with quick stand-ins: always an answer with a reason, never what acts."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from dispatcher.action import blank_outputs
from dispatcher.answer import DOCS, RUN_MARK, marker
from dispatcher.command import parse_command
from dispatcher.errors import DispatchError
from dispatcher.event import parse_event
from dispatcher.flow import handle
from dispatcher.grammar import COMMANDS_LIMIT, Run
from dispatcher.ports import PullRequest
from dispatcher.world import Outcome
from tests.fakes import BASE, HEAD, POLICY, Fakes
from tests.hostile import ARGUMENTS, FAMILIES, POSITIONS, REASON, VARIABLE, Hostile, bare, corpus
from tests.powerless import acting

CORPUS = corpus("/tmp/c-1")
ALLOWING = POLICY + 'overrides: { allow: ["*", "run.*"] }\nnoise: { outsiders: comment }\n'
LINKS = (DOCS, "https://github.com/org/repo/", "https://logs.example.com/")
SECONDS = 2.0


def batches() -> list[list[Hostile]]:
    """The corpus by position: few enough tests, and each failure names its place."""
    return [[item for item in CORPUS if item.position == position] for position in POSITIONS]


def told(item: Hostile) -> tuple[Outcome, Fakes, str]:
    """One delivery, as the command line tells it: a coded error is an answer too. Anything else that is raised is a crash."""
    fakes = Fakes(policy=item.text if item.place.policy else ALLOWING)
    fakes.files.setdefault("profiles/other.yaml", fakes.files["profiles/cluster.yaml"])
    fakes.forge.pulls[1] = PullRequest(1, "open", False, HEAD, "topic", "org/repo", "main", BASE, "org/repo", "bob")
    payload = json.loads(json.dumps(item.put_into(bare(item.place.event, head=HEAD))))
    trigger = ""
    try:
        event = parse_event(item.place.event, payload, "55")
        trigger = getattr(event, "trigger", "")
        return handle(event, fakes.world), fakes, trigger
    except DispatchError as error:
        return Outcome(error.exit, blank_outputs("refused", error.code), error.cause), fakes, trigger


def is_word(payload: str) -> bool:
    """Whether it stands for itself without quotes: a space, a line's end or a quote at its beginning makes it something else."""
    return payload.split() == [payload] and payload[0] not in "\"'"


def is_text(payload: str) -> bool:
    """Half a character is none: such an event is refused as a whole."""
    return not any("\ud800" <= ch <= "\udfff" for ch in payload)


def test_the_corpus_is_what_it_says() -> None:
    assert len(CORPUS) >= 500
    assert len({item.id for item in CORPUS}) == len(CORPUS)
    assert corpus("/tmp/c-1") == CORPUS
    met = Counter((item.family, item.position) for item in CORPUS)
    assert all((family, position) in met for family in FAMILIES for position in POSITIONS), "each family is at each position"


@pytest.mark.parametrize("items", batches(), ids=POSITIONS)
def test_every_hostile_input_gets_an_answer_with_a_reason(items: list[Hostile]) -> None:
    for item in items:
        began = time.perf_counter()
        ended, fakes, trigger = told(item)
        assert time.perf_counter() - began < SECONDS, item.id
        assert ended.outputs["decision"], item.id
        assert REASON.fullmatch(ended.outputs["reason-code"]), (item.id, ended.outputs)
        for body in fakes.forge.bodies:
            own = {marker(trigger), *(marker(f"{trigger}:{line}") for line in range(2, COMMANDS_LIMIT + 1))}
            markers = [line for line in body.splitlines() if line in own or line.startswith(RUN_MARK)]
            assert acting(body, markers, LINKS) == [], (item.id, body)
        for check in fakes.forge.checks.values():
            assert acting(check.summary, (), LINKS) == [], (item.id, check.summary)
        for run in fakes.cluster.runs.values():
            assert run.submission is not None
            assert run.submission.run_key in fakes.cluster.active


@pytest.mark.parametrize("position", [*ARGUMENTS, VARIABLE])
def test_what_is_taken_is_taken_as_it_was_written(position: str) -> None:
    taken = 0
    for item in CORPUS:
        if item.position != position or not is_text(item.payload):
            continue
        command = parse_command(parse_event("issue_comment", item.put_into(bare("issue_comment"))))
        if isinstance(command, Run) and len(command.overrides) == 1 and (item.place.quote or is_word(item.payload)):
            taken += 1
            assert command.overrides[0].value == item.payload, item.id
    assert taken > 40
