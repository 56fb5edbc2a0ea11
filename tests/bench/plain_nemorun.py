"""The script that somebody writes with NeMo-Run alone, for the same recipe: `plain_nemorun.py HOST PORT USER IDENTITY JOB_DIR`.

Started in the checkout; submits HEAD detached, prints the job's id, and ends.
"""

from __future__ import annotations

import sys

import nemo_run as run


def main(host: str, port: str, user: str, identity: str, job_dir: str) -> None:
    """One experiment of one task."""
    executor = run.SlurmExecutor(
        account="ml",
        partition="batch",
        time="00:05:00",
        nodes=1,
        ntasks_per_node=1,
        tunnel=run.SSHTunnel(host=host, port=int(port), user=user, identity=identity, job_dir=job_dir),
        packager=run.GitArchivePackager(),
    )
    with run.Experiment("bench") as experiment:
        experiment.add(run.Script(path="train.py", entrypoint="python3"), executor=executor, name="train")
        experiment.run(detach=True)
        print("job", *(job.handle.rpartition("/")[2] for job in experiment.jobs))


if __name__ == "__main__":
    main(*sys.argv[1:])
