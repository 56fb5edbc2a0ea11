"""`nemotron-dispatch init` as people run it: from flags, at a real terminal, in a fresh repository; then what it wrote, run by act."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dispatcher.errors import Exit
from dispatcher.known_hosts import known_keys
from dispatcher.policy import load_policy
from tests.conftest import started
from tests.github_server import GitHubServer
from tests.rig.act import ACTION, ActRunner
from tests.rig.parts import free_ports
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import Stage

ROOT = Path(__file__).parents[2]
PINNED = "org/nemotron-dispatch@0123456789abcdef0123456789abcdef01234567 # v1.2.3"
FILES = {".github/workflows/train.yml", ".github/workflows/watch.yml", ".github/dispatch.yml", "profiles/cluster.yaml"}
COMMAND = (sys.executable, "-m", "dispatcher.cli", "init")


@pytest.fixture(scope="module")
def host() -> Iterator[Sshd]:
    """A login node with three keys and no scheduler."""
    with started(Sshd(host_keys=("ed25519", "ecdsa", "rsa"))) as server:
        yield server


@dataclass(frozen=True)
class Ended:
    """How it ended."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Checkout:
    """A git repository of somebody who has not heard of us yet."""

    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        own = {"PATH": os.environ["PATH"], "HOME": str(self.folder.parent), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "TERM": "dumb"}
        return {**own, "COLUMNS": "200", **more}

    def init(self, *arguments: str, **environment: str) -> Ended:
        """Without a terminal."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    @property
    def files(self) -> dict[str, str]:
        """Everything in it but git's own."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(self.folder).parts)
        return {str(path.relative_to(self.folder)): path.read_text() for path in found}

    @property
    def folders(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "model"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "remote", "add", "origin", "git@github.com:org/repo.git"], check=True)
    (folder / "train.py").write_text("print('hello')\n")
    return Checkout(folder)


def flags(server: Sshd, **more: str) -> list[str]:
    given = {"host": server.host, "port": str(server.port), "user": server.user, "account": "ml", "job-dir": "/nowhere/jobs"}
    given |= {"script": "train.py", "action": PINNED, **more}
    return [word for name, value in given.items() for word in (f"--{name}", value)]


def fingerprints(server: Sshd) -> dict[str, str]:
    return {key.kind: key.fingerprint for key in known_keys(server.known_hosts, server.host, server.port).accepted}


# --------------------------------------------------------------------------- from flags


def test_from_flags_alone(checkout: Checkout, host: Sshd) -> None:
    shown = fingerprints(host)
    ended = checkout.init(*flags(host), "--fingerprint", shown["ssh-ed25519"], "--no-doctor")
    assert ended.code == 0, ended
    assert set(checkout.files) == {"train.py", *FILES}
    profile = yaml.safe_load(checkout.files["profiles/cluster.yaml"])
    # Only the key that was named: another one came over another connection.
    accepted = known_keys(profile["known_hosts"], host.host, host.port).accepted
    assert [key.fingerprint for key in accepted] == [shown["ssh-ed25519"]]
    assert "known_hosts" not in checkout.files[".github/workflows/train.yml"]
    assert f"uses: {PINNED}\n" in checkout.files[".github/workflows/train.yml"]
    for words in ("gh secret set CLUSTER_SSH_KEY --env cluster < dispatch-key --repo org/repo", 'gh label create "train:cluster"'):
        assert words in ended.stdout
    for path in FILES:
        assert f"written: `{path}`" in ended.stdout
    assert host.connections() == 0

    again = checkout.init(*flags(host), "--fingerprint", shown["ssh-ed25519"], "--no-doctor", "--json")
    assert again.code == 0, again
    told = json.loads(again.stdout)
    assert (told["decision"], told["reason-code"]) == ("initialised", "written")
    assert told["result"]["files"] == dict.fromkeys(sorted(FILES), "unchanged")


def test_the_host_shows_another_key(checkout: Checkout, host: Sshd) -> None:
    for wrong in (["SHA256:" + "A" * 43], [fingerprints(host)["ssh-rsa"], "SHA256:" + "A" * 43]):
        ended = checkout.init(*flags(host), *(word for one in wrong for word in ("--fingerprint", one)))
        assert ended.code == Exit.SSH
        assert "ssh.fingerprint" in ended.stderr
        assert fingerprints(host)["ssh-ed25519"] in ended.stderr
        assert set(checkout.files) == {"train.py"}


