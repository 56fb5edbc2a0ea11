# An image, mounts and variables that win over the image's own.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml",
    partition="batch",
    nodes=2,
    ntasks_per_node=8,
    gpus_per_node=8,
    time="04:00:00",
    container_image="nvcr.io/nvidia/nemo:25.04",
    container_mounts=["/lustre:/lustre", "/data:/data:ro"],
    container_env=["NCCL_DEBUG"],
    env_vars={"NCCL_DEBUG": "INFO", "HYDRA_FULL_ERROR": "1"},
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
script = run.Script("train.py", entrypoint="python", args=["--epochs", "3"])
