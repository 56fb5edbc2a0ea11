"""What `action.yml` promises: its inputs and the variables that carry them, its modes, its outputs, its extras. The only list in code.

A contract test holds `action.yml` to it, so an input that nothing reads and an output that nothing writes cannot be published.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dispatcher.errors import InputError


@dataclass(frozen=True)
class ActionInput:
    """One input: its name in `with:`, the environment variable that `inputs.py` reads, and what stands there when it is not given."""

    name: str
    variable: str
    default: str = ""


INPUTS = (
    ActionInput("ssh-key", "DISPATCH_SSH_KEY"),
    ActionInput("ssh-passphrase", "DISPATCH_SSH_PASSPHRASE"),
    ActionInput("ssh-certificate", "DISPATCH_SSH_CERTIFICATE"),
    ActionInput("ssh-known-hosts", "DISPATCH_SSH_KNOWN_HOSTS"),
    ActionInput("command", "DISPATCH_COMMAND", "/train"),
    ActionInput("wait", "DISPATCH_WAIT"),
    ActionInput("extras", "DISPATCH_EXTRAS"),
    ActionInput("mode", "DISPATCH_MODE", "handle"),
    ActionInput("log-artifact", "DISPATCH_LOG_ARTIFACT", "false"),
    ActionInput("log-retention-days", "DISPATCH_LOG_RETENTION_DAYS"),
    ActionInput("log-folder", "DISPATCH_LOG_FOLDER"),
    ActionInput("token", "GITHUB_TOKEN", "${{ github.token }}"),
    ActionInput("app-slug", "DISPATCH_APP_SLUG", "github-actions"),
    ActionInput("app-id", "DISPATCH_APP_ID"),
    ActionInput("app-private-key", "DISPATCH_APP_PRIVATE_KEY"),
)

# Each is a command of the command line.
MODES = ("handle", "watch", "gate")

# Those of pyproject.toml: clients of executors' APIs. Each has a lock file of its own, `requirements-EXTRA.lock`.
EXTRAS = ("kubeflow", "skypilot")

OUTPUTS = ("decision", "reason-code", "run-key", "job-id", "state", "log-url", "wandb-url", "comment-url", "result")

# Those of the action's other steps: where complete logs are kept, and what became of the upload.
LOG_OUTPUTS = {
    "log-folder": "${{ steps.prepare.outputs.log-folder }}",
    "log-files": "${{ steps.dispatch.outputs.log-files }}",
    "log-artifact-url": "${{ steps.upload.outputs.artifact-url }}",
}

# https://docs.github.com/en/organizations/managing-organization-settings/configuring-the-retention-period-for-github-actions-artifacts-and-logs-in-your-organization
MOST_RETENTION_DAYS = 400


def blank_outputs(decision: str, reason: str) -> dict[str, str]:
    """The outputs where there is no run to tell of."""
    return {**dict.fromkeys(OUTPUTS, ""), "decision": decision, "reason-code": reason, "result": "{}"}


def extras_in(text: str) -> tuple[str, ...]:
    """`kubeflow, other` (commas or spaces) → the extras, each once, in one order.

    Raises:
        InputError: `input.extras` for a name that is none.
    """
    names = set(re.split(r"[,\s]+", text.strip())) - {""}
    unknown = sorted(names - set(EXTRAS))
    if unknown:
        raise InputError("input.extras", f"There is no extra {unknown[0][:60]!r}; there are {', '.join(EXTRAS)}.")
    return tuple(name for name in EXTRAS if name in names)


def retention_in(text: str) -> int | None:
    """`30` → days; None for nothing, which leaves it to the repository's setting.

    Raises:
        InputError: `input.retention`.
    """
    days = text.strip()
    if not days:
        return None
    if not re.fullmatch(r"[0-9]{1,3}", days, re.ASCII) or not 1 <= int(days) <= MOST_RETENTION_DAYS:
        raise InputError(
            "input.retention", f"`log-retention-days` is {days[:60]!r}; it takes a whole number from 1 to {MOST_RETENTION_DAYS}."
        )
    return int(days)
