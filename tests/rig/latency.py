"""A port of 127.0.0.1 → the same service at the end of a long wire, which can also break.

The proxy is a process of its own (`latency_proxy.py`), so a busy test does not slow it down and it does not slow the test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Literal

Direction = Literal["up", "down"]


class LatencyProxy:
    """A wire with a round-trip time of `rtt` seconds in front of `target` on 127.0.0.1; `port` is its near end. A context manager.

    `up` is from the client to the target. TCP's slow start is not imitated: throughput is loopback's.
    """

    host = "127.0.0.1"

    def __init__(self, target: int, *, rtt: float = 0.0) -> None:
        self.target = target
        self.rtt = rtt
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> LatencyProxy:
        """Brings the proxy up; returns when it listens."""
        program = Path(__file__).with_name("latency_proxy.py")
        command = [sys.executable, "-I", "-S", str(program), str(self.target), str(self.rtt)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.port = int(str(self._answer()))
        return self

    def stop(self) -> None:
        """Cuts what is still connected and ends the proxy."""
        if self._process is not None:
            self._process.communicate(timeout=10)  # closes its input, which is what it ends on
            self._process = None

    def set_rtt(self, seconds: float) -> None:
        """Changes the round-trip time, also for connections that exist."""
        self._tell(f"rtt {seconds}")

    def cut(self) -> int:
        """Resets every connection now; returns how many there were."""
        return int(str(self._tell("cut")))

    def cut_after(self, count: int, direction: Direction = "up", how: Literal["close", "stall"] = "close") -> None:
        """Once `count` (at least 1) more bytes have gone in a direction, the wire breaks, this one time.

        `close`: both ends are closed, the receiver has exactly `count` bytes. `stall`: nothing arrives any more until `resume()`.
        """
        assert count > 0
        self._tell(f"limit {direction} {count} {how}")

    def stall(self) -> None:
        """Nothing arrives any more, and nobody is told."""
        self._tell("stall")

    def resume(self) -> None:
        """What was held back by `stall` arrives."""
        self._tell("resume")

    def carried(self) -> dict[str, int]:
        """`connections` accepted, bytes delivered `up` and `down`, since the start."""
        answer = self._tell("carried")
        assert isinstance(answer, dict)
        return answer

    def _tell(self, line: str) -> object:
        assert self._process is not None, "the proxy is not started"
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> object:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the proxy is gone"
        answer: object = json.loads(line)
        return answer

    def __enter__(self) -> LatencyProxy:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
