"""The command line in this very process, as `Stage.run` has it in one of its own: arguments × environment → how it ended.

Starting Python and importing everything takes a second; a table of a hundred rows has no use for it. What only a process of its
own can show (signals, what it leaves behind) is shown with `Stage`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dispatcher.answer import marker
from dispatcher.cli import main
from dispatcher.errors import Exit
from tests.github_model import Pull
from tests.stage import Ended, Stage, read_outputs

CANARY = "canary-5f0b7c1e9a"
"""Given as a secret, it must be seen nowhere."""


def run_here(stage: Stage, *arguments: str, folder: Path | None = None, **environment: str) -> Ended:
    """`nemotron-dispatch ARGUMENTS` with exactly the stage's environment; an empty value takes a variable out."""
    files = {name: stage.folder / f"here-{name}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in files.values():
        file.write_text("")
    given = stage.environment(**{name: str(file) for name, file in files.items()}, **environment)
    stdout, stderr = io.StringIO(), io.StringIO()
    with _as_if_started(given, folder or stage.folder), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
    outputs = read_outputs(files["GITHUB_OUTPUT"])
    return Ended(code, stdout.getvalue(), stderr.getvalue(), outputs, files["GITHUB_STEP_SUMMARY"].read_text())


def deliver_here(stage: Stage, name: str, payload: Mapping[str, Any], **environment: str) -> Ended:
    """One delivery of an event."""
    event = stage.folder / "here-event.json"
    event.write_text(json.dumps(payload))
    return run_here(stage, "handle", GITHUB_EVENT_NAME=name, GITHUB_EVENT_PATH=str(event), **environment)


@contextlib.contextmanager
def _as_if_started(environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    """This process with that environment, in that folder; everything as it was afterwards."""
    before, where, handler = dict(os.environ), Path.cwd(), signal.getsignal(signal.SIGTERM)
    os.environ.clear()
    os.environ.update({name: value for name, value in environment.items() if value})
    os.chdir(folder)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        os.chdir(where)
        signal.signal(signal.SIGTERM, handler)


# --------------------------------------------------------------------------- what every refusal has in common


def deliver(stage: Stage, body: str, pull: Pull | None = None, author: str = "alice", **environment: str) -> tuple[dict[str, Any], Ended]:
    """Somebody comments; the event, and how its delivery ended."""
    pull = pull or stage.pull
    event = stage.server.comment_event(pull, pull.comment(body, author))
    return event, deliver_here(stage, "issue_comment", event, **environment)


def answers_to(stage: Stage, event: Mapping[str, Any]) -> list[str]:
    """Our comments that answer this event."""
    mark = marker(f"comment:{event['comment']['id']}")
    return [one.body for one in stage.repo.comments.values() if one.author == "github-actions[bot]" and mark in one.body]


def well_refused(stage: Stage, event: Mapping[str, Any], ended: Ended, exit_code: Exit, reason: str, *says: str) -> str:
    """The one answer, after everything was checked that is the same for all refusals."""
    assert (ended.code, ended.outputs["reason-code"]) == (exit_code, reason), ended
    assert ended.outputs["decision"] in ("denied", "malformed", "refused")
    assert ended.outputs["job-id"] == ended.outputs["run-key"] == ended.outputs["state"] == ""
    assert "Traceback" not in ended.stderr
    assert "This is a bug" not in ended.stderr
    assert f"::error title={reason.replace(':', '%3A')}::" in ended.stderr
    [answer] = answers_to(stage, event)
    assert f"reason `{reason}`" in answer
    assert "nothing was submitted" in answer
    for words in says:
        assert words in as_shown(answer), answer
        assert words in as_shown(ended.summary)
    assert CANARY not in answer + ended.summary + ended.stderr + ended.stdout + str(ended.outputs)
    assert ended.outputs["comment-url"]
    return answer


def as_shown(markdown: str) -> str:
    """Without the backslashes and zero-width spaces that make strangers' words powerless."""
    return markdown.replace("\\", "").replace("\u200b", "")


def nothing_left(job_dir: Path) -> None:
    """No run in the ledger, none that somebody still waits for."""
    for name in ("runs", "active"):
        assert not (job_dir / name).exists() or list((job_dir / name).iterdir()) == []
