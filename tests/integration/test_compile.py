"""NeMo-Run itself renders Slurm jobs, and a real bash runs what it rendered, with an `srun` that only writes down what it was given."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dispatcher.clouds.kuberay import KubeRayProfile
from dispatcher.clouds.lepton import LeptonProfile
from dispatcher.effects import nemorun
from dispatcher.effects.compiler import CompilerProcess
from dispatcher.errors import CompileError, ConfigError
from dispatcher.jobplan import JobPlan
from dispatcher.launcher import LAUNCHERS, FaultTolerance, LauncherName
from dispatcher.ports import Compiled
from dispatcher.recipe import Recipe
from dispatcher.registry import Profile
from tests.unit.test_plan import LOCAL, planned, slurm

SRUN = """\
#!/bin/sh
if [ "$1" = --nodes=1 ]; then echo 10.0.0.1; exit 0; fi
printf '%s\\0' "$@" >"$RECORD"
[ -z "$HANG" ] || { touch "$RECORD.hangs"; exec sleep "$HANG" >/dev/null 2>&1; }
exit "${SRUN_EXIT:-0}"
"""
# What srun is given to start.
STARTERS = ("python", "python3", "torchrun", "ft_launcher", "bash", "sh")
SCONTROL = """\
#!/bin/sh
case $1 in show) printf 'n1\\nn2\\n' ;; *) printf '%s ' "$@" >>"$RECORD.scontrol" ;; esac
"""


@pytest.fixture(scope="module")
def compiler() -> Iterator[CompilerProcess]:
    process = CompilerProcess()
    yield process
    process.close()


@dataclass(frozen=True)
class Ran:
    """How a rendered script ended: srun's own options, and the program with its arguments as srun would start it."""

    status: int
    options: list[str]
    program: list[str]
    output: str
    exit_file: str
    files: frozenset[str]


@dataclass(frozen=True)
class Bench:
    """A run's folder on this machine, with `srun` and `scontrol` that write down what they are asked."""

    folder: Path

    def lay_out(self, job: JobPlan, compiled: Compiled, secrets: Mapping[str, str]) -> Path:
        """What the far side makes of a submission."""
        run_dir = Path(job.run_dir)
        (run_dir / "logs").mkdir(parents=True)
        (run_dir / "code").mkdir()
        (run_dir / "env").write_text(job.environment(secrets))
        (run_dir / "job.sbatch").write_text(compiled.script)
        for file in compiled.files:
            (run_dir / file.path).parent.mkdir(exist_ok=True)
            (run_dir / file.path).write_bytes(file.content)
        programs = self.folder / "bin"
        programs.mkdir()
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        return run_dir

    def start(self, run_dir: Path, **environment: str) -> subprocess.Popen[str]:
        """The batch script in a real bash, as slurmd would start it."""
        given = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "RECORD": str(self.folder / "record"),
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_NODEID": "0",
            "SLURM_JOB_ID": "77",
            "LC_ALL": "C.UTF-8",
            **environment,
        }
        command = ["bash", str(run_dir / "job.sbatch")]
        return subprocess.Popen(command, cwd=run_dir, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def ended(self, run_dir: Path, process: subprocess.Popen[str]) -> Ran:
        """Reads what was written down."""
        output, _ = process.communicate(timeout=30)
        record = self.folder / "record"
        words = record.read_bytes().decode().split("\0")[:-1] if record.exists() else []
        at = next((number for number, word in enumerate(words) if word in STARTERS), len(words))
        exit_file = run_dir / "exit"
        found = frozenset(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))
        return Ran(process.returncode, words[:at], words[at:], output, exit_file.read_text() if exit_file.exists() else "", found)

    def run(self, job: JobPlan, compiled: Compiled, secrets: Mapping[str, str] | None = None, **environment: str) -> Ran:
        """Lays out and runs to the end."""
        run_dir = self.lay_out(job, compiled, secrets or {})
        return self.ended(run_dir, self.start(run_dir, **environment))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def job_of(bench: Bench, recipe: Recipe, *words: str, **fields: Any) -> JobPlan:
    return replace(planned(slurm(**fields), recipe, *words), job_dir=str(bench.folder / "jobs"))


def with_arguments(job: JobPlan, arguments: list[str]) -> dict[str, object]:
    """The job with arguments that no recipe or comment could carry (line breaks), to see what the rendering alone does."""
    return {**job.for_compiler(), "args": arguments}


# --------------------------------------------------------------------------- arguments

