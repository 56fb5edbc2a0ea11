"""The words after the command word → one command, every word checked against a strict grammar; and the one table of verbs.

The table is what the help, the documentation and the parser's suggestions are made from. Imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.grammar import Run, Sweep


@dataclass(frozen=True)
class Status:
    """Say how the pull request's runs stand."""


@dataclass(frozen=True)
class Help:
    """Explain: `topic` is empty, a verb, `profiles` or `recipes`."""

    topic: str = ""


@dataclass(frozen=True)
class Logs:
    """Show the end of a run's log: `run` is the beginning of its run key (4 to 16 hex digits), None for the newest run."""

    run: str | None = None
    lines: int = 200


@dataclass(frozen=True)
class Cancel:
    """End runs: one by the beginning of its run key, those of a profile, all; with none of the three the only active one."""

    run: str | None = None
    profile: str | None = None
    all: bool = False


@dataclass(frozen=True)
class Retry:
    """Run again what failed (one by its key, or every failed one); `all` also what did not fail. What runs is the head as it is now."""

    run: str | None = None
    all: bool = False


@dataclass(frozen=True)
class Approve:
    """Somebody with the right vouches for exactly this commit (40 hex digits): what was asked for it and waits then runs."""

    sha: str


@dataclass(frozen=True)
class Waive:
    """`override <gate> reason="…"`: a recorded, visible, expiring exception from a gate for the head as it is now."""

    gate: str
    reason: str


@dataclass(frozen=True)
class AcceptBaseline:
    """`baseline accept [run]`: this run's results become what later ones are compared with."""

    run: str | None = None


Verb = Run | Sweep | Status | Help | Logs | Cancel | Retry | Approve | Waive | AcceptBaseline
