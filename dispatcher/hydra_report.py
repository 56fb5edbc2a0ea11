"""The lines of one rank → what Hydra says of an exception that it shows without a traceback.

`hydra.utils.instantiate` names the class that it called, and in the next line the exception as `TypeError("…")` is written in Python:
https://github.com/facebookresearch/hydra/blob/main/hydra/_internal/instantiate/_instantiate2.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from dispatcher.traceback_parts import Line, Traceback

_CALL = re.compile(r"Error in call to target '.{1,400}':$")
_WRITTEN = re.compile(r"(?P<name>[A-Za-z_]\w{0,79})\((?P<quote>['\"])(?P<message>.*)(?P=quote),?\)$", re.ASCII)


def failed_calls(lines: Sequence[Line]) -> Iterator[Traceback]:
    """Hydra's, of what could not be made from a config."""
    for call, line in pairwise(lines):
        written = _WRITTEN.match(line.text) if _CALL.match(call.text) else None
        if written is not None:
            message = written["message"].replace("\\n", " ").replace("\\'", "'")
            yield Traceback(call.number, line.number, line.stream, line.rank, (), written["name"], message, after=False)
