"""Runs that are to be run again × the policy as it is → what is asked for anew: of a pipeline only what failed and what comes after it.

Stages that passed are not run again: the others wait for the runs that there are. On another commit than then, all of them are run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dispatcher.authorise import Grant
from dispatcher.awaiting import satisfied
from dispatcher.grammar import Malformed, Run, parse_override
from dispatcher.pipeline import Pipeline, Reused, When
from dispatcher.policy import Policy
from dispatcher.record import Member, RunRecord
from dispatcher.verbs import parse_line


@dataclass(frozen=True)
class Again:
    """One thing to ask for. `before` has the runs that there are: one, or by stage those of a pipeline; `start` are stages to begin at."""

    run: Run
    before: Mapping[str, RunRecord]
    start: frozenset[str] = frozenset()

    def narrowed(self, grants: Sequence[Grant], number: int, policy: Policy) -> tuple[Grant, ...]:
        """What was granted for `run` → what is run again, each with what it repeats. `number` tells this pipeline from others."""
        if any(grant.stage is None for grant in grants):
            [record] = list(self.before.values())[:1]
            return tuple(replace(grant, attempt=record.attempt + 1, retry_of=record.run_key) for grant in grants)
        pipeline = policy.recipe(self.run.recipe)
        assert isinstance(pipeline, Pipeline), "only those have stages"
        wanted = stages_again(pipeline, self.before, self.start)
        reused = tuple(_reused(self.before[name]) for name in pipeline.order if name not in wanted)
        found = []
        for grant in grants:
            assert grant.stage is not None
            if grant.stage.stage in wanted:
                known = self.before.get(grant.stage.stage)
                attempt, retry_of = (known.attempt + 1, known.run_key) if known else (1, "")
                place = replace(grant.stage, number=number, reused=reused)
                found.append(replace(grant, stage=place, attempt=attempt, retry_of=retry_of))
        return tuple(found)


def asked_again(chosen: Sequence[RunRecord], records: Sequence[RunRecord], head: str) -> tuple[Again, ...] | Malformed:
    """The runs that are to be run again → what to ask for: each of them, and each pipeline of which a stage is among them once.

    `records` has all that is known. The ledger lies where a job can write: what stands there is held to the grammar.
    """
    found: dict[object, Again] = {}
    by_key = {record.run_key: record for record in records}
    for record in chosen:
        run = run_of(record, head)
        if isinstance(run, Malformed):
            return run
        if not record.stage:
            found[record.run_key] = Again(run, {"": record})
            continue
        family = related(record.group, record.run_key)
        before = {by_key[member.run_key].stage: by_key[member.run_key] for member in family if member.run_key in by_key}
        before = {stage: known for stage, known in before.items() if known.sha == head}
        start = found[family].start if family in found else frozenset()
        found[family] = Again(run, before or {record.stage: record}, (start | {record.stage}) if before else start)
    return tuple(found.values())


def resumed(
    grants: Sequence[Grant], repeated: Sequence[RunRecord], records: Sequence[RunRecord], head: str, policy: Policy
) -> tuple[Grant, ...]:
    """Grants for whole pipelines → only for what a retry of `repeated` would run, and of whatever else failed beside it."""
    found: list[Grant] = [grant for grant in grants if grant.stage is None]
    for number in sorted({grant.stage.number for grant in grants if grant.stage}):
        own = [grant for grant in grants if grant.stage and grant.stage.number == number]
        pipeline = own[0].stage.pipeline if own[0].stage else ""
        first = [record for record in repeated if record.pipeline == pipeline]
        keys = {member.run_key for record in first for member in related(record.group, record.run_key)}
        failed = [record for record in records if record.run_key in keys and record.state.ended and not record.ended_well]
        again = asked_again([*first, *failed], records, head)
        narrowed = [item.narrowed(own, number, policy) for item in again] if not isinstance(again, Malformed) else []
        # Another pipeline of the same request, of which nothing is known, is run as it was asked for.
        found += narrowed[0] if narrowed else own
    return tuple(found)


def run_of(record: RunRecord, head: str) -> Run | Malformed:
    """The command that asks for the same on the head; of a stage, for its pipeline.

    For a fork, a commit that has run before has been vouched for before.
    """
    sha = record.sha if record.sha == head else None
    if record.stage:
        asked = parse_line(record.asked)
        if isinstance(asked, Malformed):
            return asked
        if not isinstance(asked, Run) or asked.recipe != record.pipeline:
            return Malformed("unknown-word", "the ledger does not say what was asked for", "Give the command again.")
        return Run(asked.profile, asked.recipe, sha, overrides=asked.overrides)
    overrides = []
    for word in record.overrides:
        override = parse_override(word)
        if isinstance(override, Malformed):
            return override
        overrides.append(override)
    return Run(record.profile, record.recipe, sha, overrides=tuple(overrides))


def _reused(record: RunRecord) -> Reused:
    place = record.place
    return Reused(record.stage, record.run_key, record.profile, place.after if place else (), place.when if place else "afterok")


def _keeps_from_running(when: When, before: RunRecord) -> bool:
    """Whether a stage that waits for this run never would begin, because it went wrong."""
    return before.state.ended and not before.ended_well and not satisfied(when, before.state)


def newest_pipelines(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Records, oldest first → the same without stages that belong to an earlier run of what was run again since."""
    latest = {(record.pipeline, record.asked): record for record in records if record.stage}
    keys = {member.run_key for record in latest.values() for member in related(record.group, record.run_key)}
    return [record for record in records if not record.stage or record.run_key in keys]


def related(group: Sequence[Member], run_key: str) -> tuple[Member, ...]:
    """The members that a stage has to do with: all that it waits for, all that wait for it, and so on."""
    keys = {run_key}
    while more := {
        key for member in group for key in (member.run_key, *member.after) if keys & {member.run_key, *member.after} and key not in keys
    }:
        keys |= more
    return tuple(member for member in group if member.run_key in keys)


def stages_again(pipeline: Pipeline, before: Mapping[str, RunRecord], start: frozenset[str]) -> frozenset[str]:
    """The stages to run: those to begin at, those that have no run, what comes after one of them, and what failed before one of them.

    Without `start` all.
    """
    if not start:
        return frozenset(pipeline.order)
    wanted = {name for name in pipeline.order if name in start or name not in before}
    while True:
        later = {name for name in pipeline.order if wanted & set(pipeline.after(name))}
        failed = {
            other
            for name in wanted
            for other in pipeline.after(name)
            if other in before and _keeps_from_running(pipeline.stages[name].when, before[other])
        }
        if later | failed <= wanted:
            return frozenset(wanted)
        wanted |= later | failed
