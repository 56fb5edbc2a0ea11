"""A series file's bytes and a log's lines: what of them is a measurement, and what is kept of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import ConfigError
from dispatcher.logmetrics import OWN_MAX_LINE, LogMetrics, in_log
from dispatcher.policy import load_policy
from dispatcher.record import RunRecord, parse_record
from dispatcher.series import (
    CURVE_POINTS,
    MAX_NAMES,
    MOST_CURVES,
    Curve,
    Measured,
    Point,
    curve_of,
    curves_of,
    parse_series,
    progress_of,
)
from tests.fakes import run_record

MEGATRON = (
    " [2025-09-08 00:19:09] iteration       26/  500000 | consumed samples:         1664 | elapsed time per iteration (ms): 436.9 |"
    " learning rate: 1.395349E-06 | global batch size:    64 | lm loss: {loss} | loss scale: 131072.0 | grad norm: 7.831 |\n"
)
NEMO = (
    "retraining/0 [default0]:Training epoch {epoch}, iteration {step}/99 | lr: 1.469e-05 | global_batch_size: 128 | global_step: {overall}"
    " | reduced_train_loss: 6.265 | train_step_timing in s: 12.22 | tokens_per_sec_per_gpu: 1.073e+04 | consumed_samples: 12544\n"
)
# As Megatron-LM's `evaluate_and_print_results` prints it: https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/training.py
VALIDATION = (
    "------------------------------------------------------------------------------------------------\n"
    " validation loss at iteration 1000 | lm loss value: 5.314413E+00 | lm loss PPL: 2.032451E+02 | \n"
    "------------------------------------------------------------------------------------------------\n"
)
# As rich 14 draws the columns of Lightning 2.6's `RichProgressBar`: on a wide line, on one of 80 columns, in a terminal.
RICH_WIDE = "Epoch 0/1     ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 60/60 0:00:10 • 0:01:14 5.92it/s v_num: 0.000 train_loss: 2.310 \n"
RICH = (
    "Epoch 0/1     ━━━━━━━━━━━━━━━━ 60/60 0:00:10 •        5.92it/s v_num: ab12      \n"
    "                                     0:01:14                   train_loss_step: \n"
    "                                                               2.310 val_loss:  \n"
    "                                                               1.200            \n"
    "                                                               train_loss_epoch:\n"
    "                                                               0.750            \n"
    "Something else: 3\n"
)
RICH_TERMINAL = (
    "\x1b[?25l\r\x1b[2KEpoch 2/-2    \x1b[91m━━━━━━━━\x1b[0m\x1b[90m╺\x1b[0m\x1b[90m━━━━━━━\x1b[0m"
    " 10/60 0:00:10 •        5.92it/s v_num: 0.000     \n"
    "                                     0:01:14                   train_loss: 2.310\r\x1b[2K\x1b[1A\x1b[2K"
)
# As Lightning 2.6 writes them to a file: before an epoch has its name, its bar is drawn once more at 0, with the values of the one before.
EPOCH_ENDS = (
    "Epoch 0: 100%|██████████| 40/40 [00:00<00:00, 156.56it/s, train_loss=2.500, train_step_timing in s=0.250, val/loss=0.750]\r"
    "Epoch 0:   0%|          | 0/40 [00:00<?, ?it/s, train_loss=2.500, train_step_timing in s=0.250, val/loss=0.750]          \r"
    "Epoch 1:   0%|          | 0/40 [00:00<?, ?it/s, train_loss=2.500, train_step_timing in s=0.250, val/loss=0.750]\r"
    "Epoch 1:  50%|█████     | 20/40 [00:00<00:00, 350.48it/s, train_loss=1.500, train_step_timing in s=0.250]\r"
    "Epoch 1: 100%|██████████| 40/40 [00:00<00:00, 156.56it/s, val/loss=0.500]\r"
    "Epoch 1:   0%|          | 0/40 [00:00<?, ?it/s, train_loss=1.250, val/loss=0.500]          \r"
)
UNKNOWN_LENGTH = (
    "Epoch 0: |          | 5/? [00:00<00:00, 68.64it/s, train_loss=1.130]\r"
    "Epoch 0: |          | 10/? [00:00<00:00, 68.64it/s, train_loss=0.463]\r"
    "Epoch 0: |          | 0/? [00:00<?, ?it/s, train_loss=0.463]         \r"
    "Epoch 1: |          | 10/? [00:00<00:00, 92.55it/s, train_loss=1.100, acc,none=0.5]\r"
    "Epoch 2: |          | 10/? [00:00<00:00, 75.01it/s, train_loss=1.310, v_num=ab12]\r"
)
NAN = {"train_loss": (61, math.nan)}
LIGHTNING = "\rEpoch {epoch}:  12%|█▏        | {step}/500 [00:10<01:14,  5.92it/s, v_num=0, train_loss=2.310, lr=1e-4]"


def line(step: object, name: object = "loss", value: object = 1.5, **more: object) -> str:
    return json.dumps({"step": step, "name": name, "value": value, **more})


@pytest.mark.parametrize(
    ("text", "expected", "skipped"),
    [
        (line(1) + "\n" + line(2, value=2) + "\n", [(1, 1.5), (2, 2.0)], 0),
        (line(1, time=12.5, rank=0) + "\n", [(1, 1.5)], 0),
        (line(2) + "\n" + line(1) + "\n" + line(2, value=9) + "\n", [(1, 1.5), (2, 9.0)], 0),
        (line(3.0) + "\n\n  \n", [(3, 1.5)], 0),
        (line(1) + "\r\n", [(1, 1.5)], 0),
        ("\xef\xbb\xbf" + line(1) + "\n", [(1, 1.5)], 0),
        ('{"step": 1, "name": "loss", "value": -Infinity}\n', [(1, -math.inf)], 0),
        ('{"step": 1, "name": "loss", "value": 1' + "0" * 400 + "}\n", [(1, math.inf)], 0),
        # Half a line at the end is still being written.
        (line(1) + "\n" + line(2)[:9], [(1, 1.5)], 0),
        (line(1) + "\n" + line(2), [(1, 1.5), (2, 1.5)], 0),
        *(
            (bad + "\n" + line(1) + "\n", [(1, 1.5)], 1)
            for bad in (
                "no json",
                "[1]",
                "7",
                "[" * 1900,
                line(-1),
                line(1.5),
                line(True),
                line("1"),
                line(2**60),
                line(None),
                line(1, value="high"),
                line(1, value=True),
                line(1, value=[1]),
                '{"step": 1, "name": "loss"}',
                line(1, name='x"] --> 3'),
                line(1, name="x\ny"),
                line(1, name="n" * 101),
                line(1, name=7),
                line(1, more="x" * 2000),
                "\0\xff\x1b[31m",
            )
        ),
    ],
)
def test_lines_of_a_series(text: str, expected: list[tuple[int, float]], skipped: int) -> None:
    found = parse_series(text.encode("latin-1"))
    assert [(point.step, point.value) for point in found.series["loss"]] == expected
    assert found.skipped == skipped


def test_nan_is_a_value_and_null_stands_for_it() -> None:
    found = parse_series(b'{"step":1,"name":"a","value":NaN}\n{"step":2,"name":"a","value":null,"total":50}\n')
    assert [math.isnan(point.value) for point in found.series["a"]] == [True, True]
    assert found.total == 50


def test_the_beginning_of_a_cut_file_is_not_counted() -> None:
    assert parse_series(b'"name":"a"}\n' + line(4).encode() + b"\n", cut=True) == Measured({"loss": (Point(4, 1.5),)}, None, 0)


def test_more_names_than_anybody_reads() -> None:
    found = parse_series("".join(line(1, name=f"m{number}") + "\n" for number in range(MAX_NAMES + 3)).encode())
    assert (len(found.series), found.skipped) == (MAX_NAMES, 3)
    assert len(curves_of(parse_series("".join(line(s, name=f"m{n}") + "\n" for n in range(9) for s in (1, 2)).encode()))) == MOST_CURVES


@given(st.binary(max_size=400))
def test_no_bytes_break_it(content: bytes) -> None:
    parse_series(content)
    for patterns in ("megatron", "nemo", "lightning"):
        in_log(content.decode("utf-8", "replace"), patterns)


@pytest.mark.parametrize(
    ("text", "patterns", "expected", "total"),
    [
        (
            MEGATRON.format(loss="1.029183E+01"),
            "megatron",
            {"lm loss": (26, 10.29183), "elapsed time per iteration ms": (26, 436.9)},
            500000,
        ),
        (
            NEMO.format(epoch=0, step=97, overall=97),
            "nemo",
            {"reduced_train_loss": (97, 6.265), "tokens_per_sec_per_gpu": (97, 10730.0)},
            100,
        ),
        (NEMO.format(epoch=1, step=3, overall=103), "nemo", {"reduced_train_loss": (103, 6.265)}, None),
        (LIGHTNING.format(epoch=0, step=60), "lightning", {"train_loss": (60, 2.31), "lr": (60, 1e-4)}, None),
        (LIGHTNING.format(epoch=2, step=60), "lightning", {"train_loss": (1060, 2.31)}, None),
        (LIGHTNING.format(epoch=0, step=60) + LIGHTNING.format(epoch=0, step=61).replace("2.310", "nan.0"), "lightning", NAN, None),
        (LIGHTNING.format(epoch=0, step=61).replace("2.310", "-inf."), "lightning", {"train_loss": (61, -math.inf)}, None),
        (RICH_WIDE, "lightning", {"train_loss": (60, 2.31)}, None),
        (RICH, "lightning", {"train_loss_step": (60, 2.31), "val_loss": (60, 1.2), "train_loss_epoch": (60, 0.75)}, None),
        ("\n".join("[default0]:" + row for row in RICH.splitlines()), "lightning", {"train_loss_epoch": (60, 0.75)}, None),
        (RICH_TERMINAL, "lightning", {"train_loss": (130, 2.31)}, None),
        (EPOCH_ENDS, "lightning", {"train_loss": (60, 1.5), "val/loss": (80, 0.5)}, None),
        (UNKNOWN_LENGTH, "lightning", {"train_loss": (30, 1.31), "acc,none": (20, 0.5)}, None),
        ("\rEpoch 1:  50% 1/2 [00:00<00:00, 6.54it/s, loss=2.29, v_num=0]", "lightning", {"loss": (3, 2.29)}, None),
        (RICH_WIDE.replace("train_loss", "train_step_timing in s"), "lightning", {"train_step_timing in s": (60, 2.31)}, None),
        (
            MEGATRON.format(loss="1.0E+00").replace("(ms): 436.9", "(ms): 436.9/440.1"),
            "megatron",
            {"elapsed time per iteration ms": (26, 436.9)},
            500000,
        ),
        (VALIDATION, "megatron", {"lm loss validation": (1000, 5.314413), "lm loss validation ppl": (1000, 203.2451)}, None),
        (
            MEGATRON.format(loss="1.0E+00") + VALIDATION.replace("iteration 1000", "the end of training for test data"),
            "megatron",
            {"lm loss": (26, 1.0), "lm loss test": (26, 5.314413)},
            500000,
        ),
        (f"\x1b[32m{NEMO.format(epoch=0, step=97, overall=97)}\x1b[0m", "nemo", {"tokens_per_sec_per_gpu": (97, 10730.0)}, 100),
        ("\x1b[1mloss\x1b[0m: \x1b[36m1.5\x1b[0m", {"loss": r"loss: (\S+)"}, {"loss": (1, 1.5)}, None),
        ("step 3 loss 1.8\nnoise\nstep 4 loss 1.7\n", {"step": r"step (\d+)", "loss": r"loss (\S+)"}, {"loss": (4, 1.7)}, None),
        ("step: 14  tps: 1,007,282  mfu: 0.17%\n", {"step": r"step: +(\d+)", "tps": r"tps: +([0-9,]+)"}, {"tps": (14, 1_007_282.0)}, None),
        ("tps: 1,2\ntps: 12,34\ntps: 5\n", {"tps": r"tps: +([0-9,]+)"}, {"tps": (1, 5.0)}, None),
        ("loss=2\nloss=high\nloss=1\n", {"loss": r"loss=(\S+)"}, {"loss": (2, 1.0)}, None),
        ("step 9\nloss 1\n", {"step": r"step (\d+)", "loss": r"loss (\S+)"}, {"loss": (9, 1.0)}, None),
    ],
)
def test_lines_of_a_log(text: str, patterns: LogMetrics, expected: Mapping[str, tuple[int, float]], total: int | None) -> None:
    found = in_log(text, patterns)
    last = {name: (points[-1].step, pytest.approx(points[-1].value, nan_ok=True)) for name, points in found.series.items()}
    assert {name: last[name] for name in expected} == expected
    assert found.total == total
    assert not {"consumed samples", "global_step", "v_num", "s"} & set(last)


def test_no_value_stands_where_an_epoch_of_lightnings_has_not_begun() -> None:
    assert [(point.step, point.value) for point in in_log(EPOCH_ENDS, "lightning").series["train_loss"]] == [(40, 2.5), (60, 1.5)]


def test_a_loss_that_is_no_number_any_more_is_read() -> None:
    assert math.isnan(in_log(MEGATRON.format(loss="nan"), "megatron").last["lm loss"])


def test_a_long_line_is_read_as_far_as_is_cheap() -> None:
    assert in_log("x" * OWN_MAX_LINE + " loss=1\n", {"loss": r"loss=(\d+)"}).series == {}


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{loss: 'loss ([0-9.]+'}", "is not a regular expression"),
        ("{loss: 'loss'}", "has 0 groups"),
        ("{loss: '(loss) (.)'}", "has 2 groups"),
        ("{loss: '(a+)+'}", "a repeat inside a repeat"),
        ("{loss: '(?:a|b*)*(c)'}", "a repeat inside a repeat"),
        ("{loss: '(.)\\1'}", "looks back"),
        ("{loss: '(?=a)(b)'}", "looks back"),
        ("{loss: '.*.*.*(x)'}", "more than two repeats"),
        ("{step: 'step ([0-9]+)'}", "has only `step`"),
        ("{}", "needs 1 to 8"),
        ("megatrom", "megatron"),
    ],
)
def test_patterns_that_are_refused(written: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy("recipes:\n  default: { script: train.py, log_metrics: " + written + " }\n", ".github/dispatch.yml")
    assert problem in caught.value.cause


@pytest.mark.parametrize("count", [2, 3, 59, 60, 61, 500, 10_000])
def test_a_spike_of_one_step_stays(count: int) -> None:
    points = [Point(step, 100.0 if step == count // 2 else 1.0 + step / count) for step in range(count)]
    curve = curve_of("loss", points)
    assert curve is not None
    assert len(curve.values) <= CURVE_POINTS
    assert max(curve.values) == 100.0
    assert (curve.first, curve.last, curve.points) == (0, count - 1, count)


def test_values_that_are_not_evenly_apart_lie_where_they_belong() -> None:
    curve = curve_of("loss", [Point(0, 0.0), Point(10, 10.0), Point(100, 100.0)])
    assert curve is not None
    assert curve.values[0] == 0.0
    assert curve.values[-1] == 100.0
    # On a line through all three, every place is its own share of the steps, within one part.
    assert all(abs(value - place * 100 / 59) < 4 for place, value in enumerate(curve.values))


def test_what_is_no_number_is_counted_and_left_out() -> None:
    curve = curve_of("loss", [Point(1, 1.0), Point(2, math.nan), Point(3, 2.0), Point(4, math.inf)])
    assert curve == Curve(name="loss", first=1, last=3, values=(1.0, 2.0), points=4, gaps=2, first_gap=2)
    assert curve_of("loss", [Point(1, math.nan), Point(2, 1.0)]) is None


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(allow_nan=True)), max_size=200))
def test_a_curve_is_never_larger_than_what_fits(pairs: list[tuple[int, float]]) -> None:
    points = [Point(step, value) for step, value in sorted(dict(pairs).items())]
    curve = curve_of("loss", points)
    finite = [point.value for point in points if math.isfinite(point.value)]
    assert (curve is None) == (len(finite) < 2)
    if curve is not None:
        assert len(curve.values) <= CURVE_POINTS
        assert min(finite) in curve.values
        assert max(finite) in curve.values


def test_progress_names_what_people_want_to_see() -> None:
    series = {name: (Point(120, 1.0),) for name in ("lr", "loss scale", "grad norm", "val/loss", "mine")}
    found = progress_of(Measured(series), 500, ("mine",))
    assert found is not None
    assert (found.step, found.total, list(found.values)) == (120, 500, ["mine", "val/loss", "lr"])
    assert progress_of(Measured(series, total=9), 500) is not None
    assert progress_of(Measured(), 500) is None


def test_the_ledger_keeps_curves_and_nan() -> None:
    record: RunRecord = run_record(
        progress=progress_of(Measured({"loss": (Point(1, math.nan),)}), None),
        curves=curves_of(Measured({"a": (Point(1, 1.0), Point(2, 2.0))})),
    )
    again = parse_record(record.to_json())
    assert again.curves == record.curves
    assert again.progress is not None
    assert math.isnan(again.progress.values["loss"])
