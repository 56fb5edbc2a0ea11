"""Text from outside (comments, logs, results, a scheduler's words) → text that can be shown, logged or stored without acting.

Mentions notify nobody, markup renders as characters, workflow commands are no commands, secrets are gone, sizes are bounded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Literal
from urllib.parse import quote

MASK = "***"

# ECMA-48: CSI sequences, OSC/DCS/PM/APC strings (ended by BEL or ST, or by the end of the line), other two-character escapes.
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|\x9b[0-?]*[ -/]*[@-~]")

# ASCII punctuation that CommonMark lets a backslash escape and that would start markup in running text.
_MARKUP = re.compile(r"([\\`*_{}\[\]()|~!$])")

# A zero-width space breaks a mention, an issue reference, an autolink or a workflow command without being seen.
_ZERO_WIDTH_SPACE = "\u200b"
_ACTIVE = re.compile(r"@(?=\w)|#(?=\d|\[)|(?<=\bGH)-(?=\d)|:(?=:)|:(?=//)|(?<=\bwww)\.", re.IGNORECASE | re.ASCII)

# Beside each shape what stands in every such token: looking for that is a hundred times as fast as the expression, and a log has gigabytes.
_TOKEN_SHAPES = tuple(
    (marks, re.compile(pattern))
    for marks, pattern in (
        # GitHub: https://github.blog/engineering/behind-githubs-new-authentication-token-formats/
        (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9]{20,255}"),
        (("github_pat_",), r"\bgithub_pat_[A-Za-z0-9_]{20,255}"),
        (("ghs_",), r"\bghs_[A-Za-z0-9._-]{20,}"),
        (("hf_", "api_org_"), r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}"),
        (("wandb_v",), r"\bwandb_v\d_[A-Za-z0-9_]{20,}"),
        (("AKIA", "ASIA"), r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
        (("xox", "xapp-"), r"\b(?:xox[abeprs]|xapp)-[A-Za-z0-9-]{10,}"),
        (("hooks.slack.com/",), r"(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,}"),
        (("nvapi-",), r"\bnvapi-[A-Za-z0-9_-]{20,}"),
        (("sk-",), r"\bsk-[A-Za-z0-9_-]{20,}"),
        # Google: https://cloud.google.com/docs/authentication/api-keys, https://developers.google.com/identity/protocols/oauth2
        (("AIza", "ya29.", "GOCSPX-"), r"\bAIza[A-Za-z0-9_-]{35}|\bya29\.[A-Za-z0-9._-]{20,}|\bGOCSPX-[A-Za-z0-9_-]{20,}"),
        # Links that are signed: https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas, S3's, Google's.
        (
            ("sig=", "ignature="),
            r"(?<=[?&]sig=)[A-Za-z0-9%+/=_-]{16,}|(?<=-Signature=)[A-Za-z0-9%]{16,}|(?<=[?&]Signature=)[A-Za-z0-9%+/=_-]{16,}",
        ),
        (("glpat-", "dckr_pat_", "pypi-AgEI", "npm_"), r"\b(?:glpat-|dckr_pat_|pypi-AgEI|npm_)[A-Za-z0-9_-]{20,}"),
        (("eyJ",), r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}"),
    )
)
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL)
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s:@]{0,256}:[^/\s@]{1,512}(?=@)|(?<=://)[^/\s:@]{16,512}(?=@)")
# A value after a word that says it is a secret: `WANDB_API_KEY=…`, `password: …`, `Authorization: Bearer …`. It begins with the class of
# those words' first letters (U+017F is an s to `(?i)`), outside of `(?i)`: only so it is looked for by its first letter, ten times as fast.
_NAMED = re.compile(
    r"([AaSs\u017fTtPp](?i:(?:(?<=a)(?:pi|ccess|ccount)[_-]?key|(?<=s)ecret|(?<=t)oken|(?<=p)(?:ass(?:w(?:or)?d|phrase)|rivate[_-]?key))"
    r"(?:\\?[\"'])?\s{0,4}[=:]\s{0,4}(?:\\?[\"'])?"
    r"|(?<=\ba)uthorization(?:\\?[\"'])?\s{0,4}[=:]\s{0,4}(?:\\?[\"'])?(?:bearer|basic|token)\s{1,4}))"
    r"((?:[^\s\"',;\\]|\\(?![\"'])){8,})"
)
# Weights & Biases' keys are 40 hex digits like a commit's SHA, so they are recognised only near their name.
# The same as an option of a command: `--api-key …`.
_OPTION = re.compile(r"(--[\w-]{0,40}(?:api-?_?key|secret|token|password) {1,4}[\"']?)(?!-)([^\s\"',;]{16,})")
_WANDB = re.compile(r"((?:wandb|weights ?& ?biases)[^\n]{0,60}?(?<![0-9a-f]))([0-9a-f]{40})(?![0-9a-f])", re.IGNORECASE)


def strip_ansi(text: str) -> str:
    """Terminal text → the same text without colours, cursor movements and titles."""
    return _ANSI.sub("", text)


def printable(text: str) -> str:
    """Text → the same without control, format (zero-width, bidirectional) and unassigned characters; newline and tab stay."""
    return "".join(ch for ch in text if ch in "\n\t" or unicodedata.category(ch) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def neutralise(text: str, limit: int = 2000) -> str:
    """Text → one line of Markdown that shows the same characters and does nothing: at most `limit` characters are kept.

    Mentions, issue references, links and `::commands` are broken by a zero-width space (an HTML entity would not do: GitHub looks for
    mentions after decoding). For preformatted text use `code` or `fence`.
    """
    line = " ".join(printable(strip_ansi(text)).split())
    if len(line) > limit:
        line = line[: max(limit - 1, 0)] + "…"
    line = _MARKUP.sub(r"\\\1", line.replace("&", "&amp;"))
    line = line.replace("<", "&lt;").replace(">", "&gt;")
    # At the beginning of a line these would make a heading, a list, a rule or a numbered list.
    line = re.sub(r"^([#+=-])", r"\\\1", re.sub(r"^(\d{1,9})(?=\.)", r"\1\\", line, flags=re.ASCII))
    return _ACTIVE.sub(lambda found: _ZERO_WIDTH_SPACE + "." if found[0] == "." else found[0] + _ZERO_WIDTH_SPACE, line)


def code(text: str, limit: int = 200, in_table: bool = True) -> str:
    """Text → an inline Markdown code span, in which neither mentions nor markup act; empty text becomes a visible pair of quotes."""
    line = " ".join(printable(strip_ansi(text)).split()) or '""'
    if len(line) > limit:
        line = line[: max(limit - 1, 0)] + "…"
    # A pipe would end a table's cell even inside a code span; GitHub's escape for it is a backslash, which is seen anywhere else.
    if in_table:
        line = line.replace("|", "\\|")
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fence(text: str, language: str = "text") -> str:
    """Text → a fenced Markdown block that the text cannot close, without terminal and control characters.

    No line of it can be taken for one of our markers, by which our comments are found again.
    """
    clean = printable(strip_ansi(text.replace("\r\n", "\n").replace("\r", "\n"))).strip("\n")
    clean = clean.replace("<!--", f"<!{_ZERO_WIDTH_SPACE}--")
    ticks = "`" * max(3, max((len(run) for run in re.findall(r"`+", clean)), default=0) + 1)
    return f"{ticks}{language}\n{clean}\n{ticks}"


def for_log(text: str) -> str:
    """Text → lines for the Actions log in which no workflow command is understood (`::name::` and the older `##[name]`)."""
    clean = printable(strip_ansi(text.replace("\r\n", "\n").replace("\r", "\n")))
    return clean.replace("::", f":{_ZERO_WIDTH_SPACE}:").replace("##[", f"##{_ZERO_WIDTH_SPACE}[")


def cap(text: str, limit: int, keep: Literal["head", "tail"] = "head") -> str:
    """Text → at most `limit` bytes of UTF-8, cut between characters, with a note of how much is missing where it was cut."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode("utf-8")
    note = f"… ({len(data) - limit:,} bytes or more left out)"
    room = max(limit - len(note.encode()) - 1, 0)
    if keep == "head":
        return f"{data[:room].decode('utf-8', 'ignore')}\n{note}".encode()[:limit].decode("utf-8", "ignore")
    return f"{note}\n{data[len(data) - room :].decode('utf-8', 'ignore')}".encode()[:limit].decode("utf-8", "ignore")


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """Text → the same text with every given secret (each of its lines, also URL-quoted) and everything shaped like a token masked."""
    known = {part for secret in secrets for part in (secret, *secret.splitlines()) if len(part.strip()) >= 4}
    known |= {quote(part, safe="") for part in known}
    parts = sorted(known, key=len, reverse=True)
    if "\x1b" in text:
        # Colours may stand inside a secret, or between its name and it; a line that has one loses them.
        text = "\n".join(_across_colours(line, parts) if "\x1b" in line else line for line in text.split("\n"))
    return _masked(text, parts)


def _across_colours(line: str, secrets: Sequence[str]) -> str:
    plain = strip_ansi(line)
    masked = _masked(plain, secrets)
    return line if masked == plain else masked


def _masked(text: str, secrets: Sequence[str]) -> str:
    for part in secrets:
        text = text.replace(part, MASK)
    text = _PEM.sub(MASK, text)
    for marks, shape in _TOKEN_SHAPES:
        if any(mark in text for mark in marks):
            text = shape.sub(MASK, text)
    if "://" in text:
        text = _URL_CREDENTIALS.sub(MASK, text)
    if "--" in text:
        text = _OPTION.sub(lambda found: found[1] + MASK, text)
    text = _WANDB.sub(lambda found: found[1] + MASK, text)
    return _NAMED.sub(lambda found: found[1] + MASK, text)
