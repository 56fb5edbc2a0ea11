"""The gate: tables for what it says, and properties for what it must never do, which is pass."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.configuration import read_policy
from dispatcher.errors import Exit
from dispatcher.event import MergeGroupEvent
from dispatcher.flow import handle
from dispatcher.gate import Fail, Line, Pass, Pending, Requirement, Verdict, judge, required_runs
from dispatcher.gatekeeper import LISTED_FILES, evaluate_gate, evaluate_merge_group
from dispatcher.gatereport import gate_check, gate_lines, title
from dispatcher.keys import commit_tag
from dispatcher.policy import load_policy
from dispatcher.record import RunRecord, Target
from dispatcher.slurm import State
from tests.fakes import HEAD, NOON, OTHER, POLICY, PROFILE, REPOSITORY, FakeCluster, FakeForge, Fakes, comment_event, run_record

TRAIN = Requirement("cluster", "default", "train.py")
EVAL = Requirement("cluster", "eval", "eval.py")


def passed(**fields: object) -> RunRecord:
    return run_record(state=State.SUCCEEDED, **fields)


# --------------------------------------------------------------------------- what is required

RULES = load_policy("""\
default_profile: cluster
default_recipe: default
recipes: { default: { script: a.py }, eval: { script: b.py } }
gate:
  required:
    - { paths: ["src/**/*.py", "!src/docs/**"] }
    - { recipe: eval, paths: ["data/[ab].bin", "\\\\#odd"], branches: [main, "release/*"] }
    - { profile: big, branches: ["release/*"] }
