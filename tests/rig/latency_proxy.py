"""A TCP proxy on loopback that behaves like a long wire: `latency_proxy.py TARGET_PORT RTT`, run by `latency.py` as a process of its own.

Each chunk is stamped when it is read and delivered half a round trip later, while reading goes on: delay without a limit on
throughput, and correct under pipelining. A new connection first waits as long as TCP's handshake would on such a wire.
Commands are lines on standard input, each answered by one line on standard output; the process ends when its input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from dataclasses import dataclass, field

CHUNK = 256 * 1024
IN_FLIGHT = 4096  # chunks; more than any wire holds, so memory is bounded and throughput is not
Chunk = tuple[float, bytes]


@dataclass
class Limit:
    """After `left` more bytes in a direction the wire breaks: `close` ends both sides, `stall` leaves them waiting."""

    left: int
    how: str


@dataclass
class Wire:
    """What the proxy does now and what it has carried; `up` is from the client to the target."""

    target: int
    rtt: float
    carried: dict[str, int] = field(default_factory=lambda: {"connections": 0, "up": 0, "down": 0})
    limits: dict[str, Limit] = field(default_factory=dict)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    stalled: bool = False

    async def connect(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        """Carries one connection until both of its directions have ended."""
        self.carried["connections"] += 1
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self._adopt(client_writer)
        # The target accepts when the handshake's third packet arrives; the client may speak half a round trip before.
        await asyncio.sleep(1.5 * self.rtt)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target, limit=CHUNK)
        except OSError:
            client_writer.transport.abort()
            return
        self._adopt(server_writer)
        with contextlib.suppress(asyncio.CancelledError):  # the process is ending
            await asyncio.gather(
                self._direction("up", client_reader, server_writer, not_before=begun + self.rtt),
                self._direction("down", server_reader, client_writer, not_before=begun),
            )
        for writer in (client_writer, server_writer):
            self.writers.discard(writer)
            writer.close()

    def cut(self) -> int:
        """Breaks every connection at once, both sides get a reset; returns how many."""
        count = len(self.writers) // 2
        for writer in self.writers:
            _reset_on_close(writer)
            writer.transport.abort()
        self.writers.clear()
        return count

    def _adopt(self, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.writers.add(writer)

    async def _direction(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, not_before: float) -> None:
        """Reads and delivers at the same time; an empty chunk is the end of this direction."""
        queue: asyncio.Queue[Chunk] = asyncio.Queue(IN_FLIGHT)
        delivering = asyncio.create_task(self._deliver(name, queue, writer))
        loop = asyncio.get_running_loop()
        data = b"-"
        while data and not delivering.done():
            try:
                data = await reader.read(CHUNK)
            except OSError:
                data = b""
            await queue.put((max(loop.time(), not_before) + self.rtt / 2, data))
        await delivering

    async def _deliver(self, name: str, queue: asyncio.Queue[Chunk], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                while self.stalled:
                    await asyncio.sleep(0.05)
                if not data:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                limit = self.limits.get(name)
                if limit is not None:
                    data = data[: limit.left]
                    limit.left -= len(data)
                writer.write(data)
                await writer.drain()
                self.carried[name] += len(data)
                if limit is not None and limit.left == 0:
                    del self.limits[name]
                    if limit.how == "close":
                        self._close()
                        return
                    self.stalled = True

    def _close(self) -> None:
        """Ends both sides of every connection in order: the last bytes arrive, then the end."""
        for writer in self.writers:
            writer.close()
        self.writers.clear()


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    # SO_LINGER on, 0 s: close() sends RST instead of FIN.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _obey(wire: Wire, words: list[str]) -> object:
    match words:
        case ["rtt", seconds]:
            wire.rtt = float(seconds)
        case ["cut"]:
            return wire.cut()
        case ["stall"]:
            wire.stalled = True
        case ["resume"]:
            wire.stalled = False
        case ["limit", direction, count, how]:
            wire.limits[direction] = Limit(int(count), how)
        case ["carried"]:
            return wire.carried
        case _:
            return f"unknown command {words}"
    return None


async def main(target: int, rtt: float) -> None:
    """Listens on a free port of 127.0.0.1, says which, and obeys until standard input ends."""
    wire = Wire(target, rtt)
    server = await asyncio.start_server(wire.connect, "127.0.0.1", 0, limit=CHUNK)
    print(json.dumps(server.sockets[0].getsockname()[1]), flush=True)
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        print(json.dumps(_obey(wire, line.decode().split())), flush=True)
    wire.cut()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
