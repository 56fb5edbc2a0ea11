"""One namespace of a Kubernetes cluster, through its own client: requests → plain JSON, its errors → ours.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import collections
import heapq
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dispatcher.effects.clouds.api import ApiError, RefusedError
from dispatcher.kubestates import Object, name_in, rank_of

LOG_LIMIT = 16 << 20
LOG_LINES = 200_000
TIMEOUT = (10, 60)
FRESH_SECONDS = 1500.0
"""So old a client is made anew: credentials on disk change, and the client reads them once. As NeMo-Run does."""


class Namespace:
    """The namespace that a profile names. Raises `ApiError`; `RefusedError` where the API will not have something that is to be made."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self.name, self.context = str(profile["namespace"]), profile["context"]
        self._client: Any = None
        self._made = 0.0

    # ------------------------------------------------------------------ objects

    def get(self, path: str) -> Object | None:
        """The object at a path below the namespace, such as `secrets/x`; None where there is none."""
        with _errors() as problem:
            found: Object = self._call("GET", path)
            return found
        if problem.status == 404:
            return None
        raise problem.as_error()

    def find_all(self, path: str, labels: str) -> list[Object]:
        """All objects of a kind with these labels, page by page."""
        found: list[Object] = []
        more = ""
        while True:
            with _errors() as problem:
                page = self._call("GET", path, query=[("labelSelector", labels), ("limit", "500"), *([("continue", more)] if more else [])])
                found += [item for item in page.get("items") or [] if isinstance(item, Mapping)]
                more = str((page.get("metadata") or {}).get("continue") or "")
                if not more:
                    return found
                continue
            raise problem.as_error()

    def create(self, path: str, body: Object) -> bool:
        """Makes an object → whether it was not there before. Raises `RefusedError` with the API's words when it will not have it."""
        with _errors() as problem:
            self._call("POST", path, body)
            return True
        if problem.status == 409:
            return False
        if problem.refuses:
            raise RefusedError(problem.words)
        raise problem.as_error()

    def patch(self, path: str, body: Object) -> bool:
        """Changes an object (a JSON merge patch) → whether it is there."""
        with _errors() as problem:
            self._call("PATCH", path, body)
            return True
        if problem.status == 404:
            return False
        raise problem.as_error()

    def delete(self, path: str, propagation: str = "Background") -> None:
        """Deletes an object; one that is not there is no error."""
        with _errors() as problem:
            self._call("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation})
            return
        if problem.status != 404:
            raise problem.as_error()

    def version(self) -> str:
        """The server's version."""
        with _errors() as problem:
            return str(self._call("GET", "/version").get("gitVersion") or "")
        raise problem.as_error()

    def allowed(self, verb: str, group: str, resource: str) -> bool:
        """Whether these credentials may do that here."""
        kind, _, part = resource.partition("/")
        attributes = {"namespace": self.name, "verb": verb, "group": group, "resource": kind, "subresource": part}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
        with _errors() as problem:
            return bool(
                (self._call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).get("status") or {}).get("allowed")
            )
        raise problem.as_error()

    # ------------------------------------------------------------------ logs

    def log(self, pods: Sequence[Object], container: str) -> str:
        """What the container printed in all pods, the newest part of it.

        Of several pods, lines come in the order of their time, with the pod's rank before each.
        """
        if len(pods) == 1:
            return "".join(f"{line}\n" for line in self._lines(name_in(pods[0]), container, LOG_LINES, stamped=False))
        streams = [
            [
                (line.partition(" ")[0], rank_of(pod), line.partition(" ")[2])
                for line in self._lines(name_in(pod), container, LOG_LINES // len(pods))
            ]
            for pod in sorted(pods, key=rank_of)
        ]
        return "".join(f"[{rank}] {line}\n" for _, rank, line in heapq.merge(*streams, key=lambda entry: entry[0]))

    def _lines(self, pod: str, container: str, most: int, stamped: bool = True) -> list[str]:
        query = [
            *([("container", container)] if container else []),
            ("tailLines", str(most)),
            ("timestamps", "true" if stamped else "false"),
        ]
        with _errors() as problem:
            response = self._call("GET", f"pods/{pod}/log", query=query, raw=True)
            kept: collections.deque[bytes] = collections.deque()
            size = 0
            for piece in response.stream(1 << 20):
                kept.append(piece)
                size += len(piece)
                while size - len(kept[0]) >= LOG_LIMIT:
                    size -= len(kept.popleft())
            # Lines as Kubernetes counts them: a progress bar's carriage returns stay inside of one.
            return b"".join(kept).decode("utf-8", "replace").removesuffix("\n").split("\n") if size else []
        if problem.status in (400, 404):  # its container has not begun, or the pod is gone
            return []
        raise problem.as_error()

    # ------------------------------------------------------------------ requests

    def _call(self, method: str, path: str, body: Object | None = None, query: Sequence[tuple[str, str]] = (), raw: bool = False) -> Any:
        """One request; a path without a slash in front is below the namespace, `GROUP/VERSION/PLURAL…` or a kind of the core."""
        client = self._fresh()
        headers = {"Accept": "*/*" if raw else "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        response = client.call_api(
            self._path(path),
            method,
            query_params=list(query),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=TIMEOUT,
        )
        if raw:
            return response
        found = json.loads(response.data)
        if not isinstance(found, dict):
            raise ValueError("the answer is no object")
        return found

    def _path(self, path: str) -> str:
        if path.startswith("/"):
            return path
        group = re.fullmatch(r"([a-z0-9.-]+\.[a-z0-9.-]+)/(v[a-z0-9]+)/(.+)", path)
        return f"/apis/{group[1]}/{group[2]}/namespaces/{self.name}/{group[3]}" if group else f"/api/v1/namespaces/{self.name}/{path}"

    def _fresh(self) -> Any:
        """The client: from the kubeconfig, else as a pod of the cluster has it."""
        if self._client is None or time.monotonic() - self._made > FRESH_SECONDS:
            self._client, self._made = self._connected(), time.monotonic()
        return self._client

    def _connected(self) -> Any:
        from kubernetes import client, config

        settings = client.Configuration()
        settings.retries = 0  # the dispatcher asks again by itself, and knows when that is safe
        try:
            try:
                config.load_kube_config(context=self.context, client_configuration=settings)
            except config.ConfigException as error:
                if self.context or not os.environ.get("KUBERNETES_SERVICE_HOST"):
                    raise ApiError("cloud.credentials", f"there is no kubeconfig that can be used: {error}") from None
                config.load_incluster_config(client_configuration=settings)
        except (config.ConfigException, OSError, ValueError) as error:
            raise ApiError("cloud.credentials", f"there is no kubeconfig that can be used: {error}") from None
        return client.ApiClient(settings)


class _Problem:
    """What went wrong with a request, filled in by `_errors`."""

    status = 0
    words = ""

    @property
    def refuses(self) -> bool:
        """Whether the API has understood, and says no to the object: not to us, and not for the moment."""
        about_us = self.status == 403 and re.search(r' cannot [a-z]+ resource "', self.words)
        return 400 <= self.status < 500 and self.status not in (401, 408, 409, 429) and not about_us

    def as_error(self) -> ApiError:
        """The error for everything else."""
        if self.status in (401, 403):
            return ApiError("cloud.credentials", self.words)
        return ApiError("cloud.failed" if self.status else "cloud.unreachable", self.words)


@contextmanager
def _errors() -> Iterator[_Problem]:
    """Catches what the client raises; what comes after the block sees why. A block that returns has had no problem."""
    import urllib3
    from kubernetes.client.exceptions import ApiException

    problem = _Problem()
    try:
        yield problem
    except ApiException as error:
        problem.status = int(error.status or 0)
        problem.words = f"Kubernetes answers {error.status}: {_message(error)}"
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        problem.words = f"Kubernetes does not answer: {error}"


def _message(error: Any) -> str:
    """The words of a `Status` object. https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/"""
    try:
        return str(json.loads(error.body)["message"])[:1500]
    except (ValueError, KeyError, TypeError):
        return str(error.reason or error.body)[:300]
