"""The Markdown that a comment would have → a terminal: rendered where there is one, plain and complete when piped."""

from __future__ import annotations

import re
import sys

_FOLDS = re.compile(r"</?(details|sub)( open)?>|<!--.*?-->", re.DOTALL)
_GAPS = re.compile(r"\n{3,}")
# One block of text alone, such as `doctor` has, is laid out already.
_TEXT = re.compile(r"```text\n((?:(?!```).*\n)*)```")
_SUMMARY = re.compile(r"<summary>(.*?)</summary>")


def show_markdown(text: str) -> None:
    """Prints it on standard output. HTML that GitHub folds away is unfolded here."""
    if (words := _TEXT.fullmatch(text.strip())) is not None:
        print(words[1].rstrip("\n"))
        return
    plain = _GAPS.sub("\n\n", _FOLDS.sub("", _SUMMARY.sub(r"**\1**", text))).strip()
    if not sys.stdout.isatty():
        print(plain)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(plain))