""")


@pytest.mark.parametrize(
    ("base", "changed", "names"),
    [
        ("main", ["src/a.py"], ["cluster / default"]),
        ("main", ["src/x/y/a.py"], ["cluster / default"]),
        ("main", ["src/docs/a.py"], []),
        ("main", ["README.md"], []),
        ("main", [], []),
        ("main", ["data/a.bin"], ["cluster / eval"]),
        ("main", ["data/c.bin"], []),
        ("main", ["#odd"], ["cluster / eval"]),
        ("topic", ["data/a.bin"], []),
        ("release/1", ["data/a.bin", "src/a.py"], ["cluster / default", "cluster / eval", "big / default"]),
        ("release/1", [], ["big / default"]),
        # What it touches is not known: every rule counts, whatever its patterns look like.
        ("main", None, ["cluster / default", "cluster / eval"]),
        ("release/2", None, ["cluster / default", "cluster / eval", "big / default"]),
    ],
)
def test_what_is_required(base: str, changed: list[str] | None, names: list[str]) -> None:
    assert [found.name for found in required_runs(RULES, base, changed)] == names


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([], ["cluster / default"]),
        (["docs"], ["cluster / default"]),
        (["docs", "GPU: many"], ["cluster / default", "cluster / eval"]),
        # The queue's commit is of several pull requests.
        (None, ["cluster / default", "cluster / eval"]),
    ],
)
def test_labels_ask_for_runs(labels: list[str] | None, names: list[str]) -> None:
    policy = load_policy(POLICY.replace("required: [", "required: [{ recipe: eval, labels: [slow, 'gpu: many'] }, "))
    found = required_runs(policy, "main", ["a.py"], labels)
    assert sorted(each.name for each in found) == names
    if labels and len(names) == 2:
        assert {each.because for each in found} == {"a.py", "label gpu: many"}


def test_a_rule_with_a_label_and_paths_wants_both() -> None:
    policy = load_policy(POLICY.replace("required: [", "required: [{ recipe: eval, labels: slow, paths: b.py }, "))
    assert [each.name for each in required_runs(policy, "main", ["a.py"], ["slow"])] == ["cluster / default"]
    assert len(required_runs(policy, "main", ["a.py", "b.py"], ["slow"])) == 2
    assert len(required_runs(policy, "main", ["a.py", "b.py"], [])) == 1


def test_because_of_which_path() -> None:
    [found] = required_runs(RULES, "main", ["README.md", "src/b.py", "src/a.py"])
    assert found.because == "src/a.py"


def test_two_rules_for_one_run_are_one_requirement() -> None:
    policy = load_policy(POLICY.replace("required: [", "required: [{ recipe: default }, "))
    assert [(found.name, found.because) for found in required_runs(policy, "main", ["a.py"])] == [
        ("cluster / default", "every pull request")
    ]


# --------------------------------------------------------------------------- how it is judged


@pytest.mark.parametrize(
    ("records", "verdict"),
    [
        ([], Pending),
        ([passed()], Pass),
        ([passed(sha=OTHER)], Pending),
        ([passed(profile="other")], Pending),
        ([passed(recipe="other")], Pending),
        ([passed(overrides=("steps=1",))], Pending),
        ([passed(origin="terminal")], Pending),
        ([passed(uncommitted=True)], Pending),
        ([passed(results_problem="it left no results file")], Fail),
        *[([run_record(state=state)], Pending) for state in State if not state.ended],
        *[([run_record(state=state)], Fail) for state in State if state.ended and state is not State.SUCCEEDED],
        # Of several the newest counts, whichever way.
        ([passed(), run_record(run_key="f" * 16, state=State.FAILED, asked_at=NOON + timedelta(hours=1))], Fail),
        ([passed(asked_at=NOON + timedelta(hours=1)), run_record(run_key="f" * 16, state=State.FAILED)], Pass),
        ([passed(), run_record(run_key="f" * 16, state=State.RUNNING, asked_at=NOON + timedelta(hours=1))], Pending),
        # Also when GitHub would not hear of the newer one's submission.
        (
            [passed(submitted_at=NOON), run_record(run_key="f" * 16, state=State.FAILED, asked_at=NOON + timedelta(hours=1))],
            Fail,
        ),
        # An attempt with overrides takes nothing back.
        ([passed(), run_record(run_key="f" * 16, state=State.FAILED, overrides=("a=1",), asked_at=NOON + timedelta(hours=1))], Pass),
    ],
)
def test_how_one_requirement_is_judged(records: list[RunRecord], verdict: type[Verdict]) -> None:
    assert isinstance(judge([TRAIN], records, HEAD), verdict)
    assert isinstance(judge([TRAIN], records[::-1], HEAD), verdict)


def test_nothing_required_passes() -> None:
    assert judge([], [run_record(state=State.FAILED)], HEAD) == Pass(())


def test_a_failure_counts_over_what_is_still_to_come() -> None:
    assert isinstance(judge([TRAIN, EVAL], [run_record(state=State.FAILED)], HEAD), Fail)


records = st.builds(
    run_record,
    run_key=st.text("0123456789abcdef", min_size=16, max_size=16),
    sha=st.sampled_from([HEAD, OTHER]),
    profile=st.sampled_from(["cluster", "big"]),
    recipe=st.sampled_from(["default", "eval"]),
    state=st.sampled_from(list(State)),
    overrides=st.sampled_from([(), ("a=1",)]),
    results_problem=st.sampled_from(["", "none"]),
    origin=st.sampled_from(["github", "terminal"]),
    asked_at=st.datetimes(NOON.replace(tzinfo=None), NOON.replace(tzinfo=None) + timedelta(days=1)).map(
        lambda when: when.replace(tzinfo=NOON.tzinfo)
    ),
)


def counts(record: RunRecord, requirement: Requirement) -> bool:
    """A run that, all alone, may let a requirement pass."""
    return (
        (record.sha, record.profile, record.recipe) == (HEAD, requirement.profile, requirement.recipe)
        and (record.state, record.results_problem, record.overrides, record.origin) == (State.SUCCEEDED, "", (), "github")
    )  # fmt: skip


@given(st.lists(records, max_size=8), st.lists(st.sampled_from([TRAIN, EVAL, Requirement("big", "default", "x")]), unique=True))
def test_it_never_passes_without_a_good_run_for_each_requirement(found: list[RunRecord], required: list[Requirement]) -> None:
    if isinstance(judge(required, found, HEAD), Pass):
        assert all(any(counts(record, requirement) for record in found) for requirement in required)


@given(st.lists(records, max_size=6))
def test_what_does_not_count_changes_nothing(found: list[RunRecord]) -> None:
    relevant = [record for record in found if record.sha == HEAD and not record.overrides and record.origin == "github"]
    assert type(judge([TRAIN], found, HEAD)) is type(judge([TRAIN], relevant, HEAD))


@given(st.lists(records, max_size=6), records)
def test_a_newer_run_that_did_not_pass_never_lets_it_pass(found: list[RunRecord], newer: RunRecord) -> None:
    newer = newer.model_copy(
        update={
            "sha": HEAD,
            "profile": "cluster",
            "recipe": "default",
            "overrides": (),
            "origin": "github",
            "asked_at": NOON + timedelta(days=2),
        }
    )
    if newer.state is not State.SUCCEEDED or newer.results_problem:
        assert not isinstance(judge([TRAIN], [*found, newer], HEAD), Pass)


SEVERAL = """\
default_profile: cluster
recipes: { default: { script: train.py }, eval: { script: eval.py } }
gate:
  required:
    - { recipe: default, paths: ["*.py"], branches: main }
    - { recipe: eval, labels: slow }
    - { profile: big, paths: "big/**" }
