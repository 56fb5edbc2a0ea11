"""An address, the keys that the host may show and the keys that open it → a `Channel` to the remote program: one transport, one exec.

Never trusts a host that is not known, never asks anybody, writes nothing to disk. paramiko is imported when it is needed (0.15 s).

Round trips until the program can answer: TCP, key exchange (2), authentication, channel. paramiko alone would take two more: here the
request for the authentication service is followed at once by the request to authenticate (RFC 4252 orders them, it does not ask to wait
in between), and data follows the exec request at once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dispatcher.effects.sshkeys import load_key, preload
from dispatcher.errors import DispatchError, SshError
from dispatcher.known_hosts import HostKey, KnownKeys, known_keys, name_of
from dispatcher.untrusted import printable

if TYPE_CHECKING:
    import paramiko

CONNECT_SECONDS = 20.0
WINDOW = 16 << 20
"""Bytes that the far side may send ahead: a log of a few MB should not wait for the wire."""
WRITE_SECONDS = 180.0
KEEPALIVE_SECONDS = 30
AGENT_KEYS = 5
"""OpenSSH's MaxAuthTries is 6."""
_RSA = ("rsa-sha2-512", "rsa-sha2-256")


@dataclass(frozen=True)
class SshCredentials:
    """What opens the door, all of it texts; `agent` is the path of an agent's socket, asked when there is no key or it is refused."""

    key: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    certificate: str | None = None
    agent: str | None = None


@dataclass(frozen=True)
class SshTarget:
    """A login node. `alias` is the name under which known_hosts has it (OpenSSH's HostKeyAlias); `jump` is the host on the way to it."""

    host: str
    user: str
    known_hosts: str = field(repr=False)
    port: int = 22
    jump: SshTarget | None = None
    alias: str = ""

    @property
    def where(self) -> str:
        """`user@host`, with the port when it is not 22."""
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")

    @property
    def known(self) -> KnownKeys:
        """The keys that it may show."""
        return known_keys(self.known_hosts, self.alias or self.host, 22 if self.alias else self.port)


def open_ssh(target: SshTarget, credentials: SshCredentials, command: str, timeout: float = CONNECT_SECONDS) -> SshChannel:
    """Connects (through the jump host, if there is one), authenticates, and starts `command`.

    Raises:
        SshError: `ssh.*`; a message names the hop where it failed. Nothing stays open.
    """
    preload()
    keys = _keys(credentials)
    opened: list[Any] = []
    try:
        transport = _connect(target, keys, timeout, opened)
        session = _start(transport, target, command, timeout)
    except BaseException:
        for item in reversed(opened):
            item.close()
        raise
    return SshChannel(session, target.where, opened)


class SshChannel:
    """`Channel` over SSH. Standard error arrives in between: what a login shell says there explains why there is no program."""

    def __init__(self, session: paramiko.Channel, where: str, opened: list[Any]) -> None:
        self.where = where
        self._session, self._opened = session, opened

    def write(self, data: bytes) -> None:
        """As in `Channel`."""
        from paramiko import SSHException

        view = memoryview(data)
        self._session.settimeout(WRITE_SECONDS)
        try:
            while view:
                # A slice at a time: paramiko copies what it is given for every packet.
                view = view[self._session.send(bytes(view[: 1 << 15])) :]
        except (EOFError, SSHException) as error:
            raise BrokenPipeError(_said(error)) from None

    def read(self, timeout: float) -> bytes:
        """As in `Channel`; raises `ssh.cut` when it was the connection that ended and not the program."""
        self._session.settimeout(timeout)
        data = self._session.recv(1 << 17)
        if not data and self._session.exit_status == -1:  # no status has arrived: exit_status_ready() cannot tell
            # The channel is told of a dead connection just before the connection says so itself.
            self._opened[-1].join(1.0)
            if not self._opened[-1].is_active():
                raise self.cut("What the far side had received completely it still finishes; the same command again finds out.")
        return data

    def cut(self, words: str) -> DispatchError:
        """As in `Channel`."""
        return SshError("ssh.cut", f"The connection to {self.where} was cut before the far side had answered. {words}")

    def close(self) -> None:
        """As in `Channel`."""
        for item in (*self._opened, self._session)[::-1]:
            with contextlib.suppress(OSError, EOFError):
                item.close()


