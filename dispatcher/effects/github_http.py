"""One GitHub request → its decoded answer, or a coded error; with retries that never do a thing twice.

PyGithub builds the addresses and the objects; this class is what its objects send through. PyGithub's own transport is not
used, because it repeats a POST whose answer was lost, drops the query when a renamed repository redirects, and takes a
redirect of a write (307) or an HTML page for an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

import requests
from github.Requester import Requester
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential
from urllib3.exceptions import NewConnectionError  # type: ignore[import-untyped, unused-ignore]

from dispatcher import __version__
from dispatcher.effects.github_account import Account
from dispatcher.errors import ForgeError
from dispatcher.ports import Clock

ATTEMPTS = 5
API_VERSION = "2022-11-28"
STATUS = ":status"
"""The answer's status among its headers, by HTTP/2's name for it, which no header of HTTP/1.1 can have."""
_LOOKS = 3
_REDIRECTS = (301, 302, 307, 308)
_SECONDARY_LIMIT_WAIT = 60.0
"""What GitHub asks for when it names no time: https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api"""


T = TypeVar("T")


class GitHubError(ForgeError):
    """A `ForgeError` that also says what may be done next.

    `status` is None without an answer; `passing`: trying again may help, after `wait` seconds when GitHub named a time;
    `unclear`: a write that may have taken effect although no usable answer came.
    """

    def __init__(
        self,
        code: str,
        cause: str,
        next_step: str | None = None,
        *,
        status: int | None = None,
        passing: bool = False,
        wait: float | None = None,
        unclear: bool = False,
    ) -> None:
        super().__init__(code, cause, next_step)
        self.status = status
        self.passing = passing
        self.wait = wait
        self.unclear = unclear


class Transport(Requester):
    """A PyGithub `Requester` with one gate, `requestJsonAndCheck`; `sent` counts requests, redirects and repeats included.

    `timeout` is the seconds to wait for a connection and for each piece of an answer; `patience` the seconds that the
    repeats of one request may sleep altogether.
    """

    def __init__(self, account: Account, api_url: str, timeout: float, patience: float, clock: Clock) -> None:
        if urlsplit(api_url).scheme not in ("http", "https") or not urlsplit(api_url).hostname:
            raise GitHubError("github.unreachable", f"`{api_url}` is not the address of a GitHub API.")
        self._api_url = api_url.rstrip("/")
        self._account = account
        self._seconds = timeout
        self._patience = patience
        self._clock = clock
        self._session = requests.Session()
        self._session.auth = Requester.noopAuth  # otherwise a .netrc would replace the token
        self.sent = 0
        super().__init__(
            auth=None,
            base_url=self._api_url,
            timeout=int(timeout) or 1,
            user_agent=f"nemotron-dispatch/{__version__}",
            per_page=100,
            verify=True,
            retry=None,
            pool_size=None,
            lazy=True,
            api_version=API_VERSION,
        )

    def requestJsonAndCheck(  # noqa: N802 - the name is PyGithub's
        self,
        verb: str,
        url: str,
        parameters: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        input: Any | None = None,
        follow_302_redirect: bool = False,
    ) -> tuple[dict[str, Any], Any]:
        """Sends one request → (headers with lower-case names, decoded JSON or None). Raises `GitHubError`."""
        address = Requester.add_parameters_to_url(self._absolute(url), parameters or {})
        harmless = _repeat_is_harmless(verb, address, input)

        def may_repeat(problem: BaseException) -> bool:
            return isinstance(problem, GitHubError) and problem.passing and (harmless or not problem.unclear)

        retrying = Retrying(
            retry=retry_if_exception(may_repeat),
            wait=_pause,
            stop=lambda state: stop_after_attempt(ATTEMPTS)(state) or state.idle_for + state.upcoming_sleep > self._patience,
            sleep=self._clock.sleep,
            reraise=True,
        )
        return retrying(self._once, verb, address, headers or {}, input)

    def once(self, make: Callable[[], T], look: Callable[[], T | None]) -> T:
        """Makes something exactly once: after an unclear answer `look` says whether it is there, and only if not it is made again.

        GitHub's own lists lag a little behind its writes, so looking waits a second first. Raises `GitHubError`.
        """
        retrying = Retrying(
            retry=retry_if_exception(lambda problem: isinstance(problem, GitHubError) and problem.unclear),
            wait=wait_exponential(multiplier=1),
            stop=stop_after_attempt(_LOOKS),
            sleep=self._clock.sleep,
            reraise=True,
        )
        for attempt in retrying:
            with attempt:
                if attempt.retry_state.attempt_number > 1 and (found := look()) is not None:
                    return found
                return make()
        raise AssertionError("tenacity either returns or raises")

    def _once(self, verb: str, address: str, headers: Mapping[str, str], body: Any) -> tuple[dict[str, Any], Any]:
        token = self._account.token()
        response = self._send(verb, address, headers, body, token)
        if response.status_code == 401 and self._account.renewed(token):
            # Nothing was done, so this is no repeat. The token expired by GitHub's clock, or somebody took it back.
            token = self._account.token()
            response = self._send(verb, address, headers, body, token)
        lowered = {name.lower(): value for name, value in response.headers.items()} | {STATUS: str(response.status_code)}
        if response.status_code >= 400:
            raise self._refusal(verb, address, response, token)
        if response.status_code == 204 or not response.content:
            return lowered, None
        try:
            return lowered, response.json()
        except ValueError:
            # Truncated JSON is an accident of this one answer; a web page is a proxy or a wrong address, and stays one.
            raise GitHubError(
                "github.bad-answer",
                f"The answer to {_words(verb, address)} is not JSON: {_excerpt(response.text)}",
                status=response.status_code,
                passing=response.text.lstrip()[:1] in ("{", "["),
                unclear=verb != "GET",
            ) from None

    def _send(self, verb: str, address: str, headers: Mapping[str, str], body: Any, token: str) -> requests.Response:
        """Sends and follows redirects within the same server, repeating method and body as GitHub asks for.

        https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api#follow-redirects
        """
        sent_headers = {"Accept": "application/vnd.github+json", **headers, "User-Agent": f"nemotron-dispatch/{__version__}"}
        sent_headers |= {"Authorization": f"Bearer {token}", "X-GitHub-Api-Version": API_VERSION}
        for _hop in range(4):
            self.sent += 1
            try:
                response = self._session.request(
                    verb, address, json=body, headers=sent_headers, timeout=self._seconds, allow_redirects=False
                )
            except requests.exceptions.RequestException as problem:
                raise _unreachable(verb, address, problem) from None
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or not location:
                return response
            address = self._redirected(address, location)
        raise GitHubError("github.bad-answer", f"{_words(verb, address)} was redirected again and again.")

    def _absolute(self, url: str) -> str:
        return url if urlsplit(url).scheme else f"{self._api_url}/{url.lstrip('/')}"

    def _redirected(self, address: str, location: str) -> str:
        """The next address, with the query of the one before when the new one has none. The token goes to no other server."""
        target = urljoin(address, location)
        old, new = urlsplit(address), urlsplit(target)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            raise GitHubError(
                "github.bad-answer",
                f"{old.scheme}://{old.netloc} sends its callers to {new.scheme}://{new.netloc}.",
                "Set GITHUB_API_URL to the address that the server calls itself.",
            )
        return target if new.query or not old.query else f"{target}?{old.query}"

    def _refusal(self, verb: str, address: str, response: requests.Response, token: str) -> GitHubError:
        """The coded error for an answer of 400 and more."""
        status = response.status_code
        said = _message(response).replace(token, "***")
        cause = f"GitHub answered {status} to {_words(verb, address)}: {said}"
        wait = _limited(response, said, self._clock)
        if wait is not None:
            until = self._clock.now() + timedelta(seconds=wait)
            at = f"{until:%H:%M} UTC" if wait < 12 * 3600 else f"{until:%Y-%m-%d %H:%M} UTC"
            return GitHubError(
                "github.rate-limited", f"{cause} (until {at})", f"Try again after {at}.", status=status, passing=True, wait=wait
            )
        if status == 401:
            return GitHubError("github.unauthorized", cause, status=status)
        if status in (403, 451):
            return GitHubError("github.forbidden", cause, _needed(verb, address, response), status=status)
        if status in (404, 410):
            return GitHubError("github.not-found", cause, status=status)
        if status >= 500 or status == 408:
            return GitHubError("github.unavailable", cause, status=status, passing=True, unclear=verb != "GET")
        return GitHubError("github.invalid", cause, status=status)


def _repeat_is_harmless(verb: str, address: str, body: Any) -> bool:
    """Whether doing it twice is doing it once: POST makes something new, except that a person has each reaction only once
    (https://docs.github.com/rest/reactions), an issue each label, and that one more access token of an App does no harm;
    and a check's annotations add up with every PATCH."""
    if verb == "POST":
        return re.search(r"/(reactions|issues/\d+/labels|access_tokens)$", urlsplit(address).path) is not None
    return not (verb == "PATCH" and isinstance(body, dict) and (body.get("output") or {}).get("annotations"))


def _pause(state: RetryCallState) -> float:
    """Seconds until the next attempt: what GitHub asked for, else 0.5, 1, 2, 4."""
    problem = state.outcome.exception() if state.outcome else None
    if isinstance(problem, GitHubError) and problem.wait is not None:
        return problem.wait
    return float(0.5 * 2 ** (state.attempt_number - 1))


def _unreachable(verb: str, address: str, problem: requests.exceptions.RequestException) -> GitHubError:
    """The coded error for no answer at all. A connection that was never made cannot have changed anything."""
    reason = getattr(problem.args[0], "reason", None) if problem.args else None
    kinds = requests.exceptions
    never_sent = isinstance(problem, (kinds.ConnectTimeout, kinds.SSLError, kinds.ProxyError)) or isinstance(reason, NewConnectionError)
    how = "timed out" if isinstance(problem, kinds.Timeout) else "could not connect" if never_sent else "lost the connection"
    return GitHubError(
        "github.unreachable",
        f"{_words(verb, address)} {how} ({urlsplit(address).netloc}).",
        passing=not isinstance(problem, (kinds.SSLError, kinds.InvalidURL)),
        unclear=verb != "GET" and not never_sent,
    )


def _limited(response: requests.Response, said: str, clock: Clock) -> float | None:
    """Seconds to wait if this is a rate limit (primary: 403 or 429 with nothing remaining; secondary: 403 or 429), else None."""
    if response.status_code not in (403, 429):
        return None
    retry_after = response.headers.get("retry-after", "")
    if retry_after.isdigit():
        return float(retry_after)
    reset = response.headers.get("x-ratelimit-reset", "")
    if response.headers.get("x-ratelimit-remaining") == "0" and reset.isdigit():
        return max(float(reset) - _server_time(response, clock).timestamp(), 0.0) + 1.0
    if response.status_code == 429 or Requester.isRateLimitError(said):
        return _SECONDARY_LIMIT_WAIT
    return None


def _server_time(response: requests.Response, clock: Clock) -> datetime:
    """When the answer was made, by GitHub's clock where it says so: the runner's may be wrong, and the reset time is by GitHub's."""
    try:
        return parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return clock.now()


_PERMISSIONS = (
    (r"/check-runs", "checks"),
    (r"/(issues|pulls)(/|$)", "pull-requests"),
    (r"/labels(/|$)", "issues"),
    (r"/(contents|commits|branches)/", "contents"),
    (r"/orgs/", "members (organisation; a GITHUB_TOKEN never has it, an app's token may)"),
)


def _needed(verb: str, address: str, response: requests.Response) -> str | None:
    """Which permission to give: GitHub's own words in X-Accepted-GitHub-Permissions, else known from the address."""
    if "check run can only be modified" in response.text:
        return "Only the app that made this check may change it: use the token that it was made with."
    accepted = response.headers.get("x-accepted-github-permissions", "").replace("=", ": ").replace("_", "-")
    alternatives = [f"`{one.strip()}`" for one in accepted.split(";") if one.strip()]
    if not alternatives:
        level = "read" if verb == "GET" else "write"
        path = urlsplit(address).path
        alternatives = [f"`{name}: {level}`" for pattern, name in _PERMISSIONS if re.search(pattern, path)][:1]
    return f"Give the job's token {' or '.join(alternatives)} under `permissions:`." if alternatives else None


def _words(verb: str, address: str) -> str:
    return f"{verb} {unquote(urlsplit(address).path)}"


def _message(response: requests.Response) -> str:
    """What GitHub said in an error: its message and its list of errors, in at most 400 characters."""
    try:
        answer = response.json()
    except ValueError:
        return _excerpt(response.text)
    if not isinstance(answer, dict):
        return _excerpt(response.text)
    errors = answer.get("errors") or []
    details = [str(one.get("message") or " ".join(filter(None, (one.get("field"), one.get("code"))))) if isinstance(one, dict) else str(one)
               for one in (errors if isinstance(errors, list) else [errors])]  # fmt: skip
    return _excerpt("; ".join([str(answer.get("message", "")), *details]), 400)


def _excerpt(text: str, length: int = 120) -> str:
    flat = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    return flat if len(flat) <= length else f"{flat[:length]}…"
