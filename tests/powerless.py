"""Markdown that we have written → what in it would act on GitHub although it should only be read: mentions, links, HTML, markers.

Judged by a CommonMark parser, because only a parser knows where code ends. GitHub looks for mentions, references and addresses in what
is neither code nor a link: https://docs.github.com/get-started/writing-on-github/working-with-advanced-formatting/autolinked-references-and-urls
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

# What reports are built of; a tag with any other attribute is somebody else's.
_OUR_TAGS = frozenset({"<sub>", "</sub>", "<details>", "<details open>", "</details>", "<summary>", "</summary>"})
_TAG = re.compile(r"<!--.*?-->|<[^>]*>", re.DOTALL)
_ACTS = {
    "a mention": re.compile(r"(?<![\w`])@(?=[A-Za-z0-9])"),
    "a reference": re.compile(r"(?<!\w)#\d|(?<!\w)GH-\d|\w/\w+#\d", re.IGNORECASE | re.ASCII),
    "an address": re.compile(r"\b[a-z]{2,10}://|\bwww\.\w", re.IGNORECASE),
}


def acting(markdown: str, markers: Collection[str], links: Sequence[str]) -> list[str]:
    """What acts, each as a few words; empty is good. `markers` are our own hidden lines, `links` how our own addresses begin."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
    found = [problem for token in tokens for problem in _token(token, markers, links)]
    strange = [line for line in markdown.splitlines() if line.lstrip().startswith("<!--") and line not in markers]
    return found + [f"a hidden line: {line[:80]!r}" for line in strange]


def _token(token: Token, markers: Collection[str], links: Sequence[str]) -> Iterator[str]:
    if token.type == "html_block":
        yield from _html(token.content, markers)
    if token.type == "inline":
        yield from _inline(token.children or [], markers, links)


def _inline(children: list[Token], markers: Collection[str], links: Sequence[str]) -> Iterator[str]:
    text, depth = "", 0
    for child in children:
        if child.type == "html_inline":
            yield from _html(child.content, markers)
        elif child.type == "image":
            yield f"an image: {child.attrs.get('src')!r}"
        elif child.type == "link_open":
            depth += 1
            address = str(child.attrs.get("href"))
            if not address.startswith(tuple(links)):
                yield f"a link: {address[:80]!r}"
        elif child.type == "link_close":
            depth -= 1
        # Inside a link GitHub makes no other; code stands for a character that is no part of a word.
        text += child.content if child.type in ("text", "text_special") and not depth else " " if child.type.endswith("break") else "\0"
    yield from _words(text)


def _html(html: str, markers: Collection[str]) -> Iterator[str]:
    for tag in _TAG.findall(html):
        if tag not in _OUR_TAGS and tag not in markers:
            yield f"HTML: {tag[:80]!r}"
    yield from _words(_TAG.sub("\0", html))


def _words(text: str) -> Iterator[str]:
    for what, shape in _ACTS.items():
        for hit in shape.finditer(text):
            yield f"{what}: {text[max(hit.start() - 20, 0) : hit.end() + 20]!r}"
