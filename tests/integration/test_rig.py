"""The rig itself: what the other tests stand on holds."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import started
from tests.rig.latency import LatencyProxy
from tests.rig.parts import require_mount_namespaces
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import BANNER, KEY_KINDS, Agent, Sshd, wait_for_count

# --------------------------------------------------------------------------- Slurm


def test_a_job_submitted_over_ssh_is_accounted_for(cluster_sshd: Sshd, slurm: SlurmRig, tmp_path: Path) -> None:
    script = "#!/bin/sh\n#SBATCH -N 2 --gres=gpu:8 -A ml\necho gpus=$CUDA_VISIBLE_DEVICES\nsrun sh -c 'echo rank=$SLURM_PROCID'\n"
    done = cluster_sshd.run(f"sbatch --parsable --comment=0123456789abcdef -o {tmp_path}/log", stdin=script)
    job_id = done.stdout.strip()
    assert job_id.isdigit(), done
    slurm.wait_for_state(job_id, "COMPLETED")
    log = (tmp_path / "log").read_text()
    assert "gpus=0,1,2,3,4,5,6,7" in log
    assert "rank=0" in log
    assert "rank=1" in log
    fields = cluster_sshd.run(f"sacct -X -n -P -j {job_id} -o State,Account,Comment,NNodes").stdout.strip()
    assert fields == "COMPLETED|ml|0123456789abcdef|2"


def test_a_container_has_its_mounts_and_leaves_nothing_behind(slurm: SlurmRig, tmp_path: Path) -> None:
    require_mount_namespaces("the stand-in for Pyxis")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print('trained')\n")
    task = "pwd; ls; echo $PYXIS_STANDIN_IMAGE; touch /nemo_run/result; touch /gone"
    options = "--container-image=nvcr.io/nvidia/x:1 --container-workdir=/nemo_run/code --no-container-mount-home"
    printed = slurm.run("srun", "-A", "ml", *options.split(), f"--container-mounts={tmp_path}:/nemo_run", "sh", "-c", task)
    assert printed.split() == ["/nemo_run/code", "train.py", "nvcr.io/nvidia/x:1"]
    assert (tmp_path / "result").exists()
    assert not Path("/gone").exists()
    assert not Path("/nemo_run").exists()


def test_an_image_that_cannot_be_imported_fails_the_step(slurm: SlurmRig) -> None:
    command = ["srun", "-A", "ml", "--container-image=missing/image", "true"]
    done = subprocess.run(command, env={**os.environ, **slurm.env}, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "pyxis: failed to import docker image" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-A nobody", "Invalid account"),
        ("-A ml -p batchh", "invalid partition"),
        ("-A ml -N 9", "Node count specification invalid"),
        ("-A ml -p interactive -t 2:00:00", "Requested time limit is invalid"),
    ],
)
def test_sbatch_refuses_in_its_own_words(slurm: SlurmRig, options: str, words: str) -> None:
    command = ["sbatch", *options.split(), "--wrap", "true"]
    done = subprocess.run(command, env={**os.environ, **slurm.env}, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert words in done.stderr


def test_a_job_over_its_memory_is_killed(slurm: SlurmRig, tmp_path: Path) -> None:
    hungry = f"{sys.executable} -c 'b = b\"x\" * 300_000_000; import time; time.sleep(30)'"
    job_id = slurm.run("sbatch", "--parsable", "-A", "ml", "--mem=50", "-o", f"{tmp_path}/log", "--wrap", hungry).strip()
    slurm.wait_for_state(job_id, "FAILED")
    assert "Exceeded job memory limit" in (tmp_path / "log").read_text()


def test_accounting_and_the_controller_go_and_come_back(slurm: SlurmRig, tmp_path: Path) -> None:
    """On a second cluster beside the first, which notices nothing."""
    with started(SlurmRig()) as other:
        assert other.env != slurm.env
        job_id = other.run("sbatch", "--parsable", "-A", "ml", "-o", f"{tmp_path}/log", "--wrap", "sleep 60").strip()
        other.wait_for_state(job_id, "RUNNING")
        other.stop_slurmdbd()
        assert job_id in other.run("squeue", "-h", "-o", "%i")
        with pytest.raises(AssertionError, match="sacct"):
            other.run("sacct", "-j", job_id)
        other.start_slurmdbd()
        other.stop_slurmctld()
        with pytest.raises(AssertionError, match="squeue"):
            other.run("squeue")
        other.start_slurmctld()
        other.wait_for_state(job_id, "RUNNING")
    assert slurm.run("sinfo", "-h", "-o", "%D").strip() == "4"


def test_a_forgotten_job_is_known_to_accounting_only(tmp_path: Path) -> None:
    with started(SlurmRig()) as rig:
        job_id = rig.run("sbatch", "--parsable", "-A", "ml", "-o", f"{tmp_path}/log", "--wrap", "true").strip()
        rig.wait_for_state(job_id, "COMPLETED")
        rig.forget_jobs()
        assert rig.wait_for_state(job_id, "unknown to slurmctld")
        assert rig.run("sacct", "-X", "-n", "-P", "-j", job_id, "-o", "State").strip() == "COMPLETED"
        assert rig.run("sbatch", "--parsable", "-A", "ml", "--wrap", "true").strip() == "10001"


def test_a_cluster_without_accounting() -> None:
    with started(SlurmRig(accounting=False)) as rig:
        with pytest.raises(AssertionError, match="disabled"):
            rig.run("sacct")
        assert rig.run("sbatch", "--parsable", "--wrap", "true").strip() == "1"


def test_a_killed_test_run_leaves_nothing(slurm: SlurmRig) -> None:
    """The reaper ends daemons, job steps and the folder of a run that had no chance to."""
    program = (
        "import time; from tests.rig.slurm import SlurmRig; rig = SlurmRig(accounting=False).start();"
        "job = rig.run('sbatch', '--parsable', '-o', '/dev/null', '--wrap', 'sleep 300').strip(); rig.wait_for_state(job, 'RUNNING');"
        "print(rig.folder, flush=True); time.sleep(300)"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    folder = run.stdout.readline().strip()
    assert _processes_naming(folder)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    deadline = time.monotonic() + 10
    while _processes_naming(folder) or Path(folder).exists():
        assert time.monotonic() < deadline, (_processes_naming(folder), folder)
        time.sleep(0.1)


def _processes_naming(folder: str) -> list[str]:
    """Processes that have the folder in their environment or arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = entry.joinpath("cmdline").read_bytes() + entry.joinpath("environ").read_bytes()
            except OSError:
                continue
            if folder.encode() in text:
                found.append(f"{entry.name} {entry.joinpath('comm').read_text().strip()}")
    return found


