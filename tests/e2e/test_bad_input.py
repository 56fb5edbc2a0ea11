"""What can be wrong with what people write and configure, and with what is handed over → a coded end, public words, and nothing submitted.

Everything that is refused before the cluster is asked is tested without one: that nobody connected is the proof that nothing was sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import CATALOGUE, Exit
from tests.github_model import Pull
from tests.github_server import GitHubServer
from tests.here import CANARY, answers_to, deliver, deliver_here, run_here, well_refused
from tests.rig.sshd import Sshd
from tests.stage import POLICY, TRAIN, Stage

POLICY_FILE = ".github/dispatch.yml"


@pytest.fixture(scope="module")
def server() -> Iterator[GitHubServer]:
    with GitHubServer() as server:
        yield server
        assert server.violations == []


@pytest.fixture(scope="module")
def stage(server: GitHubServer, sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A stage whose login node has no scheduler: here nobody gets that far."""
    return Stage(server, sshd, tmp_path_factory.mktemp("refused"))


@pytest.fixture(scope="module")
def forked(stage: Stage, server: GitHubServer) -> Pull:
    """A pull request from a fork."""
    fork = server.fork(stage.repo, "mallory/repo")
    fork.commit("patch", {"train.py": TRAIN + "# patched\n"})
    return stage.repo.open_pull("patch", author="mallory", fork="mallory/repo")


@pytest.fixture(autouse=True)
def the_default_branch_again(stage: Stage) -> Iterator[None]:
    """What a test commits to the default branch is gone afterwards."""
    before = stage.repo.sha("main")
    yield
    stage.repo.set_branch("main", before)
    stage.repo.checks.clear()


# --------------------------------------------------------------------------- what is written and configured


@dataclass(frozen=True)
class Refusal:
    """A command on a default branch with these files → exit status, reason, phrases of the answer."""

    body: str
    exit: Exit
    reason: str
    says: tuple[str, ...] = ()
    files: dict[str, str | None] = field(default_factory=dict)
    author: str = "alice"


def policy(text: str) -> dict[str, str | None]:
    return {POLICY_FILE: text}


def profile(text: str, name: str = "other") -> dict[str, str | None]:
    return {f"profiles/{name}.yaml": text}


SLURM = "executor: slurm\naccount: ml\nhost: h.example.com\nuser: ci\nremote_job_dir: /jobs\n"
LOUD = POLICY + "noise: { outsiders: comment }\n"
AT_LINE = f"`{POLICY_FILE}:{len(POLICY.splitlines()) + 1}`"

