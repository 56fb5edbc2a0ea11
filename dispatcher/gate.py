"""Required runs × records of this head SHA → `Pass`, `Pending` or `Fail`, each with its reasons.

State is trusted only from the ledger: a check or a comment could have been written by a workflow of the pull request itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pathspec

from dispatcher.pipeline import Pipeline
from dispatcher.policy import Policy
from dispatcher.record import RunRecord
from dispatcher.slurm import State
from dispatcher.stagegate import NeededStage, needed_stages, stages_stand
from dispatcher.waiver import WaiverRecord


@dataclass(frozen=True)
class Requirement:
    """One run that must have ended well; `because` names the changed path, or the rule, that asks for it."""

    profile: str
    recipe: str
    because: str
    stages: tuple[NeededStage, ...] = ()
    """Where the recipe is a pipeline."""

    @property
    def profiles(self) -> tuple[str, ...]:
        """Where its runs are."""
        return tuple(dict.fromkeys(stage.profile for stage in self.stages)) or (self.profile,)

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.profile} / {self.recipe}"


@dataclass(frozen=True)
class NotStarted:
    """Why a run that is required could not be started and will not be: the reason, and what was answered, in Markdown of our own."""

    reason: str
    words: str = ""


Unstarted = Mapping[tuple[str, str], NotStarted]
"""By profile and recipe."""


@dataclass(frozen=True)
class Line:
    """How one requirement stands; `run_key` is empty while there is no run."""

    requirement: Requirement
    state: State | None
    run_key: str = ""
    log_url: str | None = None
    note: str = ""
    refused: NotStarted | None = None


@dataclass(frozen=True)
class Pass:
    """Every required run ended well on this SHA (or none is required)."""

    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Pending:
    """Nothing has failed, but something is still to come; `missing` of the lines have not even been asked for."""

    lines: tuple[Line, ...]
    missing: int


@dataclass(frozen=True)
class Fail:
    """At least one required run ended, and not well."""

    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Waived:
    """Somebody with the right has made an exception for this SHA; the lines say how the runs really stand."""

    lines: tuple[Line, ...]
    waiver: WaiverRecord


Verdict = Pass | Pending | Fail | Waived


def may_be_required(policy: Policy, record: RunRecord) -> bool:
    """Whether there are pull requests for which the policy requires such a run: one without overrides, or a stage with its own."""
    recipe = record.pipeline or record.recipe
    as_described = bool(record.pipeline) or not record.overrides
    return as_described and any((rule.recipe or policy.default_recipe) == recipe for rule in policy.gate.required)


def required_runs(
    policy: Policy, base_ref: str, changed: Sequence[str] | None, labels: Sequence[str] | None = None
) -> tuple[Requirement, ...]:
    """Which runs the policy requires for a pull request into `base_ref` that touches `changed` (paths from the repository's root)
    and bears `labels`. None: what it touches, or bears, is not known, so every rule counts.

    Patterns are .gitignore's (https://git-scm.com/docs/gitignore#_pattern_format); no patterns means every pull request.
    """
    found: dict[tuple[str, str], Requirement] = {}
    for rule in policy.gate.required:
        if rule.branches and not _matching(rule.branches, [base_ref]):
            continue
        borne = _borne(rule.labels, labels)
        if rule.labels and not borne:
            continue
        if not rule.paths:
            touched = [f"label {borne[0]}" if borne else "every pull request"]
        else:
            touched = ["every path: the change's own are not known"] if changed is None else _matching(rule.paths, changed)
        if touched:
            profile, recipe = rule.profile or policy.default_profile or "", rule.recipe or policy.default_recipe or ""
            pipeline = policy.recipe(recipe)
            stages = needed_stages(pipeline, profile) if isinstance(pipeline, Pipeline) else ()
            found.setdefault((profile, recipe), Requirement(profile, recipe, touched[0], stages))
    return tuple(found.values())


def _borne(wanted: Sequence[str], labels: Sequence[str] | None) -> list[str]:
    """GitHub takes names of labels that differ in the size of letters for one."""
    if labels is None:
        return list(wanted)
    have = {label.casefold() for label in labels}
    return [label for label in wanted if label.casefold() in have]


def _matching(patterns: Sequence[str], paths: Sequence[str]) -> list[str]:
    return sorted(pathspec.PathSpec.from_lines("gitignore", patterns).match_files(paths))


def judge(requirements: Sequence[Requirement], records: Sequence[RunRecord], head_sha: str, waiver: WaiverRecord | None = None) -> Verdict:
    """Sums up. Only records of exactly `head_sha`, run as the default branch has it, count; of several the newest does.

    `waiver` is an exception that holds now; where everything has passed it is not needed.
    """
    lines = tuple(_line(requirement, records, head_sha) for requirement in requirements)
    if waiver is not None and any(line.state is not State.SUCCEEDED for line in lines):
        return Waived(lines, waiver)
    if any(line.state is not None and line.state.ended and line.state is not State.SUCCEEDED for line in lines):
        return Fail(lines)
    if any(line.state is not State.SUCCEEDED for line in lines):
        return Pending(lines, sum(line.state is None for line in lines))
    return Pass(lines)


def without_hope(verdict: Verdict, unstarted: Unstarted) -> Verdict:
    """Where nobody starts later what could not be started now, it is not waited for."""
    if not isinstance(verdict, Pending):
        return verdict
    lines = tuple(
        replace(line, refused=unstarted.get((line.requirement.profile, line.requirement.recipe))) if line.state is None else line
        for line in verdict.lines
    )
    return Fail(lines) if any(line.refused for line in lines) else verdict


def _line(requirement: Requirement, records: Sequence[RunRecord], head_sha: str) -> Line:
    if requirement.stages:
        return _stages_line(requirement, records, head_sha)
    same = [record for record in records if record.sha == head_sha and _is_of(record, requirement)]
    as_decided = [record for record in same if _as_decided(record)]
    plain = [record for record in as_decided if not record.overrides]
    if not plain:
        return Line(requirement, None, note=_why_none(same))
    # By when it was asked for: every record says that, also one that GitHub would not hear of when it was submitted.
    newest = max(plain, key=lambda record: (record.asked_at, record.submitted_at or record.asked_at))
    if newest.retry_owed:
        # Red would throw the commit out of a merge queue, for something that is tried again.
        return Line(
            requirement, State.QUEUED, newest.run_key, newest.log_url, "the machine ended it; it is about to be run again by itself"
        )
    if newest.verdict_owed:
        return Line(requirement, State.QUEUED, newest.run_key, newest.log_url, "what it measured has not been judged yet")
    note = newest.results_problem or newest.reason or _not_run_again(newest)
    state = State.FAILED if newest.state is State.SUCCEEDED and newest.results_problem else newest.state
    return Line(requirement, state, newest.run_key, newest.log_url, note)


def _not_run_again(record: RunRecord) -> str:
    if not record.same_as:
        return ""
    return (
        f"{'shares its job' if record.joined else 'not run again'}: the same content as run {record.same_as[:8]} of {record.same_sha[:7]}"
    )


def _is_of(record: RunRecord, requirement: Requirement) -> bool:
    """Whether it ran just that: a stage of a pipeline had more before it than the commit."""
    return (record.profile, record.recipe) == (requirement.profile, requirement.recipe) and not record.stage


def _as_decided(record: RunRecord) -> bool:
    """Whether it ran what the default branch describes, as far as nobody asked for anything else."""
    return record.origin == "github" and not record.own_runspec and not record.uncommitted


def _stages_line(requirement: Requirement, records: Sequence[RunRecord], head_sha: str) -> Line:
    """How a pipeline stands. Its stages count as the default branch has them: with the overrides that it gives them, and no others."""
    of_commit = [record for record in records if record.sha == head_sha and record.pipeline == requirement.recipe]
    stand = stages_stand(requirement.recipe, requirement.stages, [record for record in of_commit if _as_decided(record)])
    if stand.decides is None:
        return Line(requirement, None, note=stand.note or _why_none(of_commit))
    return Line(requirement, stand.state, stand.decides.run_key, stand.decides.log_url, stand.note)


def _why_none(same: Sequence[RunRecord]) -> str:
    """Why none of the runs of the commit counts; empty where there is none."""
    if any(record.own_runspec and not record.overrides for record in same):
        return "a run with another `[tool.runspec]` or `run.env` than on the default branch does not count"
    return "runs with overrides, and runs from a terminal, do not count" if same else ""
