"""What a look makes of series and log: progress told when it is due and not otherwise, curves and results at the end."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path

import pytest

from dispatcher.answer import Voice
from dispatcher.configuration import read_policy
from dispatcher.curvereport import chart, curve_lines, progress_line, sparkline
from dispatcher.observe import Around, look
from dispatcher.overlay import RunCurve
from dispatcher.ports import ActiveRun
from dispatcher.record import Resources, RunRecord, parse_record
from dispatcher.report import run_report
from dispatcher.series import READ_BYTES, Curve, Progress
from dispatcher.slurm import Observation, State
from dispatcher.stagetable import metrics_words
from dispatcher.thresholds import MetricVerdict
from dispatcher.untrusted import neutralise
from dispatcher.watching import watch
from tests.fakes import NOON, POLICY, Fakes, run_record

KEY = run_record().run_key
MEASURED = POLICY.replace(
    "default: { script: train.py }",
    "default: { script: train.py, series: out/m.jsonl, steps: 500, log_metrics: { acc: 'acc ([0-9.]+)' }, metrics: { acc: { min: 0.1 } } }",
).replace("profiles: [cluster] }", "profiles: [cluster], progress: 10m }")
EVENTS = next((Path(__file__).parents[1] / "data" / "tensorboard").iterdir()).read_bytes()
ENDED = Observation(State.SUCCEEDED, "sacct", exit_code=0)
NAN = MetricVerdict(name="loss", value=math.nan, outcome="fail", why="loss is not a number (NaN)")


def lines(*values: float, name: str = "loss") -> bytes:
    return "".join(json.dumps({"step": step, "name": name, "value": value}) + "\n" for step, value in enumerate(values, 1)).encode()


def run(fakes: Fakes, series: bytes = b"", log: bytes = b"", **fields: object) -> None:
    added = fakes.cluster.add(run_record(**{"series_path": "code/out/m.jsonl", "steps": 500, **fields}), "pending", "RUNNING")
    added.results, added.log = {"code/out/m.jsonl": series}, log


def at_its_end(fakes: Fakes, end: Observation = ENDED) -> RunRecord:
    policy = read_policy(fakes.world)
    active = ActiveRun(KEY, "100", "running", 60, 0, "", False)
    seen = look(fakes.world, fakes.cluster, active, end, timedelta(minutes=10), Around({}, policy))
    assert seen is not None
    return seen.record


def test_steps_are_told_with_a_change_and_then_only_when_it_is_due() -> None:
    fakes = Fakes(MEASURED)
    run(fakes, lines(2.0, 1.9), resources=Resources(nodes=2, gpus_per_node=8))
    policy = read_policy(fakes.world)
    watch(fakes.world, policy)
    [comment] = fakes.forge.comments.values()
    assert "**step 2 of 500** · loss 1.9 · 0.0 GPU-hours so far" in comment.body

    fakes.cluster.runs[KEY].results = {"code/out/m.jsonl": lines(2.0, 1.9, 1.8)}
    fakes.clock.sleep(599)
    fakes.steps.clear()
    watch(fakes.world, policy)
    assert fakes.steps == ["connect", "cluster.sweep", "cluster.close"]
    fakes.clock.sleep(1)
    watch(fakes.world, policy)
    [comment] = fakes.forge.comments.values()
    assert "**step 3 of 500** · loss 1.8 · 2.7 GPU-hours so far" in comment.body

    fakes.cluster.runs[KEY].results = {"code/out/m.jsonl": lines(2.0, 1.9, 1.8, math.nan)}
    fakes.clock.sleep(600)
    watch(fakes.world, policy)
    [comment] = fakes.forge.comments.values()
    assert "**step 4 of 500** · loss nan" in comment.body

    # Due again, and nothing has moved: GitHub hears nothing.
    fakes.clock.sleep(3600)
    fakes.steps.clear()
    watch(fakes.world, policy)
    assert not [step for step in fakes.steps if step.startswith("forge")]


def test_without_the_policys_word_steps_are_no_news() -> None:
    fakes = Fakes(MEASURED.replace(", progress: 10m", ""))
    run(fakes, lines(2.0))
    policy = read_policy(fakes.world)
    watch(fakes.world, policy)
    fakes.cluster.runs[KEY].results = {"code/out/m.jsonl": lines(2.0, 1.9)}
    fakes.clock.sleep(86_400)
    fakes.steps.clear()
    watch(fakes.world, policy)
    assert fakes.steps == ["connect", "cluster.sweep", "cluster.close"]


def test_the_end_has_curves_and_last_values_that_rules_can_judge() -> None:
    fakes = Fakes(MEASURED)
    run(fakes, lines(2.0, 1.9, 1.5) + b"broken\n", b"acc 0.2\nacc 0.4\n")
    fakes.cluster.runs[KEY].results["code/results.json"] = b'{"loss": 7}'
    record = at_its_end(fakes)
    assert record.results == {"loss": 7, "acc": 0.4}
    assert [curve.name for curve in record.curves] == ["acc", "loss"]
    assert record.series_skipped == 1


def test_event_files_and_a_summary_are_read_like_the_rest() -> None:
    """What the results file says wins over the summary, and the summary over a last value; of a step, the series file's word is first."""
    fakes = Fakes(MEASURED)
    run(fakes, lines(2.0, 1.75), tensorboard_path="code/tb", wandb_summary_path="code/wandb.json")
    fakes.cluster.runs[KEY].results |= {
        "code/tb": EVENTS,
        "code/wandb.json": b'{"train/loss": 0.5, "wer": 4, "_step": 9, "loss": 8}',
        "code/results.json": b'{"wer": 3}',
    }
    record = at_its_end(fakes)
    assert {name: record.results[name] for name in ("wer", "loss", "train/loss", "eval/acc")} == {
        "wer": 3,
        "loss": 8,
        "train/loss": 0.5,
        "eval/acc": 0.9,
    }
    curves = {curve.name: curve.values for curve in record.curves}
    assert curves == {"loss": (2.0, 1.75), "train/loss": (1.9, 1.8, 1.7, 1.6, 1.5)}
    assert record.progress is not None
    assert (record.progress.step, record.series_skipped) == (5, 1)


