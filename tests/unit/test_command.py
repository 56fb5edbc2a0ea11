"""Comments, labels and inputs → commands: tables of what is taken, what is ignored and what is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.command import IGNORED, Cancel, EvaluateGate, Help, Ignored, Scheduled, Status, parse_command, parse_line, parse_words
from dispatcher.event import (
    ClosedEvent,
    CommentEvent,
    LabelEvent,
    ManualEvent,
    MergeGroupEvent,
    OtherEvent,
    PushEvent,
    ScheduleEvent,
)
from dispatcher.grammar import MALFORMED, Malformed, Override, Run, render

SHA = "a" * 40


def said(body: str, **changes: Any) -> CommentEvent:
    fields = {
        "repository": "o/r", "number": 7, "is_pull": True, "pull_state": "open", "comment_id": 1, "body": body, "author": "alice",
        "author_is_bot": False, "action": "created", "created_at": "2026-01-01T00:00:00Z", "comment_url": "", "default_branch": "main",
    }  # fmt: skip
    return CommentEvent(**{**fields, **changes})


def labelled(label: str) -> LabelEvent:
    return LabelEvent("o/r", 7, label, SHA, "o/r", "main", "alice", "2026-01-01T00:00:00Z", False, "main", "pull_request_target")


def manual(**inputs: str) -> ManualEvent:
    return ManualEvent("o/r", {name.replace("_", "-"): value for name, value in inputs.items()}, "alice", "1", "refs/heads/main", "main")


def parsed(body: str) -> Any:
    return parse_command(said(body))


@pytest.mark.parametrize(
    ("body", "command"),
    [
        ("/train", Run()),
        ("/train run", Run()),
        ("/train profile=cluster", Run(profile="cluster")),
        ("   /train profile=cluster", Run(profile="cluster")),
        ("/train\tprofile=cluster  \t recipe=nano3/pretrain ", Run(profile="cluster", recipe="nano3/pretrain")),
        ("/train profile=cluster-80g\r\nprofile=other\r\n", Run(profile="cluster-80g")),
        ("/train profile=a\n\n```\n/train profile=b\n```", Run(profile="a")),
        (f"/train sha={SHA}", Run(sha=SHA)),
        (f"/train sha={SHA.upper()}", Run(sha=SHA)),
        ("/train plan profile=a", Run(profile="a", dry_run=True)),
        ("/train profile=a dry-run=true", Run(profile="a", dry_run=True)),
        ("/train dry-run=false", Run()),
        ("/train a.b=1 c[0].d-e=x=y", Run(overrides=(Override("a.b", "1"), Override("c[0].d-e", "x=y")))),
        ("/train a= b=-1 c=--flag", Run(overrides=(Override("a", ""), Override("b", "-1"), Override("c", "--flag")))),
        ('/train a="b c" d=\'e "f" g\'', Run(overrides=(Override("a", "b c"), Override("d", 'e "f" g')))),
        (r'/train a="say \"hi\" \\ C:\x"', Run(overrides=(Override("a", r'say "hi" \ C:\x'),))),
        ("/train a=\"\" b=''", Run(overrides=(Override("a", ""), Override("b", "")))),
        ("/train a=[1,'x',\"y\"] b={c:d}", Run(overrides=(Override("a", "[1,'x',\"y\"]"), Override("b", "{c:d}")))),
        (
            "/train a=$(id) b=`id` c=;d e=../x",
            Run(overrides=(Override("a", "$(id)"), Override("b", "`id`"), Override("c", ";d"), Override("e", "../x"))),
        ),
        ("/train name=größe", Run(overrides=(Override("name", "größe"),))),
        ("/train run.nodes=4 profiler=x", Run(overrides=(Override("run.nodes", "4"), Override("profiler", "x")))),
        ("/train cancel", Cancel()),
        ("/train cancel 4f1c", Cancel("4f1c")),
        ("/train cancel 0123456789abcdef", Cancel("0123456789abcdef")),
        ("/train status", Status()),
        ("/train help", Help()),
        ("/train help overrides", Help("overrides")),
    ],
)
def test_commands(body: str, command: object) -> None:
    assert parsed(body) == command


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (said("/training is fun"), "not-a-command"),
        (said("/train-me"), "not-a-command"),
        (said("/trainprofile=a"), "not-a-command"),
        (said("please /train"), "not-a-command"),
        (said("> /train profile=a"), "not-a-command"),
        (said("    /train profile=a"), "not-a-command"),
        (said("     /train profile=a"), "not-a-command"),
        (said("\t/train profile=a"), "not-a-command"),
        (said("```\n/train profile=a\n```"), "not-a-command"),
        (said("`/train profile=a`"), "not-a-command"),
        (said("\n/train profile=a"), "not-a-command"),
        (said("\ufeff/train"), "not-a-command"),
        (said("<!-- x -->/train"), "not-a-command"),
        (said("/TRAIN"), "not-a-command"),
        (said(""), "not-a-command"),
        (said("/train", action="edited"), "not-created"),
        (said("/train", action="deleted"), "not-created"),
        (said("/train", author_is_bot=True), "bot"),
        (said("/train", author=""), "bot"),
        (said("/train", is_pull=False), "plain-issue"),
        (labelled("bug"), "other-label"),
        (ClosedEvent("o/r", 7, True, SHA, "main", "alice", "main"), "pull-closed"),
        (OtherEvent("push", ""), "other-event"),
    ],
)
def test_ignored(event: Any, reason: str) -> None:
    assert parse_command(event) == Ignored(reason)
    assert reason in IGNORED


@pytest.mark.parametrize(
    ("body", "code", "said_there"),
    [
        ("/train cluster", "unknown-word", "`profile=cluster`"),
        ("/train cancle", "unknown-word", "**`cancel`**"),
        ("/train --profile cluster", "unknown-word", "key=value"),
        ("/train profile=a status", "unknown-word", "profile=status"),
        ("/train status now", "unknown-word", "`now`"),
        ("/train cancel xyz", "bad-value", "`xyz`"),
        ("/train cancel 4f1c 4f1d", "unknown-word", "4f1d"),
        ("/train help Überblick", "unknown-word", "Überblick"),
        ("/train --flag=1", "bad-key", "`--flag`"),
        ("/train +a=1", "bad-key", "`+a`"),
        ("/train ~a=1", "bad-key", "`~a`"),
        ("/train a..b=1", "bad-key", "`a..b`"),
        ("/train a[x]=1", "bad-key", "`a[x]`"),
        ("/train größe=1", "bad-key", "größe"),
        ("/train =1", "bad-key", '""'),
        ("/train run=4", "bad-key", "run.nodes=4"),
        ("/train profil=a", "bad-key", "**`profile=`**"),
        ("/train porfile=a", "bad-key", "**`profile=`**"),
        ("/train Profile=a", "bad-key", "**`profile=`**"),
        ("/train SHA=a", "bad-key", "**`sha=`**"),
        ("/train recpie=a", "bad-key", "**`recipe=`**"),
        ("/train profile=", "bad-value", "profile"),
        ("/train profile=../x", "bad-value", "`../x`"),
        ("/train profile=a/b", "bad-value", "`a/b`"),
        ("/train profile=a..b", "bad-value", "`a..b`"),
        ("/train profile=-x", "bad-value", "`-x`"),
        ("/train profile=$(id)", "bad-value", "$(id)"),
        ("/train recipe=/etc", "bad-value", "`/etc`"),
        ("/train recipe=a//b", "bad-value", "`a//b`"),
        ("/train sha=abc1234", "bad-value", "40 hex"),
        ("/train sha=" + "g" * 40, "bad-value", "40 hex"),
        ("/train dry-run=yes", "bad-value", "`true` or `false`"),
        ("/train ref=main", "not-here", "`ref`"),
        ("/train pr=3", "not-here", "`pr`"),
        ("/train a=1 a=2", "duplicate-key", "`a`"),
        ("/train profile=a profile=a", "duplicate-key", "`profile`"),
        ("/train a=${oc.env:HOME}", "interpolation", "`${`"),
        ('/train a="b c', "unbalanced-quote", '`"b c`'),
        ('/train a="b"c', "unbalanced-quote", "quote"),
        ("/train a='b", "unbalanced-quote", "quote"),
        ("/train a=“b c”", "unbalanced-quote", "straight"),
        ("/train a=\u200bb", "hidden-character", "ZERO WIDTH SPACE"),
        ("/train\u200b profile=a", "hidden-character", "U+200B"),
        ("/train\u00a0profile=a", "hidden-character", "NO-BREAK SPACE"),
        ("/train a=\u202eb", "hidden-character", "RIGHT-TO-LEFT OVERRIDE"),
        ("/train a=\x1b[31m", "hidden-character", "control character"),
        ("/train a=\x00", "hidden-character", "U+0000"),
        ("/train a=\ud800", "hidden-character", "U+D800"),
        ("/train a=\u2028b", "hidden-character", "LINE SEPARATOR"),
        ("/train a=" + "x" * 513, "too-long", "512"),
        ("/train " + "k" * 257 + "=1", "too-long", "256"),
        ("/train " + "x" * 2001, "too-long", "2,000"),
        ("/train " + " ".join(f"a{i}=1" for i in range(65)), "too-many-overrides", "64"),
    ],
)
def test_malformed(body: str, code: str, said_there: str) -> None:
    command = parsed(body)
    assert isinstance(command, Malformed), command
    assert command.reason_code == code
    assert said_there in f"{command.message} {command.hint}"
    assert code in MALFORMED


def test_every_documented_reason_is_met_above() -> None:
    marks = {mark.args[0][1]: mark.args[1] for test in (test_ignored, test_malformed) for mark in test.pytestmark}
    assert {row[1] for row in marks["reason"]} == set(IGNORED)
    assert {row[1] for row in marks["code"]} | {"conflict"} == set(MALFORMED)


def test_limits_are_inclusive() -> None:
    assert parsed("/train a=" + "x" * 512) == Run(overrides=(Override("a", "x" * 512),))
    assert len(parsed("/train " + " ".join(f"a{i}=1" for i in range(64))).overrides) == 64


def test_what_is_quoted_back_cannot_act_in_markdown() -> None:
    command = parsed("/train `@org/team`<img>")
    assert isinstance(command, Malformed)
    assert "``" in command.message


@pytest.mark.parametrize(
    ("label", "command"),
    [
        ("train:cluster", Run(profile="cluster")),
        ("train:cluster/nano3/pretrain", Run(profile="cluster", recipe="nano3/pretrain")),
        ("train:", Run()),
        ("train", Ignored("other-label")),
        ("Train:cluster", Ignored("other-label")),
    ],
)
def test_labels(label: str, command: object) -> None:
    assert parse_command(labelled(label)) == command


@pytest.mark.parametrize("label", ["train:a b", "train:a/", "train:/x", "train:$(id)", "train:a\u200b", "train:🚀", "train:a=b"])
def test_malformed_labels(label: str) -> None:
    assert isinstance(parse_command(labelled(label)), Malformed)


def test_another_word() -> None:
    assert parse_command(said("/bench profile=a"), word="/bench") == Run(profile="a")
    assert parse_command(said("/train profile=a"), word="/bench") == Ignored("not-a-command")
    assert parse_command(labelled("bench:a"), word="/bench") == Run(profile="a")
    assert parse_command(labelled("train:a"), word="/bench") == Ignored("other-label")


@pytest.mark.parametrize(
    ("inputs", "command"),
    [
        ({}, Run()),
        ({"profile": "a", "recipe": "b", "ref": "feature/x", "dry_run": "true"}, Run("a", "b", None, "feature/x", dry_run=True)),
        ({"pr": "12", "sha": SHA}, Run(sha=SHA, pull=12)),
        ({"overrides": "a=1 b='x y'\r\n c=2\n"}, Run(overrides=(Override("a", "1"), Override("b", "x y"), Override("c", "2")))),
        ({"something-else": "$(id)"}, Run()),
    ],
)
def test_manual_inputs(inputs: dict[str, str], command: object) -> None:
    assert parse_command(manual(**inputs)) == command


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"ref": "main", "pr": "1"}, "conflict"),
        ({"overrides": "profile=b"}, "conflict"),
        ({"pr": "0"}, "bad-value"),
        ({"pr": "1; id"}, "bad-value"),
        ({"pr": "١٢"}, "bad-value"),
        ({"ref": "-x"}, "bad-value"),
        ({"ref": "a..b"}, "bad-value"),
        ({"ref": "refs/pull/5/head"}, "bad-value"),
        ({"ref": "pull/5/head"}, "bad-value"),
        ({"ref": SHA}, "bad-value"),
        ({"ref": "abc1234"}, "bad-value"),
        ({"ref": "a\nb"}, "hidden-character"),
        ({"ref": "a b"}, "bad-value"),
        ({"ref": "HEAD~1"}, "bad-value"),
        ({"ref": "x.lock"}, "bad-value"),
        ({"profile": "a\x00"}, "hidden-character"),
        ({"overrides": "x" * 2001}, "too-long"),
        ({"overrides": "run"}, "unknown-word"),
        ({"dry_run": "1"}, "bad-value"),
    ],
)
def test_malformed_manual_inputs(inputs: dict[str, str], code: str) -> None:
    command = parse_command(manual(**inputs))
    assert isinstance(command, Malformed)
    assert command.reason_code == code


@pytest.mark.parametrize("ref", ["main", "feature/x", "v1.2.3", "release-2026", "heads/abc1234", "größe", "deadbeefg"])
def test_branches_and_tags(ref: str) -> None:
    assert parse_command(manual(ref=ref)) == Run(ref=ref)


@pytest.mark.parametrize(
    ("event", "command"),
    [
        (ScheduleEvent("o/r", "0 5 * * *", "1", "main"), Scheduled("0 5 * * *")),
        (MergeGroupEvent("o/r", SHA, "refs/heads/q", "main", SHA, "main"), EvaluateGate(None, SHA)),
        (PushEvent("o/r", 7, SHA, "", "main", "opened", "main", "o/r", False, False, "alice"), EvaluateGate(7, SHA)),
    ],
)
def test_other_ways_in(event: Any, command: object) -> None:
    assert parse_command(event) == command


@pytest.mark.parametrize(
    ("key", "target", "field"),
    [
        ("run.nodes", "profile", "nodes"),
        ("run.env_vars.A", "profile", "env_vars.A"),
        ("runs.x", "script", "runs.x"),
        ("train.run", "script", "train.run"),
    ],
)
def test_where_an_override_goes(key: str, target: str, field: str) -> None:
    override = Override(key, "1")
    assert (override.target, override.field, override.word) == (target, field, f"{key}=1")


def test_words_that_a_shell_has_split_need_no_quotes() -> None:
    assert parse_words(["profile=a", "x=b c", 'y="z"'], manual=True) == Run(
        profile="a", overrides=(Override("x", "b c"), Override("y", '"z"'))
    )
    assert parse_words([]) == Run()


NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,20}", fullmatch=True)
VISIBLE = st.characters(exclude_categories=("C", "Z")) | st.just(" ")
VALUES = st.text(VISIBLE, max_size=60).filter(lambda text: text.isprintable() and "${" not in text)
KEYS = st.from_regex(r"\A[a-z_][a-z0-9_]{0,8}(\.[a-z0-9_-]{1,6}|\[[0-9]{1,3}\]){1,3}\Z")
RUNS = st.builds(
    Run,
    profile=st.none() | NAMES,
    recipe=st.none() | NAMES,
    sha=st.none() | st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    overrides=st.lists(st.builds(Override, KEYS, VALUES), max_size=8, unique_by=lambda override: override.key).map(tuple),
    dry_run=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(run=RUNS)
def test_what_is_rendered_reads_back(run: Run) -> None:
    assert parse_command(said(render(run) + "\nmore")) == run


@settings(max_examples=100, deadline=None)
@given(run=RUNS, pull=st.integers(1, 999_999_999))
def test_what_is_rendered_for_a_terminal_reads_back(run: Run, pull: int) -> None:
    by_hand = Run(run.profile, run.recipe, run.sha, None, pull, run.overrides, run.dry_run)
    assert parse_line(render(by_hand).removeprefix("/train"), manual=True) == by_hand


@settings(max_examples=300, deadline=None)
@given(rest=st.text(max_size=80) | st.text("/train plrunce=\"' \t[].-${}\\x", max_size=80))
def test_no_line_raises_and_no_hidden_character_gets_through(rest: str) -> None:
    command = parsed("/train " + rest)
    if isinstance(command, Run):
        for override in command.overrides:
            assert override.value.isprintable()
            assert "${" not in override.value
            assert len(override.value) <= 512
