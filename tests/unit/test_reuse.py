"""What has run is not run twice; and everything that makes it another run does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dispatcher.causes import CAUSES
from dispatcher.configuration import read_policy
from dispatcher.errors import Exit
from dispatcher.failure import Failure
from dispatcher.flow import handle
from dispatcher.keys import content_tag, pull_tag
from dispatcher.policy import load_policy
from dispatcher.record import EarlierJob, RunRecord, Target, parse_record
from dispatcher.slurm import State
from dispatcher.thresholds import MetricVerdict
from dispatcher.watching import watch
from tests.fakes import HEAD, NOON, OTHER, POLICY, PROFILE, Fakes, comment_event, entry

REUSING = POLICY + "reuse: { max_age: 10d }\n"


def ended(fakes: Fakes, body: str = "/train", comment: int = 50, **fields: Any) -> RunRecord:
    """A run that somebody asked for on another commit with the same files, as it stands in the ledger."""
    handle(comment_event(body, comment_id=comment), fakes.world)
    key = list(fakes.cluster.runs)[-1]
    run = fakes.cluster.runs[key]
    record = parse_record(run.record).model_copy(update={"job_id": run.job_id, **fields})
    run.record = record.to_json()
    if record.state.ended:
        fakes.cluster.active.pop(key, None)
    fakes.trace.steps.clear()
    return record


DONE: dict[str, Any] = {"state": State.SUCCEEDED, "ended_at": NOON, "started_at": NOON - timedelta(minutes=12), "results": {"loss": 1.9}}


def asked(fakes: Fakes, body: str = "/train", comment: int = 60) -> RunRecord | None:
    """The new run's record, None when it was run by itself."""
    before = set(fakes.cluster.runs)
    handle(comment_event(body, comment_id=comment), fakes.world)
    [key] = set(fakes.cluster.runs) - before
    record = parse_record(fakes.cluster.runs[key].record)
    assert bool(record.same_as) is bool(fakes.trace.of("cluster.adopt"))
    assert bool(record.same_as) is not bool(fakes.trace.of("cluster.submit"))
    return record if record.same_as else None


def test_the_end_of_the_same_content_is_taken_over() -> None:
    fakes = Fakes(REUSING)
    first = ended(fakes, **DONE, sha=OTHER)
    record = asked(fakes)
    assert record is not None
    assert (record.same_as, record.same_sha, record.sha, record.state) == (first.run_key, OTHER, HEAD, State.SUCCEEDED)
    assert (record.results, record.elapsed_seconds, record.job_id) == ({"loss": 1.9}, 720, first.job_id)
    body = fakes.forge.bodies[-1]
    assert body.startswith("### ✅ train · cluster · passed in 12m")
    assert first.target.comment
    link = f"[`{first.run_key[:8]}`](https://github.com/org/repo/pull/7#issuecomment-{first.target.comment})"
    assert f"♻️ the same files, profile, recipe and overrides as run {link} of [`{OTHER[:7]}`]" in body
    assert "`fresh=true`" in body
    [check] = [check for check in fakes.forge.checks.values() if check.external_id == record.run_key]
    assert (check.sha, check.conclusion) == (HEAD, "success")
    assert fakes.cluster.journal == {} or not any(record.run_key in line for lines in fakes.cluster.journal.values() for line in lines)
    assert record.run_key not in fakes.cluster.active


def test_a_run_that_has_no_comment_is_linked_by_its_check_and_its_earlier_jobs_come_along() -> None:
    fakes = Fakes(REUSING)
    before = EarlierJob(job_id="90", seconds=600)
    target = Target(repository="org/repo", check=4711)
    first = ended(fakes, **DONE, target=target, earlier_jobs=(before,))
    record = asked(fakes)
    assert record is not None
    assert (record.same_report, record.earlier_jobs, record.elapsed_seconds) == ("runs/4711", (before,), 1320)
    assert f"as run [`{first.run_key[:8]}`](https://github.com/org/repo/runs/4711) of" in fakes.forge.bodies[-1]


