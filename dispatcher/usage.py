"""GPU-hours of runs ↔ lines of the ledger's usage journal, and the journal → what was spent.

    2026-11 4f1c2d3e4f5a6b7c org/model alice 12 cluster default 64.0000

Month (UTC), run key, repository, account, pull request or `-`, profile, recipe, GPU-hours. A run gets a line with what it asks for when it
is submitted, and another with what it used when it has ended: the last line of a run key counts. The journal lies where others can write,
and other repositories share it: what is not a line of this repository counts as nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from urllib.parse import quote, unquote

from dispatcher.record import RunRecord
from dispatcher.slurm import State

LEFT = "left"
"""Stands for the witness of an end: the run was given up, and its job goes on for others."""
_OF_THE_JOB = ("state", "evidence", "started_at", "ended_at", "task_seconds", "earlier_jobs")
_LINE = re.compile(
    r"(?P<month>\d{4}-\d\d) (?P<run>[0-9a-f]{16}) (?P<repository>\S{1,300}) (?P<login>\S{1,300}) (?P<pull>-|[1-9]\d{0,9}) "
    r"(?P<profile>\S{1,200}) (?P<recipe>\S{1,300}) (?P<hours>\d{1,9}(?:\.\d{1,9})?)",
    re.ASCII,
)


@dataclass(frozen=True)
class Spent:
    """GPU-hours by whom, where and with what; `month` is all of them together. Names count without case."""

    month: float = 0.0
    users: Mapping[str, float] = field(default_factory=dict)
    pulls: Mapping[int, float] = field(default_factory=dict)
    profiles: Mapping[str, float] = field(default_factory=dict)
    recipes: Mapping[str, float] = field(default_factory=dict)

    def user(self, login: str) -> float:
        """Of one account."""
        return self.users.get(login.lower(), 0.0)

    def pull(self, number: int) -> float:
        """Of one pull request."""
        return self.pulls.get(number, 0.0)

    def profile(self, name: str) -> float:
        """Of one profile."""
        return self.profiles.get(name.lower(), 0.0)

    def recipe(self, name: str) -> float:
        """Of one recipe."""
        return self.recipes.get(name.lower(), 0.0)


def month_of(moment: datetime) -> str:
    """`2026-11`, in UTC: the journal that a moment belongs to."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m")


def reserved(record: RunRecord, now: datetime) -> str:
    """The line for a submission: what is asked for. A run belongs to the month in which it was submitted, `now` where it is just being."""
    return _line(record, record.submitted_at or now, record.resources.gpu_hours)


def used(record: RunRecord) -> str | None:
    """The line for an end: what was used, 0 where it never started; None while the run, or a job that it has left to others, goes on.

    Where nobody saw it start (without accounting, between two sweeps), it counts from its submission on.
    """
    if not record.state.ended or record.evidence == LEFT:
        return None
    seconds, seen = record.elapsed_seconds or 0, record.elapsed_seconds is not None
    if not seen and _has_run(record) and record.submitted_at and record.ended_at:
        seconds = max(0, round((record.ended_at - record.submitted_at).total_seconds()))
    # Of an array's tasks accounting knows how long each ran; else as many as may ran all the time.
    seconds = seconds * record.resources.at_once if record.task_seconds is None else record.task_seconds
    # The end of a lost run is when it was missed, which may be days later: it cannot have had more than its time limit.
    if (record.state is State.LOST or not seen) and record.resources.seconds:
        seconds = min(seconds, record.resources.seconds * record.resources.tasks * record.resources.jobs)
    hours = seconds * record.resources.nodes * record.resources.gpus_per_node / 3600
    return _line(record, record.submitted_at or record.asked_at, hours)


def used_by(starter: RunRecord, last: RunRecord) -> str | None:
    """The line for the end of a job that the run which started it has left: it is paid by that one. None where it has not left it."""
    if starter.evidence != LEFT:
        return None
    return used(starter.model_copy(update={name: getattr(last, name) for name in _OF_THE_JOB}))


def _has_run(record: RunRecord) -> bool:
    """Whether a run whose start nobody saw may have had its GPUs: not when it was cancelled while it waited, or never had a job."""
    return bool(record.job_id) and (record.state not in (State.CANCELLED, State.SKIPPED) or record.evidence == "exit file")


def spent(journal: str, repository: str, leave_out_run_key: str = "") -> Spent:
    """The journal's text → sums over this repository's runs. Never raises: what is not a line of ours counts as nothing."""
    latest: dict[str, re.Match[str]] = {}
    for line in journal.split("\n"):
        found = _LINE.fullmatch(line.strip("\r"))
        if found and unquote(found["repository"]).lower() == repository.lower() and found["run"] != leave_out_run_key:
            latest[found["run"]] = found
    users: dict[str, float] = defaultdict(float)
    pulls: dict[int, float] = defaultdict(float)
    profiles: dict[str, float] = defaultdict(float)
    recipes: dict[str, float] = defaultdict(float)
    for found in latest.values():
        hours = float(found["hours"])
        users[unquote(found["login"]).lower()] += hours
        profiles[unquote(found["profile"]).lower()] += hours
        recipes[unquote(found["recipe"]).lower()] += hours
        if found["pull"] != "-":
            pulls[int(found["pull"])] += hours
    return Spent(sum(float(found["hours"]) for found in latest.values()), dict(users), dict(pulls), dict(profiles), dict(recipes))


def _line(record: RunRecord, moment: datetime, hours: float) -> str:
    """One line, without its end. A name with a space (a terminal's user) must not become two words."""
    names = (record.target.repository, record.actor, str(record.target.pull or "-"), record.profile, record.recipe)
    words = [quote(name, safe="/[]@+") or "-" for name in names]
    return " ".join([month_of(moment), record.run_key, *words, f"{max(hours, 0.0):.4f}"])
