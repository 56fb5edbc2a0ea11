"""Requests that wait until somebody vouches for them: kept in a check of our own identity on the commit, as JSON in its text.

A check, because comments can be edited by others, and because what waits for a person has nothing to do with any cluster yet.
Each request is a check of its own, so that two that come at once cannot lose each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dispatcher.answer import DOCS
from dispatcher.grammar import Run, Sweep
from dispatcher.ports import Button, Check, CheckRef
from dispatcher.untrusted import code
from dispatcher.verbs import parse_line

APPROVAL_NAME = "dispatch/approval"
# So many requests may wait for one commit: an outsider could otherwise fill the page.
WAITING_LIMIT = 5


class Request(BaseModel):
    """What was asked for, by whom, and why it waits: a fork's commit that nobody has vouched for, or a second person's word."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha: str = Field(pattern=r"^[0-9a-f]{40}$")
    trigger: str = Field(min_length=1, max_length=400)
    actor: str = Field(max_length=100)
    lines: tuple[str, ...] = Field(min_length=1, max_length=256)
    why: Literal["fork", "second"]
    rule: str = Field(default="", max_length=500)
    number: int | None = None
    """The pull request that it was asked on: another one may have the same head."""
    comment: int | None = None
    asked_at: str = Field(default="", max_length=40)
    """When it was asked for: when its comment was written, as GitHub says it, else when it was put down here."""
    voucher: str = Field(default="", max_length=100)
    """Who has vouched for a fork's commit already, where a second person has to agree besides."""
    retry_of: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")

    @property
    def external_id(self) -> str:
        """The check's: the same request, delivered again, is the same check."""
        return f"approval-{hashlib.sha256(self.trigger.encode()).hexdigest()[:32]}"

    def runs(self) -> tuple[Run, ...]:
        """What is asked for; empty when a line is not one of ours."""
        found: list[Run] = []
        for line in self.lines:
            match parse_line(line):
                case Run() as run:
                    found.append(run)
                case Sweep() as sweep:
                    found.extend(sweep.runs)
                case _:
                    return ()
        return tuple(found)


def request_check(request: Request, word: str, approved_by: str = "") -> Check:
    """The check that keeps a request; `approved_by` closes it."""
    asked = "\n".join(f"- {code(f'{word} {line}'.strip(), 2000)}" for line in request.lines)
    who = {
        "fork": "The commit comes from a fork: somebody with the right has to vouch for exactly it.",
        "second": f"It is above what one person may start alone (rule {code(request.rule, 500)}): somebody else has to agree.",
    }[request.why]
    state = (
        f"Approved by {code(approved_by)}."
        if approved_by
        else f"{who} Read the change, then comment {code(f'{word} approve sha={request.sha}', 200)}."
    )
    return Check(
        name=APPROVAL_NAME,
        sha=request.sha,
        external_id=request.external_id,
        status="completed",
        conclusion="neutral" if approved_by else "action_required",
        title=f"approved by {approved_by}" if approved_by else "waits for somebody with the right",
        summary=f"{code(request.actor)} asked for:\n\n{asked}\n\n{state}\n\n<sub>[who may approve]({DOCS}/policy.md)</sub>",
        text=request.model_dump_json(),
        buttons=() if approved_by else (Button("Approve", "Vouch for this commit", "approve"),),
    )


def waiting(checks: Sequence[CheckRef], sha: str) -> tuple[tuple[CheckRef, Request], ...]:
    """The requests that wait on a commit, oldest first. `checks` are our own identity's; what is not ours in them counts as nothing."""
    found = []
    for check in sorted(checks, key=lambda item: item.id):
        if check.conclusion != "action_required":
            continue
        try:
            request = Request.model_validate_json(check.text)
        except ValidationError:
            continue
        if request.sha == sha and request.external_id == check.external_id and request.runs():
            found.append((check, request))
    return tuple(found)
