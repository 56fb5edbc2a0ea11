"""Launchers on a real Slurm: what `ft` starts again is one job with one end; Ray over two nodes; recipes without a file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from dispatcher.effects.compiler import CompilerProcess
from dispatcher.firstrecord import first_record
from dispatcher.jobplan import JobPlan
from dispatcher.ports import Claimed, Submission, Submitted
from dispatcher.recipe import Recipe
from dispatcher.slurm import State
from tests.fakes import NOON
from tests.integration.clusters import claim_request, submission
from tests.integration.test_ray_nodes import RAY
from tests.integration.test_slurm_jobs import Bench
from tests.integration.test_submit_slurm import connect
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd

# Of this file alone: the cluster is that of all tests.
KEY = "1a0c4e50f0de0001"

# Stands in for NVIDIA's ft_launcher, which needs torch: leaves what it was given, and starts the program once.
FT_LAUNCHER = """\
#!/bin/sh
printf '%s\\n' "$@" >"$DISPATCH_RUN_DIR/seen.$SLURMD_NODENAME.${SLURM_RESTART_COUNT:-0}"
while [ "$1" != --no-python ]; do shift; done
shift
exec "$@"
"""

# The first start fails on both nodes; the second one finds what the first one left, and says that it has finished.
TRAIN = """\
import json, os, pathlib, sys
step = pathlib.Path("checkpoint." + os.environ["SLURMD_NODENAME"])
results = pathlib.Path(os.environ["DISPATCH_RESULTS"])
words = f"start {os.environ.get('SLURM_RESTART_COUNT', '0')} {step.exists()} {sys.argv[1:]}"
os.write(1, f"{words}\\n".encode())  # at once: print may write in pieces, and the other node between them
if not step.exists():
    step.touch()
    results.write_text(json.dumps({"started": 1}))
    sys.exit(3)
pathlib.Path(os.environ["FAULT_TOL_FINISHED_FLAG_FILE"]).touch()
assert results.exists(), "results of an earlier start stay"
"""

COMPUTE = """\
import json, os, subprocess
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(log_to_driver=False)
GUESS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}

@ray.remote(num_cpus=1)
def square(number):
    return number * number, os.environ["SLURMD_NODENAME"], os.environ["SECRET"]

nodes = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes()]
found = ray.get([square.options(scheduling_strategy=nodes[number % len(nodes)]).remote(number) for number in range(8)])
assert {secret for _, _, secret in found} == {"s3cret"}
answer = {name: sum(node["Resources"].get(name, 0) for node in ray.nodes()) for name in ("CPU", "GPU")}
answer |= {"sum": sum(square for square, _, _ in found), "nodes": len({node for _, node, _ in found})}
stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
answer["strangers"] = sum(subprocess.run(["ray", "status"], env=env).returncode == 0 for env in (stranger, {**stranger, **GUESS}))
json.dump(answer, open(os.environ["DISPATCH_RESULTS"], "w"))
"""


@pytest.fixture(scope="module")
def compiler() -> Iterator[CompilerProcess]:
    process = CompilerProcess()
    yield process
    process.close()


@pytest.fixture
def bench(cluster_sshd: Sshd, slurm: SlurmRig, compiler: CompilerProcess, tmp_path: Path) -> Iterator[Bench]:
    cluster = connect(cluster_sshd, tmp_path / "jobs")
    made = Bench(cluster, compiler, slurm, tmp_path / "jobs", key=KEY)
    yield made
    if made.record is not None and not made.record.state.ended:
        cluster.cancel(made.key)
    cluster.close()


def submitted(bench: Bench, recipe: Recipe, secrets: dict[str, str] | None = None, **fields: object) -> JobPlan:
    """The recipe as it is, on two nodes."""
    bench.recipe = recipe
    job = bench.plan(nodes=2, **fields)
    bench.record = first_record(job, NOON, "rig", None, None, at_terminal=True)
    answer = bench.cluster.claim(claim_request(KEY))
    assert isinstance(answer, Claimed)
    made, compiled = submission(answer, KEY), bench.compiler.compile(job.for_compiler())
    env = job.environment(secrets or {})
    done = bench.cluster.submit(Submission(KEY, made.record, compiled.script, compiled.files, env, made.manifest, made.upload))
    assert isinstance(done, Submitted), done
    bench.record = bench.record.model_copy(update={"job_id": done.job_id})
    return replace(job, job_dir=str(bench.folder))


def programs(tmp_path: Path, name: str, text: str) -> list[str]:
    """Setup lines that put a program in front of all others."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / name).write_text(text)
    (tmp_path / "bin" / name).chmod(0o755)
    return [f"export PATH={tmp_path / 'bin'}:$PATH"]


