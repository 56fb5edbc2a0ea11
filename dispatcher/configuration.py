"""Names → policy, profile and recipe, read from the default branch through `World.read_config`, each file once."""

from __future__ import annotations

import re
from dataclasses import replace

from dispatcher.errors import ConfigError
from dispatcher.extends import names_in
from dispatcher.policy import POLICY_PATH, Policy, load_policy
from dispatcher.profile import ENV_TOML, CloudProfile, ResolvedProfile, SlurmProfile, UnknownProfile, needed, resolve_profile
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
    """A profile and what it extends, resolved, with the place of its ledger. Raises `ConfigError`."""
    resolved = _resolved(world, policy, name)
    if isinstance(resolved, ResolvedProfile) and isinstance(resolved.profile, CloudProfile) and resolved.profile.tunnel is None:
        return replace(resolved, profile=_with_ledger(resolved, resolved.profile, policy, world))
    return resolved


def _resolved(world: World, policy: Policy, name: str) -> ResolvedProfile | UnknownProfile:
    """Reads no more files than a name takes; only an unknown one costs a listing."""
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


def _with_ledger(resolved: ResolvedProfile, profile: CloudProfile, policy: Policy, world: World) -> CloudProfile:
    """The profile with the place where its runs are recorded: the policy's `ledger`, or at a terminal this machine."""
    if policy.ledger is None:
        if world.settings.voice.at_terminal:
            return profile.model_copy(update={"tunnel": "local", "job_dir": profile.job_dir or world.settings.local_job_dir})
        words = f"profile {code(resolved.name)} starts jobs through an API, and nothing says where its runs are recorded"
        step = (
            "Name a profile with a login node by `ledger:` in `.github/dispatch.yml`, or give this one `tunnel`, `host`, `user`, `job_dir`."
        )
        raise ConfigError("config.invalid", f"`{resolved.where('executor')}`: {words}.", step)
    home = _resolved(world, policy, policy.ledger)
    if isinstance(home, UnknownProfile) or isinstance(home.profile, CloudProfile) or home.profile.job_dir is None:
        words = f"`ledger: {policy.ledger}` is no profile of `executor: slurm`, and none of `executor: local` with a `job_dir`"
        raise ConfigError("config.invalid", f"`{POLICY_PATH}`: {words}.", "Name a profile whose `job_dir` outlives the runner.")
    names = ("tunnel", "host", "port", "user", "known_hosts", "jump")
    way = {name: getattr(home.profile, name) for name in names} if isinstance(home.profile, SlurmProfile) else {"tunnel": "local"}
    return profile.model_copy(update={**way, "job_dir": profile.job_dir or home.profile.job_dir})


def profile_names(world: World) -> tuple[str, ...]:
    """Every profile there is: files in `profiles/`, then sections of `env.toml`."""
    files = sorted(file.removesuffix(".yaml") for file in world.list_config("profiles") if file.endswith(".yaml"))
    file = env_file(world)
    text = world.read_config(file)
    sections = names_in({file: text}) if text is not None else ()
    return tuple(dict.fromkeys([*files, *sections]))


def env_file(world: World) -> str:
    """Nemotron's file of profiles: what was found at a terminal, else `env.toml` in the root, or what `NEMOTRON_ENV_FILE` names below it.

    Raises:
        ConfigError: `config.invalid` for a name that cannot be one.
    """
    if world.settings.env_file:
        return world.settings.env_file
    given = world.settings.environment.get("NEMOTRON_ENV_FILE", "") or ENV_TOML
    if not given.endswith(".toml") or not _BELOW.fullmatch(given):
        words = f"`NEMOTRON_ENV_FILE` is {code(given)}, which is no path of a `.toml` file below the repository's root."
        raise ConfigError("config.invalid", words, "Name it as it is called in the repository, for example `env.slurm.toml`.")
    return given
