"""`.bench/latest.json` → the tables in docs/performance.md, between its two markers: `python -m tests.bench.page [FILE…]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.results import Target, table, targets_table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- measured: written by tests/bench/page.py -->", "<!-- /measured -->"


def main(argv: Sequence[str]) -> int:
    """Later files add to earlier ones: sections that were measured apart."""
    files = [Path(name) for name in argv] or [ROOT / ".bench" / "latest.json"]
    documents = [json.loads(file.read_text()) for file in files]
    sections = {title: section for document in documents for title, section in document["sections"].items()}
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{render(documents[0]['machine'], sections)}\n\n{END}{after}")
    return 0


def render(about: Mapping[str, str], sections: Mapping[str, Any]) -> str:
    """The machine, then each section with its promises."""
    parts = [table(("measured on", ""), [*about.items()])]
    for title, section in sections.items():
        rows = section["table"]
        parts += [f"### {title}", table(tuple(rows[0]), [tuple(row.values()) for row in rows])]
        fields = Target.__dataclass_fields__
        targets = [Target(**{name: value for name, value in target.items() if name in fields}) for target in section["targets"]]
        parts += [targets_table(targets)] if targets else []
    return "\n\n".join(parts)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
