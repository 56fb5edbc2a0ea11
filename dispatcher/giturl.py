"""Text of a git remote or of a submodule's `url` → the address that may be asked, or the reason why not.

A pull request can write anything into `.gitmodules`, so a submodule's address is data from outside: it may lead to https anywhere
(without our token), and to ssh, plain http or a folder only where the repository that names it is of that same kind itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_SCHEMED = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/]*)(?P<path>/.*)?")
_SCP = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[^@/:]+):(?P<path>(?!:).+)")
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class GitUrl:
    """An address that git may be given: scheme (https, http, ssh, scp, file), host with port, path; `password` is never part of `str()`."""

    scheme: str
    host: str
    path: str
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        login = f"{self.user}@" if self.user and self.scheme in ("ssh", "scp") else ""
        if self.scheme == "file":
            return self.path
        if self.scheme == "scp":
            return f"{login}{self.host}:{self.path}"
        return f"{self.scheme}://{login}{self.host}{self.path}"

    @property
    def hostname(self) -> str:
        """The host without its port, lower case."""
        return re.sub(r":[0-9]+$", "", self.host).lower()

    @property
    def over_http(self) -> bool:
        """Whether git speaks HTTP(S) to it."""
        return self.scheme in ("https", "http")


def parse_url(text: str) -> GitUrl:
    """Reads `https://…`, `http://…`, `ssh://…`, `user@host:path`, `file://…` or an absolute folder. Raises ValueError with the reason.

    The forms are those of https://git-scm.com/docs/git-clone#_git_urls.
    """
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise ValueError("the address has control characters in it")
    if text.startswith("/"):
        return GitUrl("file", "", text)
    if match := _SCHEMED.fullmatch(text):
        scheme, path = match["scheme"].lower(), match["path"] or ""
        login, _, host = match["authority"].rpartition("@")
        if scheme == "file" and not match["authority"] and path:
            return GitUrl("file", "", path)
        if scheme not in ("https", "http", "ssh"):
            raise ValueError(f"the address begins with {scheme}:, and only https and ssh are allowed")
        user, _, password = login.partition(":")
        url = GitUrl(scheme, host, path, user, password)
    elif (match := _SCP.fullmatch(text)) and "::" not in text:
        url = GitUrl("scp", match["host"], match["path"], match["user"] or "")
    else:
        raise ValueError("the address is neither https:// nor ssh")
    if not _HOST.fullmatch(url.host) or not url.path.strip("/") or url.path.startswith("-"):
        raise ValueError("the address has no proper host and path")
    if url.scheme in ("ssh", "scp") and url.user and not _USER.fullmatch(url.user):
        raise ValueError("the address has an unusual user name")
    return url


def submodule_url(parent: GitUrl, declared: str) -> GitUrl:
    """The address of a submodule that a repository at `parent` declares. Raises ValueError with the reason when it may not be asked.

    Relative addresses are resolved as git does (https://git-scm.com/docs/git-submodule). An ssh address on the parent's own host is
    asked the way the parent is asked, because a token opens https and nobody has an ssh key for GitHub on a runner.
    """
    if declared.startswith(("./", "../")):
        return _relative(parent, declared)
    url = parse_url(declared)
    if url.scheme in ("ssh", "scp") and parent.over_http and url.hostname == parent.hostname:
        return replace(parent, path="/" + url.path.lstrip("/"))
    if url.scheme == "https":
        return replace(url, user="", password="")
    same_host = url.host.lower() == parent.host.lower()
    kinds = {"http": ("http",), "ssh": ("ssh", "scp"), "scp": ("ssh", "scp"), "file": ("file",)}[url.scheme]
    if not same_host or parent.scheme not in kinds:
        raise ValueError(f"its address is {_words(url)}, which is not allowed from {_words(parent)}")
    return url


def _relative(parent: GitUrl, declared: str) -> GitUrl:
    """`../x` and `./x`, seen from the parent's address."""
    base = [part for part in parent.path.split("/") if part]
    for part in declared.split("/"):
        if part == "..":
            if not base:
                raise ValueError("its relative address leads out of the host")
            base.pop()
        elif part not in ("", "."):
            base.append(part)
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in declared) or not base or base[0].startswith("-"):
        raise ValueError("its relative address names nothing")
    return replace(parent, path="/".join(base) if parent.scheme == "scp" and not parent.path.startswith("/") else "/" + "/".join(base))


def may_have_token(url: GitUrl, root: GitUrl) -> bool:
    """Whether our token may be sent there: the very host it was made for, and encrypted or on loopback."""
    return (
        url.over_http
        and (url.scheme, url.host.lower()) == (root.scheme, root.host.lower())
        and (url.scheme == "https" or url.hostname in _LOOPBACK)
    )


def _words(url: GitUrl) -> str:
    """An address for people, without anything secret."""
    return f"{'ssh' if url.scheme == 'scp' else url.scheme}://{url.host}" if url.host else "a folder on this machine"
