"""`key=value` words → a run, or every run of a sweep, or what is wrong with them.

Nothing here knows where the words came from. Imports nothing heavy.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dispatcher.grammar import (
    MANUAL_SETTINGS,
    OVERRIDES_LIMIT,
    RUNS_LIMIT,
    SETTINGS,
    Axis,
    Malformed,
    Override,
    Run,
    Sweep,
    Word,
    canonical,
    misshapen,
    parse_override,
    unknown_word,
)
from dispatcher.untrusted import code
from dispatcher.words import values_of

# The settings that may have several values; an override always may.
VARIED_SETTINGS = ("profile", "recipe")


def run_of(words: Sequence[Word], manual: bool) -> Run | Sweep | Malformed:
    """`key=value` words → the run, or every run that the lists among the values multiply to."""
    given: dict[str, tuple[str, ...]] = {}
    for word in in_our_words(words):
        if word.is_pair and word.key in given:
            hint = f"Give it once; several values are one list: {code(word.key + '=a,b', 80)}."
            return Malformed("duplicate-key", f"{code(word.key)} is given twice.", hint)
        values = _values(word, manual)
        if isinstance(values, Malformed):
            return values
        given[word.key] = values
    overrides = tuple(Override(key, values[0]) for key, values in given.items() if key not in MANUAL_SETTINGS)
    if len(overrides) > OVERRIDES_LIMIT:
        return Malformed("too-many-overrides", f"There are {len(overrides)} overrides.", f"{OVERRIDES_LIMIT} are the limit.")
    if "ref" in given and "pr" in given:
        return Malformed("conflict", "`ref` and `pr` are both given.", "Give the one that should run.")
    count = math.prod(len(values) for values in given.values())
    if count > RUNS_LIMIT:
        hint = f"{RUNS_LIMIT} are the most that any policy can allow. If a comma belongs to a value, put the value in quotes."
        return Malformed("too-many-runs", f"These would be {count:,} runs.", hint)
    run = _settled({key: values[0] for key, values in given.items() if key in MANUAL_SETTINGS}, overrides)
    axes = tuple(Axis(key, values) for key, values in given.items() if len(values) > 1)
    return Sweep(run, axes) if axes else run


def in_our_words(words: Sequence[Word]) -> list[Word]:
    """`-c NAME` and `run.env.nodes=4`, as Nemotron has them, → `config=NAME`, `run.nodes=4`; all other words as they are."""
    found: list[Word] = []
    for word in words:
        if found and found[-1] == Word("-c") and not word.is_pair:
            found[-1] = Word(f"config={word.text}", word.quoted)
        else:
            found.append(replace(word, text=f"{canonical(word.key)}={word.value}") if word.is_pair else word)
    return found


def _values(word: Word, manual: bool) -> tuple[str, ...] | Malformed:
    """A word's values, each in the shape that its key asks for: one, or several where a list is allowed."""
    key = word.key
    if not word.is_pair:
        return unknown_word(word.text, ())
    if key in MANUAL_SETTINGS and key not in SETTINGS and not manual:
        hint = "A comment runs its own pull request; use the workflow's inputs for anything else."
        return Malformed("not-here", f"{code(key)} cannot be set in a comment.", hint)
    if key in MANUAL_SETTINGS:
        values = values_of(word) if key in VARIED_SETTINGS else (word.value,)
        wrong = [] if isinstance(values, Malformed) else [found for value in values if (found := misshapen(key, value))]
        return wrong[0] if wrong else values
    misspelt = _misspelt(key)
    if misspelt:
        return Malformed("bad-key", f"{code(key)} is not a setting.", f"Did you mean **`{misspelt}=`**?")
    values = values_of(word)
    if isinstance(values, Malformed):
        return values
    for value in values:
        override = parse_override(f"{key}={value}")
        if isinstance(override, Malformed):
            return override
    return values


def _settled(settings: Mapping[str, str], overrides: tuple[Override, ...]) -> Run:
    """Settings by name, all of them well shaped → the run."""
    sha = settings["sha"].lower() if "sha" in settings else None
    pull = int(settings["pr"]) if "pr" in settings else None
    dry_run = settings.get("dry-run") == "true"
    fresh = settings.get("fresh") == "true"
    return Run(settings.get("profile"), settings.get("recipe"), sha, settings.get("ref"), pull, overrides, dry_run, fresh=fresh)


def _misspelt(key: str) -> str | None:
    """A setting that `key` seems to mean; longer words such as `profiler` or `recipes` are left to the script."""
    flat = key.lower().replace("_", "-")
    if flat in SETTINGS:
        return flat
    near = difflib.get_close_matches(flat, [name for name in SETTINGS if len(name) >= max(len(flat), 5)], 1, 0.8)
    return near[0] if near else None


def as_preview(asked: Run | Sweep) -> Run | Sweep:
    """The same, to be shown and not submitted."""
    return replace(asked, dry_run=True) if isinstance(asked, Run) else replace(asked, run=replace(asked.run, dry_run=True))
