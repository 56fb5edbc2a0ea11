"""An exception from the gate, made by hand: kept in a check of our own identity on the commit, as JSON in its text, until it expires."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dispatcher.answer import DOCS
from dispatcher.command import GATE_OVERRIDDEN
from dispatcher.ports import Check, CheckRef, Label
from dispatcher.untrusted import code, neutralise

WAIVER_NAME = "dispatch/override"
# By this label the sweep finds the pull requests whose exception may have expired. It decides nothing.
WAIVED = Label(GATE_OVERRIDDEN, "d93f0b", "The merge gate was overridden by hand for one commit of this pull request.")


class WaiverRecord(BaseModel):
    """Who made an exception from which gate, for which commit, why, and until when (UTC)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str = Field(max_length=64)
    sha: str = Field(pattern=r"^[0-9a-f]{40}$")
    actor: str = Field(max_length=100)
    reason: str = Field(max_length=300)
    made_at: datetime
    expires_at: datetime

    @property
    def external_id(self) -> str:
        """The check's: one exception for each gate and commit."""
        return f"override-{self.gate}-{self.sha}"


def waiver_check(waiver: WaiverRecord) -> Check:
    """The check that keeps it, for everybody to see."""
    until = waiver.expires_at.strftime("%Y-%m-%d %H:%M UTC")  # it stays there, and is read on other days
    return Check(
        name=WAIVER_NAME,
        sha=waiver.sha,
        external_id=waiver.external_id,
        status="completed",
        conclusion="neutral",
        title=f"{waiver.gate} overridden by {waiver.actor} until {until}",
        summary=f"{code(waiver.actor)} made an exception from {code(waiver.gate)} for this commit until {until}:"
        f"\n\n> {neutralise(waiver.reason, 300)}\n\n<sub>[what an exception is]({DOCS}/gates.md)</sub>",
        text=waiver.model_dump_json(),
    )


def waiver_on(checks: Sequence[CheckRef], gate: str, sha: str, now: datetime) -> WaiverRecord | None:
    """The newest exception that holds now; `checks` are our own identity's. What is not one of ours in them counts as nothing."""
    found = []
    for check in checks:
        try:
            waiver = WaiverRecord.model_validate_json(check.text)
        except ValidationError:
            continue
        if (waiver.gate, waiver.sha) == (gate, sha) and waiver.external_id == check.external_id and _holds(waiver, now):
            found.append(waiver)
    return max(found, key=lambda waiver: waiver.made_at, default=None)


def _holds(waiver: WaiverRecord, now: datetime) -> bool:
    aware = waiver.expires_at.tzinfo is not None and waiver.made_at.tzinfo is not None
    return aware and waiver.made_at <= now < waiver.expires_at
