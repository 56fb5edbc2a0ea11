"""The package's files → a table with what the docstring of each module says first."""

from __future__ import annotations

import ast
from pathlib import Path

from dispatcher.docs.pages import table


def module_table() -> str:
    """A row for each module, in the order of their paths."""
    package = Path(__file__).parents[1]
    files = sorted(file for file in package.rglob("*.py") if file.name != "__init__.py")
    paths = {file: file.relative_to(package).as_posix() for file in files}
    return table(
        ("module", "in its own words"), ((f"[`dispatcher/{path}`](../dispatcher/{path})", _words(file)) for file, path in paths.items())
    )


def _words(file: Path) -> str:
    """The docstring's first paragraph, on one line."""
    told = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(told.split("\n\n")[0].split())
