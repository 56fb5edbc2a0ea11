"""`nemotron-dispatch demo`: the whole story on one machine, in seconds: a pull request, a comment, a real training run, a gate.

Everything is real but GitHub, whose part a `Forge` in memory plays: the repository is a git repository, the code travels as an archive of
the commit, NeMo-Run's LocalExecutor runs it in a folder of its own, and the ledger is the one that a cluster would have.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from dispatcher.answer import Voice
from dispatcher.configuration import read_policy
from dispatcher.effects.assembly import for_terminal
from dispatcher.effects.console import show_markdown
from dispatcher.effects.runner import Runner
from dispatcher.errors import Exit
from dispatcher.event import parse_event
from dispatcher.flow import handle
from dispatcher.gatekeeper import evaluate_gate
from dispatcher.inputs import Inputs, read_event
from dispatcher.ports import Check, CheckRef, Comment, Label, PullRequest, Reaction
from dispatcher.world import Outcome

REPOSITORY = "you/tiny-model"

POLICY = """\
default_profile: local
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
gate:
  required:
    - { profile: local, recipe: default, paths: ["*.py"] }
"""

PROFILE = """\
executor: local
time: "00:02:00"
"""

TRAIN = '''\
"""Fits y = 3x + 1 by gradient descent: small, but it really trains."""

import json
import random

LEARNING_RATE = 0.02

random.seed(1)
data = [(x, 3 * x + 1 + random.gauss(0, 0.1)) for x in (random.uniform(-1, 1) for _ in range(200))]
weight = bias = 0.0
for step in range(1, 301):
    errors = [(weight * x + bias - y, x) for x, y in data]
    weight -= LEARNING_RATE * 2 * sum(error * x for error, x in errors) / len(data)
    bias -= LEARNING_RATE * 2 * sum(error for error, _ in errors) / len(data)
    loss = sum(error * error for error, _ in errors) / len(data)
    if step % 50 == 0:
        print(f"step {step:3d} loss {loss:.4f}", flush=True)
json.dump({"loss": round(loss, 4), "weight": round(weight, 3), "steps": step}, open("results.json", "w"))
'''


def run_demo(inputs: Inputs, runner: Runner, keep: Path | None, quiet: bool = False) -> Outcome:
    """Plays the story and shows what a pull request would show; `quiet` keeps standard output free for JSON."""
    folder = keep or Path(tempfile.mkdtemp(prefix="dispatch-demo-"))
    try:
        return _story(folder.resolve(), inputs, runner, quiet)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _story(folder: Path, inputs: Inputs, runner: Runner, quiet: bool) -> Outcome:
    repository = folder / "repository"
    runner.say("1. A small repository with a policy, a profile and a training script; a branch that changes the learning rate.")
    base, head = _make_repository(repository)
    forge = DemoForge(PullRequest(7, "open", False, head, "faster", REPOSITORY, "main", base, REPOSITORY, "you"), repository, base)
    inputs = replace(inputs, state_dir=str(folder / "state"))
    world = for_terminal(inputs, runner, repository)
    settings = replace(world.settings, repository=REPOSITORY, wait=True, voice=Voice())
    # As in an Actions job, policy and profiles are read at the default branch, never at the pull request's head.
    world = replace(world, forge=forge, settings=settings, read_config=lambda path: forge.read_text(path, base))
    runner.say("2. Somebody comments `/train` on pull request #7; GitHub delivers the event.")
    event_file = folder / "event.json"
    event_file.write_text(json.dumps(_comment_event("/train")))
    ended = handle(parse_event("issue_comment", read_event(str(event_file))), world)
    runner.say("3. What the pull request shows now.")
    gate = evaluate_gate(world, read_policy(world), 7)
    page = [*(body for body in forge.comments.values()), _checks_table(forge), gate.summary]
    if not quiet:
        for part in page:
            show_markdown(part)
            print()
    runner.say(f"The gate {'lets this pull request merge' if gate.exit is Exit.OK else 'keeps this pull request from merging'}.")
    return Outcome(ended.exit if gate.exit is Exit.OK else gate.exit, ended.outputs)


def _make_repository(folder: Path) -> tuple[str, str]:
    """→ (SHA of main, SHA of the pull request's head)."""
    for path, text in {"train.py": TRAIN, ".github/dispatch.yml": POLICY, "profiles/local.yaml": PROFILE}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    _git(folder, "init", "-q", "-b", "main", ".")
    base = _commit(folder, "Train a tiny model")
    _git(folder, "checkout", "-q", "-b", "faster")
    (folder / "train.py").write_text(TRAIN.replace("LEARNING_RATE = 0.02", "LEARNING_RATE = 0.1"))
    return base, _commit(folder, "Learn faster")


def _commit(folder: Path, message: str) -> str:
    _git(folder, "add", "-A")
    _git(folder, "-c", "user.name=You", "-c", "user.email=you@example.com", "-c", "commit.gpgsign=false", "commit", "-q", "-m", message)
    return _git(folder, "rev-parse", "HEAD")


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    ).stdout.strip()


