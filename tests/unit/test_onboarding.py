"""Answers → files that what reads them takes, and the steps that are left; what cannot be an answer is refused in words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from dispatcher.arguments import parser
from dispatcher.chores import Place, label_lines, next_steps, wanted_labels
from dispatcher.errors import InputError
from dispatcher.known_hosts import HostKey, known_keys
from dispatcher.onboarding import QUESTIONS, Question, gather, read_fingerprint
from dispatcher.policy import POLICY_PATH, Policy, load_policy
from dispatcher.profile import LocalProfile, ResolvedProfile, SlurmProfile, resolve_profile
from dispatcher.scaffold import Setup, setup_files, yaml_word
from dispatcher.workflows import WAYS

ACTION = "org/nemotron-dispatch@0123456789abcdef0123456789abcdef01234567 # v1.2.3"
SLURM = {
    "host": "login.example.com",
    "user": "ci",
    "account": "ml",
    "job_dir": "/lustre/ci/dispatch",
    "script": "train.py",
    "action": ACTION,
}
LOCAL = {"executor": "local", "script": "train.py", "action": ACTION}
KEY = HostKey("ssh-ed25519", (11).to_bytes(4, "big") + b"ssh-ed25519" + bytes([0, 0, 0, 32]) + bytes(32))


def setup(keys: tuple[HostKey, ...] = (), base: Mapping[str, str] = SLURM, **flags: str) -> Setup:
    return Setup(gather({**base, **flags}, {}, None), keys)


def profile(found: Setup) -> Any:
    resolved = resolve_profile(found.profile, setup_files(found), (), {})
    assert isinstance(resolved, ResolvedProfile)
    return resolved.profile


def policy(found: Setup) -> Policy:
    return load_policy(setup_files(found)[POLICY_PATH])


def test_every_question_is_a_flag_under_its_name() -> None:
    [commands] = [action.choices for action in parser()._actions if action.dest == "command"]
    assert isinstance(commands, dict)
    flags = commands["init"]._option_string_actions
    for question in QUESTIONS:
        assert flags[question.flag].dest == question.name


# --------------------------------------------------------------------------- files


def test_every_combination_can_be_used() -> None:
    ways = (",".join(WAYS), *WAYS)
    either = [("no", "yes", "yes", ()), ("check", "no", "no", (KEY,)), ("job", "yes", "no", (KEY, KEY))]
    for way, (gate, closed, app, keys) in itertools.product(ways, either):
        written = setup_files(setup(keys, ways=way, gate=gate, cancel_closed=closed, app=app))
        assert "profiles/cluster.yaml" in written
        found = load_policy(written[POLICY_PATH])
        assert len(found.gate.required) == (gate != "no")
        assert len(found.schedules) == ("schedule" in way)
        assert (found.pulls.closed, found.pulls.draft) == (("cancel",) * 2 if closed == "yes" else ("leave",) * 2)
    for way, app in itertools.product(ways, ("yes", "no")):
        assert setup_files(setup(base=LOCAL, ways=way, app=app)).keys() == {
            ".github/workflows/train.yml",
            POLICY_PATH,
            "profiles/local.yaml",
        }


def test_a_cluster_is_what_was_said() -> None:
    said = {"profile": "dgx", "port": "2222", "partition": "batch", "nodes": "2", "gpus": "8", "time": "1-00:00:00"}
    found = profile(setup((KEY,), **said))
    assert isinstance(found, SlurmProfile)
    assert (found.host, found.port, found.user, found.account, found.partition) == ("login.example.com", 2222, "ci", "ml", "batch")
    assert (found.remote_job_dir, found.nodes, found.gpus_per_node, found.time) == ("/lustre/ci/dispatch", 2, 8, "1-00:00:00")
    assert found.attach is False
    # The confirmed key and no other, for this host and port.
    assert known_keys(found.known_hosts or "", "login.example.com", 2222).accepted == (KEY,)
    assert known_keys(found.known_hosts or "", "login.example.com", 22).accepted == ()


def test_what_was_left_open_is_left_to_the_cluster() -> None:
    found = profile(setup())
    assert (found.partition, found.gpus_per_node, found.known_hosts, found.port) == (None, None, None, 22)
    assert isinstance(profile(setup(base=LOCAL)), LocalProfile)
    recipe = policy(setup()).recipes["default"]
    assert (recipe.script, recipe.launcher) == ("train.py", "none")
    assert policy(setup(gpus="8")).recipes["default"].launcher == "torchrun"
    assert policy(setup(nodes="2", launcher="none")).recipes["default"].launcher == "none"


def test_the_variable_for_host_keys_is_used_only_where_the_profile_has_none() -> None:
    assert "CLUSTER_KNOWN_HOSTS" in setup_files(setup())[".github/workflows/train.yml"]
    assert not any("vars.CLUSTER_KNOWN_HOSTS" in text for text in setup_files(setup((KEY,))).values())


def test_the_policy_explains_every_key() -> None:
    """Each key of the model stands in the file, chosen or behind a sign, with words above it."""
    text = setup_files(setup())[POLICY_PATH]
    for name in Policy.model_fields:
        assert re.search(rf"^(# )?{name}:", text, re.MULTILINE), name


@pytest.mark.parametrize(
    "line", ["most: { runs: 8", "limits: { nodes: 8", "active: { user: 2", "budget: { user: 500", "approval: { gpu_hours"]
)
def test_a_proposed_key_can_be_taken_as_it_stands(line: str) -> None:
    text = setup_files(setup())[POLICY_PATH]
    assert line in text
    load_policy(text.replace(f"# {line}", line))


@pytest.mark.parametrize(
    "word", ["on", "Yes", "null", "123", "1e3", "0x1f", "a=b", "~", "-x", "1.5", "cluster", "/lustre/a b", "x: y", 'q"']
)
def test_a_word_stays_a_text(word: str) -> None:
    assert yaml.safe_load(f"key: {yaml_word(word)}") == {"key": word}
    assert yaml.safe_load(f"key: [{yaml_word(word)}]") == {"key": [word]}


def test_names_that_yaml_would_misread() -> None:
    found = setup(profile="no", account="123", user="on", partition="null", script="1.py")
    assert policy(found).default_profile == "no"
    assert policy(found).watch.profiles == ("no",)
    assert (profile(found).account, profile(found).user, profile(found).partition) == ("123", "on", "null")
    assert yaml.safe_load(setup_files(found)["profiles/no.yaml"])["user"] == "on"


# --------------------------------------------------------------------------- answers


BAD = {
    "executor": ("dgx", ""),
    "profile": ("a b", "../x", "-x", "", "a/b"),
    "host": ("a b", "-oProxyCommand=x", "a;b", "", "a\nb"),
    "port": ("0", "65536", "ssh", "", "22 "),
    "user": ("-l", "a b", "", "$(id)"),
    "account": ("a b", "", "x\ny"),
    "partition": ("a b", "a;b"),
    "job_dir": ("relative", "/a/../b", "/a b", "~/x", "$HOME", ""),
    "nodes": ("0", "-1", "two", ""),
    "gpus": ("-1", "65", "x"),
    "time": ("0", "soon", ""),
    "script": ("/etc/passwd", "../x.py", "a b.py", "", "x.py\nlauncher: y"),
    "launcher": ("mpi",),
    "ways": ("", "comments,mail", ","),
    "gate": ("yes", ""),
    "cancel_closed": ("maybe",),
    "app": ("true",),
    "action": ("org/name@v1", "main"),
    "cron": ("daily",),
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_what_cannot_be_an_answer(name: str, text: str) -> None:
    base = {**SLURM, "ways": "schedule"} if name == "cron" else SLURM
    with pytest.raises(InputError) as refused:
        gather({**base, name: text}, {}, None)
    assert refused.value.code == "input.answer"
    assert f"`--{name.replace('_', '-')}`" in refused.value.cause


def test_every_question_has_wrong_answers() -> None:
    assert set(BAD) == {question.name for question in QUESTIONS}


def test_everything_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(InputError) as refused:
        gather({"user": "ci"}, {}, None)
    assert refused.value.code == "input.missing"
    named = set(re.findall(r"--[a-z-]+", refused.value.next_step))
    assert named == {"--host", "--account", "--job-dir", "--script", "--action"}
    # What can be seen without asking need not be said.
    assert gather({**SLURM, "action": None}, {"action": ACTION}, None)["action"] == ACTION


@pytest.mark.parametrize(
    ("base", "flag", "value"),
    [(LOCAL, "host", "login"), (LOCAL, "gate", "check"), (LOCAL, "cancel_closed", "yes"), (SLURM, "cron", "0 3 * * *")],
)
def test_a_flag_that_would_do_nothing_is_refused(base: Mapping[str, str], flag: str, value: str) -> None:
    with pytest.raises(InputError) as refused:
        gather({**base, flag: value}, {}, None)
    assert refused.value.code == "input.answer"
    assert f"`--{flag.replace('_', '-')}`" in refused.value.cause


def test_only_what_no_flag_answers_is_asked_in_order() -> None:
    asked: list[tuple[str, str | None]] = []

    def ask(question: Question, default: str | None) -> Any:
        asked.append((question.name, default))
        return question.read(default if default is not None else SLURM[question.name])

    given = gather({"host": "other.example.com", "ways": "schedule", "gate": "no"}, {"script": "main.py"}, ask)
    assert given["host"] == "other.example.com"
    assert given["script"] == "main.py"
    names = [name for name, _ in asked]
    assert names == [question.name for question in QUESTIONS if question.name not in ("host", "ways", "gate")]
    assert dict(asked)["launcher"] == "none"
    assert dict(asked)["account"] is None


@pytest.mark.parametrize(
    ("text", "fingerprint"),
    [("SHA256:" + "a" * 43, "SHA256:" + "a" * 43), (" " + "b" * 43 + "= ", "SHA256:" + "b" * 43), (KEY.fingerprint, KEY.fingerprint)],
)
def test_a_fingerprint(text: str, fingerprint: str) -> None:
    assert read_fingerprint(text) == fingerprint


@pytest.mark.parametrize("text", ["", "SHA256:", "MD5:00:11:22", "sha256:" + "a" * 43, "SHA256:" + "a" * 42, "SHA256:" + "a" * 44, "yes"])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        read_fingerprint(text)


# --------------------------------------------------------------------------- what is left


REPOSITORY = Place("org/repo")


def typed(found: Setup, place: Place = REPOSITORY, labels_made: bool = False) -> str:
    return "\n".join(line for step in next_steps(found, place, labels_made) for line in step.lines)


def test_secrets_are_read_from_files() -> None:
    lines = typed(setup(app="yes"))
    for name in ("CLUSTER_SSH_KEY", "DISPATCH_APP_KEY"):
        assert re.search(rf"^gh secret set {name} --env cluster < \S+ --repo org/repo$", lines, re.MULTILINE)
    assert "gh variable set CLUSTER_KNOWN_HOSTS --env cluster < known_hosts" in lines
    assert "CLUSTER_KNOWN_HOSTS" not in typed(setup((KEY,)))
    assert "secret" not in typed(setup(base=LOCAL))
    assert "--body" not in lines


def test_the_environment_lets_only_the_right_branches_in() -> None:
    lines = typed(setup(ways="merge-queue"), Place("org/repo", "trunk"))
    assert "-f name=trunk" in lines
    assert "gh-readonly-queue/trunk/*" in lines
    assert "readonly" not in typed(setup())
    assert "'name=a'\"'\"';b'" in typed(setup(), Place("org/repo", "a';b"))


def test_the_label() -> None:
    [label] = wanted_labels(setup(profile="dgx"))
    assert label.name == "train:dgx"
    assert re.fullmatch(r"[0-9a-f]{6}", label.color)
    assert len(wanted_labels(setup(profile="d" * 64))[0].description) <= 100
    assert label_lines((label,), Place("org/repo"))[0] in typed(setup(profile="dgx"))
    assert "gh label" not in typed(setup(), labels_made=True)
    assert wanted_labels(setup(ways="comments")) == ()


@pytest.mark.parametrize(("gate", "words"), [("check", "`dispatch/gate`"), ("job", "`gate`"), ("no", "")])
def test_the_rule(gate: str, words: str) -> None:
    told = " ".join(step.words for step in next_steps(setup(gate=gate), Place(""), False))
    assert ("Rulesets" in told) == (gate != "no")
    assert words in told
