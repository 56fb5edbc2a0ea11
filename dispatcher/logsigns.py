"""What a line of a log says of a failure: the wording of CUDA, NCCL, Slurm, Pyxis, enroot, Python and the shells → a cause.

An exception's own line is looked up by `exceptionsigns.of_exception`, any other line by `of_line`. A pattern begins where such a line
begins: what merely mentions a word says nothing. Wording as the projects print it; the sources stand beside the patterns.
"""

from __future__ import annotations

import re

from dispatcher.exceptionsigns import Rank, Sign, of_message, table

_D, _S, _P, _C, _W = Rank

_SLURM = r"(?:slurmstepd(?:-\S{1,80})?|srun): (?:error: )?"
_PYXIS = r"(?:slurmstepd(?:-\S{1,80})?: )?(?:error: )?pyxis: +"
_DEEPSPEED = r"(?:\[[\d ,:-]{19,23}\] )?\[ERROR\] \[launch\.py:\d+:\w+\] \[.{1,1800}\] exits with return code = "
_TOOL = r"(?:cat|cp|dd|git|gzip|ln|mkdir|mv|pigz|rsync|sort|split|tar|tee|touch|unzip|wget|zstd): .{1,400}: "
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
    # What is wrong with the container, its mounts or the devices that were asked for is not the runtime's.
    ("container", _D, r"(?:" + _PYXIS + r")?(?:\[ERROR\] )?nvidia-container-cli: (?:container|mount|device|input) error: "),
    ("gpu-runtime", _D, r"(?:" + _PYXIS + r")?(?:\[ERROR\] )?(?:nvidia-container-cli: |/etc/enroot/hooks\.d/98-nvidia\.sh exited with)"),
    ("disk-full", _D, r"(?:" + _PYXIS + r"|\[ERROR\] |enroot-\S{1,20}: |Write failed because ).{0,200}No space left on device"),
    ("quota", _D, r"(?:" + _PYXIS + r"|\[ERROR\] |enroot-\S{1,20}: |Write failed because ).{0,200}Disk quota exceeded"),
    ("disk-full", _S, _TOOL + r"No space left on device(?: \(28\))?$"),
    ("quota", _S, _TOOL + r"Disk quota exceeded(?: \(122\))?$"),
    ("image", _D, r"dispatch: the image \S{1,1000} could not be imported: "),
    # The registry itself failed, or gave no more today.
    ("service", _D, r"(?:" + _PYXIS + r")?\[ERROR\] URL \S{1,400} returned error code: (?:429|50[0234])\b"),
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
    # Variables that contradict each other, options that this Slurm does not have.
    ("step", _S, r"srun: fatal: "),
    ("step", _S, _SLURM + r"TaskProlog failed"),
    ("step", _S, _SLURM + r"(?:Unable to allocate resources|Job/step already completing|task \d+ launch failed: )"),
    ("command-missing", _S, _SHELL + r".{1,200}: (?:command not found|not found)$"),
    ("command-missing", _S, _SHELL + r"'?.{1,200}'?: No such file or directory$"),
    ("not-executable", _S, _SHELL + r".{1,200}: (?:Permission denied|cannot execute.{0,60})$"),
    ("script-missing", _S, r"(?:\S{0,200}/)?python[\d.]*: can't open file '?.{1,400}: \[Errno 2\] No such file or directory"),
    ("import", _P, r"(?:\S{0,200}/)?python[\d.]*: (?:No module named \S{1,200}|Error while finding module specification for)"),
    ("launcher-arguments", _S, r"(?:torchrun|run\.py|torch\.distributed\.run|ft_launcher|accelerate)(?: <command> \S{1,40})?: error: "),
    ("arguments", _P, r"(?:\S{1,200}: )?error: (?:Parser key \"|unrecognized arguments|argument |the following arguments are required"
     r"|ambiguous option)"),
    # https://github.com/pallets/click/blob/main/src/click/exceptions.py; typer draws a box around the same words.
    ("arguments", _P, r"(?:Error: |│ )(?:No such (?:option|command)|Invalid value for|Missing (?:option|argument|parameter|command)"
     r"|Got unexpected extra argument|Option '\S{1,80}' (?:requires|does not take))"),
    ("arguments", _P, r"(?:Cannot find primary config '|(?:In '.{1,200}': )?Could not find '.{1,200}'$)"),
    ("arguments", _P, r"(?:Could not override '.{1,200}'\.|Error parsing override '|Key '.{1,200}' is not in struct"
     r"|Error merging override )"),
    ("library", _S, r"\S{1,200}: symbol lookup error: "),
    ("library", _S, r"\S{1,200}: error while loading shared libraries: "),
    # https://github.com/facebookresearch/hydra (hydra/_internal/instantiate, defaults_list, grammar)
    ("import", _P, r"Error locating target '"),
    ("arguments", _P, r"(?:You must specify '.{1,100}', e\.g, |See https://hydra\.cc/docs/\S{1,20}/advanced/override_grammar)"),
    # Printed by scripts that then stop of themselves: https://github.com/facebookresearch/detr/blob/main/engine.py and what came of it.
    ("not-a-number", _P, r"Loss is (?:nan|-?inf)\b.{0,20}, stopping training"),
    ("collective-timeout", _C, r".{0,240}ProcessGroupNCCL's watchdog got stuck for \d+ "),
    ("collective-timeout", _C, r".{0,200}\[Rank \d+\] Watchdog caught collective operation timeout"),
    ("shared-memory", _S, r".{0,160}NCCL WARN (?:Error while creating shared memory segment|Call to (?:posix_fallocate"
     r"|ftruncate) failed : No space left)"),
    ("nccl", _C, r".{0,160}NCCL WARN (?:NET/IB : Got completion|NET/IB: Got completion|Timeout waiting for"
     r"|Call to (?:connect|ibv_\w+) |Cuda failure|Connect to \S{1,80} failed)"),
    ("peer-lost", _C, r".{0,160}NCCL WARN (?:socket\S* : .{0,60}(?:Connection reset|Broken pipe)"
     r"|NET/Socket : .{0,80}(?:closed|reset)|Net : Connection closed by remote peer)"),
    ("peer-lost", _C, r"(?:ORTE|PRTE) has lost communication with a remote daemon"),
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

