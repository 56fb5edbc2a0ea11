"""Lines of a log → numbers over steps, by the recipe's `log_metrics`: the ready-made patterns of a framework, or regexes of one's own.

    [2025-09-08 00:19:09] iteration       26/  500000 | consumed samples:         1664 | lm loss: 1.029183E+01 | grad norm: 7.831 |
    Training epoch 0, iteration 97/99 | lr: 1.469e-05 | global_batch_size: 128 | global_step: 97 | reduced_train_loss: 6.265
    Epoch 1:  12%|█▏        | 60/500 [00:10<01:14,  5.92it/s, v_num=0, train_loss=2.310]
    Epoch 1/9     ━━━━━━━━━━━━━━━━ 500/500 0:00:10 • 0:00:00 5.92it/s v_num: 0.000 train_loss: 2.310

Megatron-LM's training log (https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/training.py), NeMo 2's progress printer
(https://github.com/NVIDIA/NeMo/blob/main/nemo/lightning/pytorch/callbacks/progress_printer.py) and Lightning's two progress bars, tqdm's
and rich's (https://github.com/Lightning-AI/pytorch-lightning/tree/master/src/lightning/pytorch/callbacks/progress). The log is the
job's, the regexes are the default branch's: they are tried on short lines, without colours, and one that could take for ever is refused.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from dispatcher.results import METRIC_NAME, is_metric
from dispatcher.series import MOST_STEPS, Collector, Measured
from dispatcher.untrusted import strip_ansi
from dispatcher.values import Shape

with warnings.catch_warnings():
    # The only parser of regexes that is sure to read them as `re` does; its public name went away in 3.11, its private one is newer.
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        from re import _parser as sre_parse  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        import sre_parse  # type: ignore[no-redef, unused-ignore]

LOG_BYTES = 1024 * 1024
"""So much of a log's end is looked through once the run has ended."""
MOST_PATTERNS = 8
MAX_LINE = 2_000
# One's own regexes are tried on the newest lines of at most this length: two open repeats on 300 characters are some milliseconds at worst.
OWN_MAX_LINE = 300
OWN_MAX_LINES = 4_000
STEP = "step"

_NUMBER = r"[+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][+-]?\d{1,4})?|[+-]?(?:nan|inf(?:inity)?)(?:\.0{0,9})?"
"""Lightning pads all numbers, and so writes `nan.0`."""
_VALUE = re.compile(_NUMBER, re.IGNORECASE | re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3}){1,6}(?:\.\d{0,20})?", re.ASCII)
# AMD's Primus writes an average behind it: `elapsed time per iteration (ms): 5361.6/5300.1`.
_PAIR = re.compile(rf"({METRIC_NAME}): {{1,40}}({_NUMBER})(?:/{_NUMBER})?", re.IGNORECASE | re.ASCII)
_MEGATRON = re.compile(r"\biteration {1,20}(\d{1,15})/ {0,20}(\d{1,15}) \|(.*)", re.ASCII)
_VALIDATION = re.compile(r"\bvalidation loss at (?:iteration {1,20}(\d{1,15})|the end of training)([^|]{0,60})\|(.*)", re.ASCII)
_VALIDATED = re.compile(rf"({METRIC_NAME}) (value|PPL): {{1,40}}({_NUMBER})", re.IGNORECASE | re.ASCII)
_NEMO = re.compile(r"\bTraining epoch (\d{1,9}), iteration (\d{1,15})/(\d{1,15}) \|(.*)", re.ASCII)
# A terminal of no width has no bar; data of no known length has `?` for it.
_LIGHTNING = re.compile(r"\bEpoch (\d{1,9}):(?:[^|\[]{0,20}\|[^|]{0,200}\|| {1,4}\d{1,3}%) (\d{1,15})/(\d{1,15}|\?) \[([^\]]*)", re.ASCII)
_ASSIGNED = re.compile(rf"\s*({METRIC_NAME})=({_NUMBER})\s*", re.IGNORECASE | re.ASCII)
# A bar of rich's, whose metrics go on below where they began when the line is too short for them: Slurm's logs are 80 columns wide.
_RICH = re.compile(r"\bEpoch (\d{1,9})(?:/-?\d{1,9})? {1,40}[━╸╺-]{1,400} {1,40}(\d{1,15})/(\d{1,15}) {1,10}[^•]{1,20}•.{0,60}it/s(?: |$)")
_UNDER_BAR = re.compile(r"[ \d:•-]{20,}")
_RICH_LINES = 60
# Megatron's units stand in them; a metric's name has none.
_NO_PARENTHESES = str.maketrans("", "", "()")
# What is no measurement: it says where the line stands, or never changes.
_COUNTERS = frozenset({"global_step", "consumed samples", "consumed_samples", "consumed tokens", "global batch size", "global_batch_size"})
_COUNTERS |= {"v_num"}