@pytest.mark.parametrize("forgotten", [True, False])
def test_an_end_that_cannot_be_judged_yet_is_not_told_as_passed(forgotten: bool) -> None:
    """GitHub does not say what to compare with: nothing green is said anywhere, and the next sweep judges it."""
    rules = "default:\n    script: train.py\n    metrics: { loss: { no_worse_than: merge-base } }"
    fakes = Fakes(REUSING.replace("default: { script: train.py }", rules))
    first = ended(fakes, **DONE, sha=OTHER)
    fakes.cluster.scheduler[first.job_id] = "COMPLETED"
    if forgotten:
        del fakes.cluster.scheduler[first.job_id]
    before = len(fakes.forge.bodies)
    fakes.fail("forge.merge_base")
    done = handle(comment_event("/train", comment_id=60), fakes.world)
    assert done.exit is Exit.GITHUB
    assert "⏳ train · cluster · ended well; what it measured has not been judged yet" in done.summary
    assert "passed" not in done.summary
    assert any("end is taken over, but could not be reported" in line for line in fakes.said)
    assert len(fakes.forge.bodies) == before
    key = list(fakes.cluster.runs)[-1]
    assert parse_record(fakes.cluster.runs[key].record).verdict_owed
    fakes.trace.fail.clear()
    fakes.clock.time += timedelta(minutes=5)
    watch(fakes.world, read_policy(fakes.world))
    record = parse_record(fakes.cluster.runs[key].record)
    assert (record.verdict_owed, len(record.verdicts), key in fakes.cluster.active) == (False, 1, False)
    assert fakes.forge.bodies[-1].startswith("### ✅ train · cluster · passed in 12m")


@pytest.mark.parametrize(
    ("fields", "policy", "body"),
    [
        ({"state": State.FAILED}, REUSING, "/train"),
        ({"state": State.LOST}, REUSING, "/train"),
        ({"state": State.CANCELLED}, REUSING, "/train"),
        ({"state": State.UNKNOWN}, REUSING, "/train"),
        ({"results_problem": "it left no results file"}, REUSING, "/train"),
        ({"origin": "terminal"}, REUSING, "/train"),
        ({"own_runspec": True}, REUSING, "/train"),
        ({"uncommitted": True}, REUSING, "/train"),
        ({"same_as": "f" * 16}, REUSING, "/train"),
        ({"content_key": "0" * 64}, REUSING, "/train"),
        ({"ended_at": NOON - timedelta(days=11)}, REUSING, "/train"),
        ({"ended_at": None}, REUSING, "/train"),
        ({}, POLICY + "reuse: { runs: false }\n", "/train"),
        ({}, REUSING, "/train fresh=true"),
        ({}, REUSING, "/train steps=1"),
        ({}, REUSING, "/train recipe=eval"),
    ],
)
def test_what_is_run_by_itself(fields: dict[str, Any], policy: str, body: str) -> None:
    fakes = Fakes(policy)
    ended(fakes, **{**DONE, **fields})
    assert asked(fakes, body) is None


def why(cause: str) -> Failure:
    return Failure(kind=CAUSES[cause].kind, cause=cause, said_by="log")


LATER = NOON + timedelta(hours=1)
NEWER: list[tuple[dict[str, Any], str | None]] = [
    ({"state": State.FAILED}, None),
    ({"state": State.TIMEOUT}, None),
    ({"state": State.OUT_OF_MEMORY}, None),
    ({"state": State.LOST}, None),
    ({"state": State.SUCCEEDED, "results_problem": "it left no results file"}, None),
    ({"state": State.FAILED, "failure": why("exception")}, None),
    ({"state": State.FAILED, "failure": why("gpu-fault")}, "older"),
    ({"state": State.NODE_FAIL}, "older"),
    ({"state": State.PREEMPTED}, "older"),
    ({"state": State.CANCELLED}, "older"),
    ({"state": State.SUCCEEDED}, "newer"),
    ({"state": State.PENDING}, "newer"),
    ({"state": State.RUNNING}, "newer"),
    ({"state": State.QUEUED, "job_id": ""}, None),
    ({"state": State.RUNNING, "sha": OTHER}, "older"),
]


@pytest.mark.parametrize(("fields", "expected"), NEWER)
def test_a_good_end_that_a_newer_run_calls_in_doubt_is_not_taken_over(fields: dict[str, Any], expected: str | None) -> None:
    """Else a gate that a second look has turned red would be green again by asking once more, without anything having run."""
    fakes = Fakes(REUSING)
    older = ended(fakes, **DONE)
    over = {"ended_at": LATER, "started_at": NOON} if fields["state"].ended else {}
    newer = ended(fakes, "/train fresh=true", 51, **{"asked_at": LATER, **over, **fields})
    record = asked(fakes)
    found = {older.run_key: "older", newer.run_key: "newer"}
    assert (found[record.same_as] if record else None) == expected


def test_a_program_that_lies_on_the_cluster_is_run_each_time() -> None:
    """The key knows its path; what it is today, nobody has said."""
    lies = REUSING.replace("default: { script: train.py }", "default: { script: /shared/train.py, packager: none }")
    fakes = Fakes(lies)
    ended(fakes, **DONE)
    assert asked(fakes) is None


