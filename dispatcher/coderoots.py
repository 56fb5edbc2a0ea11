"""What of a commit is packed → which folder of the repository each of the package's folders comes from: paths in a log lead back by it."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import assert_never

from dispatcher.failure import MAX_PATH
from dispatcher.ports import AnySpec, HybridSpec, NothingSpec, PackageSpec, PatternSpec
from dispatcher.record import CodeRoot

_MOST = 20


def code_roots(spec: AnySpec) -> tuple[CodeRoot, ...]:
    """Which folder of the repository becomes which folder of the package: none for a package that is the repository's root itself.

    A folder whose path is too long for a place of a failure is left out: nothing in it is ever linked.
    """
    found = [(package, folder) for package, folder in dict.fromkeys(_roots(spec, "")) if max(len(package), len(folder)) <= MAX_PATH]
    return () if found in ([], [("", "")]) else tuple(CodeRoot(package=package, repository=folder) for package, folder in found[:_MOST])


def _roots(spec: AnySpec, into: str) -> Iterator[tuple[str, str]]:
    match spec:
        case PackageSpec():
            yield into, spec.subpath.strip("/")
            yield from ((into, choice.relative_path.strip("/")) for choice in spec.more)
        case PatternSpec():
            yield from ((into, choice.relative_path.strip("/")) for choice in spec.choices)
        case HybridSpec():
            for name, part in spec.parts:
                yield from _roots(part, "" if spec.extract_at_root else name)
        case NothingSpec():
            return
        case _:
            assert_never(spec)
