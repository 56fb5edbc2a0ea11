"""Where and how a job runs: what every executor's profile has, and what is reached over SSH; every value checked for where it ends up.

`LocalProfile`, this machine, is here; a cluster is `slurmprofile.py`, executors behind an API are `clouds/`.

Names are NeMo-Run's and Nemotron's (`env.toml`); what needs no counterpart there is ours: `attach`, `log_url`, `known_hosts`, `jump`.
"""

from __future__ import annotations

import re
import string
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from dispatcher.document import Loc
from dispatcher.packager import KINDS, Packager, PackagerField
from dispatcher.values import (
    AbsolutePath,
    Between,
    EnvName,
    Host,
    Jump,
    Line,
    Model,
    OneOrMore,
    SlurmTime,
    Text,
    User,
    WebAddress,
    slurm_seconds,
)

LOG_URL_FIELDS = ("job_id", "run_key", "user", "path", "host")

# Names that the job's own environment is built from; another value would run other programs than the recipe's before it starts.
OWN_ENV_NAMES = re.compile(r"PATH|IFS|ENV|BASH_ENV|BASH_FUNC_.*|SHELLOPTS|BASHOPTS|PS4|LD_PRELOAD|LD_AUDIT|SLURM_.*|SBATCH_.*|DISPATCH_.*")


def _line_list(value: Any) -> Any:
    """Shell lines as a list, however they were written."""
    return tuple(value.splitlines()) if isinstance(value, str) else value


def _log_url(value: str) -> str:
    """Only known placeholders, and nothing that would end the link in Markdown."""
    if not re.fullmatch(r"https?://[^\s<>\"'`()\[\]\\|\x00-\x1f\x7f]{1,1000}", value):
        raise ValueError("is not an http(s) address without spaces, quotes or brackets")
    try:
        parts = list(string.Formatter().parse(value))
    except ValueError as error:
        raise ValueError("has an unmatched `{` or `}`") from error
    for _, name, spec, conversion in parts:
        if name is not None and (name not in LOG_URL_FIELDS or spec or conversion):
            raise ValueError(f"has a placeholder `{{{name}}}`; known are {', '.join(f'`{{{known}}}`' for known in LOG_URL_FIELDS)}")
    return value


