"""Hostile inputs as code: payloads by family × places where somebody else's text enters → the same list in every process.

A payload that tries to execute something tries `touch <canary folder>/<number of the input>`, so that the folder says afterwards which
input did it. `TOUCH` in a payload stands for that command, `CANARY` for the file. Each place gets a payload of every family, and each
payload stands at the places where text is legal and travels furthest: a script's argument, a job's environment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from zlib import crc32

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "shell": (
        "$(TOUCH)", "`TOUCH`", ";TOUCH;", "|TOUCH", "||TOUCH||", "&&TOUCH&&", "&TOUCH&", "';TOUCH;'", '";TOUCH;"', "'\";TOUCH;#",
        "\\';TOUCH;\\'", "$'\\x3b'TOUCH", ">CANARY", "1>>CANARY", "<(TOUCH)", ">(TOUCH)", ";touch$IFS$9CANARY;", "{touch,CANARY}",
        "$({touch,CANARY})", "`{touch,CANARY}`", "() { :;};TOUCH", "a[$(TOUCH)]", "$[$(TOUCH)]", "$((a[$(TOUCH)]))", "<<<$(TOUCH)",
        "<<EOF", "\"$(TOUCH)\"", "'$(TOUCH)'", "$(TOUCH", "`TOUCH", "\\`TOUCH\\`", "$\\(TOUCH)", "!TOUCH", "eval$IFS'TOUCH'", "$(<CANARY)",
        "*", "?", "[a-z]*", "~", "~root", "$$", "$?", "$0", "$@", "$PATH", "$SLURM_JOB_ID", "\\", "'", '"', "a'b\"c\\d`e$f", "#TOUCH",
        "#!/bin/sh", "#SBATCH", "%s%n", "LD_PRELOAD=CANARY", "BASH_ENV=CANARY", "PROMPT_COMMAND=TOUCH", "x;TOUCH&",
        "__import__('os').system('TOUCH')", "\");__import__('os').system(\"TOUCH\")#", "{0.__class__.__init__.__globals__}", "%(x)s",
        "'; DROP TABLE runs; --", "' OR '1'='1", "exec touch CANARY", "python3 -c 'open(\"CANARY\",\"w\")'",
    ),
    "yaml": (
        "!!python/object/apply:os.system [TOUCH]", "!!python/name:os.system", "&a[*a,*a]", "*a", "<<: *a", "{a: b}", "{a:b,c:[d]}",
        "[a,b]", "- x", "? x", "|", ">-", "%YAML 1.1", "---", "...", "key: value", "x: !!int 3", "# comment", '"\\x41"', "yes", "NO",
        "null", "~", "0x1F", "0o17", "1_000", "1e999", ".inf", ".nan", "2001-01-01", "1:30", "!!binary aGk=", "@x", "\t- x",
        "a: |\n  b", "{", "[", "[[[[[[[[[[", "'", "!<tag:x>", "<<", "=",
    ),
    "interpolation": (
        "${oc.env:HOME}", "${oc.env:DISPATCH_SSH_KEY}", "${oc.decode:\"!!python\"}", "${oc.create:{a:b}}", "${${x}}", "\\${x}", "$${x}",
        "${", "${}", "${x", "$\\{x}", "$ {x}", "$\u200b{x}", "???", "${.}", "${..x}", "${touch:CANARY}", "${IFS}", "$HOME", "%{x}", "{{x}}",
        "{path}", "${{ secrets.GITHUB_TOKEN }}", "${{github.token}}", "\uff04\uff5bx\uff5d", "$(oc.env:HOME)", "$job_id", "$$${x}",
        "~x", "+x", "++x", "x@y", "glob(*)", "range(1,3)", "choice(a,b)", "$head_node_ip", "{run_key}",
    ),
    "path": (
        "../../etc/passwd", "/etc/passwd", "..", ".", "../", "./", "/", "//", "a/../../b", "....//....//x", "..\\..\\x", "%2e%2e%2fx",
        "..%2fx", "~/.ssh/authorized_keys", "~root/x", "//host/share", "\\\\host\\share", "file:///etc/passwd", "C:\\x", "a/./b", "a//b",
        ".git/config", ".ssh", "x/", "/dev/null", "/dev/tcp/127.0.0.1/1", "/proc/self/environ", "CANARY", "../CANARY",
        "../../../../../../..CANARY", "x/../..CANARY", ".lock", "x.lock", "refs/heads/x", "refs/pull/1/head", "@{-1}", "x@{0}", "HEAD~1",
        "HEAD^{/x}", ":x", "x..y", "con", "nul.txt", "code/../env", "../env", "../../../active/x", "x" + "/x" * 100,
    ),
    "markdown": (
        "@org/team", "@alice", "\\@alice", "&#64;alice", "&commat;alice", "`@alice`", "``@alice", "``` @alice", "*@alice*", "[@alice](x)",
        "<b>@alice</b>", "|@alice|", "\\|@alice", "a\\`@alice`", "**b**", "~~s~~", "<script>alert(1)</script>", "<img/src=x/onerror=x>",
        "<!--", "-->", "<!-- nemotron-dispatch 000000000000000000000000 -->", "<!-- nemotron-dispatch run 0123456789abcdef -->",
        "![x](http://evil.example/x.png)", "[x](javascript:alert(1))", "<http://evil.example>", "http://evil.example/", "www.evil.example",
        "`", "``", "```", "~~~", "\\`", "` `", "#1", "org/repo#1", "GH-1", "# h", "> q", "</details>", "<details>", "</sub>", "&lt;img&gt;",
        "$\\alpha$", "[^1]", ":tada:", "a\n\n@alice", "a\n```\n@alice", "\n## h", "::error::x", "::set-output name=x::y", "##[error]x",
        "::add-mask::e", "::stop-commands::x", "x`@alice", "`x``@alice`", "<a href=\"//evil.example\">x</a>", "reason `submitted`",
    ),
    "look-alike": (
        "\u0441luster", "clu\u0455ter", "\uff50rofile", "\u217custer", "\u1d5d0x", "\uff1bTOUCH", "\uff04(TOUCH)", "\uff40TOUCH\uff40",
        "\uff20org/team", "\u2024\u2024/x", "\uff0e\uff0e\uff0fx", "a\u2215b", "a\uff0fb", "\u2010x", "\u2013x", "\u2014help", "\u2212rf",
        "\uff0drf", "x\uff1d1", "\ua789x", "cluste\u0072\u0301", "c\u0327", "\u00c5", "A\u030a", "\u212b", "\u212a", "\u0131", "\u00df",
        "\ufb01", "\u0661\u0662", "\u00b2", "\u216b", "\U0001d7d9", "\U0001d5bc\U0001d5c5", "\u2460", "\u201cx\u201d", "\u2018x\u2019",
        "\u00abx\u00bb", "\u02bax", "\uff02x\uff02", "\U0001f680", "\U0001f1e9\U0001f1ea", "Z\u0351\u036b\u0343", "\u3164x", "\u2800x",
        "\uffa0", "\u115f", "x\ufe0f", "\u034f", "\ufffd", "\ud800", "\udc00x", "\ue000", "\uffff", "\U000e0041", "\U0010ffff", "\u0378",
    ),
    "zero-width": (
        "clu\u200bster", "\u200bx", "x\u200b", "a\u200cb", "a\u200db", "a\u2060b", "\ufeffx", "x\ufeff", "a\u00adb", "a\u180eb", "a\u2061b",
        "a\u2062b", "a\u2063b", "a\u2064b", "a\u00a0b", "a\u3000b", "a\u2003b", "a\u202fb", "a\u205fb", "a\u1680b", "a\u2028b", "a\u2029b",
        "a\u0085b", "$\u200b(TOUCH)", "@\u200balice", "\u200b@alice", ".\u200b./x", "-\u200b-help", "=\u200b=", "\ufff9x",
    ),
    "right-to-left": (
        "\u202ex", "\u202dx", "\u202ax", "\u202bx", "x\u202c", "\u2066x", "\u2067x", "\u2068x", "x\u2069", "\u200ex", "\u200fx", "\u061cx",
        "gpj.\u202esh", "\u202e)HCUOT($", "\u05d0\u05d1\u05d2", "\u0627\u0644", "x\u05d0=1", "\u05d0", "\u202e\u2066x\u2069\u2066y",
        "clus\u202eret", "\u0627;TOUCH", "\u05be", "\u07fa",
    ),
    "long": (
        "A" * 64, "A" * 65, "A" * 512, "A" * 513, "A" * 1990, "A" * 2000, "A" * 2001, "A" * 60_000, "a." * 127 + "a", "a." * 300 + "a",
        "/a" * 200, "a/" * 126 + "a", "`" * 450, "\\" * 500, '\\"' * 240, "'" * 400, '"' * 400, "=" * 500, "[" * 500, "{" * 500, "(" * 500,
        "a[0]" * 60, "-" * 500, "." * 255, "a@{" * 80, "a b " * 120, "k=1 " * 70, "a=1 " * 20_000, "\u00e9" * 256, "\U0001f680" * 128,
        "e\u0301" * 200, "Z\u0351" * 250, "&" * 500, "<" * 500, "@a " * 160, "x\n" * 30_000, "\t" * 500, "0" * 500, "9" * 400,
        "ghp_" + "a" * 36, "a" * 40, "a" * 39 + "G", "f" * 64, "://" + "a" * 400, "token=" + "a" * 400, "1-" * 100, "[1-" * 80,
    ),
    "percent": (
        "%0A", "%0D", "%0D%0A", "%0ATOUCH", "%0A::error::x", "%0D%0A::set-output name=x::y", "%0a/train", "%00", "%25", "%250A", "%%", "%",
        "%j", "%x", "%A", "%u/x", "%2F..%2F", "%c0%ae", "%u002e", "%ZZ", "%E2%80%AE", "\\n", "\\r\\n", "\\x0a", "\\u000a", "&#10;", "\\0",
        "=0A", "?x=%0A", "#%0A",
    ),
    "dash": (
        "-", "--", "---", "-rf", "-e", "-c", "-h", "-x", "-1", "-0", "+x", "--help", "--version", "--wrap=TOUCH", "--export=ALL",
        "-oProxyCommand=TOUCH", "--upload-pack=TOUCH", "--exec=TOUCH", "--config=/etc/passwd",
        "--output=CANARY", "-oCANARY", "--job-name=x", "--uid=0", "-DCANARY", "--error=CANARY",
        "ext::sh -c TOUCH", "ext::TOUCH",
        "ssh://-oProxyCommand=TOUCH/x", "git@-oProxyCommand=TOUCH:x", "--task-prolog=CANARY",
        "--bcast=CANARY", "--chdir=/", "--container-image=x",
        "-n1", "-cTOUCH", "-m", "-Im", "--checkpoint-action=exec=TOUCH", "/help", "-\u2010", "--=x", "-=", "--no-sandbox",
    ),
    "control": (
        "a\x00b", "\x00", "a\x07b", "\x1b[31mred", "\x1b]0;t\x07", "\x9b31m", "a\x08b", "a\x7fb", "a\rb", "a\r\nTOUCH", "a\nTOUCH",
        "\nTOUCH\n", "a\x0bb",
        "a\x0cb", "a\x1cb", "a\x1eb", "a\x04b", "a\x03b", "a\x1ab", "a\tb", "\t", " ", "  a  ", "", "\n", "\r", "\n\n/train",
        "x\n/train cancel", "x\r/train cancel all", "x\u2028/train cancel", "/train", "/train /train",
    ),
}  # fmt: skip
"""Payloads by family; within a family no two are alike, beyond what the family is about."""


CRON = "1 2 3 4 5"
"""What fires for the positions in a policy."""


@dataclass(frozen=True)
class Position:
    """Where a payload is put: in a field of an event's payload, or in the policy that the event then meets.

    `{}` in the template is the payload (JSON-quoted in a policy), `{n}` the input's number; `quote` is what encloses the payload.
    """

    event: str
    field: tuple[str, ...]
    template: str = "{}"
    quote: str = ""
    policy: bool = False

    def written(self, number: int, text: str) -> str:
        """The text that stands there."""
        text = text.replace("\\", "\\\\").replace('"', '\\"') if self.quote == '"' else text
        text = json.dumps(text) if self.policy else text
        return self.template.replace("{n}", str(number)).replace("{}", f"{self.quote}{text}{self.quote}")


def _comment(template: str, quote: str = "") -> Position:
    return Position("issue_comment", ("comment", "body"), template, quote)


def _input(name: str, template: str = "{}") -> Position:
    return Position("workflow_dispatch", ("inputs", name), template)


def _client(name: str, template: str = "{}") -> Position:
    return Position("repository_dispatch", ("client_payload", name), template)


def _policy(template: str) -> Position:
    return Position("schedule", ("schedule",), template, policy=True)


def _recipe(fields: str) -> Position:
    return _policy(f"schedules: [{{ name: s, cron: '{CRON}', recipe: x }}]\nrecipes: {{ x: {{ {fields} }} }}")


ARGUMENTS = ("argument", "argument-quoted", "argument-single")
"""Where a legal payload becomes one argument of the script, called `k<number>`."""
VARIABLE = "variable"
"""Where a legal payload becomes a variable of the job's environment, called `K<number>`."""

