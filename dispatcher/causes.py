"""How a run may fail: the classes, and the causes that each of them has, with their words: what happened, whom that blames, what to do.

A cause is told by the scheduler, by the exit status or by the log (`diagnosis.py` decides which).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Kind(str, Enum):
    """The classes of failures, as people and `docs/failures.md` name them."""

    CODE = "code error"
    IMPORT = "import error"
    GPU_MEMORY = "out of GPU memory"
    HOST_MEMORY = "out of host memory"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    NODE = "node failure"
    NETWORK = "NCCL or network"
    DISK = "disk or quota"
    CANCELLED = "cancelled"
    DEPENDENCY = "dependency"
    LAUNCHER = "launcher"
    LOST = "lost"
    INFRASTRUCTURE = "infrastructure, unknown"
    UNEXPLAINED = "unexplained"
    """Nothing says why: that is said, and nothing is guessed."""


Blame = Literal["change", "machine", "unclear"]


BLAME_WORDS: Mapping[Blame, str] = {
    "change": "This looks like the change, not the machine.",
    "machine": "This looks like the machine, not the change.",
    "unclear": "Whether the change or the machine is to blame cannot be told from this.",
}


@dataclass(frozen=True)
class Cause:
    """One way to fail. `title` goes on behind the run's name (empty: the state's own words do); `step` is Markdown."""

    kind: Kind
    blames: Blame
    title: str
    step: str


_C, _M, _U = "change", "machine", "unclear"

CAUSES: Mapping[str, Cause] = {
    name: Cause(kind, blames, title, step)  # type: ignore[arg-type]  # the three words above are the three of Blame
    for name, (kind, blames, title, step) in {
        # Told by the scheduler.
        "time-limit": (
            Kind.TIMEOUT,
            _U,
            "",
            "Ask for less work, or raise `time` in the profile; where it hangs, the log's last line says since when.",
        ),
        "preempted": (Kind.PREEMPTED, _M, "", "Run it again, or in a partition or QOS that is not preempted."),
        "evicted": (
            Kind.PREEMPTED,
            _M,
            "was evicted from its node",
            "Run it again; ask for as much memory and disk as it uses, so that it is not the first to go.",
        ),
        "node-failed": (
            Kind.NODE,
            _M,
            "",
            "Run it again. When the same node fails twice, tell the cluster's administrators, and name it in `exclude`.",
        ),
        "host-memory-limit": (
            Kind.HOST_MEMORY,
            _U,
            "out of host memory",
            "Ask for more `mem`, or use less: fewer data loader workers, smaller shards, no second copy of a checkpoint.",
        ),
        "cancelled": (Kind.CANCELLED, _U, "", "Whoever ended it may know why."),
        "cancelled-here": (Kind.CANCELLED, _U, "", "Nothing is wrong with it."),
        "cancelled-by-user": (
            Kind.CANCELLED,
            _U,
            "",
            "The evidence says under which user id it was ended on the cluster; `id -un -- UID` there names it.",
        ),
        "cancelled-by-root": (
            Kind.CANCELLED,
            _M,
            "was cancelled by the cluster's administrators",
            "Ask them, or run it again: user id 0 ends jobs for maintenance and for limits of the site.",
        ),
        "dependency": (
            Kind.DEPENDENCY,
            _U,
            "",
            "Look at the run that it waited for.",
        ),
        "lost": (Kind.LOST, _U, "", "Its end is not known, so it does not count as passed: look at its log on the cluster."),
        "not-started": (
            Kind.LAUNCHER,
            _M,
            "could not be started by the scheduler",
            "Look at the folders that the job's log and its working directory are in; else ask the cluster's administrators.",
        ),
        "scheduler-failure": (
            Kind.INFRASTRUCTURE,
            _M,
            "was ended by the scheduler's own failure",
            "Run it again; the administrators can look the job up by its id.",
        ),
        # Out of memory.
        "gpu-memory": (
            Kind.GPU_MEMORY,
            _C,
            "out of GPU memory",
            "Use a smaller micro batch, activation checkpointing or more parallelism, or a profile whose GPUs have more memory.",
        ),
        "gpu-shared": (
            Kind.GPU_MEMORY,
            _U,
            "out of GPU memory",
            "The message counts memory of other processes on the same GPU: see whether an earlier job has left one behind (`nvidia-smi`).",
        ),
        "host-memory": (
            Kind.HOST_MEMORY,
            _U,
            "out of host memory",
            "Ask for more `mem`, or use less: fewer data loader workers, smaller shards, no second copy of a checkpoint.",
        ),
        "shared-memory": (
            Kind.HOST_MEMORY,
            _U,
            "out of shared memory (/dev/shm)",
            "Use fewer data loader workers, or give the container more shared memory.",
        ),
        "killed": (
            Kind.HOST_MEMORY,
            _U,
            "was killed, perhaps for lack of memory",
            "Look at the node's memory first: ask for more `mem`, or use less. Nothing says for certain what killed it.",
        ),
        # The machine.
        "gpu-fault": (
            Kind.NODE,
            _M,
            "stopped by a fault of a GPU",
            "Run it again on another node (`exclude`), and tell the cluster's administrators which node it was.",
        ),
        "gpu-missing": (
            Kind.NODE,
            _U,
            "found no usable GPU",
            "See whether the profile asks for GPUs (`gpus_per_node`). If it does, the node's driver is at fault: run it again elsewhere.",
        ),
        "node-failed-step": (
            Kind.NODE,
            _M,
            "stopped by the failure of a node",
            "Run it again. When the same node fails twice, tell the cluster's administrators, and name it in `exclude`.",
        ),
        "collective-timeout": (
            Kind.NETWORK,
            _U,
            "stopped: a collective operation timed out",
            "One rank waited for another: see which one wrote nothing last. It may be slow, dead, or in a branch of its own.",
        ),
        "nccl": (
            Kind.NETWORK,
            _U,
            "stopped by an NCCL error",
            "Run it again; if it fails once more, set `NCCL_DEBUG=INFO` in the profile's `env_vars` and look for the first `NCCL WARN`.",
        ),
        "rendezvous": (
            Kind.NETWORK,
            _U,
            "stopped: its processes did not find each other",
            "One node did not start, or cannot be reached: see whether each of them has written something.",
        ),
        "peer-lost": (
            Kind.NETWORK,
            _U,
            "stopped: the connection to another rank was lost",
            "Another process ended first: its own lines say why. If there are none, run it again.",
        ),
        "address-in-use": (
            Kind.LAUNCHER,
            _U,
            "stopped: the port of the rendezvous is in use",
            "Another job, or an earlier process of this one, has it: on shared nodes give each job its own port.",
        ),
        "unknown-host": (
            Kind.NETWORK,
            _U,
            "stopped: a name could not be resolved",
            "See whether the name is right; compute nodes may also have no way out: fetch data and models beforehand, or set "
            "`HF_HUB_OFFLINE=1`.",
        ),
        "name-resolution": (
            Kind.NETWORK,
            _M,
            "stopped: the name service did not answer",
            "Run it again; compute nodes may also have no way out: fetch data and models beforehand, or set `HF_HUB_OFFLINE=1`.",
        ),
        "unreachable": (
            Kind.NETWORK,
            _U,
            "stopped: a server could not be reached",
            "Compute nodes may have no way out: fetch data and models beforehand, or set `HF_HUB_OFFLINE=1`.",
        ),
        "disk-full": (
            Kind.DISK,
            _U,
            "stopped: no space left on a disk",
            "Free space where the evidence says, or write elsewhere; `/tmp` of a node is small.",
        ),
        "quota": (Kind.DISK, _U, "stopped: a disk quota is used up", "Delete old checkpoints, or ask for more quota."),
        "file-system": (
            Kind.DISK,
            _M,
            "stopped by an error of the file system",
            "Run it again; if it happens once more, tell the cluster's administrators the path and the node.",
        ),
        "read-only": (
            Kind.DISK,
            _U,
            "stopped: what it writes to is read-only",
            "Inside an image most folders are: write below the run's folder or a mount. Where a mount should be writable, ask the "
            "cluster's administrators.",
        ),
        "checkpoint-write": (
            Kind.DISK,
            _U,
            "stopped: a checkpoint could not be written",
            "Most often the disk is full or the quota used up: look at both where checkpoints go.",
        ),
        "access": (
            Kind.INFRASTRUCTURE,
            _U,
            "stopped: a service refused access",
            "See whether the token is there and valid (the profile's `secrets`), and whether its owner has accepted the model's terms.",
        ),
        "own-service": (
            Kind.INFRASTRUCTURE,
            _U,
            "stopped: a server of the job's own failed",
            "The server that answered runs beside the program: its own log says why.",
        ),
        "service": (Kind.INFRASTRUCTURE, _M, "stopped: a service failed", "Run it again later."),
        "terminated": (
            Kind.INFRASTRUCTURE,
            _U,
            "was asked to end (SIGTERM)",
            "Something on the node ended it, and the scheduler does not say what: look at the log's last lines.",
        ),
        # What starts it.
        "image": (
            Kind.LAUNCHER,
            _U,
            "could not start: its container image could not be brought",
            "See whether the image's name and tag exist, and whether the cluster's credentials for the registry are valid.",
        ),
        "container": (
            Kind.LAUNCHER,
            _U,
            "could not start its container",
            "See whether the mounts of the profile exist on the nodes, and whether the image has what is started.",
        ),
        "gpu-runtime": (
            Kind.LAUNCHER,
            _M,
            "could not start its container: the node's GPU runtime failed",
            "Run it again on another node, and tell the cluster's administrators.",
        ),
        "step": (
            Kind.LAUNCHER,
            _U,
            "could not start: the scheduler did not start its processes",
            "See whether nodes, tasks and GPUs of the profile fit each other; else ask the cluster's administrators.",
        ),
        "command-missing": (
            Kind.LAUNCHER,
            _C,
            "could not start: a command was not found",
            "See whether the image (or `setup_lines`) has the command that the evidence names.",
        ),
        "script-missing": (
            Kind.LAUNCHER,
            _C,
            "could not start: its script is not there",
            "See whether the packager packs it, and whether the recipe's path begins at the package's root.",
        ),
        "not-executable": (
            Kind.LAUNCHER,
            _C,
            "could not start: what it runs cannot be executed",
            "Make it executable, or name its interpreter in the recipe's `entrypoint`; see whether the image is built for this processor.",
        ),
        "launcher-arguments": (
            Kind.LAUNCHER,
            _C,
            "could not start: the launcher did not take its arguments",
            "See the recipe's `launcher` and the versions of torch in the image.",
        ),
        # The program.
        "import": (
            Kind.IMPORT,
            _U,
            "stopped: a module could not be imported",
            "If the module is the repository's own, see whether it is packed; else the image lacks it or has another version.",
        ),
        "library": (
            Kind.IMPORT,
            _U,
            "stopped: a shared library could not be loaded",
            "The image and what was built for it do not fit each other: see the versions of CUDA, torch and the extension.",
        ),
        "syntax": (Kind.CODE, _C, "stopped: a syntax error", "The line is named below."),
        "arguments": (
            Kind.CODE,
            _C,
            "stopped: the script did not take its arguments",
            "Compare the overrides and the recipe's `args` with what the script knows.",
        ),
        "exception": (Kind.CODE, _C, "stopped by an exception", "The traceback at the end of the log names the line."),
        "device-assert": (
            Kind.CODE,
            _C,
            "stopped by an assertion on the GPU",
            "Most often an index is out of range: run it with `CUDA_LAUNCH_BLOCKING=1` to see where.",
        ),
        "gpu-program": (
            Kind.CODE,
            _U,
            "stopped by an error of a GPU program",
            "Run it with `CUDA_LAUNCH_BLOCKING=1` to see where; if that varies from run to run, suspect the GPU.",
        ),
        "gpu-build": (
            Kind.CODE,
            _U,
            "stopped: code for this kind of GPU is missing",
            "The image was built for other GPUs: use one for this kind, or rebuild the extension.",
        ),
        "not-a-number": (
            Kind.CODE,
            _C,
            "stopped: the loss is not a number",
            "Look at the learning rate, the data and the precision around the step that the evidence names.",
        ),
        "crash": (
            Kind.CODE,
            _U,
            "crashed in native code",
            "Run it again; if it crashes in the same place, it is the program: `PYTHONFAULTHANDLER=1` shows where.",
        ),
        "disputed": (
            Kind.UNEXPLAINED,
            _U,
            "",
            "The evidence names something that went wrong on the machine; but the program went on after it, or failed in another way, too. "
            "The end of the log tells which of them it was.",
        ),
        "exit-status": (Kind.UNEXPLAINED, _U, "", "Neither scheduler nor log says why: the end of the log below is all there is."),
    }.items()
}
"""Every cause by its name."""


_FALLBACK: Mapping[Kind, Cause] = {kind: Cause(kind, "unclear", "", "The end of the log below usually names the reason.") for kind in Kind}


def words_of(kind: Kind, cause: str) -> Cause:
    """The cause's words; of a cause that a later version has written, those of its class."""
    known = CAUSES.get(cause)
    return known if known is not None and known.kind is kind else _FALLBACK[kind]


def blames_machine(cause: str) -> bool:
    """Whether a failure of this cause is run again. What somebody ended is not, administrators included: they meant it to end."""
    known = CAUSES.get(cause)
    return known is not None and known.blames == "machine" and known.kind is not Kind.CANCELLED
