"""A known_hosts text → which keys a host may show. https://man.openbsd.org/sshd.8#SSH_KNOWN_HOSTS_FILE_FORMAT

OpenSSH's rules, read strictly: plain, `[host]:port`, wildcard, negated and hashed names; `@revoked` lines forbid a key for every host
that they match. `@cert-authority` lines are counted only, because paramiko knows no host certificates.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass

DEFAULT_PORT = 22


@dataclass(frozen=True)
class HostKey:
    """A public key as it travels: `kind` (ssh-ed25519, ssh-rsa, …) and its bytes."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it: `SHA256:…`."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def line(self) -> str:
        """Kind and key as they stand in a known_hosts line."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True)
class KnownKeys:
    """What a known_hosts text says about one host."""

    accepted: tuple[HostKey, ...]
    revoked: tuple[HostKey, ...]
    authorities: int = 0
    unreadable: int = 0
    """Lines of the whole text that are no known_hosts lines."""


def known_keys(text: str, host: str, port: int = DEFAULT_PORT) -> KnownKeys:
    """The keys of `host`. A name without port counts for another port only when no line names that port, as with OpenSSH."""
    lines = list(_lines(text))
    names = [host.lower()] if port == DEFAULT_PORT else [f"[{host.lower()}]:{port}", host.lower()]
    revoked = {key for marker, patterns, key in lines if marker == "@revoked" and key and any(_matches(patterns, name) for name in names)}
    for name in names:
        found = [(marker, key) for marker, patterns, key in lines if key and marker != "@revoked" and _matches(patterns, name)]
        if found:
            break
    return KnownKeys(
        accepted=tuple(dict.fromkeys(key for marker, key in found if not marker and key not in revoked)),
        revoked=tuple(sorted(revoked, key=lambda key: key.kind)),
        authorities=sum(1 for marker, _ in found if marker == "@cert-authority"),
        unreadable=sum(1 for _, _, key in lines if key is None),
    )


def name_of(host: str, port: int) -> str:
    """The host as a known_hosts line names it."""
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def _lines(text: str) -> Iterator[tuple[str, str, HostKey | None]]:
    """Marker, patterns and key of every line; the key is None when the line cannot be read."""
    for line in text.splitlines():
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        if len(fields) < 3 or marker not in ("", "@revoked", "@cert-authority"):
            yield marker, "", None
            continue
        patterns, kind, encoded = fields[:3]
        try:
            blob = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            blob = b""
        # The key's bytes begin with the name of its kind, which is what is believed.
        length = int.from_bytes(blob[:4], "big")
        yield marker, patterns, HostKey(kind, blob) if blob[4 : 4 + length] == kind.encode() and kind else None


def _matches(patterns: str, name: str) -> bool:
    """Whether a line's host field names the host."""
    if patterns.startswith("|"):
        return _matches_hashed(patterns, name)
    found = False
    for pattern in patterns.lower().split(","):
        negated = pattern.startswith("!")
        expression = re.escape(pattern.removeprefix("!")).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(expression, name):
            if negated:
                return False
            found = True
    return found


def _matches_hashed(hashed: str, name: str) -> bool:
    """`|1|salt|hash` is HMAC-SHA1 of the name, keyed with the salt: https://man.openbsd.org/ssh_config#HashKnownHosts."""
    parts = hashed.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, digest = base64.b64decode(parts[2], validate=True), base64.b64decode(parts[3], validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
