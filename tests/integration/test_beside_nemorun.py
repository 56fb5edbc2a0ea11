"""What plain NeMo-Run renders for a user's own Python, beside ours for the same profile: each difference has a reason in decision 10.

`tests/data/nemo-run/*.py` are written as NeMo-Run's guides show it, and run as they are, all in one process. `OURS` is what a team that
comes from there has here. Nothing is made alike but the run's own folder; everything else that differs is rewritten by one of the
`REASONS`, and what comes out has to be our script to the letter. `pytest -s` prints the differences, reason by reason.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dispatcher.effects.compiler import CompilerProcess
from dispatcher.executor import Common
from dispatcher.importing import imported
from dispatcher.jobplan import JobPlan
from dispatcher.profile import ResolvedProfile, resolve_profile
from dispatcher.recipe import Recipe
from dispatcher.slurmprofile import SlurmProfile
from tests.unit.test_plan import planned

EXAMPLES = Path(__file__).parents[1] / "data" / "nemo-run"
DECISION = Path(__file__).parents[2] / "docs" / "decisions" / "0010-nemo-run-compiles-only.md"

# Runs each text as its user would, and asks NeMo-Run for the script: {name: [the run's folder, the script]}.
STOCK = """
import json, os, sys, tempfile
os.environ["NEMORUN_HOME"] = sys.argv[1]
from pathlib import Path
import nemo_run as run
scripts = {}
for path in sys.argv[2:]:
    given = {}
    exec(compile(Path(path).read_text(), path, "exec"), given)
    with run.Experiment("title", base_dir=tempfile.mkdtemp(dir=sys.argv[1]), skip_status_at_exit=True, enable_goodbye_message=False) as exp:
        exp.add(given["script"], executor=given["executor"], name="task")
        exp.dryrun(log=False, delete_exp_dir=False)
        scripts[Path(path).stem] = [f"/jobs/title/{exp._id}/task", (Path(exp._exp_dir) / "task_sbatch.sh").read_text()]
