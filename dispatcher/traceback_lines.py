"""The lines of a log → the Python tracebacks in it, each with its frames and its exception; and frames → lines of the repository.

Lines of several ranks are told apart by what stands before them: torchrun's `[default3]:`, PyTorch's `[rank3]:`, the `3: ` of
`srun --label`, NeMo-Run's `run/0 `, Ray's `(train pid=7)`. https://docs.python.org/3/library/traceback.html, https://docs.pytorch.org/docs/stable/elastic/run.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dispatcher.hydra_report import failed_calls
from dispatcher.pytest_report import failed_tests
from dispatcher.traceback_parts import RAISED, Frame, Line, Traceback
from dispatcher.untrusted import printable, strip_ansi

MAX_LINE = 2000
_BREAK = re.compile(r"\r\n|\n|\r")
_LABEL = re.compile(
    r"\[rank(?P<rank>\d{1,6})\]:\s?|\[[a-z_]{1,30}?(?P<local>\d{1,6})\]:|\s{0,5}(?P<task>\d{1,5}):\s"
    r"|[A-Za-z_][\w.-]{0,9}/\d{1,5} "  # NeMo-Run's: role and replica
    r"|\((?P<actor>[A-Za-z_][\w.-]{0,60},? ?(?:rank=\d{1,6}, )?pid=\d{1,8}(?:, ip=[\w.:]{1,45})?)\)\s"
    r"|\[\d{1,6},(?P<mpi>\d{1,6})\]<std(?:err|out)>:"
)
# Before every line, where a log has them at all: a time, or the name of the node, of the pod, of a logger.
_TIME = re.compile(r"\[?(?:\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]?:?\s")
_PREFIX = re.compile(r"(?P<prefix>[^\s\"].{0,120}[\s:\]])Traceback \(most recent call last\):\s*$")
_LABELS = re.compile(rf"(?:{re.sub(r'[?]P<[a-z]+>', '?:', _LABEL.pattern)})+\s?")
# So many lines behind a header one of its frames has the same prefix.
_NEXT = 6
_HEADER = re.compile(r"(?:.{0,80}\s)?(?:Original )?Traceback \(most recent call last\):\s*$")
# One space is missing where a label has taken it; loguru points at the frame that caught the exception.
_FRAME = re.compile(r'(?: {1,2}|> )File "(?P<path>[^"]{1,1000})", line (?P<line>\d{1,9})(?:, in (?P<name>.{1,200}))?\s*$')
# rich draws a box around the frames, and so do typer and the commands of NeMo-Run: https://rich.readthedocs.io/en/stable/traceback.html.
_BOX_HEADER = re.compile(r"\s{0,8}╭─+ Traceback \(most recent call last\) ─+╮\s*$")
_BOX_FRAME = re.compile(r"│ (?P<path>/\S{1,300}\.py):(?P<line>\d{1,9}) in (?P<name>\S{1,200})\s*│?\s*$")
_BOX = re.compile(r"\s{0,8}[│╭╰]")
# The margin of an exception group: https://docs.python.org/3/library/traceback.html#traceback.TracebackException.
_GROUP = re.compile(r"(?P<margin> {2,60})(?:\| ?|\+ (?=Exception Group Traceback))")
# Whoever printed the traceback says that nothing came of it, or that only one thread ended.
_IGNORED = re.compile(r"Exception ignored in(?: thread started by)?: ")
_THREAD = re.compile(r"Exception in thread ")
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_ENDING = re.compile(r"(?:Error|Exception|Exit|Interrupt|Iteration|Warning|Failure|Timeout)$")
# What begins a line of a log much more often than it is an exception.
_NO_CLASS = frozenset({"Epoch", "Step", "Iteration", "Info", "Debug", "Warning", "Note", "Loss", "Rank", "Loading", "Saving", "Usage"})
_NO_CLASS |= {"Training", "Validation", "Done", "Time", "Total", "Using"}
# So many lines of others may stand inside a traceback.
_INTERLOPERS = 20
_RELATIVE = re.compile(r"(?!/)[^<>\x00-\x1f\x7f\\]{1,400}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}|<(?:module|lambda|listcomp|genexpr|dictcomp|setcomp)>")


def lines_of(log: str) -> list[Line]:
    """A log's text → its lines, each at most `MAX_LINE` characters long, in which no control character is left."""
    found: list[Line] = []
    raws = _BREAK.split(log)
    timed = any(match and _HEADER.match(raw[match.end() :]) for raw in raws if "Traceback" in raw and (match := _TIME.match(raw)))
    if timed:
        raws = [raw[time.end() :] if (time := _TIME.match(raw)) else raw for raw in raws]
    prefixes = _prefixes(raws)
    lengths = sorted({len(prefix) for prefix in prefixes}, reverse=True)
    for number, raw in enumerate(raws):
        text = raw if len(raw) <= MAX_LINE else raw[: MAX_LINE - 1] + "…"
        if not text.isascii() or not text.isprintable():
            text = printable(strip_ansi(text)).replace("\t", "    ")
        prefix = next((text[:length] for length in lengths if text[:length] in prefixes), "")
        found.append(_labelled(number, text[len(prefix) :].rstrip(), prefix.strip()))
    return found


