"""The command line: words → one of the stories, and how it ended → standard output, an exit status, the action's outputs.

Standard output has the result and nothing else (with `--json` exactly one object); progress and errors go to standard error.
A comment that is no command must cost next to nothing, so everything heavy is imported where it is needed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dispatcher import __version__
from dispatcher.action import blank_outputs
from dispatcher.effects.runner import Runner
from dispatcher.errors import DispatchError, Exit
from dispatcher.inputs import Inputs, read_event, read_inputs

if TYPE_CHECKING:
    from dispatcher.effects.compiler import CompilerProcess
    from dispatcher.world import Outcome, World

EXITS = "\n".join(f"  {item.value:>3}  {item.name.lower().replace('_', ' ')}" for item in Exit)


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point. Never a traceback for what a user did; always one with `--debug`."""
    arguments = parser().parse_args(argv)
    # GitHub ends a cancelled job with SIGINT and then SIGTERM: both mean the same, and the lock must be given back.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runner = Runner(None, None, in_actions=False)
    try:
        inputs = read_inputs()
        runner = Runner(inputs.github.output_file, inputs.github.summary_file, inputs.github.in_actions)
        story: Callable[[argparse.Namespace, Inputs, Runner], tuple[int, Mapping[str, str], str]] = arguments.story
        code, outputs, summary = story(arguments, inputs, runner)
        runner.outputs(outputs)
        if summary:
            runner.summary(summary)
        _print(arguments, outputs, summary, inputs)
        if code != Exit.OK and inputs.github.in_actions:
            runner.error(outputs.get("reason-code", ""), plain(summary))
        return code
    except DispatchError as error:
        return _broken(arguments, runner, error)
    except KeyboardInterrupt:
        print("Interrupted. What was submitted goes on; `nemotron-dispatch status` finds it again.", file=sys.stderr)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return Exit.OK
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        words = f"{type(error).__name__}: {error}"
        print(f"This is a bug in nemotron-dispatch: {words}\nRun it again with --debug and report what it prints.", file=sys.stderr)
        told = blank_outputs("refused", "bug")
        runner.outputs(told)
        if arguments.json:
            print(json.dumps({**told, "result": {}, "summary": words}, ensure_ascii=False))
        return Exit.BUG


