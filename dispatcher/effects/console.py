"""The Markdown that a comment would have → a terminal: rendered where there is one, plain and complete when piped."""

from __future__ import annotations

import json
import re
import sys

from dispatcher.curvereport import sparkline

_FOLDS = re.compile(r"</?(details|sub)( open)?>|<!--.*?-->", re.DOTALL)
_GAPS = re.compile(r"\n{3,}")
# One block of text alone, such as `doctor` has, is laid out already.
_TEXT = re.compile(r"```text\n((?:(?!```).*\n)*)```")
_CHART = re.compile(r"```mermaid\n%%.*\nxychart-beta\n((?:(?!```).*\n)*)```")
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?"
_LINE = re.compile(rf"^ *line (\[{_NUMBER}(?:, {_NUMBER})*\])$", re.MULTILINE)
_SUMMARY = re.compile(r"<summary>(.*?)</summary>")


def show_markdown(text: str) -> None:
    """Prints it on standard output. HTML that GitHub folds away is unfolded here."""
    if (words := _TEXT.fullmatch(text.strip())) is not None:
        print(words[1].rstrip("\n"))
        return
    plain = _GAPS.sub("\n\n", _FOLDS.sub("", _SUMMARY.sub(r"**\1**", _CHART.sub(_blocks, text)))).strip()
    if not sys.stdout.isatty():
        print(plain, flush=True)  # in its place among what stands on standard error
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(plain))


def _blocks(chart: re.Match[str]) -> str:
    """A chart's lines, one below the other and by one scale; as it is where it has none."""
    lines: list[list[float]] = [json.loads(values) for values in _LINE.findall(chart[1])]
    blocks = sparkline([value for line in lines for value in line])
    ends = [sum(map(len, lines[: number + 1])) for number in range(len(lines))]
    names = ("blue ", "grey ") if len(lines) > 1 else ("",)  # as the words below the chart call them
    drawn = "".join(f"{name}{blocks[end - len(line) : end]}\n" for name, line, end in zip(names, lines, ends, strict=False))
    return f"```text\n{drawn}```" if drawn else chart[0]
