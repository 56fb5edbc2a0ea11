"""What a person does in a checkout, against a real cluster: plan, submit, status, logs, cancel, watch, doctor; and what they get wrong.

Each with `--json` too: one object on standard output whose keys are the action's outputs, everything else on standard error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.action import OUTPUTS
from dispatcher.errors import Exit
from tests.github_server import GitHubServer
from tests.here import run_here
from tests.rig.slurm import SlurmRig
from tests.rig.sshd import Sshd
from tests.stage import TRAIN, Ended, Stage

LOCAL = "executor: local\n"
COMMAND = (sys.executable, "-m", "dispatcher.cli")


@pytest.fixture(scope="module")
def stage(cluster_sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with GitHubServer() as server:
        yield Stage(server, cluster_sshd, tmp_path_factory.mktemp("terminal"))
        # Nothing of all this speaks to GitHub.
        assert server.requests == []


def head(person: Person) -> str:
    """The commit that the checkout is at."""
    return subprocess.run(["git", "-C", str(person.folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


class Person:
    """Somebody in their checkout, without any of GitHub's variables."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.folder = folder

    def types(self, *arguments: str, **environment: str) -> Ended:
        """`nemotron-dispatch ARGUMENTS`, as people read it."""
        return run_here(self.stage, *arguments, folder=self.folder, **{**NO_GITHUB, "USER": "carol", **environment})

    def asks(self, *arguments: str, **environment: str) -> tuple[Ended, dict[str, Any]]:
        """The same with `--json`: how it ended, and its one object."""
        ended = self.types(*arguments, "--json", **environment)
        told: dict[str, Any] = json.loads(ended.stdout)
        assert set(told) == {*OUTPUTS, "summary"}
        assert isinstance(told["result"], dict)
        return ended, told

    def runs(self, *words: str, **environment: str) -> dict[str, Any]:
        """Submits; what was said about the run."""
        ended, told = self.asks("submit", *words, **environment)
        assert (ended.code, told["decision"], told["reason-code"]) == (0, "run", "submitted"), ended
        return told

    def commit(self, **files: str) -> None:
        """Changes files (`train_py` is `train.py`) and commits."""
        for name, text in files.items():
            (self.folder / name.replace("_py", ".py")).write_text(text)
        self.git("commit", "-qam", "Change")

    def git(self, *arguments: str) -> None:
        subprocess.run(
            ["git", "-C", str(self.folder), "-c", "user.name=Carol", "-c", "user.email=c@example.com", *arguments],
            check=True,
            capture_output=True,
        )


NO_GITHUB = dict.fromkeys(
    [
        "GITHUB_ACTIONS",
        "GITHUB_API_URL",
        "GITHUB_SERVER_URL",
        "GITHUB_REPOSITORY",
        "GITHUB_TOKEN",
        "GITHUB_SHA",
        "GITHUB_RUN_ID",
        "GITHUB_RUN_ATTEMPT",
    ],
    "",
)


@pytest.fixture
def person(stage: Stage, tmp_path: Path) -> Person:
    folder = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", str(stage.repo.git_dir), str(folder)], check=True, capture_output=True)
    (folder / "profiles" / "local.yaml").write_text(LOCAL)
    return Person(stage, folder)


@pytest.fixture(autouse=True)
def idle(slurm: SlurmRig) -> Iterator[None]:
    yield
    slurm.cancel_all()


# --------------------------------------------------------------------------- looking before, submitting, looking after


def test_a_plan_shows_what_would_run_and_submits_nothing(person: Person, slurm: SlurmRig) -> None:
    before = slurm.run("squeue", "--states=all", "-h", "-o", "%i")
    shown = person.types("plan", "profile=cluster", "steps=2")
    assert shown.code == 0, shown
    for words in ("#SBATCH --partition=batch", "train.py steps=2", "Nothing was submitted.", "4 files"):
        assert words in shown.stdout, shown.stdout
    ended, told = person.asks("plan", "steps=2")
    assert (ended.code, told["decision"], told["reason-code"], told["job-id"]) == (0, "plan", "planned", "")
    assert "#SBATCH --partition=batch" in told["summary"]
    assert slurm.run("squeue", "--states=all", "-h", "-o", "%i") == before
    assert not (person.stage.job_dir / "runs" / told["run-key"]).exists()


