"""The story, from an event to its outcome: which effects happen, in which order, and what is left when one of them fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from dispatcher.action import OUTPUTS
from dispatcher.configuration import read_policy
from dispatcher.errors import Exit, ForgeError
from dispatcher.event import Event, LabelEvent, ManualEvent, MergeGroupEvent, OtherEvent, PushEvent, ScheduleEvent
from dispatcher.flow import handle
from dispatcher.ports import CommandOutput
from dispatcher.record import parse_record
from dispatcher.slurm import State
from dispatcher.watching import watch
from dispatcher.world import Outcome
from tests.fakes import (
    FILES,
    HEAD,
    OTHER,
    POLICY,
    PROFILE,
    REPOSITORY,
    FakeCluster,
    Fakes,
    comment_event,
    entry,
    package,
    run_record,
)

LABEL = LabelEvent(REPOSITORY, 7, "train:cluster", HEAD, REPOSITORY, "main", "alice", "t1", False, "main", "pull_request_target")
MANUAL = ManualEvent(REPOSITORY, {"overrides": "a=1"}, "alice", "5", "refs/heads/main", "main")
SCHEDULE = ScheduleEvent(REPOSITORY, "0 3 * * *", "6", "main")
PUSH = PushEvent(REPOSITORY, 7, HEAD, OTHER, "main", "synchronize", "main", REPOSITORY, False, False, "bob")
MERGE_GROUP = MergeGroupEvent(REPOSITORY, OTHER, "refs/heads/gh-readonly-queue/main/pr-7", "main", HEAD, "main")

CHECK = "dispatch / cluster / default"
NOTHING_DONE = ("connect", "cluster", "forge.create_check", "forge.update_check")


def told(ended: Outcome) -> tuple[str, str]:
    return ended.outputs["decision"], ended.outputs["reason-code"]


def only_run(cluster: FakeCluster) -> str:
    [key] = cluster.runs
    return key


# --------------------------------------------------------------------------- a good command


def test_a_good_comment_in_order() -> None:
    fakes = Fakes()
    ended = handle(comment_event("/train a=1"), fakes.world)
    assert fakes.steps == [
        "compiler.start",
        "forge.react eyes",
        "forge.role alice",
        "forge.pull 7",
        "archive.describe aaaa",
        "connect",
        "cluster.claim",
        f"forge.create_check {CHECK} queued",
        "compiler.compile",
        "forge.pull 7",
        "cluster.submit",
        "archive.stream all",
        f"forge.update_check {CHECK} queued",
        "forge.create_comment 7",
        "cluster.save pending",
        "cluster.close",
        "compiler.close",
    ]
    key = only_run(fakes.cluster)
    assert ended.exit is Exit.OK
    assert told(ended) == ("run", "submitted")
    assert (ended.outputs["run-key"], ended.outputs["job-id"], ended.outputs["state"]) == (key, "100", "pending")
    assert ended.outputs["log-url"] == f"https://logs.example.com/jobs/runs/{key}/logs/log-dispatch-{key}_100_0.out?job=100"
    [body] = fakes.forge.bodies
    assert ended.outputs["log-url"] in body
    assert "job 100 is waiting for 1 node" in body
    assert ended.outputs["comment-url"].startswith(f"https://github.com/{REPOSITORY}/pull/7#")
    assert set(ended.outputs) == set(OUTPUTS)


def test_what_imports_an_image_travels_with_the_run() -> None:
    fakes = Fakes(profiles={"cluster": PROFILE + "container_image: nvcr.io/nvidia/nemo:25.04\nsquash: { cache: /images, on: login }\n"})
    handle(comment_event("/train"), fakes.world)
    [run] = fakes.cluster.runs.values()
    assert run.submission is not None
    sent = {file.path: file.content.decode() for file in run.submission.files}
    assert list(sent) == ["configs/task.yaml", "image.sh", "images"]
    assert sent["images"].startswith("login\ndocker://nvcr.io#nvidia/nemo:25.04 /images/nemo-25.04-")
    [asked] = fakes.compiler.jobs
    executor = asked["executor"]
    assert isinstance(executor, dict)
    assert executor["container_image"] == sent["images"].split()[-1]


def test_what_is_submitted_is_what_was_planned() -> None:
    fakes = Fakes(environment={"WANDB_API_KEY": "s3cret", "OTHER": "x"})
    handle(comment_event("/train a=1"), fakes.world)
    [run] = fakes.cluster.runs.values()
    sent = run.submission
    assert sent is not None
    assert f"dispatch-{sent.run_key}" in sent.script
    assert [file.path for file in sent.files] == ["configs/task.yaml"]
    assert "export WANDB_API_KEY=s3cret\n" in sent.env_file
    assert parse_record(sent.record).wandb_expected
    assert "OTHER" not in sent.env_file
    assert run.sent == b"eval.pytrain.py"
    assert sent.manifest.count("\n") == 2
    # The ledger knows of the check before there is a job: whoever comes next finds it.
    assert parse_record(sent.record).target.check in fakes.forge.checks
    assert "s3cret" not in sent.record + sent.script + json.dumps(list(fakes.compiler.jobs)) + "".join(fakes.forge.bodies)


def test_what_the_record_remembers() -> None:
    fakes = Fakes()
    handle(comment_event("/train a=1"), fakes.world)
    record = parse_record(fakes.cluster.runs[only_run(fakes.cluster)].record)
    assert (record.state, record.job_id, record.actor, record.sha, record.overrides) == (State.PENDING, "100", "alice", HEAD, ("a=1",))
    assert (record.target.pull, record.target.command_comment) == (7, 99)
    assert record.target.comment in fakes.forge.comments
    assert record.target.check in fakes.forge.checks
    assert record.asked_at.isoformat() == "2024-05-06T14:01:30+00:00"
    assert record.submitted_at == fakes.clock.now()


@pytest.mark.parametrize(
    ("base", "sent", "mode"),
    [
        (None, b"eval.pytrain.py", "all"),
        (("b" * 64, (entry("eval.py"), entry("train.py", "2"), entry("old.py"))), b"train.py", "train.py"),
        # Most of it has changed: sending everything is simpler.
        (("b" * 64, (entry("eval.py", "2"), entry("train.py", "2"))), b"eval.pytrain.py", "all"),
    ],
)
def test_only_the_difference_travels(base: object, sent: bytes, mode: str) -> None:
    fakes = Fakes()
    fakes.cluster.base = base  # type: ignore[assignment]
    handle(comment_event(), fakes.world)
    [run] = fakes.cluster.runs.values()
    assert run.sent == sent
    assert fakes.trace.of("archive.stream") == [f"archive.stream {mode}"]
    upload = run.submission.upload if run.submission else None
    assert upload is not None
    assert (upload.base_digest, upload.delete) == (("b" * 64, ("old.py", "train.py")) if mode == "train.py" else (None, ()))


def test_a_tree_that_the_cluster_has_does_not_travel() -> None:
    fakes = Fakes()
    fakes.cluster.packages.add(package().digest)
    handle(comment_event(), fakes.world)
    assert not fakes.trace.of("archive.stream")
    assert any("no code" in line for line in fakes.said)


def test_the_second_delivery_finds_the_job() -> None:
    fakes = Fakes()
    first = handle(comment_event(), fakes.world)
    fakes.steps.clear()
    second = handle(comment_event(), fakes.world)
    assert second.outputs == first.outputs
    assert not fakes.trace.of("cluster.submit", "forge.create", "compiler.compile")
    assert (len(fakes.forge.comments), len(fakes.forge.of_runs), len(fakes.cluster.runs)) == (1, 1, 1)


def test_a_second_delivery_does_not_take_an_end_back() -> None:
    fakes = Fakes()
    handle(comment_event(), fakes.world)
    fakes.cluster.scheduler["100"] = "FAILED"
    watch(fakes.world, read_policy(fakes.world))
    again = handle(comment_event(), fakes.world)
    assert told(again) == ("run", "failed")
    assert fakes.forge.check(CHECK).conclusion == "failure"


def test_somebody_else_is_submitting() -> None:
    fakes = Fakes()
    fakes.cluster.busy = True
    ended = handle(comment_event(), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.OK, ("duplicate", "in-progress"))
    assert not fakes.trace.of("forge.create", "forge.update", "cluster.submit", "cluster.abandon")


@pytest.mark.parametrize(("resumed", "attempt"), [(True, 1), (False, 2)])
def test_what_an_earlier_attempt_left_is_found_again(resumed: bool, attempt: int) -> None:
    fakes = Fakes(run_attempt=attempt)
    handle(comment_event(), fakes.world)
    key = only_run(fakes.cluster)
    if resumed:  # the folder is there, the job is not
        fakes.cluster.runs[key].job_id = ""
    else:
        del fakes.cluster.runs[key]
    handle(comment_event(), fakes.world)
    assert (len(fakes.forge.comments), len(fakes.forge.of_runs)) == (1, 1)
    assert fakes.steps.count("cluster.submit") == 2


def test_a_deleted_comment_is_written_again() -> None:
    fakes = Fakes()
    handle(comment_event(), fakes.world)
    fakes.forge.comments.clear()
    handle(comment_event(), fakes.world)
    assert len(fakes.forge.comments) == 1


# --------------------------------------------------------------------------- other ways in


def test_a_label() -> None:
    fakes = Fakes()
    ended = handle(LABEL, fakes.world)
    assert told(ended) == ("run", "submitted")
    assert not fakes.trace.of("forge.react")
    assert len(fakes.forge.bodies) == 1


def test_a_workflow_that_was_started_by_hand() -> None:
    fakes = Fakes()
    ended = handle(MANUAL, fakes.world)
    assert told(ended) == ("run", "submitted")
    assert fakes.trace.of("forge.commit_sha") == ["forge.commit_sha main"]
    assert not fakes.forge.bodies
    assert fakes.forge.check(CHECK).sha == fakes.forge.refs["main"]
    assert "job 100 is waiting" in ended.summary


def test_a_workflow_started_by_hand_for_a_pull_request_reports_there() -> None:
    fakes = Fakes()
    handle(replace(MANUAL, inputs={"pr": "7"}), fakes.world)
    assert len(fakes.forge.bodies) == 1
    assert fakes.forge.check(CHECK).sha == HEAD


def test_both_entries_of_a_schedule() -> None:
    fakes = Fakes()
    ended = handle(SCHEDULE, fakes.world)
    assert ended.exit is Exit.OK
    assert len(fakes.cluster.runs) == 2
    assert fakes.trace.of("forge.create_check") == [
        f"forge.create_check {CHECK} queued",
        "forge.create_check dispatch / cluster / eval queued",
    ]
    assert ended.summary.count("is waiting") == 2
    assert not fakes.forge.bodies


def test_a_failing_entry_of_a_schedule_does_not_stop_the_next() -> None:
    policy = POLICY.replace('{ name: nightly, cron: "0 3 * * *" }', '{ name: nightly, cron: "0 3 * * *", profile: gone }')
    fakes = Fakes(policy)
    ended = handle(SCHEDULE, fakes.world)
    assert ended.exit is Exit.CONFIG
    assert len(fakes.cluster.runs) == 1


def test_an_entry_of_a_schedule_that_breaks_does_not_stop_the_next() -> None:
    policy = POLICY.replace('{ name: nightly, cron: "0 3 * * *" }', '{ name: nightly, cron: "0 3 * * *", profile: broken }')
    fakes = Fakes(policy, {"cluster": PROFILE, "broken": "executor: slurm\nacount: ml\n"})
    ended = handle(SCHEDULE, fakes.world)
    assert ended.exit is Exit.CONFIG
    assert len(fakes.cluster.runs) == 1


def test_a_schedule_that_the_policy_does_not_have() -> None:
    ended = handle(replace(SCHEDULE, cron="1 1 1 1 1"), Fakes().world)
    assert (ended.exit, told(ended)) == (Exit.OK, ("ignored", "no-schedule"))


@pytest.mark.parametrize("event", [PUSH, MERGE_GROUP])
def test_the_gate_is_pending_from_the_first_second(event: Event) -> None:
    fakes = Fakes()
    ended = handle(event, fakes.world)
    assert (ended.exit, told(ended)) == (Exit.OK, ("gate", "pending"))
    gate = fakes.forge.check("dispatch/gate")
    assert (gate.sha, gate.status, gate.conclusion) == (event.head_sha, "in_progress", None)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (comment_event("hello"), "not-a-command"),
        (comment_event(author_is_bot=True), "bot"),
        (comment_event(is_pull=False), "plain-issue"),
        (comment_event(action="edited"), "not-created"),
        (replace(LABEL, label="dispatch: gate overridden"), "other-label"),
        (OtherEvent("push", ""), "other-event"),
    ],
)
def test_what_asks_for_nothing_costs_nothing(event: Event, reason: str) -> None:
    fakes = Fakes()
    ended = handle(event, fakes.world)
    assert (ended.exit, told(ended), fakes.steps) == (Exit.OK, ("ignored", reason), [])


@pytest.mark.parametrize("body", ["/train plan a=1", "/train dry-run=true"])
def test_a_preview_submits_nothing(body: str) -> None:
    fakes = Fakes()
    ended = handle(comment_event(body), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.OK, ("plan", "planned"))
    only_looked(fakes)
    assert "Nothing was submitted." in ended.summary
    assert f"dispatch-{ended.outputs['run-key']}" in ended.summary


def only_looked(fakes: Fakes) -> None:
    """The cluster was asked, nothing was begun there, and no check was made; the claim that tells what would travel was given back."""
    asked = ["connect", "cluster.claim", "cluster.abandon", "cluster.estimate", "cluster.find pull", "cluster.close"]
    assert fakes.trace.of(*NOTHING_DONE) == asked
    assert not fakes.cluster.claims
    assert not fakes.cluster.runs


def test_a_preview_says_what_only_the_cluster_knows() -> None:
    fakes = Fakes()
    handle(comment_event("/train a=1", comment_id=98), fakes.world)
    fakes.forge.comments.clear()
    handle(comment_event("/train plan a=2"), fakes.world)
    [body] = fakes.forge.bodies
    assert "to send: no code" in body
    assert "| Start | " in body
    assert "2024-05-06" in body
    assert "| Since the last run | no more `a=1`<br>new `a=2` |" in body


@pytest.mark.parametrize("step", ["connect", "cluster.claim", "cluster.estimate", "cluster.find"])
def test_a_preview_goes_without_a_cluster_that_does_not_answer(step: str) -> None:
    fakes = Fakes()
    fakes.fail(step, "ssh.unreachable")
    ended = handle(comment_event("/train plan"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.OK, ("plan", "planned"))
    assert "the cluster could not be asked (`ssh.unreachable`)" in fakes.forge.bodies[0]
    assert not fakes.cluster.claims


def test_a_profile_that_only_previews() -> None:
    fakes = Fakes(profiles={"cluster": PROFILE + "dry_run: true\n"})
    assert told(handle(comment_event(), fakes.world)) == ("plan", "planned")
    only_looked(fakes)


def test_a_preview_is_shown_where_it_was_asked_for() -> None:
    fakes = Fakes()
    ended = handle(comment_event("/train plan"), fakes.world)
    [body] = fakes.forge.bodies
    assert "### Preview: default on cluster" in body
    assert ended.outputs["comment-url"]


# --------------------------------------------------------------------------- told no


def fork(fakes: Fakes) -> None:
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], head_repository="mallory/repo")


def stranger(fakes: Fakes) -> None:
    fakes.forge.roles.clear()


def closed(fakes: Fakes) -> None:
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], state="closed")


def gone(fakes: Fakes) -> None:
    fakes.forge.pulls.clear()


def no_policy(fakes: Fakes) -> None:
    del fakes.files[".github/dispatch.yml"]


def broken_profile(fakes: Fakes) -> None:
    fakes.files["profiles/cluster.yaml"] = "executor: slurm\nacount: ml\n"


def no_script(fakes: Fakes) -> None:
    fakes.archive.commits[HEAD] = FILES[:1]


def unchanged(fakes: Fakes) -> None:
    pass


REFUSED: list[tuple[str, Callable[[Fakes], None], Exit, str, str, str]] = [
    ("/train", closed, Exit.DENIED, "denied", "pull-closed", "is closed"),
    ("/train", gone, Exit.DENIED, "denied", "pull-gone", "cannot be read"),
    ("/train plan", fork, Exit.DENIED, "denied", "fork-needs-sha", f"sha={HEAD}"),
    (f"/train sha={OTHER}", unchanged, Exit.DENIED, "denied", "sha-mismatch", "is not the head"),
    ("/train recipe=evil", unchanged, Exit.DENIED, "denied", "unknown-recipe", "Did you mean **`eval`**?"),
    ("/train run.nodes=4", unchanged, Exit.DENIED, "denied", "override-not-allowed", "`run.nodes=4` may not be set"),
    ("/train profil=x", unchanged, Exit.MALFORMED, "malformed", "bad-key", "Did you mean **`profile=`**?"),
    ("/train clustr", unchanged, Exit.MALFORMED, "malformed", "unknown-word", "is neither a verb nor `key=value`"),
    ("/train profile=clutser", unchanged, Exit.CONFIG, "refused", "unknown-profile", "Did you mean **`cluster`**?"),
    ("/train", no_policy, Exit.CONFIG, "refused", "config.missing", ".github/dispatch.yml"),
    ("/train", broken_profile, Exit.CONFIG, "refused", "config.invalid", "`acount`"),
    ("/train", no_script, Exit.CONFIG, "refused", "script-missing", "there is no `train.py` in the commit"),
]


@pytest.mark.parametrize(("body", "arrange", "exit_code", "decision", "reason", "words"), REFUSED)
def test_told_no(body: str, arrange: Callable[[Fakes], None], exit_code: Exit, decision: str, reason: str, words: str) -> None:
    fakes = Fakes()
    arrange(fakes)
    ended = handle(comment_event(body), fakes.world)
    assert (ended.exit, told(ended)) == (exit_code, (decision, reason))
    assert not fakes.trace.of(*NOTHING_DONE)
    [answer] = fakes.forge.bodies
    assert words in answer
    assert f"reason `{reason}` · nothing was submitted" in answer
    assert words in ended.summary
    assert ended.outputs["comment-url"]
    assert [content for _, content in fakes.forge.reactions] == ["eyes", {"denied": "-1"}.get(decision, "confused")]
    assert set(ended.outputs) == set(OUTPUTS)
    assert fakes.steps[-1] == "compiler.close" or "compiler.start" not in fakes.steps


def test_a_label_is_answered_too_without_a_reaction() -> None:
    fakes = Fakes()
    fakes.forge.roles.clear()
    handle(LABEL, fakes.world)
    assert len(fakes.forge.bodies) == 1
    assert not fakes.forge.reactions


def test_the_same_no_twice_is_one_comment() -> None:
    fakes = Fakes()
    closed(fakes)
    for _ in range(2):
        handle(comment_event(), fakes.world)
    assert len(fakes.forge.bodies) == 1


@pytest.mark.parametrize("arrange", [closed, stranger])
@pytest.mark.parametrize("step", ["forge.find_comment", "forge.create_comment", "forge.react -1"])
def test_a_failure_of_github_never_hides_the_reason(step: str, arrange: Callable[[Fakes], None]) -> None:
    fakes = Fakes()
    arrange(fakes)
    fakes.fail(step)
    ended = handle(comment_event(), fakes.world)
    reason, words = ("pull-closed", "is closed") if arrange is closed else ("not-a-collaborator", "may not use profile")
    assert (ended.exit, told(ended)) == (Exit.DENIED, ("denied", reason))
    assert words in ended.summary
    # Who has no rights here gets a reaction only, so there is no comment that could fail.
    assert any("could not be posted" in line for line in fakes.said) == (arrange is closed or step == "forge.react -1")


# --------------------------------------------------------------------------- broken on the way


@pytest.mark.parametrize(
    ("step", "code", "exit_code"),
    [
        ("forge.role", "github.unavailable", Exit.GITHUB),
        ("forge.pull", "github.rate-limited", Exit.GITHUB),
        ("archive.describe", "git.fetch-failed", Exit.GIT),
        ("cluster.claim", "ssh.auth-failed", Exit.SSH),
        ("cluster.claim", "cluster.disk-full", Exit.CLUSTER),
        ("forge.create_check", "github.forbidden", Exit.GITHUB),
        ("compiler.compile", "compile.failed", Exit.COMPILE),
        ("cluster.submit", "cluster.failed", Exit.CLUSTER),
        ("cluster.submit", "ssh.cut", Exit.SSH),
        ("archive.stream", "git.corrupt", Exit.GIT),
    ],
)
def test_whatever_breaks_is_answered_and_leaves_nothing(step: str, code: str, exit_code: Exit) -> None:
    fakes = Fakes()
    fakes.fail(step, code)
    ended = handle(comment_event(), fakes.world)
    assert (ended.exit, told(ended)) == (exit_code, ("refused", code))
    assert not fakes.cluster.claims
    assert not fakes.cluster.runs
    assert [check.conclusion for check in fakes.forge.of_runs] in ([], ["cancelled"])
    [answer] = fakes.forge.bodies
    assert f"reason `{code}`" in answer
    assert fakes.steps[-1] == "compiler.close"
    if "cluster.close" in fakes.steps and step != "cluster.claim":
        # Given back at once, not only when the connection ends.
        assert "cluster.abandon" in fakes.steps


def test_a_reaction_that_fails_ends_it_before_anything_is_begun() -> None:
    fakes = Fakes()
    fakes.fail("forge.react eyes", "github.forbidden")
    with pytest.raises(ForgeError, match="broke"):
        handle(comment_event(), fakes.world)
    assert fakes.steps == ["compiler.start", "forge.react eyes", "compiler.close"]


@pytest.mark.parametrize("code", ["ssh.cut", "cluster.cut", "cluster.timeout", "cluster.scheduler-silent"])
def test_nobody_claims_to_know_what_became_of_a_submission_that_was_cut(code: str) -> None:
    fakes = Fakes()
    fakes.fail("cluster.submit", code)
    handle(comment_event(), fakes.world)
    [answer] = fakes.forge.bodies
    check = fakes.forge.check(CHECK)
    assert "nothing was submitted" not in answer + check.title + check.summary
    assert "not known whether" in answer
    assert "not known whether" in check.title


def test_the_head_moved_in_between() -> None:
    fakes = Fakes()
    fakes.trace.at["compiler.compile"] = lambda: fakes.forge.pulls.update({7: replace(fakes.forge.pulls[7], head_sha=OTHER)})
    ended = handle(comment_event(), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.DENIED, ("denied", "head-moved"))
    assert fakes.trace.of("cluster.submit", "cluster.abandon") == ["cluster.abandon"]
    check = fakes.forge.check(CHECK)
    assert (check.conclusion, check.title) == ("cancelled", "nothing was submitted: head-moved")


def test_the_scheduler_says_no() -> None:
    fakes = Fakes(to_hide=("hunter22",))
    fakes.cluster.refuses = "sbatch: error: Invalid account @everyone hunter22"
    ended = handle(comment_event(), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.CLUSTER, ("refused", "sbatch-refused"))
    assert not fakes.cluster.claims
    assert fakes.forge.check(CHECK).conclusion == "cancelled"
    [answer] = fakes.forge.bodies
    assert "Invalid account" in answer
    assert "@everyone" not in answer
    assert "hunter22" not in answer + fakes.forge.check(CHECK).summary + ended.summary


def test_a_refused_command_can_be_given_again() -> None:
    fakes = Fakes(run_attempt=2)
    fakes.cluster.refuses = "sbatch: error: Batch job submission failed"
    handle(comment_event(), fakes.world)
    fakes.cluster.refuses = ""
    assert told(handle(comment_event(), fakes.world)) == ("run", "submitted")
    [body] = fakes.forge.bodies
    assert "job 100 is waiting" in body
    assert fakes.forge.check(CHECK).conclusion is None


def test_a_check_that_cannot_be_closed_does_not_hide_the_reason() -> None:
    fakes = Fakes()
    fakes.cluster.refuses = "no"
    fakes.fail("forge.update_check")
    assert told(handle(comment_event(), fakes.world)) == ("refused", "sbatch-refused")
    assert any("could not be closed" in line for line in fakes.said)


@pytest.mark.parametrize("step", ["forge.update_check", "forge.create_comment"])
def test_a_job_that_github_would_not_hear_of_is_reported_by_the_next_sweep(step: str) -> None:
    fakes = Fakes()
    fakes.fail(step)
    ended = handle(comment_event(), fakes.world)
    assert ended.exit is Exit.GITHUB
    assert (told(ended), ended.outputs["job-id"]) == (("run", "submitted"), "100")
    assert fakes.trace.of("cluster.save", "cluster.abandon") == ["cluster.save unreported"]
    fakes.trace.fail.clear()
    watch(fakes.world, read_policy(fakes.world))
    [body] = fakes.forge.bodies
    assert "job 100 is waiting" in body
    assert fakes.forge.check(CHECK).status == "queued"
    assert len(fakes.forge.of_runs) == 1


@pytest.mark.parametrize("step", ["forge.create_check", "compiler.compile", "cluster.submit"])
def test_ctrl_c_gives_everything_back(step: str) -> None:
    fakes = Fakes()
    fakes.fail_with(step, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        handle(comment_event(), fakes.world)
    assert not fakes.cluster.claims
    assert not fakes.cluster.runs
    assert fakes.steps[-2:] == ["cluster.close", "compiler.close"]
    assert [check.conclusion for check in fakes.forge.of_runs] in ([], ["cancelled"])


# --------------------------------------------------------------------------- attached


def test_an_attached_run_ends_as_its_job_does() -> None:
    fakes = Fakes(profiles={"cluster": PROFILE + "attach: true\nrun_partition: interactive\n"})
    fakes.cluster.before_sweep = [lambda: None, lambda: fakes.cluster.scheduler.update({"100": "FAILED"})]
    ended = handle(comment_event(), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.RUN_FAILED, ("run", "failed"))
    assert fakes.forge.check(CHECK).conclusion == "failure"
    assert fakes.forge.check("dispatch/gate").conclusion == "failure"
    assert not fakes.cluster.active
    assert fakes.compiler.jobs[0]["executor"]["partition"] == "interactive"  # type: ignore[index]


@pytest.mark.parametrize(("wait", "sweeps"), [(True, 1), (False, 0), (None, 0)])
def test_the_input_decides_over_the_profile_whether_to_wait(wait: bool | None, sweeps: int) -> None:
    fakes = Fakes(wait=wait)
    fakes.cluster.before_sweep = [lambda: fakes.cluster.scheduler.update({"100": "COMPLETED"})]
    handle(comment_event(), fakes.world)
    assert len(fakes.trace.of("cluster.sweep")) == sweeps


# --------------------------------------------------------------------------- cancel, status, help


def with_runs(fakes: Fakes) -> None:
    """Two runs of pull request 7 that go on, and one that has ended."""
    from dispatcher.keys import pull_tag

    tags = (pull_tag(REPOSITORY, 7),)
    fakes.cluster.add(run_record(run_key="1111" + "0" * 12, job_id="1"), "pending", "PENDING", tags)
    fakes.cluster.add(run_record(run_key="2222" + "0" * 12, job_id="2", recipe="eval"), "running", "RUNNING", tags)
    fakes.cluster.add(run_record(run_key="3333" + "0" * 12, job_id="3", state=State.FAILED), None, "FAILED", tags)


@pytest.mark.parametrize(
    ("body", "exit_code", "reason", "cancelled", "title"),
    [
        ("/train cancel 1111", Exit.OK, "cancelled", ["cluster.cancel 1111"], "🛑 Run `11110000` (cluster / default) is being ended"),
        ("/train cancel", Exit.MALFORMED, "no-such-run", [], "🤔 Not done: 2 runs are active"),
        ("/train cancel 3333", Exit.MALFORMED, "no-such-run", [], "🤔 Not done: run `33330000` has ended: it failed"),
        ("/train cancel abcd", Exit.MALFORMED, "no-such-run", [], "🤔 Not done: no run of this pull request begins with `abcd`"),
        (
            "/train cancel profile=x",
            Exit.MALFORMED,
            "no-such-run",
            [],
            "🤔 Not done: no run of this pull request with profile `x` is active",
        ),
    ],
)
def test_cancel(body: str, exit_code: Exit, reason: str, cancelled: list[str], title: str) -> None:
    fakes = Fakes()
    with_runs(fakes)
    ended = handle(comment_event(body), fakes.world)
    assert (ended.exit, ended.outputs["reason-code"]) == (exit_code, reason)
    assert fakes.trace.of("cluster.cancel") == cancelled
    [body] = fakes.forge.bodies
    assert body.splitlines()[0].startswith(f"### {title}")


def test_cancel_that_the_scheduler_refuses() -> None:
    fakes = Fakes()
    with_runs(fakes)
    fakes.cluster.cancel_says = CommandOutput(1, "", "scancel: error: Access/permission denied")
    ended = handle(comment_event("/train cancel 2222"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.CLUSTER, ("refused", "cancel-refused"))
    assert "permission denied" in fakes.forge.bodies[0]


def test_cancel_needs_leave() -> None:
    fakes = Fakes()
    with_runs(fakes)
    fakes.forge.roles["alice"] = "read"
    ended = handle(comment_event("/train cancel 1111"), fakes.world)
    assert (ended.exit, fakes.trace.of("cluster.cancel")) == (Exit.DENIED, [])


def test_status_lists_every_run() -> None:
    fakes = Fakes()
    with_runs(fakes)
    ended = handle(comment_event("/train status"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.OK, ("answered", "status"))
    for key in ("11110000", "22220000", "33330000"):
        assert f"`{key}`" in fakes.forge.bodies[0]


def test_status_without_runs() -> None:
    assert "No runs yet" in handle(comment_event("/train status"), Fakes().world).summary


def test_a_cluster_that_does_not_answer_does_not_hide_the_others() -> None:
    policy = POLICY.replace("profiles: [cluster]", "profiles: [away, cluster]")
    fakes = Fakes(policy, {"cluster": PROFILE, "away": PROFILE.replace("login.", "away.")})
    with_runs(fakes)
    away = fakes.clusters["away.example.com"] = FakeCluster(fakes.trace)
    away.find = lambda tag: (_ for _ in ()).throw(_unreachable())  # type: ignore[method-assign]
    ended = handle(comment_event("/train status"), fakes.world)
    assert ended.exit is Exit.OK
    assert "`11110000`" in ended.summary
    assert any("away" in line for line in fakes.said)


def _unreachable() -> Exception:
    from dispatcher.errors import SshError

    return SshError("ssh.unreachable", "away.example.com does not answer.")


def test_help_names_profiles_and_recipes() -> None:
    fakes = Fakes()
    ended = handle(comment_event("/train help"), fakes.world)
    assert told(ended) == ("answered", "help")
    for words in ("`cluster` (default)", "`default` (default)", "`eval`"):
        assert words in fakes.forge.bodies[0]
    assert fakes.forge.reactions[-1] == (99, "+1")


# --------------------------------------------------------------------------- two at once


@pytest.mark.parametrize(
    "step",
    [
        "forge.react",
        "forge.role",
        "forge.pull",
        "archive.describe",
        "cluster.claim",
        "forge.create_check",
        "compiler.compile",
        "cluster.submit",
    ],
)
@pytest.mark.parametrize("body", ["/train a=1", "/train a=1,2"])
def test_the_same_delivery_twice_in_parallel_is_one_job(body: str, step: str) -> None:
    """At each step of the first the whole of the second happens."""
    fakes = Fakes()
    second: list[Outcome] = []

    def meanwhile() -> None:
        claims = dict(fakes.cluster.claims)
        fakes.cluster.busy = bool(claims)
        second.append(handle(comment_event(body), fakes.world))
        # Another process's connection gives back no claim but its own when it ends.
        fakes.cluster.claims.update(claims)
        fakes.cluster.busy = False

    fakes.trace.at[step] = meanwhile
    first = handle(comment_event(body), fakes.world)
    runs = body.count(",") + 1
    assert first.outputs["decision"] == "run"
    assert second[0].outputs["decision"] in ("run", "duplicate")
    assert (len(fakes.cluster.runs), fakes.steps.count("cluster.submit")) == (runs, runs)
    assert (len(fakes.forge.comments), len(fakes.forge.of_runs)) == (1, runs)
    assert not fakes.cluster.claims


@pytest.mark.parametrize("step", ["archive.describe", "connect", "cluster.claim", "forge.create_check", "compiler.compile"])
def test_a_push_at_any_moment_before_the_submission_stops_it(step: str) -> None:
    fakes = Fakes()
    fakes.trace.at[step] = lambda: fakes.forge.pulls.update({7: replace(fakes.forge.pulls[7], head_sha=OTHER)})
    assert told(handle(comment_event(), fakes.world)) == ("denied", "head-moved")
    assert not fakes.cluster.runs
    assert not fakes.cluster.claims
    assert [check.conclusion for check in fakes.forge.of_runs] == ["cancelled"]
