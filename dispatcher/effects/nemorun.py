"""A job description (JSON) → the sbatch script and files that NeMo-Run renders; and one local run, through NeMo-Run's own executors.

This is the program of a process of its own (`python -I …/nemorun.py`): importing NeMo-Run takes seconds, so
`compiler.py` starts it first and talks to it in JSON lines while GitHub and the cluster are asked. What NeMo-Run 0.11.1
leaves open is closed here, each where it is used: unquoted arguments, traced secrets, `$` eaten by its macro templates,
torchrun's processes per node, random rendezvous ids. Facts were read from the package's source
(https://github.com/NVIDIA-NeMo/Run/tree/v0.11.1/nemo_run/core/execution).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Half of NeMo-Run's import time, for an executor that is not asked for.
NEVER_USED = frozenset({"leptonai"})
# Half of the rest: what runs an experiment, talks to clusters or draws help pages takes no part in rendering one.
NOT_FOR_RENDERING = NEVER_USED | {"libcst", "networkx", "paramiko", "fabric", "requests", "kubernetes", "graphviz", "typer.rich_utils"}

INLINE, RAY = "scripts/inline", "scripts/ray.sh"
"""Where these programs lie in the run's folder, which is `/nemo_run` for the job."""


def import_nemo_run(without: frozenset[str] = NEVER_USED) -> Any:
    """NeMo-Run, without libraries that are not used; its home is a folder of its own, so that no state of this machine matters."""
    if "nemo_run" in sys.modules:
        return sys.modules["nemo_run"]
    from dispatcher.effects.leftout import LeftOut

    os.environ.setdefault("NEMORUN_HOME", tempfile.mkdtemp(prefix="nemorun-"))
    left_out = LeftOut(without).install()
    import nemo_run

    left_out.seal()
    return nemo_run


def compile_slurm(job: Mapping[str, Any], work: Path) -> dict[str, object]:
    """Renders one Slurm job without any connection.

    Args:
        job: `JobPlan.for_compiler()`; keys `run_key`, `runs_dir`, `executor` (SlurmExecutor fields), `launcher`, `script`, `module`,
            `inline`, `entrypoint`, `args`, `setup_lines`, `torchrun_nproc_per_node`, `ft`, `slurm_ray`.
        work: an empty folder on the runner.

    Returns:
        `{"script": text of the sbatch file, "files": {path in the run folder: text}}`.
    """
    run = import_nemo_run()
    from dispatcher.effects.endings import awaited, restarted
    from dispatcher.effects.tunnel import ArrayDetails, RunFolderTunnel

    key, runs_dir = str(job["run_key"]), str(job["runs_dir"])
    groups = job.get("groups") or []

    def executor_of(group: Mapping[str, Any]) -> Any:
        executor = run.SlurmExecutor(**{**job["executor"], **group.get("executor", {})}, **common)
        # Exported unquoted, and a `$` would be taken by its templates.
        executor.env_vars = {name: shlex.quote(value).replace("$", "$$") for name, value in group.get("env_vars", {}).items()}
        if executor.array:
            executor.job_details = ArrayDetails()
        executor.job_details.folder = f"{runs_dir}/{key}/logs"
        return executor

    common = {
        "packager": run.Packager(),  # passthrough: the code travels as a content-addressed package of its own
        "launcher": launcher_of(run, job),
        "job_name_prefix": "dispatch-",
        "tunnel": RunFolderTunnel(job_dir=runs_dir),
        "setup_lines": "\n".join(job["setup_lines"]),
        "torchrun_nproc_per_node": job.get("torchrun_nproc_per_node"),
    }
    with run.Experiment(key, base_dir=str(work), skip_status_at_exit=True, enable_goodbye_message=False, log_level="ERROR") as experiment:
        if groups:
            scripts = [script_of(run, {**job, "args": group["args"]}) for group in groups]
            experiment.add(scripts, executor=[executor_of(group) for group in groups], name=key)
        else:
            experiment.add(script_of(run, job), executor=executor_of({}), name=key)
        experiment.dryrun(log=False, delete_exp_dir=False)
        folder = Path(experiment._exp_dir)
        configs = {path.relative_to(folder / key): path for path in (folder / key / "configs").rglob("*") if path.is_file()}
        files = {str(name): _steady(_text(path)) for name, path in sorted(configs.items())}
        script = _text(folder / f"{key}_sbatch.sh")
        if groups:
            script = awaited(script, job["executor"])
        elif job["launcher"] == "ft":
            script = restarted(script, int(job["executor"]["retries"]) - 1)
        return {"script": script, "files": files | _programs(job)}


