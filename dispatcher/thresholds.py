"""Rules for single metrics (`metrics:` of a recipe) × what a run measured × what it is compared with → a verdict for each, in one sentence.

A rule has fixed bounds, or compares with something: the default branch's last runs (`baseline`), the run of the merge base, or a number.
What cannot be compared is never silently good: a metric that is missing, or is no number, fails unless the rule says otherwise.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from typing_extensions import Self

from dispatcher.document import Loc, ProblemsError
from dispatcher.noise import DEVIATIONS
from dispatcher.overlay import RunCurve
from dispatcher.phrases import change_words, number, numbers_apart, percent
from dispatcher.results import Value
from dispatcher.values import Between, Model

_NUMBER = r"[+-]?(?:[0-9]{1,15}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})(?:[eE][+-]?[0-9]{1,3})?"


def _as_number(value: Any) -> Any:
    """The loaders keep fractions as they were written."""
    if isinstance(value, (bool, list, dict)) or (isinstance(value, str) and not re.fullmatch(_NUMBER, value, re.ASCII)):
        raise ValueError("is not a number such as `1.9` or `3e-4`")
    return float(value) if isinstance(value, (int, str)) else value


def _as_margin(value: Any) -> Any:
    """`2%` → a share of what is compared with, `0.05` → an amount."""
    if isinstance(value, Margin):
        return value
    text = value.strip() if isinstance(value, str) else value
    relative = isinstance(text, str) and text.endswith("%")
    try:
        amount = _as_number(text[:-1].strip() if relative else text)
    except ValueError:
        raise ValueError("is not a margin such as `2%` or `0.05`") from None
    if not isinstance(amount, float) or not math.isfinite(amount) or amount < 0:
        raise ValueError("is not a margin such as `2%` or `0.05`")
    return Margin(amount / 100 if relative else amount, relative)


def _as_reference(value: Any) -> Any:
    if value in NAMED:
        return value
    try:
        return _as_number(value)
    except ValueError:
        near = difflib.get_close_matches(value, NAMED, 1, 0.6) if isinstance(value, str) else []
        meant = f"; did you mean `{near[0]}`?" if near else ""
        raise ValueError(f"is not `baseline`, `merge-base` or a number{meant}") from None


def _as_range(value: Any) -> Any:
    """pydantic would speak of tuples."""
    if value is not None and not (isinstance(value, (list, tuple)) and len(value) == 2):
        raise ValueError("is not two numbers, `[least, most]`")
    return value


@dataclass(frozen=True)
class Margin:
    """How far a value may be from what it is compared with: a share of that, or an amount."""

    amount: float
    relative: bool

    def of(self, reference: float) -> float:
        """The amount."""
        return self.amount * abs(reference) if self.relative else self.amount

    def __str__(self) -> str:
        return f"{self.amount * 100:.4g} %" if self.relative else number(self.amount)


Number = Annotated[float, BeforeValidator(_as_number), Field(allow_inf_nan=False), WithJsonSchema({"type": ["number", "string"]})]
MarginField = Annotated[Margin, BeforeValidator(_as_margin), WithJsonSchema({"type": ["number", "string"], "examples": ["2%", 0.05]})]
Reference = Annotated[
    float | Literal["baseline", "merge-base"],
    BeforeValidator(_as_reference),
    WithJsonSchema({"anyOf": [{"enum": ["baseline", "merge-base"]}, {"type": ["number", "string"]}]}),
]
NAMED = ("baseline", "merge-base")
Level = Literal["pass", "warn", "fail"]

COMPARED = frozenset({"max_increase", "max_decrease", "no_worse_than"})


class MetricRule(Model):
    """What one metric has to be."""

    max: Number | None = Field(default=None, description="At most this.")
    min: Number | None = Field(default=None, description="At least this.")
    range: Annotated[tuple[Number, Number] | None, BeforeValidator(_as_range)] = Field(
        default=None, description="Between these two, both included."
    )
    max_increase: MarginField | None = Field(
        default=None, description="At most so much above what it is compared with: `2%`, or an amount."
    )
    max_decrease: MarginField | None = Field(default=None, description="At most so much below it.")
    no_worse_than: Reference | None = Field(
        default=None, description="Not worse than `baseline`, `merge-base` or a number; what is worse is said by `better`."
    )
    against: Reference = Field(
        default="baseline",
        description="What the two above compare with: `baseline` (the last runs of the default branch), `merge-base` or a number.",
    )
    better: Literal["lower", "higher"] = Field(default="lower", description="Which way is better.")
    tolerance: MarginField | None = Field(
        default=None,
        description="How much worse `no_worse_than` lets pass. Without it as much as the default branch's runs scatter by themselves.",
    )
    window: Annotated[int, Between(1, 100)] = Field(default=10, description="How many of the default branch's last runs make the baseline.")
    missing: Level = Field(default="fail", description="What it means when a run does not report the metric.")
    no_baseline: Level = Field(default="warn", description="What it means when there is nothing to compare with.")
    level: Literal["block", "warn"] = Field(default="block", description="Whether being worse fails the run, or only warns.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        problems: list[tuple[Loc, str]] = []
        if all(getattr(self, name) is None for name in ("max", "min", "range", *COMPARED)):
            problems.append(((), "needs one of `max`, `min`, `range`, `max_increase`, `max_decrease`, `no_worse_than`"))
        if self.range is not None and self.range[0] > self.range[1]:
            problems.append((("range",), "`range` is written `[least, most]`"))
        elif None not in (bounds := self.bounds) and bounds[0] > bounds[1]:  # type: ignore[operator]  # neither is None
            problems.append(
                ((), f"`min`, `max` and `range` let nothing pass: at least {number(bounds[0])}, and at most {number(bounds[1])}")
            )
        if "tolerance" in self.model_fields_set and self.no_worse_than is None:
            problems.append((("tolerance",), "`tolerance` belongs to `no_worse_than`"))
        if problems:
            raise ProblemsError(problems)
        return self

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The least and the most that `min`, `max` and `range` together let pass."""
        least, most = self.range or (None, None)
        return (
            max((bound for bound in (least, self.min) if bound is not None), default=None),
            min((bound for bound in (most, self.max) if bound is not None), default=None),
        )

    @property
    def references(self) -> tuple[float | Literal["baseline", "merge-base"], ...]:
        """What it compares with."""
        named = [self.against] if self.max_increase is not None or self.max_decrease is not None else []
        return (*named, *([self.no_worse_than] if self.no_worse_than is not None else []))


