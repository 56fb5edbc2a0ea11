"""Text → plain values with lines; and errors that name file, line and nearest key."""

from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from dispatcher.document import Document, Place, check, known_keys
from dispatcher.errors import ConfigError
from dispatcher.reading import load_document
from dispatcher.values import Between, Model


class Leaf(Model):
    nodes: Annotated[int, Between(1, 100)] = 1
    colour: str = "red"


class Tree(Model):
    name: str
    leaf: Leaf = Leaf()
    leaves: tuple[Leaf, ...] = ()
    named: dict[str, Leaf] = Field(default_factory=dict)


def refused(text: str, path: str = "a.yaml") -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        load_document(text, path)
    return raised.value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("4:00:00", "4:00:00"),
        ("04:00:00", "04:00:00"),
        ("1_000", "1_000"),
        ("0010", "0010"),
        ("0x1F", "0x1F"),
        ("12.10", "12.10"),
        ("1e-4", "1e-4"),
        ("on", "on"),
        ("yes", "yes"),
        ("2026-01-01", "2026-01-01"),
        (".inf", ".inf"),
        ("=", "="),
        ("<<", "<<"),
        ("12", 12),
        ("-3", -3),
        ("9" * 19, "9" * 19),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ('"12"', "12"),
        ("'true'", "true"),
        ("[1, a, [b]]", [1, "a", ["b"]]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("|\n  x\n  y\n", "x\ny\n"),
    ],
)
def test_yaml_values_are_what_was_written(written: str, value: object) -> None:
    assert load_document(f"key: {written}", "a.yaml").value == {"key": value}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("04:00:00", "04:00:00"),
        ("12.10", "12.10"),
        ("1979-05-27", "1979-05-27"),
        ("12", 12),
        ("0x10", 16),
        ("true", True),
        ('"x"', "x"),
        ("[1, {a = 2}]", [1, {"a": 2}]),
    ],
)
def test_toml_values(written: str, value: object) -> None:
    assert load_document(f"key = {written}", "env.toml").value == {"key": value}


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "null"])
def test_an_empty_text_is_an_empty_table(text: str) -> None:
    assert load_document(text, "a.yaml").value == {}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [", 1, "flow"),
        ("a: 1\nb: 'x\n", 2, "quoted scalar"),
        ("a: 1\n\tb: 2", 2, "cannot start any token"),
        ("a: 1\nb: 2\na: 3", 3, "`a` stands there twice (first in line 1)"),
        ("x:\n  a: 1\n  a: 1", 3, "twice"),
        ("a: &x 1\nb: *x", 1, "anchors"),
        ("a: 1\nb: *x", 2, "anchors"),
        ("a: !!python/object/apply:os.system [id]", 1, "tags"),
        ("a: !x 1", 1, "tags"),
        ("- a", 1, "table"),
        ("text", 1, "table"),
        ("? [a]\n: 1", 1, "key must be text"),
        ("a: 1\n---\nb: 2", 2, "document"),
        ("a: \x00", 1, "character"),
        ("a: " + "[" * 40 + "]" * 40, 1, "deep"),
        ("a: " + "[" * 5000 + "]" * 5000, 1, "deep"),
        ("a: " + "x" * 300_000, None, "limit"),
    ],
)
def test_broken_yaml_names_the_line(text: str, line: int | None, words: str) -> None:
    error = refused(text)
    assert error.code == "config.syntax"
    assert words in error.cause
    assert line is None or f"`a.yaml:{line}`" in error.cause


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a = 1\nb = \n", 2, "Invalid value"),
        ("[a]\n[a]\n", 2, "twice"),
        ("a = 1\na = 2\n", 2, "overwrite"),
        ("a = " + "[" * 40 + "]" * 40, 1, "deep"),
        ("a = " + "[" * 50000, 1, ""),
    ],
)
def test_broken_toml_names_the_line(text: str, line: int, words: str) -> None:
    error = refused(text, "env.toml")
    assert error.code == "config.syntax"
    assert f"`env.toml:{line}`" in error.cause
    assert words in error.cause


YAML = """\
# a comment
name: x

leaf:
  nodes: 2
  colour: red
leaves:
  - nodes: 1
    colour: blue
  - { nodes: 2,
      colour: green }
"""

TOML = '''\
# a comment
name = "x"

text = """
[not.a.section]
nodes = 1
"""
list = [
  "a",
  "nodes = 5",
]
[leaf]
nodes = 2
[named."a b"]
colour = "red"
inner.key = 1
'''


