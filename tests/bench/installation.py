"""Nothing → an environment that can run the dispatcher, as the action makes it, beside `pip install nemo_run`. Needs a package index."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.bench.process import run
from tests.bench.results import Section, Target, mid, seconds

ROOT = Path(__file__).parents[2]
# What says where packages come from; all else of the machine's settings stays outside.
INDEX = ("PIP_INDEX_URL", "PIP_CONFIG_FILE", "PIP_TRUSTED_HOST", "PIP_CERT", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_CONFIG_FILE")
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")


def measure(count: int) -> Section:
    """Once fresh, then `count` times each with uv's cache, and with a runner that keeps its tool cache."""
    with tempfile.TemporaryDirectory(prefix="bench-install-") as name:
        folder = Path(name)
        kept = {variable: os.environ[variable] for variable in (*INDEX, *TRUST) if variable in os.environ}
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", name), "LANG": "C.UTF-8", **kept}
        plain = _plain_pip(folder, environment)
        fresh = _prepare(folder, folder / "tools-0", environment)
        warm = [_prepare(folder, folder / f"tools-{number + 1}", environment) for number in range(count)]
        stays = [_prepare(folder, folder / "tools-0", environment) for _ in range(count)]
    rows = (
        ("`pip install nemo_run` into a new environment, nothing cached", seconds(plain)),
        ("the action's first step, nothing cached", seconds(fresh)),
        ("the action's first step, uv's cache is there", seconds(mid(warm))),
        ("the action's first step, the runner stays", seconds(mid(stays))),
    )
    targets = (
        Target("ready on a fresh runner", fresh, plain / 4, "s", "a quarter of pip install nemo_run"),
        Target("ready with a warm cache", mid(warm), 2.0, "s"),
    )
    return Section(
        "Until the action is ready", ("what", "time"), rows, targets, {"pip": plain, "fresh": fresh, "warm": warm, "stays": stays}
    )


def _plain_pip(folder: Path, environment: dict[str, str]) -> float:
    """What somebody does without us: a virtual environment and pip."""
    new = folder / "plain"
    made = run([sys.executable, "-m", "venv", str(new)], environment, folder).seconds
    argv = [str(new / "bin" / "pip"), "install", "-q", "--no-cache-dir", "--disable-pip-version-check", "nemo_run==0.11.1"]
    return made + run(argv, environment, folder, timeout=1800).seconds


def _prepare(folder: Path, tools: Path, environment: dict[str, str]) -> float:
    """The action's first step for an event that asks for something."""
    tools.mkdir(exist_ok=True)
    event = folder / "event.json"
    event.write_text("{}")
    output = folder / "output"
    output.write_text("")
    told = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(output), "GITHUB_EVENT_NAME": "issue_comment", "GITHUB_EVENT_PATH": str(event)}
    uv = {"UV_CACHE_DIR": str(folder / "uv-cache"), "RUNNER_TOOL_CACHE": str(tools)}
    seconds_taken = run(
        [sys.executable, "-I", str(ROOT / "dispatcher" / "effects" / "prepare.py")], {**environment, **told, **uv}, folder
    ).seconds
    assert "python<<" in output.read_text(), "no environment was prepared"
    return seconds_taken