def test_event_files_tell_how_far_a_run_is() -> None:
    fakes = Fakes(MEASURED.replace(", log_metrics: { acc: 'acc ([0-9.]+)' }", ""))
    run(fakes, series_path="", tensorboard_path="code/tb")
    policy = read_policy(fakes.world)
    watch(fakes.world, policy)
    fakes.cluster.runs[KEY].results = {"code/tb": EVENTS}
    fakes.clock.sleep(600)
    watch(fakes.world, policy)
    [comment] = fakes.forge.comments.values()
    assert "**step 5 of 500** · train/loss 1.5" in comment.body


@pytest.mark.parametrize(
    ("content", "problem", "step"),
    [
        (b'{"_step": 9}', "", 9),
        (b"{", "the W&B summary is not JSON (Expecting property name enclosed in double quotes, line 1, column 2)", None),
        (b'\xef\xbb\xbf{"_step": 9}', "", 9),
        (b"x" * 300_000, "the W&B summary is larger than 256 KiB", None),
        (None, "", None),
    ],
)
def test_a_summary_that_cannot_be_used_is_the_results_problem(content: bytes | None, problem: str, step: int | None) -> None:
    fakes = Fakes()
    run(fakes, series_path="", wandb_summary_path="code/wandb.json")
    fakes.cluster.runs[KEY].results = {"code/wandb.json": content} if content is not None else {}
    record = at_its_end(fakes)
    assert (record.results_problem, record.progress and record.progress.step) == (problem, step)


def test_a_secret_in_a_summary_or_a_tag_is_not_shown() -> None:
    fakes = Fakes()
    token = "ghp_" + "a" * 36
    run(fakes, series_path="", wandb_summary_path="code/wandb.json")
    fakes.cluster.runs[KEY].results = {"code/wandb.json": json.dumps({token: 1, "fine": 2}).encode()}
    record = at_its_end(fakes)
    assert record.results == {"fine": 2}


