"""The tables of executors in the documentation, held against what the models take: packagers, fields, types, defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dispatcher.docs.executors import ALL, support
from dispatcher.executor import LocalProfile
from dispatcher.packager import KINDS
from dispatcher.registry import EXECUTORS

PAGE = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()
WRITTEN: dict[str, Any] = {
    "git": "git",
    "pattern": {"type": "pattern", "include_pattern": "src"},
    "hybrid": {"type": "hybrid", "sub_packagers": {"code": {"subpath": "src"}}},
    "none": "none",
}


def rows(block: str) -> list[list[str]]:
    """The cells of a generated table."""
    found = re.search(rf"<!-- generated: {block} -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    assert found is not None
    lines = found[1].splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [cells[0], *cells[2:]]


def takes(executor: str, kind: str) -> bool:
    """Whether a profile of this executor may have that packager, whatever else it lacks."""
    try:
        EXECUTORS[executor].model_validate({"packager": WRITTEN[kind]})
    except ValidationError as error:
        return not any(problem["loc"][:1] == ("packager",) for problem in error.errors())
    return True


def test_the_matrix_of_executors_and_packagers_is_what_the_models_take() -> None:
    head, *lines = rows("packager-support")
    kinds = [cell.strip("`") for cell in head[1:]]
    said = {line[0].strip("`"): {kind: cell == "yes" for kind, cell in zip(kinds, line[1:], strict=True)} for line in lines}
    assert said == {executor: {kind: takes(executor, kind) for kind in KINDS} for executor in EXECUTORS}


def test_the_matrix_says_no_where_a_packager_is_not_taken() -> None:
    class OnlyGit(LocalProfile):
        PACKAGERS = ("git",)

    assert support({"only-git": OnlyGit}).splitlines()[-1] == "| `only-git` | yes | – | – | – |"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_field_of_an_executor_is_in_the_table_once(executor: str) -> None:
    _, *lines = rows("every-field")
    mine = [line for line in lines if line[1] == ALL or f"`{executor}`" in line[1].split(", ")]
    assert [line[0].strip("`") for line in mine] == sorted(set(EXECUTORS[executor].model_fields) - {"executor"})
    required = {name for name, field in EXECUTORS[executor].model_fields.items() if field.is_required()} - {"executor"}
    assert {line[0].strip("`") for line in mine if line[3] == "**required**"} == required


def test_types_are_in_words() -> None:
    for line in rows("every-field")[1:]:
        assert not re.search(r"<class|typing|Annotated|NoneType|dispatcher\.|\bstr\b|\bint\b", line[2]), line
