# Ray over the nodes of the job.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml", nodes=2, gpus_per_node=8, cpus_per_task=16, launcher="slurm_ray", tunnel=run.LocalTunnel(job_dir="/jobs")
)
script = run.Script("tune.py", entrypoint="python", args=["--trials", "8"])
