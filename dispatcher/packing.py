"""A recipe × its profile → what of the commit is packed, which packages are like it, and whether the script is in it."""

from __future__ import annotations

from dispatcher.keys import digest
from dispatcher.packager import whole_spec
from dispatcher.ports import AnySpec, Package, PackageSpec
from dispatcher.profile import Profile
from dispatcher.recipe import Recipe


def package_spec(recipe: Recipe, profile: Profile) -> AnySpec:
    """What of the commit is packed: as the recipe's own fields say, else by the packager of the profile (with the recipe laid over it)."""
    if recipe.chooses:
        return PackageSpec(recipe.subpath, tuple(recipe.include_pattern), recipe.include_submodules)
    return whole_spec(profile.packager)


def package_group(repository: str, profile: str, spec: AnySpec) -> str:
    """Which packages are likely to be alike, so that a difference is sent: those of one repository, packed in one way."""
    return digest(repository.lower(), repr(spec))[:32]


def missing_script(recipe: Recipe, package: Package) -> str | None:
    """The script that the package does not have, or None when it has it. A module, or what is there already, is the job's own business."""
    if recipe.script is None or recipe.script.startswith("/") or recipe.script in {entry.path for entry in package.files}:
        return None
    return str(recipe.script)