def _prefixes(raws: Sequence[str]) -> set[str]:
    """What stands before each line of a traceback, and is no label of a rank: of each node or container one."""
    found: set[str] = set()
    for number, raw in enumerate(raws):
        header = _PREFIX.match(raw) if "Traceback (" in raw else None
        prefix = _without_labels(header["prefix"]) if header is not None else ""
        if (
            prefix
            and prefix not in found
            and any(' File "' in after[:240] for after in raws[number + 1 : number + _NEXT] if after.startswith(prefix))
        ):
            found.add(prefix)
    return found


def _without_labels(prefix: str) -> str:
    """The part of it that is no label of a rank; a label begins where a word does."""
    starts = (at for at in range(len(prefix) + 1) if at == 0 or prefix[at - 1] in " :]")
    return next((prefix[:at] for at in starts if at == len(prefix) or _LABELS.fullmatch(prefix, at)), prefix)


def _labelled(number: int, text: str, host: str) -> Line:
    """The labels before a line, of which there may be two, off."""
    stream, rank = host, None
    for _ in range(3):
        label = _LABEL.match(text)
        if label is None:
            break
        said = label["rank"] or label["task"] or label["mpi"]
        rank = int(said) if said is not None else rank if rank is not None else int(label["local"]) if label["local"] else None
        stream += label[0].strip()
        text = text[label.end() :]
    return Line(number, text, stream, rank)


def tracebacks(lines: Sequence[Line]) -> list[Traceback]:
    """Every traceback that is whole, in the order of their ends; lines of other ranks in between do no harm."""
    streams: dict[str, list[Line]] = {}
    for line in lines:
        streams.setdefault(line.stream, []).append(line)
    found = [one for stream in streams.values() for one in (*_in_stream(stream), *failed_tests(stream), *failed_calls(stream))]
    return sorted(found, key=lambda one: (one.last, one.first))


@dataclass
class _Open:
    """A traceback that has begun: its frames so far, and what may be its exception."""

    first: int
    margin: int = 0
    frames: list[Frame] = field(default_factory=list)
    between: int = 0
    indented: bool = True
    """The line before belongs to the frames."""
    perhaps: tuple[Line, str, str] | None = None
    """The line right behind the frames, where it has a name that no exception need have."""
    ignored: bool = False
    in_thread: bool = False

    def closed(self, line: Line, name: str, message: str, after: bool) -> Traceback:
        """The whole of it."""
        frames = tuple(self.frames)
        return Traceback(self.first, line.number, line.stream, line.rank, frames, name, message, after, self.ignored, self.in_thread)


