"""A page's text and generated blocks by name → the page with the text between each pair of marks replaced; Markdown's small parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_BLOCK = re.compile(r"^<!-- generated: (?P<name>[a-z0-9-]+) -->\n(?P<old>.*?)^<!-- end -->$", re.DOTALL | re.MULTILINE)


def page_files(root: Path) -> tuple[Path, ...]:
    """Every page of the project, in a stable order."""
    return (*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md")))


def rewritten(text: str, blocks: Mapping[str, str], where: str = "a page") -> str:
    """The page with every block current.

    Raises:
        KeyError: a mark names a block that there is none of.
        ValueError: a mark without its end, or an end without its mark.
    """
    if text.count("<!-- generated:") != text.count("<!-- end -->") or len(_BLOCK.findall(text)) != text.count("<!-- generated:"):
        raise ValueError(f"{where}: marks of generated blocks do not pair up")
    return _BLOCK.sub(lambda found: f"<!-- generated: {found['name']} -->\n{blocks[found['name']].strip()}\n<!-- end -->", text)


def names_in(text: str) -> tuple[str, ...]:
    """The blocks that a page has."""
    return tuple(found["name"] for found in _BLOCK.finditer(text))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what is in a cell becomes one line, and its pipes do not end it."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def quoted(markdown: str) -> str:
    """Markdown → the same as a quotation, which sets an example apart from the page around it."""
    return "\n".join(f"> {line}".rstrip() for line in markdown.splitlines())


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))
