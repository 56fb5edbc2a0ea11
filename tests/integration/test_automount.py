"""Lines of ours at the beginning of a job, in a real bash with a real git: a repository that is cloned once, whole, at exactly that commit;
and a configuration that travels inside of the script."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dispatcher.automount import GitMount, mount_lines
from dispatcher.jobconfig import JobConfig, JobFacts
from dispatcher.trainconfig import RecipeConfig, compose

URL = "https://git.example.com/org/library.git"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository with two commits, of which `first` is not the newest."""
    folder = tmp_path / "source"
    for arguments in (
        ["init", "-q", "-b", "main", str(folder)],
        ["-C", str(folder), "config", "uploadpack.allowAnySHA1InWant", "true"],
        ["-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "0"],
    ):
        subprocess.run(["git", *arguments], check=True, env={**os.environ, "HOME": str(tmp_path)})
    for text in ("first", "second"):
        (folder / "version").write_text(text)
        for arguments in (["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", text]):
            subprocess.run(["git", "-C", str(folder), *arguments], check=True, env={**os.environ, "HOME": str(tmp_path)})
    # As an administrator would name a mirror; the job's own lines know only the address.
    (tmp_path / ".gitconfig").write_text(f'[url "file://{folder}"]\n  insteadOf = {URL}\n[core]\n  hooksPath = {tmp_path}/hooks\n')
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    (hooks / "post-checkout").chmod(0o755)
    return folder


def commit(source: Path, name: str) -> str:
    return subprocess.run(["git", "-C", str(source), "rev-parse", name], check=True, capture_output=True, text=True).stdout.strip()


class Job:
    """The beginning of a job's script, as Slurm starts it."""

    def __init__(self, mount: GitMount, folder: Path, run: str, number: int) -> None:
        self.job_dir, self.run_dir = folder / "jobs", folder / "jobs" / "runs" / run
        self.run_dir.mkdir(parents=True, exist_ok=True)
        lines = ["set -eu", *mount_lines(mount, str(self.job_dir), str(self.run_dir)), "echo began"]
        environment: Mapping[str, str] = {"PATH": os.environ["PATH"], "HOME": str(folder), "SLURM_JOB_ID": str(number)}
        self.process = subprocess.Popen(
            ["bash", "-c", "\n".join(lines)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def ended(self) -> tuple[int, str]:
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said

    @property
    def kept(self) -> list[str]:
        return sorted(os.listdir(self.job_dir / "repositories"))

    @property
    def own(self) -> list[str]:
        return sorted(os.listdir(self.run_dir / "repositories"))


def test_it_is_cloned_once_and_copied_for_each_run(source: Path, tmp_path: Path) -> None:
    mount = GitMount(URL, commit(source, "HEAD~1"), "/opt/library")
    job = Job(mount, tmp_path, "a", 1)
    assert job.ended() == (0, "began\n")
    own = Path(mount.folder(str(job.run_dir)))
    assert (own / "version").read_text() == "first"
    assert not (tmp_path / "hooked").exists()
    # What a run leaves in its copy no other run sees, and the second needs no network.
    (own / "version").write_text("changed")
    shutil.rmtree(source)
    again = Job(mount, tmp_path, "b", 2)
    assert again.ended() == (0, "began\n")
    assert (Path(mount.folder(str(again.run_dir))) / "version").read_text() == "first"
    # Started again by Slurm, it finds its own.
    assert Job(mount, tmp_path, "a", 1).ended() == (0, "began\n")
    assert (own / "version").read_text() == "changed"
    assert (job.kept, job.own) == ([mount.commit], [mount.commit])


def test_many_at_once_make_one(source: Path, tmp_path: Path) -> None:
    mount = GitMount(URL, commit(source, "HEAD"), "/opt/library")
    jobs = [Job(mount, tmp_path, "array" if number % 2 else f"r{number}", number) for number in range(8)]
    assert [job.ended() for job in jobs] == [(0, "began\n")] * 8
    assert {tuple(job.kept) for job in jobs} == {tuple(job.own) for job in jobs} == {(mount.commit,)}


@pytest.mark.parametrize("broken", ["commit", "address"])
def test_what_cannot_be_had_ends_the_job_and_leaves_nothing(source: Path, tmp_path: Path, broken: str) -> None:
    mount = GitMount(URL, commit(source, "HEAD"), "/opt/library")
    mount = replace(mount, commit="0" * 39 + "1") if broken == "commit" else replace(mount, url=f"{URL}/nowhere.git")
    job = Job(mount, tmp_path, "a", 1)
    code, said = job.ended()
    assert (code, "began" in said, f"could not be cloned at {mount.commit}" in said) == (1, False, True)
    assert job.kept == []


def test_a_configuration_inside_of_a_script_arrives_as_it_is(tmp_path: Path) -> None:
    written = 'a: it\'s $(touch pwned) `id`\nb: "x\\ty %s"\n'
    config = JobConfig(compose(RecipeConfig(), "", (), {"default.yaml": written}.get), JobFacts("p", {}, {}, {}, {}, {}))
    [line] = config.lines(str(tmp_path))
    subprocess.run(["bash", "-c", line], check=True, cwd=tmp_path)
    assert (tmp_path / "configs" / "train.yaml").read_text() == config.text(str(tmp_path))
    assert "$(touch pwned)" in config.text(str(tmp_path))
    assert not (tmp_path / "pwned").exists()