# --------------------------------------------------------------------------- the keys that open


def _keys(credentials: SshCredentials) -> list[paramiko.PKey]:
    keys = []
    if credentials.key and credentials.key.strip():
        keys.append(load_key(credentials.key, credentials.passphrase, credentials.certificate))
    if credentials.agent:
        keys += _agent_keys(credentials.agent, needed=not keys)
    if not keys:
        raise SshError("ssh.no-key", "There is neither a private key nor an agent with one.")
    return keys


def _agent_keys(path: str, needed: bool) -> list[paramiko.PKey]:
    from paramiko.agent import AgentSSH

    agent = AgentSSH()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(10)
        connection.connect(path)
        agent._connect(connection)  # type: ignore[attr-defined] # the public Agent reads the environment instead of a path
    except Exception as error:
        connection.close()
        if needed:
            raise SshError("ssh.agent", f"The agent does not answer ({_said(error)}).") from None
        return []
    keys: list[paramiko.PKey] = [*agent.get_keys()]
    return keys[:AGENT_KEYS]


# --------------------------------------------------------------------------- one hop


def _connect(target: SshTarget, keys: list[paramiko.PKey], timeout: float, opened: list[Any]) -> paramiko.Transport:
    """A verified and authenticated transport; everything that was opened on the way is in `opened`, the transport last."""
    known = target.known
    pipe = _pipe(target, keys, timeout, opened)
    transport = _exchange_keys(pipe, target, [key.kind for key in known.accepted], timeout, opened)
    shown = _shown(transport)
    if shown in known.revoked:
        raise SshError("ssh.host-key-revoked", f"{target.where} shows a key that known_hosts marks as revoked: {_name(shown)}.")
    if shown not in known.accepted:
        raise _stranger(target, known, shown)
    _authenticate(transport, target, keys, timeout)
    return transport


def _pipe(target: SshTarget, keys: list[paramiko.PKey], timeout: float, opened: list[Any]) -> Any:
    """A socket to the host, or a channel to it through the jump host."""
    if target.jump is not None:
        jump = _connect(target.jump, keys, timeout, opened)
        try:
            pipe = jump.open_channel("direct-tcpip", (target.host, target.port), ("127.0.0.1", 0), timeout=timeout)
        except Exception as error:
            raise SshError("ssh.unreachable", f"{target.jump.where} does not reach {target.host}:{target.port} ({_said(error)}).") from None
        opened.append(pipe)
        return pipe
    try:
        connection = socket.create_connection((target.host, target.port), timeout)
    except socket.gaierror:
        raise SshError("ssh.unreachable", f"The name {target.host} cannot be resolved.") from None
    except (OSError, UnicodeError) as error:
        raise SshError("ssh.unreachable", f"{target.host}:{target.port} cannot be reached ({_said(error)}).") from None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.append(connection)
    return connection


def _exchange_keys(pipe: Any, target: SshTarget, kinds: list[str], timeout: float, opened: list[Any]) -> paramiko.Transport:
    """Key exchange in which the host may show only the `kinds` of key that are known; any kind when none is, so that it can be named."""
    from paramiko import SSHException, Transport
    from paramiko.ssh_exception import IncompatiblePeer

    transport = Transport(pipe, default_window_size=WINDOW)
    opened.append(transport)
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = timeout
    options = transport.get_security_options()
    # With GCM there is no second pass over the data for a MAC.
    options.ciphers = sorted(options.ciphers, key=lambda name: "gcm" not in name)
    wanted = [name for name in options.key_types if name in kinds or (name in _RSA and "ssh-rsa" in kinds)]
    if wanted:
        options.key_types = wanted
    try:
        transport.start_client(timeout=timeout)
        if transport.get_remote_server_key() is not None and transport.initial_kex_done:
            return transport
        raise TimeoutError("it did not finish the key exchange in time")
    except IncompatiblePeer as error:
        raise SshError(
            "ssh.host-key-changed" if wanted and "host key" in str(error).lower() else "ssh.unreachable",
            f"{target.where} and this program have no common way ({_said(error)}); known_hosts has {', '.join(kinds) or 'nothing'} for it.",
        ) from None
    except (SSHException, OSError, EOFError) as error:
        raise SshError(
            "ssh.unreachable", f"{target.host}:{target.port} answers, but ended or refused the SSH handshake ({_said(error)})."
        ) from None


