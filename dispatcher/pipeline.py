"""A recipe with `stages:` → a validated `Pipeline`: which recipes run one after the other, where, and what each of them waits for."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from dispatcher.document import Loc, ProblemsError
from dispatcher.grammar import Override, Run, parse_override
from dispatcher.recipe import Recipe
from dispatcher.sections import OverrideWord
from dispatcher.values import Model, OneOrMore, ProfileName, RecipeName, Shape

MOST_STAGES = 32

When = Literal["afterok", "afterany", "afternotok", "aftercorr"]
"""How the stages have to end that one waits for, in Slurm's words: https://slurm.schedmd.com/sbatch.html#OPT_dependency."""

WHENS: tuple[When, ...] = get_args(When)

StageName = Annotated[str, Shape(r"[A-Za-z][A-Za-z0-9_-]{0,31}", "a stage's name (a letter, then letters, digits, `_`, `-`)", 32)]


class Stage(Model):
    """One stage of a pipeline: a recipe, run where and when the pipeline says. Each stage is a run of its own."""

    recipe: RecipeName | None = Field(default=None, description="What it runs: another recipe. Without it the one with the stage's name.")
    profile: ProfileName | None = Field(
        default=None, description="Where it runs, whatever the command names. Without it the command's profile, or the default one."
    )
    after: OneOrMore[StageName] | None = Field(
        default=None, description="The stages that it waits for. Without it the one before it; `[]` waits for none."
    )
    when: When = Field(
        default="afterok",
        description="How they have to end: all well, at all, all badly; or well task by task, when all are arrays.",
    )
    overrides: OneOrMore[OverrideWord] = Field(
        default=(), description="Words `key=value` of this stage; the command's win over those with the same key."
    )

    def asked(self, given: tuple[Override, ...]) -> tuple[Override, ...]:
        """Its overrides where the command gives these."""
        keys = {override.key for override in given}
        own = [found for word in self.overrides if isinstance(found := parse_override(word), Override) and found.key not in keys]
        return (*own, *given)


class Pipeline(Model):
    """A recipe that consists of others: each stage waits for earlier ones."""

    stages: dict[StageName, Stage] = Field(min_length=1, max_length=MOST_STAGES, description="Its stages by name, in their order.")

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        """Every stage that is waited for exists, none waits for itself, and some can begin."""
        problems = [*self._unknown(), *self._idle(), *self._alike()]
        if not problems:
            problems += [(("stages", name, "after"), words) for name, words in self._circles()]
        if problems:
            raise ProblemsError(problems)
        return self

    def after(self, name: str) -> tuple[str, ...]:
        """The stages that a stage waits for."""
        given = self.stages[name].after
        if given is not None:
            return tuple(given)
        names = list(self.stages)
        place = names.index(name)
        return (names[place - 1],) if place else ()

    def recipe_of(self, name: str) -> str:
        """The recipe that a stage runs."""
        return self.stages[name].recipe or name

    @property
    def order(self) -> tuple[str, ...]:
        """The stages, each behind all that it waits for; else as they are written."""
        return _ordered({name: self.after(name) for name in self.stages})[0]

    @property
    def spare(self) -> frozenset[str]:
        """The stages that may turn out not to be needed: those for the case of a failure, and what waits for their success."""
        found: set[str] = set()
        for name in self.order:
            if self.stages[name].when == "afternotok" or (self.stages[name].when != "afterany" and found & set(self.after(name))):
                found.add(name)
        return frozenset(found)

    @property
    def program(self) -> str:
        """What is run, as people call it."""
        return " → ".join(self.order)

    def _unknown(self) -> list[tuple[Loc, str]]:
        found: list[tuple[Loc, str]] = []
        for name, stage in self.stages.items():
            for other in stage.after or ():
                near = difflib.get_close_matches(other, self.stages, 1, 0.5)
                meant = f"; did you mean `{near[0]}`?" if near and near[0] != name else ""
                if other == name:
                    found.append((("stages", name, "after"), f"the stage `{name}` waits for itself"))
                elif other not in self.stages:
                    found.append((("stages", name, "after"), f"there is no stage `{other}`{meant}"))
        return found

    def _idle(self) -> list[tuple[Loc, str]]:
        """`when` where nothing is waited for was meant for another stage, or `after` is missing."""
        words = "the stage waits for nothing: leave `when` out, or say `after`"
        idle = [name for name, stage in self.stages.items() if stage.when != "afterok" and not self.after(name)]
        return [(("stages", name, "when"), words) for name in idle]

    def _alike(self) -> list[tuple[Loc, str]]:
        """Their variables (`DISPATCH_STAGE_DIR_…`) would have one name."""
        found: dict[str, str] = {}
        problems: list[tuple[Loc, str]] = []
        for name in self.stages:
            other = found.setdefault(variable(name), name)
            if other != name:
                problems.append((("stages", name), f"the names `{other}` and `{name}` are too much alike"))
        return problems

    def _circles(self) -> list[tuple[str, str]]:
        """Stages that wait for each other, so that none of them can begin."""
        left = _ordered({name: self.after(name) for name in self.stages})[1]
        circle = ", ".join(f"`{name}`" for name in left)
        return [(left[0], f"these stages wait for each other: {circle}")] if left else []


def _kind(given: Any) -> str:
    """What has stages is a pipeline; what has not is held to be a script's or a module's recipe, and its mistakes are told as such.

    The tags are no keys of a table: pydantic puts them into the paths of what it finds.
    """
    return "a pipeline" if isinstance(given, Pipeline) or (isinstance(given, dict) and "stages" in given) else "a recipe"


AnyRecipe = Annotated[Annotated[Recipe, Tag("a recipe")] | Annotated[Pipeline, Tag("a pipeline")], Discriminator(_kind)]
"""What stands under `recipes:`."""


def variable(stage: str) -> str:
    """A stage's name as a part of a variable's."""
    return stage.upper().replace("-", "_")


def _ordered(after: Mapping[str, Collection[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names × what each comes after → the names in an order, and those that have none because they go in circles."""
    order: list[str] = []
    left = list(after)
    while free := next((name for name in left if set(after[name]) <= set(order)), None):
        order.append(free)
        left.remove(free)
    # Who only waits for a circle is not a part of it.
    while outer := next((name for name in left if not any(name in after[other] for other in left)), None):
        left.remove(outer)
    return tuple(order), tuple(left)


@dataclass(frozen=True)
class Reused:
    """A stage that has run already and is not run again: its run, and where that is."""

    stage: str
    run_key: str
    profile: str
    after: tuple[str, ...] = ()
    """Run keys."""
    when: When = "afterok"


@dataclass(frozen=True)
class Place:
    """One run's place in a pipeline. `asked` asks for all of it, `number` says which of the command's pipelines this is.

    What it waits for is a stage of the same pipeline that runs too, or one that has run already (`reused`).
    """

    pipeline: str
    stage: str
    after: tuple[str, ...]
    when: When
    asked: Run
    number: int = 0
    reused: tuple[Reused, ...] = ()

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.pipeline}:{self.stage}"
