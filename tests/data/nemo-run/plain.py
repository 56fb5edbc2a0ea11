# One script on one node, nothing that is not needed.
import nemo_run as run

executor = run.SlurmExecutor(account="ml", tunnel=run.LocalTunnel(job_dir="/jobs"))
script = run.Script("train.py", entrypoint="python")
