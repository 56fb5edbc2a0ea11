"""A project of a control plane of DGX Cloud: its workloads, asked for and written over Run:ai's REST API, each write once.

The API: https://docs.nvidia.com/run-ai/self-hosted/reference/rest-api/endpoints/workloads/trainings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dispatcher.effects.clouds.api import ApiError, RefusedError
from dispatcher.effects.clouds.runai import NotThereError, PassingError, RunAi, SaysNoError, TakenError

KINDS = ("trainings", "distributed")


class DgxProject:
    """The project that a profile names. Raises `ApiError`, `RefusedError`, and of a write what `runai.py` raises."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self._profile = profile
        self._client: RunAi | None = None
        self._found_project: dict[str, Any] | None = None

    @property
    def api(self) -> RunAi:
        """The control plane, with the application's token."""
        if self._client is None:
            client_id, secret = os.environ.get("DGXCLOUD_CLIENT_ID", ""), os.environ.get("DGXCLOUD_CLIENT_SECRET", "")
            if not client_id or not secret:
                raise ApiError("cloud.credentials", "DGXCLOUD_CLIENT_ID and DGXCLOUD_CLIENT_SECRET are not both set")
            self._client = RunAi(str(self._profile["base_url"]), client_id, secret)
        return self._client

    @property
    def kubernetes(self) -> str:
        """The address of the cluster's Kubernetes API."""
        return str(self._profile["kube_apiserver_url"]).rstrip("/")

    @property
    def kind(self) -> str:
        """Which of the two kinds of workload the profile's jobs are."""
        return "distributed" if self._profile["nodes"] > 1 else "trainings"

    def described(self) -> dict[str, Any]:
        """The project of exactly this name; NeMo-Run would go on with whatever the API lists first."""
        if self._found_project is None:
            name, cluster = self._profile["project_name"], self._profile["cluster_id"]
            listed = self.api.pages("org-unit/projects", "projects", {"filterBy": f"name=={name}"})
            found = [item for item in listed if item.get("name") == name and cluster in (None, item.get("clusterId"))]
            if len(found) > 1:
                ids = ", ".join(sorted(str(item.get("clusterId")) for item in found))
                raise RefusedError(f"there are {len(found)} projects {name}: say which with `cluster_id`, one of {ids}")
            if not found or not found[0].get("id") or not found[0].get("clusterId"):
                raise RefusedError(f"this application sees no project {name}")
            self._found_project = found[0]
        return self._found_project

    def namespace(self) -> str:
        """The project's in Kubernetes: https://docs.nvidia.com/run-ai/self-hosted/platform-management/aiinitiatives/organization/projects."""
        status = self.described().get("status")
        return str((status.get("namespace") if isinstance(status, dict) else None) or f"runai-{self._profile['project_name']}")

    def may_read_logs(self) -> None:
        """Asks Kubernetes before anything costs money: without its logs a run would end without results.

        https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-access-review-v1/
        """
        if self._profile["kube_apiserver_url"] is None or self._profile["launched_from_cluster"]:
            return
        wanted = {"namespace": self.namespace(), "verb": "get", "resource": "pods", "subresource": "log"}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": wanted}}
        try:
            given = self.api.ask(f"{self.kubernetes}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        except (NotThereError, SaysNoError, TakenError) as error:
            raise ApiError("cloud.failed", f"{self.kubernetes} is no Kubernetes API: {error}") from None
        if not (isinstance(given, dict) and (given.get("status") or {}).get("allowed") is True):
            raise RefusedError(
                f"this application may not read the logs of pods in {wanted['namespace']} at {self.kubernetes}; without"
                " `kube_apiserver_url` the profile does without logs and results"
            )

    def listed(self, condition: str) -> list[dict[str, Any]]:
        """Workloads of this project by name, without those that were deleted."""
        name, cluster = self._profile["project_name"], self._profile["cluster_id"]
        items = self.api.pages("workloads", "workloads", {"filterBy": condition})
        return [item for item in items if item.get("projectName") == name and cluster in (None, item.get("clusterId"))]

    def named(self, name: str) -> str | None:
        """The id of the workload of this name, if there is one."""
        found = [item for item in self.listed(f"name=={name}") if item.get("name") == name and not item.get("deletedAt")]
        return str(found[0]["id"]) if found else None

    def by_id(self, job_id: str) -> dict[str, Any] | None:
        """A workload, whichever of the two kinds it is, for a profile may have changed since; `kind` is put in, and `phase`."""
        for kind in sorted(KINDS, key=lambda kind: kind != self.kind):
            try:
                item = self.api.get(f"workloads/{kind}/{job_id}")
            except NotThereError:
                continue
            if isinstance(item, dict):
                return {**item, "kind": kind, "phase": item.get("actualPhase") or item.get("phase") or "Unknown"}
        return None

    def created(self, kind: str, body: Mapping[str, Any]) -> Any:
        """The id of the workload of this name: a request whose answer was lost is not repeated before a look."""
        for attempt in (1, 2):
            try:
                given = self.api.write("POST", f"workloads/{kind}", body)
            except PassingError as passing:
                existing = self.named(str(body["name"]))
                if existing is not None:
                    return existing
                if attempt == 2:
                    raise passing.error from None
            except TakenError:
                existing = self.named(str(body["name"]))
                if existing is None:
                    raise
                return existing
            else:
                if isinstance(given, dict) and given.get("workloadId"):
                    return given["workloadId"]
                raise ApiError("cloud.failed", "the API names no id for the workload that it has created")
        raise AssertionError("unreachable")

    def write(self, method: str, path: str) -> None:
        """A write that may be done twice."""
        try:
            self.api.write(method, path)
        except PassingError:
            try:
                self.api.write(method, path)
            except PassingError as passing:
                raise passing.error from None
