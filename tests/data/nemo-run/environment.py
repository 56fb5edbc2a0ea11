# Variables, and shell lines before the program.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml",
    env_vars={"TOKENIZERS_PARALLELISM": "false", "NCCL_IB_HCA": "mlx5_0,mlx5_1"},
    setup_lines="module load cuda\nulimit -n 65536",
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
script = run.Script("train.py", entrypoint="python")
