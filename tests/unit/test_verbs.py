"""Every verb: what it takes, what it refuses and with which suggestion; and that the table about them tells the truth."""

from __future__ import annotations

import re

import pytest

from dispatcher.grammar import MALFORMED, Axis, Malformed, Override, Run, Sweep
from dispatcher.verb_help import TOPICS
from dispatcher.verbs import (
    VERBS,
    AcceptBaseline,
    Approve,
    Cancel,
    Help,
    Logs,
    Retry,
    Status,
    Waive,
    parse_line,
    parse_words,
)

SHA = "0123456789abcdef0123456789abcdef01234567"
RUN = "0123456789abcdef"
KINDS = {
    "run": (Run, Sweep), "plan": (Run, Sweep), "status": Status, "logs": Logs, "cancel": Cancel, "retry": Retry, "approve": Approve,
    "override": Waive, "baseline": AcceptBaseline, "help": Help,
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("", Run()),
        ("run", Run()),
        ("plan", Run(dry_run=True)),
        ("plan dry-run=false", Run(dry_run=True)),
        ("plan profile=a,b", Sweep(Run("a", dry_run=True), (Axis("profile", ("a", "b")),))),
        ("status", Status()),
        ('"status"', Status()),
        ("logs", Logs()),
        ("logs 4f1c", Logs("4f1c")),
        ("logs lines=1", Logs(lines=1)),
        ("logs lines=2000 4F1C", Logs("4f1c", 2000)),
        ("logs task=0", Logs(task=0)),
        ("logs 4f1c task=9999999 lines=5", Logs("4f1c", 5, 9999999)),
        ("cancel", Cancel()),
        (f"cancel {RUN}", Cancel(RUN)),
        ("cancel profile=cluster-80g", Cancel(profile="cluster-80g")),
        ("cancel all", Cancel(all=True)),
        ("retry", Retry()),
        ("retry 4f1c", Retry("4f1c")),
        ("retry all", Retry(all=True)),
        (f"approve sha={SHA}", Approve(SHA)),
        (f"approve sha={SHA.upper()}", Approve(SHA)),
        ('override dispatch/gate reason="the cluster, is down"', Waive("dispatch/gate", "the cluster, is down")),
        ("override a_b.c-d reason=abc", Waive("a_b.c-d", "abc")),
        ("override dispatch/gate reason=' ${x}, \"größe\" '", Waive("dispatch/gate", '${x}, "größe"')),
        ("override reason=" + "x" * 300 + " " + "g" * 64, Waive("g" * 64, "x" * 300)),
        ("baseline accept", AcceptBaseline()),
        ("baseline accept 4f1c", AcceptBaseline("4f1c")),
        ('baseline accept reason="a longer warm-up"', AcceptBaseline(None, "a longer warm-up")),
        ("help", Help()),
        *((f"help {topic}", Help(topic)) for topic in TOPICS),
    ],
)
def test_right(line: str, command: object) -> None:
    assert parse_line(line) == command
    assert parse_line(f" \t{line}\t") == command


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("stauts", "unknown-word", "**`status`**"),
        ("Status", "unknown-word", "**`status`**"),
        ("log", "unknown-word", "**`logs`**"),
        ("rerty", "unknown-word", "**`retry`**"),
        ("aprove", "unknown-word", "**`approve`**"),
        ("overide", "unknown-word", "**`override`**"),
        ("basline", "unknown-word", "**`baseline`**"),
        ("quux", "unknown-word", "`profile=quux`"),
        ("profile=a plan", "unknown-word", "**`plan …`**"),
        ("status all", "unknown-word", "Write `status`"),
        ("status x=1", "bad-key", "`status` has no `x`"),
        ("logs line=5", "bad-key", "**`lines=`**"),
        ("logs Lines=5", "bad-key", "**`lines=`**"),
        ("logs tail=5", "bad-key", "`logs [RUN] [lines=N] [task=N]`"),
        ("logs lines=0", "bad-value", "1 to 2000"),
        ("logs lines=2001", "bad-value", "1 to 2000"),
        ("logs lines=05", "bad-value", "`05`"),
        ("logs lines=-5", "bad-value", "`-5`"),
        ("logs lines=٥", "bad-value", "1 to 2000"),
        ("logs lines=", "bad-value", '`""`'),
        ("logs lines=5 lines=6", "duplicate-key", "`lines`"),
        ("logs task=", "bad-value", '`""`'),
        ("logs task=03", "bad-value", "`03`"),
        ("logs task=-1", "bad-value", "`-1`"),
        ("logs task=12345678901", "bad-value", "10 digits"),
        ("logs task=٣", "bad-value", "a task's number"),
        ("logs task=1,2", "bad-value", "`1,2`"),
        ("logs 4f1", "bad-value", "`4f1`"),
        ("logs all", "bad-value", "4 to 16"),
        ("logs 4f1c 4f1d", "unknown-word", "4f1d"),
        ("cancel al", "bad-value", "**`all`**"),
        ("cancel ALL", "bad-value", "**`all`**"),
        ("cancel cluster", "bad-value", "profile=NAME"),
        ("cancel profil=a", "bad-key", "**`profile=`**"),
        ("cancel profile=a,b", "bad-value", "`a,b`"),
        ("cancel profile=", "bad-value", "a profile's name"),
        ("cancel all=true", "bad-key", "cancel [RUN"),
        ("cancel all profile=a", "conflict", "`all`"),
        ("cancel 4f1c profile=a", "conflict", "`4f1c`"),
        (f"cancel {RUN}0", "bad-value", "4 to 16"),
        ("retry lr=1", "bad-key", "retry [RUN"),
        ("retry aal", "bad-value", "**`all`**"),
        ("approve", "missing-word", "`approve sha=SHA`"),
        (f"approve {SHA}", "unknown-word", "`approve sha=SHA`"),
        ("approve sha=abc1234", "bad-value", "40 hex"),
        (f"approve sha={SHA},{SHA}", "bad-value", "40 hex"),
        (f"approve shaa={SHA}", "bad-key", "**`sha=`**"),
        ("override", "missing-word", "the gate's name"),
        ("override reason=abc", "missing-word", "the gate's name"),
        ("override dispatch/gate", "missing-word", "a reason"),
        ("override dispatch/gate because=abc", "bad-key", "reason="),
        ("override dispatch/gate Reason=abc", "bad-key", "**`reason=`**"),
        ("override dispatch/gate reason=ab", "bad-value", "3 to 300"),
        ("override dispatch/gate reason='  a  '", "bad-value", "3 to 300"),
        ("override dispatch/gate reason=" + "x" * 301, "bad-value", "3 to 300"),
        ("override dispatch/gate reason='a\tb'", "bad-value", "can be seen"),
        ("override dispatch/gate reason=two words", "unknown-word", "quotes"),
        ("override Gate reason=abc", "bad-value", "`Gate`"),
        ("override " + "g" * 65 + " reason=abc", "bad-value", "64"),
        ("baseline", "missing-word", "baseline accept"),
        ("baseline acept", "unknown-word", "**`accept`**"),
        ("baseline 4f1c", "unknown-word", "baseline accept [RUN]"),
        ("baseline accept xyz", "bad-value", "`xyz`"),
        ("baseline accept 4f1c 4f1d", "unknown-word", "4f1d"),
        ("help profile", "unknown-word", "**`help profiles`**"),
        ("help quux", "unknown-word", "`recipes`"),
        ("help cancel retry", "unknown-word", "cancel retry"),
        ("help topic=run", "bad-key", "help [VERB"),
    ],
)
def test_wrong(line: str, code: str, said: str) -> None:
    found = parse_line(line)
    assert isinstance(found, Malformed), found
    assert (found.reason_code, code in MALFORMED) == (code, True)
    assert said in f"{found.message} {found.hint}"


