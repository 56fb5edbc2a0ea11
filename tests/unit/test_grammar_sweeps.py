"""Lists of values → runs: what is a list and what is one value, in which order the runs come, what is refused."""

from __future__ import annotations

import pytest

from dispatcher.grammar import Malformed, Override, Run, Sweep
from dispatcher.pairs import as_preview
from dispatcher.verbs import parse_line
from dispatcher.words import between_commas, written


def axes(line: str) -> list[tuple[str, tuple[str, ...]]]:
    found = parse_line(line)
    return [(axis.key, axis.values) for axis in found.axes] if isinstance(found, Sweep) else []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("profile=a,b", [("profile", ("a", "b"))]),
        ("recipe=x/y,z", [("recipe", ("x/y", "z"))]),
        ("lr=1e-3,3e-4 profile=b,a n=1", [("lr", ("1e-3", "3e-4")), ("profile", ("b", "a"))]),
        ("run.nodes=1,2", [("run.nodes", ("1", "2"))]),
        ("a=[1,2],[3,4]", [("a", ("[1,2]", "[3,4]"))]),
        ("a=f(1,{x:2,y:[3]}),g", [("a", ("f(1,{x:2,y:[3]})", "g"))]),
        ("a=it's,fine", [("a", ("it's", "fine"))]),
        ("a=-1,--x", [("a", ("-1", "--x"))]),
        ("a=$(id),`id`", [("a", ("$(id)", "`id`"))]),
        ("a=b=c,d=e", [("a", ("b=c", "d=e"))]),
    ],
)
def test_a_list_varies_its_key(line: str, found: list[tuple[str, tuple[str, ...]]]) -> None:
    assert axes(line) == found


@pytest.mark.parametrize(
    "value", ["[1,2]", "(1,2)", "{a:1,b:2}", "[(1,2),{3,4}]", '"a,b"', "'a,b'", '","', '"[1,"', "'a, b'", "1;2", "(", "]"]
)
def test_a_comma_in_brackets_or_quotes_is_a_character(value: str) -> None:
    found = parse_line(f"a={value}")
    assert isinstance(found, Run)
    assert found.overrides == (Override("a", value[1:-1] if value[0] in "\"'" else value),)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("a=,", "bad-list", "empty"),
        ("a=1,", "bad-list", "empty"),
        ("a=,1", "bad-list", "empty"),
        ("a=1,,2", "bad-list", "empty"),
        ("a=1, b=2", "bad-list", '`a="a,b"`'),
        ("a=1,2,1", "bad-list", "`1` twice"),
        ("profile=a,a", "bad-list", "`a` twice"),
        ("a=[1,2", "bad-list", "brackets"),
        ("a=1,2]", "bad-list", "brackets"),
        ("a=(1,2]", "bad-list", "brackets"),
        ("a=['x]',2]", "bad-list", "brackets"),
        ("a=1,'2'", "bad-list", "quote"),
        ("a=1,“2”", "bad-list", "quote"),
        ("profile=a,../b", "bad-value", "`../b`"),
        ("recipe=a,/b", "bad-value", "`/b`"),
        ("a=1,${x}", "interpolation", "`${`"),
        ("a=1," + "x" * 513, "too-long", "512"),
        ("a..b=1,2", "bad-key", "`a..b`"),
        ("Profile=a,b", "bad-key", "**`profile=`**"),
        ("a=" + ",".join(f"v{n}" for n in range(257)), "too-many-runs", "257 values"),
        ("a=" + ",".join(f"v{n}" for n in range(129)) + " b=1,2", "too-many-runs", "258"),
    ],
)
def test_what_is_no_list(line: str, code: str, said: str) -> None:
    found = parse_line(line)
    assert isinstance(found, Malformed), found
    assert found.reason_code == code
    assert said in f"{found.message} {found.hint}"


def test_every_combination_in_the_order_written_the_last_list_fastest() -> None:
    found = parse_line("plan lr=1,2 recipe=x profile=a,b seed=7")
    assert isinstance(found, Sweep)
    assert found.run == found.runs[0]
    assert [(run.profile, run.recipe, *(item.word for item in run.overrides), run.dry_run) for run in found.runs] == [
        ("a", "x", "lr=1", "seed=7", True),
        ("b", "x", "lr=1", "seed=7", True),
        ("a", "x", "lr=2", "seed=7", True),
        ("b", "x", "lr=2", "seed=7", True),
    ]


def test_recipes_vary_too() -> None:
    found = parse_line("recipe=x,y sha=" + "a" * 40)
    assert isinstance(found, Sweep)
    assert [(run.recipe, run.sha) for run in found.runs] == [("x", "a" * 40), ("y", "a" * 40)]


def test_the_limit_is_inclusive() -> None:
    found = parse_line("a=" + ",".join(f"v{n}" for n in range(128)) + " b=1,2")
    assert isinstance(found, Sweep)
    assert len(set(found.runs)) == 256


def test_a_preview_changes_nothing_else() -> None:
    found = parse_line("a=1,2 profile=x")
    assert isinstance(found, Sweep)
    assert as_preview(found) == parse_line("plan a=1,2 profile=x")


@pytest.mark.parametrize(
    ("value", "parts"),
    [("", ("",)), ("a", ("a",)), ("a,b", ("a", "b")), (",", ("", "")), ("[,]", ("[,]",)), ("([)]", None), ("(", None), (")", None)],
)
def test_between_commas(value: str, parts: tuple[str, ...] | None) -> None:
    assert between_commas(value) == parts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        ("", ""),
        ("a b", '"a b"'),
        ("[1,2]", "[1,2]"),
        ("1,2", '"1,2"'),
        ("[1,2", '"[1,2"'),
        ('"a', "'\"a'"),
        ("'\"", '"\'\\""'),
        ("it's", "it's"),
        ("a\\ b'", '"a\\ b\'"'),
        ("\\\\ 'b\\", '"\\\\\\ \'b\\\\"'),
    ],
)
def test_quotes_only_where_they_are_needed(value: str, text: str) -> None:
    assert written(value) == text
