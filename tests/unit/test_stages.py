"""A pipeline from the command to its end: its jobs and what they wait for, its one comment, cancel, retry, the gate, the limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from dispatcher.configuration import read_policy
from dispatcher.errors import Exit
from dispatcher.flow import handle
from dispatcher.group import group_lines
from dispatcher.ports import Claimed
from dispatcher.record import RunRecord, parse_record
from dispatcher.slurm import State
from dispatcher.watching import watch
from dispatcher.world import Outcome
from tests.fakes import HEAD, NOON, OTHER, POLICY, PROFILE, FakeCloud, FakeCluster, Fakes, comment_event
from tests.powerless import acting
from tests.unit.test_groups import TWO_CLUSTERS, records, rows, told

STAGES = """\
  full:
    stages:
      pretrain: { recipe: default }
      sft: { recipe: eval }
      rl: { recipe: default }
"""
RESCUE = "      rescue: { recipe: eval, after: pretrain, when: afternotok }\n"
GATE = "gate:\n  required: [{ recipe: full }]\n"


def policy(stages: str = STAGES, more: str = "") -> str:
    text = POLICY.replace("schedules:", f"{stages}schedules:").partition("gate:")[0]
    return text + GATE + "watch: { profiles: [cluster] }\n" + more


def one(stages: str = STAGES, more: str = "", **settings: object) -> Fakes:
    return Fakes(policy(stages, more), {"cluster": PROFILE}, **settings)  # type: ignore[arg-type]


def give(fakes: Fakes, words: str, number: int = 99) -> Outcome:
    return handle(comment_event(f"/train {words}", comment_id=number), fakes.world)


def sweep(fakes: Fakes) -> Outcome:
    return watch(fakes.world, read_policy(fakes.world))


def by_stage(*clusters: FakeCluster, trigger: str = "comment:99") -> dict[str, RunRecord]:
    return {record.stage: record for record in records(*clusters) if record.trigger == trigger}


def end(fakes: Fakes, cluster: FakeCluster | None = None, **words: str) -> None:
    """The scheduler's words for stages' jobs; the newest run of each is meant."""
    known = {record.stage: record for record in records(cluster or fakes.cluster)}
    for stage, word in words.items():
        (cluster or fakes.cluster).scheduler[(cluster or fakes.cluster).runs[known[stage].run_key].job_id] = word


def waits(fakes: Fakes) -> list[tuple[object, object]]:
    """What each compiled job waits for."""
    found = []
    for job in fakes.compiler.jobs:
        executor = job["executor"]
        assert isinstance(executor, Mapping)
        jobs = executor.get("dependencies") or []
        assert isinstance(jobs, list)
        kills = executor["additional_parameters"].get("kill-on-invalid-dep")
        assert (kills == "yes") == bool(jobs)
        found.append((executor.get("dependency_type") if jobs else None, [handle.rpartition("/")[2] for handle in jobs]))
    return found


def gate(fakes: Fakes) -> str | None:
    return fakes.forge.check("dispatch/gate").conclusion


# --------------------------------------------------------------------------- submitted


def test_each_stage_is_a_job_that_waits_for_the_one_before() -> None:
    fakes = one()
    ended = give(fakes, "recipe=full lr=1")
    assert (ended.exit, told(ended)) == (Exit.OK, ("run", "submitted"))
    assert waits(fakes) == [(None, []), ("afterok", ["100"]), ("afterok", ["101"])]
    made = by_stage(fakes.cluster)
    assert [(record.stage, record.recipe, record.name, record.overrides) for record in made.values()] == [
        ("pretrain", "default", "full:pretrain", ("lr=1",)),
        ("sft", "eval", "full:sft", ("lr=1",)),
        ("rl", "default", "full:rl", ("lr=1",)),
    ]
    assert len({record.run_key for record in made.values()}) == 3
    [body] = fakes.forge.bodies
    assert "### ⏳ train · full · 3 stages · 3 waiting" in body
    assert [row.split("|")[2].strip() for row in rows(body)] == ["`pretrain` (`default`)", "`sft` (`eval`)", "`rl` (`default`)"]
    assert [row.split("|")[4].strip() for row in rows(body)] == ["", "`pretrain`", "`sft`"]
    assert "All with `lr=1`" in body
    names = [check.name for check in fakes.forge.of_runs]
    assert names == ["dispatch / cluster / full:pretrain", "dispatch / cluster / full:sft", "dispatch / cluster / full:rl"]
    # The check exists before the job, of every stage.
    order = [step.split()[0] for step in fakes.trace.of("forge.create_check dispatch /", "cluster.submit")]
    assert order == ["forge.create_check", "cluster.submit"] * 3


def test_a_stage_knows_where_those_before_it_left_what_they_wrote() -> None:
    fakes = one()
    give(fakes, "recipe=full")
    made = by_stage(fakes.cluster)
    runs = {stage: fakes.cluster.runs[record.run_key].submission for stage, record in made.items()}
    assert runs["sft"] is not None
    assert f"export DISPATCH_STAGE_DIR_PRETRAIN=/jobs/runs/{made['pretrain'].run_key}\n" in runs["sft"].env_file
    assert "export DISPATCH_PIPELINE=full\nexport DISPATCH_STAGE=sft\n" in runs["sft"].env_file
    assert runs["pretrain"] is not None
    assert "STAGE_DIR" not in runs["pretrain"].env_file


def test_every_kind_of_dependency_and_jobs_that_the_profile_waits_for() -> None:
    stages = """\
  full:
    stages:
      a: { recipe: default }
      b: { recipe: default, after: [] }
      c: { recipe: default, after: [a, b], when: afterany }
      d: { recipe: default, after: a, when: aftercorr }
      e: { recipe: default, after: b, when: afternotok, profile: waits }
