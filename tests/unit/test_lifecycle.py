"""What happens to a pull request and what that does to its runs, its labels, its gate; and the buttons beside checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from dispatcher.configuration import read_policy
from dispatcher.errors import Exit
from dispatcher.event import CheckEvent, ClosedEvent, DraftEvent, Event, LabelEvent, MergeGroupEvent, PushEvent
from dispatcher.flow import handle
from dispatcher.keys import commit_tag, pull_tag
from dispatcher.ports import CommandOutput, FileEntry
from dispatcher.record import RunRecord, Target, parse_record
from dispatcher.slurm import State
from dispatcher.watching import watch
from dispatcher.world import Outcome
from tests.fakes import BASE, FILES, HEAD, OTHER, POLICY, PROFILE, REPOSITORY, Fakes, comment_event, run_record

PUSH = PushEvent(REPOSITORY, 7, HEAD, OTHER, "main", "synchronize", "main", REPOSITORY, False, False, "alice", ("train:cluster", "bug"))
CLOSED = ClosedEvent(REPOSITORY, 7, False, HEAD, "main", "alice", "main")
DRAFT = DraftEvent(REPOSITORY, 7, HEAD, "main", "alice", "main")
LABEL = LabelEvent(REPOSITORY, 7, "train:cluster", HEAD, REPOSITORY, "main", "alice", "t1", False, "main", "pull_request_target")
QUEUED, NEW = "d" * 40, "e" * 40
MERGE = MergeGroupEvent(REPOSITORY, QUEUED, f"refs/heads/gh-readonly-queue/main/pr-7-{BASE}", "refs/heads/main", BASE, "main")
KEY = "1111" + "0" * 12


def world(**pulls: str) -> Fakes:
    """A world with `pulls:` as given; labels are on the pull request."""
    table = ", ".join(f"{name}: {value}" for name, value in pulls.items())
    fakes = Fakes(POLICY + f"pulls: {{ {table} }}\n")
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], labels=("train:cluster", "bug"))
    return fakes


def told(ended: Outcome) -> tuple[str, str]:
    return ended.outputs["decision"], ended.outputs["reason-code"]


def with_runs(fakes: Fakes, *runs: tuple[str, str, State]) -> None:
    """Runs of the pull request: the beginning of the key, the commit, the state."""
    for number, (key, sha, state) in enumerate(runs, 1 + len(fakes.cluster.runs)):
        record = run_record(run_key=key + "0" * 12, job_id=str(number), sha=sha, state=state, trigger=f"comment:{number}")
        word = {State.PENDING: "PENDING", State.RUNNING: "RUNNING"}.get(state, "FAILED")
        reported = None if state.ended else state.value
        fakes.cluster.add(record, reported, word, (pull_tag(REPOSITORY, 7), commit_tag(sha)))


def records(fakes: Fakes) -> Iterable[RunRecord]:
    return (parse_record(run.record) for run in fakes.cluster.runs.values())


# --------------------------------------------------------------------------- superseded, closed, draft


def happens(fakes: Fakes, event: ClosedEvent | DraftEvent) -> Outcome:
    """The pull request is closed, or becomes a draft, and the event says so."""
    now = {"state": "closed"} if isinstance(event, ClosedEvent) else {"draft": True}
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], **now)
    return handle(event, fakes.world)


@pytest.mark.parametrize(("superseded", "cancelled"), [("leave", []), ("cancel", ["cluster.cancel 1111", "cluster.cancel 2222"])])
def test_runs_of_an_older_head(superseded: str, cancelled: list[str]) -> None:
    fakes = world(superseded=superseded)
    with_runs(fakes, ("1111", OTHER, State.PENDING), ("2222", BASE, State.RUNNING))
    with_runs(fakes, ("3333", HEAD, State.RUNNING), ("4444", OTHER, State.FAILED))
    ended = handle(PUSH, fakes.world)
    assert fakes.trace.of("cluster.cancel") == cancelled
    assert (ended.exit, told(ended)) == (Exit.OK, ("gate", "pending"))
    assert ("a newer commit was pushed" in ended.summary) == bool(cancelled)
    # The gate is pending before anybody looks for runs to end.
    assert fakes.steps.index("forge.create_check dispatch/gate in_progress") < fakes.steps.index((cancelled or ["compiler.close"])[0])


def test_whose_job_others_have_joined_only_leaves_it() -> None:
    fakes = world(superseded="cancel")
    with_runs(fakes, ("1111", OTHER, State.RUNNING))
    joined = parse_record(fakes.cluster.runs["1111" + "0" * 12].record).model_copy(
        update={"run_key": "2222" + "0" * 12, "same_as": "1111" + "0" * 12, "target": Target(repository=REPOSITORY, pull=8)}
    )
    fakes.cluster.add(joined, "running", "RUNNING")
    handle(PUSH, fakes.world)
    first, second = records(fakes)
    assert fakes.trace.of("cluster.cancel") == []
    assert (first.state, first.reason, second.state) == (State.CANCELLED, "a newer commit was pushed", State.RUNNING)
    assert list(fakes.cluster.active) == [second.run_key]
    assert any("### 🛑 train · cluster · was cancelled, because a newer commit was pushed" in body for body in fakes.forge.bodies)


def test_the_event_of_an_older_push_that_comes_late_ends_no_run_of_the_head() -> None:
    fakes = world(superseded="cancel")
    with_runs(fakes, ("1111", HEAD, State.RUNNING), ("2222", OTHER, State.RUNNING))
    handle(replace(PUSH, head_sha=OTHER), fakes.world)
    assert not fakes.trace.of("cluster.cancel")


@pytest.mark.parametrize("action", ["opened", "reopened", "ready_for_review", "edited"])
def test_only_a_push_supersedes(action: str) -> None:
    fakes = world(superseded="cancel")
    with_runs(fakes, ("1111", OTHER, State.PENDING))
    handle(replace(PUSH, action=action), fakes.world)
    assert not fakes.trace.of("cluster.cancel")


@pytest.mark.parametrize(
    ("event", "pulls", "reason"),
    [
        (CLOSED, {"closed": "cancel"}, "the pull request was closed"),
        (replace(CLOSED, merged=True), {"closed": "cancel"}, "the pull request was closed"),
        (DRAFT, {"draft": "cancel"}, "the pull request became a draft"),
    ],
)
def test_the_end_of_a_pull_request_is_the_end_of_its_runs(event: ClosedEvent | DraftEvent, pulls: dict[str, str], reason: str) -> None:
    fakes = world(**pulls)
    with_runs(fakes, ("1111", HEAD, State.PENDING), ("2222", OTHER, State.RUNNING), ("3333", HEAD, State.FAILED))
    # An event that comes late, when it is not so (any more), ends nothing.
    assert told(handle(event, fakes.world))[0] == "ignored"
    assert not fakes.trace.of("cluster")
    ended = happens(fakes, event)
    assert fakes.trace.of("cluster.cancel") == ["cluster.cancel 1111", "cluster.cancel 2222"]
    assert (ended.exit, told(ended)) == (Exit.OK, ("answered", "cancelled"))
    assert reason in ended.summary
    assert told(happens(world(**pulls), event)) == ("answered", "nothing-active")


@pytest.mark.parametrize(("event", "reason"), [(CLOSED, "pull-closed"), (DRAFT, "draft")])
def test_where_the_policy_leaves_them_nothing_is_asked_of_anybody(event: Event, reason: str) -> None:
    fakes = world(superseded="cancel")
    with_runs(fakes, ("1111", HEAD, State.PENDING))
    assert told(handle(event, fakes.world)) == ("ignored", reason)
    assert not fakes.trace.of("connect", "forge", "cluster", "compiler.start")


def test_a_run_that_cannot_be_ended_does_not_hold_up_the_next() -> None:
    fakes = world(closed="cancel")
    with_runs(fakes, ("1111", HEAD, State.PENDING), ("2222", HEAD, State.RUNNING))
    fakes.fail("cluster.cancel 1111", "cluster.failed")
    ended = happens(fakes, CLOSED)
    assert fakes.trace.of("cluster.cancel") == ["cluster.cancel 1111", "cluster.cancel 2222"]
    assert "could not be ended" in ended.summary


# --------------------------------------------------------------------------- labels


@pytest.mark.parametrize(("labels", "left"), [("once", ("bug",)), ("standing", ("train:cluster", "bug"))])
def test_a_label_that_asked_for_one_run_is_taken_off(labels: str, left: tuple[str, ...]) -> None:
    fakes = world(labels=labels)
    assert told(handle(LABEL, fakes.world)) == ("run", "submitted")
    assert fakes.forge.pulls[7].labels == left


@pytest.mark.parametrize("labels", ["once", "standing"])
@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (replace(LABEL, sender="rob"), "role-too-low"),
        (replace(LABEL, head_sha=OTHER), "head-moved"),
        (replace(LABEL, label="train:cluster/gone"), "unknown-recipe"),
        (replace(LABEL, label="train:gone"), "unknown-profile"),
        (replace(LABEL, label="train:a b"), "bad-value"),
    ],
)
def test_a_label_that_is_refused_is_taken_off_with_an_answer(labels: str, event: LabelEvent, reason: str) -> None:
    fakes = world(labels=labels)
    fakes.forge.roles["rob"] = "read"
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], labels=(event.label, "bug"))
    assert told(handle(event, fakes.world))[1] == reason
    assert fakes.forge.pulls[7].labels == ("bug",)
    [body] = fakes.forge.bodies
    assert f"reason `{reason}`" in body
    assert not fakes.cluster.runs


def test_a_label_of_somebody_else_is_left_alone() -> None:
    fakes = world(labels="once")
    handle(replace(LABEL, label="bug"), fakes.world)
    assert fakes.steps == ["compiler.close"]


@pytest.mark.parametrize("code", ["ssh.unreachable", "github.unavailable"])
def test_what_broke_is_answered_and_the_label_taken_off_all_the_same(code: str) -> None:
    fakes = world(labels="once")
    fakes.fail("cluster.claim", code)
    assert told(handle(LABEL, fakes.world)) == ("refused", code)
    assert fakes.forge.pulls[7].labels == ("bug",)


def test_a_label_that_cannot_be_taken_off_undoes_nothing() -> None:
    fakes = world(labels="once")
    fakes.fail("forge.remove_label", "github.forbidden")
    assert told(handle(LABEL, fakes.world)) == ("run", "submitted")
    assert any("could not be taken off" in line for line in fakes.said)


def test_delivered_twice_in_parallel_the_label_is_left_to_the_first() -> None:
    fakes = world(labels="once")
    fakes.cluster.busy = True
    assert told(handle(LABEL, fakes.world)) == ("duplicate", "in-progress")
    assert not fakes.trace.of("forge.remove_label")


@pytest.mark.parametrize("action", ["synchronize", "ready_for_review", "reopened"])
def test_a_standing_label_asks_again_for_each_new_head(action: str) -> None:
    fakes = world(labels="standing")
    event = replace(PUSH, action=action)
    ended = handle(event, fakes.world)
    [record] = records(fakes)
    assert (record.actor, record.sha, record.profile) == ("alice", HEAD, "cluster")
    assert (ended.exit, told(ended)) == (Exit.OK, ("gate", "pending"))
    assert len(fakes.forge.bodies) == 1
    handle(event, fakes.world)
    assert len(fakes.cluster.runs) == 1
    assert fakes.forge.pulls[7].labels == ("train:cluster", "bug")


@pytest.mark.parametrize(
    ("event", "labels"),
    [
        (PUSH, "once"),
        (replace(PUSH, action="opened"), "standing"),
        (replace(PUSH, action="edited"), "standing"),
        (replace(PUSH, draft=True), "standing"),
        (replace(PUSH, labels=("bug", "training")), "standing"),
    ],
)
def test_a_label_that_does_not_stand_asks_for_nothing(event: PushEvent, labels: str) -> None:
    fakes = world(labels=labels)
    handle(event, fakes.world)
    assert not fakes.cluster.runs


def test_a_standing_label_has_the_rights_of_who_pushed() -> None:
    fakes = world(labels="standing")
    ended = handle(replace(PUSH, sender="mallory"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.DENIED, ("denied", "not-a-collaborator"))
    assert not fakes.cluster.runs
    assert fakes.forge.check("dispatch/gate").conclusion is None


def test_two_standing_labels_and_one_of_them_broken() -> None:
    fakes = world(labels="standing")
    ended = handle(replace(PUSH, labels=("train:gone", "train:cluster/eval")), fakes.world)
    assert told(ended) == ("refused", "unknown-profile")
    [record] = records(fakes)
    assert record.recipe == "eval"


def test_a_push_starts_what_stands_after_it_has_ended_what_is_older() -> None:
    fakes = world(labels="standing", superseded="cancel")
    with_runs(fakes, ("1111", OTHER, State.RUNNING))
    handle(PUSH, fakes.world)
    order = [step.split()[0] for step in fakes.trace.of("cluster.cancel", "cluster.submit")]
    assert order == ["cluster.cancel", "cluster.submit"]


@pytest.mark.parametrize(
    ("files", "policy", "state", "ended"),
    [
        (FILES, "", State.RUNNING, False),
        (FILES, "", State.PENDING, False),
        (FILES, "", State.QUEUED, True),
        (FILES, "reuse: { runs: false }\n", State.RUNNING, True),
        ((*FILES[:1], replace(FILES[1], blob="9" * 40)), "", State.RUNNING, True),
        (None, "", State.RUNNING, True),
    ],
)
def test_a_push_that_changes_nothing_packed_ends_no_job_and_its_label_joins_it(
    files: tuple[FileEntry, ...] | None, policy: str, state: State, ended: bool
) -> None:
    """Else the same training began anew."""
    policy = policy or "reuse: { max_age: 10d }\n"
    fakes = Fakes(POLICY + policy + "pulls: { labels: standing, superseded: cancel }\n")
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], labels=("train:cluster",))
    handle(comment_event("/train"), fakes.world)
    [first] = records(fakes)
    fakes.cluster.runs[first.run_key].record = first.model_copy(update={"state": state}).to_json()
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], head_sha=NEW)
    fakes.archive.commits.update({NEW: files} if files is not None else {})
    fakes.trace.steps.clear()
    handle(replace(PUSH, head_sha=NEW, before=HEAD), fakes.world)
    assert bool(fakes.trace.of("cluster.cancel", "cluster.drop")) is ended
    joined = [record for record in records(fakes) if record.same_as == first.run_key]
    assert [record.sha for record in joined] == ([] if ended else [NEW])
    assert not (joined and fakes.trace.of("cluster.submit"))


# --------------------------------------------------------------------------- the merge queue


def in_queue(policy: str = POLICY) -> Fakes:
    fakes = Fakes(policy)
    fakes.archive.commits[QUEUED] = FILES
    return fakes


def test_the_queues_commit_gets_the_required_runs_and_the_gate_waits() -> None:
    fakes = in_queue()
    ended = handle(MERGE, fakes.world)
    assert (ended.exit, told(ended)) == (Exit.OK, ("gate", "pending"))
    [record] = records(fakes)
    assert (record.sha, record.recipe, record.actor, record.target.pull) == (QUEUED, "default", "merge queue", None)
    gate = fakes.forge.check("dispatch/gate")
    assert (gate.sha, gate.status) == (QUEUED, "in_progress")
    assert not fakes.forge.bodies
    assert not fakes.trace.of("forge.role")
    handle(MERGE, fakes.world)
    assert len(fakes.cluster.runs) == 1


def test_a_queue_that_never_runs_anything_starts_nothing() -> None:
    fakes = in_queue(POLICY + "reuse: { merge_queue: never }\n")
    event = replace(MERGE, head_ref=f"refs/heads/gh-readonly-queue/main/pr-7-{QUEUED}")
    ended = handle(event, fakes.world)
    assert (ended.exit, told(ended)) == (Exit.OK, ("gate", "failed"))
    assert not fakes.cluster.runs


@pytest.mark.parametrize("policy", [POLICY, POLICY.replace("required: [", "required: [{ recipe: eval, labels: slow }, ")])
def test_another_label_is_looked_at_where_a_required_run_asks_for_labels(policy: str) -> None:
    fakes = Fakes(policy)
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], labels=("slow",))
    label = LabelEvent(
        REPOSITORY, 7, "slow", HEAD, REPOSITORY, "main", "carol", "2026-11-30T12:00:00Z", False, "main", "pull_request_target"
    )
    ended = handle(label, fakes.world)
    if policy == POLICY:
        assert told(ended) == ("ignored", "other-label")
        assert not fakes.forge.checks
    else:
        assert (ended.exit, told(ended)) == (Exit.OK, ("gate", "pending"))
        assert "label slow" in fakes.forge.check("dispatch/gate").summary
        gone = replace(PUSH, action="unlabeled")
        fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], labels=())
        handle(gone, fakes.world)
        assert "label slow" not in fakes.forge.check("dispatch/gate").summary
    assert not fakes.trace.of("forge.remove_label")


def test_when_its_runs_have_ended_the_gate_is_judged_again() -> None:
    fakes = in_queue()
    handle(MERGE, fakes.world)
    fakes.cluster.scheduler["100"] = "COMPLETED"
    watch(fakes.world, read_policy(fakes.world))
    assert fakes.forge.check("dispatch/gate").conclusion == "success"


def test_a_queue_that_needs_nothing_starts_nothing() -> None:
    fakes = in_queue("\n".join(line for line in POLICY.splitlines() if "required" not in line).replace("gate:", "gate: {}"))
    ended = handle(MERGE, fakes.world)
    assert told(ended) == ("gate", "passed")
    assert not fakes.cluster.runs


def test_while_it_runs_the_queues_gate_says_what_it_waits_for() -> None:
    fakes = in_queue()
    ended = handle(MERGE, fakes.world)
    [record] = records(fakes)
    gate = fakes.forge.check("dispatch/gate")
    assert (gate.title, gate.status) == ("waits for 1 run", "in_progress")
    assert record.log_url
    assert record.log_url in gate.summary
    assert "/train" not in gate.summary, "nobody can give a command for the queue's commit"
    assert ended.summary.startswith("### ⏳ dispatch/gate · waits for 1 run")


def test_what_the_queue_takes_over_is_told_as_it_stands_and_names_the_run() -> None:
    fakes = in_queue(POLICY + "reuse: { max_age: 10d }\n")
    handle(comment_event("/train"), fakes.world)
    [first] = records(fakes)
    over = first.model_copy(update={"state": State.SUCCEEDED, "ended_at": fakes.clock.now(), "results": {"loss": 1.9}})
    fakes.cluster.runs[first.run_key].record = over.to_json()
    ended = handle(MERGE, fakes.world)
    assert told(ended) == ("gate", "passed")
    assert ended.outputs["state"] == "success"
    assert "⏳" not in ended.summary
    [gate] = [check for check in fakes.forge.checks.values() if (check.name, check.sha) == ("dispatch/gate", QUEUED)]
    assert gate.conclusion == "success"
    assert f"not run again: the same content as run {first.run_key[:8]} of {HEAD[:7]}" in gate.summary


REFUSED = [
    (lambda fakes: fakes.archive.commits.pop(QUEUED), "git.commit-missing", Exit.GIT, "the commit cannot be packed"),
    (
        lambda fakes: fakes.archive.commits.update({QUEUED: FILES[:1]}),
        "script-missing",
        Exit.CONFIG,
        "there is no `train.py` in the commit",
    ),
    (lambda fakes: fakes.files.update({"profiles/cluster.yaml": PROFILE + "dry_run: true\n"}), "dry-run", Exit.OK, "has `dry_run`"),
    (lambda fakes: fakes.fail("cluster.claim", "ssh.unreachable"), "ssh.unreachable", Exit.SSH, "the cluster cannot be reached"),
]


@pytest.mark.parametrize(("breaks", "reason", "code", "words"), REFUSED)
def test_what_cannot_be_started_for_the_queue_fails_its_gate_at_once_and_says_why(
    breaks: Callable[[Fakes], object], reason: str, code: Exit, words: str
) -> None:
    """Nobody starts it later: pending, it would hold the queue up until its time is up, and not even say why."""
    fakes = in_queue()
    breaks(fakes)
    ended = handle(MERGE, fakes.world)
    assert ended.exit is code
    gate = fakes.forge.check("dispatch/gate")
    assert (gate.conclusion, gate.title) == ("failure", "1 required run could not be started")
    assert f"| could not be started | reason `{reason}` |" in gate.summary
    assert words in gate.summary
    assert ended.summary.count(words) == 1


def test_the_queue_waits_for_what_may_have_been_submitted() -> None:
    fakes = in_queue()
    fakes.fail("cluster.submit", "ssh.cut")
    handle(MERGE, fakes.world)
    assert fakes.forge.check("dispatch/gate").status == "in_progress"


def test_a_policy_that_cannot_be_read_does_not_leave_the_queue_without_a_check() -> None:
    fakes = in_queue("gate: { requird: [] }\n")
    ended = handle(MERGE, fakes.world)
    assert told(ended) == ("refused", "config.invalid")
    gate = fakes.forge.check("dispatch/gate")
    assert (gate.sha, gate.conclusion, gate.title) == (QUEUED, "failure", "could not be judged: config.invalid")
    assert "requird" in gate.summary


# --------------------------------------------------------------------------- buttons


def pressed(fakes: Fakes, button: str, external_id: str = KEY, **fields: object) -> CheckEvent:
    event = CheckEvent(REPOSITORY, 5, "dispatch / cluster / default", external_id, HEAD, 7, button, "our-app", "alice", "77", "main")
    return replace(event, **fields)  # type: ignore[arg-type]


def with_app() -> Fakes:
    fakes = Fakes(app_slug="our-app")
    with_runs(fakes, ("1111", HEAD, State.FAILED), ("2222", HEAD, State.RUNNING))
    return fakes


def test_cancel_is_pressed() -> None:
    fakes = with_app()
    ended = handle(pressed(fakes, "cancel", "2222" + "0" * 12), fakes.world)
    assert told(ended) == ("answered", "cancelled")
    assert fakes.trace.of("cluster.cancel") == ["cluster.cancel 2222"]


@pytest.mark.parametrize("button", ["", "retry"])
def test_retry_and_re_run_are_pressed(button: str) -> None:
    fakes = with_app()
    ended = handle(pressed(fakes, button), fakes.world)
    assert told(ended) == ("run", "submitted")
    again = [record for record in records(fakes) if record.retry_of == KEY]
    assert [(record.actor, record.attempt) for record in again] == [("alice", 2)]
    # Pressed again it asks again; delivered again it does not.
    handle(pressed(fakes, button), fakes.world)
    assert len(fakes.cluster.runs) == 3


def test_the_gates_re_run_judges_it_again() -> None:
    fakes = with_app()
    ended = handle(pressed(fakes, "", f"gate-{HEAD}", name="dispatch/gate"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.OK, ("gate", "failed"))
    assert not fakes.trace.of("cluster.submit", "forge.role")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"app_slug": "other-app"}, "other-check"),
        ({"app_slug": "github-actions"}, "other-check"),
        ({"app_slug": ""}, "other-check"),
        ({"external_id": "something"}, "other-check"),
        ({"button": "explode"}, "other-check"),
        ({"sender": "our-app[bot]"}, "bot"),
    ],
)
def test_what_is_not_our_button(fields: dict[str, str], reason: str) -> None:
    fakes = with_app()
    ended = handle(replace(pressed(fakes, "retry"), **fields), fakes.world)  # type: ignore[arg-type]
    assert told(ended) == ("ignored", reason)
    assert not fakes.steps


@pytest.mark.parametrize("button", ["cancel", "retry"])
def test_a_button_asks_for_the_same_rights_as_a_comment(button: str) -> None:
    fakes = with_app()
    fakes.forge.roles["alice"] = "read"
    ended = handle(pressed(fakes, button, ("2222" if button == "cancel" else "1111") + "0" * 12), fakes.world)
    assert told(ended) == ("denied", "role-too-low")
    assert not fakes.trace.of("cluster.cancel", "cluster.submit")


def test_a_button_beside_an_old_head_starts_nothing() -> None:
    fakes = with_app()
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], head_sha=OTHER)
    assert told(handle(pressed(fakes, "retry"), fakes.world)) == ("denied", "head-moved")


def test_a_check_of_no_pull_request() -> None:
    fakes = with_app()
    assert told(handle(pressed(fakes, "retry", number=None), fakes.world)) == ("denied", "pull-gone")
    assert told(handle(pressed(fakes, "", f"gate-{HEAD}", number=None), fakes.world)) == ("ignored", "other-event")


# --------------------------------------------------------------------------- two things at once


def test_cancel_while_it_is_being_submitted_ends_nothing_that_does_not_exist_and_says_so() -> None:
    fakes = Fakes()
    answers: list[tuple[str, str]] = []

    def cancel() -> None:
        claims = dict(fakes.cluster.claims)
        answers.append(told(handle(comment_event("/train cancel", comment_id=100), fakes.world)))
        fakes.cluster.claims.update(claims)

    fakes.trace.at["cluster.submit"] = cancel
    assert told(handle(comment_event(), fakes.world)) == ("run", "submitted")
    assert answers == [("refused", "no-such-run")]
    assert told(handle(comment_event("/train cancel", comment_id=101), fakes.world)) == ("answered", "cancelled")


def test_closed_between_the_comment_and_the_submission() -> None:
    fakes = Fakes()
    fakes.trace.at["compiler.compile"] = lambda: fakes.forge.pulls.update({7: replace(fakes.forge.pulls[7], state="closed")})
    assert told(handle(comment_event(), fakes.world)) == ("denied", "pull-closed")
    assert not fakes.trace.of("cluster.submit")


def test_a_scheduler_that_refuses_to_end_a_job_is_quoted() -> None:
    fakes = world(draft="cancel")
    with_runs(fakes, ("1111", HEAD, State.PENDING))
    fakes.cluster.cancel_says = CommandOutput(1, "", "scancel: error: Access denied @org/x")
    ended = happens(fakes, DRAFT)
    assert "Access denied" in ended.summary
    assert "@org/x" not in ended.summary


@pytest.mark.parametrize("event", [PUSH, CLOSED, DRAFT])
def test_what_nobody_asked_for_is_not_answered_with_a_comment(event: Event) -> None:
    fakes = world(closed="cancel", draft="cancel", superseded="cancel")
    del fakes.files[".github/dispatch.yml"]
    ended = handle(event, fakes.world)
    assert (ended.exit, told(ended)) == (Exit.CONFIG, ("refused", "config.missing"))
    assert not fakes.forge.bodies