"""
pulls = st.fixed_dictionaries(
    {
        "base_ref": st.sampled_from(["main", "scratch"]),
        "labels": st.sampled_from([(), ("Slow",), ("other",)]),
        "changed": st.sampled_from([(), ("train.py",), ("big/x",), ("README.md",), ("d/x",) * LISTED_FILES]),
    }
)


@given(st.lists(records, max_size=6), pulls, pulls, st.sampled_from([7, 9]))
def test_the_check_is_green_only_where_it_is_for_every_open_pull_request_of_that_head(
    found: list[RunRecord], one: dict[str, Any], other: dict[str, Any], judged: int
) -> None:
    fakes = Fakes(SEVERAL, {"cluster": PROFILE, "big": PROFILE + "nodes: 4\n"})
    for record in found:
        fakes.cluster.add(record, tags=(commit_tag(record.sha),))
    for number, fields in ((7, one), (9, other)):
        known = replace(fakes.forge.pulls[7], number=number, base_ref=fields["base_ref"], labels=fields["labels"])
        fakes.forge.pulls[number], fakes.forge.changed[number] = known, fields["changed"]
    policy = read_policy(fakes.world)
    if evaluate_gate(fakes.world, policy, judged).outputs["reason-code"] == "passed":
        for fields in (one, other):
            every = None if len(fields["changed"]) == LISTED_FILES else fields["changed"]
            for needed in required_runs(policy, fields["base_ref"], every, fields["labels"]):
                assert any(counts(record, needed) for record in found)


# --------------------------------------------------------------------------- asking the ledgers


def on_head(fakes: Fakes, **fields: object) -> None:
    record = run_record(**fields)
    fakes.cluster.add(record, tags=(commit_tag(record.sha),))


@pytest.mark.parametrize(
    ("fields", "reason", "exit_code", "status", "conclusion"),
    [
        ({"state": State.SUCCEEDED}, "passed", Exit.OK, "completed", "success"),
        ({"state": State.SUCCEEDED, "target": Target(repository="Org/Repo", pull=7)}, "passed", Exit.OK, "completed", "success"),
        ({"state": State.RUNNING}, "pending", Exit.PENDING, "in_progress", None),
        ({"state": State.FAILED}, "failed", Exit.RUN_FAILED, "completed", "failure"),
        ({"state": State.SUCCEEDED, "target": Target(repository="other/repo", pull=7)}, "pending", Exit.PENDING, "in_progress", None),
    ],
)
def test_a_pull_request_is_judged_by_the_ledger(
    fields: dict[str, object], reason: str, exit_code: Exit, status: str, conclusion: str | None
) -> None:
    fakes = Fakes()
    on_head(fakes, **fields)
    ended = evaluate_gate(fakes.world, read_policy(fakes.world), 7)
    assert (ended.exit, ended.outputs["decision"], ended.outputs["reason-code"]) == (exit_code, "gate", reason)
    check = fakes.forge.check("dispatch/gate")
    assert (check.sha, check.status, check.conclusion, check.external_id) == (HEAD, status, conclusion, f"gate-{HEAD}")


def test_the_same_check_is_brought_up_to_date() -> None:
    fakes = Fakes()
    policy = read_policy(fakes.world)
    evaluate_gate(fakes.world, policy, 7)
    on_head(fakes, state=State.SUCCEEDED)
    evaluate_gate(fakes.world, policy, 7)
    assert len(fakes.forge.checks) == 1
    assert fakes.forge.check("dispatch/gate").conclusion == "success"


def test_the_gate_says_at_once_that_a_required_run_has_begun() -> None:
    fakes = Fakes()
    evaluate_gate(fakes.world, read_policy(fakes.world), 7)
    assert "not started" in fakes.forge.check("dispatch/gate").summary
    begun = handle(comment_event("/train"), fakes.world).outputs
    gate = fakes.forge.check("dispatch/gate")
    assert gate.conclusion is None
    assert "not started" not in gate.summary
    assert f"{begun['run-key']}_{begun['job-id']}" in gate.summary, "the link to its log"


def test_a_green_gate_waits_for_a_run_that_is_insisted_on() -> None:
    fakes = Fakes()
    fakes.cluster.add(passed(asked_at=NOON - timedelta(hours=1)), None, "COMPLETED", (commit_tag(HEAD),))
    evaluate_gate(fakes.world, read_policy(fakes.world), 7)
    assert fakes.forge.check("dispatch/gate").conclusion == "success"
    handle(comment_event("/train fresh=true"), fakes.world)
    assert fakes.forge.check("dispatch/gate").conclusion is None


@pytest.mark.parametrize(
    ("policy", "body"), [(POLICY, "/train a=1"), (POLICY.replace("recipe: default, paths", "recipe: eval, paths"), "/train")]
)
def test_what_no_gate_waits_for_asks_nothing_more(policy: str, body: str) -> None:
    fakes = Fakes(policy)
    assert handle(comment_event(body), fakes.world).outputs["decision"] == "run"
    assert not fakes.trace.of("cluster.find")
    assert [check.name for check in fakes.forge.checks.values()] == ["dispatch / cluster / default"]


def test_a_gate_that_cannot_be_written_changes_nothing_of_the_run() -> None:
    fakes = Fakes()
    fakes.fail("cluster.find", "ssh.unreachable")
    ended = handle(comment_event("/train"), fakes.world)
    assert (ended.exit, ended.outputs["reason-code"]) == (Exit.OK, "submitted")
    assert "cluster" in fakes.forge.check("dispatch/gate").summary, "the ledger that did not answer is named"


def test_what_was_just_seen_is_newer_than_the_ledger() -> None:
    fakes = Fakes()
    on_head(fakes, state=State.RUNNING)
    ended = evaluate_gate(fakes.world, read_policy(fakes.world), 7, [passed()])
    assert ended.outputs["reason-code"] == "passed"


@pytest.mark.parametrize("code", ["ssh.unreachable", "cluster.bad-record"])
def test_a_ledger_that_does_not_answer_counts_as_empty_and_is_named(code: str) -> None:
    fakes = Fakes()
    on_head(fakes, state=State.SUCCEEDED)
    fakes.fail("cluster.find", code)
    ended = evaluate_gate(fakes.world, read_policy(fakes.world), 7)
    assert ended.outputs["reason-code"] == "pending"
    assert "What a ledger does not tell does not count: profile cluster" in fakes.forge.check("dispatch/gate").summary


def test_a_record_that_cannot_be_read_hides_no_other_and_is_named() -> None:
    fakes = Fakes()
    on_head(fakes, state=State.SUCCEEDED)
    fakes.cluster.add(run_record(run_key="b" * 16), tags=(commit_tag(HEAD),)).record = "{broken"
    ended = evaluate_gate(fakes.world, read_policy(fakes.world), 7)
    assert ended.outputs["reason-code"] == "passed"
    summary = fakes.forge.check("dispatch/gate").summary
    assert "What a ledger does not tell does not count: of profile cluster one cannot be read: A record in the ledger" in summary
    fakes.cluster.runs.pop(run_record().run_key)
    assert evaluate_gate(fakes.world, read_policy(fakes.world), 7).outputs["reason-code"] == "pending"


@pytest.mark.parametrize(
    ("hours", "fields", "reason"),
    [
        (1, {"new_field": 1}, "pending"),
        (1, {"new_field": 1, "recipe": "eval"}, "passed"),
        (-1, {"new_field": 1}, "passed"),
        (1, {"started_at": "2024-05-06T14:02:00"}, "pending"),
        (1, {"new_field": 1, "target": {"repository": "other/repo"}}, "passed"),
    ],
)
def test_a_newer_run_whose_record_cannot_be_read_is_not_passed_over(hours: int, fields: dict[str, object], reason: str) -> None:
    """A newer version of the dispatcher may have written it, with a field that this one does not know."""
    fakes = Fakes()
    on_head(fakes, state=State.SUCCEEDED)
    newer = run_record(run_key="b" * 16, state=State.SUCCEEDED, asked_at=NOON + timedelta(hours=hours))
    text = json.dumps({**json.loads(newer.to_json()), **fields})
    fakes.cluster.add(newer, tags=(commit_tag(HEAD),)).record = text
    assert evaluate_gate(fakes.world, read_policy(fakes.world), 7).outputs["reason-code"] == reason
    summary = fakes.forge.check("dispatch/gate").summary
    assert ("| unknown | run `bbbbbbbbbbbbbbbb` · its record cannot be read |" in summary) == (reason == "pending")


@pytest.mark.parametrize("profile", [None, "executor: slurm\nacount: x\n"])
def test_a_profile_that_cannot_be_used_never_lets_it_pass(profile: str | None) -> None:
    fakes = Fakes(profiles={"other": PROFILE} if profile is None else {"cluster": profile})
    on_head(fakes, state=State.SUCCEEDED)
    assert evaluate_gate(fakes.world, read_policy(fakes.world), 7).outputs["reason-code"] == "pending"


def test_each_ledger_is_asked_once() -> None:
    policy = POLICY.replace("required: [", "required: [{ profile: same }, { recipe: eval }, { profile: far }, ")
    fakes = Fakes(policy, {"cluster": PROFILE, "same": PROFILE + "nodes: 4\n", "far": PROFILE.replace("login.", "far.")})
    fakes.clusters["far.example.com"] = FakeCluster(fakes.trace)
    evaluate_gate(fakes.world, read_policy(fakes.world), 7)
    assert len(fakes.trace.of("connect")) == 2
    assert len(fakes.trace.of("cluster.close")) == 2


def test_more_files_than_github_lists_are_every_file() -> None:
    fakes = Fakes()
    fakes.forge.changed[7] = tuple(f"docs/{number}.md" for number in range(LISTED_FILES))
    assert evaluate_gate(fakes.world, read_policy(fakes.world), 7).outputs["reason-code"] == "pending"


def test_files_are_not_asked_for_where_no_rule_wants_them() -> None:
    fakes = Fakes(POLICY.replace(', paths: ["*.py"]', ""))
    evaluate_gate(fakes.world, read_policy(fakes.world), 7)
    assert not fakes.trace.of("forge.changed_files")


def test_a_pull_request_that_is_gone() -> None:
    fakes = Fakes()
    ended = evaluate_gate(fakes.world, read_policy(fakes.world), 8)
    assert (ended.exit, ended.outputs["reason-code"], fakes.forge.checks) == (Exit.GITHUB, "pull-gone", {})


def beside(fakes: Fakes, **fields: object) -> None:
    """Pull request 9 from the same head, into `scratch` unless it is said otherwise."""
    fakes.forge.pulls[9] = replace(fakes.forge.pulls[7], **{"number": 9, "base_ref": "scratch", **fields})  # type: ignore[arg-type]
    fakes.forge.changed[9] = ("train.py",)


INTO_MAIN = POLICY.replace("required: [{", "required: [{ branches: main,")


def test_a_second_pull_request_from_the_same_commit_makes_nothing_green() -> None:
    """The check is the commit's: into `scratch` nothing is required, but green there would be green for the one into `main`, too."""
    fakes = Fakes(INTO_MAIN)
    policy = read_policy(fakes.world)
    beside(fakes)
    for number in (9, 7, 9):
        assert evaluate_gate(fakes.world, policy, number).outputs["reason-code"] == "pending"
    assert "| `#7 into main: train.py` | not started |" in fakes.forge.check("dispatch/gate").summary
    on_head(fakes, state=State.FAILED)
    assert evaluate_gate(fakes.world, policy, 9).outputs["reason-code"] == "failed"
    on_head(fakes, state=State.SUCCEEDED, run_key="f" * 16, asked_at=NOON + timedelta(hours=1))
    assert evaluate_gate(fakes.world, policy, 9).outputs["reason-code"] == "passed"


