"""`packager:` as people write it → what is packed; patterns and places, without any git. (Real trees are in tests/integration.)"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from pydantic import TypeAdapter, ValidationError

from dispatcher.errors import ConfigError, GitError
from dispatcher.executor import LocalProfile
from dispatcher.packager import KINDS, PackagerField, whole_spec
from dispatcher.packing import missing_script, package_group, package_spec
from dispatcher.ports import AnySpec, Choice, FileEntry, HybridSpec, NothingSpec, PackageSpec, PatternSpec
from dispatcher.profile import ResolvedProfile, resolve_profile
from dispatcher.recipe import Recipe
from dispatcher.registry import EXECUTORS
from dispatcher.runprofile import with_recipe
from dispatcher.selection import chosen, combined, reach
from tests.fakes import entry, package

READ: TypeAdapter[Any] = TypeAdapter(PackagerField)


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate({"script": "train.py", **fields})


# --------------------------------------------------------------------------- what may be written

PARTS = {"code": {"subpath": "src"}, "conf": {"type": "pattern", "include_pattern": "conf/*.yaml", "relative_path": "conf"}}
SPECS: list[tuple[object, AnySpec]] = [
    ("git", PackageSpec()),
    ("none", NothingSpec()),
    ({}, PackageSpec()),
    ({"type": "none"}, NothingSpec()),
    ({"subpath": "src", "include_submodules": False}, PackageSpec("src", (), False)),
    ({"include_pattern": "conf"}, PackageSpec(more=(Choice("conf"),))),
    (
        {"type": "git", "include_pattern": ["conf", "x"], "include_pattern_relative_path": ["conf", ""]},
        PackageSpec(more=(Choice("conf", "conf"), Choice("x"))),
    ),
    ({"type": "pattern", "include_pattern": "src/**"}, PatternSpec((Choice("src/**"),))),
    (
        {"type": "pattern", "include_pattern": ["src/a", "!src/b"], "relative_path": "src"},
        PatternSpec((Choice("src/a", "src"), Choice("!src/b", "src"))),
    ),
    (
        {"type": "hybrid", "sub_packagers": PARTS},
        HybridSpec((("code", PackageSpec("src")), ("conf", PatternSpec((Choice("conf/*.yaml", "conf"),))))),
    ),
    ({"type": "hybrid", "sub_packagers": {"a": {}}, "extract_at_root": True}, HybridSpec((("a", PackageSpec()),), True)),
]


@pytest.mark.parametrize(("written", "spec"), SPECS)
def test_what_a_packager_packs(written: object, spec: AnySpec) -> None:
    packager = READ.validate_python(written)
    assert whole_spec(packager) == spec
    assert spec.kind == packager.type
    # What is shown and hashed can be read again, and says no more than was said.
    shown = packager.model_dump(mode="json")
    assert READ.validate_python(shown) == packager
    assert len(json.dumps(shown)) <= len(json.dumps(written)) + 20


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("zip", "should be 'git', 'pattern', 'hybrid' or 'none'"),
        ("pattern", "needs an `include_pattern`"),
        ("hybrid", "needs `sub_packagers`"),
        ({"type": "pattern", "include_pattern": []}, "needs an `include_pattern`"),
        ({"type": "pattern", "include_pattern": "!a"}, "needs an `include_pattern` that chooses files"),
        ({"type": "pattern", "include_pattern": "a", "subpath": "b"}, "`subpath` is no option of the packager `pattern`, but of `git`"),
        ({"relative_path": "a"}, "`relative_path` is no option of the packager `git`, but of `pattern`"),
        ({"type": "none", "include_pattern": "a"}, "`include_pattern` is no option of the packager `none`, but of `git` and `pattern`"),
        ({"type": "hybrid", "sub_packagers": {"a": {}}, "subpath": "b"}, "`subpath` is no option of the packager `hybrid`"),
        ({"type": "git", "extract_at_root": True}, "`extract_at_root` is no option of the packager `git`, but of `hybrid`"),
        ({"type": "pattern", "include_pattern": ["a", "b", "c"], "relative_path": ["a", "b"]}, "as many folders as patterns"),
        ({"type": "pattern", "include_pattern": "a/../../b"}, "leads out of its folder"),
        ({"type": "pattern", "include_pattern": "../b"}, "is not a pattern"),
        ({"type": "pattern", "include_pattern": "a\nb"}, "is not a pattern"),
        ({"subpath": "/etc"}, "is not a relative path"),
        ({"type": "pattern", "include_pattern": "a", "relative_path": "../.."}, "is not a relative path"),
        ({"type": "hybrid", "sub_packagers": {"a/b": {}}}, "is not a folder's name"),
        ({"type": "hybrid", "sub_packagers": {"..": {}}}, "is not a folder's name"),
        ({"type": "hybrid", "sub_packagers": {".git": {}}}, "is not a folder's name"),
        ({"type": "hybrid", "sub_packagers": {"a": {"type": "none"}}}, "should be 'git' or 'pattern'"),
        ({"type": "hybrid", "sub_packagers": {"a": {"type": "hybrid", "sub_packagers": {}}}}, "should be 'git' or 'pattern'"),
        ({"typ": "git"}, "`packager.typ` is not a key here; did you mean `type`?"),
        ({"type": "hybrid", "sub_packagers": {"a": {"subpth": "x"}}}, "`packager.sub_packagers.a.subpth` is not a key here"),
        ({"type": "hybrid", "sub_packagers": {"a": {"type": "pattern"}}}, "needs an `include_pattern`"),
        ([], "should be a"),
        (3, "should be a"),
    ],
)
def test_what_a_packager_may_not_say(written: object, words: str) -> None:
    text = f"executor: local\npackager: {json.dumps(written)}\n"
    with pytest.raises(ConfigError) as caught:
        resolve_profile("p", {"profiles/p.yaml": text}, (), {})
    assert words in caught.value.cause
    assert "`profiles/p.yaml:2`" in caught.value.cause


def resolved(name: str, **sources: str) -> ResolvedProfile:
    found = resolve_profile(name, {path.replace("__", "/").replace("_", "."): text for path, text in sources.items()}, (), {})
    assert isinstance(found, ResolvedProfile)
    return found


def test_the_same_from_yaml_and_from_toml() -> None:
    yaml = f"executor: local\npackager: {json.dumps({'type': 'hybrid', 'sub_packagers': PARTS})}\n"
    toml = (
        "[p]\nexecutor = 'local'\npackager.type = 'hybrid'\npackager.sub_packagers.code = { subpath = 'src' }\n"
        "[p.packager.sub_packagers.conf]\ntype = 'pattern'\ninclude_pattern = 'conf/*.yaml'\nrelative_path = 'conf'\n"
    )
    ours = resolved("p", profiles__p_yaml=yaml).profile.packager
    assert ours == resolved("p", env_toml=toml).profile.packager
    assert whole_spec(ours) == SPECS[9][1]


def test_nemotrons_flat_options() -> None:
    base = "[b]\nexecutor = 'local'\npackager = 'pattern'\npackager_include_pattern = 'src/**/*.py'\n[c]\nextends = 'b'\n"
    found = resolved("c", env_toml=base + "packager_relative_path = 'src'\n")
    assert whole_spec(found.profile.packager) == PatternSpec((Choice("src/**/*.py", "src"),))
    assert found.where("packager") == "env.toml:3"
    # Alone they are git's, as NeMo-Run's default is.
    found = resolved("b", env_toml="[b]\nexecutor = 'local'\npackager_subpath = 'src'\npackager_include_submodules = false\n")
    assert whole_spec(found.profile.packager) == PackageSpec("src", (), False)
    assert found.where("packager") == "env.toml:3"


def test_a_child_takes_another_packager_as_a_whole() -> None:
    base = "executor: local\npackager: { type: pattern, include_pattern: a }\n"
    found = resolved("c", profiles__b_yaml=base, profiles__c_yaml="extends: b\npackager: { subpath: src }\n")
    assert whole_spec(found.profile.packager) == PackageSpec("src")
    assert whole_spec(resolved("c", profiles__b_yaml=base, profiles__c_yaml="extends: b\n").profile.packager) == PatternSpec((Choice("a"),))


# --------------------------------------------------------------------------- recipe and profile


@pytest.mark.parametrize(
    ("fields", "profile", "spec"),
    [
        ({}, "git", PackageSpec()),
        ({}, {"type": "pattern", "include_pattern": "a"}, PatternSpec((Choice("a"),))),
        ({"packager": "git"}, "none", PackageSpec()),
        ({"packager": "none", "script": "/opt/x.py"}, "git", NothingSpec()),
        ({"packager": {"subpath": "lib"}}, {"subpath": "src"}, PackageSpec("lib")),
        ({"subpath": "lib"}, {"type": "pattern", "include_pattern": "a"}, PackageSpec("lib")),
        ({"packager": "git", "include_pattern": ["*.py"]}, "none", PackageSpec("", ("*.py",))),
        ({"include_submodules": True}, "none", PackageSpec()),
    ],
)
def test_who_decides_what_is_packed(fields: dict[str, Any], profile: object, spec: AnySpec) -> None:
    asked = recipe(**fields)
    laid_over = with_recipe(LocalProfile.model_validate({"packager": profile}), asked)
    assert package_spec(asked, laid_over) == spec


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"script": "/opt/x.py"}, "an absolute `script` is run where nothing is packed"),
        ({"script": "/opt/x.py", "packager": {"subpath": "opt"}}, "an absolute `script`"),
        ({"script": "/opt/../x.py", "packager": "none"}, "is not a relative path"),
        ({"script": "//x.py", "packager": "none"}, "is not a relative path"),
        ({"subpath": "a", "packager": {"include_pattern": "b"}}, "`subpath` and `packager` exclude each other"),
        ({"include_submodules": False, "packager": "none"}, "`include_submodules` and `packager` exclude each other"),
    ],
)
def test_what_a_recipe_may_not_ask_for(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        recipe(**fields)


@pytest.mark.parametrize(
    ("fields", "missing"),
    [({"script": "code/train.py"}, "code/train.py"), ({"packager": "none"}, "train.py"), ({"packager": "none", "script": "/x.py"}, None)],
)
def test_a_script_that_is_not_packed(fields: dict[str, Any], missing: str | None) -> None:
    assert missing_script(recipe(**fields), package(() if fields.get("packager") else (entry("train.py"),))) == missing


def test_packages_of_another_kind_are_not_alike() -> None:
    groups = {package_group("o/r", "p", spec) for _, spec in SPECS}
    assert len(groups) == len({repr(spec) for _, spec in SPECS})


def test_every_executor_says_which_packagers_it_takes() -> None:
    for model in EXECUTORS.values():
        assert set(model.PACKAGERS) <= set(KINDS)
        assert "git" in model.PACKAGERS

    class OnlyGit(LocalProfile):
        PACKAGERS: ClassVar[tuple[str, ...]] = ("git",)

    assert OnlyGit.model_validate({"packager": "git"}).packager.type == "git"
    with pytest.raises(ValidationError, match="`none` is not for this executor, which takes `git`"):
        OnlyGit.model_validate({"packager": "none"})


# --------------------------------------------------------------------------- patterns

TREE = ["train.py", "README.md", ".hidden.py", "src/a.py", "src/b.txt", "src/deep/c.py", "src/deep/er/d.py", "conf/x.yaml", "#odd", "a b/c"]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["*.py"], ["train.py", ".hidden.py"]),
        (["src"], ["src/a.py", "src/b.txt", "src/deep/c.py", "src/deep/er/d.py"]),
        (["src/"], ["src/a.py", "src/b.txt", "src/deep/c.py", "src/deep/er/d.py"]),
        (["./src//deep"], ["src/deep/c.py", "src/deep/er/d.py"]),
        (["/src/*.py"], ["src/a.py"]),
        (["src/**/*.py"], ["src/a.py", "src/deep/c.py", "src/deep/er/d.py"]),
        (["**/*.py"], ["train.py", ".hidden.py", "src/a.py", "src/deep/c.py", "src/deep/er/d.py"]),
        (["."], TREE),
        (["src", "!src/deep"], ["src/a.py", "src/b.txt"]),
        (["src", "!src/deep", "src/deep/er"], ["src/a.py", "src/b.txt", "src/deep/er/d.py"]),
        (["[a-t]*.py"], ["train.py"]),
        (["s?c/a.py"], ["src/a.py"]),
        (["a b", "#odd"], ["a b/c", "#odd"]),
        (["train.py", "train.py"], ["train.py"]),
        # A shell would run or expand these.
        (["$(id)", "train.py; id", "{a,b}", "~", "`id`", "-name", "train.py"], ["train.py"]),
    ],
)
def test_patterns_begin_at_the_top(patterns: list[str], names: list[str]) -> None:
    files = [entry(path) for path in TREE]
    found = chosen(files, [Choice(pattern) for pattern in patterns])
    assert [file.path for file in found] == names
    # What the walk is kept out of has nothing that is wanted.
    within = reach([Choice(pattern) for pattern in patterns])
    for name in names:
        folders = name.split("/")[:-1]
        assert all(within("/".join(folders[: depth + 1])) for depth in range(len(folders)))


@pytest.mark.parametrize(
    ("patterns", "folder", "inside"),
    [
        (["src/*"], "src", True),
        (["src/*"], "srcs", False),
        (["src/deep"], "src", True),
        (["src/deep"], "src/deep/er", True),
        (["src/deep"], "src/other", False),
        (["*.py"], "vendor", True),
        (["a", "b/c"], "b", True),
        (["a", "!b"], "b", False),
        (["a\\*b/c"], "x", True),
    ],
)
def test_what_is_out_of_reach_is_not_walked(patterns: list[str], folder: str, inside: bool) -> None:
    assert reach([Choice(pattern) for pattern in patterns])(folder) is inside


def test_relative_paths_are_taken_off() -> None:
    files = [entry(path) for path in TREE]
    found = chosen(files, [Choice("src/deep", "src"), Choice("conf", "conf"), Choice("train.py")])
    assert [file.path for file in found] == ["deep/c.py", "deep/er/d.py", "x.yaml", "train.py"]
    # One file at two places.
    assert [file.path for file in chosen(files, [Choice("src/a.py", "src"), Choice("src/a.py")])] == ["a.py", "src/a.py"]


@pytest.mark.parametrize(
    ("choices", "code"),
    [
        ([Choice("nothing")], "git.nothing-packed"),
        ([Choice("src"), Choice("!src")], "git.nothing-packed"),
        ([Choice("src", "conf")], "git.bad-path"),
        ([Choice("src", "sr")], "git.bad-path"),
        ([Choice("src/a.py", "src/a.py")], "git.bad-path"),
        ([Choice("../x")], "git.bad-path"),
    ],
)
def test_choices_that_cannot_be(choices: list[Choice], code: str) -> None:
    with pytest.raises(GitError) as caught:
        chosen([entry(path) for path in TREE], choices)
    assert caught.value.code == code


# --------------------------------------------------------------------------- several in one


def test_each_part_lies_in_its_folder() -> None:
    parts = [("code", [entry("b.py"), entry("a.py")]), ("conf", [entry("a.py", "2")])]
    assert combined(parts) == (entry("code/a.py"), entry("code/b.py"), entry("conf/a.py", "2"))


def test_a_later_file_replaces_an_earlier_one() -> None:
    assert combined([("", [entry("a"), entry("b")]), ("", [entry("a", "2")])]) == (entry("a", "2"), entry("b"))


@pytest.mark.parametrize(
    "parts",
    [
        [("", [FileEntry("a", "120000", "1" * 40, 4)]), ("", [entry("a/b")])],
        [("", [entry("a/b/c")]), ("", [entry("a")])],
        [("", [entry("code")]), ("code", [entry("x/y")])],
    ],
)
def test_nothing_is_written_through_another_parts_file_or_link(parts: list[tuple[str, list[FileEntry]]]) -> None:
    with pytest.raises(GitError) as caught:
        combined(parts)
    assert caught.value.code == "git.clash"
