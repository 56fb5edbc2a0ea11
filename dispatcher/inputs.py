"""The process's environment → typed inputs. The only reader of `os.environ` in the core; the names are what GitHub and `action.yml` set.

https://docs.github.com/en/actions/reference/workflows-and-actions/variables
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dispatcher.action import extras_in, retention_in
from dispatcher.errors import InputError

MAX_EVENT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class GitHubInputs:
    """What GitHub tells a step about itself."""

    event_name: str
    event_path: str
    repository: str
    sha: str
    run_id: str
    run_attempt: str
    workspace: str
    output_file: str
    summary_file: str
    in_actions: bool
    api_url: str
    server_url: str
    token: str = field(repr=False)
    identity: str
    app_slug: str
    app_id: str
    app_private_key: str = field(repr=False)
    triggering_actor: str = ""
    job: str = ""

    @property
    def rerun_by(self) -> str:
        """Who had this workflow run done once more; empty on the first attempt. The event is the old one, and names whoever gave it."""
        return self.triggering_actor if self.run_attempt != "1" else ""

    @property
    def speaks(self) -> bool:
        """Whether there is anything to speak to GitHub with."""
        return bool(self.token or self.app_id or self.app_private_key)

    @property
    def run_url(self) -> str | None:
        """The page of this workflow run, where its summary stands."""
        return f"{self.server_url}/{self.repository}/actions/runs/{self.run_id}" if self.run_id and self.repository else None


@dataclass(frozen=True)
class SshInputs:
    """What opens the cluster's door; every value is a text, none is a path except the agent's socket."""

    key: str | None = field(repr=False)
    passphrase: str | None = field(repr=False)
    certificate: str | None
    known_hosts: str
    agent_socket: str | None


@dataclass(frozen=True)
class Inputs:
    """Everything that the environment decides."""

    github: GitHubInputs
    ssh: SshInputs
    word: str
    wait_word: str | None
    git_url: str | None
    state_dir: str
    extras_word: str
    log_folder: str
    log_artifact_word: str | None
    log_retention_word: str
    environment: Mapping[str, str] = field(repr=False)

    @property
    def wait(self) -> bool | None:
        """Whether to wait for a run's end; None leaves it to the profile. Raises `InputError` (`input.flag`) for any other word."""
        return _flag("DISPATCH_WAIT", self.wait_word)

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras to install. Raises `InputError` (`input.extras`) for what is none."""
        return extras_in(self.extras_word)

    @property
    def log_artifact(self) -> bool:
        """Whether complete logs are uploaded. Raises `InputError` (`input.flag`)."""
        return bool(_flag("DISPATCH_LOG_ARTIFACT", self.log_artifact_word))

    @property
    def log_retention_days(self) -> int | None:
        """How long GitHub keeps them; None leaves it to the repository. Raises `InputError` (`input.retention`)."""
        return retention_in(self.log_retention_word)

    def secrets(self, names: tuple[str, ...]) -> dict[str, str]:
        """The named secrets that are set."""
        return {name: self.environment[name] for name in names if self.environment.get(name)}

    @property
    def to_hide(self) -> tuple[str, ...]:
        """Every value that must never be shown."""
        named = [value for name, value in self.environment.items() if value and _secret_name(name)]
        given = [self.github.token, self.github.app_private_key, self.ssh.key, self.ssh.passphrase]
        return tuple(value for value in [*given, *named] if value)


def _secret_name(name: str) -> bool:
    return any(
        part in name.upper() for part in ("TOKEN", "SECRET", "PASSW", "API_KEY", "PASSPHRASE", "SSH_KEY", "PRIVATE_KEY", "CREDENTIAL")
    )


def read_inputs(environ: Mapping[str, str] | None = None) -> Inputs:
    """Reads the environment; an empty value is the same as none, because that is what an unset action input looks like."""
    given = {name: value for name, value in (os.environ if environ is None else environ).items() if value != ""}

    def get(name: str, default: str = "") -> str:
        return given.get(name, default)

    ssh = SshInputs(
        key=given.get("DISPATCH_SSH_KEY"),
        passphrase=given.get("DISPATCH_SSH_PASSPHRASE"),
        certificate=given.get("DISPATCH_SSH_CERTIFICATE"),
        known_hosts=get("DISPATCH_SSH_KNOWN_HOSTS"),
        agent_socket=given.get("SSH_AUTH_SOCK"),
    )
    home = get("XDG_STATE_HOME") or str(Path(get("HOME", "/tmp")) / ".local" / "state")  # noqa: S108 - only where there is no home at all
    return Inputs(
        github=_github_inputs(get),
        ssh=ssh,
        word=get("DISPATCH_COMMAND", "/train"),
        wait_word=given.get("DISPATCH_WAIT"),
        git_url=given.get("DISPATCH_GIT_URL"),
        state_dir=get("DISPATCH_STATE_DIR", str(Path(home) / "nemotron-dispatch")),
        extras_word=get("DISPATCH_EXTRAS"),
        log_folder=get("DISPATCH_LOG_FOLDER"),
        log_artifact_word=given.get("DISPATCH_LOG_ARTIFACT"),
        log_retention_word=get("DISPATCH_LOG_RETENTION_DAYS"),
        environment=dict(given),
    )


def _github_inputs(get: Callable[..., str]) -> GitHubInputs:
    """What Actions says about itself, and in whose name GitHub is spoken to."""
    app_slug = get("DISPATCH_APP_SLUG", "github-actions")
    return GitHubInputs(
        event_name=get("GITHUB_EVENT_NAME"),
        event_path=get("GITHUB_EVENT_PATH"),
        repository=get("GITHUB_REPOSITORY"),
        sha=get("GITHUB_SHA"),
        run_id=get("GITHUB_RUN_ID"),
        run_attempt=get("GITHUB_RUN_ATTEMPT", "1"),
        workspace=get("GITHUB_WORKSPACE"),
        output_file=get("GITHUB_OUTPUT"),
        summary_file=get("GITHUB_STEP_SUMMARY"),
        in_actions=get("GITHUB_ACTIONS") == "true",
        api_url=get("GITHUB_API_URL", "https://api.github.com"),
        server_url=get("GITHUB_SERVER_URL", "https://github.com"),
        token=get("GITHUB_TOKEN"),
        # A GitHub App comments as `<slug>[bot]`.
        identity=get("DISPATCH_IDENTITY", f"{app_slug}[bot]"),
        app_slug=app_slug,
        app_id=get("DISPATCH_APP_ID"),
        app_private_key=get("DISPATCH_APP_PRIVATE_KEY"),
        triggering_actor=get("GITHUB_TRIGGERING_ACTOR"),
        job=get("GITHUB_JOB"),
    )


def _flag(name: str, text: str | None) -> bool | None:
    if text is None:
        return None
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise InputError("input.flag", f"{name} is {text!r}; it takes true or false.")


def read_event(path: str) -> Mapping[str, object]:
    """The event's JSON file → its object.

    Raises:
        InputError: `input.event-file` when it is missing, too large or not one JSON object.
    """
    if not path:
        raise InputError("input.event-file", "GITHUB_EVENT_PATH is not set, and no --event was given.")
    file = Path(path)
    try:
        if file.stat().st_size > MAX_EVENT_BYTES:
            raise InputError("input.event-file", f"The event file {path} is larger than {MAX_EVENT_BYTES} bytes.")
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError("input.event-file", f"The event file {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise InputError("input.event-file", f"The event file {path} is not JSON.") from None
    if not isinstance(document, dict):
        raise InputError("input.event-file", f"The event file {path} does not hold a JSON object.")
    return document
