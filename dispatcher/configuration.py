"""Names → policy, profile and recipe, read from the default branch through `World.read_config`, each file once."""

from __future__ import annotations

from dataclasses import replace

from dispatcher.errors import ConfigError
from dispatcher.policy import POLICY_PATH, Policy, load_policy
from dispatcher.profile import ENV_TOML, ResolvedProfile, UnknownProfile, names_in, needed, resolve_profile
from dispatcher.world import World


def read_policy(world: World) -> Policy:
    """The policy on the default branch.

    Raises:
        ConfigError: `config.missing`, `config.syntax`, `config.invalid`.
    """
    text = world.read_config(POLICY_PATH)
    if text is None:
        raise ConfigError("config.missing", f"There is no {POLICY_PATH} on the default branch.")
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
    while paths := [path for path in needed(name, sources) if path not in asked]:
        for path in paths:
            asked.add(path)
            text = world.read_config(path)
            if text is not None:
                sources[path] = text
                break
    resolved = resolve_profile(name, sources, policy.env, world.settings.environment)
    if isinstance(resolved, UnknownProfile):
        return resolved.among(profile_names(world))
    return resolved


def profile_names(world: World) -> tuple[str, ...]:
    """Every profile there is: files in `profiles/`, then sections of `env.toml`."""
    files = sorted(file.removesuffix(".yaml") for file in world.list_config("profiles") if file.endswith(".yaml"))
    text = world.read_config(ENV_TOML)
    sections = names_in({ENV_TOML: text}) if text is not None else ()
    return tuple(dict.fromkeys([*files, *sections]))
