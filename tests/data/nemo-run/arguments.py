# Arguments that a shell, or NeMo-Run's templates, would take for something else.
import nemo_run as run

executor = run.SlurmExecutor(account="ml", tunnel=run.LocalTunnel(job_dir="/jobs"))
script = run.Script("train.py", entrypoint="python", args=["name=two words", "cost=5$$", "out=*.pt"])