POSITIONS: Mapping[str, Position] = {
    # words of a comment
    "argument": _comment("/train k{n}={}"),
    "argument-quoted": _comment("/train k{n}={}", '"'),
    "argument-single": _comment("/train k{n}={}", "'"),
    VARIABLE: _comment("/train run.env_vars.K{n}={}", '"'),
    "profile": _comment("/train profile={}"),
    "profile-quoted": _comment("/train profile={}", '"'),
    "profiles": _comment("/train plan profile=cluster,{}"),
    "recipe": _comment("/train recipe={}"),
    "recipe-quoted": _comment("/train recipe={}", '"'),
    "sha": _comment("/train sha={}"),
    "key": _comment("/train {}=1"),
    "dotted-key": _comment("/train plan a.{}=1"),
    "profile-field": _comment("/train run.{}=1"),
    "word": _comment("/train {}"),
    "plan": _comment("/train plan {}"),
    "swept": _comment("/train plan k{n}=1,{}"),
    "dry-run": _comment("/train dry-run={}"),
    "nodes": _comment("/train run.nodes={}"),
    "account": _comment("/train run.account={}", '"'),
    "partition": _comment("/train run.partition={}"),
    "time": _comment("/train run.time={}"),
    "image": _comment("/train run.container_image={}"),
    "mount": _comment("/train run.mounts={}"),
    "srun-argument": _comment("/train run.srun_args=[{}]"),
    "sbatch-option": _comment("/train run.additional_parameters.mail_user={}", '"'),
    "sbatch-option-name": _comment("/train run.additional_parameters.{}=1"),
    "variable-name": _comment("/train run.env_vars.{}=1"),
    "constraint": _comment("/train run.constraint={}"),
    "place": _comment("/train run.job_dir={}"),
    "host": _comment("/train run.host={}"),
    "cancel": _comment("/train cancel {}"),
    "cancel-profile": _comment("/train cancel profile={}"),
    "logs": _comment("/train logs {}"),
    "logs-lines": _comment("/train logs lines={}"),
    "retry": _comment("/train retry {}"),
    "approve": _comment("/train approve sha={}"),
    "approve-word": _comment("/train approve {}"),
    "override-gate": _comment('/train override {} reason="x"'),
    "override-reason": _comment("/train override dispatch/gate reason={}", '"'),
    "baseline": _comment("/train baseline accept {}"),
    "baseline-verb": _comment("/train baseline {}"),
    "help": _comment("/train help {}"),
    "status": _comment("/train status {}"),
    # a comment as a whole
    "whole": _comment("{}"),
    "glued": _comment("/train{}"),
    "before": _comment("{}\n/train status"),
    "after": _comment("/train status\n{}"),
    "after-command": _comment("/train status\n/train {}"),
    # what the commit has
    "submodule": _comment("/train plan"),
    # the other ways in
    "label": Position("pull_request_target", ("label", "name"), "train:{}"),
    "label-recipe": Position("pull_request_target", ("label", "name"), "train:cluster/{}"),
    "label-whole": Position("pull_request_target", ("label", "name")),
    **{f"input-{name}": _input(name) for name in ("profile", "recipe", "ref", "pr", "sha", "dry-run", "overrides")},
    "input-value": _input("overrides", "k{n}={} dry-run=true"),
    "input-other": _input("message"),
    "picked-ref": Position("workflow_dispatch", ("ref",)),
    **{f"client-{name}": _client(name) for name in ("profile", "recipe", "ref", "pr", "sha", "overrides", "command")},
    "client-type": Position("repository_dispatch", ("action",)),
    "cron": Position("schedule", ("schedule",)),
    "queue-head": Position("merge_group", ("merge_group", "head_ref")),
    "queue-base": Position("merge_group", ("merge_group", "base_ref")),
    "queue-sha": Position("merge_group", ("merge_group", "head_sha")),
    "check-id": Position("check_run", ("check_run", "external_id")),
    "check-name": Position("check_run", ("check_run", "name")),
    "check-sha": Position("check_run", ("check_run", "head_sha")),
    "check-gate": Position("check_run", ("check_run", "external_id"), "gate-{}"),
    "check-approval": Position("check_run", ("check_run", "external_id"), "approval-{}"),
    "button": Position("check_run", ("requested_action", "identifier")),
    "pushed-before": Position("pull_request", ("before",)),
    "pushed-base": Position("pull_request", ("pull_request", "base", "ref")),
    "pushed-fork": Position("pull_request", ("pull_request", "head", "repo", "full_name")),
    "pushed-label": Position("pull_request", ("pull_request", "labels"), "train:{}"),
    "sender": Position("workflow_dispatch", ("sender", "login")),
    "author": Position("issue_comment", ("comment", "user", "login")),
    "repository": Position("issue_comment", ("repository", "full_name")),
    "default-branch": Position("issue_comment", ("repository", "default_branch")),
    "action": Position("issue_comment", ("action",)),
    "created": Position("issue_comment", ("comment", "created_at")),
    # the policy, on the default branch: reviewed, and yet never more than data
    "schedule-override": _policy("schedules: [{ name: s, cron: '1 2 3 4 5', overrides: [{}] }]"),
    "schedule-name": _policy("schedules: [{ name: {}, cron: '1 2 3 4 5' }]"),
    "schedule-ref": _policy("schedules: [{ name: s, cron: '1 2 3 4 5', ref: {} }]"),
    "script": _recipe("script: {}"),
    "entrypoint": _recipe("script: train.py, entrypoint: {}"),
    "results": _recipe("script: train.py, results: {}"),
    "subpath": _recipe("script: train.py, subpath: {}"),
    "pattern": _recipe("script: train.py, include_pattern: [{}]"),
    "packed-pattern": _recipe("script: train.py, packager: { type: pattern, include_pattern: [train.py, {}] }"),
    "packed-root": _recipe("script: train.py, packager: { type: pattern, include_pattern: [train.py], relative_path: {} }"),
    "packed-part": _recipe("script: a/train.py, packager: { type: hybrid, sub_packagers: { a: { type: git }, {}: { type: git } } }"),
}  # fmt: skip

