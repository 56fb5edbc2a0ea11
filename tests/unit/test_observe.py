"""One run after one look: what is read of it, what is believed, what is said."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dispatcher.configuration import read_policy
from dispatcher.errors import DispatchError
from dispatcher.observe import Seen, changed, look, note_no_link, sight_of, sightings_of, tail_of
from dispatcher.ports import ActiveRun
from dispatcher.record import Target, parse_record
from dispatcher.results import MAX_BYTES
from dispatcher.slurm import Absent, Observation, Sight, Silent, State
from dispatcher.telling import report
from tests.fakes import Fakes, run_record

GRACE = timedelta(minutes=10)
KEY = run_record().run_key


def active(reported: str = "", exit_file: str = "", alive: bool = False) -> ActiveRun:
    return ActiveRun(KEY, "100", reported, 60, 0, exit_file, alive)


@pytest.mark.parametrize(
    ("exit_file", "alive", "expected"),
    [
        ("", True, State.RUNNING),
        ("", False, Absent),
        ("0\n", False, State.SUCCEEDED),
        ("0", True, State.SUCCEEDED),
        ("1", False, State.FAILED),
        ("124", False, State.TIMEOUT),
        ("130", False, State.CANCELLED),
        ("143", False, State.CANCELLED),
        ("137", False, State.FAILED),
        ("nonsense", False, Absent),
        ("-1", True, State.RUNNING),
    ],
)
def test_a_local_run_is_known_by_its_process_and_its_exit_status(exit_file: str, alive: bool, expected: object) -> None:
    sweep = Fakes().cluster.sweep()
    sight = sight_of(active(exit_file=exit_file, alive=alive), sightings_of(sweep), "local")
    assert (sight.state if isinstance(sight, Observation) else type(sight)) is expected


def test_a_slurm_run_is_not_known_by_its_exit_status_while_accounting_answers() -> None:
    assert isinstance(sight_of(active(exit_file="0"), sightings_of(Fakes().cluster.sweep()), "slurm"), Absent)


@pytest.mark.parametrize(
    ("reported", "sight", "expected"),
    [
        ("running", Observation(State.RUNNING, "squeue"), False),
        ("pending", Observation(State.PENDING, "squeue"), False),
        ("pending", Observation(State.RUNNING, "squeue"), True),
        ("", Observation(State.PENDING, "squeue"), True),
        ("running", Observation(State.SUCCEEDED, "sacct"), True),
        # Its end was said, but whoever said it died before it left active/.
        ("succeeded", Observation(State.SUCCEEDED, "sacct"), True),
        ("running", Absent(), True),
        ("lost", Absent(), True),
        ("running", Silent("down"), False),
        ("", Silent("down"), False),
        ("unknown", Observation(State.UNKNOWN, "squeue"), False),
    ],
)
def test_what_has_to_be_read_at_all(reported: str, sight: Sight, expected: bool) -> None:
    assert changed(active(reported), sight) is expected


def looked(fakes: Fakes, sight: Sight, **fields: object) -> object:
    fakes.cluster.add(run_record(**fields), "")
    seen = look(fakes.world, fakes.cluster, active(), sight, GRACE)
    assert seen is not None
    return seen.record


ENDED = Observation(State.SUCCEEDED, "sacct", exit_code=0)


@pytest.mark.parametrize(
    ("written", "required", "metrics", "problem"),
    [
        (b'{"loss": 1.5}', True, {"loss": 1.5}, ""),
        (None, False, {}, ""),
        (None, True, {}, "it left no results file"),
        (b"{", False, {}, "not JSON"),
        (b"x" * (MAX_BYTES + 1), False, {}, "larger than"),
    ],
)
def test_results_are_read_where_the_recipe_says_when_it_has_ended(
    written: bytes | None, required: bool, metrics: dict[str, float], problem: str
) -> None:
    fakes = Fakes()
    run = fakes.cluster.add(run_record(results_path="code/out/metrics.json", results_required=required), "")
    run.results = {"results.json": b'{"wrong": 1}'} | ({"code/out/metrics.json": written} if written is not None else {})
    seen = look(fakes.world, fakes.cluster, active(), ENDED, GRACE)
    assert seen is not None
    assert seen.record.results == metrics
    assert problem in seen.record.results_problem
    assert bool(problem) == bool(seen.record.results_problem)


def test_results_are_not_read_before_the_end() -> None:
    fakes = Fakes()
    run = fakes.cluster.add(run_record(), "")
    run.results = {"code/results.json": b'{"loss": 1}'}
    seen = look(fakes.world, fakes.cluster, active(), Observation(State.RUNNING, "squeue"), GRACE)
    assert seen is not None
    assert seen.record.results == {}
    assert fakes.steps == ["cluster.fetch"]


def test_a_failed_run_needs_no_results() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(results_required=True), "")
    seen = look(fakes.world, fakes.cluster, active(), Observation(State.FAILED, "sacct", exit_code=1), GRACE)
    assert seen is not None
    assert (seen.record.state, seen.record.results_problem) == (State.FAILED, "")


def test_the_job_id_of_the_ledger_is_newer_than_the_records() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(job_id="", state=State.SUBMITTING), "")
    seen = look(fakes.world, fakes.cluster, active(), Observation(State.RUNNING, "squeue"), GRACE)
    assert seen is not None
    assert seen.record.job_id == "100"


def test_a_run_that_is_gone_and_one_of_another_repository() -> None:
    fakes = Fakes()
    assert look(fakes.world, fakes.cluster, active(), ENDED, GRACE) is None
    fakes.cluster.add(run_record(target=Target(repository="other/repo", pull=1)), "")
    assert look(fakes.world, fakes.cluster, active(), ENDED, GRACE) is None


def test_secrets_in_the_log_are_masked() -> None:
    fakes = Fakes(to_hide=("hunter22",))
    fakes.cluster.add(run_record(), "", log=b"the password is hunter22\xff\n")
    seen = look(fakes.world, fakes.cluster, active(), ENDED, GRACE)
    assert seen is not None
    assert seen.tail == "the password is ***\ufffd\n"
    assert tail_of(fakes.world, fakes.cluster, run_record()) == seen.tail


# --------------------------------------------------------------------------- saying it


def test_said_then_remembered_then_retired() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(), "running")
    seen = look(fakes.world, fakes.cluster, active("running"), ENDED, GRACE)
    assert seen is not None
    fakes.steps.clear()
    said = report(fakes.world, fakes.cluster, read_policy(fakes.world), seen)
    assert fakes.steps == [
        "forge.find_checks dispatch / cluster / default",
        "forge.create_check dispatch / cluster / default success",
        "forge.find_comment 7",
        "forge.create_comment 7",
        "forge.react rocket",
        "cluster.save succeeded",
        "cluster.account 2024-05",
        "cluster.retire",
    ]
    assert said.comment_url
    assert parse_record(fakes.cluster.runs[KEY].record).target.comment in fakes.forge.comments


def test_a_run_that_goes_on_is_not_retired() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(), "pending")
    seen = look(fakes.world, fakes.cluster, active(), Observation(State.RUNNING, "squeue"), GRACE)
    assert seen is not None
    report(fakes.world, fakes.cluster, read_policy(fakes.world), seen)
    assert fakes.cluster.active == {KEY: "running"}


@pytest.mark.parametrize("step", ["forge.create_check", "forge.create_comment", "forge.react"])
def test_what_github_did_not_hear_is_not_remembered_as_said(step: str) -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(), "running")
    seen = look(fakes.world, fakes.cluster, active(), ENDED, GRACE)
    assert seen is not None
    fakes.fail(step)
    with pytest.raises(DispatchError):
        report(fakes.world, fakes.cluster, read_policy(fakes.world), seen)
    assert fakes.cluster.active == {KEY: "running"}
    assert not fakes.trace.of("cluster.save", "cluster.retire")


def test_at_a_terminal_the_ledger_alone_remembers() -> None:
    fakes = Fakes(forge=False)
    fakes.cluster.add(run_record(origin="terminal"), "running")
    seen = look(fakes.world, fakes.cluster, active(), ENDED, GRACE)
    assert seen is not None
    report(fakes.world, fakes.cluster, read_policy(fakes.world), seen)
    assert fakes.steps[-3:] == ["cluster.save succeeded", "cluster.account 2024-05", "cluster.retire"]


def test_an_end_that_github_waits_for_is_left_to_who_can_tell_it() -> None:
    fakes = Fakes(forge=False)
    fakes.cluster.add(run_record(), "running")
    seen = look(fakes.world, fakes.cluster, active(), ENDED, GRACE)
    assert seen is not None
    report(fakes.world, fakes.cluster, read_policy(fakes.world), seen)
    assert not fakes.trace.of("cluster.save", "cluster.retire")


def test_github_hears_nothing_of_what_was_asked_for_at_a_terminal() -> None:
    fakes = Fakes()
    fakes.cluster.add(run_record(origin="terminal"), "running")
    seen = look(fakes.world, fakes.cluster, active(), ENDED, GRACE)
    assert seen is not None
    report(fakes.world, fakes.cluster, read_policy(fakes.world), seen)
    assert not fakes.trace.of("forge")
    assert fakes.steps[-3:] == ["cluster.save succeeded", "cluster.account 2024-05", "cluster.retire"]


@pytest.mark.parametrize(
    ("reported", "sight", "expected"),
    [
        ("running, told 1714996920", Observation(State.RUNNING, "squeue"), False),
        ("running, link wanted, told 1714996920", Observation(State.RUNNING, "squeue"), False),
        ("running, told 1714996920", Observation(State.SUCCEEDED, "sacct"), True),
        ("running, told 1714996920", Observation(State.PENDING, "squeue"), True),
        ("running, told never", Observation(State.RUNNING, "squeue"), True),
    ],
)
def test_when_steps_were_told_is_no_other_state(reported: str, sight: Sight, expected: bool) -> None:
    assert changed(active(reported), sight) is expected


def test_a_link_that_is_not_there_leaves_when_steps_were_told() -> None:
    fakes = Fakes()
    record = run_record(state=State.RUNNING, wandb_expected=True, log_head_read=True)
    fakes.cluster.add(record, "running, link wanted, told 1714996920")
    note_no_link(fakes.cluster, active("running, link wanted, told 1714996920"), Seen(record, ""))
    assert fakes.cluster.active[KEY] == "running, told 1714996920"