def _known_hosts(value: str) -> str:
    """Entries as in OpenSSH's known_hosts file: names, key type, key."""
    entries = [line for line in value.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not entries or not all(re.fullmatch(r"\s*(@[a-z-]+\s+)?\S+\s+[a-z0-9@.-]+\s+[A-Za-z0-9+/=]+(\s.*)?", line) for line in entries):
        raise ValueError("is not lines of a known_hosts file (`host key-type key`), as `ssh-keyscan` prints them")
    return value


def _env_name(value: str) -> str:
    if OWN_ENV_NAMES.fullmatch(value):
        raise ValueError(f"`{value}` is set by the system or the dispatcher; change it in `setup_lines` if it must be")
    return value


SettableName = Annotated[EnvName, AfterValidator(_env_name)]
EnvVars = dict[SettableName, Line]


class Wandb(Model):
    """Weights & Biases: becomes WANDB_* in the job's environment. The key itself is a secret and stays one."""

    project: Line | None = Field(default=None, description="`WANDB_PROJECT`.")
    entity: Line | None = Field(default=None, description="`WANDB_ENTITY`.")
    group: Line | None = Field(default=None, description="`WANDB_RUN_GROUP`.")
    name: Line | None = Field(default=None, description="`WANDB_NAME`.")
    tags: OneOrMore[Line] = Field(default=(), description="`WANDB_TAGS`, joined by commas.")
    mode: Literal["online", "offline", "disabled", "shared"] | None = Field(default=None, description="`WANDB_MODE`.")
    base_url: WebAddress | None = Field(default=None, description="`WANDB_BASE_URL`.")

    def environment(self) -> dict[str, str]:
        """https://docs.wandb.ai/guides/track/environment-variables/."""
        given = {"PROJECT": self.project, "ENTITY": self.entity, "RUN_GROUP": self.group, "NAME": self.name}
        given |= {"TAGS": ",".join(self.tags) or None, "MODE": self.mode, "BASE_URL": self.base_url}
        return {f"WANDB_{name}": value for name, value in given.items() if value is not None}


class Common(Model):
    """What every executor has. `PACKAGERS` are those that it takes."""

    PACKAGERS: ClassVar[tuple[str, ...]] = tuple(KINDS)

    job_dir: AbsolutePath | None = Field(default=None, description="Where runs, packages and the ledger live. Also: `remote_job_dir`.")
    time: SlurmTime = Field(default="04:00:00", description="Time limit, in Slurm's forms.")
    env_vars: EnvVars = Field(
        default_factory=dict, description="Environment of the job: a table, or a list of `NAME=value`. No secrets here."
    )
    setup_lines: Annotated[tuple[Line, ...], BeforeValidator(_line_list)] = Field(
        default=(), description="Shell lines before the program starts: a text, or a list of lines."
    )
    startup_commands: Annotated[tuple[Line, ...], BeforeValidator(_line_list)] = Field(
        default=(), description="More shell lines, after `setup_lines`."
    )
    wandb: Wandb = Field(default=Wandb(), description="Weights & Biases, without its key.")
    log_url: Annotated[Line, AfterValidator(_log_url)] | None = Field(
        default=None, description="Link to the log; {job_id}, {run_key}, {user}, {path} and {host} are filled in."
    )
    nproc_per_node: Annotated[int, Between(1, 1024)] | None = Field(
        default=None, description="Processes that torchrun starts on each node."
    )
    dry_run: bool = Field(default=False, description="Only ever show what would be submitted.")
    packager: PackagerField = Field(default=Packager(), description="What of the commit travels to the job.")

    @field_validator("packager")
    @classmethod
    def _takes(cls, value: Packager) -> Packager:
        if value.type not in cls.PACKAGERS:
            raise ValueError(f"`{value.type}` is not for this executor, which takes {', '.join(f'`{name}`' for name in cls.PACKAGERS)}")
        return value

    @property
    def seconds(self) -> int:
        """The time limit."""
        return slurm_seconds(self.time)

    @property
    def environment(self) -> dict[str, str]:
        """The job's environment without secrets: WANDB_* from `wandb`, then `env_vars`."""
        return {**self.wandb.environment(), **self.env_vars}

    @property
    def shell_lines(self) -> tuple[str, ...]:
        """`setup_lines`, then `startup_commands`."""
        return (*self.setup_lines, *self.startup_commands)

    def _link(self, **fields: str) -> str | None:
        return self.log_url and self.log_url.format(
            **{name: quote(value, safe="/" if name == "path" else "") for name, value in fields.items()}
        )


class Reached(Common):
    """What has its ledger on a machine that is reached over SSH, or that is the runner itself (`tunnel: local`)."""

    tunnel: Literal["ssh", "local"] = Field(default="ssh", description="Over SSH, or `local`: the runner itself has `sbatch`.")
    host: Host | None = Field(default=None, description="The login node; needed with `tunnel: ssh`.")
    port: Annotated[int, Between(1, 65535)] = Field(default=22, description="Its SSH port.")
    user: User | None = Field(default=None, description="The account there; needed with `tunnel: ssh`.")
    known_hosts: Annotated[Text, AfterValidator(_known_hosts)] | None = Field(
        default=None, description="Host keys; without it `DISPATCH_SSH_KNOWN_HOSTS`."
    )
    jump: Jump | None = Field(default=None, description="A host to go through, written `user@host:port`.")

    @property
    def unreachable(self) -> list[tuple[Loc, str]]:
        """What is missing for `tunnel: ssh`."""
        missing = [name for name in ("host", "user") if getattr(self, name) is None] if self.tunnel == "ssh" else []
        here = "" if self.host else "; where this machine itself is the cluster's, write `tunnel: local`"
        return [((), f"`{name}` is missing, which `tunnel: ssh` needs{here}") for name in missing]


class LocalProfile(Common):
    """This machine, through NeMo-Run's LocalExecutor. Without `job_dir` the runner's own temporary folder is used."""

    executor: Literal["local"] = Field(default="local", description="What runs the job.")
    time: SlurmTime = Field(default="01:00:00", description="Time limit, in Slurm's forms.")
    attach: bool = Field(default=True, description="Wait for the job and show its log.")

    @property
    def nodes(self) -> int:
        """One."""
        return 1

    @property
    def gpu_count(self) -> int:
        """None are reserved."""
        return 0

    @property
    def address(self) -> str:
        """The machine, for people."""
        return "this machine"

    def log_link(self, job_id: str, run_key: str, path: str) -> str | None:
        """The log's address; None when the profile has no template."""
        return self._link(job_id=job_id, run_key=run_key, path=path, user="", host="localhost")
