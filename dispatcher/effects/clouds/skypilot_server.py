"""Calls of SkyPilot's client → answers of its API server within a time, or our errors.

SkyPilot's client sets no time-out on what it reads, tries again for ten minutes, starts a server on this machine when it finds none,
and tells its makers of each call. None of that happens here. https://docs.skypilot.co/en/latest/reference/api-server/api-server.html
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from dispatcher.effects.clouds.api import ApiError, RefusedError

T = TypeVar("T")
ASK_SECONDS = 60.0
LOG_CHARACTERS = 16 << 20

_NOT_LET_IN = ("ApiServerAuthenticationError", "PermissionDeniedError", "NoWorkspaceAccessError")
_NOT_THERE = ("ApiServerConnectionError", "ServerTemporarilyUnavailableError", "RequestInterruptedError", "ConnectionError", "Timeout")
_CERTAIN = (
    "ResourcesUnavailableError",
    "ResourcesMismatchError",
    "NoCloudAccessError",
    "NotSupportedError",
    "InvalidClusterNameError",
    "InvalidSkyPilotConfigError",
    "InvalidCloudConfigs",
    "InvalidCloudCredentials",
    "ClusterOwnerIdentityMismatchError",
    "ProvisionPrechecksError",
    "UserRequestRejectedByPolicy",
    "StorageError",
    "StorageSpecError",
    "KubernetesValidationError",
    "ClusterSetUpError",
    "CommandFailureException",
    "ValueError",
)
"""After these SkyPilot has not started the job and will not: classes of `sky.exceptions`, and what derives from them."""


class NotInTimeError(Exception):
    """The call goes on somewhere; nobody waits for it any more."""


def client(profile: Mapping[str, Any]) -> Any:
    """The package `sky`, which speaks to the profile's API server, or to the one that the environment names, or to this machine's."""
    os.environ["SKYPILOT_DISABLE_USAGE_COLLECTION"] = "1"
    os.environ["SKYPILOT_DISABLE_LOCAL_API_SERVER"] = "1"  # none is started: it would outlive us, and its memory of jobs would not
    if profile["api_server"]:
        os.environ["SKYPILOT_API_SERVER_ENDPOINT"] = profile["api_server"]
    import sky

    return sky


def on_this_machine() -> bool:
    """Whether the API server runs here: then it is sent no files, and reads them where they lie."""
    from sky.server import common

    return bool(common.is_api_server_local())


def within(seconds: float, call: Callable[[], T]) -> T:
    """The call's answer.

    Raises what the call raises, and NotInTimeError.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:  # SkyPilot calls sys.exit in places
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise NotInTimeError
    return answers[0]


@contextmanager
def calls() -> Iterator[None]:
    """SkyPilot's errors become ours: what is not known to be otherwise is unclear."""
    try:
        yield
    except (ApiError, RefusedError, ImportError):
        raise
    except NotInTimeError:
        raise ApiError("cloud.unreachable", f"the SkyPilot API server did not answer within {ASK_SECONDS:.0f} s") from None
    except (Exception, SystemExit) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if is_a(error, _NOT_LET_IN) or status in (401, 403):
            raise ApiError(
                "cloud.credentials", f"the SkyPilot API server lets nobody in with these credentials: {words_of(error)}"
            ) from None
        if "starting a local API server" in str(error):
            where = "`api_server` in the profile or SKYPILOT_API_SERVER_ENDPOINT names none, and none runs on this machine"
            raise ApiError("cloud.unreachable", f"there is no SkyPilot API server: {where}") from None
        if is_a(error, _NOT_THERE) or (status is not None and status >= 500):
            raise ApiError("cloud.unreachable", f"the SkyPilot API server does not answer: {words_of(error)}") from None
        raise ApiError("cloud.failed", words_of(error)) from None


def certain(error: BaseException) -> bool:
    """Whether SkyPilot has refused the job for good."""
    return is_a(error, _CERTAIN) and not is_a(error, (*_NOT_THERE, "RequestException"))


def is_a(error: BaseException, names: tuple[str, ...]) -> bool:
    """Whether the error's class, or one that it derives from, has one of these names: other versions of SkyPilot have other classes."""
    return any(kind.__name__ in names for kind in type(error).__mro__)


def words_of(error: BaseException) -> str:
    """What an error says, on one line and without colours; its class where it says nothing."""
    from dispatcher.untrusted import strip_ansi

    return " ".join(strip_ansi(str(error)).split())[:1000] or type(error).__name__


class Tail(io.StringIO):
    """A stream that keeps the newest part of what is written to it: between `limit` and twice as many characters."""

    def __init__(self, limit: int = LOG_CHARACTERS) -> None:
        super().__init__()
        self._limit = limit

    def write(self, text: str) -> int:
        """As io.TextIOBase has it."""
        written = super().write(text)
        if self.tell() > 2 * self._limit:
            kept = self.getvalue()[-self._limit :]
            self.seek(0)
            self.truncate()
            super().write(kept)
        return written
