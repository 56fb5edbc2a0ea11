"""Every way in (comments, labels, inputs, buttons, …) → commands: tables of what is taken, what is ignored and what is refused."""

from typing import Any

import pytest

from dispatcher.command import (
    IGNORED,
    Drafted,
    EvaluateGate,
    HeadMoved,
    Ignored,
    MergeQueued,
    PullClosed,
    Scheduled,
    Several,
    parse_command,
)
from dispatcher.event import (
    CheckEvent,
    ClosedEvent,
    CommentEvent,
    DraftEvent,
    LabelEvent,
    ManualEvent,
    MergeGroupEvent,
    OtherEvent,
    PushEvent,
    ScheduleEvent,
)
from dispatcher.grammar import MALFORMED, Axis, Malformed, Override, Run, Sweep
from dispatcher.verbs import Approve, Cancel, Help, Retry, Status

SHA = "a" * 40
RUN = "0123456789abcdef"


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


def pressed(external_id: str, button: str, sender: str = "alice") -> CheckEvent:
    return CheckEvent("o/r", 5, "dispatch", external_id, SHA, 7, button, "an-app", sender, "1", "main")


def parsed(body: str) -> Any:
    return parse_command(said(body))


@pytest.mark.parametrize(
    ("body", "command"),
    [
        ("/train", Run()),
        ("/train run", Run()),
        ("/train profile=cluster", Run(profile="cluster")),
        ("   /train profile=cluster", Run(profile="cluster")),
        ("/train profile=a\trecipe=b\tc=1", Run("a", "b", overrides=(Override("c", "1"),))),
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
        ("/train help override", Help("override")),
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
        (labelled("dispatch: gate overridden"), "other-label"),
        (pressed("", ""), "other-check"),
        (pressed("somebody-elses", ""), "other-check"),
        (pressed(RUN, "approve"), "other-check"),
        (pressed(RUN.upper(), "retry"), "other-check"),
        (pressed(RUN[:15], "cancel"), "other-check"),
        (pressed(RUN + "0", ""), "other-check"),
        (pressed(RUN + "\n", ""), "other-check"),
        (pressed(f"approval-{SHA}", ""), "other-check"),
        (pressed(f"approval-{SHA}", "cancel"), "other-check"),
        (pressed("x-gate-1", ""), "other-check"),
        (pressed(RUN, "cancel", "dependabot[bot]"), "bot"),
        (pressed(RUN, "cancel", ""), "bot"),
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
        ("/train profile=a status", "unknown-word", "**`status …`**"),
        ("/train run profile=a status", "unknown-word", "profile=status"),
        ("/train approve", "missing-word", "sha=SHA"),
        ("/train a=1,", "bad-list", "quotes"),
        ("/train a=" + ",".join(map(str, range(257))), "too-many-runs", "257"),
        ("/train a=1\n" * 51, "too-many-commands", "50"),
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
        ("/train profile=a profile=a", "duplicate-key", "`profile=a,b`"),
        ("/train pr=1,2", "not-here", "`pr`"),
        (f"/train sha={SHA},{SHA}", "bad-value", "40 hex"),
        ("/train dry-run=true,false", "bad-value", "`true` or `false`"),
        ("/train cancel " + RUN + "0", "bad-value", "hex digits"),
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
        ("/train a=\u3164b", "hidden-character", "HANGUL FILLER"),
        ("/train a=\u2800", "hidden-character", "BRAILLE PATTERN BLANK"),
        ("/train a=b\ufe0f", "hidden-character", "VARIATION SELECTOR-16"),
        ("/train a=b\U000e0100", "hidden-character", "VARIATION SELECTOR-17"),
        ("/train a=\u2028b", "hidden-character", "LINE SEPARATOR"),
        ("/train a=1\u2028/train b=2", "hidden-character", "LINE SEPARATOR"),
        ("/train a=1\x0b/train b=2", "hidden-character", "U+000B"),
        ("/train a=1\x85/train b=2", "hidden-character", "U+0085"),
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
    # What is found out only with the policy, `flow.py` says.
    assert {row[1] for row in marks["reason"]} == set(IGNORED) - {"draft", "pull-closed"}
    assert {row[1] for row in marks["code"]} | {"conflict"} == set(MALFORMED)


@pytest.mark.parametrize(
    ("body", "commands"),
    [
        ("/train a=1\n/train status", (Run(overrides=(Override("a", "1"),)), Status())),
        ("/train\r\n/train help\r/train cancel all", (Run(), Help(), Cancel(all=True))),
        ("/train\n\n \t \n   /train help\nThat is all.\n/train status", (Run(), Help())),
        ("/train\n/train\n> /train help", (Run(), Run())),
        ("/train\n/train\n    /train help", (Run(), Run())),
        ("/train profile=a,b\n/train", (Sweep(Run("a"), (Axis("profile", ("a", "b")),)), Run())),
        ("/train\n" * 50, (Run(),) * 50),
    ],
)
def test_several_commands(body: str, commands: tuple[Any, ...]) -> None:
    assert parsed(body) == Several(commands)


@pytest.mark.parametrize(
    "body", ["/train\n", "/train\n\n\n", "/train\nand\n/train", "/train\n/training", "/train\n```\n/train", "/train\n\u200b/train"]
)
def test_what_follows_a_single_command_is_text(body: str) -> None:
    assert parsed(body) == Run()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("/train\n/train cancle", "Line 2: `cancle`"),
        ("/train\n\n\n/train a=", None),
        ("/train cancle\n/train", "Line 1: `cancle`"),
        ("/train\r\n\r\n/train cancle\r\n/train help helpp", "Line 3: `cancle`"),
        ("/train\n/train\u200b", "Line 2: Character 1 is U+200B"),
        ("/train cancle\nhelp", "`cancle`"),
    ],
)
def test_one_malformed_command_makes_the_comment_malformed(body: str, message: str | None) -> None:
    command = parsed(body)
    if message is None:
        assert isinstance(command, Several)
    else:
        assert isinstance(command, Malformed)
        assert command.message.startswith(message)


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
        # A required run may ask for these.
        ("train", EvaluateGate()),
        ("Train:cluster", EvaluateGate()),
    ],
)
def test_labels(label: str, command: object) -> None:
    assert parse_command(labelled(label)) == command