@pytest.mark.parametrize("fields", [{"state": "closed"}, {"head_sha": OTHER}])
def test_a_pull_request_that_is_over_or_elsewhere_asks_for_nothing(fields: dict[str, object]) -> None:
    fakes = Fakes(INTO_MAIN)
    beside(fakes)
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], **fields)  # type: ignore[arg-type]
    assert evaluate_gate(fakes.world, read_policy(fakes.world), 9).outputs["reason-code"] == "passed"


def test_a_pull_request_that_changed_its_base_while_it_was_judged_is_not_green() -> None:
    class Moving(FakeForge):
        def changed_files(self, number: int) -> tuple[str, ...]:
            self.pulls[7] = replace(self.pulls[7], base_ref="main")
            return super().changed_files(number)

    fakes = Fakes(INTO_MAIN)
    forge = Moving(fakes.trace)
    forge.pulls[7] = replace(forge.pulls[7], base_ref="scratch")
    assert evaluate_gate(replace(fakes.world, forge=forge), read_policy(fakes.world), 7).outputs["reason-code"] == "pending"


@pytest.mark.parametrize("policy", [POLICY, POLICY.split("gate:")[0]], ids=["pending", "no gate"])
def test_other_pull_requests_are_looked_for_only_before_it_is_green(policy: str) -> None:
    fakes = Fakes(policy)
    evaluate_gate(fakes.world, read_policy(fakes.world), 7)
    assert not fakes.trace.of("forge.open_pulls_at")


