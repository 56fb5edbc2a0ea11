"""`nemotron-dispatch demo`: the whole story on one machine, in seconds: a baseline, a pull request, comments, real training runs, a gate.

Everything is real but GitHub, whose part a `Forge` in memory plays: the repository is a git repository, the code travels as an archive of
the commit, NeMo-Run's LocalExecutor runs it in a folder of its own, and the ledger is the one that a cluster would have.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from dispatcher.answer import Voice
from dispatcher.configuration import read_policy
from dispatcher.effects.assembly import for_terminal
from dispatcher.effects.console import show_markdown
from dispatcher.effects.demo_forge import DemoForge
from dispatcher.effects.runner import Runner
from dispatcher.errors import Exit
from dispatcher.event import parse_event
from dispatcher.flow import handle
from dispatcher.gatekeeper import evaluate_gate
from dispatcher.inputs import Inputs, read_event
from dispatcher.ports import PullRequest
from dispatcher.world import Outcome, World

REPOSITORY = "you/tiny-model"

POLICY = """\
default_profile: local
recipes:
  default:
    script: train.py
    entrypoint: python3
    series: metrics.jsonl
    metrics:
      loss: { no_worse_than: baseline, tolerance: 10% }
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

LEARNING_RATE = 0.05

random.seed(1)
data = [(x, 3 * x + 1 + random.gauss(0, 0.1)) for x in (random.uniform(-1, 1) for _ in range(200))]
weight = bias = 0.0
with open("metrics.jsonl", "w") as metrics:
    for step in range(1, 101):
        errors = [(weight * x + bias - y, x) for x, y in data]
        weight -= LEARNING_RATE * 2 * sum(error * x for error, x in errors) / len(data)
        bias -= LEARNING_RATE * 2 * sum(error for error, _ in errors) / len(data)
        loss = sum(error * error for error, _ in errors) / len(data)
        metrics.write(json.dumps({"step": step, "name": "loss", "value": round(loss, 5)}) + "\\n")
        if step % 25 == 0:
            print(f"step {step:3d} loss {loss:.4f}", flush=True)
