"""A container image by its name × the profile's cache → the squash file that the job starts from, and what imports it where it is missing.

Pyxis imports a named image on every node, each time. From one file on the shared file system all nodes start at once, and it is imported
once: by `effects/image.sh`, which travels in the run's folder with a list of what the job needs. https://github.com/NVIDIA/enroot/blob/master/doc/cmd/import.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dispatcher.ports import CompiledFile
from dispatcher.values import AbsolutePath, Model

PROGRAM, LIST = "image.sh", "images"
_DIGEST = re.compile(r"(?P<name>[^@]+)@sha256:(?P<digest>[0-9a-f]{64})")
_FAILED = re.compile(r"^dispatch: (the image \S{1,1000} could not be imported: [^\n]{1,1000})$", re.MULTILINE)
# What stands before the first slash is a registry where it cannot be a user's name: https://github.com/distribution/reference.
_REGISTRY = re.compile(r"(?P<registry>(?:[^/]+[.:][^/]*|localhost))/(?P<image>.+)")


class Squash(Model):
    """Where images lie as squash files, once they are imported."""

    cache: AbsolutePath = Field(description="A folder on the cluster for squash files, which login node and compute nodes see.")
    on: Literal["job", "login"] = Field(
        default="job", description="Who imports an image that is not there yet: the job, on its first node, or the login node."
    )


def _cache(value: Any) -> Any:
    return {"cache": value} if isinstance(value, str) else value


class _OrCache:
    """Says in the JSON Schema what `_cache` does."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "pattern": "^/"}, handler(schema)]}


SquashField = Annotated[Squash, BeforeValidator(_cache), _OrCache()]
"""`squash:` may be written as the cache's path."""


def is_file(image: str) -> bool:
    """Whether the image is a file already, which is used as it is."""
    return image.startswith("/") or image.endswith((".sqsh", ".squashfs"))


def enroot_uri(image: str) -> str:
    """A reference → the same as enroot writes it: `docker://REGISTRY#IMAGE:TAG`, a digest in the tag's place.

    What has a scheme, or a `#`, is taken to be enroot's form already. enroot 3 has no `@sha256:`, but asks the registry for whatever stands
    as tag (https://github.com/NVIDIA/enroot/blob/master/src/docker.sh).
    """
    if "://" in image:
        return image
    pinned = _DIGEST.fullmatch(image)
    if pinned is not None:
        registry, slash, name = pinned["name"].rpartition("/")
        image = f"{registry}{slash}{name.partition(':')[0]}:sha256:{pinned['digest']}"
    apart = _REGISTRY.fullmatch(image) if "#" not in image else None
    if apart is None:
        return f"docker://{image}"
    return f"docker://{apart['image']}" if apart["registry"] == "docker.io" else f"docker://{apart['registry']}#{apart['image']}"


def squash_file(image: str, cache: str) -> str:
    """Where the image lies once it is imported: under its digest where it names one, else under the digest of its name."""
    pinned = _DIGEST.fullmatch(image)
    known = f"sha256-{pinned['digest']}" if pinned else hashlib.sha256(image.encode()).hexdigest()[:32]
    name = (pinned["name"] if pinned else image).rstrip("/").rpartition("/")[2].rpartition("#")[2]
    return f"{cache.rstrip('/')}/{re.sub(r'[^A-Za-z0-9_.-]', '-', name).lstrip('.-') or 'image'}-{known}.sqsh"


def started_from(image: str, squash: Squash | None) -> str:
    """What Pyxis is given: the image itself, or its file in the cache."""
    return image if squash is None or is_file(image) else squash_file(image, squash.cache)


def import_lines(run_dir: str, images: Sequence[str], squash: Squash | None) -> list[str]:
    """The batch script's lines that bring the images, on the job's first node; they end it, with words, where that fails."""
    return [f"sh {run_dir}/{PROGRAM} {run_dir}/{LIST} job || exit"] if import_files(images, squash) else []


def import_files(images: Sequence[str], squash: Squash | None) -> tuple[CompiledFile, ...]:
    """What those lines need in the run's folder: the program, and a list. Its first line says who imports, then each has `URI FILE`."""
    named = [image for image in images if not is_file(image)]
    if squash is None or not named:
        return ()
    program = (files("dispatcher") / "effects" / PROGRAM).read_bytes()
    listed = "".join(f"{line}\n" for line in (squash.on, *(f"{enroot_uri(image)} {squash_file(image, squash.cache)}" for image in named)))
    return CompiledFile(PROGRAM, program, 0o700), CompiledFile(LIST, listed.encode())


def import_failure(log: str) -> str:
    """Why an image could not be imported, as `image.sh` says it at the end of a log; empty where it does not. The log is the job's word."""
    found = _FAILED.findall(log)
    return found[-1] if found else ""
