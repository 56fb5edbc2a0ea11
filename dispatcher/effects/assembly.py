"""Typed inputs → a `World` whose ports are real: GitHub over HTTP, clusters over SSH or a local shell, git, NeMo-Run, the clock."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from dispatcher.answer import Voice
from dispatcher.effects.checkout import repository_name
from dispatcher.effects.clock import SystemClock
from dispatcher.effects.compiler import CompilerProcess
from dispatcher.effects.edition import own_edition
from dispatcher.effects.logfile import LogFolder
from dispatcher.effects.runner import Runner
from dispatcher.errors import InputError
from dispatcher.inputs import Inputs
from dispatcher.jobplan import NOT_FOR_AN_API
from dispatcher.ports import Archive, Cloud, Cluster, Forge
from dispatcher.profile import CloudProfile, LocalProfile, Profile
from dispatcher.world import Settings, World

if TYPE_CHECKING:
    from dispatcher.effects.api_cluster import ApiCluster
    from dispatcher.effects.channel import Channel
    from dispatcher.effects.github_account import Account
    from dispatcher.effects.ledger import LedgerCluster
    from dispatcher.effects.ssh import SshTarget
    from dispatcher.executor import Reached


def for_github(inputs: Inputs, runner: Runner, default_branch: str) -> World:
    """The world of an Actions job: policy and profiles come from the default branch through GitHub's API."""
    github = inputs.github
    if not github.speaks:
        raise InputError("input.missing", "GITHUB_TOKEN is not set.", "Give the step `env: GITHUB_TOKEN: ${{ github.token }}`.")
    from dispatcher.effects.github import GitHubForge

    account = _account(inputs, github.repository, runner.mask)
    forge = GitHubForge(github.repository, account, github.api_url)
    ref = default_branch or github.sha
    return _world(
        inputs,
        runner,
        forge,
        repository=github.repository,
        read=lru_cache(maxsize=None)(lambda path: forge.read_text(path, ref)),
        names=lambda folder: forge.list_files(folder, ref),
        workspace=Path(github.workspace) if github.workspace else None,
        account=account,
    )


def for_terminal(
    inputs: Inputs,
    runner: Runner,
    folder: Path,
    compiler: CompilerProcess | None = None,
    as_it_lies: bool = False,
    start: Path | None = None,
) -> World:
    """The world of a person in a checkout: policy and profiles are the folder's; GitHub is not spoken to.

    With `as_it_lies` the folder's files are packed, and not those of a commit. `start` is the folder in it that the person is in.
    """
    from dispatcher.effects.envfile import find_env_file

    env_file = find_env_file(start or folder, folder, inputs.environment.get("NEMOTRON_ENV_FILE", ""))
    return _world(
        inputs,
        runner,
        None,
        repository=inputs.github.repository or repository_name(folder),
        read=lambda path: _read(folder / path),
        names=lambda path: tuple(sorted(item.name for item in (folder / path).glob("*") if item.is_file())),
        workspace=folder,
        compiler=compiler,
        as_it_lies=as_it_lies,
        env_file=env_file,
    )


def with_forge(inputs: Inputs, world: World) -> World:
    """The same world, speaking to GitHub, when there is a token or an App to speak with."""
    repository = world.settings.repository
    if not (inputs.github.speaks and repository):
        return world
    from dataclasses import replace

    from dispatcher.effects.github import GitHubForge

    return replace(world, forge=GitHubForge(repository, _account(inputs, repository), inputs.github.api_url))


def _account(inputs: Inputs, repository: str, mask: Callable[[str], object] = lambda secret: None) -> Account:
    """In whose name GitHub is spoken to: a GitHub App's, where one is given, else the token's."""
    from dispatcher.effects.github_account import GivenToken

    github = inputs.github
    if not (github.app_id or github.app_private_key):
        return GivenToken(github.token, github.identity, github.app_slug)
    if not (github.app_id and github.app_private_key):
        absent, there = ("app-private-key", "app-id") if github.app_id else ("app-id", "app-private-key")
        raise InputError("input.missing", f"`{there}` is given, but no `{absent}`.", "A GitHub App needs both; else leave both out.")
    from dispatcher.effects.github_app import AppInstallation

    return AppInstallation(github.app_id, github.app_private_key, repository, github.api_url, SystemClock(), mask=mask)


