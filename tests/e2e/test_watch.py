"""A submitted run to its end: however it ends, whoever is down meanwhile, GitHub hears of it once; only what passed opens the gate."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from dispatcher.answer import marker
from dispatcher.errors import Exit
from tests.conftest import started
from tests.github_model import CheckRun
from tests.github_server import GitHubServer
from tests.here import CANARY, answers_to, deliver, deliver_here, run_here
from tests.rig.slurm import NODES, SlurmRig
from tests.rig.sshd import Sshd
from tests.scene import Scene, make_scene
from tests.stage import POLICY, TRAIN, Ended, Stage

PROFILE_FILE = "profiles/cluster.yaml"


@pytest.fixture(scope="module")
def scene(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with GitHubServer() as server:
        yield make_scene(server, sshd, tmp_path_factory.mktemp("words"))
        assert server.violations == []


@pytest.fixture(scope="module")
def stage(cluster_sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage with a real cluster that nobody breaks."""
    with GitHubServer() as server:
        yield Stage(server, cluster_sshd, tmp_path_factory.mktemp("watched"))
        assert server.violations == []


@pytest.fixture(scope="module")
def fragile() -> Iterator[SlurmRig]:
    """A cluster with accounting, to be broken."""
    with started(SlurmRig()) as rig:
        yield rig


@pytest.fixture(scope="module")
def bare() -> Iterator[SlurmRig]:
    """A cluster without accounting."""
    with started(SlurmRig(accounting=False)) as rig:
        yield rig


