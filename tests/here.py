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

from dispatcher.cli import main
from tests.stage import Ended, Stage, read_outputs


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