LEPTON = LeptonProfile.model_validate(
    {
        "container_image": "x",
        "resource_shape": "gpu.8xh100-80gb",
        "node_group": "h100",
        "nemo_run_dir": "/mnt/nemo",
        "mounts": [{"path": "/team", "mount_path": "/mnt", "from": "node-nfs:shared"}],
    }
)

HOSTILE = [
    "",
    " ",
    "two words",
    "it's",
    '"double"',
    "'",
    "a'b\"c",
    "$(touch pwned)",
    "`touch pwned`",
    "$HOME",
    "$$",
    "$$$",
    "$",
    "a$",
    "${num_nodes_var}",
    "$num_nodes_var",
    "$$num_nodes_var",
    "${img_root}/${app_id}/${replica_id}",
    "${head_node_ip_var}",
    "${",
    "a;touch pwned",
    "a && touch pwned | cat > pwned &",
    "> pwned",
    "#comment",
    "\\",
    "a\\",
    "\\n",
    "*",
    "?[a-z]~",
    "{a,b}",
    "{{ 7 * 7 }} {% raw %} {# x #}",
    "%j %A %%",
    "!x",
    "-x",
    "--help",
    "--",
    "--nproc-per-node=9",
    "-m",
    "key=a b",
    "tab\there",
    "ünïcödé 🚀",
    "\u2028",
    "x" * 512,
]
LINE_BREAKS = ["two\nlines", "\n", "a\n#SBATCH --account=evil\nb", "\r\n"]

PROGRAMS = {
    "script": Recipe(script="train.py"),
    "module": Recipe(module="pkg.train"),
    "entrypoint": Recipe(script="train.sh", entrypoint="bash"),
    "inline": Recipe(inline="echo here\n"),
    "inline python": Recipe(inline="print('here')\n", entrypoint="python"),
}


def started_as(recipe: Recipe, folder: str) -> list[str]:
    """What stands before the program's arguments, after the launcher's own options. `folder` is the run's, as the job sees it."""
    script = recipe.script or f"{folder}/scripts/inline"
    words = [recipe.interpreter, "-m", recipe.module] if recipe.module else [recipe.interpreter, script]
    if recipe.launcher == "slurm_ray":
        return ["sh", f"{folder}/scripts/ray.sh", "0", "0", "600", *words]
    if recipe.launcher == "none":
        return words
    return words[1:] if recipe.interpreter == "python" else ["--no-python", *words]


LAUNCHED_BY = {"torchrun": "torchrun", "ft": "ft_launcher"}


@pytest.mark.parametrize("container", [None, "nvcr.io#nvidia/nemo:25.04"], ids=["bare", "container"])
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_argument_arrives_as_it_was_given(
    compiler: CompilerProcess, bench: Bench, launcher: LauncherName, program: str, container: str | None
) -> None:
    recipe = PROGRAMS[program].model_copy(update={"launcher": launcher})
    job = job_of(bench, recipe, nodes=2, gpus_per_node=4, container_image=container)
    arguments = HOSTILE + LINE_BREAKS
    compiled = compiler.compile(with_arguments(job, arguments))
    ran = bench.run(job, compiled)
    assert ran.status == 0, ran.output
    assert ran.program[-len(arguments) :] == arguments
    before = ran.program[: -len(arguments)]
    expected = started_as(recipe, "/nemo_run" if container else job.run_dir)
    assert before[len(before) - len(expected) :] == expected
    assert before[0] == LAUNCHED_BY.get(launcher, before[0])
    assert launcher in LAUNCHED_BY or before == expected
    sent = {file.path: file.content.decode() for file in compiled.files}
    assert sent.get("scripts/inline") == recipe.inline
    assert ("scripts/ray.sh" in sent) == (launcher == "slurm_ray")
    assert not [name for name in ran.files if "pwned" in name]
    assert ("--container-image" in ran.options) == (container is not None)
    place = ["--container-workdir", "/nemo_run/code"] if container else ["--chdir", f"{job.run_dir}/code"]
    assert "\0".join(place) in "\0".join(ran.options)


def test_overrides_of_a_comment_are_arguments(compiler: CompilerProcess, bench: Bench) -> None:
    job = job_of(bench, Recipe(script="train.py", args=["--config", "a b.yaml"]), "train.iters=200", "name=it's $(x)", "empty=")
    ran = bench.run(job, compiler.compile(job.for_compiler()))
    assert ran.program == ["python", "train.py", "--config", "a b.yaml", "train.iters=200", "name=it's $(x)", "empty="]


