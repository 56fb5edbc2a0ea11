"""A grant for a pipeline → a grant for each of its stages; their plans → the group that they make, and the folders that they see.

What a pipeline's stages run and where is admitted as if each had been asked for alone: a pipeline leads around no rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dispatcher.authorise import Asked, Denial, Facts, Grant, admitted, overridable
from dispatcher.grammar import Run
from dispatcher.jobplan import JobPlan
from dispatcher.pipeline import Pipeline, Place
from dispatcher.policy import Policy
from dispatcher.record import Member

# What the policy itself starts is started whoever may use what it runs.
BY_POLICY = ("schedule", "merge_group")


@dataclass(frozen=True)
class _Key:
    """Names a stage among all runs of one command."""

    number: int
    stage: str


def stages_of(run: Asked, policy: Policy) -> tuple[Run, ...]:
    """What the stages of a pipeline ask for, each as if it were asked for alone; none where it is no pipeline that is asked for."""
    pipeline = policy.recipe(run.recipe) if isinstance(run, Run) else None
    if not isinstance(run, Run) or not isinstance(pipeline, Pipeline):
        return ()
    stages = pipeline.stages
    return tuple(
        replace(
            run,
            profile=stages[name].profile or run.profile,
            recipe=pipeline.recipe_of(name),
            overrides=stages[name].asked(run.overrides),
        )
        for name in pipeline.order
    )


def expanded(runs: Sequence[Run], policy: Policy) -> tuple[Run, ...]:
    """The runs, and behind each that is a pipeline its stages: whoever wants it needs leave for all of that."""
    return tuple(item for run in runs for item in (run, *stages_of(run, policy)))


def stage_grants(grant: Grant, number: int, facts: Facts, policy: Policy) -> tuple[Grant, ...] | Denial:
    """What was granted as one run → a grant for each stage, every one behind those that it waits for; or the first no.

    `number` is which of the command's runs it is. What is no pipeline stays one grant.
    """
    pipeline = policy.recipe(grant.recipe)
    if not isinstance(pipeline, Pipeline):
        return (grant,)
    asked = Run(grant.profile, grant.recipe, overrides=grant.overrides)
    grants = []
    for name in pipeline.order:
        stage, recipe = pipeline.stages[name], pipeline.recipe_of(name)
        profile, overrides = stage.profile or grant.profile, stage.asked(grant.overrides)
        may = "the policy" if grant.via in BY_POLICY else admitted(profile, recipe, facts, policy)
        if isinstance(may, Denial):
            return may
        refused = overridable(overrides, (profile,), recipe, policy)
        if refused is not None:
            return refused
        place = Place(grant.recipe, name, pipeline.after(name), stage.when, asked, number)
        grants.append(replace(grant, rule=may, profile=profile, recipe=recipe, overrides=overrides, stage=place))
    return tuple(grants)


def asked_runs(grants: Sequence[Grant]) -> tuple[Run, ...]:
    """Grants → the runs that would be asked for to have the same: of a pipeline's stages, the pipeline once."""
    found: dict[object, Run] = {}
    for index, grant in enumerate(grants):
        if grant.stage is None:
            found[index] = Run(grant.profile, grant.recipe, overrides=grant.overrides, fresh=grant.fresh)
        else:
            found[("pipeline", grant.stage.number)] = grant.stage.asked
    return tuple(found.values())


def members(plans: Sequence[JobPlan]) -> tuple[Member, ...]:
    """The plans of one command → its group: stages know the run keys of those before them, also of those that ran already.

    Empty where the command is one run that is no stage.
    """
    keys = {_Key(place.number, place.stage): plan.run_key for plan in plans if (place := plan.grant.stage)}
    found: list[Member] = []
    told: set[str] = set()
    for plan in plans:
        place = plan.grant.stage
        if place is None:
            found.append(Member(run_key=plan.run_key, profile=plan.profile_name))
            continue
        before = {reused.stage: reused for reused in place.reused}
        for reused in place.reused:
            if reused.run_key not in told:
                told.add(reused.run_key)
                found.append(
                    Member(
                        run_key=reused.run_key,
                        profile=reused.profile,
                        stage=reused.stage,
                        after=reused.after,
                        when=reused.when,
                        reused=True,
                    )
                )
        after = [keys.get(_Key(place.number, name)) or (before[name].run_key if name in before else "") for name in place.after]
        assert all(after), "what a stage waits for runs too, or has run"
        known = [key for key in after if key]
        found.append(Member(run_key=plan.run_key, profile=plan.profile_name, stage=place.stage, after=tuple(known), when=place.when))
    return tuple(found) if len(found) > 1 or any(member.stage for member in found) else ()
