"""What to run: a table of `recipes:` in the policy → a validated `Recipe`."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import Self

from dispatcher.chain import Chain
from dispatcher.launcher import FaultTolerance, LauncherName, SlurmRay
from dispatcher.logmetrics import LogMetricsField
from dispatcher.packager import PackagerField
from dispatcher.results import METRIC_NAME
from dispatcher.thresholds import MetricRule
from dispatcher.trainconfig import ConfigField
from dispatcher.values import (
    Between,
    EnvName,
    GlobPattern,
    Image,
    Line,
    Model,
    Module,
    OneOrMore,
    Program,
    RelativePath,
    ScriptPath,
    Shape,
    Text,
)

INLINE_FILE = "scripts/inline"
"""Where the text of an inline recipe lies in the run's folder, as NeMo-Run has it in `scripts`."""
INLINE_LIMIT = 65_536

OWN_CHOICE = frozenset({"subpath", "include_pattern", "include_submodules"})
"""Fields by which a recipe says itself what the packager `git` takes."""

MetricName = Annotated[str, Shape(METRIC_NAME, "a metric's name as the results have it", 100)]
RunspecPart = Annotated[
    str,
    Shape(
        r"launch|resources|image|config|cmd|mounts|env\.[A-Za-z_*][A-Za-z0-9_*]*",
        "`launch`, `resources`, `image`, `config`, `cmd`, `mounts`, or names such as `env.NCCL_*`",
        132,
    ),
]


def _usual_parts(value: Any) -> Any:
    """`true` is what the policy's limits bound."""
    if isinstance(value, bool):
        return ("launch", "resources") if value else ()
    return value


_PLACEHOLDER = re.compile(r"\{[a-z_]*\}")


def command_words(line: str) -> tuple[str, ...]:
    """A command line → its words, with their placeholders. Raises ValueError for what cannot be one."""
    try:
        words = tuple(shlex.split(line))
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {error}") from None
    unknown = next((name for name in _PLACEHOLDER.findall(line) if name not in ("{script}", "{config}")), None)
    if unknown:
        raise ValueError(f"has the placeholder `{unknown}`; there are `{{script}}` and `{{config}}`")
    if len(words) < 2 or "{script}" not in line:
        raise ValueError("needs a program and `{script}`")
    if not re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*", words[0], re.ASCII):
        raise ValueError("begins with something that is no program's name or path")
    return words


def _command_line(value: str) -> str:
    command_words(value)
    return value


CommandLine = Annotated[Line, AfterValidator(_command_line)]