(Path(sys.argv[1]) / "scripts.json").write_text(json.dumps(scripts))
"""


@dataclass(frozen=True)
class Ours:
    """The same job, as it is written here."""

    profile: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=lambda: {"script": "train.py"})

    def planned(self) -> JobPlan:
        profile = SlurmProfile.model_validate({"account": "ml", "job_dir": "/jobs", "tunnel": "local", "time": "00:10:00", **self.profile})
        return planned(profile, Recipe.model_validate(self.recipe))


OURS: dict[str, Ours] = {
    "plain": Ours(),
    "container": Ours(
        {
            "partition": "batch",
            "nodes": 2,
            "ntasks_per_node": 8,
            "gpus_per_node": 8,
            "time": "04:00:00",
            "container_image": "nvcr.io/nvidia/nemo:25.04",
            "mounts": ["/lustre:/lustre", "/data:/data:ro"],
            "container_env": ["NCCL_DEBUG"],
            "env_vars": {"NCCL_DEBUG": "INFO", "HYDRA_FULL_ERROR": "1"},
        },
        {"script": "train.py", "args": ["--epochs", "3"]},
    ),
    "torchrun": Ours(
        {"partition": "batch", "nodes": 2, "ntasks_per_node": 8, "gpus_per_node": 8},
        {"script": "train.py", "launcher": "torchrun", "args": ["--name", "two words"]},
    ),
    "torchrun_module": Ours(
        {"nodes": 2, "gpus_per_node": 4},
        {"module": "pkg.train", "launcher": "torchrun", "args": ["--lr", "3e-4"]},
    ),
    "torchrun_entrypoint": Ours(
        {"ntasks_per_node": 2, "container_image": "/lustre/images/nemo.sqsh"},
        {"script": "train.sh", "entrypoint": "bash", "launcher": "torchrun"},
    ),
    "array": Ours({"partition": "batch", "gpus_per_node": 1, "array": "0-7%2", "time": "00:30:00"}, {"script": "sweep.py"}),
    "het_group": Ours(
        {
            "partition": "batch",
            "time": "02:00:00",
            "monitor_group_job_wait_time": 7,
            "het_groups": [
                {"nodes": 1, "gpus_per_node": 8},
                {"nodes": 3, "ntasks_per_node": 2, "env_vars": {"ROLE": "client"}, "args": ["--client"]},
            ],
        },
        {"script": "serve.py", "args": ["--port", "8000"]},
    ),
    "het_group_unwatched": Ours(
        {"monitor_group_job": False, "wait_time_for_group_job": 5, "het_groups": [{}, {"nodes": 2}]}, {"script": "serve.py"}
    ),
    "scheduling": Ours(
        {
            "partition": "batch,backfill",
            "nodes": 2,
            "qos": "high",
            "mem": "64G",
            "constraint": "ib&a100",
            "exclude": "n[7-9]",
            "segment": 2,
            "network": "instances=2,user_space",
            "signal": "B:USR1@60",
            "open_mode": "truncate",
            "time": "1-12:00:00",
        }
    ),
    "retries": Ours({"retries": 3, "gpus_per_node": 2, "mem_per_gpu": "32G"}),
    "dependencies": Ours({"dependencies": ["12", "34"], "dependency_type": "afterany", "mem_per_cpu": "4G"}),
    "environment": Ours(
        {
            "env_vars": {"TOKENIZERS_PARALLELISM": "false", "NCCL_IB_HCA": "mlx5_0,mlx5_1"},
            "setup_lines": ["module load cuda", "ulimit -n 65536"],
        }
    ),
    "additional_parameters": Ours(
        {
            "reservation": "maint",
            "additional_parameters": {"mail_type": "END", "contiguous": True},
            "srun_args": ["--mpi=pmix", "--container-writable"],
        }
    ),
    "gpus": Ours(
        {
            "nodes": 2,
            "ntasks_per_node": 4,
            "gpus_per_node": 4,
            "gpus_per_task": 1,
            "cpus_per_task": 12,
            "cpus_per_gpu": 12,
            "gres": "nvme:1",
            "exclusive": True,
            "memory_measure": True,
        }
    ),
    "arguments": Ours(recipe={"script": "train.py", "args": ["name=two words", "cost=5$$", "out=*.pt"]}),
    "entrypoint": Ours(recipe={"script": "train.sh", "entrypoint": "bash", "args": ["--fast"]}),
    "torchrun_whole_node": Ours(
        {"nodes": 2, "ntasks_per_node": 8, "gpus_per_task": 1, "cpus_per_task": 4}, {"script": "train.py", "launcher": "torchrun"}
    ),
    "ft": Ours(
        {"nodes": 2, "ntasks_per_node": 8, "gpus_per_node": 8, "retries": 2},
        {
            "script": "train.py",
            "args": ["--epochs", "3"],
            "launcher": "ft",
            "ft": {"rank_heartbeat_timeout": 300, "max_restarts": 3},
        },
    ),
    "ft_defaults": Ours({"gpus_per_node": 4, "container_image": "/lustre/images/nemo.sqsh"}, {"module": "pkg.train", "launcher": "ft"}),
    "inline": Ours({"container_image": "/lustre/images/nemo.sqsh"}, {"inline": 'nvidia-smi\necho "it is $HOSTNAME"\n'}),
    "slurm_ray": Ours(
        {"nodes": 2, "gpus_per_node": 8, "cpus_per_task": 16}, {"script": "tune.py", "args": ["--trials", "8"], "launcher": "slurm_ray"}
    ),
}


def profile_of(name: str) -> SlurmProfile:
    profile = OURS[name].planned().profile
    assert isinstance(profile, SlurmProfile)
    return profile


# What a component of a heterogeneous job gets beside others is an argument of its program, which is no matter of the executor; and
# `reservation` is a field of ours.
SAID_OTHERWISE: dict[str, dict[str, Any]] = {
    "het_group": {"het_groups": [{"nodes": 1, "gpus_per_node": 8}, {"nodes": 3, "ntasks_per_node": 2, "env_vars": {"ROLE": "client"}}]},
    "additional_parameters": {
        "reservation": None,
        "additional_parameters": {"mail_type": "END", "reservation": "maint", "contiguous": True},
    },
}


@pytest.mark.parametrize("name", OURS)
def test_the_executor_can_be_imported(name: str) -> None:
    """`profile import` makes of each file the very profile that its script is compared with."""
    [one] = imported((EXAMPLES / f"{name}.py").read_text(), f"{name}.py", only="executor")
    resolved = resolve_profile(one.name, {one.path: one.text}, (), {})
    assert isinstance(resolved, ResolvedProfile)
    expected = profile_of(name).model_dump(exclude={"nproc_per_node"}) | SAID_OTHERWISE.get(name, {})
    assert resolved.profile.model_dump(exclude={"nproc_per_node"}) == SlurmProfile.model_validate(expected).model_dump(
        exclude={"nproc_per_node"}
    )


# --------------------------------------------------------------------------- the reasons


@dataclass(frozen=True)
class Case:
    """One job and its two scripts."""

    job: JobPlan
    profile: SlurmProfile
    folder: str
    theirs: str
    ours: str


def with_option(text: str, line: str) -> str:
    """An option among the others, which NeMo-Run sorts by name; once for each component of a job group."""

    def placed(block: re.Match[str]) -> str:
        lines = block[0].splitlines()
        at = next((number for number, other in enumerate(lines) if other > line), len(lines))
        return "\n".join([*lines[:at], line, *lines[at:]]) + "\n"

    return re.sub(r"(?:^#SBATCH --.*\n)+", placed, text, flags=re.MULTILINE)


# Where the setup begins: after the address of the head node, those of the components, and exported variables.
SETUP = re.compile(r"^head_node_ip=.*\n(?:(?:\n*het_group_host_\d+=.*)+\n)?(?:\nexport .*)*", re.MULTILINE)
HERE = "\0"


def with_line(text: str, line: str) -> str:
    """A line at the beginning of the setup, after those that were put there before."""
    text = text if HERE in text else SETUP.sub(lambda found: found[0] + HERE, text)
    return text.replace(HERE, f"\n{line}{HERE}")


def own_line(case: Case, beginning: str) -> str:
    """The line of our script that begins so; behaviour that needs more than one look is shown in `test_compile.py`."""
    [line] = [line for line in case.ours.splitlines() if line.startswith(beginning)]
    return line


def one_word_each(text: str, case: Case) -> str:
    given = case.job.arguments
    if case.job.recipe.launcher != "none" or not given:
        return text
    return text.replace(" ".join(given), shlex.join(given))


def from_a_file(text: str, case: Case) -> str:
    for name, value in case.profile.env_vars.items():
        text = text.replace(f"\nexport {name}={value}", "", 1)
    return with_line(text, f". {case.job.run_dir}/env")


def of_the_gpus(text: str, case: Case) -> str:
    return text.replace("--nproc-per-node 1 ", f"--nproc-per-node {case.job.processes_per_node} ")


def numbered(text: str, case: Case) -> str:
    if not case.profile.het_groups:
        return text
    for number in range(len(case.profile.het_groups)):
        text = text.replace(f"\n\nsrun --het-group={number} ", f"\nexport DISPATCH_GROUP={number}\n\n\nsrun --het-group={number} ")
    # The whole script has the first component's variables.
    return with_line(text, "export DISPATCH_GROUP=0")


def awaited(text: str, case: Case) -> str:
    own = re.search(r"first_failed=0\n.*exitcode=\$first_failed\n", case.ours, re.DOTALL)
    end = re.compile(r"# The code below monitors all SLURM jobs.*?\ndone\n|wait\n\nexitcode=\$\?\n", re.DOTALL)
    return end.sub(lambda _: own[0], text) if own else text


def of_the_whole_node(text: str, case: Case) -> str:
    if case.job.recipe.launcher == "none":
        return text
    for option in ("cpus-per-task", "gpus-per-task"):
        text = re.sub(rf"(#SBATCH --{option}=)(\d+)", lambda found: f"{found[1]}{int(found[2]) * case.profile.ntasks_per_node}", text)
    return text


def restarted(text: str, case: Case) -> str:
    if case.job.recipe.launcher != "ft":
        return text
    retries = case.profile.retries
    text = text.replace(f"TORCHX_MAX_RETRIES={retries}\n", f"TORCHX_MAX_RETRIES={retries + 1}\n")
    own = re.search(r"\nrestarts=.*", case.ours, re.DOTALL)
    assert own
    return re.sub(r"\nif ! \(is_training_finished.*", lambda _: own[0], text, flags=re.DOTALL)


def on_every_node(text: str, case: Case) -> str:
    if case.job.recipe.launcher != "slurm_ray":
        return text
    for line in (": > ", "export RAY_AUTH_MODE="):
        text = with_line(text, own_line(case, line))
    words = shlex.join(["python", str(case.job.recipe.script), *case.job.arguments])
    return text.replace(f"bash {case.job.run_dir}/scripts/task.sh", f"sh {case.job.run_dir}/scripts/ray.sh 0 0 600 {words}")


# What each row of the decision's table does to NeMo-Run's own script, in this order.
REASONS: dict[str, Callable[[str, Case], str]] = {
    "folder": lambda text, case: text.replace(case.folder, case.job.run_dir),
    "name": lambda text, case: with_option(
        re.sub(r"/task_(?=ft_cfg|finished_flag|job_results)", f"/{case.job.run_key}_", text).replace(
            "ml-ml.task", f"dispatch-{case.job.run_key}"
        ),
        f"#SBATCH --comment={case.job.run_key}",
    ),
    "logs": lambda text, case: re.sub(rf"{case.job.run_dir}/(log-|sbatch_)", rf"{case.job.run_dir}/logs/\1", text),
    "array-logs": lambda text, case: re.sub(r"(/log-\S+)_%j_", r"\1_%A_%a_", text) if case.profile.array else text,
    "requeue": lambda text, case: with_option(text, "#SBATCH --requeue"),
    "dollar": lambda text, case: text.replace(" cost=5$ ", " cost=5$$ ") if "cost=5$$" in case.job.arguments else text,
    "arguments": one_word_each,
    "group-number": numbered,
    "tracing": lambda text, case: with_line(text, "{ set +vx; } 2>/dev/null"),
    "one-job": lambda text, case: with_line(text, own_line(case, "ln -s ")),
    "exit": lambda text, case: with_line(with_line(text, own_line(case, "unset exitcode")), own_line(case, "trap 'ended=$?;")),
    "results": lambda text, case: with_line(text, own_line(case, "rm -f ")),
    "environment": from_a_file,
    "rendezvous": lambda text, case: re.sub(r"--rdzv-id \d+", f"--rdzv-id {int(case.job.run_key[:7], 16)}", text),
    "processes": of_the_gpus,
    "node-share": of_the_whole_node,
    "ft-option": lambda text, case: text.replace("--ignore-missing-fault-tol-cfg", "--ft-workload_check_interval 5").replace(
        "ft_launcher --ft-rank", "ft_launcher --ft-workload_check_interval 5 --ft-rank"
    ),
    "ft-restarts": restarted,
    "ray": on_every_node,
    "inline": lambda text, case: text.replace("/scripts/task.sh", "/scripts/inline"),
    "entry-point": lambda text, case: re.sub(r"--no-python (?=train\.sh)", f"--no-python {case.job.recipe.entrypoint} ", text),
    "group-gpus": lambda text, case: text.replace("--gpus-per-node=None", "--gpus-per-node=0"),
    "group-end": awaited,
}
# Nothing of it is in the script.
NOT_IN_THE_SCRIPT = {"package"}


def steps(case: Case) -> Iterator[tuple[str, str, str]]:
    """Each reason, and the script before and after it."""
    text = case.theirs
    for reason, rewrite in REASONS.items():
        after = rewrite(text, case)
        yield reason, text, after
        text = after


def shown(before: str, after: str) -> list[str]:
    """The lines that differ, for people."""
    lines = difflib.ndiff(before.replace(HERE, "").splitlines(), after.replace(HERE, "").splitlines())
    return [line for line in lines if line[0] in "-+"]


# --------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("stock")
    command = [sys.executable, "-c", STOCK, str(folder), *(str(EXAMPLES / f"{name}.py") for name in OURS)]
    compiler = CompilerProcess()
    compiler.start()
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        made: dict[str, Case] = {}
        for name, (place, script) in json.loads((folder / "scripts.json").read_text()).items():
            job = OURS[name].planned()
            assert isinstance(job.profile, SlurmProfile)
            made[name] = Case(job, job.profile, place, script, compiler.compile(job.for_compiler()).script)
        return made
    finally:
        compiler.close()


@pytest.mark.parametrize("name", OURS)
def test_every_difference_has_its_reason(name: str, cases: dict[str, Case]) -> None:
    case = cases[name]
    print(f"\n{name}: {len(shown(case.theirs, case.ours))} lines differ")
    rewritten = case.theirs
    for reason, before, rewritten in steps(case):
        if before != rewritten:
            print("\n".join([f"  {reason}", *(f"    {line}" for line in shown(before, rewritten))]))
    if rewritten.replace(HERE, "") != case.ours:
        pytest.fail("No reason explains:\n" + "\n".join(shown(rewritten, case.ours)), pytrace=False)


def test_every_reason_is_in_the_decision_and_the_other_way_round() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", DECISION.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted([*REASONS, *NOT_IN_THE_SCRIPT])


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_shown_by_a_case(reason: str, cases: dict[str, Case]) -> None:
    assert [name for name, case in cases.items() for tried, before, after in steps(case) if tried == reason and shown(before, after)]


def test_every_example_is_compared() -> None:
    assert sorted(OURS) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


# What says how to get there or what runs; `lustre_mount` is a mount; the two partitions take the place of `partition`.
NOT_RENDERED = {"executor", "run_partition", "batch_partition", "lustre_mount"}
NOT_RENDERED |= {"tunnel", "host", "port", "user", "known_hosts", "jump", "attach"}
# NeMo-Run has nothing like it: another file takes the image's place, and one line of the script brings it (decision 21).
NOT_RENDERED |= {"squash"}


def test_every_field_that_reaches_the_script_is_in_a_case() -> None:
    given = {name for ours in OURS.values() for name in ours.profile} | {"account", "setup_lines", "env_vars", "time"}
    assert set(SlurmProfile.model_fields) - NOT_RENDERED - (set(Common.model_fields) - {"time"}) - given == set()
