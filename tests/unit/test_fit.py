"""What is too long for GitHub is cut at a safe place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.fit import CHECK_BYTES, COMMENT_CHARACTERS, Unit, fit

UNITS: list[Unit] = ["characters", "bytes"]


def _size(text: str, unit: Unit) -> int:
    return len(text) if unit == "characters" else len(text.encode())


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("text", ["", "short", "ü" * 100, "a\n" * 100])
def test_what_fits_stays_as_it_is(text: str, unit: Unit) -> None:
    assert fit(text, 200, unit) == text


def test_limits_are_githubs() -> None:
    assert (COMMENT_CHARACTERS, CHECK_BYTES) == (65_536, 65_535)


@pytest.mark.parametrize("unit", UNITS)
def test_exactly_the_limit_fits_and_one_more_does_not(unit: Unit) -> None:
    assert fit("a" * 500, 500, unit) == "a" * 500
    cut = fit("a" * 501, 500, unit)
    assert len(cut) <= 500
    assert "Cut here: GitHub takes at most 500" in cut
    assert "this has 501" in cut


def test_lines_stay_whole() -> None:
    cut = fit("line one\n" * 100, 300, "characters")
    assert set(cut.split("\n\n*Cut here")[0].splitlines()) == {"line one"}


def test_bytes_are_not_characters() -> None:
    cut = fit("é" * 400, 500, "bytes")
    assert 400 < len(cut.encode()) <= 500
    assert "\N{REPLACEMENT CHARACTER}" not in cut


def test_fences_and_folds_are_closed() -> None:
    cut = fit("<details>\n<summary>log</summary>\n\n````text\n```\n" + "x\n" * 300 + "````\n</details>\n", 400, "characters")
    assert cut.count("````") == 2
    assert cut.count("</details>") == 1
    assert cut.index("</details>") > cut.rindex("````")
    assert cut.index("*Cut here") > cut.index("</details>")


def test_a_closed_fence_is_left_alone() -> None:
    cut = fit("```\nx\n```\n" + "word\n" * 200, 300, "characters")
    assert cut.count("```") == 2


def test_markup_that_is_cut_in_two_goes() -> None:
    assert "<!--" not in fit("text\n<!-- " + "hidden " * 200 + "-->\n", 400, "characters").split("*Cut")[0]
    assert "<a href" not in fit("y" * 250 + '<a href="' + "x" * 400 + '">', 400, "characters")


@pytest.mark.parametrize("unit", UNITS)
def test_markers_survive_wherever_they_stand(unit: Unit) -> None:
    marker = "<!-- dispatch:run 0123456789abcdef -->"
    for text in (
        f"{marker}\n" + "ü\n" * 900,
        "ü\n" * 900 + marker,
        "ü\n" * 450 + f"{marker}\n" + "ü\n" * 450,
        "```\n" + "x" * 900 + f"\n```\n{marker}\n",
    ):
        cut = fit(text, 500, unit)
        assert cut.count(marker) == 1
        assert _size(cut, unit) <= 500


def test_half_a_character_is_no_reason_to_fail() -> None:
    assert fit("a\ud83d", 10, "characters") == "a?"


PIECES = st.sampled_from(
    ["```\n", "~~~~\n", "<details>\n", "</details>\n", "<!-- m -->\n", "<!--", "-->", "wörter\n", "x" * 90, "<a ", ">", "\n", "😀"]
)


@given(st.lists(PIECES, max_size=120).map("".join), st.integers(200, 600), st.sampled_from(UNITS))
def test_it_never_exceeds_the_limit(text: str, limit: int, unit: Unit) -> None:
    cut = fit(text, limit, unit)
    assert _size(cut, unit) <= limit
    assert cut == text or "*Cut here" in cut or text.count("<!-- m -->") * 11 > limit // 2
