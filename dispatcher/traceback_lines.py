"""The lines of a log → the Python tracebacks in it, each with its frames and its exception; and frames → lines of the repository.

Lines of several ranks are told apart by what stands before them: torchrun's `[default3]:`, PyTorch's `[rank3]:`, the `3: ` of
`srun --label`, Ray's `(train pid=7)`. https://docs.python.org/3/library/traceback.html, https://docs.pytorch.org/docs/stable/elastic/run.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dispatcher.untrusted import printable, strip_ansi

MAX_LINE = 2000
_BREAK = re.compile(r"\r\n|\n|\r")
_LABEL = re.compile(
    r"\[rank(?P<rank>\d{1,6})\]:\s?|\[[a-z_]{1,30}?(?P<local>\d{1,6})\]:|\s{0,5}(?P<task>\d{1,5}):\s"
    r"|\((?P<actor>[A-Za-z_][\w.]{0,60} ?pid=\d{1,8}(?:, ip=[\w.:]{1,45})?)\)\s"
)
_HEADER = re.compile(r"(?:.{0,80}\s)?(?:Original )?Traceback \(most recent call last\):\s*$")
_FRAME = re.compile(r'  File "(?P<path>[^"]{1,1000})", line (?P<line>\d{1,9})(?:, in (?P<name>.{1,200}))?\s*$')
_RAISED = re.compile(r"(?P<name>(?:[A-Za-z_]\w{0,79}\.){0,8}[A-Za-z_]\w{0,79})(?::\s?(?P<message>.*))?$", re.ASCII)
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_ENDING = re.compile(r"(?:Error|Exception|Exit|Interrupt|Iteration|Warning|Failure|Timeout)$")
# So many lines of others may stand inside a traceback.
_INTERLOPERS = 20
_RELATIVE = re.compile(r"(?!/)[^<>\x00-\x1f\x7f\\]{1,400}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}|<(?:module|lambda|listcomp|genexpr|dictcomp|setcomp)>")


@dataclass(frozen=True)
class Line:
    """One line of a log without colours and its rank's label; `stream` tells the ranks apart, `rank` is None where it is not said."""

    number: int
    text: str
    stream: str = ""
    rank: int | None = None


@dataclass(frozen=True)
class Frame:
    """One call: the file as the interpreter wrote it, its line, the function."""

    path: str
    line: int
    name: str


@dataclass(frozen=True)
class Traceback:
    """One exception that was printed: `name` is the exception's with its modules; `after` says that it came of the one before it."""

    first: int
    last: int
    stream: str
    rank: int | None
    frames: tuple[Frame, ...]
    name: str
    message: str
    after: bool

    @property
    def text(self) -> str:
        """The line in which the exception stands."""
        return f"{self.name}: {self.message}" if self.message else self.name


def lines_of(log: str) -> list[Line]:
    """A log's text → its lines, each at most `MAX_LINE` characters long, in which no control character is left."""
    found: list[Line] = []
    for number, raw in enumerate(_BREAK.split(log)):
        text = raw if len(raw) <= MAX_LINE else raw[: MAX_LINE - 1] + "…"
        if not text.isascii() or not text.isprintable():
            text = printable(strip_ansi(text)).replace("\t", "    ")
        found.append(_labelled(number, text.rstrip()))
    return found


def _labelled(number: int, text: str) -> Line:
    """The labels before a line, of which there may be two, off."""
    stream, rank = "", None
    for _ in range(3):
        label = _LABEL.match(text)
        if label is None:
            break
        said = label["rank"] or label["task"]
        rank = int(said) if said is not None else rank if rank is not None else int(label["local"]) if label["local"] else None
        stream += label[0].strip()
        text = text[label.end() :]
    return Line(number, text, stream, rank)


def tracebacks(lines: Sequence[Line]) -> list[Traceback]:
    """Every traceback that is whole, in the order of their ends; lines of other ranks in between do no harm."""
    streams: dict[str, list[Line]] = {}
    for line in lines:
        streams.setdefault(line.stream, []).append(line)
    found = [one for stream in streams.values() for one in _in_stream(stream)]
    return sorted(found, key=lambda one: (one.last, one.first))


def _in_stream(lines: Sequence[Line]) -> Iterator[Traceback]:
    """A header, or a frame without one (a syntax error has none), begins a traceback; the line that has an exception's name ends it."""
    first, between, margin, after = -1, 0, 0, False
    frames: list[Frame] = []
    for line in lines:
        stripped = line.text.lstrip()
        if _HEADER.match(line.text):
            first, frames, between = line.number, [], 0
            margin = len(line.text) - len(stripped) if stripped.startswith("T") else 0
            continue
        text = line.text[margin:] if not line.text[:margin].strip() else line.text
        frame = _FRAME.match(text)
        if frame is not None:
            first = line.number if first < 0 else first
            frames.append(Frame(frame["path"], int(frame["line"]), (frame["name"] or "").strip()))
        elif first < 0:
            after = stripped in _CHAINED or (after and not stripped)
        elif text and not text.startswith(" "):
            raised = _RAISED.match(text)
            if raised is not None and _is_exception(raised["name"]) and frames:
                message = (raised["message"] or "").strip()
                yield Traceback(first, line.number, line.stream, line.rank, tuple(frames), raised["name"], message, after)
                first, frames, after = -1, [], False
                continue
            between += 1  # another process without a label of its own has written this
            if between > _INTERLOPERS:
                first, frames, after = -1, [], False


def _is_exception(name: str) -> bool:
    """Whether the interpreter would print an exception so: with its module, or one of Python's own, or named like one."""
    *modules, own = name.split(".")
    return _ENDING.search(own) is not None or (bool(modules) and (own.endswith("error") or (own[0].isupper() and not own.isupper())))


def in_package(frame: Frame, roots: Sequence[str]) -> str | None:
    """The frame's file as a path below the folder of the code; None where it lies elsewhere, or is no path that could lie there.

    `roots` are the folders in which the job sees that code. A relative path begins there, because the job is started there.
    """
    path = frame.path
    for root in roots:
        if path.startswith(f"{root}/"):
            path = path[len(root) + 1 :]
            break
    path = path.removeprefix("./")
    parts = path.split("/")
    if not _RELATIVE.fullmatch(path) or any(part in ("", ".", "..") for part in parts) or not 0 < frame.line < 1_000_000:
        return None
    return None if "site-packages" in parts or "dist-packages" in parts else path


def function_of(frame: Frame) -> str:
    """The function's name where it is one."""
    return frame.name if _NAME.fullmatch(frame.name) else ""
