"""A job description → the command that NeMo-Run makes of it for an executor, and the script around it that the job starts.

The script is ours, and the same for every API: the commit's folder, the setup lines, the command, and at the end the results in the log,
because nothing but the log comes back from such a job. Variables and secrets come from the job's environment, never from the script.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dispatcher.effects.nemorun import INLINE, import_nemo_run, launcher_of, script_of
from dispatcher.launch import RESULTS_LIMIT, RESULTS_MARK

RUN_DIR = "/nemo_run"


def command_of(executor: Any, job: Mapping[str, Any], work: Path) -> list[str]:
    """NeMo-Run's words for the recipe on this executor: launcher, script, arguments; each is quoted for a shell where it has to be.

    `executor` is NeMo-Run's; it is bound to `work` here.
    """
    run = import_nemo_run()
    from nemo_run.run.torchx_backend.packaging import package

    key = str(job["run_key"])
    executor.launcher = launcher_of(run, job)
    executor.assign(key, str(work), key, key)
    (work / key).mkdir(exist_ok=True)
    role = package(key, script_of(run, job), executor=executor, serialize_to_file=False, serialize_metadata_for_scripts=False).roles[0]
    macros = executor.macro_values()
    if macros:  # which also turns each `$$` into the `$` that it stands for
        role = macros.apply(role)
    words = [str(word) for word in [role.entrypoint, *role.args]]
    return words if macros else [word.replace("$$", "$") for word in words]


def launch_script(job: Mapping[str, Any], command: list[str], run_dir: str = RUN_DIR, before: str = "") -> str:
    """The script that the job starts with bash. `run_dir` has what travelled; `before` are lines of the executor's own."""
    cloud = job["cloud"]
    results = shlex.quote(f"{run_dir}/code/{cloud['results']}")
    lines = [
        "#!/bin/bash",
        f"# dispatch-{job['run_key']}: what NeMo-Run makes of the recipe, and its results in the log",
        *_limited(int(cloud["seconds"])),
        *([before.rstrip("\n")] if before else []),
        f"if [ -r {run_dir}/env ]; then . {run_dir}/env; fi",
        f"mkdir -p {run_dir}/code && cd {run_dir}/code || exit 1",
        "# A results file that the commit brought along is no result.",
        f"rm -f {results}",
        *_folder(cloud["results"]),
        *cloud["setup_lines"],
        *_inline(str(job["inline"]), run_dir),
        " ".join(word.replace(f"{RUN_DIR}/{INLINE}", f"{run_dir}/{INLINE}") for word in command),
        "exitcode=$?",
        f"if [ -f {results} ] && [ $(wc -c <{results}) -le {RESULTS_LIMIT} ]; then",
        f"    printf '\\n{RESULTS_MARK} %s\\n' \"$(base64 <{results} | tr -d '\\n')\"",
        "fi",
        "exit $exitcode",
    ]
    return "\n".join(lines) + "\n"


def _folder(path: str) -> list[str]:
    """The line that makes the results file's folder, where it has one."""
    folder = path.rpartition("/")[0]
    return [f"mkdir -p {shlex.quote(folder)} || :"] if folder else []


def _inline(text: str, run_dir: str) -> list[str]:
    """The file that the text of an inline recipe becomes, whole at once: several nodes may share the folder."""
    if not text:
        return []
    mine = f'"{run_dir}/{INLINE}.$(hostname).$$"'
    return [f"mkdir -p {run_dir}/scripts", f"printf %s {shlex.quote(text)} >{mine} && mv -f {mine} {run_dir}/{INLINE}"]


def _limited(seconds: int) -> list[str]:
    """Whatever the API does about time: more than was granted is not used."""
    if not seconds:
        return []
    return [f'[ -n "$DISPATCH_LIMITED" ] || DISPATCH_LIMITED=1 exec timeout -k 30 {seconds} bash "$0"']
