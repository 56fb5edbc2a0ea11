# A script that has no file.
import nemo_run as run

executor = run.SlurmExecutor(account="ml", container_image="/lustre/images/nemo.sqsh", tunnel=run.LocalTunnel(job_dir="/jobs"))
script = run.Script(inline='nvidia-smi\necho "it is $HOSTNAME"\n')
