"""A host's address → the public keys that it has, for somebody to compare with what its administrators published.

The only place where a key is ever asked for, and only `init` comes here. Each key is proved: the host signs the key exchange with it
(https://www.rfc-editor.org/rfc/rfc4253#section-8). Nobody logs in, and nothing is trusted: what is not confirmed is thrown away.
"""

from __future__ import annotations

import contextlib
import socket

from dispatcher.effects.sshkeys import preload
from dispatcher.effects.sshlogin import said
from dispatcher.errors import SshError
from dispatcher.known_hosts import HostKey

SCAN_SECONDS = 20.0
# A host shows one key in a connection, of a kind that both sides take: each kind is asked for in a connection of its own.
KINDS: tuple[tuple[str, ...], ...] = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256"),
)


def scan(host: str, port: int, timeout: float = SCAN_SECONDS) -> tuple[HostKey, ...]:
    """The host's keys, ed25519 first; at least one.

    Raises:
        SshError: `ssh.unreachable` when there is no answer, it is not SSH, or it has no key that can be used here.
    """
    preload()
    found = [key for kinds in KINDS if (key := _key(host, port, kinds, timeout)) is not None]
    if not found:
        raise SshError("ssh.unreachable", f"{host}:{port} has no host key of a kind that can be used here: ed25519, ecdsa, rsa.")
    return tuple(found)


def _key(host: str, port: int, kinds: tuple[str, ...], timeout: float) -> HostKey | None:
    """The key that the host shows when it may show only these kinds; None when it has none of them."""
    from paramiko import SSHException, Transport
    from paramiko.ssh_exception import IncompatiblePeer

    try:
        connection = socket.create_connection((host, port), timeout)
    except socket.gaierror:
        raise SshError("ssh.unreachable", f"The name {host} cannot be resolved.") from None
    except (OSError, UnicodeError) as error:
        raise SshError("ssh.unreachable", f"{host}:{port} cannot be reached ({said(error)}).") from None
    with contextlib.closing(connection):
        transport = Transport(connection)
        try:
            transport.banner_timeout = transport.handshake_timeout = timeout
            transport.get_security_options().key_types = kinds
            transport.start_client(timeout=timeout)
            if not transport.initial_kex_done:
                raise TimeoutError("it did not finish the key exchange in time")
            key = transport.get_remote_server_key()
            return HostKey(key.get_name(), key.asbytes())
        except IncompatiblePeer as error:
            if "host key" in str(error).lower():
                return None
            raise SshError("ssh.unreachable", f"{host}:{port} and this program have no common way ({said(error)}).") from None
        except (SSHException, OSError, EOFError) as error:
            words = f"{host}:{port} answers, but ended or refused the SSH handshake ({said(error)})."
            raise SshError("ssh.unreachable", words) from None
        finally:
            transport.close()
