"""The command line's words, with their help: what `cli.py` reads, and what `docs/cli.md` is made from."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from dispatcher import __version__
from dispatcher.errors import EXITS, Exit
from dispatcher.verbs import TASK

STATUSES = "\n".join(f"  {item.value:>3}  {EXITS[item]}" for item in Exit)

Add = Callable[[str, str, str], argparse.ArgumentParser]
Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class _Parser(argparse.ArgumentParser):
    """argparse's own, which names the nearest command, and takes `-c NAME` between the words where a command has it."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """As argparse does, which would take no further words once an option has come."""
        if args is not None and "--config" in self._option_string_actions:
            args = _config_spelt_out(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        wrong = re.match(r"argument \w+: invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if wrong:
            import difflib

            known = re.findall(r"[a-z]+", wrong[2])
            near = difflib.get_close_matches(wrong[1], known, 1, 0.6)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            message = f"there is no command `{wrong[1]}`.{hint} There are: {', '.join(known)}."
        super().error(message)


def _config_spelt_out(args: Sequence[str]) -> list[str]:
    """`-c NAME`, `--config NAME` and `--config=NAME` → `config=NAME`, which is a word like others."""
    found: list[str] = []
    for word in args:
        if found and found[-1] in ("-c", "--config") and not word.startswith("-"):
            found[-1] = f"config={word}"
        else:
            found.append(word.removeprefix("--") if word.startswith("--config=") else word)
    return found


def parser() -> argparse.ArgumentParser:
    """Every command; `command` in the result is its name."""
    top: argparse.ArgumentParser = _Parser(
        prog="nemotron-dispatch",
        description="Comment /train on a pull request: a NeMo-Run job on Slurm, its log and result in the pull request, a merge gate.",
        epilog=f"exit status:\n{STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    common = _common()
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, words: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=words,
            description=words[0].upper() + words[1:] + ".",
            epilog=f"example{'s' if chr(10) in example else ''}:\n  nemotron-dispatch {example}",
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    _setting_up(add)
    _policy(add)
    _profile(add)
    _trying(add)
    _starting(add)
    _looking(add)
    _for_github(add)
    return top


def _common(inner: bool = False) -> argparse.ArgumentParser:
    """The options of every command. `inner`: of a command below another, which must not put defaults over what that one was given."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS if inner else None)
    common.add_argument("--json", action="store_true", help="print one JSON object on standard output, everything else on standard error")
    common.add_argument("--debug", action="store_true", help="show a traceback when something breaks")
    folder = argparse.SUPPRESS if inner else Path()
    common.add_argument("--repo", type=Path, default=folder, metavar="DIR", help="the checkout to work in (default: the current folder)")
    return common


def _starting(add: Add) -> None:
    for name, words in (
        ("plan", "show what would run: the resolved profile, the packed files, the script; submits nothing"),
        ("submit", "run a commit of this checkout"),
    ):
        several = f"{name} profile=cluster lr=1e-3,3e-4"
        sub = add(name, words, f"{name} profile=cluster recipe=default train.iters=200\n  nemotron-dispatch {several}")
        takes = "profile=…, recipe=…, config=… and overrides; a list of values, lr=1e-3,3e-4, is a run for each"
        sub.add_argument("words", nargs="*", metavar="KEY=VALUE", help=takes)
        sub.add_argument("-c", "--config", metavar="NAME", help="the same as config=NAME: which of the recipe's configurations")
        what = sub.add_mutually_exclusive_group()
        what.add_argument("--commit", default="HEAD", help="what to run (default: HEAD); uncommitted changes do not travel")
        what.add_argument("--working-folder", action="store_true", help="run the files as they lie, committed or not")
    sub.add_argument("--wait", action=argparse.BooleanOptionalAction, help="follow the run to its end (default: as the profile says)")
    sub.add_argument("--request", metavar="NAME", help="name this request: the same name and words again find the same run")


def _looking(add: Add) -> None:
    status = add("status", "show one run, or what is active and what ran on this commit", "status 4f1c2d3e4f5a6b7c")
    status.add_argument("run", nargs="?", metavar="RUN", help="a run key, or the beginning of an active run's")
    status.add_argument("--commit", default="HEAD", help="list the runs of this commit (default: HEAD)")
    logs = add("logs", "print a run's log", "logs 4f1c --follow")
    logs.add_argument("run", metavar="RUN", help="a run key, or the beginning of an active run's")
    logs.add_argument("--follow", "-f", action="store_true", help="go on until the run has ended")
    logs.add_argument("--lines", "-n", type=_whole, default=200, metavar="NUMBER", help="how many of the last lines (default: 200)")
    logs.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help="keep the whole log in this file; again, it fetches only what has come since"
    )
    logs.add_argument(
        "--task",
        "-t",
        type=_number,
        metavar="NUMBER",
        help="the log of this task of an array, component of a heterogeneous job, or job of a chain",
    )
    history = add("history", "print what the default branch's runs have measured, and plot it", "history --metric loss --plot loss.svg")
    history.add_argument("--profile", help="on which one (default: the policy's default)")
    history.add_argument("--recipe", metavar="NAME", help="of which recipe, or stage, such as full:sft (default: the policy's default)")
    history.add_argument("--metric", metavar="NAME", help="only this one (default: those with rules first, up to four)")
    history.add_argument("--lines", "-n", type=_whole, default=20, metavar="NUMBER", help="how many of the last runs (default: 20)")
    history.add_argument("--plot", type=Path, metavar="FILE", help="write a plot of the first metric into this file, .svg or .png")
    cancel = add("cancel", "end a run's job", "cancel 4f1c2d3e4f5a6b7c")
    cancel.add_argument("run", metavar="RUN", help="a run key, or the beginning of an active run's")


def _for_github(add: Add) -> None:
    handle = add("handle", "answer one GitHub event, as the action does", "handle --event event.json")
    handle.add_argument("--event", metavar="FILE", help="the payload (default: $GITHUB_EVENT_PATH)")
    handle.add_argument("--event-name", metavar="NAME", help="for example issue_comment (default: $GITHUB_EVENT_NAME)")
    _log_folder(handle, "keep the complete log of a run that is waited for in this folder (default: $DISPATCH_LOG_FOLDER, else nowhere)")
    watch = add("watch", "look at every active run once and report what changed", "watch --follow")
    watch.add_argument("--follow", action="store_true", help="look again and again until nothing is active")
    watch.add_argument("--interval", type=_seconds, default=60.0, metavar="SECONDS", help="between two looks with --follow (default: 60)")
    _log_folder(watch, "keep the complete log of every run that ends in this folder (default: $DISPATCH_LOG_FOLDER, else nowhere)")
    gate = add("gate", "judge a pull request's required runs and write the check dispatch/gate", "gate 12")
    gate.add_argument("number", type=_whole, nargs="?", metavar="NUMBER", help="the pull request (default: the event's)")


def _log_folder(command: argparse.ArgumentParser, words: str) -> None:
    command.add_argument("--log-folder", type=Path, metavar="DIR", help=words)


def _trying(add: Add) -> None:
    doctor = add("doctor", "check that a profile works: key, host key, scheduler, account, folder", "doctor --profile cluster")
    doctor.add_argument("--profile", help="which one (default: the policy's default)")
    demo = add(
        "demo", "run the whole story here: a small repository, a baseline, a comment, training runs, a gate that holds a worse one", "demo"
    )
    demo.add_argument("--keep", metavar="DIR", type=Path, help="leave the demo's repository and ledger in this folder")


_WAYS = "some of comments, labels, merge-queue, schedule, api, manual (default: comments,labels,manual)"
INIT_QUESTIONS = (
    ("--executor", "NAME", "slurm, or local: the workflow's own machine (default: slurm)"),
    ("--profile", "NAME", "the profile's name (default: cluster, or local)"),
    ("--host", "NAME", "the cluster's login node"),
    ("--port", "NUMBER", "its SSH port (default: 22)"),
    ("--user", "NAME", "the account there"),
    ("--account", "NAME", "the Slurm account that jobs are charged to"),
    ("--partition", "NAME", "the partition (default: the cluster's own)"),
    ("--job-dir", "DIR", "a folder on the cluster for runs, which the compute nodes see too"),
    ("--nodes", "NUMBER", "nodes of a job (default: 1)"),
    ("--gpus", "NUMBER", "GPUs on each node (default: none is asked for)"),
    ("--time", "TIME", "a job's time limit (default: 04:00:00, or 01:00:00 where it is local)"),
    ("--script", "FILE", "the script that /train runs"),
    ("--launcher", "NAME", "none or torchrun (default: torchrun for more than one node or GPU)"),
    ("--ways", "LIST", f"how runs are asked for: {_WAYS}"),
    ("--cron", "EXPRESSION", 'when the schedule fires, in UTC (default: "17 3 * * 1-5")'),
    (
        "--gate",
        "KIND",
        "what must have passed on a cluster before a merge: no, check (the check dispatch/gate) or job (a workflow too; default: no)",
    ),
    ("--action", "ACTION", "owner/name@<40 hex digits>, with # v1.2.3 behind it (default: what this program was installed from)"),
)
"""Every question of `onboarding.py` that is answered in words, as a flag of `init`: the flag, what it takes, what it says."""


def _setting_up(add: Add) -> None:
    """Every question of `onboarding.py` is a flag here, under the same name."""
    cluster = "--host login.example.com --user ci --account my-account --job-dir /lustre/ci/dispatch"
    init = add(
        "init",
        "write workflows, a policy and a profile into this checkout, by asking a few questions or from flags",
        "init\n"
        "  nemotron-dispatch init --executor local --script train.py --ways comments,labels,schedule\n"
        f"  nemotron-dispatch init --yes {cluster} --script train.py --fingerprint SHA256:{'A' * 43} --gate check",
    )
    for flag, takes, words in INIT_QUESTIONS:
        init.add_argument(flag, metavar=takes, help=words)
    either = argparse.BooleanOptionalAction
    init.add_argument(
        "--cancel-closed", action=either, help="cancel a pull request's runs on a cluster when it is closed or a draft (default: yes)"
    )
    init.add_argument("--app", action=either, help="speak as a GitHub App of your own (default: no)")
    init.add_argument(
        "--fingerprint",
        action="append",
        default=[],
        metavar="SHA256:…",
        help="the host's key as the administrators published it; repeatable",
    )
    init.add_argument("--no-host-keys", action="store_true", help="leave the host's keys to the variable CLUSTER_KNOWN_HOSTS")
    init.add_argument("--yes", "-y", action="store_true", help="ask nothing; also so when standard input is no terminal")
    init.add_argument("--force", action="store_true", help="replace files that are there already and different")
    init.add_argument("--labels", action="store_true", help="create the label too; takes GITHUB_TOKEN")
    init.add_argument("--doctor", action=either, default=True, help="check at the end that the profile works (default: yes)")


POLICY_CHECK = """\
Without a COMMENT: says whether .github/dispatch.yml, every profile and every recipe's configuration can be used, and names rules for
profiles that do not exist.

With a COMMENT: says step by step what would become of it, with the rule that decides each step and the line where it stands. Nothing is
submitted. Who comments, and on what, is supposed as the options say; with GITHUB_TOKEN set, --pr given and --role not, GitHub is asked.
Only when the command really runs, the ledger says how many runs are active and how much of a budget is left.
"""
POLICY_EXAMPLES = (
    "policy check --actor bob --role write '/train profile=cluster'",
    "policy check --actor bob --team org/ml --fork --head 0123456789abcdef0123456789abcdef01234567 '/train'",
    "policy check --actor bob --pr 12 '/train plan run.nodes=16'",
    "policy check",
)


def _policy(add: Add) -> None:
    policy = add(
        "policy", "check the policy and the profiles, and explain what it decides and why", "\n  nemotron-dispatch ".join(POLICY_EXAMPLES)
    )
    words = "validate the policy and every profile; with a comment, explain what would become of it"
    actions = policy.add_subparsers(dest="action", required=True, metavar="ACTION", help="`check`")
    check = _action(actions, "check", words, POLICY_CHECK, POLICY_EXAMPLES)
    check.add_argument("comment", nargs="?", metavar="COMMENT", help="the comment's text, quoted: '/train profile=cluster'")
    check.add_argument("--actor", metavar="LOGIN", default="somebody", help="who comments (default: somebody)")
    check.add_argument("--role", metavar="ROLE", help="their role on the repository: read, triage, write, maintain, admin or a custom one")
    check.add_argument(
        "--team", metavar="ORG/TEAM", type=_team, action="append", default=[], help="a team that they are in; may be given again"
    )
    check.add_argument("--pr", metavar="NUMBER", type=_whole, help="the pull request")
    check.add_argument("--head", metavar="SHA", type=_sha, help="its head (default: the commit that the command names)")
    check.add_argument("--fork", action="store_true", help="it comes from a fork")
    check.add_argument("--draft", action="store_true", help="it is a draft")
    check.add_argument("--closed", action="store_true", help="it is closed")


def _action(actions: Actions, name: str, words: str, description: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """A command below another one."""
    return actions.add_parser(
        name,
        help=words,
        description=description,
        epilog="examples:\n" + "\n".join(f"  nemotron-dispatch {example}" for example in examples),
        parents=[_common(inner=True)],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


PROFILE_SHOW = """\
Everything that the profile says, with what it extends and with the runner's variables put in. Values of secrets are not shown.
With recipe=… and run.…=… it is what such a run would get.
"""
PROFILE_EXAMPLES = ("profile show cluster", "profile show dgx-large recipe=pretrain run.nodes=4 --origin")
PROFILE_CONVERT = """\
Between the two forms in which profiles can be written: Nemotron's env.toml, with a section for each, and files profiles/NAME.yaml. Comments
are kept. It is checked that every profile resolves as before; what has no effect here is left out, and said. No file is replaced.
"""
CONVERT_EXAMPLES = ("profile convert", "profile convert env.slurm.toml --out /tmp/profiles", "profile convert --to toml --check")
PROFILE_IMPORT = """\
From a NeMo-Run program to profiles/NAME.yaml: run.SlurmExecutor(…) and the other executors, with their tunnel, packager and variables. The
file is read and not executed. What is not literal is not taken over; a comment says what it was and in which line. No file is replaced.
"""
IMPORT_EXAMPLES = ("profile import infra/executors.py --check", "profile import infra/executors.py:slurm_executor --as cluster")


def _profile(add: Add) -> None:
    examples = "\n  nemotron-dispatch ".join((*PROFILE_EXAMPLES, *CONVERT_EXAMPLES, *IMPORT_EXAMPLES))
    words = "show what a profile resolves to, turn env.toml into profiles/*.yaml and back, or import executors of NeMo-Run"
    profile = add("profile", words, examples)
    actions = profile.add_subparsers(dest="action", required=True, metavar="ACTION", help="`show`, `convert` or `import`")
    show = _action(actions, "show", "print the resolved profile, and on request where each value came from", PROFILE_SHOW, PROFILE_EXAMPLES)
    show.add_argument("name", metavar="NAME", help="the profile")
    show.add_argument("words", nargs="*", metavar="KEY=VALUE", help="recipe=… and run.…=…, laid over the profile")
    show.add_argument(
        "--origin", action="store_true", help="say for each value where it stands, and which profile, recipe or default it is"
    )
    convert = _action(actions, "convert", "turn env.toml into profiles/*.yaml, or back", PROFILE_CONVERT, CONVERT_EXAMPLES)
    convert.add_argument("file", nargs="?", type=Path, metavar="ENV_TOML", help="the file to convert (default: the checkout's env.toml)")
    convert.add_argument(
        "--to", choices=("yaml", "toml"), help="the form that is wanted (default: yaml, or toml where there is no env.toml)"
    )
    convert.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: the checkout)")
    convert.add_argument("--check", action="store_true", help="write nothing, say what would become of it")
    taken = _action(actions, "import", "turn the executors of a NeMo-Run program into profiles", PROFILE_IMPORT, IMPORT_EXAMPLES)
    taken.add_argument("source", metavar="FILE.py[:NAME]", help="the program, and the variable or function that is wanted (default: all)")
    taken.add_argument("--as", dest="called", metavar="NAME", help="the profile's name (default: that of the variable or function)")
    taken.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: the checkout)")
    taken.add_argument("--check", action="store_true", help="write nothing, show what would become of it")


# --------------------------------------------------------------------------- what an option takes


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _number(text: str) -> int:
    if not TASK.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return found


def _sha(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} is not the full SHA of a commit, 40 hex digits")
    return text.lower()


def _team(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not written ORG/TEAM")
    return text