"""
    fakes = Fakes(
        policy(stages), {**TWO_CLUSTERS, "waits": "extends: cluster\ndependencies: 7\ndependency_type: afternotok\n", "cluster": PROFILE}
    )
    assert give(fakes, "recipe=full").exit is Exit.OK
    assert [(kind, jobs) for kind, jobs in waits(fakes) if jobs] == [
        ("afterany", ["100", "101"]),
        ("aftercorr", ["100"]),
        ("afternotok", ["7", "101"]),
    ]


def test_a_profile_that_waits_in_another_way_is_refused_for_its_stage_alone() -> None:
    stages = STAGES.replace("sft: { recipe: eval }", "sft: { recipe: eval, profile: waits }")
    fakes = Fakes(policy(stages), {**TWO_CLUSTERS, "waits": "extends: cluster\ndependencies: 7\ndependency_type: afterany\n"})
    ended = give(fakes, "recipe=full")
    assert ended.exit is Exit.CONFIG
    [body] = fakes.forge.bodies
    assert "1 waiting, 2 not started" in body
    assert "the configuration cannot be used" in rows(body)[1]
    assert "stage `sft` did not start" in rows(body)[2]


def test_delivered_twice_it_is_the_same_jobs() -> None:
    fakes = one()
    first = give(fakes, "recipe=full")
    again = give(fakes, "recipe=full")
    assert again.outputs == first.outputs
    assert (fakes.steps.count("cluster.submit"), len(fakes.forge.comments)) == (3, 1)


def die_at_second(fakes: Fakes) -> None:
    """The process is killed when it submits its second run."""

    def second() -> None:
        fakes.fail_with("cluster.submit", OSError())

    fakes.trace.at["cluster.submit"] = lambda: fakes.trace.at.update({"compiler.compile": second})


@pytest.mark.parametrize(
    ("between", "waiting"),
    [
        ("RUNNING", [(None, []), ("afterok", ["100"]), ("afterok", ["101"])]),
        # Slurm takes a dependency on a job that it has forgotten for met: what has ended is decided here.
        ("COMPLETED", [(None, []), (None, []), ("afterok", ["101"])]),
    ],
)
def test_killed_between_two_stages_the_next_delivery_goes_on(between: str, waiting: list[tuple[object, object]]) -> None:
    fakes = one()
    die_at_second(fakes)
    with pytest.raises(OSError):
        give(fakes, "recipe=full")
    fakes.trace.fail.clear()
    fakes.compiler.jobs.clear()
    fakes.cluster.scheduler["100"] = between
    fakes.compiler.jobs.append({"executor": {"additional_parameters": {}}})
    assert give(fakes, "recipe=full").exit is Exit.OK
    assert waits(fakes) == waiting
    assert sorted(by_stage(fakes.cluster)) == ["pretrain", "rl", "sft"]
    assert len(fakes.forge.bodies) == 1


def test_killed_and_meanwhile_the_first_one_failed() -> None:
    fakes = one()
    die_at_second(fakes)
    with pytest.raises(OSError):
        give(fakes, "recipe=full")
    fakes.trace.fail.clear()
    fakes.cluster.scheduler["100"] = "FAILED"
    give(fakes, "recipe=full")
    sweep(fakes)
    assert {stage: record.state for stage, record in by_stage(fakes.cluster).items()} == {
        "pretrain": State.FAILED,
        "sft": State.CANCELLED,
        "rl": State.CANCELLED,
    }
    assert not fakes.cluster.active
    assert len(fakes.cluster.scheduler) == 1, "nothing of it has reached the scheduler"
    assert gate(fakes) == "failure"


@pytest.mark.parametrize(
    ("meanwhile", "at_once", "then"),
    [
        ("RUNNING", True, State.PENDING),
        ("COMPLETED", True, State.PENDING),
        ("FAILED", False, State.CANCELLED),
        (None, False, State.QUEUED),
    ],
)
def test_what_ended_while_the_code_was_sent_is_seen(meanwhile: str | None, at_once: bool, then: State) -> None:
    """Sending may take longer than Slurm remembers a job, and it takes a dependency on one that it has forgotten for met."""
    fakes = one()
    real = fakes.cluster.claim
    fakes.cluster.claim = lambda request: _unpacked(real(request))  # type: ignore[method-assign]

    def sent() -> None:
        fakes.cluster.scheduler.pop("100")
        if meanwhile:
            fakes.cluster.scheduler["100"] = meanwhile

    fakes.trace.at["cluster.submit hold"] = sent
    give(fakes, "recipe=full")
    assert [run.submission is not None and run.submission.hold for run in fakes.cluster.runs.values()] == [False, True, True]
    sft = by_stage(fakes.cluster)["sft"]
    assert ((sft.job_id != ""), sft.state) == (at_once, then)
    sweep(fakes)
    assert by_stage(fakes.cluster)["sft"].state is then


def test_after_a_long_time_it_is_looked_at_again_too() -> None:
    fakes = one()
    fakes.trace.at["forge.create_check dispatch / cluster / full:rl queued"] = lambda: fakes.clock.sleep(90)
    give(fakes, "recipe=full")
    assert fakes.trace.of("cluster.submit", "cluster.release") == [
        "cluster.submit",
        "cluster.submit",
        "cluster.submit hold",
        f"cluster.release {by_stage(fakes.cluster)['rl'].run_key[:4]}",
    ]


def _unpacked(answer: object) -> object:
    return replace(answer, has_package=False) if isinstance(answer, Claimed) else answer


def test_a_stage_that_the_scheduler_refuses_keeps_back_what_comes_after_it() -> None:
    fakes = one()
    fakes.cluster.refuses = "sbatch: error: Invalid account"
    ended = give(fakes, "recipe=full")
    assert (ended.exit, told(ended)) == (Exit.CLUSTER, ("refused", "sbatch-refused"))
    assert fakes.steps.count("cluster.claim") == 1
    fakes.cluster.refuses = ""
    assert told(give(fakes, "recipe=full")) == ("run", "submitted")
    assert len(by_stage(fakes.cluster)) == 3


# --------------------------------------------------------------------------- how it ends


def test_a_failed_stage_ends_the_others_and_says_which() -> None:
    fakes = one(STAGES + RESCUE)
    give(fakes, "recipe=full")
    end(fakes, pretrain="FAILED", sft="CANCELLED", rl="CANCELLED", rescue="COMPLETED")
    fakes.cluster.reason = "DependencyNeverSatisfied"
    no_nodes(fakes)
    sweep(fakes)
    [body] = fakes.forge.bodies
    assert "### ❌ train · full · 4 stages · 1 failed, 2 cancelled, 1 passed" in body
    assert "was cancelled (stage pretrain failed with exit code 1" in rows(body)[1]
    assert "was cancelled (stage sft was cancelled)" in rows(body)[2]
    assert "`/train retry` runs what failed once more, and the stages that come after it" in body
    assert fakes.forge.reactions[-1] == (99, "confused")
    assert gate(fakes) == "failure"


def test_what_was_not_needed_fails_nothing() -> None:
    fakes = one(STAGES + RESCUE)
    give(fakes, "recipe=full")
    end(fakes, pretrain="COMPLETED", sft="COMPLETED", rl="COMPLETED", rescue="CANCELLED")
    no_nodes(fakes)
    sweep(fakes)
    [body] = fakes.forge.bodies
    assert "### ✅ train · full · 4 stages · 3 passed, 1 not needed" in body
    assert rows(body)[3].startswith("| ⏭️ | `rescue`")
    assert fakes.forge.check("dispatch / cluster / full:rescue").conclusion == "skipped"
    assert fakes.forge.reactions[-1] == (99, "rocket")
    assert gate(fakes) == "success"


def no_nodes(fakes: Fakes) -> None:
    """What Slurm ended before it began has been on no node."""
    real = fakes.cluster.sweep

    def swept() -> object:
        found = real()
        lines = [line.replace("|n1|", "||") if "|CANCELLED|" in line else line for line in found.sacct.stdout.splitlines(keepends=True)]
        return type(found)(**{**vars(found), "sacct": type(found.sacct)(0, "".join(lines))})

    fakes.cluster.sweep = swept  # type: ignore[method-assign,assignment]


def test_strangers_words_do_nothing_in_the_table() -> None:
    fakes = one()
    give(fakes, "recipe=full")
    bad = "@org/everyone <img src=x> | `x`"
    made = {
        record.run_key: record.model_copy(update={"overrides": (f"a={bad}",) if record.stage == "sft" else (), "reason": bad})
        for record in records(fakes.cluster)
    }
    results = {bad: bad}
    made = {key: record.model_copy(update={"results": results}) for key, record in made.items()}
    group = next(iter(made.values())).group
    text = "\n".join(group_lines(group, made, {}, NOON, fakes.world.settings.voice))
    assert acting(text, (), ("https://github.com/org/repo/", "https://logs.example.com/")) == []
    assert len(rows(text)) == 3


# --------------------------------------------------------------------------- on other clusters, and without Slurm


def far() -> tuple[Fakes, FakeCluster]:
    both = policy(STAGES.replace("sft: { recipe: eval }", "sft: { recipe: eval, profile: away }")).replace("[cluster]", "[cluster, away]")
    fakes = Fakes(both, TWO_CLUSTERS)
    away = fakes.clusters["away.example.com"] = FakeCluster(fakes.trace)
    return fakes, away


def test_what_waits_for_another_cluster_lies_ready_there() -> None:
    fakes, away = far()
    assert give(fakes, "recipe=full").exit is Exit.OK
    assert waits(fakes) == [(None, []), (None, []), (None, [])]
    assert (len(fakes.cluster.queue), len(away.queue)) == (1, 1)
    [body] = fakes.forge.bodies
    assert "full · 3 stages · 1 waiting, 2 queued here" in body
    assert "| waits |" in rows(body)[1]
    fakes.cluster.scheduler["100"] = "COMPLETED"
    sweep(fakes)
    assert by_stage(away)["sft"].state is State.PENDING
    assert by_stage(fakes.cluster)["rl"].state is State.QUEUED
    assert ["| waits |" in row for row in rows(fakes.forge.bodies[0])] == [False, False, True]
    end(fakes, away, sft="COMPLETED")
    sweep(fakes)
    sweep(fakes)
    assert by_stage(fakes.cluster)["rl"].state is State.PENDING
    end(fakes, rl="COMPLETED")
    sweep(fakes)
    assert "### ✅ train · full · 3 stages · 3 passed" in fakes.forge.bodies[0]
    assert gate(fakes) == "success"


def test_on_another_cluster_it_is_called_off_when_it_never_can_begin() -> None:
    fakes, away = far()
    give(fakes, "recipe=full")
    fakes.cluster.scheduler["100"] = "TIMEOUT"
    for _ in range(2):
        sweep(fakes)
    assert not fakes.cluster.queue
    assert not away.queue
    [body] = fakes.forge.bodies
    assert "was cancelled (stage pretrain was ended at its time limit" in rows(body)[1]
    assert "was cancelled (stage sft was cancelled" in rows(body)[2]
    assert not fakes.cluster.active
    assert not away.active


def test_a_stage_behind_an_api_waits_in_its_ledger() -> None:
    stages = STAGES.replace("sft: { recipe: eval }", "sft: { recipe: default, profile: box }")
    box = "executor: docker\ncontainer_image: python:3.12\ntunnel: ssh\nhost: box.example.com\nuser: ci\njob_dir: /ledger\n"
    fakes = Fakes(policy(stages).replace("[cluster]", "[cluster, box]"), {"cluster": PROFILE, "box": box})
    ledger = fakes.folders["/ledger"] = FakeCluster(fakes.trace)
    api = FakeCloud(fakes.trace)
    world = replace(fakes.world, cloud=lambda profile: api)
    handle(comment_event("/train recipe=full"), world)
    assert (len(ledger.queue), len(fakes.cluster.queue)) == (1, 1)
    fakes.cluster.scheduler["100"] = "COMPLETED"
    watch(world, read_policy(world))
    assert (len(ledger.queue), by_stage(ledger)["sft"].state) == (0, State.PENDING)


def test_two_ledgers_of_one_slurm_wait_for_each_other_by_slurm() -> None:
    both = policy(STAGES.replace("sft: { recipe: eval }", "sft: { recipe: eval, profile: beside }")).replace(
        "[cluster]", "[cluster, beside]"
    )
    fakes = Fakes(both, {"cluster": PROFILE, "beside": "extends: cluster\nremote_job_dir: /others\n"})
    fakes.folders["/others"] = beside = FakeCluster(fakes.trace)
    beside.scheduler = fakes.cluster.scheduler
    give(fakes, "recipe=full")
    first = by_stage(fakes.cluster)["pretrain"]
    assert waits(fakes)[1] == ("afterok", [first.job_id])
    job = beside.runs[by_stage(beside)["sft"].run_key]
    assert job.submission is not None
    assert f"DISPATCH_STAGE_DIR_PRETRAIN={first.run_dir}\n" in job.submission.env_file
    fakes.cluster.scheduler[first.job_id] = "FAILED"
    # Slurm has ended it, and has forgotten it since.
    beside.scheduler = {}
    fakes.cluster.scheduler.pop(by_stage(fakes.cluster)["rl"].job_id)
    sweep(fakes)
    sft, rl = by_stage(beside)["sft"], by_stage(fakes.cluster)["rl"]
    assert (sft.state, sft.reason[:20]) == (State.CANCELLED, "stage pretrain faile")
    sweep(fakes)
    assert by_stage(fakes.cluster)["rl"].reason == "stage sft was cancelled"
    assert rl.state in (State.PENDING, State.CANCELLED)


def test_a_ledger_that_does_not_answer_decides_nothing() -> None:
    fakes, away = far()
    give(fakes, "recipe=full")
    fakes.cluster.scheduler["100"] = "COMPLETED"
    fakes.cluster.records = _down  # type: ignore[method-assign,assignment]
    sweep(fakes)
    assert by_stage(away)["sft"].state is State.QUEUED


def _down(*_: object) -> None:
    from dispatcher.errors import SshError

    raise SshError("ssh.unreachable", "login.example.com does not answer.")


def test_on_this_machine_stages_follow_each_other_in_one_process() -> None:
    local = {"cluster": "executor: local\njob_dir: /state\n"}
    fakes = Fakes(policy(), local)

    def passed() -> None:
        for run in fakes.cluster.runs.values():
            run.exit_file = "0" if run.job_id else ""

    fakes.cluster.before_sweep = [passed] * 12
    ended = give(fakes, "recipe=full")
    assert ended.exit is Exit.OK
    assert {record.state for record in by_stage(fakes.cluster).values()} == {State.SUCCEEDED}
    assert "3 stages · 3 passed" in fakes.forge.bodies[0]


def test_on_this_machine_a_failure_ends_the_rest() -> None:
    fakes = Fakes(policy(), {"cluster": "executor: local\njob_dir: /state\n"})

    def failed() -> None:
        for run in fakes.cluster.runs.values():
            run.exit_file = "3" if run.job_id else ""

    fakes.cluster.before_sweep = [failed] * 12
    ended = give(fakes, "recipe=full")
    assert ended.exit is Exit.RUN_FAILED
    assert [record.state for record in by_stage(fakes.cluster).values()] == [State.FAILED, State.CANCELLED, State.CANCELLED]
    assert "1 failed, 2 cancelled" in fakes.forge.bodies[0]


# --------------------------------------------------------------------------- limits, queue, approval, who may


def test_every_stage_counts_among_the_runs() -> None:
    fakes = one(more="most: { runs: 5 }\n")
    assert told(give(fakes, "recipe=full lr=1,2")) == ("denied", "too-many-runs")
    assert not fakes.trace.of("cluster")
    assert told(give(fakes, "recipe=full lr=1", 100)) == ("run", "submitted")


def test_two_pipelines_of_one_command_do_not_wait_for_each_other() -> None:
    fakes = one()
    give(fakes, "recipe=full lr=1,2")
    assert waits(fakes) == [(None, []), ("afterok", ["100"]), ("afterok", ["101"]), (None, []), ("afterok", ["103"]), ("afterok", ["104"])]
    [body] = fakes.forge.bodies
    assert "train · 6 runs · 6 waiting" in body
    assert rows(body)[3].split("|")[5].strip() == "`lr=2`"


def test_where_turns_are_taken_a_stage_holds_up_nobody() -> None:
    fakes = one(more="active: { user: 1 }\n")
    give(fakes, "recipe=full")
    assert waits(fakes) == [(None, []), (None, []), (None, [])]
    assert len(fakes.cluster.queue) == 2
    give(fakes, "x=1", 100)
    assert "place 1 in the queue: alice has 1 of 1 active runs" in fakes.forge.bodies[1]
    end(fakes, pretrain="COMPLETED")
    sweep(fakes)
    made = by_stage(fakes.cluster)
    assert (made["sft"].state, made["rl"].state) == (State.PENDING, State.QUEUED)


def test_each_stage_is_held_to_its_recipes_own_limits() -> None:
    fakes = one(more="overrides: { allow: ['*', 'run.nodes'] }\nrecipe_rules: { eval: { limits: { nodes: 1 } } }\n")
    ended = give(fakes, "recipe=full run.nodes=2")
    assert told(ended) == ("denied", "too-many-nodes")
    assert not fakes.trace.of("cluster")


@pytest.mark.parametrize("rule", ["full: { allow: { users: [carol] } }", "eval: { allow: { users: [carol] } }"])
def test_a_pipeline_leads_around_no_rule(rule: str) -> None:
    fakes = one(more=f"recipe_rules: {{ {rule} }}\n")
    ended = give(fakes, "recipe=full")
    assert told(ended) == ("denied", "role-too-low")
    assert not fakes.trace.of("cluster")


def test_teams_of_a_stages_rules_are_looked_up() -> None:
    fakes = one(more="recipe_rules: { eval: { allow: { teams: [org/ml] } } }\n")
    assert told(give(fakes, "recipe=full")) == ("denied", "role-too-low")
    fakes.forge.teams.add(("org", "ml", "alice"))
    assert told(give(fakes, "recipe=full", 100)) == ("run", "submitted")


def test_above_a_threshold_the_whole_pipeline_waits_for_a_second_person() -> None:
    fakes = one(more="recipe_rules: { eval: { approval: { gpu_hours: 1 } } }\n")
    fakes.files["profiles/cluster.yaml"] = PROFILE + "gpus_per_node: 8\n"
    fakes.forge.roles["dave"] = "write"
    ended = give(fakes, "recipe=full")
    assert told(ended)[1] == "waits-second"
    assert not fakes.trace.of("cluster.submit")
    handle(comment_event(f"/train approve sha={HEAD}", author="dave", comment_id=100), fakes.world)
    made = by_stage(fakes.cluster)
    assert list(made) == ["pretrain", "sft", "rl"]
    assert {record.approved_by for record in made.values()} == {"dave"}
    assert waits(fakes) == [(None, []), ("afterok", ["100"]), ("afterok", ["101"])]


def test_what_waits_for_a_second_person_still_insists_on_a_run_of_its_own() -> None:
    fakes = one(more="approval: { gpu_hours: 1 }\n")
    fakes.files["profiles/cluster.yaml"] = PROFILE + "gpus_per_node: 8\n"
    assert told(give(fakes, "fresh=true a=1"))[1] == "waits-second"
    assert "profile=cluster recipe=default fresh=true a=1" in fakes.forge.check("dispatch/approval").summary


# --------------------------------------------------------------------------- plan, cancel


def test_a_stages_check_says_how_to_run_it_again_and_what_it_came_after() -> None:
    fakes = failed_sft()
    check = fakes.forge.check("dispatch / cluster / full:sft")
    key = by_stage(fakes.cluster)["sft"].run_key[:8]
    assert "| What | `full:sft` (`eval.py`)" in check.summary
    assert "| After | `pretrain` |" in check.summary
    assert f"`/train retry {key}` runs it once more." in check.summary


def test_the_preview_shows_every_stage_and_what_it_waits_for() -> None:
    fakes = one()
    ended = give(fakes, "plan recipe=full")
    assert ended.exit is Exit.OK
    assert not fakes.trace.of("cluster.submit")
    [body] = fakes.forge.bodies
    assert [line for line in body.splitlines() if line.startswith("### Preview")] == [
        "### Preview: full:pretrain on cluster",
        "### Preview: full:sft on cluster",
        "### Preview: full:rl on cluster",
    ]
    assert "| After | `pretrain`; Slurm waits |" in body
    assert [jobs for _, jobs in waits(fakes)] == [[], ["JOB_OF_pretrain"], ["JOB_OF_sft"]]
    assert len(fakes.trace.of("cluster.estimate")) == 1


def test_cancelling_a_stage_ends_what_comes_after_it_first() -> None:
    fakes = one(STAGES + RESCUE)
    give(fakes, "recipe=full")
    made = by_stage(fakes.cluster)
    fakes.cluster.scheduler["100"] = "RUNNING"
    ended = give(fakes, f"cancel {made['sft'].run_key[:8]}", 100)
    assert told(ended) == ("answered", "cancelled")
    assert fakes.trace.of("cluster.cancel") == [f"cluster.cancel {made[stage].run_key[:4]}" for stage in ("rl", "sft")]
    assert "2 runs are being ended, 1 of them because they come after another one" in fakes.forge.bodies[1]
    ended = give(fakes, f"cancel {made['pretrain'].run_key[:8]}", 101)
    last = fakes.trace.of("cluster.cancel")[2:]
    assert last[-1] == f"cluster.cancel {made['pretrain'].run_key[:4]}"
    assert len(last) == 4


def test_cancel_all_begins_at_the_end() -> None:
    fakes = one(STAGES + RESCUE)
    give(fakes, "recipe=full")
    give(fakes, "cancel all", 100)
    made = by_stage(fakes.cluster)
    order = [made[stage].run_key[:4] for stage in ("rescue", "rl", "sft", "pretrain")]
    assert fakes.trace.of("cluster.cancel") == [f"cluster.cancel {key}" for key in order]


def test_a_stage_that_lies_ready_is_taken_out_with_the_one_before_it() -> None:
    fakes, away = far()
    give(fakes, "recipe=full")
    made = by_stage(fakes.cluster)
    give(fakes, f"cancel {made['pretrain'].run_key[:8]}", 100)
    assert by_stage(away)["sft"].state is State.CANCELLED
    assert by_stage(fakes.cluster)["rl"].state is State.CANCELLED
    assert not away.queue


# --------------------------------------------------------------------------- retry


def failed_sft(stages: str = STAGES) -> Fakes:
    fakes = one(stages)
    give(fakes, "recipe=full lr=1")
    end(fakes, pretrain="COMPLETED", sft="FAILED", rl="CANCELLED", **({"rescue": "CANCELLED"} if "rescue" in stages else {}))
    no_nodes(fakes)
    sweep(fakes)
    fakes.compiler.jobs.clear()
    return fakes


@pytest.mark.parametrize("named", [True, False])
def test_what_failed_is_run_again_with_what_comes_after_it(named: bool) -> None:
    fakes = failed_sft(STAGES + RESCUE)
    first = by_stage(fakes.cluster)
    ended = give(fakes, f"retry {first['sft'].run_key[:8]}" if named else "retry", 100)
    assert told(ended) == ("run", "submitted")
    again = by_stage(fakes.cluster, trigger="comment:100")
    assert list(again) == ["sft", "rl"]
    # pretrain has passed: nothing is waited for.
    assert waits(fakes) == [(None, []), ("afterok", ["104"])]
    assert [(record.attempt, record.retry_of) for record in again.values()] == [(2, first["sft"].run_key), (2, first["rl"].run_key)]
    body = fakes.forge.bodies[1]
    assert "full · 4 stages" in body
    assert "an earlier run, reused" in rows(body)[0]
    env = fakes.cluster.runs[again["sft"].run_key].submission
    assert env is not None
    assert f"DISPATCH_STAGE_DIR_PRETRAIN=/jobs/runs/{first['pretrain'].run_key}\n" in env.env_file
    end(fakes, sft="COMPLETED", rl="COMPLETED")
    sweep(fakes)
    assert "### ✅ train · full · 4 stages · 3 passed, 1 not needed" in fakes.forge.bodies[1]
    assert fakes.forge.reactions[-1] == (100, "rocket")


def test_a_retry_of_a_retry_still_knows_the_first_stage() -> None:
    fakes = failed_sft()
    give(fakes, "retry", 100)
    end(fakes, sft="COMPLETED", rl="FAILED")
    sweep(fakes)
    fakes.compiler.jobs.clear()
    give(fakes, "retry", 101)
    again = by_stage(fakes.cluster, trigger="comment:101")
    assert list(again) == ["rl"]
    assert (waits(fakes), again["rl"].attempt) == ([(None, [])], 3)
    assert ["reused" in row for row in rows(fakes.forge.bodies[2])] == [True, True, False]


def test_a_skipped_stage_is_retried_from_what_failed_before_it() -> None:
    fakes = failed_sft()
    give(fakes, f"retry {by_stage(fakes.cluster)['rl'].run_key[:8]}", 100)
    assert list(by_stage(fakes.cluster, trigger="comment:100")) == ["sft", "rl"]


def test_on_another_commit_all_of_it_is_run() -> None:
    fakes = failed_sft()
    pull = fakes.forge.pulls[7]
    fakes.forge.pulls[7] = type(pull)(**{**vars(pull), "head_sha": OTHER})
    give(fakes, "retry", 100)
    assert list(by_stage(fakes.cluster, trigger="comment:100")) == ["pretrain", "sft", "rl"]


def test_a_retry_while_another_branch_runs_waits_for_it() -> None:
    last = "rl: { recipe: default, after: pretrain }\n      last: { recipe: eval, after: [sft, rl] }"
    stages = STAGES.replace("rl: { recipe: default }", last)
    fakes = one(stages)
    give(fakes, "recipe=full")
    end(fakes, pretrain="COMPLETED", sft="FAILED", rl="RUNNING", last="CANCELLED")
    no_nodes(fakes)
    sweep(fakes)
    fakes.compiler.jobs.clear()
    give(fakes, "retry", 100)
    assert list(by_stage(fakes.cluster, trigger="comment:100")) == ["sft", "last"]
    assert waits(fakes) == [(None, []), ("afterok", ["102", "104"])]


def test_delivered_twice_a_retry_is_one() -> None:
    fakes = failed_sft()
    for _ in range(2):
        give(fakes, "retry", 100)
    assert len(records(fakes.cluster)) == 5


def test_a_retry_that_waits_for_a_second_person_runs_what_it_would_have_run() -> None:
    fakes = failed_sft()
    fakes.files[".github/dispatch.yml"] += "approval: { gpu_hours: 1 }\n"
    fakes.files["profiles/cluster.yaml"] = PROFILE + "gpus_per_node: 8\n"
    fakes.forge.roles["dave"] = "write"
    assert told(give(fakes, "retry", 100))[1] == "waits-second"
    assert not by_stage(fakes.cluster, trigger="comment:100")
    handle(comment_event(f"/train approve sha={HEAD}", author="dave", comment_id=101), fakes.world)
    again = by_stage(fakes.cluster, trigger="comment:100")
    assert list(again) == ["sft", "rl"]
    assert {(record.approved_by, record.attempt) for record in again.values()} == {("dave", 2)}


def test_what_stands_in_the_ledger_is_held_to_the_grammar() -> None:
    fakes = failed_sft()
    for run in fakes.cluster.runs.values():
        run.record = parse_record(run.record).model_copy(update={"asked": "recipe=full a=${x}"}).to_json()
    assert told(give(fakes, "retry", 100)) == ("malformed", "interpolation")


# --------------------------------------------------------------------------- gate


def test_the_gate_waits_for_every_stage() -> None:
    fakes = one()
    for words, verdict in (({"pretrain": "COMPLETED"}, None), ({"sft": "COMPLETED"}, None), ({"rl": "COMPLETED"}, "success")):
        if not records(fakes.cluster):
            give(fakes, "recipe=full")
        end(fakes, **words)
        sweep(fakes)
        assert gate(fakes) == verdict


def test_a_run_of_a_stages_recipe_is_no_stage_and_a_stage_is_no_run_of_its_recipe() -> None:
    fakes = one()
    fakes.files[".github/dispatch.yml"] = policy().replace("[{ recipe: full }]", "[{ recipe: full }, { recipe: eval }]")
    give(fakes, "recipe=full")
    end(fakes, pretrain="COMPLETED", sft="COMPLETED", rl="COMPLETED")
    sweep(fakes)
    assert gate(fakes) is None
    summary = fakes.forge.check("dispatch/gate").summary
    assert "| `cluster / full` | `every pull request` | succeeded |" in summary
    assert "| `cluster / eval` | `every pull request` | not started |" in summary


def test_overrides_of_the_policy_count_and_others_do_not() -> None:
    stages = STAGES.replace("sft: { recipe: eval }", "sft: { recipe: eval, overrides: [lr=3] }")
    for words, verdict in (("recipe=full", "success"), ("recipe=full lr=4", None)):
        fakes = one(stages)
        give(fakes, words)
        end(fakes, pretrain="COMPLETED", sft="COMPLETED", rl="COMPLETED")
        sweep(fakes)
        assert gate(fakes) == verdict


def test_the_merge_queue_and_a_schedule_start_all_stages() -> None:
    from dispatcher.event import MergeGroupEvent, ScheduleEvent

    fakes = one()
    fakes.files[".github/dispatch.yml"] = policy().replace("{ name: nightly,", "{ name: nightly, recipe: full,")
    event = MergeGroupEvent("org/repo", HEAD, "refs/heads/gh-readonly-queue/main/pr-7-" + HEAD, "refs/heads/main", "", "main")
    handle(event, fakes.world)
    assert [record.stage for record in records(fakes.cluster)] == ["pretrain", "sft", "rl"]
    handle(ScheduleEvent("org/repo", "0 3 * * *", "5", "main"), fakes.world)
    assert len([record for record in records(fakes.cluster) if record.stage]) == 6