_BY_LINE, _BY_SCHEDULER = table(_LINES), table(_OF_SCHEDULER)
# PyTorch's watchdog tells of an error of CUDA in one line, and ends the process with one of its own:
# https://github.com/pytorch/pytorch/blob/main/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp
_WATCHDOG = re.compile(r".{0,300}[Ww]atchdog thread terminated with exception: (?P<message>CUDA error: .+)")
_BY_SHELL = re.compile(_SHELL)
# An exception that a library has written in one line, or that C++ ends the process with.
_BARE = re.compile(
    r"(?:  what\(\): |(?:torch\.(?:cuda\.)?)?(?:OutOfMemoryError|RuntimeError|AcceleratorError|DistBackendError):) +(?P<message>.+)"
)


def of_line(text: str, scheduler_is_silent: bool) -> Sign | None:
    """What a line outside of any traceback says; an exception that a library has written in one line counts like a raised one."""
    watchdog = _WATCHDOG.match(text)
    if watchdog is not None:
        return of_message(watchdog["message"])
    tables = (_BY_SCHEDULER, _BY_LINE) if scheduler_is_silent else (_BY_LINE,)
    found = next((sign for table in tables for sign, pattern in table if pattern.match(text)), None)
    if found is not None:
        return found
    bare = _BARE.match(text)
    return of_message(bare["message"]) if bare else None


def of_shell(text: str) -> bool:
    """Whether a shell has written the line, which goes on after most of what it complains of."""
    return _BY_SHELL.match(text) is not None
