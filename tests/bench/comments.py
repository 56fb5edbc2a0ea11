"""A comment → what answering it costs: nothing to speak of when it is no command, ten requests when it is."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

from tests.bench.contenders import BIN
from tests.bench.process import run
from tests.bench.results import Section, Target, mid, seconds
from tests.stage import Stage

ROOT = Path(__file__).parents[2]
HEAVY = ("nemo_run", "pydantic", "paramiko", "github", "requests", "yaml", "omegaconf", "rich")


def measure(stage: Stage, count: int) -> Section:
    """A comment without a command, through the command line and through the action's first step; then a command."""
    event = stage.folder / "chat.json"
    event.write_text(json.dumps(stage.server.comment_event(stage.pull, stage.pull.comment("looks good to me", "alice"))))
    # No token: whoever asked GitHub for anything would fail.
    quiet = {
        "GITHUB_EVENT_NAME": "issue_comment",
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_TOKEN": "",
        "GITHUB_API_URL": stage.server.api_url,
    }
    environment = {**stage.environment(), **quiet}
    before = len(stage.server.requests) + len(stage.server.git_requests)
    handle = [str(BIN / "nemotron-dispatch"), "handle"]
    first_step = [sys.executable, "-I", str(ROOT / "dispatcher" / "effects" / "prepare.py")]
    handled = [run(handle, environment, stage.folder).seconds for _ in range(count)]
    prepared = [run(first_step, environment, stage.folder).seconds for _ in range(count)]
    asked = len(stage.server.requests) + len(stage.server.git_requests) - before
    loaded = _imported(run([str(BIN / "python"), "-X", "importtime", *handle], environment, stage.folder).stderr)
    unwanted = [name for name in HEAVY if name in loaded]

    stage.server.requests.clear()
    mark = stage.sshd.mark()
    ended = stage.comment("/train steps=1")
    assert ended.code == 0, ended.stderr
    requests = [f"{seen.method} {_generic(seen.path)}" for seen in stage.server.requests]
    rows = (
        ("`handle`, no command", seconds(mid(handled)), str(asked), f"{len(loaded)} modules"),
        ("the action's first step, no command", seconds(mid(prepared)), str(asked), ""),
        ("`/train`", "", str(len(requests)), f"{stage.sshd.connections(mark)} connection, {stage.sshd.sessions(mark)} command"),
    )
    targets = (
        Target("a comment that is no command", mid(handled), 0.25, "s"),
        Target("the same in the action's first step", mid(prepared), 0.25, "s"),
        Target("requests for it", asked, 0, ""),
        Target(f"heavy modules imported for it ({', '.join(unwanted) or 'none'})", len(unwanted), 0, ""),
        Target("GitHub requests for a command that starts a job", len(requests), 10, ""),
    )
    raw = {"handle": handled, "first step": prepared, "requests": dict(Counter(requests))}
    return Section("Comments", ("what", "time", "GitHub requests", ""), rows, targets, raw)


def _imported(importtime: str) -> set[str]:
    """The top-level names in what `-X importtime` printed."""
    return {name.split(".")[0] for name in re.findall(r"^import time:.*\|\s+(\S+)$", importtime, re.MULTILINE)}


def _generic(path: str) -> str:
    """A path without its ids, so that the same calls count together."""
    return re.sub(r"/[0-9a-f]{40}|/\d+", "/…", path)
