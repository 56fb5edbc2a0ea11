"""The steps of a decision → lines for people, and the place in the policy at which each rule stands."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.document import Document
from dispatcher.errors import Exit


@dataclass(frozen=True)
class Step:
    """One step: `passed` is None where there is nothing to decide, or where it is decided only when the command runs.

    `reason` is the code of a no, `exit` its exit status, `rule` the path in the policy that decided, `place` its `file:line`.
    """

    what: str
    passed: bool | None
    words: str
    rule: str = ""
    reason: str = ""
    exit: Exit = Exit.OK
    place: str = ""


@dataclass(frozen=True)
class Explained:
    """One command (of a sweep: one run) and its steps."""

    command: str
    steps: tuple[Step, ...]

    @property
    def refusal(self) -> Step | None:
        """The first step that says no: it is what the answer would be about."""
        return next((step for step in self.steps if step.passed is False), None)


def place_of(document: Document, rule: str) -> str:
    """`file:line` of a rule's path, or of the nearest thing around it; empty where the file does not have it: a default decided."""
    value, loc, rest = document.value, tuple[str | int, ...](), rule
    while rest and isinstance(value, dict):
        key = max((key for key in value if rest == key or rest.startswith(f"{key}.")), key=len, default=None)
        if key is None:
            break
        value, loc, rest = value[key], (*loc, key), rest[len(key) + 1 :]
    return str(document.place(loc)) if loc else ""


def rendered(explained: Explained) -> list[str]:
    """An explanation → lines, as `doctor` has them."""
    marks = {True: "✓", False: "✗", None: "–"}
    lines = [explained.command] if explained.command else []
    for step in explained.steps:
        lines.append(f"  {marks[step.passed]} {step.what:<11} {one_line(step.words)}")
        where = " · ".join(part for part in (step.rule, step.place or ("the default" if step.rule else "")) if part)
        if where:
            lines.append(f"  {'':<13} → {where}")
    refusal = explained.refusal
    return [*lines, f"{verdict(explained)}{f': {refusal.reason}' if refusal else ''}"]


def one_line(words: str) -> str:
    """Markdown → a line without emphasis."""
    return " ".join(words.replace("**", "").split())


def verdict(explained: Explained) -> str:
    """One word, or two."""
    refusal = explained.refusal
    if refusal is None:
        waits = any(step.what == "approval" and step.passed is None and step.rule for step in explained.steps)
        return "allowed, once somebody else agrees" if waits else "allowed"
    return {Exit.DENIED: "denied", Exit.MALFORMED: "malformed"}.get(refusal.exit, "cannot run")
