"""Grant × profile × recipe × overrides → `JobPlan`, or why they cannot go together.

`plan()` takes a `Grant`, so a plan that nobody authorised cannot be written. Nothing is sent and nothing is run from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dispatcher.authorise import Grant
from dispatcher.automount import GitMount
from dispatcher.content import content_key
from dispatcher.errors import ConfigError
from dispatcher.grammar import Override
from dispatcher.jobconfig import JobConfig
from dispatcher.jobplan import JobPlan
from dispatcher.keys import run_key
from dispatcher.launcher import WITH_PROCESSES
from dispatcher.ports import Package
from dispatcher.profile import LocalProfile, Profile, SlurmProfile
from dispatcher.recipe import Recipe
from dispatcher.untrusted import code


def plan(
    grant: Grant,
    profile_name: str,
    profile: Profile,
    recipe_name: str,
    recipe: Recipe,
    overrides: tuple[Override, ...],
    package: Package,
    job_dir: str,
    attached: bool,
    python: str,
    attempt: int = 1,
    config: JobConfig | None = None,
    mounts: tuple[GitMount, ...] = (),
    secrets: Mapping[str, str] = MappingProxyType({}),
    rendering: str = "",
) -> JobPlan:
    """Everything that will be submitted, for one granted request. Raises `ConfigError` for a configuration that cannot be filled in.

    Of `secrets` the names count. `rendering` is a word for what makes the script of the plan (`effects/edition.py`).
    """
    _refuse_what_cannot_run(profile_name, profile, recipe_name, recipe, mounts)
    stage = grant.stage.name if grant.stage else ""
    content = content_key(
        package,
        profile,
        recipe,
        overrides,
        partition=profile.partition_for(attached) if isinstance(profile, SlurmProfile) else None,
        config=config.content if config is not None else None,
        mounts=[mount.words for mount in mounts],
        secrets={name: bool(value) for name, value in secrets.items()},
        rendering=rendering,
        interpreter=python if isinstance(profile, LocalProfile) else "",
        stage=stage,
    )
    return JobPlan(
        run_key=run_key(grant.repository, grant.trigger, profile_name, recipe_name, overrides, attempt, stage),
        content_key=content,
        grant=grant,
        profile_name=profile_name,
        profile=profile,
        recipe_name=recipe_name,
        recipe=recipe,
        overrides=overrides,
        package=package,
        job_dir=job_dir,
        attached=attached,
        python=python,
        config=config,
        mounts=mounts,
    )


def _refuse_what_cannot_run(profile_name: str, profile: Profile, recipe_name: str, recipe: Recipe, mounts: tuple[GitMount, ...]) -> None:
    """What each may say by itself, and what the two of them cannot mean together."""
    if mounts and not (isinstance(profile, SlurmProfile) and profile.container_image):
        words = "The configuration mounts a repository, which is done for a Slurm job in a container, and this is none."
        step = "Give the profile or the recipe a `container_image`, or leave `mounts` out of `runspec`."
        raise ConfigError("config.invalid", words, step)
    if recipe.chain is not None and isinstance(profile, SlurmProfile) and (profile.array or profile.het_groups):
        what = "an array" if profile.array else "heterogeneous"
        words = f"Recipe `{recipe_name}` has a `chain`, and the job of profile `{profile_name}` is {what}: parts do not end together."
        raise ConfigError("config.invalid", words, "Take a profile without `array` and `het_groups`, or a recipe without `chain`.")
    program, first, *_ = recipe.command()
    if recipe.cmd is not None and recipe.launcher in WITH_PROCESSES and program == "python" and first.startswith("-"):
        cause = f"`cmd` is {code(recipe.cmd)}, and {recipe.launcher} would take {code(first)} for an option of its own."
        raise ConfigError("config.invalid", cause, "Name the interpreter otherwise (`python3`), or leave its options out.")