@pytest.mark.parametrize("launcher", ["none", "torchrun"])
def test_without_a_container_nemo_runs_folder_is_the_runs(compiler: CompilerProcess, bench: Bench, launcher: str) -> None:
    """The one thing that NeMo-Run changes in arguments, here as there: what is `/nemo_run` in a container is the run's folder outside."""
    job = job_of(bench, Recipe(script="train.py", args=["/nemo_run/code/a", "b=/nemo_run/x y"], launcher=launcher))  # type: ignore[arg-type]
    ran = bench.run(job, compiler.compile(job.for_compiler()))
    assert ran.program[-2:] == [f"{job.run_dir}/code/a", f"b={job.run_dir}/x y"]


@pytest.mark.parametrize("name", ["--help", "-c", "$(touch pwned).py", "a b.py", "${num_nodes_var}.py"])
@pytest.mark.parametrize("launcher", ["none", "torchrun"])
def test_a_scripts_name_is_one_word_too(compiler: CompilerProcess, bench: Bench, launcher: str, name: str) -> None:
    # No recipe can have such a name; the rendering does not depend on that.
    job = job_of(bench, Recipe(script="train.py", launcher=launcher))  # type: ignore[arg-type]
    ran = bench.run(job, compiler.compile({**job.for_compiler(), "script": name, "args": ["x"]}))
    assert ran.program[-2:] == [name, "x"]
    assert not [file for file in ran.files if "pwned" in file]


# --------------------------------------------------------------------------- torchrun


@pytest.mark.parametrize("launcher", ["torchrun", "ft"])
@pytest.mark.parametrize(
    ("fields", "processes", "asked"),
    [
        ({}, 1, {}),
        ({"gpus_per_node": 8}, 8, {"gpus-per-node": "8"}),
        ({"ntasks_per_node": 8, "gpus_per_node": 8}, 8, {"gpus-per-node": "8"}),
        ({"ntasks_per_node": 4, "gpus_per_node": 8}, 4, {"gpus-per-node": "8"}),
        ({"gpus_per_node": 8, "nproc_per_node": 2}, 2, {"gpus-per-node": "8"}),
        ({"ntasks_per_node": 4, "gpus_per_node": 8, "nproc_per_node": 2}, 2, {}),
        ({"nproc_per_node": 3}, 3, {}),
        ({"ntasks_per_node": 2}, 2, {}),
        ({"gres": "gpu:a100:4"}, 4, {"gres": "gpu:a100:4"}),
        ({"array": "0-3", "gpus_per_node": 4}, 4, {"array": "0-3"}),
        # One launcher has what all tasks of its node were to have.
        ({"ntasks_per_node": 8, "gpus_per_task": 1, "cpus_per_task": 4}, 8, {"gpus-per-task": "8", "cpus-per-task": "32"}),
        ({"ntasks_per_node": 2, "gpus_per_task": 2, "gpus_per_node": 4}, 2, {"gpus-per-task": "4", "gpus-per-node": "4"}),
        ({"gpus_per_task": 4, "cpus_per_task": 16}, 4, {"gpus-per-task": "4", "cpus-per-task": "16"}),
    ],
)
def test_processes_on_each_node(
    compiler: CompilerProcess, bench: Bench, fields: dict[str, Any], processes: int, asked: dict[str, str], launcher: LauncherName
) -> None:
    job = job_of(bench, Recipe(script="train.py", launcher=launcher), nodes=2, **fields)
    if launcher == "ft" and "array" in fields:
        with pytest.raises(ConfigError, match="keeps one account"):
            job.for_compiler()
        return
    compiled = compiler.compile(job.for_compiler())
    ran = bench.run(job, compiled)
    told = dict(zip(ran.program, ran.program[1:], strict=False))
    assert (told["--nproc-per-node"], told["--nnodes"]) == (str(processes), "2")
    assert told["--rdzv-endpoint"] == "10.0.0.1:29500"
    # One launcher for each node, or there would be processes times tasks.
    for option, value in {"ntasks-per-node": "1", **asked}.items():
        assert f"#SBATCH --{option}={value}\n" in compiled.script


@pytest.mark.parametrize(("launcher", "node"), [("none", (8, 4)), ("slurm_ray", (1, 32))])
def test_without_torchrun_the_tasks_are_slurms_or_rays(
    compiler: CompilerProcess, bench: Bench, launcher: LauncherName, node: tuple[int, int]
) -> None:
    recipe = Recipe(script="train.py", launcher=launcher)
    script = compiler.compile(job_of(bench, recipe, ntasks_per_node=8, cpus_per_task=4).for_compiler()).script
    assert [int(count) for count in re.findall(r"--(?:cpus-per-task|ntasks-per-node)=(\d+)", script)] == [node[1], node[0]]