@dataclass(frozen=True)
class Compared:
    """Something to compare with: its value, how much such values scatter by themselves (one standard deviation), what it is."""

    value: float
    spread: float
    words: str
    curve: RunCurve | None = None
    """The run that is drawn for it."""
    deviations: float | None = DEVIATIONS
    """How many of those a difference has to exceed to be news; None while nobody knows how much such values scatter."""


@dataclass(frozen=True)
class NotFound:
    """What to compare with could not be found out; `why` is a clause: `GitHub did not say where it left its branch`."""

    why: str


class MetricVerdict(BaseModel):
    """How one metric stands: what the record keeps, and the comment's table shows."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str
    value: float | None = None
    baseline: float | None = None
    baseline_words: str = ""
    beside: RunCurve | None = None
    """The baseline's own curve; None where there is none, or none to draw it beside."""
    limit: str = ""
    outcome: Level
    movable: bool = False
    """It is worse than the baseline, and another baseline would let it pass."""
    why: str
    """One sentence without its full stop: `loss 2.1 is 12 % above the median of 10 runs, 1.87 (limit +2 %)`."""


Sources = Mapping[str, Mapping[str, Compared | NotFound]]
"""`baseline` and `merge-base` → metric → what to compare with; what is not there, there is none of."""

# Below this share no difference is taken for more than noise.
LEAST_SHARE = 0.005
ROUNDING = 1e-9
"""2.04 is 2 % above 2.0, whatever binary fractions say."""


def judge(rules: Mapping[str, MetricRule], metrics: Mapping[str, Value], sources: Sources) -> tuple[MetricVerdict, ...]:
    """A verdict for each rule, in their order."""
    return tuple(_verdict(name, rule, metrics, sources) for name, rule in rules.items())


def worst(verdicts: tuple[MetricVerdict, ...]) -> Level:
    """The run's."""
    outcomes = {verdict.outcome for verdict in verdicts}
    return "fail" if "fail" in outcomes else "warn" if "warn" in outcomes else "pass"


def _verdict(name: str, rule: MetricRule, metrics: Mapping[str, Value], sources: Sources) -> MetricVerdict:
    if name not in metrics or metrics[name] is None:
        return MetricVerdict(name=name, outcome=rule.missing, why=f"{name} was not reported")
    value = metrics[name]
    if isinstance(value, str):
        return MetricVerdict(name=name, outcome="fail", why=f"{name} is a text, not a number")
    value = float(value)  # type: ignore[arg-type]  # None is above
    if not math.isfinite(value):
        words = "not a number (NaN)" if math.isnan(value) else "infinite"
        return MetricVerdict(name=name, value=value, outcome="fail", why=f"{name} is {words}")
    found = [_bounds(name, rule, value), *_comparisons(name, rule, value, sources)]
    order = {"fail": 0, "warn": 1, "pass": 2}
    chosen = min((item for item in found if item is not None), key=lambda item: order[item.outcome])
    compared = next((item for item in found if item is not None and item.baseline is not None), chosen)
    limits = " · ".join(item.limit for item in found if item is not None and item.limit)
    # Where something else is broken as well, another baseline alone would not help.
    movable = all(item.movable for item in found if item is not None and item.outcome == chosen.outcome)
    told = {
        "movable": movable,
        "baseline": compared.baseline,
        "baseline_words": compared.baseline_words,
        "beside": compared.beside,
        "limit": limits,
    }
    return chosen.model_copy(update=told)