def _shown(transport: paramiko.Transport) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


def _stranger(target: SshTarget, known: KnownKeys, shown: HostKey) -> SshError:
    if known.accepted:
        return SshError(
            "ssh.host-key-changed",
            f"{target.where} shows {_name(shown)}, but known_hosts has {', '.join(_name(key) for key in known.accepted)}.",
        )
    notes = "".join(
        note
        for note, there in (
            (f" {known.unreadable} line(s) of known_hosts cannot be read.", known.unreadable),
            (" Host certificates (@cert-authority) are not supported: the host's own key is needed.", known.authorities),
            (" known_hosts is empty.", not target.known_hosts.strip()),
        )
        if there
    )
    line = f"{name_of(target.alias or target.host, 22 if target.alias else target.port)} {shown.line}"
    return SshError(
        "ssh.host-key-unknown",
        f"{target.where} is not in known_hosts. It shows {_name(shown)}.{notes}",
        f"Ask the cluster's administrators for the fingerprint. Only if it is the same, add this line to known_hosts: `{line}`",
    )


def _name(key: HostKey) -> str:
    return f"{key.kind} {key.fingerprint}"


# --------------------------------------------------------------------------- the door


def _authenticate(transport: paramiko.Transport, target: SshTarget, keys: list[paramiko.PKey], timeout: float) -> None:
    """Tries the keys in turn.

    Raises:
        SshError: `ssh.auth-failed` names every key that was tried, by kind and fingerprint.
    """
    import paramiko

    tried, reason = [], ""
    handler = _auth_handler(transport)
    for key in keys:
        tried.append(_name(HostKey(key.get_name(), key.asbytes())) + (" with a certificate" if key.public_blob else ""))
        event = threading.Event()
        try:
            handler.auth_publickey(target.user, key, event)
            more = handler.wait_for_response(event)
        except paramiko.BadAuthenticationType as error:
            reason = f" The server does not accept keys here, only {', '.join(error.allowed_types)}."
            break
        except (paramiko.SSHException, OSError, EOFError) as error:
            if not transport.is_active():
                reason = f" The server ended the connection ({_said(error)})."
                break
            continue
        if more:
            reason = f" The key was accepted, but the server also wants {', '.join(more)}, which a program cannot give."
            break
        transport.set_keepalive(KEEPALIVE_SECONDS)
        return
    raise SshError("ssh.auth-failed", f"{target.where} refuses {'; '.join(tried)}.{reason}")


def _auth_handler(transport: paramiko.Transport) -> Any:
    """paramiko's, except that it does not wait for the service to be accepted before it authenticates."""
    from paramiko.auth_handler import AuthHandler
    from paramiko.message import Message

    class Pipelined(AuthHandler):
        requested = False

        def _request_auth(self) -> None:
            if not self.requested:
                super()._request_auth()  # type: ignore[misc] # not in the type stubs
                self.requested = True
            accepted = Message()
            accepted.add_string("ssh-userauth")
            accepted.rewind()
            super()._parse_service_accept(accepted)  # type: ignore[misc]

        def _parse_service_accept(self, message: Message) -> None:
            """Arrives when the answer to it is long under way."""

    handler = Pipelined(transport)
    transport.auth_handler = handler
    return handler


def _start(transport: paramiko.Transport, target: SshTarget, command: str, timeout: float) -> paramiko.Channel:
    """The one exec. Its answer is not awaited: a refusal closes the channel, which the first read finds."""
    import paramiko
    from paramiko.common import cMSG_CHANNEL_REQUEST
    from paramiko.message import Message

    try:
        session = transport.open_session(timeout=timeout)
        session.set_combine_stderr(True)
        request = Message()
        request.add_byte(cMSG_CHANNEL_REQUEST)
        request.add_int(session.remote_chanid)
        request.add_string("exec")
        request.add_boolean(True)
        request.add_string(command)
        transport._send_user_message(request)  # type: ignore[attr-defined]
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise SshError("ssh.auth-failed", f"{target.where} let us in, but opens no session ({_said(error)}).") from None
    return session


def _said(error: BaseException) -> str:
    """An exception of the network in a few public words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(printable(str(text)).split())[:200]
