"""A repository on the stand-in GitHub, a login node, a Slurm cluster, and the command line as the action runs it: the whole story."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes import asking_again
from tests.github_model import Pull, Repository
from tests.github_server import GitHubServer
from tests.rig.sshd import Sshd
from tests.rig.warm import WarmStart

TRAIN = """\
import json, os, sys, time
arguments = dict(word.split("=", 1) for word in sys.argv[1:])
for step in range(int(arguments.get("steps", 3))):
    print(f"step {step} loss {2.0 - step / 10}", flush=True)
    time.sleep(float(arguments.get("pause", 0)))
if "fail" in arguments:
    print("Traceback (most recent call last):\\n  ...\\nValueError: " + arguments["fail"], flush=True)
    sys.exit(3)
json.dump({"loss": 1.875, "sha": os.environ["DISPATCH_SHA"][:7]}, open("results.json", "w"))
"""

ROOT = Path(__file__).parents[1]
WARM = WarmStart()
POLICY = """\
default_profile: cluster
forks: sha
recipes:
  default: { script: train.py, entrypoint: python3, results: results.json }
gate:
  required:
    - { profile: cluster, recipe: default, paths: ["*.py"] }
watch: { profiles: [cluster] }
"""

PROFILE = """\
executor: slurm
account: ml
partition: batch
time: "00:05:00"
host: {host}
port: {port}
user: {user}
remote_job_dir: {job_dir}
log_url: https://ondemand.example.com/files{{path}}?job={{job_id}}
"""


@dataclass(frozen=True)
class Ended:
    """How one invocation of the command line ended."""

    code: int
    stdout: str
    stderr: str
    outputs: Mapping[str, str]
    summary: str


@dataclass
class Stage:
    """`repo` has the policy, a profile `cluster` and a script; `pull` is a pull request that changes the script."""

    server: GitHubServer
    sshd: Sshd
    folder: Path
    port: int = 0
    policy: str = POLICY
    extra: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable
    repo: Repository = field(init=False)
    pull: Pull = field(init=False)
    _deliveries: int = 0
    _files: dict[int, dict[str, Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.job_dir = self.folder / "jobs"
        files = {
            "train.py": TRAIN,
            "README.md": "x\n",
            ".github/dispatch.yml": asking_again(self.policy),
            "profiles/cluster.yaml": self.profile,
        }
        files.update(self.extra)
        self.repo = self.server.create_repository("org/repo", files)
        self.repo.add_collaborator("alice", "write")
        self.repo.commit("feature", {"train.py": TRAIN + "# changed\n"})
        self.pull = self.repo.open_pull("feature", author="alice")

    @property
    def profile(self) -> str:
        """The text of `profiles/cluster.yaml`."""
        return PROFILE.format(host=self.sshd.host, port=self.port or self.sshd.port, user=self.sshd.user, job_dir=self.job_dir)

    def environment(self, **more: str) -> dict[str, str]:
        """What GitHub would set, and the secrets; nothing of the machine that runs the tests but PATH."""
        port = self.port or self.sshd.port
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": self.server.api_url,
            "GITHUB_SERVER_URL": self.server.url,
            "GITHUB_REPOSITORY": self.repo.full_name,
            "GITHUB_TOKEN": self.server.token,
            "GITHUB_SHA": self.repo.sha("main"),
            "GITHUB_RUN_ID": "101",
            "GITHUB_RUN_ATTEMPT": "1",
            "DISPATCH_SSH_KEY": self.sshd.key().private,
            "DISPATCH_SSH_KNOWN_HOSTS": self.sshd.known_hosts_at(port),
            **more,
        }

    def handle(self, name: str, payload: Mapping[str, Any], **environment: str) -> Ended:
        """One delivery."""
        return self.run("handle", GITHUB_EVENT_NAME=name, GITHUB_EVENT_PATH=str(self._event(payload)), **environment)

    def start_event(self, name: str, payload: Mapping[str, Any], **environment: str) -> subprocess.Popen[str]:
        """One delivery, running; `ended` tells how it went."""
        return self.start("handle", GITHUB_EVENT_NAME=name, GITHUB_EVENT_PATH=str(self._event(payload)), **environment)

    def _event(self, payload: Mapping[str, Any]) -> Path:
        self._deliveries += 1
        event = self.folder / f"event-{self._deliveries}.json"
        event.write_text(json.dumps(payload))
        return event

    def point_to(self, port: int) -> None:
        """The profile names another port for the login node (a proxy in front of it)."""
        self.port = port
        self.repo.commit("main", {"profiles/cluster.yaml": self.profile})

    def comment(self, body: str, author: str = "alice", **environment: str) -> Ended:
        """Somebody comments on the pull request, and the event is delivered."""
        return self.handle("issue_comment", self.server.comment_event(self.pull, self.pull.comment(body, author)), **environment)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """The command line, running."""
        files = self._output_files()
        process = subprocess.Popen(
            [self.python, "-m", "dispatcher.cli", *arguments],
            env=self._given(files, environment),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._files[process.pid] = files
        return process

    def _output_files(self) -> dict[str, Path]:
        self._deliveries += 1
        files = {name: self.folder / f"{name}-{self._deliveries}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        return files

    def _given(self, files: Mapping[str, Path], environment: Mapping[str, str]) -> dict[str, str]:
        named = {name: str(file) for name, file in files.items()}
        return self.environment(**named, PYTHONSAFEPATH="1", PYTHONPATH=str(ROOT), **environment)

    def ended(self, process: subprocess.Popen[str], stdout: str = "", stderr: str = "") -> Ended:
        """How a process that has ended did."""
        return _ended(process.returncode, stdout, stderr, self._files[process.pid])

    def run(self, *arguments: str, **environment: str) -> Ended:
        """The command line, to its end."""
        if self.python == sys.executable:
            files = self._output_files()
            ended = WARM.run(arguments, self._given(files, environment), self.folder, timeout=120)
            if ended is not None:
                return _ended(*ended, files)
        process = self.start(*arguments, **environment)
        stdout, stderr = process.communicate(timeout=120)
        return self.ended(process, stdout, stderr)

    @property
    def answers(self) -> list[str]:
        """The bodies of our own comments."""
        return [comment.body for comment in self.pull.comments if comment.author == "github-actions[bot]"]


def _ended(code: int, stdout: str, stderr: str, files: Mapping[str, Path]) -> Ended:
    return Ended(code, stdout, stderr, read_outputs(files["GITHUB_OUTPUT"]), files["GITHUB_STEP_SUMMARY"].read_text())


def read_outputs(file: Path) -> dict[str, str]:
    """GITHUB_OUTPUT as the runner reads it: `name<<DELIMITER`, lines, `DELIMITER`."""
    values: dict[str, str] = {}
    lines = iter(file.read_text().splitlines())
    for line in lines:
        name, _, delimiter = line.partition("<<")
        collected = []
        for inner in lines:
            if inner == delimiter:
                break
            collected.append(inner)
        values[name] = "\n".join(collected)
    return values