'''

FASTER, SLOWER = "LEARNING_RATE = 0.1", "LEARNING_RATE = 0.01"


def run_demo(inputs: Inputs, runner: Runner, keep: Path | None, quiet: bool = False) -> Outcome:
    """Plays the story and shows what a pull request would show; `quiet` keeps standard output free for JSON."""
    folder = keep or Path(tempfile.mkdtemp(prefix="dispatch-demo-"))
    try:
        return _story(folder.resolve(), inputs, runner, quiet)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _story(folder: Path, inputs: Inputs, runner: Runner, quiet: bool) -> Outcome:
    """Three runs: the default branch's, one that is better and one that is worse. What it returns is whether all went as told."""
    repository = folder / "repository"
    say = runner.say
    say("1. A small repository with a policy, a profile and a training script. Its default branch trains: that is the baseline.")
    base = _make_repository(repository)
    forge = DemoForge(PullRequest(7, "open", False, base, "faster", REPOSITORY, "main", base, REPOSITORY, "you"), repository, base)
    world = _world(folder, inputs, runner, forge)
    _deliver(world, "workflow_dispatch", _manual_event(), folder)

    say(f"2. Pull request #7 sets {FASTER}. Somebody comments `/train`; GitHub delivers the event.")
    _push(forge, FASTER, "Learn faster")
    better = _deliver(world, "issue_comment", _comment_event(1001), folder)
    allowed = evaluate_gate(world, read_policy(world), 7)
    say("What the pull request shows now:")
    _show([*forge.comments.values(), _checks_table(forge), allowed.summary], quiet)

    say(f"3. Another commit sets {SLOWER}, and somebody comments `/train` again.")
    before = set(forge.comments)
    _push(forge, SLOWER, "Learn more carefully")
    _deliver(world, "issue_comment", _comment_event(1002), folder)
    held = evaluate_gate(world, read_policy(world), 7)
    say("What the pull request shows now:")
    _show([*(body for key, body in forge.comments.items() if key not in before), _checks_table(forge), held.summary], quiet)

    as_told = (allowed.exit, held.exit) == (Exit.OK, Exit.RUN_FAILED)
    say(
        "The gate let the better commit merge, and keeps the worse one from merging."
        if as_told
        else "The gate did not do what this story tells."
    )
    return Outcome(better.exit if as_told else Exit.RUN_FAILED, better.outputs)


def _world(folder: Path, inputs: Inputs, runner: Runner, forge: DemoForge) -> World:
    """As in an Actions job, policy and profiles are read at the default branch, never at the pull request's head."""
    world = for_terminal(replace(inputs, state_dir=str(folder / "state")), runner, forge.folder)
    settings = replace(world.settings, repository=REPOSITORY, wait=True, voice=Voice())
    return replace(world, forge=forge, settings=settings, read_config=lambda path: forge.read_text(path, forge.base))


def _deliver(world: World, name: str, payload: Mapping[str, object], folder: Path) -> Outcome:
    """GitHub leaves an event in a file."""
    event_file = folder / "event.json"
    event_file.write_text(json.dumps(payload))
    return handle(parse_event(name, read_event(str(event_file)), run_id="1"), world)


def _show(parts: Sequence[str], quiet: bool) -> None:
    if not quiet:
        for part in parts:
            show_markdown(part)
            print()


def _make_repository(folder: Path) -> str:
    """→ the SHA of main; the pull request's branch is checked out."""
    for path, text in {"train.py": TRAIN, ".github/dispatch.yml": POLICY, "profiles/local.yaml": PROFILE}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    _git(folder, "init", "-q", "-b", "main", ".")
    base = _commit(folder, "Train a tiny model")
    _git(folder, "checkout", "-q", "-b", "faster")
    return base


def _push(forge: DemoForge, rate: str, message: str) -> None:
    (forge.folder / "train.py").write_text(TRAIN.replace("LEARNING_RATE = 0.05", rate))
    forge.pull_request = replace(forge.pull_request, head_sha=_commit(forge.folder, message))


def _commit(folder: Path, message: str) -> str:
    _git(folder, "add", "-A")
    _git(folder, "-c", "user.name=You", "-c", "user.email=you@example.com", "-c", "commit.gpgsign=false", "commit", "-q", "-m", message)
    return _git(folder, "rev-parse", "HEAD")


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    ).stdout.strip()


def _manual_event() -> Mapping[str, object]:
    """https://docs.github.com/en/webhooks/webhook-events-and-payloads#workflow_dispatch, the parts that are read."""
    repository = {"full_name": REPOSITORY, "default_branch": "main"}
    return {"ref": "refs/heads/main", "inputs": {}, "repository": repository, "sender": {"login": "you", "type": "User"}}


def _comment_event(comment_id: int) -> Mapping[str, object]:
    """https://docs.github.com/en/webhooks/webhook-events-and-payloads#issue_comment, the parts that are read."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    user = {"login": "you", "type": "User"}
    url = f"https://github.com/{REPOSITORY}/pull/7"
    return {
        "action": "created",
        "issue": {"number": 7, "state": "open", "pull_request": {"url": f"https://api.github.com/repos/{REPOSITORY}/pulls/7"}},
        "comment": {"id": comment_id, "body": "/train", "user": user, "created_at": now, "html_url": url},
        "repository": {"full_name": REPOSITORY, "default_branch": "main"},
        "sender": user,
    }


def _checks_table(forge: DemoForge) -> str:
    of_head = [check for check in forge.checks.values() if check.sha == forge.pull_request.head_sha]
    rows = [f"| {check.name} | {check.conclusion or check.status} | {check.title} |" for check in of_head]
    title = f"### Checks of {forge.pull_request.head_sha[:7]}"
    return "\n".join([title, "", "| check | state | |", "|---|---|---|", *rows])
