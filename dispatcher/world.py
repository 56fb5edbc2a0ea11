"""What the story needs of the world, in one value: the ports, made real by `cli.py` and quick by tests/fakes.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dispatcher.action import blank_outputs
from dispatcher.answer import Voice
from dispatcher.errors import Exit
from dispatcher.ports import Archive, Clock, Cloud, Cluster, Compiler, Forge, KeptLog
from dispatcher.profile import CloudProfile, Profile
from dispatcher.record import RunRecord
from dispatcher.untrusted import redact


@dataclass(frozen=True)
class Settings:
    """What the process was told: who it speaks for, which variables a profile may read, what must never be shown."""

    repository: str
    voice: Voice
    wait: bool | None = None
    run_attempt: int = 1
    first_delivery: bool = False
    """This delivery is the first of its event, for sure: nothing that we would make can exist yet."""
    rerun_by: str = ""
    """Who pressed "Re-run" on an event of before; empty on the first attempt."""
    run_id: str = ""
    config_ref: str = ""
    env_file: str = ""
    """Nemotron's file of profiles, where it was looked for on this machine."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    to_hide: tuple[str, ...] = field(default=(), repr=False)
    local_job_dir: str = ""
    guards_key: bool = False
    """Whether this process holds a key that code from a pull request must not come near."""
    python: str = "python3"
    rendering: str = ""
    """What jobs are made with, in one word: with another one an earlier run is no longer the same run."""
    app_slug: str = "github-actions"
    """The App whose checks are ours."""


@dataclass(frozen=True)
class World:
    """The ports. `forge` is None at a terminal; clusters and the repository's objects are opened when they are first asked for."""

    forge: Forge | None
    archive: Callable[[], Archive]
    compiler: Compiler
    connect: Callable[[Profile], Cluster]
    read_config: Callable[[str], str | None]
    list_config: Callable[[str], tuple[str, ...]]
    clock: Clock
    say: Callable[[str], None]
    show_log: Callable[[bytes], None]
    settings: Settings
    cloud: Callable[[CloudProfile], Cloud] | None = None
    """The API behind a profile's executor; None where there is none to speak to."""
    keep: Callable[[str, str], KeptLog] | None = None
    """A file's name and a log's → that file in the folder for complete logs, opened. None where none are kept."""


@dataclass(frozen=True)
class Outcome:
    """How one invocation ended: what to print, to set as outputs, to add to the summary, and the exit status."""

    exit: Exit
    outputs: Mapping[str, str]
    summary: str = ""
    record: RunRecord | None = None


def outcome(decision: str, reason: str, exit: Exit = Exit.OK, summary: str = "", **more: str) -> Outcome:
    """An outcome without a run."""
    return Outcome(exit, {**blank_outputs(decision, reason), **more}, summary)


def bug_words(error: Exception, world: World) -> str:
    """An exception that nobody expected, so that it can be shown: it may hold a job's text, or half a surrogate pair."""
    return redact(f"{type(error).__name__}: {ascii(str(error))[1:-1][:200]}", world.settings.to_hide)
