"""What every answer on GitHub has in common: whose words they are (`Voice`), how our comment is found again, how a refusal is built."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dispatcher.action import blank_outputs
from dispatcher.errors import Exit
from dispatcher.grammar import Override, Run
from dispatcher.ports import Reaction
from dispatcher.printing import render, render_for_shell
from dispatcher.record import RunRecord
from dispatcher.verbs import parse_line

DOCS = "https://github.com/org/nemotron-dispatch/blob/main/docs"
# Stands in comments about a run, so that a later refusal of the same command never overwrites what a running job has to say.
RUN_MARK = "<!-- nemotron-dispatch run "


@dataclass(frozen=True)
class Voice:
    """What is the same in everything that one process says: the command word, GitHub's address, where this job's summary stands."""

    word: str = "/train"
    server_url: str = "https://github.com"
    summary_url: str | None = None
    at_terminal: bool = False

    @property
    def name(self) -> str:
        """What a run is called in headlines: the command word without its slash."""
        return self.word.lstrip("/")

    def again(self, record: RunRecord) -> str:
        """The command that asks for the same thing; a stage is run again with what comes after it."""
        if record.stage and not self.at_terminal:
            return f"{self.word} retry {record.run_key[:8]}"
        if record.stage and isinstance(whole := parse_line(record.asked), Run):
            return render_for_shell(whole, "nemotron-dispatch submit")
        pairs = (override.partition("=") for override in record.overrides)
        overrides = tuple(Override(key, value) for key, _, value in pairs)
        run = Run(record.profile, record.recipe, overrides=overrides)
        return render_for_shell(run, "nemotron-dispatch submit") if self.at_terminal else render(run, self.word)

    def cancel(self, run_key: str) -> str:
        """The command that ends a run."""
        return f"{'nemotron-dispatch' if self.at_terminal else self.word} cancel {run_key[:8]}"

    def logs(self, run_key: str) -> str:
        """The command that shows a run's log."""
        return f"{'nemotron-dispatch' if self.at_terminal else self.word} logs {self.key(run_key)}"

    def key(self, run_key: str) -> str:
        """A run key as it is shown: its beginning is enough in a pull request, where its runs are known."""
        return run_key if self.at_terminal else run_key[:8]

    @property
    def help(self) -> str:
        """The command that explains."""
        return "nemotron-dispatch --help" if self.at_terminal else f"{self.word} help"


@dataclass(frozen=True)
class Answer:
    """What is said when nothing was started: the comment, the same words for the log, the outputs and a reaction."""

    reason: str
    comment: str
    summary: str
    outputs: Mapping[str, str]
    reaction: Reaction | None
    exit: Exit
    title: str = ""
    """The headline alone, in Markdown, for a table."""

    @property
    def refuses(self) -> bool:
        """Whether somebody may not, or was not understood: what outsiders are told only by a reaction."""
        return self.outputs["decision"] in (DENIED.decision, MALFORMED.decision)

    def about(self, what: str) -> Answer:
        """The same, naming (in Markdown) which of several runs it is about."""
        head, _, rest = self.comment.partition("\n")
        short, _, more = self.summary.partition("\n")
        told = f"{what}: nothing of the command was started, because one of its runs cannot be."
        return replace(self, comment=f"{head}\n\n{told}\n{rest}", summary=f"{short}\n\n{told}\n{more}")


@dataclass(frozen=True)
class Tone:
    """In what manner something is refused: the `decision` output, the headline's icon, the reaction on the command."""

    decision: str
    icon: str
    reaction: Reaction


NOTHING = "nothing was submitted"

DENIED = Tone("denied", "🚫", "-1")
MALFORMED = Tone("malformed", "🤔", "confused")
WAITING = Tone("waiting", "✋", "eyes")
UNUSABLE = Tone("refused", "🤔", "confused")
BROKEN = Tone("refused", "😕", "confused")


def marker(trigger: str) -> str:
    """The hidden line by which our own comment is found again: one for each command, whatever it started."""
    return f"<!-- nemotron-dispatch {hashlib.sha256(trigger.encode()).hexdigest()[:24]} -->"


def refusal(
    title: str,
    reason: str,
    words: str,
    step: str,
    trigger: str,
    tone: Tone,
    exit_code: Exit,
    became: str = NOTHING,
    lead: str = "Not started",
) -> Answer:
    """What is said when nothing was started: a headline, why, and the next step. `words` and `step` are Markdown and safe already.

    `lead` begins the headline; `Not done` where nothing would have been started anyhow.
    """
    title = _within(title)
    lines = [f"### {tone.icon} {lead if became == NOTHING else f'Perhaps {lead[0].lower()}{lead[1:]}'}: {title}", ""]
    lines += [words, ""] if words else []
    lines += [f"**Next:** {step}", ""] if step else []
    lines += [f"<sub>reason `{reason}` · {became} · [how this works]({DOCS}/commands.md)</sub>"]
    told = blank_outputs(tone.decision, reason)
    return Answer(reason, "\n".join([*lines, "", marker(trigger)]), "\n".join(lines), told, tone.reaction, exit_code, title)


def _within(title: str) -> str:
    """A sentence's beginning as it is written behind a colon; a name such as `GitHub` keeps its capital."""
    first = title.split(" ", 1)[0]
    return title[:1].lower() + title[1:] if first.istitle() else title
