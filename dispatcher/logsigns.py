"""What a line of a log says of a failure: the wording of PyTorch, CUDA, NCCL, Slurm, Pyxis, enroot, Python and the shells → a cause.

An exception's own line is looked up by `of_exception`, any other line by `of_line`. A pattern begins where such a line begins: what
merely mentions a word says nothing. Wording as the projects print it; the sources stand beside the patterns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple


class Rank(IntEnum):
    """How far a sign goes before others: what makes exceptions in a program goes before those, what follows from them behind."""

    DECISIVE = 0
    SPECIFIC = 1
    PROGRAM = 2
    CONSEQUENCE = 3
    WEAK = 4


class Sign(NamedTuple):
    """A cause (a name of `failure.CAUSES`), and how far it goes before others."""

    cause: str
    rank: Rank


# The launcher's own exception, which says that another process failed; and what asks a program to end.
WRAPPERS = frozenset(
    {"ChildFailedError", "KeyboardInterrupt", "SignalException", "CalledProcessError", "ProcessRaisedException", "SystemExit"}
    | {"ExceptionGroup", "BaseExceptionGroup"}
)

# What the interpreter itself raises for a mistake in a program: whatever such an exception's message quotes.
_MISTAKES = frozenset(
    {"ArithmeticError", "AssertionError", "AttributeError", "IndexError", "KeyError", "LookupError", "NameError", "NotImplementedError"}
    | {"OverflowError", "RecursionError", "StopIteration", "TypeError", "UnboundLocalError", "ValueError", "ZeroDivisionError"}
)

_D, _S, _P, _C, _W = Rank

# https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDACachingAllocator.cpp, …/c10/cuda/CUDAException.cpp,
# …/torch/csrc/distributed/c10d/, https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html (cudaGetErrorString)
_EXCEPTIONS: tuple[tuple[str, Rank, str], ...] = (
    (
        "gpu-fault",
        _D,
        r"CUDA error: (?:uncorrectable ECC error|an uncorrectable NVLink error|uncorrectable NVLink error|unknown error.*GPU is lost)",
    ),
    ("gpu-fault", _D, r"(?:CUDA error: hardware stack error|CUDA error: GPU is lost|.*GPU is lost\.? +Reboot the system)"),
    ("gpu-shared", _S, r"CUDA out of memory\..*Process \d+ has \d.*Process \d+ has \d"),
    ("gpu-memory", _S, r"(?:CUDA (?:error: )?out of memory|HIP out of memory|CUDA driver error: out of memory)"),
    ("gpu-memory", _S, r"CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
    ("gpu-memory", _S, r".{0,200}(?:RESOURCE_EXHAUSTED: Out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation)"),
    ("shared-memory", _S, r".{0,300}(?:is killed by signal: Bus error|out of shared memory|unable to (?:open|allocate) shared memory)"),
    ("host-memory", _S, r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) is killed by signal: Killed"),
    ("host-memory", _S, r".{0,200}(?:can't allocate memory: you tried to allocate|\[Errno 12\] Cannot allocate memory|std::bad_alloc)"),
    ("host-memory", _S, r"(?:Unable to allocate \S+ \S+ for an array|CUDA error: (?:pinned|host) memory)"),
    ("quota", _S, r".{0,200}(?:\[Errno 122\]|Disk quota exceeded|os error 122)"),
    ("disk-full", _S, r".{0,300}(?:\[Errno 28\]|No space left on device|StorageFull|os error 28)"),
    ("file-system", _S, r".{0,200}(?:\[Errno 5\] Input/output error|\[Errno 116\]|Stale file handle)"),
    ("read-only", _S, r".{0,200}(?:\[Errno 30\]|Read-only file system)"),
    ("file-system", _S, r".{0,200}\[Errno 108\] Cannot send after transport endpoint shutdown"),
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
        r"(?:CUDA error: all CUDA-capable devices are busy|CUDA unknown error|"
        r"CUDA error: (?:system not yet initialized|initialization error))",
    ),
    (
        "gpu-missing",
        _S,
        r"(?:The NVIDIA driver on your system is too old|CUDA error: CUDA driver version is insufficient|"
        r"CUDA error: invalid device ordinal)",
    ),
    ("device-assert", _P, r"CUDA error: device-side assert triggered"),
    ("gpu-build", _P, r"CUDA error: (?:no kernel image is available|the provided PTX was compiled)"),
    (
        "gpu-program",
        _P,
        r"CUDA error: (?:an illegal memory access|misaligned address|unspecified launch failure|"
        r"an illegal instruction|invalid (?:argument|configuration))",
    ),
    ("gpu-program", _P, r"CUDA error: CUBLAS_STATUS_"),
    ("gpu-program", _P, r"cuDNN error: CUDNN_STATUS_"),
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
    ("peer-lost", _C, r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:exited unexpectedly|is killed by signal: (?:Terminated|Aborted))"),
    ("nccl", _C, r"(?:NCCL error|NCCL Error|.{0,80}nccl(?:UnhandledCuda|System|Internal|InvalidUsage)Error)"),
    (
        "name-resolution",
        _S,
        r".{0,600}(?:Temporary failure in name resolution|\[Errno -3\])",
    ),
    ("unknown-host", _S, r".{0,600}(?:Name or service not known|nodename nor servname|NameResolutionError|\[Errno -[25]\])"),
    (
        "unreachable",
        _S,
        r".{0,600}(?:Max retries exceeded with url|We couldn't connect to '|Network is unreachable|No route to host|\[Errno 11[0134]\])",
    ),
    (
        "access",
        _S,
        r".{0,200}(?:401 Client Error|403 Client Error|401 Unauthorized|gated repo|Access to model \S+ is restricted|API key must be)",
    ),
    (
        "not-a-number",
        _P,
        r".{0,200}(?:found NaN in local grad|[Ll]oss (?:is|became|was) (?:NaN|nan|inf)|Unexpected result nan|[Nn]aN (?:loss|detected))",
    ),
)

# What the class of an exception says, whatever its message is.
_NAMES: dict[str, Sign] = {
    "OutOfMemoryError": Sign("gpu-memory", _S),
    "MemoryError": Sign("host-memory", _S),
    "_ArrayMemoryError": Sign("host-memory", _S),
    "ModuleNotFoundError": Sign("import", _P),
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
    "GatedRepoError": Sign("access", _S),
    "gaierror": Sign("unknown-host", _S),
    "CommError": Sign("unreachable", _S),
    "OfflineModeIsEnabled": Sign("unreachable", _S),
    "LocalEntryNotFoundError": Sign("unreachable", _S),
}

_SLURM = r"(?:slurmstepd(?:-\S{1,80})?|srun): (?:error: )?"
_PYXIS = r"(?:slurmstepd(?:-\S{1,80})?: )?(?:error: )?pyxis: +"
_DEEPSPEED = r"(?:\[[\d ,:-]{19,23}\] )?\[ERROR\] \[launch\.py:\d+:\w+\] \[.{1,1800}\] exits with return code = "
_SHELL = r"(?:\S{1,200}: (?:line )?\d+: |bash: |/bin/(?:ba)?sh: |sh: \d+: |env: |\S{1,200}/(?:launch|task|job)\S{0,40}: )"

# https://github.com/SchedMD/slurm (src/slurmd/slurmstepd, src/srun), https://github.com/NVIDIA/pyxis, https://github.com/NVIDIA/enroot,
# https://github.com/NVIDIA/nccl (src/transport), https://docs.nvidia.com/deploy/xid-errors/
_LINES: tuple[tuple[str, Rank, str], ...] = (
    ("gpu-fault", _D, r"(?:\[ *\d+\.\d+\] )?NVRM: Xid \(PCI:[0-9a-f:.]+\): (?:48|63|64|74|79|94|95|119|120)\b"),
    ("gpu-fault", _D, r".{0,120}NCCL WARN .{0,120}(?:uncorrectable ECC error|uncorrectable NVLink error|GPU is lost)"),
    ("gpu-fault", _D, r"Unable to determine the device handle for (?:GPU|gpu).{0,60}(?:GPU is lost|Unknown Error)"),
    ("host-memory", _D, _SLURM + r"Detected \d+ oom[-_]kill event"),
    ("host-memory", _D, _SLURM + r"\S{1,100}: tasks? [\d,-]+: Out Of Memory"),
    ("host-memory", _D, _SLURM + r"(?:(?:Step|Job)(?:Id=| )\S{1,60} exceeded (?:virtual )?memory limit \("
     r"|Exceeded (?:job|step) memory limit)"),
    ("host-memory", _S, r"(?:\S{1,60} \S{1,60} kernel: |\[ *\d+\.\d+\] )?(?:Memory cgroup o|O)ut of memory: Killed process \d+"),
    ("host-memory", _S, r"(?:terminate called after throwing an instance of|  what\(\): +)'?std::bad_alloc"),
    ("node-failed-step", _D, _SLURM + r"Node failure on \S{1,200}$"),
    # https://github.com/NVIDIA/libnvidia-container; an image that asks for a newer CUDA than the driver's is refused on every node
    ("gpu-missing", _D, r"(?:" + _PYXIS + r")?(?:\[ERROR\] )?nvidia-container-cli: requirement error"),
    ("gpu-runtime", _D, r"(?:" + _PYXIS + r")?(?:\[ERROR\] )?(?:nvidia-container-cli: |/etc/enroot/hooks\.d/98-nvidia\.sh exited with)"),
    ("disk-full", _D, r"(?:" + _PYXIS + r"|\[ERROR\] |enroot-\S{1,20}: |Write failed because ).{0,200}No space left on device"),
    ("quota", _D, r"(?:" + _PYXIS + r"|\[ERROR\] |enroot-\S{1,20}: |Write failed because ).{0,200}Disk quota exceeded"),
    ("image", _D, r"dispatch: the image \S{1,1000} could not be imported: "),
    ("image", _D, r"(?:" + _PYXIS + r")?\[ERROR\] (?:URL \S{1,400} returned error code|Could not process JSON input"
     r"|Invalid image reference|No such file or directory: \S{1,300}\.sqsh)"),
    ("image", _S, _PYXIS + r"failed to (?:import docker image|create container filesystem)"),
    ("container", _D, r"(?:" + _PYXIS + r")?(?:enroot-(?:mount|switchroot|nsenter|makedevs|mksquashovlfs): "
     r"|\[ERROR\] (?:Command not found|File already exists|Failed to))"),
    ("container", _S, _PYXIS + r"(?:couldn't start container|container start failed|mkdir: cannot create directory)"),
    ("container", _S, _SLURM + r"spank: required plugin spank_pyxis\.so: \S{1,40} failed"),
    ("command-missing", _S, _SLURM + r"(?:execve\(\): \S{1,200}: No such file|task \d+ launch failed: No such file)"),
    ("not-executable", _S, _SLURM + r"(?:execve\(\): \S{1,200}: (?:Permission denied|Exec format error)"
     r"|task \d+ launch failed: (?:Exec format|Permission))"),
    ("step", _S, _SLURM + r"(?:Unable to create step for job|Task launch for (?:StepId=)?\S{1,40} failed on node"
     r"|Application launch failed|Unable to confirm allocation)"),
    ("step", _S, _SLURM + r"(?:Unable to allocate resources|Job/step already completing|task \d+ launch failed: )"),
    ("command-missing", _S, _SHELL + r".{1,200}: (?:command not found|not found)$"),
    ("command-missing", _S, _SHELL + r"'?.{1,200}'?: No such file or directory$"),
    ("not-executable", _S, _SHELL + r".{1,200}: (?:Permission denied|cannot execute.{0,60})$"),
    ("script-missing", _S, r"(?:\S{0,200}/)?python[\d.]*: can't open file '?.{1,400}: \[Errno 2\] No such file or directory"),
    ("import", _P, r"(?:\S{0,200}/)?python[\d.]*: (?:No module named \S{1,200}|Error while finding module specification for)"),
    ("launcher-arguments", _S, r"(?:torchrun|run\.py|torch\.distributed\.run|ft_launcher|accelerate)(?: <command> \S{1,40})?: error: "),
    ("arguments", _P, r"\S{1,200}\.py: error: (?:unrecognized arguments|argument |the following arguments are required"
     r"|ambiguous option)"),
    # https://github.com/pallets/click/blob/main/src/click/exceptions.py; typer draws a box around the same words.
    ("arguments", _P, r"(?:Error: |│ )(?:No such (?:option|command)|Invalid value for|Missing (?:option|argument|parameter|command)"
     r"|Got unexpected extra argument|Option '\S{1,80}' (?:requires|does not take))"),
    ("arguments", _P, r"(?:Cannot find primary config '|(?:In '.{1,200}': )?Could not find '.{1,200}'$)"),
    ("arguments", _P, r"(?:Could not override '.{1,200}'\.|Error parsing override '|Key '.{1,200}' is not in struct"
     r"|Error merging override )"),
    ("library", _S, r"\S{1,200}: error while loading shared libraries: "),
    ("collective-timeout", _C, r".{0,200}\[Rank \d+\] Watchdog caught collective operation timeout"),
    ("shared-memory", _S, r".{0,160}NCCL WARN (?:Error while creating shared memory segment|Call to (?:posix_fallocate"
     r"|ftruncate) failed : No space left)"),
    ("nccl", _C, r".{0,160}NCCL WARN (?:NET/IB : Got completion|NET/IB: Got completion|Timeout waiting for"
     r"|Call to (?:connect|ibv_\w+) |Cuda failure|Connect to \S{1,80} failed)"),
    ("peer-lost", _C, r".{0,160}NCCL WARN (?:socket\S* : .{0,60}(?:Connection reset|Broken pipe)"
     r"|NET/Socket : .{0,80}(?:closed|reset)|Net : Connection closed by remote peer)"),
    ("nccl", _C, r"(?:terminate called after throwing an instance of|  what\(\): +).{0,40}(?:c10::DistBackendError|NCCL )"),
    # Without IPv6 it says so at every start (errno 97), and goes on.
    ("rendezvous", _C, r"(?!.{0,400}\(errno: 97 ).{0,160}\[c10d\] The client socket has (?:timed out|failed to connect)"),
    ("killed", _W, r".{0,40}traceback : Signal 9 \(SIGKILL\) received by PID \d+"),
    # https://github.com/deepspeedai/DeepSpeed/blob/master/deepspeed/launcher/launch.py
    ("killed", _W, _DEEPSPEED + r"-9$"),
    ("crash", _W, _DEEPSPEED + r"-(?:4|6|8|11)$"),
    ("killed", _W, _SLURM + r"\S{1,100}: tasks? [\d,-]+: Killed"),
    ("shared-memory", _W, r".{0,40}traceback : Signal 7 \(SIGBUS\) received by PID \d+"),
    ("shared-memory", _W, _SLURM + r"\S{1,100}: tasks? [\d,-]+: Bus error"),
    ("crash", _W, r".{0,40}traceback : Signal (?:4|6|8|11) \(SIG\w{3,4}\) received by PID \d+"),
    ("crash", _W, r"(?:Fatal Python error: |terminate called after throwing an instance of|double free or corruption"
     r"|free\(\): invalid|malloc\(\): )"),
    ("crash", _W, _SLURM + r"\S{1,100}: tasks? [\d,-]+: (?:Segmentation fault|Aborted|Illegal instruction|Floating point exception)"),
)  # fmt: skip

# What only a scheduler can know: believed of a log only where there is no scheduler that says how a job ended.
_OF_SCHEDULER: tuple[tuple[str, Rank, str], ...] = (
    ("time-limit", _D, _SLURM + r"\*\*\* (?:JOB|STEP) \S{1,40} ON \S{1,100} CANCELLED AT \S{1,40} DUE TO TIME LIMIT"),
    ("preempted", _D, _SLURM + r"\*\*\* (?:JOB|STEP) \S{1,40} ON \S{1,100} CANCELLED AT \S{1,40} DUE TO PREEMPTION"),
    ("node-failed", _D, _SLURM + r"\*\*\* (?:JOB|STEP) \S{1,40} ON \S{1,100} CANCELLED AT \S{1,40} DUE TO NODE FAILURE"),
    ("cancelled", _C, _SLURM + r"\*\*\* (?:JOB|STEP) \S{1,40} ON \S{1,100} CANCELLED AT \S{1,40} \*\*\*"),
)


def _table(rows: Iterable[tuple[str, Rank, str]]) -> tuple[tuple[Sign, re.Pattern[str]], ...]:
    return tuple((Sign(cause, rank), re.compile(pattern)) for cause, rank, pattern in rows)


_BY_MESSAGE, _BY_LINE, _BY_SCHEDULER = _table(_EXCEPTIONS), _table(_LINES), _table(_OF_SCHEDULER)
# Only who speaks HTTP says what a server answered; any other exception that quotes it is the program's.
_SERVICE = re.compile(r".{0,200}(?:50[0234] Server Error|429 Client Error|Too Many Requests)")
_LOOPBACK = re.compile(r".{0,400}https?://(?:localhost|127\.\d|\[::1\]|0\.0\.0\.0)")
_HTTP = frozenset({"HTTPError", "HfHubHTTPError", "HTTPStatusError", "ClientResponseError", "ServerError", "RetryError"})
# PyTorch's watchdog tells of an error of CUDA in one line, and ends the process with one of its own:
# https://github.com/pytorch/pytorch/blob/main/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp
_WATCHDOG = re.compile(r".{0,300}[Ww]atchdog thread terminated with exception: (?P<message>CUDA error: .+)")
_BY_SHELL = re.compile(_SHELL)
_LIBRARY = re.compile(r".{0,300}(?:cannot open shared object file|undefined symbol|GLIBC(?:XX)?_[\d.]+' not found)")
_BARE = re.compile(r"(?:torch\.(?:cuda\.)?)?(?:OutOfMemoryError|RuntimeError|AcceleratorError|DistBackendError): (?P<message>.+)")


def of_exception(name: str, message: str) -> Sign | None:
    """What an exception says, by its name (with modules) and its message; None for one that is the program's own or a launcher's."""
    own = name.rpartition(".")[2]
    if own in WRAPPERS or name in _MISTAKES:
        return None
    if own == "ImportError" or (own == "OSError" and _LIBRARY.match(message)):
        return Sign("library" if _LIBRARY.match(message) else "import", Rank.PROGRAM)
    if own in _HTTP and _SERVICE.match(message):
        return Sign("own-service" if _LOOPBACK.match(message) else "service", Rank.SPECIFIC)
    return next((sign for sign, pattern in _BY_MESSAGE if pattern.match(message)), None) or _NAMES.get(own)


def of_line(text: str, scheduler_is_silent: bool) -> Sign | None:
    """What a line outside of any traceback says; an exception that a library has written in one line counts like a raised one."""
    watchdog = _WATCHDOG.match(text)
    if watchdog is not None:
        return next((sign for sign, pattern in _BY_MESSAGE if pattern.match(watchdog["message"])), None)
    tables = (_BY_SCHEDULER, _BY_LINE) if scheduler_is_silent else (_BY_LINE,)
    found = next((sign for table in tables for sign, pattern in table if pattern.match(text)), None)
    if found is not None:
        return found
    bare = _BARE.match(text)
    return next((sign for sign, pattern in _BY_MESSAGE if bare and pattern.match(bare["message"])), None)


def is_mistake(name: str) -> bool:
    """Whether the interpreter raises such an exception for a mistake in a program, whatever its message quotes."""
    return name in _MISTAKES


def of_shell(text: str) -> bool:
    """Whether a shell has written the line, which goes on after most of what it complains of."""
    return _BY_SHELL.match(text) is not None