@pytest.fixture(scope="module")
def broken(fragile: SlurmRig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage whose cluster is `fragile`."""
    with GitHubServer() as server, started(Sshd(env=fragile.env)) as node:
        yield Stage(server, node, tmp_path_factory.mktemp("fragile"))
        assert server.violations == []


@pytest.fixture(scope="module")
def unaccounted(bare: SlurmRig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage whose cluster is `bare`."""
    with GitHubServer() as server, started(Sshd(env=bare.env)) as node:
        yield Stage(server, node, tmp_path_factory.mktemp("bare"))
        assert server.violations == []


@pytest.fixture(autouse=True)
def as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    """No fault, no job and nothing that was committed to the default branch is left for the next test."""
    stages = [request.getfixturevalue(name) for name in ("stage", "broken", "unaccounted") if name in request.fixturenames]
    rigs = [request.getfixturevalue(name) for name in ("slurm", "fragile", "bare") if name in request.fixturenames]
    mains = [stage.repo.sha("main") for stage in stages]
    yield
    for rig in rigs:
        rig.cancel_all()
    for stage, main in zip(stages, mains, strict=True):
        stage.server.faults.clear()
        stage.repo.set_branch("main", main)
        stage.repo.checks.clear()
        for entry in (stage.job_dir / "active").glob("*"):
            entry.unlink()


# --------------------------------------------------------------------------- looking at it


def record_of(stage: Stage, key: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((stage.job_dir / "runs" / key / "record.json").read_text())
    return found


def check_of(stage: Stage, key: str) -> CheckRun:
    [check] = [check for check in stage.repo.checks.values() if check.external_id == key]
    return check


def submitted(stage: Stage, body: str, **environment: str) -> tuple[dict[str, Any], Ended]:
    event, ended = deliver(stage, body, **environment)
    assert (ended.code, ended.outputs["decision"]) == (0, "run"), ended
    return event, ended


def swept(stage: Stage, **environment: str) -> tuple[Ended, dict[str, int]]:
    """One sweep, and what it counted."""
    ended = run_here(stage, "watch", **environment)
    return ended, json.loads(ended.outputs["result"])


def the_end(stage: Stage, event: dict[str, Any], ended: Ended, state: str, conclusion: str, *says: str) -> str:
    """The run's end has been said once, everywhere, and nobody waits for it any more."""
    key = ended.outputs["run-key"]
    assert record_of(stage, key)["state"] == state
    check = check_of(stage, key)
    assert (check.status, check.conclusion) == ("completed", conclusion)
    [answer] = answers_to(stage, event)
    for words in says:
        assert words in answer, answer
    assert not (stage.job_dir / "active" / key).exists()
    return answer


def wait_until(happened: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


# --------------------------------------------------------------------------- every way to end, in the scheduler's words

SACCT = """#!/bin/sh
mode=$(cat "@@/mode/end" 2>/dev/null)
for file in "@@"/jobs/*; do
    [ -e "$file" ] && [ -n "$mode" ] && echo "${file##*/}|$mode"
done
exit 0
"""

T0 = 1_700_000_000
ENDS = {
    "COMPLETED": (f"COMPLETED|0:0|{T0}|{T0 + 724}|724|n1|None", "succeeded", "failure", "left no results file"),
    "FAILED": (f"FAILED|3:0|{T0}|{T0 + 192}|192|n1|NonZeroExitCode", "failed", "failure", "failed with exit code 3 after 3m 12s"),
    "a signal": (f"FAILED|0:9|{T0}|{T0 + 60}|60|n1|None", "failed", "failure", "was killed, perhaps for lack of memory after 1m"),
    "TIMEOUT": (f"TIMEOUT|0:0|{T0}|{T0 + 300}|300|n1|None", "timeout", "timed_out", "was ended at its time limit after 5m"),
    "DEADLINE": (f"DEADLINE|0:0|{T0}|{T0 + 300}|300|n1|None", "timeout", "timed_out", "time limit"),
    "OUT_OF_MEMORY": (f"OUT_OF_MEMORY|0:125|{T0}|{T0 + 60}|60|n1|None", "out_of_memory", "failure", "out of host memory after 1m"),
    "CANCELLED": (f"CANCELLED by 1000|0:15|{T0}|{T0 + 60}|60|n1|None", "cancelled", "cancelled", "cancelled by user id 1000"),
    "PREEMPTED": (f"PREEMPTED|0:0|{T0}|{T0 + 60}|60|n1|None", "preempted", "failure", "the machine, not the change"),
    "NODE_FAIL": (f"NODE_FAIL|0:0|{T0}|{T0 + 60}|60|n1|None", "node_fail", "failure", "the machine, not the change"),
    "BOOT_FAIL": (f"BOOT_FAIL|0:0|{T0}|{T0 + 60}|60|n1|None", "node_fail", "failure", "failure of a node"),
}


@pytest.mark.parametrize(("row", "state", "conclusion", "says"), ENDS.values(), ids=ENDS)
def test_every_end_has_its_words(scene: Scene, row: str, state: str, conclusion: str, says: str) -> None:
    (scene.slurm.bin / "sacct").write_text(SACCT.replace("@@", str(scene.slurm.folder)))
    scene.slurm.mode("squeue", "forget")
    scene.slurm.mode("end", "")
    event = scene.asked()
    ended = scene.deliver(event)
    assert ended.exit is Exit.OK, ended
    scene.slurm.mode("end", row)
    sweep = scene.sweep()
    assert sweep.exit is Exit.OK, sweep
    key = ended.outputs["run-key"]
    assert record_of(scene.stage, key)["state"] == state
    check = check_of(scene.stage, key)
    assert (check.status, check.conclusion) == ("completed", conclusion)
    [answer] = [body for body in scene.stage.answers if marker(f"comment:{event['comment']['id']}") in body]
    assert says in answer
    assert "✅" not in answer


def test_a_word_that_nobody_knows_passes_nothing(scene: Scene) -> None:
    (scene.slurm.bin / "sacct").write_text(SACCT.replace("@@", str(scene.slurm.folder)))
    scene.slurm.mode("squeue", "forget")
    ended = scene.deliver(scene.asked())
    scene.slurm.mode("end", f"ASCENDED|0:0|{T0}|{T0 + 60}|60|n1|None")
    scene.sweep()
    key = ended.outputs["run-key"]
    assert check_of(scene.stage, key).conclusion is None
    assert (scene.stage.job_dir / "active" / key).exists()


# --------------------------------------------------------------------------- a real cluster that breaks


def test_a_silent_controller_changes_nothing_and_accounting_still_knows_ends(broken: Stage, fragile: SlurmRig) -> None:
    running, long = submitted(broken, "/train steps=2 pause=4")
    fragile.wait_for_state(long.outputs["job-id"], "RUNNING")
    swept(broken)
    ended, failed = submitted(broken, "/train steps=1 fail=oops")
    fragile.wait_for_state(failed.outputs["job-id"], "FAILED")
    accounting = ("sacct", "-n", "-X", "-P", "-j", failed.outputs["job-id"], "-o", "State,ExitCode")
    wait_until(lambda: "FAILED|3:0" in fragile.run(*accounting))
    key = long.outputs["run-key"]
    before = (record_of(broken, key), answers_to(broken, running))
    fragile.stop_slurmctld()
    try:
        told, counted = swept(broken)
        assert (told.code, counted) == (0, {"active": 2, "changed": 1, "ended": 1, "failed": 0, "queued": 0}), told
    finally:
        fragile.start_slurmctld()
    assert (record_of(broken, key), answers_to(broken, running)) == before
    assert before[0]["absent_since"] is None
    answer = the_end(broken, ended, failed, "failed", "failure", "failed with exit code 3", "ValueError: oops", "**Next:**")
    assert "/train profile=cluster recipe=default steps=1 fail=oops" in answer
    assert record_of(broken, failed.outputs["run-key"])["evidence"] == "sacct"
    fragile.wait_for_state(long.outputs["job-id"], "COMPLETED")
    swept(broken)
    the_end(broken, running, long, "succeeded", "success", "passed")


def test_accounting_is_down_when_a_run_ends(broken: Stage, fragile: SlurmRig) -> None:
    event, ended = submitted(broken, "/train steps=1")
    fragile.stop_slurmdbd()
    try:
        fragile.wait_for_state(ended.outputs["job-id"], "COMPLETED")
        assert swept(broken)[1] == {"active": 1, "changed": 1, "ended": 1, "failed": 0, "queued": 0}
    finally:
        fragile.start_slurmdbd()
    the_end(broken, event, ended, "succeeded", "success", "passed")


def test_a_node_fails_under_a_job_and_it_starts_again(broken: Stage, fragile: SlurmRig) -> None:
    event, ended = submitted(broken, "/train steps=3 pause=1")
    job = ended.outputs["job-id"]
    fragile.wait_for_state(job, "RUNNING")
    node = fragile.run("squeue", "-h", "-j", job, "-o", "%N").strip()
    fragile.set_node(node, "DOWN")
    try:
        wait_until(lambda: "Restarts=1" in fragile.run("scontrol", "show", "job", job))
        swept(broken)
        assert record_of(broken, ended.outputs["run-key"])["state"] in ("pending", "running")
        assert check_of(broken, ended.outputs["run-key"]).conclusion is None
        # How the second start ends is the rig's own affair (the node is not really gone), and it may take two minutes to begin.
        fragile.run("scancel", job)
        end = fragile.wait_for_state(job, *SECOND_ENDS)
        swept(broken)
    finally:
        fragile.resume(node)
    the_end(broken, event, ended, *SECOND_ENDS[end])


def release_begin(rig: SlurmRig, job: str) -> None:
    """A requeued job waits two minutes before it may start; here it need not."""
    wait_until(lambda: "JobState=PENDING" in rig.run("scontrol", "show", "job", job))
    time.sleep(5)  # or the first start's last message would end the second one: that is what the two minutes are for
    rig.run("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)


SECOND_ENDS = {"CANCELLED": ("cancelled", "cancelled"), "COMPLETED": ("succeeded", "success"), "FAILED": ("failed", "failure")}


def test_a_run_that_nobody_knows_is_lost_after_the_grace_and_not_before(unaccounted: Stage, bare: SlurmRig) -> None:
    for node in NODES:
        bare.set_node(node, "DRAIN")
    try:
        event, ended = submitted(unaccounted, "/train")
        key = ended.outputs["run-key"]
        assert swept(unaccounted)[1]["ended"] == 0
        bare.forget_jobs()
        told, counted = swept(unaccounted)
        assert (told.code, counted["ended"]) == (0, 0), told
        record = record_of(unaccounted, key)
        assert record["state"] == "pending"
        assert check_of(unaccounted, key).conclusion is None
        since = datetime.fromisoformat(record["absent_since"].replace("Z", "+00:00"))
        assert datetime.now(timezone.utc) - since < timedelta(minutes=1)
        # Ten minutes later, as the policy has it by default.
        record["absent_since"] = (since - timedelta(minutes=10)).isoformat()
        (unaccounted.job_dir / "runs" / key / "record.json").write_text(json.dumps(record))
        assert swept(unaccounted)[1]["ended"] == 1
        the_end(unaccounted, event, ended, "lost", "failure", "is lost", "does not count as passed", "**Next:**")
        assert run_here(unaccounted, "gate", "1").code == Exit.RUN_FAILED
    finally:
        bare.resume(*NODES)


def test_without_accounting_the_end_is_known_also_when_the_controller_forgot_it(unaccounted: Stage, bare: SlurmRig) -> None:
    good, passed = submitted(unaccounted, "/train steps=1")
    bare.wait_for_state(passed.outputs["job-id"], "COMPLETED")
    swept(unaccounted)
    the_end(unaccounted, good, passed, "succeeded", "success", "passed", "**loss 1.875**")
    again, forgotten = submitted(unaccounted, "/train steps=1")
    bad, failed = submitted(unaccounted, "/train steps=1 fail=oops")
    bare.wait_for_state(forgotten.outputs["job-id"], "COMPLETED")
    bare.wait_for_state(failed.outputs["job-id"], "FAILED")
    bare.forget_jobs()
    assert swept(unaccounted)[1] == {"active": 2, "changed": 2, "ended": 2, "failed": 0, "queued": 0}
    the_end(unaccounted, again, forgotten, "succeeded", "success", "passed")
    the_end(unaccounted, bad, failed, "failed", "failure", "failed with exit code 3", "ValueError: oops")
    assert record_of(unaccounted, failed.outputs["run-key"])["evidence"] == "exit file"


# --------------------------------------------------------------------------- GitHub, and people on it


def test_github_is_down_when_a_run_ends(stage: Stage, slurm: SlurmRig) -> None:
    event, ended = submitted(stage, "/train steps=1")
    key = ended.outputs["run-key"]
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED")
    stage.server.fail("PATCH", r"/check-runs/", 403, times=99)
    told, counted = swept(stage)
    assert (told.code, told.outputs["reason-code"], counted["failed"]) == (Exit.CLUSTER, "incomplete", 1), told
    assert (stage.job_dir / "active" / key).exists()
    assert check_of(stage, key).conclusion is None
    # The check was heard, the comment was not.
    stage.server.faults.clear()
    stage.server.fail("PATCH", r"/issues/comments/", 403, times=99)
    assert swept(stage)[1]["failed"] == 1
    assert (stage.job_dir / "active" / key).exists()
    stage.server.faults.clear()
    assert swept(stage)[1] == {"active": 1, "changed": 1, "ended": 1, "failed": 0, "queued": 0}
    the_end(stage, event, ended, "succeeded", "success", "passed")
    assert swept(stage)[1] == {"active": 0, "changed": 0, "ended": 0, "failed": 0, "queued": 0}


def test_a_comment_that_somebody_deleted_is_written_again(stage: Stage, slurm: SlurmRig) -> None:
    event, ended = submitted(stage, "/train steps=1")
    mark = marker(f"comment:{event['comment']['id']}")
    [comment] = [one.id for one in stage.repo.comments.values() if mark in one.body]
    del stage.repo.comments[comment]
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED")
    swept(stage)
    the_end(stage, event, ended, "succeeded", "success", "passed")


def test_a_forged_comment_with_our_marker_is_left_alone(stage: Stage, slurm: SlurmRig) -> None:
    command = stage.pull.comment("/train steps=1")
    forged = stage.pull.comment(f"✅ passed {marker(f'comment:{command.id}')}", author="mallory")
    event = stage.server.comment_event(stage.pull, command)
    ended = deliver_here(stage, "issue_comment", event, GITHUB_RUN_ATTEMPT="2")
    assert ended.code == 0, ended
    assert forged.body.startswith("✅ passed")
    assert len(answers_to(stage, event)) == 1


def test_another_repository_in_the_same_folder_is_not_touched(stage: Stage, slurm: SlurmRig) -> None:
    _, ended = submitted(stage, "/train steps=1")
    key = ended.outputs["run-key"]
    file = stage.job_dir / "runs" / key / "record.json"
    foreign = {**record_of(stage, key), "target": {**record_of(stage, key)["target"], "repository": "org/other"}}
    file.write_text(json.dumps(foreign))
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED")
    requests = len(stage.server.requests)
    # Also who follows until nothing is active does not wait for somebody else's run.
    told = run_here(stage, "watch", "--follow", "--interval", "0.1")
    assert told.code == 0, told
    assert [seen.method for seen in stage.server.requests[requests:]] == ["GET"] * len(stage.server.requests[requests:])
    assert record_of(stage, key) == foreign
    assert (stage.job_dir / "active" / key).exists()


def test_cancelled_from_outside_and_by_a_comment(stage: Stage, slurm: SlurmRig) -> None:
    outside, first = submitted(stage, "/train pause=60")
    asked, second = submitted(stage, "/train pause=61")
    slurm.wait_for_state(second.outputs["job-id"], "RUNNING")
    slurm.run("scancel", first.outputs["job-id"])
    _, several = deliver(stage, "/train cancel " + "0" * 8)
    assert (several.code, several.outputs["reason-code"]) == (Exit.MALFORMED, "no-such-run"), several
    command, ended = deliver(stage, f"/train cancel {second.outputs['run-key'][:8]}")
    assert (ended.code, ended.outputs["decision"], ended.outputs["reason-code"]) == (0, "answered", "cancelled"), ended
    assert "is being ended" in answers_to(stage, command)[0]
    for run in (first, second):
        slurm.wait_for_state(run.outputs["job-id"], "CANCELLED")
    swept(stage)
    the_end(stage, outside, first, "cancelled", "cancelled", "🛑", "was cancelled")
    the_end(stage, asked, second, "cancelled", "cancelled", "🛑", "was cancelled")


def test_requeued_by_hand_it_is_followed_to_its_second_end(stage: Stage, slurm: SlurmRig) -> None:
    event, ended = submitted(stage, "/train steps=2 pause=1")
    job = ended.outputs["job-id"]
    slurm.wait_for_state(job, "RUNNING")
    slurm.run("scontrol", "requeue", job)
    wait_until(lambda: "Restarts=1" in slurm.run("scontrol", "show", "job", job))
    swept(stage)
    assert check_of(stage, ended.outputs["run-key"]).conclusion is None
    release_begin(slurm, job)
    slurm.wait_for_state(job, "COMPLETED")
    swept(stage)
    the_end(stage, event, ended, "succeeded", "success", "passed")


# --------------------------------------------------------------------------- the gate


def gate(stage: Stage, number: int) -> tuple[int, str, str | None, str]:
    """Exit status, reason, the check's conclusion and its title."""
    ended = run_here(stage, "gate", str(number))
    [check] = stage.repo.checks_on(stage.repo.issues[number].head_sha, "dispatch/gate")  # type: ignore[attr-defined]
    return ended.code, ended.outputs["reason-code"], check.conclusion, str(check.title)


def test_the_gate_opens_for_what_has_passed_and_nothing_else(stage: Stage, slurm: SlurmRig) -> None:
    stage.repo.commit("gated", {"train.py": TRAIN + "# gated\n"})
    pull = stage.repo.open_pull("gated")
    stage.repo.required_checks = ["dispatch/gate"]
    assert gate(stage, pull.number) == (Exit.PENDING, "pending", None, "1 required run has not been started")
    # A run with overrides is no proof of what the policy asks for.
    _, other = deliver(stage, "/train steps=1", pull)
    slurm.wait_for_state(other.outputs["job-id"], "COMPLETED")
    swept(stage)
    assert gate(stage, pull.number) == (Exit.PENDING, "pending", None, "1 required run has not been started")
    assert stage.repo.unmet_checks(pull.head_sha) == ["dispatch/gate"]
    _, plain = deliver(stage, "/train", pull)
    assert gate(stage, pull.number) == (Exit.PENDING, "pending", None, "waits for 1 run")
    slurm.wait_for_state(plain.outputs["job-id"], "COMPLETED")
    # The sweep that sees the end also opens the gate.
    swept(stage)
    assert stage.repo.unmet_checks(pull.head_sha) == []
    assert gate(stage, pull.number) == (Exit.OK, "passed", "success", "1 required run passed")
    # New commits ask for new runs.
    before = pull.head_sha
    pull.push({"train.py": "raise SystemExit(4)\n"})
    ended = deliver_here(stage, "pull_request_target", stage.server.pull_request_event(pull, "synchronize", before=before))
    # A gate that waits is no failure of the workflow that put it there.
    assert (ended.code, ended.outputs["reason-code"]) == (Exit.OK, "pending"), ended
    assert stage.repo.unmet_checks(pull.head_sha) == ["dispatch/gate"]
    _, failing = deliver(stage, "/train", pull)
    slurm.wait_for_state(failing.outputs["job-id"], "FAILED")
    swept(stage)
    assert gate(stage, pull.number) == (Exit.RUN_FAILED, "failed", "failure", "1 required run did not pass")
    assert stage.repo.unmet_checks(pull.head_sha) == ["dispatch/gate"]


def test_what_touches_nothing_that_matters_needs_no_run(stage: Stage) -> None:
    stage.repo.commit("docs", {"README.md": "y\n"})
    pull = stage.repo.open_pull("docs")
    assert gate(stage, pull.number) == (Exit.OK, "passed", "success", "no run is required for this change")


# --------------------------------------------------------------------------- somebody waits

EVIL = """\
import os, sys, time
arguments = dict(word.split("=", 1) for word in sys.argv[1:])
for line in ("::set-output name=decision::forged", "::add-mask::step", "##[error]forged", "::error::forged", "a \\x1b]0;title\\x07b"):
    print(line, flush=True)
print("key", os.environ.get("WANDB_API_KEY", "none"), flush=True)
time.sleep(float(arguments.get("pause", 0)))
print("last words", flush=True)
open("results.json", "w").write("{}")
sys.exit(int(arguments.get("code", 0)))
"""


def test_an_attached_run_streams_its_log_and_ends_as_its_job_does(stage: Stage, slurm: SlurmRig) -> None:
    stage.repo.commit("evil", {"train.py": EVIL})
    pull = stage.repo.open_pull("evil")

    def attached(body: str) -> subprocess.Popen[str]:
        event = stage.server.comment_event(pull, pull.comment(body))
        return stage.start_event("issue_comment", event, DISPATCH_WAIT="true", WANDB_API_KEY=CANARY)

    passing, failing, stopped = attached("/train pause=3"), attached("/train code=5"), attached("/train pause=90")
    wait_until(lambda: len(running(slurm)) == 3 or failing.poll() is not None)
    wait_until(lambda: any("is running" in body for body in stage_answers(stage, pull.number)) or stopped.poll() is not None)
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=30)
    told = stage.ended(stopped)
    assert told.code == Exit.INTERRUPTED
    [key] = [run.name for run in (stage.job_dir / "runs").iterdir() if "pause=90" in (run / "record.json").read_text()]
    job = record_of(stage, key)["job_id"]
    assert job in running(slurm)
    assert (stage.job_dir / "active" / key).exists()

    ended = {}
    for name, process in (("passing", passing), ("failing", failing)):
        stdout, stderr = process.communicate(timeout=60)
        ended[name] = stage.ended(process, stdout, stderr)
    assert (ended["passing"].code, ended["passing"].outputs["state"]) == (Exit.OK, "succeeded"), ended["passing"]
    assert (ended["failing"].code, ended["failing"].outputs["state"]) == (Exit.RUN_FAILED, "failed"), ended["failing"]
    for told in ended.values():
        assert told.stdout == ""
        assert "last words" in told.stderr
        assert "\x1b" not in told.stderr
        assert "\na b\n" in told.stderr
        assert CANARY not in told.stderr + told.summary + str(told.outputs)
        assert told.outputs["decision"] == "run"
        own = [line for line in told.stderr.splitlines() if line.startswith(("::", "##["))]
        # Its words for the workflow run's page are a command of our own; nothing in it can end it.
        assert [line.partition("::")[2].partition("=")[0] for line in own] == ["error title"] * len(own), own
    assert CANARY not in "".join(stage_answers(stage, pull.number))

    slurm.run("scancel", job)
    slurm.wait_for_state(job, "CANCELLED")
    swept(stage)
    assert record_of(stage, key)["state"] == "cancelled"


def running(slurm: SlurmRig) -> list[str]:
    return slurm.run("squeue", "--noheader", "--states=RUNNING", "-o", "%i").split()


def stage_answers(stage: Stage, number: int) -> list[str]:
    """Our comments on a pull request."""
    return [one.body for one in stage.repo.comments.values() if one.number == number and one.author == "github-actions[bot]"]


# --------------------------------------------------------------------------- other ways to the cluster, into a container, and to a run


def test_a_job_in_a_container_finds_its_folders(stage: Stage, slurm: SlurmRig) -> None:
    script = """\
import json, os
keys = ("DISPATCH_RESULTS", "DISPATCH_RUN_DIR", "DISPATCH_SHA", "GREETING", "WANDB_API_KEY")
json.dump({key: os.environ.get(key, "none")[:60] for key in keys} | {"cwd": os.getcwd()}, open(os.environ["DISPATCH_RESULTS"], "w"))
"""
    stage.repo.commit("contained", {"train.py": script})
    pull = stage.repo.open_pull("contained")
    stage.repo.commit(
        "main", {PROFILE_FILE: stage.profile + "container_image: example.com/image:1\nenv_vars: { GREETING: 'hello $HOME' }\n"}
    )
    event, ended = deliver(stage, "/train", pull, WANDB_API_KEY=CANARY)
    assert ended.code == 0, ended
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED", "FAILED")
    swept(stage, WANDB_API_KEY=CANARY)
    log = "".join(file.read_text() for file in (stage.job_dir / "runs" / ended.outputs["run-key"] / "logs").iterdir())
    results = record_of(stage, ended.outputs["run-key"])["results"]
    assert results["DISPATCH_RESULTS"] == "/nemo_run/code/results.json", log
    assert results["DISPATCH_RUN_DIR"] == "/nemo_run"
    assert results["cwd"] == "/nemo_run/code"
    assert results["DISPATCH_SHA"] == pull.head_sha
    assert results["GREETING"] == "hello $HOME"
    # A secret reaches the job; that a job writes it into its own results is its own doing, and still nobody is shown it.
    the_end(stage, event, ended, "succeeded", "success", "passed")
    assert CANARY not in "".join(stage_answers(stage, pull.number))


def test_a_runner_on_the_cluster_needs_no_ssh(stage: Stage, slurm: SlurmRig) -> None:
    stage.repo.commit("main", {PROFILE_FILE: stage.profile + "tunnel: local\n"})
    mark = stage.sshd.mark()
    surroundings = {**slurm.env, "DISPATCH_SSH_KEY": "", "DISPATCH_SSH_KNOWN_HOSTS": ""}
    event, ended = submitted(stage, "/train steps=1", **surroundings)
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED")
    swept(stage, **surroundings)
    the_end(stage, event, ended, "succeeded", "success", "passed", "this machine's Slurm")
    assert stage.sshd.connections(mark) == 0


MANY = """\
schedules:
  - { name: nightly, cron: "17 3 * * *", overrides: [steps=2] }
  - { name: weekly, cron: "0 5 * * 0" }
"""


def test_a_schedule_runs_what_the_policy_says(stage: Stage, slurm: SlurmRig) -> None:
    stage.repo.commit("main", {".github/dispatch.yml": POLICY + MANY})
    sha = stage.repo.sha("main")
    ended = deliver_here(stage, "schedule", {"schedule": "17 3 * * *"}, GITHUB_SHA=sha, GITHUB_RUN_ID="7001")
    assert (ended.code, ended.outputs["decision"]) == (0, "run"), ended
    record = record_of(stage, ended.outputs["run-key"])
    assert (record["sha"], record["overrides"], record["actor"], record["target"]["pull"]) == (sha, ["steps=2"], "schedule", None)
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED")
    swept(stage)
    assert check_of(stage, ended.outputs["run-key"]).conclusion == "success"
    # The same schedule again is another run of the workflow; the same run of the workflow again is not.
    again = deliver_here(stage, "schedule", {"schedule": "17 3 * * *"}, GITHUB_SHA=sha, GITHUB_RUN_ID="7001", GITHUB_RUN_ATTEMPT="2")
    assert again.outputs["job-id"] == ended.outputs["job-id"]
    other = deliver_here(stage, "schedule", {"schedule": "1 1 1 1 1"}, GITHUB_SHA=sha, GITHUB_RUN_ID="7002")
    assert (other.code, other.outputs["reason-code"]) == (0, "no-schedule")


def test_by_hand_for_a_pull_request_for_a_branch_and_as_a_preview(stage: Stage, slurm: SlurmRig) -> None:
    def by_hand(run_id: str, **inputs: str) -> Ended:
        event = stage.server.workflow_dispatch_event(stage.repo, inputs)
        return deliver_here(stage, "workflow_dispatch", event, GITHUB_RUN_ID=run_id)

    for_pull = by_hand("8001", pr=str(stage.pull.number), overrides="steps=1")
    assert (for_pull.code, for_pull.outputs["decision"]) == (0, "run"), for_pull
    assert record_of(stage, for_pull.outputs["run-key"])["sha"] == stage.pull.head_sha
    for_branch = by_hand("8002", ref="feature", profile="cluster", overrides="steps=1\nname=a")
    assert for_branch.code == 0, for_branch
    record = record_of(stage, for_branch.outputs["run-key"])
    assert (record["sha"], record["overrides"], record["target"]["pull"]) == (stage.repo.sha("feature"), ["steps=1", "name=a"], None)
    preview = by_hand("8003", ref="feature", **{"dry-run": "true"})
    assert (preview.code, preview.outputs["decision"], preview.outputs["job-id"]) == (0, "plan", ""), preview
    assert "#SBATCH --partition=batch" in preview.summary
    assert "Nothing was submitted." in preview.summary
    assert not (stage.job_dir / "runs" / preview.outputs["run-key"]).exists()
    nowhere = by_hand("8004", ref="no-such-branch")
    assert (nowhere.code, nowhere.outputs["reason-code"]) == (Exit.DENIED, "unknown-ref"), nowhere
    for run in (for_pull, for_branch):
        slurm.wait_for_state(run.outputs["job-id"], "COMPLETED")


def test_a_label_asks_too(stage: Stage, slurm: SlurmRig) -> None:
    event = stage.server.labeled_event(stage.pull, "train:cluster", sender="alice")
    ended = deliver_here(stage, "pull_request_target", event)
    assert (ended.code, ended.outputs["decision"]) == (0, "run"), ended
    again = deliver_here(stage, "pull_request_target", event)
    assert (again.code, again.outputs["job-id"]) == (0, ended.outputs["job-id"])
    mine = [body for body in stage.answers if ended.outputs["run-key"] in body]
    assert len(mine) == 1
    assert check_of(stage, ended.outputs["run-key"]).status == "queued"
    refused = deliver_here(stage, "pull_request_target", stage.server.labeled_event(stage.pull, "train:nowhere", sender="alice"))
    assert (refused.code, refused.outputs["reason-code"]) == (Exit.CONFIG, "unknown-profile"), refused
    other = deliver_here(stage, "pull_request_target", stage.server.labeled_event(stage.pull, "bug", sender="alice"))
    assert (other.code, other.outputs["reason-code"]) == (0, "other-label")
    outsider = deliver_here(stage, "pull_request_target", stage.server.labeled_event(stage.pull, "train:cluster", sender="eve"))
    assert (outsider.code, outsider.outputs["reason-code"]) == (Exit.DENIED, "not-a-collaborator"), outsider
    slurm.wait_for_state(ended.outputs["job-id"], "COMPLETED")


# --------------------------------------------------------------------------- what must never be seen

TELLTALE = """\
import os
print("known", os.environ["WANDB_API_KEY"], "unknown", os.environ["SIGNER"], flush=True)
open("results.json", "w").write('{"loss": 1, "word": "' + os.environ["SIGNER"] + '"}')
raise SystemExit(3)
"""


def test_a_secret_reaches_the_job_and_nobody_else(stage: Stage, slurm: SlurmRig) -> None:
    signer = CANARY[::-1]
    stage.repo.commit("telltale", {"train.py": TELLTALE})
    pull = stage.repo.open_pull("telltale")
    stage.repo.commit("main", {".github/dispatch.yml": POLICY + "secrets: [WANDB_API_KEY, SIGNER]\n"})
    surroundings = {"WANDB_API_KEY": CANARY, "SIGNER": signer, "OTHER_TOKEN": "never-handed-on-1234"}
    event, ended = deliver(stage, "/train", pull, **surroundings)
    assert ended.code == 0, ended
    slurm.wait_for_state(ended.outputs["job-id"], "FAILED")
    told, _ = swept(stage, **surroundings)
    answer = the_end(stage, event, ended, "failed", "failure", "failed with exit code 3", "known *** unknown ***")
    folder = stage.job_dir / "runs" / ended.outputs["run-key"]
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    # The job prints it into its own log and results, on the cluster, where it was given to it.
    holders = {name for name, file in files.items() if CANARY.encode() in file.read_bytes() or signer.encode() in file.read_bytes()}
    assert {name for name in holders if not name.startswith("logs/")} == {"env", "code/results.json"}
    assert files["env"].stat().st_mode & 0o777 == 0o600
    assert "never-handed-on" not in files["env"].read_text()
    queue = slurm.run("scontrol", "show", "job", ended.outputs["job-id"])
    checks = "".join(f"{check.title}{check.summary}{check.text}" for check in stage.repo.checks.values())
    log = run_here(stage, "logs", ended.outputs["run-key"], folder=checkout(stage), **surroundings)
    assert log.code == 0, log
    seen = [ended, told, log]
    public = answer + checks + queue + "".join(str(one) for one in seen) + json.dumps(record_of(stage, ended.outputs["run-key"]))
    for secret in (CANARY, signer, stage.server.token):
        assert secret not in public


def checkout(stage: Stage) -> Any:
    """A checkout of the default branch, as a person has it."""
    folder = stage.folder / f"checkout-{stage.repo.sha('main')[:12]}"
    if not folder.exists():
        subprocess.run(["git", "clone", "-q", str(stage.repo.git_dir), str(folder)], check=True, capture_output=True)
    return folder
