"""The real parts that tests ask for by name → started once, or a loud skip; with `DISPATCH_RIG=required` a missing part is a failure.

| fixture | what it is |
|---|---|
| `slurm` | a Slurm cluster with accounting |
| `sshd` | an OpenSSH server |
| `cluster_sshd` | an OpenSSH server whose sessions reach the `slurm` cluster: a login node |
| `docker` | a Docker engine with one small image |
| `small_disk` | a folder on a disk of 400 kB |
| `latency` | makes a proxy that adds a round-trip time in front of a port |
| `github` | a stand-in GitHub (`tests/github_fixtures.py`) |
| `act` | the path of act, which runs GitHub workflows locally |
| `ray_programs` | the folder that has `ray`, and a `python` that can import it |
| `sky_python` | a Python that has SkyPilot (`.ci/skypilot`) |
| `sky_double`, `sky_server` | a double of SkyPilot's API server that runs jobs; the real one, for dry runs |
| `torch_python` | a Python that has torch; always a skip where there is none |
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from tests.rig.docker import DockerRig
from tests.rig.latency import LatencyProxy
from tests.rig.parts import PartMissing, find_program
from tests.rig.skypilot import SkyDouble, SkyServer, find_python
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd

pytest_plugins = ["tests.github_fixtures"]

# A shell that starts the tests in its background has SIGINT ignored, and what tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
MISSING = "missing part: "
MARKS = {
    "slurm": "slurm",
    "cluster_sshd": "slurm",
    "sshd": "sshd",
    "act": "act",
    "docker": "docker",
    "ray_programs": "ray",
    "sky_python": "skypilot",
    "torch_python": "torch",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test with the parts that it asks for, so that `-m "not slurm"` works without writing the mark twice."""
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKS:
                item.add_marker(MARKS[fixture])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists at the end, apart from everything else, what was not tested here and why."""
    reasons: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        words = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if MISSING in words:
            reasons.setdefault(words.split(MISSING, 1)[1], []).append(report.nodeid)
    if not reasons:
        return
    terminalreporter.section("NOT TESTED HERE: parts are missing", sep="!", red=True, bold=True)
    for reason, tests in reasons.items():
        terminalreporter.line(f"{len(tests)} not run: {reason}", yellow=True)
        for test in tests:
            terminalreporter.line(f"    {test}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """`PartMissing` raised inside a test (a login shell, a mount namespace) is a missing part like one that a fixture misses."""
    try:
        return (yield)
    except PartMissing as why:
        missing(why)


def missing(why: object, *, may_be_required: bool = True) -> NoReturn:
    """Skips the test for want of a part; fails it where `DISPATCH_RIG=required` promises that all parts are there."""
    if may_be_required and os.environ.get("DISPATCH_RIG") == "required":
        pytest.fail(f"DISPATCH_RIG=required, but {why}", pytrace=False)
    pytest.skip(f"{MISSING}{why}")


Rig = TypeVar("Rig", SlurmRig, Sshd, DockerRig)


@contextmanager
def started(rig: Rig) -> Iterator[Rig]:
    """A rig for as long as the block runs; a missing part skips the test (see `missing`)."""
    try:
        rig.start()
    except PartMissing as why:
        missing(why)
    try:
        yield rig
    finally:
        rig.stop()


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmRig]:
    """A Slurm cluster of this test run; tests that break it start a `SlurmRig` of their own."""
    with started(SlurmRig()) as rig:
        yield rig


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    """An OpenSSH server of this test run, without a scheduler behind it."""
    with started(Sshd()) as server:
        yield server


@pytest.fixture(scope="session")
def cluster_sshd(slurm: SlurmRig) -> Iterator[Sshd]:
    """The login node of the `slurm` cluster."""
    with started(Sshd(env=slurm.env)) as server:
        yield server


@pytest.fixture(scope="session")
def docker() -> Iterator[DockerRig]:
    """A Docker engine of this test run, with one image."""
    with started(DockerRig()) as rig:
        yield rig


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB, in `disk` of the test's folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]).returncode != 0:
        missing("a small disk needs root and mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def latency() -> Iterator[Callable[..., LatencyProxy]]:
    """`latency(port, rtt=0.1)` → a started proxy in front of that port of 127.0.0.1, gone when the test ends."""
    with ExitStack() as stack:
        yield lambda port, rtt=0.0: stack.enter_context(LatencyProxy(port, rtt=rtt))


@pytest.fixture(scope="session")
def act() -> Path:
    """The path of act (https://github.com/nektos/act), which `.ci/rig` puts into `.cache/bin`."""
    own = ROOT / ".cache" / "bin" / "act"
    try:
        return own if own.exists() else Path(find_program("act"))
    except PartMissing as why:
        missing(why)


@pytest.fixture(scope="session")
def ray_programs() -> Path:
    """The programs of the environment into which `.ci/rig` puts Ray, or of another one (`DISPATCH_RAY_PROGRAMS`)."""
    folder = Path(os.environ.get("DISPATCH_RAY_PROGRAMS", ROOT / ".cache" / "ray" / "bin"))
    if not (folder / "ray").exists():
        missing(f"there is no {folder / 'ray'}; `.ci/rig` makes it")
    return folder


@pytest.fixture(scope="session")
def sky_python() -> Path:
    """A Python that has SkyPilot and everything that the dispatcher needs."""
    try:
        return find_python()
    except PartMissing as why:
        missing(why)


@pytest.fixture(scope="module")
def sky_double(sky_python: Path) -> Iterator[SkyDouble]:
    """A double of SkyPilot's API server."""
    double = SkyDouble(sky_python)
    yield double
    double.stop()


@pytest.fixture(scope="module")
def sky_server(sky_python: Path) -> Iterator[SkyServer]:
    """SkyPilot's own API server."""
    server = SkyServer(sky_python)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def torch_python() -> Path:
    """A Python that can import torch: `DISPATCH_TORCH_PYTHON`, or the one that runs the tests."""
    named = os.environ.get("DISPATCH_TORCH_PYTHON")
    if named:
        return Path(named)
    if importlib.util.find_spec("torch") is None:
        missing("torch is not installed; DISPATCH_TORCH_PYTHON can name a Python that has it", may_be_required=False)
    return Path(sys.executable)