REFUSALS = {
    # profiles
    "unknown profile": Refusal(
        "/train profile=clutser", Exit.CONFIG, "unknown-profile", ("there is no profile `clutser`", "Did you mean **`cluster`**?")
    ),
    "unknown profile, nothing near": Refusal("/train profile=zzz", Exit.CONFIG, "unknown-profile", ("There are: `cluster`",)),
    "profile that leads elsewhere": Refusal("/train profile=../secrets", Exit.MALFORMED, "bad-value"),
    "unknown key in a profile": Refusal(
        "/train profile=other",
        Exit.CONFIG,
        "config.invalid",
        ("`profiles/other.yaml:6`", "`partitoin` is not a key here; did you mean `partition`?"),
        profile(SLURM + "partitoin: batch\n"),
    ),
    "wrong value in a profile": Refusal(
        "/train profile=other", Exit.CONFIG, "config.invalid", ("`profiles/other.yaml:6`", "`nodes`"), profile(SLURM + "nodes: many\n")
    ),
    "several problems in a profile": Refusal(
        "/train profile=other",
        Exit.CONFIG,
        "config.invalid",
        ("`profiles/other.yaml:6`: `nodez`", "`profiles/other.yaml:7`: `tiem`"),
        profile(SLURM + "nodez: 2\ntiem: 1\n"),
    ),
    "broken profile": Refusal(
        "/train profile=other", Exit.CONFIG, "config.syntax", ("`profiles/other.yaml:2`",), profile("executor: slurm\naccount: [ml\n")
    ),
    "job_dir that is not absolute": Refusal(
        "/train profile=other",
        Exit.CONFIG,
        "config.invalid",
        ("`profiles/other.yaml:5`",),
        profile(SLURM.replace("/jobs", "~/jobs")),
    ),
    "extends in a circle": Refusal(
        "/train profile=a",
        Exit.CONFIG,
        "config.extends-cycle",
        ("`profiles/b.yaml:1`", "`a` → `b` → `a`"),
        {**profile("extends: b\n", "a"), **profile("extends: a\n", "b")},
    ),
    "extends itself": Refusal("/train profile=a", Exit.CONFIG, "config.extends-cycle", ("`a` → `a`",), profile("extends: a\n", "a")),
    "extends nothing": Refusal(
        "/train profile=other", Exit.CONFIG, "config.invalid", ("there is no profile `nothing`",), profile("extends: nothing\n")
    ),
    "unknown key in env.toml": Refusal(
        "/train profile=large",
        Exit.CONFIG,
        "config.invalid",
        ("`env.toml:3`", "did you mean `partition`?"),
        {"env.toml": '[large]\nexecutor = "slurm"\npartitio = "batch"\n'},
    ),
    "broken env.toml": Refusal("/train profile=large", Exit.CONFIG, "config.syntax", ("`env.toml:2`",), {"env.toml": "[large]\nx = \n"}),
    "variable that is not listed": Refusal(
        "/train profile=other",
        Exit.CONFIG,
        "config.env-not-listed",
        ("`profiles/other.yaml:6`", "WANDB_API_KEY"),
        profile(SLURM + "partition: ${oc.env:WANDB_API_KEY}\n"),
    ),
    "variable that is not set": Refusal(
        "/train profile=other",
        Exit.CONFIG,
        "config.env-unset",
        ("`profiles/other.yaml:6`", "CLUSTER_PARTITION"),
        {**policy(POLICY + "env: [CLUSTER_PARTITION]\n"), **profile(SLURM + "partition: ${oc.env:CLUSTER_PARTITION}\n")},
    ),
    # policy
    "no policy": Refusal("/train", Exit.CONFIG, "config.missing", (POLICY_FILE, "docs/install.md"), policy("") | {POLICY_FILE: None}),
    "unknown key in the policy": Refusal(
        "/train",
        Exit.CONFIG,
        "config.invalid",
        (AT_LINE, "`gatee` is not a key here; did you mean `gate`?"),
        policy(POLICY + "gatee: {}\n"),
    ),
    "unknown key deep in the policy": Refusal(
        "/train",
        Exit.CONFIG,
        "config.invalid",
        (f"`{POLICY_FILE}:1`", "did you mean `script`?"),
        policy("recipes: { default: { scrpt: train.py, script: train.py } }\n"),
    ),
    "broken policy": Refusal("/train", Exit.CONFIG, "config.syntax", (f"`{POLICY_FILE}:2`",), policy("allow:\n\troles: [admin]\n")),
    "policy that is a list": Refusal("/train", Exit.CONFIG, "config.syntax", (f"`{POLICY_FILE}:1`",), policy("- a\n")),
    "policy with a bomb": Refusal("/train", Exit.CONFIG, "config.syntax", ("anchors",), policy("a: &a [x]\nb: *a\n")),
    "recipe that leaves the commit": Refusal(
        "/train", Exit.CONFIG, "config.invalid", (f"`{POLICY_FILE}:1`",), policy("recipes: { default: { script: ../../etc/passwd } }\n")
    ),
    "unknown recipe": Refusal("/train recipe=defualt", Exit.DENIED, "unknown-recipe", ("Did you mean **`default`**?",)),
    "no profile at all": Refusal(
        "/train", Exit.DENIED, "no-profile", ("`default_profile`",), policy("recipes: { default: { script: train.py } }\n")
    ),
    # the commit
    "script that the commit does not have": Refusal(
        "/train",
        Exit.CONFIG,
        "script-missing",
        ("there is no `missing.py` in the commit",),
        policy(POLICY.replace("train.py", "missing.py")),
    ),
    "folder that the commit does not have": Refusal(
        "/train", Exit.GIT, "git.no-subpath", ("nowhere",), policy(POLICY.replace("script: train.py", "script: train.py, subpath: nowhere"))
    ),
    "pattern that chooses nothing": Refusal(
        "/train",
        Exit.GIT,
        "git.nothing-packed",
        (),
        policy(POLICY.replace("script: train.py", 'script: train.py, include_pattern: ["*.nothing"]')),
    ),
    # words
    "word that is no key=value": Refusal("/train fast", Exit.MALFORMED, "unknown-word", ("`profile=fast`",)),
    "verb that is misspelt": Refusal("/train cancle", Exit.MALFORMED, "unknown-word", ("Did you mean **`cancel`**?",)),
    "setting that is misspelt": Refusal("/train porfile=cluster", Exit.MALFORMED, "bad-key", ("Did you mean **`profile=`**?",)),
    "key that is none": Refusal("/train a..b=1", Exit.MALFORMED, "bad-key", ("`a..b` is not a key",)),
    "key that is an option": Refusal("/train --config=/etc/passwd", Exit.MALFORMED, "bad-key"),
    "quote that does not end": Refusal('/train name="x', Exit.MALFORMED, "unbalanced-quote"),
    "typographic quote": Refusal("/train name=“x”", Exit.MALFORMED, "unbalanced-quote", ("straight quotes",)),
    "key given twice": Refusal("/train steps=1 steps=2", Exit.MALFORMED, "duplicate-key", ("`steps` is given twice",)),
    "interpolation": Refusal("/train steps=${oc.env:HOME}", Exit.MALFORMED, "interpolation"),
    "character that cannot be seen": Refusal("/train steps=1\u200b", Exit.MALFORMED, "hidden-character", ("U+200B",)),
    "short SHA": Refusal("/train sha=a1b2c3d", Exit.MALFORMED, "bad-value", ("all 40 hex digits",)),
    "another pull request": Refusal("/train pr=7", Exit.MALFORMED, "not-here", ("its own pull request",)),
    "far too long": Refusal("/train steps=" + "9" * 3000, Exit.MALFORMED, "too-long"),
    "no run key": Refusal("/train cancel everything", Exit.MALFORMED, "bad-value"),
    "markup and mentions": Refusal("/train `@org/everyone`", Exit.MALFORMED, "unknown-word"),
    # overrides
    "override that the policy denies": Refusal(
        "/train steps=2",
        Exit.DENIED,
        "override-not-allowed",
        ("`steps=2` may not be set", "`overrides.deny`"),
        policy(POLICY + "overrides: { deny: [steps] }\n"),
    ),
    "override that the policy does not list": Refusal("/train run.nodes=4", Exit.DENIED, "override-not-allowed", ("`overrides.allow`",)),
    "override with a value out of bounds": Refusal(
        "/train steps=1000000",
        Exit.DENIED,
        "override-not-allowed",
        ("may not be set",),
        policy(POLICY + 'overrides: { values: { steps: "[0-9]{1,3}" } }\n'),
    ),
    "override of where it goes": Refusal(
        "/train run.host=evil.example.com",
        Exit.MALFORMED,
        "not-here",
        ("cannot be set",),
        policy(POLICY + 'overrides: { allow: ["run.*"] }\n'),
    ),
    "override of what nobody has": Refusal(
        "/train run.nodez=4",
        Exit.MALFORMED,
        "bad-key",
        ("Did you mean **`run.nodes`**?",),
        policy(POLICY + 'overrides: { allow: ["run.*"] }\n'),
    ),
    "override with a wrong value": Refusal(
        "/train run.nodes=0", Exit.MALFORMED, "bad-value", ("`run.nodes=0`",), policy(POLICY + 'overrides: { allow: ["run.*"] }\n')
    ),
    # who; without this key of the policy they would get no words at all
    "somebody without rights": Refusal(
        "/train", Exit.DENIED, "not-a-collaborator", ("`eve` may not use profile `cluster`", "`write` access"), policy(LOUD), "eve"
    ),
    "somebody who may only read": Refusal("/train", Exit.DENIED, "role-too-low", ("Its role here is `read`",), policy(LOUD), "bob"),
    "somebody who may only triage": Refusal("/train", Exit.DENIED, "role-too-low", ("Its role here is `triage`",), policy(LOUD), "tim"),
    "somebody who is denied": Refusal("/train", Exit.DENIED, "denied-user", ("`deny`",), policy(LOUD + "allow: { deny: [alice] }\n")),
    "status for somebody without rights": Refusal("/train status", Exit.DENIED, "not-a-collaborator", (), policy(LOUD), "eve"),
    "cancel for somebody without rights": Refusal("/train cancel", Exit.DENIED, "not-a-collaborator", (), policy(LOUD), "eve"),
}