# Everywhere else a payload of each family will do; here every single one stands.
_EVERY = (*ARGUMENTS, VARIABLE, "word", "whole", "label")
# Where all of a family stand besides: what begins with a dash where options are taken, what acts when it is shown where it stays for long.
_ALL_OF: Mapping[str, tuple[str, ...]] = {
    "srun-argument": ("dash",),
    "sbatch-option-name": ("dash",),
    "override-reason": ("markdown",),
    "submodule": ("dash",),
}


@dataclass(frozen=True)
class Hostile:
    """One input. `payload` is what an attacker wrote, `text` what therefore stands at the position."""

    number: int
    family: str
    position: str
    payload: str
    text: str

    @property
    def id(self) -> str:
        """A name for reports."""
        return f"{self.number:04d}-{self.family}-{self.position}"

    @property
    def place(self) -> Position:
        """The position itself."""
        return POSITIONS[self.position]

    @property
    def words(self) -> str:
        """What follows the command word, for positions inside one."""
        return self.text.removeprefix("/train ")

    def put_into(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event's payload with the text in its field."""
        here = event
        for name in self.place.field[:-1]:
            here = here.setdefault(name, {})
        written = CRON if self.place.policy else self.text
        here[self.place.field[-1]] = [{"name": written}] if self.place.field[-1] == "labels" else written
        return event


REPOSITORY, NUMBER, SHA = "org/repo", 1, "a" * 40


def bare(event: str, author: str = "alice", head: str = SHA) -> dict[str, Any]:
    """A payload with no more than what is looked at, for one of the events of `POSITIONS`."""
    owner = {"login": author, "type": "User"}
    fields: Mapping[str, dict[str, Any]] = {
        "issue_comment": {
            "action": "created",
            "issue": {"number": NUMBER, "state": "open", "pull_request": {}},
            "comment": {"id": 1, "body": "/train", "user": owner, "created_at": "2024-05-06T14:01:30Z"},
        },
        "pull_request_target": {
            "action": "labeled",
            "label": {"name": "train:cluster"},
            "pull_request": {
                "number": NUMBER,
                "updated_at": "2024-05-06T14:01:30Z",
                "head": {"sha": head, "ref": "feature", "repo": {"full_name": REPOSITORY}},
                "base": {"ref": "main", "sha": head},
            },
        },
        "pull_request": {
            "action": "synchronize",
            "before": "b" * 40,
            "pull_request": {
                "number": NUMBER,
                "head": {"sha": head, "ref": "feature", "repo": {"full_name": REPOSITORY}},
                "base": {"ref": "main", "sha": head},
                "labels": [],
            },
        },
        "workflow_dispatch": {"inputs": {}, "ref": "refs/heads/main"},
        "repository_dispatch": {"action": "train", "branch": "main", "client_payload": {}},
        "schedule": {"schedule": CRON},
        "merge_group": {
            "action": "checks_requested",
            "merge_group": {"head_sha": head, "head_ref": "refs/heads/gh-readonly-queue/main/pr-1", "base_ref": "main", "base_sha": head},
        },
        "check_run": {
            "action": "requested_action",
            "requested_action": {"identifier": "cancel"},
            "check_run": {
                "id": 1,
                "name": "dispatch / cluster / default",
                "head_sha": head,
                "external_id": "0123456789abcdef",
                "app": {"slug": "github-actions"},
                "pull_requests": [{"number": NUMBER, "base": {"repo": {"id": 1}}}],
            },
        },
    }
    return {"repository": {"id": 1, "full_name": REPOSITORY, "default_branch": "main"}, "sender": owner, **deepcopy(fields[event])}


def corpus(canary: str) -> tuple[Hostile, ...]:
    """Every input, in the same order and with the same numbers each time; `canary` is the folder that they try to write to."""
    found = []
    for number, (family, payload, position) in enumerate(_chosen(), 1):
        text = payload.replace("TOUCH", f"touch {canary}/{number}").replace("CANARY", f"{canary}/{number}")
        found.append(Hostile(number, family, position, text, POSITIONS[position].written(number, text)))
    return tuple(found)


def some(items: Sequence[Hostile]) -> tuple[Hostile, ...]:
    """Two inputs of five, more or less, and always the same: families and positions stay mixed."""
    return tuple(item for item in items if crc32(item.id.encode()) % 5 < 2)


def _chosen() -> Iterator[tuple[str, str, str]]:
    """Family, payload, position: every payload at two of the positions of `_EVERY`; elsewhere one of each family, or `_ALL_OF` it."""
    for family, payloads in FAMILIES.items():
        for index, payload in enumerate(dict.fromkeys(payloads)):
            # Which of the three ways to write an argument takes turns; each way sees each family.
            yield family, payload, ARGUMENTS[index % 3]
            yield family, payload, [position for position in _EVERY if position not in ARGUMENTS][index % 4]
    for turn, position in enumerate(position for position in POSITIONS if position not in _EVERY):
        for family, payloads in FAMILIES.items():
            chosen = payloads if family in _ALL_OF.get(position, ()) else (payloads[turn % len(payloads)],)
            yield from ((family, payload, position) for payload in chosen)


REASON = re.compile(r"[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*")
"""What a reason code looks like."""
