"""A required pipeline × records of one commit → how its stages stand together: it has passed when all have, or were not needed.

What counts is one chain: of each stage the newest run that came after exactly the counted runs of the stages before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dispatcher.pipeline import Pipeline
from dispatcher.record import RunRecord
from dispatcher.slurm import State


@dataclass(frozen=True)
class NeededStage:
    """One stage of a required pipeline, as the default branch has it. `spare`: it may turn out not to be needed."""

    name: str
    profile: str
    recipe: str
    overrides: tuple[str, ...]
    after: tuple[str, ...]
    spare: bool


@dataclass(frozen=True)
class StagesStand:
    """How they stand together: the state and the run that decide, None where a stage has not been started; and why, in words."""

    state: State | None
    decides: RunRecord | None
    note: str


def needed_stages(pipeline: Pipeline, profile: str) -> tuple[NeededStage, ...]:
    """The stages in their order; `profile` is that of those that name none."""
    spare = pipeline.spare
    return tuple(
        NeededStage(
            name,
            pipeline.stages[name].profile or profile,
            pipeline.recipe_of(name),
            tuple(override.word for override in pipeline.stages[name].asked(())),
            pipeline.after(name),
            name in spare,
        )
        for name in pipeline.order
    )


def stages_stand(name: str, stages: Sequence[NeededStage], records: Sequence[RunRecord]) -> StagesStand:
    """Sums up. `records` are those of one commit that a gate may count at all, whatever they ran."""
    chain = _chain(name, stages, records)
    spare = {stage.name: stage.spare for stage in stages}
    passed = [stage for stage, record in chain.items() if _passed(record)]
    early = _early(chain)
    bad = next(
        (item for item in chain.items() if item[0] not in early and item[1].state.ended and not _good(item[1], spare[item[0]])), None
    )
    count = f"{len(passed)} of {len(stages)} stages passed"
    if bad is not None:
        stage, record = bad
        state = State.FAILED if record.state in (State.SUCCEEDED, State.SKIPPED) else record.state
        why = record.results_problem or record.reason
        return StagesStand(state, record, f"stage {stage}" + (f": {why}" if why else "") + f"; {count}")
    owed = next(((stage, record) for stage, record in chain.items() if record.retry_owed), None)
    if owed is not None:
        stage, record = owed
        # Red would throw the commit out of a merge queue, for something that is tried again.
        return StagesStand(State.QUEUED, record, f"stage {stage}: the machine ended it; it is about to be run again by itself; {count}")
    missing = [stage.name for stage in stages if stage.name not in chain]
    if missing:
        return StagesStand(None, None, f"stage {missing[0]} has not been started; {count}" if chain else "")
    waiting = next(((stage, record) for stage, record in chain.items() if not record.state.ended), None)
    if waiting is not None:
        stage, record = waiting
        return StagesStand(record.state, record, f"stage {stage}; {count}")
    skipped = len(stages) - len(passed)
    return StagesStand(State.SUCCEEDED, list(chain.values())[-1], count + (f", {skipped} not needed" if skipped else ""))


def _chain(name: str, stages: Sequence[NeededStage], records: Sequence[RunRecord]) -> dict[str, RunRecord]:
    """Of each stage the run that counts; a stage without one, and what comes after it, is not there."""
    chain: dict[str, RunRecord] = {}
    for stage in stages:
        if not all(before in chain for before in stage.after):
            continue
        runs = [record for record in records if (record.pipeline, record.stage) == (name, stage.name) and _is(record, stage, chain)]
        if runs:
            # By when it was asked for: every record says that.
            chain[stage.name] = max(runs, key=lambda record: (record.asked_at, record.submitted_at or record.asked_at))
    return chain


def _early(chain: Mapping[str, RunRecord]) -> frozenset[str]:
    """Stages whose end decides nothing yet: those that are run again by themselves, and what comes after one that is, or that goes on.

    A stage that has ended before one that it waits for has ended because of that one, of whose end the ledger has not heard yet.
    """
    open_keys: set[str] = set()
    found: set[str] = set()
    for stage, record in chain.items():
        after = any(member.run_key in open_keys for member in record.before)
        if after or record.retry_owed:
            found.add(stage)
        if after or record.retry_owed or not record.state.ended:
            open_keys.add(record.run_key)
    return frozenset(found)


def _is(record: RunRecord, stage: NeededStage, chain: Mapping[str, RunRecord]) -> bool:
    """Whether it ran what is required, where it is required, after the very runs that count."""
    as_required = (record.profile, record.recipe, record.overrides) == (stage.profile, stage.recipe, stage.overrides)
    return as_required and {member.run_key for member in record.before} == {chain[before].run_key for before in stage.after}


def _passed(record: RunRecord) -> bool:
    return record.state is State.SUCCEEDED and not record.results_problem


def _good(record: RunRecord, spare: bool) -> bool:
    """Passed; or not needed, where the pipeline says that this may be."""
    return _passed(record) or (spare and record.state is State.SKIPPED)
