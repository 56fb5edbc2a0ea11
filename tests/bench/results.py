"""What was measured → a table for people, a document for machines, and targets that were met or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class Target:
    """A promise, the measured value, and the most that it may be. `note` says how the bound came about."""

    name: str
    measured: float
    bound: float
    unit: str
    note: str = ""

    @property
    def ratio(self) -> float:
        """Measured by bound: up to 1 the promise is kept."""
        return self.measured / self.bound if self.bound else (0.0 if self.measured <= 0 else float("inf"))

    @property
    def passed(self) -> bool:
        """Whether the promise is kept."""
        return self.measured <= self.bound

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "ratio": round(self.ratio, 3) if self.bound else None, "passed": self.passed}


@dataclass(frozen=True)
class Section:
    """One part of the measurements: a table, the raw numbers, the targets."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    targets: tuple[Target, ...]
    raw: object

    def document(self) -> dict[str, object]:
        """For JSON."""
        rows = [dict(zip(self.heads, row, strict=True)) for row in self.rows]
        return {"title": self.title, "table": rows, "targets": [target.document() for target in self.targets], "raw": self.raw}


def markdown(section: Section) -> str:
    """A section as it stands in docs/performance.md: a heading and its tables."""
    parts = [f"### {section.title}", table(section.heads, section.rows)]
    parts += [targets_table(section.targets)] if section.targets else []
    return "\n\n".join(parts)


def targets_table(targets: Sequence[Target]) -> str:
    """Promises, what was measured, what it may be, and what part of that it is."""
    rows = []
    for target in targets:
        bound = _value(target.bound, target.unit) + (f" = {target.note}" if target.note else "")
        ratio = f" ({target.ratio:.2f})" if target.bound and target.measured >= 0 else ""
        verdict = f"{'kept' if target.passed else 'MISSED'}{ratio}"
        rows.append((target.name, _value(target.measured, target.unit), bound, verdict))
    return table(("promise", "measured", "at most", ""), rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned so that it reads well in a terminal too; all columns but the first are numbers, to the right."""
    widths = [max(len(row[column].replace("|", "\\|")) for row in [heads, *rows]) for column in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        row = [cell.replace("|", "\\|") for cell in row]
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""])
    return "\n".join([line(heads), rule, *(line(row) for row in rows)])


def mid(values: Sequence[float]) -> float:
    """The median: one disturbed run does not move it."""
    return median(values)


def seconds(value: float) -> str:
    """Seconds for a table."""
    return f"{value:.2f} s"


def _value(value: float, unit: str) -> str:
    return f"{value:.2f} {unit}" if unit in ("s", "×") else f"{value:.0f} {unit}".rstrip()
