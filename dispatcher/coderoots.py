"""What of a commit is packed → which folder of the repository each of the package's folders comes from: paths in a log lead back by it."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import assert_never

from dispatcher.ports import AnySpec, HybridSpec, NothingSpec, PackageSpec, PatternSpec
from dispatcher.record import CodeRoot


def code_roots(spec: AnySpec) -> tuple[CodeRoot, ...]:
    """Which folder of the repository becomes which folder of the package: none for a package that is the repository's root itself."""
    found = tuple(dict.fromkeys(_roots(spec, "")))
    return () if found in ((), (CodeRoot(),)) else found[:20]


def _roots(spec: AnySpec, into: str) -> Iterator[CodeRoot]:
    match spec:
        case PackageSpec():
            yield CodeRoot(package=into, repository=spec.subpath.strip("/"))
            yield from (CodeRoot(package=into, repository=choice.relative_path.strip("/")) for choice in spec.more)
        case PatternSpec():
            yield from (CodeRoot(package=into, repository=choice.relative_path.strip("/")) for choice in spec.choices)
        case HybridSpec():
            for name, part in spec.parts:
                yield from _roots(part, "" if spec.extract_at_root else name)
        case NothingSpec():
            return
        case _:
            assert_never(spec)
