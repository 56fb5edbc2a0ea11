"""Array jobs and heterogeneous jobs: `123_4`, `123_[0-3%2]`, `123+1` → the job and its parts.

https://slurm.schedmd.com/job_array.html, https://slurm.schedmd.com/heterogeneous_jobs.html.
"""

from __future__ import annotations

import re

# Slurm's own limit (MaxArraySize) is 1001 unless a cluster raises it.
MOST_TASKS = 10_000

_RANGE = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7})(?::([0-9]{1,7}))?)?")
_JOB = re.compile(r"([0-9]+)(?:_([0-9]+)|_\[([^\]]*)\]?|\+([0-9]+))?")


def array_tasks(expression: str) -> tuple[int, ...]:
    """`0-7`, `1,3,5-9:2`, with or without `%4` → the tasks in their order. Raises ValueError for what sbatch would not take either."""
    tasks: set[int] = set()
    for part in expression.partition("%")[0].split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            raise ValueError("is not the tasks of an array such as `0-7`, `1,3,5` or `0-31:2%4`")
        first, step = int(found[1]), int(found[3] or 1)
        last = int(found[2]) if found[2] else first
        if last < first or step < 1:
            raise ValueError("has a range of tasks that goes backwards, or a step of 0")
        if (last - first) // step >= MOST_TASKS or len(tasks) > MOST_TASKS:
            raise ValueError(f"has more than {MOST_TASKS:,} tasks")
        tasks.update(range(first, last + 1, step))
    if len(tasks) > MOST_TASKS:
        raise ValueError(f"has more than {MOST_TASKS:,} tasks")
    return tuple(sorted(tasks))


def at_once(expression: str) -> int:
    """How many tasks may run at the same time: all, or what stands after `%`."""
    throttle = expression.partition("%")[2]
    tasks = len(array_tasks(expression))
    return min(tasks, int(throttle)) if throttle.isdigit() and int(throttle) else tasks


def parts_of(job_id: str) -> tuple[str, tuple[str, ...]]:
    """`123` → (`123`, (``,)), `123_4` → (`123`, (`_4`,)), `123_[0-1%1]` → (`123`, (`_0`, `_1`)), `123+1` → (`123`, (`+1`,)).

    Slurm cuts long lists (`123_[1-2,7,...]`): what was cut off is the part `_...`. Another text is a job of that name.
    """
    found = _JOB.fullmatch(job_id)
    if found is None:
        return job_id, ("",)
    job, task, listed, component = found.groups()
    if task is not None:
        return job, (f"_{task}",)
    if component is not None:
        return job, (f"+{component}",)
    if listed is None:
        return job, ("",)
    named = [part for part in listed.partition("%")[0].split(",") if _RANGE.fullmatch(part)]
    try:
        tasks = tuple(f"_{number}" for number in array_tasks(",".join(named))) if named else ()
    except ValueError:
        return job, ("_...",)
    whole = named and job_id.endswith("]") and ",".join(named) == listed.partition("%")[0]
    return job, tasks if whole else (*tasks, "_...")


def part_order(part: str) -> tuple[bool, int]:
    """Sorts `_2` before `_10`, and what has no number last."""
    number = part[1:]
    return not number.isdigit(), int(number) if number.isdigit() else 0
