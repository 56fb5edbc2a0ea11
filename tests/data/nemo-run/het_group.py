# A heterogeneous job: a server on one node with GPUs, clients on three without.
import nemo_run as run

server = run.SlurmExecutor(
    account="ml",
    partition="batch",
    nodes=1,
    gpus_per_node=8,
    heterogeneous=True,
    monitor_group_job_wait_time=7,
    time="02:00:00",
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
clients = run.SlurmExecutor(
    account="ml",
    partition="batch",
    nodes=3,
    ntasks_per_node=2,
    heterogeneous=True,
    env_vars={"ROLE": "client"},
    monitor_group_job_wait_time=7,
    time="02:00:00",
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
executor = [server, clients]
script = [
    run.Script("serve.py", entrypoint="python", args=["--port", "8000"]),
    run.Script("serve.py", entrypoint="python", args=["--port", "8000", "--client"]),
]