def _programs(job: Mapping[str, Any]) -> dict[str, str]:
    """Programs of the run's own, beside its code: what an inline recipe says, and what starts Ray."""
    programs: dict[str, str] = {}
    if job["inline"]:
        # As NeMo-Run does with an inline script: without a container, its folder is another one.
        inside = any(each.get("container_image") for each in (job["executor"], *(group["executor"] for group in job.get("groups") or ())))
        programs[INLINE] = job["inline"] if inside else job["inline"].replace("/nemo_run", f"{job['runs_dir']}/{job['run_key']}")
    if job["launcher"] == "slurm_ray":
        programs[RAY] = _text(Path(__file__).with_name("ray.sh"))
    return programs


def _text(path: Path) -> str:
    """The file as it was written: reading it as text would turn every carriage return of an argument into a line's end."""
    return path.read_bytes().decode()


def _steady(config: str) -> str:
    """A config without what is different each time (the experiment's id, the runner's folder): the same job gives the same bytes."""
    return re.sub(r"(?m)^(experiment_id|job_dir): .*$", r"\1: null", config)


def launcher_of(run: Any, job: Mapping[str, Any]) -> Any:
    """The recipe's launcher as NeMo-Run's; None where the program is started by itself."""
    # NeMo-Run draws a random rendezvous id; from the run key, the preview and the submission are the same bytes.
    name = int(str(job["run_key"])[:7], 16)
    if job["launcher"] == "ft":
        return run.FaultTolerance(rdzv_id=name, **job["ft"])
    return run.Torchrun(rdzv_id=name) if job["launcher"] == "torchrun" else None


def script_of(run: Any, job: Mapping[str, Any]) -> Any:
    """The recipe as `run.Script` for Slurm, with every argument quoted exactly once on its way through NeMo-Run.

    With torchrun and ft, torchx quotes each argument; without a launcher nobody does. In all cases `string.Template` then turns
    `$$` into `$` and fills in names that it knows, so every `$` of ours is doubled. Ray is started by a program of ours, to which the
    recipe's is given as arguments.
    """
    entrypoint, module = str(job["entrypoint"]), bool(job["module"])
    words = [str(job["module"] or job["script"] or f"/nemo_run/{INLINE}"), *(str(argument) for argument in job["args"])]
    started = job["launcher"] in ("torchrun", "ft")
    if started and not module and entrypoint != "python":
        # NeMo-Run has torchrun start the script by itself then (`--no-python`), and forgets the entry point.
        words.insert(0, entrypoint)
    if job["launcher"] == "slurm_ray":
        options = [str(job["slurm_ray"][name]) for name in ("gcs_server_port", "dashboard_port", "start_timeout")]
        words = [f"/nemo_run/{RAY}", *options, entrypoint, *(["-m"] if module else []), *words]
        entrypoint, module = "sh", False
    passed = [(word if started else shlex.quote(word)).replace("$", "$$") for word in words]
    return run.Script(path=passed[0], args=passed[1:], entrypoint=entrypoint, m=module)


