"""A host's keys, asked from real OpenSSH servers and from what is none; nobody logs in."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from dispatcher.effects.hostkeys import scan
from dispatcher.errors import SshError
from dispatcher.known_hosts import known_keys
from tests.conftest import started
from tests.rig.parts import free_ports
from tests.rig.sshd import Sshd


@pytest.fixture(scope="module")
def three_keys() -> Iterator[Sshd]:
    with started(Sshd(host_keys=("ed25519", "ecdsa", "rsa"))) as server:
        yield server


def test_every_key_with_opensshs_own_fingerprint(three_keys: Sshd) -> None:
    found = scan(three_keys.host, three_keys.port)
    assert [key.kind for key in found] == ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]
    assert set(found) == set(known_keys(three_keys.known_hosts, three_keys.host, three_keys.port).accepted)
    listed = subprocess.run(["ssh-keygen", "-lf", "-"], input=three_keys.known_hosts, capture_output=True, text=True, check=True).stdout
    assert {key.fingerprint for key in found} == {line.split()[1] for line in listed.splitlines()}
    assert three_keys.connections() == three_keys.sessions() == 0
    assert "Invalid user" not in three_keys.log


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_host_with_one_key(kind: str) -> None:
    with started(Sshd(host_keys=(kind,))) as server:
        [key] = scan(server.host, server.port)
        assert kind in key.kind


@contextlib.contextmanager
def answering(words: bytes) -> Iterator[int]:
    """A port of 127.0.0.1 that says something else than SSH, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    connection.sendall(words)
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        stop.set()
        with contextlib.suppress(OSError), socket.create_connection(server.getsockname(), 1):
            pass
        thread.join(5)


def test_where_nothing_answers() -> None:
    (port,) = free_ports(1)
    with pytest.raises(SshError, match="refused") as refused:
        scan("127.0.0.1", port, 5)
    assert refused.value.code == "ssh.unreachable"
    with pytest.raises(SshError, match="cannot be resolved"):
        scan("no-such-host.invalid", 22, 5)


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n" + bytes(64)])
def test_what_is_no_ssh_server(words: bytes) -> None:
    with answering(words) as port, pytest.raises(SshError) as refused:
        scan("127.0.0.1", port, 3)
    assert refused.value.code == "ssh.unreachable"


def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(SshError) as refused:
        scan("127.0.0.1", server.getsockname()[1], 1)
    assert refused.value.code == "ssh.unreachable"