@pytest.mark.parametrize(
    ("text", "path", "loc", "line"),
    [
        (YAML, "a.yaml", ("name",), 2),
        (YAML, "a.yaml", ("leaf", "colour"), 6),
        (YAML, "a.yaml", ("leaves", 0), 8),
        (YAML, "a.yaml", ("leaves", 0, "colour"), 9),
        (YAML, "a.yaml", ("leaves", 1, "colour"), 11),
        (YAML, "a.yaml", ("leaf", "nothing", "here"), 4),
        (YAML, "a.yaml", ("nothing",), 1),
        (TOML, "env.toml", ("name",), 2),
        (TOML, "env.toml", ("text",), 4),
        (TOML, "env.toml", ("not", "a"), 1),
        (TOML, "env.toml", ("list", 1), 8),
        (TOML, "env.toml", ("leaf", "nodes"), 13),
        (TOML, "env.toml", ("named", "a b", "colour"), 15),
        (TOML, "env.toml", ("named", "a b", "inner", "key"), 16),
        (TOML, "env.toml", ("named", "a b"), 14),
    ],
)
def test_every_value_knows_its_line(text: str, path: str, loc: tuple[str | int, ...], line: int) -> None:
    assert load_document(text, path).place(loc) == Place(path, line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nlaef: {}", "`a.yaml:2`: `laef` is not a key here; did you mean `leaf`?"),
        ("name: x\nleaf:\n  node: 1", "`a.yaml:3`: `leaf.node` is not a key here; did you mean `nodes`?"),
        ("name: x\nleaves:\n  - nodes: 1\n  - color: red", "`a.yaml:4`: `leaves.1.color` is not a key here; did you mean `colour`?"),
        ("name: x\nnamed:\n  a:\n    nods: 1", "`a.yaml:4`: `named.a.nods` is not a key here; did you mean `nodes`?"),
        ("name: x\nleaf:\n  zzz: 1", "`a.yaml:3`: `leaf.zzz` is not a key here; known are `colour`, `nodes`"),
        ("leaf: {}", "`a.yaml:1`: `name` is missing"),
        ("name: x\nleaf:\n  nodes: true", "`a.yaml:3`: `leaf.nodes` is not a whole number"),
        ("name: x\nleaf:\n  nodes: 0", "`a.yaml:3`: `leaf.nodes` should be greater than or equal to 1"),
        ("name: x\nleaf: 3", "`a.yaml:2`: `leaf` should be a table of `key: value`"),
        ("name: x\n`@org`: 3", "`a.yaml:2`: `` `@org` `` is not a key here"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_place(text: str, expected: str) -> None:
    if "`@org`" in text:
        text = text.replace("`@org`", "'`@org`'")
    with pytest.raises(ConfigError) as raised:
        check(Tree, load_document(text, "a.yaml"))
    assert raised.value.code == "config.invalid"
    assert expected in raised.value.cause


def test_several_problems_come_in_the_order_of_their_lines_and_few_at_a_time() -> None:
    text = "name: x\n" + "".join(f"k{i}: 1\n" for i in range(9))
    with pytest.raises(ConfigError) as raised:
        check(Tree, load_document(text, "a.yaml"))
    lines = raised.value.cause.splitlines()
    assert [line.split("`")[1] for line in lines[:5]] == [f"a.yaml:{n}" for n in range(2, 7)]
    assert lines[5] == "… and 4 more"


def test_values_are_not_repeated_in_errors() -> None:
    with pytest.raises(ConfigError) as raised:
        check(Tree, Document("a.yaml", {"name": "x", "leaf": {"nodes": "hunter2"}}, {}))
    assert "hunter2" not in raised.value.cause


def test_known_keys() -> None:
    assert known_keys(Tree, ()) == ("leaf", "leaves", "name", "named")
    assert known_keys(Tree, ("leaves", 3)) == ("colour", "nodes")
    assert known_keys(Tree, ("named", "x")) == ("colour", "nodes")
    assert known_keys(Tree, ("named",)) == ()
    assert known_keys(Tree, ("name", "x")) == ()


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60) | st.text("ab:-[]{}\"'#&*!|>%@ \n=.\t1", max_size=60), path=st.sampled_from(["a.yaml", "env.toml"]))
def test_any_text_is_a_document_or_the_coded_error(text: str, path: str) -> None:
    try:
        document = load_document(text, path)
    except ConfigError as error:
        code = error.code
    else:
        code = "config.syntax"
        assert_plain(document.value)
    assert code == "config.syntax"


def assert_plain(value: Any) -> None:
    assert value is None or type(value) in (str, int, bool, list, dict), value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        assert_plain(inner)
