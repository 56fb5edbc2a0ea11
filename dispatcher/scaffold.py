"""Answers → the files that set a repository up: workflows, the policy, a profile. Each is read once by its reader."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from dispatcher.answer import DOCS
from dispatcher.executor import LocalProfile
from dispatcher.known_hosts import HostKey, name_of
from dispatcher.onboarding import Given
from dispatcher.policy import POLICY_PATH, load_policy
from dispatcher.profile import UnknownProfile, resolve_profile
from dispatcher.slurmprofile import SlurmProfile
from dispatcher.workflows import Choices, parse_action, render, workflows


@dataclass(frozen=True)
class Setup:
    """Everything answered. `keys` are the host's keys that somebody confirmed."""

    given: Given
    keys: tuple[HostKey, ...] = ()

    @property
    def slurm(self) -> bool:
        """Runs go to a cluster, rather than to the runner."""
        return bool(self.given["executor"] == "slurm")

    @property
    def profile(self) -> str:
        """The profile's name."""
        return str(self.given["profile"])

    @property
    def choices(self) -> Choices:
        """What the workflows are made from."""
        given = self.given
        return Choices(
            ways=frozenset(given["ways"]),
            gate=given.get("gate", "no"),
            end_with_pull=given.get("cancel_closed", False),
            action=parse_action(given["action"]),
            app=given["app"],
            ssh=self.slurm,
            ssh_variable=not self.keys,
            cron=given.get("cron", ""),
        )


def setup_files(setup: Setup) -> dict[str, str]:
    """Path in the repository → text, each checked by what will read it.

    Raises `ConfigError` (`config.invalid`) where answers that are fine one by one do not fit together.
    """
    given, profile = setup.given, f"profiles/{setup.profile}.yaml"
    written = {f".github/workflows/{name}": text for name, text in workflows(setup.choices).items()}
    written[POLICY_PATH] = _policy(setup)
    written[profile] = _profile(setup)
    load_policy(written[POLICY_PATH])
    resolved = resolve_profile(setup.profile, {profile: written[profile]}, (), {})
    assert not isinstance(resolved, UnknownProfile)
    assert isinstance(resolved.profile, SlurmProfile if given["executor"] == "slurm" else LocalProfile)
    return written


def _policy(setup: Setup) -> str:
    given, choices = setup.given, setup.choices
    marks = {
        name for name, holds in (("gate", choices.gate != "no"), ("schedule", bool(choices.cron)), ("local", not setup.slurm)) if holds
    }
    values = {
        "docs": DOCS,
        "profile": yaml_word(setup.profile),
        "script": yaml_word(given["script"]),
        "launcher": given["launcher"],
        "ended": "cancel" if choices.end_with_pull else "leave",
        "cron": choices.cron,
    }
    return render("dispatch.yml", marks, values)


def _profile(setup: Setup) -> str:
    given = setup.given
    if not setup.slurm:
        return render("profile-local.yaml", (), {"docs": DOCS, "profile": setup.profile, "time": given["time"]})
    marks = {name for name, holds in (("partition", given["partition"]), ("gpus", given["gpus"]), ("known-hosts", setup.keys)) if holds}
    where = name_of(given["host"], given["port"])
    values = {name: yaml_word(str(given[name])) for name in ("host", "user", "account", "partition", "job_dir")}
    values |= {"docs": DOCS, "profile": setup.profile, "time": given["time"]}
    values |= {name: str(given[name]) for name in ("port", "nodes", "gpus")}
    values["fingerprints"] = "\n".join(f"{key.kind} {key.fingerprint}" for key in setup.keys)
    values["known_hosts"] = "\n".join(f"{where} {key.line}" for key in setup.keys)
    return render("profile-slurm.yaml", marks, values)


def yaml_word(text: str) -> str:
    """A text as YAML takes it for a text in every version: bare where it can be, else in double quotes."""
    plain = re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", text) and text.lower() not in (
        "null",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
    )
    return text if plain else json.dumps(text)
