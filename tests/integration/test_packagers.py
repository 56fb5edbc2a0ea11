"""Every packager on real commits: beside NeMo-Run's own on the same files, through hostile trees, and on to a real ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from dispatcher.bundle import bundle, upload
from dispatcher.clouds import CLOUDS
from dispatcher.effects.archive import GitArchive
from dispatcher.errors import GitError
from dispatcher.firstrecord import first_record
from dispatcher.jobplan import JobPlan
from dispatcher.packager import KINDS, PackagerField, whole_spec
from dispatcher.packing import package_group, package_spec
from dispatcher.plan import plan
from dispatcher.ports import AnySpec, Choice, Claimed, ClaimRequest, Compiled, HybridSpec, PackageSpec, PatternSpec, Submitted
from dispatcher.profile import Profile
from dispatcher.recipe import Recipe
from dispatcher.registry import EXECUTORS
from dispatcher.runprofile import with_recipe
from tests.fakes import NOON
from tests.integration.clusters import local
from tests.integration.test_cluster_local import slurm_like, wait_until, with_path
from tests.rig.gitrepo import Repo, nested_submodules, unpack
from tests.rig.pretend_slurm import PretendSlurm
from tests.unit.test_plan import GRANT

__all__ = ["slurm_like"]

READ: TypeAdapter[Any] = TypeAdapter(PackagerField)
FILES: dict[str, bytes | str] = {
    "train.py": b"import pkg\n",
    "README.md": b"# x\n",
    ".hidden/x.py": b"hidden\n",
    "src/.dot.py": b"dot\n",
    "src/top.py": b"top\n",
    "src/pkg/a.py": b"a\n",
    "src/pkg/data.txt": b"data\n" * 4000,
    "src/pkg/deep/b.py": b"b\n",
    "configs/a.yaml": b"a: 1\n",
    "configs/top.py": b"not the other one\n",
    "configs/old/b.yaml": b"b: 1\n",
}


def spec_of(written: object) -> AnySpec:
    return whole_spec(READ.validate_python(written))


def packed(archive: GitArchive, sha: str, spec: AnySpec) -> dict[str, tuple[str, bytes]]:
    return unpack(b"".join(archive.stream(archive.describe(sha, spec))))


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    repo = Repo.create(tmp_path_factory.mktemp("packagers") / "repo").write(FILES, executable=["train.py"])
    repo.commit()
    return repo


# --------------------------------------------------------------------------- beside NeMo-Run's own

# What a profile says → the same for NeMo-Run, which insists on a `relative_path`.
SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "git": ({"type": "git"}, {}),
    "git, a folder": ({"type": "git", "subpath": "src"}, {"subpath": "src"}),
    "git, a folder and files": (
        {"type": "git", "subpath": "src", "include_pattern": "configs/*.yaml"},
        {"subpath": "src", "include_pattern": "configs/*.yaml"},
    ),
    "git, a folder and a folder as the root": (
        {"type": "git", "subpath": "src", "include_pattern": "configs", "include_pattern_relative_path": "configs"},
        {"subpath": "src", "include_pattern": "@/configs", "include_pattern_relative_path": "@/configs"},
    ),
    "a folder": ({"type": "pattern", "include_pattern": "src"}, {"include_pattern": "src", "relative_path": "."}),
    "files": ({"type": "pattern", "include_pattern": "*.py"}, {"include_pattern": "*.py", "relative_path": "."}),
    "a folder as the root": (
        {"type": "pattern", "include_pattern": "src/pkg", "relative_path": "src"},
        {"include_pattern": "@/src/pkg", "relative_path": "@/src"},
    ),
    "several": (
        {"type": "pattern", "include_pattern": ["src/pkg", "configs/*.yaml", "train.py"], "relative_path": ["src", "configs", ""]},
        {"include_pattern": ["src/pkg", "configs/*.yaml", "train.py"], "relative_path": ["src", "configs", "."]},
    ),
    "sets and single letters": (
        {"type": "pattern", "include_pattern": ["src/pkg/[ab].py", "s?c/top.py"]},
        {"include_pattern": ["src/pkg/[ab].py", "s?c/top.py"], "relative_path": [".", "."]},
    ),
    "hybrid": (
        {"type": "hybrid", "sub_packagers": {"code": {"subpath": "src"}, "conf": {"type": "pattern", "include_pattern": "configs/*.yaml"}}},
        {"sub_packagers": {"code": {"subpath": "src"}, "conf": {"include_pattern": "configs/*.yaml", "relative_path": "."}}},
    ),
    "hybrid at the root, one file over another": (
        {
            "type": "hybrid",
            "extract_at_root": True,
            "sub_packagers": {
                "code": {"subpath": "src"},
                "conf": {"type": "pattern", "include_pattern": "configs", "relative_path": "configs"},
            },
        },
        {
            "extract_at_root": True,
            "sub_packagers": {"code": {"subpath": "src"}, "conf": {"include_pattern": "@/configs", "relative_path": "@/configs"}},
        },
    ),
}
# Each line of the table in docs/decisions/0017: pattern → what NeMo-Run packs, what is packed here.
DIFFERENT: dict[str, tuple[list[str], list[str]]] = {
    "src/**/*.py": (["src/pkg/a.py"], ["src/.dot.py", "src/pkg/a.py", "src/pkg/deep/b.py", "src/top.py"]),
    "src/*.py": (["src/top.py"], ["src/.dot.py", "src/top.py"]),
    "{train,other}.py": (["train.py"], []),
    "$(echo train.py)": (["train.py"], []),
    "nothing": ([], []),
    "links": ([], ["links/to"]),
}

SCRIPT = """
import json, os, sys
import nemo_run as run
from nemo_run.core.packaging.git import GitArchivePackager
from nemo_run.core.packaging.hybrid import HybridPackager
from nemo_run.core.packaging.pattern import PatternPackager

