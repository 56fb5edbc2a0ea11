"""The logs in `tests/data/failures`, how each of their jobs ended, and what is expected to be found; and the confusion table of the two.

The logs are written for these tests, in the words in which PyTorch, CUDA, NCCL, Slurm, Pyxis, enroot, Python and the shells print.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from dispatcher.diagnosis import Diagnosis, End, diagnose
from dispatcher.docs.pages import table
from dispatcher.failure import CAUSES, Kind
from dispatcher.slurm import State

FOLDER = Path(__file__).parent / "data" / "failures"
_FAILED = End(State.FAILED, exit_code=1, reason="NonZeroExitCode", who="sacct")


@dataclass(frozen=True)
class Case:
    """One log: the cause that is to be found, and how the job ended."""

    name: str
    cause: str
    end: End = _FAILED

    @property
    def kind(self) -> Kind:
        """The class that is to be found."""
        return CAUSES[self.cause].kind

    @property
    def log(self) -> str:
        """As `observe.look` reads it."""
        return (FOLDER / f"{self.name}.log").read_bytes().decode("utf-8", "replace")

    def diagnosed(self) -> Diagnosis:
        """What is found."""
        found = diagnose(self.end, self.log)
        assert found is not None
        return found


def _ended(state: State, code: int | None = 0, signal: int | None = None, reason: str = "") -> End:
    return End(state, code, signal, reason, who="sacct")


_BY_ROOT = _ended(State.CANCELLED, 0, 15, "cancelled by user id 0")


def _status(code: int | None, signal: int | None = None, reason: str = "NonZeroExitCode") -> End:
    return _ended(State.FAILED, code, signal, reason)


CASES: tuple[Case, ...] = (
    *(
        Case(name, cause)
        for name, cause in {
            "code-value-error": "exception",
            "code-key-error-chained": "exception",
            "code-direct-cause": "exception",
            "code-torchrun-rank3": "exception",
            "code-interleaved-ranks": "exception",
            "code-srun-label": "exception",
            "code-syntax-error": "syntax",
            "code-hydra-override": "arguments",
            "code-dataloader-worker": "exception",
            "code-device-assert": "device-assert",
            "code-illegal-memory-access": "gpu-program",
            "code-no-kernel-image": "gpu-build",
            "code-nan-loss": "not-a-number",
            "code-assertion-custom": "exception",
            "code-colours": "exception",
            "code-ray-actor": "exception",
            "code-windows-lines": "exception",
            "code-torchrun-sigsegv": "crash",
            "import-module": "import",
            "import-name": "import",
            "import-dash-m": "import",
            "import-shared-object": "library",
            "import-undefined-symbol": "library",
            "gpu-oom": "gpu-memory",
            "gpu-oom-older-torch": "gpu-memory",
            "gpu-oom-cuda-error": "gpu-memory",
            "gpu-oom-cublas": "gpu-memory",
            "gpu-oom-jax": "gpu-memory",
            "gpu-oom-hidden-by-cleanup": "gpu-memory",
            "gpu-oom-others-lose-peer": "gpu-memory",
            "host-oom-older-slurm": "host-memory",
            "host-accounting-kill": "host-memory",
            "host-oom-memory-error": "host-memory",
            "host-oom-numpy": "host-memory",
            "host-oom-allocator": "host-memory",
            "host-oom-worker-killed": "host-memory",
            "host-shm-bus-error": "shared-memory",
            "host-shm-nccl": "shared-memory",
            "host-torchrun-sigkill": "killed",
            "nccl-watchdog": "collective-timeout",
            "nccl-unhandled-system-error": "nccl",
            "nccl-ib-completion": "nccl",
            "network-rendezvous": "rendezvous",
            "network-store-clients": "rendezvous",
            "network-gloo-peer": "peer-lost",
            "network-hub-unreachable": "unreachable",
            "network-name-resolution": "name-resolution",
            "network-monitored-barrier": "collective-timeout",
            "disk-full-save": "disk-full",
            "disk-quota": "quota",
            "disk-checkpoint-writer": "checkpoint-write",
            "disk-safetensors": "disk-full",
            "disk-stale-handle": "file-system",
            "disk-enroot-import": "disk-full",
            "launcher-image-unauthorised": "image",
            "launcher-image-dispatch": "image",
            "launcher-container-mount": "container",
            "launcher-container-entry": "container",
            "launcher-nvidia-hook": "gpu-runtime",
            "launcher-step": "step",
            "launcher-port-in-use": "address-in-use",
            "node-ecc": "gpu-fault",
            "node-xid": "gpu-fault",
            "node-no-gpu": "gpu-missing",
            "node-failure-no-kill": "node-failed-step",
            "infrastructure-gated": "access",
            "infrastructure-service": "service",
            "code-module-missing-at-start": "exception",
            "code-conda-missing-at-start": "exception",
            "code-survived-oom-retry": "exception",
            "code-survived-wandb": "exception",
            "code-survived-thread": "exception",
            "code-optional-import": "exception",
            "code-exception-ignored": "exception",
            "code-nccl-warnings-before": "exception",
            "code-step-retried": "exception",
            "code-hub-retried": "exception",
            "code-quota-warned": "exception",
            "code-own-exception-class": "exception",
            "code-exception-group": "exception",
            "code-rich": "exception",
            "code-pytest": "exception",
            "code-mpirun-label": "exception",
            "code-node-label": "exception",
            "code-timestamps": "exception",
            "code-64-ranks": "exception",
            "code-own-server-error": "exception",
            "code-click": "arguments",
            "code-typer": "arguments",
            "code-hydra-no-config": "arguments",
            "code-watchdog-illegal-access": "gpu-program",
            "gpu-oom-rich": "gpu-memory",
            "network-refused": "unreachable",
            "network-unknown-host": "unknown-host",
            "disk-read-only": "read-only",
            "infrastructure-hub-503": "service",
            "unexplained-rendezvous-warning": "exit-status",
            "unexplained-module-missing": "exit-status",
            "unexplained-exception-ignored": "exit-status",
            "unexplained-exit-1": "exit-status",
            "unexplained-empty": "exit-status",
            "attack-code-mentions-nccl": "exception",
            "attack-code-mentions-oom": "exception",
            "attack-survived-oom": "exception",
            "attack-pretends-time-limit": "exception",
            "attack-pretends-preemption": "exit-status",
            "attack-pretends-oom-in-state": "exception",
            "attack-markup": "exception",
            "attack-paths": "exception",
            "attack-binary": "exception",
            "attack-unterminated-traceback": "exception",
            "code-accelerate": "exception",
            "code-deepspeed": "exception",
            "code-deepspeed-overflow": "exception",
            "code-hydra-job": "exception",
            "code-pytest-short": "exception",
            "import-pytest-collect": "import",
            "host-deepspeed-sigkill": "killed",
            "launcher-driver-too-old": "gpu-missing",
            "infrastructure-own-server": "own-service",
            "unexplained-module-short": "exit-status",
            "code-survived-file-system": "exception",
            "unexplained-survived-file-system": "disputed",
            "code-survived-service": "exception",
            "code-after-contained-xid": "exception",
            "unexplained-two-errors": "disputed",
            "disk-wrapped": "file-system",
            "unexplained-rendezvous-survived": "exit-status",
            "code-teardown": "exception",
            "code-rich-locals": "exception",
        }.items()
    ),
    Case("code-argparse", "arguments", _status(2)),
    Case("code-segfault", "crash", _status(139)),
    Case("code-abort", "crash", _status(134)),
    Case("host-oom-cgroup", "host-memory-limit", _ended(State.OUT_OF_MEMORY, 0, 125)),
    Case("host-bad-alloc", "host-memory", _status(134)),
    Case("host-kernel-oom", "host-memory", _status(137)),
    Case("launcher-command-not-found", "command-missing", _status(127)),
    Case("launcher-execve", "command-missing", _status(2)),
    Case("launcher-script-missing", "script-missing", _status(2)),
    Case("launcher-torchrun-arguments", "launcher-arguments", _status(2)),
    Case("launcher-exec-format", "not-executable", _status(126)),
    Case("timeout", "time-limit", _ended(State.TIMEOUT, 0, 15)),
    Case("timeout-while-nccl-waits", "time-limit", _ended(State.TIMEOUT, 0, 15)),
    Case("preempted", "preempted", _ended(State.PREEMPTED, 0, 15)),
    Case("node-fail", "node-failed", _ended(State.NODE_FAIL, 0, 0)),
    Case("cancelled", "cancelled-by-user", _ended(State.CANCELLED, 0, 15, "cancelled by user id 1017")),
    Case("cancelled-here", "cancelled-here", replace(_BY_ROOT, given_up="cancelled by alice")),
    Case("cancelled-by-root", "cancelled-by-root", _BY_ROOT),
    Case("cancelled-traceback", "cancelled", _ended(State.CANCELLED, 0, 15)),
    Case("dependency", "dependency", _ended(State.CANCELLED, 0, 0, "DependencyNeverSatisfied")),
    Case("lost", "lost", _ended(State.LOST, None, None, "the scheduler no longer knows the job")),
    Case("not-started", "not-started", _status(0, 53, "RaisedSignal:53(Real-time_signal_19)")),
    Case("sigterm-143", "terminated", _status(143)),
)


def confusion() -> str:
    """Markdown: a row for each class, how many logs there are of it, and what was found."""
    rows = []
    for kind in Kind:
        cases = [case for case in CASES if case.kind is kind]
        found = Counter(case.diagnosed().failure.kind.value for case in cases)
        other = ", ".join(f"{name}: {count}" for name, count in found.items() if name != kind.value)
        rows.append((kind.value, str(len(cases)), str(found[kind.value]), other or "–"))
    right = sum(int(row[2]) for row in rows)
    return table(("class", "logs", "found as such", "taken for"), [*rows, ("**all**", str(len(CASES)), str(right), "–")])