CHANGES: dict[str, Any] = {
    "a file": lambda fakes: fakes.archive.commits.update({HEAD: (entry("eval.py"), entry("train.py", "2"))}),
    "a file's name": lambda fakes: fakes.archive.commits.update({HEAD: (entry("evaluate.py"), entry("train.py"))}),
    "the profile": lambda fakes: fakes.files.update({"profiles/cluster.yaml": PROFILE + "nodes: 2\n"}),
    "the image": lambda fakes: fakes.files.update({"profiles/cluster.yaml": PROFILE + "container_image: a.sqsh\n"}),
    "a variable": lambda fakes: fakes.files.update({"profiles/cluster.yaml": PROFILE + "env_vars: { A: b }\n"}),
    "a line of the shell": lambda fakes: fakes.files.update({"profiles/cluster.yaml": PROFILE + "setup_lines: [ulimit -c 0]\n"}),
    "the recipe": lambda fakes: fakes.files.update(
        {".github/dispatch.yml": REUSING.replace("default: { script: train.py }", "default: { script: train.py, args: [--fast] }")}
    ),
    "where results lie": lambda fakes: fakes.files.update(
        {".github/dispatch.yml": REUSING.replace("default: { script: train.py }", "default: { script: train.py, results: out.json }")}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_ingredient_alone_makes_another_run(change: str) -> None:
    fakes = Fakes(REUSING)
    first = ended(fakes, **DONE)
    CHANGES[change](fakes)
    assert asked(fakes) is None
    newest = parse_record(list(fakes.cluster.runs.values())[-1].record)
    assert newest.content_key != first.content_key


SAME: dict[str, Any] = {
    "nothing": lambda fakes: None,
    "the login node's name": lambda fakes: fakes.files.update({"profiles/cluster.yaml": PROFILE.replace("host: login", "host: login2")}),
    "the link to the log": lambda fakes: fakes.files.update({"profiles/cluster.yaml": PROFILE.replace("https://logs", "https://blogs")}),
    "a rule for a metric": lambda fakes: fakes.files.update(
        {
            ".github/dispatch.yml": REUSING.replace(
                "default: { script: train.py }", "default: { script: train.py, metrics: { loss: { max: 2 } } }"
            )
        }
    ),
}


@pytest.mark.parametrize("change", SAME)
def test_what_does_not_reach_the_job_changes_nothing(change: str) -> None:
    fakes = Fakes(REUSING)
    ended(fakes, **DONE)
    SAME[change](fakes)
    assert asked(fakes) is not None


def test_rules_are_those_of_now() -> None:
    fakes = Fakes(REUSING)
    failing = (MetricVerdict(name="loss", outcome="fail", why="worse"),)
    ended(fakes, **DONE, verdicts=failing, results_problem="worse")
    record = asked(fakes)
    assert record is not None
    assert (record.verdicts, record.results_problem) == ((), "")
    strict = Fakes(REUSING.replace("default: { script: train.py }", "default: { script: train.py, metrics: { loss: { max: 1 } } }"))
    ended(strict, **DONE)
    judged = asked(strict)
    assert judged is not None
    assert judged.results_problem == "loss 1.9 is above 1"


def test_a_job_that_goes_on_is_attached_to() -> None:
    fakes = Fakes(REUSING)
    first = ended(fakes)
    record = asked(fakes)
    assert record is not None
    assert (record.same_as, record.job_id, record.state) == (first.run_key, first.job_id, State.PENDING)
    shared = f"| Shared job | ♻️ that of run [`{first.run_key[:8]}`]("
    assert shared in fakes.forge.bodies[-1]
    assert sorted(fakes.cluster.active) == sorted([first.run_key, record.run_key])
    fakes.cluster.scheduler[first.job_id] = "COMPLETED"
    watch(fakes.world, read_policy(fakes.world))
    states = [parse_record(run.record).state for run in fakes.cluster.runs.values()]
    assert states == [State.SUCCEEDED, State.SUCCEEDED]
    assert fakes.cluster.active == {}
    assert shared in fakes.forge.bodies[-1], "it did not come after that job had ended"


def test_who_gives_up_an_attached_run_does_not_end_the_others_job() -> None:
    fakes = Fakes(REUSING)
    first = ended(fakes)
    record = asked(fakes)
    assert record is not None
    handle(comment_event(f"/train cancel {record.run_key}", comment_id=70), fakes.world)
    assert fakes.trace.of("cluster.cancel") == []
    assert parse_record(fakes.cluster.runs[record.run_key].record).state is State.CANCELLED
    assert fakes.cluster.active == {first.run_key: "pending None"} or list(fakes.cluster.active) == [first.run_key]
    assert f"its job goes on, for run `{first.run_key[:8]}`" in fakes.forge.bodies[-1]


def test_a_job_goes_on_until_the_last_of_its_runs_has_left() -> None:
    fakes = Fakes(REUSING)
    first = ended(fakes)
    second, third = asked(fakes), asked_too(fakes, 61)
    assert second is not None
    handle(comment_event(f"/train cancel {first.run_key}", comment_id=70), fakes.world)
    assert fakes.trace.of("cluster.cancel") == []
    assert list(fakes.cluster.active) == [second.run_key, third.run_key]
    told = parse_record(fakes.cluster.runs[first.run_key].record)
    assert (told.state, told.given_up) == (State.CANCELLED, "cancelled by alice")
    assert f"its job goes on, for runs `{second.run_key[:8]}`, `{third.run_key[:8]}`" in fakes.forge.bodies[-1]
    assert asked(fakes, comment=62) is None, "what somebody has given up is joined by nobody"
    fakes.trace.steps.clear()
    for run in (second, third):
        assert fakes.trace.of("cluster.cancel") == []
        handle(comment_event(f"/train cancel {run.run_key}", comment_id=71), fakes.world)
    assert fakes.trace.of("cluster.cancel") == [f"cluster.cancel {third.run_key[:4]}"]


@pytest.mark.parametrize("first_settled", ["owner", "joined"])
def test_runs_whose_one_job_the_machine_has_ended_are_run_again_by_one_job(first_settled: str) -> None:
    """Each is owed a retry, or the gate of a merge queue that has joined a pull request's job would turn red for a node's failure."""
    fakes = Fakes(REUSING + "retries: { infrastructure: 2 }\n")
    first = ended(fakes)
    second = asked(fakes)
    assert second is not None
    if first_settled == "joined":
        fakes.cluster.active = dict(reversed(fakes.cluster.active.items()))
    fakes.trace.steps.clear()
    for number, job in enumerate((first.job_id, None), 1):
        going = [record for record in all_records(fakes) if record.repeats or number == 1]
        fakes.cluster.scheduler[job or going[0].job_id] = "NODE_FAIL"
        fakes.clock.time += timedelta(minutes=5)
        watch(fakes.world, read_policy(fakes.world))
        again = [record for record in all_records(fakes) if record.repeats and record.repeats.number == number]
        assert sorted(record.state for record in again) == [State.PENDING] * 2
        assert len({record.job_id for record in again}) == 1
        assert len([record for record in again if record.same_as]) == 1
        assert len(fakes.trace.of("cluster.submit")) == number


def all_records(fakes: Fakes) -> list[RunRecord]:
    return [parse_record(run.record) for run in fakes.cluster.runs.values()]


@pytest.mark.parametrize("stays", [True, False])
def test_a_job_that_is_left_to_others_is_paid_by_who_started_it(stays: bool) -> None:
    """Else a budget would be no bound: ask twice, take the first request back, and the job is nobody's."""
    fakes = Fakes(REUSING)
    fakes.files["profiles/cluster.yaml"] = PROFILE + "gpus_per_node: 8\n"
    first = ended(fakes)
    second = asked(fakes)
    assert second is not None
    run = fakes.cluster.runs[first.run_key]
    run.record = parse_record(run.record).model_copy(update={"submitted_at": NOON}).to_json()
    fakes.cluster.journal.clear()
    handle(comment_event(f"/train cancel {first.run_key}", comment_id=70), fakes.world)
    assert fakes.cluster.journal == {}, "what was reserved stays so"
    if not stays:
        handle(comment_event(f"/train cancel {second.run_key}", comment_id=71), fakes.world)
    fakes.cluster.scheduler[first.job_id] = "COMPLETED" if stays else "CANCELLED by 0"
    fakes.clock.time += timedelta(hours=1)
    watch(fakes.world, read_policy(fakes.world))
    record = parse_record(fakes.cluster.runs[second.run_key].record)
    assert (record.state.ended, record.elapsed_seconds is not None) == (True, True)
    hours = (record.elapsed_seconds or 0) * 8 / 3600
    [line] = next(iter(fakes.cluster.journal.values()))
    assert line.split()[1] == first.run_key
    assert float(line.split()[-1]) == pytest.approx(hours, abs=1e-4)
    assert hours > 0


def asked_too(fakes: Fakes, comment: int) -> RunRecord:
    """One more that joins."""
    handle(comment_event("/train", comment_id=comment), fakes.world)
    record = parse_record(list(fakes.cluster.runs.values())[-1].record)
    fakes.trace.steps.clear()
    assert record.same_as
    return record


def test_what_is_given_up_while_somebody_joins_is_run_once_more() -> None:
    fakes = Fakes(REUSING)
    first = ended(fakes)
    fakes.cluster.runs[first.run_key].left = "cancelled by alice"
    handle(comment_event("/train", comment_id=60), fakes.world)
    assert (len(fakes.trace.of("cluster.adopt")), len(fakes.trace.of("cluster.submit"))) == (1, 1)
    record = parse_record(list(fakes.cluster.runs.values())[-1].record)
    assert (record.same_as, record.job_id != first.job_id) == ("", True)


@pytest.mark.parametrize(
    ("word", "why", "state", "words"),
    [
        ("CANCELLED by 0", "cancelled by alice", State.CANCELLED, "was cancelled by alice"),
        ("CANCELLED by 1001", "the pull request was closed", State.CANCELLED, "because the pull request was closed"),
        ("CANCELLED by 0", "<img> @all [x](y)", State.CANCELLED, "because somebody gave it up here"),
        ("COMPLETED", "cancelled by alice", State.SUCCEEDED, "passed"),
        ("FAILED", "cancelled by alice", State.FAILED, "failed with exit code 1"),
        ("TIMEOUT", "cancelled by alice", State.TIMEOUT, "was ended at its time limit"),
        ("NODE_FAIL", "cancelled by alice", State.NODE_FAIL, "was ended by the failure of a node"),
    ],
)
def test_who_gave_it_up_is_said_and_the_scheduler_says_how_it_ended(word: str, why: str, state: State, words: str) -> None:
    """Whoever asked for the end may have died right after that; and what wants to be run again by itself is not."""
    fakes = Fakes(REUSING + "retries: { infrastructure: 2 }\n")
    first = ended(fakes)
    fakes.cluster.runs[first.run_key].left = why
    fakes.cluster.scheduler[first.job_id] = word
    watch(fakes.world, read_policy(fakes.world))
    record = parse_record(fakes.cluster.runs[first.run_key].record)
    assert record.state is state
    body = next(body for body in fakes.forge.bodies if first.run_key in body)
    assert words in body.splitlines()[0]
    assert "cancelled by the cluster" not in body
    assert ("looks like" in body) is (state is State.NODE_FAIL)
    assert (len(fakes.cluster.runs), record.followed_by) == (1, "")


def test_a_log_that_went_with_the_run_that_wrote_it_is_not_said_to_be_still_to_come() -> None:
    fakes = Fakes(REUSING)
    first = ended(fakes, **DONE)
    record = asked(fakes)
    assert record is not None
    fakes.cluster.runs[record.run_key].log = b""
    handle(comment_event(f"/train logs {record.run_key[:8]}", comment_id=70), fakes.world)
    assert f"its files are no longer on the cluster (they are those of run `{first.run_key[:8]}`)." in fakes.forge.bodies[-1]


def test_a_run_that_is_tried_again_is_run() -> None:
    fakes = Fakes(REUSING)
    ended(fakes, **DONE)
    handle(comment_event("/train retry all", comment_id=61), fakes.world)
    assert fakes.trace.of("cluster.submit") == ["cluster.submit"]


def test_the_head_is_compared_all_the_same() -> None:
    fakes = Fakes(REUSING)
    ended(fakes, **DONE)
    pulls = iter([fakes.forge.pulls[7], replace(fakes.forge.pulls[7], head_sha=OTHER)])
    pull = fakes.forge.pull
    fakes.forge.pull = lambda number: next(pulls, None) or pull(number)  # type: ignore[method-assign]
    told = handle(comment_event("/train", comment_id=62), fakes.world)
    assert told.outputs["reason-code"] == "head-moved"
    assert fakes.trace.of("cluster.adopt") == []


def test_a_record_that_cannot_be_read_is_no_earlier_run() -> None:
    fakes = Fakes(REUSING)
    first = ended(fakes, **DONE)
    fakes.cluster.runs[first.run_key].record = "{}"
    assert asked(fakes) is None


def test_tags() -> None:
    assert content_tag("ab") == "content-ab"
    assert pull_tag("a/b", 1) != content_tag("ab")
    assert load_policy("reuse: { max_age: 0 }").reuse.max_age == 0