def _comment_event(body: str) -> Mapping[str, object]:
    """https://docs.github.com/en/webhooks/webhook-events-and-payloads#issue_comment, the parts that are read."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    user = {"login": "you", "type": "User"}
    return {
        "action": "created",
        "issue": {"number": 7, "state": "open", "pull_request": {"url": f"https://api.github.com/repos/{REPOSITORY}/pulls/7"}},
        "comment": {"id": 1001, "body": body, "user": user, "created_at": now, "html_url": f"https://github.com/{REPOSITORY}/pull/7"},
        "repository": {"full_name": REPOSITORY, "default_branch": "main"},
        "sender": user,
    }


def _checks_table(forge: DemoForge) -> str:
    rows = [f"| {check.name} | {check.conclusion or check.status} | {check.title} |" for check in forge.checks.values()]
    return "\n".join(["### Checks", "", "| check | state | |", "|---|---|---|", *rows])


@dataclass
class DemoForge:
    """The `Forge` port for one pull request, in memory; files are read from the git repository."""

    pull_request: PullRequest
    folder: Path
    base: str
    comments: dict[int, str] = field(default_factory=dict)
    checks: dict[int, Check] = field(default_factory=dict)
    requests: int = 0

    def pull(self, number: int) -> PullRequest | None:
        """The one there is."""
        return self.pull_request if number == self.pull_request.number else None

    def role(self, login: str) -> str | None:
        """Everybody who is you is an admin."""
        return "admin" if login == "you" else None

    def team_member(self, org: str, team: str, login: str) -> bool:
        """There are no teams."""
        return False

    def commit_sha(self, ref: str) -> str | None:
        """As git has it."""
        return _git(self.folder, "rev-parse", ref)

    def default_branch(self) -> str:
        """The demo's own."""
        return "main"

    def merge_base(self, base: str, head: str) -> str | None:
        """Nothing is compared with it here."""
        return None

    def read_text(self, path: str, ref: str) -> str | None:
        """A file of a commit."""
        done = subprocess.run(["git", "-C", str(self.folder), "show", f"{ref}:{path}"], capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def list_files(self, path: str, ref: str) -> tuple[str, ...]:
        """Names in a folder of a commit."""
        return tuple(Path(name).name for name in _git(self.folder, "ls-tree", "--name-only", ref, f"{path}/").splitlines())

    def changed_files(self, number: int) -> tuple[str, ...]:
        """As git has it."""
        return tuple(_git(self.folder, "diff", "--name-only", f"{self.base}...{self.pull_request.head_sha}").splitlines())

    def react(self, comment_id: int, content: Reaction) -> bool:
        """Nobody sees it here."""
        return True

    def find_comment(self, number: int, marker: str, since: datetime | None = None) -> Comment | None:
        """By its marker."""
        return next((Comment(key, "", body) for key, body in self.comments.items() if marker in body), None)

    def create_comment(self, number: int, body: str, marker: str) -> Comment:
        """Kept."""
        key = len(self.comments) + 1
        self.comments[key] = body
        return Comment(key, "", body)

    def update_comment(self, comment_id: int, body: str) -> Comment | None:
        """Replaced."""
        self.comments[comment_id] = body
        return Comment(comment_id, "", body)

    def find_checks(self, sha: str, name: str | None = None) -> tuple[CheckRef, ...]:
        """On this commit."""
        return tuple(_ref(key, check) for key, check in self.checks.items() if check.sha == sha and name in (None, check.name))

    def create_check(self, check: Check) -> CheckRef:
        """Kept."""
        key = len(self.checks) + 1
        self.checks[key] = check
        return _ref(key, check)

    def update_check(self, check_id: int, check: Check) -> CheckRef | None:
        """Replaced."""
        self.checks[check_id] = check
        return _ref(check_id, check)

    def add_label(self, number: int, label: str) -> None:
        """There are no labels."""

    def remove_label(self, number: int, label: str) -> None:
        """There are no labels."""

    def create_label(self, label: Label) -> bool:
        """There are no labels."""
        return False

    def labelled(self, label: str) -> tuple[int, ...]:
        """There are no labels."""
        return ()


def _ref(key: int, check: Check) -> CheckRef:
    return CheckRef(key, "", check.external_id, check.status, check.conclusion, check.name, check.text)
