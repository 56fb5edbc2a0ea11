"""`.github/dispatch.yml` on the default branch → who may run what, with which overrides, on which schedule, and what gates what."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator
from typing_extensions import Self

from dispatcher.document import Loc, ProblemsError, check
from dispatcher.pipeline import AnyRecipe, Pipeline
from dispatcher.reading import load_document
from dispatcher.recipe import Recipe
from dispatcher.rules import Active, Allow, Approval, Budget, Limits, Overrides, Patterns, Rule
from dispatcher.sections import Gate, Most, Noise, Pulls, Required, Retries, Reuse, Schedule, Waiver, Watch
from dispatcher.values import EnvName, Model, OneOrMore, ProfileName, RecipeName

__all__ = ["POLICY_PATH", "RESERVED_NAMES", "Gate", "Most", "Noise", "Policy", "Pulls", "Required", "Retries", "Reuse", "Schedule"]
__all__ += ["UnknownRecipe", "Waiver", "Watch", "load_policy"]

POLICY_PATH = ".github/dispatch.yml"
# The dispatcher's own credentials and what the runner holds: neither a profile nor a job may have them.
RESERVED_NAMES = re.compile(
    r"(?:DISPATCH|ACTIONS|INPUT|RUNNER|GITHUB)_.*|GH_TOKEN|SSH_AUTH_SOCK|LD_.*|PYTHON(?:PATH|STARTUP|HOME)|PATH|BASH_ENV|ENV|IFS"
)
_NAMES_A_SECRET = re.compile(r".*(?:TOKEN|SECRET|PASSWORD|PASSPHRASE|KEY|CREDENTIALS?)")


def _not_reserved(value: str) -> str:
    if RESERVED_NAMES.fullmatch(value):
        raise ValueError(f"`{value}` belongs to the runner or the dispatcher and is never handed on")
    return value


def names_a_secret(name: str) -> bool:
    """Whether a variable's name sounds like a secret's."""
    return bool(_NAMES_A_SECRET.fullmatch(name.upper()))


def _no_secret(value: str) -> str:
    if names_a_secret(value):
        raise ValueError(f"`{value}` sounds like a secret, and what a profile reads is shown in previews: list it under `secrets:`")
    return value


Names = OneOrMore[Annotated[EnvName, AfterValidator(_not_reserved)]]


class Policy(Model):
    """The whole of `.github/dispatch.yml`. Every key is optional."""

    version: Literal[1] = Field(default=1, description="Of this format.")
    default_profile: ProfileName | None = Field(default=None, description="The profile when none is named.")
    default_recipe: RecipeName | None = Field(default=None, description="The recipe when none is named; else `default`, else the only one.")
    allow: Allow = Field(default=Allow(), description="Who may give commands.")
    forks: Literal["off", "sha"] = Field(
        default="off", description="Pull requests from forks: never, or when somebody with the right names the head's full SHA."
    )
    env: Annotated[Names, Field(description="Runner variables that profiles may read by `${oc.env:NAME}`.")] = ()
    secrets: Annotated[Names, Field(description="Secrets that are handed to jobs when the runner has them.")] = (
        "WANDB_API_KEY",
        "HF_TOKEN",
    )
    overrides: Overrides = Field(default=Overrides(), description="Which overrides may be given.")
    images: Patterns = Field(default=("*",), description="Which container images may run, as patterns with `*`.")
    repositories: Patterns = Field(
        default=(), description="Which repositories a configuration may have cloned and mounted by `${auto_mount:…}`, as patterns with `*`."
    )
    limits: Limits = Field(default=Limits(), description="How much one run may ask for.")
    most: Most = Field(default=Most(), description="How much one comment may ask for.")
    active: Active = Field(default=Active(), description="How many runs may be at it at once.")
    budget: Budget = Field(default=Budget(), description="GPU-hours in a month.")
    approval: Approval = Field(default=Approval(), description="From where on a second person must agree.")
    profiles: dict[ProfileName, Rule] = Field(default_factory=dict, description="Rules for single profiles.")
    recipe_rules: dict[RecipeName, Rule] = Field(default_factory=dict, description="Rules for single recipes.")
    pulls: Pulls = Field(default=Pulls(), description="What happens with a pull request's runs, and what labels mean.")
    noise: Noise = Field(default=Noise(), description="How much is said.")
    recipes: dict[RecipeName, AnyRecipe] = Field(default_factory=dict, description="What can be run.")
    schedules: tuple[Schedule, ...] = Field(default=(), description="What a cron expression starts.")
    gate: Gate = Field(default=Gate(), description="What must have passed before a merge.")
    ledger: ProfileName | None = Field(
        default=None,
        description="The profile in whose `job_dir` runs are recorded that are started through an API, where theirs says nothing.",
    )
    reuse: Reuse = Field(default=Reuse(), description="When what has run already is not run again.")
    retries: Retries = Field(default=Retries(), description="What is run again by itself.")
    watch: Watch = Field(default=Watch(), description="How running jobs are looked after.")

    @field_validator("env")
    @classmethod
    def _env_is_no_secret(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_no_secret(name) for name in names)

    @model_validator(mode="before")
    @classmethod
    def _fill_default_recipe(cls, given: Any) -> Any:
        """Without `default_recipe` it is the recipe called `default`, or the only one."""
        recipes = given.get("recipes") if isinstance(given, dict) else None
        if not isinstance(recipes, dict) or given.get("default_recipe") is not None:
            return given
        name = "default" if "default" in recipes else next(iter(recipes)) if len(recipes) == 1 else None
        return {**given, "default_recipe": name}

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        """Every recipe that is named exists, every default that is relied on is there, no name means two things."""
        problems = [*self._unknown_recipes(), *self._unnamed(), *self._wrong_stages()]
        for index, schedule in enumerate(self.schedules):
            if schedule.name in {other.name for other in self.schedules[:index]}:
                problems.append((("schedules", index, "name"), f"the name `{schedule.name}` stands under `schedules` twice"))
        problems += [(("secrets",), f"`{name}` stands under both `env` and `secrets`") for name in self.env if name in self.secrets]
        if problems:
            raise ProblemsError(problems)
        return self

    def _users(self) -> list[tuple[Loc, Schedule | Required]]:
        """Everything that starts or asks for a run, and where it stands."""
        return [
            *((("schedules", index), item) for index, item in enumerate(self.schedules)),
            *((("gate", "required", index), item) for index, item in enumerate(self.gate.required)),
        ]

    def _unknown_recipes(self) -> list[tuple[Loc, str]]:
        named: list[tuple[Loc, str | None]] = [(("default_recipe",), self.default_recipe)]
        named += [(("recipe_rules", name), name) for name in self.recipe_rules]
        named += [((*loc, "recipe"), item.recipe) for loc, item in self._users()]
        return [(loc, self.unknown_recipe(name).words) for loc, name in named if name and name not in self.recipes]

    def _unnamed(self) -> list[tuple[Loc, str]]:
        found: list[tuple[Loc, str]] = []
        for loc, item in self._users():
            if not (item.profile or self.default_profile):
                found.append((loc, "no profile is named here, and there is no `default_profile`"))
            if not (item.recipe or self.default_recipe):
                found.append((loc, "no recipe is named here, and there is no `default_recipe`"))
        return found

    def _wrong_stages(self) -> list[tuple[Loc, str]]:
        """What stages run are recipes that run something; and what is bounded is them, not the pipeline."""
        found: list[tuple[Loc, str]] = []
        for name, pipeline in self.pipelines.items():
            for stage in pipeline.stages:
                loc = ("recipes", name, "stages", stage, *(["recipe"] if pipeline.stages[stage].recipe else []))
                run = self.recipe(pipeline.recipe_of(stage))
                if isinstance(run, UnknownRecipe):
                    found.append((loc, run.words))
                elif isinstance(run, Pipeline):
                    found.append((loc, f"`{pipeline.recipe_of(stage)}` has stages itself: a stage runs a script or a module"))
            own = self.recipe_rules[name].model_fields_set - {"allow", "overrides"} if name in self.recipe_rules else ()
            words = f"`{name}` has stages: its own rules are `allow` and `overrides`; say this of the recipes of its stages"
            found += [(("recipe_rules", name, rule), words) for rule in sorted(own)]
        return found

    @property
    def pipelines(self) -> dict[str, Pipeline]:
        """The recipes that have stages."""
        return {name: recipe for name, recipe in self.recipes.items() if isinstance(recipe, Pipeline)}

    def recipe(self, name: str | None) -> Recipe | Pipeline | UnknownRecipe:
        """The recipe by name, or the default one."""
        wanted = name or self.default_recipe or ""
        return self.recipes[wanted] if wanted in self.recipes else self.unknown_recipe(wanted)

    def unknown_recipe(self, name: str) -> UnknownRecipe:
        """The answer to a recipe that does not exist."""
        near = difflib.get_close_matches(name, self.recipes, 1, 0.5)
        return UnknownRecipe(name, near[0] if near else None, tuple(sorted(self.recipes)))

    def scheduled(self, cron: str) -> tuple[Schedule, ...]:
        """The schedules that a cron expression starts."""
        return tuple(item for item in self.schedules if item.cron.split() == cron.split())


@dataclass(frozen=True)
class UnknownRecipe:
    """There is no such recipe; `nearest` is the name that was probably meant."""

    name: str
    nearest: str | None
    known: tuple[str, ...]

    @property
    def words(self) -> str:
        """The answer, for people."""
        if not self.name:
            return "no recipe is named, and there is no default"
        meant = f"; did you mean `{self.nearest}`?" if self.nearest else ""
        return f"there is no recipe `{self.name}`{meant}"


def load_policy(text: str, path: str = POLICY_PATH) -> Policy:
    """The policy's text → the policy. Raises `ConfigError` (`config.syntax`, `config.invalid`) naming file, line and nearest known key."""
    return check(Policy, load_document(text, path))