def _checked(value: str) -> str:
    """A regex with exactly one group that cannot take for ever on a line. Raises ValueError."""
    try:
        compiled, tree = re.compile(value), sre_parse.parse(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    if compiled.groups != 1:
        raise ValueError(f"has {compiled.groups} groups and needs exactly one, around the number (`(?:…)` groups without counting)")
    if (problem := _costly(tree)) is not None:
        raise ValueError(problem)
    return value


def _costly(tree: Any) -> str | None:
    """Why a regex may take long: a repeat in a repeat, a look at what was found before, or more than two repeats without a bound."""
    open_repeats, stack = 0, [(tree, False)]
    while stack:
        items, inside = stack.pop()
        for operator, given in items:
            name = str(operator)
            repeats = name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
            if name in ("GROUPREF", "GROUPREF_EXISTS", "ASSERT", "ASSERT_NOT"):
                return "looks back at what was found, or ahead: write it without"
            if repeats and given[1] > 1 and inside:
                return "has a repeat inside a repeat, which may take for ever"
            if repeats and given[1] > 40:
                open_repeats += 1
            for part in _parts(given):
                stack.append((part, inside or (repeats and given[1] > 1)))
    return "has more than two repeats without a bound: write `{0,9}` instead of `*`" if open_repeats > 2 else None


def _parts(given: Any) -> Iterator[Any]:
    """The regexes inside one operator's argument."""
    if isinstance(given, sre_parse.SubPattern):
        yield given
    elif isinstance(given, (tuple, list)):
        for item in given:
            if isinstance(item, (sre_parse.SubPattern, tuple, list)):
                yield from _parts(item)


Framework = Literal["megatron", "nemo", "lightning"]
LogRegex = Annotated[str, Shape(r"[^\n]{1,200}", "a regular expression of one line", 200), AfterValidator(_checked)]
LogName = Annotated[str, Shape(METRIC_NAME, "a metric's name, or `step`", 100)]


def _few(value: Any) -> Any:
    if isinstance(value, dict) and not 1 <= len(value) <= MOST_PATTERNS:
        raise ValueError(f"needs 1 to {MOST_PATTERNS} regexes")
    if isinstance(value, dict) and set(value) == {STEP}:
        raise ValueError("has only `step`, and no metric")
    return value


LogMetrics = Framework | dict[str, str]
LogMetricsField = Annotated[Framework | dict[LogName, LogRegex], AfterValidator(_few)]


def in_log(text: str, patterns: LogMetrics) -> Measured:
    """A log's text (already redacted) → what was measured; never raises. A progress bar's carriage returns end lines too."""
    lines = [line for line in re.split(r"[\r\n]+", strip_ansi(text)) if line.strip()]
    collector = Collector()
    if isinstance(patterns, str):
        _READERS[patterns]([line[:MAX_LINE] for line in lines], collector)
    else:
        _own(lines[-OWN_MAX_LINES:], patterns, collector)
    return collector.measured()


def _megatron(lines: Sequence[str], collector: Collector) -> None:
    """What a validation measured has the names that Megatron gives it in TensorBoard: `lm loss validation`, `lm loss validation ppl`."""
    step: int | None = None
    for line in lines:
        if (found := _MEGATRON.search(line)) is not None:
            step = int(found[1])
            _pairs(found[3], step, int(found[2]), collector)
        elif (found := _VALIDATION.search(line)) is not None:
            at = int(found[1]) if found[1] else step
            kind = "test" if "test" in found[2] else "validation"
            for part in found[3].split("|") if at is not None else ():
                if (pair := _VALIDATED.fullmatch(part.strip())) is not None:
                    _add(collector, f"{pair[1]} {kind}{' ppl' if pair[2].lower() == 'ppl' else ''}", at or 0, pair[3], None)


def _nemo(lines: Sequence[str], collector: Collector) -> None:
    """NeMo counts iterations from 0 to the last one; `global_step` goes on over epochs."""
    for line in lines:
        if (found := _NEMO.search(line)) is not None:
            overall = re.search(r"\bglobal_step: (\d{1,15})\b", found[4], re.ASCII)
            _pairs(found[4], int(overall[1] if overall else found[2]), int(found[3]) + 1 if found[1] == "0" else None, collector)


def _lightning(lines: Sequence[str], collector: Collector) -> None:
    """A bar is one epoch's, whatever the number of epochs: steps go on over epochs, and how many there are to be is not in it.

    Where it does not say how long an epoch is, the one before counts as long as it got; where that is not there either, none. A bar that
    stands at 0 shows what was measured before: tqdm draws it once more before the next epoch has its name.
    """
    reached: dict[int, int] = {}
    for number, line in enumerate(lines):
        found = _LIGHTNING.search(line)
        pairs = _assigned(found[4]) if found is not None else []
        if found is None and (found := _RICH.search(line)) is not None:
            pairs = _told(_under(found, lines[number + 1 : number + _RICH_LINES]))
        if found is not None and (at := int(found[2])):
            epoch = int(found[1])
            reached[epoch] = max(at, reached.get(epoch, 0))
            length = int(found[3]) if found[3] != "?" else reached.get(epoch - 1, 0)
            for name, value in pairs:
                _add(collector, name, epoch * length + at, value, None)


def _assigned(postfix: str) -> list[tuple[str, str]]:
    """tqdm's `00:10<01:14, 5.92it/s, v_num=0, train_step_timing in s=12.2`: what lies between commas, for a name may have spaces."""
    parts = (_ASSIGNED.fullmatch(part) for part in postfix.split(", "))
    return [(part[1], part[2]) for part in parts if part is not None]


def _told(text: str) -> list[tuple[str, str]]:
    """rich's `v_num: ab12 train_loss: 2.310 train_step_timing in s: 12.2`: behind each colon a word, and then the next name."""
    first, *others = text.split(": ")
    names, values = [first.strip()], []
    for part in others:
        value, _, name = part.strip().partition(" ")
        values.append(value)
        names.append(name.strip())
    return [(name, value) for name, value in zip(names, values, strict=False) if _VALUE.fullmatch(value)]


def _under(bar: re.Match[str], following: Sequence[str]) -> str:
    """The metrics of a bar of rich's: the rest of its line, and of those after it the same column, while nothing else stands there."""
    prefix, column = bar.string[: bar.start()], bar.end()
    parts = [bar.string[column:].strip()]
    for line in following:
        if not line.startswith(prefix) or not _UNDER_BAR.fullmatch(line[len(prefix) : column]) or not line[column:].strip():
            break
        parts.append(line[column:].strip())
    return " ".join(parts)


_READERS: dict[str, Callable[[Sequence[str], Collector], None]] = {"megatron": _megatron, "nemo": _nemo, "lightning": _lightning}


def _pairs(text: str, step: int, total: int | None, collector: Collector) -> None:
    for part in text.translate(_NO_PARENTHESES).split("|"):
        if (found := _PAIR.fullmatch(part.strip())) is not None:
            _add(collector, found[1], step, found[2], total)


def _add(collector: Collector, name: str, step: int, value: str, total: int | None) -> None:
    if name not in _COUNTERS and is_metric(name) and step <= MOST_STEPS:
        collector.add(name, step, _as_float(value), total)


def _as_float(text: str) -> float:
    """`_NUMBER`'s text → the number; `nan.0` is none to Python."""
    return float(text.partition(".")[0] if text[-1:] in ".0" and re.match("[+-]?[ni]", text, re.IGNORECASE) else text)


def _own(lines: list[str], patterns: dict[str, str], collector: Collector) -> None:
    """A regex `step` says at which step a line stands, and those after it; without one, lines with the metric are counted."""
    compiled = {name: re.compile(pattern) for name, pattern in patterns.items()}
    counted = dict.fromkeys(compiled, 0)
    at = compiled.pop(STEP, None)
    step: int | None = None
    for line in lines:
        short = line[:OWN_MAX_LINE]
        if at is not None and (found := _number_in(at, short)) is not None and math.isfinite(found) and 0 <= found <= MOST_STEPS:
            step = int(found)
        for name, pattern in compiled.items():
            value = _number_in(pattern, short)
            if value is not None and (at is None or step is not None):
                counted[name] += 1
                collector.add(name, counted[name] if step is None else step, value)


def _number_in(pattern: re.Pattern[str], line: str) -> float | None:
    """The group as a number, `7,282` too (torchtitan's `tps`); what it caught and is none is no value."""
    found = pattern.search(line)
    text = (found[1] or "").strip() if found else ""
    text = text.replace(",", "") if _THOUSANDS.fullmatch(text) else text
    return _as_float(text) if _VALUE.fullmatch(text) else None
