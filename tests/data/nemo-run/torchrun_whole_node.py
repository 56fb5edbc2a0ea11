# CPUs and GPUs are counted for each task, and torchrun stands for all tasks of its node.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml",
    nodes=2,
    ntasks_per_node=8,
    gpus_per_task=1,
    cpus_per_task=4,
    launcher="torchrun",
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
script = run.Script("train.py", entrypoint="python")