def _in_stream(lines: Sequence[Line]) -> Iterator[Traceback]:
    """A header, or a frame without one (a syntax error has none), begins a traceback; the line that has an exception's name ends it."""
    begun: _Open | None = None
    after, above = False, ""
    for line in lines:
        text, stripped = _out_of_group(line.text), line.text.lstrip()
        if _HEADER.match(text) or _BOX_HEADER.match(text):
            if begun is not None and begun.perhaps is not None:
                yield begun.closed(*begun.perhaps, after)
                after = False
            own = text.lstrip()
            begun = _Open(line.number, len(text) - len(own) if own.startswith(("T", "traceback : T")) else 0)
            begun.ignored, begun.in_thread = _IGNORED.match(above) is not None, _THREAD.match(above) is not None
            continue
        above = text or above
        if begun is not None and begun.margin and not text[: begun.margin].strip():
            text = text[begun.margin :]
        frame = _FRAME.match(text) or _BOX_FRAME.match(text.lstrip())
        if frame is not None and (begun is not None or frame.re is _FRAME):
            begun = begun or _Open(line.number)
            begun.frames.append(Frame(frame["path"], int(frame["line"]), (frame["name"] or "").strip()))
            begun.indented = True
        elif begun is None:
            after = stripped in _CHAINED or (after and not stripped)
        elif text and not text.startswith(" ") and not _BOX.match(text):
            raised = RAISED.match(text)
            message = (raised["message"] or "").strip() if raised is not None else ""
            if raised is not None and begun.frames and _is_exception(raised["name"]):
                yield begun.closed(line, raised["name"], message, after)
                begun, after = None, False
                continue
            if raised is not None and begun.frames and begun.indented and begun.perhaps is None and _is_class(raised["name"]):
                begun.perhaps = (line, raised["name"], message)
            begun.indented = False
            begun.between += 1  # another process without a label of its own has written this
            if begun.between > _INTERLOPERS:
                if begun.perhaps is not None:
                    yield begun.closed(*begun.perhaps, after)
                begun, after = None, False
    if begun is not None and begun.perhaps is not None:
        yield begun.closed(*begun.perhaps, after)


def _out_of_group(text: str) -> str:
    """A line without the margin that an exception group draws."""
    margin = _GROUP.match(text)
    return text[margin.end() :] if margin is not None else text


def _is_class(name: str) -> bool:
    """Whether it is written as classes are: what a script itself defines need not be named like an exception."""
    modules, _, own = name.rpartition(".")
    return (modules != "" and own[0].isupper()) or (
        re.match(r"[A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)?$", own) is not None and own not in _NO_CLASS
    )


def _is_exception(name: str) -> bool:
    """Whether the interpreter would print an exception so: with its module, or one of Python's own, or named like one."""
    *modules, own = name.split(".")
    return _ENDING.search(own) is not None or (bool(modules) and (own.endswith("error") or (own[0].isupper() and not own.isupper())))


def in_package(frame: Frame, roots: Sequence[str], ends: Sequence[str] = ()) -> str | None:
    """The frame's file as a path below the folder of the code; None where it lies elsewhere, or is no path that could lie there.

    `roots` are the folders in which the job sees that code. A relative path begins there, because the job is started there. `ends` are
    the last parts of such folders (`runs/KEY/code`) that no other folder has: Python prints real paths, which begin elsewhere where a
    folder above is a link.
    """
    path = frame.path
    for root in roots:
        if path.startswith(f"{root}/"):
            path = path[len(root) + 1 :]
            break
    else:
        for end in ends:
            above, found, below = path.partition(f"/{end}/")
            if found and (not above or above.startswith("/")):
                path = below
                break
    path = path.removeprefix("./")
    parts = path.split("/")
    if not _RELATIVE.fullmatch(path) or any(part in ("", ".", "..") for part in parts) or not 0 < frame.line < 1_000_000:
        return None
    return None if "site-packages" in parts or "dist-packages" in parts else path


def function_of(frame: Frame) -> str:
    """The function's name where it is one."""
    return frame.name if _NAME.fullmatch(frame.name) else ""