@pytest.mark.parametrize(
    "label", ["train:a,b", "train:a/b,c", "train:a b", "train:a/", "train:/x", "train:$(id)", "train:a\u200b", "train:🚀", "train:a=b"]
)
def test_malformed_labels(label: str) -> None:
    assert isinstance(parse_command(labelled(label)), Malformed)


def test_another_word() -> None:
    assert parse_command(said("/bench profile=a"), word="/bench") == Run(profile="a")
    assert parse_command(said("/train profile=a"), word="/bench") == Ignored("not-a-command")
    assert parse_command(labelled("bench:a"), word="/bench") == Run(profile="a")
    assert parse_command(labelled("train:a"), word="/bench") == EvaluateGate()
    assert parse_command(said(""), word="") == parse_command(said("profile=a"), word="") == Ignored("not-a-command")
    assert parse_command(labelled(""), word="") == EvaluateGate()


@pytest.mark.parametrize(
    ("inputs", "command"),
    [
        ({}, Run()),
        ({"profile": "a", "recipe": "b", "ref": "feature/x", "dry_run": "true"}, Run("a", "b", None, "feature/x", dry_run=True)),
        ({"pr": "12", "sha": SHA}, Run(sha=SHA, pull=12)),
        ({"overrides": "a=1 b='x y'\r\n c=2\n"}, Run(overrides=(Override("a", "1"), Override("b", "x y"), Override("c", "2")))),
        ({"something-else": "$(id)"}, Run()),
        ({"profile": "a,b", "ref": "x,y"}, Sweep(Run("a", ref="x,y"), (Axis("profile", ("a", "b")),))),
        ({"overrides": "a=1,2 b='1,2'"}, Sweep(Run(overrides=(Override("a", "1"), Override("b", "1,2"))), (Axis("a", ("1", "2")),))),
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
        ({"profile": "a," * 1001}, "too-long"),
        ({"profile": "a,a"}, "bad-list"),
        ({"pr": "1,2"}, "bad-value"),
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
        (MergeGroupEvent("o/r", SHA, "refs/heads/q", "main", SHA, "main"), MergeQueued()),
        (PushEvent("o/r", 7, SHA, "", "main", "opened", "main", "o/r", False, False, "alice"), HeadMoved()),
        (ClosedEvent("o/r", 7, True, SHA, "main", "alice", "main"), PullClosed()),
        (DraftEvent("o/r", 7, SHA, "main", "alice", "main"), Drafted()),
        (pressed(RUN, "cancel"), Cancel(RUN)),
        (pressed(RUN, "retry"), Retry(RUN)),
        (pressed(RUN, ""), Retry(RUN)),
        (pressed(f"gate-{SHA}", ""), EvaluateGate()),
        (pressed(f"approval-{SHA}", "approve"), Approve(SHA)),
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
