# One torchrun on each node, as many processes as there are tasks.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml",
    partition="batch",
    nodes=2,
    ntasks_per_node=8,
    gpus_per_node=8,
    launcher="torchrun",
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
script = run.Script("train.py", entrypoint="python", args=["--name", "two words"])
