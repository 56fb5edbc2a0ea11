"""What the executors on Kubernetes have in common: where jobs go, what they may reach, and Kubernetes' own structures, as they are.

A structure of Kubernetes (`FreeTable`) is checked for its shape only: JSON, at most 16 deep and 64 KB long. What it means is for the API
to say, whose refusal is shown. Names that the dispatcher itself puts into a job are refused where they would collide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from typing_extensions import Self

from dispatcher.clouds.base import CloudProfile
from dispatcher.document import Loc, ProblemsError
from dispatcher.values import AbsolutePath, Image, Line, OneOrMore, Shape

RUN_DIR = "/nemo_run"
"""Where the job finds its folder, as with every executor."""
FILES_DIR = "/etc/nemotron-dispatch"
"""Where the job's Secret is mounted: its script, its environment, small code."""
OWN_VOLUMES = ("dispatch-files", "dispatch-run")
OWN_LABELS = "nemotron-dispatch/"

DEEPEST = 16
LARGEST = 64 * 1024

_DNS = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
DnsName = Annotated[str, Shape(_DNS, "a name of Kubernetes (small letters, digits, `-`)", 63)]
ObjectName = Annotated[str, Shape(rf"{_DNS}(?:\.{_DNS})*", "a name of Kubernetes (small letters, digits, `-`, `.`)", 253)]
ContextName = Annotated[str, Shape(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]*", "a context of the kubeconfig", 253)]
Quantity = Annotated[
    str, Shape(r"[0-9]{1,12}(?:\.[0-9]{1,6})?(?:m|[kMGTPE]i?|Ki)?", "an amount as Kubernetes writes it, such as `500m`, `4` or `64Gi`", 24)
]
_SEGMENT = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
QualifiedName = Annotated[
    str, Shape(rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_SEGMENT}", "a name such as `team` or `example.com/team`", 317)
]
LabelValue = Annotated[str, Shape(rf"(?:{_SEGMENT})?", "the value of a label", 63)]
Labels = dict[QualifiedName, LabelValue]
Annotations = dict[QualifiedName, Line]
Resources = dict[QualifiedName, Quantity]


def _deep(value: Any, depth: int = 0) -> None:
    """Raises ValueError for what is too deep, or is not JSON, or has half a character in it."""
    if depth > DEEPEST:
        raise ValueError(f"is nested more than {DEEPEST} deep")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _deep(key, depth + 1)
            _deep(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _deep(item, depth + 1)
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("contains a character that no text has")
    elif not (value is None or isinstance(value, (bool, int))):
        raise ValueError("is no plain value")


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    _deep(value)
    if len(json.dumps(value)) > LARGEST:
        raise ValueError(f"is longer than {LARGEST // 1024} KB")
    return value


FreeTable = Annotated[
    dict[str, Any], AfterValidator(_bounded), WithJsonSchema({"type": "object", "description": "A structure as Kubernetes has it."})
]
"""A structure of Kubernetes. A number with a point stays the text that it was written as, which Kubernetes' quantities are."""
FreeTables = tuple[FreeTable, ...]


class KubernetesProfile(CloudProfile):
    """A namespace of a Kubernetes cluster, reached as the kubeconfig says."""

    EXTRA: ClassVar[str] = "kubeflow"
    # A kubeconfig may have a program called that gets the credentials: what the clouds' own programs read is there for it.
    CREDENTIALS: ClassVar[tuple[str, ...]] = (
        *("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"),
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"),
        *("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "CLOUDSDK_CORE_PROJECT", "USE_GKE_GCLOUD_AUTH_PLUGIN"),
        *("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"),
        *("AAD_LOGIN_METHOD", "AAD_SERVICE_PRINCIPAL_CLIENT_ID", "AAD_SERVICE_PRINCIPAL_CLIENT_SECRET"),
    )
    FIXED: ClassVar[frozenset[str]] = frozenset(
        {"context", "namespace", "volumes", "volume_mounts", "labels", "spec_kwargs", "container_kwargs", "tolerations", "affinity"}
        | {"workdir_pvc", "workdir_pvc_path", "data_mover_image", "image_pull_secrets"}
    )

    context: ContextName | None = Field(default=None, description="The context of the kubeconfig; without it the current one.")
    namespace: DnsName = Field(default="default", description="The namespace of the job.")
    container_image: Image | None = Field(default=None, description="The image. Also: `image`, `container`.")
    volumes: FreeTables = Field(default=(), description="Volumes of the pods, as Kubernetes writes them.")
    volume_mounts: FreeTables = Field(default=(), description="Where the container has them.")
    labels: Labels = Field(default_factory=dict, description="Labels of the job.")
    tolerations: FreeTables = Field(default=(), description="Taints of nodes that do not matter.")
    affinity: FreeTable = Field(default_factory=dict, description="Which nodes the pods like.")
    image_pull_secrets: OneOrMore[ObjectName] = Field(default=(), description="Secrets with which images are pulled.")
    workdir_pvc: ObjectName | None = Field(
        default=None, description="A claim that all pods can mount: the code goes into it. Without one, at most 900 KB of code can travel."
    )
    workdir_pvc_path: AbsolutePath = Field(
        default=RUN_DIR, description="Where the whole claim is mounted; by default only the run's own folder of it is, at `/nemo_run`."
    )
    data_mover_image: Image = Field(
        default="alpine:3.19", description="The image of the pod that copies the code into the claim: `sh`, `tar` and `gzip`."
    )
    spec_kwargs: FreeTable = Field(default_factory=dict, description="More fields of the job's specification.")
    container_kwargs: FreeTable = Field(default_factory=dict, description="More fields of the container.")

    OWN_SPEC: ClassVar[Mapping[str, str]] = {}
    """Keys of `spec_kwargs` that are set from fields → which."""
    OWN_CONTAINER: ClassVar[Mapping[str, str]] = {}
    """The same of `container_kwargs`."""

    @property
    def place(self) -> tuple[str, ...]:
        """The context and the namespace."""
        return (self.context or "", self.namespace)

    @model_validator(mode="after")
    def _nothing_of_ours(self) -> Self:
        problems = [
            *_elsewhere("spec_kwargs", self.spec_kwargs, self.OWN_SPEC),
            *_elsewhere("container_kwargs", self.container_kwargs, self.OWN_CONTAINER),
            *_taken("volumes", self.volumes, "name", OWN_VOLUMES),
            *_taken("volume_mounts", self.volume_mounts, "mountPath", (RUN_DIR, FILES_DIR)),
            *(((("labels", name)), f"`{name}` is the dispatcher's own") for name in self.labels if name.startswith(OWN_LABELS)),
        ]
        if problems:
            raise ProblemsError(problems)
        return self


def _elsewhere(field: str, table: Mapping[str, Any], own: Mapping[str, str]) -> Iterable[tuple[Loc, str]]:
    return [((field, key), f"`{key}` is not read here: {why}") for key, why in own.items() if key in table]


def _taken(field: str, tables: Iterable[Mapping[str, Any]], key: str, own: tuple[str, ...]) -> Iterable[tuple[Loc, str]]:
    """Entries that have the name or the path of one of ours."""
    named = [(index, str(table.get(key, "")).rstrip("/")) for index, table in enumerate(tables)]
    return [((field, index), f"`{name}` is the dispatcher's own: take another `{key}`") for index, name in named if name in own]
