"""Parse → print → parse is the identity, for every command; and no text whatever makes the parser raise."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dispatcher.command import Ignored, Several, parse_command
from dispatcher.event import CheckEvent, CommentEvent, LabelEvent, ManualEvent
from dispatcher.grammar import Axis, Malformed, Override, Run, Sweep, hidden_in
from dispatcher.printing import render, render_for_shell, words_of
from dispatcher.verb_help import TOPICS
from dispatcher.verbs import AcceptBaseline, Approve, Cancel, Help, Logs, Retry, Status, Waive, parse_line, parse_words

SHA = "a" * 40


def said(body: str) -> CommentEvent:
    return CommentEvent("o/r", 7, True, "open", 1, body, "alice", False, "created", "2026-01-01T00:00:00Z", "", "main")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "/train"),
        ("run  profile='a'", "/train profile=a"),
        ("dry-run=true b=1 sha=" + SHA.upper() + " recipe=x", f"/train plan recipe=x sha={SHA} b=1"),
        ("a='' b=\"\" c=", "/train a= b= c="),
        ("a='b c' d='[1,2]' e='1,2'", '/train a="b c" d=[1,2] e="1,2"'),
        ("lr=1,2 recipe=x profile=a,b", "/train recipe=x lr=1,2 profile=a,b"),
        ("recipe=x profile=a,b", "/train profile=a,b recipe=x"),
        ("plan n=1 recipe=x,y lr=1,2 m=3", "/train plan recipe=x,y n=1 lr=1,2 m=3"),
        ("logs lines=200 4F1C", "/train logs 4f1c"),
        ("logs lines=20", "/train logs lines=20"),
        ("logs task=0 4F1C", "/train logs 4f1c task=0"),
        ("cancel profile=a", "/train cancel profile=a"),
        ("cancel all", "/train cancel all"),
        ("retry all", "/train retry all"),
        ("override reason='it is' g", '/train override g reason="it is"'),
        ("baseline accept", "/train baseline accept"),
        ("help run", "/train help run"),
    ],
)
def test_the_canonical_text(line: str, text: str) -> None:
    found = parse_line(line)
    assert not isinstance(found, Malformed)
    assert render(found) == text


def test_what_is_printed_for_a_terminal_is_quoted_for_the_shell() -> None:
    run = Run("a", overrides=(Override("x", "$(id)"), Override("y", "b c"), Override("z", "1,2")))
    assert render_for_shell(run, "nemotron-dispatch submit") == "nemotron-dispatch submit profile=a 'x=$(id)' 'y=\"b c\"' 'z=\"1,2\"'"


NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,20}", fullmatch=True)
RECIPES = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
RUN_KEYS = st.from_regex(r"[0-9a-f]{4,16}", fullmatch=True)
SHAS = st.from_regex(r"[0-9a-f]{40}", fullmatch=True)
VISIBLE = st.characters(exclude_categories=("C", "Z")) | st.just(" ") | st.sampled_from(",\"'\\[](){}=$“")
VALUES = st.text(VISIBLE, max_size=60).filter(lambda text: hidden_in(text) is None and "${" not in text)
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}(\.[a-z0-9_-]{1,6}|\[[0-9]{1,3}\]){1,3}", fullmatch=True)
OVERRIDES = st.lists(st.builds(Override, KEYS, VALUES), max_size=8, unique_by=lambda item: item.key).map(tuple)
RUNS = st.builds(
    Run,
    profile=st.none() | NAMES,
    recipe=st.none() | RECIPES,
    sha=st.none() | SHAS,
    overrides=OVERRIDES,
    dry_run=st.booleans(),
)
PARTS = VALUES.filter(lambda text: text and text[0] not in "\"'“”„‘’«" and not set(text) & set(" ,()[]{}")) | st.sampled_from(
    ["[1,2]", "f(x,{y})", "it's", "-1"]
)


@st.composite
def sweeps(draw: Any) -> Sweep:
    """Some of a run's settings and overrides varied, the axes in any order that can be written."""
    run = draw(RUNS)
    values = {item.key: draw(st.lists(PARTS, min_size=2, max_size=3, unique=True)) for item in run.overrides[:3] if draw(st.booleans())}
    order = list(values)
    for key, kind in (("profile", NAMES), ("recipe", RECIPES)):
        if not values or draw(st.booleans()):
            values[key] = draw(st.lists(kind, min_size=2, max_size=3, unique=True))
            order.insert(draw(st.integers(0, len(order))), key)
    axes = tuple(Axis(key, tuple(values[key])) for key in order)
    first = {axis.key: axis.values[0] for axis in axes}
    overrides = tuple(Override(item.key, first.get(item.key, item.value)) for item in run.overrides)
    return Sweep(Run(first.get("profile", run.profile), first.get("recipe", run.recipe), run.sha, None, None, overrides, run.dry_run), axes)


