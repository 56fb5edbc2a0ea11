"""One job, decided: what it is called, what its script gets, and what NeMo-Run, this machine or an API is given of it.

The preview is what gets submitted. Nothing is sent and nothing is run from here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dispatcher.authorise import Grant
from dispatcher.automount import GitMount
from dispatcher.chain import Chain
from dispatcher.errors import ConfigError
from dispatcher.grammar import Override
from dispatcher.jobconfig import JobConfig
from dispatcher.keys import commit_tag, content_tag, pull_tag
from dispatcher.launcher import WITH_PROCESSES, unsuitable
from dispatcher.limits import asked_for, image_of
from dispatcher.pipeline import variable
from dispatcher.ports import Compiled, CompiledFile, Package
from dispatcher.profile import CloudProfile, Profile, SlurmProfile
from dispatcher.recipe import INLINE_FILE, Recipe
from dispatcher.record import Resources
from dispatcher.slurmjob import executor_fields, groups, setup_lines

# Of a profile whose jobs an API starts: where the records lie, what the job's environment has, and what is said in other words.
NOT_FOR_AN_API = {"tunnel", "host", "port", "user", "known_hosts", "jump", "job_dir"}
NOT_FOR_AN_API |= {"env_vars", "wandb", "log_url", "attach", "packager", "dry_run"}
_NEMORUN = Path(__file__).parent / "effects" / "nemorun.py"


@dataclass(frozen=True)
class Earlier:
    """A stage that another one waits for. `run_dir` is empty where that is another machine's, `job` where Slurm need not wait for it."""

    stage: str
    run_dir: str = ""
    job: str = ""


