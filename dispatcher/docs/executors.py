"""The executors of `registry.py` side by side: which has which field, its type and default; and which packagers they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_type_hints

from dispatcher.docs.fields import default_words, kind_words
from dispatcher.docs.pages import table
from dispatcher.executor import Common
from dispatcher.packager import KINDS
from dispatcher.registry import EXECUTORS

ALL = "all"


def every_field() -> str:
    """A row for each field; more than one where executors differ in its type or default."""
    rows: list[tuple[str, str, str, str]] = []
    names = sorted({name for model in EXECUTORS.values() for name in model.model_fields} - {"executor"})
    for name in names:
        holders: dict[tuple[str, str], list[str]] = {}
        for executor, model in EXECUTORS.items():
            if name in model.model_fields:
                holders.setdefault(_said(model, name), []).append(executor)
        for (kind, default), executors in holders.items():
            who = ALL if len(executors) == len(EXECUTORS) else ", ".join(f"`{executor}`" for executor in executors)
            rows.append((f"`{name}`", who, kind, default))
    return table(("key", "executors", "value", "default"), rows)


def _said(model: type[Common], name: str) -> tuple[str, str]:
    kind = kind_words(get_type_hints(model, include_extras=True)[name])
    return kind, default_words(model.model_fields[name], kind)


def support(executors: Mapping[str, type[Common]] = EXECUTORS) -> str:
    """Which executor takes which packager, as the profile's models say."""
    rows = ((f"`{name}`", *("yes" if kind in model.PACKAGERS else "–" for kind in KINDS)) for name, model in executors.items())
    return table(("executor", *(f"`{kind}`" for kind in KINDS)), rows)