REASONS = st.text(VISIBLE, min_size=3, max_size=300).map(str.strip).filter(lambda text: len(text) >= 3 and hidden_in(text) is None)
VERBS = st.one_of(
    RUNS,
    sweeps(),
    st.just(Status()),
    st.builds(Help, st.sampled_from(["", *TOPICS])),
    st.builds(Logs, st.none() | RUN_KEYS, st.integers(1, 2000)),
    st.builds(Cancel, RUN_KEYS) | st.builds(Cancel, profile=NAMES) | st.sampled_from([Cancel(), Cancel(all=True)]),
    st.builds(Retry, RUN_KEYS) | st.sampled_from([Retry(), Retry(all=True)]),
    st.builds(Approve, SHAS),
    st.builds(Waive, st.from_regex(r"[a-z0-9/_.-]{1,64}", fullmatch=True), REASONS),
    st.builds(AcceptBaseline, st.none() | RUN_KEYS, st.just("") | REASONS),
)


@settings(max_examples=400, deadline=None)
@given(verb=VERBS)
def test_what_is_printed_reads_back(verb: Any) -> None:
    line = render(verb)
    if len(line) <= 2000:
        assert parse_command(said(line + "\nmore")) == verb
    assert parse_words(words_of(verb)) == verb
    assert parse_words(shlex.split(render_for_shell(verb, "program"))[1:]) == verb


@settings(max_examples=60, deadline=None)
@given(verbs=st.lists(VERBS, min_size=2, max_size=5).map(tuple))
def test_several_read_back(verbs: tuple[Any, ...]) -> None:
    text = render(Several(verbs))
    if max(map(len, text.splitlines())) <= 2000:
        assert parse_command(said(text)) == Several(verbs)


@settings(max_examples=60, deadline=None)
@given(run=RUNS, pull=st.integers(1, 999_999_999))
def test_what_is_asked_by_hand_reads_back(run: Run, pull: int) -> None:
    by_hand = Run(run.profile, run.recipe, run.sha, None, pull, run.overrides, run.dry_run)
    assert parse_words(words_of(by_hand), manual=True) == by_hand


def one_of(words: str) -> st.SearchStrategy[str]:
    return st.sampled_from(words.split("|"))


