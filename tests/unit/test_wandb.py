"""A job's run at Weights & Biases: found where W&B itself writes it, and nothing else becomes a link."""

from __future__ import annotations

import time

import pytest

from dispatcher.configuration import read_policy
from dispatcher.firstrecord import first_record
from dispatcher.observe import HEAD_READ, TAIL_READ
from dispatcher.record import RunRecord, parse_record
from dispatcher.slurm import State
from dispatcher.wandb import expects_run, run_link, site_of
from dispatcher.watching import watch
from tests.fakes import Fakes, run_record
from tests.unit.test_plan import planned, slurm

RUN = "https://wandb.ai/nvidia/nano3/runs/ab12cd34"
LINE = f"wandb: 🚀 View run at {RUN}\n"
OWN = "https://wandb.example.com:8443/ml/nano3/runs/x-1"
KEY = run_record().run_key


@pytest.mark.parametrize(
    ("text", "link"),
    [
        (LINE, RUN),
        (f"wandb: 🚀 View run swift-dawn-7 at: {RUN}\n", RUN),
        (f"wandb: 🚀 View run at {RUN}", ""),
        (f"[default0]:wandb: 🚀 View run \x1b[33mswift-dawn-7\x1b[0m at: \x1b[34m\x1b[4m{RUN}\x1b[0m\n", RUN),
        (f"wandb: ⭐️ View project at https://wandb.ai/nvidia/nano3\n{LINE}", RUN),
        (f"{LINE}wandb: 🚀 View run at https://wandb.ai/nvidia/nano3/runs/later\n", RUN),
        (f"wandb: 🚀 View run at {OWN}\n", OWN),
        ("wandb: 🚀 View run at https://WANDB.ai/a/b/runs/c\n", "https://WANDB.ai/a/b/runs/c"),
        ("wandb: 🚀 View run at https://wandb.ai/a/my%20project/runs/c?apiKey=0123\n", "https://wandb.ai/a/my%20project/runs/c"),
        (f"wandb: 🚀 View run at {RUN}#logs\r\n", RUN),
        # what is another site, another scheme or no run
        ("wandb: 🚀 View run at http://wandb.ai/a/b/runs/c\n", ""),
        ("wandb: 🚀 View run at https://wandb.ai.evil.example/a/b/runs/c\n", ""),
        ("wandb: 🚀 View run at https://evil.example/wandb.ai/a/b/runs/c\n", ""),
        ("wandb: 🚀 View run at https://wandb.ai@evil.example/a/b/runs/c\n", ""),
        ("wandb: 🚀 View run at https://wandbxai/a/b/runs/c\n", ""),
        ("wandb: 🚀 View run at https://wandb.example.com/a/b/runs/c\n", ""),
        ("wandb: 🚀 View run at https://wandb.ai/a/../runs/c\n", ""),
        ("wandb: 🚀 View run at https://wandb.ai/a/b/runs/..\n", ""),
        ("wandb: 🚀 View run at https://wandb.ai/a/b/runs/c/d\n", ""),
        ("wandb: 🚀 View run at https://wandb.ai/a/b%0a/runs/c\n", ""),
        ("wandb: 🚀 View run at https://wandb.ai/a/b/runs/c)[x](https://evil.example)\n", ""),
        ("wandb: 🚀 View run at https://wandb.ai/a/b/runs/c|d\n", ""),
        ("wandb: 🚀 View run at https://wandb.ai/a/@alice/runs/c\n", ""),
        ("wandb: 🚀 View run at https://wandb.ai/a/b/runs/größe\n", ""),
        ("wandb: 🚀 View run at\nhttps://wandb.ai/a/b/runs/c\n", ""),
        (f"see {RUN}\n", ""),
        ("", ""),
    ],
)
def test_what_becomes_a_link(text: str, link: str) -> None:
    assert run_link(text, "wandb.example.com:8443") == link
    assert parse_record(run_record(wandb_url=link).to_json()).wandb_url == link


@pytest.mark.parametrize(
    "text", ["View run " * 30_000, "View run at " + "https://" * 30_000, "View run at https://wandb.ai/" + "a/" * 100_000 + "\n"]
)
def test_no_log_takes_long(text: str) -> None:
    began = time.monotonic()
    assert run_link(text, "wandb.ai") == ""
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("base_url", "site"),
    [
        (None, "wandb.ai"),
        ("https://api.wandb.ai", "wandb.ai"),
        ("https://wandb.example.com:8443/", "wandb.example.com:8443"),
        ("https://example.com/wandb", "example.com/wandb"),
        ("http://wandb.example.com", "wandb.ai"),
        ("https://a b.example.com", "wandb.ai"),
        ("https://user:key@wandb.example.com", "wandb.ai"),
    ],
)
def test_the_profile_names_the_site(base_url: str | None, site: str) -> None:
    assert site_of({} if base_url is None else {"WANDB_BASE_URL": base_url}) == site


