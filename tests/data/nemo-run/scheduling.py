# Where and when: quality of service, memory, features, nodes, signals.
import nemo_run as run

executor = run.SlurmExecutor(
    account="ml",
    partition="batch,backfill",
    nodes=2,
    qos="high",
    mem="64G",
    constraint="ib&a100",
    exclude="n[7-9]",
    segment=2,
    network="instances=2,user_space",
    signal="B:USR1@60",
    open_mode="truncate",
    time="1-12:00:00",
    tunnel=run.LocalTunnel(job_dir="/jobs"),
)
script = run.Script("train.py", entrypoint="python")