def test_the_rendezvous_is_named_by_the_run(compiler: CompilerProcess, bench: Bench) -> None:
    recipe = Recipe(script="train.py", launcher="torchrun")
    one, other = job_of(bench, recipe), replace(job_of(bench, recipe), run_key="f" * 16)
    names = [re.findall(r"--rdzv-id (\d+)", compiler.compile(job.for_compiler()).script) for job in (one, other, one)]
    assert names[0] == names[2] != names[1]


# --------------------------------------------------------------------------- ft


def test_every_option_of_ft_launcher(compiler: CompilerProcess, bench: Bench) -> None:
    """Spelled as its command line has them (nvidia-resiliency-ext 0.4): https://nvidia.github.io/nvidia-resiliency-ext/fault_tolerance/."""
    options = {
        "workload_check_interval": 2.5,
        "initial_rank_heartbeat_timeout": 600,
        "rank_heartbeat_timeout": "90",
        "rank_termination_signal": "SIGTERM",
        "log_level": "DEBUG",
        "max_restarts": 3,
        "rdzv_port": 29400,
    }
    assert set(options) == set(FaultTolerance.model_fields)
    job = job_of(bench, Recipe.model_validate({"script": "train.py", "launcher": "ft", "ft": options}), nodes=2)
    ran = bench.run(job, compiler.compile(job.for_compiler()))
    told = dict(zip(ran.program, ran.program[1:], strict=False))
    assert {name: told[f"--ft-{name}"] for name in list(options)[:5]} == {
        "workload_check_interval": "2.5",
        "initial_rank_heartbeat_timeout": "600",
        "rank_heartbeat_timeout": "90",
        "rank_termination_signal": "SIGTERM",
        "log_level": "DEBUG",
    }
    assert (told["--max-restarts"], told["--rdzv-endpoint"]) == ("3", "10.0.0.1:29400")


@pytest.mark.parametrize("options", [{}, {"max_restarts": 2}])
def test_ft_launcher_always_has_an_option(compiler: CompilerProcess, bench: Bench, options: dict[str, int]) -> None:
    """Without one it refuses to start."""
    job = job_of(bench, Recipe.model_validate({"script": "train.py", "launcher": "ft", "ft": options}))
    program = bench.run(job, compiler.compile(job.for_compiler())).program
    assert program[:3] == ["ft_launcher", "--ft-workload_check_interval", "5"]
    assert "--ignore-missing-fault-tol-cfg" not in program


@pytest.mark.parametrize(
    ("retries", "starts", "ends"),
    [
        # What each start ends with (`f`: it says that it has finished); the job's status, what it leaves in `exit`, `r` if it is put back.
        (0, ["0"], ["0 0"]),
        (0, ["3"], ["3 3"]),
        (1, ["3", "0f"], ["3 143 r", "0 0"]),
        (1, ["3", "4"], ["3 143 r", "4 4"]),
        (2, ["3", "4", "5"], ["3 143 r", "4 143 r", "5 5"]),
        # It ends well and has not finished: on with it, but not for ever.
        (1, ["0", "0"], ["0 143 r", "1 1"]),
        (2, ["0", "0", "0f"], ["0 143 r", "0 143 r", "0 0"]),
        (3, ["0f"], ["0 0"]),
        (3, ["2f"], ["2 2"]),
        # Started again by Slurm itself, after the end.
        (1, ["0f", ""], ["0 0", "0 0"]),
    ],
)
def test_restarts_of_a_fault_tolerant_job(
    compiler: CompilerProcess, bench: Bench, retries: int, starts: list[str], ends: list[str]
) -> None:
    job = job_of(bench, Recipe(script="train.py", launcher="ft"), retries=retries)
    run_dir = bench.lay_out(job, compiler.compile(job.for_compiler()), {})
    # Of a status, an `f` says that the program leaves the file by which it has finished.
    leaves = 'case $SRUN_EXIT in *f) touch "$FAULT_TOL_FINISHED_FLAG_FILE" ;; esac\nexit "${SRUN_EXIT%f}"\n'
    (bench.folder / "bin" / "srun").write_text(SRUN.replace('exit "${SRUN_EXIT:-0}"\n', leaves))
    results, said = run_dir / "code" / "results.json", bench.folder / "record.scontrol"
    results.write_text("{}")
    seen = []
    for number, status in enumerate(starts):
        said.write_text("")
        (bench.folder / "record").unlink(missing_ok=True)
        ran = bench.ended(run_dir, bench.start(run_dir, SRUN_EXIT=status, SLURM_RESTART_COUNT=str(number)))
        seen.append(f"{ran.status} {ran.exit_file.strip()}" + (" r" if "requeue 77" in said.read_text() else ""))
        assert bool(ran.program) == bool(status), "training that has finished is not started again"
        # What the commit brought along is gone; what an earlier start left stays.
        assert results.exists() == (number > 0)
        results.write_text("{}")
    assert seen == ends, ran.output


