"""A recipe that lets its script say something for itself → the recipe with that in it, and whether the default branch says the same.

What is the pull request's word is bounded like everything else by limits, budgets and approval. It also must not make a required run
easy: so a run counts for a gate only if the script asks for the same on the default branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from dispatcher.applies import image_rules
from dispatcher.denial import Denial, by
from dispatcher.errors import ConfigError
from dispatcher.grammar import Malformed, Override
from dispatcher.limits import Wanted, matches
from dispatcher.plan import package_spec
from dispatcher.policy import Policy
from dispatcher.ports import PackageSpec
from dispatcher.profile import Profile, apply_overrides, with_recipe
from dispatcher.recipe import Recipe
from dispatcher.runspec import STEP, Filled, fill, read_runspec
from dispatcher.untrusted import code
from dispatcher.world import World


@dataclass(frozen=True)
class Own:
    """The recipe as it will run; `taken` is the script's word in it."""

    recipe: Recipe
    taken: tuple[tuple[str, str], ...] = ()
    as_on_default_branch: bool = True


def filled(recipe: Recipe, profile: Profile, sha: str, policy: Policy, world: World) -> Own:
    """The recipe with what its script says at the commit. The script is read as text, and only when the recipe says so.

    Raises `ConfigError` and `GitError` where the commit's block cannot be used.
    """
    if not recipe.runspec or recipe.script is None:
        return Own(recipe)
    path = _path(recipe.script, recipe, profile)
    found = _fill(recipe, world.archive().read_text(sha, path), path, policy)
    if found.left:
        world.say(f"Not taken from the script: {', '.join(found.left)}.")
    # At a terminal the checkout would be compared with itself, and no gate counts what was asked for there.
    same = world.settings.voice.at_terminal or _same_on_default_branch(found, recipe, path, policy, world)
    return Own(found.recipe, found.taken, same)


def laid_over(profile: Profile, own: Own, overrides: Sequence[Override]) -> Profile | Malformed:
    """The profile as the recipe wants it, with the script's word in it, and with the overrides.

    Raises `ConfigError` `config.invalid` where the script's word alone makes it useless.
    """
    try:
        return apply_overrides(with_recipe(profile, own.recipe), overrides)
    except ValidationError as error:
        if not own.taken:
            raise
        asked = ", ".join(code(f"{key} = {value}") for key, value in own.taken)
        raise ConfigError("config.invalid", f"The profile cannot be used with what the script asks for: {asked}.", STEP) from error


def unnamed_image(wanted: Wanted, taken: Sequence[tuple[str, str]], policy: Policy) -> Denial | None:
    """An image that the script asks for has to be one that the policy names: `*` alone was not written for a pull request's word."""
    image = dict(taken).get("image")
    if image is None:
        return None
    for patterns in image_rules(policy, *wanted.rules):
        naming = [pattern for pattern in patterns.rule if pattern.strip("*")]
        if not matches(image, naming):
            known = ", ".join(code(pattern) for pattern in naming) or "none"
            words = f"**The script may not choose the image {code(image)}.** Named are: {known} {by(patterns.where)}."
            return Denial("image-not-allowed", words, "Name it there on the default branch, or in the recipe.", patterns.where)
    return None


def _path(script: str, recipe: Recipe, profile: Profile) -> str:
    """Where the script lies in the repository. Other packagers give files other places, and another file's block must not count."""
    spec = package_spec(recipe, profile)
    if not isinstance(spec, PackageSpec) or spec.more:
        words = f"`runspec` of a recipe is read where the packager is `git` without `include_pattern`; here it is `{spec.kind}`."
        raise ConfigError("config.invalid", words, "Leave `runspec` out, or have the recipe or the profile pack with `git`.")
    return f"{spec.subpath}/{script}" if spec.subpath else script


def _fill(recipe: Recipe, text: str | None, path: str, policy: Policy) -> Filled:
    return fill(recipe, read_runspec(text, path) if text is not None else None, policy.secrets)


def _same_on_default_branch(found: Filled, recipe: Recipe, path: str, policy: Policy, world: World) -> bool:
    text = world.read_config(path)
    try:
        return found.same_as(_fill(recipe, text, path, policy))
    except ConfigError:
        return False
