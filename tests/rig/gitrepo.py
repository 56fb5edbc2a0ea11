"""Git repositories for tests, made with the real git, and a server for them over real HTTP (`git http-backend`)."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


@dataclass
class Repo:
    """A repository with a worktree; `git()` runs git in it."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> Repo:
        """An empty one, which answers partial fetches as GitHub does."""
        path.mkdir(parents=True)
        repo = cls(path)
        repo.git("init", "-q", "-b", "main")
        repo.git("config", "uploadpack.allowFilter", "true")
        repo.git("config", "protocol.file.allow", "always")
        return repo

    def git(self, *arguments: str | bytes, stdin: bytes = b"", **env: str) -> str:
        """Runs git here and gives what it printed."""
        done = subprocess.run(["git", *arguments], cwd=self.path, input=stdin, capture_output=True, env={**_ENV, **env})
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def write(self, files: dict[str, bytes | str], executable: Iterable[str] = ()) -> Repo:
        """Writes files into the worktree; a value of type str is a symbolic link's target."""
        for name, content in files.items():
            path = os.fsencode(self.path) + b"/" + name.encode("utf-8", "surrogateescape")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if isinstance(content, str):
                os.symlink(content, path)
            else:
                with open(path, "wb") as file:
                    file.write(content)
        for name in executable:
            (self.path / name).chmod(0o755)
        return self

    def commit(self, message: str = "change") -> str:
        """Commits everything and gives the SHA."""
        self.git("add", "--all", "--force", ".")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def add_submodule(self, url: str, path: str) -> None:
        """Adds a submodule at its remote's HEAD."""
        self.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "--", url, path)

    def blob(self, content: bytes) -> str:
        """Writes a blob object and gives its id."""
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    def crafted(self, entries: list[tuple[str, bytes, str]]) -> str:
        """A commit whose top folder has exactly these (mode, name, id) entries, however strange: git's own tools would refuse."""
        raw = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
        return self.commit_tree(self.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw))

    def commit_tree(self, tree: str) -> str:
        """A commit of a tree that is there."""
        text = f"tree {tree}\nauthor A <a@example.org> 0 +0000\ncommitter A <a@example.org> 0 +0000\n\ncrafted\n".encode()
        return self.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=text)


NESTED = {"main.py": b"main\n", "vendor/lib/lib.py": b"pinned lib\n", "vendor/lib/deep/core/core.py": b"pinned core\n"}
"""What `nested_submodules` packs, without .gitmodules."""


def nested_submodules(folder: Path) -> Repo:
    """main, whose vendor/lib is a submodule, whose deep/core is one of its own; both have moved on since they were pinned."""
    core = Repo.create(folder / "core").write({"core.py": b"pinned core\n"})
    core.commit()
    lib = Repo.create(folder / "lib").write({"lib.py": b"pinned lib\n"})
    lib.add_submodule(str(core.path), "deep/core")
    lib.git("config", "-f", ".gitmodules", "submodule.deep/core.url", "../core")
    lib.commit()
    main = Repo.create(folder / "main").write({"main.py": b"main\n"})
    main.add_submodule(str(lib.path), "vendor/lib")
    main.git("config", "-f", ".gitmodules", "submodule.vendor/lib.url", "../lib")
    main.commit()
    for moved in (core, lib):
        moved.write({"new.py": b"not pinned\n"}).commit()
    return main


def unpack(archive: bytes) -> dict[str, tuple[str, bytes]]:
    """A tar.gz → {path: (what it is, content or target)}, read by Python's own reader."""
    found: dict[str, tuple[str, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz", encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            assert (member.uid, member.gid, member.mtime) == (0, 0, 315532800)
            if member.issym():
                found[member.name] = ("link", member.linkname.encode("utf-8", "surrogateescape"))
            else:
                content = tar.extractfile(member)
                assert content is not None
                found[member.name] = (oct(member.mode), content.read())
    return found


def blob_id(content: bytes) -> str:
    """The id that git gives to a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class GitServer:
    """What a running server saw: (method, path, Authorization header) of every request. `moved` redirects everything."""

    url: str
    token: str | None
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    moved: str = ""
    broken: int = 0
    silent: bool = False


@contextmanager
def serve(folder: Path, token: str | None = None) -> Iterator[GitServer]:
    """Serves the repositories below `folder` over HTTP on loopback; with a token, only to who brings it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self._answer(body)

        def _answer(self, body: bytes) -> None:
            state.seen.append((self.command, self.path, self.headers.get("Authorization", "")))
            if state.silent:
                done.wait(30)
                return
            if state.broken:
                state.broken -= 1
                self._send("503 Service Unavailable", [], b"")
            elif state.moved:
                self._send("301 Moved", [("Location", state.moved + self.path)], b"")
            elif state.token and not self.headers.get("Authorization"):
                self._send("401 Unauthorized", [("WWW-Authenticate", "Basic")], b"")
            else:
                self._backend(body)

        def _backend(self, body: bytes) -> None:
            path, _, query = self.path.partition("?")
            env = {
                **_ENV,
                "GIT_PROJECT_ROOT": str(folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            answer = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=env).stdout
            head, _, content = answer.partition(b"\r\n\r\n")
            fields = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
            status = next((value for name, value in fields if name == "Status"), "200 OK")
            self._send(status, [(name, value) for name, value in fields if name != "Status"], content)

        def _send(self, status: str, fields: list[tuple[str, str]], content: bytes) -> None:
            code, _, words = status.partition(" ")
            self.send_response(int(code), words)
            for name, value in fields:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    done = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = GitServer(f"http://127.0.0.1:{server.server_address[1]}", token)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        done.set()
        server.shutdown()
        thread.join()
        server.server_close()
