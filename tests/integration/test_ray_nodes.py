"""`effects/ray.sh` as srun starts it, one process for each node, with a `ray` that writes down what it is asked: who ends, and how."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dispatcher.effects import nemorun

PROGRAM = Path(nemorun.__file__).with_name("ray.sh")

# `start` notes its options and stays until it is ended; `status` counts who has.
RAY = """\
#!/bin/sh
case $1 in
status) cat "$BOOK/status"; exit ;;
esac
printf '%s\\n' "$@" >"$BOOK/options.$SLURM_NODEID"
case " $* " in
*" --ray-client-server-port="*) [ ! -e "$BOOK/minimal" ] || { echo 'Ray Client requires ray[client]'; exit 1; } ;;
esac
[ ! -e "$BOOK/refuses.$SLURM_NODEID" ] || { echo 'no room here'; exit 7; }
mkdir -p "$RAY_TMPDIR/ray"
case " $* " in
*" --head "*) echo 10.0.0.1:4711 >"$RAY_TMPDIR/ray/ray_current_cluster" ;;
*) [ -e "$BOOK/shy" ] || printf 'Active:\\n 1 node_a\\n 1 node_b\\nPending:\\n 1 node_c\\n' >"$BOOK/status" ;;
esac
echo "$$" >"$BOOK/pid.$SLURM_NODEID"
trap 'echo ended >"$BOOK/ended.$SLURM_NODEID"; exit 0' TERM
while :; do sleep 0.1; done
"""


@dataclass
class Nodes:
    """The nodes of one job, which share `folder` as a cluster's file system."""

    folder: Path
    shell: str = "sh"
    job: int = 4321
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("bin", "book", "scripts"):
            (self.folder / name).mkdir()
        (self.folder / "bin" / "ray").write_text(RAY)
        (self.folder / "bin" / "ray").chmod(0o755)
        (self.folder / "scripts" / "ray.sh").write_bytes(PROGRAM.read_bytes())
        (self.folder / "book" / "status").write_text("Active:\n 1 node_a\nPending:\n")
        # As the batch script does.
        (self.folder / "scripts" / f"ray-{self.job}-0").write_text("")

    def start(self, node: int, *program: str, patience: int = 20, nodes: int = 2, **more: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "BOOK": str(self.folder / "book"),
            "SLURM_JOB_ID": str(self.job),
            "SLURM_NODEID": str(node),
            "SLURM_STEP_NUM_NODES": str(nodes),
            "SLURMD_NODENAME": f"n{node}",
            **more,
        }
        command = [self.shell, str(self.folder / "scripts" / "ray.sh"), "0", "0", str(patience), *program]
        made = subprocess.Popen(
            command, env=environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.started.append(made)
        return made

    def ended(self, node: subprocess.Popen[str]) -> tuple[int, str]:
        """Its status and what it printed. None of Ray is left then, and nothing in /tmp."""
        output, _ = node.communicate(timeout=60)
        return node.returncode, output

    def options(self, node: int) -> list[str]:
        return (self.folder / "book" / f"options.{node}").read_text().split()

    def told(self, name: str) -> None:
        (self.folder / "book" / name).touch()

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 20
        while not (self.folder / "book" / name).exists():
            assert time.monotonic() < deadline, name
            time.sleep(0.05)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    # One number for each test, because the folder in /tmp is called after it.
    made = Nodes(tmp_path, job=os.getpid() * 1000 + int(time.monotonic() * 1000) % 1000)
    yield made
    for process in made.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert not Path(f"/tmp/ray-{made.job}-0").exists()


@pytest.mark.parametrize(("status", "shell"), [(0, "sh"), (3, "dash"), (3, "bash")])
def test_the_programs_status_is_the_first_nodes_and_all_others_end_well(nodes: Nodes, status: int, shell: str) -> None:
    nodes.shell = shell
    show = f'echo "$RAY_ADDRESS $1 $(ls book)"; exit {status}'
    cluster = {"SLURM_CPUS_ON_NODE": "12", "SLURM_GPUS_ON_NODE": "2", "SLURM_MEM_PER_NODE": "1000"}
    second, first = nodes.start(1), nodes.start(0, "sh", "-c", show, "sh", "it's $HOME", **cluster)
    ended, output = nodes.ended(first)
    # srun would kill who is still there, and take that for the job's status.
    assert (nodes.folder / "scripts" / f"ray-{nodes.job}-0.1").exists()
    assert ended == status, output
    assert "ray on n0: 2 of 2 nodes at 10.0.0.1:4711\n10.0.0.1:4711 it's $HOME " in output
    assert nodes.ended(second)[0] == 0
    assert (nodes.folder / "book" / "ended.0").exists()
    assert (nodes.folder / "book" / "ended.1").exists()
    assert {"--head", "--block", "--num-cpus=12", "--num-gpus=2", "--port=0"} <= set(nodes.options(0))
    assert {"--include-dashboard=false", "--object-store-memory=314572000"} <= set(nodes.options(0))
    assert {"--block", "--address=10.0.0.1:4711"} <= set(nodes.options(1))


def test_one_node_waits_for_nobody(nodes: Nodes) -> None:
    nodes.told("minimal")
    ended, output = nodes.ended(nodes.start(0, "sh", "-c", "exit 5", nodes=1))
    assert (ended, "1 of 1 nodes" in output) == (5, True)
    assert not [option for option in nodes.options(0) if "client" in option], "without ray[client] it refuses the option"


def test_a_node_that_cannot_start_ray_fails_the_job(nodes: Nodes) -> None:
    nodes.told("refuses.1")
    first, second = nodes.start(0, "true"), nodes.start(1)
    ended, output = nodes.ended(second)
    assert (ended, "ended by itself with status 7" in output, "no room here" in output) == (1, True, True)
    # srun ends the others then.
    first.terminate()
    assert nodes.ended(first)[0] == 143


def test_a_node_whose_ray_ends_fails_the_job(nodes: Nodes) -> None:
    first, second = nodes.start(0, "sleep", "30"), nodes.start(1)
    nodes.wait_for("pid.1")
    os.kill(int((nodes.folder / "book" / "pid.1").read_text()), signal.SIGKILL)
    assert nodes.ended(second)[0] == 1
    os.killpg(first.pid, signal.SIGTERM)
    assert nodes.ended(first)[0] == 143


def test_nodes_that_do_not_come(nodes: Nodes) -> None:
    nodes.told("shy")
    first, second = nodes.start(0, "true", patience=3), nodes.start(1)
    ended, output = nodes.ended(first)
    assert (ended, "after 3 s only 1 of 2 nodes have joined" in output) == (1, True)
    assert nodes.ended(second)[0] == 0


def test_a_first_node_that_does_not_come(nodes: Nodes) -> None:
    ended, output = nodes.ended(nodes.start(1, patience=2))
    assert (ended, "the first node was not ready after 2 s" in output) == (1, True)


def test_without_ray(nodes: Nodes) -> None:
    (nodes.folder / "bin" / "ray").unlink()
    ended, output = nodes.ended(nodes.start(0, "true", nodes=1, PATH="/usr/bin:/bin"))
    assert (ended, "there is no program `ray` in PATH" in output) == (1, True)


def test_the_program_gets_what_slurm_sends(nodes: Nodes) -> None:
    """A signal goes to every process of the job: the program may save its work, Ray stays for `USR1`, and nothing outlives the end."""
    saves = "trap 'echo saved; exit 9' USR1; touch book/up; while :; do sleep 0.1; done"
    second, first = nodes.start(1), nodes.start(0, "bash", "-c", saves)
    nodes.wait_for("up")
    os.killpg(first.pid, signal.SIGUSR1)
    ended, output = nodes.ended(first)
    assert (ended, "saved" in output) == (9, True)
    assert nodes.ended(second)[0] == 0


def test_a_folder_of_somebody_else_is_not_used(nodes: Nodes) -> None:
    place = Path(f"/tmp/ray-{nodes.job}-0")
    place.symlink_to(nodes.folder)
    try:
        ended, output = nodes.ended(nodes.start(0, "true", nodes=1))
        assert (ended, "is there already, and not ours" in output) == (1, True)
    finally:
        place.unlink()