def test_what_ft_starts_again_is_one_job_with_one_end(bench: Bench, slurm: SlurmRig, tmp_path: Path) -> None:
    recipe = Recipe(inline=TRAIN, entrypoint="python3", args=["it's $HOME"], launcher="ft", nproc_per_node=2)
    job = submitted(bench, recipe, setup_lines=programs(tmp_path, "ft_launcher", FT_LAUNCHER), retries=1)
    assert bench.record is not None
    job_id, run_dir = str(bench.record.job_id), Path(job.run_dir)
    deadline = time.monotonic() + 60
    while "Restarts=1" not in slurm.run("scontrol", "-o", "show", "job", job_id):
        assert not bench.look().state.ended
        assert time.monotonic() < deadline
        time.sleep(0.3)
    waiting = bench.wait(State.PENDING)
    assert (waiting.job_id, waiting.started_at, waiting.exit_code) == (job_id, None, None)
    assert (run_dir / f"{KEY}_job_results").read_text() == f"{job_id} 0 F\n"
    # Slurm itself waits two minutes, so that the first start's last message does not end the second one.
    time.sleep(10)
    slurm.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")
    ended = bench.wait(State.SUCCEEDED)
    assert (ended.job_id, ended.exit_code) == (job_id, 0)
    assert (run_dir / f"{KEY}_job_results").read_text() == f"{job_id} 0 F\n{job_id} 1 S\n"
    assert (run_dir / "exit").read_text() == "0\n"
    assert json.loads((run_dir / "code" / "results.json").read_text()) == {"started": 1}
    assert [bench.log().count(words) for words in ("start", '1 True ["it\'s $HOME"]')] == [2, 2]
    assert sorted(path.name for path in run_dir.glob("seen.*")) == [f"seen.{node}.{start}" for node in ("n1", "n2") for start in (0, 1)]
    options = (run_dir / "seen.n1.1").read_text().splitlines()
    told = dict(pairwise(options))
    assert (told["--nnodes"], told["--nproc-per-node"], told["--ft-workload_check_interval"]) == ("2", "2", "5")


def test_a_fault_tolerant_job_that_fails_has_failed(bench: Bench, tmp_path: Path) -> None:
    """As NeMo-Run ends it, Slurm would call it completed."""
    lines = programs(tmp_path, "ft_launcher", FT_LAUNCHER)
    submitted(bench, Recipe(inline="exit 4\n", launcher="ft"), setup_lines=lines)
    ended = bench.wait(State.FAILED)
    assert ended.exit_code == 4


def test_cancelling_ends_ray_on_every_node(bench: Bench, tmp_path: Path) -> None:
    lines = ["export BOOK=$DISPATCH_RUN_DIR", *programs(tmp_path, "ray", RAY)]
    job = submitted(bench, Recipe(inline="touch $BOOK/up\nexec sleep 100\n", launcher="slurm_ray"), setup_lines=lines)
    run_dir = Path(job.run_dir)
    deadline = time.monotonic() + 60
    while not (run_dir / "up").exists():
        assert not bench.look().state.ended
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert bench.cluster.cancel(KEY).status == 0
    bench.wait(State.CANCELLED)
    deadline = time.monotonic() + 20
    pids = [(run_dir / f"pid.{node}").read_text().strip() for node in (0, 1)]
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert (run_dir / "exit").read_text() != "0\n"


def test_ray_in_containers(bench: Bench, tmp_path: Path) -> None:
    """Nothing but the run's folder is shared by the nodes then; the program's status is the job's, whatever becomes of the others."""
    lines = ["export BOOK=$DISPATCH_RUN_DIR", *programs(tmp_path, "ray", RAY)]
    recipe = Recipe(inline='echo "$PWD $1 $RAY_ADDRESS" >$BOOK/said\nexit 6\n', args=["it's $HOME"], launcher="slurm_ray")
    job = submitted(bench, recipe, setup_lines=lines, container_image="nvcr.io/nvidia/nemo:25.04")
    # What lies outside the container's mounts is the node's own.
    assert bench.wait(State.FAILED).exit_code == 6
    assert (Path(job.run_dir) / "said").read_text() == "/nemo_run/code it's $HOME 10.0.0.1:4711\n"
    assert (Path(job.run_dir) / "exit").read_text() == "6\n"
    assert {path.name for path in Path(job.run_dir).glob("ended.*")} == {"ended.0", "ended.1"}


def test_ray_computes_over_two_nodes(bench: Bench, ray_programs: Path) -> None:
    """A real head and a real worker: every task of both knows its node and the job's environment, and has what the profile says.

    Whoever does not have the job's token is refused.
    """
    recipe = Recipe(inline=COMPUTE, entrypoint="python", launcher="slurm_ray")
    lines = [f"export PATH={ray_programs}:$PATH"]
    job = submitted(
        bench, recipe, {"SECRET": "s3cret"}, setup_lines=lines, ntasks_per_node=2, cpus_per_task=2, gpus_per_node=2, mem="2500M"
    )
    bench.wait(State.SUCCEEDED, seconds=150)
    results = json.loads((Path(job.run_dir) / "code" / "results.json").read_text())
    assert results == {"sum": 140, "nodes": 2, "CPU": 8, "GPU": 4, "strangers": 0}
    logs = [path.read_text() for path in (Path(job.run_dir) / "logs").iterdir()]
    assert not any("s3cret" in log for log in logs)
