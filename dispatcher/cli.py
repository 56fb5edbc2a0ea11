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
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from dispatcher.action import blank_outputs
from dispatcher.arguments import parser
from dispatcher.effects.runner import Runner
from dispatcher.errors import DispatchError, Exit
from dispatcher.inputs import Inputs, read_event, read_inputs

if TYPE_CHECKING:
    from dispatcher.effects.compiler import CompilerProcess
    from dispatcher.world import Outcome, World


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point. Never a traceback for what a user did; always one with `--debug`."""
    arguments = parser().parse_args(argv)
    # GitHub ends a cancelled job with SIGINT and then SIGTERM: both mean the same, and the lock must be given back.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runner = Runner(None, None, in_actions=False)
    try:
        inputs = read_inputs()
        runner = Runner(inputs.github.output_file, inputs.github.summary_file, inputs.github.in_actions)
        code, outputs, summary = STORIES[arguments.command](arguments, inputs, runner)
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

    return _told(handle(event, for_github(_with_logs(arguments, inputs), runner, getattr(event, "default_branch", ""))))


def _ask(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.effects.compiler import CompilerProcess

    compiler = CompilerProcess()
    try:
        compiler.start()  # the longest step of all begins before even our own imports
        return _told(_asked(arguments, inputs, runner, compiler))
    finally:
        compiler.close()


def _asked(arguments: argparse.Namespace, inputs: Inputs, runner: Runner, compiler: CompilerProcess) -> Outcome:
    from uuid import uuid4

    from dispatcher.configuration import read_policy
    from dispatcher.effects.assembly import for_terminal
    from dispatcher.effects.checkout import commit_at, top_folder, uncommitted
    from dispatcher.errors import InputError
    from dispatcher.terminal import ask

    folder = top_folder(arguments.repo)
    dry = arguments.command == "plan"
    wait = getattr(arguments, "wait", None)
    if arguments.working_folder and inputs.github.in_actions:
        raise InputError("input.working-folder", "`--working-folder` was given in a workflow.")
    world = for_terminal(
        inputs if wait is None else replace(inputs, wait_word=str(wait)), runner, folder, compiler, arguments.working_folder, arguments.repo
    )
    sha = commit_at(folder, arguments.commit)
    if not arguments.working_folder and uncommitted(folder):
        runner.say("There are uncommitted changes; they do not travel. What runs is the commit, without `--working-folder`.")
    request = getattr(arguments, "request", None) or uuid4().hex
    return ask(world, read_policy(world), arguments.words, sha, _user(inputs), request, dry)


def _status(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.configuration import read_policy
    from dispatcher.effects.assembly import for_terminal
    from dispatcher.effects.checkout import commit_at, top_folder
    from dispatcher.terminal import status

    folder = top_folder(arguments.repo)
    world = for_terminal(inputs, runner, folder, start=arguments.repo)
    return _told(status(world, read_policy(world), commit_at(folder, arguments.commit), arguments.run))


def _logs(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.configuration import read_policy
    from dispatcher.effects.assembly import for_terminal
    from dispatcher.effects.checkout import top_folder
    from dispatcher.terminal import logs

    runner.log_to_stdout = not arguments.json
    world = for_terminal(inputs, runner, top_folder(arguments.repo), start=arguments.repo)
    if arguments.output is not None:
        from dispatcher.effects.logfile import LogFile
        from dispatcher.keeping import keep_log

        policy, keep = read_policy(world), partial(LogFile, arguments.output)
        return _told(keep_log(world, policy, arguments.run, arguments.follow, arguments.task, keep))
    return _told(logs(world, read_policy(world), arguments.run, arguments.lines, arguments.follow, arguments.task))


def _history(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.configuration import read_policy
    from dispatcher.effects.assembly import for_terminal
    from dispatcher.effects.checkout import top_folder
    from dispatcher.effects.plotting import check_name, write_plot
    from dispatcher.lookback import recall, told
    from dispatcher.plot import drawing
    from dispatcher.world import Outcome

    if arguments.plot is not None:
        check_name(arguments.plot)
    world = for_terminal(inputs, runner, top_folder(arguments.repo), start=arguments.repo)
    found = recall(world, read_policy(world), arguments.profile, arguments.recipe, arguments.metric, arguments.lines)
    if isinstance(found, Outcome):
        return _told(found)
    plotted = next((name for name in found.metrics if found.values(name)), None)
    if arguments.plot is not None and plotted is not None:
        write_plot(arguments.plot, drawing(found, plotted))
        runner.say(f"{plotted} is plotted in {arguments.plot}.")
    elif arguments.plot is not None:
        runner.say(f"Nothing is plotted, and {arguments.plot} is not written: no run is remembered that measured something.")
    return _told(told(found, world))


def _cancel(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.configuration import read_policy
    from dispatcher.effects.assembly import for_terminal
    from dispatcher.effects.checkout import top_folder
    from dispatcher.terminal import cancel

    world = for_terminal(inputs, runner, top_folder(arguments.repo), start=arguments.repo)
    return _told(cancel(world, read_policy(world), arguments.run))


def _watch(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.configuration import read_policy
    from dispatcher.watching import watch

    world = _somewhere(arguments, _with_logs(arguments, inputs), runner)
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
    from dispatcher.effects.assembly import for_terminal
    from dispatcher.effects.checkout import top_folder
    from dispatcher.effects.checkup import check_up

    world = for_terminal(inputs, runner, top_folder(arguments.repo), start=arguments.repo)
    return _told(check_up(world, inputs, arguments.profile))


def _demo(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.effects.demo import run_demo

    return _told(run_demo(inputs, runner, arguments.keep, quiet=arguments.json))


def _init(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.effects.init import set_up

    return _told(set_up(arguments, inputs, runner))


def _policy(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.checking import Supposed, check_command, check_files
    from dispatcher.effects.assembly import for_terminal, with_forge
    from dispatcher.effects.checkout import top_folder

    world = for_terminal(inputs, runner, top_folder(arguments.repo), start=arguments.repo)
    if arguments.comment is None:
        return _told(check_files(world))
    supposed = Supposed(
        arguments.actor,
        arguments.role,
        tuple(arguments.team),
        arguments.pr,
        arguments.head or "",
        arguments.fork,
        arguments.draft,
        arguments.closed,
    )
    asks = arguments.pr is not None and arguments.role is None
    return _told(check_command(with_forge(inputs, world) if asks else world, supposed, arguments.comment))


def _profile(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> Told:
    from dispatcher.configuration import env_file
    from dispatcher.effects.assembly import for_terminal
    from dispatcher.effects.checkout import top_folder

    folder = top_folder(arguments.repo)
    world = for_terminal(inputs, runner, folder, start=arguments.repo)
    if arguments.action == "convert":
        from dispatcher.effects.converting import Job, convert

        return _told(convert(Job(folder, env_file(world), arguments.file, arguments.to, arguments.out, arguments.check)))
    if arguments.action == "import":
        from dispatcher.effects import importing

        job = importing.Job(folder, arguments.source, arguments.called, arguments.out, arguments.check)
        return _told(importing.import_profiles(job, world.settings.environment))
    from dispatcher.showing import show

    return _told(show(world, arguments.name, arguments.words, arguments.origin))


STORIES: Mapping[str, Callable[[argparse.Namespace, Inputs, Runner], Told]] = {
    "handle": _handle,
    "plan": _ask,
    "submit": _ask,
    "status": _status,
    "logs": _logs,
    "history": _history,
    "cancel": _cancel,
    "watch": _watch,
    "gate": _gate,
    "doctor": _doctor,
    "demo": _demo,
    "init": _init,
    "policy": _policy,
    "profile": _profile,
}


# --------------------------------------------------------------------------- how it is told


def _somewhere(arguments: argparse.Namespace, inputs: Inputs, runner: Runner) -> World:
    """In Actions the default branch's policy counts, in a checkout the folder's; GitHub is spoken to wherever there is a token."""
    from dispatcher.effects.assembly import for_github, for_terminal, with_forge
    from dispatcher.effects.checkout import top_folder

    if inputs.github.in_actions:
        event = read_event(inputs.github.event_path) if inputs.github.event_path else {}
        repository = event.get("repository")
        branch = repository.get("default_branch") if isinstance(repository, dict) else None
        return for_github(inputs, runner, branch if isinstance(branch, str) else "")
    return with_forge(inputs, for_terminal(inputs, runner, top_folder(arguments.repo), start=arguments.repo))


def _with_logs(arguments: argparse.Namespace, inputs: Inputs) -> Inputs:
    """With the folder that was named on the command line."""
    return inputs if arguments.log_folder is None else replace(inputs, log_folder=str(arguments.log_folder))


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
