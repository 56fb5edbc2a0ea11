"""A command that becomes several runs, and a comment with several commands: each run its job, each command its one comment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcher.configuration import read_policy
from dispatcher.errors import Exit
from dispatcher.flow import handle
from dispatcher.group import NOT_BEGUN, UNHEARD, group_lines
from dispatcher.keys import pull_tag
from dispatcher.ports import CommandOutput
from dispatcher.record import Member, RunRecord, parse_record
from dispatcher.slurm import State
from dispatcher.watching import watch
from dispatcher.world import Outcome
from tests.fakes import NOON, POLICY, PROFILE, REPOSITORY, FakeCluster, Fakes, comment_event, run_record
from tests.powerless import acting

TWO_CLUSTERS = {"cluster": PROFILE, "away": PROFILE.replace("login.", "away.")}
BOTH = POLICY.replace("profiles: [cluster]", "profiles: [cluster, away]")


def two(policy: str = BOTH, **settings: object) -> tuple[Fakes, FakeCluster]:
    """A world with two clusters; the second one is given besides."""
    fakes = Fakes(policy, TWO_CLUSTERS, **settings)  # type: ignore[arg-type]
    away = fakes.clusters["away.example.com"] = FakeCluster(fakes.trace)
    return fakes, away


def told(ended: Outcome) -> tuple[str, str]:
    return ended.outputs["decision"], ended.outputs["reason-code"]


def records(*clusters: FakeCluster) -> list[RunRecord]:
    return [parse_record(run.record) for cluster in clusters for run in cluster.runs.values()]


def rows(body: str) -> list[str]:
    """The table's rows, without its head."""
    return [line for line in body.splitlines() if line.startswith("| ") and not line.startswith("| |")]


def sweep(fakes: Fakes) -> Outcome:
    return watch(fakes.world, read_policy(fakes.world))


# --------------------------------------------------------------------------- one command, several runs