# --------------------------------------------------------------------------- sshd


@pytest.mark.parametrize("kind", [kind for kind in KEY_KINDS if "passphrase" not in kind and kind != "stranger"])
def test_every_kind_of_key_logs_in(sshd: Sshd, kind: str) -> None:
    assert sshd.run("echo in", key=kind).stdout == "in\n"


def test_a_stranger_stays_outside(sshd: Sshd) -> None:
    before = sshd.mark()
    assert "Permission denied" in sshd.run("echo in", key="stranger").stderr
    assert sshd.connections(before) == 0


def test_connections_and_sessions_are_counted(sshd: Sshd) -> None:
    before = sshd.mark()
    sshd.run("true")
    sshd.run("true")
    wait_for_count(2, lambda: sshd.connections(before))
    wait_for_count(2, lambda: sshd.sessions(before))


@pytest.mark.parametrize("name", ["noisy", "dash", "csh", "fish", "zsh"])
def test_login_shells(sshd: Sshd, name: str) -> None:
    done = sshd.run("echo in", user=sshd.login(name))
    assert done.stdout.endswith("in\n")
    if name == "noisy":
        assert done.stdout.startswith(BANNER)
        assert done.stderr.startswith(BANNER)


def test_disks_that_take_nothing(sshd: Sshd) -> None:
    assert "No space left" in sshd.run(f"echo x > {sshd.full_disk}/file").stderr
    assert "Read-only" in sshd.run(f"echo x > {sshd.read_only}/file").stderr
    assert list(sshd.full_disk.iterdir()) == [], "the machine itself has no such mount"


def test_an_agent_holds_keys(sshd: Sshd) -> None:
    with Agent(sshd.key("ed25519"), sshd.key("rsa-pem")) as agent:
        listed = subprocess.run(["ssh-add", "-l"], env={**os.environ, "SSH_AUTH_SOCK": str(agent.socket)}, capture_output=True, text=True)
    assert "rig ed25519" in listed.stdout
    assert "keys/rsa-pem (RSA)" in listed.stdout


