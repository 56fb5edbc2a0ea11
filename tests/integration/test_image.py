"""`image.sh`: an image is imported once, whoever dies or fails meanwhile; with an `enroot` on PATH that does as it is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pytest

from tests.integration.clusters import environment

PROGRAM = str(files("dispatcher") / "effects" / "image.sh")
# Keeps its arguments, waits while there is a file `hold`, fails where the image's name says so.
ENROOT = """#!/bin/sh
printf '%s|' "$@" >>"$0.calls"; echo >>"$0.calls"
while [ -e "$0.hold" ]; do sleep 0.05; done
case $4 in *missing*) echo "[ERROR] URL https://nvcr.io/v2/ returned error code: 404 Not Found" >&2; exit 1 ;; esac
echo "squashed $4" >"$3"
"""


@dataclass
class Cache:
    """A cache, an `enroot`, and processes that need images."""

    folder: Path
    shell: str = "sh"
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir()
        self.enroot.write_text(ENROOT)
        self.enroot.chmod(0o755)

    @property
    def enroot(self) -> Path:
        return self.folder / "bin" / "enroot"

    @property
    def hold(self) -> Path:
        return self.folder / "bin" / "enroot.hold"

    def file(self, name: str = "nemo") -> Path:
        return self.folder / "cache" / f"{name}.sqsh"

    def calls(self) -> list[list[str]]:
        log = self.folder / "bin" / "enroot.calls"
        return [line.rstrip("|").split("|") for line in log.read_text().splitlines()] if log.exists() else []

    def start(self, *names: str, where: str = "job", patience: int = 60, path: str = "") -> subprocess.Popen[str]:
        listed = self.folder / f"list-{len(self.started)}"
        listed.write_text("".join([f"{where}\n", *(f"docker://nvcr.io#{name}:1 {self.file(name)}\n" for name in names or ("nemo",))]))
        process = subprocess.Popen(
            [self.shell, PROGRAM, str(listed), where, str(patience)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**environment(self.folder / "bin"), **({"PATH": path} if path else {})},
        )
        self.started.append(process)
        return process

    def left(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "cache").iterdir())


@pytest.fixture(params=["dash", "bash"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Cache:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return Cache(tmp_path, request.param)


def ended(*processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
    done = [(process.communicate(timeout=40)[0], process.returncode) for process in processes]
    return [(status, words) for words, status in done]


def until(true: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_many_at_once_import_each_image_once(cache: Cache) -> None:
    results = ended(*(cache.start("nemo", "loader") for _ in range(8)))
    assert [status for status, _ in results] == [0] * 8
    assert sorted(call[3] for call in cache.calls()) == ["docker://nvcr.io#loader:1", "docker://nvcr.io#nemo:1"]
    assert {(call[0], call[1]) for call in cache.calls()} == {("import", "--output")}
    assert cache.file().read_text() == "squashed docker://nvcr.io#nemo:1\n"
    assert cache.left() == ["loader.sqsh", "nemo.sqsh"]
    assert ended(cache.start("nemo")) == [(0, "")]


def test_a_name_is_one_argument_whatever_is_in_it(cache: Cache) -> None:
    """No profile can name it so; the program does not rely on that."""
    name = "$(touch${IFS}hacked);`id`&*?[a]\\'\""
    assert [status for status, _ in ended(cache.start(name))] == [0]
    assert [call[3] for call in cache.calls()] == [f"docker://nvcr.io#{name}:1"]
    assert cache.left() == [f"{name}.sqsh"]


@pytest.mark.parametrize("sign", ["KILL", "TERM"])
def test_an_import_that_is_killed_is_taken_over_by_one(cache: Cache, sign: str) -> None:
    cache.hold.touch()
    first = cache.start()
    until(cache.calls)
    others = [cache.start() for _ in range(5)]
    until(lambda: (cache.folder / "cache" / "nemo.sqsh.lock").exists())
    time.sleep(0.3)
    subprocess.run(["kill", f"-{sign}", str(first.pid)], check=True)
    first.wait()
    cache.hold.unlink()
    assert {status for status, _ in ended(*others)} == {0}
    assert len(cache.calls()) == 2
    until(lambda: cache.left() == ["nemo.sqsh"])


def test_what_fails_is_said_by_who_tried_and_by_who_waited(cache: Cache) -> None:
    cache.hold.touch()
    first = cache.start("missing")
    until(cache.calls)
    second = cache.start("missing")
    time.sleep(0.5)
    cache.hold.unlink()
    (status, words), (status_of_second, words_of_second) = ended(first, second)
    assert (status, status_of_second) == (1, 1)
    assert "returned error code: 404 Not Found\n" in words
    assert "dispatch: the image docker://nvcr.io#missing:1 could not be imported: enroot ended with status 1 on " in words
    assert f"could not be imported: process {first.pid} on this node tried, and this one waited for it." in words_of_second
    assert len(cache.calls()) == 1
    assert cache.left() == ["missing.sqsh.failed"]
    # The next one tries again.
    assert ended(cache.start("missing"))[0][0] == 1
    assert len(cache.calls()) == 2


def test_a_silent_holder_on_another_node_is_gone_in_the_end(cache: Cache) -> None:
    lock = cache.folder / "cache" / "nemo.sqsh.lock"
    lock.mkdir(parents=True)
    held = lock / "held.another-boot.7.42"
    held.touch()
    old = cache.folder / "cache" / ".nemo.sqsh.another-boot.7.42"
    old.touch()
    process = cache.start(patience=3, where="login")
    for beat in range(1, 5):  # longer than its patience, but not silent
        time.sleep(1)
        os.utime(held, (beat, beat))
    assert not cache.calls()
    [(status, words)] = ended(process)
    assert status == 0
    assert "a process on another node, which imported docker://nvcr.io#nemo:1, is gone; beginning again\n" in words
    assert words.endswith("dispatch: docker://nvcr.io#nemo:1 is there\n")
    assert cache.left() == ["nemo.sqsh"]


def without_enroot(cache: Cache) -> Sequence[tuple[int, str]]:
    return ended(cache.start(path="/usr/bin:/bin"))


def cache_that_is_a_file(cache: Cache) -> Sequence[tuple[int, str]]:
    (cache.folder / "cache").write_text("")
    return ended(cache.start())


@pytest.mark.parametrize(("fault", "words"), [(without_enroot, "there is no enroot on "), (cache_that_is_a_file, "cannot be made")])
def test_where_nothing_can_be_imported(cache: Cache, fault: Callable[[Cache], Sequence[tuple[int, str]]], words: str) -> None:
    [(status, said)] = fault(cache)
    assert status == 1
    assert said.startswith("dispatch: the image docker://nvcr.io#nemo:1 could not be imported: ")
    assert words in said
