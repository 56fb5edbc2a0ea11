"""Run:ai's REST API: a request → JSON, with a token that is renewed, reads that are repeated for a while, and errors with a code.

https://docs.nvidia.com/run-ai/self-hosted/reference/rest-api/getting-started/how-to-authenticate-to-the-api. Nothing here waits without an
end: each request has a timeout. A write is sent once; whether it may be sent again is its caller's to say, after looking what it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from dispatcher.effects.clouds.api import ApiError

TIMEOUT = (10, 60)
PAGE = 500
PAGES = 40
_PASSING = (429, 500, 502, 503, 504)


class NotThereError(Exception):
    """404: there is no such thing."""


class TakenError(Exception):
    """409: it exists, or cannot be done as it stands."""


class SaysNoError(Exception):
    """Another 4xx: the API will not do it. The words are its own."""


class PassingError(Exception):
    """The API was not reached, or has trouble of its own: what was asked for may have been done."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.error = ApiError(code, words)


class RunAi:
    """One control plane, as one application. `base_url` is `https://HOST/api/v1`. Raises `ApiError` and what is above."""

    def __init__(self, base_url: str, client_id: str, client_secret: str) -> None:
        self._base, self._client_id, self._client_secret = base_url.rstrip("/"), client_id, client_secret
        self._session = requests.Session()
        self._token = ""

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """A read; repeated a few times, within a few seconds, when the trouble may pass.

        Raises:
            NotThereError: there is no such thing.
        """
        try:
            return self._patiently("GET", f"{self._base}/{path}", params).json_value
        except (SaysNoError, TakenError) as error:
            raise ApiError("cloud.failed", f"GET {path}: {error}") from None

    def pages(self, path: str, key: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All items of a list that comes in pages."""
        found: list[dict[str, Any]] = []
        for _ in range(PAGES):
            try:
                given = self.get(path, {**params, "offset": len(found), "limit": PAGE})
            except NotThereError as error:
                raise ApiError("cloud.failed", f"{error}: is `base_url` written `https://HOST/api/v1`?") from None
            items = given.get(key) if isinstance(given, dict) else None
            if not isinstance(items, list):
                raise ApiError("cloud.failed", f"the answer of GET {path} has no list `{key}`")
            found += [item for item in items if isinstance(item, dict)]
            if not items or (len(items) < PAGE and not given.get("next")):
                break
        return found

    def write(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """A write, sent once (and once more after a 401, which has done nothing).

        Raises:
            PassingError: it may or may not have been done.
        """
        return self._once(method, f"{self._base}/{path}", body=body).json_value

    def text(self, url: str, params: Mapping[str, Any], limit: int) -> str:
        """A read of plain text at another address that takes the same token: its last `limit` bytes."""
        return self._patiently("GET", url, params, limit).text

    def ask(self, url: str, body: Mapping[str, Any]) -> Any:
        """A question at another address that takes the same token, and that changes nothing though it is a POST."""
        return self._patiently("POST", url, None, body=body).json_value

    # ------------------------------------------------------------------ requests

    def _patiently(
        self, method: str, url: str, params: Mapping[str, Any] | None, limit: int = 0, body: Mapping[str, Any] | None = None
    ) -> _Answer:
        waiting = Retrying(
            retry=retry_if_exception_type(PassingError), stop=stop_after_attempt(4), wait=wait_exponential(0.3, max=4), reraise=True
        )
        try:
            return waiting(self._once, method, url, params, body, limit)
        except PassingError as passing:
            raise passing.error from None

    def _once(
        self, method: str, url: str, params: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None, limit: int = 0
    ) -> _Answer:
        fresh = not self._token
        if fresh:
            self._log_in()
        answer = self._send(method, url, params, body, limit)
        if answer.status == 401 and not fresh:  # the token has expired
            self._log_in()
            answer = self._send(method, url, params, body, limit)
        what = f"{method} {url.removeprefix(self._base)}"
        if answer.status in (401, 403):
            raise ApiError("cloud.credentials", f"{what} is not allowed ({answer.status}): {answer.words}")
        if answer.status == 404:
            raise NotThereError(f"{what}: {answer.words}")
        if answer.status == 409:
            raise TakenError(answer.words)
        if answer.status in _PASSING:
            raise PassingError("cloud.failed", f"{what} failed ({answer.status}): {answer.words}")
        if answer.status >= 400:
            raise SaysNoError(f"{answer.words} ({answer.status})")
        if answer.status >= 300:
            raise ApiError("cloud.failed", f"{what} leads somewhere else ({answer.status}): is `base_url` written `https://HOST/api/v1`?")
        return answer

    def _log_in(self) -> None:
        """https://docs.nvidia.com/run-ai/self-hosted/reference/rest-api/getting-started/how-to-authenticate-to-the-api."""
        self._token = ""
        body = {"grantType": "client_credentials", "clientId": self._client_id, "clientSecret": self._client_secret}
        answer = self._send("POST", f"{self._base}/token", None, body, 0)
        if answer.status in _PASSING:
            raise PassingError("cloud.failed", f"no token is to be had ({answer.status}): {answer.words}")
        given = answer.json_value if answer.status < 300 else None
        token = given.get("accessToken") if isinstance(given, dict) else None
        if not isinstance(token, str) or not token:
            raise ApiError("cloud.credentials", f"{self._base}/token gives no token for this application ({answer.status}): {answer.words}")
        self._token = token

    def _send(self, method: str, url: str, params: Mapping[str, Any] | None, body: Mapping[str, Any] | None, limit: int) -> _Answer:
        headers = {"Accept": "*/*" if limit else "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            with self._session.request(
                method, url, params=params, json=body, headers=headers, timeout=TIMEOUT, allow_redirects=False, stream=bool(limit)
            ) as response:
                if not limit:
                    return _Answer(response.status_code, response.content)
                kept = b""
                for chunk in response.iter_content(1 << 16):
                    kept = (kept + chunk)[-limit:]
                return _Answer(response.status_code, kept)
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise PassingError("cloud.unreachable", f"{url.split('?')[0]} does not answer: {type(error).__name__}") from None
        except requests.exceptions.RequestException as error:
            raise ApiError("cloud.failed", f"{url.split('?')[0]} cannot be asked: {error}") from None


class _Answer:
    """A status and bytes."""

    def __init__(self, status: int, content: bytes) -> None:
        self.status, self.content = status, content

    @property
    def text(self) -> str:
        """As text, whatever it is."""
        return self.content.decode("utf-8", "replace")

    @property
    def json_value(self) -> Any:
        """As JSON; None for an empty answer. Raises `ApiError` for what is not JSON, such as a proxy's page."""
        import json

        if not self.content.strip():
            return None
        try:
            return json.loads(self.content)
        except ValueError:
            raise ApiError("cloud.failed", f"the API answered with something that is not JSON: {self.text[:80]!r}") from None

    @property
    def words(self) -> str:
        """The error's own words: `{"code", "message", "details"}` in Run:ai, and Kubernetes has `message` too."""
        import json

        try:
            given = json.loads(self.content)
        except ValueError:
            return self.text.strip()[:200]
        if not isinstance(given, dict):
            return ""
        return " ".join(str(given[name])[:400] for name in ("message", "details") if given.get(name))
