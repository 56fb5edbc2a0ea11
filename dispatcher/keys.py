"""A request, a commit, a pull request, a content key → the names under which the ledger has a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from dispatcher.grammar import Override


def run_key(
    repository: str, trigger: str, profile: str, recipe: str, overrides: Sequence[Override], attempt: int = 1, stage: str = ""
) -> str:
    """16 hex digits: the same request, delivered again, has the same key. `stage` names pipeline and stage (`full:sft`)."""
    words = [f"{override.key}={override.value}" for override in overrides]
    # No override's key begins like this.
    words += [f"=stage {stage}"] if stage else []
    return digest("run", repository.lower(), trigger, profile, recipe, str(attempt), *words)[:16]


def commit_tag(sha: str) -> str:
    """The index name of a commit."""
    return f"commit-{sha}"


def content_tag(content_key: str) -> str:
    """The index name of everything that has the same content."""
    return f"content-{content_key}"


def pull_tag(repository: str, number: int) -> str:
    """The index name of a pull request."""
    return f"pull-{digest(repository.lower(), str(number))[:32]}"


def digest(*parts: str) -> str:
    """64 hex digits of the words in their order."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
