"""A model of the configuration → a table of its fields: name, type, default, meaning. What the model does not say is not there."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dispatcher import launcher, packager, recipe, rules, squash, thresholds, trainconfig, values
from dispatcher.clouds import kuberay, kubernetes
from dispatcher.docs.pages import table
from dispatcher.phrases import duration

# Types that are told apart by what they are called in values.py, because their bare shape says too little.
_NAMED: tuple[tuple[Any, str], ...] = (
    (values.Duration, "a duration such as `90s`, `10m` or `4h`"),
    (values.SlurmTime, "a time in one of Slurm's forms, such as `04:00:00`, `1-12` or `90` (minutes)"),
    (thresholds.Margin, "a share such as `2%`, or an amount"),
    (rules.Hours, "a number, such as `64` or `1.5`"),
    (rules.Regex, "a regular expression"),
    (launcher.Seconds, "seconds, such as `5` or `0.5`"),
    (packager.PackagerField, "`git`, `none`, or a table ([below](#packagers))"),
    (trainconfig.ConfigField, "a path, or a table ([below](#configurations))"),
    (recipe.CommandLine, "a line of words, such as `uv run {script} --config {config}`"),
    (squash.SquashField, "a path, or a table ([below](#squash))"),
    (kubernetes.FreeTable, "a table as Kubernetes has it"),
    (kuberay.RayWorkerGroup, "a table ([below](executors.md#groups-of-workers))"),
    (values.Line, "a line of text"),
    (values.Text, "text"),
)


def fields_table(model: type[BaseModel], leave_out: frozenset[str] = frozenset(), only: frozenset[str] | None = None) -> str:
    """The whole table; `leave_out` and `only` choose fields by name."""
    kinds = get_type_hints(model, include_extras=True)
    rows = [
        (f"`{field.alias or name}`", kind_words(kinds[name]), default_words(field, kind_words(kinds[name])), field.description or "")
        for name, field in model.model_fields.items()
        if name not in leave_out and (only is None or name in only)
    ]
    return table(("key", "value", "default", "meaning"), rows)


def kind_words(annotation: Any) -> str:
    """What may stand there, in words."""
    for known, words in _NAMED:
        if annotation == known:
            return words
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated(inner[0], inner[1:])
    if origin is Literal:
        return " or ".join(f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(kind_words(part) for part in inner if part is not type(None)))
    if origin is tuple:
        return "two numbers, `[low, high]`" if inner == (thresholds.Number, thresholds.Number) else f"a list: {kind_words(inner[0])}"
    if origin is dict:
        return f"a table: {kind_words(inner[0])} → {kind_words(inner[1])}"
    if annotation is packager.SubPackager:
        return "a table of these"
    if annotation is Any:
        return "anything"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation.__module__.startswith("dispatcher.clouds."):
            return f"a table ([there](executors.md#{annotation.__name__.lower()}))"
        return f"a table ([below](#{annotation.__name__.lower()}))"
    return {bool: "`true` or `false`", int: "a whole number", float: "a number", str: "text"}[annotation]


def _annotated(inside: Any, metadata: tuple[Any, ...]) -> str:
    for item in metadata:
        if isinstance(item, values.Shape):
            return item.words
        if isinstance(item, values.Between):
            return f"a whole number, {item.low:,} to {item.high:,}"
    if any(isinstance(item, values._OrOne) for item in metadata):
        return f"one, or a list of: {kind_words(get_args(inside)[0])}"
    return kind_words(inside)


def default_words(field: FieldInfo, kind: str) -> str:
    """What counts where nothing is said; `kind` is `kind_words`' answer."""
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None or value in ((), {}):
        return "–"
    if isinstance(value, packager.Packager):
        return f"`{value.type}`"
    if isinstance(value, BaseModel):
        return "–" if not value.model_fields_set else "see there"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    if kind.startswith("a duration") and isinstance(value, int):
        return f"`{duration(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
