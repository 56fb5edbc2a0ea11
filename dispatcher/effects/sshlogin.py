"""Keys and an open, verified transport → a transport that has let us in. Never asks anybody.

The request for the authentication service is followed at once by the request to authenticate: RFC 4252 orders them, it does not ask to
wait in between, and paramiko alone would, for a round trip.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dispatcher.effects.sshkeys import load_key
from dispatcher.errors import SshError
from dispatcher.known_hosts import HostKey
from dispatcher.untrusted import printable

if TYPE_CHECKING:
    import paramiko

KEEPALIVE_SECONDS = 30
AGENT_KEYS = 5
"""OpenSSH's MaxAuthTries is 6."""


@dataclass(frozen=True)
class SshCredentials:
    """What opens the door, all of it texts; `agent` is the path of an agent's socket, asked when there is no key or it is refused."""

    key: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    certificate: str | None = None
    agent: str | None = None


def keys_of(credentials: SshCredentials) -> list[paramiko.PKey]:
    """The keys to try, in this order: the given one, then an agent's.

    Raises:
        SshError: `ssh.no-key`, `ssh.agent`, and what `load_key` raises.
    """
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
            raise SshError("ssh.agent", f"The agent does not answer ({said(error)}).") from None
        return []
    keys: list[paramiko.PKey] = [*agent.get_keys()]
    return keys[:AGENT_KEYS]


def authenticate(transport: paramiko.Transport, user: str, where: str, keys: list[paramiko.PKey]) -> None:
    """Tries the keys in turn.

    Raises:
        SshError: `ssh.auth-failed` names every key that was tried, by kind and fingerprint.
    """
    import paramiko

    tried, reason = [], ""
    handler = _auth_handler(transport)
    for key in keys:
        tried.append(key_name(HostKey(key.get_name(), key.asbytes())) + (" with a certificate" if key.public_blob else ""))
        event = threading.Event()
        try:
            handler.auth_publickey(user, key, event)
            more = handler.wait_for_response(event)
        except paramiko.BadAuthenticationType as error:
            reason = f" The server does not accept keys here, only {', '.join(error.allowed_types)}."
            break
        except (paramiko.SSHException, OSError, EOFError) as error:
            if not transport.is_active():
                reason = f" The server ended the connection ({said(error)})."
                break
            continue
        if more:
            reason = f" The key was accepted, but the server also wants {', '.join(more)}, which a program cannot give."
            break
        transport.set_keepalive(KEEPALIVE_SECONDS)
        return
    raise SshError("ssh.auth-failed", f"{where} refuses {'; '.join(tried)}.{reason}")


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


def key_name(key: HostKey) -> str:
    """Kind and fingerprint, as people compare them."""
    return f"{key.kind} {key.fingerprint}"


def said(error: BaseException) -> str:
    """An exception of the network in a few public words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(printable(str(text)).split())[:200]