def test_a_second_fault_tolerant_job_of_the_same_run_goes_away(compiler: CompilerProcess, bench: Bench) -> None:
    job = job_of(bench, Recipe(script="train.py", launcher="ft"), retries=1)
    run_dir = bench.lay_out(job, compiler.compile(job.for_compiler()), {})
    bench.ended(run_dir, bench.start(run_dir))
    ran = bench.ended(run_dir, bench.start(run_dir, SLURM_JOB_ID="78"))
    assert (ran.status, ran.exit_file) == (1, "143\n")
    assert "Another job of this run has started." in ran.output


# --------------------------------------------------------------------------- slurm_ray


def test_ray_has_a_token_that_is_not_printed(compiler: CompilerProcess, bench: Bench) -> None:
    recipe = Recipe.model_validate({"script": "train.py", "launcher": "slurm_ray", "slurm_ray": {"gcs_server_port": 6379}})
    job = job_of(bench, recipe, setup_lines=['echo "${#RAY_AUTH_TOKEN} $RAY_AUTH_MODE"; echo "$RAY_AUTH_TOKEN" >"$RECORD.token"'])
    ran = bench.run(job, compiler.compile(job.for_compiler()))
    assert "\n64 token\n" in ran.output
    assert (bench.folder / "record.token").read_text().strip() not in ran.output
    assert ran.program[2:] == ["6379", "0", "600", "python", "train.py"]
    # The file in which the nodes meet is there before they are.
    assert f"jobs/runs/{job.run_key}/scripts/ray-77-0" in ran.files


@pytest.mark.parametrize(
    ("profile", "launcher", "why"),
    [
        (LOCAL, "slurm_ray", "needs the nodes of a Slurm job"),
        (slurm(het_groups=[{}, {}]), "slurm_ray", "cannot start what the components of `het_groups` run"),
        (slurm(het_groups=[{}, {}]), "ft", "cannot start what the components of `het_groups` run"),
        (slurm(het_groups=[{}, {}]), "torchrun", "cannot start what the components of `het_groups` run"),
        (slurm(array="0-3"), "ft", "keeps one account of a job's restarts"),
        (KubeRayProfile(container_image="x"), "torchrun", "cannot start anything on `executor: kuberay`"),
        (KubeRayProfile(container_image="x"), "slurm_ray", "needs the nodes of a Slurm job"),
        (LEPTON, "ft", "cannot start anything on `executor: lepton`"),
    ],
)
def test_what_a_launcher_cannot_start(profile: Profile, launcher: LauncherName, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        planned(profile, Recipe(script="train.py", launcher=launcher)).for_compiler()
    assert refused.value.code == "config.invalid"
    assert f"the launcher `{launcher}` {why}" in refused.value.cause


# --------------------------------------------------------------------------- inline


def test_an_inline_recipe_is_a_file_as_it_was_written(compiler: CompilerProcess, bench: Bench) -> None:
    text = "echo \"it's $1\" `echo here` > $DISPATCH_RUN_DIR/said; cat <<'X' >>/nemo_run/said\n$HOME \\n {{ 7 }} %j\nX\n"
    for image, seen in ((None, text.replace("/nemo_run", "{}")), ("a.sqsh", text)):
        job = job_of(bench, Recipe(inline=text, args=["a b"]), container_image=image)
        compiled = compiler.compile(job.for_compiler())
        [script] = [file.content.decode() for file in compiled.files if file.path == "scripts/inline"]
        assert script == seen.replace("{}", job.run_dir)
        assert text[:12] not in compiled.script


# --------------------------------------------------------------------------- the whole script


@pytest.mark.parametrize("launcher", ["none", "torchrun"])
@pytest.mark.parametrize("container", [None, "a.sqsh"])
def test_the_same_job_is_the_same_bytes(compiler: CompilerProcess, bench: Bench, launcher: str, container: str | None) -> None:
    job = job_of(bench, Recipe(script="train.py", launcher=launcher), "a=1", container_image=container, retries=1)  # type: ignore[arg-type]
    first = compiler.compile(job.for_compiler())
    assert compiler.compile(job.for_compiler()) == first
    another = CompilerProcess()
    try:
        assert another.compile(job.for_compiler()) == first
    finally:
        another.close()


def test_every_sbatch_option(compiler: CompilerProcess, bench: Bench) -> None:
    job = job_of(
        bench,
        Recipe(script="train.py"),
        account="ml",
        nodes=2,
        ntasks_per_node=4,
        gpus_per_node=8,
        cpus_per_task=3,
        mem="64G",
        qos="high",
        constraint="ib&a100",
        exclude="n[7-9]",
        exclusive=True,
        time="1-12:00:00",
        reservation="maint",
        additional_parameters={"mail_type": "END", "switches": "1@10:00"},
        srun_args=["--mpi=pmix"],
        retries=2,
    )
    compiled = compiler.compile(job.for_compiler())
    for line in [
        "account=ml",
        "partition=batch",
        "nodes=2",
        "ntasks-per-node=4",
        "gpus-per-node=8",
        "cpus-per-task=3",
        "mem=64G",
        "qos=high",
        "exclude=",
        "exclusive",
        "time=1-12:00:00",
        "reservation=maint",
        "mail-type=END",
        "switches=",
        f"comment={job.run_key}",
        f"job-name=dispatch-{job.run_key}",
    ]:
        assert f"\n#SBATCH --{line}" in compiled.script, line
    assert re.search(r"^#SBATCH --constraint=\S*ib&a100", compiled.script, re.MULTILINE)
    ran = bench.run(job, compiled, SRUN_EXIT="3")
    assert "--mpi=pmix" in ran.options
    # Slurm is asked to start a failed job again, as often as the profile says.
    assert "requeue 77" in (bench.folder / "record.scontrol").read_text()


def test_the_log_is_where_the_link_says(compiler: CompilerProcess, bench: Bench) -> None:
    from dispatcher.firstrecord import log_path

    job = job_of(bench, Recipe(script="train.py"))
    ran = bench.run(job, compiler.compile(job.for_compiler()))
    written = ran.options[ran.options.index("--output") + 1].replace("%j", "77")
    assert written == log_path(job.run_dir, job.run_key, "77", "slurm")


@pytest.mark.parametrize(("status", "left"), [("0", "0\n"), ("3", "3\n"), ("143", "143\n")])
def test_the_exit_status_is_left_behind(compiler: CompilerProcess, bench: Bench, status: str, left: str) -> None:
    job = job_of(bench, Recipe(script="train.py"))
    ran = bench.run(job, compiler.compile(job.for_compiler()), SRUN_EXIT=status, exitcode="0")
    assert (ran.status, ran.exit_file) == (int(status), left)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL])
