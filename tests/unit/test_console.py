"""What a terminal shows of a comment."""

from __future__ import annotations

import pytest

from dispatcher.effects.console import show_markdown

CHART = """<details><summary>Curve</summary>

```mermaid
%%{{init: {{"themeVariables": {{}}}}}}%%
xychart-beta
    title "loss"
    x-axis "step" 0 --> 30
{lines}```
<sub>loss, steps 0 to 30</sub>

</details>
"""


def shown(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    show_markdown(text)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "blocks"),
    [
        ("    line [8, 4, 1]\n", "█▄▁"),
        ("    line [8, 4, 1]\n    line [1, 1.5, 8e0]\n", "blue █▄▁\ngrey ▁▁█"),
    ],
)
def test_a_chart_is_drawn_with_blocks(lines: str, blocks: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(CHART.format(lines=lines), capsys) == f"**Curve**\n\n```text\n{blocks}\n```\nloss, steps 0 to 30\n"


@pytest.mark.parametrize("lines", ["", "    line [oops]\n", "    line [1,, 2]\n", "    line [-]\n", "    bar [1, 2]\n"])
def test_a_chart_that_is_none_of_ours_stays_as_it_is(lines: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f'xychart-beta\n    title "loss"\n    x-axis "step" 0 --> 30\n{lines}```' in shown(CHART.format(lines=lines), capsys)


def test_what_is_folded_on_github_is_unfolded(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("<!-- mark -->\n### done\n\n\n\n<sub>small</sub>", capsys) == "### done\n\nsmall\n"
    assert shown("```text\njust\nwords\n```", capsys) == "just\nwords\n"