@dataclass(frozen=True)
class JobPlan:
    """One job, decided. `job_dir` is absolute on the machine that has it."""

    run_key: str
    content_key: str
    grant: Grant
    profile_name: str
    profile: Profile
    recipe_name: str
    recipe: Recipe
    overrides: tuple[Override, ...]
    package: Package
    job_dir: str
    attached: bool
    python: str
    config: JobConfig | None = None
    """The script's configuration; the overrides that are not the profile's are in it."""
    mounts: tuple[GitMount, ...] = ()
    """Repositories that the job clones and mounts."""
    from_script: tuple[tuple[str, str], ...] = ()
    """What of `recipe` is the commit's own word: keys of the script's `[tool.runspec]` and the configuration's `run.env`, with values."""
    not_from_script: tuple[str, ...] = ()
    """Keys of these that do not count."""
    own_runspec: bool = False
    """Whether the script says otherwise in its `[tool.runspec]` than it does on the default branch."""
    earlier: tuple[Earlier, ...] = ()
    """Of a pipeline's stage: those that it waits for."""

    @property
    def name(self) -> str:
        """What is run, as people write it: the recipe, or pipeline and stage (`full:sft`)."""
        return self.grant.stage.name if self.grant.stage else self.recipe_name

    @property
    def runs_dir(self) -> str:
        """Where the ledger keeps its runs."""
        return f"{self.job_dir}/runs"

    @property
    def run_dir(self) -> str:
        """This run's folder."""
        return f"{self.runs_dir}/{self.run_key}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the script gets: its configuration and the recipe's arguments; without one these, then the overrides."""
        if self.config is None:
            return (*self.recipe.args, *(override.word for override in self.overrides if override.target == "script"))
        return (*(() if self.recipe.places_config else self.config.option(self.inside)), *self.recipe.args)

    @property
    def inside(self) -> str:
        """The run's folder, as the program sees it."""
        return "/nemo_run" if self.container_image or isinstance(self.profile, CloudProfile) else self.run_dir

    @property
    def command(self) -> tuple[str, str, tuple[str, ...]]:
        """What is started: the program, the first word behind it (usually the script), all others."""
        program, first, *others = self.recipe.command(self.config.path(self.inside) if self.config is not None else "")
        return program, first, (*others, *self.arguments)

    @property
    def chain(self) -> Chain | None:
        """How the run may go on in further jobs: only Slurm says that it was the time limit that ended one."""
        return self.recipe.chain if isinstance(self.profile, SlurmProfile) else None

    @property
    def resources(self) -> Resources:
        """What the scheduler is asked for."""
        asked = asked_for(self.profile, self.partition or "")
        return asked.model_copy(update={"jobs": self.chain.jobs}) if self.chain is not None else asked

    @property
    def partition(self) -> str | None:
        """`run_partition` for who waits, `batch_partition` for who does not, else `partition`."""
        return self.profile.partition_for(self.attached) if isinstance(self.profile, SlurmProfile) else None

    @property
    def container_image(self) -> str | None:
        """The image, when the job runs in one."""
        return image_of(self.profile)

    @property
    def processes_per_node(self) -> int:
        """Processes of torchrun and ft: as recipe or profile say, else one for each task where there are several, else one for each GPU."""
        tasks = getattr(self.profile, "ntasks_per_node", 1)
        return self.profile.nproc_per_node or (tasks if tasks > 1 else self.resources.gpus_per_node or 1)

    def for_compiler(self) -> dict[str, object]:
        """The job as `effects/nemorun.py` takes it: plain JSON values.

        Raises `ConfigError` `config.invalid` where the recipe's launcher cannot start what the profile runs.
        """
        if why := unsuitable(self.recipe.launcher, self.profile):
            words = f"Recipe `{self.recipe_name}` on profile `{self.profile_name}`: the launcher `{self.recipe.launcher}` {why}."
            raise ConfigError("config.invalid", words)
        entrypoint, script, arguments = self.command
        job: dict[str, object] = {
            "run_key": self.run_key,
            "runs_dir": self.runs_dir,
            "run_dir": self.run_dir,
            "launcher": self.recipe.launcher,
            "ft": self.recipe.ft.options(),
            "slurm_ray": self.recipe.slurm_ray.model_dump(),
            "script": script,
            "module": self.recipe.module or "",
            "inline": self.recipe.inline or "",
            "entrypoint": entrypoint,
            "args": list(arguments),
            "torchrun_nproc_per_node": self.processes_per_node if self.recipe.launcher in WITH_PROCESSES else None,
        }
        if isinstance(self.profile, SlurmProfile):
            job["executor"] = executor_fields(self, self.profile)
            job["groups"] = groups(self, self.profile)
            job["setup_lines"] = setup_lines(self, self.profile)
        if isinstance(self.profile, CloudProfile):
            job["cloud"] = self._cloud(self.profile)
        return job

    def _cloud(self, profile: CloudProfile) -> dict[str, object]:
        """What an executor behind an API needs: the profile's own fields, and what Slurm's script would have in its lines."""
        return {
            "executor": profile.executor,
            "profile": profile.model_dump(mode="json", exclude=NOT_FOR_AN_API),
            "seconds": profile.seconds,
            "results": self.recipe.results,
            "setup_lines": [*(self.config.lines(self.inside) if self.config is not None else ()), *profile.shell_lines],
            "packs": bool(self.package.files),
        }

    @property
    def written(self) -> str:
        """What the run is to write, as words for a shell: what lies there before it starts is none of its own."""
        return f"{self.left_at_end} {self.grown}".strip()

    @property
    def left_at_end(self) -> str:
        """Of that, what each of its jobs leaves anew."""
        return self._words(self.recipe.results, self.recipe.wandb_summary)

    @property
    def grown(self) -> str:
        """Of that, what further jobs add to."""
        events = f"{self._words(self.recipe.tensorboard)}/events.out.tfevents.*" if self.recipe.tensorboard is not None else ""
        return f"{self._words(self.recipe.series)} {events}".strip()

    @property
    def folder_lines(self) -> list[str]:
        """The line that makes the folders of what the run is to write: a job that opens `out/metrics.jsonl` need not make `out` first."""
        paths = (self.recipe.results, self.recipe.series, f"{self.recipe.tensorboard}/" if self.recipe.tensorboard is not None else None)
        folders = dict.fromkeys(path.rpartition("/")[0] for path in paths if path is not None and "/" in path)
        return [f"mkdir -p {self._words(*folders)} || :"] if folders else []

    def _words(self, *paths: str | None) -> str:
        return " ".join(shlex.quote(f"{self.run_dir}/code/{path}") for path in paths if path is not None)

    def local_job(self) -> Compiled:
        """What `executor: local` starts: a script that goes into the unpacked commit and lets NeMo-Run's LocalExecutor run the recipe."""
        results = self.written
        lines = [
            "#!/bin/sh",
            f"# dispatch-{self.run_key}: run by NeMo-Run's LocalExecutor in the commit's own folder",
            f". {shlex.quote(self.run_dir + '/env')}",
            # A results file that the commit brought along is no result.
            f"rm -f {results}",
            *self.folder_lines,
            *self.profile.shell_lines,
            f"cd {shlex.quote(self.run_dir + '/code')} || exit 1",
        ]
        # By its path and isolated (-I): the current folder is the commit's, and none of its files may stand in for one of ours.
        program = [self.python, "-I", str(_NEMORUN), "run", f"{self.run_dir}/configs/job.json"]
        command = shlex.join(program)
        limit = self.resources.seconds
        lines.append(f"exec timeout {limit} {command}" if limit else f"exec {command}")
        files = [CompiledFile("configs/job.json", json.dumps(self.for_compiler(), indent=1).encode())]
        if self.recipe.inline is not None:
            files.append(CompiledFile(INLINE_FILE, self.recipe.inline.encode()))
        return Compiled("\n".join(lines) + "\n", tuple(files))

    def environment(self, secrets: Mapping[str, str]) -> str:
        """The 0600 file that the job sources: the profile's and the recipe's variables, who it is, and the secrets."""
        inside = self.inside
        own = {
            "DISPATCH_RUN_KEY": self.run_key,
            "DISPATCH_RUN_DIR": inside,
            "DISPATCH_RESULTS": f"{inside}/code/{self.recipe.results}",
            "DISPATCH_REPOSITORY": self.grant.repository,
            "DISPATCH_SHA": self.grant.sha,
            **({"DISPATCH_SERIES": f"{inside}/code/{self.recipe.series}"} if self.recipe.series is not None else {}),
            **({"DISPATCH_TENSORBOARD": f"{inside}/code/{self.recipe.tensorboard}"} if self.recipe.tensorboard is not None else {}),
            **({"DISPATCH_CHECKPOINTS": f"{inside}/code/{self.recipe.chain.checkpoints}"} if self.recipe.chain is not None else {}),
            **({"DISPATCH_CONFIG": self.config.path(inside)} if self.config is not None else {}),
            **self._stage_variables,
        }
        values = {**self.profile.environment, **secrets, **own}
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())

    @property
    def _stage_variables(self) -> dict[str, str]:
        """Which stage it is, and where those before it left what they wrote: paths as the cluster's file system has them."""
        place = self.grant.stage
        if place is None:
            return {}
        folders = {f"DISPATCH_STAGE_DIR_{variable(item.stage)}": item.run_dir for item in self.earlier if item.run_dir}
        return {"DISPATCH_PIPELINE": place.pipeline, "DISPATCH_STAGE": place.stage, **folders}

    def tags(self) -> tuple[str, ...]:
        """Index names under which the ledger finds this run again: its commit, its content, its pull request."""
        pull = () if self.grant.number is None else (pull_tag(self.grant.repository, self.grant.number),)
        return (commit_tag(self.grant.sha), content_tag(self.content_key), *pull)
