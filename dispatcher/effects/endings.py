"""A script that NeMo-Run rendered → the same with an end that tells what happened: nothing that failed may end with 0, or go on for ever.

The templates are NeMo-Run 0.11's (https://github.com/NVIDIA-NeMo/Run/tree/v0.11.1/nemo_run/core/execution/templates); a script that does
not end as they do is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_GROUP_END = re.compile(r"\n# The code below monitors all SLURM jobs.*?\ndone\n|\nwait\n\nexitcode=\$\?\n", re.DOTALL)


def awaited(script: str, executor: Mapping[str, Any]) -> str:
    """The script of a job group, with an end that waits for all of its programs and keeps the status of the first that failed.

    NeMo-Run's own takes the status of whichever ends first, and kills the others; without monitoring, `wait` says 0 whatever they said.
    """
    patience = int(executor["monitor_group_job_wait_time"])
    end = f"sleep {patience}; kill -9 ${{pids[*]}} 2>/dev/null" if executor["monitor_group_job"] else ":"
    # `exitcode` must not be 0 before all of it has ended: the exit trap would take that for a success when a signal ends the script.
    lines = f"""
first_failed=0
while [ ${{#pids[*]}} -gt 0 ]; do
    for index in ${{!pids[*]}}; do
        kill -0 ${{pids[$index]}} 2>/dev/null && continue
        wait ${{pids[$index]}}
        status=$?
        unset "pids[$index]"
        if [ $status -ne 0 ] && [ $first_failed -eq 0 ]; then
            first_failed=$status
            {end}
        fi
    done
    sleep 1
done
exitcode=$first_failed
"""
    awaited, found = _GROUP_END.subn(lambda _: lines, script)
    if found != 1:
        raise ValueError("the script of the job group does not end as NeMo-Run 0.11 ends it")
    return awaited


_FT_END = re.compile(
    r"\nif ! \(is_training_finished \|\| is_job_failures_limit_reached\); then\n"
    r'    scontrol requeue "\$SLURM_JOB_ID"\n    exit \$exitcode\nfi\s*$'
)


def restarted(script: str, restarts: int) -> str:
    """The script of a fault-tolerant job, with an end that keeps the program's status, and starts the job again at most so often.

    NeMo-Run's own ends with 0 when it gives up, whatever the program said; and a program that ends with 0 and does not leave the file
    `FAULT_TOL_FINISHED_FLAG_FILE` is started again without end.
    """
    lines = f"""
restarts={restarts}
if [ $restarts -gt 0 ] && ! is_training_finished; then
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt $restarts ] && ! is_job_failures_limit_reached; then
        requeued=yes
        scontrol requeue "$SLURM_JOB_ID"
    elif [ $exitcode -eq 0 ]; then
        echo "The program ended with 0, but has not left the file FAULT_TOL_FINISHED_FLAG_FILE: it has not finished."
        exitcode=1
    fi
fi
exit $exitcode
"""
    ended, found = _FT_END.subn(lambda _: lines, script)
    if found != 1:
        raise ValueError("the script of the fault-tolerant job does not end as NeMo-Run 0.11 ends it")
    return ended
