"""Package × profile × recipe × overrides × what else reaches a job → its content key: two runs with the same one would do the same.

Whatever is not named here counts, so that a field that is added later does so by itself: a run too many is cheap, a wrong reuse is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from dispatcher.grammar import Override
from dispatcher.ports import Package
from dispatcher.profile import Profile
from dispatcher.recipe import Recipe

PROFILE_NOT_CONTENT: Mapping[str, str] = MappingProxyType(
    {
        "tunnel": "how the login node is reached",
        "host": "which of a cluster's login nodes is asked",
        "port": "how the login node is reached",
        "known_hosts": "how the login node is known",
        "jump": "how the login node is reached",
        "job_dir": "where the ledger lies, and only runs of the same ledger are found",
        "log_url": "a link that is shown",
        "attach": "who waits for the job; the partition that follows from it counts by itself",
        "dry_run": "nothing is run with it",
        "squash": "where the same image lies as a file",
    }
)
"""Fields of a profile that do not count, and why: what they say changes nothing about what the job computes."""

RECIPE_NOT_CONTENT: Mapping[str, str] = MappingProxyType(
    {
        "metrics": "rules are applied anew to what was measured",
        "steps": "only the progress shows it",
        "runspec": "what the commit then says for itself counts where it is laid over the recipe",
    }
)
"""The same of a recipe."""


def content_key(
    package: Package,
    profile: Profile,
    recipe: Recipe,
    overrides: Sequence[Override],
    *,
    partition: str | None = None,
    config: str | None = None,
    mounts: Iterable[str] = (),
    secrets: Mapping[str, bool] = MappingProxyType({}),
    rendering: str = "",
    interpreter: str = "",
    stage: str = "",
) -> str:
    """64 hex digits of everything that determines what a run does, in its order.

    `partition` is the one that is asked for, `config` the text that the script gets, `secrets` the names that the job gets and whether
    they have a value (never the value). `rendering` names what makes a script of all this; `interpreter` is ours, where it runs the job.
    """
    ingredients = {
        "package": package.digest,
        "profile": profile.model_dump(mode="json", exclude=set(PROFILE_NOT_CONTENT)),
        "recipe": recipe.model_dump(mode="json", exclude=set(RECIPE_NOT_CONTENT)),
        # Whether results have to be left, and what runs an inline text, depend on what is said at all.
        "said": sorted(recipe.model_fields_set - set(RECIPE_NOT_CONTENT)),
        # As they stand: of two that meet, the later one wins, and a whole group that is chosen again takes single values with it.
        "overrides": [[override.key, override.value] for override in overrides],
        "partition": partition,
        "config": config,
        "mounts": list(mounts),
        "secrets": dict(secrets),
        "rendering": rendering,
        "interpreter": interpreter,
        # What a stage makes depends on what those before it have left.
        "stage": stage,
    }
    return hashlib.sha256(json.dumps(["content", ingredients]).encode()).hexdigest()
