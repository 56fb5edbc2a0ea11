"""Typed access to a webhook payload: what is asked for, or one coded error that names the place. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

from dispatcher.errors import InputError

_SHA = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_LOGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\[bot\])?")
# JSON can write half of a surrogate pair; nothing that has one can be encoded, neither to be hashed nor to be sent.
_HALF = re.compile("[\ud800-\udfff]")
_RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def workflow_run(name: str, run_id: str) -> str:
    """The workflow run's id, without which two runs could not be told apart."""
    if not _RUN_ID.fullmatch(run_id):
        raise InputError("input.event", f"A `{name}` event needs the workflow run's id, and `GITHUB_RUN_ID` holds none.")
    return run_id


def refuse(where: str, what: str) -> NoReturn:
    """Raises `InputError` (`input.event`): the place in the payload, and what is wrong there."""
    raise InputError("input.event", f"The event's `{where}` {what}.")


_MISSING = object()


class Reader:
    """Typed access to a payload: every method names the path it looked at when something else is there."""

    def __init__(self, payload: Mapping[str, object]) -> None:
        self._payload = payload

    def find(self, *path: str) -> object:
        """What stands at the path; None when any part of it is absent or null."""
        here: object = self._payload
        for key in path:
            if not isinstance(here, Mapping):
                return None
            here = here.get(key)
        return here

    def items(self, *path: str) -> Iterator[Reader]:
        """The objects of a list; none when it is absent."""
        found = self.find(*path)
        if not isinstance(found, list | None):
            refuse(".".join(path), "is not a list")
        for item in found or []:
            if not isinstance(item, Mapping):
                refuse(".".join(path), "holds something that is no object")
            yield Reader(item)

    def text(self, *path: str, absent: object = _MISSING) -> str:
        """A string; `absent` stands in for a missing or null one."""
        found = self.find(*path)
        if found is None and isinstance(absent, str):
            return absent
        if not isinstance(found, str):
            refuse(".".join(path), "is missing" if found is None else "is not text")
        if _HALF.search(found):
            refuse(".".join(path), "has half a character, which no text can have")
        return found

    def line(self, *path: str, absent: object = _MISSING) -> str:
        """A string of at most 1,024 printing characters."""
        found = self.text(*path, absent=absent)
        if not found.isprintable() or len(found) > 1024:
            refuse(".".join(path), "is not one short line")
        return found

    def positive(self, *path: str) -> int:
        """A whole number above zero."""
        found = self.find(*path)
        if isinstance(found, bool) or not isinstance(found, int) or found <= 0:
            refuse(".".join(path), "is not a positive number")
        return found

    def flag(self, *path: str) -> bool:
        """True or false; absent is false."""
        found = self.find(*path)
        if not isinstance(found, bool | None):
            refuse(".".join(path), "is neither true nor false")
        return bool(found)

    def sha(self, *path: str) -> str:
        """A full commit SHA."""
        found = self.text(*path)
        if not _SHA.fullmatch(found):
            refuse(".".join(path), "is not a commit's full SHA")
        return found

    def branch(self, *path: str) -> str:
        """A branch name, without `refs/heads/`."""
        return self.line(*path).removeprefix("refs/heads/")

    def login(self, *path: str) -> str:
        """An account name; empty when the account is gone."""
        found = self.text(*path, absent="")
        if found and not _LOGIN.fullmatch(found):
            refuse(".".join(path), "is not an account name")
        return found

    def repository(self) -> str:
        """`owner/name`."""
        found = self.text("repository", "full_name")
        if not _REPOSITORY.fullmatch(found):
            refuse("repository.full_name", "is not `owner/name`")
        return found

    def default_branch(self) -> str:
        """The branch that policy and profiles are read from."""
        return self.line("repository", "default_branch")

    def action(self) -> str:
        """What happened; empty for events that have no action."""
        return self.line("action", absent="")
