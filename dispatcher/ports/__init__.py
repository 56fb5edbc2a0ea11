"""What the story in `flow.py` asks of the world, as Protocols: effects/ makes them real, tests/fakes.py makes them quick.

Every value that crosses a port is a frozen dataclass of plain values, parsed by the effect that received it.
"""

from dispatcher.ports.clock import Clock
from dispatcher.ports.cluster import (
    ActiveRun,
    AlreadySubmitted,
    ClaimAnswer,
    Claimed,
    ClaimRequest,
    Cluster,
    CommandOutput,
    Held,
    InProgress,
    Probe,
    Refused,
    RunFiles,
    Standing,
    Submission,
    Submitted,
    Sweep,
    Upload,
)
from dispatcher.ports.code import Archive, Compiled, CompiledFile, Compiler, FileEntry, Package, PackageSpec
from dispatcher.ports.forge import Annotation, Button, Check, CheckRef, Comment, Conclusion, Forge, Label, PullRequest, Reaction

__all__ = [
    "ActiveRun",
    "AlreadySubmitted",
    "Annotation",
    "Archive",
    "Button",
    "Check",
    "CheckRef",
    "ClaimAnswer",
    "ClaimRequest",
    "Claimed",
    "Clock",
    "Cluster",
    "CommandOutput",
    "Comment",
    "Compiled",
    "CompiledFile",
    "Compiler",
    "Conclusion",
    "FileEntry",
    "Forge",
    "Held",
    "InProgress",
    "Label",
    "Package",
    "PackageSpec",
    "Probe",
    "PullRequest",
    "Reaction",
    "Refused",
    "RunFiles",
    "Standing",
    "Submission",
    "Submitted",
    "Sweep",
    "Upload",
]