@pytest.mark.parametrize("row", REFUSALS.values(), ids=REFUSALS)
def test_what_is_written_wrong_is_answered_and_never_sent(stage: Stage, row: Refusal) -> None:
    stage.repo.add_collaborator("bob", "read")
    stage.repo.add_collaborator("tim", "triage")
    stage.repo.commit("main", row.files) if row.files else None
    mark = stage.sshd.mark()
    event, ended = deliver(stage, row.body, author=row.author, WANDB_API_KEY=CANARY)
    well_refused(stage, event, ended, row.exit, row.reason, *row.says)
    # Delivered again, the same words stand in the same comment.
    again = deliver_here(stage, "issue_comment", event)
    well_refused(stage, event, again, row.exit, row.reason, *row.says)
    assert (stage.sshd.connections(mark), stage.sshd.sessions(mark)) == (0, 0)
    assert stage.repo.checks_on(stage.pull.head_sha) == []


@pytest.mark.parametrize("body", ["/train", "/train status", "/train profile=$(id)", "/train frobnicate"])
def test_strangers_get_a_reaction_and_no_words(stage: Stage, body: str) -> None:
    event, ended = deliver(stage, body, author="eve")
    assert ended.outputs["decision"] in ("denied", "malformed")
    assert ended.outputs["reason-code"]
    assert answers_to(stage, event) == []
    comment = stage.repo.comments[event["comment"]["id"]]
    assert [content for _, content in comment.reactions] in (["eyes", "-1"], ["eyes", "confused"])


