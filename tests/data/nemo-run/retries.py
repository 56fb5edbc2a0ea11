# A failed job starts again, as often as the experiment says.
import nemo_run as run

executor = run.SlurmExecutor(account="ml", retries=3, gpus_per_node=2, mem_per_gpu="32G", tunnel=run.LocalTunnel(job_dir="/jobs"))
script = run.Script("train.py", entrypoint="python")
