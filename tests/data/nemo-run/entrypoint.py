# A shell script instead of Python.
import nemo_run as run

executor = run.SlurmExecutor(account="ml", tunnel=run.LocalTunnel(job_dir="/jobs"))
script = run.Script("train.sh", entrypoint="bash", args=["--fast"])