jobs, here = sys.argv[1], os.getcwd()

def absolute(value):
    if isinstance(value, list):
        return [absolute(item) for item in value]
    return value.replace("@", here, 1) if isinstance(value, str) else value

def made(fields):
    fields = {name: absolute(value) for name, value in fields.items()}
    if "sub_packagers" in fields:
        parts = {name: made(part) for name, part in fields.pop("sub_packagers").items()}
        return HybridPackager(sub_packagers=parts, **fields)
    return (PatternPackager if "relative_path" in fields else GitArchivePackager)(**fields)

answers = {}
for number, (name, fields) in enumerate(json.load(sys.stdin).items()):
    answers[name] = made(fields).package(here, jobs, f"package{number}")
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def linked(repo: Repo, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The same with a symbolic link, in a clone of its own."""
    folder = tmp_path_factory.mktemp("linked") / "repo"
    repo.git("clone", "-q", str(repo.path), str(folder))
    linked = Repo(folder).write({"links/to": "../train.py"})
    linked.commit()
    return linked


@pytest.fixture(scope="module")
def theirs(linked: Repo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What NeMo-Run's own packagers make of it: {case or pattern: {path: content}}."""
    jobs = tmp_path_factory.mktemp("jobs")
    asked = {name: fields for name, (_, fields) in SAME.items()}
    asked |= {pattern: {"include_pattern": pattern, "relative_path": "."} for pattern in DIFFERENT}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(jobs)],
        input=json.dumps(asked),
        cwd=linked.path,
        env={**os.environ, "NEMORUN_HOME": str(jobs / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, bytes]] = {}
    for name, archive in json.loads(done.stdout.splitlines()[-1]).items():
        folder = jobs / f"unpacked{len(found)}"
        folder.mkdir()
        subprocess.run(["tar", "-xzf", archive, "-C", str(folder)], check=True)
        found[name] = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return found


@pytest.mark.parametrize("name", SAME)
def test_the_same_files_as_nemo_runs_own_packager(name: str, linked: Repo, theirs: dict[str, dict[str, bytes]]) -> None:
    with GitArchive("", workspace=linked.path) as archive:
        ours = packed(archive, linked.git("rev-parse", "HEAD"), spec_of(SAME[name][0]))
    # A link stands for what it leads to: NeMo-Run's archive has it as a link too, and the comparison reads through it.
    contents = {path: FILES["train.py"] if kind == "link" else content for path, (kind, content) in ours.items()}
    assert contents == theirs[name]
    assert contents