def _bounds(name: str, rule: MetricRule, value: float) -> MetricVerdict | None:
    """The fixed ones."""
    least, most = rule.bounds
    if least is None and most is None:
        return None
    limit = (
        f"{number(least)} – {number(most)}"
        if least is not None and most is not None
        else (f"≥ {number(least)}" if most is None else f"≤ {number(most)}")
    )
    outcome: Level = "pass"
    why = f"{name} {number(value)} is within {limit}"
    if most is not None and value > most:
        outcome, why = _missed(rule), "{} {} is above {}".format(name, *numbers_apart(value, most))
    elif least is not None and value < least:
        outcome, why = _missed(rule), "{} {} is below {}".format(name, *numbers_apart(value, least))
    return MetricVerdict(name=name, value=value, limit=limit, outcome=outcome, why=why)


def _comparisons(name: str, rule: MetricRule, value: float, sources: Sources) -> Iterator[MetricVerdict]:
    """With what the rule names."""
    if rule.max_increase is not None:
        yield _compared(name, rule, value, rule.against, sources, up=rule.max_increase, down=None)
    if rule.max_decrease is not None:
        yield _compared(name, rule, value, rule.against, sources, up=None, down=rule.max_decrease)
    if rule.no_worse_than is not None:
        found = _source(name, rule.no_worse_than, sources)
        margin = rule.tolerance or _noise_margin(rule, found)
        up, down = (margin, None) if rule.better == "lower" else (None, margin)
        known = rule.tolerance is not None or not isinstance(found, Compared) or found.deviations is not None
        yield _compared(name, rule, value, rule.no_worse_than, sources, up, down, known)


def _noise_margin(rule: MetricRule, found: Compared | NotFound | None) -> Margin:
    """What noise alone explains; a number of the policy has none."""
    if not isinstance(found, Compared) or isinstance(rule.no_worse_than, float):
        return Margin(0.0, False)
    return Margin(max((found.deviations or 0.0) * found.spread, LEAST_SHARE * abs(found.value)), False)


def _source(name: str, reference: float | str, sources: Sources) -> Compared | NotFound | None:
    if isinstance(reference, float):
        return Compared(reference, 0.0, "the policy's number")
    return sources.get(reference, {}).get(name)


def _compared(
    name: str,
    rule: MetricRule,
    value: float,
    reference: float | str,
    sources: Sources,
    up: Margin | None,
    down: Margin | None,
    known: bool = True,
) -> MetricVerdict:
    """One comparison, upwards or downwards. Where the noise is not `known`, what is worse may be noise: it fails nobody."""
    found = _source(name, reference, sources)
    if found is None:
        return MetricVerdict(name=name, value=value, outcome=rule.no_baseline, why=f"there is no {reference} to compare {name} with")
    if isinstance(found, NotFound):
        why = f"{name} could not be compared with the {reference}: {found.why}"
        return MetricVerdict(name=name, value=value, outcome=_missed(rule), why=why)
    margin = up or down or Margin(0.0, False)
    sign = "+" if up is not None else "−"
    difference = value - found.value if up is not None else found.value - value
    worse = difference > margin.of(found.value) + ROUNDING * abs(found.value)
    shown = f"{margin}" if margin.relative or found.value == 0 else percent(margin.amount / abs(found.value))
    limit = f"{sign}{shown}" if known else ""
    told = f"limit {limit}" if known else "only a warning: too few runs to know how much is noise, and the rule has no `tolerance`"
    ours, theirs = numbers_apart(value, found.value)
    change = change_words(value, found.value, float(shown.removesuffix(" %").replace(",", "")) if shown.endswith("%") else math.inf, worse)
    words = f"{name} {ours} is {change} {found.words}, {theirs}"
    return MetricVerdict(
        name=name,
        value=value,
        baseline=found.value,
        baseline_words=found.words,
        beside=found.curve,
        limit=limit,
        outcome="pass" if not worse else _missed(rule) if known else "warn",
        movable=worse and reference == "baseline",
        why=f"{words} ({told})",
    )


def _missed(rule: MetricRule) -> Level:
    return "fail" if rule.level == "block" else "warn"