def test_a_merge_group_needs_runs_on_its_own_commit() -> None:
    fakes = Fakes()
    on_head(fakes, state=State.SUCCEEDED)
    event = MergeGroupEvent(REPOSITORY, OTHER, "refs/heads/q", "main", HEAD, "main")
    policy = read_policy(fakes.world)
    assert evaluate_merge_group(fakes.world, policy, event).outputs["reason-code"] == "pending"
    on_head(fakes, state=State.SUCCEEDED, sha=OTHER, run_key="f" * 16)
    assert evaluate_merge_group(fakes.world, policy, replace(event, base_ref="refs/heads/main")).outputs["reason-code"] == "passed"


IN_QUEUE = MergeGroupEvent(REPOSITORY, OTHER, f"refs/heads/gh-readonly-queue/main/pr-7-{OTHER}", "refs/heads/main", HEAD, "main")


@pytest.mark.parametrize(
    ("state", "reason", "conclusion"),
    [
        (State.SUCCEEDED, "passed", "success"),
        (State.FAILED, "failed", "failure"),
        # Nothing will run on the queue's commit: what it waited for would never come.
        (State.RUNNING, "failed", "failure"),
        (None, "failed", "failure"),
    ],
)
def test_a_queue_that_never_runs_takes_the_pull_requests_own_verdict(state: State | None, reason: str, conclusion: str) -> None:
    fakes = Fakes(POLICY + "reuse: { merge_queue: never }\n")
    if state is not None:
        on_head(fakes, state=state)
    assert evaluate_merge_group(fakes.world, read_policy(fakes.world), IN_QUEUE).outputs["reason-code"] == reason
    check = fakes.forge.check("dispatch/gate")
    assert (check.sha, check.status, check.conclusion) == (OTHER, "completed", conclusion)
    assert HEAD[:12] in check.summary
    assert "exactly this commit" not in check.summary
    assert not check.title.startswith("0 ")


