"""What was asked for and has to wait for somebody → a check on the commit that remembers it, and the answer that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dispatcher.answer import Answer
from dispatcher.approval import APPROVAL_NAME, WAITING_LIMIT, Request, request_check, waiting
from dispatcher.authorise import AskedBy
from dispatcher.event import CommentEvent
from dispatcher.grammar import Run
from dispatcher.printing import render
from dispatcher.publish import publish_check
from dispatcher.refusals import parked, too_big_to_wait, too_many_waiting
from dispatcher.world import World

# GitHub keeps 65,535 bytes of a check's text; what is cut could not be read again.
TEXT_BYTES = 60_000


@dataclass(frozen=True)
class Asked:
    """Runs that somebody wants for a commit, and why they wait."""

    sha: str
    trigger: str
    actor: str
    number: int
    runs: tuple[Run, ...]
    why: Literal["fork", "second"]
    rule: str
    retry_of: str = ""
    voucher: str = ""


def park(asked: Asked, event: AskedBy, world: World) -> Answer:
    """Remembers the request until somebody approves it. The same one again, delivered twice, is remembered once."""
    assert world.forge is not None, "only what was asked on GitHub waits"
    request = Request(
        sha=asked.sha,
        trigger=asked.trigger,
        actor=asked.actor,
        lines=tuple(render(run, "").strip() for run in asked.runs),
        why=asked.why,
        rule=asked.rule,
        number=asked.number,
        comment=event.comment_id if isinstance(event, CommentEvent) else None,
        asked_at=event.created_at if isinstance(event, CommentEvent) else world.clock.now().isoformat(),
        retry_of=asked.retry_of,
        voucher=asked.voucher,
    )
    if len(request.model_dump_json().encode()) > TEXT_BYTES:
        return too_big_to_wait(len(request.lines), asked.trigger)
    checks = world.forge.find_checks(asked.sha, APPROVAL_NAME)
    known = waiting(checks, asked.sha)
    delivered = [check for check in checks if check.external_id == request.external_id]
    if len(known) >= WAITING_LIMIT and not delivered:
        return too_many_waiting(len(known), asked.trigger)
    # Delivered again after its approval, it waits for nobody any more.
    if not any(check.conclusion == "neutral" for check in delivered):
        publish_check(world.forge, request_check(request, world.settings.voice.word))
    return parked(request, world.settings.voice)