def test_a_job_that_is_ended_by_a_signal_leaves_no_success(compiler: CompilerProcess, bench: Bench, number: signal.Signals) -> None:
    # scancel, the time limit and preemption: bash's own `$?` is 0 then.
    job = job_of(bench, Recipe(script="train.py"))
    run_dir = bench.lay_out(job, compiler.compile(job.for_compiler()), {})
    process = bench.start(run_dir, HANG="3", exitcode="0")
    deadline = time.monotonic() + 20
    while not (bench.folder / "record.hangs").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    assert bench.ended(run_dir, process).exit_file != "0\n"


def test_a_setup_line_that_ends_the_script_is_no_success(compiler: CompilerProcess, bench: Bench) -> None:
    job = job_of(bench, Recipe(script="train.py"), setup_lines=["exit 0"])
    ran = bench.run(job, compiler.compile(job.for_compiler()))
    assert (ran.program, ran.exit_file) == ([], "143\n")


def test_the_tasks_of_an_array_share_a_run(compiler: CompilerProcess, bench: Bench) -> None:
    """Each leaves a status; together they pass only if all do; another array's tasks go away; results of the commit go once."""
    job = job_of(bench, Recipe(script="train.py"), array="0-2")
    run_dir = bench.lay_out(job, compiler.compile(job.for_compiler()), {})
    results = run_dir / "code" / "results.json"
    results.write_text("{}")

    def task(number: int, status: str, array: str = "70") -> Ran:
        ids = {"SLURM_JOB_ID": str(71 + number), "SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": str(number)}
        return bench.ended(run_dir, bench.start(run_dir, SRUN_EXIT=status, SLURM_ARRAY_TASK_COUNT="3", **ids))

    ran = task(0, "0")
    assert ran.options[ran.options.index("--output") + 1].endswith(f"/logs/log-dispatch-{job.run_key}_%A_%a_0.out")
    assert not results.exists()
    results.write_text("{}")
    assert (task(1, "3").exit_file, results.exists()) == ("", True)
    assert task(2, "0").exit_file == "3\n"
    assert task(1, "0").exit_file == "0\n", "started again, it passes"
    assert "Another job of this run has started" in task(0, "0", array="80").output
    assert sorted(path.name for path in run_dir.glob("*exit*")) == ["exit", "exit.0", "exit.1", "exit.2"]