def test_nothing_to_read_costs_nothing_more() -> None:
    fakes = Fakes()
    run(fakes, series_path="")
    record = at_its_end(fakes)
    assert fakes.steps.count("cluster.fetch") == 2  # the log, and the results where the recipe says
    assert (record.curves, record.progress, record.results) == ((), None, {})


def test_an_api_brings_no_file_back_but_the_log() -> None:
    fakes = Fakes(MEASURED)
    run(fakes, lines(2.0, 1.9), b"acc 0.2\nacc 0.4\n", executor="lepton", tensorboard_path="code/tb", wandb_summary_path="code/s")
    fakes.cluster.runs[KEY].results |= {"code/tb": EVENTS, "code/s": b"{"}
    assert [curve.name for curve in at_its_end(fakes).curves] == ["acc"]


def test_of_a_long_file_the_end_is_read_and_of_a_long_log_more_than_is_shown() -> None:
    fakes = Fakes(MEASURED)
    run(fakes, lines(*([1.0] * 40_000)), b"acc 0.1\n" + b"x" * 100 * 1024 + b"\nacc 0.4\n")
    assert len(fakes.cluster.runs[KEY].results["code/out/m.jsonl"]) > READ_BYTES
    record = at_its_end(fakes)
    curves = {curve.name: curve for curve in record.curves}
    assert (curves["loss"].last, record.series_skipped) == (40_000, 0)
    assert curves["loss"].first > 1
    assert curves["acc"].values == (0.1, 0.4)


def test_a_secret_in_a_name_is_not_shown() -> None:
    fakes = Fakes(MEASURED)
    token = "ghp_" + "a" * 36
    run(fakes, lines(1.0, 2.0, name=token) + lines(1.0, 2.0))
    assert token not in at_its_end(fakes).to_json()


# --------------------------------------------------------------------------- how it looks


def shown(**fields: object) -> RunRecord:
    return parse_record(
        run_record(**{"resources": Resources(), "state": State.RUNNING, "started_at": NOON - timedelta(minutes=90), **fields}).to_json()
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"progress": Progress(step=120, total=500, values={"loss": 1.93})}, "**step 120 of 500** · loss 1.93"),
        ({"progress": Progress(step=1200)}, "**step 1,200**"),
        (
            {"progress": Progress(step=120, total=500), "resources": Resources(nodes=2, gpus_per_node=1)},
            "**step 120 of 500** · 3.0 GPU-hours so far",
        ),
        ({"progress": Progress(step=120, values={"a_b": math.nan})}, "**step 120** · a\\_b nan"),
        ({"progress": None}, ""),
        ({"progress": Progress(step=120, total=500), "state": State.FAILED}, "It got to step 120 of 500"),
        ({"progress": Progress(step=500, total=500), "state": State.SUCCEEDED}, ""),
        ({"progress": Progress(step=500), "state": State.SUCCEEDED, "results_problem": "results.json is not there"}, "It got to step 500"),
        ({"progress": Progress(step=500), "state": State.SUCCEEDED, "results_problem": "loss is NaN", "verdicts": (NAN,)}, ""),
        ({"progress": Progress(step=1), "state": State.PENDING}, ""),
    ],
)
def test_progress_in_one_line(fields: dict[str, object], expected: str) -> None:
    assert progress_line(shown(**fields), NOON) == expected