def test_every_mention_in_an_answer_is_powerless(stage: Stage) -> None:
    event, _ = deliver(stage, "/train @org/everyone")
    [answer] = answers_to(stage, event)
    assert "@org/everyone" not in answer.replace("`@org/everyone`", "")


# --------------------------------------------------------------------------- which pull request


def test_a_closed_pull_request(stage: Stage) -> None:
    stage.repo.commit("old", {"train.py": TRAIN + "# old\n"})
    pull = stage.repo.open_pull("old")
    pull.close()
    event, ended = deliver(stage, "/train", pull)
    well_refused(stage, event, ended, Exit.DENIED, "pull-closed", f"pull request {pull.number} is closed", "Open it again")


FORKS = {
    "without a SHA, as a preview": ("/train plan steps=2", POLICY, "fork-needs-sha", "sha={head} steps=2"),
    "with another SHA": ("/train sha=" + "1" * 40, POLICY, "sha-mismatch", "The head is `{head}`"),
    "where forks are off": ("/train", POLICY.replace("forks: sha", "forks: 'off'"), "fork-off", "`forks: off`"),
}


@pytest.mark.parametrize(("body", "rules", "reason", "says"), FORKS.values(), ids=FORKS)
def test_a_fork(stage: Stage, forked: Pull, body: str, rules: str, reason: str, says: str) -> None:
    stage.repo.commit("main", {POLICY_FILE: rules})
    event, ended = deliver(stage, body, forked)
    well_refused(stage, event, ended, Exit.DENIED, reason, says.format(head=forked.head_sha))


# --------------------------------------------------------------------------- what asks for nothing


def edited(event: dict[str, Any]) -> None:
    event["action"] = "edited"


def deleted(event: dict[str, Any]) -> None:
    event["action"] = "deleted"


def by_a_bot(event: dict[str, Any]) -> None:
    event["comment"]["user"]["type"] = "Bot"


def on_an_issue(event: dict[str, Any]) -> None:
    del event["issue"]["pull_request"]


def as_it_is(event: dict[str, Any]) -> None:
    """Only the text matters."""


IGNORED = {
    "edited": ("/train", edited, "not-created"),
    "deleted": ("/train", deleted, "not-created"),
    "by a bot": ("/train", by_a_bot, "bot"),
    "on a plain issue": ("/train", on_an_issue, "plain-issue"),
    "a quote": ("> /train", as_it_is, "not-a-command"),
    "a code block": ("```\n/train\n```", as_it_is, "not-a-command"),
    "an indented code block": ("    /train", as_it_is, "not-a-command"),
    "inline code": ("`/train`", as_it_is, "not-a-command"),
    "the second line": ("Please:\n/train", as_it_is, "not-a-command"),
    "a longer word": ("/trainer", as_it_is, "not-a-command"),
    "a path": ("/train/me", as_it_is, "not-a-command"),
    "a conversation": ("Looks good to me.", as_it_is, "not-a-command"),
    "nothing": ("", as_it_is, "not-a-command"),
}


