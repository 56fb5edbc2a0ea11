"""An address, the keys that the host may show and the keys that open it → a `Channel` to the remote program: one transport, one exec.

Never trusts a host that is not known, never asks anybody, writes nothing to disk. paramiko is imported when it is needed (0.15 s).

Round trips until the program can answer: TCP, key exchange (2), authentication, channel. paramiko alone would take two more: here the
request for the authentication service is followed at once by the request to authenticate (RFC 4252 orders them, it does not ask to wait
in between), and data follows the exec request at once.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dispatcher.effects.sshkeys import preload
from dispatcher.effects.sshlogin import SshCredentials, authenticate, key_name, keys_of, said
from dispatcher.errors import DispatchError, SshError
from dispatcher.known_hosts import HostKey, KnownKeys, known_keys, name_of

if TYPE_CHECKING:
    import paramiko

__all__ = ["SshChannel", "SshCredentials", "SshTarget", "open_ssh", "preload"]

CONNECT_SECONDS = 20.0
WINDOW = 16 << 20
"""Bytes that the far side may send ahead: a log of a few MB should not wait for the wire."""
WRITE_SECONDS = 180.0
_RSA = ("rsa-sha2-512", "rsa-sha2-256")


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
    keys = keys_of(credentials)
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
            raise BrokenPipeError(said(error)) from None

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


# --------------------------------------------------------------------------- one hop


def _connect(target: SshTarget, keys: list[paramiko.PKey], timeout: float, opened: list[Any]) -> paramiko.Transport:
    """A verified and authenticated transport; everything that was opened on the way is in `opened`, the transport last."""
    known = target.known
    pipe = _pipe(target, keys, timeout, opened)
    transport = _exchange_keys(pipe, target, [key.kind for key in known.accepted], timeout, opened)
    shown = _shown(transport)
    if shown in known.revoked:
        raise SshError("ssh.host-key-revoked", f"{target.where} shows a key that known_hosts marks as revoked: {key_name(shown)}.")
    if shown not in known.accepted:
        raise _stranger(target, known, shown)
    authenticate(transport, target.user, target.where, keys)
    return transport


def _pipe(target: SshTarget, keys: list[paramiko.PKey], timeout: float, opened: list[Any]) -> Any:
    """A socket to the host, or a channel to it through the jump host."""
    if target.jump is not None:
        jump = _connect(target.jump, keys, timeout, opened)
        try:
            pipe = jump.open_channel("direct-tcpip", (target.host, target.port), ("127.0.0.1", 0), timeout=timeout)
        except Exception as error:
            raise SshError("ssh.unreachable", f"{target.jump.where} does not reach {target.host}:{target.port} ({said(error)}).") from None
        opened.append(pipe)
        return pipe
    try:
        connection = socket.create_connection((target.host, target.port), timeout)
    except socket.gaierror:
        raise SshError("ssh.unreachable", f"The name {target.host} cannot be resolved.") from None
    except (OSError, UnicodeError) as error:
        raise SshError("ssh.unreachable", f"{target.host}:{target.port} cannot be reached ({said(error)}).") from None
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
            f"{target.where} and this program have no common way ({said(error)}); known_hosts has {', '.join(kinds) or 'nothing'} for it.",
        ) from None
    except (SSHException, OSError, EOFError) as error:
        raise SshError(
            "ssh.unreachable", f"{target.host}:{target.port} answers, but ended or refused the SSH handshake ({said(error)})."
        ) from None


def _shown(transport: paramiko.Transport) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


def _stranger(target: SshTarget, known: KnownKeys, shown: HostKey) -> SshError:
    if known.accepted:
        return SshError(
            "ssh.host-key-changed",
            f"{target.where} shows {key_name(shown)}, but known_hosts has {', '.join(key_name(key) for key in known.accepted)}.",
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
        f"{target.where} is not in known_hosts. It shows {key_name(shown)}.{notes}",
        f"Ask the cluster's administrators for the fingerprint. Only if it is the same, add this line to known_hosts: `{line}`",
    )


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
        raise SshError("ssh.auth-failed", f"{target.where} let us in, but opens no session ({said(error)}).") from None
    return session
