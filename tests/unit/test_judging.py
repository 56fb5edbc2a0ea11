"""A run that ended well and measured something worse: its comment, its check, its exit, the gate; and the baseline that moves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from dispatcher.baseline import history_name, line_of, parse_history
from dispatcher.configuration import read_policy
from dispatcher.errors import Exit, ForgeError
from dispatcher.flow import handle
from dispatcher.following import exit_of
from dispatcher.gate import Fail, Pass, Pending, Requirement, judge
from dispatcher.judging import judged, remember
from dispatcher.keys import pull_tag
from dispatcher.observe import Seen
from dispatcher.record import Queued, RunRecord, Target, parse_record
from dispatcher.series import Curve
from dispatcher.slurm import State
from dispatcher.telling import report
from tests.fakes import HEAD, NOON, OTHER, POLICY, Fakes, comment_event, run_record

RULES = """
    metrics:
      loss: { max_increase: 2%, window: 5 }
      throughput: { no_worse_than: merge-base, better: higher, tolerance: 5%, no_baseline: pass }
      memory_gb: { max: 78, level: warn, missing: pass }
"""
WITH_RULES = POLICY.replace("default: { script: train.py }", f"default:\n    script: train.py{RULES.rstrip()}")
NAME = history_name("org/repo", "cluster", "default")


def ended(loss: float | None = 1.9, **fields: object) -> RunRecord:
    results = {} if loss is None else {"loss": loss, "throughput": 400.0}
    target = Target(repository="org/repo", pull=7)
    return run_record(**{"state": State.SUCCEEDED, "ended_at": NOON, "results": results, "target": target, **fields})


def before(fakes: Fakes, *losses: float, sha: str = OTHER, throughput: float = 410.0) -> None:
    for number, loss in enumerate(losses, 1):
        record = ended(loss, run_key=f"{number:016x}", sha=sha, results={"loss": loss, "throughput": throughput})
        fakes.cluster.remembered.setdefault(NAME, []).append(line_of(record, NOON))


def decided(fakes: Fakes, record: RunRecord) -> RunRecord:
    return judged(record, fakes.world, fakes.cluster, read_policy(fakes.world))


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        (1.87, ""),
        (1.90, ""),
        (1.95, "loss 1.95 is 4.28 % above the median of 5 runs of the default branch, 1.87 (limit +2 %)"),
        (float("nan"), "loss is not a number (NaN)"),
        (None, "loss was not reported"),
    ],
)
def test_worse_than_the_default_branch(loss: float | None, problem: str) -> None:
    fakes = Fakes(WITH_RULES)
    before(fakes, 9.0, 1.86, 1.87, 1.88, 1.87, 1.85)
    found = decided(fakes, ended(loss))
    assert found.results_problem == problem
    assert {item.name for item in found.verdicts} == {"loss", "throughput", "memory_gb"}
    assert exit_of(found) is (Exit.RUN_FAILED if problem else Exit.OK)
    needs = (Requirement("cluster", "default", "x"),)
    assert isinstance(judge(needs, (found,), HEAD), Fail if problem else Pass)
    assert decided(fakes, found) == found, "judged once"


def test_against_the_merge_base() -> None:
    fakes = Fakes(WITH_RULES)
    before(fakes, 1.87, throughput=500.0)
    fakes.forge.merge_bases["main", HEAD] = OTHER
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], base_ref="main")
    found = decided(fakes, ended(1.87))
    assert found.results_problem == f"throughput 400 is 20 % below the merge base's run ({OTHER[:7]}), 500 (limit −5 %)"


def test_a_history_that_nobody_can_read_is_not_one_that_is_empty() -> None:
    fakes = Fakes(WITH_RULES)
    assert not decided(fakes, ended()).results_problem, "nothing to compare with is a warning"
    fakes.cluster.remembered[NAME] = ["{torn", "\x00"]
    found = decided(fakes, ended())
    assert found.results_problem == (
        "loss could not be compared with the baseline: none of the 2 lines that the ledger remembers can be read"
    )


def of_the_queue(**fields: object) -> RunRecord:
    entry = Queued(head_ref="refs/heads/gh-readonly-queue/main/pr-7-x", base_ref="refs/heads/main", **fields)  # type: ignore[arg-type]
    return ended(1.87, target=Target(repository="org/repo", merge_queue=entry))


def test_in_the_queue_the_commit_that_it_builds_on_is_the_merge_base() -> None:
    fakes = Fakes(WITH_RULES)
    before(fakes, 1.87, throughput=500.0)
    found = decided(fakes, of_the_queue(base_sha=OTHER))
    assert found.results_problem == f"throughput 400 is 20 % below the merge base's run ({OTHER[:7]}), 500 (limit −5 %)"
    assert not any("merge_base" in step for step in fakes.steps), "the event has said it"
    fakes.forge.merge_bases["main", HEAD] = OTHER
    assert decided(fakes, of_the_queue()).results_problem == found.results_problem, "records of before that was kept"


@pytest.mark.parametrize("record", [ended(1.87), of_the_queue()], ids=["pull", "queue"])
def test_a_merge_base_that_github_does_not_say_is_asked_for_again(record: RunRecord) -> None:
    """It is no verdict that there is none; not for ever, though."""
    fakes = Fakes(WITH_RULES)
    before(fakes, 1.87, throughput=500.0)
    fakes.fail("forge.merge_base")
    asked = record.model_copy(update={"ended_at": fakes.clock.now(), "asked_at": fakes.clock.now()})
    for hours in (0, 5.9):
        fakes.clock.time = asked.ended_at + timedelta(hours=hours)
        fakes.fail("forge.merge_base")
        with pytest.raises(ForgeError):
            report(fakes.world, fakes.cluster, read_policy(fakes.world), _known(fakes, asked))
        assert fakes.forge.bodies == []
        assert fakes.cluster.active, "the next look asks again"
        assert "is not judged yet" in fakes.said[-1]
    fakes.clock.time = asked.ended_at + timedelta(hours=6)
    fakes.fail("forge.merge_base")
    found = decided(fakes, asked)
    assert found.results_problem.startswith(f"throughput could not be compared with the merge-base: GitHub did not say where `{HEAD[:7]}`")
    late = asked.model_copy(update={"same_as": "f" * 16, "asked_at": fakes.clock.now()})
    fakes.fail("forge.merge_base")
    with pytest.raises(ForgeError):
        decided(fakes, late)


def test_what_took_over_an_end_has_not_passed_before_it_is_judged() -> None:
    fakes = Fakes(WITH_RULES)
    needs = (Requirement("cluster", "default", "x"),)
    taken = ended(1.87, same_as="f" * 16, verdict_owed=True)
    assert isinstance(judge(needs, (taken,), HEAD), Pending)
    assert exit_of(taken) is Exit.RUN_FAILED
    assert isinstance(judge(needs, (decided(fakes, taken),), HEAD), Pass)
    without = taken.model_copy(update={"recipe": "eval"})
    assert not decided(fakes, without).verdict_owed, "there is nothing to judge"


@pytest.mark.parametrize(
    "fields",
    [
        {"state": State.FAILED},
        {"state": State.RUNNING},
        {"state": State.LOST},
        {"results_problem": "it left no results file"},
        {"recipe": "eval"},
        {"recipe": "gone"},
    ],
)
def test_what_is_not_judged(fields: dict[str, object]) -> None:
    fakes = Fakes(WITH_RULES)
    record = ended(9.0, **fields)
    assert decided(fakes, record) == record
    assert fakes.steps == []


def test_without_a_baseline_it_warns_and_says_so() -> None:
    fakes = Fakes(WITH_RULES)
    found = decided(fakes, ended(1.9))
    assert (found.results_problem, found.verdicts[0].outcome) == ("", "warn")
    seen = report(fakes.world, fakes.cluster, read_policy(fakes.world), _known(fakes, ended(1.9)))
    body = fakes.forge.bodies[-1]
    assert "✅" in body
    assert "⚠️ there is no baseline to compare loss with" in body
    assert seen.record.verdicts == found.verdicts


def _known(fakes: Fakes, record: RunRecord) -> Seen:
    fakes.cluster.add(record, reported="running", tags=(pull_tag("org/repo", 7),))
    return Seen(record, "the log\n")


def test_what_people_see() -> None:
    fakes = Fakes(WITH_RULES)
    before(fakes, 1.86, 1.87, 1.88)
    report(fakes.world, fakes.cluster, read_policy(fakes.world), _known(fakes, ended(1.95)))
    body = fakes.forge.bodies[-1]
    assert body.startswith(
        "### ❌ train · cluster · ended well, but loss 1.95 is 4.28 % above the median of 3 runs of the default branch, 1.87"
    )
    assert "| ❌ | loss | 1.95 | 1.87 | +4.28 % | +2 % |" in body
    assert "| ✅ | throughput | 400 | – | – | – |" in body or "| ✅ | throughput | 400 |" in body
    assert "baseline accept" in body
    assert fakes.forge.check("dispatch / cluster / default").conclusion == "failure"


def drawn(*values: float, name: str = "loss") -> tuple[Curve, ...]:
    return (Curve(name=name, first=1, last=100, values=values),)


def with_curves(fakes: Fakes, *losses: float, name: str = "loss") -> None:
    for number, loss in enumerate(losses, 1):
        record = ended(loss, run_key=f"{number:016x}", sha=OTHER, curves=drawn(9.0, loss, name=name))
        fakes.cluster.remembered.setdefault(NAME, []).append(line_of(record, NOON))


def test_the_baselines_own_curve_stands_beside() -> None:
    fakes = Fakes(WITH_RULES)
    with_curves(fakes, 1.86, 1.87, 1.88)
    seen = report(fakes.world, fakes.cluster, read_policy(fakes.world), _known(fakes, ended(1.88, curves=drawn(8.0, 1.88))))
    for text in (fakes.forge.bodies[-1], fakes.forge.check("dispatch / cluster / default").summary):
        assert "    line [8, 1.88]\n    line [9, 1.87]\n" in text
        assert f"the grey line is run `{2:08x}` at `{OTHER[:7]}`, which came to 1.87, the baseline" in text.replace("0" * 8, f"{2:08x}")
    again = parse_record(seen.record.to_json())
    assert again == seen.record
    fakes.cluster.remembered.clear()
    assert decided(fakes, again) == again, "what is said again needs no ledger"
    assert [verdict.name for verdict in again.verdicts if verdict.beside is not None] == ["loss"], "throughput has no curve of its own"


def test_a_curve_that_nothing_is_drawn_beside_is_not_kept() -> None:
    fakes = Fakes(WITH_RULES)
    with_curves(fakes, 1.86, 1.87, 1.88)
    assert decided(fakes, ended(1.88)).verdicts[0].beside is None
    assert decided(fakes, ended(1.88, curves=drawn(8.0, 1.88, name="other"))).verdicts[0].beside is None
    own = ended(1.88, curves=drawn(8.0, 1.88), run_key=f"{2:016x}")
    assert decided(fakes, own).verdicts[0].beside is None, "the run that was accepted is not drawn over itself"
    assert decided(fakes, ended(1.88, curves=drawn(8.0, 1.88), same_as=f"{2:016x}")).verdicts[0].beside is None


def test_the_merge_bases_curve() -> None:
    fakes = Fakes(WITH_RULES.replace("max_increase: 2%,", "max_increase: 2%, against: merge-base,"))
    with_curves(fakes, 1.86)
    fakes.forge.merge_bases["main", HEAD] = OTHER
    fakes.forge.pulls[7] = replace(fakes.forge.pulls[7], base_ref="main")
    beside = decided(fakes, ended(1.87, curves=drawn(8.0, 1.87))).verdicts[0].beside
    assert beside is not None
    assert (beside.run_key, beside.curve.values) == (f"{1:016x}", (9.0, 1.86))


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"on_default": True}, True),
        ({"on_default": False}, False),
        ({"on_default": True, "state": State.FAILED}, False),
        ({"on_default": True, "own_runspec": True}, False),
        ({"on_default": True, "results": {}}, False),
        ({"on_default": True, "results_problem": "worse"}, True),
        ({"on_default": True, "results_problem": "worse", "queue": True}, False),
        ({"on_default": True, "queue": True}, True),
    ],
)
def test_what_later_runs_are_compared_with(fields: dict[str, object], kept: bool) -> None:
    fakes = Fakes(WITH_RULES)
    if fields.pop("queue", False):
        fields["target"] = Target(repository="org/repo", merge_queue=Queued(head_ref="x", base_ref="refs/heads/main"))
    remember(ended(1.9, **fields), fakes.world, fakes.cluster)
    assert (NAME in fakes.cluster.remembered) is kept


def accepted(fakes: Fakes, body: str = "/train baseline accept", author: str = "alice", role: str = "maintain") -> str:
    fakes.forge.roles[author] = role
    ended_now = handle(comment_event(body, author, comment_id=123), fakes.world)
    return ended_now.outputs["reason-code"]


def test_a_baseline_that_is_accepted() -> None:
    fakes = Fakes(WITH_RULES)
    before(fakes, 1.86, 1.87, 1.88)
    report(fakes.world, fakes.cluster, read_policy(fakes.world), _known(fakes, ended(1.95)))
    assert accepted(fakes, '/train baseline accept reason="a longer warm-up @here"') == "accepted"
    entry = parse_history("\n".join(fakes.cluster.remembered[NAME])).accepted
    assert entry is not None
    assert (entry.by, entry.why, entry.metrics["loss"]) == ("alice", "a longer warm-up @here", 1.95)
    told = fakes.forge.bodies
    assert any("is the new baseline of cluster / default" in body and "@\u200bhere" in body for body in told)
    assert fakes.forge.check("dispatch / cluster / default").conclusion == "success"
    assert decided(fakes, ended(1.96)).results_problem == ""
    assert "the accepted run" in decided(fakes, ended(2.5)).results_problem
    assert "(by alice on 2024-05-06: a longer warm-up @here)" in decided(fakes, ended(2.5)).results_problem
    report(fakes.world, fakes.cluster, read_policy(fakes.world), _known(fakes, ended(2.5)))
    assert "a longer warm-up @\u200bhere" in fakes.forge.bodies[-1]
    assert "@here" not in fakes.forge.bodies[-1]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"results": {"other": 1.0}}, "has no number for `loss`"),
        ({"results": {"loss": float("nan"), "throughput": 400.0}}, "has no number for `loss`"),
        ({"results": {"loss": "1.9"}}, "has no number for `loss`"),
        ({"overrides": ("loss=1",)}, "has overrides"),
        ({"results_problem": "its results file is no JSON"}, "left results that cannot be used: its results file is no JSON"),
        ({"recipe": "eval"}, "is of recipe `eval`, whose `metrics` compare nothing with the baseline"),
        ({"state": State.FAILED}, "has not ended well"),
    ],
)
def test_a_run_that_can_be_no_baseline_moves_none(fields: dict[str, object], why: str) -> None:
    """Nor does it lose what is wrong with it: that would be an acceptance of broken results."""
    fakes = Fakes(WITH_RULES)
    before(fakes, 1.86, 1.87, 1.88)
    remembered = list(fakes.cluster.remembered[NAME])
    run = fakes.cluster.add(ended(**fields), tags=(pull_tag("org/repo", 7),))  # type: ignore[arg-type]
    record = run.record
    assert accepted(fakes) == "no-baselines"
    assert (fakes.cluster.remembered[NAME], run.record) == (remembered, record)
    assert why in fakes.forge.bodies[-1]
    assert decided(fakes, ended(2.8)).results_problem


@pytest.mark.parametrize("fields", [{"results": {"loss": float("nan")}}, {"overrides": ("loss=1",)}, {"results_problem": "no JSON"}])
def test_no_older_run_is_accepted_in_place_of_the_newest(fields: dict[str, object]) -> None:
    """Who means the older one names it; what runs, has failed or is of another recipe is never meant."""
    fakes = Fakes(WITH_RULES)
    older = ended(2.0, run_key="b" * 16)
    newer = ended(**{"run_key": "c" * 16, "asked_at": older.asked_at + timedelta(hours=1), **fields})
    last = {"asked_at": older.asked_at + timedelta(hours=2)}
    for record in (older, newer, ended(run_key="d" * 16, state=State.FAILED, **last), ended(run_key="e" * 16, recipe="eval", **last)):
        fakes.cluster.add(record, tags=(pull_tag("org/repo", 7),))
    assert accepted(fakes) == "no-baselines"
    assert "Run `cccccccc`" in fakes.forge.bodies[-1]
    assert NAME not in fakes.cluster.remembered


def test_the_newest_is_accepted_whatever_has_failed_since() -> None:
    fakes = Fakes(WITH_RULES)
    meant = ended(2.0, run_key="b" * 16)
    for record in (meant, ended(run_key="d" * 16, state=State.FAILED, asked_at=meant.asked_at + timedelta(hours=2))):
        fakes.cluster.add(record, tags=(pull_tag("org/repo", 7),))
    assert accepted(fakes) == "accepted"
    assert parse_history("\n".join(fakes.cluster.remembered[NAME])).accepted.run_key == meant.run_key  # type: ignore[union-attr]


def test_of_two_recipes_none_is_accepted_that_nobody_has_named() -> None:
    fakes = Fakes(WITH_RULES.replace("eval: { script: eval.py", "eval: { metrics: { loss: { no_worse_than: baseline } }, script: eval.py"))
    meant = ended(2.0, run_key="b" * 16)
    later = {"asked_at": meant.asked_at + timedelta(hours=2)}
    for record in (ended(1.0, run_key="a" * 16, asked_at=NOON - timedelta(days=1)), meant, ended(run_key="e" * 16, recipe="eval", **later)):
        fakes.cluster.add(record, tags=(pull_tag("org/repo", 7),))
    assert accepted(fakes) == "no-such-run"
    answer = fakes.forge.bodies[-1]
    assert "2 runs could be meant" in answer
    assert "- `/train baseline accept bbbbbbbb` (cluster / default)" in answer
    assert "- `/train baseline accept eeeeeeee` (cluster / eval)" in answer
    assert fakes.cluster.remembered == {}
    assert accepted(fakes, "/train baseline accept bbbb") == "accepted"


def test_a_metric_that_may_be_missing_keeps_its_baseline() -> None:
    optional = WITH_RULES.replace("max_increase: 2%, window: 5 }", "max_increase: 2% }\n      extra: { max_increase: 2%, missing: pass }")
    fakes = Fakes(optional)
    known = ended(run_key=f"{1:016x}", sha=OTHER, results={"loss": 1.0, "extra": 1.0})
    fakes.cluster.remembered[NAME] = [line_of(known, NOON)]
    fakes.cluster.add(ended(2.0), tags=(pull_tag("org/repo", 7),))
    assert accepted(fakes) == "accepted"
    found = decided(fakes, ended(results={"loss": 2.0, "extra": 2.0}))
    assert found.results_problem.startswith("extra 2 is 100 % above the default branch's only run, 1")


@pytest.mark.parametrize(
    ("rule", "fields", "advised"),
    [
        ("{ max_increase: 2% }", {}, True),
        ("{ max_increase: 2% }", {"overrides": ("x=1",)}, False),
        ("{ max_increase: 2% }", {"results": {"other": 1.0}}, False),
        ("{ max_increase: 2% }", {"results": {"loss": float("inf")}}, False),
        ("{ max: 2 }", {}, False),
        ("{ max: 2, max_increase: 2% }", {}, False),
    ],
)
def test_an_acceptance_is_advised_where_it_helps(rule: str, fields: dict[str, object], advised: bool) -> None:
    fakes = Fakes(POLICY.replace("default: { script: train.py }", f"default:\n    script: train.py\n    metrics: {{ loss: {rule} }}"))
    before(fakes, 1.86, 1.87, 1.88)
    report(fakes.world, fakes.cluster, read_policy(fakes.world), _known(fakes, ended(2.5, **fields)))
    assert "❌" in fakes.forge.bodies[-1]
    assert ("baseline accept" in fakes.forge.bodies[-1]) is advised


@pytest.mark.parametrize(
    ("role", "body", "reason"),
    [
        ("write", "/train baseline accept", "role-too-low"),
        ("maintain", "/train baseline accept 9999", "no-such-run"),
        ("maintain", "/train baseline accept", "no-baselines"),
        ("maintain", "/train baseline", "missing-word"),
    ],
)
def test_what_cannot_be_accepted(role: str, body: str, reason: str) -> None:
    fakes = Fakes(WITH_RULES)
    if reason != "no-baselines":
        fakes.cluster.add(ended(1.95), tags=(pull_tag("org/repo", 7),))
    else:
        fakes.cluster.add(ended(1.95, state=State.FAILED), tags=(pull_tag("org/repo", 7),))
    assert accepted(fakes, body, role=role) == reason
    assert fakes.cluster.remembered == {}