@pytest.mark.parametrize(
    ("values", "baseline", "drawn", "title", "axis"),
    [
        ((2.0, 1.5), 1.75, ["[2, 1.5]", "[1.75, 1.75]"], "loss", "1.475 --> 2.025"),
        ((3e-5, 0.0), None, ["[3, 0]"], "loss in 10^-5", "-0.15 --> 3.15"),
        ((1e308, -1e308), None, ["[1, -1]"], "loss in 10^308", "-1.1 --> 1.1"),
        ((0.0, -0.0), None, ["[0, 0]"], "loss", "-1 --> 1"),
        ((5e-324, 0.0), math.nan, ["[0, 0]"], "loss in 10^-300", "-1 --> 1"),
        ((7.0, 7.0), math.inf, ["[7, 7]"], "loss", "6.65 --> 7.35"),
    ],
)
def test_a_chart_has_only_numbers_that_mermaid_reads(
    values: tuple[float, ...], baseline: float | None, drawn: list[str], title: str, axis: str
) -> None:
    verdict = MetricVerdict(name="loss", outcome="pass", baseline=baseline, why="") if baseline is not None else None
    lines_of_it = chart(Curve(name="loss", first=5, last=5, values=values), verdict)
    assert [line.strip().removeprefix("line ") for line in lines_of_it if line.startswith("    line")] == drawn
    assert f'    y-axis "\u200b" {axis}' in lines_of_it
    assert f'    title "{title}"' in lines_of_it
    assert '    x-axis "step" 5 --> 6' in lines_of_it


@pytest.mark.parametrize(
    ("first", "last", "axis"),
    [
        (0, 999_999, '"step" 0 --> 999999'),
        (1_000, 1_000_000, '"step in 10^3" 1 --> 1000'),
        (1, 2_500_050, '"step in 10^3" 0.001 --> 2500.05'),
        (7, 7 * 10**12, '"step in 10^9" 0.000000007 --> 7000'),
    ],
)
def test_large_steps_have_room(first: int, last: int, axis: str) -> None:
    assert f"    x-axis {axis}" in chart(Curve(name="loss", first=first, last=last, values=(1.0, 2.0)))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("mfu(%)", "mfu(%)"),
        ("a%%b", "a %b"),
        ("n" * 48, "n" * 48),
        ("layers.0." + "x" * 60 + "/grad_norm", "layers.0.xxxxxx ... " + "x" * 18 + "/grad_norm"),
    ],
)
def test_a_name_is_no_longer_than_its_chart(name: str, title: str) -> None:
    lines_of_it = chart(Curve(name=name, first=1, last=2, values=(1.0, 2.0)))
    assert f'    title "{title}"' in lines_of_it
    assert lines_of_it[-1].startswith(f"<sub>{neutralise(name)}, ")


def test_what_is_missing_of_a_series_is_said() -> None:
    policy = MEASURED.replace("acc: { min: 0.1 }", "loss: { max: 9 }").replace("steps: 500,", "steps: 500, tensorboard: tb,")
    fakes = Fakes(policy)
    run(fakes, b'{"step": 1, "loss": 2.5}\n' * 3, b"nothing\n", tensorboard_path="code/tb")
    record = at_its_end(fakes)
    told = "\n".join(curve_lines(record, at_terminal=False))
    assert 'could not be read \\(a line is \\{"step": 1' in told
    assert "tb has no event files; no line of the log has what log\\_metrics looks for" in told
    assert "Curve" not in told

    fakes = Fakes(policy.replace(" series: out/m.jsonl,", ""))
    run(fakes, series_path="code/gone.jsonl")
    assert at_its_end(fakes).series_notes == ("gone.jsonl is not there", "no line of the log has what log_metrics looks for")
    failed = Observation(State.FAILED, "sacct", exit_code=1)
    assert at_its_end(fakes, failed).series_notes == (), "it may not have come so far"


def test_of_a_file_that_is_cut_that_is_said() -> None:
    fakes = Fakes(MEASURED)
    run(fakes, lines(*([1.0] * 40_000)), b"acc 0.1\n")
    assert at_its_end(fakes).series_notes == ("only the last megabyte of out/m.jsonl was read",)


def test_a_metric_with_a_rule_counts_among_thousands() -> None:
    fakes = Fakes(MEASURED)
    many = b"".join(lines(1.0, name=f"layers.{number}.grad") for number in range(1_500))
    run(fakes, many + lines(0.5, name="acc"))
    record = at_its_end(fakes)
    assert (record.results["acc"], len(record.results), record.series_skipped) == (0.5, 200, 0)