@pytest.mark.parametrize(("body", "change", "reason"), IGNORED.values(), ids=IGNORED)
def test_what_asks_for_nothing_gets_nothing(stage: Stage, body: str, change: Callable[[dict[str, Any]], None], reason: str) -> None:
    comment = stage.pull.comment(body)
    event = stage.server.comment_event(stage.pull, comment)
    change(event)
    requests = len(stage.server.requests)
    # Not even a token is needed.
    ended = deliver_here(stage, "issue_comment", event, GITHUB_TOKEN="", DISPATCH_SSH_KEY="")
    assert (ended.code, ended.outputs["decision"], ended.outputs["reason-code"]) == (0, "ignored", reason), ended
    assert len(stage.server.requests) == requests
    assert answers_to(stage, event) == []
    assert comment.reactions == []


# --------------------------------------------------------------------------- what is handed over

EVENT_FILES = {
    "missing": (None, "input.event-file", "cannot be read"),
    "empty": ("", "input.event-file", "is not JSON"),
    "not JSON": ("{'action': 'created'}", "input.event-file", "is not JSON"),
    "not UTF-8": ("\udcff", "input.event-file", "is not JSON"),
    "nested without end": ("[" * 100_000, "input.event-file", "is not JSON"),
    "a list": ("[]", "input.event-file", "does not hold a JSON object"),
    "a number": ("1", "input.event-file", "does not hold a JSON object"),
    "an empty object": ("{}", "input.event", "repository"),
    "of another shape": ('{"action": "created", "comment": [], "issue": "x", "repository": null}', "input.event", ""),
}


@pytest.mark.parametrize(("content", "code", "says"), EVENT_FILES.values(), ids=EVENT_FILES)
def test_an_event_file_that_is_none(stage: Stage, tmp_path: Path, content: str | None, code: str, says: str) -> None:
    file = tmp_path / "event.json"
    if content is not None:
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
    requests = len(stage.server.requests)
    ended = run_here(stage, "handle", "--json", GITHUB_EVENT_NAME="issue_comment", GITHUB_EVENT_PATH=str(file))
    assert (ended.code, ended.outputs["decision"], ended.outputs["reason-code"]) == (Exit.USAGE, "refused", code), ended
    assert f"::error title={code}::" in ended.stderr
    assert says in ended.stderr
    told = json.loads(ended.stdout)
    assert (told["reason-code"], told["decision"]) == (code, "refused")
    assert len(stage.server.requests) == requests


SURROUNDINGS = {
    "no event file is named": ({"GITHUB_EVENT_PATH": ""}, "input.event-file", "GITHUB_EVENT_PATH"),
    "no token": ({"GITHUB_TOKEN": ""}, "input.missing", "GITHUB_TOKEN"),
    "another repository": ({"GITHUB_REPOSITORY": "org/other"}, "input.event", "org/other"),
    "a flag that is none": ({"DISPATCH_WAIT": "maybe"}, "input.flag", "DISPATCH_WAIT"),
}


@pytest.mark.parametrize(("environment", "code", "says"), SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_surroundings_that_cannot_be_used(stage: Stage, tmp_path: Path, environment: dict[str, str], code: str, says: str) -> None:
    file = tmp_path / "event.json"
    file.write_text(json.dumps(stage.server.comment_event(stage.pull, stage.pull.comment("/train"))))
    given = {"GITHUB_EVENT_NAME": "issue_comment", "GITHUB_EVENT_PATH": str(file), **environment}
    ended = run_here(stage, "handle", "--json", **given)
    assert (ended.code, ended.outputs.get("reason-code")) == (Exit.USAGE, code), ended
    assert f"::error title={code}::" in ended.stderr
    assert says in ended.stderr
    assert json.loads(ended.stdout)["reason-code"] == code


def test_every_code_of_the_tables_is_documented() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    told = {row.reason for row in REFUSALS.values()} | {code for _, code, _ in EVENT_FILES.values()}
    assert {code for code in told if "." in code} <= set(CATALOGUE)
    assert all(f"`{code}`" in documented for code in told if "." in code)