def test_the_host_cannot_be_reached(checkout: Checkout, host: Sshd) -> None:
    (port,) = free_ports(1)
    ended = checkout.init(*flags(host, port=str(port)), "--fingerprint", "SHA256:" + "A" * 43)
    assert (ended.code, checkout.folders) == (Exit.SSH, {".git", "train.py"})
    assert ended.stderr.startswith("ssh.unreachable: ")


LOCAL = ("--executor", "local", "--script", "train.py", "--action", PINNED)
WRONG = {
    "nothing said": ([], "input.missing", "`--host`, `--user`, `--account`, `--job-dir`, `--script`"),
    "a wrong value": (["--port", "ssh"], "input.answer", "`--port`"),
    "a wrong fingerprint": (["--fingerprint", "MD5:00"], "input.answer", "`--fingerprint`"),
    "a branch for an action": (["--action", "org/name@main"], "input.answer", "40 hex digits"),
    "labels without a token": ([*LOCAL, "--labels"], "input.missing", "GITHUB_TOKEN"),
    "a cluster's flag for a local run": (["--executor", "local", "--host", "x"], "input.answer", "`--host`"),
    "no fingerprint": (
        ["--host", "h", "--user", "u", "--account", "a", "--job-dir", "/j", "--script", "s.py", "--action", PINNED],
        "input.missing",
        "`--fingerprint SHA256:…`",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "says"), WRONG.values(), ids=WRONG)
def test_what_is_typed_wrong(checkout: Checkout, arguments: list[str], code: str, says: str) -> None:
    ended = checkout.init(*arguments)
    assert ended.code == Exit.USAGE
    assert ended.stderr.startswith(f"{code}: ")
    assert says in ended.stderr
    assert "\nNext: " in ended.stderr
    assert set(checkout.files) == {"train.py"}


def test_a_folder_that_is_no_checkout(checkout: Checkout, tmp_path: Path) -> None:
    ended = checkout.init("--repo", str(tmp_path))
    assert ended.code == Exit.USAGE
    assert "is not in a git repository" in ended.stderr


def test_a_file_that_is_there_is_not_overwritten_unasked(checkout: Checkout, host: Sshd) -> None:
    policy = checkout.folder / ".github" / "dispatch.yml"
    policy.parent.mkdir()
    policy.write_text("default_profile: mine\n\x1b[31mred\n")
    arguments = [*flags(host), "--no-host-keys", "--no-doctor"]
    ended = checkout.init(*arguments)
    assert ended.code == Exit.USAGE
    assert "input.file-exists" in ended.stderr
    assert "-default_profile: mine" in ended.stderr
    assert "+default_profile: cluster" in ended.stderr
    assert "\x1b" not in ended.stderr
    assert set(checkout.files) == {"train.py", ".github/dispatch.yml"}
    forced = checkout.init(*arguments, "--force")
    assert forced.code == 0, forced
    assert load_policy(checkout.files[".github/dispatch.yml"]).default_profile == "cluster"
    assert "vars.CLUSTER_KNOWN_HOSTS" in checkout.files[".github/workflows/train.yml"]


def test_the_doctors_opinion_is_the_exit_status_and_changes_nothing(checkout: Checkout, host: Sshd) -> None:
    ended = checkout.init(*flags(host), "--fingerprint", fingerprints(host)["ssh-ed25519"])
    assert ended.code == Exit.CONFIG
    assert "✗ ssh.no-key" in ended.stdout
    assert set(checkout.files) == {"train.py", *FILES}


def test_a_local_run_is_healthy_at_once(checkout: Checkout) -> None:
    ended = checkout.init(*LOCAL)
    assert ended.code == 0, ended
    assert "0 problems" in ended.stdout
    assert set(checkout.files) == {"train.py", ".github/workflows/train.yml", ".github/dispatch.yml", "profiles/local.yaml"}


def test_the_label_is_made_and_a_github_that_is_away_undoes_nothing(checkout: Checkout) -> None:
    local = [*LOCAL, "--labels", "--no-doctor", "--profile", "gpu"]
    with GitHubServer() as server:
        repo = server.create_repository("org/repo", {"README.md": "x\n"})
        given = {"GITHUB_TOKEN": server.token, "GITHUB_API_URL": server.api_url}
        ended = checkout.init(*local, **given)
        assert ended.code == 0, ended
        made = repo.labels["train:gpu"]
        assert made.color == "1d76db"
        assert "gh label create" not in ended.stdout
        assert server.token not in ended.stdout + ended.stderr
        # Somebody else's colour is brought back, and nothing is written twice.
        assert checkout.init(*local, **given).code == 0
        assert list(repo.labels) == ["train:gpu"]
    (port,) = free_ports(1)
    away = checkout.init(*local, GITHUB_TOKEN="ghs_x", GITHUB_API_URL=f"http://127.0.0.1:{port}")
    assert away.code == 0, away
    assert "The label was not made." in away.stdout
    assert "gh label create" in away.stdout


# --------------------------------------------------------------------------- at a terminal


class Terminal:
    """A real terminal with the program on it: what it shows is read, what somebody types is written."""

    def __init__(self, checkout: Checkout, *arguments: str, **environment: str) -> None:
        self.shown = ""
        self.seen = 0
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever starts the tests in the background has it ignored
            os.chdir(checkout.folder)
            os.execve(COMMAND[0], [*COMMAND, *arguments], checkout.environment(**environment))

    def expect(self, words: str, timeout: float = 30) -> None:
        """Waits until it has shown this, after what was waited for before."""
        deadline = time.monotonic() + timeout
        while words not in self.shown[self.seen :]:
            assert time.monotonic() < deadline, f"{words!r} is not in {self.shown[self.seen :]!r}"
            assert self._read(0.2) is not None, f"{words!r} is not in {self.shown[self.seen :]!r}"
        self.seen = self.shown.index(words, self.seen) + len(words)

    def types(self, words: str) -> None:
        os.write(self._fd, words.encode())

    def answer(self, question: str, words: str) -> None:
        self.expect(question)
        self.expect(": ")
        self.types(words + "\n")

    def end(self) -> int:
        """Its exit status, once it has ended."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._read(0.2) is not None:
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status)

    def _read(self, timeout: float) -> str | None:
        if not select.select([self._fd], [], [], timeout)[0]:
            return ""
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # what Linux says when nobody has the terminal open any more
            return None
        self.shown += data.decode(errors="replace")
        return data.decode(errors="replace") or None


def introduce(terminal: Terminal, host: Sshd) -> None:
    """The questions up to the host's key, some answered wrongly first."""
    terminal.answer("What runs the jobs", "")
    terminal.answer("A name for the profile", "")
    terminal.answer("The cluster's login node", "not a host;")
    terminal.expect("That is not a host name or address.")
    terminal.answer("The cluster's login node", host.host)
    terminal.answer("Its SSH port", str(host.port))
    terminal.answer("The account there", host.user)
    terminal.answer("The Slurm account", "ml")
    terminal.answer("The partition", "")
    terminal.answer("A folder on the cluster", "/nowhere/jobs")
    terminal.answer("Nodes of a job", "2")
    terminal.answer("GPUs on each node", "8")
    terminal.answer("time limit", "")
    terminal.answer("(train.py)", "")
    terminal.answer("(torchrun)", "")
    terminal.answer("How runs are asked for", "comments, schedule")
    terminal.answer("cron expression", "0 4 * * *")
    terminal.answer("before a merge", "check")
    terminal.answer("closed or becomes a draft", "")
    terminal.answer("GitHub App", "")


def test_at_a_terminal(checkout: Checkout, host: Sshd) -> None:
    (checkout.folder / "profiles").mkdir()
    (checkout.folder / "profiles" / "cluster.yaml").write_text("executor: local\n")
    terminal = Terminal(checkout, "--action", PINNED, "--no-doctor")
    introduce(terminal, host)
    for kind, fingerprint in fingerprints(host).items():
        terminal.expect(kind)
        terminal.expect(fingerprint)
    terminal.answer("your administrator published?", "perhaps")
    terminal.expect("That is neither `yes`")
    terminal.answer("your administrator published?", "yes")
    terminal.expect("-executor: local")
    terminal.answer("profiles/cluster.yaml is there already. Replace it?", "y")
    terminal.answer("Write ", "y")
    assert terminal.end() == 0, terminal.shown
    assert set(checkout.files) == {"train.py", *FILES}
    profile = yaml.safe_load(checkout.files["profiles/cluster.yaml"])
    found = {key.fingerprint for key in known_keys(profile["known_hosts"], host.host, host.port).accepted}
    assert found == set(fingerprints(host).values())
    assert (profile["nodes"], profile["gpus_per_node"]) == (2, 8)
    policy = load_policy(checkout.files[".github/dispatch.yml"])
    assert policy.scheduled("0 4 * * *")
    assert policy.gate.required
    workflow = yaml.safe_load(checkout.files[".github/workflows/train.yml"])
    assert set(workflow[True]) == {"issue_comment", "schedule", "pull_request_target"}


@pytest.mark.parametrize(
    ("verdict", "code", "written"),
    [("no", Exit.SSH, False), ("SHA256:" + "B" * 43, Exit.SSH, False), ("later", 0, True)],
)
def test_a_key_that_nobody_confirms_is_not_written(checkout: Checkout, host: Sshd, verdict: str, code: int, written: bool) -> None:
    given = [*flags(host), "--partition", "batch", "--gate", "no", "--no-doctor", "--no-app", "--cancel-closed", "--ways", "comments"]
    given += ["--executor", "slurm", "--profile", "cluster", "--nodes", "1", "--gpus", "0", "--time", "60", "--launcher", "none"]
    terminal = Terminal(checkout, *given)
    terminal.answer("your administrator published?", verdict)
    if written:
        terminal.answer("Write ", "y")
    assert terminal.end() == code, terminal.shown
    assert ("profiles/cluster.yaml" in checkout.files) == written
    assert not any(re.search(r"^known_hosts:", text, re.MULTILINE) for text in checkout.files.values())


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_whoever_leaves_in_the_middle_leaves_nothing(checkout: Checkout, host: Sshd, key: str) -> None:
    early = Terminal(checkout)
    early.expect("What runs the jobs")
    early.expect(": ")
    early.types(key)
    assert early.end() == Exit.INTERRUPTED, early.shown
    late = Terminal(checkout, "--action", PINNED)
    introduce(late, host)
    late.answer("your administrator published?", "yes")
    late.expect("Write ")
    late.expect(": ")
    late.types(key)
    assert late.end() == Exit.INTERRUPTED, late.shown
    for terminal in (early, late):
        assert "Nothing was written." in terminal.shown
        assert "Traceback" not in terminal.shown
    assert checkout.folders == {".git", "train.py"}


# --------------------------------------------------------------------------- what it wrote


def test_what_was_written_starts_a_job_from_a_comment(
    checkout: Checkout, act: Path, github: GitHubServer, slurm: SlurmRig, cluster_sshd: Sshd, tmp_path: Path
) -> None:
    stage = Stage(github, cluster_sshd, tmp_path / "stage")
    server = cluster_sshd
    given = flags(server, **{"job-dir": str(stage.job_dir), "partition": "batch", "time": "00:05:00"})
    key = fingerprints(server)["ssh-ed25519"]
    ended = checkout.init(*given, "--fingerprint", key, "--gate", "job", DISPATCH_SSH_KEY=server.key().private)
    assert (ended.code, "0 problems" in ended.stdout) == (0, True), ended
    workflow = checkout.files[".github/workflows/train.yml"]
    stage.repo.commit("main", {path: text for path, text in checkout.files.items() if path != "train.py"})

    # act cannot fetch by a commit that does not exist: the same action under the name that the rig has for it.
    runnable = tmp_path / "train.yml"
    runnable.write_text(workflow.replace(PINNED, ACTION))
    runner = ActRunner(act, tmp_path / "act", ROOT / ".cache" / "act-tools")
    names = ("GITHUB_API_URL", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_SHA", "GITHUB_RUN_ID")
    environment = {name: stage.environment()[name] for name in names}
    secrets = {"GITHUB_TOKEN": github.token, "CLUSTER_SSH_KEY": server.key().private}

    def deliver(event: str, payload: Mapping[str, Any]) -> Any:
        return runner.run(runnable, event, payload, env=environment, secrets=secrets, variables={})

    def comment(body: str) -> Any:
        return deliver("issue_comment", stage.server.comment_event(stage.pull, stage.pull.comment(body, "alice")))

    ran = comment("/train")
    assert ran.code == 0, ran.log
    assert (ran.outputs["decision"], ran.outputs["reason-code"]) == ("run", "submitted"), ran.log
    assert ran.outputs["run-key"] in slurm.run("scontrol", "show", "job", ran.outputs["job-id"])

    # What asks for nothing takes no runner: the job is skipped, and has no outputs.
    assert (comment("looks good to me").code, comment("see /train").outputs) == (0, {})
    other = deliver("pull_request_target", stage.server.labeled_event(stage.pull, "bug", sender="alice"))
    assert (other.code, other.outputs) == (0, {})
    wanted = deliver("pull_request_target", stage.server.labeled_event(stage.pull, "train:cluster", sender="alice"))
    assert wanted.outputs["decision"] == "run", wanted.log
