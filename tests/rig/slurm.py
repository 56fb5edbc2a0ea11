"""Debian's Slurm packages → a cluster on loopback: accounting, four nodes of eight pretended GPUs, Pyxis' options, and its faults.

Everything is this object's own (munge key and socket, database, ports, spool folders), so that several clusters run side by
side, beside one that the machine may have. Reached through `SLURM_CONF`. Jobs of `low` (ended) and `low-requeue` (put back into the
queue) give way to those of `urgent`, all three on the last node; nobody else's do. Without cgroups, a job over its memory ends FAILED
with "Exceeded job memory limit" in its log; OUT_OF_MEMORY takes a machine whose cgroups Slurm may use.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.rig import reaper
from tests.rig.parts import PartMissing, find_program, free_ports, require_root
from tests.rig.processes import Processes, StartFailed

NODES = ("n1", "n2", "n3", "n4")
GPUS_PER_NODE = 8
ACCOUNT = "ml"
PYXIS_SOURCE = Path(__file__).with_name("pyxis_standin.c")

SLURM_CONF = """\
ClusterName=rig
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
PlugStackConfig={folder}/plugstack.conf
GresTypes=gpu
ReturnToService=2
EnforcePartLimits=ALL
FirstJobId={first_job_id}
MinJobAge={min_job_age}
KillWait=2
MessageTimeout=5
InactiveLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=1
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
{accounting}
{nodes}
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 DefMemPerNode=100 PreemptMode=OFF State=UP
PartitionName=interactive Nodes=n1 MaxTime=60 DefaultTime=30 DefMemPerNode=100 PreemptMode=OFF State=UP
PartitionName=low Nodes=n4 DefMemPerNode=100 PreemptMode=CANCEL State=UP
PartitionName=low-requeue Nodes=n4 DefMemPerNode=100 PreemptMode=REQUEUE State=UP
PartitionName=urgent Nodes=n4 DefMemPerNode=100 PriorityTier=10 PreemptMode=OFF State=UP
"""

# Unknown accounts are refused only when associations are enforced, as real clusters do.
WITH_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStoragePass={folder}/munge/socket
AccountingStorageEnforce=associations
AccountingStoreFlags=job_comment
AccountingStorageTRES=gres/gpu"""
WITHOUT_ACCOUNTING = "AccountingStorageType=accounting_storage/none"

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=root
StorageLoc=slurm_acct_db
"""


class SlurmRig:
    """A Slurm cluster of our own. `start()` takes about 5 s; also a context manager.

    `accounting=False` is a cluster without slurmdbd, where sacct fails. `min_job_age` (seconds, at least 2) is how soon
    slurmctld forgets an ended job. Raises `PartMissing` when the machine lacks something, `StartFailed` when it does not come up.
    """

    def __init__(self, *, accounting: bool = True, min_job_age: int = 300) -> None:
        self.accounting = accounting
        self.min_job_age = min_job_age
        self.folder = Path()
        self._first_job_id = 1
        self._processes: Processes | None = None

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to talk to this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> SlurmRig:
        """Brings the whole cluster up; returns when every node is idle."""
        check_parts(self.accounting)
        self.folder = Path(tempfile.mkdtemp(prefix="rig-slurm-"))
        self.folder.chmod(0o755)  # munged and job users look through it
        self._processes = Processes(self.folder)
        try:
            self._ports = free_ports(3 + len(NODES))
            self._make_folders()
            self._write_configuration()
            self._start_munged()
            if self.accounting:
                self._start_mariadbd()
            self._build_pyxis_standin()
            if self.accounting:
                self._processes.wait_until("mariadbd", lambda: _listens(self._ports[2]))
                self.start_slurmdbd()
                self._add_associations()
            self._start_nodes()
            self.start_slurmctld()
            self._processes.wait_until("slurmctld", self._all_nodes_idle)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends every job and every daemon, and removes the folder."""
        if self._processes is None:
            return
        for node in NODES:
            self._processes.stop(f"slurmd-{node}", hard=True)
        reaper.end_jobs(str(self.folder))
        self._processes.stop("slurmctld", hard=True)
        self._processes.stop("slurmdbd", hard=True)
        self._processes.stop("mariadbd", hard=True)
        self._processes.stop_all()
        self._processes = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *argv: str, check: bool = True, stdin: str = "") -> str:
        """Runs one of Slurm's commands against this cluster and returns what it printed; `check` raises when it fails."""
        done = subprocess.run(argv, env={**os.environ, **self.env}, input=stdin, capture_output=True, text=True, timeout=60)
        if check and done.returncode != 0:
            raise AssertionError(f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def wait_for_state(self, job_id: str, *states: str, timeout: float = 60.0) -> str:
        """Polls slurmctld until the job is in one of `states` (COMPLETED, RUNNING, …) and returns it; AssertionError when time is up."""
        deadline = time.monotonic() + timeout
        state = ""
        while time.monotonic() < deadline:
            found = re.search(r"JobState=(\S+)", self.run("scontrol", "show", "job", job_id, check=False))
            state = found.group(1) if found else "unknown to slurmctld"
            if state in states:
                return state
            time.sleep(0.1)
        raise AssertionError(f"job {job_id} is {state}, not {' or '.join(states)}, after {timeout:g} s")

    def cancel_all(self) -> None:
        """Cancels every job, so that the next test finds idle nodes."""
        self.run("scancel", "--user=root", check=False)

    # ------------------------------------------------------------------ faults

    def stop_slurmdbd(self) -> None:
        """Accounting goes away: sacct fails, squeue works."""
        self._running.stop("slurmdbd", hard=True)

    def start_slurmdbd(self) -> None:
        """Accounting comes (back); returns when it answers."""
        self._running.start("slurmdbd", [find_program("slurmdbd"), "-D"], self.env)
        # Its port is open before its tables are there; only an answer counts.
        self._running.wait_until("slurmdbd", lambda: _listens(self._ports[1]) and self._answers("sacctmgr", "-n", "list", "cluster"))

    def stop_slurmctld(self) -> None:
        """The controller goes away, its state saved: squeue, sbatch, scontrol fail after 4 s of trying; jobs run on."""
        self._running.stop("slurmctld")

    def start_slurmctld(self) -> None:
        """The controller comes (back) with its saved state; returns when it answers."""
        self._running.start("slurmctld", [find_program("slurmctld"), "-D"], self.env)
        self._running.wait_until("slurmctld", lambda: _listens(self._ports[0]) and self._answers("scontrol", "ping"))

    def forget_jobs(self) -> None:
        """slurmctld forgets every job at once, as it does with ended ones after MinJobAge and up to a minute; sacct knows them."""
        self.cancel_all()
        self.stop_slurmctld()
        self._first_job_id += 10_000  # ids are not given out twice, or sacct would mix the jobs up
        self._write_configuration()
        self._running.start("slurmctld", [find_program("slurmctld"), "-D", "-c"], self.env)
        self._running.wait_until("slurmctld", lambda: _listens(self._ports[0]) and self._all_nodes_idle())

    def set_node(self, node: str, state: str, reason: str = "rig") -> None:
        """`scontrol update` of a node: DRAIN, RESUME, DOWN, …"""
        self.run("scontrol", "update", f"NodeName={node}", f"State={state}", f"Reason={reason}")

    def resume(self, *nodes: str) -> None:
        """Nodes take jobs again, if they do not do so already by themselves."""
        for node in nodes:
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)

    def preempt(self, memory: int) -> str:
        """An urgent job that takes so many MB of the last node until it is cancelled → its id. What is of `low` there gives way."""
        options = ["--parsable", "-A", ACCOUNT, "-p", "urgent", f"--mem={memory}", "-o", "/dev/null"]
        return self.run("sbatch", *options, "--wrap", "sleep 600").strip()

    # ------------------------------------------------------------------ coming up

    @property
    def _running(self) -> Processes:
        assert self._processes is not None, "the rig is not started"
        return self._processes

    def _write_configuration(self) -> None:
        values = {
            "host": socket.gethostname().split(".")[0],
            "folder": str(self.folder),
            "ctld_port": self._ports[0],
            "dbd_port": self._ports[1],
            "sql_port": self._ports[2],
            "min_job_age": self.min_job_age,
            "first_job_id": self._first_job_id,
        }
        accounting = WITH_ACCOUNTING.format(**values) if self.accounting else WITHOUT_ACCOUNTING
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={values['host']} NodeAddr=127.0.0.1 Port={port} CPUs=64 RealMemory=4000 Gres=gpu:{GPUS_PER_NODE}"
            for node, port in zip(NODES, self._ports[3:], strict=True)
        )
        self._write("slurm.conf", SLURM_CONF.format(accounting=accounting, nodes=nodes, **values))
        self._write("slurmdbd.conf", SLURMDBD_CONF.format(**values), mode=0o600)

    def _make_folders(self) -> None:
        for name in ("state", "munge", "sql", "devices", "layers"):
            (self.folder / name).mkdir()
        for node in NODES:
            (self.folder / "spool" / node).mkdir(parents=True)
        self._write("gres.conf", "".join(self._make_gpus(node) for node in NODES))
        self._write("cgroup.conf", "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.folder / name
        path.touch(mode)
        path.write_text(text)

    def _make_gpus(self, node: str) -> str:
        """Device nodes that are /dev/null under another name: Slurm counts them and numbers CUDA_VISIBLE_DEVICES."""
        for number in range(GPUS_PER_NODE):
            os.mknod(self.folder / "devices" / f"{node}-gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        return f"NodeName={node} Name=gpu File={self.folder}/devices/{node}-gpu[0-{GPUS_PER_NODE - 1}]\n"

    def _start_munged(self) -> None:
        munge = self.folder / "munge"
        (munge / "key").touch(0o600)
        (munge / "key").write_bytes(os.urandom(128))
        paths = [f"--{option}={munge / name}" for option, name in (("socket", "socket"), ("key-file", "key"), ("pid-file", "pid"))]
        paths += [f"--log-file={munge}/log", f"--seed-file={munge}/seed"]
        self._running.start("munged", [find_program("munged"), "--foreground", "--num-threads=4", *paths])
        self._running.wait_until("munged", (munge / "socket").exists)

    def _start_mariadbd(self) -> None:
        data, scratch = self.folder / "sql", self.folder / "sql-tmp"
        scratch.mkdir()  # of its own: two databases that start at once would meet in the system's
        common = ["--no-defaults", f"--datadir={data}", f"--tmpdir={scratch}", "--user=root", "--innodb-log-file-size=8M"]
        install = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
        done = subprocess.run([find_program(install[0]), *install[1:]], capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise StartFailed(f"mariadb-install-db ended with {done.returncode}: {done.stdout}{done.stderr}")
        options = [f"--socket={data}/socket", "--bind-address=127.0.0.1", f"--port={self._ports[2]}", f"--pid-file={data}/pid"]
        # The database dies with the rig, so it need not survive a power cut.
        options += ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--skip-log-bin", "--innodb-lock-wait-timeout=900"]
        self._running.start("mariadbd", [find_program("mariadbd"), *common, *options])

    def _build_pyxis_standin(self) -> None:
        library = self.folder / "pyxis.so"
        command = [find_program("gcc"), "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", str(library), str(PYXIS_SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise StartFailed(f"gcc: {done.stderr}")
        self._write("plugstack.conf", f"required {library} {self.folder}/layers\n")

    def _add_associations(self) -> None:
        for what in ("cluster rig", f"account {ACCOUNT} cluster=rig", f"user root account={ACCOUNT} cluster=rig"):
            self.run("sacctmgr", "-i", "add", *what.split())
        self.run("sacctmgr", "-i", "modify", "user", "root", "set", f"DefaultAccount={ACCOUNT}")

    def _start_nodes(self) -> None:
        for node in NODES:
            self._running.start(f"slurmd-{node}", [find_program("slurmd"), "-D", "-N", node], self.env)

    def _all_nodes_idle(self) -> bool:
        for node in NODES:
            self._running.wait_until(f"slurmd-{node}", lambda: True)
        return self.run("sinfo", "-h", "-N", "-p", "batch", "-o", "%T", check=False).split() == ["idle"] * len(NODES)

    def _answers(self, *argv: str) -> bool:
        command: Sequence[str] = argv
        return subprocess.run(command, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0

    def __enter__(self) -> SlurmRig:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def check_parts(accounting: bool = True) -> None:
    """Raises `PartMissing` naming the first thing that the machine lacks for this rig."""
    require_root("the Slurm rig (device nodes, jobs of root)")
    programs = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "gcc"]
    programs += ["slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db"] if accounting else []
    for program in programs:
        find_program(program)
    if not Path("/usr/include/slurm/spank.h").exists():
        raise PartMissing("slurm/spank.h is not installed (package libslurm-dev; as root, `.ci/rig` installs it)")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
