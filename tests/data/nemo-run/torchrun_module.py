# A module, started by torchrun; the GPUs of a node are all that says how many processes it has.
import nemo_run as run

executor = run.SlurmExecutor(account="ml", nodes=2, gpus_per_node=4, tunnel=run.LocalTunnel(job_dir="/jobs"))
executor.launcher = run.Torchrun()
script = run.Script(path="pkg.train", entrypoint="python", m=True, args=["--lr", "3e-4"])
