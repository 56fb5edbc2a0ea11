"""Debian's OpenSSH server → a login node on loopback, whose connections and sessions can be counted and cut.

As root it runs in a mount namespace of its own, which gives it its own /etc/passwd: login names with every kind of shell, all
of them uid 0, so that Slurm accepts them, and nothing of the machine changes. There too lie a disk that is full and a folder
that is read-only. Without mount namespaces there is one user, the one who runs the tests.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.rig import reaper
from tests.rig.parts import PartMissing, find_program, free_ports, has_mount_namespaces, require_mount_namespaces
from tests.rig.processes import Processes

PASSPHRASE = "correct horse battery staple"

# name → ssh-keygen's options; how each is written down is what a client must be able to read
KEY_KINDS: dict[str, tuple[str, ...]] = {
    "ed25519": ("-t", "ed25519"),
    "ecdsa": ("-t", "ecdsa"),
    "rsa": ("-t", "rsa", "-b", "3072"),
    "ecdsa-pem": ("-t", "ecdsa", "-m", "PEM"),
    "rsa-pem": ("-t", "rsa", "-b", "3072", "-m", "PEM"),
    "rsa-pkcs8": ("-t", "rsa", "-b", "3072", "-m", "PKCS8"),
    "ed25519-passphrase": ("-t", "ed25519", "-N", PASSPHRASE),
    "rsa-pem-passphrase": ("-t", "rsa", "-b", "3072", "-m", "PEM", "-N", PASSPHRASE),
    # not in authorized_keys: only its certificate lets it in
    "certificate": ("-t", "ed25519"),
    # not in authorized_keys at all
    "stranger": ("-t", "ed25519"),
}

# what a login node says before it does what it was asked, and the last line is not even ended
BANNER = "*** Welcome to the rig ***\nMaintenance on Tuesday.\nok 0\nquota: 81 % of your home is used "

# login name → shell, and the start-up file that the shell reads for `shell -c command`, with its text
USERS: dict[str, tuple[str, str, str]] = {
    "root": ("bash", "", ""),
    "noisy": ("bash", ".bashrc", f"printf %s {shlex.quote(BANNER)}\nprintf %s {shlex.quote(BANNER)} >&2\n"),
    "dash": ("dash", "", ""),
    "csh": ("csh", ".cshrc", "echo 'Welcome to csh'\n"),
    "fish": ("fish", ".config/fish/config.fish", "echo 'Welcome to fish'\n"),
    "zsh": ("zsh", ".zshenv", "echo 'Welcome to zsh'\n"),
    "nologin": ("nologin", "", ""),
}

SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
TrustedUserCAKeys {folder}/keys/ca.pub
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
UseDNS no
MaxStartups 200
MaxSessions 50
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Key:
    """A key pair as texts; `certificate` only for the kind of that name."""

    private: str
    public: str
    path: Path
    passphrase: str | None = None
    certificate: str | None = None


@dataclass(frozen=True)
class Mark:
    """A moment in the server's log."""

    connections: int
    sessions: int