def test_profiles_times_values_is_one_comment_and_a_check_each() -> None:
    fakes, away = two()
    ended = handle(comment_event("/train profile=cluster,away lr=1e-3,3e-4 note=x"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.OK, ("run", "submitted"))
    made = records(fakes.cluster, away)
    assert [(record.profile, record.overrides) for record in made] == [
        ("cluster", ("lr=1e-3", "note=x")),
        ("cluster", ("lr=3e-4", "note=x")),
        ("away", ("lr=1e-3", "note=x")),
        ("away", ("lr=3e-4", "note=x")),
    ]
    assert len({record.run_key for record in made}) == 4
    assert {record.trigger for record in made} == {"comment:99"}
    [body] = fakes.forge.bodies
    assert len(rows(body)) == 4
    assert "4 runs · 4 waiting" in body
    # What is the same in all of them stands once, what differs in the rows.
    assert "All with `note=x`" in body
    assert [row.count("`lr=1e-3`") for row in rows(body)] == [1, 0, 1, 0]
    assert [check.external_id for check in fakes.forge.checks.values()] == [record.run_key for record in made]
    [comment] = fakes.forge.comments
    assert {record.target.comment for record in made} == {comment}
    assert all([member.run_key for member in record.group] == [one.run_key for one in made] for record in made)
    assert len(fakes.trace.of("connect")) == 2


def test_checks_are_pending_before_there_are_jobs() -> None:
    fakes = Fakes()
    handle(comment_event("/train a=1,2"), fakes.world)
    order = [step.split()[0] for step in fakes.trace.of("forge.create_check", "cluster.submit")]
    assert order == ["forge.create_check", "cluster.submit"] * 2


def test_more_runs_than_the_policy_allows_are_none() -> None:
    fakes = Fakes(POLICY + "most: { runs: 3 }\n")
    ended = handle(comment_event("/train a=1,2 b=1,2"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.DENIED, ("denied", "too-many-runs"))
    assert not fakes.trace.of("connect", "cluster", "forge.create_check")
    assert told(handle(comment_event("/train a=1,2,3", comment_id=100), fakes.world)) == ("run", "submitted")


def test_one_run_that_may_not_be_stops_all() -> None:
    fakes, away = two(BOTH + "profiles: { away: { allow: { users: [carol] } } }\n")
    ended = handle(comment_event("/train profile=cluster,away"), fakes.world)
    assert told(ended) == ("denied", "role-too-low")
    assert not fakes.cluster.runs
    assert not away.runs


def test_one_run_that_cannot_be_stops_all_and_is_named() -> None:
    fakes = Fakes()
    ended = handle(comment_event("/train profile=cluster,gone a=1"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.CONFIG, ("refused", "unknown-profile"))
    assert not fakes.trace.of("connect", "cluster", "forge.create_check")
    assert "`profile=gone a=1`: nothing of the command was started" in fakes.forge.bodies[0]


def test_a_run_that_the_scheduler_refuses_is_told_in_the_table() -> None:
    fakes, away = two()
    away.refuses = "sbatch: error: Invalid account"
    ended = handle(comment_event("/train profile=away,cluster"), fakes.world)
    assert ended.exit is Exit.CLUSTER
    [body] = fakes.forge.bodies
    assert "2 runs · 1 waiting, 1 not started" in body
    [bad, good] = rows(body)
    assert "🚫" in bad
    assert "the scheduler refused the job" in bad
    assert "job" in good or "100" in good
    assert sorted(check.conclusion or "pending" for check in fakes.forge.of_runs) == ["cancelled", "pending"]
    assert not away.claims


def test_a_cluster_that_is_down_does_not_keep_the_others_from_being_reported() -> None:
    fakes, away = two()
    away.claim = _down  # type: ignore[method-assign,assignment]
    ended = handle(comment_event("/train profile=away,cluster"), fakes.world)
    assert (ended.exit, ended.outputs["job-id"]) == (Exit.SSH, "100")
    [body] = fakes.forge.bodies
    assert "the cluster cannot be reached" in rows(body)[0]
    assert len(fakes.cluster.runs) == 1


def _down(*_: object) -> None:
    from dispatcher.errors import SshError

    raise SshError("ssh.unreachable", "away.example.com does not answer.")


def test_when_all_are_refused_the_answer_is_the_refusal() -> None:
    fakes = Fakes()
    fakes.cluster.refuses = "sbatch: error: no"
    ended = handle(comment_event("/train a=1,2"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.CLUSTER, ("refused", "sbatch-refused"))
    assert len(fakes.forge.bodies) == 1
    assert {check.conclusion for check in fakes.forge.checks.values()} == {"cancelled"}


def test_delivered_twice_it_is_the_same_runs() -> None:
    fakes, away = two()
    first = handle(comment_event("/train profile=cluster,away a=1,2"), fakes.world)
    before = {record.run_key for record in records(fakes.cluster, away)}
    again = handle(comment_event("/train profile=cluster,away a=1,2"), fakes.world)
    assert {record.run_key for record in records(fakes.cluster, away)} == before
    assert again.outputs == first.outputs
    assert (len(fakes.forge.comments), len(fakes.forge.checks), fakes.steps.count("cluster.submit")) == (1, 4, 4)
    assert "4 runs · 4 waiting" in fakes.forge.bodies[0]


def test_killed_between_two_runs_the_sweep_tells_and_a_second_delivery_completes() -> None:
    fakes = Fakes()
    _die_at_second(fakes)
    with pytest.raises(KeyboardInterrupt):
        handle(comment_event("/train a=1,2"), fakes.world)
    assert not fakes.forge.bodies
    fakes.trace.fail.clear()
    sweep(fakes)
    [body] = fakes.forge.bodies
    assert "2 runs · 1 waiting, 1 not started" in body
    assert NOT_BEGUN in rows(body)[1]
    again = handle(comment_event("/train a=1,2"), fakes.world)
    assert told(again) == ("run", "submitted")
    [body] = fakes.forge.bodies
    assert "2 runs · 2 waiting" in body
    assert fakes.steps.count("cluster.submit") == 3
    assert len(fakes.forge.checks) == 2


def _die_at_second(fakes: Fakes) -> None:
    """The process is killed when it submits its second run."""

    def first() -> None:
        fakes.trace.at["compiler.compile"] = lambda: fakes.fail_with("cluster.submit", KeyboardInterrupt())

    fakes.trace.at["cluster.submit"] = first


def test_a_group_ends_with_its_last_run_and_reacts_once() -> None:
    fakes = Fakes()
    handle(comment_event("/train a=1,2"), fakes.world)
    fakes.cluster.scheduler.update({"100": "COMPLETED", "101": "RUNNING"})
    sweep(fakes)
    [body] = fakes.forge.bodies
    assert "2 runs · 1 passed, 1 running" in body
    assert [content for _, content in fakes.forge.reactions] == ["eyes"]
    fakes.cluster.scheduler["101"] = "FAILED"
    sweep(fakes)
    [body] = fakes.forge.bodies
    assert "### ❌ train · 2 runs · 1 passed, 1 failed" in body
    assert "**Next:** `/train retry`" in body
    assert [content for _, content in fakes.forge.reactions] == ["eyes", "confused"]
    assert not fakes.cluster.active


@pytest.mark.parametrize(("second", "reaction"), [("COMPLETED", "rocket"), ("TIMEOUT", "confused"), ("CANCELLED", "confused")])
def test_the_reaction_is_the_worst_ones(second: str, reaction: str) -> None:
    fakes, away = two()
    handle(comment_event("/train profile=cluster,away"), fakes.world)
    fakes.cluster.scheduler["100"] = "COMPLETED"
    away.scheduler["100"] = second
    sweep(fakes)
    assert fakes.forge.reactions[-1] == (99, reaction)
    assert len(fakes.forge.bodies) == 1


def test_a_group_of_which_one_never_started_is_not_cheered() -> None:
    fakes = Fakes()
    _die_at_second(fakes)
    with pytest.raises(KeyboardInterrupt):
        handle(comment_event("/train a=1,2"), fakes.world)
    fakes.trace.fail.clear()
    fakes.cluster.scheduler["100"] = "COMPLETED"
    sweep(fakes)
    assert "### ❌" in fakes.forge.bodies[0]
    assert fakes.forge.reactions[-1] == (99, "confused")


def test_a_cluster_that_does_not_answer_is_not_taken_for_a_run_that_never_started() -> None:
    fakes, away = two(POLICY)
    handle(comment_event("/train profile=cluster,away"), fakes.world)
    fakes.cluster.scheduler["100"] = "COMPLETED"
    away.records = _down  # type: ignore[method-assign,assignment]
    sweep(fakes)
    [body] = fakes.forge.bodies
    assert "### ❓ train · 2 runs · 1 passed, 1 not known right now" in body
    assert UNHEARD in rows(body)[1]
    assert [content for _, content in fakes.forge.reactions] == ["eyes"]


def test_the_group_is_whole_after_a_cluster_answers_again() -> None:
    fakes, away = two()
    handle(comment_event("/train profile=cluster,away"), fakes.world)
    fakes.cluster.scheduler["100"] = away.scheduler["100"] = "COMPLETED"
    real = away.sweep
    away.sweep = _down  # type: ignore[method-assign,assignment]
    sweep(fakes)
    assert "1 passed, 1 waiting" in fakes.forge.bodies[0]
    away.sweep = real  # type: ignore[method-assign]
    sweep(fakes)
    assert "### ✅ train · 2 runs · 2 passed" in fakes.forge.bodies[0]


def test_a_sweep_between_the_submissions_and_the_report_leaves_one_comment() -> None:
    fakes = Fakes()
    fakes.cluster.age = 31

    fakes.trace.at["cluster.save"] = lambda: sweep(fakes)
    handle(comment_event("/train a=1,2"), fakes.world)
    assert len(fakes.forge.bodies) == 1
    assert "2 runs · 2 waiting" in fakes.forge.bodies[0]


def test_cancel_all_of_a_group() -> None:
    fakes = Fakes()
    handle(comment_event("/train a=1,2"), fakes.world)
    ended = handle(comment_event("/train cancel all", comment_id=100), fakes.world)
    assert told(ended) == ("answered", "cancelled")
    assert len(fakes.trace.of("cluster.cancel")) == 2


def test_strangers_words_do_nothing_in_the_table() -> None:
    members = tuple(Member(run_key=f"{number:016x}", profile="cluster") for number in range(2))
    bad = "@org/everyone <img src=x> | `x`"
    known = {
        members[0].run_key: run_record(
            run_key=members[0].run_key, overrides=(f"a={bad}",), reason=bad, state=State.PENDING, results={bad: bad}, group=members
        ),
        members[1].run_key: run_record(run_key=members[1].run_key, overrides=("a=1",), group=members),
    }
    text = "\n".join(group_lines(members, known, {}, NOON, Fakes().world.settings.voice))
    assert acting(text, (), ("https://github.com/org/repo/", "https://logs.example.com/")) == []
    assert len(rows(text)) == 2


# --------------------------------------------------------------------------- several commands in one comment


def test_each_command_has_its_own_comment() -> None:
    fakes = Fakes()
    ended = handle(comment_event("/train a=1\n/train a=2\n/train status\n\nthanks!\n/train a=3"), fakes.world)
    assert ended.exit is Exit.OK
    assert len(fakes.forge.bodies) == 3
    assert sorted(record.trigger for record in records(fakes.cluster)) == ["comment:99", "comment:99:2"]
    assert fakes.trace.of("forge.react eyes") == ["forge.react eyes"]
    # The second of them sees what the first has done.
    assert fakes.forge.bodies[2].count("`a=") == 2


def test_all_or_none_when_one_is_malformed() -> None:
    fakes = Fakes()
    ended = handle(comment_event("/train a=1\n/train profil=x\n/train a=3"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.MALFORMED, ("malformed", "bad-key"))
    assert not fakes.trace.of("connect", "cluster", "forge.create_check")
    assert "Not understood: line 2" in fakes.forge.bodies[0]
    assert "None of the comment's 3 commands was carried out." in fakes.forge.bodies[0]


@pytest.mark.parametrize("broken", ["/train recipe=gone", "/train profile=gone", "/train logs abcd", "/train profile=broken"])
def test_one_that_cannot_be_does_not_stop_the_next(broken: str) -> None:
    fakes = Fakes(profiles={"cluster": PROFILE, "broken": "executor: slurm\nacount: x\n"})
    ended = handle(comment_event(f"{broken}\n/train a=2"), fakes.world)
    assert ended.exit is not Exit.OK
    assert len(fakes.cluster.runs) == 1
    assert len(fakes.forge.bodies) == 2
    assert records(fakes.cluster)[0].trigger == "comment:99:2"


def test_delivered_twice_each_finds_its_own() -> None:
    fakes = Fakes()
    for _ in range(2):
        handle(comment_event("/train a=1\n/train a=1\n/train status"), fakes.world)
    assert (len(fakes.cluster.runs), len(fakes.forge.bodies)) == (2, 3)


def test_more_commands_than_the_policy_allows_are_none() -> None:
    fakes = Fakes(POLICY + "most: { commands: 2 }\n")
    ended = handle(comment_event("/train a=1\n/train a=2\n/train a=3"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.DENIED, ("denied", "too-many-commands"))
    assert not fakes.trace.of("cluster")
    assert len(fakes.forge.bodies) == 1


def test_the_worst_of_several_is_the_steps() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(run_key="1" * 16), "pending", "PENDING", (pull_tag(REPOSITORY, 7),))
    fakes.cluster.cancel_says = CommandOutput(1, "", "no")
    ended = handle(comment_event("/train help\n/train cancel 1111\n/train help"), fakes.world)
    assert (ended.exit, told(ended)) == (Exit.CLUSTER, ("refused", "cancel-refused"))


def test_a_retry_of_two_is_a_group() -> None:
    fakes = Fakes()
    handle(comment_event("/train a=1,2,3"), fakes.world)
    fakes.cluster.scheduler.update({"100": "FAILED", "101": "COMPLETED", "102": "TIMEOUT"})
    sweep(fakes)
    ended = handle(comment_event("/train retry", comment_id=100), fakes.world)
    assert told(ended) == ("run", "submitted")
    again = [record for record in records(fakes.cluster) if record.trigger == "comment:100"]
    assert sorted(record.overrides for record in again) == [("a=1",), ("a=3",)]
    assert all(record.attempt == 2 for record in again)
    assert len(again[0].group) == 2
    assert len(fakes.forge.bodies) == 2
    assert replace(comment_event(), line=2).trigger == "comment:99:2"