def test_setup_lines_run_before_the_program_and_see_its_environment(compiler: CompilerProcess, bench: Bench) -> None:
    lines = ['echo "setup $DISPATCH_RUN_KEY"', "export FROM_SETUP=1"]
    job = job_of(bench, Recipe(script="train.py"), setup_lines=lines, startup_commands='echo "later $FROM_SETUP"')
    output = bench.run(job, compiler.compile(job.for_compiler())).output
    assert f"\nsetup {job.run_key}\nlater 1\n" in output


def test_results_of_the_commit_and_of_an_earlier_start_are_removed(compiler: CompilerProcess, bench: Bench) -> None:
    job = job_of(bench, Recipe(script="train.py", results="out/m.json"))
    run_dir = bench.lay_out(job, compiler.compile(job.for_compiler()), {})
    (run_dir / "code" / "out").mkdir()
    (run_dir / "code" / "out" / "m.json").write_text('{"forged": 1}')
    (run_dir / "exit").write_text("0\n")
    ran = bench.ended(run_dir, bench.start(run_dir, SRUN_EXIT="5"))
    assert not (run_dir / "code" / "out" / "m.json").exists()
    assert ran.exit_file == "5\n"


# --------------------------------------------------------------------------- secrets

SECRETS = {"WANDB_API_KEY": "wandb-secret-value", "GITHUB_TOKEN": "github-secret-value", "DISPATCH_SSH_KEY": "ssh-secret-value"}


def test_secrets_of_our_own_environment_go_nowhere(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    process = CompilerProcess()
    try:
        job = job_of(bench, Recipe(script="train.py"))
        compiled = process.compile(job.for_compiler())
        child = process._process
        assert child is not None
        seen = Path(f"/proc/{child.pid}/environ").read_bytes()
    finally:
        process.close()
    everything = compiled.script + b"".join(file.content for file in compiled.files).decode() + seen.decode("utf-8", "replace")
    assert "secret-value" not in everything
    assert all(name not in everything for name in SECRETS)


def test_secrets_reach_the_job_and_not_its_output(compiler: CompilerProcess, bench: Bench) -> None:
    # The template runs under `set -evx`, which prints every line and every expansion.
    job = job_of(bench, Recipe(script="train.py"), setup_lines=['test "$WANDB_API_KEY" = wandb-secret-value && echo it is there'])
    ran = bench.run(job, compiler.compile(job.for_compiler()), SECRETS)
    assert "\nit is there\n" in ran.output
    # The setup line itself names the value; nothing but it may.
    assert "secret-value" not in ran.output


# --------------------------------------------------------------------------- heterogeneous jobs


@pytest.mark.parametrize(
    ("monitored", "statuses", "status"), [(True, "0 0", 0), (True, "0 3", 3), (True, "3 0", 3), (False, "0 3", 3), (False, "3 0", 3)]
)
def test_every_part_of_a_heterogeneous_job_counts(
    compiler: CompilerProcess, bench: Bench, monitored: bool, statuses: str, status: int
) -> None:
    """As NeMo-Run ends it, the first to end well would kill the rest and pass; without monitoring, all would pass always."""
    waits = {"monitor_group_job": monitored, "monitor_group_job_wait_time": 0, "wait_time_for_group_job": 0}
    job = job_of(bench, Recipe(script="train.py"), het_groups=[{}, {"nodes": 2, "env_vars": {"B": "it's $(x)"}}], **waits)
    run_dir = bench.lay_out(job, compiler.compile(job.for_compiler()), {})
    own = '#!/bin/sh\n[ "$1" != --nodes=1 ] || exit 0\nsleep "0.$DISPATCH_GROUP"\necho "$DISPATCH_GROUP $B" >>"$RECORD.groups"\n'
    (bench.folder / "bin" / "srun").write_text(f"{own}set -- {statuses}\nshift $DISPATCH_GROUP\nexit $1\n")
    ran = bench.ended(run_dir, bench.start(run_dir))
    assert (ran.status, ran.exit_file) == (status, f"{status}\n")
    told = (bench.folder / "record.groups").read_text()
    assert "0 \n" in told
    assert "1 it's $(x)\n" in told or (monitored and statuses == "3 0")


# --------------------------------------------------------------------------- on this machine

SHOW = "import json, sys\njson.dump(sys.argv[1:], open('argv.json', 'w'))\nsys.exit(int(len(sys.argv) < 3))\n"
TORCHRUN = """\
#!/bin/sh
printf '%s\\0' "$@" >options
while [ "${1##*/}" != show.py ] && [ "${1##*/}" != inline ]; do shift; done
exec python3 "$@"
"""


@pytest.mark.parametrize(
    ("recipe", "arguments", "status"),
    [
        (Recipe(script="show.py"), HOSTILE, 0),
        (Recipe(module="show", args=["x"]), [], 1),
        (Recipe(script="show.py", launcher="torchrun", nproc_per_node=2), HOSTILE, 0),
        (Recipe(script="show.py", launcher="torchrun", entrypoint="python3"), HOSTILE, 0),
        (Recipe(script="show.py", launcher="ft", nproc_per_node=2, ft=FaultTolerance(max_restarts=2)), HOSTILE, 0),
        (Recipe(inline=SHOW, entrypoint="python"), HOSTILE, 0),
        (Recipe(inline=SHOW, entrypoint="python", launcher="torchrun"), HOSTILE, 0),
        (Recipe(inline='echo "here: $*"\nexec python show.py "$@"\n'), HOSTILE, 0),
    ],
    ids=["script", "module that fails", "torchrun", "torchrun with an entry point", "ft", "inline", "inline torchrun", "inline bash"],
)
def test_a_local_run_gets_the_same_arguments(bench: Bench, recipe: Recipe, arguments: list[str], status: int) -> None:
    job = replace(planned(LOCAL, recipe), job_dir=str(bench.folder / "jobs"))
    code, programs = Path(job.run_dir) / "code", bench.folder / "bin"
    for folder in (code, programs):
        folder.mkdir(parents=True)
    (code / "show.py").write_text(SHOW)
    for launcher in ("torchrun", "ft_launcher"):
        (programs / launcher).write_text(TORCHRUN)
        (programs / launcher).chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    for file in job.local_job().files:
        (Path(job.run_dir) / file.path).parent.mkdir(exist_ok=True)
        (Path(job.run_dir) / file.path).write_bytes(file.content)
    described = bench.folder / "job.json"
    described.write_text(json.dumps({**job.for_compiler(), "args": [*recipe.args, *arguments]}))
    program = Path(nemorun.__file__)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(bench.folder), "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-I", str(program), "run", str(described)]
    done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert json.loads((code / "argv.json").read_text()) == [*recipe.args, *arguments]
    if recipe.launcher != "none":
        options = (code / "options").read_text().split("\0")
        assert options[options.index("--nproc-per-node") + 1] == str(recipe.nproc_per_node or 1)
        script = recipe.script or f"{job.run_dir}/scripts/inline"
        assert options[options.index(script) - 1] == ("3" if recipe.entrypoint == "python" else recipe.entrypoint)
    if recipe.launcher == "ft":
        assert options[:4] == ["--ft-workload_check_interval", "5", "--max-restarts", "2"]


