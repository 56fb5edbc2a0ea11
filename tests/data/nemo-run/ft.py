# Fault tolerance: the processes are watched, and the job starts again until training says that it has finished.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml",
    nodes=2,
    ntasks_per_node=8,
    gpus_per_node=8,
    retries=2,
    launcher=run.FaultTolerance(rank_heartbeat_timeout=300, max_restarts=3),
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
script = run.Script("train.py", entrypoint="python", args=["--epochs", "3"])