def test_a_server_with_several_host_keys_environment_and_own_commands() -> None:
    with Sshd(env={"GREETING": "hello  world"}, host_keys=("ed25519", "rsa", "ecdsa"), banner="authorised use only\n") as server:
        (server.bin / "sbatch").write_text("#!/bin/sh\necho sbatch: error: no\nexit 1\n")
        (server.bin / "sbatch").chmod(0o755)
        done = server.run('echo "$GREETING"; sbatch')
        assert done.stdout == "hello  world\nsbatch: error: no\n"
        assert done.returncode == 1
        assert "authorised use only" in done.stderr
        assert len(server.known_hosts.splitlines()) == 3


def test_dropping_connections_ends_clients(sshd: Sshd) -> None:
    before = sshd.mark()
    client = threading.Thread(target=lambda: results.append(sshd.run("sleep 30; echo late")))
    results: list[subprocess.CompletedProcess[str]] = []
    client.start()
    wait_for_count(1, lambda: sshd.sessions(before))
    sshd.drop_connections()
    client.join(5)
    assert results[0].returncode == 255
    assert sshd.run("echo in").stdout == "in\n", "the server itself goes on"


# --------------------------------------------------------------------------- the long wire


class Echo:
    """A server that sends everything back. A context manager."""

    def __enter__(self) -> Echo:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.received: list[bytearray] = []
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.received.append(bytearray())
            threading.Thread(target=self._echo, args=(connection, self.received[-1]), daemon=True).start()

    def _echo(self, connection: socket.socket, received: bytearray) -> None:
        try:
            while data := connection.recv(1 << 16):
                received += data
                connection.sendall(data)
        except OSError:
            pass
        finally:
            connection.close()

    def __exit__(self, *exception: object) -> None:
        self.listener.close()


def test_the_wire_delays_each_round_trip_once(latency: Callable[..., LatencyProxy]) -> None:
    with Echo() as echo, socket.create_connection(("127.0.0.1", latency(echo.port, rtt=0.1).port)) as client:
        started = time.monotonic()
        client.sendall(b"first")
        assert client.recv(100) == b"first"
        connected = time.monotonic() - started
        assert 0.2 <= connected < 0.5, "handshake and one round trip"
        started = time.monotonic()
        for _ in range(3):
            client.sendall(b"again")
            assert client.recv(100) == b"again"
        assert 0.3 <= time.monotonic() - started < 0.8


def test_the_wire_delays_but_does_not_throttle(latency: Callable[..., LatencyProxy]) -> None:
    """What is pipelined pays once: many small messages, and many megabytes."""
    with Echo() as echo, socket.create_connection(("127.0.0.1", latency(echo.port, rtt=0.1).port)) as client:
        size = 32 << 20
        started = time.monotonic()
        sender = threading.Thread(target=client.sendall, args=(bytes(size),))
        sender.start()
        left = size
        while left:
            left -= len(client.recv(1 << 20))
        sender.join()
        assert time.monotonic() - started < 5


def test_the_wire_breaks_after_so_many_bytes(latency: Callable[..., LatencyProxy]) -> None:
    with Echo() as echo:
        proxy = latency(echo.port)
        proxy.cut_after(1000, "up")
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            client.sendall(b"x" * 5000)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(1 << 16):
                    pass
        wait_for_count(1000, lambda: sum(map(len, echo.received)))
        assert proxy.carried()["up"] == 1000
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            client.sendall(b"y")
            assert client.recv(10) == b"y", "only once"


def test_the_wire_can_be_cut_and_stalled_at_a_call(latency: Callable[..., LatencyProxy]) -> None:
    with Echo() as echo:
        proxy = latency(echo.port)
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            client.settimeout(0.3)
            client.sendall(b"a")
            assert client.recv(10) == b"a"
            proxy.stall()
            client.sendall(b"b")
            with pytest.raises(TimeoutError):
                client.recv(10)
            proxy.resume()
            assert client.recv(10) == b"b"
            assert proxy.cut() == 1
            with pytest.raises(ConnectionResetError):
                client.recv(10)


def test_ssh_over_the_wire(sshd: Sshd, latency: Callable[..., LatencyProxy]) -> None:
    near = time.monotonic()
    sshd.run("true")
    near = time.monotonic() - near
    proxy = latency(sshd.port, rtt=0.1)
    far = time.monotonic()
    assert sshd.run("echo in", port=proxy.port).stdout == "in\n"
    assert time.monotonic() - far > near + 0.5, "a handshake takes several round trips"