# --------------------------------------------------------------------------- when it cannot


def test_each_job_gets_its_own_script_whatever_was_begun_before(compiler: CompilerProcess, bench: Bench) -> None:
    """A run that turns out to have its job is begun and never asked for; the script of the next one is not that one's."""
    jobs = [replace(job_of(bench, Recipe(script="train.py")), run_key=f"{number:016x}").for_compiler() for number in range(3)]
    for job in jobs[:2]:
        compiler.begin(job)
    for job in (jobs[1], jobs[2], jobs[0]):
        assert f"--job-name=dispatch-{job['run_key']}" in compiler.compile(job).script


def test_a_job_that_nemo_run_refuses(compiler: CompilerProcess, bench: Bench) -> None:
    job = job_of(bench, Recipe(script="train.py"))
    broken = {**job.for_compiler(), "executor": {"account": "ml", "nonsense": 1}}
    with pytest.raises(CompileError) as refused:
        compiler.compile(broken)
    assert refused.value.code == "compile.failed"
    assert "nonsense" in refused.value.cause
    # And it goes on.
    assert compiler.compile(job.for_compiler()).script


def test_a_python_without_nemo_run(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'nemo_run'\" >&2\nexit 1\n")
    python.chmod(0o755)
    process = CompilerProcess(str(python))
    try:
        with pytest.raises(CompileError, match="No module named 'nemo_run'") as refused:
            process.compile({"run_key": "x"})
    finally:
        process.close()
    assert refused.value.code == "compile.no-nemo-run"


def test_nothing_is_left_behind(bench: Bench) -> None:
    process = CompilerProcess()
    process.compile(job_of(bench, Recipe(script="train.py")).for_compiler())
    child, home = process._process, process._home
    assert child is not None
    assert home is not None
    process.close()
    assert child.returncode is not None
    assert not Path(home.name).exists()
