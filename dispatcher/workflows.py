"""What a repository wants of its workflows → the texts of train.yml, watch.yml and gate.yml.

The texts are the templates in `dispatcher/templates/`; the examples in docs/examples/ are made from the same ones. A template is the
file itself with marks: `#if NAME…` (any of the names holds; `!NAME`: it does not) and `#end` on lines of their own, `@@name@@` for a value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

WAYS = ("comments", "labels", "merge-queue", "schedule", "api", "manual")
"""Ways in, as the command line names them; each is one trigger of train.yml."""

Gate = Literal["no", "check", "job"]

_ACTION = re.compile(r"([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)@([0-9a-f]{40})(?:\s*#\s*([A-Za-z0-9][\w.,+() -]{0,79}))?", re.ASCII)
# https://docs.github.com/actions/reference/workflows-and-actions/events-that-trigger-workflows#schedule: POSIX cron, five fields.
_CRON_FIELD = r"(?:\*|[0-9A-Za-z]{1,3}(?:-[0-9A-Za-z]{1,3})?)(?:/[0-9]{1,2})?"
_CRON = re.compile(rf"{_CRON_FIELD}(?:,{_CRON_FIELD})*(?: {_CRON_FIELD}(?:,{_CRON_FIELD})*){{4}}", re.ASCII)


@dataclass(frozen=True)
class ActionRef:
    """The action as a step's `uses:` names it; `version` stands beside a commit, for people and for what updates it."""

    repository: str
    ref: str
    version: str = ""

    @property
    def uses(self) -> str:
        """What follows `uses:`."""
        return f"{self.repository}@{self.ref}" + (f" # {self.version}" if self.version else "")


EXAMPLE_ACTION = ActionRef("org/nemotron-dispatch", "v1")


@dataclass(frozen=True)
class Choices:
    """What a repository wants. `cron` is needed for the way `schedule`; without `ssh` runs are the runner's own (`executor: local`)."""

    ways: frozenset[str]
    gate: Gate
    end_with_pull: bool
    """A pull request's runs are cancelled when it is closed or becomes a draft."""
    action: ActionRef
    app: bool = False
    ssh: bool = True
    ssh_variable: bool = True
    """The host's keys are in the variable CLUSTER_KNOWN_HOSTS, not only in the profile."""
    cron: str = ""

    @property
    def pull_types(self) -> tuple[str, ...]:
        """Which events of a pull request matter."""
        gate = ("opened", "reopened", "synchronize", "ready_for_review", "edited") if self.gate != "no" else ()
        ended = ("closed", "converted_to_draft") if self.end_with_pull else ()
        return (*(("labeled",) if "labels" in self.ways else ()), *gate, *ended)

    @property
    def marks(self) -> frozenset[str]:
        """The names that hold in the templates' `#if`."""
        named = {
            "pulls": bool(self.pull_types),
            "buttons": self.app,
            "app": self.app,
            "ssh": self.ssh,
            "ssh-variable": self.ssh and self.ssh_variable,
            "secrets": self.ssh or self.app,
            "condition": bool(self.condition),
        }
        return self.ways | {name for name, holds in named.items() if holds}

    @property
    def condition(self) -> tuple[str, ...]:
        """The job's `if:`, in lines; empty when everything that triggers the workflow asks for something."""
        rules = []
        if "comments" in self.ways:
            wanted = "github.event.issue.pull_request && github.event.comment.user.type != 'Bot' &&"
            rules.append(f"(github.event_name != 'issue_comment' || ({wanted}\nstartsWith(github.event.comment.body, '/train')))")
        if "labels" in self.ways:
            rules.append("(github.event.action != 'labeled' || startsWith(github.event.label.name, 'train:'))")
        if "edited" in self.pull_types:
            rules.append("(github.event.action != 'edited' || github.event.changes.base)")
        if self.app:
            rules.append("(github.event_name != 'check_run' || startsWith(github.event.check_run.name, 'dispatch'))")
        return tuple(" &&\n".join(rules).splitlines())


def parse_action(text: str) -> ActionRef:
    """`owner/name@<40 hex digits>`, with `# version` behind it or not → the action. Raises ValueError with words that complete “… is”."""
    found = _ACTION.fullmatch(text.strip())
    if not found:
        raise ValueError("not `owner/name@` and the 40 hex digits of a commit, with `# v1.2.3` behind it or not")
    return ActionRef(found[1], found[2], (found[3] or "").strip())


def parse_cron(text: str) -> str:
    """Five fields of a cron expression → the same with single spaces. Raises ValueError with words that complete “… is”."""
    line = " ".join(text.split())
    if not _CRON.fullmatch(line):
        raise ValueError('not five fields of a cron expression, such as "17 3 * * 1-5"')
    return line


def workflows(choices: Choices) -> dict[str, str]:
    """File name → text: always train.yml; watch.yml where jobs outlive the workflow; gate.yml where the gate is a job."""
    values = {
        "uses": choices.action.uses,
        "pull_types": ", ".join(choices.pull_types),
        "cron": choices.cron,
        "condition": "\n".join(choices.condition),
        # A run on the runner itself is waited for: its profile allows an hour.
        "minutes": "30" if choices.ssh else "90",
    }
    wanted = ["train.yml", *(["watch.yml"] if choices.ssh else []), *(["gate.yml"] if choices.gate == "job" else [])]
    return {name: render(name, choices.marks, values) for name in wanted}


def examples() -> dict[str, str]:
    """The files of docs/examples/: everything that the job's own token can do."""
    return workflows(Choices(frozenset(WAYS), "job", end_with_pull=True, action=EXAMPLE_ACTION, cron="17 3 * * 1-5"))


def render(name: str, marks: Collection[str], values: Mapping[str, str]) -> str:
    """A template's text with its marks resolved; a value's further lines are indented (or commented) as its first one is.

    Raises:
        KeyError: the template names a value that there is none of.
        ValueError: its marks do not pair up.
    """
    kept: list[str] = []
    open_blocks: list[bool] = []
    for line in (files("dispatcher") / "templates" / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("#if "):
            open_blocks.append(any((word.removeprefix("!") in marks) != word.startswith("!") for word in line.split()[1:]))
        elif line == "#end":
            if not open_blocks:
                raise ValueError(f"{name}: `#end` without `#if`")
            open_blocks.pop()
        elif all(open_blocks):
            kept.append(_filled(line, values))
    if open_blocks:
        raise ValueError(f"{name}: `#if` without `#end`")
    return "\n".join(kept).rstrip("\n") + "\n"


def _filled(line: str, values: Mapping[str, str]) -> str:
    """In one pass, so that a value that looks like a mark stays what it is."""
    alone = re.match(r"([\s#]*)@@", line)
    indent = f"\n{alone[1]}" if alone else "\n"
    return re.sub(r"@@(\w+)@@", lambda found: values[found[1]].replace("\n", indent), line)