def test_what_has_no_rule_is_shown_too() -> None:
    verdict = MetricVerdict(name="loss", outcome="pass", value=1.5, why="")
    told = {
        names: run_report(
            shown(state=State.SUCCEEDED, verdicts=(verdict,), results=dict.fromkeys(names, 4096.0)), "", NOON, Voice()
        ).comment
        for names in (("loss",), ("loss", "tokens"))
    }
    assert "All metrics" not in told[("loss",)]
    assert "| tokens | 4,096 |" in told[("loss", "tokens")]


def test_whose_curve_stands_beside_and_where_it_is_not_what_was_measured() -> None:
    def told(first: int, last: int, value: float = 1.6) -> str:
        curve = Curve(name="loss", first=first, last=last, values=(3.0, 1.5))
        beside = RunCurve(run_key="abcdef12" * 2, sha="fedcba98" * 5, value=value, curve=curve)
        verdict = MetricVerdict(name="loss", outcome="pass", baseline=1.6, beside=beside, why="")
        own = Curve(name="loss", first=0, last=100, values=(2.0, 1.5))
        record = shown(state=State.SUCCEEDED, curves=(own,), verdicts=(verdict,), results={"loss": 1.5})
        terminal = "\n".join(curve_lines(record, at_terminal=True))
        [legend] = [line for line in curve_lines(record, at_terminal=False) if line.startswith("<sub>")]
        words = legend.removeprefix("<sub>loss, steps 0 to 100 · ").removesuffix("</sub>")
        assert (words in terminal) is ("grey" in words)
        return words

    whose = "the grey line is run `abcdef12` at `fedcba9`, which came to 1.6, the baseline"
    assert told(0, 100) == whose
    assert told(0, 100, 1.5) == whose.replace("1.6, the baseline", "1.5, the nearest to the baseline, 1.6")
    begun = "it is known from step 10, and its first value is drawn before"
    assert told(10, 50) == f"{whose} · {begun} · it ended at step 50, and what it came to is drawn from there"
    assert told(0, 5000) == f"{whose} · it went on to step 5,000"
    assert told(100, 200) == "the flat line is the baseline, 1.6", "they have no steps in common"


def test_the_comment_folds_the_curves_and_the_terminal_has_blocks() -> None:
    verdict = MetricVerdict(name="loss", outcome="pass", value=1.5, baseline=1.6, limit="", why="", baseline_words="")
    curve = Curve(name="loss", first=1, last=9, values=(2.0, 1.5), points=10_000, gaps=2, first_gap=4)
    record = shown(state=State.SUCCEEDED, curves=(curve,), verdicts=(verdict,), series_skipped=3, results={"loss": 1.5})
    fakes = Fakes()
    words = run_report(record, "", NOON, fakes.world.settings.voice)
    for text in (words.comment, words.check.summary):
        assert "<details><summary>Curve</summary>\n\n```mermaid\n%%{init" in text
        assert "%%\nxychart-beta\n" in text
        assert "    line [1.6, 1.6]" in text
        assert "10,000 points" in text
        assert "NaN or infinite, and so left out: 2 values, the first at step 4" in text
        assert "3 lines or records of the series could not be read" in text
    terminal = "\n".join(curve_lines(record, at_terminal=True))
    assert "mermaid" not in terminal
    assert "loss █▁ 1.5 to 2, steps 1 to 9" in terminal


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"progress": Progress(step=120, total=500, values={"loss": 1.0}), "results": {}}, " · step 120 of 500"),
        ({"state": State.SUCCEEDED, "progress": Progress(step=9), "results": {"loss": 1.5}}, " · **loss 1.5**"),
        ({"state": State.SUCCEEDED, "results": dict.fromkeys("abcdef", 1)}, " · **a 1, b 1, c 1, d 1, …**"),
        ({}, ""),
    ],
)
def test_one_row_of_several_runs(fields: dict[str, object], expected: str) -> None:
    assert metrics_words(shown(**fields)) == expected


def test_a_spark_for_each_value() -> None:
    assert sparkline((0.0, 7.0, math.nan, 3.5)) == "▁█ ▅"
    assert sparkline((2.0, 2.0)) == "▄▄"
    assert sparkline((1.7e308, -1.7e308)) == "█▁"
    assert sparkline((math.nan,)) == " "