def _local_script(run: Any, job: Mapping[str, Any]) -> Any:
    """The recipe as `run.Script` for this machine, where no shell reads the arguments and only `$` has to be doubled.

    torchrun and ft are started as programs like any other, with NeMo-Run's own options: its launchers would quote what nobody unquotes.
    """
    entrypoint, module = str(job["entrypoint"]), str(job["module"])
    words = ["-m", module] if module else [str(job["script"] or f"{job['run_dir']}/{INLINE}")]
    if job["launcher"] in ("torchrun", "ft"):
        words = words if module or entrypoint == "python" else ["--no-python", entrypoint, *words]
        processes, name = str(job.get("torchrun_nproc_per_node") or 1), str(launcher_of(run, job).rdzv_id)
        options = _ft_options(job["ft"]) if job["launcher"] == "ft" else {}
        options |= {"rdzv-backend": "c10d", "rdzv-endpoint": "localhost:0", "rdzv-id": name, "nnodes": "1", "nproc-per-node": processes}
        options |= {"node-rank": "0", "tee": "3"}
        words = [*(part for option, value in options.items() for part in (f"--{option}", value)), *words]
        entrypoint = {"torchrun": "torchrun", "ft": "ft_launcher"}[job["launcher"]]
    first, *rest = [word.replace("$", "$$") for word in [*words, *(str(argument) for argument in job["args"])]]
    return run.Script(path=first, args=rest, entrypoint=entrypoint)


def _ft_options(given: Mapping[str, Any]) -> dict[str, str]:
    """The recipe's options as NeMo-Run's component for ft_launcher writes them; the port is for more than one machine."""
    names = {name: f"ft-{name}" for name in given if name not in ("max_restarts", "rdzv_port")} | {"max_restarts": "max-restarts"}
    return {option: str(given[name]) for name, option in names.items() if given.get(name)}


def run_local(job: Mapping[str, Any]) -> int:
    """Runs one recipe here through NeMo-Run's LocalExecutor in the current folder (the unpacked commit); returns its exit status, 0 or 1.

    NeMo-Run itself leaves 0 behind whatever happened, so the job's own status is asked.
    """
    run = import_nemo_run()
    executor = run.LocalExecutor()
    base = Path(str(job["run_dir"])) / "nemo_run"
    with run.Experiment(str(job["run_key"]), base_dir=str(base), skip_status_at_exit=True, enable_goodbye_message=False) as experiment:
        experiment.add(_local_script(run, job), executor=executor, name="run", tail_logs=True)
        experiment.run(detach=False, tail_logs=True)
    # Only leaving the experiment waits for its end.
    states = [str(task.state) for task in experiment.jobs]
    print(f"NeMo-Run says: {', '.join(states)}", flush=True)
    return 0 if states and all(state.endswith("SUCCEEDED") for state in states) else 1


def serve(lines: Sequence[str] | Any, answer: Any) -> None:
    """Answers each JSON line with one JSON line; says `ready` once NeMo-Run is imported, so that a caller can show where time goes."""
    import_nemo_run(NOT_FOR_RENDERING)
    print(json.dumps({"ready": True}), file=answer, flush=True)
    for line in lines:
        with tempfile.TemporaryDirectory(prefix="dispatch-compile-") as work:
            try:
                result: dict[str, object] = {"ok": compile_slurm(json.loads(line), Path(work))}
            except (Exception, SystemExit) as error:  # NeMo-Run calls sys.exit on some paths
                result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), file=answer, flush=True)


def main(argv: Sequence[str]) -> int:
    """`serve`: compile jobs from standard input. `run FILE`: run one local job in the current folder."""
    if argv[:1] == ["run"]:
        return run_local(json.loads(Path(argv[1]).read_text()))
    # NeMo-Run and its libraries print, and hand our standard input to the commands that they run: only jobs and answers may pass.
    jobs, answer = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    serve(jobs, answer)
    return 0


if __name__ == "__main__":
    # Isolated (-I), so that no file of the current folder, which may be a pull request's, is ever imported: only our own folder is added.
    sys.path.insert(0, str(Path(__file__).parents[2]))
    raise SystemExit(main(sys.argv[1:]))
