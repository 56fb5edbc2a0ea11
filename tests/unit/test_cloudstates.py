"""An API's words → what is known about a job; silence and unknown words never become an end."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from dispatcher.clouds import CLOUDS
from dispatcher.cloudstates import WORDS, CloudSightings, observed
from dispatcher.ports import JobView, Views
from dispatcher.slurm import Absent, Observation, Silent, State


def view(word: str, exit_code: int | None = None, reason: str = "", **more: float) -> JobView:
    return JobView("job-1", word, exit_code, reason, **more)


@pytest.mark.parametrize(
    ("executor", "seen", "state"),
    [
        ("docker", view("created"), State.PENDING),
        ("docker", view("running"), State.RUNNING),
        ("docker", view("Paused"), State.RUNNING),
        ("docker", view("exited", 0), State.SUCCEEDED),
        ("docker", view("exited", 1), State.FAILED),
        ("docker", view("exited"), State.FAILED),
        ("docker", view("exited", 124), State.TIMEOUT),
        ("docker", view("exited", 137, "OOMKilled"), State.OUT_OF_MEMORY),
        ("docker", view("dead", 0), State.FAILED),
        ("docker", view("gone fishing"), State.UNKNOWN),
        ("docker", view(""), State.UNKNOWN),
        ("nowhere", view("running"), State.UNKNOWN),
    ],
)
def test_words(executor: str, seen: JobView, state: State) -> None:
    assert observed(executor, seen).state is state


def test_no_word_for_success_stands_where_a_program_failed() -> None:
    for executor, words in WORDS.items():
        for word, state in words.items():
            if state is State.SUCCEEDED:
                assert observed(executor, view(word, 3)).state is State.FAILED, (executor, word)


def test_every_executor_has_words() -> None:
    assert set(WORDS) == set(CLOUDS)
    for words in WORDS.values():
        assert {state for state in words.values() if state.ended}
        assert {word.lower() for word in words} == set(words)


def test_what_is_known_of_an_end() -> None:
    seen = observed("docker", view("exited", 0, started=1_700_000_000.0, ended=1_700_000_060.4))
    assert (seen.exit_code, seen.elapsed_seconds) == (0, 60)
    assert seen.start == datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc)
    running = observed("docker", view("running", 0, started=1_700_000_000.0, ended=1_700_000_060.4))
    assert (running.exit_code, running.end) == (None, None)


def test_silence_is_nothing_and_absence_is_not_success() -> None:
    assert isinstance(CloudSightings(Views("docker")).of("job-1"), Absent)
    assert isinstance(CloudSightings(Views("docker", silent="timed out")).of("job-1"), Silent)
    known = CloudSightings(Views("docker", (view("running"),)))
    assert isinstance(known.of("job-1"), Observation)
    assert isinstance(known.of("job-2"), Absent)
