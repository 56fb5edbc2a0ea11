"""Bytes of Weights & Biases' summary file → the numbers in it by name, and the run's last step.

`wandb-summary.json` has the last value of everything that was logged, or what `define_metric(summary=…)` makes of it (a table, such as
`max`), among much that is no number: media, texts, the client's own keys, which begin with `_`
(https://docs.wandb.ai/guides/track/log/log-summary). The file is the job's: capped where it is read, and nothing in it is taken on trust.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dispatcher.results import MAX_METRICS, is_metric, not_json
from dispatcher.series import MOST_STEPS

SUMMARY_BYTES = 256 * 1024
"""A longer one is not read."""
OF_SUMMARY = "the W&B summary"
"""How a problem with it begins."""
_DEEPEST = 5
# Strict JSON has no numbers for these; its client writes them as texts.
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Summary:
    """Numbers by name, where a table's are joined to its name by dots; `step` is the last one that was logged."""

    metrics: Mapping[str, float | int] = field(default_factory=dict)
    step: int | None = None
    problem: str = ""
    """Why there is a file and none of it can be used, for people."""


def parse_summary(content: bytes | None, too_big: bool = False) -> Summary:
    """Bytes of the file (None where there is none) → its numbers; never raises. What is no number, or has no metric's name, is left out."""
    if too_big:
        return Summary(problem=f"{OF_SUMMARY} is larger than {SUMMARY_BYTES // 1024} KiB")
    if content is None:
        return Summary()
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Summary(problem=f"{OF_SUMMARY} is {not_json(content, error)}")
    if not isinstance(document, dict):
        return Summary(problem=f"{OF_SUMMARY} is not one JSON object")
    metrics: dict[str, float | int] = {}
    for name, value in _numbers(document, "", _DEEPEST):
        if is_metric(name) and len(metrics) < MAX_METRICS:
            metrics[name] = value
    step = document.get("_step")
    whole = isinstance(step, int) and not isinstance(step, bool) and 0 <= step <= MOST_STEPS
    return Summary(metrics, step if whole else None)


def _numbers(table: Mapping[str, object], before: str, depth: int) -> Iterator[tuple[str, float | int]]:
    if "_type" in table or depth == 0:
        return  # an image, a histogram, …: its width and its size are no metrics
    for name, value in table.items():
        if name.startswith("_"):
            continue
        if isinstance(value, dict):
            yield from _numbers(value, f"{before}{name}.", depth - 1)
        elif (number := _number(value)) is not None:
            yield f"{before}{name}", number


def _number(value: object) -> float | int | None:
    if isinstance(value, str):
        return _NOT_FINITE.get(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int) and abs(value) > 2**63:
        return math.inf if value > 0 else -math.inf
    return value
