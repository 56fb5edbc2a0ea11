"""The one table of verbs: how each is written, what it does, examples. Help, documentation and the parser's suggestions come from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOG_LINES = 200
LOG_LINES_LIMIT = 2000
REASON_LENGTH = (3, 300)


@dataclass(frozen=True)
class VerbHelp:
    """What people are told about a verb; all of it is written without the command word in front.

    `usage` is the shape, `does` one line of Markdown, `examples` are commands that can be given as they stand, `notes` is Markdown.
    """

    usage: str
    does: str
    examples: tuple[str, ...]
    notes: str = ""


# The one place that says which verbs there are: the help, the documentation and the suggestions are made from it.
VERBS: Mapping[str, VerbHelp] = {
    "run": VerbHelp(
        "[run] [profile=NAME] [recipe=NAME] [sha=SHA] [dry-run=true] [fresh=true] [key=value …]",
        "starts a run of this pull request's head, with the policy's profile and recipe where none is named",
        ("run", "profile=cluster train.iters=200", "profile=small,large lr=1e-3,3e-4"),
        "The word `run` may be left out. `key=value` goes to the script as one argument, or into the recipe's configuration; "
        "`config=NAME`, also written `-c NAME`, takes another of these. `run.nodes=4` changes a field of the profile. "
        "`profile`, `recipe` and every `key` take a list, `lr=1e-3,3e-4`: each combination becomes a run. A comma inside of brackets "
        '(`size=[1,2]`) or of a quoted value (`note="a,b"`) separates nothing. `sha=` must be the head; for a fork it is needed.',
    ),
    "plan": VerbHelp(
        "plan [profile=NAME] [recipe=NAME] [sha=SHA] [key=value …]",
        "shows what `run` would submit, and submits nothing",
        ("plan", "plan profile=cluster run.nodes=4"),
        "It takes the same words as `run`.",
    ),
    "status": VerbHelp("status", "lists this pull request's runs", ("status",)),
    "logs": VerbHelp(
        "logs [RUN] [lines=N] [task=N]",
        "shows the end of a run's log",
        ("logs", "logs 4f1c2d3e lines=500", "logs 4f1c2d3e task=3"),
        f"Without RUN, of the newest run. {LOG_LINES} lines unless `lines=` says otherwise, at most {LOG_LINES_LIMIT:,}. "
        "RUN is the beginning of a run key: 4 to 16 hex digits. `task=` names a task of an array job, a component of a heterogeneous one "
        "(from 0), or a job of a chain; without it, of an array that of a task that failed, else the one that was written last.",
    ),
    "cancel": VerbHelp(
        "cancel [RUN | profile=NAME | all]",
        "ends runs of this pull request",
        ("cancel", "cancel 4f1c2d3e", "cancel profile=cluster", "cancel all"),
        "Alone it ends the only run that is active; where there are several it must say which.",
    ),
    "retry": VerbHelp(
        "retry [RUN | all]",
        "runs again what failed, on the head as it is now",
        ("retry", "retry 4f1c2d3e", "retry all"),
        "Alone it repeats the failed runs; `all` repeats those that did not fail, too.",
    ),
    "approve": VerbHelp(
        "approve sha=SHA",
        "vouches for exactly this commit: what was asked for it, and waits for somebody with the right, then runs",
        (f"approve sha={'0123456789' * 4}",),
        "All 40 hex digits are needed, so that what was read is what runs.",
    ),
    "override": VerbHelp(
        'override GATE reason="…"',
        "makes a recorded, visible, expiring exception from a gate, for the head as it is now",
        ('override dispatch/gate reason="the cluster is down until Monday"',),
        f"The reason has {REASON_LENGTH[0]} to {REASON_LENGTH[1]} characters, and everybody can read it.",
    ),
    "baseline": VerbHelp(
        'baseline accept [RUN] [reason="…"]',
        "makes what a run measured what later ones are compared with, for everybody",
        ("baseline accept", 'baseline accept 4f1c2d3e reason="the longer warm-up costs 2 %"'),
        "Without RUN, the newest one that ended well; where that cannot be a baseline, nothing is accepted. "
        "Who did it, when and why stands beside later comparisons.",
    ),
    "help": VerbHelp(
        "help [VERB | profiles | recipes]",
        "says what there is here",
        ("help", "help cancel", "help profiles"),
    ),
}
TOPICS = (*VERBS, "profiles", "recipes")
