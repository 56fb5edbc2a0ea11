"""The packager in a plain NeMo-Run script on a real repository, beside NeMo-Run's own on the same one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.gitrepo import NESTED, Repo, nested_submodules, unpack

SCRIPT = """
import json, sys
import nemo_run as run
from nemo_run.core.packaging.git import GitArchivePackager
from dispatcher.effects.packager import CommitPackager
from dispatcher.errors import DispatchError

sha, jobs = sys.argv[1:]

def compiled(title, packager):
    executor = run.SlurmExecutor(account="a", packager=packager, tunnel=run.LocalTunnel(job_dir=jobs))
    with run.Experiment(title, executor=executor) as experiment:
        experiment.add(run.Script("main.py"), name="task")
        experiment.dryrun(delete_exp_dir=False)
        return experiment._exp_dir

answers = {
    "ours": compiled("ours", CommitPackager(commit=sha)),
    "stock": compiled("stock", GitArchivePackager()),
    "subpath": compiled("subpath", CommitPackager(commit=sha, subpath="vendor/lib/", include_pattern="*.py", token_env="SECRET")),
}
for name, packager in {
    "ref": CommitPackager(commit=sha, ref="HEAD~1"),
    "files": CommitPackager(commit=sha, include_pattern="*", include_pattern_relative_path="/etc"),
    "branch": CommitPackager(commit="main"),
}.items():
    try:
        packager.package(".", jobs, name)
    except DispatchError as error:
        answers[name] = error.code
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A checkout as people have it: a submodule moved on, another dirty, files that were never added, HEAD elsewhere."""
    repo = nested_submodules(tmp_path_factory.mktemp("packager"))
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive")
    lib = Repo(repo.path / "vendor" / "lib")
    lib.git("fetch", "-q", "origin")
    lib.git("checkout", "-q", "origin/main")
    repo.write({"main.py": b"edited\n", "untracked.py": b""})
    return repo


@pytest.fixture(scope="module")
def answers(repo: Repo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """{what: experiment folder, or error code}."""
    folder = tmp_path_factory.mktemp("jobs")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, repo.git("rev-parse", "HEAD"), str(folder)],
        cwd=repo.path,
        env={**os.environ, "NEMORUN_HOME": str(folder / "home"), "PYTHONPATH": str(Path(__file__).parents[2]), "SECRET": "not to be kept"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answers


def contents(experiment: str) -> dict[str, bytes]:
    """What is in the archive, and what NeMo-Run then unpacked of it, which must be the same."""
    archived = {path: content for path, (_, content) in unpack((Path(experiment) / "task" / "task.tar.gz").read_bytes()).items()}
    code = Path(experiment) / "task" / "code"
    assert {str(path.relative_to(code)): path.read_bytes() for path in code.rglob("*") if path.is_file()} == archived
    return {path: content for path, content in archived.items() if not path.endswith(".gitmodules")}


def test_exactly_the_commit_is_packed_with_nested_submodules_at_their_pins(answers: dict[str, str]) -> None:
    assert contents(answers["ours"]) == NESTED


def test_nemo_runs_own_packager_gets_the_folder_and_the_pin_wrong(answers: dict[str, str]) -> None:
    """Should this fail after an upgrade, NeMo-Run has mended its packager: see whether ours is still needed."""
    code = Path(answers["stock"]) / "task" / "code"
    assert (code / "deep/core/core.py").is_file()
    assert not (code / "vendor/lib/deep/core/core.py").exists()
    assert (code / "vendor/lib/new.py").read_bytes() == b"not pinned\n"


def test_subpath_and_patterns_choose_within_the_commit(answers: dict[str, str]) -> None:
    assert contents(answers["subpath"]) == {"lib.py": b"pinned lib\n", "deep/core/core.py": b"pinned core\n"}


def test_what_contradicts_an_exact_commit_is_refused(answers: dict[str, str]) -> None:
    assert {name: answers[name] for name in ("ref", "files", "branch")} == {
        "ref": "config.invalid",
        "files": "config.invalid",
        "branch": "git.bad-sha",
    }


def test_nothing_half_written_and_no_secret_is_left(answers: dict[str, str]) -> None:
    folder = Path(answers["subpath"])
    assert not list(folder.rglob(".packing-*"))
    assert not [path for path in folder.rglob("*") if path.is_file() and b"not to be kept" in path.read_bytes()]