def test_from_submission_to_its_end(person: Person, slurm: SlurmRig) -> None:
    (person.folder / "train.py").write_text("raise SystemExit('uncommitted changes do not travel')\n")
    ended, run = person.asks("submit", "steps=2", "pause=1")
    assert (ended.code, run["state"]) == (0, "pending"), ended
    assert "uncommitted changes" in ended.stderr
    key, job = run["run-key"], run["job-id"]
    slurm.wait_for_state(job, "RUNNING")
    # By its first digits while it is active; the scheduler is asked, not only the ledger.
    ended, told = person.asks("status", key[:6])
    assert (ended.code, told["run-key"], told["state"]) == (Exit.PENDING, key, "running"), ended
    table = person.types("status")
    assert table.code == 0
    assert key[:8] in table.stdout
    slurm.wait_for_state(job, "COMPLETED")
    ended, told = person.asks("status", key)
    assert (ended.code, told["state"], told["result"]["loss"]) == (Exit.OK, "succeeded", 1.875), ended
    ended, told = person.asks("watch")
    assert (ended.code, told["reason-code"], told["result"]["ended"]) == (0, "swept", 1), ended
    ended, told = person.asks("status", key)
    assert (ended.code, told["state"]) == (Exit.OK, "succeeded"), ended
    shown = person.types("logs", key)
    assert (shown.code, shown.stdout) == (0, "step 0 loss 2.0\nstep 1 loss 1.9\n"), shown
    assert person.types("logs", key, "-n", "1").stdout == "step 1 loss 1.9\n"
    assert person.types("logs", key, "-n", "0").stdout == ""
    ended, told = person.asks("logs", key)
    assert "step 1 loss 1.9" in ended.stderr


def test_a_request_with_a_name_is_submitted_once(person: Person, slurm: SlurmRig) -> None:
    first, again = person.runs("steps=1", "--request", "mine"), person.runs("steps=1", "--request", "mine")
    other = person.runs("steps=1", "--request", "other")
    assert first["job-id"] == again["job-id"]
    assert other["job-id"] != first["job-id"]
    slurm.wait_for_state(other["job-id"], "COMPLETED")