def open_cluster(
    profile: Profile, inputs: Inputs, local_job_dir: str, cloud: Callable[[CloudProfile], Cloud], archive: Callable[[], Archive]
) -> Cluster:
    """A profile's ledger and scheduler; the connection itself begins in the background and fails at the first request."""
    from dispatcher.effects.ledger import LedgerCluster, open_local

    job_dir = (profile.job_dir or local_job_dir).rstrip("/")

    def connect() -> Channel:
        if not isinstance(profile, LocalProfile) and profile.tunnel == "ssh":
            return _over_ssh(profile, inputs)
        return open_local(inputs.environment)

    cluster: LedgerCluster | ApiCluster
    if isinstance(profile, CloudProfile):
        from dispatcher.effects.api_cluster import ApiCluster
        from dispatcher.effects.api_ledger import ApiLedger

        cluster = ApiCluster(ApiLedger(connect, f"{job_dir}/{profile.ledger_name}", "api"), cloud(profile), archive)
    else:
        cluster = LedgerCluster(connect, job_dir, profile.executor)
    cluster.start()
    return cluster


def _cloud(environment: Mapping[str, str]) -> Callable[[CloudProfile], Cloud]:
    """One process for each profile, for as long as ours lives: the preview, the submission and the look share it."""
    from dispatcher.effects.cloud_process import CloudProcess

    opened: dict[str, CloudProcess] = {}

    def cloud(profile: CloudProfile) -> Cloud:
        return opened.setdefault(profile.model_dump_json(exclude=NOT_FOR_AN_API), CloudProcess(profile, environment))

    return cloud


def _over_ssh(profile: Reached, inputs: Inputs) -> Channel:
    from dispatcher.effects.conversation import command
    from dispatcher.effects.ssh import SshCredentials, open_ssh

    given = inputs.ssh
    return open_ssh(
        ssh_target(profile, given.known_hosts),
        SshCredentials(given.key, given.passphrase, given.certificate, given.agent_socket),
        command(),
    )


def ssh_target(profile: Reached, known_hosts: str) -> SshTarget:
    """Where a profile's cluster is; its own `known_hosts` come before the environment's."""
    from dispatcher.effects.ssh import SshTarget

    known = profile.known_hosts or known_hosts
    jump = None
    if profile.jump:
        user, _, address = profile.jump.rpartition("@")
        host, _, port = address.partition(":")
        jump = SshTarget(host, user or str(profile.user), known, int(port or 22))
    return SshTarget(str(profile.host), str(profile.user), known, profile.port, jump)


def _world(
    inputs: Inputs,
    runner: Runner,
    forge: Forge | None,
    repository: str,
    read: Callable[[str], str | None],
    names: Callable[[str], tuple[str, ...]],
    workspace: Path | None,
    compiler: CompilerProcess | None = None,
    account: Account | None = None,
    as_it_lies: bool = False,
    env_file: str = "",
) -> World:
    local_job_dir = str(Path(inputs.state_dir) / "local")
    archive = _archives(inputs, runner, repository, workspace, account, as_it_lies)
    cloud = _cloud(inputs.environment)
    logs = LogFolder(Path(inputs.log_folder), lambda paths: runner.outputs({"log-files": paths})) if inputs.log_folder else None
    return World(
        forge=forge,
        archive=archive,
        compiler=compiler or CompilerProcess(),
        connect=lambda profile: open_cluster(profile, inputs, local_job_dir, cloud, archive),
        cloud=cloud,
        read_config=read,
        list_config=names,
        clock=SystemClock(),
        say=runner.say,
        show_log=runner.log_bytes,
        keep=logs.open if logs else None,
        settings=_settings(inputs, repository, forge is None, account, local_job_dir, env_file),
    )


def _archives(
    inputs: Inputs, runner: Runner, repository: str, workspace: Path | None, account: Account | None, as_it_lies: bool
) -> Callable[[], Archive]:
    """The commits' files, each time with a token that holds: an App's does for an hour, then there is another, and another archive."""
    github = inputs.github

    @lru_cache(maxsize=1)
    def archive(secret: str) -> Archive:
        from dispatcher.effects.archive import GitArchive

        url = inputs.git_url or (f"{github.server_url}/{repository}" if github.in_actions else "")
        committed = GitArchive(url, secret or None, workspace, progress=runner.say)
        if not as_it_lies or workspace is None:
            return committed
        from dispatcher.effects.workingfolder import WorkingFolder

        return WorkingFolder(workspace, committed)

    return lambda: archive(account.token() if account else github.token)


def _settings(inputs: Inputs, repository: str, at_terminal: bool, account: Account | None, local_job_dir: str, env_file: str) -> Settings:
    """What of the inputs the flow itself asks for."""
    github = inputs.github
    return Settings(
        repository=repository,
        voice=Voice(inputs.word, github.server_url, github.run_url, at_terminal=at_terminal),
        wait=inputs.wait,
        run_attempt=int(github.run_attempt) if github.run_attempt.isdigit() else 1,
        rerun_by=github.rerun_by,
        env_file=env_file,
        environment=inputs.environment,
        to_hide=inputs.to_hide,
        local_job_dir=local_job_dir,
        guards_key=github.in_actions and (inputs.ssh.key is not None or bool(github.app_private_key)),
        python=sys.executable,
        rendering=own_edition(),
        app_slug=account.app_slug if account else github.app_slug,
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