class _OrTrue:
    """Says in the JSON Schema what `_usual_parts` does."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        given = handler(schema)
        return {"anyOf": [{"type": "boolean"}, *given.get("anyOf", [given])]}


class Recipe(Model):
    """A script, a module or a few lines of their own, with their entry point, arguments and launcher.

    Shapes that a recipe leaves open (None) are the profile's; what it sets wins over the profile, and overrides win over both.
    """

    script: ScriptPath | None = Field(
        default=None,
        description="The script to run, seen from the packed root. Absolute, when the packager is `none`: then it is there already.",
    )
    module: Module | None = Field(default=None, description="Instead of a script: a module, run as `python -m`.")
    inline: Annotated[Text, Field(max_length=INLINE_LIMIT)] | None = Field(
        default=None, description="Instead of a script: its text, which becomes a file in the run's folder."
    )
    entrypoint: Program = Field(default="python", description="The program that runs the script; for `inline`, when not given, `bash`.")
    args: OneOrMore[Line] = Field(default=(), description="Arguments before the overrides.")
    cmd: CommandLine | None = Field(
        default=None,
        description="Instead of `entrypoint` and the script: words in which `{script}` and `{config}` are filled in. No shell reads them.",
    )
    config: ConfigField | None = Field(
        default=None,
        description="The script's configuration: a file, or a table. Overrides then go into it, and the script gets the merged file.",
    )
    launcher: LauncherName = Field(default="none", description="What starts the processes ([below](#launchers)).")
    ft: FaultTolerance = Field(default_factory=FaultTolerance, description="Options of the launcher `ft`.")
    slurm_ray: SlurmRay = Field(default_factory=SlurmRay, description="Options of the launcher `slurm_ray`.")
    results: RelativePath = Field(
        default="results.json", description="Where the job leaves its metrics, seen from the packed root. Given here, it has to be written."
    )
    wandb_summary: RelativePath | None = Field(
        default=None,
        description="Where Weights & Biases leaves its summary, whose numbers are results too: "
        "usually `wandb/latest-run/files/wandb-summary.json`.",
    )
    series: RelativePath | None = Field(
        default=None,
        description="Where the job writes numbers over steps as it goes, seen from the packed root: JSON lines of `step`, `name`, `value`.",
    )
    tensorboard: RelativePath | None = Field(
        default=None,
        description="The folder in which the job writes TensorBoard event files, seen from the packed root: numbers over steps, too.",
    )
    log_metrics: LogMetricsField | None = Field(
        default=None, description="Which lines of the log are numbers over steps: `megatron`, `nemo`, `lightning`, or name → regex."
    )
    steps: Annotated[int, Between(1, 2**53)] | None = Field(
        default=None, description="How many steps there are to be, for the progress, where series and log do not say so."
    )
    chain: Chain | None = Field(
        default=None, description="The run may go on in further jobs when the time limit ends one ([below](#chain))."
    )
    metrics: dict[MetricName, MetricRule] = Field(
        default_factory=dict, description="What single metrics of the results have to be: name → rule."
    )
    subpath: RelativePath | Literal[""] = Field(default="", description="Pack only this folder; it becomes the root.")
    include_pattern: OneOrMore[GlobPattern] = Field(
        default=(), description="Pack only files that match one of these gitignore patterns; all when empty."
    )
    include_submodules: bool = Field(default=True, description="Pack submodules at the commits that are pinned.")
    packager: PackagerField | None = Field(
        default=None, description="Instead of the profile's, and of the three fields above: how they are packed."
    )
    nodes: Annotated[int, Between(1, 10_000)] | None = Field(default=None, description="Instead of the profile's.")
    gpus_per_node: Annotated[int, Between(0, 64)] | None = Field(default=None, description="Instead of the profile's.")
    ntasks_per_node: Annotated[int, Between(1, 1024)] | None = Field(default=None, description="Instead of the profile's.")
    nproc_per_node: Annotated[int, Between(1, 1024)] | None = Field(
        default=None, description="Processes that `torchrun` or `ft` starts on each node."
    )
    container_image: Image | None = Field(default=None, description="Instead of the profile's.")
    env_vars: dict[EnvName, Line] = Field(default_factory=dict, description="Environment of the job; the profile's wins. No secrets here.")
    runspec: Annotated[OneOrMore[RunspecPart], BeforeValidator(_usual_parts), _OrTrue()] = Field(
        default=(),
        description="What the script's own `[tool.runspec]` and its configuration's `run.env` may fill in where the recipe says nothing; "
        "`true` is `launch` and `resources`.",
    )

    @model_validator(mode="after")
    def _one_program(self) -> Self:
        if sum(program is not None for program in (self.script, self.module, self.inline)) != 1:
            raise ValueError("needs exactly one of `script`, `module` and `inline`")
        if self.inline is not None and not self.inline.strip():
            raise ValueError("`inline` is empty")
        if self.module is not None and self.entrypoint != "python":
            raise ValueError("`module` is run by `python -m`: leave `entrypoint` out")
        if self.script is None and self.runspec:
            raise ValueError(f"`runspec` is read from a script: leave it out for {'`inline`' if self.module is None else 'a `module`'}")
        if self.cmd is not None and (self.script is None or "entrypoint" in self.model_fields_set):
            raise ValueError("`cmd` is for a `script`, instead of `entrypoint`: leave one of them out")
        if self.cmd is not None and "{config}" in self.cmd and self.config is None and "config" not in self.runspec:
            raise ValueError("`cmd` has `{config}` in it, and the recipe has no `config`")
        return self

    @model_validator(mode="after")
    def _its_own_options(self) -> Self:
        for launcher in ("ft", "slurm_ray"):
            if launcher in self.model_fields_set and self.launcher != launcher:
                raise ValueError(f"`{launcher}` has the options of `launcher: {launcher}`, and this is `launcher: {self.launcher}`")
        return self

    @model_validator(mode="after")
    def _one_packager(self) -> Self:
        if self.script is not None and self.script.startswith("/") and (self.packager is None or self.packager.type != "none"):
            raise ValueError("an absolute `script` is run where nothing is packed: it needs `packager: none`")
        own = sorted(OWN_CHOICE & self.model_fields_set)
        if own and self.packager is not None and not (self.packager.type == "git" and self.packager.plain):
            raise ValueError(f"`{own[0]}` and `packager` exclude each other: say it in the table `packager`")
        return self

    @property
    def chooses(self) -> bool:
        """Whether it says by its own fields which files are packed."""
        return bool(OWN_CHOICE & self.model_fields_set)

    @property
    def packed_folder(self) -> str:
        """The folder that becomes the packed root by its own word; empty for the repository's, or where the profile says."""
        return self.subpath or (self.packager.subpath if self.packager is not None and self.packager.type == "git" else "")

    def lets_set(self, key: str) -> bool:
        """Whether the script's own block may set `env.NAME`."""
        return any(re.fullmatch(part.replace(".", r"\.").replace("*", ".*"), key) for part in self.runspec if part.startswith("env."))

    @property
    def takes_config(self) -> bool:
        """Whether there may be a configuration: its own, or one that the script names."""
        return self.config is not None or "config" in self.runspec

    @property
    def places_config(self) -> bool:
        """Whether its command line says itself where the configuration stands."""
        return self.cmd is not None and "{config}" in self.cmd

    def command(self, config: str = "") -> tuple[str, ...]:
        """What is started, before all arguments: the program and the script, if there is one; `config` is the configuration's path."""
        if self.cmd is None:
            return self.interpreter, self.script or ""
        filled = {"{script}": self.script or "", "{config}": config}
        return tuple(_PLACEHOLDER.sub(lambda found: filled[found[0]], word) for word in command_words(self.cmd))

    @property
    def interpreter(self) -> str:
        """The program that runs it: the entry point, which is bash for an inline text that names none."""
        return self.entrypoint if self.inline is None or "entrypoint" in self.model_fields_set else "bash"

    @property
    def program(self) -> str:
        """What is run, as people call it."""
        return self.script or (f"inline {self.interpreter}" if self.inline is not None else f"-m {self.module}")
