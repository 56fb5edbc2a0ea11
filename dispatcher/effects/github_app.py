"""A GitHub App's id and private key → its identity, and tokens for one repository that hold as long as the process runs.

Two requests before the first token, one for each later one. The private key leaves this process in no form: what is sent is a JSON
web token that it signed and that holds for minutes
(https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/about-authentication-with-a-github-app).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from threading import RLock
from typing import TYPE_CHECKING, Any, cast

from dispatcher.effects.github_http import GitHubError, Transport
from dispatcher.effects.github_objects import segment
from dispatcher.effects.sshkeys import repaired
from dispatcher.errors import ForgeError, SshError
from dispatcher.ports import Clock

if TYPE_CHECKING:
    from github.Auth import AppAuth

NEEDED: Mapping[str, str] = {"contents": "read", "checks": "write", "pull_requests": "write"}
"""What the dispatcher cannot do without; https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app."""
WELCOME: Mapping[str, str] = {"issues": "write", "members": "read"}
"""Asked for where the installation has it: `issues`, which GitHub's list of permissions names for reactions although
`pull_requests` is what it looks at on a pull request's comments; `members`, without which nobody is in any team."""
MARGIN = timedelta(minutes=5)
"""A token that expires sooner than this is replaced before it is used: a fetch with it may take a while."""
_STRENGTH = {"read": 1, "write": 2, "admin": 3}


@dataclass(frozen=True)
class _Installation:
    id: int
    slug: str
    permissions: Mapping[str, str]


@dataclass(frozen=True)
class _Issued:
    token: str = field(repr=False)
    at: datetime
    until: datetime


class AppInstallation:
    """An `Account`: a GitHub App where it is installed on `repository` (`owner/name`). `app_id` is the App's id or client id.

    `private_key` is a PEM text, also as web forms and shells leave it. `mask` is told each new token before it is used. Asks GitHub
    only when it must, so making one costs no request. Raises `ForgeError`: `github.app-key` at once, `github.app-not-installed`,
    `github.app-refused` and `github.app-permissions` when it asks, and what `Transport` raises.
    """

    def __init__(
        self,
        app_id: str,
        private_key: str,
        repository: str,
        api_url: str,
        clock: Clock,
        timeout: float = 20.0,
        patience: float = 60.0,
        mask: Callable[[str], object] = lambda secret: None,
    ) -> None:
        self._http = Transport(_Signed(_signer(app_id.strip(), private_key)), api_url, timeout, patience, clock)
        owner, _, self._name = repository.partition("/")
        self._url = f"/repos/{segment(owner)}/{segment(self._name)}/installation"
        self._clock = clock
        self._mask = mask
        self._lock = RLock()
        self._installation: _Installation | None = None
        self._issued: _Issued | None = None

    @property
    def requests(self) -> int:
        """How many requests were sent in the App's own name."""
        return self._http.sent

    @property
    def app_slug(self) -> str:
        """The App's slug, as the installation tells it."""
        return self._installed().slug

    @property
    def identity(self) -> str:
        """The login of the App's bot."""
        return f"{self.app_slug}[bot]"

    def token(self) -> str:
        """An installation token for this repository alone, good for at least five minutes more."""
        with self._lock:
            if self._issued is None or self._issued.until - MARGIN <= self._clock.now():
                self._issued = self._issue()
            return self._issued.token

    def renewed(self, refused: str) -> bool:
        """Whether a refused token is forgotten now: one that was made within the last minute is not, or this would never end."""
        with self._lock:
            if self._issued is None or self._issued.token != refused:
                return True
            if self._clock.now() - self._issued.at < timedelta(minutes=1):
                return False
            self._issued = None
            return True

    def _installed(self) -> _Installation:
        """https://docs.github.com/rest/apps/apps#get-a-repository-installation-for-the-authenticated-app"""
        with self._lock:
            if self._installation is None:
                with _said_of_the_app(self._name):
                    found = self._http.requestJsonAndCheck("GET", self._url)[1]
                    permissions = {str(name): str(level) for name, level in found["permissions"].items()}
                    self._installation = _Installation(int(found["id"]), str(found["app_slug"]), permissions)
            return self._installation

    def _issue(self) -> _Issued:
        """https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app"""
        installation = self._installed()
        asked = {"repositories": [self._name], "permissions": _permissions(installation)}
        with _said_of_the_app(self._name):
            url = f"/app/installations/{installation.id}/access_tokens"
            headers, made = self._http.requestJsonAndCheck("POST", url, input=asked)
            expires_at = datetime.strptime(made["expires_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
            # How long it holds is by GitHub's clock alone: the runner's may be wrong.
            lifetime = expires_at - parsedate_to_datetime(headers["date"])
            token = str(made["token"])
        self._mask(token)
        now = self._clock.now()
        return _Issued(token, now, now + lifetime)


@dataclass(frozen=True)
class _Signed:
    """The App itself, as an `Account`: all that it may do is ask about its installations."""

    auth: AppAuth = field(repr=False)
    app_slug: str = ""
    identity: str = ""

    def token(self) -> str:
        """A new JSON web token, good for five minutes."""
        return str(self.auth.create_jwt())

    def renewed(self, refused: str) -> bool:
        """Another one would be refused as well."""
        return False


def _signer(app_id: str, private_key: str) -> AppAuth:
    """Raises `ForgeError` (`github.app-key`) when this is no RSA key, which is the only kind that GitHub makes for Apps."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from github.Auth import AppAuth

    try:
        # Checking the primes takes 0.2 s; GitHub would refuse what a wrong key signs.
        key = load_pem_private_key(repaired(private_key).encode(), None, unsafe_skip_rsa_key_validation=True)
    except SshError as problem:
        raise ForgeError("github.app-key", problem.cause) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ForgeError("github.app-key", "The App's private key is damaged, encrypted, or of another kind than PEM.") from None
    if not isinstance(key, RSAPrivateKey):
        raise ForgeError("github.app-key", "The App's private key is no RSA key.")
    return AppAuth(app_id or "0", private_key=cast(Any, lambda: key))


def _permissions(installation: _Installation) -> dict[str, str]:
    """What to ask for: no more than is needed, and nothing that the installation lacks, which GitHub would answer with 422."""

    def has(name: str, level: str) -> bool:
        return _STRENGTH.get(installation.permissions.get(name, ""), 0) >= _STRENGTH[level]

    missing = [f"`{name}: {level}`" for name, level in NEEDED.items() if not has(name, level)]
    if missing:
        raise ForgeError(
            "github.app-permissions",
            f"The App `{installation.slug}` lacks {', '.join(missing)} here.",
            f"Give the App {' and '.join(missing)} in its settings, then accept the new permissions where it is installed.",
        )
    return dict(NEEDED) | {name: level for name, level in WELCOME.items() if has(name, level)}


@contextmanager
def _said_of_the_app(name: str) -> Iterator[None]:
    """Turns GitHub's refusals of an App into the App's own errors: what to do next is not what a token's would be."""
    try:
        yield
    except GitHubError as problem:
        # An id that belongs to no App is a 404 too, and told apart by its words alone.
        if problem.status == 404 and "Integration not found" not in problem.cause:
            raise ForgeError("github.app-not-installed", f"The App is not installed on `{name}`: {problem.cause}") from None
        if problem.status in (401, 403, 404, 422) and problem.code != "github.rate-limited":
            raise ForgeError("github.app-refused", problem.cause) from None
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as problem:
        raise ForgeError(
            "github.bad-answer", f"GitHub's answer about the App does not look as documented ({type(problem).__name__})."
        ) from problem
