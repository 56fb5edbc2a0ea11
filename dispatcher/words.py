"""A line ↔ its words: where one ends, what a quote does, and how a value is written so that it reads back the same."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dispatcher.grammar import RUNS_LIMIT, Malformed, Word
from dispatcher.untrusted import code

# What begins a quoted value, and what some editors make of it.
QUOTES = "\"'“”„‘’«"
# What may stand between two quotes; only `"` has escapes, `\"` and `\\`.
_INSIDE = {'"': re.compile(r"((?:[^\"\\]|\\[\"\\]|\\(?![\"\\]))*)\""), "'": re.compile(r"([^']*)'")}
_BEGINS = re.compile(r"([^\s=]*=)?([\"'])")


def split_words(line: str) -> list[Word] | Malformed:
    """A line of printing characters → words. A quote counts only where a word or its value begins; elsewhere it is a character."""
    words: list[Word] = []
    rest = line.strip(" \t")
    while rest:
        found = _BEGINS.match(rest)
        if not found:
            text = re.split(r"[ \t]", rest, maxsplit=1)[0]
            rest = rest[len(text) :]
            if text.partition("=")[2][:1] in tuple(QUOTES[2:]):
                return Malformed("unbalanced-quote", f"{code(text)} begins with a typographic quote.", "Use straight quotes, `\"` or `'`.")
            words.append(Word(text))
        else:
            body = _INSIDE[found[2]].match(rest, found.end())
            after = rest[body.end() :] if body else ""
            if not body or after[:1] not in ("", " ", "\t"):
                return _unbalanced(rest[found.start(2) :])
            words.append(Word((found[1] or "") + _unescaped(body[1], found[2]), quoted=True))
            rest = after
        rest = rest.lstrip(" \t")
    return words


def shell_word(text: str) -> Word | Malformed:
    """A word as a shell hands it over, with spaces and without the shell's own quotes; a value may still be quoted inside it."""
    found = re.match(r"([^\s=]*=)([\"'])", text)
    if not found:
        return Word(text)
    body = _INSIDE[found[2]].fullmatch(text, found.end())
    if not body:
        return _unbalanced(text[found.start(2) :])
    return Word(found[1] + _unescaped(body[1], found[2]), quoted=True)


def written(value: str, in_lists: bool = True) -> str:
    """A value → how it is written: as it is when that reads back as this one value, else in quotes. There is no shorter way.

    `in_lists`: the key takes a list of values, so a comma would separate two.
    """
    one = not in_lists or "," not in value or between_commas(value) == (value,)
    plain = one and not re.search(r"\s", value) and value[:1] not in tuple(QUOTES)
    if plain:
        return value
    # A backslash needs another only where it would be taken for the beginning of an escape.
    double = '"' + re.sub(r'\\(?=[\\"]|\Z)|"', r"\\\g<0>", value) + '"'
    return f"'{value}'" if "'" not in value and len(value) + 2 < len(double) else double


_BRACKETS: Mapping[str, str] = {"(": ")", "[": "]", "{": "}"}


def between_commas(value: str) -> tuple[str, ...] | None:
    """The parts of a value between those of its commas that stand outside of all brackets; None when the brackets do not match."""
    missing: list[str] = []
    ends = []
    for position, ch in enumerate(value):
        if ch in _BRACKETS:
            missing.append(_BRACKETS[ch])
        elif ch in _BRACKETS.values() and (not missing or missing.pop() != ch):
            return None
        elif ch == "," and not missing:
            ends.append(position)
    if missing:
        return None
    return tuple(value[begin:end] for begin, end in zip([0, *(end + 1 for end in ends)], [*ends, len(value)], strict=True))


def values_of(word: Word) -> tuple[str, ...] | Malformed:
    """The values of `key=a,b`. A quoted value is one value, whatever stands in it."""
    if word.quoted or "," not in word.value:
        return (word.value,)
    quoted = f'{word.key}="a,b"'
    hint = f"A list is written without spaces. If the comma belongs to the value, put the value in quotes: {code(quoted, 80)}."
    parts = between_commas(word.value)
    if parts is None:
        return Malformed("bad-list", f"The brackets in the value of {code(word.key)} do not match.", hint)
    if len(parts) == 1:
        return parts
    if len(parts) > RUNS_LIMIT:
        return Malformed("too-many-runs", f"The list of {code(word.key)} has {len(parts):,} values.", f"{RUNS_LIMIT} are the limit. {hint}")
    for number, part in enumerate(parts):
        if not part:
            return Malformed("bad-list", f"The list {code(word.text)} has an empty value.", hint)
        if part in parts[:number]:
            return Malformed("bad-list", f"The list {code(word.text)} has {code(part)} twice.", hint)
        if part[0] in QUOTES or " " in part:
            return Malformed("bad-list", f"{code(part)} cannot stand in a list: it has a quote or a space.", hint)
    return parts


def _unescaped(body: str, quote: str) -> str:
    return re.sub(r"\\([\"\\])", r"\1", body) if quote == '"' else body


def _unbalanced(begins: str) -> Malformed:
    hint = "Close it with the same quote, and put a space behind."
    return Malformed("unbalanced-quote", f"The quote that begins at {code(begins, 40)} does not end.", hint)