def parser() -> argparse.ArgumentParser:
    """Every command with its words; `docs/cli.md` is made from this."""
    top = argparse.ArgumentParser(
        prog="nemotron-dispatch",
        description="Comment /train on a pull request: a NeMo-Run job on Slurm, its log and result in the pull request, a merge gate.",
        epilog=f"exit status:\n{EXITS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object on standard output, everything else on standard error")
    common.add_argument("--debug", action="store_true", help="show a traceback when something breaks")
    common.add_argument("--repo", type=Path, default=Path(), metavar="DIR", help="the checkout to work in (default: the current folder)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, story: Callable[..., object], words: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=words,
            description=words[0].upper() + words[1:] + ".",
            epilog=f"example:\n  {example}",
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(story=story)
        return sub

    handle = add("handle", _handle, "answer one GitHub event, as the action does", "nemotron-dispatch handle --event event.json")
    handle.add_argument("--event", metavar="FILE", help="the payload (default: $GITHUB_EVENT_PATH)")
    handle.add_argument("--event-name", metavar="NAME", help="for example issue_comment (default: $GITHUB_EVENT_NAME)")
    for name, words in (
        ("plan", "show what would run: the resolved profile, the packed files, the script; submits nothing"),
        ("submit", "run a commit of this checkout"),
    ):
        sub = add(name, _ask, words, f"nemotron-dispatch {name} profile=slurm recipe=default train.iters=200")
        sub.add_argument("words", nargs="*", metavar="KEY=VALUE", help="profile=…, recipe=… and overrides")
        sub.add_argument("--commit", default="HEAD", help="what to run (default: HEAD); uncommitted changes do not travel")
        if name == "submit":
            sub.add_argument(
                "--wait", action=argparse.BooleanOptionalAction, help="follow the run to its end (default: as the profile says)"
            )
            sub.add_argument("--request", metavar="NAME", help="name this request: the same name and words again find the same run")
    status = add(
        "status", _status, "show one run, or what is active and what ran on this commit", "nemotron-dispatch status 4f1c2d3e4f5a6b7c"
    )
    status.add_argument("run", nargs="?", help="a run key, or the beginning of an active run's")
    status.add_argument("--commit", default="HEAD", help="list the runs of this commit (default: HEAD)")
    logs = add("logs", _logs, "print a run's log", "nemotron-dispatch logs 4f1c --follow")
    logs.add_argument("run", help="a run key, or the beginning of an active run's")
    logs.add_argument("--follow", "-f", action="store_true", help="go on until the run has ended")
    logs.add_argument("--lines", "-n", type=int, default=200, help="how many of the last lines (default: 200)")
    cancel = add("cancel", _cancel, "end a run's job", "nemotron-dispatch cancel 4f1c2d3e4f5a6b7c")
    cancel.add_argument("run", help="a run key, or the beginning of an active run's")
    watch = add("watch", _watch, "look at every active run once and report what changed", "nemotron-dispatch watch --follow")
    watch.add_argument("--follow", action="store_true", help="look again and again until nothing is active")
    watch.add_argument("--interval", type=float, default=60.0, metavar="SECONDS", help="between two looks with --follow (default: 60)")
    gate = add("gate", _gate, "judge a pull request's required runs and write the check dispatch/gate", "nemotron-dispatch gate 12")
    gate.add_argument("number", type=int, nargs="?", help="the pull request (default: the event's)")
    doctor = add(
        "doctor",
        _doctor,
        "check that a profile works: key, host key, scheduler, account, folder",
        "nemotron-dispatch doctor --profile slurm",
    )
    doctor.add_argument("--profile", help="which one (default: the policy's default)")
    demo = add("demo", _demo, "run the whole story here: a small repository, a comment, a training run, a gate", "nemotron-dispatch demo")
    demo.add_argument("--keep", metavar="DIR", type=Path, help="leave the demo's repository and ledger in this folder")
    return top


# ---------------------------------------------------------------- stories: (arguments, inputs, runner) → (exit, outputs, summary)

Told = tuple[int, Mapping[str, str], str]


def _handle(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.command import Ignored
    from dispatcher.glance import glance

    event, command = glance(inputs, arguments.event_name, arguments.event)
    if isinstance(command, Ignored):
        # No policy, no network, nothing imported: most comments end here.
        runner.say(f"Nothing to do: {command.reason}.")
        return Exit.OK, blank_outputs("ignored", command.reason), ""
    from dispatcher.effects.assembly import for_github
    from dispatcher.flow import handle

    return _told(handle(event, for_github(inputs, runner, getattr(event, "default_branch", ""))))


def _ask(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.effects.compiler import CompilerProcess

    compiler = CompilerProcess()
    try:
        compiler.start()  # the longest step of all begins before even our own imports
        return _told(_asked(arguments, inputs, runner, compiler))
    finally:
        compiler.close()


def _asked(arguments: argparse.Namespace, inputs: Inputs, runner: Runner, compiler: CompilerProcess) -> Outcome:
    from dataclasses import replace
    from uuid import uuid4

    from dispatcher.configuration import read_policy
    from dispatcher.effects.assembly import commit_at, for_terminal, top_folder, uncommitted
    from dispatcher.terminal import ask

    folder = top_folder(arguments.repo)
    dry = arguments.command == "plan"
    wait = getattr(arguments, "wait", None)
    world = for_terminal(inputs if wait is None else replace(inputs, wait_word=str(wait)), runner, folder, compiler)
    sha = commit_at(folder, arguments.commit)
    if uncommitted(folder):
        runner.say("There are uncommitted changes; they do not travel. What runs is the commit.")
    request = getattr(arguments, "request", None) or uuid4().hex
    return ask(world, read_policy(world), arguments.words, sha, _user(inputs), request, dry)


def _status(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.configuration import read_policy
    from dispatcher.effects.assembly import commit_at, for_terminal, top_folder
    from dispatcher.terminal import status

    folder = top_folder(arguments.repo)
    world = for_terminal(inputs, runner, folder)
    return _told(status(world, read_policy(world), commit_at(folder, arguments.commit), arguments.run))


def _logs(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.configuration import read_policy
    from dispatcher.effects.assembly import for_terminal, top_folder
    from dispatcher.terminal import logs

    runner.log_to_stdout = not arguments.json
    world = for_terminal(inputs, runner, top_folder(arguments.repo))
    return _told(logs(world, read_policy(world), arguments.run, arguments.lines, arguments.follow))


def _cancel(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.configuration import read_policy
    from dispatcher.effects.assembly import for_terminal, top_folder
    from dispatcher.terminal import cancel

    world = for_terminal(inputs, runner, top_folder(arguments.repo))
    return _told(cancel(world, read_policy(world), arguments.run))


def _watch(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.configuration import read_policy
    from dispatcher.watching import watch

    world = _somewhere(arguments, inputs, runner)
    return _told(watch(world, read_policy(world), arguments.follow or bool(inputs.wait), arguments.interval))


def _gate(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.configuration import read_policy
    from dispatcher.errors import InputError
    from dispatcher.event import MergeGroupEvent
    from dispatcher.gatekeeper import evaluate_gate, evaluate_merge_group
    from dispatcher.glance import glance

    world = _somewhere(arguments, inputs, runner)
    if world.forge is None:
        raise InputError(
            "input.missing", "GITHUB_TOKEN is not set.", "A gate is a check on GitHub: set GITHUB_TOKEN and GITHUB_REPOSITORY."
        )
    event = glance(inputs)[0] if arguments.number is None and inputs.github.event_path else None
    if isinstance(event, MergeGroupEvent):
        return _told(evaluate_merge_group(world, read_policy(world), event))
    number = arguments.number or getattr(event, "number", None)
    if number is None:
        raise InputError("input.missing", "No pull request was named, and the event has none.", "Name one: `nemotron-dispatch gate 12`.")
    return _told(evaluate_gate(world, read_policy(world), number))


def _doctor(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.effects.assembly import for_terminal, top_folder
    from dispatcher.effects.checkup import check_up

    world = for_terminal(inputs, runner, top_folder(arguments.repo))
    return _told(check_up(world, inputs, arguments.profile))


def _demo(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.effects.demo import run_demo

    return _told(run_demo(inputs, runner, arguments.keep, quiet=arguments.json))


# --------------------------------------------------------------------------- how it is told


def _somewhere(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> World:
    """In Actions the default branch's policy counts, in a checkout the folder's; GitHub is spoken to wherever there is a token."""
    from dispatcher.effects.assembly import for_github, for_terminal, top_folder, with_forge

    if inputs.github.in_actions:
        event = read_event(inputs.github.event_path) if inputs.github.event_path else {}
        repository = event.get("repository")
        branch = repository.get("default_branch") if isinstance(repository, dict) else None
        return for_github(inputs, runner, branch if isinstance(branch, str) else "")
    return with_forge(inputs, for_terminal(inputs, runner, top_folder(arguments.repo)))


def _told(ended: Outcome) -> Told:
    return int(ended.exit), ended.outputs, ended.summary


def _user(inputs: Inputs) -> str:
    return inputs.environment.get("USER") or inputs.environment.get("LOGNAME") or "terminal"


def _print(arguments: argparse.Namespace, outputs: Mapping[str, str], summary: str, inputs: Inputs) -> None:
    if arguments.json:
        document: dict[str, object] = {**outputs, "summary": summary}
        document["result"] = json.loads(outputs.get("result") or "{}")
        print(json.dumps(document, ensure_ascii=False))
    elif summary and not inputs.github.in_actions:
        from dispatcher.effects.console import show_markdown

        show_markdown(summary)


def plain(markdown: str) -> str:
    """The first lines of what was said, without markup: enough for the log of the step."""
    lines = [
        line.lstrip("# ").replace("**", "") for line in markdown.splitlines() if line.strip() and not line.startswith(("|", "<", "```"))
    ]
    return "\n".join(lines[:4])


def _broken(arguments: argparse.Namespace, runner: Runner, error: DispatchError) -> int:
    if arguments.debug:
        traceback.print_exc()
    words = f"{error.cause}\nNext: {error.next_step}"
    told = blank_outputs("refused", error.code)
    runner.outputs(told)
    runner.error(error.code, words)
    if arguments.json:
        print(json.dumps({**told, "result": {}, "summary": words}, ensure_ascii=False))
    return int(error.exit)


if __name__ == "__main__":
    raise SystemExit(main())
