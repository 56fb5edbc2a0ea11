# Fault tolerance with ft_launcher's own settings, in an image.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml", gpus_per_node=4, container_image="/lustre/images/nemo.sqsh", launcher="ft", tunnel=run.LocalTunnel(job_dir="/jobs")
)
executor.torchrun_nproc_per_node = 4
script = run.Script(path="pkg.train", entrypoint="python", m=True)
