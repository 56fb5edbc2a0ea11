"""Text from outside is shown and does nothing: attacks as tables, markup judged by a CommonMark parser."""

import html
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dispatcher.untrusted import MASK, cap, code, fence, for_log, neutralise, printable, redact, strip_ansi


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[38;5;196mx\x1b[K", "x"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;https://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bx\x1b7\x1b8", "x"),
        ("\x9b31mx", "x"),
        ("plain [31m", "plain [31m"),
    ],
)
def test_terminal_sequences(text: str, clean: str) -> None:
    assert strip_ansi(text) == clean


@pytest.mark.parametrize(
    "ch", ["\x00", "\x07", "\x1b", "\x7f", "\x85", "\u200b", "\u200d", "\u202e", "\u2066", "\ufeff", "\u2028", "\ud800", "\ue000"]
)
def test_characters_that_cannot_be_seen(ch: str) -> None:
    assert printable(f"a{ch}b") == "ab"


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("@org/everyone", "@org"),
        ("mail a@b.c", "@b"),
        ("fixes #123", "#123"),
        ("GH-12", "GH-1"),
        ("https://evil.example", "://"),
        ("www.evil.example", "www."),
        ("::set-output name=x::y", "::"),
        ("<img src=x onerror=y>", "<"),
        ("<!-- marker -->", "<!--"),
        ("a\n# title", "\n"),
    ],
)
def test_what_would_act_is_broken(text: str, absent: str) -> None:
    assert absent not in neutralise(text)


@pytest.mark.parametrize(
    "text",
    [
        "# title",
        "- item",
        "+ item",
        "1. item",
        "> quote",
        "=== x",
        "`code`",
        "**bold**",
        "_x_",
        "[a](b)",
        "![a](b)",
        "|a|b|",
        "~~x~~",
        "$x$",
        "\\*",
        "&lt;",
    ],
)
def test_markup_is_escaped(text: str) -> None:
    assert neutralise(text) != text
    assert shown(neutralise(text)) == text


def shown(markdown: str) -> str:
    """What a reader sees of one paragraph; fails when it became anything but plain text."""
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown).strip()
    assert page.startswith("<p>"), page
    assert "<" not in page[3:-4], page
    return html.unescape(page[3:-4]).replace("\u200b", "")


@settings(max_examples=400, deadline=None)
@given(text=st.text(max_size=60) | st.text("#-+=*_`~[]()<>&|!\\1.):@/aw \n$", min_size=1, max_size=30))
def test_any_text_reads_as_it_was_written(text: str) -> None:
    words = " ".join(printable(strip_ansi(text)).split())
    if words:
        assert shown(neutralise(text)) == words


def test_lengths() -> None:
    assert neutralise("a" * 50, limit=10) == "aaaaaaaaa…"
    assert code("a" * 300) == f"`{'a' * 199}…`"


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("a", "`a`"),
        ("", '`""`'),
        ("a`b", "``a`b``"),
        ("`a`", "`` `a` ``"),
        ("a``b", "```a``b```"),
        ("a\nb", "`a b`"),
        ("a|b", "`a\\|b`"),
        ("@org", "`@org`"),
        ("\u202ea", "`a`"),
    ],
)
def test_code_spans(text: str, span: str) -> None:
    assert code(text) == span


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60) | st.text("`a \n|~", max_size=30))
def test_nothing_closes_a_code_span_or_a_fence(text: str) -> None:
    span = code(text)
    ticks = len(span) - len(span.lstrip("`"))
    assert span.endswith("`" * ticks)
    inner = span[ticks:-ticks]
    assert "`" * ticks not in inner or max(len(run) for run in inner.replace("`", " `").split()) < ticks + 1
    assert "\n" not in span
    lines = fence(text).split("\n")
    fences = len(lines[0]) - len(lines[0].lstrip("`"))
    assert not [line for line in lines[1:-1] if line.strip().startswith("`" * fences)]


@pytest.mark.parametrize("text", ["::error::x", "  ::add-mask::y", "##[error]x", "a\r::warning::b", "a\x0b::x::y"])
def test_nothing_in_a_log_is_a_workflow_command(text: str) -> None:
    for line in for_log(text).split("\n"):
        assert "::" not in line
        assert "##[" not in line


@pytest.mark.parametrize("keep", ["head", "tail"])
@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200), limit=st.integers(0, 150))
def test_caps(keep: str, text: str, limit: int) -> None:
    capped = cap(text, limit, keep)  # type: ignore[arg-type]
    assert len(capped.encode()) <= limit
    if len(text.encode("utf-8", "replace")) <= limit:
        assert capped == text.encode("utf-8", "replace").decode()


def test_what_is_kept() -> None:
    text = "".join(f"line {n}\n" for n in range(1000))
    assert cap(text, 200).startswith("line 0\n")
    assert cap(text, 200, keep="tail").endswith("line 999\n")
    assert "left out" in cap(text, 200)


def test_no_line_of_a_block_is_one_of_our_markers() -> None:
    shown = fence("a\n<!-- nemotron-dispatch run 0123 -->\n```\n<!-- x -->")
    assert not [line for line in shown.splitlines() if line.lstrip().startswith("<!--")]
    [block] = [token for token in MarkdownIt().parse(shown) if token.type == "fence"]
    assert block.content.replace("\u200b", "") == "a\n<!-- nemotron-dispatch run 0123 -->\n```\n<!-- x -->\n"


