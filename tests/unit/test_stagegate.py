"""A required pipeline and the runs of one commit: which of them count together, and what they come to."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dispatcher.pipeline import Pipeline
from dispatcher.record import Member, RunRecord
from dispatcher.slurm import State
from dispatcher.stagegate import needed_stages, stages_stand
from tests.fakes import NOON, run_record

PIPELINE = Pipeline.model_validate(
    {
        "stages": {
            "pretrain": {"recipe": "default"},
            "sft": {"recipe": "default", "overrides": ["lr=3"]},
            "rescue": {"recipe": "default", "after": "pretrain", "when": "afternotok"},
        }
    }
)
NEEDED = needed_stages(PIPELINE, "cluster")
OVERRIDES = {"sft": ("lr=3",)}


def key(stage: str, attempt: int) -> str:
    return f"{['pretrain', 'sft', 'rescue'].index(stage) + 1:08x}{attempt:08x}"


def run(stage: str, state: State = State.SUCCEEDED, attempt: int = 1, after: int | None = None, **fields: object) -> RunRecord:
    """One stage's run; `after` is the attempt of pretrain that it came after, its own unless something else is said."""
    before = () if stage == "pretrain" else (key("pretrain", after or attempt),)
    group = tuple(Member(run_key=name, profile="cluster", stage="pretrain") for name in before)
    group += (Member(run_key=key(stage, attempt), profile="cluster", stage=stage, after=before),)
    given = {"run_key": key(stage, attempt), "pipeline": "full", "stage": stage, "group": group, "state": state}
    given |= {"overrides": OVERRIDES.get(stage, ()), "asked_at": NOON + timedelta(minutes=attempt)}
    return run_record(**{**given, **fields})


def skipped(attempt: int = 1) -> RunRecord:
    return run("rescue", State.SKIPPED, attempt)


@pytest.mark.parametrize(
    ("records", "state", "note"),
    [
        ([], None, ""),
        ([run("pretrain")], None, "stage sft has not been started; 1 of 3 stages passed"),
        ([run("pretrain"), run("sft"), skipped()], State.SUCCEEDED, "2 of 3 stages passed, 1 not needed"),
        ([run("pretrain"), run("sft"), run("rescue")], State.SUCCEEDED, "3 of 3 stages passed"),
        ([run("pretrain"), run("sft", State.RUNNING), skipped()], State.RUNNING, "stage sft; 1 of 3 stages passed"),
        ([run("pretrain"), run("sft", State.UNKNOWN), skipped()], State.UNKNOWN, "stage sft; 1 of 3 stages passed"),
        ([run("pretrain"), run("sft", State.LOST), skipped()], State.LOST, "stage sft; 1 of 3 stages passed"),
        (
            [run("pretrain", State.FAILED), run("sft", State.CANCELLED, reason="x"), run("rescue")],
            State.FAILED,
            "stage pretrain; 1 of 3 stages passed",
        ),
        # What is wrong is told, even while something else has not been started.
        ([run("pretrain", State.TIMEOUT)], State.TIMEOUT, "stage pretrain; 0 of 3 stages passed"),
        (
            [run("pretrain"), run("sft", results_problem="it left no results file"), skipped()],
            State.FAILED,
            "stage sft: it left no results",
        ),
        # Only what the pipeline lets be skipped may be.
        ([run("pretrain"), run("sft", State.SKIPPED), skipped()], State.FAILED, "stage sft; 1 of 3 stages passed"),
        ([run("pretrain", State.SKIPPED), run("sft"), skipped()], State.FAILED, "stage pretrain"),
        # A retry counts with what it reused, and nothing else.
        ([run("pretrain"), run("sft", State.FAILED), run("sft", attempt=2, after=1), skipped()], State.SUCCEEDED, "2 of 3"),
        ([run("pretrain"), run("sft"), run("sft", State.FAILED, 2, after=1), skipped()], State.FAILED, "stage sft"),
        ([run("pretrain"), run("sft"), skipped(), run("pretrain", attempt=2)], None, "stage sft has not been started"),
        ([run("pretrain"), run("sft"), skipped(), run("pretrain", attempt=2), run("sft", attempt=2)], None, "stage rescue has not been"),
        ([run("pretrain", State.FAILED, 2), run("pretrain"), run("sft"), skipped()], State.FAILED, "stage pretrain"),
        # Another attempt is owed: that is no end, and what ended because of it decides nothing.
        (
            [run("pretrain", State.NODE_FAIL, retry_owed=True), run("sft", State.CANCELLED), run("rescue", State.FAILED)],
            State.QUEUED,
            "stage pretrain: the machine ended it; it is about to be run again by itself; 0 of 3",
        ),
        ([run("pretrain"), run("sft", State.NODE_FAIL, retry_owed=True), run("rescue", State.FAILED)], State.FAILED, "stage rescue"),
        # What the ledger has not heard yet is the end of the stage before.
        ([run("pretrain", State.RUNNING), run("sft", State.CANCELLED), skipped()], State.RUNNING, "stage pretrain; 0 of 3"),
        # As the default branch has it.
        ([run("pretrain"), run("sft", overrides=()), skipped()], None, "stage sft has not been started"),
        ([run("pretrain"), run("sft", overrides=("lr=3", "x=1")), skipped()], None, "stage sft has not been started"),
        ([run("pretrain", profile="small"), run("sft"), skipped()], None, ""),
        ([run("pretrain", recipe="easy"), run("sft"), skipped()], None, ""),
        ([run("pretrain", pipeline="other"), run("sft"), skipped()], None, ""),
    ],
)
def test_how_they_stand_together(records: list[RunRecord], state: State | None, note: str) -> None:
    stand = stages_stand("full", NEEDED, records)
    assert stand.state is state
    assert (stand.note.startswith(note) and (note != "" or stand.note == "")) is True
    assert (stand.decides is None) == (state is None)


def test_every_end_of_a_stage_passes_or_fails() -> None:
    for state in State:
        stand = stages_stand("full", NEEDED, [run("pretrain"), run("sft", state), skipped()])
        assert (stand.state is State.SUCCEEDED) == (state is State.SUCCEEDED)


def test_what_is_owed_never_passes() -> None:
    for stage in ("pretrain", "sft"):
        ended = [run("pretrain", retry_owed=stage == "pretrain"), run("sft", retry_owed=stage == "sft"), skipped()]
        assert stages_stand("full", NEEDED, ended).state is State.QUEUED


def test_profiles_of_stages_that_name_none_are_the_requirements() -> None:
    far = Pipeline.model_validate({"stages": {"a": {}, "b": {"profile": "away"}}})
    assert [(stage.name, stage.profile) for stage in needed_stages(far, "cluster")] == [("a", "cluster"), ("b", "away")]
