"""A run's log in a file of this machine: whole, masked, fetched once, and no line twice when it was cut."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from dispatcher.configuration import read_policy
from dispatcher.effects.logfile import LogFile
from dispatcher.errors import InputError
from dispatcher.keeping import keep_log
from dispatcher.loglines import CHUNK
from dispatcher.record import Resources
from dispatcher.world import Outcome
from tests.fakes import POLICY, Fakes, run_record

KEY = "1111000011110000"
LINES = b"".join(b"step %d loss 2.0\n" % step for step in range(40_000))


def running(log: bytes, **fields: object) -> Fakes:
    fakes = Fakes(POLICY, forge=False)
    fakes.cluster.add(run_record(run_key=KEY, **fields), "running", "RUNNING", log=log)
    return fakes


def kept(fakes: Fakes, path: Path, follow: bool = False, task: int | None = None) -> Outcome:
    return keep_log(fakes.world, read_policy(fakes.world), "1111", follow, task, partial(LogFile, path))


def test_the_whole_log_and_then_only_what_has_come(tmp_path: Path) -> None:
    fakes, path = running(LINES + b"half a li"), tmp_path / "train.log"
    ended = kept(fakes, path)
    assert path.read_bytes() == LINES, "a line is whole or not there"
    assert f"{len(LINES):,} bytes. The run goes on" in ended.summary
    assert not fakes.shown
    fakes.cluster.runs[KEY].log += b"ne\nlast"
    fakes.cluster.scheduler["100"] = "COMPLETED"
    before = len(fakes.trace.of("cluster.fetch"))
    ended = kept(fakes, path)
    assert path.read_bytes() == LINES + b"half a line\nlast\n"
    assert "16 bytes more. The run has ended." in ended.summary
    assert len(fakes.trace.of("cluster.fetch")) - before <= 4, "what is here is not fetched again"


@pytest.mark.parametrize("unit", ["é漢🙂", "x", "no spaces,no end", "token=abcdefgh123 "])
def test_a_line_longer_than_a_piece_stays_one_line_of_whole_characters(tmp_path: Path, unit: str) -> None:
    log = f"before\n{unit * (CHUNK * 2 // len(unit.encode()))}{unit}\nafter\n"
    fakes, path = running(log.encode()), tmp_path / "train.log"
    kept(fakes, path)
    assert path.read_text() == log.replace("=abcdefgh123", "=***")


def test_what_was_cut_while_it_was_written_is_not_there_twice(tmp_path: Path) -> None:
    fakes, path = running(b"one\n"), tmp_path / "train.log"
    kept(fakes, path)
    with path.open("ab") as file:
        file.write(b"two\nthr")  # written, and then the process was killed
    fakes.cluster.runs[KEY].log += b"two\nthree\n"
    kept(fakes, path)
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_a_log_that_was_truncated_goes_on_from_its_beginning(tmp_path: Path) -> None:
    fakes, path = running(b"first start\n"), tmp_path / "train.log"
    kept(fakes, path)
    fakes.cluster.runs[KEY].log = b"second\n"
    kept(fakes, path)
    assert path.read_bytes() == b"first start\nsecond\n"
    assert "The log was truncated; it goes on from its beginning." in fakes.said


@pytest.mark.parametrize("first", [b"first start\n", LINES])
@pytest.mark.parametrize("follow", [False, True])
def test_a_log_that_was_replaced_by_a_longer_one_loses_nothing(first: bytes, follow: bool, tmp_path: Path) -> None:
    fakes, path = running(first), tmp_path / "train.log"
    second = LINES.replace(b"step", b"mile") * 2

    def replaced() -> None:
        fakes.cluster.runs[KEY].log = second
        fakes.cluster.scheduler["100"] = "COMPLETED"

    if follow:
        fakes.cluster.before_sweep = [lambda: None, lambda: None, replaced]
    else:
        kept(fakes, path)
        replaced()
    kept(fakes, path, follow)
    assert path.read_bytes() == first + second
    assert "The log was replaced; it goes on from its beginning." in fakes.said


def test_what_an_earlier_version_kept_goes_on_where_it_was(tmp_path: Path) -> None:
    fakes, path = running(b"one\ntwo\n"), tmp_path / "train.log"
    path.write_bytes(b"one\n")
    (tmp_path / "train.log.state").write_text(json.dumps({"log": KEY, "offset": 4, "size": 4}))
    kept(fakes, path)
    assert path.read_bytes() == b"one\ntwo\n"
    fakes.cluster.runs[KEY].log += b"three\n"
    kept(fakes, path)
    assert path.read_bytes() == b"one\ntwo\nthree\n"


@pytest.mark.parametrize("state", ["", "[]", '{"log": 1}', '{"log": "1111000011110000", "offset": -1, "size": 4}'])
def test_without_a_state_that_can_be_used_it_is_fetched_anew(state: str, tmp_path: Path) -> None:
    fakes, path = running(b"one\n"), tmp_path / "train.log"
    path.write_bytes(b"of another run\n")
    (tmp_path / "train.log.state").write_text(state)
    kept(fakes, path)
    assert path.read_bytes() == b"one\n"


def test_another_task_is_another_log(tmp_path: Path) -> None:
    fakes, path = running(b"task 0\n", parts=4, resources=Resources(tasks=4)), tmp_path / "train.log"
    fakes.cluster.runs[KEY].part_logs[3] = b"task 3\n"
    kept(fakes, path)
    kept(fakes, path, task=3)
    assert path.read_bytes() == b"task 3\n"
    kept(fakes, path, task=2)
    assert "Task 2 has written nothing yet, or there is none such: the job has 4 parts." in fakes.said


def test_it_is_followed_to_the_end(tmp_path: Path) -> None:
    fakes, path = running(b"one\n"), tmp_path / "train.log"

    def ends() -> None:
        fakes.cluster.runs[KEY].log += b"two"
        fakes.cluster.scheduler["100"] = "COMPLETED"

    fakes.cluster.before_sweep = [lambda: None, lambda: None, ends]
    kept(fakes, path, follow=True)
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        kept(running(b"one\n"), tmp_path / "gone" / "train.log")
    assert caught.value.code == "input.not-written"
