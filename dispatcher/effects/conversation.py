"""Requests and answers of `cluster.sh` over a `Channel`: framing, marks, caps and deadlines; nothing of what they mean.

The program's text is the first thing that is sent. A random mark, which nobody else can know, stands before every line that the
program itself says, so a login shell may print what it likes.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from dispatcher.effects.channel import Channel
from dispatcher.errors import CATALOGUE, ClusterError, DispatchError
from dispatcher.untrusted import printable, redact, strip_ansi

PROTOCOL = "1"
SECTION_CAP = 64 << 20
NOISE_CAP = 1 << 20
LINE_CAP = 4096
WINDOW = 40
"""Requests that may be under way at once: together they are smaller than a pipe's buffer, so the two sides cannot block each other."""
FRAME = 1 << 20


@cache
def program() -> bytes:
    """The remote program's text without its comments and indentation: fewer bytes to send, and the same for everybody."""
    text = files("dispatcher.effects").joinpath("cluster.sh").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return ("\n".join(line for line in lines if line and not line.startswith("#")) + "\n").encode()


@cache
def command() -> str:
    """What sshd is asked to execute: constant, and the same to sh, csh and fish.

    A shell that reads its script from standard input may read ahead into our data, so the program is read to the byte, then evaluated:
    dd reads once what is there, and no more than is missing. Its bytes are characters in every locale.
    """
    read = f"p=; n={len(program())}; while [ ${{#p}} -lt $n ]; do q=$(dd bs=$((n-${{#p}})) count=1 2>/dev/null; echo .)"
    return f"exec sh -c '{read}; case $q in .) exit ;; esac; p=$p${{q%.}}; done; eval \"$p\"'"