def test_an_entry_of_no_known_pull_request_needs_runs_of_its_own() -> None:
    fakes = Fakes(POLICY + "reuse: { merge_queue: never }\n")
    on_head(fakes, state=State.SUCCEEDED)
    for ref in ("refs/heads/q", IN_QUEUE.head_ref.replace("pr-7", "pr-8")):
        event = replace(IN_QUEUE, head_ref=ref)
        assert evaluate_merge_group(fakes.world, read_policy(fakes.world), event).outputs["reason-code"] == "pending"


# --------------------------------------------------------------------------- the words


def line(state: State | None, **fields: object) -> Line:
    return Line(TRAIN, state, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Pass(()), "no run is required for this change"),
        (Pass((line(State.SUCCEEDED),)), "1 required run passed"),
        (Pending((line(None), line(State.RUNNING), line(State.SUCCEEDED)), 1), "waits for 2 runs, 1 of them not started"),
        (Pending((line(State.RUNNING),), 0), "waits for 1 run"),
        (Fail((line(State.FAILED), line(State.LOST), line(None))), "2 required runs did not pass"),
    ],
)
def test_titles(verdict: Verdict, words: str) -> None:
    assert title(verdict) == words
    assert words in gate_lines(verdict, (), "/train")[0]


def test_what_is_missing_says_how_to_start_it() -> None:
    verdict = judge([TRAIN, EVAL], [passed(overrides=("a=1",))], HEAD)
    text = "\n".join(gate_lines(verdict, (), "/train"))
    assert "`/train profile=cluster recipe=eval`" in text
    assert text.count("| not started |") == 2
    assert gate_check(verdict, HEAD, [text]).conclusion is None


def test_paths_and_ledgers_words_are_neutralised() -> None:
    hostile = Requirement("cluster", "default", "a|b`<img>@org/x")
    verdict = judge([hostile], [run_record(state=State.FAILED, reason="@org/everyone | <b>")], HEAD)
    text = "\n".join(gate_lines(verdict, ["profile x: @org/everyone <script>"], "/train"))
    row = next(line for line in text.splitlines() if "cluster / default" in line)
    assert row.replace("\\|", "").count("|") == 5
    assert "@org/everyone" not in text
    assert "<script>" not in text
    assert "<b>" not in text


def test_times_of_records_are_comparable() -> None:
    # A record without time zone could not be compared with one that has it.
    assert isinstance(run_record().asked_at, datetime)
    assert run_record().asked_at.tzinfo is not None
