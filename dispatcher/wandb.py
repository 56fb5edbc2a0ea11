"""What a job printed → the address of its Weights & Biases run, when it is one that may become a link.

The log is the job's word: only https, only the sites that the profile knows, only a path that names a run. It stands in W&B's own line,
`wandb: 🚀 View run at https://wandb.ai/ENTITY/PROJECT/runs/ID` at the beginning and `View run NAME at: https://…` at the end. Its query is
not taken: it may carry an anonymous account's key. https://docs.wandb.ai/guides/runs/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dispatcher.untrusted import strip_ansi

SITE = "wandb.ai"
# One part of a path: what a name is made of, or is written as in an address; never `.` or `..`.
_PART = r"(?:[A-Za-z0-9_-]|%[2-9A-Fa-f][0-9A-Fa-f])(?:[A-Za-z0-9._~-]|%[2-9A-Fa-f][0-9A-Fa-f]){0,199}"
SITE_PATTERN = rf"[A-Za-z0-9](?:[A-Za-z0-9.-]{{0,251}}[A-Za-z0-9])?(?::[0-9]{{1,5}})?(?:/{_PART}){{0,3}}"
RUN_PATTERN = rf"https://{SITE_PATTERN}/{_PART}/{_PART}/runs/{_PART}"

# Wholly there: half of a line that is being written would be another run's address.
_LINE = re.compile(r"\bView run\b[^\n]{0,300}?[ \t](https://[^\s<>\"'`]{1,1000})(?=\s)")
_BASE = re.compile(rf"https://({SITE_PATTERN})/?", re.ASCII)


def site_of(environment: Mapping[str, str]) -> str:
    """The site that the job's variables name (`WANDB_BASE_URL`), without scheme; W&B's own where they name none, or one without TLS."""
    found = _BASE.fullmatch(environment.get("WANDB_BASE_URL", ""))
    return SITE if found is None or found[1].lower() == f"api.{SITE}" else found[1]


def expects_run(environment: Mapping[str, str]) -> bool:
    """Whether the job's variables say that it reports to W&B while it runs; what a cluster's own `~/.netrc` lets it do is not known."""
    online = environment.get("WANDB_MODE", "online") not in ("offline", "disabled", "dryrun")
    return online and any(name.startswith("WANDB_") for name in environment)


def run_link(text: str, site: str) -> str:
    """The first run that the text names on `site` or on W&B's own; empty when there is none."""
    known = "|".join(re.escape(name) for name in dict.fromkeys((site, SITE)))
    address = re.compile(rf"https://(?:(?i:{known}))/{_PART}/{_PART}/runs/{_PART}(?=$|[?#])", re.ASCII)
    for line in _LINE.finditer(strip_ansi(text)):
        if found := address.match(line[1]):
            return found[0]
    return ""
