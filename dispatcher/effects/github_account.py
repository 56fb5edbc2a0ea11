"""In whose name GitHub is spoken to: a token that was given, or a GitHub App that makes its own (`github_app.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from dispatcher.errors import ForgeError

JOBS_OWN_APP = "github-actions"
"""The App that a job's own token belongs to. GitHub shows no buttons beside its checks, for it has nobody to tell."""


class Account(Protocol):
    """Who we are to GitHub. Every part may ask GitHub, and then raises `ForgeError`."""

    @property
    def app_slug(self) -> str:
        """The App that our checks are made by."""

    @property
    def identity(self) -> str:
        """The login that our comments are written under; a bot's ends with `[bot]`."""

    def token(self) -> str:
        """What to send now; another one when the last is about to expire."""

    def renewed(self, refused: str) -> bool:
        """Whether there is something better to send than this token, which GitHub has just refused (401)."""


@dataclass(frozen=True)
class GivenToken:
    """A token as it is. Raises `ForgeError` (`github.unauthorized`) when it is empty."""

    value: str = field(repr=False)
    identity: str = f"{JOBS_OWN_APP}[bot]"
    app_slug: str = JOBS_OWN_APP

    def __post_init__(self) -> None:
        if not self.value:
            raise ForgeError("github.unauthorized", "There is no GitHub token.")

    def token(self) -> str:
        """The one there is."""
        return self.value

    def renewed(self, refused: str) -> bool:
        """There is no other."""
        return False