HEADS = one_of("run|plan|status|logs|cancel|retry|approve|override|override g|baseline accept|help|")
LATER = one_of("all|4f1c|help|accept|x|profiles|dispatch/gate|--|../|/train|,|=|")
SOME_KEYS = one_of("profile|recipe|sha|dry-run|lr|run.nodes|a.b[0]|lines|reason|ref|pr|run|Profile|x")
BITS = 'a b|1|1,2|a,b,c|true|[1,2]|[1,(2]|\'|"|\\|\\"|$|${|“|`|<|{}|=|,|\n|\r\n/train |\t| |\u200b|\u202e|\u2028|\x00|\x1b[31m|\ud800|é|%0A'
BIT = one_of(BITS) | st.just(SHA)
ONE_VALUE = st.lists(BIT, max_size=3).map("".join)
QUOTED = ONE_VALUE.map(lambda text: f"'{text}'") | ONE_VALUE.map(lambda text: f'"{text}"')
PAIRS = st.builds("{}={}".format, SOME_KEYS, BIT | ONE_VALUE | QUOTED)
GOOD = one_of(
    f"profile=a|profile='a,b'|profile=a,b|recipe=x/y,z|lr=1,2|lr=[1,2],3|lr=\"1,2\"|run.nodes=2|n='a b'|m=|dry-run=true|sha={SHA}"
)
OTHER = one_of(
    f'override g reason=\'it, is\'|override g reason="a\\"b"|approve sha={SHA}|logs lines=5|cancel profile=a|cancel all|retry all'
)
LINES = (
    OTHER
    | st.builds(lambda head, words: " ".join([head, *words]), HEADS, st.lists(GOOD, max_size=4, unique_by=lambda word: word[:3]))
    | st.builds(lambda head, words: " ".join([head, *words]), HEADS, st.lists(GOOD | PAIRS | LATER, max_size=4))
)
TEXTS = (
    st.text(max_size=120)
    | LINES
    | st.lists(LINES, max_size=3).map("\n/train ".join)
    | st.text("/train plr=\"' \t\n[](){},.-${}\\x", max_size=120)
)


def test_the_texts_below_are_understood_often_enough_to_prove_something() -> None:
    understood: set[type] = set()

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(rest=LINES)
    def look(rest: str) -> None:
        understood.add(type(parse_line(rest)))

    look()
    assert {Run, Sweep, Malformed, Status, Help, Logs, Cancel, Retry, Approve, Waive, AcceptBaseline} <= understood


@settings(max_examples=600, deadline=None)
@given(rest=TEXTS)
@example(rest='a="' * 600)
@example(rest="a='\"" * 400)
@example(rest="[" * 1999)
@example(rest="a=" + "(," * 900)
@example(rest="\\" * 1990 + '"')
@example(rest='a="' + '\\"' * 990)
@example(rest="\n/train" * 9000)
@example(rest="," * 65_000)
@example(rest=" ".join(f"k{n}=" for n in range(64)) + " a='" + '"' * 512 + "' b='" + '"' * 512 + "' c='" + '"' * 512 + "' d=" + "x" * 140)
@example(rest=" ".join(f"k{n}=" for n in range(60)) + " a=\"' " + "\\x" * 255 + '" b="\' ' + "\\x" * 255 + '" c="\' ' + "\\x" * 255 + '"')
@example(rest="\ud800" * 500)
@example(rest="\U0010ffff\u0600\u180e")
@example(rest="override 0 reason=00,")
def test_no_text_makes_the_parser_raise_and_what_it_takes_reads_back(rest: str) -> None:
    for found in (parse_command(said("/train " + rest)), parse_command(said(rest))):
        if isinstance(found, Malformed):
            assert (found.message + found.hint).isprintable()
            assert len(found.message) < 1000
        elif not isinstance(found, Ignored):
            text = render(found)
            # A reason that ends in a comma gets its quotes.
            assert max(map(len, text.split("\n"))) - 2 <= max(6, *map(len, said("/train " + rest).body.split("\n")))
            assert parse_command(said(text)) == found
            if isinstance(found, Run):
                assert all(item.value.isprintable() and "${" not in item.value and len(item.value) <= 512 for item in found.overrides)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, other=TEXTS, name=st.sampled_from(["profile", "recipe", "ref", "pr", "sha", "dry_run", "overrides"]))
def test_no_other_way_in_raises(text: str, other: str, name: str) -> None:
    label = LabelEvent("o/r", 7, f"train:{text}", SHA, "o/r", "main", "alice", "", False, "main", "pull_request_target")
    assert isinstance(parse_command(label), Run | Malformed)
    by_hand = ManualEvent("o/r", {name: text, "overrides": other, text: other}, "alice", "1", "refs/heads/main", "main")
    assert isinstance(parse_command(by_hand), Run | Sweep | Malformed)
    parse_words([text, other], manual=True)
    parse_command(CheckEvent("o/r", 1, text, other, SHA, None, text, "an-app", "alice", "1", "main"))
    parse_command(said(text), word=other)