def test_waiting_ends_as_the_job_does(person: Person, slurm: SlurmRig) -> None:
    # Each takes as long as two looks at a real cluster are apart, so they wait together.
    environment = {**person.stage.environment(), **NO_GITHUB}
    given = {name: value for name, value in environment.items() if value}
    processes = [
        subprocess.Popen(
            [*COMMAND, "submit", "--wait", "--json", *words],
            cwd=person.folder,
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in (["steps=2"], ["steps=1", "fail=oops"])
    ]
    results = [(process.communicate(timeout=90), process.returncode) for process in processes]
    (passed, code), (failed, failing) = results
    assert (code, json.loads(passed[0])["state"], json.loads(passed[0])["result"]) == (
        0,
        "succeeded",
        {"loss": 1.875, "sha": head(person)[:7]},
    )
    assert "step 1 loss 1.9\n" in passed[1]
    assert (failing, json.loads(failed[0])["state"]) == (Exit.RUN_FAILED, "failed")
    assert "ValueError: oops" in failed[1]


def test_a_local_run_needs_nothing_but_the_checkout(person: Person) -> None:
    away = {"DISPATCH_SSH_KEY": "", "DISPATCH_SSH_KNOWN_HOSTS": "", "DISPATCH_STATE_DIR": str(person.folder.parent / "state")}
    ended, told = person.asks("submit", "profile=local", "steps=2", **away)
    assert (ended.code, told["state"], told["result"]["loss"]) == (0, "succeeded", 1.875), ended
    assert "step 1 loss 1.9\n" in ended.stderr
    ended, told = person.asks("submit", "profile=local", "steps=1", "fail=oops", **away)
    assert (ended.code, told["state"]) == (Exit.RUN_FAILED, "failed"), ended
    person.git("add", "profiles/local.yaml")
    ended, told = person.asks("doctor", "--profile", "local", **away)
    assert (ended.code, told["reason-code"]) == (0, "healthy"), ended


def test_a_working_folder_runs_as_it_lies(person: Person, tmp_path: Path) -> None:
    """With what nobody has committed; the record and the preview say so, and a workflow may not."""
    away = {"DISPATCH_SSH_KEY": "", "DISPATCH_SSH_KNOWN_HOSTS": "", "DISPATCH_STATE_DIR": str(tmp_path / "state")}
    (person.folder / "train.py").write_text(PACKED)
    (person.folder / "notes.md").write_text("untracked")
    (person.folder / "profiles" / "local.yaml").write_text(LOCAL + "packager: { type: git, include_pattern: '*.md' }\n")
    ended, told = person.asks("submit", "profile=local", "x=1", "--working-folder", **away)
    assert (ended.code, told["state"], told["result"]["argument"]) == (0, "succeeded", "x=1"), ended
    assert "notes.md" in told["result"]["files"].split()
    assert ".git/HEAD" not in told["result"]["files"]
    words = f"{head(person)[:7]}` with changes that are not committed"
    assert words in told["summary"]
    record = json.loads(next((tmp_path / "state").rglob("record.json")).read_text())
    assert (record["sha"], record["uncommitted"]) == (head(person), True)
    ended, told = person.asks("plan", "profile=local", "--working-folder", **away)
    assert f"{head(person)[:12]}` with changes that are not committed" in told["summary"]
    assert "do not travel" not in ended.stderr
    person.git("add", "train.py", "notes.md")
    person.commit()
    assert "not committed" not in person.asks("plan", "profile=local", "--working-folder", **away)[1]["summary"]
    refused = person.types("plan", "profile=local", "--working-folder", "--commit", "HEAD~1", **away)
    assert (refused.code, "not allowed with" in refused.stderr) == (Exit.USAGE, True)
    refused = person.types("plan", "profile=local", "--working-folder", **{**away, "GITHUB_ACTIONS": "true"})
    assert (refused.code, "input.working-folder" in refused.stderr) == (Exit.USAGE, True), refused


PACKED = """\
import json, os, sys
found = sorted(os.path.relpath(os.path.join(folder, name)) for folder, _, names in os.walk(".") for name in names)
json.dump({"files": " ".join(found), "argument": sys.argv[1]}, open("results.json", "w"))
"""


@pytest.mark.parametrize(
    ("packager", "script", "files"),
    [
        ("{ type: pattern, include_pattern: [src, '!src/*.txt'] }", "src/main.py", "src/main.py"),
        ("{ type: hybrid, sub_packagers: { a: { subpath: src }, b: { type: pattern, include_pattern: '*.md' } } }", "a/main.py", None),
        ("none", "{outside}", ""),
    ],
)
def test_a_local_run_of_every_packager(person: Person, tmp_path: Path, packager: str, script: str, files: str | None) -> None:
    """Once chosen by the profile, once by the recipe: the job sees exactly what was packed, of the commit alone."""
    (tmp_path / "outside.py").write_text(PACKED)
    script = script.format(outside=tmp_path / "outside.py")
    (person.folder / "src").mkdir()
    for name in ("main.py", "notes.txt"):
        (person.folder / "src" / name).write_text(PACKED)
    person.git("add", "src")
    person.commit()
    (person.folder / "src" / "untracked.py").write_text("")
    away = {"DISPATCH_SSH_KEY": "", "DISPATCH_SSH_KNOWN_HOSTS": "", "DISPATCH_STATE_DIR": str(tmp_path / "state")}
    policy = (person.folder / ".github" / "dispatch.yml").read_text()
    for by_recipe in (False, True):
        own = f", packager: {packager}" if by_recipe or packager == "none" else ""
        changed = policy.replace("script: train.py", f"script: {script}{own}")
        (person.folder / ".github" / "dispatch.yml").write_text(changed)
        (person.folder / "profiles" / "local.yaml").write_text(LOCAL + ("" if by_recipe else f"packager: {packager}\n"))
        ended, told = person.asks("submit", "profile=local", f"x={by_recipe}", **away)
        assert (ended.code, told["state"]) == (0, "succeeded"), ended
        assert told["result"]["argument"] == f"x={by_recipe}"
        assert told["result"]["files"] == ("a/main.py a/notes.txt b/README.md" if files is None else files)


def test_following_a_log_shows_every_line_and_ends(person: Person, slurm: SlurmRig) -> None:
    run = person.runs("steps=4", "pause=1")
    slurm.wait_for_state(run["job-id"], "RUNNING")
    followed = person.types("logs", run["run-key"], "--follow")
    assert followed.code == 0, followed
    assert followed.stdout == "".join(f"step {step} loss {2.0 - step / 10}\n" for step in range(4))
    again = person.types("logs", run["run-key"], "--output", "train.log")
    assert (again.code, "The run has ended." in again.stdout + again.stderr) == (0, True), again
    assert (person.folder / "train.log").read_text() == followed.stdout
    # Also when its end has been seen by somebody, and when it never began.
    assert person.types("logs", run["run-key"], "-f").stdout == followed.stdout
    waiting = person.runs("steps=1", "--request", "waits")
    slurm.run("scancel", waiting["job-id"])
    assert person.types("logs", waiting["run-key"], "-f").code == 0


def test_cancelling(person: Person, slurm: SlurmRig) -> None:
    run = person.runs("pause=60")
    slurm.wait_for_state(run["job-id"], "RUNNING")
    ended, told = person.asks("cancel", run["run-key"][:5])
    assert (ended.code, told["decision"], told["job-id"]) == (0, "cancelled", run["job-id"]), ended
    slurm.wait_for_state(run["job-id"], "CANCELLED")
    ended, told = person.asks("status", run["run-key"])
    assert (ended.code, told["state"]) == (Exit.RUN_FAILED, "cancelled"), ended


def test_a_watch_without_github_leaves_a_pull_requests_end_to_one_that_can_tell_it(person: Person, stage: Stage, slurm: SlurmRig) -> None:
    run = person.runs("steps=1")
    slurm.wait_for_state(run["job-id"], "COMPLETED")
    # As if it had been asked for on GitHub, where a check waits for its end.
    file = stage.job_dir / "runs" / run["run-key"] / "record.json"
    record = json.loads(file.read_text())
    record["target"].update(pull=1, check=5)
    record["origin"] = "github"
    file.write_text(json.dumps(record))
    ended, _ = person.asks("watch")
    assert ended.code == 0, ended
    assert (stage.job_dir / "active" / run["run-key"]).exists()
    assert json.loads(file.read_text())["state"] == record["state"]
    (stage.job_dir / "active" / run["run-key"]).unlink()


def test_github_hears_nothing_of_what_was_asked_for_at_a_terminal(person: Person, slurm: SlurmRig) -> None:
    person.commit(train_py=TRAIN + "# never pushed\n")
    run = person.runs("steps=1")
    slurm.wait_for_state(run["job-id"], "COMPLETED")
    # The repository's own sweep, in the same folder on the cluster, with a GitHub that does not know the commit.
    with GitHubServer() as server:
        elsewhere = Stage(server, person.stage.sshd, person.folder.parent)
        elsewhere.job_dir = person.stage.job_dir
        elsewhere.repo.commit("main", {"profiles/cluster.yaml": elsewhere.profile})
        swept = run_here(elsewhere, "watch", GITHUB_REPOSITORY="org/repo")
        assert (swept.code, swept.outputs["reason-code"]) == (0, "swept"), swept
        assert [seen.path for seen in server.requests if seen.method != "GET"] == []
    assert not (person.stage.job_dir / "active" / run["run-key"]).exists()
    assert person.asks("status", run["run-key"])[1]["state"] == "succeeded"


# --------------------------------------------------------------------------- the doctor

Change = Callable[[Person], dict[str, str]]


def edited(old: str, new: str) -> Change:
    """The profile with other words, in the checkout alone."""

    def change(person: Person) -> dict[str, str]:
        file = person.folder / "profiles" / "cluster.yaml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        return {}

    return change


def as_it_is(person: Person) -> dict[str, str]:
    return {}


def wrong_key(person: Person) -> dict[str, str]:
    return {"DISPATCH_SSH_KEY": person.stage.sshd.key("stranger").private}


def no_known_hosts(person: Person) -> dict[str, str]:
    return {"DISPATCH_SSH_KNOWN_HOSTS": ""}


def read_only(person: Person) -> dict[str, str]:
    return edited(f"remote_job_dir: {person.stage.job_dir}", f"remote_job_dir: {person.stage.sshd.read_only}")(person)


DOCTOR = {
    "good": (as_it_is, Exit.OK, "healthy", ("✓ host key", "✓ login", "✓ slurm", "✓ partition", "✓ account", "✓ job_dir", "0 problems")),
    "wrong partition": (
        edited("partition: batch", "partition: bacth"),
        Exit.CONFIG,
        "problems",
        ("✗ partition", "`bacth` does not exist", "did you mean `batch`?", "profiles/cluster.yaml:3", "1 problem."),
    ),
    "wrong account": (
        edited("account: ml", "account: mll"),
        Exit.CONFIG,
        "problems",
        ("✗ account", "`mll` is not yours", "did you mean `ml`?", "profiles/cluster.yaml:2"),
    ),
    "wrong key": (wrong_key, Exit.CONFIG, "problems", ("✗ ssh.auth-failed", "authorized_keys")),
    "unknown host": (no_known_hosts, Exit.CONFIG, "problems", ("✗ ssh.host-key-unknown", "add this line to known_hosts")),
    "read-only folder": (read_only, Exit.CONFIG, "problems", ("Read-only file system",)),
}


@pytest.mark.parametrize(("change", "code", "reason", "says"), DOCTOR.values(), ids=DOCTOR)
def test_the_doctor(person: Person, slurm: SlurmRig, change: Change, code: Exit, reason: str, says: tuple[str, ...]) -> None:
    before = slurm.run("squeue", "--states=all", "-h", "-o", "%i")
    ended, told = person.asks("doctor", **change(person))
    assert (ended.code, told["decision"], told["reason-code"]) == (code, "checked", reason), ended
    for words in says:
        assert words in told["summary"], told["summary"]
    assert "Nothing was submitted." in told["summary"]
    assert "PRIVATE KEY" not in ended.stdout + ended.stderr
    assert slurm.run("squeue", "--states=all", "-h", "-o", "%i") == before


# --------------------------------------------------------------------------- what people get wrong

WRONG: dict[str, tuple[list[str], Exit, str, str]] = {
    "no such profile": (["submit", "profile=clutser"], Exit.CONFIG, "unknown-profile", "`cluster`"),
    "no such profile to check": (["doctor", "--profile", "clutser"], Exit.CONFIG, "unknown-profile", "`cluster`"),
    "no such recipe": (["plan", "recipe=nope"], Exit.DENIED, "unknown-recipe", "`default`"),
    "a word that is no key=value": (["submit", "fast"], Exit.MALFORMED, "unknown-word", "profile=fast"),
    "a commit that is none": (["submit", "--commit", "nope"], Exit.USAGE, "input.missing", "nope"),
    "an option as a commit": (["plan", "--commit=--all"], Exit.USAGE, "input.missing", "--all"),
    "a folder that is no checkout": (["status", "--repo", "/proc"], Exit.USAGE, "input.missing", "git repository"),
    "a run that nobody knows": (["status", "0123456789abcdef"], Exit.CLUSTER, "cluster.no-such-run", "0123456789abcdef"),
    "the beginning of no run": (["logs", "0123"], Exit.CLUSTER, "cluster.no-such-run", "0123"),
    "no run key": (["cancel", "every run"], Exit.CLUSTER, "cluster.no-such-run", "hex digits"),
    "a run key too long": (["logs", "f" * 64], Exit.CLUSTER, "cluster.no-such-run", "hex digits"),
    "a path instead of a run key": (["logs", "../../../etc"], Exit.CLUSTER, "cluster.no-such-run", "hex digits"),
    "a gate without a token": (["gate", "1"], Exit.USAGE, "input.missing", "GITHUB_TOKEN"),
    "an event without a file": (["handle", "--event-name", "issue_comment"], Exit.USAGE, "input.event-file", "--event"),
    "another command of comments": (["submit", "cancel"], Exit.MALFORMED, "unknown-word", "key=value"),
}


@pytest.mark.parametrize(("arguments", "code", "reason", "says"), WRONG.values(), ids=WRONG)
def test_what_is_typed_wrong(person: Person, arguments: list[str], code: Exit, reason: str, says: str) -> None:
    ended, told = person.asks(*arguments)
    assert (ended.code, told["reason-code"]) == (code, reason), ended
    assert says in told["summary"]
    assert "Traceback" not in ended.stderr
    read = person.types(*arguments)
    assert read.code == code
    assert says in (read.stdout + read.stderr).replace("\n", " ")


def test_a_checkout_without_a_policy(person: Person) -> None:
    (person.folder / ".github" / "dispatch.yml").unlink()
    ended, told = person.asks("submit")
    assert (ended.code, told["reason-code"]) == (Exit.CONFIG, "config.missing"), ended


@pytest.mark.parametrize(
    "arguments", [[], ["frobnicate"], ["status", "a", "b"], ["logs"], ["watch", "--interval", "soon"], ["submit", "--nope"]]
)
def test_usage(person: Person, arguments: list[str]) -> None:
    ended = person.types(*arguments)
    assert (ended.code, ended.stdout) == (Exit.USAGE, "")
    assert "usage: nemotron-dispatch" in ended.stderr