TOKENS = [
    "ghp_" + "a1B2" * 9,
    "gho_" + "a1B2" * 9,
    "ghs_" + "a1B2" * 9,
    "github_pat_" + "11ABCDEFG0" + "_x" * 30,
    "hf_" + "aB" * 17,
    "AKIA" + "ABCDEFGHIJKLMNOP",
    "nvapi-" + "aB-_" * 10,
    "xoxb-123456789012-abcdef",
    "sk-" + "a" * 40,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghij",
    "sk-ant-api03-" + "aB-_" * 20,
    "xapp-1-A0123-1234567890-" + "0a" * 30,
    "api_org_" + "aB" * 17,
    "AIza" + "aB-_x" * 7,
    "ya29." + "aB-_x" * 9,
    "GOCSPX-" + "aB-_" * 7,
    "glpat-" + "aB3_" * 5,
    "dckr_pat_" + "aB3" * 9,
    "npm_" + "aB3x" * 9,
]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("around", ["{}", "token {} end", "x={}", '"{}"', "({})", "https://x?y={}&z"])
def test_shapes_of_tokens(token: str, around: str) -> None:
    clean = redact(around.format(token))
    assert token not in clean
    assert MASK in clean


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("wandb: Appending key 0123456789abcdef0123456789abcdef01234567 to netrc", "0123456789abcdef0123456789abcdef01234567"),
        ("export WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567", "0123456789abcdef"),
        ("HF_TOKEN: whatever-it-is", "whatever-it-is"),
        ("password = hunter2hunter2", "hunter2"),
        ('{"api_key": "abcdefghijk"}', "abcdefghijk"),
        ("Authorization: Bearer abcdefghijkl", "abcdefghijkl"),
        ("https://user:pa55word@host/x", "pa55word"),
        ("https://x-access-token:abc@github.com/o/r", "abc@"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\nNzaC1r\n-----END OPENSSH PRIVATE KEY-----\nafter", "b3Blbn"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIcut off", "MIIcut"),
        ("https://a.blob.core.windows.net/c/b?sv=2022-11-02&sp=rl&sig=abcdefghijklmnopqrstuvw%3D", "abcdefgh"),
        ("https://b.s3.amazonaws.com/x?X-Amz-Date=1&X-Amz-Signature=0123456789abcdef0123&x=1", "0123456789abcdef"),
        ("AccountName=a;AccountKey=abcdefghijklmnop==;EndpointSuffix=x", "abcdefgh"),
        ("https://hooks.slack.com/services/T0123ABCD/B0123ABCD/abcdefghijkl", "abcdefgh"),
        ("private_key = abcdefghijkl", "abcdefgh"),
        (r"{\"api_key\": \"abcdefghijk\"}", "abcdefgh"),
        (r"password=ab\cdefghijk", "cdefgh"),
        ("+ python train.py --hf-token abcdefghijklmnopqrst --lr 3", "abcdefgh"),
        ("TOKENghp_" + "a1B2" * 9, "a1B2"),
        ("\x1b[33mWANDB_API_KEY\x1b[0m=\x1b[35m0123456789abcdef\x1b[0m", "0123456789abcdef"),
        ("first\n\x1b[1mgh\x1b[0mp_" + "a1B2" * 9, "a1B2"),
    ],
)
def test_secrets_near_their_names(text: str, gone: str) -> None:
    clean = redact(text)
    assert gone not in clean
    assert MASK in clean


@pytest.mark.parametrize(
    "text",
    [
        "commit 0123456789abcdef0123456789abcdef01234567",
        "loss 1.873 tokens/s: 412",
        "https://example.com/a:b@c",
        "max_tokens=4096",
        "sk-learn",
        "ssh ci@login.example.com",
        "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----",
        "tokenizer: some/long-name-of-a-tokenizer",
        "--max-tokens 4096 --token --tokenizer-name-or-path some/long-name",
        "https://example.com/x?sig=short&signature=none",
        "\x1b[32mloss\x1b[0m 1.873 \x1b[1mcommit 0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_known_secrets_go_whole_in_lines_and_quoted() -> None:
    secret = "first line!\nsecond/line"
    text = "a first line! b second/line c first%20line%21 d"
    assert redact(text, [secret, "", "ab"]) == f"a {MASK} b {MASK} c {MASK} d"
    assert redact("a \x1b[1mfirst\x1b[0m line! b", [secret]) == f"a {MASK} b"


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000,
        "\x1b]" * 50_000,
        "://" + "a" * 200_000,
        "token=" * 30_000,
        "-----BEGIN PRIVATE KEY-----" * 5_000,
        "wandb " * 40_000,
        "`" * 100_000,
        "api_key" * 30_000,
        "eyJ" * 60_000,
        "-" * 200_000,
        "--token " * 25_000,
        "\x1b[1mtoken\n" * 15_000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    start = time.process_time()
    redact(text, ["secret"])
    neutralise(text)
    code(text)
    fence(text)
    for_log(text)
    assert time.process_time() - start < 2