class Sshd:
    """A login node of our own on `host`:`port`. `start()` takes 0.1 s; also a context manager.

    `env` is what every session finds in its environment (sshd's SetEnv); executables that a test puts into `bin` are found before
    all others. `host_keys` are the kinds of host key that it has. Raises `PartMissing` when the machine lacks something.
    """

    host = "127.0.0.1"

    def __init__(self, *, env: Mapping[str, str] | None = None, host_keys: Sequence[str] = ("ed25519",), banner: str = "") -> None:
        self.env = dict(env or {})
        self.host_keys = tuple(host_keys)
        self.banner = banner
        self.user = "root" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.port = 0
        self.folder = Path()
        self._processes: Processes | None = None
        self._keys: dict[str, Key] = {}

    # ------------------------------------------------------------------ what a client needs

    @property
    def known_hosts(self) -> str:
        """The server's host keys in known_hosts format, one line for each kind."""
        return self.known_hosts_at(self.port)

    def known_hosts_at(self, port: int) -> str:
        """The same as seen through another port of 127.0.0.1 (a proxy in front)."""
        return "".join(f"[{self.host}]:{port} {' '.join(self._host_key(kind).public.split()[:2])}\n" for kind in self.host_keys)

    def key(self, kind: str = "ed25519") -> Key:
        """A client key of one of `KEY_KINDS`, made when first asked for; all but `certificate` and `stranger` may log in."""
        if kind not in self._keys:
            key = self._make_key(kind, KEY_KINDS[kind])
            if kind == "certificate":
                key = self._certify(key)
            elif kind != "stranger":
                with (self.folder / "authorized_keys").open("a") as authorized:
                    authorized.write(key.public)
            self._keys[kind] = key
        return self._keys[kind]

    @property
    def bin(self) -> Path:
        """A folder that stands first in every session's PATH; empty at the start."""
        return self.folder / "bin"

    @property
    def full_disk(self) -> Path:
        """A folder on a disk without room, as sessions see it; `PartMissing` without mount namespaces."""
        require_mount_namespaces("a full disk")
        return self.folder / "full"

    @property
    def read_only(self) -> Path:
        """A folder that nobody can write to, not even root, as sessions see it; `PartMissing` without mount namespaces."""
        require_mount_namespaces("a read-only folder")
        return self.folder / "read-only"

    def login(self, name: str) -> str:
        """The login name `name` of `USERS`; `PartMissing` without its shell or without mount namespaces."""
        if name != self.user:
            require_mount_namespaces(f"a login with another shell ({name})")
            find_program(USERS[name][0])
        return name

    # ------------------------------------------------------------------ what happened

    def connections(self, since: Mark | None = None) -> int:
        """How many connections were authenticated, in all or since a mark."""
        return self._count(r"^Accepted publickey for ") - (since.connections if since else 0)

    def sessions(self, since: Mark | None = None) -> int:
        """How many commands, shells and subsystems were started, in all or since a mark."""
        return self._count(r"^Starting session: ") - (since.sessions if since else 0)

    def mark(self) -> Mark:
        """This moment, to count from."""
        return Mark(self.connections(), self.sessions())

    @property
    def log(self) -> str:
        """Everything that the server has logged."""
        return (self.folder / "log").read_text(errors="replace")

    def drop_connections(self) -> None:
        """Cuts every connection at the server's end at once, as when a login node dies; what sessions started keeps running."""
        server = self._running.running["sshd"].pid
        children = reaper.with_descendants([server])
        names = reaper.process_table()
        reaper.end(pid for pid in children if pid != server and names.get(pid, ("",))[0].startswith("sshd"))

    def run(
        self, command: str, *, user: str = "", stdin: str = "", key: str = "ed25519", port: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command through OpenSSH's own client."""
        hosts = self.folder / "known_hosts"
        hosts.write_text(self.known_hosts_at(port or self.port))
        options = ["-F", "none", "-i", str(self.key(key).path), "-p", str(port or self.port), "-o", f"UserKnownHostsFile={hosts}"]
        options += ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none"]
        argv = [find_program("ssh"), *options, f"{user or self.user}@{self.host}", command]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60)

    # ------------------------------------------------------------------ coming up, going away

    def start(self) -> Sshd:
        """Brings the server up; returns when it listens."""
        find_program("sshd")
        find_program("ssh-keygen")
        if not has_mount_namespaces() and Path(pwd.getpwuid(os.geteuid()).pw_shell).name in ("nologin", "false"):
            raise PartMissing(f"sshd: {self.user} has no login shell")
        self.folder = Path(tempfile.mkdtemp(prefix="rig-sshd-"))
        self.folder.chmod(0o755)
        self._processes = Processes(self.folder)
        try:
            for name in ("bin", "keys", "full", "read-only"):
                (self.folder / name).mkdir()
            (self.folder / "authorized_keys").touch()
            (self.port,) = free_ports(1)
            self._make_key("ca", ("-t", "ed25519"))
            (self.folder / "sshd_config").write_text(self._configuration())
            server = [find_program("sshd"), "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "log")]
            if os.geteuid() == 0:
                Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # privilege separation wants it; the service would make it
            self._processes.start("sshd", self._in_own_namespace(server) if has_mount_namespaces() else server)
            self._processes.wait_until("sshd", lambda: (self.folder / "log").exists() and "Server listening" in self.log)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends the server with everything that its sessions started, and removes the folder."""
        if self._processes is None:
            return
        started = reaper.with_descendants(process.pid for process in self._processes.running.values())
        self._processes.stop_all()
        reaper.end(started)
        self._processes = None
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _running(self) -> Processes:
        assert self._processes is not None, "the server is not started"
        return self._processes

    def _count(self, pattern: str) -> int:
        return len(re.findall(pattern, self.log, re.MULTILINE))

    def _configuration(self) -> str:
        text = SSHD_CONFIG.format(port=self.port, folder=self.folder)
        text += "".join(f"HostKey {self._host_key(kind).path}\n" for kind in self.host_keys)
        if self.banner:
            (self.folder / "banner").write_text(self.banner)
            text += f"Banner {self.folder}/banner\n"
        path = f"{self.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        variables = {"PATH": path, **self.env}
        return text + "SetEnv " + " ".join(f'"{name}={value}"' for name, value in variables.items()) + "\n"

    def _in_own_namespace(self, server: list[str]) -> list[str]:
        """The command that starts the server where only it sees our passwd, the full disk and the read-only folder."""
        (self.folder / "passwd").write_text(self._passwd())
        shadow = "".join(f"{name}:*:19000:0:99999:7:::\n" for name in USERS)
        (self.folder / "shadow").write_text(shadow)
        steps = [
            f"mount --bind {self.folder}/passwd /etc/passwd",
            f"mount --bind {self.folder}/shadow /etc/shadow",
            f"mount -t tmpfs -o size=64k tmpfs {self.full_disk}",
            f"{{ head -c 1M /dev/zero > {self.full_disk}/everything; true; }} 2>/dev/null",
            f"mount -t tmpfs -o ro tmpfs {self.read_only}",
            f"exec {shlex.join(server)}",
        ]
        return [find_program("unshare"), "--mount", "--propagation", "private", "sh", "-c", " && ".join(steps)]

    def _passwd(self) -> str:
        others = [line for line in Path("/etc/passwd").read_text().splitlines() if line.split(":")[0] not in USERS]
        lines = []
        for name, (shell, start_file, text) in USERS.items():
            home = self.folder / "home" / name
            (home / start_file).parent.mkdir(parents=True, exist_ok=True)
            if start_file:
                (home / start_file).write_text(text)
            home.mkdir(exist_ok=True)
            try:
                lines.append(f"{name}:x:0:0:{name}:{home}:{find_program(shell)}")
            except PartMissing:
                continue
        return "\n".join([*lines, *others]) + "\n"

    def _host_key(self, kind: str) -> Key:
        name = f"host-{kind}"
        if name not in self._keys:
            self._keys[name] = self._make_key(name, KEY_KINDS[kind])
        return self._keys[name]

    def _make_key(self, name: str, options: tuple[str, ...]) -> Key:
        path = self.folder / "keys" / name
        passphrase = options[options.index("-N") + 1] if "-N" in options else None
        without = () if passphrase else ("-N", "")
        _keygen(*options, *without, "-C", f"rig {name}", "-f", str(path))
        return Key(path.read_text(), path.with_name(f"{name}.pub").read_text(), path, passphrase)

    def _certify(self, key: Key) -> Key:
        _keygen("-s", str(self.folder / "keys" / "ca"), "-I", "rig", "-n", ",".join({*USERS, self.user}), f"{key.path}.pub")
        certificate = key.path.with_name(f"{key.path.name}-cert.pub").read_text()
        return Key(key.private, key.public, key.path, certificate=certificate)

    def __enter__(self) -> Sshd:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


class Agent:
    """A running ssh-agent that holds some of a server's keys; `socket` is its SSH_AUTH_SOCK. A context manager."""

    def __init__(self, *keys: Key) -> None:
        self.keys = keys

    def __enter__(self) -> Agent:
        self.folder = Path(tempfile.mkdtemp(prefix="rig-agent-"))
        self._processes = Processes(self.folder)
        try:
            self._processes.start("ssh-agent", [find_program("ssh-agent"), "-D", "-a", str(self.socket)])
            self._processes.wait_until("ssh-agent", self.socket.exists)
            for key in self.keys:
                argv = [find_program("ssh-add"), "-q", str(key.path)]
                subprocess.run(argv, env={**os.environ, "SSH_AUTH_SOCK": str(self.socket)}, stdin=subprocess.DEVNULL, check=True)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "socket"

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._processes.stop_all()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for_count(count: int, counted: Callable[[], int], timeout: float = 5.0) -> None:
    """Waits until `counted()` is `count`; the server's log lags a little behind what its client sees."""
    deadline = time.monotonic() + timeout
    while counted() != count:
        assert time.monotonic() < deadline, f"{counted()} after {timeout:g} s, not {count}"
        time.sleep(0.02)


def _keygen(*options: str) -> None:
    done = subprocess.run([find_program("ssh-keygen"), "-q", *options], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
