"""A run at its end × its log × the files of its commit → the same run with why it failed, and the repository's lines that lead there.

The log is the job's word: a path that it names becomes a line of the repository only when the commit has such a file, with so many lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from dispatcher.diagnosis import Diagnosis, End, diagnose
from dispatcher.errors import DispatchError
from dispatcher.failure import MAX_PATH, Place
from dispatcher.record import CodeRoot, RunRecord
from dispatcher.slurm import State
from dispatcher.traceback_lines import function_of, in_package
from dispatcher.traceback_parts import Frame
from dispatcher.world import World

# So much of a failed run's log is looked through: its end, as far as ranks that fail together write in their last moments.
EXPLAIN_READ = 512 * 1024
# So many files of the commit are asked for, the innermost of a traceback first.
_MAX_FILES = 6
# Where a job in a container, or behind an API, has its code.
_IN_CONTAINER = "/nemo_run/code"


def wants_explanation(record: RunRecord) -> bool:
    """Whether it ended badly and nobody has said why yet."""
    return record.state.ended and record.state not in (State.SUCCEEDED, State.SKIPPED) and record.failure is None


def _no_batch_log() -> str:
    return ""


def explained(record: RunRecord, log: str, world: World, exit_file: str = "", batch_log: Callable[[], str] = _no_batch_log) -> RunRecord:
    """The record with its failure. `log` is the end of the run's log, redacted; `exit_file` is the status that its script left.

    `batch_log` reads the end of what the batch script itself printed, redacted; it is asked only where the run's log does not settle it.
    """
    if not wants_explanation(record):
        return record
    record = record.model_copy(update={"exit_code": _whole_status(record, exit_file)})
    by_scheduler = record.evidence not in ("", "exit file")
    who = record.evidence or "scheduler"
    end = End(record.state, record.exit_code, record.signal, record.reason, by_scheduler, who, record.given_up)
    found = diagnose(end, log)
    if found is not None and not found.settled and (more := batch_log()):
        found = diagnose(end, log, more)
    if found is None:
        return record
    failure = found.failure.model_copy(update={"places": _places(found, record, world)})
    return record.model_copy(update={"failure": failure})


def _whole_status(record: RunRecord, exit_file: str) -> int | None:
    """The exit code; Slurm keeps seven bits of it (137 becomes 9), where the batch script itself has left all of them."""
    told, left = record.exit_code, exit_file.strip()
    if told is None or record.parts != 1 or record.signal or not left.isdigit() or len(left) > 3:
        return told
    return int(left) if int(left) & 0x7F == told else told


def _places(found: Diagnosis, record: RunRecord, world: World) -> tuple[Place, ...]:
    """The frames that are lines of the commit, in the traceback's order."""
    if record.uncommitted:
        return ()
    roots = (f"{record.run_dir}/code", _IN_CONTAINER)
    # The code of a run that has joined another one's job lies with that one.
    ends = tuple(f"runs/{key}/code" for key in (record.run_key, record.same_as) if key)
    inside = [(path, frame) for frame in found.frames if (path := in_package(frame, roots, ends)) is not None]
    length = _Lengths(record, world)
    places = [_place(path, frame, record.code_roots, length) for path, frame in reversed(inside)]
    return tuple(dict.fromkeys(place for place in reversed(places) if place is not None))


def _place(path: str, frame: Frame, roots: Iterable[CodeRoot], length: Callable[[str], int]) -> Place | None:
    for candidate in _candidates(path, tuple(roots) or (CodeRoot(),)):
        if len(candidate) <= MAX_PATH and frame.line <= length(candidate):
            return Place(path=candidate, line=frame.line, function=function_of(frame))
    return None


def _candidates(path: str, roots: Iterable[CodeRoot]) -> Iterator[str]:
    """Where in the repository a file of the package may come from."""
    for root in roots:
        below = path if not root.package else path.removeprefix(f"{root.package}/")
        if not root.package or below != path:
            yield f"{root.repository}/{below}" if root.repository else below


class _Lengths:
    """How many lines the commit's files have; each is asked for once, and few of them at all."""

    def __init__(self, record: RunRecord, world: World) -> None:
        self._record, self._world = record, world
        self._known: dict[str, int] = {}

    def __call__(self, path: str) -> int:
        """0 for what is no file there, or could not be read."""
        if path not in self._known:
            self._known[path] = self._count(path) if len(self._known) < _MAX_FILES else 0
        return self._known[path]

    def _count(self, path: str) -> int:
        try:
            forge, sha = self._world.forge, self._record.sha
            text = forge.read_text(path, sha) if forge is not None else self._world.archive().read_text(sha, path)
        except DispatchError as error:
            self._world.say(f"Whether {path} has the line that the log names is not known: {error.cause}")
            return 0
        return len(text.splitlines()) if text is not None else 0
