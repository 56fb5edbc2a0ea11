"""`packager:` of a profile or a recipe → what of the commit is packed. Names and options are NeMo-Run's.

https://github.com/NVIDIA-NeMo/Run/tree/v0.11.1/nemo_run/core/packaging
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import Self, assert_never

from dispatcher.document import Loc, ProblemsError
from dispatcher.ports import AnySpec, Choice, HybridSpec, NothingSpec, PackageSpec, PatternSpec
from dispatcher.values import GlobPattern, Model, OneOrMore, RelativePath, Shape

KINDS: Mapping[str, str] = {
    "git": "All files of the commit, or those below `subpath`, and what `include_pattern` adds to them.",
    "pattern": "The files of the commit that `include_pattern` chooses.",
    "hybrid": "What `sub_packagers` pack, each in the folder of its name.",
    "none": "Nothing: what runs is in the image or on the cluster.",
}

_OPTIONS: Mapping[str, frozenset[str]] = {
    "git": frozenset({"subpath", "include_submodules", "include_pattern", "include_pattern_relative_path"}),
    "pattern": frozenset({"include_pattern", "relative_path"}),
    "hybrid": frozenset({"sub_packagers", "extract_at_root"}),
    "none": frozenset(),
}

PartName = Annotated[str, Shape(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "a folder's name (letters, digits, `_`, `-`, `.`)", 64)]


class SubPackager(Model):
    """One package: a folder of the commit, or files by patterns."""

    type: Literal["git", "pattern"] = Field(default="git", description="What packs.")
    subpath: RelativePath | Literal[""] = Field(default="", description="`git`: only this folder; it becomes the root.")
    include_submodules: bool = Field(default=True, description="`git`: submodules too, at the commits that are pinned.")
    include_pattern: OneOrMore[GlobPattern] = Field(
        default=(),
        description="`pattern`: what is packed; `git`: what is packed besides. Gitignore patterns, seen from the repository's root.",
    )
    relative_path: OneOrMore[RelativePath | Literal[""]] = Field(
        default=(), description="`pattern`: the folder that becomes the root for what was chosen; one, or one for each pattern."
    )
    include_pattern_relative_path: OneOrMore[RelativePath | Literal[""]] = Field(
        default=(), description="`git`: the same for what `include_pattern` adds."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = self._problems()
        if problems:
            raise ProblemsError(problems)
        return self

    def _problems(self) -> list[tuple[Loc, str]]:
        """Options of another packager, and what is missing."""
        own = _OPTIONS[self.type]
        found: list[tuple[Loc, str]] = []
        for name in sorted(self.model_fields_set - own - {"type"}):
            others = " and ".join(f"`{kind}`" for kind, options in _OPTIONS.items() if name in options)
            found.append(((name,), f"`{name}` is no option of the packager `{self.type}`, but of {others}"))
        for pattern in self.include_pattern:
            if ".." in pattern.split("/"):
                found.append((("include_pattern",), "`include_pattern` has `..` in it, which leads out of its folder"))
        if self.type == "pattern" and all(pattern.startswith("!") for pattern in self.include_pattern):
            found.append((("include_pattern",), "the packager `pattern` needs an `include_pattern` that chooses files"))
        if len(self._folders) > 1 and len(self._folders) != len(self.include_pattern):
            found.append((("include_pattern",), "there are to be as many folders as patterns, or one folder for all"))
        return found

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> Any:
        """What was said: what was left out may not fit the type."""
        return self._said(handler)

    def _said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"type": self.type, **{name: value for name, value in handler(self).items() if name in self.model_fields_set}}

    @property
    def _folders(self) -> tuple[str, ...]:
        return self.relative_path if self.type == "pattern" else self.include_pattern_relative_path

    @property
    def _choices(self) -> tuple[Choice, ...]:
        folders = self._folders or ("",)
        if len(folders) == 1:
            folders *= len(self.include_pattern)
        return tuple(Choice(pattern, folder) for pattern, folder in zip(self.include_pattern, folders, strict=True))

    @property
    def spec(self) -> PackageSpec | PatternSpec:
        """What it packs."""
        if self.type == "pattern":
            return PatternSpec(self._choices)
        return PackageSpec(self.subpath, (), self.include_submodules, self._choices)


class Packager(SubPackager):
    """What of the commit is packed. Its name alone may stand for it."""

    type: Literal["git", "pattern", "hybrid", "none"] = Field(default="git", description="What packs.")  # type: ignore[assignment]
    sub_packagers: dict[PartName, SubPackager] = Field(
        default_factory=dict,
        description="`hybrid`: a folder's name → what is packed into it, a table with the options of `git` or `pattern`.",
    )
    extract_at_root: bool = Field(default=False, description="`hybrid`: all of them in the root, a later file over an earlier one.")

    @property
    def plain(self) -> bool:
        """Whether it is a name and nothing else."""
        return self.model_fields_set <= {"type"}

    def _problems(self) -> list[tuple[Loc, str]]:
        found = super()._problems()
        if self.type == "hybrid" and not self.sub_packagers:
            found.append((("sub_packagers",), "the packager `hybrid` needs `sub_packagers`"))
        return found

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> Any:
        """The name, or a table of what was said."""
        return self.type if self.plain else self._said(handler)


def whole_spec(packager: Packager) -> AnySpec:
    """What a packager packs."""
    match packager.type:
        case "git" | "pattern":
            return packager.spec
        case "hybrid":
            return HybridSpec(tuple((name, part.spec) for name, part in packager.sub_packagers.items()), packager.extract_at_root)
        case "none":
            return NothingSpec()
        case _:
            assert_never(packager.type)


def _named(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class _OrName:
    """Says in the JSON Schema what `_named` does."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"enum": ["git", "pattern", "none"]}, handler(schema)]}


PackagerField = Annotated[Packager, BeforeValidator(_named), _OrName()]
"""A packager that may be written as its name."""