@dataclass
class Answer:
    """What came back to one request: the last line's words, and the sections by name."""

    words: list[str] = field(default_factory=list)
    sections: dict[str, list[bytes]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The first section of that name; empty when there is none."""
        return b"".join(self.sections.get(name, [])[:1]).decode("utf-8", "replace")

    def data(self, name: str) -> bytes | None:
        """The first section of that name as bytes; None when there is none."""
        return next(iter(self.sections.get(name, [])), None)


class Conversation:
    """One program, many requests. Requests may be sent ahead; answers come in their order."""

    def __init__(self, channel: Channel, scheduler: str, job_dir: str) -> None:
        self._channel = channel
        self._mark = "@" + secrets.token_hex(16)
        self._buffer = bytearray()
        self._greeted = False
        self._broken: DispatchError | None = None
        self._write(program() + "".join(f"{line}\n" for line in (self._mark, PROTOCOL, scheduler, job_dir)).encode())

    def ask(self, *lines: str) -> None:
        """Sends a request; nothing is awaited."""
        self._write(request(*lines))

    def send(self, data: bytes) -> None:
        """Sends the bytes that belong to the last request."""
        self._write(data)

    def stream(self, chunks: Iterable[bytes]) -> int:
        """Sends an archive in frames, as it is made; returns its length. What `chunks` raises is told to the far side, and raised."""
        sent, pending = 0, bytearray()
        try:
            for chunk in chunks:
                pending += chunk
                if len(pending) >= FRAME:
                    self._frame(pending)
                    sent, pending = sent + len(pending), bytearray()
        except Exception:
            if self._broken is None:
                self._write(b"x\nstop\n")
                self.answer(60)
            raise
        if pending:
            self._frame(pending)
        self._write(b"0\n")
        return sent + len(pending)

    def _frame(self, data: bytearray) -> None:
        self._write(b"%d\n" % len(data))
        self._write(bytes(data))

    def answer(self, timeout: float) -> Answer:
        """The next request's answer. After anything but a whole answer the conversation is over: what came next would be misunderstood.

        Raises:
            ClusterError: what the program reports (`cluster.*`), `cluster.bad-answer`, `cluster.timeout`, `cluster.cut`.
            SshError: `ssh.cut`.
        """
        try:
            answer = self._whole_answer(timeout)
        except DispatchError as error:
            self._broken = error
            raise
        match answer.words:
            case ["fail", code]:
                raise self._failure(code, answer.text("words"))
        return answer

    def _whole_answer(self, timeout: float) -> Answer:
        deadline = time.monotonic() + timeout
        answer = Answer()
        if not self._greeted:
            self._greet(deadline)
        while True:
            _, words = self._next_line(deadline, NOISE_CAP)
            match words:
                case ["data", name]:
                    body, ending = self._next_line(deadline, SECTION_CAP)
                    if ending != ["end", name]:
                        raise self._foreign(b" ".join([body[:200], *(word.encode() for word in ending)]))
                    answer.sections.setdefault(name, []).append(body)
                case ["done", *rest]:
                    answer.words = rest
                    return answer
                case ["fail", code] if code in CATALOGUE and code.startswith("cluster."):
                    answer.words = words
                    return answer
                case _:
                    raise self._foreign(" ".join(words).encode())

    def _greet(self, deadline: float) -> None:
        noise, words = self._next_line(deadline, NOISE_CAP)
        self._greeted = True
        match words:
            case ["hello", version, _, *_] if version == PROTOCOL:
                return
            case ["data", "words"]:
                body, _ = self._next_line(deadline, NOISE_CAP)
                _, ending = self._next_line(deadline, NOISE_CAP)
                if len(ending) == 2 and ending[0] == "fail":
                    raise self._failure(ending[1], body.decode("utf-8", "replace"))
        raise self._foreign(noise)

    def _next_line(self, deadline: float, limit: int) -> tuple[bytes, list[str]]:
        """Everything up to the next line that carries our mark, and that line's words."""
        mark = f"\n{self._mark} ".encode()
        searched = 0
        while True:
            found = self._buffer.find(mark, searched)
            if found >= 0:
                ends = self._buffer.find(b"\n", found + len(mark))
                if ends >= 0:
                    before = bytes(self._buffer[:found])
                    words = self._buffer[found + len(mark) : ends].decode("utf-8", "replace").split()
                    del self._buffer[:ends]  # the line's end may be the beginning of the next mark
                    return before.removeprefix(b"\n") if self._greeted else before, words
                if len(self._buffer) - found > LINE_CAP:
                    raise self._foreign(bytes(self._buffer[found : found + 200]))
            searched = max(0, found if found >= 0 else len(self._buffer) - len(mark))
            if len(self._buffer) > limit + LINE_CAP:
                raise self._foreign(bytes(self._buffer[:400]))
            self._buffer += self._read(deadline)

    def _read(self, deadline: float) -> bytes:
        try:
            data = self._channel.read(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise ClusterError("cluster.timeout", f"{self._channel.where} has not answered in time.") from None
        if not data:
            raise self._ended()
        return data

    def _write(self, data: bytes) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            self._channel.write(data)
        except OSError:
            # What the far side said before it went away explains more than the broken pipe does.
            while True:
                try:
                    data = self._channel.read(5)
                except (TimeoutError, OSError):
                    data = b""
                if not data or len(self._buffer) > NOISE_CAP:
                    break
                self._buffer += data
            self.answer(5)
            self._broken = self._ended()
            raise self._broken from None

    def _ended(self) -> DispatchError:
        if not self._greeted:
            return self._foreign(bytes(self._buffer))
        return self._channel.cut("What the far side had received completely it still finishes; the same command again finds out.")

    def _foreign(self, data: bytes) -> ClusterError:
        said = words_of(data.decode("utf-8", "replace"), 300)
        heard = f"It said: “{said}”" if said else "It said nothing"
        return ClusterError("cluster.bad-answer", f"{self._channel.where} did not run the dispatcher's remote program. {heard}.")

    def _failure(self, code: str, said: str) -> DispatchError:
        if code not in CATALOGUE or not code.startswith("cluster."):
            return self._foreign(f"{code} {said}".encode())
        said = words_of(said.replace("=failed", ""), 600)
        return ClusterError(code, f"{self._channel.where}: {CATALOGUE[code].meaning}{f' It said: “{said}”' if said else ''}")

    def close(self) -> None:
        """Ends the channel; a claim that was not used is given back by the far side."""
        self._channel.close()


def request(*lines: str) -> bytes:
    """A request's lines as bytes.

    Raises:
        ValueError: a line break inside a value, which would be another request.
    """
    if any("\n" in line or "\0" in line for line in lines):
        raise ValueError("a value in a request contains a line break")
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def words_of(text: str, limit: int) -> str:
    """Text from the far side → one public line: printable, without secrets, at most `limit` characters."""
    line = " ".join(redact(printable(strip_ansi(text))).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def check_name(value: str, pattern: str, what: str) -> str:
    """The value, when it matches; the far side checks the same again.

    Raises:
        ValueError: it does not.
    """
    if not re.fullmatch(pattern, value):
        raise ValueError(f"{what} {value!r} is not allowed in the ledger")
    return value


def checked_names(values: Sequence[str], pattern: str, what: str) -> str:
    """The values in one line, each checked."""
    return " ".join(check_name(value, pattern, what) for value in values)
