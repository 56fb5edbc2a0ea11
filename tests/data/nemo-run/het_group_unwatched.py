# The same, without a watch over the components.
import nemo_run as run

server = run.SlurmExecutor(
    account="ml", heterogeneous=True, monitor_group_job=False, wait_time_for_group_job=5, tunnel=run.LocalTunnel(job_dir="/jobs")
)
clients = run.SlurmExecutor(
    account="ml", nodes=2, heterogeneous=True, monitor_group_job=False, wait_time_for_group_job=5, tunnel=run.LocalTunnel(job_dir="/jobs")
)
executor = [server, clients]
script = [run.Script("serve.py", entrypoint="python"), run.Script("serve.py", entrypoint="python")]
