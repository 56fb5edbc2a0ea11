# A shell script under torchrun, in an image.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml",
    ntasks_per_node=2,
    container_image="/lustre/images/nemo.sqsh",
    launcher="torchrun",
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
script = run.Script("train.sh", entrypoint="bash")
