"""`init`: a checkout and a person (or flags) → workflows, a policy and a profile; the host's keys, once confirmed; what is left to do.

Everything is asked and checked before anything is written, and everything is written or nothing. What comes after that (labels, the
doctor) may fail without taking it back.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dispatcher.action import blank_outputs
from dispatcher.chores import Place, Steps, next_steps, wanted_labels
from dispatcher.effects.assembly import for_terminal, with_forge
from dispatcher.effects.checkout import default_branch, origin_url, top_folder
from dispatcher.effects.hostkeys import scan
from dispatcher.effects.origin import installed_action, repository_on_github
from dispatcher.effects.questions import LATER, NO, YES, Interview, change
from dispatcher.effects.runner import Runner
from dispatcher.effects.writing import write_all
from dispatcher.errors import DispatchError, Exit, InputError, SshError
from dispatcher.inputs import Inputs
from dispatcher.known_hosts import HostKey, name_of
from dispatcher.onboarding import QUESTIONS, gather, read_fingerprint
from dispatcher.scaffold import Setup, setup_files
from dispatcher.world import Outcome

# What training scripts are called, most likely first: only a proposal to somebody who is asked.
SCRIPTS = ("train.py", "main.py", "src/train.py", "scripts/train.py")


@dataclass(frozen=True)
class Plan:
    """Everything decided. `texts` are the files to write; `states` says of every file `written`, `unchanged` or `kept`."""

    setup: Setup
    texts: Mapping[str, str]
    states: Mapping[str, str]
    place: Place
    make_labels: bool


def set_up(arguments: Namespace, inputs: Inputs, runner: Runner) -> Outcome:
    """The whole of `init`. The exit status is the doctor's; 130, and nothing written, when somebody ends it before.

    Raises:
        InputError: `input.missing`, `input.answer`, `input.file-exists`, `input.not-written`.
        SshError: `ssh.unreachable`, `ssh.fingerprint`.
    """
    folder = top_folder(arguments.repo)
    interview = None if arguments.yes or not sys.stdin.isatty() else Interview()
    try:
        plan = _plan(arguments, inputs, folder, interview)
        if plan is None:
            return _nothing_written("declined")
        write_all(folder, plan.texts)
    except (KeyboardInterrupt, EOFError):
        return _nothing_written("interrupted")
    for path, state in plan.states.items():
        runner.say(f"{state:>9}  {path}")
    labelled = _make_labels(plan, inputs, runner, folder) if plan.make_labels else ""
    steps = next_steps(plan.setup, plan.place, labels_made=labelled == "made")
    told = _told(plan, folder, labelled, steps)
    checked = _doctor(plan, inputs, runner, folder) if arguments.doctor else None
    outputs = {**blank_outputs("initialised", checked.outputs["reason-code"] if checked else "written")}
    outputs["result"] = json.dumps({"files": plan.states, "labels": labelled})
    summary = f"{told}\n\n{checked.summary}" if checked else told
    return Outcome(checked.exit if checked else Exit.OK, outputs, summary)


def _nothing_written(reason: str) -> Outcome:
    return Outcome(Exit.INTERRUPTED, blank_outputs("refused", reason), "Nothing was written.")


# --------------------------------------------------------------------------- before anything is written


def _plan(arguments: Namespace, inputs: Inputs, folder: Path, interview: Interview | None) -> Plan | None:
    """Every answer; None when somebody wants none of it after all."""
    flags = {question.name: _flag(getattr(arguments, question.name)) for question in QUESTIONS}
    fingerprints = _fingerprints(arguments)
    given = gather(flags, _found(folder, interview is not None), interview.ask if interview else None)
    setup = Setup(given, _keys(arguments, given, fingerprints, interview))
    texts = setup_files(setup)
    place = Place(repository_on_github(origin_url(folder)) or inputs.github.repository, default_branch(folder))
    states = _states(folder, texts, arguments.force, interview)
    chosen = {path: text for path, text in texts.items() if states[path] == "written"}
    make_labels = _wants_labels(arguments, inputs, interview, setup, place)
    if interview and chosen and not interview.confirm(f"Write {', '.join(chosen)}?", default=True):
        return None
    return Plan(setup, chosen, states, place, make_labels)


def _flag(value: object) -> str | None:
    """A flag as it would be typed as an answer."""
    if isinstance(value, bool):
        return YES if value else NO
    return value if isinstance(value, str) else None


def _found(folder: Path, somebody_looks: bool) -> dict[str, str]:
    """What can be seen without asking. A script is only ever proposed: the wrong one would be run."""
    action = installed_action()
    script = next((name for name in SCRIPTS if (folder / name).is_file()), None) if somebody_looks else None
    return {name: text for name, text in (("action", action and action.uses), ("script", script)) if text}


def _fingerprints(arguments: Namespace) -> list[str]:
    try:
        return [read_fingerprint(text) for text in arguments.fingerprint]
    except ValueError as error:
        raise InputError("input.answer", f"`--fingerprint`: that is {error}.") from None


def _keys(
    arguments: Namespace, given: Mapping[str, object], fingerprints: Sequence[str], interview: Interview | None
) -> tuple[HostKey, ...]:
    """The keys that somebody vouched for; none when that is left for later."""
    if given["executor"] != "slurm" or arguments.no_host_keys:
        if fingerprints:
            raise InputError("input.answer", "`--fingerprint` says nothing here: no host key is looked at.")
        return ()
    if not fingerprints and interview is None:
        words = "Nobody can be asked here whether the host's key is the right one."
        raise InputError("input.missing", words, "Give `--fingerprint SHA256:…` as your administrators published it, or `--no-host-keys`.")
    host, port = str(given["host"]), int(str(given["port"]))
    shown = scan(host, port)
    where = name_of(host, port)
    if fingerprints or interview is None:
        return _confirmed(where, shown, fingerprints)
    verdict = interview.same_as_published(where, shown)
    if verdict == NO:
        raise SshError("ssh.fingerprint", f"{where} does not show what your administrators published. Nothing was written.")
    if verdict == LATER:
        return ()
    return shown if verdict == YES else _confirmed(where, shown, [verdict])


def _confirmed(where: str, shown: Sequence[HostKey], fingerprints: Sequence[str]) -> tuple[HostKey, ...]:
    """Only the keys that were named: one that is right says nothing about another, which came over a connection of its own."""
    seen = {key.fingerprint for key in shown}
    strange = [fingerprint for fingerprint in fingerprints if fingerprint not in seen]
    if strange:
        listed = ", ".join(f"{key.kind} {key.fingerprint}" for key in shown)
        raise SshError("ssh.fingerprint", f"{where} shows {listed}, and not {', '.join(strange)}. Nothing was written.")
    return tuple(key for key in shown if key.fingerprint in fingerprints)


def _states(folder: Path, texts: Mapping[str, str], force: bool, interview: Interview | None) -> dict[str, str]:
    """What is to become of each file. Nothing that is there and different is replaced unless somebody says so."""
    states, different = {}, []
    for path, text in texts.items():
        old = _read(folder / path)
        states[path] = "unchanged" if old == text else "written"
        if old is None or old == text:
            continue
        if interview:
            interview.show_change(path, old, text)
            states[path] = "written" if force or interview.confirm(f"{path} is there already. Replace it?", default=False) else "kept"
        elif not force:
            different.append((path, old, text))
    if different:
        shown = "\n".join(line for path, old, text in different for line in change(path, old, text))
        names = ", ".join(path for path, _, _ in different)
        raise InputError("input.file-exists", f"There already, and different: {names}. Nothing was written.\n{shown}")
    return states


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _wants_labels(arguments: Namespace, inputs: Inputs, interview: Interview | None, setup: Setup, place: Place) -> bool:
    labels = wanted_labels(setup)
    able = bool(inputs.github.token and place.repository)
    if arguments.labels and not able:
        words = "`--labels` speaks to GitHub, which takes GITHUB_TOKEN, and an `origin` on GitHub or GITHUB_REPOSITORY."
        raise InputError("input.missing", words, "Set them, or leave `--labels` out: the commands to type are printed then.")
    if arguments.labels or not (labels and able and interview):
        return bool(arguments.labels and labels)
    return interview.confirm(f"Create the label {labels[0].name} in {place.repository}?", default=True)


# --------------------------------------------------------------------------- afterwards


def _make_labels(plan: Plan, inputs: Inputs, runner: Runner, folder: Path) -> str:
    """`made`, or why not: the files stay in any case."""
    world = for_terminal(inputs, runner, folder)
    world = replace(world, settings=replace(world.settings, repository=plan.place.repository))
    try:
        forge = with_forge(inputs, world).forge
        assert forge is not None
        for label in wanted_labels(plan.setup):
            new = forge.create_label(label)
            runner.say(f"{'made' if new else 'updated':>9}  label {label.name}")
    except DispatchError as error:
        return f"The label was not made. {error.cause} {error.next_step}"
    return "made"


def _doctor(plan: Plan, inputs: Inputs, runner: Runner, folder: Path) -> Outcome:
    """The doctor's report on the new profile; what breaks it is part of the report."""
    from dispatcher.effects.checkup import check_up

    runner.say("Looking whether the profile works ...")
    try:
        return check_up(for_terminal(inputs, runner, folder), inputs, plan.setup.profile)
    except DispatchError as error:
        return Outcome(error.exit, blank_outputs("checked", error.code), f"{error.cause} {error.next_step}")
    except KeyboardInterrupt:
        words = f"The doctor was interrupted: `nemotron-dispatch doctor --profile {plan.setup.profile}` asks again."
        return Outcome(Exit.INTERRUPTED, blank_outputs("checked", "interrupted"), words)


def _told(plan: Plan, folder: Path, labelled: str, steps: Sequence[Steps]) -> str:
    """What was written, and what is left to do, as Markdown."""
    lines = [f"### Set up with the profile `{plan.setup.profile}`", ""]
    lines += [f"- {state}: `{path}`" for path, state in plan.states.items()]
    if labelled == "made":
        lines.append(f"- label: {', '.join(f'`{label.name}`' for label in wanted_labels(plan.setup))}")
    elif labelled:
        lines += ["", labelled]
    script = str(plan.setup.given["script"])
    if not (folder / script).is_file():
        lines += ["", f"`{script}` is not there yet: a run would fail without it."]
    lines += ["", "What is left to do:"]
    for number, step in enumerate(steps, 1):
        lines += ["", f"{number}. {step.title}"]
        lines += ["", f"   {step.words}"] if step.words else []
        if step.lines:
            shown = "\n".join(step.lines).replace("\n", "\n   ")
            lines += ["", "   ```sh", f"   {shown}", "   ```"]
    return "\n".join(lines)
