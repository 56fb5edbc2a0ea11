"""Outputs, summary and log of an Actions job (or nothing of it, at a terminal).

`GITHUB_OUTPUT` is written with a random delimiter, so that no value can add another output; nothing is ever written to GITHUB_ENV
(https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions#multiline-strings).
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from dispatcher.untrusted import cap, for_log, printable, strip_ansi

# GitHub keeps 1 MiB of summary for each step.
SUMMARY_BYTES = 1_000_000


class Runner:
    """Where the process tells its caller things: files that GitHub names, standard error for people."""

    def __init__(self, output_file: str | None, summary_file: str | None, in_actions: bool) -> None:
        self._output_file = Path(output_file) if output_file else None
        self._summary_file = Path(summary_file) if summary_file else None
        self.in_actions = in_actions
        self.log_to_stdout = False

    def outputs(self, values: Mapping[str, str]) -> None:
        """Sets the step's outputs."""
        if self._output_file is None:
            return
        with self._output_file.open("a", encoding="utf-8") as file:
            for name, value in values.items():
                delimiter = f"END_{secrets.token_hex(16)}"
                file.write(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")

    def summary(self, markdown: str) -> None:
        """Adds to the job's summary."""
        if self._summary_file is not None:
            with self._summary_file.open("a", encoding="utf-8") as file:
                file.write(cap(markdown, SUMMARY_BYTES) + "\n")

    def say(self, line: str) -> None:
        """One line of progress for whoever watches."""
        print(for_log(line) if self.in_actions else line, file=sys.stderr, flush=True)

    def log_bytes(self, data: bytes) -> None:
        """New bytes of a job's log. In Actions they are no workflow commands, on a terminal they do not steer it; piped they are whole."""
        text = data.decode("utf-8", "replace")
        stream = sys.stdout if self.log_to_stdout else sys.stderr
        if self.in_actions:
            text = for_log(text)
        elif stream.isatty():
            text = printable(strip_ansi(text.replace("\r\n", "\n").replace("\r", "\n")))
        stream.write(text)
        stream.flush()

    def mask(self, secret: str) -> None:
        """GitHub shows `***` in its place from now on; it already does so for what came from `secrets`.

        https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions#masking-a-value-in-a-log
        """
        if self.in_actions:
            print(f"::add-mask::{secret}", file=sys.stderr, flush=True)

    def error(self, title: str, message: str) -> None:
        """An error that GitHub shows on the workflow run's page; on a terminal just a line."""
        if self.in_actions:
            escaped = for_log(message).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
            safe_title = for_log(title).replace("%", "%25").replace(",", "%2C").replace(":", "%3A").replace("\n", " ")
            print(f"::error title={safe_title}::{escaped}", file=sys.stderr, flush=True)
        else:
            print(f"{title}: {message}", file=sys.stderr, flush=True)
