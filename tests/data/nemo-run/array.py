# Eight tasks of an array, two at a time.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml",
    partition="batch",
    gpus_per_node=1,
    array="0-7%2",
    time="00:30:00",
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
script = run.Script("sweep.py", entrypoint="python")
