"""A recipe that lets its commit say something for itself → the recipe with that in it, its configuration, and whose word that is.

What may speak is the script's `[tool.runspec]` and `run.env` of its configuration. Both are the pull request's word, bounded like
everything else by limits, budgets and approval. It also must not make a required run easy: so a run counts for a gate only if both ask for
the same on the default branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from pydantic import ValidationError

from dispatcher.applies import image_rules
from dispatcher.automount import GitMount
from dispatcher.denial import Denial, by
from dispatcher.errors import ConfigError
from dispatcher.grammar import Malformed, Override
from dispatcher.limits import Wanted, matches
from dispatcher.packing import package_spec
from dispatcher.policy import Policy
from dispatcher.ports import Package, PackageSpec
from dispatcher.profile import Profile
from dispatcher.recipe import Recipe
from dispatcher.runprofile import apply_overrides, with_recipe
from dispatcher.runsection import fill_from_config
from dispatcher.runspec import STEP, Script, fill, read_runspec
from dispatcher.trainconfig import Composed, compose
from dispatcher.untrusted import code
from dispatcher.world import World

Read = Callable[[str], "str | None"]


@dataclass(frozen=True)
class Own:
    """The recipe as it will run; `taken` is the commit's word in it, `left` what of that does not count."""

    recipe: Recipe
    taken: tuple[tuple[str, str], ...] = ()
    as_on_default_branch: bool = True
    config: Composed | None = None
    left: tuple[str, ...] = ()
    mounts: tuple[GitMount, ...] = ()

    def same_as(self, other: Own) -> bool:
        """Whether both commits say the same, as far as it counts."""
        return sorted(self.taken) == sorted(other.taken)


def filled(
    recipe: Recipe, profile: Profile, package: Package, overrides: Sequence[Override], sha: str, policy: Policy, world: World
) -> Own:
    """The recipe with what its script and its configuration say at the commit. Files are read as text, and only those that are named.

    Raises `ConfigError` and `GitError` where the commit's words cannot be used.
    """
    if not recipe.runspec and recipe.config is None:
        return Own(recipe)
    archive = world.archive()
    root = _root(recipe, profile)
    known = tuple(entry.path for entry in package.files)
    found = _fill(recipe, root, overrides, cache(lambda path: archive.read_text(sha, path)), policy, known)
    for where, keys in (
        ("script", [key for key in found.left if not key.startswith("run.env.")]),
        ("configuration", [key for key in found.left if key.startswith("run.env.")]),
    ):
        if keys:
            world.say(f"Not taken from the {where}: {', '.join(keys)}.")
    if found.config is not None and found.config.added:
        world.say(f"New in the configuration, by an override: {', '.join(found.config.added)}.")
    # At a terminal the checkout would be compared with itself, and no gate counts what was asked for there.
    same = world.settings.voice.at_terminal or _same_on_default_branch(found, recipe, root, overrides, policy, world)
    return Own(found.recipe, found.taken, same, found.config, found.left, found.mounts)


def laid_over(profile: Profile, own: Own, overrides: Sequence[Override]) -> Profile | Malformed:
    """The profile as the recipe wants it, with the commit's word in it, and with the overrides.

    Raises `ConfigError` `config.invalid` where the commit's word alone makes it useless.
    """
    try:
        return apply_overrides(with_recipe(profile, own.recipe), overrides, own.config is not None)
    except ValidationError as error:
        if not own.taken:
            raise
        asked = ", ".join(code(f"{key} = {value}") for key, value in own.taken)
        raise ConfigError("config.invalid", f"The profile cannot be used with what the commit asks for: {asked}.", STEP) from error


def unnamed_image(wanted: Wanted, taken: Sequence[tuple[str, str]], policy: Policy) -> Denial | None:
    """An image that the commit asks for has to be one that the policy names: `*` alone was not written for a pull request's word."""
    said = dict(taken)
    for image in (said[key] for key in ("image", "run.env.container_image") if key in said):
        for patterns in image_rules(policy, *wanted.rules):
            naming = [pattern for pattern in patterns.rule if pattern.strip("*")]
            if not matches(image, naming):
                known = ", ".join(code(pattern) for pattern in naming) or "none"
                words = f"**The commit may not choose the image {code(image)}.** Named are: {known} {by(patterns.where)}."
                return Denial("image-not-allowed", words, "Name it there on the default branch, or in the recipe.", patterns.where)
    return None


def unnamed_repository(mounts: Sequence[GitMount], policy: Policy) -> Denial | None:
    """A repository that the configuration mounts has to be one that the policy names."""
    naming = [pattern for pattern in policy.repositories if pattern.strip("*")]
    for mount in mounts:
        if not matches(mount.url, naming):
            known = ", ".join(code(pattern) for pattern in naming) or "none"
            words = f"**The configuration may not mount {code(mount.url)}.** Named are: {known} {by('repositories')}."
            return Denial("repository-not-allowed", words, "Name it there on the default branch.", "repositories")
    return None


def _root(recipe: Recipe, profile: Profile) -> str:
    """The folder that is packed. Other packagers give files other places: then configurations are seen from the repository's root."""
    spec = package_spec(recipe, profile)
    plain = isinstance(spec, PackageSpec) and not spec.more
    if recipe.runspec and recipe.script is not None and not plain:
        words = f"`runspec` of a recipe is read where the packager is `git` without `include_pattern`; here it is `{spec.kind}`."
        raise ConfigError("config.invalid", words, "Leave `runspec` out, or have the recipe or the profile pack with `git`.")
    return spec.subpath if isinstance(spec, PackageSpec) and plain else ""


def _fill(recipe: Recipe, root: str, overrides: Sequence[Override], read: Read, policy: Policy, known: Sequence[str]) -> Own:
    """The commit's word. What the configuration says about the job wins over the script's block, which may say where that lies."""
    script = _script(recipe, root, read)
    said = fill(recipe, script, policy.secrets)
    spec = said.recipe.config
    if spec is None:
        if said.recipe.cmd is not None and "{config}" in said.recipe.cmd:
            raise ConfigError("config.invalid", "`cmd` has `{config}` in it, and there is no `config`.", STEP)
        return Own(said.recipe, said.taken, left=said.left)
    config = compose(spec, root, overrides, read, known)
    section = fill_from_config(recipe, config, policy.secrets)
    said = fill(section.recipe, script, policy.secrets)
    return Own(said.recipe, (*said.taken, *section.taken), True, config, (*said.left, *section.left), section.mounts)


def _script(recipe: Recipe, root: str, read: Read) -> Script | None:
    """The script's own block, where the recipe lets it say something."""
    if not recipe.runspec or recipe.script is None:
        return None
    path = f"{root}/{recipe.script}" if root else recipe.script
    text = read(path)
    return read_runspec(text, path) if text is not None else None


def _same_on_default_branch(found: Own, recipe: Recipe, root: str, overrides: Sequence[Override], policy: Policy, world: World) -> bool:
    if not recipe.runspec:
        return True
    try:
        return found.same_as(_fill(recipe, root, overrides, cache(world.read_config), policy, ()))
    except ConfigError as error:
        # A configuration that is new says nothing there; the script's block alone decides.
        return error.code == "config.no-config" and found.same_as(_without_config(recipe, root, world.read_config, policy))


def _without_config(recipe: Recipe, root: str, read: Read, policy: Policy) -> Own:
    script = _script(recipe, root, read)
    said = fill(recipe, script, policy.secrets)
    return Own(said.recipe, said.taken)
