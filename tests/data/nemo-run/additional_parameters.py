# Options of sbatch that the executor has no field for, and more arguments of srun.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml",
    additional_parameters={"mail_type": "END", "reservation": "maint", "contiguous": True},
    srun_args=["--mpi=pmix", "--container-writable"],
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
script = run.Script("train.py", entrypoint="python")