@pytest.mark.parametrize("pattern", DIFFERENT)
def test_where_it_differs_from_nemo_runs_own(pattern: str, linked: Repo, theirs: dict[str, dict[str, bytes]]) -> None:
    """Should the first half fail after an upgrade, NeMo-Run has changed: see to the table in docs/decisions/0017."""
    assert sorted(theirs[pattern]) == DIFFERENT[pattern][0]
    with GitArchive("", workspace=linked.path) as archive:
        spec = PatternSpec((Choice(pattern),))
        if DIFFERENT[pattern][1]:
            assert sorted(packed(archive, linked.git("rev-parse", "HEAD"), spec)) == DIFFERENT[pattern][1]
        else:
            with pytest.raises(GitError) as caught:
                archive.describe(linked.git("rev-parse", "HEAD"), spec)
            assert caught.value.code == "git.nothing-packed"


# --------------------------------------------------------------------------- trees of every kind


def test_what_is_not_committed_does_not_travel(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo").write(FILES)
    sha = repo.commit()
    repo.write({"src/untracked.py": b"", "src/top.py": b"edited\n"})
    with GitArchive("", workspace=repo.path) as archive:
        found = packed(archive, sha, PatternSpec((Choice("src/*.py", "src"),)))
    assert found == {".dot.py": ("0o644", b"dot\n"), "top.py": ("0o644", b"top\n")}


def test_links_are_packed_as_links_and_nothing_is_written_through_them(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo").write({"one/out": "/etc", "two/out/passwd": b"x\n"})
    sha = repo.commit()
    parts = (("a", PackageSpec("one")), ("b", PackageSpec("two")))
    with GitArchive("", workspace=repo.path) as archive:
        assert packed(archive, sha, HybridSpec(parts)) == {"a/out": ("link", b"/etc"), "b/out/passwd": ("0o644", b"x\n")}
        assert packed(archive, sha, PatternSpec((Choice("one", "one"),))) == {"out": ("link", b"/etc")}
        # What lies behind a link is not the commit's.
        for spec, code in (
            (HybridSpec(parts, extract_at_root=True), "git.clash"),
            (PatternSpec((Choice("one", "one"), Choice("two", "two"))), "git.clash"),
            (PatternSpec((Choice("one/out/*"),)), "git.nothing-packed"),
        ):
            with pytest.raises(GitError) as caught:
                archive.describe(sha, spec)
            assert caught.value.code == code


def test_patterns_go_through_submodules_at_their_pins(tmp_path: Path) -> None:
    repo = nested_submodules(tmp_path)
    sha = repo.git("rev-parse", "HEAD")
    with GitArchive(str(repo.path)) as archive:
        found = packed(archive, sha, PatternSpec((Choice("vendor/lib/deep", "vendor/lib"), Choice("vendor/**/lib.py"))))
    assert {path: content for path, (_, content) in found.items()} == {
        "deep/core/core.py": b"pinned core\n",
        "vendor/lib/lib.py": b"pinned lib\n",
    }


def test_a_submodule_out_of_reach_is_not_fetched(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo").write({"src/a.py": b"a\n"})
    lib = Repo.create(tmp_path / "lib").write({"x": b""})
    lib.commit()
    repo.add_submodule(str(lib.path), "vendor/lib")
    repo.git("config", "-f", ".gitmodules", "submodule.vendor/lib.url", "../gone")
    sha = repo.commit()
    with GitArchive(str(repo.path)) as archive:
        assert list(packed(archive, sha, PatternSpec((Choice("src/*.py"),)))) == ["src/a.py"]
        more = PackageSpec("src", (), True, (Choice(".gitmodules"),))
        assert list(packed(archive, sha, more)) == [".gitmodules", "a.py"]
        with pytest.raises(GitError) as caught:
            archive.describe(sha, PatternSpec((Choice("**/*.py"),)))
        assert caught.value.code == "git.submodule"


def test_a_package_without_end_is_refused(tmp_path: Path) -> None:
    repo = Repo.create(tmp_path / "repo").write({f"src/{number}": b"" for number in range(30)})
    sha = repo.commit()
    parts = tuple((f"part{number}", PackageSpec("src")) for number in range(4))
    with GitArchive("", workspace=repo.path, max_files=100) as archive:
        with pytest.raises(GitError) as caught:
            archive.describe(sha, HybridSpec(parts))
        assert caught.value.code == "git.too-big"
        assert len(archive.describe(sha, HybridSpec(parts[:3])).files) == 90


# --------------------------------------------------------------------------- every executor × every packager, on a real ledger

WRITTEN: dict[str, object] = {
    "git": {"type": "git", "subpath": "src"},
    "pattern": {"type": "pattern", "include_pattern": ["src", "train.py"]},
    "hybrid": {"type": "hybrid", "sub_packagers": {"code": {"subpath": "src"}, "conf": {"type": "pattern", "include_pattern": "configs"}}},
    "none": "none",
}
CHANGED = {"git": "pkg/a.py", "pattern": "src/pkg/a.py", "hybrid": "code/pkg/a.py", "none": ""}
PROFILES: dict[str, dict[str, Any]] = {"slurm": {"account": "ml", "tunnel": "local"}, "local": {}}


def planned(profile: Profile, sha: str, archive: GitArchive, job_dir: Path) -> JobPlan:
    recipe = Recipe(module="x.y")
    profile = with_recipe(profile, recipe)
    package = archive.describe(sha, package_spec(recipe, profile))
    grant = GRANT.__class__("alice", sha, "org/repo", 7, "run", f"comment:{sha}", "comment", "allow.roles", "p", "default")
    return plan(grant, "p", profile, "default", recipe, (), package, str(job_dir), False, sys.executable)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("executor", [name for name in EXECUTORS if name not in CLOUDS])
def test_every_executor_with_every_packager(executor: str, kind: str, tmp_path: Path, slurm_like: PretendSlurm) -> None:
    """The package arrives as it is, and the next one, of which a file differs, as a difference."""
    model = EXECUTORS[executor]
    assert kind in model.PACKAGERS, "say in the docs which executors do not take it, and here"
    repo = Repo.create(tmp_path / "repo").write(FILES)
    shas = [repo.commit("one"), repo.write({"src/pkg/a.py": b"changed\n"}).commit("two")]
    job_dir = tmp_path / "jobs"
    profile = model.model_validate({**PROFILES[executor], "packager": WRITTEN[kind], "job_dir": str(job_dir)})
    cluster = local(job_dir, executor, with_path(slurm_like))
    sent: list[frozenset[str]] = []
    with GitArchive("", workspace=repo.path) as archive:
        for sha in shas:
            job = planned(profile, sha, archive, job_dir)
            expected = {path: content for path, (_, content) in packed(archive, sha, package_spec(job.recipe, job.profile)).items()}
            group = package_group("org/repo", "p", package_spec(job.recipe, job.profile))
            claim = cluster.claim(ClaimRequest(job.run_key, job.package.digest, group, job.tags()))
            assert isinstance(claim, Claimed)
            if not claim.has_package:
                whole = upload(job.package, claim, archive)
                sent.append(frozenset(unpack(b"".join(whole.chunks()))))
                assert (whole.base_digest is not None) == (len(sent) > 1)
            script = Compiled(f"#!/bin/sh\n#SBATCH --job-name=dispatch-{job.run_key}\nls code >seen\n")
            record = first_record(job, NOON, "c", None, 7, False)
            answer = cluster.submit(bundle(job, script, record, {}, claim, archive))
            assert isinstance(answer, Submitted), answer
            assert contents(Path(job.run_dir) / "code") == expected
            if executor == "local":
                wait_until(lambda seen=Path(job.run_dir) / "seen": seen.exists())
    cluster.close()
    # Nothing is packed only once: it is there already for the second commit.
    assert sent[1:] == ([] if kind == "none" else [frozenset({CHANGED[kind]})])
