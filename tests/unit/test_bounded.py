"""YAML of a pull request is measured before it is built."""

from __future__ import annotations

import time

import pytest

from dispatcher.bounded import DEPTH_LIMIT, NODES_LIMIT, measured, read_json
from dispatcher.errors import ConfigError


def bomb(levels: int, width: int = 10) -> str:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("# nothing\n", 0),
        ("a: 1\n", 3),
        ("a: [1, 2]\nb: {c: d}\n", 9),
        # An alias counts as what it stands for.
        ("a: &x [1, 2]\nb: *x\n", 9),
        ("base: &b {lr: 1}\nown:\n  <<: *b\n  iters: 2\n", 13),
    ],
)
def test_what_is_counted(text: str, count: int) -> None:
    assert measured(text, "a.yaml") == count


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(9), "more than 10,000 values"),
        ("s: &s " + "x" * 100_000 + "\na: [" + ", ".join(["*s"] * 20) + "]\n", "524,288 characters"),
        ("a: &a [*a]\n", "inside of what it names"),
        ("a: &a {b: *a}\n", "inside of what it names"),
        ("[" * (DEPTH_LIMIT + 1), f"nested more than {DEPTH_LIMIT} deep"),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60)), f"nested more than {DEPTH_LIMIT} deep"),
        ("a: !!python/object/apply:os.system ['id']\n", "tags"),
        ("a: !!binary aGVsbG8=\n", "tags"),
        ("a: 1\n---\nb: 2\n", "single document"),
        ("a: *nowhere\n", "undefined alias"),
        ("- 1\n- 2\n", "must be a table"),
        ("text\n", "must be a table"),
        ("a: b: c\n", "mapping values are not allowed"),
        ("a: \x00\n", "does not allow"),
        ("x" * 300_000, "262,144 are the limit"),
        ("a: [" + "1, " * NODES_LIMIT + "]\n", "more than 10,000 values"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        measured(text, "conf/a.yaml")
    assert caught.value.code == "config.syntax"
    assert words in caught.value.cause.replace("`", "")
    assert "conf/a.yaml" in caught.value.cause
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a": ' * 40 + "1" + "}" * 40, f"nested more than {DEPTH_LIMIT} deep"),
        ('{"a": [' + "1," * NODES_LIMIT + "1]}", "more than 10,000 values"),
        ('{"a": 1, "a": 2}', "stands there twice"),
        ('{"a": ' + "9" * 5000 + "}", "integer string conversion"),
        ("{\n\n'a': 1}", "Expecting property name"),
        ("[1]", "must be a table"),
        ("x" * 300_000, "262,144 are the limit"),
    ],
)
def test_json_is_bounded_too(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_json(text, "a.json")
    assert (caught.value.code, words in caught.value.cause) == ("config.syntax", True)


def test_json_is_json() -> None:
    assert read_json('{\n\t"a": ["\\ud83d\\ude00", 1e3, null]\n}', "a.json") == ({"a": ["😀", 1000.0, None]}, 6)
    assert read_json("", "a.json") == ({}, 1)
