"""A text that may be too long for GitHub → the same text, or its beginning, cut at a safe place with a note.

The limits are GitHub's own, and it refuses what is longer: a comment has at most 65,536 characters, a check's summary at
most 65,535 bytes (https://docs.github.com/rest/checks/runs). A report that is cut is better than a report that is lost.
"""

from __future__ import annotations

import re
from typing import Literal

Unit = Literal["characters", "bytes"]

COMMENT_CHARACTERS = 65_536
CHECK_BYTES = 65_535

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_MARKER_LINE = re.compile(r"^[ \t]*<!--.*-->[ \t]*$", re.MULTILINE)
_LINE_SEARCH = 4_000
"""How far back from the limit a line's end is looked for; a longer line is cut in its middle."""


def fit(text: str, limit: int, unit: Unit) -> str:
    """The text if it has at most `limit` units, else its beginning: whole lines, code fences and `<details>` closed, a note at the end.

    Lines that are nothing but an HTML comment survive the cut, because we find our own comments by such markers. What cannot be
    written as UTF-8 becomes `?`.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    if _size(text, unit) <= limit:
        return text
    note = f"\n\n*Cut here: GitHub takes at most {limit:,} {unit}, this has {_size(text, unit):,}.*\n"
    room = limit - _size(note, unit)
    while True:
        kept = _before_open_markup(_whole_lines(_first(text, room, unit)))
        tail = _closers(kept) + note + "".join(f"{line}\n" for line in _MARKER_LINE.findall(text[len(kept) :]))
        excess = _size(kept + tail, unit) - limit
        if excess <= 0 or not kept:
            return _first(kept + tail, limit, unit)
        room = min(room, _size(kept, unit)) - excess


def _size(text: str, unit: Unit) -> int:
    return len(text) if unit == "characters" else len(text.encode("utf-8"))


def _first(text: str, count: int, unit: Unit) -> str:
    """The first `count` units, never half a character."""
    count = max(count, 0)
    return text[:count] if unit == "characters" else text.encode("utf-8")[:count].decode("utf-8", "ignore")


def _whole_lines(text: str) -> str:
    """Without the last, incomplete line, unless that line is very long."""
    end = text.rfind("\n", max(0, len(text) - _LINE_SEARCH))
    return text if end < 0 else text[:end]


def _before_open_markup(text: str) -> str:
    """Without an HTML comment or a tag that was cut in its middle: it would swallow everything after it."""
    comment = text.rfind("<!--")
    if comment >= 0 and "-->" not in text[comment:]:
        text = text[:comment]
    tag = text.rfind("<", max(0, len(text) - 1_000))
    if tag >= 0 and ">" not in text[tag:] and "\n" not in text[tag:]:
        text = text[:tag]
    return text


def _closers(text: str) -> str:
    """What closes the code fence and the `<details>` that are open at the end of the text."""
    fence = ""
    folds = 0
    for line in text.splitlines():
        match = _FENCE.match(line)
        if match and not fence:
            fence = match[1]
        elif match and match[1].startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        elif not fence:
            folds += line.count("<details") - line.count("</details>")
    return (f"\n{fence}" if fence else "") + "\n\n</details>" * max(folds, 0)
