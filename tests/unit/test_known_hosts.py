"""known_hosts texts → the keys that a host may show, as a table."""

import base64

import pytest

from dispatcher.known_hosts import HostKey, known_keys, name_of


def key(kind: str, number: int = 1) -> HostKey:
    return HostKey(kind, len(kind).to_bytes(4, "big") + kind.encode() + bytes([number]) * 32)


ED, RSA, OTHER = key("ssh-ed25519"), key("ssh-rsa"), key("ssh-ed25519", 2)
# ssh-keygen -H of `login.example.com` and of `[login.example.com]:2222`, salt of twenty zero bytes
HASHED = "|1|AAAAAAAAAAAAAAAAAAAAAAAAAAA=|"


@pytest.mark.parametrize(
    ("text", "host", "port", "accepted"),
    [
        (f"login {ED.line}", "login", 22, [ED]),
        (f"login {ED.line} a comment", "LOGIN", 22, [ED]),
        (f"LOGIN {ED.line}", "login", 22, [ED]),
        (f"\n# comment\n  login {ED.line}\r\nlogin {RSA.line}", "login", 22, [ED, RSA]),
        (f"other {ED.line}", "login", 22, []),
        (f"login,10.0.0.1 {ED.line}", "10.0.0.1", 22, [ED]),
        (f"[login]:2222 {ED.line}", "login", 2222, [ED]),
        (f"[login]:2222 {ED.line}", "login", 22, []),
        (f"[login]:2222 {ED.line}", "login", 2223, []),
        (f"login {ED.line}", "login", 2222, [ED]),
        (f"login {ED.line}\n[login]:2222 {RSA.line}", "login", 2222, [RSA]),
        (f"*.example.com {ED.line}", "a.example.com", 22, [ED]),
        (f"*.example.com {ED.line}", "example.com", 22, []),
        (f"login? {ED.line}", "login1", 22, [ED]),
        (f"*.example.com,!bad.example.com {ED.line}", "bad.example.com", 22, []),
        (f"l.gin {ED.line}", "login", 22, []),
        (f"login {ED.line}\n@revoked * {ED.line}", "login", 22, []),
        (f"@revoked other {ED.line}\nlogin {ED.line}", "login", 22, [ED]),
        (f"@cert-authority * {ED.line}", "login", 22, []),
        (f"@unknown login {ED.line}", "login", 22, []),
        ("login ssh-ed25519", "login", 22, []),
        ("login ssh-ed25519 AAAA", "login", 22, []),
        (f"login ssh-rsa {ED.line.split()[1]}", "login", 22, []),
        (f"|1|bad|hash {ED.line}", "login", 22, []),
        (f"|2|x|y {ED.line}", "login", 22, []),
        ("", "login", 22, []),
    ],
)
def test_accepted(text: str, host: str, port: int, accepted: list[HostKey]) -> None:
    assert list(known_keys(text, host, port).accepted) == accepted


def test_a_hashed_name() -> None:
    import hashlib
    import hmac

    digest = base64.b64encode(hmac.new(b"\0" * 20, b"[login]:2222", hashlib.sha1).digest()).decode()
    text = f"{HASHED}{digest} {ED.line}"
    assert known_keys(text, "login", 2222).accepted == (ED,)
    assert known_keys(text, "login", 22).accepted == ()


def test_what_cannot_be_read_is_counted() -> None:
    found = known_keys(f"nonsense\nlogin {OTHER.line}\nlogin ssh-rsa AAAA\n", "login")
    assert (found.accepted, found.unreadable) == ((OTHER,), 2)
    assert known_keys(f"@cert-authority login {ED.line}", "login").authorities == 1
    assert known_keys(f"@revoked login {ED.line}", "login").revoked == (ED,)


def test_names_and_fingerprints() -> None:
    assert name_of("login", 22) == "login"
    assert name_of("login", 2222) == "[login]:2222"
    # ssh-keygen -l of the same key
    assert ED.fingerprint.startswith("SHA256:")
    assert len(ED.fingerprint) == 50
