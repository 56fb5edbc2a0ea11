"""A private key as people paste it into a secret → a key that paramiko can sign with. Nothing is written to disk, nobody is asked.

OpenSSH's own format and PEM (PKCS#1, SEC 1, PKCS#8); ed25519, ecdsa and rsa; with or without passphrase, with or without certificate.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import re
import sys
from typing import TYPE_CHECKING

from dispatcher.errors import SshError

if TYPE_CHECKING:
    import paramiko
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

_ARMOR = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----(.*?)-----END \1-----", re.DOTALL)
_PUBLIC = re.compile(
    r"^(ssh-(ed25519|rsa|dss)|ecdsa-sha2-\S+|sk-\S+) AAAA|-----BEGIN [A-Z0-9 ]*PUBLIC KEY-----|^---- BEGIN SSH2 PUBLIC KEY"
)


def preload() -> None:
    """Imports paramiko without `invoke`, which it would load only for a feature of ssh_config, and which takes a third of the time."""
    if "paramiko" in sys.modules:
        return
    absent = "invoke" not in sys.modules
    if absent:
        sys.modules["invoke"] = None  # type: ignore[assignment] # makes the import fail, which paramiko allows for
    try:
        import paramiko  # noqa: F401
    finally:
        if absent:
            del sys.modules["invoke"]
    # Its tracebacks would go to standard error; what matters is in the exceptions.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())


def load_key(text: str, passphrase: str | None = None, certificate: str | None = None) -> paramiko.PKey:
    """A pasted private key → a key to sign with.

    Raises:
        SshError: `ssh.key-unreadable`, `ssh.key-needs-passphrase`, `ssh.key-wrong-passphrase`, `ssh.certificate`.
    """
    key = _signing_key(_parse(repaired(text).encode(), passphrase))
    if certificate and certificate.strip():
        try:
            key.load_certificate(" ".join(certificate.split()))
        except (ValueError, IndexError, binascii.Error, UnicodeDecodeError):
            raise SshError("ssh.certificate", f"The certificate is none, or none for a key of kind {key.get_name()}.") from None
    return key


def repaired(text: str) -> str:
    """The key as it once was: web forms, shells and YAML change line ends,
    join lines, add spaces and quotes, or leave `\\n` as two letters.

    Raises:
        SshError: `ssh.key-unreadable` when there is no private key in it; says what it is instead where that can be seen.
    """
    text = text.strip().lstrip("\ufeff").strip().strip("\"'").strip()
    if "-----BEGIN" not in text and re.fullmatch(r"[A-Za-z0-9+/=\s]{100,}", text):
        try:
            decoded = base64.b64decode("".join(text.split()), validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            decoded = ""
        text = decoded if "-----BEGIN" in decoded else text
    text = text.replace("\\r", "").replace("\\n", "\n").replace("\r\n", "\n").replace("\r", "\n")
    armor = _ARMOR.search(text)
    if armor is None:
        raise SshError("ssh.key-unreadable", _not_a_key(text))
    kind, body = armor.groups()
    headers = [line.strip() for line in body.splitlines() if ": " in line]
    data = "".join("".join(line.split()) for line in body.splitlines() if ": " not in line)
    lines = [data[start : start + 64] for start in range(0, len(data), 64)]
    return "\n".join([f"-----BEGIN {kind}-----", *headers, *([""] if headers else []), *lines, f"-----END {kind}-----", ""])


def _not_a_key(text: str) -> str:
    if not text:
        return "The key is empty."
    if _PUBLIC.search(text):
        return "This is the public key. The private one is needed: the file without `.pub`."
    if text.startswith("PuTTY-User-Key-File"):
        return "This is a PuTTY key. `puttygen key.ppk -O private-openssh -o key` converts it."
    if "-----BEGIN" in text:
        return "The key is cut off: its last line, `-----END … PRIVATE KEY-----`, is missing."
    if text.startswith(("/", "~")):
        return "This is a path. The key itself is needed, the file's content."
    return "This is no private key: there is no line `-----BEGIN … PRIVATE KEY-----`."


def _parse(data: bytes, passphrase: str | None) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    load = load_ssh_private_key if b"BEGIN OPENSSH" in data else load_pem_private_key
    # Checking the primes of an RSA key takes 0.2 s; a wrong key only fails to log in.
    quick = {"unsafe_skip_rsa_key_validation": True}
    password = passphrase.encode() if passphrase else None
    try:
        try:
            return load(data, password, **quick)
        except TypeError as error:
            if password is None:
                raise SshError("ssh.key-needs-passphrase", "The key is encrypted, and no passphrase was given.") from None
            if "not encrypted" not in str(error):
                raise
            return load(data, None, **quick)  # a passphrase too many does no harm
        except ValueError as error:
            # OpenSSH's format without a passphrase says it with a ValueError.
            if password is None and "assword" in str(error):
                raise SshError("ssh.key-needs-passphrase", "The key is encrypted, and no passphrase was given.") from None
            encrypted = b"ENCRYPTED" in data or re.search(r"assword|decrypt|[Cc]orrupt|checksum|padding", str(error))
            if password is not None and encrypted:
                raise SshError("ssh.key-wrong-passphrase", "The passphrase does not open the key.") from None
            raise
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SshError("ssh.key-unreadable", "The key is damaged, or of a kind that cannot be used here.") from None


def _signing_key(key: PrivateKeyTypes) -> paramiko.PKey:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    preload()
    from paramiko import ECDSAKey, Ed25519Key, RSAKey

    if isinstance(key, rsa.RSAPrivateKey):
        return RSAKey(key=key)  # type: ignore[arg-type, no-any-return, unused-ignore]
    kinds = ((ec.EllipticCurvePrivateKey, ECDSAKey), (ed25519.Ed25519PrivateKey, Ed25519Key))
    for theirs, ours in kinds:
        if isinstance(key, theirs):
            plain = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
            return ours.from_private_key(io.StringIO(plain))
    raise SshError("ssh.key-unreadable", "The key is of a kind that cannot be used here: ed25519, ecdsa and rsa can.")