def test_the_record_keeps_the_profiles_site() -> None:
    job = planned(slurm(wandb={"base_url": "https://wandb.example.com:8443"}))
    assert first_record(job, run_record().asked_at, "c", None, None, at_terminal=True).wandb_site == "wandb.example.com:8443"


# --------------------------------------------------------------------------- when it is looked for


def sweep(fakes: Fakes) -> list[str]:
    fakes.steps.clear()
    watch(fakes.world, read_policy(fakes.world))
    return list(fakes.steps)


def running(log: bytes, reported: str = "running, link wanted", expected: bool = True) -> Fakes:
    fakes = Fakes()
    fakes.cluster.add(run_record(state=State.RUNNING, wandb_expected=expected), reported, "RUNNING", log=log)
    return fakes


def record_of(fakes: Fakes) -> RunRecord:
    return parse_record(fakes.cluster.runs[KEY].record)


def test_a_running_job_that_names_its_run_is_said_once() -> None:
    fakes = running(b"starting\n")
    assert not [step for step in sweep(fakes) if step.startswith("forge") or "save" in step]
    fakes.cluster.runs[KEY].log += LINE.encode()
    assert [step for step in sweep(fakes) if step.startswith("forge.create")]
    assert record_of(fakes).wandb_url == RUN
    [check] = [check for check in fakes.forge.checks.values() if check.external_id == KEY]
    for words in (fakes.forge.bodies[-1], check.summary):
        assert f"| W&B | [open the run]({RUN}) |" in words
    assert sweep(fakes) == ["connect", "cluster.sweep", "cluster.close"]


def test_a_job_that_may_not_know_of_weights_and_biases_is_asked_at_its_end() -> None:
    fakes = running(b"", "pending", expected=False)
    sweep(fakes)
    fakes.cluster.runs[KEY].log = LINE.encode() + b"step\n" * HEAD_READ
    assert sweep(fakes) == ["connect", "cluster.sweep", "cluster.close"]
    fakes.cluster.scheduler["100"] = "COMPLETED"
    sweep(fakes)
    assert record_of(fakes).wandb_url == RUN


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"HF_TOKEN": "x"}, False),
        ({"WANDB_API_KEY": "x"}, True),
        ({"WANDB_PROJECT": "nano3"}, True),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}, False),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "disabled"}, False),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "shared"}, True),
    ],
)
def test_which_jobs_report_there(environment: dict[str, str], expected: bool) -> None:
    assert expects_run(environment) is expected


def test_the_beginning_of_a_long_log_is_read_once() -> None:
    fakes = running(LINE.encode() + b"x" * 79 * (HEAD_READ // 40))
    sweep(fakes)
    assert record_of(fakes).wandb_url == RUN


def test_a_log_without_a_run_is_not_read_for_ever() -> None:
    fakes = running(b"step\n" * HEAD_READ)
    steps = sweep(fakes)
    assert not [step for step in steps if step.startswith("forge")]
    assert steps.count("cluster.fetch") == 2
    assert sweep(fakes) == ["connect", "cluster.sweep", "cluster.close"]
    fakes.cluster.runs[KEY].log += LINE.encode()  # at its end W&B says it once more
    fakes.cluster.scheduler["100"] = "COMPLETED"
    sweep(fakes)
    assert record_of(fakes).wandb_url == RUN
    assert f"]({RUN})" in fakes.forge.bodies[-1]


def test_what_lies_between_beginning_and_end_is_read_while_it_is_short() -> None:
    fakes = running(b"x" * TAIL_READ + LINE.encode() + b"x" * TAIL_READ)
    sweep(fakes)
    assert record_of(fakes).wandb_url == RUN


def test_a_secret_in_the_address_is_not_shown() -> None:
    fakes = Fakes(to_hide=("ab12cd34",))
    fakes.cluster.add(run_record(state=State.RUNNING, wandb_expected=True), "running, link wanted", "RUNNING", log=LINE.encode())
    sweep(fakes)
    assert record_of(fakes).wandb_url == ""
