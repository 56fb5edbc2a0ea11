"""What an exception says of a failure, by its class and its message: the wording of PyTorch, CUDA, NCCL, Python and the system → a cause.

A pattern begins where such a message begins: what merely mentions a word says nothing. The machine is blamed by those alone that pass on
what the system says; wording as the projects print it, the sources stand beside the patterns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from dispatcher.servicesigns import of_client, unreached


class Rank(IntEnum):
    """How far a sign goes before others: what makes exceptions in a program goes before those, what follows from them behind."""

    DECISIVE = 0
    SPECIFIC = 1
    PROGRAM = 2
    CONSEQUENCE = 3
    WEAK = 4


class Sign(NamedTuple):
    """A cause (a name of `causes.CAUSES`), and how far it goes before others."""

    cause: str
    rank: Rank


# The launcher's own exception, which says that another process failed; what asks a program to end; what only tells of another exception.
WRAPPERS = frozenset(
    {"ChildFailedError", "KeyboardInterrupt", "SignalException", "CalledProcessError", "ProcessRaisedException", "SystemExit"}
    | {"ExceptionGroup", "BaseExceptionGroup", "InstantiationException", "EngineDeadError"}
)

# What the interpreter itself raises for a mistake in a program: whatever such an exception's message quotes.
_MISTAKES = frozenset(
    {"ArithmeticError", "AssertionError", "AttributeError", "IndexError", "KeyError", "LookupError", "NameError", "NotImplementedError"}
    | {"OverflowError", "RecursionError", "StopIteration", "TypeError", "UnboundLocalError", "ValueError", "ZeroDivisionError"}
)

_D, _S, _P, _C, _W = Rank

# How CUDA's errors are told: by PyTorch, by Transformer Engine, and by NCCL in the last line of its own error.
_CUDA = r"(?:CUDA error: |.{1,400} in function .{1,80}: CUDA Error: |NCCL error.{0,1200} Last error: Cuda failure (?:\d+ )?')"

# https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDACachingAllocator.cpp, …/c10/cuda/CUDAException.cpp,
# …/torch/csrc/distributed/c10d/, https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html (cudaGetErrorString)
_EXCEPTIONS: tuple[tuple[str, Rank, str], ...] = (
    (
        "gpu-fault",
        _D,
        _CUDA + r"(?:uncorrectable ECC error|an uncorrectable NVLink error|uncorrectable NVLink error|unknown error.*GPU is lost)",
    ),
    ("gpu-fault", _D, r"(?:CUDA error: hardware stack error|CUDA error: GPU is lost|.*GPU is lost\.? +Reboot the system)"),
    ("gpu-shared", _S, r"CUDA out of memory\..*Process \d+ has \d.*Process \d+ has \d"),
    ("gpu-memory", _S, r"(?:CUDA out of memory|HIP out of memory|CUDA driver error: out of memory|" + _CUDA + "out of memory)"),
    ("gpu-memory", _S, r"CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
    ("gpu-memory", _S, r".{0,200}(?:RESOURCE_EXHAUSTED: Out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation)"),
    ("shared-memory", _S, r".{0,300}(?:is killed by signal: Bus error|out of shared memory|unable to (?:open|allocate) shared memory)"),
    ("shared-memory", _S, r"unable to (?:write to|resize|mmap \d+ bytes from) file </(?:torch_|dev/shm/)"),
    ("shared-memory", _S, r"NCCL error.{0,1200} Last error: Error while creating shared memory segment"),
    ("host-memory", _S, r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) is killed by signal: Killed"),
    ("host-memory", _S, r".{0,200}(?:can't allocate memory: you tried to allocate|\[Errno 12\] Cannot allocate memory|std::bad_alloc)"),
    (
        "host-memory",
        _S,
        r"(?:unable to mmap \d+ bytes from .{1,300}: Cannot allocate memory|Task was killed due to the node running low on memory)",
    ),
    ("host-memory", _S, r"(?:Unable to allocate \S+ \S+ for an array|CUDA error: (?:pinned|host) memory)"),
    ("quota", _S, r".{0,200}(?:\[Errno 122\]|Disk quota exceeded|os error 122)"),
    ("disk-full", _S, r".{0,300}(?:\[Errno 28\]|No space left on device|StorageFull|os error 28)"),
    # The machine is blamed by what the system says itself: at the beginning, or passed on at the end. In between it is only quoted.
    ("file-system", _S, r"\[Errno (?:5|108|116)\] (?:Error \w|Unable to )"),
    ("file-system", _S, r"(?:.{1,300}: |\[\('.{1,600}, \")?\[Errno (?:5|108|116)\] [A-Z][a-z /]{1,50}(?:: ['b/].{0,1000}|\"\)\])?$"),
    ("file-system", _S, r"\[Errno 107\] Transport endpoint is not connected: ['b/]"),
    ("file-system", _S, r"Unable to \w+ .{0,80}errno = (?:5|116),"),
    ("file-system", _S, r"Error while (?:de)?serializing.{0,40}(?:\(os error (?:5|116)\)|code: (?:5|116), )"),
    ("read-only", _S, r".{0,200}(?:\[Errno 30\]|Read-only file system)"),
    (
        "checkpoint-write",
        _S,
        r".{0,200}(?:PytorchStreamWriter failed writing file|\[enforce fail at inline_container\.cc:\d+\].{0,40}unexpected pos)",
    ),
    (
        "gpu-missing",
        _S,
        r"(?:No CUDA GPUs are available|Found no NVIDIA driver on your system|CUDA error: no CUDA-capable device|"
        r"Unexpected error from cudaGetDeviceCount)",
    ),
    (
        "gpu-missing",
        _S,
        r"(?:CUDA error: (?:all CUDA-capable devices are|CUDA-capable device\(s\) is/are) busy|CUDA unknown error|"
        r"CUDA error: (?:system not yet initialized|initialization error))",
    ),
    (
        "gpu-missing",
        _S,
        r"(?:The NVIDIA driver on your system is too old|CUDA error: CUDA driver version is insufficient|"
        r"CUDA error: invalid device ordinal)",
    ),
    # https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/fabric/utilities/device_parser.py
    ("gpu-missing", _S, r"(?:No supported gpu backend found!|You requested gpu: \[)"),
    ("device-assert", _P, r"CUDA error: device-side assert triggered"),
    ("gpu-build", _P, r"CUDA error: (?:no kernel image is available|the provided PTX was compiled|device kernel image is invalid)"),
    (
        "gpu-program",
        _P,
        _CUDA + r"(?:an illegal memory access|misaligned address|unspecified launch failure|the launch timed out|"
        r"an illegal instruction|invalid (?:argument|configuration)|Invalid access of peer GPU memory)",
    ),
    ("gpu-program", _P, r"CUDA error: CUBLAS_STATUS_"),
    ("gpu-program", _P, r"cuDNN error: CUDNN_STATUS_"),
    ("gpu-program", _P, r"(?:GET was u|U)nable to find (?:an engine to execute this|a valid cuDNN algorithm)"),
    ("gpu-program", _P, r".{1,400} in function .{1,80}: (?:cuBLAS|cuDNN|CUDA) Error: "),
    (
        "collective-timeout",
        _C,
        r".{0,120}(?:Watchdog caught collective operation timeout|Timed out waiting \d+ms for (?:recv|send) operation)",
    ),
    (
        "collective-timeout",
        _C,
        r"(?:Detected mismatch between collectives on ranks|\[Rank \d+\]: Ranks .{0,100} failed to pass monitoredBarrier)",
    ),
    ("address-in-use", _C, r".{0,200}(?:EADDRINUSE|\[Errno 98\]|Address already in use)"),
    (
        "rendezvous",
        _C,
        r".{0,200}(?:client socket has (?:failed to connect|timed out)|waiting for clients\. \d+/\d+ clients joined|RendezvousTimeout)",
    ),
    (
        "peer-lost",
        _C,
        r".{0,200}(?:Connection closed by peer|Connection reset by peer|ncclRemoteError|Broken pipe|NCCL communicator was aborted)",
    ),
    (
        "peer-lost",
        _C,
        r"(?:\[\d+\] is setting up NCCL communicator and retrieving ncclUniqueId|Socket Timeout|Socket closed|recvValue failed)",
    ),
    ("peer-lost", _C, r"(?:Pin memory thread exited unexpectedly|Engine core initialization failed)"),
    ("rendezvous", _C, r"(?:Gloo connectFullMesh failed|DEADLINE_EXCEEDED: Barrier timed out)"),
    ("peer-lost", _C, r"\[[^\]]{0,160}/gloo/transport/"),
    ("killed", _W, r"(?:process \d+ terminated with signal SIGKILL|A process in the process pool was terminated abruptly)"),
    ("crash", _W, r"process \d+ terminated with signal SIG(?:ILL|ABRT|BUS|FPE|SEGV)"),
    ("peer-lost", _C, r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:exited unexpectedly|is killed by signal: (?:Terminated|Aborted))"),
    ("nccl", _C, r"(?:NCCL error|NCCL Error|.{0,80}nccl(?:UnhandledCuda|System|Internal|InvalidUsage)Error)"),
    # What CUDA may say beside all of that is not always the program's.
    ("gpu-program", _P, r"(?:CUDA|HIP) error: "),
    ("unknown-host", _S, r".{0,600}(?:Name or service not known|nodename nor servname|NameResolutionError|\[Errno -[25]\])"),
    (
        "unreachable",
        _S,
        r".{0,600}(?:Max retries exceeded with url|We couldn't connect to '|Network is unreachable|No route to host|\[Errno 11[0134]\])",
    ),
    (
        "access",
        _S,
        r".{0,200}(?:40[13] Client Error|Client error '40[13] |HTTP Error 40[13]: |401 Unauthorized|"
        r"gated repo|Access to model \S+ is restricted|API key must be)",
    ),
)

# What is a mistake's by its class, but more than that by its exact words.
_OF_MISTAKES: tuple[tuple[str, Rank, str], ...] = (
    (
        "not-a-number",
        _P,
        r".{0,200}(?:found NaN in local|[Ll]oss (?:is|became|was) (?:NaN|nan|inf)|Unexpected result nan|[Nn]aN (?:loss|detected)|"
        r"The loss returned in `training_step` is (?:nan|inf))",
    ),
    # numpy's C interface, https://github.com/cython/cython/blob/master/Cython/Utility/ImportExport.c
    ("library", _P, r"numpy\.\w{1,20} size changed, may indicate binary incompatibility"),
    ("gpu-build", _P, r"Torch not compiled with CUDA enabled$"),
)

# What the class of an exception says, whatever its message is.
_NAMES: dict[str, Sign] = {
    "MemoryError": Sign("host-memory", _S),
    "_ArrayMemoryError": Sign("host-memory", _S),
    "ModuleNotFoundError": Sign("import", _P),
    "NVMLError_GpuIsLost": Sign("gpu-fault", _D),
    "NVMLError_LibRmVersionMismatch": Sign("gpu-missing", _S),
    "NVMLError_DriverNotLoaded": Sign("gpu-missing", _S),
    "SyntaxError": Sign("syntax", _P),
    "IndentationError": Sign("syntax", _P),
    "TabError": Sign("syntax", _P),
    "DistNetworkError": Sign("rendezvous", _C),
    "DistStoreError": Sign("rendezvous", _C),
    "RendezvousConnectionError": Sign("rendezvous", _C),
    "RendezvousTimeoutError": Sign("rendezvous", _C),
    "RendezvousClosedError": Sign("rendezvous", _C),
    "DistBackendError": Sign("nccl", _C),
    "ConnectionResetError": Sign("peer-lost", _C),
    "BrokenPipeError": Sign("peer-lost", _C),
    "ActorDiedError": Sign("peer-lost", _C),
    "NodeDiedError": Sign("peer-lost", _C),
    "WorkerCrashedError": Sign("peer-lost", _C),
    "GatedRepoError": Sign("access", _S),
    "gaierror": Sign("unknown-host", _S),
    "CommError": Sign("unreachable", _S),
    "OfflineModeIsEnabled": Sign("unreachable", _S),
    "LocalEntryNotFoundError": Sign("unreachable", _S),
}

_GPU_MEMORY = frozenset({"OutOfMemoryError", "torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError"})


def table(rows: Iterable[tuple[str, Rank, str]]) -> tuple[tuple[Sign, re.Pattern[str]], ...]:
    """The rows with their patterns compiled."""
    return tuple((Sign(cause, rank), re.compile(pattern)) for cause, rank, pattern in rows)


_BY_MISTAKE = table(_OF_MISTAKES)
_BY_MESSAGE = (*table(_EXCEPTIONS), *_BY_MISTAKE)
_LIBRARY = re.compile(r".{0,300}(?:cannot open shared object file|undefined symbol|GLIBC(?:XX)?_[\d.]+' not found)")


def of_exception(name: str, message: str) -> Sign | None:
    """What an exception says, by its name (with modules) and its message; None for one that is the program's own or a launcher's."""
    own = name.rpartition(".")[2]
    if own in WRAPPERS:
        return None
    if name in _MISTAKES:
        return first(_BY_MISTAKE, message)
    if own == "ImportError" or (own == "OSError" and _LIBRARY.match(message)):
        return Sign("library" if _LIBRARY.match(message) else "import", Rank.PROGRAM)
    if cause := of_client(name, message):
        return Sign(cause, Rank.SPECIFIC)
    if found := first(_BY_MESSAGE, message) or _NAMES.get(own):
        return found
    if name in _GPU_MEMORY:
        return Sign("gpu-memory", Rank.SPECIFIC)
    return Sign("unreachable", Rank.SPECIFIC) if unreached(name, message) else None


def first(rows: Iterable[tuple[Sign, re.Pattern[str]]], text: str) -> Sign | None:
    """The first row whose pattern is the text's beginning."""
    return next((sign for sign, pattern in rows if pattern.match(text)), None)


def of_message(message: str) -> Sign | None:
    """What a message says by itself, where a library writes it without a traceback."""
    return first(_BY_MESSAGE, message)


def is_mistake(name: str) -> bool:
    """Whether the interpreter raises such an exception for a mistake in a program, whatever its message quotes."""
    return name in _MISTAKES
