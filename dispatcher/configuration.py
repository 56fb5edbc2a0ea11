"""Names → policy, profile and recipe, read from the default branch through `World.read_config`, each file once."""

from __future__ import annotations

import re
from dataclasses import replace

from dispatcher.errors import ConfigError
from dispatcher.policy import POLICY_PATH, Policy, load_policy
from dispatcher.profile import ENV_TOML, ResolvedProfile, UnknownProfile, names_in, needed, resolve_profile
from dispatcher.untrusted import code
from dispatcher.world import World

_BELOW = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9_.][A-Za-z0-9_.@+=,-]*(?:/[A-Za-z0-9_.@+=,-]+)*", re.ASCII)


def read_policy(world: World) -> Policy:
    """The policy on the default branch.

    Raises:
        ConfigError: `config.missing`, `config.syntax`, `config.invalid`.
    """
    text = world.read_config(POLICY_PATH)
    if text is None:
        where = "in this checkout" if world.settings.voice.at_terminal else "on the default branch"
        raise ConfigError("config.missing", f"There is no {POLICY_PATH} {where}.")
    return load_policy(text)


def guarded(world: World, policy: Policy) -> World:
    """The same world, hiding also the values of what the policy calls secrets, whatever their names sound like."""
    given = world.settings.environment
    values = (given[name] for name in policy.secrets if given.get(name))
    return replace(world, settings=replace(world.settings, to_hide=(*world.settings.to_hide, *values)))


def read_profile(world: World, policy: Policy, name: str) -> ResolvedProfile | UnknownProfile:
    """A profile and what it extends, resolved. Reads no more files than that takes; only an unknown name costs a listing."""
    sources: dict[str, str] = {}
    asked: set[str] = set()
    file = env_file(world)
    while paths := [path for path in needed(name, sources, file) if path not in asked]:
        for path in paths:
            asked.add(path)
            text = world.read_config(path)
            if text is not None:
                sources[path] = text
                break
    resolved = resolve_profile(name, sources, policy.env, world.settings.environment, policy.secrets)
    if isinstance(resolved, UnknownProfile):
        return resolved.among(profile_names(world))
    return resolved


def profile_names(world: World) -> tuple[str, ...]:
    """Every profile there is: files in `profiles/`, then sections of `env.toml`."""
    files = sorted(file.removesuffix(".yaml") for file in world.list_config("profiles") if file.endswith(".yaml"))
    file = env_file(world)
    text = world.read_config(file)
    sections = names_in({file: text}) if text is not None else ()
    return tuple(dict.fromkeys([*files, *sections]))


def env_file(world: World) -> str:
    """Nemotron's file of profiles: `env.toml` in the root, or what `NEMOTRON_ENV_FILE` names below it.

    Raises:
        ConfigError: `config.invalid` for a name that cannot be one.
    """
    given = world.settings.environment.get("NEMOTRON_ENV_FILE", "") or ENV_TOML
    if not given.endswith(".toml") or not _BELOW.fullmatch(given):
        words = f"`NEMOTRON_ENV_FILE` is {code(given)}, which is no path of a `.toml` file below the repository's root."
        raise ConfigError("config.invalid", words, "Name it as it is called in the repository, for example `env.slurm.toml`.")
    return given
