# After two jobs that are there already.
import nemo_run as run

executor = run.SlurmExecutor(account="ml", dependency_type="afterany", mem_per_cpu="4G", tunnel=run.LocalTunnel(job_dir="/jobs"))
executor.dependencies = ["slurm://cluster/12", "slurm://cluster/34"]
script = run.Script("train.py", entrypoint="python")
