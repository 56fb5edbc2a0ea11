"""The policy's tables beside its rules: what runs by the clock, what stands before a merge, what becomes of runs, how much is said."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from dispatcher.attempts import MOST_RETRIES
from dispatcher.grammar import Malformed, Override, Run, parse_override
from dispatcher.rules import Allow
from dispatcher.values import Between, Duration, GlobPattern, Line, Model, OneOrMore, ProfileName, RecipeName, Ref


def _override_word(value: str) -> str:
    found = parse_override(value)
    if isinstance(found, Malformed):
        raise ValueError(f"is not an override: {found.message} {found.hint}")
    return value


OverrideWord = Annotated[Line, AfterValidator(_override_word)]


class Schedule(Model):
    """One run that a cron expression of the workflow starts. Without ref: the default branch."""

    name: ProfileName = Field(description="A name of its own.")
    cron: Line = Field(description="Exactly as in the workflow's `on.schedule`.")
    profile: ProfileName | None = Field(default=None, description="Without it `default_profile`.")
    recipe: RecipeName | None = Field(default=None, description="Without it `default_recipe`.")
    ref: Ref | None = Field(default=None, description="Branch or tag; without it the default branch.")
    overrides: OneOrMore[OverrideWord] = Field(default=(), description="Words `key=value`.")

    @property
    def run(self) -> Run:
        """The command that it stands for."""
        parsed = tuple(found for found in map(parse_override, self.overrides) if isinstance(found, Override))
        return Run(profile=self.profile, recipe=self.recipe, ref=self.ref, overrides=parsed)


def _meant_to_match(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """A list that matches nothing would silently require nothing."""
    if patterns and all(pattern.startswith(("#", "!")) or not pattern.strip() for pattern in patterns):
        raise ValueError("matches nothing: comments and exclusions alone select no file")
    return patterns


class Required(Model):
    """A run that must have passed before a pull request may be merged: one that touches `paths`, goes into `branches` and bears `labels`.

    What is empty holds for every pull request.
    """

    profile: ProfileName | None = Field(default=None, description="Without it `default_profile`.")
    recipe: RecipeName | None = Field(default=None, description="Without it `default_recipe`.")
    paths: Annotated[OneOrMore[GlobPattern], AfterValidator(_meant_to_match)] = Field(
        default=(), description="gitignore patterns of changed files."
    )
    branches: Annotated[OneOrMore[Line], AfterValidator(_meant_to_match)] = Field(
        default=(), description="gitignore patterns of base branches."
    )
    labels: OneOrMore[Line] = Field(default=(), description="Labels, one of which the pull request bears; large and small letters are one.")


class Waiver(Model):
    """Exceptions from the gate: `/train override dispatch/gate reason="…"`, for the head as it is, until they expire."""

    allow: Allow = Field(default=Allow(roles=("maintain",)), description="Who may make one.")
    expires: Duration = Field(default=86400, ge=60, description="How long it holds.")


class Gate(Model):
    """What stands between a pull request and its merge."""

    required: tuple[Required, ...] = Field(default=(), description="Runs that must have passed.")
    baseline: Allow = Field(default=Allow(roles=("maintain",)), description="Who may accept a run as the new baseline.")
    override: Waiver | None = Field(default=None, description="Exceptions by hand; without it there are none.")


class Reuse(Model):
    """When what has run already is not run again."""

    runs: bool = Field(
        default=True, description="Take the end, or the job, of an earlier run with the same content, unless `fresh=true` is said."
    )
    max_age: Duration = Field(default=30 * 86400, ge=0, description="How long ago it may have ended.")
    merge_queue: Literal["reuse", "run", "never"] = Field(
        default="reuse",
        description="Whether the queue's commit does so, too (`reuse`), is always run (`run`), or never: "
        "then the pull request's own runs are judged.",
    )


class Retries(Model):
    """How often a run is run again by itself that the machine has ended, not the change."""

    infrastructure: Annotated[int, Between(0, MOST_RETRIES)] = Field(
        default=0, description="Most retries of one run whose failure blames the machine; 0: none."
    )
    wait: Duration = Field(
        default=300, ge=0, le=86400, description="How long the first retry's job waits in Slurm at least; each further one twice as long."
    )
    exclude_node: bool = Field(default=False, description="Keep a retry off the node that failed, where the run had one node.")


class Watch(Model):
    """How running jobs are looked after."""

    profiles: OneOrMore[ProfileName] = Field(default=(), description="Profiles whose clusters are swept.")
    lost_after: Duration = Field(default=600, ge=60, description="How long a job may be unknown to the scheduler before it counts as lost.")
    progress: Duration | None = Field(
        default=None,
        ge=60,
        description="At most so often a running job's steps are news of their own; else they are told with a change of its state.",
    )


class Pulls(Model):
    """What becomes of runs when something happens to their pull request, and what a label means."""

    superseded: Literal["leave", "cancel"] = Field(
        default="leave", description="Runs of a commit that is no longer the head; a job that packs the same files as the new head goes on."
    )
    closed: Literal["leave", "cancel"] = Field(default="leave", description="Runs of a pull request that was closed.")
    draft: Literal["leave", "cancel"] = Field(default="leave", description="Runs of a pull request that was converted to a draft.")
    labels: Literal["once", "standing"] = Field(
        default="once", description="`once`: asks for one run and is taken off; `standing`: stays, and asks again for each new head."
    )


class Noise(Model):
    """How much is said."""

    outsiders: Literal["reaction", "comment"] = Field(
        default="reaction", description="What people without write access get when they are refused or not understood."
    )


class Most(Model):
    """How much one comment may ask for."""

    runs: Annotated[int, Between(1, 256)] = Field(default=8, description="Runs that one command may become (profiles × values).")
    commands: Annotated[int, Between(1, 50)] = Field(default=5, description="Commands in one comment.")