def test_the_table_names_every_verb_and_its_examples_can_be_given() -> None:
    assert set(VERBS) == set(KINDS)
    for name, verb in VERBS.items():
        assert verb.usage.startswith((name, f"[{name}]"))
        assert verb.examples
        for example in verb.examples:
            assert isinstance(parse_line(example), KINDS[name]), example
        assert not verb.does.endswith(".")
        assert not verb.notes or verb.notes.endswith(".")


def test_every_key_in_a_usage_is_known_and_no_other() -> None:
    for name, verb in VERBS.items():
        for key in set(re.findall(r"([a-z]+)=[A-Z\"]", verb.usage)):
            found = parse_line(f"{name} {key}=")
            assert not isinstance(found, Malformed) or found.reason_code != "bad-key", (name, key)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([], Run()),
        (["profile=a", "x=b c"], Run("a", overrides=(Override("x", "b c"),))),
        (['x="a,b"'], Run(overrides=(Override("x", "a,b"),))),
        (["x='a,b'"], Run(overrides=(Override("x", "a,b"),))),
        (['x="say \\"hi\\""'], Run(overrides=(Override("x", 'say "hi"'),))),
        (["x=1,2"], Sweep(Run(overrides=(Override("x", "1"),)), (Axis("x", ("1", "2")),))),
        (["x=say 'hi'"], Run(overrides=(Override("x", "say 'hi'"),))),
        (["pr=7"], Run(pull=7)),
        (["override", "dispatch/gate", "reason=it is, down"], Waive("dispatch/gate", "it is, down")),
    ],
)
def test_words_that_a_shell_has_split(words: list[str], command: object) -> None:
    assert parse_words(words, manual=True) == command


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (['x="a'], "unbalanced-quote"),
        (['x="a"b'], "unbalanced-quote"),
        (['x="a","b"'], "unbalanced-quote"),
        (["x=a b,c"], "bad-list"),
        (["x=a\nb"], "hidden-character"),
        (["stat\u200bus"], "hidden-character"),
        (["a b"], "unknown-word"),
        ([""], "unknown-word"),
        (["x y=1"], "bad-key"),
    ],
)
def test_words_that_cannot_be_understood(words: list[str], code: str) -> None:
    found = parse_words(words, manual=True)
    assert isinstance(found, Malformed)
    assert found.reason_code == code


def test_a_pull_request_or_branch_is_named_only_by_hand() -> None:
    found = parse_words(["pr=7"])
    assert isinstance(found, Malformed)
    assert found.reason_code == "not-here"
