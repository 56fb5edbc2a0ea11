# Whole nodes, counted in every way that there is; memory of the GPUs is shown first.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml",
    nodes=2,
    ntasks_per_node=4,
    gpus_per_node=4,
    gpus_per_task=1,
    cpus_per_task=12,
    cpus_per_gpu=12,
    gres="nvme:1",
    exclusive=True,
    memory_measure=True,
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
script = run.Script("train.py", entrypoint="python")
