"""A stand-in of somebody's HTTP API: real HTTP on loopback, faults on request, and a list of what goes against its description."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Trouble:
    """What goes wrong with the `times` requests that match next; with `after_effect` what was asked for has been done nevertheless."""

    method: str
    path: re.Pattern[str]
    status: int = 0
    times: int = 1
    body: Any = None
    reset: bool = False
    seconds: float = 0.0
    after_effect: bool = False


@dataclass(frozen=True)
class Asked:
    """A request that came, and the status of its answer (0: none)."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    status: int


class HttpStandIn:
    """Subclasses give `answer`. `requests` is what came, `violations` what must not be."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.violations: list[str] = []
        self.troubles: list[Trouble] = []
        self.lock = threading.RLock()
        self._http = _Listener(self)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any, token: str) -> tuple[int, Any]:
        """Status and body: a text goes out as text, None as nothing, everything else as JSON."""
        raise NotImplementedError

    def trouble(self, method: str, path: str, status: int = 0, **fields: Any) -> None:
        """Something goes wrong with what is asked for next."""
        self.troubles.append(Trouble(method, re.compile(path), status, **fields))

    def asked(self, method: str, path: str) -> list[Asked]:
        """The requests that match."""
        return [request for request in self.requests if request.method == method and re.search(path, request.path)]

    def struck(self, method: str, path: str) -> Trouble | None:
        """The trouble that this request has, used up by one."""
        with self.lock:
            for trouble in self.troubles:
                if trouble.times > 0 and trouble.method in ("*", method) and trouble.path.search(path):
                    trouble.times -= 1
                    return trouble
        return None

    def close(self) -> None:
        """Ends it."""
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: HttpStandIn) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no trouble of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silence."""

    def _serve(self) -> None:
        owner, split = self.server.owner, urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        body = json.loads(raw) if raw else None
        query, token = parse_qs(split.query), (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        trouble = owner.struck(self.command, split.path)
        status, given = 0, None
        if trouble is None or trouble.after_effect:
            status, given = owner.answer(self.command, split.path, query, body, token)
        if trouble is not None:
            time.sleep(trouble.seconds)
            status, given = (trouble.status, trouble.body) if trouble.status or trouble.reset else (status, given)
        owner.requests.append(Asked(self.command, split.path, query, body, status))
        if trouble is not None and trouble.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        data = b"" if given is None else given.encode() if isinstance(given, str) else json.dumps(given).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(given, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve
