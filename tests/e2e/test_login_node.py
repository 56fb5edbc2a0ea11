"""A login node or a scheduler that is not as it should be → words that say so; or as login nodes simply are → a job nevertheless."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import Exit
from tests.conftest import started
from tests.github_server import GitHubServer
from tests.here import CANARY, answers_to, deliver, deliver_here, nothing_left, well_refused
from tests.rig.parts import free_ports
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import TRAIN, Stage

# What a login node has at least; none of it is Slurm.
TOOLS = ("sh", "bash", "awk", "dd", "env", "sed", "mkdir", "mv", "rm", "tar", "gzip", "tee", "cat", "touch", "sleep", "stat", "head")
TOOLS += ("date", "xargs", "tail", "timeout", "find", "uname", "true")
PROFILE_FILE = "profiles/cluster.yaml"
SLURM = "executor: slurm\naccount: ml\ntunnel: local\n"


@pytest.fixture(scope="module")
def stage(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage whose login node has no scheduler behind it."""
    with GitHubServer() as server:
        yield Stage(server, sshd, tmp_path_factory.mktemp("doors"))
        assert server.violations == []


@pytest.fixture(scope="module")
def cluster(cluster_sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage with a real cluster."""
    with GitHubServer() as server:
        yield Stage(server, cluster_sshd, tmp_path_factory.mktemp("cluster"))
        assert server.violations == []


@pytest.fixture(autouse=True)
def the_default_branch_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test commits to the default branch is gone afterwards."""
    stages = [request.getfixturevalue(name) for name in ("stage", "cluster") if name in request.fixturenames]
    before = [stage.repo.sha("main") for stage in stages]
    yield
    for stage, sha in zip(stages, before, strict=True):
        stage.repo.set_branch("main", sha)
        stage.repo.checks.clear()


# --------------------------------------------------------------------------- the way to the login node


@pytest.fixture(scope="module")
def without_slurm() -> Iterator[Sshd]:
    """A login node with what every one has, and no Slurm."""
    tools = Path(tempfile.mkdtemp(prefix="rig-tools-"))
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or "")
    with started(Sshd(env={"PATH": str(tools), "SHELL": str(tools / "true")})) as server:
        yield server
    shutil.rmtree(tools)


Change = Callable[[Stage], dict[str, str]]
"""What is wrong: changes the profile on the default branch, or gives other variables."""


def profile_with(stage: Stage, **fields: str) -> None:
    """The profile `cluster` with some of its lines replaced."""
    lines = [line for line in stage.profile.splitlines() if line.split(":")[0] not in fields]
    stage.repo.commit("main", {PROFILE_FILE: "\n".join([*lines, *(f"{name}: {value}" for name, value in fields.items())]) + "\n"})


def wrong_key(stage: Stage) -> dict[str, str]:
    return {"DISPATCH_SSH_KEY": stage.sshd.key("stranger").private}


def key_without_passphrase(stage: Stage) -> dict[str, str]:
    return {"DISPATCH_SSH_KEY": stage.sshd.key("ed25519-passphrase").private}


def key_with_another_passphrase(stage: Stage) -> dict[str, str]:
    return {"DISPATCH_SSH_KEY": stage.sshd.key("rsa-pem-passphrase").private, "DISPATCH_SSH_PASSPHRASE": CANARY}


def half_a_key(stage: Stage) -> dict[str, str]:
    return {"DISPATCH_SSH_KEY": stage.sshd.key().private[:120]}


def public_key(stage: Stage) -> dict[str, str]:
    return {"DISPATCH_SSH_KEY": stage.sshd.key().public}


def no_key(_: Stage) -> dict[str, str]:
    return {"DISPATCH_SSH_KEY": ""}


def unknown_host(_: Stage) -> dict[str, str]:
    return {"DISPATCH_SSH_KNOWN_HOSTS": ""}


def changed_host(stage: Stage) -> dict[str, str]:
    other = stage.sshd.key("stranger").public.split()[1]
    return {"DISPATCH_SSH_KNOWN_HOSTS": f"[127.0.0.1]:{stage.sshd.port} ssh-ed25519 {other}\n"}


def nobody_listens(stage: Stage) -> dict[str, str]:
    (port,) = free_ports(1)
    profile_with(stage, port=str(port))
    return {}


def no_such_name(stage: Stage) -> dict[str, str]:
    profile_with(stage, host="login.invalid")
    return {}


def no_login_shell(stage: Stage) -> dict[str, str]:
    profile_with(stage, user=stage.sshd.login("nologin"))
    return {}


def full(stage: Stage) -> dict[str, str]:
    profile_with(stage, remote_job_dir=f"{stage.sshd.full_disk}/jobs")
    return {}


def read_only(stage: Stage) -> dict[str, str]:
    profile_with(stage, remote_job_dir=f"{stage.sshd.read_only}/jobs")
    return {}


def a_file(stage: Stage) -> dict[str, str]:
    profile_with(stage, remote_job_dir="/etc/hostname/jobs")
    return {}


DOORS: dict[str, tuple[Change, Exit, str, tuple[str, ...]]] = {
    "wrong key": (wrong_key, Exit.SSH, "ssh.auth-failed", ("authorized", "SHA256:")),
    "encrypted key without passphrase": (key_without_passphrase, Exit.SSH, "ssh.key-needs-passphrase", ("DISPATCH", "PASSPHRASE")),
    "encrypted key with another passphrase": (key_with_another_passphrase, Exit.SSH, "ssh.key-wrong-passphrase", ()),
    "half a key": (half_a_key, Exit.SSH, "ssh.key-unreadable", ("whole file",)),
    "public half of a key": (public_key, Exit.SSH, "ssh.key-unreadable", ()),
    "no key": (no_key, Exit.SSH, "ssh.no-key", ("from a secret",)),
    "unknown host key": (unknown_host, Exit.SSH, "ssh.host-key-unknown", ("administrators", "SHA256:")),
    "changed host key": (changed_host, Exit.SSH, "ssh.host-key-changed", ("administrators",)),
    "nobody listens": (nobody_listens, Exit.SSH, "ssh.unreachable", ("cannot be reached",)),
    "no such name": (no_such_name, Exit.SSH, "ssh.unreachable", ("login.invalid cannot be resolved",)),
    "no login shell": (no_login_shell, Exit.CLUSTER, "cluster.bad-answer", ("not available",)),
    "full disk": (full, Exit.CLUSTER, "cluster.disk-full", ("no room left",)),
    "read-only folder": (read_only, Exit.CLUSTER, "cluster.not-writable", ("cannot be written to",)),
    "folder below a file": (a_file, Exit.CLUSTER, "cluster.failed", ("Not a directory",)),
}


@pytest.mark.parametrize(("change", "exit_code", "reason", "says"), DOORS.values(), ids=DOORS)
def test_a_login_node_that_cannot_be_used(stage: Stage, change: Change, exit_code: Exit, reason: str, says: tuple[str, ...]) -> None:
    given = change(stage)
    event, ended = deliver(stage, "/train", **given)
    answer = well_refused(stage, event, ended, exit_code, reason, *says)
    nothing_left(stage.job_dir)
    # A disk may turn out to be full only when the check is there: then it is ended too.
    assert [check for check in stage.repo.checks_on(stage.pull.head_sha) if check.status != "completed"] == []
    assert not [line for line in stage.sshd.key().private.splitlines()[1:-1] if line in answer + ended.stderr]


def test_a_login_node_without_sbatch(stage: Stage, without_slurm: Sshd) -> None:
    profile_with(stage, port=str(without_slurm.port))
    keys = {"DISPATCH_SSH_KEY": without_slurm.key().private, "DISPATCH_SSH_KNOWN_HOSTS": without_slurm.known_hosts}
    event, ended = deliver(stage, "/train", **keys)
    well_refused(stage, event, ended, Exit.CLUSTER, "cluster.no-sbatch", "no `sbatch` in its PATH", "~/.bashrc")
    nothing_left(stage.job_dir)


@pytest.mark.parametrize("executor", ["executor: local", SLURM], ids=["local", "tunnel: local"])
def test_a_folder_on_the_runner_that_cannot_be(stage: Stage, executor: str) -> None:
    stage.repo.commit("main", {"profiles/other.yaml": f"{executor}\nremote_job_dir: /etc/hostname/jobs\n"})
    event, ended = deliver(stage, "/train profile=other", DISPATCH_SSH_KEY="")
    well_refused(stage, event, ended, Exit.CLUSTER, "cluster.failed", "Not a directory")


def test_sbatch_says_no_in_its_own_words_and_without_secrets(stage: Stage) -> None:
    sbatch = stage.sshd.bin / "sbatch"
    said = f"sbatch: error: plugin says no to @org/everyone, key {CANARY}, token ghp_{'a1B2' * 10}, exit"
    sbatch.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    try:
        event, ended = deliver(stage, "/train", WANDB_API_KEY=CANARY)
    finally:
        sbatch.unlink()
    answer = well_refused(stage, event, ended, Exit.CLUSTER, "sbatch-refused", "plugin says no to", "the scheduler refused the job")
    assert "ghp_" not in answer + ended.stderr
    assert "@org/everyone" not in answer
    nothing_left(stage.job_dir)
    # The check was there before sbatch was asked; it does not stay pending.
    [check] = stage.repo.checks_on(stage.pull.head_sha)
    assert (check.status, check.conclusion, check.title) == ("completed", "cancelled", "nothing was submitted: sbatch-refused")
    assert check.history[0] == ("queued", None)


# --------------------------------------------------------------------------- what Slurm refuses

SLURM_REFUSES = {
    "unknown partition": ({"partition": "nope"}, "invalid partition specified: nope"),
    "unknown account": ({"account": "nobody"}, "Invalid account or account/partition combination specified"),
    "more time than the partition has": ({"partition": "interactive", "time": '"10:00:00"'}, "Requested time limit is invalid"),
}


@pytest.mark.parametrize(("fields", "says"), SLURM_REFUSES.values(), ids=SLURM_REFUSES)
def test_slurm_says_no_in_its_own_words(cluster: Stage, slurm: SlurmRig, fields: dict[str, str], says: str) -> None:
    before = jobs(slurm)
    profile_with(cluster, **fields)
    event, ended = deliver(cluster, "/train", WANDB_API_KEY=CANARY)
    well_refused(cluster, event, ended, Exit.CLUSTER, "sbatch-refused", says, "the scheduler refused the job")
    nothing_left(cluster.job_dir)
    assert jobs(slurm) == before
    assert {check.status for check in cluster.repo.checks_on(cluster.pull.head_sha)} == {"completed"}


def test_what_was_refused_runs_when_the_profile_is_right(cluster: Stage, slurm: SlurmRig) -> None:
    before = cluster.repo.sha("main")
    profile_with(cluster, partition="nope")
    event, ended = deliver(cluster, "/train steps=1")
    assert ended.outputs["reason-code"] == "sbatch-refused"
    cluster.repo.set_branch("main", before)
    again = deliver_here(cluster, "issue_comment", event)
    assert again.code == 0, again
    # The refusal is not a second comment beside the run's, nor its check a second check.
    [answer] = answers_to(cluster, event)
    assert f"`{again.outputs['job-id']}`" in answer
    [check] = cluster.repo.checks_on(cluster.pull.head_sha)
    assert (check.external_id, check.status) == (again.outputs["run-key"], "queued")


def jobs(slurm: SlurmRig) -> list[str]:
    """Every job that the controller knows."""
    return slurm.run("squeue", "--states=all", "--noheader", "-o", "%i").split()


# --------------------------------------------------------------------------- what login nodes simply are


@pytest.mark.parametrize("shell", ["noisy", "dash", "csh", "fish", "zsh"])
def test_any_login_shell_will_do(cluster: Stage, slurm: SlurmRig, shell: str) -> None:
    profile_with(cluster, user=cluster.sshd.login(shell))
    key = cluster.sshd.key("ed25519-passphrase")
    event, ended = deliver(cluster, "/train steps=1", DISPATCH_SSH_KEY=key.private, DISPATCH_SSH_PASSPHRASE=str(key.passphrase))
    assert ended.code == 0, ended
    [answer] = answers_to(cluster, event)
    assert f"`{ended.outputs['job-id']}`" in answer
    assert "Welcome" not in answer + ended.summary
    assert str(key.passphrase) not in answer + ended.stderr
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED")


def test_a_fork_whose_commit_somebody_vouched_for(cluster: Stage, slurm: SlurmRig) -> None:
    fork = cluster.server.fork(cluster.repo, "mallory/repo")
    fork.commit("patch", {"train.py": TRAIN + "print('patched')\n"})
    pull = cluster.repo.open_pull("patch", author="mallory", fork="mallory/repo")
    event, ended = deliver(cluster, f"/train sha={pull.head_sha} steps=1", pull)
    assert ended.code == 0, ended
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED")
    folder = cluster.job_dir / "runs" / ended.outputs["run-key"]
    assert "patched" in (folder / "code" / "train.py").read_text()
    assert (folder / "code" / "results.json").read_text() == f'{{"loss": 1.875, "sha": "{pull.head_sha[:7]}"}}'
    # A push asks for a new look.
    pull.push({"train.py": "import os\n"})
    event, ended = deliver(cluster, f"/train sha={event_sha(ended, folder)}", pull)
    well_refused(cluster, event, ended, Exit.DENIED, "sha-mismatch", pull.head_sha)


def event_sha(ended: Any, folder: Path) -> str:
    """The commit that a run was made of."""
    found = str(json.loads((folder / "record.json").read_text())["sha"])
    assert len(found) == 40
    return found
